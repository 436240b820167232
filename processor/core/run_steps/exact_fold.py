"""Events of exact shapes that came in any envelope: folded as the fast path folds its own.

The fast path reads values that begin with an event's name. What comes as SSE text, as a CloudEvent, as a bare object
or with others in one record is decoded first; its deltas and step objects have the same shapes there.
"""

from __future__ import annotations

from typing import Final

from processor.core.effects import Status
from processor.core.entry import Cause, Entry
from processor.core.exact_events import ExactEvent
from processor.core.growing_text import inside
from processor.core.lifecycle import Kind
from processor.core.quarantine import Quarantine
from processor.core.run_steps.compact_step import Ending, opens_exactly
from processor.core.run_steps.event_ids import id_text
from processor.core.run_steps.exact_reader import ParsedDelta, StatedObject, TextDelta, general_delta
from processor.core.run_steps.fast_path import AppendText, FastPath, OpenCall
from processor.core.run_steps.object_path import ObjectPath
from processor.core.run_steps.step import Step
from processor.core.run_steps.usual_events import ENDS, EXPIRES_AT, ExactObject
from processor.core.transitions import Transitions
from processor.core.wire_types import StepDelta, StepObject

_CREATED, _STATED, _IN_PROGRESS = Kind.CREATED, Kind.STATED, Kind.IN_PROGRESS
_COMPLETED: Final = Status.COMPLETED


