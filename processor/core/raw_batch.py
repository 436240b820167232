"""Records of a batch, read one after the other from the bytes in which the log has them (record format 2).

As objects a record, its key, its headers and their names cost as much as folding a delta does
(docs/decisions/0035). Here one object shows the record that is read at the moment, and only what is asked for becomes
an object.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from processor.core.acyclic import mypyc_attr
from processor.core.event_headers import EVENT_ID, RUN_ID, SEQUENCE, plain_id
from processor.core.header_names import name_text
from processor.core.shown_record import ShownRecord

if TYPE_CHECKING:
    from mypy_extensions import i64  # for the compiler alone

_ABSENT: Final = -1
"""Size of a key, value or content that is null."""
_MAX_SHIFT: Final = 63
_EVENT_ID: Final = EVENT_ID.encode()
_ID_BYTES: Final = len(EVENT_ID)
_NINTH: Final = ord("e")
assert _EVENT_ID[8] == _NINTH
_TRACE: Final = ord("t")
"""What the names of trace headers begin with (`headers.TRACE`)."""
_ENVELOPE: Final = ord("c")
"""What header names that may belong to an envelope begin with, in either case: `ce_` and `content-type`."""
_OURS: Final = ord("r")
"""What the names of all headers begin with that `publish` writes."""
_SIXTEEN: Final = 2 * 16
_FOURTEEN: Final = 2 * 14
"""Sizes of these names as they are written."""
_ODD_OR_LONG: Final = 0x81
"""Bits of a size that is below 0, or written in more than one byte."""
_LAST_BYTES: Final = 18
_LATER_BYTES: Final = 34
_PUBLISHED_BYTES: Final = 52
"""Of the last of these headers, the last two, and all three at least."""
_RUN_ID: Final = RUN_ID.encode()
_SEQUENCE: Final = SEQUENCE.encode()


@mypyc_attr(acyclic=True)
class RawRecord:
    """One record, whose key and headers are read from the batch's bytes each time they are asked for (`Record`)."""

    __slots__ = ("_content", "_headers_at", "_key_at", "_key_size", "_number", "offset", "timestamp", "value")

    def __init__(
        self,
        content: bytes,
        offset: int,
        timestamp: int,
        value: bytes | None,
        key_at: i64,
        key_size: i64,
        headers_at: i64,
        number: i64,
    ) -> None:
        self.offset, self.timestamp, self.value = offset, timestamp, value
        self._content = content
        self._key_at, self._key_size = key_at, key_size
        self._headers_at, self._number = headers_at, number

    @property
    def key(self) -> bytes | None:
        return _span(self._content, self._key_at, self._key_size)

    @property
    def headers(self) -> list[tuple[str, bytes | None]]:
        return _headers(self._content, self._headers_at, self._number)


