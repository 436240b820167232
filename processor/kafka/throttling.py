"""Throttle times that brokers report: quotas are visible only in `throttle_time_ms`.

Every response has it, and the client library does not read it. A throttled broker answers at once and then does not
read the connection for that time, so the next request on it waits without any sign.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Final

_KINDS: Final = {0: "produce", 1: "fetch"}
OTHER: Final = "other"


class Throttling:
    """Sums of throttle times since the last `take`, by kind of request."""

    def __init__(self) -> None:
        self._answers: Counter[str] = Counter()
        self._ms: Counter[str] = Counter()
        self.total_ms = 0
        """Total of all responses, never reset."""

    def note(self, api_key: int, answer: asyncio.Future[object]) -> None:
        """Add the throttle time of a response."""
        if answer.cancelled() or answer.exception() is not None:
            return
        ms = getattr(answer.result(), "throttle_time_ms", 0)
        if ms:
            kind = _KINDS.get(api_key, OTHER)
            self._answers[kind] += 1
            self._ms[kind] += ms
            self.total_ms += ms

    def take(self) -> dict[str, tuple[int, float]]:
        """Return (responses, seconds) by kind of request, and reset the sums."""
        taken = {kind: (answers, self._ms[kind] / 1000) for kind, answers in self._answers.items()}
        self._answers.clear()
        self._ms.clear()
        return taken


OBSERVED: Final = Throttling()
"""Throttle times of all connections of this process: a worker's clients share the quota."""
