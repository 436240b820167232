"""Digests of source records: one for every block of offsets, and one over all of a range. Pure.

A block is `BLOCK_OFFSETS` offsets that begin at a multiple of that number. So its digest depends on its records alone,
not on how the reading was divided; blocks can be computed in parallel. Two different readings differ in a block, which
gives the offsets of the difference.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from hashlib import sha256
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from processor.audit.judge.verdicts import BlockDigest
from processor.core.effects import Headers, Record
from processor.core.header_names import name_bytes
from processor.core.record_columns import RecordColumns

if TYPE_CHECKING:
    from mypy_extensions import i64  # for the compiler alone

BLOCK_OFFSETS: Final = 64
"""Offsets of a block: small enough to look through by eye, at 41 bytes of evidence for each block."""

_NOTHING: Final = -1
_offset: Final = attrgetter("offset")


class BlockDigests:
    """The digests of the blocks of [begin, end) of one partition. A block without a record has none."""

    def __init__(self, begin: int, end: int) -> None:
        self._begin, self._end = begin, end
        self._block = _NOTHING
        self._digest: Any = sha256()
        self._records = 0
        self._range: Any = sha256()

    def take(self, records: Sequence[Record] | RecordColumns) -> Iterator[BlockDigest]:
        """Records in offset order, in pieces of any size; yields the blocks that they close."""
        if isinstance(records, RecordColumns):
            yield from self._take_columns(records)
            return
        at, behind = 0, len(records)
        while at < behind:
            first = records[at].offset
            block = first // BLOCK_OFFSETS
            if block != self._block:
                yield from self.finish()
                self._block = block
            begin_of_next = (block + 1) * BLOCK_OFFSETS
            furthest = min(behind, at + begin_of_next - first)
            cut = furthest
            if records[furthest - 1].offset >= begin_of_next:
                cut = bisect_left(records, begin_of_next, at, furthest, key=_offset)
            self._digest.update(framed_together(records if cut - at == behind else records[at:cut]))
            self._records += cut - at
            at = cut

    def _take_columns(self, records: RecordColumns) -> Iterator[BlockDigest]:
        at, behind = 0, len(records)
        first = records[0].offset
        while at < behind:
            block = (first + at) // BLOCK_OFFSETS
            if block != self._block:
                yield from self.finish()
                self._block = block
            cut = min(behind, (block + 1) * BLOCK_OFFSETS - first)
            self._digest.update(framed_columns(records, first, at, cut))
            self._records += cut - at
            at = cut

    def finish(self) -> Iterator[BlockDigest]:
        """Close the open block."""
        if self._block == _NOTHING:
            return
        first, behind = self._block * BLOCK_OFFSETS, (self._block + 1) * BLOCK_OFFSETS
        digest: str = self._digest.hexdigest()
        yield BlockDigest(max(first, self._begin), min(behind, self._end) - 1, self._records, digest)
        self._range.update(digest.encode())
        self._block = _NOTHING
        self._digest, self._records = sha256(), 0

    @property
    def range_digest(self) -> str:
        """SHA-256 over the digests of the blocks closed so far, as they are written, in hexadecimal."""
        digest: str = self._range.hexdigest()
        return digest


_LEAST_MS: Final = 10**12
_MOST_MS: Final = 10**13 - 1
"""Milliseconds of thirteen digits: 2001 to 2286."""

_LENGTHS: Final = [b"%d:" % length for length in range(1 << 12)]
_THREE: Final = [b"%03d" % number for number in range(1000)]
_THREE_AND_13: Final = [b"%03d13:" % number for number in range(1000)]
"""The last digits of an offset, and what stands between it and a timestamp of thirteen."""
_NAMES: Final = 1_000
"""So many header names are kept as they are framed: a topic has few, but any producer can write more."""
_names: Final[dict[str, bytes]] = {}


def framed_together(records: Sequence[Record]) -> bytes:
    """`framed` of each, joined."""
    # A replay does this for every record, and numbers cost more than all the rest: of offsets and timestamps that
    # follow each other only the last three digits are other ones, and those are spelled already.
    parts: list[bytes] = []
    numbers = _Numbers()
    for record in records:
        offset: i64 = record.offset
        timestamp: i64 = record.timestamp
        if not _is_usual(offset, timestamp):
            return b"".join([framed(record) for record in records])
        numbers.add(parts, offset, timestamp)
        _add_content(parts, record.key, record.value, record.headers)
    return b"".join(parts)


def framed_columns(records: RecordColumns, first: i64, begin: i64, end: i64) -> bytes:
    """`framed` of the records from number `begin` up to `end`, joined; `first` is the offset of number 0."""
    parts: list[bytes] = []
    numbers = _Numbers()
    timestamps, keys, values, headers = records.timestamps, records.keys, records.values, records.all_headers
    for at in range(begin, end):
        timestamp: i64 = timestamps[at]
        if not _is_usual(first + at, timestamp):
            return b"".join([framed(records[number]) for number in range(begin, end)])
        numbers.add(parts, first + at, timestamp)
        _add_content(parts, keys[at], values[at], () if headers is None else headers[at])
    return b"".join(parts)


def _is_usual(offset: i64, timestamp: i64) -> bool:
    return offset >= 1000 and _LEAST_MS <= timestamp <= _MOST_MS


class _Numbers:
    """Spells offset and timestamp of one record after the other."""

    def __init__(self) -> None:
        self._thousand: i64 = -1
        self._second: i64 = -1
        self._front = self._digits = b""

    def add(self, parts: list[bytes], offset: i64, timestamp: i64) -> None:
        if offset // 1000 != self._thousand:
            self._thousand = offset // 1000
            self._front = b"%d:%d" % (len(b"%d" % offset), self._thousand)
        if timestamp // 1000 != self._second:
            self._second = timestamp // 1000
            self._digits = b"%d" % self._second
        parts.append(self._front)
        parts.append(_THREE_AND_13[offset % 1000])
        parts.append(self._digits)
        parts.append(_THREE[timestamp % 1000])


def _add_content(parts: list[bytes], key: bytes | None, value: bytes | None, headers: Headers) -> None:
    longest = len(_LENGTHS)
    if key is None:
        parts.append(_ABSENT)
    else:
        length = len(key)
        parts.append(_LENGTHS[length] if length < longest else b"%d:" % length)
        parts.append(key)
    if value is None:
        parts.append(_ABSENT)
    else:
        length = len(value)
        parts.append(_LENGTHS[length] if length < longest else b"%d:" % length)
        parts.append(value)
    if len(headers) > 0:
        for name, content in headers:
            parts.append(_names.get(name) or _framed_name(name))
            if content is None:
                parts.append(_ABSENT)
            else:
                length = len(content)
                parts.append(_LENGTHS[length] if length < longest else b"%d:" % length)
                parts.append(content)
    parts.append(b"\n")


_ABSENT: Final = b"-1:"


def _framed_name(name: str) -> bytes:
    """A header name with its length in front; kept for the next record."""
    spelled = name_bytes(name)
    found = b"%d:%b" % (len(spelled), spelled)
    if len(_names) < _NAMES:
        _names[name] = found
    return found


def framed(record: Record) -> bytes:
    """A record as bytes for its digest: every part with its length in front, -1 for what is absent."""
    # The fold's own speed is at stake: nine of ten records have no headers and take the fast path.
    offset, timestamp = b"%d" % record.offset, b"%d" % record.timestamp
    key, value, headers = record.key, record.value, record.headers
    if not headers and key is not None and value is not None:
        lengths = (len(offset), offset, len(timestamp), timestamp, len(key), key, len(value), value)
        return b"%d:%b%d:%b%d:%b%d:%b\n" % lengths
    parts: list[bytes | None] = [offset, timestamp, key, value]
    for name, content in headers:
        parts += [name_bytes(name), content]
    return b"".join([b"-1:" if part is None else b"%d:%b" % (len(part), part) for part in parts]) + b"\n"
