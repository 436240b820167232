"""Quarantine: an error of the fold in one event, deadline or checkpoint must not stop the partition."""

from __future__ import annotations

from processor.core.effects import Checkpoint, LogRecord, Reason, Rejected
from processor.core.entry import Cause, Entry
from processor.core.transitions import Transitions
from processor.core.wire_types import canonical


class Quarantine:
    """Handles an error of the fold. Each method gets `held`: how many effects there were before.

    Of the effects since then only checkpoints stay. `MemoryError` never comes here: it is no bug, and another process
    may have room.
    """

    __slots__ = ("_transitions",)

    def __init__(self, transitions: Transitions) -> None:
        self._transitions = transitions

    def break_event(self, cause: Cause, step_id: str | None, held: int, error: Exception, number: str) -> None:
        """A bug in the fold of one event: set its record aside, quarantine its step.

        Args:
            number: see `RunStepEvents.apply_event`.
        """
        self._drop_effects(held)
        entry = None if step_id is None else self._transitions.steps.get(step_id)
        if entry is not None:
            self._transitions.quarantine(entry, cause)
        self._transitions.reject(cause, Rejected(Reason.INTERNAL_ERROR, _bug(error)), number)

    def break_step(self, entry: Entry, cause: Cause, held: int, error: Exception) -> None:
        """A bug in what a deadline, a run's end or a checkpoint does to one step: set a reference to it aside."""
        self._drop_effects(held)
        run_id = entry.run_id
        transitions = self._transitions
        transitions.quarantine(entry, cause)
        if transitions.is_silent:
            return
        reference = canonical({"id": entry.key, "run_id": run_id})
        source = LogRecord(cause.offset, cause.timestamp, entry.key.encode(), reference)
        letter = transitions.publication.of_reference(source, Reason.INTERNAL_ERROR, _bug(error), cause.mark)
        transitions.effects.append(letter)

    def checkpoint_urgent(self, applied_below: int) -> None:
        """Checkpoint what a restart could not have from the log alone."""
        transitions = self._transitions
        urgent, transitions.urgent = transitions.urgent, []
        for entry in urgent:
            self.checkpoint(entry, applied_below)

    def checkpoint(self, entry: Entry, applied_below: int) -> None:
        """Checkpoint, where the log decides that it is time to: a step that cannot be is quarantined."""
        transitions = self._transitions
        for _ in range(2):
            held = len(transitions.effects)
            try:
                transitions.checkpoint(entry, applied_below)
                return
            except MemoryError:
                raise
            except Exception as error:
                if entry.run is not None or entry.refused:
                    return  # it stays dirty: a restart has it from the log
                now = transitions.stream_time
                self.break_step(entry, Cause(transitions.next_offset - 1, now, now), held, error)
                transitions.urgent.remove(entry)

    def _drop_effects(self, held: int) -> None:
        effects = self._transitions.effects
        effects[held:] = [effect for effect in effects[held:] if isinstance(effect, Checkpoint)]


def _bug(error: Exception) -> str:
    return f"{type(error).__name__} in the fold; please report it"
