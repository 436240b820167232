"""Headers of a published step as what they say: pairs for who reads them, bytes for who writes them.

Nine pairs are nine objects for each step, most of them the garbage collector's, and a writer would walk them to write
what is nearly the same in all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from processor.core.acyclic import mypyc_attr
from processor.core.headers import (
    DIGEST,
    EVENTS,
    FIRST_OFFSET,
    LAST_OFFSET,
    REVISION,
    RULES,
    SOURCE_PARTITION,
    SOURCE_TOPIC,
    VERSION,
)
from processor.core.varint import varint

Pair = tuple[str, bytes]
_COUNT: Final = 9
_NOTHING: Final = b""


def _text(content: bytes) -> bytes:
    return varint(len(content)) + content


def _name(name: str) -> bytes:
    return _text(name.encode())


_FEW: Final = tuple(str(number).encode() for number in range(256))
"""The commonest numbers as they are written."""
_FEW_SIZED: Final = tuple(_text(digits) for digits in _FEW)
_LENGTHS: Final = tuple(varint(size) for size in range(64))
"""Of whole numbers, which have at most 20 digits."""
_LAST: Final = _name(LAST_OFFSET)
_EVENTS: Final = _name(EVENTS)
_REVISION: Final = _name(REVISION)


class SharedHeaders:
    """Headers that all steps of a partition share that were folded by the same rules."""

    __slots__ = ("begin", "end", "partition", "rules", "topic", "version")

    def __init__(self, topic: bytes, partition: bytes, version: bytes, rules: bytes) -> None:
        self.topic, self.partition = (SOURCE_TOPIC, topic), (SOURCE_PARTITION, partition)
        self.version, self.rules = (VERSION, version), (RULES, rules)
        self.begin = b"".join(
            (
                varint(_COUNT),
                _name(SOURCE_TOPIC),
                _text(topic),
                _name(SOURCE_PARTITION),
                _text(partition),
                _name(FIRST_OFFSET),
            )
        )
        """How they begin as record format 2 has them, their number in front, and how they go on behind the revision."""
        self.end = b"".join((_name(VERSION), _text(version), _name(RULES), _text(rules), _name(DIGEST)))


@mypyc_attr(acyclic=True)
class StepHeaders:
    """The headers of a step that has these nine and no other. It is read as the sequence of their pairs.

    Args:
        digest: hexadecimal.
    """

    __slots__ = ("_digest", "_events", "_first", "_last", "_pairs", "_revision", "_shared")

    def __init__(self, shared: SharedHeaders, first: int, last: int, events: int, revision: int, digest: bytes) -> None:
        self._shared, self._first, self._last = shared, first, last
        self._events, self._revision, self._digest = events, revision, digest
        self._pairs: tuple[Pair, ...] | None = None

    def pairs(self) -> tuple[Pair, ...]:
        """The headers as pairs of name and content."""
        found = self._pairs
        if found is None:
            shared, events, revision = self._shared, self._events, self._revision
            found = self._pairs = (
                shared.topic,
                shared.partition,
                (FIRST_OFFSET, str(self._first).encode()),  # formatting bytes costs twice that
                (LAST_OFFSET, str(self._last).encode()),
                (EVENTS, _FEW[events] if events < len(_FEW) else str(events).encode()),
                (REVISION, _FEW[revision] if revision < len(_FEW) else str(revision).encode()),
                shared.version,
                shared.rules,
                (DIGEST, self._digest),
            )
        return found

    def written(self) -> bytes:
        """The headers as record format 2 has them, their number in front."""
        shared, events, revision, digest = self._shared, self._events, self._revision, self._digest
        first, last = str(self._first).encode(), str(self._last).encode()
        return _NOTHING.join(
            (
                shared.begin,
                _LENGTHS[len(first)],
                first,
                _LAST,
                _LENGTHS[len(last)],
                last,
                _EVENTS,
                _FEW_SIZED[events] if events < len(_FEW_SIZED) else _text(str(events).encode()),
                _REVISION,
                _FEW_SIZED[revision] if revision < len(_FEW_SIZED) else _text(str(revision).encode()),
                shared.end,
                varint(len(digest)),
                digest,
            )
        )

    def __len__(self) -> int:
        return _COUNT

    def __iter__(self) -> Iterator[Pair]:
        return iter(self.pairs())

    def __getitem__(self, place: Any) -> Any:
        return self.pairs()[place]

    def __eq__(self, other: object) -> bool:
        return self.pairs() == (other.pairs() if isinstance(other, StepHeaders) else other)

    def __hash__(self) -> int:
        return hash(self.pairs())

    def __repr__(self) -> str:
        return repr(self.pairs())


def encodable(headers: Any) -> Any:
    """Headers as an encoder may have them that does not know `StepHeaders`.

    Raises:
        TypeError: it is something else.
    """
    if isinstance(headers, StepHeaders):
        return headers.pairs()
    raise TypeError(f"no headers: {type(headers).__name__}")
