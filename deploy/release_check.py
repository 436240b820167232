"""Check what a release must have, and pin the images that it is built from: `make release-check`, `make pin-images`.

    python deploy/release_check.py          exit 1 and every fault, or nothing
    python deploy/release_check.py --pin    ask the registry for the digests (with crane) and write them into the files

An image is pinned if it is named by digest: a tag names another image tomorrow.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
_IMAGES: Final = {
    "Dockerfile": re.compile(r"(?m)^(?P<head>ARG BASE=)(?P<image>\S+)$"),
    "deploy/compose.yaml": re.compile(r"(?m)^(?P<head>\s+image: )(?P<image>(?!run-steps:)\S+)$"),
}
"""File -> where it names an image that is not built here."""
_PINNED: Final = re.compile(r"\S+:\S+@sha256:[0-9a-f]{64}")
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_CONTRACTS: Final = ("asyncapi.json", "published-step.schema.json")


def faults(root: Path) -> Iterator[str]:
    """What keeps this tree from being released: a line each, with the remedy."""
    for name, pattern in _IMAGES.items():
        found = [match["image"] for match in pattern.finditer((root / name).read_text("utf-8"))]
        if not found:
            yield f"{name}: names no image where one is expected"
        for image in found:
            if not _PINNED.fullmatch(image):
                yield f"{name}: {image} is not pinned by digest: make pin-images"
    for number, line in enumerate((root / "Dockerfile").read_text("utf-8").splitlines(), 1):
        if line.startswith("FROM ") and not line.startswith("FROM ${BASE}"):
            yield f"Dockerfile:{number}: {line}: build every stage from ${{BASE}}, which is pinned"
    yield from _of_versions(root)


def _of_versions(root: Path) -> Iterator[str]:
    version = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    for name, pattern in (
        ("Dockerfile", r"(?m)^ARG VERSION=(\S+)$"),
        ("deploy/helm/run-steps/Chart.yaml", r'(?m)^appVersion: "?([^"\s]+)"?$'),
        ("deploy/compose.yaml", r"(?m)^\s+image: run-steps:(\S+)$"),
    ):
        stated = re.findall(pattern, (root / name).read_text("utf-8"))
        if stated != [version]:
            yield f"{name}: says version {', '.join(stated) or 'nothing'}, pyproject.toml says {version}"
    heads = re.findall(r"(?m)^## (.+)$", (root / "CHANGELOG.md").read_text("utf-8"))
    if not heads or not re.fullmatch(re.escape(version) + r" \(\d{4}-\d\d-\d\d\)", heads[0]):
        head = heads[0] if heads else "nothing"
        yield f"CHANGELOG.md: begins with {head}: name the version and its day, as in {version} (2026-01-31)"
    for name in _CONTRACTS:
        now = json.loads((root / "docs" / "contracts" / name).read_text("utf-8"))
        kept = json.loads((root / "tests" / "contracts" / "released" / name).read_text("utf-8"))
        if now != kept:
            yield f"docs/contracts/{name}: the next release is held against this one: cp it to tests/contracts/released"


def pin(root: Path) -> None:
    """Write the digest of each image behind its tag, as its registry has it now.

    Raises:
        FileNotFoundError: crane is not installed.
        subprocess.CalledProcessError: the registry did not answer; what crane said is on standard error.
    """
    for name, pattern in _IMAGES.items():
        path = root / name
        path.write_text(pattern.sub(_pinned, path.read_text("utf-8")), "utf-8")


def _pinned(match: re.Match[str]) -> str:
    image = match["image"].partition("@")[0]
    done = subprocess.run(["crane", "digest", image], stdout=subprocess.PIPE, check=True, text=True, timeout=120)
    digest = done.stdout.strip()
    if not _DIGEST.fullmatch(digest):
        raise ValueError(f"crane digest {image} answered {digest[:200]!r}")
    return f"{match['head']}{image}@{digest}"


def main(arguments: list[str]) -> int:
    if arguments == ["--pin"]:
        pin(ROOT)
        return 0
    found = list(faults(ROOT))
    for fault in found:
        sys.stderr.write(f"release-check: {fault}\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
