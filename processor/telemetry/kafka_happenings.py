"""Happenings of brokers, topics and source records: one class per event, with its log line and its metrics."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from processor.telemetry.log import Log, described
from processor.telemetry.meter import Meter
from processor.telemetry.metrics import (
    KEYS_CHECKED,
    KEYS_ELSEWHERE,
    PARTITIONS_NOT_SERVED,
    STREAM_TIME_AHEAD,
    THROTTLED_SECONDS,
    TIMESTAMP_SKEW,
    TOPIC_CHANGES,
)


@dataclass(frozen=True, slots=True)
class SourceTimes:
    """Timestamps of a partition relative to the clock and to each other, about once a second."""

    partition: int
    ahead_s: float
    skew_s: float

    def emit(self, meter: Meter, log: Log) -> None:
        meter.set(STREAM_TIME_AHEAD, self.ahead_s, partition=self.partition)
        meter.set(TIMESTAMP_SKEW, self.skew_s, partition=self.partition)


@dataclass(frozen=True, slots=True)
class StreamTimeAhead:
    """The stream time of a partition passed the clock by more than an hour, or is no longer so far ahead."""

    partition: int
    ahead_s: float
    is_ahead: bool

    def emit(self, meter: Meter, log: Log) -> None:
        if self.is_ahead:
            log.error(
                "stream_time_ahead",
                partition=self.partition,
                ahead_s=round(self.ahead_s),
                hint="a record's timestamp is wrong; open steps were expired by it, and new ones do not expire until "
                "the clock is there: docs/operations.md, 'Timestamps that are wrong'",
            )
        else:
            log.info("stream_time_no_longer_ahead", partition=self.partition, ahead_s=round(self.ahead_s))


@dataclass(frozen=True, slots=True)
class KeysChecked:
    """The partition of some keys was compared with the one that the Java client's partitioner chooses."""

    partition: int
    checked: int
    elsewhere: int
    offset: int
    """Offset of the last key that is elsewhere."""

    def emit(self, meter: Meter, log: Log) -> None:
        meter.count(KEYS_CHECKED, self.checked, partition=self.partition)
        if self.elsewhere:
            meter.count(KEYS_ELSEWHERE, self.elsewhere, partition=self.partition)
            log.warning(
                "keys_elsewhere",
                partition=self.partition,
                checked=self.checked,
                elsewhere=self.elsewhere,
                offset=self.offset,
                hint="a producer partitions otherwise than the Java client: docs/producers.md",
            )


@dataclass(frozen=True, slots=True)
class SchemaFrameRead:
    """A value behind a schema registry's frame was read for the first time (`source.schema_frames`)."""

    partition: int
    offset: int
    frame: str

    def emit(self, meter: Meter, log: Log) -> None:
        log.info("schema_frame_read", partition=self.partition, offset=self.offset, frame=self.frame)


@dataclass(frozen=True, slots=True)
class BrokerLost:
    """The broker does not answer; repeated while that lasts."""

    bootstrap: str
    silent_s: float
    error: BaseException

    def emit(self, meter: Meter, log: Log) -> None:
        log.warning("broker_lost", bootstrap=self.bootstrap, silent_s=round(self.silent_s, 1), **described(self.error))


@dataclass(frozen=True, slots=True)
class BrokerThrottles:
    """Brokers reported throttle times: a quota. `request`: a value of that metric's label."""

    request: str
    answers: int
    seconds: float

    def emit(self, meter: Meter, log: Log) -> None:
        meter.count(THROTTLED_SECONDS, self.seconds, request=self.request)
        log.warning(
            "broker_throttles",
            request=self.request,
            answers=self.answers,
            seconds=round(self.seconds, 3),
            hint="raise the quota of this user or client id, or give it less to do",
            _kind=self.request,
        )


@dataclass(frozen=True, slots=True)
class TopicChanged:
    """A topic changed: a setting, its partitions, or its id.

    `role`, `setting`: values of that metric's labels.
    """

    topic: str
    role: str
    setting: str
    was: str
    now: str
    follows: str

    def emit(self, meter: Meter, log: Log) -> None:
        meter.count(TOPIC_CHANGES, role=self.role, setting=self.setting)
        log.warning("topic_changed", **asdict(self), _never_held=True)


@dataclass(frozen=True, slots=True)
class TopicWarned:
    """A warning about the topics at the start of the worker."""

    message: str

    def emit(self, meter: Meter, log: Log) -> None:
        log.warning("topic_warning", message=self.message, _never_held=True)


@dataclass(frozen=True, slots=True)
class OlderThanKept:
    """Records are older than the retention of a topic of results: brokers will delete what they lead to."""

    partition: int
    topic: str
    retention_ms: int
    timestamp: int

    def emit(self, meter: Meter, log: Log) -> None:
        log.warning(
            "results_vanish",
            partition=self.partition,
            topic=self.topic,
            retention_ms=self.retention_ms,
            record_timestamp_ms=self.timestamp,
            hint="what is published or set aside has its source record's timestamp: brokers delete it at their next "
            "check, and no replay can prove it then; raise retention.ms of the outcome and dead-letter topics first",
        )


@dataclass(frozen=True, slots=True)
class PartitionsNotServed:
    """Partitions of the source have no partition of the checkpoint topic; none: all have one again."""

    partitions: tuple[int, ...]
    remedy: str

    def emit(self, meter: Meter, log: Log) -> None:
        meter.set(PARTITIONS_NOT_SERVED, len(self.partitions))
        if self.partitions:
            log.error("partitions_not_served", partitions=self.partitions, remedy=self.remedy)
        else:
            log.info("all_partitions_served")


@dataclass(frozen=True, slots=True)
class BrokerBack:
    """The broker answers again."""

    bootstrap: str
    silent_s: float

    def emit(self, meter: Meter, log: Log) -> None:
        log.info("broker_back", bootstrap=self.bootstrap, silent_s=round(self.silent_s, 1))
