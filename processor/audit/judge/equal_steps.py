"""Receiver of steps that are equal at once: nearly all are, and a finding for each costs as much as comparing it."""

from __future__ import annotations

from processor.audit.judge.verdicts import RecordLocation
from processor.core.effects import Publish


class EqualSteps:
    """Takes what a `PartitionAudit` would else yield, in the order of the log."""

    def take(self, effect: Publish, first: int, cause: int, at: RecordLocation) -> None:
        """A step that was published once, as it must be.

        Args:
            first: the step's first offset, `cause` the one that made the effect.
            at: where the published record stands.
        """
        raise NotImplementedError
