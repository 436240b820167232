"""Happenings of a worker: one class per event, with its log line and its metrics."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import ClassVar, Protocol

from processor.compilation import why_not_compiled
from processor.core.build import CORE
from processor.core.effects import FOLD_VERSION, Reason
from processor.errors import BrokerUnavailable, Fenced, RunStepsError
from processor.telemetry.log import Log, described
from processor.telemetry.meter import Meter
from processor.telemetry.metrics import (
    COMMIT_FAILURES,
    COMMIT_SECONDS,
    COMMITTED_OFFSET,
    ENDED_STEPS,
    LAG_RECORDS,
    LAG_SECONDS,
    LOOP_LAG,
    OLDEST_OPEN_STEP_AGE,
    OPEN_STEPS,
    PARTITION_PAUSED,
    PARTITIONS_ASSIGNED,
    REBALANCES,
    RECORDS_REJECTED,
    RECORDS_RESTORED,
    RESTARTS,
    RESTORE_PROGRESS,
    RESTORE_SECONDS,
    RESTORES_IRREGULAR,
    TAKEOVERS,
    TRANSACTIONS_REDONE,
    UNIT_BOUND_LOWERED,
    UNIT_RECORDS,
    UNITS_DROPPED,
    WORKER_STATE,
    WORKER_STATES,
    WORKER_UP,
)


class Happening(Protocol):
    """An event that an operator may want to know. `emit` counts and logs it."""

    def emit(self, meter: Meter, log: Log) -> None: ...


@dataclass(frozen=True, slots=True)
class WorkerStarted:
    """A worker process has read its settings and begins."""

    source: str
    group: str
    delivery: str
    transactional_id: str

    def emit(self, meter: Meter, log: Log) -> None:
        meter.set(WORKER_UP, 1)
        log.info(
            "worker_started",
            source=self.source,
            group=self.group,
            delivery=self.delivery,
            transactional_id=self.transactional_id,
            **build_labels(),
        )
        if CORE == "pure":
            log.info(
                "core_is_pure",
                costs="the core takes seven to eight times the CPU of the compiled one; the bytes are the same",
                reason=why_not_compiled() or "a wheel or a source tree of Python alone",
                hint="install the wheel that is built for this Python and platform (docs/releasing.md)",
            )


@dataclass(frozen=True, slots=True)
class StateChanged:
    """The worker went from one state to the next (the values of the label `state`)."""

    state: str

    def emit(self, meter: Meter, log: Log) -> None:
        for state in WORKER_STATES.values:
            meter.set(WORKER_STATE, state == self.state, state=state)
        log.info("state_changed", state=self.state)


@dataclass(frozen=True, slots=True)
class WorkerStopped:
    """The worker process ends."""

    exit_code: int
    ran_s: float

    def emit(self, meter: Meter, log: Log) -> None:
        meter.set(WORKER_UP, 0)
        (log.error if self.exit_code else log.info)(
            "worker_stopped", exit_code=self.exit_code, ran_s=round(self.ran_s, 1)
        )


@dataclass(frozen=True, slots=True)
class WorkerRestarted:
    """The worker closed everything and starts again from the committed offsets.

    `reason`: a value of that metric's label, or "" to take it from the error's class.
    """

    error: BaseException
    attempt: int
    backoff_s: float
    reason: str = ""

    _BY_CLASS: ClassVar[Mapping[type[RunStepsError], str]] = {
        BrokerUnavailable: "broker_unavailable",
        Fenced: "fenced",
    }

    def emit(self, meter: Meter, log: Log) -> None:
        by_class = (reason for kind, reason in self._BY_CLASS.items() if isinstance(self.error, kind))
        reason = self.reason or next(by_class, "internal_error")
        meter.count(RESTARTS, reason=reason)
        log.error(
            "worker_restarted",
            reason=reason,
            attempt=self.attempt,
            backoff_s=round(self.backoff_s, 3),
            _never_held=True,  # the final error message refers to these log lines
            **described(self.error),
        )


@dataclass(frozen=True, slots=True)
class ChildEnded:
    """One of several worker processes ended. `restarted`: whether its parent starts it again."""

    child: str
    exit_code: int
    restarted: bool

    def emit(self, meter: Meter, log: Log) -> None:
        (log.error if self.exit_code else log.info)(
            "child_ended", child=self.child, exit_code=self.exit_code, restarted=self.restarted
        )


@dataclass(frozen=True, slots=True)
class Listening:
    """The HTTP endpoints are up."""

    url: str

    def emit(self, meter: Meter, log: Log) -> None:
        log.info("listening", url=self.url)


@dataclass(frozen=True, slots=True)
class DescriptorsFew:
    """The process may have so few file descriptors that `brokers` is the most it can be connected to."""

    limit: int
    brokers: int

    def emit(self, meter: Meter, log: Log) -> None:
        log.warning(
            "descriptors_few",
            RLIMIT_NOFILE=self.limit,
            brokers=self.brokers,
            hint="raise the limit to 1024 (LimitNOFILE= of the service) where there may be more brokers",
        )


@dataclass(frozen=True, slots=True)
class HttpConnectionRefused:
    """A connection to the HTTP port could not be accepted at once; told at most once in a minute.

    `open`: HTTP connections that are open. `limit`: of the descriptors of the process.
    """

    error: OSError
    open: int
    limit: int | None

    def emit(self, meter: Meter, log: Log) -> None:
        log.warning(
            "http_connection_refused", http_connections=self.open, RLIMIT_NOFILE=self.limit, **described(self.error)
        )


@dataclass(frozen=True, slots=True)
class PartitionsAssigned:
    """A rebalance assigned these partitions. `owned`: how many the worker owns now, these included."""

    partitions: tuple[int, ...]
    generation: int
    owned: int

    def emit(self, meter: Meter, log: Log) -> None:
        meter.count(REBALANCES, kind="assigned")
        meter.set(PARTITIONS_ASSIGNED, self.owned)
        for partition in self.partitions:
            meter.set(RESTORE_PROGRESS, 0, partition=partition)
        log.info("partitions_assigned", partitions=self.partitions, generation=self.generation, owned=self.owned)


@dataclass(frozen=True, slots=True)
class PartitionsRevoked:
    """A rebalance revoked these partitions. `drained`: whether everything applied was committed first."""

    partitions: tuple[int, ...]
    generation: int
    owned: int
    drained: bool

    def emit(self, meter: Meter, log: Log) -> None:
        meter.count(REBALANCES, kind="revoked")
        meter.set(PARTITIONS_ASSIGNED, self.owned)
        for partition in self.partitions:
            meter.forget(partition)
        log.info(
            "partitions_revoked",
            partitions=self.partitions,
            generation=self.generation,
            owned=self.owned,
            drained=self.drained,
        )


@dataclass(frozen=True, slots=True)
class RestoreProgressed:
    """A restore made progress. `done` and `total`: distances of offsets; `folded`: records since the last report."""

    partition: int
    folded: int
    done: int
    total: int

    def emit(self, meter: Meter, log: Log) -> None:
        meter.count(RECORDS_RESTORED, self.folded, partition=self.partition)
        meter.set(
            RESTORE_PROGRESS,
            min(1.0, self.done / self.total) if self.total else 1.0,
            partition=self.partition,
        )


@dataclass(frozen=True, slots=True)
class PartitionRestored:
    """A partition is live. `resumed`: its state was retained in this worker."""

    partition: int
    restore_from: int
    committed: int
    checkpoints: int
    seconds: float
    resumed: bool = False

    def emit(self, meter: Meter, log: Log) -> None:
        meter.set(RESTORE_PROGRESS, 1, partition=self.partition)
        if not self.resumed:
            meter.observe(RESTORE_SECONDS, self.seconds)
        log.info(
            "partition_resumed" if self.resumed else "partition_restored",
            partition=self.partition,
            restore_from=self.restore_from,
            committed=self.committed,
            checkpoints=self.checkpoints,
            seconds=round(self.seconds, 3),
        )


@dataclass(frozen=True, slots=True)
class RestoreStalled:
    """The checkpoints of these partitions cannot be read; the worker tries again. Other partitions go on."""

    partitions: tuple[int, ...]
    waited_s: float
    error: BaseException

    def emit(self, meter: Meter, log: Log) -> None:
        log.error(
            "restore_stalled", partitions=self.partitions, waited_s=round(self.waited_s, 1), **described(self.error)
        )


@dataclass(frozen=True, slots=True)
class RestoreIrregular:
    """A restore that did not follow the committed metadata and checkpoints alone.

    `reason` is a value of the metric's label. `shortened`: retention has removed records of a step that is still open.
    The others: the state at `committed` is rebuilt by a silent fold from `restore_from` on; `forgotten`: how many
    checkpoints do not fit and are forgotten. Never held back: it may be the only line that reports lost data.
    """

    partition: int
    reason: str
    restore_from: int
    committed: int
    log_begins: int
    forgotten: int = 0

    def emit(self, meter: Meter, log: Log) -> None:
        meter.count(RESTORES_IRREGULAR, reason=self.reason)
        log.warning(
            "restore_shortened" if self.reason == "shortened" else "restore_rebuilds",
            partition=self.partition,
            reason=self.reason,
            restore_from=self.restore_from,
            committed=self.committed,
            log_begins=self.log_begins,
            checkpoints_forgotten=self.forgotten,
            _never_held=True,
        )


@dataclass(frozen=True, slots=True)
class PartitionStatus:
    """Status of one owned partition, about once a second. None leaves a gauge as it was."""

    partition: int
    lag_high_watermark: int | None = None
    lag_last_stable: int | None = None
    lag_s: float | None = None
    committed: int | None = None
    open_steps: int | None = None
    oldest_open_s: float | None = None
    ended_remembered: int | None = None

    def emit(self, meter: Meter, log: Log) -> None:
        p = self.partition
        if self.lag_high_watermark is not None:
            meter.set(LAG_RECORDS, self.lag_high_watermark, partition=p, end="high_watermark")
        if self.lag_last_stable is not None:
            meter.set(LAG_RECORDS, self.lag_last_stable, partition=p, end="last_stable")
        for metric, value in (
            (LAG_SECONDS, self.lag_s),
            (COMMITTED_OFFSET, self.committed),
            (OPEN_STEPS, self.open_steps),
            (OLDEST_OPEN_STEP_AGE, self.oldest_open_s),
            (ENDED_STEPS, self.ended_remembered),
        ):
            if value is not None:
                meter.set(metric, value, partition=p)


@dataclass(frozen=True, slots=True)
class PartitionPaused:
    """An operator has paused a partition; told again every second, and said once."""

    partition: int
    reason: str
    is_new: bool = False

    def emit(self, meter: Meter, log: Log) -> None:
        meter.set(PARTITION_PAUSED, 1, partition=self.partition, reason=self.reason)
        if self.is_new:
            log.warning("partition_paused", partition=self.partition, reason=self.reason)


@dataclass(frozen=True, slots=True)
class PartitionResumed:
    """An operator has resumed a partition, or given its pause another reason."""

    partition: int
    reason: str

    def emit(self, meter: Meter, log: Log) -> None:
        meter.set(PARTITION_PAUSED, 0, partition=self.partition, reason=self.reason)
        log.info("partition_pause_ended", partition=self.partition, reason=self.reason)


@dataclass(frozen=True, slots=True)
class UnitCommitted:
    """One unit of effects and its offsets are committed."""

    records: int
    effects: int
    partitions: int
    seconds: float

    def emit(self, meter: Meter, log: Log) -> None:
        meter.observe(UNIT_RECORDS, self.records)
        meter.observe(COMMIT_SECONDS, self.seconds)
        log.debug(
            "unit_committed",
            records=self.records,
            effects=self.effects,
            partitions=self.partitions,
            seconds=round(self.seconds, 4),
        )


@dataclass(frozen=True, slots=True)
class CommitFailed:
    """A unit's commit did not succeed; `reason` is a value of that metric's label."""

    reason: str
    error: BaseException
    records: int

    def emit(self, meter: Meter, log: Log) -> None:
        meter.count(COMMIT_FAILURES, reason=self.reason)
        log.warning("commit_failed", reason=self.reason, records=self.records, **described(self.error))


@dataclass(frozen=True, slots=True)
class TransactionsRedone:
    """Responses of the broker were lost; their transactions were aborted and repeated, the unit is committed."""

    count: int

    def emit(self, meter: Meter, log: Log) -> None:
        meter.count(TRANSACTIONS_REDONE, self.count)
        log.info("transactions_redone", count=self.count)


@dataclass(frozen=True, slots=True)
class UnitDropped:
    """Effects were dropped before commit: another worker publishes them. Nothing is lost."""

    reason: str
    records: int
    partitions: tuple[int, ...]

    def emit(self, meter: Meter, log: Log) -> None:
        meter.count(UNITS_DROPPED, reason=self.reason)
        log.warning("unit_dropped", reason=self.reason, records=self.records, partitions=self.partitions)


@dataclass(frozen=True, slots=True)
class RecordsRejected:
    """Records of one partition went to the dead-letter topic for one reason; the first of them is named."""

    reason: Reason
    records: int
    partition: int
    first_offset: int
    detail: str

    def emit(self, meter: Meter, log: Log) -> None:
        meter.count(RECORDS_REJECTED, self.records, reason=self.reason)
        tell = log.error if self.reason is Reason.INTERNAL_ERROR else log.warning
        tell(
            "records_rejected",
            reason=self.reason,
            records=self.records,
            partition=self.partition,
            first_offset=self.first_offset,
            detail=self.detail,
        )


@dataclass(frozen=True, slots=True)
class BreakerTripped:
    """The circuit breaker stopped the worker: too many records were rejected.

    The offsets are those of the last batch's rejections, `reason` the most frequent of them.
    """

    rejected: int
    of_records: int
    run_length: int
    topic: str
    partition: int
    first_offset: int
    last_offset: int
    reason: str

    def emit(self, meter: Meter, log: Log) -> None:
        log.critical(
            "breaker_tripped",
            rejected=self.rejected,
            of_records=self.of_records,
            run_length=self.run_length,
            topic=self.topic,
            partition=self.partition,
            first_offset=self.first_offset,
            last_offset=self.last_offset,
            reason=self.reason,
        )


@dataclass(frozen=True, slots=True)
class WriterTakenOver:
    """A dead writer was fenced: its transactional id was initialised, which aborts its open transaction."""

    partition: int
    transactional_id: str
    waited_s: float
    was_open: bool
    """Whether it had a transaction open; after an orderly stop it has none."""

    def emit(self, meter: Meter, log: Log) -> None:
        meter.count(TAKEOVERS)
        (log.warning if self.was_open else log.info)(
            "writer_taken_over",
            was_open=self.was_open,
            partition=self.partition,
            transactional_id=self.transactional_id,
            waited_s=round(self.waited_s, 3),
        )


@dataclass(frozen=True, slots=True)
class ProgressStalled:
    """The watchdog found a partition that has records and does not move."""

    partition: int
    position: int
    stalled_s: float

    def emit(self, meter: Meter, log: Log) -> None:
        log.error(
            "progress_stalled",
            partition=self.partition,
            position=self.position,
            stalled_s=round(self.stalled_s, 1),
        )


@dataclass(frozen=True, slots=True)
class UnitBoundLowered:
    """A unit took too long to be committed: the next ones are smaller."""

    records: int
    bytes: int

    def emit(self, meter: Meter, log: Log) -> None:
        meter.count(UNIT_BOUND_LOWERED)
        log.warning("unit_bound_lowered", records=self.records, bytes=self.bytes)


@dataclass(frozen=True, slots=True)
class LoopTurned:
    """The event loop ran a timer this much late. From half a second on it is logged."""

    late_s: float

    def emit(self, meter: Meter, log: Log) -> None:
        meter.observe(LOOP_LAG, self.late_s)
        if self.late_s >= 0.5:
            log.warning("event_loop_blocked", late_s=round(self.late_s, 3))


def build_labels() -> dict[str, str]:
    return {
        "version": _version("run-steps"),
        "python": platform.python_version(),
        "aiokafka": _version("aiokafka"),
        "fold_version": str(FOLD_VERSION),
        "core": CORE,
    }


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:  # run from a copied folder
        return "unknown"
