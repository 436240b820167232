"""The latency bench: when it begins to count, and from which marker on an end could be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from aiokafka.record._crecords import DefaultRecordBatchBuilder
from confluent_kafka import TIMESTAMP_CREATE_TIME, TIMESTAMP_LOG_APPEND_TIME

from tests.bench.append_to_visible import MOST_WINDOWS, WINDOW_S, Ends, is_steady, send_until_steady, visible

COMMIT, ABORT = b"\x00\x00\x00\x01", b"\x00\x00\x00\x00"


@pytest.mark.parametrize(
    ("windows", "steady"),
    [
        ([0.01, 0.01], False),
        ([0.2, 0.1, 0.08], False),
        ([0.9, 0.1, 0.12, 0.11], True),
        ([0.002, 0.006, 0.003], True),
        ([0.1, 0.1, 0.126], False),
        ([0.1, 0.1, float("inf")], False),
        ([float("inf")] * 3, False),
    ],
)
def test_it_counts_from_when_three_windows_hardly_differ(windows: list[float], steady: bool) -> None:
    assert is_steady(windows) is steady


def _batch(producer: int, timestamp: int, *keys: bytes, control: bool = False) -> bytes:
    builder = DefaultRecordBatchBuilder(2, 0, 1, producer, 0, 0, 1 << 20)
    for offset, key in enumerate(keys):
        builder.append(offset, timestamp, key, b"v", [])
    built = bytearray(builder.build())
    built[22] |= 0x20 if control else 0
    return bytes(built)


def test_an_end_is_visible_from_the_marker_that_commits_it(tmp_path: Path) -> None:
    """By producer, across segments; what is aborted or open is not; of what is published twice the first counts."""
    partition = tmp_path / "out.completed-3"
    partition.mkdir()
    first = [_batch(1, 10, b"a"), _batch(2, 20, b"b"), _batch(1, 1_000, COMMIT, control=True), _batch(1, 30, b"c")]
    second = [
        _batch(1, 2_000, ABORT, control=True),
        _batch(1, 40, b"a"),
        _batch(2, 3_500, COMMIT, control=True),
        _batch(1, 4_000, COMMIT, control=True),
        _batch(1, 50, b"d"),
    ]
    (partition / "00000000000000000000.log").write_bytes(b"".join(first))
    (partition / "00000000000000000004.log").write_bytes(b"".join(second))
    other = tmp_path / "out.completed-more-3"
    other.mkdir()
    (other / "00000000000000000000.log").write_bytes(first[0] + first[2])
    assert visible(tmp_path, ["out.completed"]) == {b"a": 1.0, b"b": 3.5}


class Clock:
    """Time that passes while the sender waits."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += max(seconds, 0.05)


class Message:
    """A delivery report: how long the answer took, and when the broker appended the record (half of that before)."""

    def __init__(self, waited_s: float, now: float) -> None:
        self._waited_s, self._now = waited_s, now

    def latency(self) -> float:
        return self._waited_s

    def timestamp(self) -> tuple[int, int]:
        return TIMESTAMP_LOG_APPEND_TIME, round((self._now + self._waited_s / 2) * 1000)


class Broker:
    """A producer whose broker answers in `wait_s(seconds since the begin)`."""

    def __init__(self, clock: Clock, wait_s: Any) -> None:
        self._clock, self._wait_s, self._began = clock, wait_s, clock.now
        self.sent = 0

    def produce(self, record: Any, delivered: Any) -> None:
        self.sent += 1
        if delivered is not None:
            delivered(None, Message(self._wait_s(self._clock.now - self._began), self._clock.now))

    def poll(self, _: float) -> None: ...
    def flush(self, _: float) -> None: ...


@pytest.mark.parametrize(
    ("wait_s", "windows"),
    [
        (lambda at: 0.01, 3),
        (lambda at: 0.5 if at < 2 * WINDOW_S else 0.01, 5),
        (lambda at: 0.1 * 2 ** (at // WINDOW_S), MOST_WINDOWS),
    ],
    ids=["warm", "soon warm", "never"],
)
def test_what_comes_before_the_broker_is_warm_is_not_counted(
    monkeypatch: pytest.MonkeyPatch, wait_s: Any, windows: int
) -> None:
    clock = Clock()
    monkeypatch.setattr("tests.bench.append_to_visible.time", clock)
    broker: Any = Broker(clock, wait_s)
    made = list(range(int(10 * WINDOW_S * (MOST_WINDOWS + 5))))
    ends = Ends({b"%d" % number: number / 10 for number in range(0, len(made), 3)})
    measured_from, found = send_until_steady(broker, made, 10, 2.0, ends)
    assert len(found) == windows
    assert measured_from == (windows + 1) * WINDOW_S
    assert broker.sent < len(made), "it ends once all has been measured"
    counted = ends.within(measured_from, measured_from + 2.0)
    assert len(counted) >= 6
    assert all(ends.sent[step].due - ends.began >= measured_from for step in counted)
    assert all(0 <= ends.sent[step].handed - ends.sent[step].due < 0.06 for step in counted)
    for sent in (ends.sent[step] for step in counted):
        assert sent.appended - sent.handed == pytest.approx((sent.acknowledged - sent.handed) / 2, abs=0.001)


def test_times_of_the_producer_are_not_taken_for_those_of_the_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.bench.append_to_visible.time", clock := Clock())
    monkeypatch.setattr(Message, "timestamp", lambda _: (TIMESTAMP_CREATE_TIME, 1))
    broker: Any = Broker(clock, lambda _: 0.01)
    with pytest.raises(ValueError, match="the producer's times"):
        send_until_steady(broker, list(range(300)), 10, 2.0, Ends({b"1": 0.1}))