class RawBatch(ShownRecord):
    """The records of one batch, shown one after the other as they are read from its bytes.

    Args:
        content: uncompressed; the records stand between `begin` and `end`.
        count: how many there are.
        base_offset, first_ms: what the offsets and the timestamps of the records count from.
        append_ms: the timestamp of all records, where it is the broker's; else None.
        broken: makes the error that is raised where the bytes are no records.
    """

    def __init__(
        self,
        content: bytes,
        begin: int,
        end: int,
        count: int,
        base_offset: int,
        first_ms: int,
        append_ms: int | None,
        broken: Callable[[str], Exception],
    ) -> None:
        super().__init__()
        self._content, self._begin = content, begin
        self._end: i64 = min(end, len(content))
        self._count: i64 = count
        self._base_offset: i64 = base_offset
        self._first_ms: i64 = first_ms
        self._is_append_time = append_ms is not None
        self._append_ms: i64 = 0 if append_ms is None else append_ms
        self._broken = broken
        self._at: i64 = begin
        self._read: i64 = 0
        self._key_at: i64 = 0
        self._key_size: i64 = _ABSENT
        self._headers_at: i64 = 0
        self._number: i64 = 0
        self._id_at: i64 = 0
        self._id_size: i64 = _ABSENT

    def __iter__(self) -> RawBatch:
        self._at, self._read = self._begin, 0
        return self

    def __next__(self) -> RawBatch:
        """Read the next record.

        Raises:
            StopIteration: there is none, and no byte is left.
            Exception: what `broken` makes.
        """
        if self._read == self._count:
            if self._at != self._end:
                raise self._broken("bytes behind the last record of a batch")
            raise StopIteration
        content = self._content
        length = self._varint(self._at)
        at = self._at
        end: i64 = at + length
        if length < 1 or length > self._end - at:
            raise self._broken("a record goes on behind its batch")
        delta_ms = self._varint(at + 1)  # behind the attributes
        delta = self._varint(self._at)
        size = self._varint(self._at)
        at = self._at
        self._key_at, self._key_size = at, size
        if size > end - at:
            raise self._broken("a key goes on behind its record")
        size = self._varint(at + size if size > 0 else at)
        at = self._at
        if size < 0:
            self.value = None
        else:
            if size > end - at:
                raise self._broken("a value goes on behind its record")
            self.value = content[at : at + size]
            at += size
        self._number = self._varint(at)
        self._headers_at = self._at
        self._id_size = _ABSENT
        self.is_plain = True
        self.may_trace = False
        if self._number != 0 and not (self._number == 3 and self._walks_published(end)):
            self._walk_headers(end)
        if self._at != end:
            raise self._broken(f"a record of {length} bytes does not hold what its lengths say")
        self.offset = self._base_offset + delta
        self.timestamp = self._append_ms if self._is_append_time else self._first_ms + delta_ms
        self._read += 1
        return self

    @property
    def key(self) -> bytes | None:
        return _span(self._content, self._key_at, self._key_size)

    @property
    def headers(self) -> list[tuple[str, bytes | None]]:
        return _headers(self._content, self._headers_at, self._number)

    def event_id(self) -> bytes | None:
        """The event id of the current record, as `plain_id` reads it from headers."""
        if self.is_plain:
            return None if self._id_size <= 0 else self._content[self._id_at : self._id_at + self._id_size]
        return plain_id(self.headers)

    def run_id(self) -> bytes | None:
        """The run that its headers name, if these are event id, run id and sequence, as `publish` writes them."""
        if self._number != 3 or not self.is_plain:
            return None
        content = self._content
        name, at = _sized(content, self._headers_at)
        if name != _EVENT_ID:
            return None
        size, at = _size_at(content, at)
        name, at = _sized(content, at + size if size > 0 else at)
        if name != _RUN_ID:
            return None
        found, at = _sized(content, at)
        name, at = _sized(content, at)
        return found if name == _SEQUENCE else None

    def record(self) -> RawRecord:
        """The record that is read at the moment, as an object that stays."""
        return RawRecord(
            self._content,
            self.offset,
            self.timestamp,
            self.value,
            self._key_at,
            self._key_size,
            self._headers_at,
            self._number,
        )

    def _varint(self, at: i64) -> i64:
        """A number in zig-zag encoding; `_at` is then behind it."""
        content, end = self._content, self._end
        if at < end:
            byte: i64 = content[at]
            at += 1
            found: i64 = byte & 0x7F
            shift: i64 = 7
            while byte >= 0x80 and at < end and shift <= _MAX_SHIFT:
                byte = content[at]
                at += 1
                found |= (byte & 0x7F) << shift
                shift += 7
            if byte < 0x80:
                self._at = at
                if shift <= _MAX_SHIFT:
                    return (found >> 1) ^ -(found & 1)
                return ((found >> 1) & 0x7FFF_FFFF_FFFF_FFFF) ^ -(found & 1)  # of 64 bits; the mask becomes an object
        raise self._broken("a number goes on behind its batch")

    def _walks_published(self, end: i64) -> bool:
        """Do what `_walk_headers` does where the headers are those of `are_published`, with no content above 63 bytes.

        False, and nothing is changed, where they are not. Most records have them, and so no loop, and no bytes for
        the name of the event id. Whether the last ends where the record does is yet to be seen, as of others.
        """
        content, at = self._content, self._at
        if end - at < _PUBLISHED_BYTES or content[at] != _SIXTEEN:
            return False
        id_at: i64 = at + 18
        size: i64 = content[at + 17]
        at = id_at + (size >> 1)
        if size & _ODD_OR_LONG != 0 or end - at < _LATER_BYTES or content[at] != _FOURTEEN or content[at + 1] != _OURS:
            return False
        later: i64 = content[at + 15]
        at += 16 + (later >> 1)
        if later & _ODD_OR_LONG != 0 or end - at < _LAST_BYTES or content[at] != _SIXTEEN or content[at + 1] != _OURS:
            return False
        ninth: i64 = content[at + 9]
        later = content[at + 17]
        at += 18 + (later >> 1)
        if later & _ODD_OR_LONG != 0 or ninth | 0x20 == _NINTH or not _is_event_id(content, id_at - 17):
            return False
        self._id_at, self._id_size = id_at, size >> 1
        self._at = at
        return True

    def _walk_headers(self, end: i64) -> None:
        """Check the lengths of the headers, and note where an event id stands; leave `_at` behind them.

        A name that does not begin as an envelope's, and is no event id in any case of letters, says nothing that
        `plain_id` asks for.
        """
        left = self._number
        if left < 0:
            raise self._broken("fewer headers than none")
        content, at = self._content, self._at
        while left > 0:
            size: i64 = content[at] if at < end else 0x80
            if size < 0x80:  # as nearly all lengths
                size = (size >> 1) ^ -(size & 1)
                at += 1
            else:
                size = self._varint(at)
                at = self._at
            if size < 0 or size > end - at:
                raise self._broken("a header without a name, or one that goes on behind its record")
            is_id = False
            if size > 0:
                first: i64 = content[at]
                if first | 0x20 == _ENVELOPE:
                    self.is_plain = False
                elif first == _TRACE:
                    self.may_trace = True
                elif size == _ID_BYTES:
                    ninth: i64 = content[at + 8]
                    if ninth | 0x20 == _NINTH:
                        is_id = content[at : at + size] == _EVENT_ID
                        if not is_id:
                            self.is_plain = False
            at += size
            size = content[at] if at < end else 0x80
            if size < 0x80:
                size = (size >> 1) ^ -(size & 1)
                at += 1
            else:
                size = self._varint(at)
                at = self._at
            if size > end - at:
                raise self._broken("a header goes on behind its record")
            if is_id:
                self._id_at, self._id_size = at, size
            if size > 0:
                at += size
            left -= 1
        self._at = at


