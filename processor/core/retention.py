"""Retention: what a partition remembers, for how long (L10), and from where a new owner has to read.

Every remembered entry has `dirty_from`, the offset of its first record that no checkpoint covers. The smallest of
them is the restore point (docs/decisions/0001). A forgotten step whose tail alone would look like a living one leaves a
`gone` checkpoint until the restore point has passed its last record.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from typing import Final

from processor.core.checkpoints import checkpoint_of, gone_checkpoint, run_key, step_key
from processor.core.effects import Checkpoint, Effect, Status
from processor.core.entry import CLEAN, Entry
from processor.core.rules import Rules

_OPEN: Final = Status.IN_PROGRESS
_MAX_OUTDATED: Final = 1_000
"""How many outdated items a heap may hold beyond its own number before it is cleaned."""


class Retention:
    """The entries by their names, and which of them are dirty, ended or gone."""

    __slots__ = (
        "_dirty",
        "_dirty_ended",
        "_ended",
        "_gone",
        "_gone_order",
        "_last_dirty",
        "_loaded",
        "_log",
        "_records",
        "_sequence",
        "_time_ms",
        "runs",
        "steps",
    )

    def __init__(self, rules: Rules, log: str) -> None:
        self._log = log
        self._time_ms, self._records = rules.ended_retention_s * 1000, rules.ended_retention_records
        self.steps: dict[str, Entry] = {}
        self.runs: dict[str, Entry] = {}
        self._ended: deque[tuple[int, int, Entry]] = deque()
        self._loaded: deque[tuple[int, int, Entry]] = deque()  # ended entries from checkpoints: an order of their own
        self._dirty: list[tuple[int, int, Entry]] = []
        self._dirty_ended: list[tuple[int, int, Entry]] = []  # set aside by `take_dirty_open`
        self._last_dirty = -1
        """The largest offset that was ever queued in `_dirty`."""
        self._gone: dict[bytes, int] = {}
        self._gone_order: list[tuple[int, bytes]] = []
        self._sequence = 0

    # --- dirty entries and the restore point ----------------------------------------------------------------

    def mark_dirty(self, entry: Entry, offset: int, before_ms: int) -> None:
        """Note the first record of an entry that no checkpoint covers, and the stream time before it."""
        entry.dirty_from, entry.dirty_time = offset, before_ms
        self.queue_dirty(entry)

    def queue_dirty(self, entry: Entry) -> None:
        """Queue a dirty entry."""
        heap, offset = self._dirty, entry.dirty_from
        if len(heap) > 2 * (len(self.steps) + len(self.runs)) + _MAX_OUTDATED:
            heap[:] = sorted(item for item in heap if _is_current(item))
        self._sequence += 1
        item = (offset, self._sequence, entry)
        if offset >= self._last_dirty:  # as nearly always: behind all others it is in its place
            self._last_dirty = offset
            heap.append(item)
        else:
            heappush(heap, item)

    def take_dirty_open(self, before: int) -> Entry | None:
        """The open step that has been dirty for longest, if since before that offset; it is queued no longer."""
        heap = self._dirty
        while heap and heap[0][0] < before:
            item = heappop(heap)
            if _is_current(item):
                entry = item[2]
                if entry.status is _OPEN:
                    return entry
                self._set_aside(item)
        return None

    def _set_aside(self, item: tuple[int, int, Entry]) -> None:
        heap = self._dirty_ended
        if len(heap) > 2 * (len(self.steps) + len(self.runs)) + _MAX_OUTDATED:
            heap[:] = sorted(item for item in heap if _is_current(item))
        heappush(heap, item)

    def restore_point(self, next_offset: int, stream_time: int) -> tuple[int, int]:
        """(offset, stream time there) from where a new owner must read; `next_offset` if nothing is dirty."""
        best: Entry | None = None
        for heap in (self._dirty, self._dirty_ended):
            while heap and not _is_current(heap[0]):
                heappop(heap)
            if heap and (best is None or heap[0][0] < best.dirty_from):
                best = heap[0][2]
        return (next_offset, stream_time) if best is None else (best.dirty_from, best.dirty_time)

    # --- ended entries --------------------------------------------------------------------------------------

    def queue_ended(self, entry: Entry) -> None:
        """Queue an ended entry to be forgotten, again whenever an event has named it."""
        self._ended.append((entry.touched_ms, entry.touched_offset, entry))

    def load_ended(self, entries: list[Entry]) -> None:
        """Queue the ended ones among entries that checkpoints brought."""
        for entry in sorted(
            (e for e in entries if e.status is not _OPEN), key=lambda e: (e.touched_ms, e.touched_offset)
        ):
            self._loaded.append((entry.touched_ms, entry.touched_offset, entry))

    def is_past(self, entry: Entry, offset: int, stream_time: int) -> bool:
        """Whether an ended entry has to be forgotten (L10: both bounds inclusive)."""
        return stream_time > entry.touched_ms + self._time_ms or offset > entry.touched_offset + self._records

    def purge(self, offset: int, stream_time: int, effects: list[Effect]) -> list[Entry]:
        """Forget what is past, and return it. When that happens is no outcome: lookups ask `is_past` themselves."""
        forgotten: list[Entry] = []
        self._purge_from(self._ended, offset, stream_time, effects, forgotten)
        if self._loaded:
            self._purge_from(self._loaded, offset, stream_time, effects, forgotten)
        return forgotten

    def _purge_from(
        self,
        ended: deque[tuple[int, int, Entry]],
        offset: int,
        stream_time: int,
        effects: list[Effect],
        forgotten: list[Entry],
    ) -> None:
        while ended:
            touched_ms, touched_offset, entry = ended[0]
            if touched_ms == entry.touched_ms and touched_offset == entry.touched_offset:
                if not self.is_past(entry, offset, stream_time):
                    return
                held = self.steps if entry.run is None else self.runs
                if held.get(entry.key) is entry:
                    self.forget(entry, effects)
                    forgotten.append(entry)
            ended.popleft()

    def forget(self, entry: Entry, effects: list[Effect]) -> None:
        """Forget an ended entry, and what the checkpoint topic has of it."""
        entry.dirty_from = CLEAN
        if entry.run is not None:
            del self.runs[entry.key]
            if entry.checkpointed:
                effects.append(Checkpoint(run_key(entry.key), None))
            return
        del self.steps[entry.key]
        entry.drop()
        if not entry.irregular and not entry.checkpointed:
            return
        key = step_key(entry.key)
        if entry.irregular:
            self.load_gone(key, entry.touched_offset)
            effects.append(gone_checkpoint(key, entry.touched_offset, self._log))
        else:
            effects.append(Checkpoint(key, None))

    def held_checkpoints(self) -> list[tuple[bytes, bytes]]:
        """Key and checkpoint of all that is remembered, `gone` steps included."""
        held = [checkpoint_of(entry, entry.applied_below, self._log) for entry in self.steps.values()]
        held += [checkpoint_of(entry, entry.applied_below, self._log) for entry in self.runs.values()]
        held += [gone_checkpoint(key, last, self._log) for key, last in self._gone.items()]
        return [(found.key, found.value) for found in held if found.value is not None]

    # --- forgotten steps that left a `gone` checkpoint -------------------------------------------------------

    def load_gone(self, key: bytes, last_offset: int) -> None:
        """Remember that the step of this key is gone, its last record at `last_offset`."""
        self._gone[key] = last_offset
        heappush(self._gone_order, (last_offset, key))

    def is_gone(self, step_id: str, offset: int) -> bool:
        """Whether a record at `offset` belongs to a step of this id that is forgotten."""
        return bool(self._gone) and offset <= self._gone.get(step_key(step_id), -1)

    def drop_gone(self, step_id: str) -> bool:
        """Forget that a step of this id is gone, for another one begins; whether there was one."""
        return bool(self._gone) and self._gone.pop(step_key(step_id), None) is not None

    def needless(self, restore_from: int) -> list[Checkpoint]:
        """The forgetting of the `gone` checkpoints that no new owner can need."""
        found: list[Checkpoint] = []
        while self._gone_order and self._gone_order[0][0] < restore_from:
            last, key = heappop(self._gone_order)
            if self._gone.get(key) == last:
                del self._gone[key]
                found.append(Checkpoint(key, None))
        return found

    @property
    def gone_steps(self) -> int:
        """How many forgotten steps have left a `gone` checkpoint."""
        return len(self._gone)

    # --- for readers ------------------------------------------------------------------------------------------

    def is_blank(self) -> bool:
        """Whether nothing is remembered."""
        return not (self.steps or self.runs or self._gone)

    def named_last_ms(self) -> int:
        """The largest stream time at which an event named what is remembered; -1 where nothing is."""
        return max((e.touched_ms for entries in (self.steps, self.runs) for e in entries.values()), default=-1)

    def oldest_open_ms(self) -> int | None:
        """The stream time, in milliseconds, at which the oldest open step was first seen; None if none is open."""
        oldest_s = min((e.opened_s for e in self.steps.values() if e.status is _OPEN), default=None)
        return None if oldest_s is None else oldest_s * 1000


def _is_current(item: tuple[int, int, Entry]) -> bool:
    """Whether an item of a heap of dirty entries still says how its entry stands."""
    return item[2].dirty_from == item[0]
