"""Entry queue: entries in the order of an offset of each, 16 bytes an item.

A tuple for each of some 100,000 remembered entries would take nine times as much, and the garbage collector's time.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Final

from processor.core.entry import Entry

_TRIMMED: Final = 4_096
_NONE: Final = Entry("", 0)
"""In place of an entry that was taken out."""


class EntryQueue:
    """Entries, each queued with an offset. The first one out has the smallest; of equal ones, the first in.

    An entry may be queued more than once: which item is current is for the caller to say.
    """

    __slots__ = (
        "_add_offset",
        "_begin",
        "_entries",
        "_last",
        "_odd",
        "_odd_last",
        "_offsets",
        "_sequence",
    )

    def __init__(self) -> None:
        self._hold(array("q"), [])
        self._last = -1
        """No offset in `_offsets` is larger."""
        self._odd: list[tuple[int, int, Entry]] = []  # a heap of what came with a smaller offset than the last
        self._odd_last = 0
        """The largest offset in `_odd`, or one that was there: `_entries` takes larger ones alone."""
        self._sequence = 0

    def _hold(self, offsets: array[int], entries: list[Entry]) -> None:
        self._offsets, self._entries = offsets, entries
        self._begin = 0
        """Where in both the first one stands."""
        self._add_offset: Callable[[int], None] = offsets.append

    def __len__(self) -> int:
        return len(self._entries) - self._begin + len(self._odd)

    def put(self, offset: int, entry: Entry) -> None:
        """Queue an entry."""
        if offset >= self._last and (not self._odd or offset > self._odd_last):
            self._last = offset
            self._add_offset(offset)
            self._entries.append(entry)
        else:
            self._odd_last = offset if not self._odd else max(offset, self._odd_last)
            self._sequence += 1
            heappush(self._odd, (offset, self._sequence, entry))

    def first(self) -> Entry:
        """The entry with the smallest offset; there has to be one."""
        return self._odd[0][2] if self._odd_is_first() else self._entries[self._begin]

    def first_offset(self) -> int:
        """The offset of `first`."""
        if self._odd_is_first():
            return self._odd[0][0]
        found: int = self._offsets[self._begin]
        return found

    def drop_first(self) -> None:
        """Take `first` out."""
        if self._odd_is_first():
            heappop(self._odd)
            return
        self._entries[self._begin] = _NONE
        self._begin += 1
        if self._begin >= _TRIMMED and 2 * self._begin >= len(self._offsets):
            del self._offsets[: self._begin]
            del self._entries[: self._begin]
            self._begin = 0

    def keep_dirty(self) -> None:
        """Drop all items but those whose offset is the entry's `dirty_from`."""
        offsets: array[int] = array("q")
        entries: list[Entry] = []
        for at in range(self._begin, len(self._entries)):
            entry, offset = self._entries[at], self._offsets[at]
            if entry.dirty_from == offset:
                offsets.append(offset)
                entries.append(entry)
        self._hold(offsets, entries)
        self._odd = [item for item in self._odd if item[2].dirty_from == item[0]]
        heapify(self._odd)

    def _odd_is_first(self) -> bool:
        odd = self._odd
        if not odd:
            return False
        if self._begin == len(self._entries):
            return True
        first: int = self._offsets[self._begin]
        return odd[0][0] < first
