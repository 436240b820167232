"""How soon all partitions move again after a fault, also where the next fault comes before they do.

A partition stands still while there is something to read and its committed offset does not move.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

Moves = Sequence[tuple[float, Mapping[int, int]]]
"""`Offsets.history`: committed offsets by partition, at each change."""
Written = Sequence[tuple[float, int, int]]
"""`Load.history`: time, partition, and the offset after each record that was acknowledged."""


class Recovery(NamedTuple):
    """After how long all partitions moved, from a fault on. `is_alone`: no other fault came in that time."""

    seconds: float
    is_alone: bool


def standstills(moves: Moves, written: Written, since: float, until: float) -> Iterator[tuple[float, float]]:
    """Begin and end of each time in which one partition stood still."""
    for partition in sorted({partition for _, partition, _ in written}):
        ends = sorted((end, at) for at, where, end in written if where == partition)
        began, offset = since, -1
        for at, offsets in [*moves, (until, {partition: -2})]:
            if (found := offsets.get(partition, -1)) == offset:
                continue
            later = bisect_right(ends, (offset, float("inf")))
            more_at = ends[later][1] if later < len(ends) else until
            start, end = max(began, more_at, since), min(at, until)
            if end > start:
                yield start, end
            began, offset = at, found


def recoveries(moves: Moves, written: Written, faults: Sequence[float], until: float) -> list[Recovery]:
    """What came of each fault: the longest that a partition stood still from it on, other faults or not.

    Args:
        faults: when each began or ended: a broker's return is as much to recover from as its loss.
    """
    ordered = sorted(faults)
    found = list(standstills(moves, written, min(ordered, default=until), until))
    told = []
    for number, fault in enumerate(ordered):
        moving_at = max((ended for began, ended in found if began <= fault < ended), default=fault)
        following = ordered[number + 1] if number + 1 < len(ordered) else until
        told.append(Recovery(round(moving_at - fault, 2), following >= moving_at))
    return told
