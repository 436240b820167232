"""Deltas of the exact shape that came in another envelope than the commonest: folded as the fast path folds its own.

The fast path reads values that begin with an event's name. What comes as SSE text, as a CloudEvent, as a bare object
or with others in one record is decoded first; its deltas have the same shapes there.
"""

from __future__ import annotations

from processor.core.entry import Cause
from processor.core.growing_text import inside
from processor.core.quarantine import Quarantine
from processor.core.run_steps.fast_path import AppendText, FastPath, OpenCall
from processor.core.transitions import Transitions
from processor.core.wire_types import ExactData


class ExactDeltas:
    """Folds one delta at a time, where `FastPath.decide_delta` decides about it."""

    __slots__ = ("_fast", "_max_step_bytes", "_quarantine", "_transitions")

    def __init__(self, max_step_bytes: int, transitions: Transitions, quarantine: Quarantine, fast: FastPath) -> None:
        self._max_step_bytes, self._transitions = max_step_bytes, transitions
        self._quarantine, self._fast = quarantine, fast

    def apply(self, cause: Cause, event: ExactData, event_id: str | None, number: int, total: int) -> bool:
        """Fold a delta; False, and nothing is changed, if it is for the slow path.

        Args:
            number, total: which event of its record it is, and of how many.
        """
        held = len(self._transitions.effects)
        try:
            return self._apply(cause, event, event_id)
        except MemoryError:
            raise
        except Exception as error:  # as in `SlowPath.apply_event`: the record's other events count
            of_several = f"{number}/{total}" if total > 1 else ""
            self._quarantine.break_event(cause, event.id, held, error, of_several)
            return True

    def _apply(self, cause: Cause, event: ExactData, event_id: str | None) -> bool:
        transitions = self._transitions
        decision = self._fast.decide_delta(event, cause.offset, event_id)
        if isinstance(decision, AppendText):
            entry, step, text = decision.entry, decision.step, decision.text
            own_id = None if event_id is None else event_id.encode()
            step.append_text(inside(text), len(text), self._max_step_bytes, own_id)
        elif isinstance(decision, OpenCall):
            entry, step = decision.entry, decision.step
            step.open_call(decision.opened)
            transitions.folded(step, cause, event_id)
        else:
            return False
        step.last_offset = cause.offset
        if entry.dirty_from < 0:
            transitions.retention.mark_dirty(entry, cause.offset, cause.before_ms)
        return True
