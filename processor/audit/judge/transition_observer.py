"""Observer of the transitions of one partition's steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from processor.core.effects import Rejected, Status, Transition
from processor.core.entry import Cause, Entry
from processor.core.observer import Observer
from processor.core.responses.item import Item
from processor.core.responses.response import entry_key
from processor.core.step_state import StepState

Belongs = Callable[[str, Mapping[str, Any]], bool | None]
"""Function from a step's id and fields to whether the filter selects it; None: not known yet."""


_NAMES: Final = {status: status.value for status in Status}
"""`value` of an enumeration's member is a Python function: too slow for what is looked up for each step."""
_IN_PROGRESS: Final = Status.IN_PROGRESS.value


class TransitionObserver(Observer):
    """Passes on the transitions of steps.

    Args:
        on_transition: gets every transition in the order of the log.
        belongs: where it is given, the transitions of these steps alone. Those of a step are held until it is known
            whose it is, and passed on then; when depends on the log alone.
    """

    def __init__(self, on_transition: Callable[[Transition], None], belongs: Belongs | None = None) -> None:
        self._on_transition, self._belongs = on_transition, belongs
        self._held: dict[str, list[Transition]] = {}
        self._decided: dict[str, bool] = {}
        """Whether the filter selects a remembered step, by id."""
        self._items: dict[str, list[str]] = {}
        """The items of each remembered response."""
        self.opened_ms: dict[str, int] = {}
        """The timestamp of each remembered step's first record."""
        self.revisions: dict[tuple[str, int], tuple[int | None, Any, Any]] = {}
        """By step id and revision, of what was published since the reader last cleared it: the same, the fields
        `run_id` and `thread_id`."""

    def opened(self, entry: Entry, step: StepState, cause: Cause) -> None:
        step_id = entry.key
        if isinstance(step, Item):
            self._items.setdefault(entry_key(step.response_id), []).append(step_id)
        self.opened_ms[step_id] = cause.timestamp
        transition = Transition(step_id, cause.offset, cause.timestamp, None, _IN_PROGRESS, "event")
        self._pass_on(transition, entry)

    def published(self, entry: Entry, step: StepState) -> None:
        self.decide(step)
        run_id, thread_id = step.ids()
        self.revisions[entry.key, step.revision] = (self.opened_ms.get(entry.key), run_id, thread_id)

    def finished(self, entry: Entry, step: StepState, before: str, cause: Cause) -> None:
        how = step.inference.how if step.inference is not None else "event"
        kind = "clock_mark" if cause.mark is not None else how
        self._pass_on(Transition(entry.key, cause.offset, cause.timestamp, before, _NAMES[step.status], kind), entry)

    def refused(self, step_id: str, entry: Entry | None, cause: Cause, why: Rejected) -> None:
        status = _NAMES[entry.status] if entry is not None and not entry.refused else None
        reason = why.reason.value
        self._pass_on(Transition(step_id, cause.offset, cause.timestamp, status, status, "event", reason), entry)

    def forgotten(self, entry: Entry) -> None:
        for step_id in self._items.pop(entry.key, ()):
            self._forget(step_id)
        self._forget(entry.key)

    def _forget(self, step_id: str) -> None:
        self.opened_ms.pop(step_id, None)
        self._held.pop(step_id, None)
        self._decided.pop(step_id, None)

    def _pass_on(self, transition: Transition, entry: Entry | None) -> None:
        if self._belongs is None:
            self._on_transition(transition)
            return
        step_id = transition.step_id
        if entry is None or entry.refused:  # nothing of it is remembered, nor will its run be
            if self._belongs(step_id, {}):
                self._on_transition(transition)
            return
        if entry.step is not None:
            self.decide(entry.step)
        if step_id not in self._decided:
            self._held.setdefault(step_id, []).append(transition)
        elif self._decided[step_id]:
            self._on_transition(transition)

    def decide(self, step: StepState) -> None:
        """Pass on what is held of a step, or drop it, if it is known by now whose it is."""
        if self._belongs is None or step.step_id in self._decided:
            return
        belongs = self._belongs(step.step_id, step.fields)
        if belongs is None:
            return
        self._decided[step.step_id] = belongs
        for transition in self._held.pop(step.step_id, ()):
            if belongs:
                self._on_transition(transition)
