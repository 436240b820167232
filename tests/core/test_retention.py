"""Retention: the restore point is that of the entry that has been dirty for longest, whatever became of it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from processor.core.effects import Status
from processor.core.ended_groups import PLAIN
from processor.core.entry import CLEAN, Entry
from processor.core.retention import Retention
from processor.core.rules import Rules

MOVES = st.lists(st.tuples(st.sampled_from(["touch", "touch", "end", "take", "fail"]), st.integers(0, 4)), max_size=40)


@given(MOVES)
def test_the_restore_point_is_the_first_record_that_no_checkpoint_covers(moves: list[tuple[str, int]]) -> None:
    """`take` is a checkpoint of the open step that has been dirty for longest, `fail` one that fails."""
    retention = Retention(Rules(), "", PLAIN)
    entries = [Entry(f"s{n}", 0) for n in range(5)]
    for offset, (move, number) in enumerate(moves):
        entry = entries[number]
        if move == "touch" and entry.dirty_from < 0:
            retention.mark_dirty(entry, offset, offset * 10)
        elif move == "end":
            entry.status = Status.COMPLETED
        elif move in ("take", "fail"):
            waiting = [e for e in entries if e.status is Status.IN_PROGRESS and 0 <= e.dirty_from < offset - number]
            taken = retention.take_dirty_open(offset - number)
            assert taken is min(waiting, key=lambda e: e.dirty_from, default=None)
            if taken is not None and move == "take":
                taken.dirty_from = CLEAN
            elif taken is not None:
                retention.queue_dirty(taken)
        dirty = [e.dirty_from for e in entries if e.dirty_from >= 0]
        first = min(dirty, default=offset + 1)
        assert retention.restore_point(offset + 1, 7) == (first, first * 10 if dirty else 7)
