"""An earlier version of the program: the wheel of a commit, installed in an environment of its own."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path
from typing import Final, NoReturn

import pytest

from tests.source_archive import unpack_archive

REVISION: Final = "4e4a4b6ffe15fd9b7efebec8ec8c2e9f3e906079"
"""The last commit of fold version 1: checkpoints without a fold version, no Responses streams."""

_ROOT: Final = Path(__file__).parents[1]


def command_of_earlier_version(room: Path, revision: str = REVISION) -> tuple[str, ...]:
    """Build the wheel of a commit and install it beside the libraries of this environment.

    Without the commit (a shallow clone, a source archive) the test is skipped, on CI (env CI=true) failed.

    Returns:
        The beginning of a command line that runs that version's modules, wherever it is run.
    """
    archived = subprocess.run(["git", "-C", _ROOT, "archive", revision], capture_output=True)
    if archived.returncode:
        _cannot(f"commit {revision} of the earlier version is not in this clone: git fetch --unshallow")
    source = room / "source"
    with tarfile.open(fileobj=io.BytesIO(archived.stdout)) as files:
        unpack_archive(files, source)
    _run("pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(room), str(source))
    (wheel,) = room.glob("*.whl")
    environment = room / "environment"
    _run("venv", "--without-pip", str(environment))
    python = environment / "bin" / "python"
    _run("pip", "--python", str(python), "install", "--no-deps", "--no-index", str(wheel))
    paths = {"base": str(environment), "platbase": str(environment)}
    installed = Path(sysconfig.get_path("purelib", "venv", paths))
    # Its libraries are ours: behind its own packages on the path, and without our editable installation.
    (installed / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return str(python), "-P"  # -P: the folder that a test runs in holds this version


def _run(*module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *module],
        env=os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "HATCH_BUILD_HOOKS_ENABLE": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert not done.returncode, done.stdout


def _cannot(reason: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
