"""`make release-check` and `make pin-images`: a tree that is not fit for a release is told so, fault by fault."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.compiled_wheel import ROOT

FILES: Final = (
    "Dockerfile", "CHANGELOG.md", "pyproject.toml", "deploy/compose.yaml", "deploy/release_check.py",
    "deploy/helm/run-steps/Chart.yaml", "docs/contracts", "tests/contracts/released",
)  # fmt: skip
DIGEST: Final = "sha256:" + "0f" * 32


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """This tree's files, made fit for a release."""
    for name in FILES:
        source, target = ROOT / name, tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    change(tmp_path / "CHANGELOG.md", r"## 0\.1\.0 \(unreleased\)", "## 0.1.0 (2026-12-01)")
    for path in (tmp_path / "docs" / "contracts").glob("*.json"):
        shutil.copy(path, tmp_path / "tests" / "contracts" / "released")
    assert pinned(tmp_path, DIGEST).returncode == 0
    return tmp_path


def change(path: Path, pattern: str, text: str) -> None:
    before = path.read_text("utf-8")
    after = re.sub(pattern, text, before, count=1)
    assert after != before, (path, pattern)
    path.write_text(after, "utf-8")


def run(tree: Path, *arguments: str, path: str = "") -> subprocess.CompletedProcess[str]:
    environ = os.environ | {"PATH": f"{path}:{os.environ['PATH']}"}
    command = [sys.executable, str(tree / "deploy" / "release_check.py"), *arguments]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)


def pinned(tree: Path, answer: str) -> subprocess.CompletedProcess[str]:
    """`--pin` with a crane that answers so: no registry is reached from a test."""
    crane = tree / "bin" / "crane"
    crane.parent.mkdir(exist_ok=True)
    crane.write_text(f"#!/bin/sh\necho '{answer}'\n")
    crane.chmod(0o755)
    return run(tree, "--pin", path=str(crane.parent))


def test_a_tree_that_is_fit_passes(tree: Path) -> None:
    done = run(tree)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"ARG BASE=python:3.11-slim@{DIGEST}\n" in (tree / "Dockerfile").read_text()


@pytest.mark.parametrize(
    ("name", "pattern", "text", "said"),
    [
        ("Dockerfile", r"@sha256:\w+", "", "Dockerfile: python:3.11-slim is not pinned by digest: make pin-images"),
        ("Dockerfile", r"@sha256:\w", "@sha256:", "is not pinned by digest"),
        ("Dockerfile", r"FROM \$\{BASE\} AS", "FROM debian:12 AS", "FROM debian:12 AS build: build every stage from"),
        ("Dockerfile", r"ARG BASE=", "ARG OTHER=", "Dockerfile: names no image where one is expected"),
        ("deploy/compose.yaml", r"(apache/kafka:[\d.]+)@sha256:\w+", r"\1", "deploy/compose.yaml: apache/kafka:"),
        ("Dockerfile", r"ARG VERSION=\S+", "ARG VERSION=0.2.0", "Dockerfile: says version 0.2.0, pyproject.toml says"),
        ("deploy/helm/run-steps/Chart.yaml", r"appVersion: \S+", "appVersion: 9", "Chart.yaml: says version 9"),
        ("CHANGELOG.md", r"## 0\.1\.0 \(2026-12-01\)", "## 0.1.0 (unreleased)", "begins with 0.1.0 (unreleased)"),
        ("docs/contracts/asyncapi.json", r'"step', '"st', "docs/contracts/asyncapi.json: the next release"),
    ],
)
def test_each_fault_is_named(tree: Path, name: str, pattern: str, text: str, said: str) -> None:
    change(tree / name, pattern, text)
    done = run(tree)
    assert done.returncode == 1
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr


def test_pinning_takes_the_new_digest_and_nothing_else(tree: Path) -> None:
    other = "sha256:" + "1e" * 32
    assert pinned(tree, other).returncode == 0
    assert DIGEST not in (tree / "Dockerfile").read_text() + (tree / "deploy" / "compose.yaml").read_text()
    assert run(tree).returncode == 0
    before = (tree / "Dockerfile").read_text()
    done = pinned(tree, "MANIFEST_UNKNOWN")
    assert done.returncode != 0
    assert "crane digest python:3.11-slim answered 'MANIFEST_UNKNOWN'" in done.stderr
    assert (tree / "Dockerfile").read_text() == before
