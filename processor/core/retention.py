"""Retention: what a partition remembers, for how long (L10), and from where a new owner has to read.

Every remembered entry has `dirty_from`, the offset of its first record that no checkpoint covers. The smallest of
them is the restore point (docs/decisions/0001). A forgotten step whose tail alone would look like a living one leaves a
`gone` checkpoint until the restore point has passed its last record.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Final

from processor.core.checkpoints import checkpoint_of, gone_checkpoint, run_key, step_key
from processor.core.effects import Checkpoint, Effect, Status
from processor.core.ended_groups import LARGE_BYTES, EndedGroup, Grouping, Held
from processor.core.entry import CLEAN, Entry
from processor.core.entry_queue import EntryQueue
from processor.core.rules import Rules

_OPEN: Final = Status.IN_PROGRESS
_MAX_OUTDATED: Final = 1_000
"""How many outdated items a queue may hold beyond its own number before it is cleaned."""


class Retention:
    """The entries by their names, and which of them are dirty, ended or gone."""

    __slots__ = (
        "_dirty",
        "_dirty_ended",
        "_ended",
        "_gone",
        "_gone_order",
        "_grouping",
        "_loaded",
        "_log",
        "_most_bytes",
        "_most_steps",
        "_records",
        "_time_ms",
        "_waiting",
        "_waiting_bytes",
        "runs",
        "steps",
    )

    def __init__(self, rules: Rules, log: str, grouping: Grouping) -> None:
        self._log, self._grouping = log, grouping
        self._most_bytes, self._most_steps = grouping.most_bytes, grouping.most_steps
        self._time_ms, self._records = rules.ended_retention_s * 1000, rules.ended_retention_records
        self.steps: dict[str, Entry] = {}
        self.runs: dict[str, Entry] = {}
        self._ended = EntryQueue()
        self._loaded = EntryQueue()  # ended entries from checkpoints: an order of their own
        self._dirty = EntryQueue()
        self._dirty_ended = EntryQueue()  # set aside by `take_dirty_open`
        self._waiting: list[Entry] = []
        """Ended steps that are in no group yet: each one there is, but for those that hold nothing."""
        self._waiting_bytes = 0
        self._gone: dict[bytes, int] = {}
        self._gone_order: list[tuple[int, bytes]] = []

    # --- dirty entries and the restore point ----------------------------------------------------------------

    def mark_dirty(self, entry: Entry, offset: int, before_ms: int) -> None:
        """Note the first record of an entry that no checkpoint covers, and the stream time before it."""
        entry.dirty_from, entry.dirty_time = offset, before_ms
        self.queue_dirty(entry)

    def queue_dirty(self, entry: Entry) -> None:
        """Queue a dirty entry."""
        self._put_dirty(self._dirty, entry)

    def _put_dirty(self, queue: EntryQueue, entry: Entry) -> None:
        if len(queue) > 2 * (len(self.steps) + len(self.runs)) + _MAX_OUTDATED:
            queue.keep_dirty()
        queue.put(entry.dirty_from, entry)

    def take_dirty_open(self, before: int) -> Entry | None:
        """The open step that has been dirty for longest, if since before that offset; it is queued no longer."""
        queue = self._dirty
        while len(queue) and queue.first_offset() < before:
            entry = queue.first()
            is_current = entry.dirty_from == queue.first_offset()
            queue.drop_first()
            if is_current:
                if entry.status is _OPEN:
                    return entry
                self._put_dirty(self._dirty_ended, entry)
        return None

    def restore_point(self, next_offset: int, stream_time: int) -> tuple[int, int]:
        """(offset, stream time there) from where a new owner must read; `next_offset` if nothing is dirty."""
        best: Entry | None = None
        for queue in (self._dirty, self._dirty_ended):
            while len(queue) and queue.first().dirty_from != queue.first_offset():
                queue.drop_first()
            if len(queue) and (best is None or queue.first_offset() < best.dirty_from):
                best = queue.first()
        return (next_offset, stream_time) if best is None else (best.dirty_from, best.dirty_time)

    # --- ended entries --------------------------------------------------------------------------------------

    def queue_ended(self, entry: Entry) -> None:
        """Queue an ended entry to be forgotten, again whenever an event has named it."""
        self._ended.put(entry.touched_offset, entry)

    def load_ended(self, entries: list[Entry]) -> None:
        """Queue the ended ones among entries that checkpoints brought."""
        for entry in sorted(
            (e for e in entries if e.status is not _OPEN), key=lambda e: (e.touched_ms, e.touched_offset)
        ):
            self._loaded.put(entry.touched_offset, entry)
            self.keep_ended(entry)

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
        self, ended: EntryQueue, offset: int, stream_time: int, effects: list[Effect], forgotten: list[Entry]
    ) -> None:
        while len(ended):
            entry = ended.first()
            if entry.touched_offset == ended.first_offset():
                if not self.is_past(entry, offset, stream_time):
                    return
                held = self.steps if entry.run is None else self.runs
                if held.get(entry.key) is entry:
                    self.forget(entry, effects)
                    forgotten.append(entry)
            ended.drop_first()

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

    # --- groups of ended steps --------------------------------------------------------------------------------

    def keep_ended(self, entry: Entry) -> None:
        """Have an ended step that is in no group wait for one."""
        size = entry.ended_bytes()
        if not size:
            return
        if size >= LARGE_BYTES:
            self._group([entry])
            return
        self._waiting.append(entry)
        self._waiting_bytes += size
        if self._waiting_bytes >= self._most_bytes or len(self._waiting) >= self._most_steps:
            waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
            self._group(waiting)

    def leave_group(self, entry: Entry) -> None:
        """An event names an ended step that may be in a group: it is by itself from here on, and waits for another."""
        if entry.group is not None:
            entry.leave_group()
            self.keep_ended(entry)

    def _group(self, entries: list[Entry]) -> None:
        joining: list[Entry] = []
        held: list[Held] = []
        for entry in entries:
            if self.steps.get(entry.key) is entry and entry.ended_bytes():
                step = entry.for_group()
                if step is not None:
                    joining.append(entry)
                    held.append(step)
        if not joining:
            return
        try:
            group = EndedGroup(held, self._grouping)
        except MemoryError:
            raise
        except Exception:  # as in `for_group`: the steps stay as they are
            return
        for place, entry in enumerate(joining):
            entry.join(group, place)

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
        """Number of gone markers: checkpoints of forgotten steps."""
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
