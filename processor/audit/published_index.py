"""On-disk index of the published records of one run, by source partition: memory does not grow with the records.

`IndexWriter` writes an index once, in one process; other processes may write indexes of other names into the same
folder. `FileIndex` reads all indexes of one source partition as one, in the process that audits the partition, and
never changes them. Which records were taken is kept in memory, one bit per record. Why files of our own:
docs/decisions/0008.

An index is five files. `rows` holds the records in the order of arrival, each behind its location; the rows of one
output partition lie in segments of ascending offsets. `ends` holds the end of each row. `order` is the hash table: it
has more slots than there are rows and is filled in the order of the checksums of identities, each row at the slot in
proportion to its checksum or at the next free one. An entry has the checksum in the upper bits and the number of the
row in the lower ones, plus one, since 0 is a free slot. `refused` holds the source offsets at which steps were refused
for want of room (X2). `about` has the rest. Numbers are of 64 bits, in this machine's byte order.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from heapq import merge
from itertools import chain, groupby, pairwise
from operator import itemgetter
from pathlib import Path
from struct import Struct
from types import TracebackType
from typing import Any, Final, Self
from zlib import crc32

import msgspec

from processor.audit.file_numbers import FileNumbers
from processor.audit.judge.not_judged import ClaimCounter
from processor.audit.judge.published_headers import Named, caused_at, mark_in, named_by, published_as, source_of
from processor.audit.judge.verdicts import (
    NEVER,
    ExpectedRecord,
    FindingKind,
    Published,
    RecordLocation,
    Unreadable,
    location_of,
)
from processor.audit.published_index_format import About, Segment, read_about
from processor.core.effects import Reason, Record
from processor.core.header_names import is_utf8, name_bytes, name_text
from processor.core.headers import CLOCK_MARK, RULES, VERSION
from processor.core.step_headers import encodable

_HELD_BYTES: Final = 16 << 20
"""Bytes of rows that are held in memory before they are written, over all partitions."""
_ROW_BYTES: Final = 300
"""Bytes that a held row takes beside its record."""
_RUN_ROWS: Final = 1 << 14
"""Rows of one partition whose entries of the hash table are held in memory before they are written."""
_NUMBER_BYTES: Final = 8
_ROW_BITS: Final = 32
_MOST_ROWS: Final = (1 << _ROW_BITS) - 1
_MOST_REGIMES: Final = 1_000
_CHECKSUM_BITS: Final = 30
"""Above the row: what is larger takes the compiled form memory for each number."""

_pack: Final = msgspec.msgpack.Encoder(enc_hook=encodable).encode
_Headers = tuple[tuple[str | tuple[bytes], bytes | None], ...]
"""Names that are not UTF-8 stand there as bytes, in a list: msgpack has no other text."""
_unpack: Final = msgspec.msgpack.Decoder(tuple[FindingKind, str, str, int, bytes | None, bytes | None, _Headers]).decode


def _row(kind: FindingKind, one: str, two: str, record: Record | ExpectedRecord) -> bytes:
    """A record that is packed: equal bytes imply equal records."""
    parts = (kind, one, two, record.timestamp, record.key, record.value)
    try:
        return _pack((*parts, record.headers))
    except UnicodeEncodeError:
        headers = [(name if is_utf8(name) else (name_bytes(name),), content) for name, content in record.headers]
        return _pack((*parts, headers))


_unpack_stray: Final = msgspec.msgpack.Decoder(tuple[FindingKind, str]).decode
_LOCATION: Final = Struct("=qqq")
"""Prefix of each row: the number of its topic, its partition, its offset."""
_BLOCK_BITS: Final = 15
"""Rows are read in blocks of 32 KiB: look-ups are nearly sequential."""
_BLOCKS: Final = 128
"""Blocks that are held in memory, over all indexes that are read as one."""


def index_path(folder: Path, partition: int, name: str = "") -> Path:
    """Prefix of the names of an index's files."""
    return folder / f"published-{partition:05d}{name and '-'}{name}"


