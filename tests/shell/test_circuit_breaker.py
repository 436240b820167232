"""The breaker: what is too much, and what does not count."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from processor.core.effects import DeadLetter, LogRecord, Reason
from processor.serve.circuit_breaker import Breaker, Tripped


def batch(*good: bool, first: int = 0) -> list[LogRecord]:
    return [LogRecord(first + i, 0, None, b"") for i in range(len(good))]


def letters(*good: bool, first: int = 0, reason: Reason = Reason.NOT_JSON) -> list[DeadLetter]:
    return [DeadLetter(reason, "", None, b"", 0, (), first + i) for i, is_good in enumerate(good) if not is_good]


class Saw:
    """A breaker, and records told to it as good or not."""

    def __init__(self, max_share: float = 0, window: int = 0, max_run: int = 0) -> None:
        self.breaker = Breaker("in", max_share, window, max_run)
        self.next = 0

    def __call__(self, *good: bool, partition: int = 0, reason: Reason = Reason.NOT_JSON) -> None:
        first, self.next = self.next, self.next + len(good)
        self.breaker.saw(partition, batch(*good, first=first), letters(*good, first=first, reason=reason))


def test_a_run_is_as_long_as_it_may_be_and_no_longer() -> None:
    saw = Saw(max_run=3)
    saw(False, False)
    with pytest.raises(Tripped, match="3 records in a row") as caught:
        saw(False)
    assert (caught.value.rejected, caught.value.run_length) == (3, 3)
    assert caught.value.exit_code == 65
    assert "topic in: partition 0: " in caught.value.message
    assert "offsets 2 to 2, most of them not_json" in caught.value.message
    assert (caught.value.topic, caught.value.partition, caught.value.offsets) == ("in", 0, (2, 2))
    assert caught.value.hint


def test_one_good_record_ends_a_run_wherever_it_stands() -> None:
    saw = Saw(max_run=3)
    saw(False, False, True, False, False)
    saw(True)
    saw(False, False)
    with pytest.raises(Tripped):
        saw(False, True)


class LookedAtOnce(list[LogRecord]):
    """Records that are dear to look at again (`FetchedRecords`): only the last one may be asked for."""

    def __iter__(self) -> Iterator[LogRecord]:
        raise AssertionError("looked at again")


def test_records_are_looked_at_again_only_where_a_run_may_reach_its_limit() -> None:
    breaker = Breaker("in", 0, 0, 3)
    breaker.saw(0, LookedAtOnce(batch(False, True, False, True)), letters(False, True, False, True))
    breaker.saw(0, batch(False, False, first=4), letters(False, False, first=4))
    with pytest.raises(Tripped):
        breaker.saw(0, batch(False, True, first=6), letters(False, True, first=6))


def test_a_run_is_of_one_partition() -> None:
    saw = Saw(max_run=3)
    for _ in range(10):
        saw(False, partition=1)
        saw(True, partition=1)
        saw(False, partition=0) if _ < 2 else saw(True, partition=0)


def test_a_share_counts_over_the_window_and_all_partitions() -> None:
    saw = Saw(max_share=0.5, window=10)
    saw(False, False, False, partition=0)
    saw(False, False, partition=1)
    saw(True, True, True, True)
    with pytest.raises(Tripped, match="6 of 10 records") as caught:
        saw(False)
    assert (caught.value.rejected, caught.value.of_records, caught.value.run_length) == (6, 10, 0)
    assert (caught.value.partition, caught.value.offsets, caught.value.reason) == (0, (9, 9), "not_json")


def test_exactly_the_share_is_allowed_and_each_window_begins_anew() -> None:
    saw = Saw(max_share=0.5, window=4)
    for _ in range(5):
        saw(False, False, True, True)
    saw(False, False, False)
    with pytest.raises(Tripped):
        saw(False)


def test_a_record_that_is_refused_twice_counts_once() -> None:
    """A record of several frames may have more than one dead letter."""
    breaker = Breaker("in", 0, 0, 3)
    breaker.saw(0, batch(False, False), [*letters(False, False), *letters(False, False)])


def test_a_snapshot_too_large_is_no_fault_of_the_input() -> None:
    saw = Saw(max_share=0.1, window=2, max_run=2)
    saw(False, False, False, False, reason=Reason.SNAPSHOT_TOO_LARGE)


def test_zero_switches_a_limit_off() -> None:
    for saw in (Saw(), Saw(max_share=0, window=1), Saw(max_share=0.1, window=0)):
        saw(*[False] * 100)
