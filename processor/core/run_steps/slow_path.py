"""The slow path of run steps: any event, by the lifecycle table and the merge table."""

from __future__ import annotations

from typing import Any, Final

from processor.core.effects import Reason, Rejected, Status
from processor.core.endings import Endings
from processor.core.entry import Cause, Entry
from processor.core.events import run_named
from processor.core.lifecycle import Move, move
from processor.core.merge import bad_index, characters
from processor.core.observer import Observer
from processor.core.quarantine import Quarantine
from processor.core.responses.event import ERROR, ResponseEvent
from processor.core.responses.fold import ResponseFold
from processor.core.rules import Rules
from processor.core.run_steps.step import Step
from processor.core.transitions import SKIP, Transitions
from processor.core.wire_types import Event, Ignored, RunEnd, StepDelta, StepObject, StreamError

_OPEN: Final = Status.IN_PROGRESS
_GROWING: Final = (Move.FILL, Move.REFRESH)
_FOREIGN: Final = Rejected(Reason.ILLEGAL_TRANSITION, "a step of this id was made by events of another kind")


class SlowPath:
    """Folds events one by one."""

    __slots__ = (
        "_endings",
        "_max_step_bytes",
        "_object_type",
        "_observer",
        "_quarantine",
        "_responses",
        "_transitions",
        "_unknown",
    )

    def __init__(
        self,
        rules: Rules,
        transitions: Transitions,
        quarantine: Quarantine,
        endings: Endings,
        responses: ResponseFold,
        observer: Observer | None,
    ) -> None:
        self._responses = responses
        self._max_step_bytes, self._object_type = rules.max_step_bytes, rules.object_type
        self._unknown = rules.unknown_events
        self._transitions, self._quarantine, self._endings = transitions, quarantine, endings
        self._observer = observer

    def apply_event(self, cause: Cause, event: Event, event_id: str | None, number: str) -> None:
        """Fold one event; a bug on the way sets its record aside and quarantines its step.

        Args:
            number: which event of its record it is (`2/3`), "" where the record has one only.
        """
        held = len(self._transitions.effects)
        try:
            self._fold(cause, event, event_id, number)
        except MemoryError:
            raise
        except Exception as error:
            step_id = event.step_id if isinstance(event, StepDelta | StepObject) else None
            self._quarantine.break_event(cause, step_id, held, error, number)

    def _fold(self, cause: Cause, event: Event, event_id: str | None, number: str) -> None:
        """Fold one event by its type, count it, and set its record aside if it is refused."""
        transitions = self._transitions
        counts = transitions.counts
        # By `type`: compiled, `isinstance` asks the metaclass of a structure, which costs ten times as much.
        if type(event) is StepDelta:
            counts["delta"] += 1
            refused = self._observed(event.step_id, cause, self._delta(cause, event, event_id))
        elif type(event) is StepObject:
            counts[event.kind.value] += 1
            refused = self._observed(event.step_id, cause, self._object(cause, event, event_id))
        elif type(event) is RunEnd:
            counts["run_end"] += 1
            if event.disagrees:
                counts["run_status_disagrees"] += 1
            self._endings.end_run(cause, event)
            return
        elif type(event) is ResponseEvent:
            self._responses.apply_event(cause, event, event_id, number)
            return
        elif type(event) is StreamError:
            self._stream_error(cause, event)
            return
        elif type(event) is Rejected:
            refused = event
        else:
            assert type(event) is Ignored
            if event.why == "unknown_event" and self._unknown == "dead-letter":
                transitions.reject(cause, Rejected(Reason.UNKNOWN_EVENT, "an event of this name is not known"))
            else:
                counts[event.why] += 1
            return
        if refused is not None:
            transitions.reject(cause, refused, number)

    def _stream_error(self, cause: Cause, event: StreamError) -> None:
        """The stream broke: L6 for the run that the record's header or key names, as if it had failed."""
        record, counts = cause.record, self._transitions.counts
        assert record is not None
        run_id = run_named(record.key, record.headers)
        if run_id is None:
            counts["ignored"] += 1
            return
        counts["run_end"] += 1
        self._endings.end_run(cause, RunEnd(run_id, "failed", None, event.error))
        if self._responses.is_remembered(run_id, cause):
            self._responses.apply_event(cause, ResponseEvent(ERROR, None, value=event.error), None, "")

    def _observed(self, step_id: str, cause: Cause, refused: Rejected | None) -> Rejected | None:
        if refused is not None and self._observer is not None:
            self._observer.refused(step_id, self._transitions.steps.get(step_id), cause, refused)
        return refused

    # --- objects --------------------------------------------------------------------------------------------

    def _object(self, cause: Cause, event: StepObject, event_id: str | None) -> Rejected | None:
        """Fold a step object; returns the reason if it is refused."""
        transitions = self._transitions
        entry = transitions.lookup(event.step_id, cause.offset)
        if entry is SKIP:
            return None
        if entry is not None and entry.refused:
            return transitions.refuse_again(entry, cause)
        chosen = move(entry.status if entry else None, event.kind, inferred=entry is not None and entry.inferred)
        if entry is None:
            assert chosen is not None
            return self._first_object(cause, event, event_id, chosen)
        transitions.touch(entry, cause)
        step = entry.materialise()
        if not isinstance(step, Step):
            return _FOREIGN
        if step.has_folded(event_id):
            transitions.counts["duplicate"] += 1
            self._pass_over(entry, step, event.data)
            return None
        if chosen is None:
            entry.irregular = True
            return Rejected(Reason.ILLEGAL_TRANSITION, f"{event.kind.value} after {entry.status.value}")
        if chosen is Move.REPEAT or (chosen is Move.FILL and step.object_bytes):
            transitions.counts["repeated"] += 1
            self._pass_over(entry, step, event.data)
            return None
        size = _size_of(cause)
        refused = step.refuses(event.data.get("step_details"), event.data.get("type"))
        # An ending object says again what the deltas brought: it is measured alone (X1).
        grown = step.size_with(size, 0) if chosen in _GROWING else size
        if refused is None and grown > self._max_step_bytes:
            step.stop_growing()
            refused = self._too_large()
        if refused is not None:
            step.irregular = entry.irregular = True
            entry.put_back(step)
            return refused
        self._move(cause, entry, step, event, event_id, chosen, size)
        return None

    def _move(
        self,
        cause: Cause,
        entry: Entry,
        step: Step,
        event: StepObject,
        event_id: str | None,
        chosen: Move,
        size: int,
    ) -> None:
        """Have an object that nothing refuses change its step."""
        transitions = self._transitions
        if chosen in _GROWING:
            step.take(event, size)
            transitions.opened(entry, step, cause, event_id, event.data.get("expires_at"))
        elif chosen is Move.RESTATE:
            before = self._bytes_of(step)
            step.end(event, Status(event.kind.value), size)
            if self._bytes_of(step) == before:
                transitions.counts["repeated"] += 1
                self._note_id(entry, event_id)
                return
            transitions.folded(step, cause, event_id)
            transitions.publish(entry, step, cause)
            entry.put_back(step)
        else:
            step.end(event, Status(event.kind.value), size)
            transitions.ended(entry, step, cause, event_id)

    def _note_id(self, entry: Entry, event_id: str | None) -> None:
        """Note the id of an end that said nothing new: sent again behind an amendment, it would undo that."""
        if event_id is not None:
            kept = entry.materialise()
            kept.note_folded(event_id)
            kept.characters += len(event_id)
            entry.put_back(kept)

    def _pass_over(self, entry: Entry, step: Step, data: dict[str, Any]) -> None:
        """Ignore a repeated object. A restore may read it first: of another type, it would refuse the step's end."""
        if step.refuses(data.get("step_details"), data.get("type")) is not None:
            step.irregular = entry.irregular = True

    def _first_object(self, cause: Cause, event: StepObject, event_id: str | None, chosen: Move) -> Rejected | None:
        transitions = self._transitions
        size = _size_of(cause)
        if size > self._max_step_bytes:
            return self._too_large()
        if chosen is Move.JOIN_END:
            step = self._new_step(event.step_id, cause)
            entry = transitions.begin(step, cause)
            step.add_anomaly("joined_midstream")
            step.end(event, Status(event.kind.value), size)
            transitions.ended(entry, step, cause, event_id)
            return None
        if transitions.is_full():
            return transitions.refuse(event.step_id, cause)
        step = self._new_step(event.step_id, cause)
        entry = transitions.begin(step, cause)
        if chosen is Move.JOIN:
            step.add_anomaly("joined_midstream")
        step.take(event, size)
        transitions.opened(entry, step, cause, event_id, event.data.get("expires_at"))
        return None

    # --- deltas ---------------------------------------------------------------------------------------------

    def _delta(self, cause: Cause, delta: StepDelta, event_id: str | None) -> Rejected | None:
        """Fold a delta; returns the reason if it is refused."""
        transitions = self._transitions
        refused = _check_delta(delta)
        grown = characters(delta.details)
        brought = grown + (len(event_id) if event_id else 0)
        entry = transitions.lookup(delta.step_id, cause.offset)
        if entry is SKIP:
            return None
        if entry is None:
            return self._first_delta(cause, delta, event_id, refused, grown)
        if entry.refused:
            return transitions.refuse_again(entry, cause)
        transitions.touch(entry, cause)
        step = entry.materialise()
        if not isinstance(step, Step):
            return _FOREIGN
        if step.has_folded(event_id):
            transitions.counts["duplicate"] += 1
            if refused is not None or step.refuses(delta.details) is not None:
                step.irregular = entry.irregular = True  # as in `_pass_over`
            return None
        if refused is None:
            refused = step.refuses(delta.details)
        if refused is None and (step.oversize or step.size_with(0, brought) > self._max_step_bytes):
            step.stop_growing()
            refused = self._too_large()
        if refused is not None:
            step.irregular = entry.irregular = True
            entry.put_back(step)
            return refused
        if entry.status is _OPEN:
            transitions.counts["null_ignored"] += step.append(delta, grown)
            transitions.folded(step, cause, event_id)
            return None
        before = self._bytes_of(step)
        transitions.counts["null_ignored"] += step.append(delta, grown)
        transitions.folded(step, cause, event_id)
        if self._bytes_of(step) != before:
            transitions.publish(entry, step, cause)
        entry.put_back(step)
        return None

    def _first_delta(
        self, cause: Cause, delta: StepDelta, event_id: str | None, refused: Rejected | None, grown: int
    ) -> Rejected | None:
        transitions = self._transitions
        if refused is not None:
            return refused
        if grown + (len(event_id) if event_id else 0) > self._max_step_bytes:
            return self._too_large()
        if transitions.is_full():
            return transitions.refuse(delta.step_id, cause)
        step = self._new_step(delta.step_id, cause)
        entry = transitions.begin(step, cause)
        step.add_anomaly("joined_midstream")
        transitions.counts["null_ignored"] += step.append(delta, grown)
        transitions.folded(step, cause, event_id)
        transitions.schedule(entry, step, None)
        return None

    # --- both -----------------------------------------------------------------------------------------------

    def _new_step(self, step_id: str, cause: Cause) -> Step:
        return Step(step_id, cause.offset, self._transitions.stream_time // 1000)

    def _too_large(self) -> Rejected:
        return Rejected(Reason.STEP_TOO_LARGE, f"the step would grow over {self._max_step_bytes} bytes")

    def _bytes_of(self, step: Step) -> bytes:
        return step.encoded(self._object_type)


def _size_of(cause: Cause) -> int:
    record = cause.record
    assert record is not None
    assert record.value is not None
    return len(record.value)


def _check_delta(delta: StepDelta) -> Rejected | None:
    """M1 before anything is touched."""
    why = bad_index(delta.details)
    return None if why is None else Rejected(Reason.BAD_INDEX, why)
