"""Partitions that were added to an output topic: the partition of a key before. Pure.

A key is on the partition that its hash gives for the number of partitions when it was written. That number only grows.
So the records of one topic, in the order of their causes, fall into phases of one number each; a worker did not write a
record that fits into none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from processor.audit.judge.published_headers import caused_at
from processor.audit.judge.verdicts import Published, RecordLocation, location_of

Placements = Callable[[str, bytes], Sequence[int]]
"""Function from topic and key to the partition of the key for 1, 2, ... partitions, up to today's number."""

ENOUGH: Final = 3
"""Records of a phase that must be on another partition than today: one alone may fit a smaller number by chance."""


class PartitionGrowth:
    """Infers, from the partitions that keys stand on, how many partitions a topic had when its records were written.

    Args:
        published: all records of one topic that one source partition caused.
    """

    def __init__(self, published: Iterable[Published], placements: Placements) -> None:
        rows = []
        for one in published:
            cause = caused_at(one)
            if one.key is not None and cause is not None:
                rows.append((cause, location_of(one), placements(one.topic, one.key)))
        rows.sort(key=lambda row: row[:2])
        self._fits: dict[RecordLocation, bool | None] = {}
        self._divide(rows)

    def fits(self, location: RecordLocation) -> bool | None:
        """Whether a record is on the partition of its key before partitions were added; None: perhaps."""
        return self._fits.get(location, False)

    def _divide(self, rows: Sequence[tuple[int, RecordLocation, Sequence[int]]]) -> None:
        begin, least = 0, 1
        earlier: set[int] = set()
        while begin < len(rows):
            counts = [n for n in range(least, len(rows[begin][2]) + 1) if rows[begin][2][n - 1] == rows[begin][1][1]]
            end = begin
            while end < len(rows) and (left := [n for n in counts if rows[end][2][n - 1] == rows[end][1][1]]):
                counts, end = left, end + 1
            if end == begin:
                _, location, placed = rows[begin]
                if any(placed[n - 1] == location[1] for n in earlier):
                    self._fits[location] = None  # a producer that had not heard of it yet
                begin += 1
                continue
            moved = [location for _, location, placed in rows[begin:end] if placed[-1] != location[1]]
            is_proven = len(moved) >= ENOUGH
            self._fits.update(dict.fromkeys(moved, is_proven or None))
            least = max(counts)
            if is_proven:
                earlier.add(least)
            begin = end
