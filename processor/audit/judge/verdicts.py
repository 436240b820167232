"""Types of the judge: verdicts, findings, block digests; and the index of published records that it is given.

A module of their own: `partition_audit` and `block_digests` may be compiled, these classes are made at run time
(docs/decisions/0006).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
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


NEVER: Final = 1 << 62
"""An offset or a time that is never reached."""

RecordLocation = tuple[str, int, int]
"""Topic, partition, offset."""


class FindingKind(StrEnum):
    """Kind of the record of a finding."""

    STEP = "step"
    DEAD_LETTER = "dead_letter"

    __hash__ = str.__hash__


class Published(msgspec.Struct, frozen=True, gc=False):
    """One record of an outcome topic or of the dead letters, with its evidence parsed.

    `identity` is (step id, revision) or (source offset, reason) as text.
    """

    kind: FindingKind
    source_partition: int
    identity: tuple[str, str]
    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]


def location_of(published: Published) -> RecordLocation:
    return published.topic, published.partition, published.offset


class Unreadable(msgspec.Struct, frozen=True, gc=False):
    """A record on an output topic whose evidence cannot be read: no honest worker wrote it. `why`: what is missing."""

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
    kind: FindingKind
    partition: int
    identity: tuple[str, str]
    first_offset: int
    cause_offset: int
    at: RecordLocation | None
    why: str = ""
    differences: tuple[Difference, ...] = ()


class PublishedIndex(Protocol):
    """The published records of one source partition, on disk or in memory. Each record is taken at most once.

    Attributes:
        count: how many records there are.
        last: what `look` or `left` returned last, by location.
        holds_dead_letters: whether dead letters are among them at all.
    """

    @property
    def count(self) -> int: ...

    @property
    def last(self) -> Mapping[RecordLocation, Published]: ...

    @property
    def holds_dead_letters(self) -> bool: ...

    def look(self, kind: FindingKind, identity: tuple[str, str]) -> list[Published]:
        """The records of this identity that were not taken yet, in the order of their topic, partition, offset."""
        ...

    def all_of(self, kind: FindingKind, identity: tuple[str, str]) -> list[Published]:
        """The records of this identity, whether they were taken or not."""
        ...

    def take(self, published: Published) -> None:
        """Account for a record that `look` or `left` returned."""
        ...

    def take_equal(
        self, kind: FindingKind, identity: tuple[str, str], expected: ExpectedRecord
    ) -> RecordLocation | None:
        """Take the one record of this identity if it is `expected` in every byte; return its location.

        None: nothing was taken, and `look` returns what there is.
        """
        ...

    def left(self) -> Iterator[Published]:
        """The records that were never taken, in the order of topic, partition, offset."""
        ...

    def marks(self) -> list[tuple[int, int]]:
        """The clock marks that records name: (position, milliseconds), ascending, each once."""
        ...

    def all(self) -> Iterator[Published]:
        """Every record, taken or not, in the order of topic, partition, offset."""
        ...

    def regimes(self) -> Collection[tuple[bytes | None, bytes | None]]:
        """Fold versions and settings digests that records name: each pair once, some of them where there are
        very many."""
        ...

    def first_refusal_from(self, offset: int) -> int | None:
        """The first source offset from there on at which a step was refused because too many were open (X2)."""
        ...

    def strays(self) -> Iterator[tuple[FindingKind, Unreadable]]:
        """Records of the output topics that no partition can own, in the order of topic, partition, offset."""
        ...

    def kept_from(self, shortened: Iterable[tuple[str, int]]) -> dict[tuple[str, int], int]:
        """The first cause that is named in output partitions whose first records retention has taken.

        `NEVER` where none is named there.
        """
        ...


class ExpectedRecord(msgspec.Struct, frozen=True, gc=False):
    """The record that an effect should have been published as: a published record is compared with it."""

    topic: str
    partition: int | None
    key: bytes | None
    value: bytes | None
    timestamp: int
    headers: Headers


class BlockDigest(msgspec.Struct, frozen=True, gc=False):
    """A block that holds records: its offsets, both inclusive and cut to the range, how many records, their digest.

    `digest` is the SHA-256 of the records as `framed` spells them, one after the other, in hexadecimal.
    """

    first: int
    last: int
    records: int
    digest: str


class _Created(msgspec.Struct, frozen=True, gc=False):
    """Fields of a snapshot, which anybody may have written, that decide whether a step began inside the range."""

    created_at: Any = None
    inferred_times: Any = None

    @property
    def is_of_item(self) -> bool:
        """Whether `created_at` is the time of a record: so it is with output items, which do not say it."""
        return type(self.inferred_times) is list and "created_at" in self.inferred_times


read_created: Final = msgspec.json.Decoder(_Created).decode
