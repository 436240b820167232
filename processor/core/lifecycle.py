"""Status of a step: which event leads from which status to which (L1-L9 of docs/semantics.md)."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, StrEnum, auto
from typing import Final

from processor.core.effects import Status


class Kind(StrEnum):
    """Kind of an event: what it says happened to a step."""

    CREATED = "created"
    STATED = "stated"  # a bare object in progress: it has no event name that could say "created"
    IN_PROGRESS = "in_progress"
    DELTA = "delta"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    __hash__ = str.__hash__  # as that of `Status`


class Move(Enum):
    """Move of the lifecycle table: what the partition does with an event."""

    OPEN = auto()  # begin a snapshot
    JOIN = auto()  # begin one, knowing that the beginning was missed (L8)
    JOIN_END = auto()  # an end that stands alone (L8)
    FILL = auto()  # a late `created`: fills what deltas opened, else a repeat (L5)
    REFRESH = auto()  # take what is new (L2)
    FOLD = auto()  # merge the delta (L2)
    END = auto()  # merge the ending object and publish (L3)
    AMEND = auto()  # fold into the ended step; publish again if it changed (L9)
    RESTATE = auto()  # the same end again: nothing, unless it says more (L5)
    OVERRULE = auto()  # a real end after an inferred one (L6a)
    REPEAT = auto()  # nothing to do, counted (L5)


_K, _M = Kind, Move


def _ended(own: Kind) -> dict[Kind, Move]:
    """L4: after an end nothing may follow but repeats (L5) and late deltas (L9)."""
    return {_K.CREATED: _M.REPEAT, _K.DELTA: _M.AMEND, own: _M.RESTATE}


# Row: where the step is (None: never seen). Column: what arrived. An absent cell is an illegal transition.
# fmt: off
TRANSITIONS: Final[Mapping[Status | None, Mapping[Kind, Move]]] = {
    None: {
        _K.CREATED:     _M.OPEN,       # L1
        _K.STATED:      _M.OPEN,       # L1
        _K.IN_PROGRESS: _M.JOIN,       # L1
        _K.DELTA:       _M.JOIN,       # L8
        _K.COMPLETED:   _M.JOIN_END,   # L8
        _K.FAILED:      _M.JOIN_END,
        _K.CANCELLED:   _M.JOIN_END,
        _K.EXPIRED:     _M.JOIN_END,
    },
    Status.IN_PROGRESS: {
        _K.CREATED:     _M.FILL,       # L5
        _K.STATED:      _M.REFRESH,    # L2
        _K.IN_PROGRESS: _M.REFRESH,    # L2
        _K.DELTA:       _M.FOLD,       # L2
        _K.COMPLETED:   _M.END,        # L3
        _K.FAILED:      _M.END,
        _K.CANCELLED:   _M.END,
        _K.EXPIRED:     _M.END,
    },
    Status.COMPLETED: _ended(_K.COMPLETED),
    Status.FAILED:    _ended(_K.FAILED),
    Status.CANCELLED: _ended(_K.CANCELLED),
    Status.EXPIRED:   _ended(_K.EXPIRED),
}

AFTER_INFERENCE: Final[Mapping[Kind, Move]] = {   # an end that a run or a deadline implied (L6a)
    _K.CREATED:   _M.REPEAT,
    _K.DELTA:     _M.AMEND,
    _K.COMPLETED: _M.OVERRULE,
    _K.FAILED:    _M.OVERRULE,
    _K.CANCELLED: _M.OVERRULE,
    _K.EXPIRED:   _M.OVERRULE,
}
# fmt: on

TERMINAL: Final = frozenset(s for s, row in TRANSITIONS.items() if s and Kind.IN_PROGRESS not in row)

RUN_ENDS: Final[Mapping[str, Status]] = {
    "completed": Status.EXPIRED,  # a step its run left behind (L6)
    "incomplete": Status.EXPIRED,
    "failed": Status.FAILED,
    "cancelled": Status.CANCELLED,
    "expired": Status.EXPIRED,
}
"""What an open step becomes when its run ends with this status."""

ORPHANING: Final = frozenset({"completed", "incomplete"})
"""Run ends that should have left no step open: such a step carries the anomaly `orphaned_by_run`."""


def move(status: Status | None, kind: Kind, *, inferred: bool = False) -> Move | None:
    """The cell for `kind` at `status`, or None where it is an illegal transition (L4)."""
    return (AFTER_INFERENCE if inferred else TRANSITIONS[status]).get(kind)
