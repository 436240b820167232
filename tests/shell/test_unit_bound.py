"""The size of units follows what the broker takes in time."""

from __future__ import annotations

from itertools import count

from processor.serve.unit_bound import UnitBound


def test_a_unit_that_is_not_taken_in_time_is_halved_and_one_taken_with_ease_doubles_it() -> None:
    bound = UnitBound(50_000, 1 << 20, 20.0, count(1).__next__)
    assert bound.failed(8_000, 400_000, 20.0)
    assert (bound.records, bound.bytes) == (4_000, 200_000)
    assert bound.failed(4_000, 200_000, 20.0)
    assert (bound.records, bound.bytes) == (2_000, 100_000)
    assert not bound.committed(2_000, 100_000, 6.0)
    assert (bound.records, bound.bytes) == (2_000, 100_000), "twice as much might not fit"
    for _ in range(10):
        bound.committed(10, 10, 0.1)
    assert (bound.records, bound.bytes) == (50_000, 1 << 20)


def test_a_unit_that_just_fits_lowers_it() -> None:
    bound = UnitBound(50_000, 1 << 20, 20.0, count(1).__next__)
    assert bound.committed(1_000, 100_000, 12.0)
    assert bound.records == 500


def test_a_failure_at_once_says_nothing_of_the_size() -> None:
    bound = UnitBound(50_000, 1 << 20, 20.0, count(1).__next__)
    assert not bound.failed(1_000, 100_000, 0.1)
    assert bound.records == 50_000


def test_it_never_falls_below_one_record() -> None:
    bound = UnitBound(10, 1 << 20, 20.0, count(1).__next__)
    for _ in range(10):
        bound.failed(bound.records, bound.bytes, 20.0)
    assert bound.records == 1
    assert bound.is_reached(1, 0)


def test_a_broker_that_hangs_and_throttles_nobody_says_nothing_of_the_size() -> None:
    bound = UnitBound(50_000, 1 << 20, 20.0, lambda: 7)
    assert not bound.failed(1_000, 100_000, 20.0)
    assert not bound.committed(1_000, 100_000, 19.0)
    assert bound.records == 50_000


def test_throttling_that_was_said_of_the_unit_before_counts() -> None:
    said = 0
    bound = UnitBound(50_000, 1 << 20, 20.0, lambda: said)
    said = 9_000
    assert not bound.committed(1_000, 100_000, 6.0)
    assert bound.failed(1_000, 100_000, 20.0)
    assert not bound.failed(500, 50_000, 20.0)
