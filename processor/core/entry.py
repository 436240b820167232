"""Entries: what a partition remembers of one step or one ended run, and the cause of a change to it."""

from __future__ import annotations

from enum import Enum
from typing import Final

from processor.core.acyclic import mypyc_attr
from processor.core.effects import FOLD_VERSION, Record, Status
from processor.core.ended_groups import EndedGroup, Held
from processor.core.packed_steps import of_compacted, unpack_step
from processor.core.step_state import StepState
from processor.core.wire_types import RunEnd

CLEAN: Final = -1
"""`dirty_from` of an entry that a checkpoint covers."""
_OPEN: Final = Status.IN_PROGRESS


class Form(Enum):
    """Form of an entry: in which of its attributes it holds its step, or what else it holds."""

    STEP = "step"
    """`step`: an open step at work."""
    PACKED = "packed"
    """`body`: a packed step, ended, or open and not touched since its checkpoint: it may wait for hours."""
    COMPACT = "compact"
    """`ended`: an ended step, kept as what was published of it."""
    GROUPED = "grouped"
    """`group`: an ended step, kept with others in a group, at `place`."""
    REFUSED = "refused"
    """Nothing: a step that was refused (X2), or, `inferred` as well, one in quarantine."""
    RUN = "run"
    """`run`: the end of a run."""


_STEP: Final = Form.STEP
_PACKED: Final = Form.PACKED
_COMPACT: Final = Form.COMPACT
_GROUPED: Final = Form.GROUPED
_REFUSED: Final = Form.REFUSED
_RUN: Final = Form.RUN


@mypyc_attr(acyclic=True)
class Entry:
    """One remembered step or ended run, in one of the forms of `Form`. Only its methods change the form.

    `touched_*` is when an event last named it, in stream time and offset. `dirty_from` is the offset of its first
    record that no checkpoint covers, `dirty_time` the stream time before that record.
    """

    __slots__ = (
        "applied_below",
        "body",
        "checkpointed",
        "dirty_from",
        "dirty_time",
        "due_s",
        "ended",
        "fold_version",
        "form",
        "group",
        "inferred",
        "irregular",
        "is_idle",
        "key",
        "opened_s",
        "place",
        "refused",
        "run",
        "run_id",
        "status",
        "step",
        "touched_ms",
        "touched_offset",
        "weight",
    )

    def __init__(self, key: str, offset: int) -> None:
        self.key = key
        self.form: Form = _PACKED
        self.step: StepState | None = None
        self.body = b""
        self.ended: StepState | None = None
        self.group: EndedGroup | None = None
        self.place = 0
        self.run: RunEnd | None = None
        self.run_id: str | None = None
        self.status: Status = _OPEN
        self.inferred = False
        self.refused = False
        self.irregular = False
        self.due_s = 0
        self.opened_s = 0
        self.touched_ms = 0
        self.touched_offset = offset
        self.dirty_from = CLEAN
        self.dirty_time = 0
        self.applied_below = 0
        self.checkpointed = False
        self.fold_version = FOLD_VERSION
        """By which rules it was folded, in part at least: what is published of it says so."""
        self.weight = 1
        """How many open steps it counts as while it is open (X2)."""
        self.is_idle = False
        """An open response without an open step: it has no deadline that a clock mark may set."""

    # --- forms ----------------------------------------------------------------------------------------------

    def hold(self, step: StepState) -> None:
        """Hold an open step that is at work."""
        self.form, self.step, self.body = _STEP, step, b""

    def hold_packed(self, body: bytes) -> None:
        """Hold a step as its bytes."""
        self.form, self.body = _PACKED, body
        self.step = self.ended = self.group = None

    def hold_run(self, run: RunEnd) -> None:
        """Hold the end of a run."""
        self.form, self.run = _RUN, run

    def refuse(self) -> None:
        """Hold nothing but that the step is refused."""
        self.form, self.body, self.refused, self.irregular = _REFUSED, b"", True, True
        self.step = self.ended = self.group = None

    def drop(self) -> None:
        """Hold nothing: the entry is forgotten."""
        self.form, self.body = _PACKED, b""
        self.step = self.ended = self.group = None

    def materialise(self) -> StepState:
        """The step, to be changed. An ended one has to be compacted again afterwards."""
        step = self.step
        if step is None:
            if self.ended is not None:
                return self.ended.materialise()
            group = self.group
            if group is not None:
                held = group.step_at(self.place)
                if isinstance(held, bytes):
                    return unpack_step(held)
                return of_compacted(self.key, self.status, held).materialise()
            step = unpack_step(self.body)
            if self.status is _OPEN:
                self.hold(step)
        return step

    def peek(self) -> StepState:
        """An open step to be looked at: neither it nor the entry changes its form."""
        return self.step if self.step is not None else unpack_step(self.body)

    def compact(self, step: StepState) -> None:
        """Keep an ended step, as small as may be by itself."""
        if step.compact():
            self.form, self.ended, self.step, self.body = _COMPACT, step, None, b""
            self.group = None
        else:
            self.hold_packed(step.pack())

    def put_back(self, step: StepState) -> None:
        """Keep an ended step again, after `materialise`; an open one is held as it is."""
        if self.step is None:
            self.compact(step)

    def packed(self) -> bytes:
        """The packed step, for a checkpoint. An open step is held packed from here on."""
        if self.step is not None:
            self.hold_packed(self.step.pack())
        if self.form is _GROUPED or self.form is _COMPACT:
            return self.materialise().pack()
        return self.body

    # --- groups ---------------------------------------------------------------------------------------------

    def ended_bytes(self) -> int:
        """About how many bytes an ended step has for a group; 0 if the entry holds nothing that could be in one."""
        if self.ended is not None:
            return self.ended.compacted_bytes()
        return len(self.body)

    def for_group(self) -> Held | None:
        """An ended step that is in no group, as a group takes it. None: a bug; the step has to stay as it is."""
        ended = self.ended
        if ended is None:
            return self.body
        try:
            return ended.compacted()
        except MemoryError:
            raise
        except Exception:  # it is no fault of the event at hand, and nothing is lost
            return None

    def join(self, group: EndedGroup, place: int) -> None:
        """Hold an ended step as a place in a group, which has what `for_group` gave."""
        self.form, self.body = _GROUPED, b""
        self.group, self.place, self.ended = group, place, None

    def leave_group(self) -> None:
        """Hold an ended step in the form that it had before it joined a group."""
        group = self.group
        assert group is not None
        held = group.step_at(self.place)
        if isinstance(held, bytes):
            self.hold_packed(held)
        else:
            self.form, self.ended, self.group = _COMPACT, of_compacted(self.key, self.status, held), None


@mypyc_attr(acyclic=True)
class Cause:
    """Cause of an effect: a record at `offset`, or a clock mark (`mark` is set and there is no record).

    `before_ms` is the stream time before it.
    """

    __slots__ = ("before_ms", "mark", "offset", "record", "timestamp")

    def __init__(
        self, offset: int, timestamp: int, before_ms: int, record: Record | None = None, mark: str | None = None
    ) -> None:
        self.offset = offset
        self.timestamp = timestamp
        self.before_ms = before_ms
        self.record = record
        self.mark = mark
