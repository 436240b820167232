"""Partition state that begins in mid-log and records whether unknown earlier state could have changed one step.

What the owner of the partition remembered at the beginning is unknown: ended steps, refused steps and ended runs until
L10 forgets them, open steps for ever. The stream time there is known. One step is judged; each way in which its fold
could differ from the owner's is an uncertainty.
"""

from __future__ import annotations

from processor.core.effects import Reason, Rejected
from processor.core.entry import Cause, Entry
from processor.core.observer import Observer
from processor.core.partition import PartitionState
from processor.core.rules import Rules
from processor.core.step_state import StepState
from processor.core.wire_types import RunEnd


class UnknownPrefix(Observer):
    """Observer that notes what the owner may have remembered from before the range and that could change one step.

    Args:
        rules: of the state that is observed.
        stream_time: the owner's where the state begins, in milliseconds; all that it remembered was last named at that
            time or before.
        is_blank: the owner remembered nothing there, so that nothing is uncertain.
        step_id, first_offset: the step that is judged, and where its owner says that it began.
    """

    def __init__(self, rules: Rules, *, stream_time: int, is_blank: bool, step_id: str, first_offset: int) -> None:
        self._step_id, self._first_offset = step_id, first_offset
        self._response_id = step_id.rpartition(":")[0]
        self._knows_all = is_blank
        self._forgotten_after_ms = stream_time + rules.ended_retention_s * 1000
        self._old_runs: set[str] = set()
        self.uncertainty = ""
        """Reason why the step may differ from its owner's; "" if it cannot."""

    def opened(self, entry: Entry, step: StepState, cause: Cause) -> None:
        if entry.key == self._step_id:
            self._begun(cause.offset)

    def response_opened(self, response_id: str, cause: Cause) -> None:
        # The first record of a response is that of each of its items. What it remembers from there on (its other items,
        # their numbers) says which item an event is of, and whether it is one at all: the step may not even open here.
        if response_id == self._response_id:
            self._begun(cause.offset)

    def _begun(self, offset: int) -> None:
        if offset < self._first_offset and not self._knows_all:
            self.uncertainty = "it is named before its first offset, where it may have been open"

    def refused(self, step_id: str, entry: Entry | None, cause: Cause, why: Rejected) -> None:
        if step_id == self._step_id and why.reason is Reason.TOO_MANY_OPEN_STEPS:
            self.uncertainty = "how many steps were open is not known"

    def run_refused(self, run_id: str) -> None:
        if self._step_id.startswith(f"{run_id}:"):
            self.uncertainty = "how many steps were open is not known"

    def run_ended(self, run: RunEnd, stream_time: int) -> None:
        if self._may_remember(stream_time):
            self._old_runs.add(run.run_id)  # if it was, the owner keeps what it heard first, and for longer now

    def run_looked_up(self, entry: Entry, step: StepState, stream_time: int) -> None:
        run_id = step.run_id
        if entry.key == self._step_id and run_id and (run_id in self._old_runs or self._may_remember(stream_time)):
            self.uncertainty = "its run may have ended before the range"

    def _may_remember(self, stream_time: int) -> bool:
        """Whether the owner may still remember what ended before the range and was not named since."""
        return not self._knows_all and stream_time <= self._forgotten_after_ms


def prefix_unknown_state(
    topic: str, partition: int, rules: Rules, *, begin: int, stream_time: int, prefix: UnknownPrefix
) -> PartitionState:
    """The state at `begin`, the first offset that is applied. A clock mark may be due to a step not known there."""
    return PartitionState(
        topic,
        partition,
        rules,
        next_offset=begin,
        live_from=begin,
        stream_time=stream_time,
        observer=prefix,
        accepts_any_mark=True,
    )
