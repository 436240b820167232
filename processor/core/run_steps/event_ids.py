"""Event ids that a step has folded, in little memory: numbered ids as ranges, other long ones as 16 bytes each.

A numbered id is a name and a decimal number behind it, as `publish` writes them for the deltas of a stream. Of numbers
that follow one another the first and the last are kept, which is exact. Other ids are kept as they are, but for long
ones beyond a few: of these 16 bytes are kept. 32 hexadecimal digits are these bytes, anything else has a BLAKE2b digest
of that size (docs/decisions/0013). An id with a character beyond ASCII right before its number is no numbered id.
"""

from __future__ import annotations

from bisect import bisect_right
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

from processor.core.acyclic import mypyc_attr
from processor.core.json_bytes import number_end

if TYPE_CHECKING:
    from mypy_extensions import i64  # for the compiler alone

_SIZE: Final = 16
_MAX_STREAMS: Final = 16
"""How many names of numbered ids are kept. A numbered id of another name is kept as any other id."""
_MAX_BOUNDS: Final = 128
"""How many bounds of ranges one name may have, two for each range. An id that would need more is kept as any other."""
_MAX_DIGITS: Final = 18
_NO_NUMBER: Final = -1
_NOT_EVERYWHERE: Final = -2
"""Of an id that programs from before took for a numbered one or not, as the Unicode tables of their Python had it."""
_BEYOND: Final = 10**16
"""The first number that `number_end` does not read."""
_IS_COMPILED: Final = not __file__.endswith(".py")
_FEW: Final = 8
"""How many ids are kept as they are before long ones among them are not: most steps have no more."""
_PER_BUCKET: Final = 32
_MAX_BUCKETS: Final = 1 << 16


_NO_BUCKETS: Final[list[bytes]] = []


@mypyc_attr(acyclic=True)
class _Stream:
    """The numbers that one name has had: `[first, last, first, last, ...]`, ascending, with gaps between the ranges.

    `prefix` is a name of ASCII as bytes; None: it is another.
    """

    __slots__ = ("bounds", "name", "prefix")

    def __init__(self, name: str, bounds: list[int]) -> None:
        self.name, self.bounds = name, bounds
        self.prefix = name.encode() if name.isascii() else None

    def holds(self, number: int) -> bool:
        at = bisect_right(self.bounds, number)
        return at % 2 == 1 or (at > 0 and self.bounds[at - 1] == number)

    def add(self, number: int) -> bool:
        """Take in a number that is not held. False, and nothing is changed, if there is no room for another range."""
        bounds = self.bounds
        at = bisect_right(bounds, number)
        follows = at > 0 and bounds[at - 1] == number - 1
        precedes = at < len(bounds) and bounds[at] == number + 1
        if follows and precedes:
            del bounds[at - 1 : at + 1]
        elif follows:
            bounds[at - 1] = number
        elif precedes:
            bounds[at] = number
        elif len(bounds) < _MAX_BOUNDS:
            bounds[at:at] = [number, number]
        else:
            return False
        return True


