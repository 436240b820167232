"""Label and roots of recorded archives: the folders that `replay --record` wrote, with a label and a manifest in each.

A path that is read may be such a root, a folder with several of them in it, or one topic or partition of one. What
label and manifest say of the files counts for each of these.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from processor.archives.records import ArchiveError, refused

LABEL: Final = "archive.json"
"""The file at the root of a recorded archive that says how it is laid out."""

MANIFEST: Final = "archive.manifest.json"
"""The file at the root that says what the archive holds (`manifest`)."""

LAYOUT_VERSION: Final = 1
SUFFIXES: Final = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".avro", ".parquet")
_ARRIVAL: Final = "arrival"
_UNKNOWN: Final = "unknown"
_LEVELS: Final = 3
"""From a root down to its files: topic, partition, file."""


class Label(NamedTuple):
    """The suffix of a recorded archive's files, whether its records have times of arrival (`reading.holds_arrivals`),
    and whether their headers are not known (`reading.lacks_headers`)."""

    suffix: str
    has_arrivals: bool = False
    lacks_headers: bool = False

    def encoded(self) -> str:
        told = {"run-steps archive": LAYOUT_VERSION, "files": self.suffix}
        times = {"times": _ARRIVAL} if self.has_arrivals else {}
        headers = {"headers": _UNKNOWN} if self.lacks_headers else {}
        return json.dumps({**told, **times, **headers}) + "\n"

    def of_both(self, other: Label) -> Label:
        """The label of an archive that has records of either."""
        return Label(self.suffix, self.has_arrivals or other.has_arrivals, self.lacks_headers or other.lacks_headers)


def read_label(path: Path) -> Label:
    """The label of a recorded archive.

    Raises:
        ArchiveError: the label is not one we wrote.
    """
    try:
        with (path / LABEL).open("rb") as file:
            label = json.loads(file.read(4096))
        version, suffix = label["run-steps archive"], label["files"]
        times, headers = label.get("times"), label.get("headers")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
        raise refused(path / LABEL, "", "not the label of an archive") from exc
    if version != LAYOUT_VERSION or suffix not in SUFFIXES:
        raise refused(path / LABEL, "", f"made by another version (got {version!r}, {suffix!r})")
    return Label(str(suffix), times == _ARRIVAL, headers == _UNKNOWN)


def is_root(folder: Path) -> bool:
    """Whether a folder is one that was recorded; a copy may have lost one of the two files."""
    return (folder / LABEL).is_file() or (folder / MANIFEST).is_file()


def roots(path: Path) -> list[Path]:
    """The recorded archives that a path is, has in it, or is a part of."""
    if is_root(path):
        return [path]
    if path.is_dir():
        below = {found.parent for name in (LABEL, MANIFEST) for found in path.rglob(name) if found.is_file()}
        if below := {folder for folder in below if _is_ours(folder)}:
            return sorted(below)
    whole = path.absolute()
    for above in whole.parents[:_LEVELS]:
        if _is_ours(above):
            return [above] if _is_laid_out(whole.relative_to(above).parts, is_file=path.is_file()) else []
    return []


def labels(path: Path) -> Iterator[Label]:
    """The labels of the recorded archives that a path is, has in it, or is a part of.

    Raises:
        ArchiveError: one is not a label that we wrote.
    """
    return (read_label(root) for root in roots(path) if (root / LABEL).is_file())


def _is_ours(folder: Path) -> bool:
    """Whether a folder that was not named is a root: another program may have a file `archive.json`, too."""
    if (folder / MANIFEST).is_file():
        return True
    try:
        return (folder / LABEL).is_file() and bool(read_label(folder))
    except ArchiveError:
        return False


def _is_laid_out(parts: tuple[str, ...], *, is_file: bool) -> bool:
    """Whether a place below a root is one that a recording writes to: a topic, its partition, a file of that."""
    if is_file != (len(parts) == _LEVELS):
        return False
    return len(parts) == 1 or (parts[1].isascii() and parts[1].isdigit())
