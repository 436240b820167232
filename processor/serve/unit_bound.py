"""Bound of the unit size: halved when a throttled broker cannot commit a unit in time, doubled when it can easily.

Without it a unit that a throttled broker cannot take in `commit_timeout_s` is made again from the log with the same
size, for ever. The bound outlives an incarnation, because a commit that timed out ends one. A broker that hangs does
not lower the bound: smaller units would only slow the worker down once it is back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

_LEAST_BYTES: Final = 1024


class UnitBound:
    """`records` and `bytes`: a unit that holds as many is committed.

    Args:
        max_records, max_bytes: never more than these.
        commit_timeout_s: what one unit may take. Up to a quarter of it the bound grows, from half of it on it shrinks,
            so that twice what has grown still fits.
        throttled_ms: the sum of all times for which brokers have said that they hold us back.
    """

    def __init__(
        self, max_records: int, max_bytes: int, commit_timeout_s: float, throttled_ms: Callable[[], int]
    ) -> None:
        self._throttled_ms = throttled_ms
        # At the ends of the last two commits: throttling of the commit before may still delay this one.
        self._before = self._last = throttled_ms()
        self._max_records, self._max_bytes, self._timeout_s = max_records, max_bytes, commit_timeout_s
        self.records, self.bytes = max_records, max_bytes

    def is_reached(self, records: int, bytes: int) -> bool:
        return records >= self.records or bytes >= self.bytes

    def committed(self, records: int, bytes: int, seconds: float) -> bool:
        """Note a commit that took so long. Returns whether the bound was lowered."""
        if self._was_throttled() and seconds >= self._timeout_s / 2:
            return self._halve(records, bytes)
        if seconds < self._timeout_s / 4:
            self.records = min(self._max_records, 2 * self.records)
            self.bytes = min(self._max_bytes, 2 * self.bytes)
        return False

    def failed(self, records: int, bytes: int, seconds: float) -> bool:
        """Note a commit that failed after so long. Returns whether the bound was lowered."""
        return self._was_throttled() and seconds >= self._timeout_s / 4 and self._halve(records, bytes)

    def _was_throttled(self) -> bool:
        now = self._throttled_ms()
        since, self._before, self._last = self._before, self._last, now
        return now > since

    def _halve(self, records: int, bytes: int) -> bool:
        before = self.records, self.bytes
        self.records = max(1, min(self.records, max(records, 1)) // 2)
        self.bytes = max(_LEAST_BYTES, min(self.bytes, max(bytes, 1)) // 2)
        return (self.records, self.bytes) != before
