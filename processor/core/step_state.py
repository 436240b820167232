"""Step state: what a partition needs of any step, whatever dialect its events are of.

`core.run_steps.step` is the step of run-step events; Responses have `core.responses.item`.
"""

from __future__ import annotations

from typing import Any, Final

from processor.core.acyclic import mypyc_attr
from processor.core.checkpoint_format import Inference
from processor.core.effects import Status
from processor.core.lifecycle import ORPHANING, RUN_ENDS
from processor.core.wire_types import RunEnd

# fmt: off
SCHEMA_KEYS: Final = (
    "id", "object", "created_at", "assistant_id", "thread_id", "run_id", "type", "status", "step_details",
    "last_error", "expired_at", "cancelled_at", "failed_at", "completed_at", "metadata",
)
"""Every published snapshot has these; null where nothing is known."""
# fmt: on

KEPT_OVER_NULL: Final = frozenset({"run_id", "thread_id", "assistant_id", "created_at", "type", "step_details"})
"""What even an ending object cannot erase with a null."""
MAX_EXPIRES_AT: Final = 1 << 40
_NONE: Final[frozenset[str]] = frozenset()
_OPEN: Final = Status.IN_PROGRESS


@mypyc_attr(acyclic=True)
class StepState:
    """A step that is remembered as an object: open, or ended and being amended. Times in seconds of stream time."""

    __slots__ = (
        "anomalies",
        "characters",
        "events",
        "first_offset",
        "inference",
        "irregular",
        "last_offset",
        "object_bytes",
        "opened_s",
        "oversize",
        "revision",
        "seen",
        "status",
        "step_id",
        "trace",
        "usable_expires_at",
    )

    def __init__(self, step_id: str, offset: int, opened_s: int) -> None:
        self.step_id = step_id
        self.status = _OPEN
        self.seen: set[str] | None = None
        self.anomalies: frozenset[str] = _NONE
        self.trace: tuple[tuple[str, bytes], ...] = ()
        self.first_offset = offset
        self.last_offset = offset
        self.opened_s = opened_s
        self.usable_expires_at: int | None = None
        self.inference: Inference | None = None
        self.events = 0
        self.revision = -1
        self.object_bytes = 0
        self.characters = 0
        self.oversize = False
        self.irregular = False

    # --- what a dialect gives -------------------------------------------------------------------------------

    @property
    def run_id(self) -> str | None:
        """The run that the step belongs to, as far as it is known."""
        raise NotImplementedError

    @property
    def fields(self) -> dict[str, Any]:
        """All that objects said of the step but its details."""
        raise NotImplementedError

    def ids(self) -> tuple[Any, Any]:
        """The fields `run_id` and `thread_id` of an ended step, which stays in the form it has."""
        raise NotImplementedError

    def peek(self) -> tuple[Any, Any]:
        """The thread id and the type of the details of an open step, which stays in the form it has."""
        raise NotImplementedError

    def expired_at_disagrees(self) -> bool:
        """Whether it says when it expired and ended otherwise."""
        raise NotImplementedError

    def snapshot(self, object_type: str = "") -> dict[str, Any]:
        """The step as JSON: all `SCHEMA_KEYS`, and every extra key that came."""
        raise NotImplementedError

    def encoded(self, object_type: str) -> bytes:
        """The canonical bytes of the snapshot."""
        raise NotImplementedError

    def pack(self) -> bytes:
        """The step as bytes, for `core.packed_steps.unpack_step`."""
        raise NotImplementedError

    def compact(self) -> bool:
        """Keep an ended step as what was published of it, or say False: it has to be packed."""
        return False

    def materialise(self) -> StepState:
        """A copy of a compacted step, to be changed."""
        raise NotImplementedError

    def compacted(self) -> list[Any]:
        """A compacted step as plain data, for `core.packed_steps.of_compacted`. No checkpoint has it."""
        raise NotImplementedError

    def compacted_bytes(self) -> int:
        """The size of what a compacted step keeps of what was published."""
        raise NotImplementedError

    def is_step(self) -> bool:
        """Whether it is one step, to be reported as such: a response holds several."""
        return True

    # --- what all steps have --------------------------------------------------------------------------------

    def has_folded(self, event_id: str | None) -> bool:
        """Whether an event of this id was folded before; without ids that is not known."""
        return event_id is not None and self.seen is not None and event_id in self.seen

    def note_folded(self, event_id: str) -> None:
        """An event of this id has been folded."""
        if self.seen is None:
            self.seen = set()
        self.seen.add(event_id)

    def size_with(self, object_bytes: int, more: int) -> int:
        """X1: the size the step would have with this event."""
        return max(self.object_bytes, object_bytes) + self.characters + more

    def stop_growing(self) -> None:
        """X1: it has grown over the limit; no more deltas are taken."""
        self.oversize = True
        self.add_anomaly("step_too_large")

    def add_anomaly(self, anomaly: str) -> None:
        """Note what the published step will carry as an anomaly."""
        self.anomalies |= {anomaly}

    def told_anomalies(self) -> frozenset[str]:
        """The anomalies of the step as it is published now."""
        return self.anomalies

    def infer(self, how: str, status: Status, at_s: int, last_error: Any = None) -> None:
        """End the step though no event of its own said so."""
        self.inference = Inference(how, status, at_s, last_error)
        self.status = status
        self.irregular = True

    def end_with_run(self, run: RunEnd, timestamp: int) -> None:
        """L6: the step ends as its run did."""
        status = RUN_ENDS[run.status]
        if run.status in ORPHANING:
            self.add_anomaly("orphaned_by_run")
        at_s = run.ended_at if run.ended_at is not None else timestamp // 1000
        self.infer("run", status, at_s, run.last_error if status is Status.FAILED else None)

    def summary(self) -> tuple[Any, ...]:
        """All that can be compared of two steps without changing the form that they have."""
        return (
            self.status, self.seen, self.anomalies, self.trace, self.first_offset, self.last_offset, self.opened_s,
            self.usable_expires_at, self.inference, self.events, self.revision, self.object_bytes, self.characters,
            self.oversize,
        )  # fmt: skip


def usable_expires_at(value: Any, grace_s: int, now_ms: int) -> int | None:
    """L7a: an integer from 1 to 2^40 whose deadline had not passed when it came."""
    if type(value) is int and 0 < value <= MAX_EXPIRES_AT and value + grace_s > now_ms // 1000:
        return value
    return None
