"""Entry queue: entries in the order of an offset of each, 16 bytes an item.

A tuple for each of some 100,000 remembered entries would take nine times as much, and the garbage collector's time.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Final

from processor.core.entry import Entry

_TRIMMED: Final = 4_096


class EntryQueue:
    """Entries, each queued with an offset. The first one out has the smallest; of equal ones, the first in.

    An entry may be queued more than once: which item is current is for the caller to say.
    """

    __slots__ = (
        "_add_entry",
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
        self._hold(array("q"), deque())
        self._last = -1
        """No offset in `_offsets` is larger."""
        self._odd: list[tuple[int, int, Entry]] = []  # a heap of what came with a smaller offset than the last
        self._odd_last = 0
        """The largest offset in `_odd`, or one that was there: `_entries` takes larger ones alone."""
        self._sequence = 0

    def _hold(self, offsets: array[int], entries: deque[Entry]) -> None:
        self._offsets, self._entries = offsets, entries
        self._begin = 0
        """Where in `_offsets` that of the first entry stands."""
        self._add_offset: Callable[[int], None] = offsets.append
        self._add_entry: Callable[[Entry], None] = entries.append

    def __len__(self) -> int:
        return len(self._entries) + len(self._odd)

    def put(self, offset: int, entry: Entry) -> None:
        """Queue an entry."""
        if offset >= self._last and (not self._odd or offset > self._odd_last):
            self._last = offset
            self._add_offset(offset)
            self._add_entry(entry)
        else:
            self._odd_last = offset if not self._odd else max(offset, self._odd_last)
            self._sequence += 1
            heappush(self._odd, (offset, self._sequence, entry))

    def first(self) -> Entry:
        """The entry with the smallest offset; there has to be one."""
        return self._odd[0][2] if self._odd_is_first() else self._entries[0]

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
        self._entries.popleft()
        self._begin += 1
        if self._begin >= _TRIMMED and 2 * self._begin >= len(self._offsets):
            del self._offsets[: self._begin]
            self._begin = 0

    def keep_dirty(self) -> None:
        """Drop all items but those whose offset is the entry's `dirty_from`."""
        offsets: array[int] = array("q")
        entries: deque[Entry] = deque()
        at = self._begin
        for entry in self._entries:
            offset = self._offsets[at]
            at += 1
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
        if not self._entries:
            return True
        first: int = self._offsets[self._begin]
        return odd[0][0] < first