def of_source(
    source: str, partitions: int, topic: str, partition: int, record: Record, *, dead_letters: bool = False
) -> Published | Unreadable | None:
    """A record of an output topic; None if it is of another source than this one, with so many partitions."""
    headers = dict(record.headers)
    named: Named | bytes | str = source_of(source.encode(), record, headers)
    if isinstance(named, bytes):
        if named != source.encode():
            return None
        named = _named_by(partitions, record, headers, dead_letters)
    if isinstance(named, str):
        return Unreadable(topic, partition, record.offset, named)
    return published_as(named, topic, partition, record)


def _named_by(partitions: int, record: Record, headers: Mapping[str, bytes | None], dead_letters: bool) -> Named | str:
    """As `published_headers.named_by`, of a source with so many partitions."""
    named = named_by(record, headers, dead_letters=dead_letters)
    if isinstance(named, str) or named[1] < partitions:
        return named
    return f"names source partition {named[1]} of {partitions}"


def _checksum(kind: FindingKind, one: str, two: str) -> int:
    """The hash of an identity. Several identities may share one: a look-up compares the identities, too."""
    return crc32(f"{one}\0{two}".encode("utf-8", "surrogatepass"), _KINDS[kind]) >> 32 - _CHECKSUM_BITS


_KINDS: Final = {kind: crc32(kind.value.encode()) for kind in FindingKind}


def _slots(rows: int) -> int:
    """Number of slots: a row is found at the first slot of its checksum or a few behind."""
    return 2 * rows + 1


class _HeldRows:
    """Rows of one output partition, in the order they came, that are not written yet."""

    def __init__(self, topic: str, partition: int) -> None:
        self.topic, self.partition = topic, partition
        self.rows: list[bytes] = []
        """Place and record of each, in turn."""
        self.checksums: list[int] = []
        self.offsets: list[int] = []
        self.sizes: list[int] = []


class _PartitionWriter:
    """The index files of one source partition while they are written."""

    def __init__(self, stem: Path) -> None:
        self._stem = stem
        self._held: dict[tuple[str, int], _HeldRows] = {}
        self._rows = self._bytes = 0
        self._segments: list[Segment] = []
        self._order: array[int] = array("Q")
        self._runs: list[int] = []
        self.marks: set[tuple[int, int]] = set()
        self.regimes: set[tuple[bytes | None, bytes | None]] = set()
        self.refused: array[int] = array("Q")
        for kind in ("rows", "ends", "refused", "runs"):
            _file(stem, kind).write_bytes(b"")

    def hold(self, topic: str, partition: int, offset: int, checksum: int, location: bytes, record: bytes) -> None:
        held = self._held.get((topic, partition))
        if held is None:
            held = self._held[topic, partition] = _HeldRows(topic, partition)
        held.rows.append(location)
        held.rows.append(record)
        held.checksums.append(checksum)
        held.offsets.append(offset)
        held.sizes.append(_LOCATION.size + len(record))

    def flush(self) -> None:
        """Write the rows that are held, those of each output partition together."""
        if not self._held:
            return
        ends: array[int] = array("Q")
        packed: list[bytes] = []
        for held in self._held.values():
            if self._rows + len(held.sizes) > _MOST_ROWS:
                raise OverflowError(f"index {self._stem}: more than {_MOST_ROWS} records")
            self._add_segments(held)
            for size, checksum in zip(held.sizes, held.checksums, strict=True):
                self._order.append(checksum << _ROW_BITS | self._rows)
                self._rows += 1
                self._bytes += size
                ends.append(self._bytes)
            packed += held.rows
        self._held.clear()
        self._append("rows", b"".join(packed))
        self._append("ends", ends.tobytes())
        self._append("refused", self.refused.tobytes())
        del self.refused[:]
        if len(self._order) >= _RUN_ROWS:
            self._close_run()

    def _add_segments(self, held: _HeldRows) -> None:
        """Offsets of one output partition rise, but where another archive begins that holds some of the same."""
        offsets, begin = held.offsets, 0
        breaks = [at for at, (one, other) in enumerate(pairwise(offsets), 1) if other <= one]
        for end in (*breaks, len(offsets)):
            first, last = offsets[begin], offsets[end - 1]
            self._segments.append(Segment(held.topic, held.partition, first, last, self._rows + begin, end - begin))
            begin = end

    def close(self, topics: Iterable[str]) -> None:
        """Complete the files. `topics` are those that rows name by number."""
        self.flush()
        self._close_run()
        with _file(self._stem, "order").open("wb") as file, FileNumbers(_file(self._stem, "runs")) as numbers:
            runs = [_slice(numbers.all, low, high) for low, high in pairwise((0, *self._runs))]
            _write_table(file, merge(*runs), _slots(self._rows))
        _file(self._stem, "runs").unlink()
        about = About(list(topics), self._segments, sorted(self.marks), list(self.regimes))
        _file(self._stem, "about").write_bytes(_pack(about))

    def _close_run(self) -> None:
        self._append("runs", array("Q", sorted(self._order)).tobytes())
        self._runs.append((self._runs[-1] if self._runs else 0) + len(self._order))
        self._order = array("Q")

    def _append(self, kind: str, content: bytes) -> None:
        # Opened anew each time: a source may have more partitions than a process may have files open.
        with _file(self._stem, kind).open("ab") as file:
            file.write(content)


