"""What is not known where clock marks and dead letters may be gone from the output, and from where on it is known."""

from __future__ import annotations

from typing import Any

from processor.audit.judge.output_gaps import OutputGaps

EXPIRED, DEAD = "expired", "dead"


def gaps(
    kept: int | None = None, *, marks: tuple[tuple[int, int], ...] = (), begin: int = 0, **more: Any
) -> OutputGaps:
    """`kept`: the first cause that a record of the topic of expired steps names, after retention."""
    kept_from = more.pop("kept_from", {} if kept is None else {(EXPIRED, 0): kept})
    return OutputGaps(kept_from, more.get("held", ()), more.get("holes", ()), DEAD, EXPIRED, marks, begin)


def test_nothing_that_is_gone_leaves_nothing_open() -> None:
    whole = gaps(marks=((3, 1_000),))
    assert (whole.marks_are_lost, whole.is_time_open, whole.dead_from) == (False, False, -1)
    assert whole.lacks_marks(0) == ""
    whole.time_is_known(5)
    assert whole.lacks_marks(5) == "", "a deadline takes no knowledge away"


def test_the_reason_is_what_has_taken_the_marks() -> None:
    assert "may have gone with the first records" in gaps(10).lacks_marks(5)
    assert "an open transaction" in gaps(held=[(EXPIRED, 1)]).lacks_marks(5)
    assert "from within an output topic" in gaps(holes=[(EXPIRED, 1)]).lacks_marks(5)
    both = gaps(held=[(EXPIRED, 1)], holes=[(EXPIRED, 0)])
    assert "an open transaction" in both.lacks_marks(5)


def test_what_other_topics_lack_says_nothing_of_marks() -> None:
    other = gaps(kept_from={(DEAD, 0): 7, (DEAD, 1): 9, ("completed", 0): 30})
    assert (other.marks_are_lost, other.lacks_marks(5)) == (False, "")
    assert other.dead_from == 9, "up to the partition that was shortened most"


def test_marks_that_may_be_gone_leave_the_time_open_until_one_that_is_there() -> None:
    lost = gaps(10, marks=((4, 1), (10, 2), (15, 3), (40, 4)), begin=0)
    assert (lost.marks_are_lost, lost.known_from) == (True, 15)
    assert lost.lacks_marks(100) != "", "one that is gone may have moved the time by any distance"
    lost.time_is_known(14)
    assert [bool(lost.lacks_marks(first)) for first in (14, 15)] == [True, False]


def test_a_mark_that_is_there_before_the_range_makes_the_time_known_in_all_of_it() -> None:
    before = gaps(10, marks=((15, 1_000),), begin=20)
    assert [bool(before.lacks_marks(first)) for first in (19, 20)] == [True, False]


def test_only_what_comes_behind_the_lost_marks_makes_the_time_known_and_only_once() -> None:
    lost = gaps(10)
    lost.time_is_known(9)
    assert lost.lacks_marks(11) != ""
    lost.time_is_known(20)
    lost.time_is_known(30)
    assert [bool(lost.lacks_marks(first)) for first in (20, 21)] == [True, False]


def test_behind_an_open_transaction_no_deadline_makes_the_time_known() -> None:
    held = gaps(held=[(EXPIRED, 0)], marks=((15, 1_000),), begin=20)
    held.time_is_known(30)
    assert (held.is_time_open, held.known_from > 1 << 60) == (False, True)
    assert "an open transaction" in held.lacks_marks(40)
