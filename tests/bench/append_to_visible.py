"""Append to visible once the broker is warm, with what is not the worker's told apart.

The load is open-loop, at one rate without a break: first windows that are not counted, then what is measured. The
windows end once the broker's answers to the producer are steady, or after `MOST_WINDOWS`, which is told. Of each end:

- due: when it had to be sent; handed: when the producer was given it; acknowledged: when the producer had the answer;
- appended: the time that the broker gave its batch, in milliseconds (the source has `LogAppendTime`, and the answer to
  the producer says it);
- visible: the time of the commit marker behind it on its output, by the broker's clock (milliseconds, same machine):
  from then on a read_committed fetch returns it; seen: when the reader had it.

Appended to visible is told by the broker's clock alone: producer and reader are off the bill, though not off the
broker's core. Due to seen has all of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from aiokafka.record.control_record import ABORT_MARKER, ControlRecord
from aiokafka.record.memory_records import MemoryRecords
from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME

WINDOW_S: Final = 3.0
MOST_WINDOWS: Final = 12
_NEAR: Final = 1.25
_NEAR_S: Final = 0.005
_TICK_S: Final = 0.002


class Sent(NamedTuple):
    """When an end was due, handed to the producer, appended and acknowledged, in seconds since the epoch."""

    due: float
    handed: float
    appended: float
    acknowledged: float


class Ends:
    """The ends of a load: `due` in seconds from its begin, and what is known of those that were sent."""

    def __init__(self, due: dict[bytes, float]) -> None:
        self.due = due
        self.sent: dict[bytes, Sent] = {}
        self.began = 0.0

    def within(self, begin_s: float, end_s: float) -> list[bytes]:
        """The acknowledged ends that were due in the span, in seconds from the begin."""
        return [step for step, sent in self.sent.items() if begin_s <= sent.due - self.began < end_s]


def is_steady(windows: Sequence[float]) -> bool:
    """Whether the last three windows hardly differ: the largest is at most 1.25 x or 5 ms above the smallest.

    A window without an answer is infinite, and never steady.
    """
    if len(windows) < 3:
        return False
    least, most = min(windows[-3:]), max(windows[-3:])
    return most < float("inf") and most <= max(_NEAR * least, least + _NEAR_S)


def quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class Producing(Protocol):
    """What the sender needs of a producer: `delivered`, if there is one, is called with the error and the report."""

    def produce(self, one: Any, delivered: Callable[[Any, Any], None] | None) -> None: ...
    def poll(self, timeout_s: float) -> object: ...
    def flush(self, timeout_s: float) -> object: ...


def send_until_steady(
    producer: Producing, made: Sequence[Any], per_s: int, seconds: float, ends: Ends
) -> tuple[float, list[float]]:
    """Send records at the rate, until the windows are steady and then for `seconds` more; reports are asked of ends.

    Returns:
        From when on is measured, in seconds from the begin; the p99 of handed to acknowledged of each window before.
    """
    names = {round(due * per_s): step for step, due in ends.due.items()}
    began = ends.began = time.time()
    windows: list[float] = []
    measured_from, at, total = -1.0, 0, len(made)
    while at < total:
        now = time.time() - began
        while at < total and at <= now * per_s:
            step = names.get(at)
            producer.produce(made[at], None if step is None else _noting(ends, step, began + at / per_s))
            at += 1
        producer.poll(0)
        if measured_from < 0 and now >= (len(windows) + 1.5) * WINDOW_S:  # half a window later, all of it is answered
            found = ends.within(len(windows) * WINDOW_S, (len(windows) + 1) * WINDOW_S)
            waited = [ends.sent[step].acknowledged - ends.sent[step].handed for step in found]
            windows.append(quantile(waited, 0.99) if waited else float("inf"))
            if is_steady(windows) or len(windows) == MOST_WINDOWS:
                measured_from = (len(windows) + 1) * WINDOW_S
        if measured_from >= 0 and now >= measured_from + seconds:
            break
        time.sleep(_TICK_S)
    producer.flush(60)
    return measured_from, windows


def _noting(ends: Ends, step: bytes, due: float) -> Callable[[Any, Any], None]:
    handed = time.time()

    def delivered(error: Any, message: Any) -> None:
        if error is None:
            kind, appended_ms = message.timestamp()
            if kind != TIMESTAMP_LOG_APPEND_TIME:
                raise ValueError("the topic keeps the producer's times")
            ends.sent[step] = Sent(due, handed, appended_ms / 1000, handed + message.latency())

    return delivered


def visible(folder: Path, topics: Sequence[str]) -> dict[bytes, float]:
    """When each key of the topics could first be read, by the segments in a broker's data folder; since the epoch."""
    found: dict[bytes, float] = {}
    for topic in topics:
        for partition in folder.glob(f"{topic}-[0-9]*"):
            if partition.name.rpartition("-")[0] == topic:
                for key, at in _committed(sorted(partition.glob("*.log"))):
                    found.setdefault(key, at)
    return found


def _committed(segments: Sequence[Path]) -> Iterator[tuple[bytes, float]]:
    """The keys of a partition's transactions, each with the time of the marker that committed it, in seconds."""
    pending: dict[int, list[bytes]] = {}
    for segment in segments:
        batches = MemoryRecords(segment.read_bytes())
        while batches.has_next():
            batch: Any = batches.next_batch()
            if not batch.is_control_batch:
                pending.setdefault(batch.producer_id, []).extend(record.key or b"" for record in batch)
                continue
            keys = pending.pop(batch.producer_id, [])
            if any(ControlRecord.parse(record.key) != ABORT_MARKER for record in batch):
                for key in keys:
                    yield key, batch.max_timestamp / 1000
