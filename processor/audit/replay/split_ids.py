"""Find the runs and steps that stand on more than one partition of the source, in memory that does not grow with them.

All events of a run must have one partition. Where producers do not partition alike, each partition has a life of the
run's steps, with an end of its own, and each is judged for itself. A task writes the ids that it has met into sorted
files; they are merged when all tasks have ended.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from heapq import merge
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import msgspec

from processor.audit.judge.split import PLACES, Split

_HELD: Final = 1 << 16
"""Ids that are held in memory before they are written."""
_OPEN_FILES: Final = 64
"""Files that are merged at a time."""
_STEP: Final = b"step "
_RUN: Final = b"run "


class IdWriter:
    """Writes the ids of one partition's steps and their runs: a line for each, sorted, with the partition behind it."""

    def __init__(self, folder: Path, partition: int) -> None:
        self._folder, self._partition = folder, partition
        self._lines: set[bytes] = set()
        self._files: list[str] = []
        self._run_id: Any = None
        """The run that was noted last: the steps of a run often end one after the other."""

    def note(self, step_id: str, run_id: Any) -> None:
        """A step, and the run that it names, if it names one."""
        self._lines.add(_STEP + _line(step_id))
        if run_id != self._run_id and isinstance(run_id, str) and run_id:
            self._lines.add(_RUN + _line(run_id))
            self._run_id = run_id
        if len(self._lines) >= _HELD:
            self._write()

    def close(self) -> tuple[str, ...]:
        """Write what is held; returns the paths of the files."""
        self._write()
        return tuple(self._files)

    def _write(self) -> None:
        if not self._lines:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        # A name of its own each time: an executor may run a task twice, even at once.
        path = self._folder / f"{self._partition:05d}-{uuid4().hex}"
        partition = b"\t%d\n" % self._partition
        path.write_bytes(b"".join([line + partition for line in sorted(self._lines)]))
        self._files.append(str(path))
        self._lines.clear()


def _line(name: str) -> bytes:
    """An id as JSON: without a tab or a line end in it, whatever it holds."""
    return _encode(name if name.isascii() else name.encode("utf-8", "backslashreplace").decode())


_encode: Final = msgspec.json.Encoder().encode


def split_among(files: Sequence[str]) -> Split:
    """Merge the files of all partitions, and count what stands on more than one of them."""
    parts = list(files)
    while len(parts) > _OPEN_FILES:
        now, parts = parts[:_OPEN_FILES], parts[_OPEN_FILES:]
        merged = Path(now[0]).with_name(f"merged-{uuid4().hex}")
        with merged.open("wb") as file, ExitStack() as exits:
            file.writelines(_merged(now, exits))
        parts.append(str(merged))
    steps = runs = 0
    first: dict[bytes, dict[str, list[int]]] = {_STEP: {}, _RUN: {}}
    with ExitStack() as exits:
        for name, partitions in _on_several(_merged(parts, exits)):
            kind = _STEP if name.startswith(_STEP) else _RUN
            steps, runs = steps + (kind is _STEP), runs + (kind is _RUN)
            if len(first[kind]) < PLACES:
                first[kind][msgspec.json.decode(name[len(kind) :], type=str)] = partitions
    return Split(steps=steps, runs=runs, first_steps=first[_STEP], first_runs=first[_RUN])


def _merged(files: Iterable[str], exits: ExitStack) -> Iterator[bytes]:
    return merge(*[exits.enter_context(open(file, "rb")) for file in files])


def _on_several(lines: Iterable[bytes]) -> Iterator[tuple[bytes, list[int]]]:
    """Each id that stands on more than one partition, with all of them, ascending. Nearly all ids stand on one."""
    name, place = b"", b""
    places: set[bytes] = set()
    for line in lines:
        at = line.index(b"\t")
        if line[:at] != name:
            if places:
                yield name, sorted(map(int, places))
                places = set()
            name, place = line[:at], line[at:]
        elif line[at:] != place:
            places |= {place, line[at:]}
    if places:
        yield name, sorted(map(int, places))