def _is_event_id(content: bytes, at: i64) -> bool:
    """Whether the 16 bytes at `at` are `EVENT_ID`: one by one, for to cut them out takes longer."""
    return (
        content[at] == 0x72  # r
        and content[at + 1] == 0x75
        and content[at + 2] == 0x6E
        and content[at + 3] == 0x73
        and content[at + 4] == 0x74
        and content[at + 5] == 0x65
        and content[at + 6] == 0x70
        and content[at + 7] == 0x2D  # -
        and content[at + 8] == 0x65
        and content[at + 9] == 0x76
        and content[at + 10] == 0x65
        and content[at + 11] == 0x6E
        and content[at + 12] == 0x74
        and content[at + 13] == 0x2D  # -
        and content[at + 14] == 0x69
        and content[at + 15] == 0x64
    )


def _span(content: bytes, at: i64, size: i64) -> bytes | None:
    return None if size < 0 else content[at : at + size]


def _headers(content: bytes, at: i64, number: i64) -> list[tuple[str, bytes | None]]:
    """Headers that have been walked over before."""
    found: list[tuple[str, bytes | None]] = []
    while number > 0:
        name, at = _sized(content, at)
        held, at = _sized(content, at)
        found.append((name_text(name or b""), held))
        number -= 1
    return found


def _sized(content: bytes, at: i64) -> tuple[bytes | None, i64]:
    """Bytes behind their size, and where they end."""
    size, at = _size_at(content, at)
    if size < 0:
        return None, at
    return content[at : at + size], at + size


def _size_at(content: bytes, at: i64) -> tuple[i64, i64]:
    """A size that was read before, and where it ends."""
    found: i64 = 0
    shift: i64 = 0
    while True:
        byte: i64 = content[at]
        at += 1
        found |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (found >> 1) ^ -(found & 1), at
        shift += 7
