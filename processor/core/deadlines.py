"""Deadlines of open steps (L7), in seconds of stream time."""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Final

from processor.core.entry import Entry

NEVER: Final = 1 << 62
FIRST_S: Final = 1
"""The earliest deadline: second 0 stands for none, and an age may end in it, as time is -1 before any is known."""
_MAX_OUTDATED: Final = 1_000
"""How many outdated items the heap may hold beyond its own number before it is cleaned."""


class Deadlines:
    """The open steps by the second in which they are due, and the seconds as a heap.

    `next_ms` is never later than the earliest deadline: what is cheap to compare a record's timestamp with.
    """

    __slots__ = ("_seconds", "by_second", "next_ms")

    def __init__(self) -> None:
        self.by_second: dict[int, set[str]] = {}
        self._seconds: list[int] = []
        self.next_ms = NEVER

    def earliest_ms(self) -> int | None:
        """The earliest deadline, in milliseconds of stream time."""
        seconds = self._seconds
        while seconds and seconds[0] not in self.by_second:
            heappop(seconds)
        self.next_ms = seconds[0] * 1000 if seconds else NEVER
        return self.next_ms if seconds else None

    def take_earliest(self) -> list[str]:
        """The steps of the earliest deadline, sorted; they have none from here on. `earliest_ms` was asked before."""
        return sorted(self.by_second.pop(heappop(self._seconds)))

    def set(self, entry: Entry, due_s: int) -> None:
        """Have the entry fall due in this second; 0: not at all."""
        if entry.due_s == due_s:
            return
        if entry.due_s:
            ids = self.by_second[entry.due_s]
            ids.discard(entry.key)
            if not ids:
                del self.by_second[entry.due_s]
                # Mostly of steps that have ended long before.
                if len(self._seconds) > 2 * len(self.by_second) + _MAX_OUTDATED:
                    self._seconds = sorted(self.by_second)
        entry.due_s = due_s
        if due_s:
            ids_then = self.by_second.get(due_s)
            if ids_then is not None:  # so `next_ms` is no later
                ids_then.add(entry.key)
                return
            self.by_second[due_s] = {entry.key}
            heappush(self._seconds, due_s)
            if due_s * 1000 < self.next_ms:
                self.next_ms = due_s * 1000
