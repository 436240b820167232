"""Partitions without progress, and since when, across worker incarnations: the source of /healthz reasons."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

GROUP: Final = "group"
"""The key of the wait for an assignment. Every other key is the number of a partition."""


@dataclass(slots=True)
class _Wait:
    reason: str
    since: float
    active_at: float


class Stalls:
    """Counts a wait from when it began, across incarnations: a restart is no progress.

    Args:
        told_after_s: a wait is a reason on /healthz once it has lasted that long.
    """

    def __init__(self, told_after_s: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._told_after_s, self._monotonic = told_after_s, monotonic
        self._waits: dict[int | str, _Wait] = {}

    def waits(self, key: int | str, reason: str) -> None:
        """Begin a wait: there is something to do and it is not done yet. During a wait only the reason changes."""
        wait = self._waits.get(key)
        if wait is None:
            now = self._monotonic()
            self._waits[key] = _Wait(reason, now, now)
        else:
            wait.reason = reason

    def works(self, key: int | str) -> None:
        """Note activity of a restore. It ends no wait: an incarnation that makes no progress restores, too."""
        if (wait := self._waits.get(key)) is not None:
            wait.active_at = self._monotonic()

    def moved(self, key: int | str) -> None:
        """Note progress: a wait that goes on counts from now."""
        if (wait := self._waits.get(key)) is not None:
            wait.since = wait.active_at = self._monotonic()

    def done(self, key: int | str) -> None:
        """End a wait: nothing is left to do."""
        self._waits.pop(key, None)

    def assigned(self, partitions: Collection[int]) -> None:
        """Keep the waits of these partitions only: another worker owns the others."""
        self._waits = {key: wait for key, wait in self._waits.items() if key in partitions}

    def waited_s(self, key: int | str) -> float:
        """Duration of a wait; 0 where nothing waits."""
        wait = self._waits.get(key)
        return 0.0 if wait is None else self._monotonic() - wait.since

    def reasons(self) -> list[str]:
        """A sentence for each wait that has become a stall."""
        now = self._monotonic()
        return [
            f"{key if key == GROUP else f'partition {key}'}: {wait.reason}, no progress for {now - wait.since:.0f} s"
            for key, wait in sorted(self._waits.items(), key=str)
            if now - max(wait.since, wait.active_at) > self._told_after_s
        ]
