"""Records and effects: the input and the output of the core, as data without behaviour."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Final, Protocol

import msgspec

Headers = Sequence[tuple[str, bytes | None]]

FOLD_VERSION: Final = 8
"""Changes whenever the same log and settings would give other published bytes."""


class Record(Protocol):
    """One record of the source partition, as the client hands it over.

    `timestamp` is in milliseconds. The client's own record object satisfies this as it is.
    """

    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Headers: ...


class LogRecord(msgspec.Struct, frozen=True, gc=False):
    """A `Record` of our own making: archives, the simulator, tests."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()


class Status(StrEnum):
    """A step's status, spelled as on the wire. `core.lifecycle` says which may follow which."""

    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    __hash__ = str.__hash__  # an enumeration's own is a Python function: too slow for what is looked up for each event


class Reason(StrEnum):
    """Why a record went to the dead letters. A closed set: it becomes a header and a metric label."""

    NOT_JSON = "not_json"
    TOO_DEEP = "too_deep"
    MALFORMED = "malformed"
    UNKNOWN_EVENT = "unknown_event"
    BAD_INDEX = "bad_index"
    ILLEGAL_TRANSITION = "illegal_transition"
    TYPE_CHANGED = "type_changed"
    STEP_TOO_LARGE = "step_too_large"
    TOO_MANY_OPEN_STEPS = "too_many_open_steps"
    SNAPSHOT_TOO_LARGE = "snapshot_too_large"
    INTERNAL_ERROR = "internal_error"


REFERENCES: Final = frozenset({Reason.SNAPSHOT_TOO_LARGE, Reason.INTERNAL_ERROR})
"""Reasons of dead letters that refer to a step: with one of these a clock mark is the worker's own word."""
REFERENCES_AS_BYTES: Final = frozenset(reason.value.encode() for reason in REFERENCES)
"""The same as headers have them."""


class Rejected(msgspec.Struct, frozen=True, gc=False):
    """Bad data as a value (never an exception). `detail` holds no payload text and at most 200 characters."""

    reason: Reason
    detail: str


class Publish(msgspec.Struct, frozen=True, gc=False):
    """Publish a finished step to the topic of its status.

    `value` is the canonical snapshot, `headers` the evidence (names in `core.evidence`), `timestamp` the
    source record's in milliseconds. Key: the step id as UTF-8.
    """

    status: Status
    step_id: str
    value: bytes
    timestamp: int
    headers: Sequence[tuple[str, bytes]]
    revision: int
    inferred: str | None
    anomalies: tuple[str, ...]


class DeadLetter(msgspec.Struct, frozen=True, gc=False):
    """Set a record aside, intact.

    Key, value and the original headers are the source record's own; `headers` already hold ours behind them.
    """

    reason: Reason
    detail: str
    key: bytes | None
    value: bytes | None
    timestamp: int
    headers: tuple[tuple[str, bytes | None], ...]
    offset: int


class Checkpoint(msgspec.Struct, frozen=True, gc=False):
    """Write one entry to the checkpoint topic, partition = source partition; value None forgets it."""

    key: bytes
    value: bytes | None


Effect = Publish | DeadLetter | Checkpoint


class Transition(msgspec.Struct, frozen=True, gc=False):
    """Change of a step's status at a record, or a change that was refused (`refused` is the reason then).

    `before` is None for a step never seen. `kind` is what brought it about: the step's own event (`event`), its run's
    end (`run`), a deadline (`deadline`), a clock mark (`clock_mark`).
    """

    step_id: str
    offset: int
    timestamp: int
    before: str | None
    after: str | None
    kind: str
    refused: str | None = None
