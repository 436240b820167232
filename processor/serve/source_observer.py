"""Checks of the source's producers over a sample of records: timestamp skew, keys on unexpected partitions.

The sample is bounded (records per batch, keys per second), so its cost does not show under load. It changes no outcome.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from processor.core.effects import Record
from processor.core.schema_frames import frame_of
from processor.kafka.fetched_records import sample
from processor.kafka.records import partition_of
from processor.telemetry.kafka_happenings import (
    KeysChecked,
    OlderThanKept,
    SchemaFrameRead,
    SourceTimes,
    StreamTimeAhead,
)
from processor.telemetry.telemetry import Telemetry

AHEAD_S: Final = 3600.0
"""Stream time this far ahead of the clock is reported; brokers since Kafka 3.6 refuse later timestamps by default."""
_KEYS_A_SECOND: Final = 50
_LONGEST_KEY_BYTES: Final = 256
_SKEW_WINDOW_S: Final = 60.0
_MOST_FRAMES: Final = 20


class _Times:
    """The timestamps of one partition: the largest, and how far others came behind it, in two windows."""

    def __init__(self) -> None:
        self.largest_ms = -1
        self.skew_ms = self.skew_before_ms = 0
        self.began = 0.0
        self.is_ahead = self.is_warned = False
        self.oldest_ms = -1
        """Oldest timestamp of the records since the last report; -1: none."""


class SourceObserver:
    """Checks of one worker, over all its partitions.

    Args:
        partitions: how many the source has.
        now_ms: the wall clock.
        kept: the outcome or dead-letter topic that keeps records for the shortest time, and for how long, in ms.
        with_frames: whether values may stand behind a schema registry's frame; which ones is logged then.
    """

    def __init__(
        self,
        partitions: Callable[[], int],
        telemetry: Telemetry,
        now_ms: Callable[[], int],
        *,
        kept: Callable[[], tuple[str, int] | None] = lambda: None,
        with_frames: bool = False,
    ) -> None:
        self._partitions, self._telemetry, self._now_ms, self._kept = partitions, telemetry, now_ms, kept
        self._frames: set[str] | None = set() if with_frames else None
        self._times: dict[int, _Times] = {}
        self._keys_left = _KEYS_A_SECOND
        self._checked: dict[int, list[int]] = {}

    def saw(self, partition: int, records: Sequence[Record]) -> None:
        """Check some records of those that were applied live."""
        times = self._times.setdefault(partition, _Times())
        count = self._partitions() if self._keys_left > 0 else 0
        for record in sample(records):
            if record.timestamp >= 0 and not 0 <= times.oldest_ms <= record.timestamp:
                times.oldest_ms = record.timestamp
            if record.timestamp > times.largest_ms:
                times.largest_ms = record.timestamp
            elif record.timestamp >= 0:
                times.skew_ms = max(times.skew_ms, times.largest_ms - record.timestamp)
            if count > 1 and record.key and len(record.key) <= _LONGEST_KEY_BYTES and self._keys_left > 0:
                self._keys_left -= 1
                self._check(partition, record, count)
            if self._frames is not None and record.value:
                self._note_frame(partition, record)

    def report(self, partition: int, stream_time_ms: int, now: float) -> None:
        """Once a second and partition: set the gauges, count the keys that were checked.

        Args:
            now: the monotonic clock, in seconds.
        """
        times = self._times.setdefault(partition, _Times())
        times.largest_ms = max(times.largest_ms, stream_time_ms)
        if now - times.began >= _SKEW_WINDOW_S:
            times.began, times.skew_before_ms, times.skew_ms = now, times.skew_ms, 0
        ahead_s = (stream_time_ms - self._now_ms()) / 1000 if stream_time_ms >= 0 else 0.0
        skew_s = max(times.skew_ms, times.skew_before_ms) / 1000
        self._telemetry.happened(SourceTimes(partition, ahead_s, skew_s))
        if (ahead_s > AHEAD_S) != times.is_ahead:
            times.is_ahead = not times.is_ahead
            self._telemetry.happened(StreamTimeAhead(partition, ahead_s, times.is_ahead))
        self._note_age(partition, times)
        if checked := self._checked.pop(partition, None):
            self._telemetry.happened(KeysChecked(partition, *checked))
        self._keys_left = _KEYS_A_SECOND

    def _note_age(self, partition: int, times: _Times) -> None:
        oldest_ms, times.oldest_ms = times.oldest_ms, -1
        kept = self._kept() if oldest_ms >= 0 and not times.is_warned else None
        if kept is not None and self._now_ms() - oldest_ms > kept[1]:
            times.is_warned = True
            self._telemetry.happened(OlderThanKept(partition, *kept, oldest_ms))

    def _check(self, partition: int, record: Record, count: int) -> None:
        assert record.key is not None
        checked = self._checked.setdefault(partition, [0, 0, -1])
        checked[0] += 1
        if partition_of(record.key, count) != partition:
            checked[1] += 1
            checked[2] = record.offset

    def _note_frame(self, partition: int, record: Record) -> None:
        frame = frame_of(record.value or b"")
        if frame is None or self._frames is None or len(self._frames) >= _MOST_FRAMES or frame.shown in self._frames:
            return
        self._frames.add(frame.shown)
        self._telemetry.happened(SchemaFrameRead(partition, record.offset, frame.shown))
