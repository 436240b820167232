"""Sequence numbers of one response: which came before, which are missing. Bounded: ranges, not a set."""

from __future__ import annotations

import re
from enum import Enum
from typing import Any, Final

MAX_RANGES: Final = 64
MAX_NUMBER: Final = 1 << 53
_DIGITS: Final = re.compile("0|[1-9][0-9]{0,15}")


class Order(Enum):
    """Order of a sequence number among those that came before it."""

    NEXT = "next"
    GAP = "gap"  # it is further than the next one: some are missing
    LATE = "late"  # it is one of those that were missing, or were refused
    OLD = "old"  # it came before: a repeat, or a number that says nothing (`repeats`)


def integer_of(value: Any) -> int | None:
    """The integer in a JSON value: as one, without a fraction (`3.0`) or as digits (`"3"`); None if it is none."""
    if type(value) is int:
        return value
    if type(value) is float and value.is_integer() and abs(value) < MAX_NUMBER:
        return int(value)
    return int(value) if type(value) is str and _DIGITS.fullmatch(value) else None


def sequence_number(value: Any) -> int | None:
    """The sequence number in a JSON value; None if it is none."""
    found = integer_of(value)
    return found if found is not None and 0 <= found < MAX_NUMBER else None


class SequenceNumbers:
    """Sequence numbers of one response so far.

    `missing` are ranges [first, last] below `next`, in ascending order: numbers that did not come, and those whose
    events were refused.
    """

    __slots__ = ("missing", "next")

    def __init__(self) -> None:
        self.next = -1
        self.missing: list[tuple[int, int]] = []

    def take(self, number: int, *, is_first: bool) -> Order:
        """Note a number. `is_first`: the event is one that a stream begins with, so that nothing was before it."""
        expected = self.next
        if expected < 0:
            expected = number if is_first else 0
        if number == expected:
            self.next = number + 1
            return Order.NEXT
        if number > expected:
            self.next = number + 1
            self.missing.append((expected, number - 1))
            self._keep_few()
            return Order.GAP
        for at, (first, last) in enumerate(self.missing):
            if first <= number <= last:
                self.missing[at : at + 1] = [
                    pair for pair in ((first, number - 1), (number + 1, last)) if pair[0] <= pair[1]
                ]
                return Order.LATE
        return Order.OLD

    def give_back(self, number: int) -> None:
        """Have the event of a number that was just taken be refused: it may come again, and is no repeat then."""
        self.missing = sorted([*self.missing, (number, number)])
        merged: list[tuple[int, int]] = []
        for first, last in self.missing:
            if merged and first <= merged[-1][1] + 1:
                merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
            else:
                merged.append((first, last))
        self.missing = merged
        self._keep_few()

    def _keep_few(self) -> None:
        """Bound the ranges: what lies between the oldest two counts as missing, too."""
        if len(self.missing) > MAX_RANGES:
            self.missing[:2] = [(self.missing[0][0], self.missing[1][1])]
