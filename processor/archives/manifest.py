"""Manifest of a recorded archive: archive.manifest.json, at its root, lists the offsets and files that it holds.

`begin` writes it before the first record, with the offsets that are to be recorded and `complete: false`; `finish`
writes it after the last file is on disk. An archive that was cut short while it was recorded, or lost a file later,
therefore differs from its own manifest (`lacking`). An archive without a manifest is read as it is.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from processor.archives.label import MANIFEST, roots
from processor.archives.reading import recorded_files
from processor.archives.records import MAX_OFFSET, MAX_PARTITION, Partition, is_topic, printable, refused
from processor.errors import UsageError

_VERSION: Final = 1
_LONGEST_BYTES: Final = 64 << 20
_LOCK_S: Final = 10.0
_LOOK_S: Final = 0.02


class Held(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One partition: offsets [begin, end), the names of its files, whether its recording came to its end."""

    topic: str
    partition: int
    begin: int
    end: int
    complete: bool
    files: list[str]


class _Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: int = msgspec.field(name="run-steps archive manifest")
    complete: bool = False
    partitions: list[Held] = []


class Lacking(msgspec.Struct, frozen=True):
    """A partition of which an archive does not hold what its manifest says.

    Args:
        there: offsets [begin, end) that it reaches over; None if nothing is there.
        missing: offsets [first, behind) that are not there.
        absent: names of files that are not there.
    """

    held: Held
    there: tuple[int, int] | None
    missing: tuple[tuple[int, int], ...]
    absent: tuple[str, ...]

    def __str__(self) -> str:
        held = self.held
        parts = [] if held.complete else ["its recording was not completed"]
        if self.missing:
            spans = " and ".join(f"{first} to {behind - 1}" for first, behind in self.missing)
            parts.append(f"offsets {spans} are not there")
        if self.absent:
            more = "" if len(self.absent) == 1 else f" and {len(self.absent) - 1} more"
            parts.append(f"file {printable(self.absent[0], 60)}{more} is not there")
        what = f"manifest of {held.topic}-{held.partition} names offsets {held.begin} to {held.end - 1}"
        return f"{what}: {'; '.join(parts)}"


def begin(folder: Path, ranges: Mapping[Partition, tuple[int, int]]) -> None:
    """Write that these offsets [begin, end) of these partitions are being recorded.

    Offsets of an earlier recording stay in the manifest: recording again does not excuse a lost file.
    """
    with _locked(folder):
        known = _known(folder)
        for key, (first, behind) in ranges.items():
            if first >= behind:
                continue
            old = known.get(key)
            if old is None:
                files = recorded_files(folder / key[0] / str(key[1]))
                first = min(first, *(at for at, _ in files)) if files else first
                known[key] = Held(*key, first, behind, False, [file.name for _, file in files])
            elif not (old.complete and old.begin <= first and behind <= old.end):
                known[key] = msgspec.structs.replace(
                    old, begin=min(old.begin, first), end=max(old.end, behind), complete=False
                )
        _write(folder, known)


def finish(folder: Path, partitions: Collection[Partition]) -> None:
    """Write that these partitions are recorded. Call it when every recorder is closed."""
    with _locked(folder):
        known = _known(folder)
        for key in partitions:
            if key in known:
                there = [file.name for _, file in recorded_files(folder / key[0] / str(key[1]))]
                files = sorted({*known[key].files, *there})
                known[key] = msgspec.structs.replace(known[key], complete=True, files=files)
        _write(folder, known)


def read_manifest(folder: Path) -> list[Held]:
    """Partitions in the manifest of an archive; empty without a manifest.

    Raises:
        ArchiveError: the manifest is not one that this program wrote.
    """
    path = folder / MANIFEST
    if not path.is_file():  # without the label beside it, too: a copy that lost one file may have lost others
        return []
    try:
        with path.open("rb") as file:
            text = file.read(_LONGEST_BYTES + 1)
        if len(text) > _LONGEST_BYTES:
            raise refused(path, "", f"longer than {_LONGEST_BYTES} bytes")
        found = msgspec.json.decode(text, type=_Manifest)
    except OSError as exc:
        raise refused(path, "", f"cannot be read ({exc.strerror or exc})") from exc
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise refused(path, "", "not the manifest of an archive", hint="the file is damaged; fetch it again") from exc
    if found.version != _VERSION:
        raise refused(path, "", f"made by another version (got {found.version})")
    for held in found.partitions:
        if not is_topic(held.topic) or not 0 <= held.partition <= MAX_PARTITION:
            raise refused(path, "", f"not a topic and partition (got {held.topic!r}, {held.partition})")
        if not 0 <= held.begin <= held.end <= MAX_OFFSET:
            raise refused(path, "", f"not a range of offsets (got {held.begin} to {held.end})")
    return found.partitions


def held_within(path: Path) -> list[tuple[Path, Held]]:
    """What manifests name of a path, each with the root of its archive: of all recorded archives in a folder, or of a
    folder inside of one. A single file was chosen, and nothing says that others belong to it."""
    whole = path.absolute()
    return [
        (root, held)
        for root in ([] if path.is_file() else roots(path))
        for held in read_manifest(root)
        if whole in (own := root.absolute() / held.topic / str(held.partition)).parents or whole == own
    ]


def lacking(folder: Path, reached: Mapping[Partition, tuple[int, int]]) -> list[Lacking]:
    """The partitions of which `reached` (see `reach`) is less than the manifest says, or that are not complete."""
    found = []
    for root, held in held_within(folder):
        there = reached.get((held.topic, held.partition))
        missing = []
        if there is None:
            missing = [(held.begin, held.end)] if held.begin < held.end else []
        else:
            if held.begin < there[0]:
                missing.append((held.begin, there[0]))
            if there[1] < held.end:
                missing.append((there[1], held.end))
        present = {file.name: first for first, file in recorded_files(root / held.topic / str(held.partition))}
        absent = tuple(name for name in held.files if name not in present)
        firsts = sorted({*present.values(), *(at for name in held.files if (at := _first(name)) is not None)})
        for name in absent:
            at = _first(name)
            if there is not None and at is not None and there[0] < at < there[1]:
                missing.append((at, firsts[firsts.index(at) + 1]))
        if missing or absent or not held.complete:
            found.append(Lacking(held, there, tuple(sorted(missing)), absent))
    return found


def _first(name: str) -> int | None:
    stem = name.partition(".")[0]
    return int(stem) if stem.isascii() and stem.isdigit() and len(stem) <= 20 else None


def _known(folder: Path) -> dict[Partition, Held]:
    return {(held.topic, held.partition): held for held in read_manifest(folder)}


def _write(folder: Path, known: Mapping[Partition, Held]) -> None:
    partitions = [known[key] for key in sorted(known)]
    manifest = _Manifest(_VERSION, all(held.complete for held in partitions), partitions)
    part = folder / f"{MANIFEST}.part"
    with part.open("wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    part.replace(folder / MANIFEST)
    flush_folder(folder)


def flush_folder(folder: Path) -> None:
    """The new name itself must survive a power cut."""
    if sys.platform == "win32":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock against another recording that changes the manifest at the same moment."""
    if sys.platform == "win32":
        yield
        return
    import fcntl

    handle, until = os.open(folder, os.O_RDONLY), time.monotonic() + _LOCK_S
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as exc:
                if time.monotonic() > until:
                    raise UsageError(
                        f"archive {folder}: its manifest is locked by another recording (waited {_LOCK_S:.0f} s)",
                        hint="one recording at a time; or the file system has no locks",
                    ) from exc
                time.sleep(_LOOK_S)
        yield
    finally:
        os.close(handle)
