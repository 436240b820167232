"""What producers do to the source as a whole: clocks, keys on other partitions, frames. From a sample, told once."""

from __future__ import annotations

from typing import Any

import pytest

from processor.core.effects import LogRecord
from processor.kafka.records import partition_of
from processor.serve.source_observer import AHEAD_S, SourceObserver
from processor.telemetry.kafka_happenings import (
    KeysChecked,
    OlderThanKept,
    SchemaFrameRead,
    SourceTimes,
    StreamTimeAhead,
)

NOW_MS = 1_800_000_000_000


class Seen:
    """An observer and what it tells."""

    def __init__(self, partitions: int = 6, *, with_frames: bool = False) -> None:
        self.told: list[Any] = []
        telemetry: Any = self
        self.observer = SourceObserver(lambda: partitions, telemetry, lambda: NOW_MS, with_frames=with_frames)
        self._now = 0.0

    def happened(self, happening: Any) -> None:
        self.told.append(happening)

    def of(self, kind: type) -> list[Any]:
        return [one for one in self.told if isinstance(one, kind)]

    def report(self, stream_time_ms: int, partition: int = 0, after_s: float = 1.0) -> SourceTimes:
        self._now += after_s
        self.observer.report(partition, stream_time_ms, self._now)
        times: SourceTimes = self.of(SourceTimes)[-1]
        return times


def at(*times: int, key: bytes | None = b"k", value: bytes = b"{}") -> list[LogRecord]:
    return [LogRecord(n, time, key, value) for n, time in enumerate(times)]


def test_stream_time_is_set_against_the_clock_and_told_once_where_it_is_far_ahead() -> None:
    seen = Seen()
    assert seen.report(NOW_MS - 5_000).ahead_s == -5
    far = NOW_MS + int(AHEAD_S * 1000) + 10_000
    assert seen.report(far).ahead_s == AHEAD_S + 10
    seen.report(far)
    assert [one.is_ahead for one in seen.of(StreamTimeAhead)] == [True]
    seen.report(NOW_MS)
    assert [one.is_ahead for one in seen.of(StreamTimeAhead)] == [True, False]
    assert seen.report(-1).ahead_s == 0, "no record has come yet"


def test_the_skew_is_how_far_records_come_behind_others_and_not_how_much_time_a_batch_covers() -> None:
    seen = Seen()
    seen.observer.saw(0, at(*range(NOW_MS - 900_000, NOW_MS, 100_000)))
    assert seen.report(NOW_MS).skew_s == 0, "a worker that catches up"
    seen.observer.saw(0, at(NOW_MS, NOW_MS - 90_000))
    assert seen.report(NOW_MS).skew_s == 90
    assert seen.report(NOW_MS, after_s=60).skew_s == 90
    assert seen.report(NOW_MS, after_s=60).skew_s == 0, "two windows later it is over"
    seen.observer.saw(0, at(-1, -1))
    assert seen.report(NOW_MS).skew_s == 0, "no timestamp is none"


def test_one_record_with_a_wrong_timestamp_shows_as_skew_of_all_others() -> None:
    seen = Seen()
    seen.observer.saw(0, at(NOW_MS + 10**9, NOW_MS))
    assert seen.report(NOW_MS + 10**9).skew_s == 10**6


@pytest.mark.parametrize("partitions", [2, 6])
def test_keys_are_compared_with_the_partition_of_the_java_client(partitions: int) -> None:
    seen = Seen(partitions)
    keys = [b"run-%d" % n for n in range(8)]
    here = sum(partition_of(key, partitions) == 1 for key in keys)
    seen.observer.saw(1, [LogRecord(n, 0, key, b"") for n, key in enumerate(keys)])
    seen.report(0, partition=1)
    (checked,) = seen.of(KeysChecked)
    assert (checked.checked, checked.elsewhere) == (8, 8 - here)


def test_keys_cost_no_more_than_so_many_a_second_and_none_where_there_is_one_partition() -> None:
    seen = Seen()
    for _ in range(1000):
        seen.observer.saw(0, at(*[NOW_MS] * 500))
    seen.report(NOW_MS)
    assert sum(one.checked for one in seen.of(KeysChecked)) == 50
    for keys in (None, b"", b"k" * 1_000_000):
        alone = Seen(1 if keys is None else 6)
        alone.observer.saw(0, at(NOW_MS, key=keys or b""))
        alone.report(NOW_MS)
        assert alone.of(KeysChecked) == []


def test_records_older_than_an_outcome_topic_keeps_them_are_told_once_a_partition() -> None:
    seen = Seen()
    seen.observer._kept = lambda: ("out", 1000)
    seen.observer.saw(0, at(NOW_MS - 500, -1, NOW_MS))
    seen.report(NOW_MS)
    assert seen.of(OlderThanKept) == []
    for _ in range(2):
        seen.observer.saw(0, at(NOW_MS, NOW_MS - 1500))
        seen.report(NOW_MS)
    assert seen.of(OlderThanKept) == [OlderThanKept(0, "out", 1000, NOW_MS - 1500)]


def test_a_frame_that_is_read_is_told_once() -> None:
    for with_frames in (False, True):
        seen = Seen(with_frames=with_frames)
        for _ in range(3):
            seen.observer.saw(0, at(NOW_MS, value=b"\0\0\0\0\x07{}"))
        assert len(seen.of(SchemaFrameRead)) == with_frames
