"""Observers: what a partition state calls when the status of a step changes.

An observer must not change what it is given and must not raise: no outcome may depend on it. Nor may it keep the
record of a cause, which may show another one by then (`ShownRecord`).
"""

from __future__ import annotations

from processor.core.effects import Rejected
from processor.core.entry import Cause, Entry
from processor.core.step_state import StepState
from processor.core.wire_types import RunEnd


class Observer:
    """Calls that do nothing. An observer overrides those that it needs; `PartitionState(observer=...)` makes them."""

    def opened(self, entry: Entry, step: StepState, cause: Cause) -> None:
        """A step is remembered from this event on."""

    def published(self, entry: Entry, step: StepState) -> None:
        """A revision of an ended step has gone out (in a silent fold: would have)."""

    def finished(self, entry: Entry, step: StepState, before: str, cause: Cause) -> None:
        """A step has ended, or an end has overruled another; `before` is the status it had."""

    def refused(self, step_id: str, entry: Entry | None, cause: Cause, why: Rejected) -> None:
        """An event of a step was not folded."""

    def response_opened(self, response_id: str, cause: Cause) -> None:
        """A response is remembered from this event on; its items, which are steps, open by themselves."""

    def run_refused(self, run_id: str) -> None:
        """A response was refused for want of room (X2), and with it the items that it will name."""

    def forgotten(self, entry: Entry) -> None:
        """A step is not remembered any more (L10)."""

    def run_ended(self, run: RunEnd, stream_time: int) -> None:
        """A run ends, and with it its open steps, which are still open now."""

    def run_looked_up(self, entry: Entry, step: StepState, stream_time: int) -> None:
        """An object has named a step, and a run if it has one: had that run ended, the step has just ended with it."""