def _file(stem: Path, kind: str) -> Path:
    return stem.with_name(f"{stem.name}.{kind}")


def _slice(numbers: Sequence[int], low: int, high: int) -> Iterator[int]:
    return (numbers[at] for at in range(low, high))


def _write_table(file: Any, numbers: Iterable[int], slots: int) -> None:
    """Ascending numbers, each where it will be looked for; behind the last slot there is a free one."""
    piece: array[int] = array("Q")
    at = 0
    for number in numbers:
        slot = _slot(number >> _ROW_BITS, slots)
        if slot - at < _RUN_ROWS:
            piece.frombytes(bytes(_NUMBER_BYTES * max(0, slot - at)))
        else:
            file.write(piece.tobytes())
            del piece[:]
            file.seek(_NUMBER_BYTES * slot)
        piece.append(number + 1)
        at = max(slot, at) + 1
        if len(piece) >= _RUN_ROWS:
            file.write(piece.tobytes())
            del piece[:]
    file.write(piece.tobytes())
    file.truncate(_NUMBER_BYTES * (max(slots, at) + 1))


def _slot(checksum: int, slots: int) -> int:
    return checksum * slots >> _CHECKSUM_BITS


class IndexWriter:
    """Writer of an index: sorts records of the output topics by the source partition that they name.

    Args:
        source: the source topic; what names another is counted in `elsewhere` and left out.
        partitions: how many partitions the source has.
        wanted: the partitions that are audited; what names another one of them is counted in `other_partitions`.
        name: of this index, where several are written into one folder. One of the same name is replaced.
        sole_source: no other source is published to these topics: what names another one belongs to no source.
    """

    def __init__(
        self,
        folder: Path,
        source: str,
        partitions: int,
        wanted: frozenset[int],
        name: str = "",
        *,
        sole_source: bool = False,
    ) -> None:
        self._source, self._partitions = source.encode(), partitions
        self.read: Counter[str] = Counter()
        """Records by topic."""
        self.elsewhere, self.other_partitions = ClaimCounter(), ClaimCounter()
        self._sole_source = sole_source
        self.indexed = 0
        self.unreadable = 0
        """Records that name no place of the source; the index of the first wanted partition has them."""
        folder.mkdir(parents=True, exist_ok=True)
        self._writers = {partition: _PartitionWriter(index_path(folder, partition, name)) for partition in wanted}
        self._strays = _PartitionWriter(_strays(index_path(folder, min(wanted), name))) if wanted else None
        self._topics: dict[str, int] = {}
        self._held = 0

    def put_all(self, topic: str, partition: int, records: Sequence[Record], *, dead_letters: bool) -> None:
        """Records as they stand on an outcome topic or on the dead letters."""
        self.read[topic] += len(records)
        for record in records:
            self._put(topic, partition, record, dead_letters)

    def put(self, topic: str, partition: int, record: Record, *, dead_letters: bool) -> None:
        """Index one record, as `put_all` does several."""
        self.put_all(topic, partition, (record,), dead_letters=dead_letters)

    def _put(self, topic: str, partition: int, record: Record, dead_letters: bool) -> None:
        headers = dict(record.headers)
        named: Named | bytes | str = source_of(self._source, record, headers)
        if named == self._source:
            named = _named_by(self._partitions, record, headers, dead_letters)
        elif isinstance(named, bytes):
            if not self._sole_source:
                self.elsewhere.add(named.decode(), 1, ((topic, partition, record.offset),))
                return
            named = f"names another source, {named.decode()}, and there is none (--sole-source)"
        if isinstance(named, str):
            assert self._strays is not None
            self.unreadable += 1
            kind = FindingKind.DEAD_LETTER if dead_letters else FindingKind.STEP
            self._hold(self._strays, topic, partition, record.offset, 0, _pack((kind, named)))
        elif isinstance(named, tuple):
            if named[1] in self._writers:
                self._add_row(named, topic, partition, record, headers)
            else:
                self.other_partitions.add(f"{named[1]}", 1, ((topic, partition, record.offset),))

    def add(self, published: Published) -> None:
        """One whose evidence is read, of a partition that is wanted."""
        named = (published.kind, published.source_partition, *published.identity)
        self._add_row(named, published.topic, published.partition, published, dict(published.headers))

    def _add_row(
        self, named: Named, topic: str, partition: int, record: Record, headers: Mapping[str, bytes | None]
    ) -> None:
        self.indexed += 1
        kind, source, one, two = named
        writer = self._writers[source]
        mark = mark_in(headers) if CLOCK_MARK in headers else None
        if mark is not None:
            writer.marks.add(mark)
        if len(writer.regimes) < _MOST_REGIMES:
            writer.regimes.add((headers.get(VERSION), headers.get(RULES)))
        if kind is FindingKind.DEAD_LETTER and two.startswith(Reason.TOO_MANY_OPEN_STEPS.value):
            writer.refused.append(int(one) if mark is None else mark[0] - 1)
        row = _row(kind, one, two, record)
        self._hold(writer, topic, partition, record.offset, _checksum(kind, one, two), row)

    def _hold(
        self, writer: _PartitionWriter, topic: str, partition: int, offset: int, checksum: int, row: bytes
    ) -> None:
        number = self._topics.setdefault(topic, len(self._topics))
        writer.hold(topic, partition, offset, checksum, _LOCATION.pack(number, partition, offset), row)
        self._held += len(row) + _ROW_BYTES
        if self._held >= _HELD_BYTES:
            for each in self._all():
                each.flush()
            self._held = 0

    def _all(self) -> Iterable[_PartitionWriter]:
        return chain(self._writers.values(), () if self._strays is None else (self._strays,))

    def close(self) -> None:
        """Complete the files."""
        for each in self._all():
            each.close(self._topics)
        self._writers, self._strays = {}, None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        if kind is None:
            self.close()


