"""Sequence numbers of one response: which were seen, which are missing."""

from __future__ import annotations

from bisect import bisect_right
from typing import Final

_MAX_RANGES: Final = 1024


class SequenceNumbers:
    """A set of numbers, kept as ranges: a stream without gaps takes one, whatever its length."""

    __slots__ = ("_first", "_last", "count")

    def __init__(self) -> None:
        self._first: list[int] = []
        self._last: list[int] = []
        self.count = 0
        """How many numbers were added for the first time."""

    @property
    def highest(self) -> int | None:
        """The highest number seen; None before the first."""
        return self._last[-1] if self._last else None

    def holds(self, number: int) -> bool:
        """Whether a number was seen."""
        at = bisect_right(self._first, number)
        return at > 0 and self._last[at - 1] >= number

    def add(self, number: int) -> bool:
        """Note a number; False if it was seen before."""
        at = bisect_right(self._first, number)  # the range before this place may hold it, or end just before it
        if at and self._last[at - 1] >= number:
            return False
        self.count += 1
        joins_left = at > 0 and self._last[at - 1] == number - 1
        joins_right = at < len(self._first) and self._first[at] == number + 1
        if joins_left and joins_right:
            self._last[at - 1] = self._last.pop(at)
            del self._first[at]
        elif joins_left:
            self._last[at - 1] = number
        elif joins_right:
            self._first[at] = number
        else:
            self._first.insert(at, number)
            self._last.insert(at, number)
            if len(self._first) > _MAX_RANGES:  # far too many gaps to remember: the two lowest become one
                del self._first[1], self._last[0]
        return True

    @property
    def missing_count(self) -> int:
        """Count the numbers that were not seen between two that were."""
        return sum(first - last - 1 for last, first in zip(self._last, self._first[1:], strict=False))

    def missing(self, shown: int = 5) -> str:
        """The numbers that were never seen between two that were, as a person writes them; empty if there are none."""
        gaps = [
            f"{last + 1}" if first - last == 2 else f"{last + 1} to {first - 1}"
            for last, first in zip(self._last, self._first[1:], strict=False)
        ]
        return ", ".join(gaps[:shown]) + (f" and {len(gaps) - shown} more ranges" if len(gaps) > shown else "")
