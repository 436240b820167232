"""A unit is closed at the commit interval, and later only while all of its partitions are behind."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from processor.core.effects import Checkpoint
from processor.serve.unit import PendingUnit
from processor.serve.unit_interval import CATCH_UP_S, UnitInterval

INTERVAL_S = 0.1
PARTITIONS = st.integers(0, 3)


def pending(records: dict[int, int]) -> PendingUnit:
    unit = PendingUnit()
    for partition, count in records.items():
        unit.applied(partition, count)
        unit.add(partition, [Checkpoint(b"key", b"value")])
    return unit


def begun(unread: dict[int, int], interval_s: float = INTERVAL_S) -> UnitInterval:
    interval = UnitInterval(interval_s, lambda partition: unread.get(partition, 0))
    interval.begin(10.0)
    return interval


def test_a_unit_of_partitions_that_keep_up_is_closed_at_the_interval() -> None:
    interval = begun({0: 100})
    unit = pending({0: 100})
    assert not interval.is_over(10.09, unit)
    assert interval.wait_ms(10.05, unit) == 49
    assert interval.is_over(10.11, unit), "no more is left than the unit holds"


def test_a_unit_of_partitions_that_are_behind_is_closed_after_a_second() -> None:
    interval = begun({0: 10_000, 1: 10_000})
    unit = pending({0: 100, 1: 200})
    assert not interval.is_over(10.11, unit)
    assert not interval.is_over(10.99, unit)
    assert interval.is_over(11.0, unit)


def test_it_is_closed_as_soon_as_it_holds_as_much_as_is_left() -> None:
    unread = {0: 101}
    interval, unit = begun(unread), pending({0: 100})
    assert not interval.is_over(10.11, unit)
    unread[0] = 100
    assert interval.is_over(10.12, unit)


def test_one_partition_that_keeps_up_is_not_delayed_by_others() -> None:
    assert begun({0: 10_000, 1: 0}).is_over(10.11, pending({0: 100, 1: 1}))


def test_effects_without_a_record_are_not_delayed() -> None:
    """A clock mark, at the end of a partition."""
    unit = pending({0: 100})
    unit.add(1, [Checkpoint(b"mark", b"value")])
    assert begun({0: 10_000, 1: 0}).is_over(10.11, unit)


def test_a_unit_without_a_record_is_closed_at_the_interval() -> None:
    assert begun({0: 10_000}).is_over(10.11, pending({}))


def test_a_longer_commit_interval_stands() -> None:
    interval, unit = begun({0: 10_000}, interval_s=5.0), pending({0: 1})
    assert not interval.is_over(14.9, unit)
    assert interval.is_over(15.1, unit)


def test_a_poll_waits_until_the_unit_may_be_over_and_no_longer() -> None:
    interval, unit = begun({0: 10_000}), pending({0: 1})
    assert not interval.is_over(10.15, unit)
    assert 90 <= interval.wait_ms(10.15, unit) <= 100, "asked again an interval later, not a millisecond"
    assert not interval.is_over(10.95, unit)
    assert interval.wait_ms(10.95, unit) <= 50


@given(
    records=st.dictionaries(PARTITIONS, st.integers(1, 10_000)),
    unread=st.dictionaries(PARTITIONS, st.integers(0, 10_000)),
    interval_s=st.floats(0.001, 60.0),
    ages=st.lists(st.floats(0.0, 70.0), min_size=1).map(sorted),
)
def test_how_long_a_unit_may_stay_pending(
    records: dict[int, int], unread: dict[int, int], interval_s: float, ages: list[float]
) -> None:
    interval, unit = UnitInterval(interval_s, lambda partition: unread.get(partition, 0)), pending(records)
    interval.begin(0.0)
    keeps_up = not records or any(unread.get(partition, 0) <= count for partition, count in records.items())
    for age_s in ages:
        is_over = interval.is_over(age_s, unit)
        if age_s < interval_s:
            assert not is_over
        elif keeps_up or age_s >= max(interval_s, CATCH_UP_S):
            assert is_over
        else:
            assert not is_over
        if records:
            assert interval.wait_ms(age_s, unit) <= max(1, 1000 * interval_s)