def _strays(stem: Path) -> Path:
    return stem.with_name(f"{stem.name}.strays")


class _IndexFiles:
    """The files of one index, opened for reading."""

    def __init__(self, stem: Path, exits: ExitStack, blocks: int = 1) -> None:
        self.about: About = read_about(_file(stem, "about").read_bytes())
        self.order = exits.enter_context(FileNumbers(_file(stem, "order")))
        self._ends = exits.enter_context(FileNumbers(_file(stem, "ends")))
        self.refused = exits.enter_context(FileNumbers(_file(stem, "refused")))
        self.rows = len(self._ends.all)
        self.slots = _slots(self.rows)
        self._file = exits.enter_context(_file(stem, "rows").open("rb", buffering=0))
        self._blocks: dict[int, bytes] = {}
        self._most_blocks = blocks
        self.taken = bytearray(self.rows // 8 + 1)

    def row(self, number: int) -> bytes:
        block, begin, end = self._bounds(number)
        return block[begin:end]

    def equal_at(self, number: int, record: bytes) -> RecordLocation | None:
        """The location of a row, if its record is this one."""
        block, begin, end = self._bounds(number)
        if end - begin != _LOCATION.size + len(record) or not block.startswith(record, begin + _LOCATION.size):
            return None
        topic, partition, offset = _LOCATION.unpack_from(block, begin)
        return self.about.topics[topic], partition, offset

    def _bounds(self, number: int) -> tuple[bytes, int, int]:
        """A row is [begin, end) of these bytes."""
        ends = self._ends.all
        begin, end = ends[number - 1] if number else 0, ends[number]
        first, last = begin >> _BLOCK_BITS, (end - 1) >> _BLOCK_BITS
        block = self._block(first)
        if first != last:
            block = b"".join((block, *map(self._block, range(first + 1, last + 1))))
        begin_of_block = first << _BLOCK_BITS
        return block, begin - begin_of_block, end - begin_of_block

    def _block(self, number: int) -> bytes:
        held = self._blocks.get(number)
        if held is None:
            if len(self._blocks) >= self._most_blocks:
                del self._blocks[next(iter(self._blocks))]
            self._file.seek(number << _BLOCK_BITS)
            held = self._blocks[number] = self._file.read(1 << _BLOCK_BITS)
        return held

    def location(self, row: bytes) -> RecordLocation:
        number, partition, offset = _LOCATION.unpack_from(row)
        return self.about.topics[number], partition, offset

    def take(self, row: int) -> None:
        self.taken[row >> 3] |= 1 << (row & 7)

    def is_taken(self, row: int) -> bool:
        return bool(self.taken[row >> 3] & 1 << (row & 7))


def _in_order(parts: Sequence[_IndexFiles]) -> Iterator[tuple[_IndexFiles, int]]:
    """All rows, each with the index that has it, in the order of topic, partition, offset."""
    segments = sorted(
        ((segment, number) for number, files in enumerate(parts) for segment in files.about.segments),
        key=lambda item: (item[0].topic, item[0].partition, item[0].first, item[0].last, item[1]),
    )
    for _, group in groupby(segments, key=lambda item: (item[0].topic, item[0].partition)):
        own = [(segment, parts[number]) for segment, number in group]
        if all(one.last < other.first for (one, _), (other, _) in pairwise(own)):
            yield from ((files, s.row + at) for s, files in own for at in range(s.rows))
        else:  # archives that hold the same offsets: those of each are ascending, and all are wanted
            yield from map(itemgetter(1, 2), merge(*(_by_offset(*one) for one in own), key=itemgetter(0)))


def _by_offset(segment: Segment, files: _IndexFiles) -> Iterator[tuple[int, _IndexFiles, int]]:
    for row in range(segment.row, segment.row + segment.rows):
        yield files.location(files.row(row))[2], files, row


class FileIndex:
    """On-disk index of one source partition; satisfies `PublishedIndex`. Use as a context manager.

    Args:
        names: of the indexes in `folder` that were written for this run.
    """

    def __init__(self, folder: Path, partition: int, names: Sequence[str] = ("",)) -> None:
        self._partition = partition
        with ExitStack() as exits:
            stems = [index_path(folder, partition, name) for name in names]
            self._parts = [_IndexFiles(stem, exits, max(1, _BLOCKS // len(stems))) for stem in stems]
            lone = [_strays(stem) for stem in stems if _file(_strays(stem), "about").exists()]
            self._strays = [_IndexFiles(stem, exits) for stem in lone]
            self._exits = exits.pop_all()
        self.count = sum(files.rows for files in self._parts)
        self.holds_dead_letters = True
        self._rows: dict[RecordLocation, tuple[_IndexFiles, int]] = {}
        self.last: dict[RecordLocation, Published] = {}

    def look(self, kind: FindingKind, identity: tuple[str, str]) -> list[Published]:
        self._rows.clear()
        self.last.clear()
        found = []
        for files, row in self._there(kind, identity):
            published = self._published(files, row)
            if published.kind is kind and published.identity == identity:
                self._handed_out(published, files, row)
                found.append(published)
        return sorted(found, key=location_of) if len(found) > 1 else found

    def all_of(self, kind: FindingKind, identity: tuple[str, str]) -> list[Published]:
        there = (self._published(*at) for at in self._there(kind, identity, every=True))
        return [one for one in there if (one.kind, one.identity) == (kind, identity)]

    def _there(self, kind: FindingKind, named: tuple[str, str], every: bool = False) -> list[tuple[_IndexFiles, int]]:
        """The rows of this checksum, every one or those that were not taken yet: seldom more than one."""
        wanted = _checksum(kind, *named)
        there = []
        for files in self._parts:
            order = files.order.all
            at = _slot(wanted, files.slots)
            while (entry := order[at]) and (entry - 1) >> _ROW_BITS <= wanted:
                at += 1
                row = entry - 1 & _MOST_ROWS
                if (entry - 1) >> _ROW_BITS == wanted and (every or not files.is_taken(row)):
                    there.append((files, row))
        return there

    def take(self, published: Published) -> None:
        files, row = self._rows[location_of(published)]
        files.take(row)

    def take_equal(
        self, kind: FindingKind, identity: tuple[str, str], expected: ExpectedRecord
    ) -> RecordLocation | None:
        there = self._there(kind, identity)
        if len(there) != 1:
            return None
        files, number = there[0]
        # Equal packed bytes imply equal records, so nothing is unpacked.
        location = files.equal_at(number, _row(kind, *identity, expected))
        if location is None or location[0] != expected.topic or expected.partition not in (None, location[1]):
            return None
        files.take(number)
        return location

    def left(self) -> Iterator[Published]:
        for files, row in _in_order(self._parts):
            if not files.is_taken(row):
                self._rows.clear()
                self.last.clear()
                published = self._published(files, row)
                self._handed_out(published, files, row)
                yield published

    def all(self) -> Iterator[Published]:
        return (self._published(files, row) for files, row in _in_order(self._parts))

    def regimes(self) -> set[tuple[bytes | None, bytes | None]]:
        return {regime for files in self._parts for regime in files.about.regimes}

    def marks(self) -> list[tuple[int, int]]:
        return sorted({mark for files in self._parts for mark in files.about.marks})

    def first_refusal_from(self, offset: int) -> int | None:
        causes = chain.from_iterable(files.refused.all for files in self._parts)
        return min((cause for cause in causes if cause >= offset), default=None)

    def strays(self) -> Iterator[tuple[FindingKind, Unreadable]]:
        for files, row in _in_order(self._strays):
            packed = files.row(row)
            kind, why = _unpack_stray(packed[_LOCATION.size :])
            yield kind, Unreadable(*files.location(packed), why)

    def kept_from(self, shortened: Iterable[tuple[str, int]]) -> dict[tuple[str, int], int]:
        found = {}
        for topic, partition in sorted(shortened):
            own = [
                (segment.first, number, segment.row)
                for number, files in enumerate(self._parts)
                for segment in files.about.segments
                if (segment.topic, segment.partition) == (topic, partition)
            ]
            cause = None
            if own:
                _, number, row = min(own)
                cause = caused_at(self._published(self._parts[number], row))
            found[topic, partition] = cause if cause is not None else NEVER
        return found

    def close(self) -> None:
        self._exits.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _published(self, files: _IndexFiles, row: int) -> Published:
        packed = files.row(row)
        kind, one, two, timestamp, key, value, packed_headers = _unpack(packed[_LOCATION.size :])
        headers = tuple([(n if isinstance(n, str) else name_text(n[0]), content) for n, content in packed_headers])
        return Published(kind, self._partition, (one, two), *files.location(packed), timestamp, key, value, headers)

    def _handed_out(self, published: Published, files: _IndexFiles, row: int) -> None:
        location = location_of(published)
        self._rows[location] = files, row
        self.last[location] = published
