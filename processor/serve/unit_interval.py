"""Interval of commits: closes the pending unit when the commit interval is over, later while the worker catches up.

A transaction costs the broker a batch and a marker on every output partition that it writes to, however few records
these hold. Ends that are late in any case are not seen later by much if a unit holds more of them (decision 0028).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from processor.serve.unit import PendingUnit

_IDLE_POLL_MS: Final = 250
CATCH_UP_S: Final = 1.0
"""How long a unit may stay pending while all of its partitions are behind. A longer commit interval stands."""


class UnitInterval:
    """Decides when the pending unit is closed, unless it is full before.

    Args:
        commit_interval_s: how long a unit stays pending while nothing is behind.
        unread: how many records of a partition can be read already and are not applied yet.
    """

    def __init__(self, commit_interval_s: float, unread: Callable[[int], int]) -> None:
        self._interval_s, self._most_s = commit_interval_s, max(commit_interval_s, CATCH_UP_S)
        self._unread = unread
        self._began_at = self._asked_at = 0.0

    def begin(self, now: float) -> None:
        """The unit before was closed: the next one is pending from now on."""
        self._began_at = self._asked_at = now

    def wait_ms(self, now: float, pending: PendingUnit) -> int:
        """Time that a poll may wait for records, at least 1 ms: until `is_over` has to be asked again."""
        if not pending.effects:
            return _IDLE_POLL_MS
        ask_at = min(self._asked_at + self._interval_s, self._began_at + self._most_s)
        return min(_IDLE_POLL_MS, max(1, int((ask_at - now) * 1000)))

    def is_over(self, now: float, pending: PendingUnit) -> bool:
        """Whether the unit is to be closed."""
        age_s = now - self._began_at
        if age_s < self._interval_s:
            return False
        if age_s >= self._most_s or not self._is_behind(pending):
            return True
        self._asked_at = now
        return False

    def _is_behind(self, pending: PendingUnit) -> bool:
        """Whether each partition of the unit has more left to read than the unit holds of it.

        One that keeps up has read what there is, so its ends do not wait for a partition that is behind.
        """
        records = pending.records_of
        return bool(records) and all(
            self._unread(partition) > records.get(partition, 0) for partition in {**records, **pending.effects}
        )
