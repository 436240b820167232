"""A partition state that begins in mid-log and knows whether what it does not remember may have had a say in one step.

Unknown is what the owner of the partition remembered at the beginning: ended steps, refused steps and ended runs until
L10 has them forgotten, open steps for ever. The stream time there is known. One step is judged; whatever could make
its fold another one than the owner's leaves an uncertainty.
"""

from __future__ import annotations

from processor.core.effects import Effect, Rejected
from processor.core.partition import Cause, Entry, PartitionState
from processor.core.rules import Rules
from processor.core.step import Step
from processor.core.wire_types import RunEnd


class PrefixUnknownState(PartitionState):
    """Args:
    begin: the first offset that is applied.
    stream_time: the owner's there, in milliseconds; all that it remembered was last named at that time or before.
    is_blank: it remembered nothing there, so that nothing is uncertain.
    step_id, first_offset: the step that is judged, and where its owner says that it began.
    """

    def __init__(
        self,
        topic: str,
        partition: int,
        rules: Rules,
        *,
        begin: int,
        stream_time: int,
        is_blank: bool,
        step_id: str,
        first_offset: int,
    ) -> None:
        super().__init__(topic, partition, rules, next_offset=begin, live_from=begin, stream_time=stream_time)
        self._step_id, self._first_offset = step_id, first_offset
        self._knows_all = is_blank
        self._forgotten_after_ms = stream_time + rules.ended_retention_s * 1000
        self._old_runs: set[str] = set()
        self.uncertainty = ""
        """Why the step may have been another to its owner; "" if it cannot have been."""

    def advance(self, mark_ms: int) -> list[Effect]:
        """As the owner did: the mark may have been due to a step that is not known here.

        Raises:
            ValueError: time does not go back.
        """
        if mark_ms < self.stream_time:
            raise ValueError(f"partition {self.partition}: {mark_ms} lies before the stream time")
        self._mark(mark_ms)
        effects, self._effects = self._effects, []
        return effects

    def _begin(self, step_id: str, cause: Cause) -> tuple[Entry, Step]:
        if step_id == self._step_id and cause.offset < self._first_offset and not self._knows_all:
            self.uncertainty = "it is named before its first offset, where it may have been open"
        return super()._begin(step_id, cause)

    def _refuse(self, step_id: str, cause: Cause) -> Rejected:
        if step_id == self._step_id:
            self.uncertainty = "how many steps were open is not known"
        return super()._refuse(step_id, cause)

    def _run_end(self, cause: Cause, run: RunEnd) -> None:
        if self._may_remember():
            self._old_runs.add(run.run_id)  # if it was, the owner keeps what it heard first, and for longer now
        super()._run_end(cause, run)

    def _end_if_run_ended(self, entry: Entry, step: Step, cause: Cause) -> None:
        super()._end_if_run_ended(entry, step, cause)
        if entry.key == self._step_id and step.run_id and (step.run_id in self._old_runs or self._may_remember()):
            self.uncertainty = "its run may have ended before the range"

    def _may_remember(self) -> bool:
        """Whether the owner may still remember what ended before the range and was not named since."""
        return not self._knows_all and self.stream_time <= self._forgotten_after_ms
