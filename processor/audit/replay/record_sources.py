"""Source of one partition's records: archives, the topic, or archives first and the topic from there on.

Records are read in offset order, as lists with `Gap`s between them where records cannot be read. The `Ledger` accounts
for every offset.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from processor.archives import ArchivedRecord, Gap, GapKind, read_pieces
from processor.audit.replay.task import Task
from processor.core.effects import Record
from processor.core.record_columns import RecordColumns
from processor.errors import CorruptLog

if TYPE_CHECKING:  # their library takes long to load, and archives need none
    from processor.kafka.fetch import Hidden
    from processor.kafka.partition_reader import PartitionReader

DATA: Final = "data"
HOLES: Final = frozenset({GapKind.MISSING, GapKind.UNKNOWN, GapKind.COMPACTED})
"""Offsets that may have held records. The other gaps never did, or hold none for a reader."""

_offset: Final = attrgetter("offset")
_RECORDS: Final = {ArchivedRecord}

Records = list[Record] | RecordColumns
Piece = Records | Gap


class Ledger:
    """Every offset of [begin, end) exactly once, as data or as a gap of some kind, in ascending order.

    Args:
        note: called with each range of one kind (first and last offset, inclusive), neighbours joined.
    """

    def __init__(self, begin: int, end: int, note: Callable[[int, int, str], None]) -> None:
        self.at = begin
        self._end = end
        self._note = note
        self._open: tuple[int, int, str] | None = None
        self.offsets: Counter[str] = Counter()

    def records(self, records: Sequence[Record] | RecordColumns, unexplained: GapKind) -> None:
        """Note records that were read; offsets between them and before them are `unexplained`."""
        if not records:
            return
        first, last = records[0].offset, records[-1].offset
        if last - first + 1 == len(records):
            self._until(first, unexplained)
            self._add_range(first, last, DATA)
            return
        for record in records:
            offset = record.offset
            if offset != self.at:
                self._until(offset, unexplained)
            self._add_range(offset, offset, DATA)

    def gap(self, first: int, last: int, kind: str, unexplained: GapKind) -> None:
        first, last = max(first, self.at), min(last, self._end - 1)
        if first <= last:
            self._until(first, unexplained)
            self._add_range(first, last, kind)

    def finish(self, unexplained: GapKind) -> None:
        """The range has been read."""
        self._until(self._end, unexplained)
        if self._open is not None:
            self._note(*self._open)
            self._open = None

    def _until(self, offset: int, kind: GapKind) -> None:
        if offset > self.at:
            self._add_range(self.at, offset - 1, kind.value)

    def _add_range(self, first: int, last: int, kind: str) -> None:
        assert first == self.at, "each offset once"
        self.at = last + 1
        self.offsets[kind] += last - first + 1
        if self._open is not None and self._open[2] == kind:
            self._open = (self._open[0], last, kind)
            return
        if self._open is not None:
            self._note(*self._open)
        self._open = (first, last, kind)


async def pieces(task: Task, ledger: Ledger) -> AsyncIterator[Piece]:
    """The range of a task, in offset order.

    Raises:
        ArchiveError, BrokerUnavailable, BrokerRefused, CorruptLog.
    """
    for part in task.archives:
        for piece in _archived(task, part.path, part.begin, min(part.end, task.end), ledger):
            yield piece
    if task.connection is not None and task.switch < task.end:
        async for piece in _from_topic(task, ledger):
            yield piece
    hole = _hole(task, ledger.at, task.end, GapKind.MISSING)
    ledger.finish(GapKind.MISSING)
    if hole is not None:
        yield hole


def _hole(task: Task, first: int, behind: int, kind: GapKind) -> Gap | None:
    return Gap(task.topic, task.partition, first, behind - 1, kind) if first < behind else None


def _archived(task: Task, path: str, begin: int, end: int, ledger: Ledger) -> Iterator[Piece]:
    where = (task.topic, task.partition)
    for items in read_pieces(Path(path), where, begin=begin, end=end, capture=task.capture):
        if isinstance(items, RecordColumns):
            if items[0].offset == ledger.at:
                ledger.records(items, GapKind.MISSING)
                yield items
            else:
                yield from _with_gaps(task, [archived(record, *where) for record in items], ledger)
            continue
        first, last = items[0], items[-1]
        if type(first) is type(last) is ArchivedRecord and first.offset == ledger.at:
            records = cast(list[Record], items)
            if last.offset - first.offset + 1 == len(items) and set(map(type, items)) == _RECORDS:
                ledger.records(records, GapKind.MISSING)
                yield records
                continue
        yield from _with_gaps(task, items, ledger)


def _with_gaps(task: Task, items: Sequence[ArchivedRecord | Gap], ledger: Ledger) -> Iterator[Piece]:
    chunk: list[Record] = []
    for item in items:
        first = item.first if isinstance(item, Gap) else item.offset
        at = chunk[-1].offset + 1 if chunk else ledger.at
        is_hole = isinstance(item, Gap) and item.kind in HOLES
        if first > at or isinstance(item, Gap):
            if chunk:
                ledger.records(chunk, GapKind.MISSING)
                yield chunk
                chunk = []
            hole = _hole(task, ledger.at, first, GapKind.MISSING)
            if hole is not None:
                ledger.gap(hole.first, hole.last, hole.kind, GapKind.MISSING)
                yield hole
        if isinstance(item, Gap):
            ledger.gap(item.first, item.last, item.kind, GapKind.MISSING)
            if is_hole:
                yield item
        else:
            chunk.append(item)
    if chunk:
        ledger.records(chunk, GapKind.MISSING)
        yield chunk


async def _from_topic(task: Task, ledger: Ledger) -> AsyncIterator[Piece]:
    """Retention may remove records while they are read: that is a hole, which is reported and not waited for."""
    from processor.kafka.client_config import Connection
    from processor.kafka.errors import OffsetLost
    from processor.kafka.partition_reader import PartitionReader

    assert task.connection is not None
    connection = Connection.build(**task.connection)
    position = max(ledger.at, task.switch)
    hole = _hole(task, ledger.at, position, GapKind.MISSING)
    if hole is not None:
        ledger.gap(hole.first, hole.last, hole.kind, GapKind.MISSING)
        yield hole
    while ledger.at < task.end:
        reader = PartitionReader(connection, topic=task.topic, client_id=f"run-steps.replay.{task.partition}")
        await reader.start()
        try:
            begin = (await reader.begin_offsets([task.partition]))[task.partition]
            if begin > ledger.at:
                lost = Gap(task.topic, task.partition, ledger.at, min(begin, task.end) - 1, GapKind.MISSING)
                ledger.gap(lost.first, lost.last, lost.kind, GapKind.COMPACTED)
                yield lost
            async for piece in _read_range(task, reader, ledger):
                yield piece
            hole = _hole(task, ledger.at, task.end, GapKind.COMPACTED)
            if hole is not None:
                ledger.gap(hole.first, hole.last, hole.kind, GapKind.COMPACTED)
                yield hole
        except OffsetLost as error:
            begin = (await reader.begin_offsets([task.partition]))[task.partition]
            if begin <= ledger.at:
                raise CorruptLog(
                    f"topic {task.topic}: partition {task.partition}: the log no longer reaches offset {ledger.at}",
                    hint="was the topic made anew while it was read?",
                ) from error
        finally:
            await reader.stop(timeout_s=2)


async def _read_range(task: Task, reader: PartitionReader, ledger: Ledger) -> AsyncIterator[Piece]:
    """Read on from where the ledger stands, as far as it goes."""
    if ledger.at >= task.end:
        return
    from processor.kafka.fetched_records import columns

    hidden: list[Hidden] = []
    reader.observe(lambda _, told: hidden.extend(told))
    compacted = GapKind.COMPACTED
    async for _, fetched in reader.read_undecoded_to(
        {task.partition: ledger.at}, {task.partition: task.end}, task.no_progress_s
    ):
        segments = None if hidden else columns(fetched)
        if segments is not None and len(segments) == 1 and segments[0][0].offset == ledger.at:
            ledger.records(segments[0], compacted)
            yield segments[0]
            continue
        records = list(fetched) if segments is None else [one for each in segments for one in each.records()]
        was, lost = ledger.at, ledger.offsets[compacted]
        at = 0
        for span in hidden:
            cut = bisect_left(records, span.first, at, key=_offset)
            ledger.records(records[at:cut], compacted)
            ledger.gap(span.first, span.last, span.kind, compacted)
            at = cut
        ledger.records(records[at:] if at else records, compacted)
        if ledger.offsets[compacted] == lost:
            yield records
        else:
            for piece in cut_at_holes(task, records, hidden, was):
                yield piece
        hidden.clear()
    was = ledger.at
    for span in hidden:
        ledger.gap(span.first, span.last, span.kind, compacted)
    for piece in cut_at_holes(task, (), hidden, was):
        yield piece


def cut_at_holes(task: Task, records: Sequence[Record], hidden: Sequence[Hidden], at: int) -> Iterator[Piece]:
    """Records that were read from offset `at` on, and the gaps between them that nothing explains."""
    chunk: list[Record] = []
    spans = deque(hidden)
    for record in (*records, None):
        while spans and (record is None or spans[0].first < record.offset):
            span = spans.popleft()
            if (hole := _hole(task, at, span.first, GapKind.COMPACTED)) is not None:
                if chunk:
                    yield chunk
                    chunk = []
                yield hole
            at = max(at, span.last + 1)
        if record is None:
            break
        if (hole := _hole(task, at, record.offset, GapKind.COMPACTED)) is not None:
            if chunk:
                yield chunk
                chunk = []
            yield hole
        chunk.append(record)
        at = record.offset + 1
    if chunk:
        yield chunk


def archived(record: Record, topic: str, partition: int) -> ArchivedRecord:
    """A record of the topic as an archive keeps it."""
    if isinstance(record, ArchivedRecord):
        return record
    return ArchivedRecord(
        topic, partition, record.offset, record.timestamp, record.key, record.value, tuple(record.headers)
    )
