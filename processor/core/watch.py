"""A partition state that tells of the changes of status it goes through. The outcomes are those of the state itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from processor.core.effects import Rejected, Status, Transition
from processor.core.partition import Cause, Entry, PartitionState
from processor.core.rules import Rules
from processor.core.snapshot import Step


class WatchedState(PartitionState):
    """Args: `told` gets every transition in the order of the log; the rest is as for `PartitionState`."""

    def __init__(
        self,
        topic: str,
        partition: int,
        rules: Rules,
        *,
        told: Callable[[Transition], None],
        next_offset: int = 0,
        live_from: int = 0,
        stream_time: int = -1,
    ) -> None:
        super().__init__(topic, partition, rules, next_offset=next_offset, live_from=live_from, stream_time=stream_time)
        self._told = told
        self.opened_ms: dict[str, int] = {}
        """The timestamp of each remembered step's first record."""
        self.published_opened_ms: dict[tuple[str, int], int] = {}
        """The same by step id and revision, of what was published since the owner last cleared it."""

    def _begin(self, step_id: str, cause: Cause) -> tuple[Entry, Step]:
        self.opened_ms[step_id] = cause.timestamp
        self._told(Transition(step_id, cause.offset, cause.timestamp, None, Status.IN_PROGRESS.value, "event"))
        return super()._begin(step_id, cause)

    def _finish(self, entry: Entry, step: Step, cause: Cause) -> None:
        before = entry.status.value
        super()._finish(entry, step, cause)
        how = step.inference.how if step.inference is not None else "event"
        kind = "clock_mark" if cause.mark is not None else how
        self._told(Transition(entry.key, cause.offset, cause.timestamp, before, step.status.value, kind))

    def _publish(self, entry: Entry, step: Step, cause: Cause) -> None:
        super()._publish(entry, step, cause)
        self.published_opened_ms[entry.key, step.revision] = self.opened_ms[entry.key]

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
        super()._forget_step(entry)