class ExactFold:
    """Folds one event at a time. `appended`: how many deltas, since it was read."""

    __slots__ = ("_fast", "_max_step_bytes", "_objects", "_quarantine", "_transitions", "appended")

    def __init__(
        self,
        max_step_bytes: int,
        transitions: Transitions,
        quarantine: Quarantine,
        fast: FastPath,
        objects: ObjectPath,
    ) -> None:
        self._max_step_bytes, self._transitions = max_step_bytes, transitions
        self._quarantine, self._fast, self._objects = quarantine, fast, objects
        self.appended = 0

    def apply(self, cause: Cause, event: ExactEvent, event_id: str | None, number: int, total: int) -> bool:
        """Fold an event; False, and nothing is changed, if it is for the slow path (`general`).

        Args:
            number, total: which event of its record it is, and of how many.
        """
        held = len(self._transitions.effects)
        try:
            if isinstance(event, TextDelta):
                return self.append(cause, event, None if event_id is None else event_id.encode())
            if isinstance(event, ParsedDelta):
                return self._delta(cause, event, event_id)
            assert isinstance(event, StatedObject)
            return self._object(cause, event, event_id)
        except MemoryError:
            raise
        except Exception as error:  # as in `SlowPath.apply_event`: the record's other events count
            of_several = f"{number}/{total}" if total > 1 else ""
            self._quarantine.break_event(cause, step_id_of(event), held, error, of_several)
            return True

    def append(self, cause: Cause, event: TextDelta, event_id: bytes | None) -> bool:
        """Append the text of a delta. False, and nothing is changed, if it may not be."""
        entry = self._transitions.steps.get(event.step_id)
        step = None if entry is None else entry.step
        if entry is None or not isinstance(step, Step) or cause.offset < entry.applied_below:
            return False
        if not step.finds_text(event.place):
            return False
        if not step.append_text(event.piece, event.length, self._max_step_bytes, event_id):
            if event_id is None or not step.has_folded(id_text(event_id)):
                return False
            # Of the step's own type, as the text was found: it says nothing that the slow path would look at.
            self._transitions.touch(entry, cause)
            self._transitions.counts["duplicate"] += 1
            self.appended += 1
            return True
        self._note_delta(entry, step, cause)
        return True

    def _delta(self, cause: Cause, event: ParsedDelta, event_id: str | None) -> bool:
        decision = self._fast.decide_delta(event.delta, cause.offset, event_id)
        if isinstance(decision, AppendText):
            text = decision.text
            own_id = None if event_id is None else event_id.encode()
            decision.step.append_text(inside(text), len(text), self._max_step_bytes, own_id)
            self._note_delta(decision.entry, decision.step, cause)
            return True
        if isinstance(decision, OpenCall):
            decision.step.open_call(decision.opened)
            self._transitions.folded(decision.step, cause, event_id)
            self._note_delta(decision.entry, decision.step, cause)
            return True
        return False

    def _note_delta(self, entry: Entry, step: Step, cause: Cause) -> None:
        step.last_offset = cause.offset
        if entry.dirty_from < 0:
            self._transitions.retention.mark_dirty(entry, cause.offset, cause.before_ms)
        self.appended += 1

    # --- objects --------------------------------------------------------------------------------------------

    def _object(self, cause: Cause, event: StatedObject, event_id: str | None) -> bool:
        transitions, exact, kind = self._transitions, event.exact, event.kind
        record = cause.record
        assert record is not None
        assert record.value is not None
        size = len(record.value)
        if size > self._max_step_bytes:
            return False
        entry = transitions.steps.get(event.step_id)
        if entry is None:
            if (
                not (kind is _CREATED or kind is _STATED)
                or exact is None
                or transitions.is_full()
                or not opens_exactly(exact)
                or transitions.retention.is_gone(event.step_id, cause.offset)
            ):
                return False
            self.begin(exact, cause, event_id, size)
            if kind is _STATED:
                self._objects.begun -= 1
                transitions.counts[_STATED.value] += 1
            return True
        step = entry.step
        if not isinstance(step, Step) or cause.offset < entry.applied_below:
            return False
        if kind is _IN_PROGRESS or kind is _STATED or kind is _CREATED:
            return step.is_repeated_by(event.data) and self._repeat(entry, step, kind, cause, event_id, size)
        if step.has_folded(event_id):
            return False
        status = ENDS.get(kind)
        ending = None if status is None else step.ending_of(event.data, kind, status, exact)
        if ending is None or status is None:
            return False
        self.end(entry, step, ending, status, cause, event_id, size)
        return True

    def _repeat(self, entry: Entry, step: Step, kind: Kind, cause: Cause, event_id: str | None, size: int) -> bool:
        """Count an object that says to the letter what the step began with."""
        transitions = self._transitions
        is_known = step.has_folded(event_id)
        if is_known or kind is _CREATED:
            transitions.touch(entry, cause)
            transitions.counts["duplicate" if is_known else "repeated"] += 1
        else:
            if step.size_with(size, 0) > self._max_step_bytes:
                return False
            transitions.touch(entry, cause)
            step.repeat_exact(size)
            transitions.folded(step, cause, event_id)
        if kind is _IN_PROGRESS:
            self._objects.repeated += 1
        else:
            transitions.counts[kind.value] += 1
        return True

    def begin(self, event: ExactObject, cause: Cause, event_id: str | None, size: int) -> None:
        """Begin a step, in its compact form. `size`: of the record's value."""
        transitions = self._transitions
        step = Step(event.step_id, cause.offset, transitions.stream_time // 1000)
        entry = transitions.begin(step, cause)
        step.begin_exact(event, size)
        transitions.opened(entry, step, cause, event_id, event.told[EXPIRES_AT])
        self._objects.begun += 1

    def end(
        self, entry: Entry, step: Step, ending: Ending, status: Status, cause: Cause, event_id: str | None, size: int
    ) -> None:
        """End a step that did nothing unusual. `size`: of the record's value."""
        transitions = self._transitions
        step.end_exact(ending, status, size)
        transitions.touch(entry, cause)
        transitions.ended(entry, step, cause, event_id)
        if status is _COMPLETED:
            self._objects.completed += 1
        else:
            transitions.counts[status.value] += 1


def general(event: ExactEvent) -> StepDelta | StepObject:
    """Convert an exact event to the one that the slow path takes."""
    if isinstance(event, StatedObject):
        return event.general()
    assert isinstance(event, TextDelta | ParsedDelta)
    return general_delta(event)


def step_id_of(event: ExactEvent) -> str:
    if isinstance(event, StatedObject):
        return event.step_id
    if isinstance(event, TextDelta):
        return event.step_id
    assert isinstance(event, ParsedDelta)
    return event.delta.id