@mypyc_attr(acyclic=True)
class EventIds:
    """A set of event ids."""

    __slots__ = ("_buckets", "_digests", "_following", "_last", "_overflowed", "_prefix", "_streams", "_whole")

    def __init__(self) -> None:
        self._streams: list[_Stream] | None = None
        self._last: _Stream | None = None  # of the numbered id that was added last
        self._prefix: bytes | None = None  # its own, and the number behind its last: those of nearly every next id
        self._following: i64 = 0
        self._overflowed = False  # whether there is a numbered id outside the streams
        self._whole: set[str] | None = None  # no long ones if there are digests
        self._buckets: list[bytes] = _NO_BUCKETS  # digests, side by side, by their first two bytes
        self._digests = 0

    def holds(self, event_id: str) -> bool:
        """Whether the id was added before."""
        self._settle()
        name, number = _split(event_id)
        if number >= 0:
            stream = self._stream(name)
            if stream is not None and stream.holds(number):
                return True
            if not self._overflowed:
                return False
        return self._holds_whole(event_id)

    def _holds_whole(self, event_id: str) -> bool:
        if self._whole is not None and event_id in self._whole:
            return True
        return self._digests > 0 and len(event_id) >= _SIZE and self._holds_digest(_digest(event_id))

    def is_next(self, event_id: bytes) -> bool:
        """Whether an id has the number that follows the highest of the name that was added to last.

        That is nearly every one. It is of ASCII then, and was not added before.
        """
        prefix = self._prefix
        if prefix is None or self._overflowed or not event_id.startswith(prefix):
            return False
        following = self._following
        if not _IS_COMPILED:
            return following < _BEYOND and event_id == prefix + b"%d" % following
        size = len(event_id)
        return number_end(event_id, len(prefix), size, following) == size

    def add_next(self) -> None:
        """Take in the id that `is_next`."""
        self._following += 1

    def _settle(self) -> None:
        """Note in the stream what `add_next` has taken in, before anything is asked of the stream."""
        last = self._last
        if last is not None:
            last.bounds[-1] = self._following - 1

    def _follow(self, stream: _Stream) -> None:
        """Expect that the next id follows the highest of this stream."""
        self._last, self._prefix = stream, stream.prefix
        self._following = stream.bounds[-1] + 1

    def add(self, event_id: str) -> bool:
        """Take in an id. False, and nothing is changed, if it was added before."""
        self._settle()
        name, number = _split(event_id)
        if number < 0:
            if number == _NOT_EVERYWHERE:
                self._overflowed = True  # so that such a program, which may take it for numbered, looks for it
            return self._add_whole(event_id)
        stream = self._stream(name)
        if (stream is not None and stream.holds(number)) or (self._overflowed and self._holds_whole(event_id)):
            return False
        if stream is None:
            if self._streams is None:
                self._streams = []
            if len(self._streams) < _MAX_STREAMS:
                stream = _Stream(name, [])
                self._streams.append(stream)
        if stream is not None and stream.add(number):
            self._follow(stream)
            return True
        self._overflowed = True
        return self._add_whole(event_id)

    def _add_whole(self, event_id: str) -> bool:
        whole = self._whole
        if len(event_id) >= _SIZE and (self._digests or (whole is not None and len(whole) >= _FEW)):
            if whole and not self._digests:
                if event_id in whole:
                    return False
                self._whole = {held for held in whole if len(held) < _SIZE}
                for held in sorted(whole - self._whole):
                    self._add_digest(_digest(held))
            digest = _digest(event_id)
            if self._digests and self._holds_digest(digest):
                return False
            self._add_digest(digest)
        elif whole is None:
            self._whole = {event_id}
        elif event_id in whole:
            return False
        else:
            whole.add(event_id)
        return True

    def copy(self) -> EventIds:
        """A set of the same ids, to be added to."""
        return EventIds.unpack(self.pack())

    def pack(self) -> list[Any]:
        """For a checkpoint: names with their bounds, whole ids, digests, whether one of these is a numbered id."""
        self._settle()
        streams = [[stream.name, list(stream.bounds)] for stream in self._streams or ()]
        return [streams, sorted(self._whole or ()), b"".join(self._buckets), self._overflowed]

    @staticmethod
    def unpack(packed: list[Any]) -> EventIds:
        """Read what `pack` gave, or, from before there was this class, a list of the ids themselves."""
        ids = EventIds()
        if not packed or type(packed[0]) is str:
            for event_id in packed:
                ids.add(event_id)
            return ids
        streams, whole, digests, ids._overflowed = packed
        ids._whole = set(whole) if whole else None
        for at in range(0, len(digests), _SIZE):
            ids._add_digest(digests[at : at + _SIZE])
        for name, bounds in streams:
            if name and not name[-1].isascii():  # of a program from before
                ids._add_each(name, bounds)
                continue
            if ids._streams is None:
                ids._streams = []
            ids._streams.append(_Stream(name, bounds))
        if ids._streams is not None:
            ids._follow(ids._streams[-1])
        return ids

    def _add_each(self, name: str, bounds: list[int]) -> None:
        """Take in, each as it is, the ids that a name and its ranges stand for."""
        for at in range(0, len(bounds), 2):
            for number in range(bounds[at], bounds[at + 1] + 1):
                self.add(f"{name}{number}")

    def state(self) -> Any:
        """State to be compared with that of another set."""
        self._settle()
        digests = b"".join(self._buckets)
        return (
            sorted((stream.name, list(stream.bounds)) for stream in self._streams or ()),
            sorted(self._whole or ()),
            sorted(digests[at : at + _SIZE] for at in range(0, len(digests), _SIZE)),
        )

    def _stream(self, name: str) -> _Stream | None:
        for stream in self._streams or ():
            if stream.name == name:
                return stream
        return None

    def _bucket(self, digest: bytes) -> int:
        return (digest[0] | digest[1] << 8) & (len(self._buckets) - 1)

    def _holds_digest(self, digest: bytes) -> bool:
        bucket = self._buckets[self._bucket(digest)]
        at = bucket.find(digest)
        while at > 0 and at % _SIZE:  # found across two of them
            at = bucket.find(digest, at + 1)
        return at >= 0

    def _add_digest(self, digest: bytes) -> None:
        buckets = self._buckets
        if not buckets:
            self._buckets = [b""]
        elif self._digests >= _PER_BUCKET * len(buckets) and len(buckets) < _MAX_BUCKETS:
            held = b"".join(buckets)
            self._buckets = [b""] * (2 * len(buckets))
            for at in range(0, len(held), _SIZE):
                moved = held[at : at + _SIZE]
                self._buckets[self._bucket(moved)] += moved
        self._buckets[self._bucket(digest)] += digest
        self._digests += 1


def _split(event_id: str) -> tuple[str, int]:
    """The name and the number of a numbered id; "" and a negative number of any other.

    The two give the id back: the number has no zeros in front. The name is empty or ends in a character of ASCII that
    is no letter and no digit.
    """
    size: i64 = len(event_id)
    at: i64 = size
    number: i64 = 0
    unit: i64 = 1
    digit: i64 = -1
    while at > 0:
        code: i64 = ord(event_id[at - 1])
        if code < 0x30 or code > 0x39:
            break
        if size - at == _MAX_DIGITS:
            return "", _NO_NUMBER
        digit = code - 0x30
        number += digit * unit
        unit *= 10
        at -= 1
    if at == size or (digit == 0 and size - at > 1):
        return "", _NO_NUMBER
    if at > 0:
        before: i64 = ord(event_id[at - 1])
        if before > 0x7F:
            return "", _NOT_EVERYWHERE
        if 0x41 <= before <= 0x5A or 0x61 <= before <= 0x7A:
            return "", _NO_NUMBER
    return event_id[:at], number


def id_text(content: bytes) -> str:
    """The event id in a header. Bytes that are not UTF-8 stand in it as backslash escapes."""
    try:
        return content.decode()
    except UnicodeDecodeError:
        return content.decode("utf-8", "backslashreplace")


def _digest(event_id: str) -> bytes:
    if len(event_id) == 2 * _SIZE:
        try:
            found = bytes.fromhex(event_id)
        except ValueError:
            found = b""
        if found.hex() == event_id:
            return found
    return blake2b(event_id.encode(), digest_size=_SIZE).digest()
