"""What was read, as digests: one for every block of offsets, and one over all of a range. Pure.

A block is `LINK_OFFSETS` offsets that begin at a multiple of that number. So its digest depends on its records alone:
not on who read them, in which pieces, or where the work was cut; blocks can be made in parallel, each for itself. Two
readings that are not the same differ in a block, and that names the place.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import lru_cache
from hashlib import sha256
from operator import attrgetter
from typing import Final

import msgspec

from processor.core.effects import Record

LINK_OFFSETS: Final = 64
"""Offsets of a block: small enough to look through by eye, at 41 bytes of evidence for each block."""

_NOTHING: Final = -1
_offset: Final = attrgetter("offset")


class Link(msgspec.Struct, frozen=True, gc=False):
    """A block that holds records: its offsets, both inclusive and cut to the range, how many records, their digest.

    `digest` is the SHA-256 of the records as `framed` spells them, one after the other, in hexadecimal.
    """

    first: int
    last: int
    records: int
    digest: str


class Links:
    """The blocks of the range [begin, end) of one partition. A block without a record has no link."""

    def __init__(self, begin: int, end: int) -> None:
        self._begin, self._end = begin, end
        self._block = _NOTHING
        self._digest, self._records = sha256(), 0
        self._chain = sha256()

    def take(self, records: Sequence[Record]) -> Iterator[Link]:
        """Records in offset order, in pieces of any size; yields the blocks that they close."""
        at, behind = 0, len(records)
        while at < behind:
            first = records[at].offset
            block = first // LINK_OFFSETS
            if block != self._block:
                yield from self.finish()
                self._block = block
            begin_of_next = (block + 1) * LINK_OFFSETS
            furthest = min(behind, at + begin_of_next - first)
            cut = bisect_left(records, begin_of_next, at, furthest, key=_offset)
            self._digest.update(framed_together(records[at:cut]))
            self._records += cut - at
            at = cut

    def finish(self) -> Iterator[Link]:
        """Nothing more comes of the block that is open."""
        if self._block == _NOTHING:
            return
        first, behind = self._block * LINK_OFFSETS, (self._block + 1) * LINK_OFFSETS
        digest = self._digest.hexdigest()
        yield Link(max(first, self._begin), min(behind, self._end) - 1, self._records, digest)
        self._chain.update(digest.encode())
        self._block = _NOTHING
        self._digest, self._records = sha256(), 0

    @property
    def chain(self) -> str:
        """SHA-256 over the digests of the blocks closed so far, as they are written, in hexadecimal."""
        return self._chain.hexdigest()


_LEAST_MS, _MOST_MS = 10**12, 10**13 - 1
"""Milliseconds of thirteen digits: 2001 to 2286."""


@lru_cache(1 << 11)
def _form(records: int, offset_digits: int) -> bytes:
    """How so many plain records are spelled whose offsets have so many digits, and their timestamps thirteen."""
    return b"%d:%%d13:%%d%%d:%%b%%d:%%b\n" % offset_digits * records


def framed_together(records: Sequence[Record]) -> bytes:
    """`framed` of each, joined."""
    # A replay does this for every record: most blocks have no headers, nothing absent, and numbers of one length.
    contents: list[int | bytes] = []
    times = []
    for record in records:
        key, value, timestamp = record.key, record.value, record.timestamp
        if key is None or value is None or record.headers:
            break
        contents += (record.offset, timestamp, len(key), key, len(value), value)
        times.append(timestamp)
    else:
        if records and min(times) >= _LEAST_MS and max(times) <= _MOST_MS:
            digits = len(b"%d" % records[0].offset)
            if digits == len(b"%d" % records[-1].offset):
                return _form(len(records), digits) % tuple(contents)
    return b"".join(map(framed, records))


def framed(record: Record) -> bytes:
    """A record as bytes for its digest: every part with its length in front, -1 for what is absent."""
    # The fold's own speed is at stake: nine of ten records have no headers and take the short way.
    offset, timestamp = b"%d" % record.offset, b"%d" % record.timestamp
    key, value, headers = record.key, record.value, record.headers
    if not headers and key is not None and value is not None:
        lengths = (len(offset), offset, len(timestamp), timestamp, len(key), key, len(value), value)
        return b"%d:%b%d:%b%d:%b%d:%b\n" % lengths
    parts: list[bytes | None] = [offset, timestamp, key, value]
    for name, content in headers:
        parts += [name.encode("utf-8", "surrogateescape"), content]
    return b"".join([b"-1:" if part is None else b"%d:%b" % (len(part), part) for part in parts]) + b"\n"
