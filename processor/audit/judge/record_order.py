"""Order of equal records on each output partition: it must be the one in which they were caused. Pure.

A single reading meets a record that was moved to the end before it has seen that others were not, and would call all of
those out of order. So where records are out of order the range is read again with their order noted, and those are
called so that, put elsewhere, leave the fewest: what is outside a longest sequence of ascending offsets.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Mapping
from typing import Final

from processor.audit.judge.verdicts import FindingKind, RecordLocation

_MOST: Final = 1 << 22
"""Records whose order is noted, at 8 bytes each: an audit takes the same memory for any range, almost."""
_NONE: Final = -1


class RecordOrder:
    """Says of each equal record, in the order of the causes, whether it is out of order on its output partition.

    Args:
        moved: records that are known to be, with the reason (`moved` of an earlier reading).
        is_noted: whether to note the order, for `moved`.
    """

    def __init__(self, moved: Mapping[RecordLocation, str] | None = None, *, is_noted: bool = False) -> None:
        self._moved = moved or {}
        self._furthest: dict[tuple[str, int], tuple[int, FindingKind, tuple[str, str]]] = {}
        """By output partition: the highest offset found so far, and what is there."""
        self._noted: dict[tuple[str, int], array[int]] = {}
        self._room = _MOST if is_noted else 0

    def misplaced(self, kind: FindingKind, identity: tuple[str, str], at: RecordLocation) -> str:
        """The reason why the next equal record must not be there; "" if it may."""
        output = (at[0], at[1])
        if self._room:
            self._room -= 1
            noted = self._noted.get(output)
            if noted is None:
                noted = self._noted[output] = array("q")
            noted.append(at[2])
        if self._moved:
            why = self._moved.get(at)
            if why is not None:
                return why
        furthest = self._furthest.get(output)
        if furthest is not None and at[2] < furthest[0]:
            behind, what, (one, two) = furthest
            return f"{what.value} {one} ({two}) was caused before it and comes after it, at offset {behind}"
        self._furthest[output] = (at[2], kind, identity)
        return ""

    def moved(self) -> dict[RecordLocation, str]:
        """The fewest records without which all that were noted are in order, with the reason of each."""
        return {
            (topic, partition, offset): why
            for (topic, partition), offsets in self._noted.items()
            for offset, why in _moved_of(offsets).items()
        }


def _moved_of(offsets: array[int]) -> dict[int, str]:
    """The offsets outside of a longest ascending sequence; a reason for each."""
    kept = _longest_ascending(offsets)
    found: dict[int, str] = {}
    before = 0
    for offset in offsets:
        if before < len(kept) and kept[before] == offset:
            before += 1
        elif before < len(kept) and kept[before] < offset:
            found[offset] = f"what was caused after it comes before it, from offset {kept[before]} on"
        else:
            found[offset] = f"what was caused before it comes after it, up to offset {kept[before - 1]}"
    return found


def _longest_ascending(offsets: array[int]) -> array[int]:
    """A longest ascending sequence in these numbers, all of which differ (Schensted's algorithm)."""
    lowest: array[int] = array("q")
    """The lowest number that ends a sequence of each length."""
    ends: array[int] = array("q")
    """Where that number is."""
    previous: array[int] = array("q")
    for at, offset in enumerate(offsets):
        length = bisect_left(lowest, offset)
        if length == len(lowest):
            lowest.append(offset)
            ends.append(at)
        else:
            lowest[length] = offset
            ends[length] = at
        previous.append(ends[length - 1] if length else _NONE)
    kept: array[int] = array("q")
    at = ends[-1] if len(ends) else _NONE
    while at != _NONE:
        kept.append(offsets[at])
        at = previous[at]
    kept.reverse()
    return kept
