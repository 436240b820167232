"""The share of a processor that the self-audit may use."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from types import coroutine
from typing import Any, Final, TypeVar

_Answer = TypeVar("_Answer")
UNMETERED: Final = 1.3
"""Total cost of a check, as a multiple of its own turns: the client fetches for it in other tasks."""
SAVED_S: Final = 0.01
"""Processor time that may be saved up: the longest that a check runs without a pause."""


class TokenBucket:
    """Token bucket: refilled at a rate per second, up to `most`. Taking more than is left makes a debt."""

    def __init__(self, per_s: float, most: float, monotonic: Callable[[], float]) -> None:
        self._per_s, self._most, self._monotonic = per_s, most, monotonic
        self._left, self._at = most, monotonic()

    def left(self) -> float:
        now = self._monotonic()
        self._left = min(self._most, self._left + (now - self._at) * self._per_s)
        self._at = now
        return self._left

    def take(self, amount: float) -> None:
        self._left = self.left() - amount

    def owed_s(self) -> float:
        """Time until the debt is paid."""
        return max(0.0, -self.left() / self._per_s)


@coroutine
def run_metered(
    work: Coroutine[Any, Any, _Answer], clock: Callable[[], float], spent: Callable[[float], None]
) -> Generator[Any, Any, _Answer]:
    """Await `work`, and call `spent` with the seconds of `clock` of each of its turns, without those of other tasks."""
    step: Callable[[Any], Any] = work.send
    value: Any = None
    while True:
        began = clock()
        try:
            waiting = step(value)
        except StopIteration as done:
            answer: _Answer = done.value
            return answer
        finally:
            spent(clock() - began)
        try:
            value = yield waiting
            step = work.send
        except BaseException as error:  # above all a cancellation, which the work itself must see
            value, step = error, work.throw
