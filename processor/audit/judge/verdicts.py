"""What an audit hands over: verdicts, findings, links; and the published records that it is given.

A room of their own: `core.audit` and `core.links` may be compiled, these classes are made at run time
(docs/decisions/0006).
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Any, Final, Protocol

import msgspec

from processor.core.effects import Headers


class Verdict(StrEnum):
    EQUAL = "equal"
    DIFFERENT = "different"
    MISSING = "missing"
    EXTRA = "extra"
    DUPLICATE = "duplicate"
    OUT_OF_ORDER = "out_of_order"
    UNVERIFIABLE = "unverifiable"

    __hash__ = str.__hash__  # as of `Status`: counted for every finding


DISAGREES: Final = frozenset(
    {Verdict.DIFFERENT, Verdict.MISSING, Verdict.EXTRA, Verdict.DUPLICATE, Verdict.OUT_OF_ORDER}
)
"""The verdicts that no proof survives."""


class Kind(StrEnum):
    """What a finding is about."""

    STEP = "step"
    DEAD_LETTER = "dead_letter"

    __hash__ = str.__hash__


class Published(msgspec.Struct, frozen=True, gc=False):
    """One record as it stands on an outcome topic or on the dead letters, its evidence read.

    `identity` is (step id, revision) or (source offset, reason) as text.
    """

    kind: Kind
    source_partition: int
    identity: tuple[str, str]
    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]


class Unreadable(msgspec.Struct, frozen=True, gc=False):
    """A record on an output topic whose evidence cannot be read: no honest output of ours. `why` says what lacks."""

    topic: str
    partition: int
    offset: int
    why: str


class Difference(msgspec.Struct, frozen=True, gc=False):
    """One field: its path, and both sides as short texts."""

    path: str
    expected: str
    got: str


class Finding(msgspec.Struct, frozen=True, gc=False):
    """A verdict on one published record or one implied one.

    Offsets are of the source; `cause_offset` is the record that made the effect, or behind which a clock mark did.
    `at` says where the published record stands (topic, partition, offset), None when there is none.
    """

    verdict: Verdict
    kind: Kind
    partition: int
    identity: tuple[str, str]
    first_offset: int
    cause_offset: int
    at: tuple[str, int, int] | None
    why: str = ""
    differences: tuple[Difference, ...] = ()


class Shelf(Protocol):
    """The published records of one source partition, wherever they are kept. Each is taken once."""

    def look(self, kind: Kind, identity: tuple[str, str]) -> list[Published]:
        """The records of this identity that were not taken yet, in the order of their topic, partition, offset."""
        ...

    def take(self, published: Published) -> None:
        """It is accounted for."""
        ...

    def take_equal(self, kind: Kind, identity: tuple[str, str], placed: Placed) -> tuple[str, int, int] | None:
        """Take the one record of this identity if it is `placed` in every byte; where it stands.

        None: nothing was taken, and `look` tells what there is.
        """
        ...

    def left(self) -> Iterator[Published]:
        """What was never taken, in the order of topic, partition, offset."""
        ...

    def marks(self) -> list[tuple[int, int]]:
        """The clock marks that records name: (position, milliseconds), ascending, each once."""
        ...

    def first_refusal_from(self, offset: int) -> int | None:
        """The first source offset from there on at which a step was refused because too many were open (X2)."""
        ...


class Placed(msgspec.Struct, frozen=True, gc=False):
    """Where an effect must stand and how: what a published record is compared with."""

    topic: str
    partition: int | None
    key: bytes | None
    value: bytes | None
    timestamp: int
    headers: Headers


class Link(msgspec.Struct, frozen=True, gc=False):
    """A block that holds records: its offsets, both inclusive and cut to the range, how many records, their digest.

    `digest` is the SHA-256 of the records as `framed` spells them, one after the other, in hexadecimal.
    """

    first: int
    last: int
    records: int
    digest: str


class _Created(msgspec.Struct, frozen=True, gc=False):
    """What decides whether a step began behind the range's beginning, of a snapshot that anybody may have written."""

    created_at: Any = None


read_created: Final = msgspec.json.Decoder(_Created).decode
