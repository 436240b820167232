"""Endings of steps by anything but an event of their own: deadlines (L7) and the end of their run (L6).

A bug in the fold of one step ends that step alone (`core.quarantine`).
"""

from __future__ import annotations

from processor.core.effects import Status
from processor.core.entry import Cause, Entry
from processor.core.observer import Observer
from processor.core.quarantine import Quarantine
from processor.core.responses.fold import ResponseFold
from processor.core.responses.response import ENTRY
from processor.core.transitions import Transitions
from processor.core.wire_types import RunEnd


class Endings:
    """Ends the steps of one partition that are due, or whose run has ended."""

    __slots__ = ("_observer", "_quarantine", "_responses", "_transitions")

    def __init__(
        self, transitions: Transitions, quarantine: Quarantine, responses: ResponseFold, observer: Observer | None
    ) -> None:
        self._responses = responses
        self._transitions, self._quarantine, self._observer = transitions, quarantine, observer

    def fire(self, cause: Cause) -> None:
        """L7: end what is due, in order of (due time, step id)."""
        transitions = self._transitions
        deadlines = transitions.deadlines
        while (due := deadlines.earliest_ms()) is not None and due <= transitions.stream_time:
            for step_id in deadlines.take_earliest():
                entry = transitions.steps[step_id]
                entry.due_s, due_s = 0, entry.due_s
                held = len(transitions.effects)
                try:
                    if entry.key.startswith(ENTRY):
                        self._responses.expire(entry, due_s, cause)
                    else:
                        transitions.expire(entry, due_s, cause)
                except MemoryError:
                    raise
                except Exception as error:
                    self._quarantine.break_step(entry, cause, held, error)
        if transitions.stream_time >= transitions.idle.next_ms:
            self._responses.fire_idle()
        if transitions.urgent:  # the record at hand is not applied yet
            self._quarantine.checkpoint_urgent(cause.offset if cause.mark is None else cause.offset + 1)

    def end_run(self, cause: Cause, run: RunEnd) -> None:
        """L6: end the run's open steps, and keep the run's end for steps that arrive late."""
        transitions = self._transitions
        if self._observer is not None:
            self._observer.run_ended(run, transitions.stream_time)
        entry = transitions.lookup_run(run.run_id, cause.offset)
        if entry is None:
            entry = transitions.runs[run.run_id] = Entry(run.run_id, cause.offset)
            entry.status = Status.COMPLETED
            entry.hold_run(run)
        if cause.offset >= entry.applied_below:
            transitions.touch(entry, cause)
        for step_id in transitions.run_index.open_in(run.run_id):
            step_entry = transitions.steps[step_id]
            if cause.offset < step_entry.applied_below:
                continue
            held = len(transitions.effects)
            try:
                transitions.touch(step_entry, cause)
                step = step_entry.materialise()
                step.end_with_run(run, cause.timestamp)
                transitions.finish(step_entry, step, cause)
            except MemoryError:
                raise
            except Exception as error:  # the run's other steps end all the same
                self._quarantine.break_step(step_entry, cause, held, error)
