"""A partition state that tells of the changes of status it goes through. The outcomes are those of the state itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from processor.core.effects import Rejected, Status, Transition
from processor.core.partition import Cause, Entry, PartitionState
from processor.core.rules import Rules
from processor.core.step import Step

Belongs = Callable[[str, Mapping[str, Any]], bool | None]
"""From a step's id and fields to whether it is one of those that are asked for; None: they do not say it yet."""


class ObservedState(PartitionState):
    """A state whose transitions are told.

    Args:
        told: gets every transition in the order of the log; the rest is as for `PartitionState`.
        belongs: where it is given, the transitions of these steps alone. Those of a step are held until it is known
            whose it is, and told then; when depends on the log alone.
    """

    def __init__(
        self,
        topic: str,
        partition: int,
        rules: Rules,
        *,
        told: Callable[[Transition], None],
        belongs: Belongs | None = None,
        next_offset: int = 0,
        live_from: int = 0,
        stream_time: int = -1,
    ) -> None:
        super().__init__(topic, partition, rules, next_offset=next_offset, live_from=live_from, stream_time=stream_time)
        self._pass_on, self._belongs = told, belongs
        self._held: dict[str, list[Transition]] = {}
        self._decided: dict[str, bool] = {}
        """Of remembered steps: whether they belong."""
        self.opened_ms: dict[str, int] = {}
        """The timestamp of each remembered step's first record."""
        self.published: dict[tuple[str, int], tuple[int, Any, Any]] = {}
        """By step id and revision, of what was published since the owner last cleared it: the same, the fields `run_id`
        and `thread_id`."""

    def _begin(self, step_id: str, cause: Cause) -> tuple[Entry, Step]:
        self.opened_ms[step_id] = cause.timestamp
        begun = super()._begin(step_id, cause)
        self._told(Transition(step_id, cause.offset, cause.timestamp, None, Status.IN_PROGRESS.value, "event"))
        return begun

    def _finish(self, entry: Entry, step: Step, cause: Cause) -> None:
        before = entry.status.value
        super()._finish(entry, step, cause)
        how = step.inference.how if step.inference is not None else "event"
        kind = "clock_mark" if cause.mark is not None else how
        self._told(Transition(entry.key, cause.offset, cause.timestamp, before, step.status.value, kind))

    def _told(self, transition: Transition) -> None:
        if self._belongs is None:
            self._pass_on(transition)
            return
        step_id = transition.step_id
        entry = self.steps.get(step_id)
        if entry is None or entry.refused:  # nothing of it is remembered, nor will its run be
            if self._belongs(step_id, {}):
                self._pass_on(transition)
            return
        if entry.step is not None:
            self.decide(entry.step)
        if step_id not in self._decided:
            self._held.setdefault(step_id, []).append(transition)
        elif self._decided[step_id]:
            self._pass_on(transition)

    def decide(self, step: Step) -> None:
        """Tell what is held of a step, or drop it, if it is known by now whose it is."""
        if self._belongs is None or step.step_id in self._decided:
            return
        belongs = self._belongs(step.step_id, step.fields)
        if belongs is None:
            return
        self._decided[step.step_id] = belongs
        for transition in self._held.pop(step.step_id, ()):
            if belongs:
                self._pass_on(transition)

    def _publish(self, entry: Entry, step: Step, cause: Cause) -> None:
        self.decide(step)
        super()._publish(entry, step, cause)
        run_id, thread_id = step.ids()
        self.published[entry.key, step.revision] = (self.opened_ms[entry.key], run_id, thread_id)

    def _refused(self, step_id: str, cause: Cause, refused: Rejected | None) -> Rejected | None:
        if refused is not None:
            entry = self.steps.get(step_id)
            stands = entry.status.value if entry is not None and not entry.refused else None
            told = Transition(step_id, cause.offset, cause.timestamp, stands, stands, "event", refused.reason.value)
            self._told(told)
        return refused

    def _object(self, cause: Cause, event: Any, event_id: str | None) -> Rejected | None:
        return self._refused(event.step_id, cause, super()._object(cause, event, event_id))

    def _delta(self, cause: Cause, delta: Any, event_id: str | None) -> Rejected | None:
        return self._refused(delta.step_id, cause, super()._delta(cause, delta, event_id))

    def _forget_step(self, entry: Entry) -> None:
        self.opened_ms.pop(entry.key, None)
        self._held.pop(entry.key, None)
        self._decided.pop(entry.key, None)
        super()._forget_step(entry)
