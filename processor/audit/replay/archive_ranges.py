"""Several archives of one topic: which offsets each holds, and which of them is read for which.

Where two hold the same offsets they must agree, and the one that keeps more of a record is read; of two that keep the
same, the one that begins first. What that one lacks is read from the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from processor.archives import (
    ArchivedRecord,
    Capture,
    Gap,
    Lacking,
    holds_arrivals,
    lacking,
    lacks_headers,
    reach,
    read,
)
from processor.archives.label import roots
from processor.archives.records import printable
from processor.audit.judge.block_digests import framed
from processor.audit.replay.record_sources import HOLES
from processor.audit.replay.task import ArchiveRange
from processor.errors import CorruptLog

_MOST_HOLES: Final = 100
"""Holes of a partition that are read from another archive: each costs another look into both."""

_Span = tuple[int, int]
"""Offsets [begin, end)."""
_Loss = tuple[bool, bool, bool]
"""What an archive does not keep, the worst first: headers; times of the records and headers that repeat a name; a word
on offsets without a record, such as markers."""
_Told = tuple[int, int, bytes | None]
"""First and last offset, and the record there; None: there is none (a marker, an aborted record)."""


class _Hole(NamedTuple):
    """Offsets [begin, end) that an archive lacks where another one says what they hold."""

    path: str
    other: str
    begin: int
    end: int


class Laid(NamedTuple):
    """Archives that are read for a range, in the order of offsets, and notes for the report."""

    parts: list[ArchiveRange]
    notes: list[str]


class Archives:
    """The archives of a topic.

    Args:
        show: is called with the path of each archive before it is surveyed.

    Attributes:
        ranges: partition -> the offsets that archives hold.
        lacking: partition -> archives that do not hold what their own manifest says.
        captured, headless: paths of archives that have times of arrival, and of those that have no headers.
    """

    def __init__(
        self, paths: Iterable[str], topic: str, capture: Capture, show: Callable[[str], None] = lambda _: None
    ) -> None:
        self._topic, self._capture = topic, capture
        self.ranges: dict[int, list[ArchiveRange]] = {}
        self.lacking: dict[int, list[tuple[str, Lacking]]] = {}
        self.captured: set[str] = set()
        self.headless: set[str] = set()
        self._recorded: set[str] = set()
        for path in paths:
            show(path)
            self._survey(path)

    def _survey(self, path: str) -> None:
        reached = reach(Path(path), capture=self._capture)
        if holds_arrivals(Path(path)):
            self.captured.add(path)
        if lacks_headers(Path(path)):
            self.headless.add(path)
        if roots(Path(path)):
            self._recorded.add(path)
        missing: dict[int, tuple[_Span, ...]] = {}
        for one in lacking(Path(path), reached):
            if one.held.topic == self._topic:
                self.lacking.setdefault(one.held.partition, []).append((path, one))
                missing[one.held.partition] = one.missing
        for (topic, partition), (begin, end) in reached.items():
            if topic == self._topic:
                # So another archive is read for what this one lacks, and is not said to differ there.
                spans = _without([(begin, end)], missing.get(partition, ()))
                self.ranges.setdefault(partition, []).extend(ArchiveRange(path, *span) for span in spans)

    def loss(self, path: str) -> _Loss:
        """What an archive does not keep; of two, the one that keeps more has the smaller one."""
        return path in self.headless, path in self.captured, path not in self._recorded

    def offset_at(self, partition: int, milliseconds: int) -> int | None:
        """The first record as young as that or younger."""
        found = (self._offset_at(partition, part, milliseconds) for part in self.ranges.get(partition, ()))
        return min((offset for offset in found if offset is not None), default=None)

    def _offset_at(self, partition: int, part: ArchiveRange, milliseconds: int) -> int | None:
        for item in self.read(partition, part):
            if not isinstance(item, Gap) and item.timestamp >= milliseconds:
                return item.offset
        return None

    def laid(self, partition: int, low: int, high: int) -> Laid:
        """The archives for offsets [low, high) of a partition.

        Raises:
            CorruptLog: two archives contradict each other.
        """
        own, filled = self.ranges.get(partition, []), list[str]()
        while True:
            parts, twice = laid_end_to_end(own, low, high, self.loss)
            notes, holes = list[str](), list[_Hole]()
            for part in twice:
                holes += self._compared(partition, part, parts)
                where = f"Partition {partition}: offsets {part.begin} to {part.end - 1}"
                notes.append(f"{where} are in more than one archive, and agree.")
            if not holes:
                return Laid(parts, [*filled, *notes])
            if len(holes) + len(filled) > _MOST_HOLES:
                what = f"offsets {holes[0].begin} to {holes[0].end - 1} and more, {len(holes):,} ranges"
                where = "are not in the archive that is read, but in another: too many to be read from there"
                return Laid(parts, [*filled, *notes, f"Partition {partition}: {what}, {where}."])
            for hole in holes:
                where = f"Partition {partition}: offsets {hole.begin} to {hole.end - 1}"
                paths = f"{printable(hole.path)}, and are read from {printable(hole.other)}"
                filled.append(f"{where} are not in archive {paths}.")
            own = [
                ArchiveRange(one.path, *span)
                for one in own
                for span in _without([(one.begin, one.end)], [h[2:] for h in holes if h.path == one.path])
            ]

    def _compared(self, partition: int, twice: ArchiveRange, parts: Sequence[ArchiveRange]) -> list[_Hole]:
        """Compare an archive with those that are read in its place; returns what they lack of it.

        What one of them lacks contradicts nothing.

        Raises:
            CorruptLog: they contradict each other.
        """
        over = [ArchiveRange(p.path, max(p.begin, twice.begin), min(p.end, twice.end)) for p in parts]
        over = [part for part in over if part.begin < part.end]
        here, there = list[_Span](), list[_Span]()
        paths = {twice.path, *(part.path for part in over)}
        left_out = dict[str, Any]()  # what an archive does not keep contradicts nothing
        if not paths.isdisjoint(self.captured):
            left_out["timestamp"] = 0
        if not paths.isdisjoint(self.captured | self.headless):
            left_out["headers"] = ()
        one = _noted(self._told(partition, [twice], left_out), here)
        other = _noted(self._told(partition, over, left_out), there)
        offset = _contradiction(one, other)
        if offset is not None:
            raise CorruptLog(
                f"archive {twice.path}: {self._topic}-{partition}: offset {offset} differs from what another archive "
                "holds",
                hint="find out which is right; the other cannot be used",
            )
        return [
            _Hole(part.path, twice.path, max(first, part.begin), min(behind, part.end))
            for first, behind in _without(here, there)
            for part in over
            if max(first, part.begin) < min(behind, part.end)
        ]

    def _told(self, partition: int, parts: Sequence[ArchiveRange], left_out: dict[str, Any]) -> Iterator[_Told]:
        """Offsets with their record, or with None where an archive says that there is none. A hole says nothing.

        Args:
            left_out: fields of records that are not compared, and what stands in their place.
        """
        for part in parts:
            for item in self.read(partition, part):
                if not isinstance(item, Gap):
                    record = msgspec.structs.replace(item, **left_out) if left_out else item
                    yield item.offset, item.offset, framed(record)
                elif item.kind not in HOLES:
                    yield item.first, item.last, None

    def read(self, partition: int, part: ArchiveRange) -> Iterator[ArchivedRecord | Gap]:
        """Read a range of an archive."""
        where = (self._topic, partition)
        return read(Path(part.path), only=where, begin=part.begin, end=part.end, capture=self._capture)


def laid_end_to_end(
    parts: Iterable[ArchiveRange], begin: int, end: int, loss: Callable[[str], _Loss]
) -> tuple[list[ArchiveRange], list[ArchiveRange]]:
    """Which archive is read for which offsets, and what of the archives is held by one that is read as well.

    Both in the order of offsets. `loss` is what the archive of a path does not keep: where two hold the same offsets,
    the one is read that keeps more, wherever it begins.
    """
    chosen: list[ArchiveRange] = []
    twice: list[ArchiveRange] = []
    taken: list[_Span] = []
    for part in sorted(parts, key=lambda part: (loss(part.path), part.begin, -part.end, part.path)):
        asked = [(max(part.begin, begin), min(part.end, end))]
        own = _without(asked, taken)
        chosen += [ArchiveRange(part.path, *span) for span in own]
        twice += [ArchiveRange(part.path, *span) for span in _without(asked, own)]
        taken += own
    return sorted(chosen, key=_begin), sorted(twice, key=_begin)


def _begin(part: ArchiveRange) -> int:
    return part.begin


def _noted(items: Iterator[_Told], spans: list[_Span]) -> Iterator[_Told]:
    """The same, and the offsets that it speaks of are added to `spans`, neighbours joined."""
    for one in items:
        if spans and spans[-1][1] == one[0]:
            spans[-1] = spans[-1][0], one[1] + 1
        else:
            spans.append((one[0], one[1] + 1))
        yield one


def _contradiction(one: Iterator[_Told], other: Iterator[_Told]) -> int | None:
    """The first offset of which both say something, and not the same. Both are read to their ends if there is none."""
    mine, theirs = next(one, None), next(other, None)
    while mine is not None and theirs is not None:
        first, last = max(mine[0], theirs[0]), min(mine[1], theirs[1])
        if first <= last and mine[2] != theirs[2]:
            return first
        if mine[1] <= theirs[1]:
            mine = next(one, None)
        else:
            theirs = next(other, None)
    for rest in (one, other):
        for _ in rest:
            pass
    return None


def _without(spans: Iterable[_Span], missing: Iterable[_Span]) -> list[_Span]:
    """The spans without those that are missing; both ascend."""
    found: list[_Span] = []
    gone = sorted(missing)
    for begin, end in spans:
        at = begin
        for first, behind in gone:
            if behind <= at or first >= end:
                continue
            if at < first:
                found.append((at, first))
            at = behind
        if at < end:
            found.append((at, end))
    return found
