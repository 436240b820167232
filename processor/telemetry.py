"""What a worker tells its operators: metrics, log lines, and which of them go with what happened.

This file is the catalogue. `METRICS` holds every name with its type, unit, labels, meaning and what to do
about it; every class with an `emit` is one happening and alone knows its log line and its metrics.
It is the only importer of prometheus_client and structlog. Two rules bind it:

* Labels are bounded: never a step, run or thread id. A value outside a closed set is counted as `other`.
* No payload text. Happenings carry codes, numbers and offsets. Of an exception only what is known to be free
  of payload is told (`described`); a library's record is told by its first line.

Nothing here is global but the one handler that takes the libraries' records, and `close` takes that back.
A process has its own `Telemetry`; several processes are scraped as one through `merged`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import platform
import sys
import threading
import time
import traceback
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from pathlib import PurePath
from typing import Any, ClassVar, Final, Protocol, TextIO

import prometheus_client as prometheus
import structlog
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector
from structlog.typing import EventDict, FilteringBoundLogger

from processor.core.build import CORE
from processor.core.effects import FOLD_VERSION, Checkpoint, DeadLetter, Effect, Publish, Reason, Status
from processor.core.lifecycle import TERMINAL, Kind
from processor.errors import BrokerUnavailable, ConfigError, Fenced, RunStepsError

Log = FilteringBoundLogger

EXPOSITION_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

# --- The metrics -------------------------------------------------------------------------------------------


class Type(StrEnum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Label:
    """One label. `values` is its closed set; an empty one: bounded by the deployment, as partitions are."""

    name: str
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """One metric: its name as scraped, and all that a reader of a dashboard has to know about it."""

    name: str
    type: Type
    unit: str
    help: str
    advice: str
    labels: tuple[Label, ...] = ()
    buckets: tuple[float, ...] = ()


OTHER: Final = "other"
ENDS: Final = tuple(status for status in Status if status in TERMINAL)
INFERRED_NO: Final = "no"

_RUN_END: Final = "run_end"

_PARTITION: Final = Label("partition")
_STATUS: Final = Label("status", ENDS)
_INFERRED: Final = Label("inferred", (INFERRED_NO, "run", "deadline"))
_REASON: Final = Label("reason", tuple(Reason))
_EVENT: Final = Label("kind", (*Kind, _RUN_END, OTHER))
# fmt: off
_WITHOUT_EFFECT: Final = Label("kind", (
    "ignored", "tombstone", "unknown_event", "duplicate", "repeated", "null_ignored",
    "run_status_disagrees", OTHER,
))
_ANOMALY: Final = Label("kind", (
    "after_run_ended", "changed_field", "expired_at_disagrees", "fold_divergence", "joined_midstream",
    "orphaned_by_run", "status_disagrees", "step_too_large", "unknown_status", OTHER,
))
# fmt: on
_MARK: Final = Label("mark", ("high_watermark", "last_stable"))
_REBALANCE: Final = Label("kind", ("assigned", "revoked"))
_DEADLINES: Final = {"deadline_by_record": "record", "deadline_by_mark": "clock_mark"}
_BY: Final = Label("by", tuple(_DEADLINES.values()))
_COMMIT_WHY: Final = Label("why", ("unknown_outcome", "fenced", "refused", OTHER))
_DROP_WHY: Final = Label("why", ("generation", "revoked", OTHER))
_RESTART_WHY: Final = Label(
    "why",
    ("broker_unavailable", "fenced", "stalled", "internal_error", OTHER),
)
_STATE: Final = Label("state", ("starting", "restoring", "live", "draining", "restarting", "stopped"))
_SKIPPED: Final = Label(
    "reason",
    ("queue_full", "revoked", "range_too_long", "retention", "undecidable", "unplaced", "unreadable", OTHER),
)
_THROTTLED: Final = Label("request", ("fetch", "produce", "other"))
_TOPIC_ROLE: Final = Label("role", ("source", "checkpoints", "written"))
_TIMESTAMP: Final = "message.timestamp"
# fmt: off
_TOPIC_SETTING: Final = Label("setting", (
    "cleanup.policy", "id", "max.message.bytes", f"{_TIMESTAMP}.after.max.ms", f"{_TIMESTAMP}.before.max.ms",
    f"{_TIMESTAMP}.difference.max.ms", f"{_TIMESTAMP}.type", "min.insync.replicas", "partitions",
    "retention.bytes", "retention.ms", OTHER,
))
# fmt: on
_LOG_WHY: Final = Label("why", ("repeated", "unwritable"))
_IRREGULAR: Final = Label("reason", ("metadata_missing", "checkpoints_lost", "asked", "shortened", OTHER))
_BUILD: Final = (
    *map(Label, ("version", "python", "aiokafka", "fold_version")),
    Label("core", ("compiled", "pure")),
)

_WAITS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_STALLS_S: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_RESTORES_S: Final = (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
_RECORDS: Final = (1.0, 10.0, 100.0, 1_000.0, 5_000.0, 10_000.0, 50_000.0, 100_000.0)

_C, _G, _H = Type.COUNTER, Type.GAUGE, Type.HISTOGRAM

# fmt: off
RECORDS_APPLIED: Final = Metric(
    "runstep_records_applied_total", _C, "records", "Records applied live.",
    "Flat while lag_records grows: the partition is stuck, see the log for its number.", (_PARTITION,),
)
APPLIED_BYTES: Final = Metric(
    "runstep_applied_bytes_total", _C, "bytes", "Key and value bytes of the records applied live.",
    "For capacity: compare with the network and with the records.", (_PARTITION,),
)
RECORDS_RESTORED: Final = Metric(
    "runstep_records_restored_total", _C, "records", "Records folded again silently to restore a partition.",
    "A large share of the applied ones: rebalances are too frequent, or checkpoints too rare.", (_PARTITION,),
)
EVENTS: Final = Metric(
    "runstep_events_total", _C, "events", "Events decoded from the applied records, by what they say.",
    "Deltas without ends: the source loses events, or ends go to another topic.", (_EVENT,),
)
EVENTS_WITHOUT_EFFECT: Final = Metric(
    "runstep_events_without_effect_total", _C, "events", "Events that were read and rightly changed nothing.",
    "unknown_event rising: the service has new events, look for an upgrade. duplicate: a producer resends.",
    (_WITHOUT_EFFECT,),
)
STEPS_PUBLISHED: Final = Metric(
    "runstep_steps_published_total", _C, "steps",
    "Finished steps published (first publication), by status and by what their end was inferred from.",
    "A rising share of inferred ends: ends go missing at the source.", (_STATUS, _INFERRED),
)
AMENDMENTS: Final = Metric(
    "runstep_amendments_total", _C, "steps", "Later revisions published of steps that were published before.",
    "Many: events arrive after their step's end; readers must keep the highest revision.",
)
RECORDS_REJECTED: Final = Metric(
    "runstep_records_rejected_total", _C, "records", "Records set aside on the dead-letter topic.",
    "Read the dead letters of that reason, mend the producer, then redrive. internal_error is our bug.",
    (_REASON,),
)
ANOMALIES: Final = Metric(
    "runstep_anomalies_total", _C, "anomalies", "Oddities carried by published steps.",
    "joined_midstream: the topic's retention or the start offset cuts steps. Others: a producer deviates.",
    (_ANOMALY,),
)
OPEN_STEPS: Final = Metric(
    "runstep_open_steps", _G, "steps", "Steps begun and not yet ended.",
    "Near max_open_steps new steps are refused: raise the limit or lower max_age_s.", (_PARTITION,),
)
OLDEST_OPEN_STEP_AGE: Final = Metric(
    "runstep_oldest_open_step_age_seconds", _G, "seconds", "Stream-time age of the oldest open step.",
    "Beyond max_age_s plus grace_s no deadline fires: look at the timestamps of the records.", (_PARTITION,),
)
ENDED_STEPS: Final = Metric(
    "runstep_ended_steps_remembered", _G, "steps", "Ended steps kept for repeats and late events.",
    "Memory: lower ended_retention_s if it grows beyond what the machine has.", (_PARTITION,),
)
DEADLINES_FIRED: Final = Metric(
    "runstep_deadlines_fired_total", _C, "steps", "Steps ended by their deadline, by what moved stream time.",
    "Rising: runs are abandoned, or their ends are lost on the way to the topic.", (_BY,),
)
CHECKPOINTS: Final = Metric(
    "runstep_checkpoints_written_total", _C, "entries", "Entries written to the checkpoint topic.",
    "More than steps published: steps live long; a longer checkpoints.interval_s writes less.",
)
LAG_RECORDS: Final = Metric(
    "runstep_lag_records", _G, "records", "Records not yet applied, up to each mark; deleted ones taken off.",
    "Growing: add workers. Stuck at last_stable only: a producer holds a transaction open.",
    (_PARTITION, _MARK),
)
LAG_SECONDS: Final = Metric(
    "runstep_lag_seconds", _G, "seconds", "Age of the oldest record not yet applied; 0 at the end.",
    "Beyond your promise to the readers: add workers, or look for a stuck partition.", (_PARTITION,),
)
COMMITTED_OFFSET: Final = Metric(
    "runstep_committed_offset", _G, "offset", "The committed offset: the next record to process.",
    "Never falls. If it does, someone reset the group's offsets.", (_PARTITION,),
)
COMMIT_SECONDS: Final = Metric(
    "runstep_commit_seconds", _H, "seconds", "From opening a unit's transaction to its commit.",
    "Above the commit interval the broker is the limit: look at its disks, or commit less often.",
    buckets=_WAITS_S,
)
COMMIT_FAILURES: Final = Metric(
    "runstep_commit_failures_total", _C, "commits", "Units whose commit did not succeed.",
    "fenced: members lose their session. unknown_outcome: the broker or the network.",
    (_COMMIT_WHY,),
)
TRANSACTIONS_REDONE: Final = Metric(
    "runstep_transactions_redone_total", _C, "transactions", "Transactions aborted after a lost answer and done again.",
    "Nothing is lost or doubled by it. Steady: connections to a broker break, or answers take over 1.5 s.",
)
UNIT_RECORDS: Final = Metric(
    "runstep_unit_records", _H, "records", "Source records that one commit covers.",
    "Ones and tens at high rates: the commit interval is too short.", buckets=_RECORDS,
)
UNITS_DROPPED: Final = Metric(
    "runstep_units_dropped_total", _C, "units", "Units of effects dropped before commit; read again.",
    "A few per rebalance are normal; many mean work done twice.", (_DROP_WHY,),
)
REBALANCES: Final = Metric(
    "runstep_rebalances_total", _C, "rebalances", "Rebalances that changed what this worker owns.",
    "Frequent: sessions time out or workers restart; static membership helps roll-outs.", (_REBALANCE,),
)
PARTITIONS_ASSIGNED: Final = Metric(
    "runstep_partitions_assigned", _G, "partitions", "Source partitions this worker owns.",
    "0 on a worker: more workers than partitions.",
)
RESTORE_PROGRESS: Final = Metric(
    "runstep_restore_progress_ratio", _G, "ratio", "Share of a partition's restore that is done, 0 to 1.",
    "Standing still below 1: the broker does not serve the log or the checkpoints.", (_PARTITION,),
)
RESTORE_SECONDS: Final = Metric(
    "runstep_restore_seconds", _H, "seconds", "From assignment of a partition to its going live.",
    "Too long: a shorter checkpoints.interval_s or ended_retention_s re-reads less.", buckets=_RESTORES_S,
)
RESTORES_IRREGULAR: Final = Metric(
    "runstep_restores_irregular_total", _C, "restores",
    "Restores that did not follow the committed metadata and checkpoints alone.",
    "shortened: steps came back incomplete, raise the source's retention. Else: offsets were reset, or topics lost.",
    (_IRREGULAR,),
)
TAKEOVERS: Final = Metric(
    "runstep_takeovers_total", _C, "takeovers",
    "Writers of members gone from the group whose ids were initialised, ending what was open.",
    "One per worker that left since; more than leave in good order means that workers die.",
)
AUDIT_VERIFIED: Final = Metric(
    "runstep_audit_verified_total", _C, "steps", "Published steps that were folded once more and are as the log says.",
    "Standing still while steps are published: see audit_skipped_total, and the log for self_audit_troubled.",
)
AUDIT_MISMATCHES: Final = Metric(
    "runstep_audit_mismatch_total", _C, "steps", "Published steps that are not what the log implies.",
    "Any: the log line audit_mismatch names step and offsets. Run replay over them before anything else.",
)
AUDIT_SKIPPED: Final = Metric(
    "runstep_audit_skipped_total", _C, "steps", "Published steps that were to be checked and could not be.",
    "range_too_long: raise max_range_records. queue_full: raise cpu_share. unreadable: see the log.",
    (_SKIPPED,),
)
AUDIT_FRONTIER_OFFSET: Final = Metric(
    "runstep_audit_frontier_offset", _G, "offset", "Behind the last source record of the newest step verified.",
    "Compare with committed_offset: what lies between was not sampled yet.", (_PARTITION,),
)
AUDIT_FRONTIER_AGE: Final = Metric(
    "runstep_audit_frontier_age_seconds", _G, "seconds",
    "Since a step of this partition was last verified, or since the partition was assigned.",
    "Above an hour where steps are published: raise steps_per_minute, or see audit_skipped_total.", (_PARTITION,),
)
LOOP_LAG: Final = Metric(
    "runstep_event_loop_lag_seconds", _H, "seconds", "How late the event loop ran a timer.",
    "Above 0.5 s heartbeats suffer: give the worker a core, or lower the batch size.", buckets=_STALLS_S,
)
RESTARTS: Final = Metric(
    "runstep_worker_restarts_total", _C, "restarts", "Times the worker began again from committed offsets.",
    "The log line worker_restarted has the cause. Repeated, the process ends with its exit code.",
    (_RESTART_WHY,),
)
THROTTLED_SECONDS: Final = Metric(
    "runstep_throttled_seconds_total", _C, "seconds", "Time for which brokers said they hold us back, by request.",
    "Growing: a quota of this user or client id is too low for the load.", (_THROTTLED,),
)
UNIT_BOUND_LOWERED: Final = Metric(
    "runstep_unit_bound_lowered_total", _C, "times", "Times the size of a unit was halved, as commits took too long.",
    "See throttled_seconds; without throttling the broker is slow: look at its disks.",
)
TOPIC_CHANGES: Final = Metric(
    "runstep_topic_changes_total", _C, "changes", "Changes of our topics that were noticed while the worker ran.",
    "The log line topic_changed has the old and the new value, and what follows.", (_TOPIC_ROLE, _TOPIC_SETTING),
)
PARTITIONS_NOT_SERVED: Final = Metric(
    "runstep_partitions_not_served", _G, "partitions",
    "Partitions of the source without a partition of the checkpoint topic: no worker serves them.",
    "Above 0: give the checkpoint topic as many partitions; /healthz has the command.",
)
LAST_PROGRESS: Final = Metric(
    "runstep_last_progress_timestamp_seconds", _G, "seconds since 1970",
    "When records were last applied or restored, or all owned partitions were found at their end; at first, the start.",
    "Older than a minute: the worker is stuck; /healthz names the partition.",
)
WORKER_UP: Final = Metric(
    "runstep_worker_up", _G, "boolean", "1 while this worker process answers.",
    "0 behind a common port: that worker process is dead or blocked.",
)
WORKER_STATE: Final = Metric(
    "runstep_worker_state", _G, "boolean", "1 for the state this worker is in.",
    "restoring for long: see restore_progress_ratio. restarting: see worker_restarts.", (_STATE,),
)
LOG_LINES_DROPPED: Final = Metric(
    "runstep_log_lines_dropped_total", _C, "lines", "Log lines held back as repeats, or not writable.",
    "unwritable: the disk or pipe behind the log is full or closed.", (_LOG_WHY,),
)
BUILD_INFO: Final = Metric(
    "runstep_build_info", _G, "constant 1", "Versions of the program, Python, the Kafka client and the fold.",
    "Different fold_version: different bytes are published, finish the roll-out. core pure: slower, the same bytes.",
    _BUILD,
)
# fmt: on

METRICS: Final[tuple[Metric, ...]] = tuple(m for m in list(globals().values()) if isinstance(m, Metric))

_GONE_WITH_THE_PARTITION: Final = tuple(m for m in METRICS if m.type is _G and _PARTITION in m.labels)
_COLLECTOR: Final = {_C: prometheus.Counter, _G: prometheus.Gauge, _H: prometheus.Histogram}


class Meter:
    """The metrics of one process, in a registry of its own. Thread-safe, as its counters are.

    Series whose labels are all closed sets exist from the start, at 0: a rate over the first occurrence
    of a reason is otherwise lost.
    """

    def __init__(self) -> None:
        self.registry = prometheus.CollectorRegistry(auto_describe=False)
        prometheus.ProcessCollector(registry=self.registry)
        self._families: dict[Metric, MetricWrapperBase] = {}
        self._series: dict[tuple[Metric, tuple[str, ...]], Any] = {}
        for metric in METRICS:
            options: dict[str, Any] = {"buckets": metric.buckets} if metric.buckets else {}
            self._families[metric] = _COLLECTOR[metric.type](
                metric.name,
                f"{metric.help} {metric.advice} Unit: {metric.unit}.",
                labelnames=[label.name for label in metric.labels],
                registry=self.registry,
                **options,
            )
            if metric.labels and all(label.values for label in metric.labels):
                for values in product(*(label.values for label in metric.labels)):
                    self._child(metric, values)

    def count(self, metric: Metric, n: float = 1, **labels: str | int) -> None:
        """Add `n` to a counter."""
        self._at(metric, labels).inc(n)

    def set(self, metric: Metric, value: float, **labels: str | int) -> None:
        """Set a gauge."""
        self._at(metric, labels).set(value)

    def observe(self, metric: Metric, value: float, **labels: str | int) -> None:
        """Add one observation to a histogram."""
        self._at(metric, labels).observe(value)

    def forget(self, partition: int) -> None:
        """Take down the gauges of a partition that is no longer ours.

        Its new owner shows them now; two workers showing one partition's lag would be counted twice.
        """
        for metric in _GONE_WITH_THE_PARTITION:
            self._families[metric].remove_by_labels({_PARTITION.name: str(partition)})
        gone = str(partition)
        for key in [k for k in self._series if k[0] in _GONE_WITH_THE_PARTITION and gone in k[1]]:
            del self._series[key]

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format (`EXPOSITION_TYPE`)."""
        return prometheus.generate_latest(_WithoutCreated(self.registry))

    def _at(self, metric: Metric, labels: Mapping[str, str | int]) -> Any:
        if len(labels) != len(metric.labels):
            raise TypeError(f"{metric.name}: takes labels {[label.name for label in metric.labels]}")
        values = tuple(_bounded(label, labels[label.name]) for label in metric.labels)
        return self._series.get((metric, values)) or self._child(metric, values)

    def _child(self, metric: Metric, values: tuple[str, ...]) -> Any:
        family = self._families[metric]
        child = self._series[metric, values] = family.labels(*values) if values else family
        return child


def _bounded(label: Label, value: str | int) -> str:
    text = str(value)
    return text if not label.values or text in label.values else OTHER


class _WithoutCreated(Collector):
    """The registry without the `_created` series, which double the count of series and serve no one here.

    The client library has a switch for them, but it is global.
    """

    def __init__(self, registry: prometheus.CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterable[Family]:
        for family in self._registry.collect():
            family.samples = [s for s in family.samples if not s.name.endswith("_created")]
            yield family


def merged(expositions: Mapping[str, bytes], missing: Iterable[str] = ()) -> bytes:
    """Several processes' expositions as one, every series with the label `worker`.

    Args:
        expositions: worker name -> its `/metrics`, as `Meter.exposition` writes it.
        missing: workers that did not answer; each shows as `runstep_worker_up{worker=...} 0`.
    """
    heads: dict[str, list[str]] = {}
    samples: dict[str, list[str]] = {}
    for worker, text in expositions.items():
        label = f'worker="{_escaped(worker)}"'
        family = ""
        for line in text.decode(errors="replace").split("\n"):
            if line.startswith(("# HELP ", "# TYPE ")):
                family = line.split(" ", 3)[2]
                heads.setdefault(family, []).append(line)
                samples.setdefault(family, [])
            elif family and line.startswith(family):
                samples.setdefault(family, []).append(_labelled(line, label))
    gone = [f'{WORKER_UP.name}{{worker="{_escaped(worker)}"}} 0.0' for worker in missing]
    if gone:
        heads.setdefault(
            WORKER_UP.name,
            [f"# HELP {WORKER_UP.name} {WORKER_UP.help}", f"# TYPE {WORKER_UP.name} {WORKER_UP.type}"],
        )
        samples.setdefault(WORKER_UP.name, []).extend(gone)
    # Of each family the first worker's two head lines stand for all.
    lines = [line for family, head in heads.items() for line in (*head[:2], *samples[family])]
    return "".join(f"{line}\n" for line in lines).encode()


def _labelled(sample: str, label: str) -> str:
    # Metric names hold no brace, so the first one opens the labels whatever their values hold.
    name, brace, rest = sample.partition("{")
    if brace:
        return f"{name}{{{label},{rest}"
    name, _, value = sample.partition(" ")
    return f"{name}{{{label}}} {value}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


# --- The happenings ----------------------------------------------------------------------------------------


class Happening(Protocol):
    """Something an operator may want to know. `emit` is all it does."""

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
            **_build(),
        )


@dataclass(frozen=True, slots=True)
class StateChanged:
    """The worker went from one state to the next (the values of the label `state`)."""

    state: str

    def emit(self, meter: Meter, log: Log) -> None:
        for state in _STATE.values:
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
    """The worker tore everything down and begins again from committed offsets.

    `why`: a value of that metric's label, or "" to take it from the error's class.
    """

    error: BaseException
    attempt: int
    backoff_s: float
    why: str = ""

    _BY_CLASS: ClassVar[Mapping[type[RunStepsError], str]] = {
        BrokerUnavailable: "broker_unavailable",
        Fenced: "fenced",
    }

    def emit(self, meter: Meter, log: Log) -> None:
        by_class = (why for kind, why in self._BY_CLASS.items() if isinstance(self.error, kind))
        why = self.why or next(by_class, "internal_error")
        meter.count(RESTARTS, why=why)
        log.error(
            "worker_restarted",
            why=why,
            attempt=self.attempt,
            backoff_s=round(self.backoff_s, 3),
            _never_held=True,  # the last word says that the log has each of them
            **described(self.error),
        )


@dataclass(frozen=True, slots=True)
class ChildEnded:
    """One of several worker processes ended; its parent says what it does about it."""

    child: str
    exit_code: int
    restarted: bool

    def emit(self, meter: Meter, log: Log) -> None:
        (log.error if self.exit_code else log.info)(
            "child_ended", child=self.child, exit_code=self.exit_code, restarted=self.restarted
        )


@dataclass(frozen=True, slots=True)
class Listening:
    """The HTTP pages are up."""

    url: str

    def emit(self, meter: Meter, log: Log) -> None:
        log.info("listening", url=self.url)


@dataclass(frozen=True, slots=True)
class PartitionsAssigned:
    """A rebalance gave us these partitions. `owned`: how many we own now, these among them."""

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
    """A rebalance took these partitions. `drained`: whether all that was applied was committed first."""

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
    """A restore read on. `done` and `total` are offsets' distances, in records; `folded` since last told."""

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
    """A partition is live. `resumed`: its state was parked here and is used as it was."""

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
    """The checkpoints of these partitions cannot be read; it is tried again. Other partitions are not held up."""

    partitions: tuple[int, ...]
    waited_s: float
    error: BaseException

    def emit(self, meter: Meter, log: Log) -> None:
        log.error(
            "restore_stalled", partitions=self.partitions, waited_s=round(self.waited_s, 1), **described(self.error)
        )


@dataclass(frozen=True, slots=True)
class RestoreIrregular:
    """A partition is restored otherwise than its committed metadata and checkpoints alone would have it.

    `why` is a value of the metric's label. `shortened`: retention has removed what a step still open is made of. The
    others: the state at `committed` is rebuilt by a silent fold from `restore_from` on; `forgotten`: how many
    checkpoints do not fit and are forgotten. Never held back: it may be the only line that tells of lost data.
    """

    partition: int
    why: str
    restore_from: int
    committed: int
    log_begins: int
    forgotten: int = 0

    def emit(self, meter: Meter, log: Log) -> None:
        meter.count(RESTORES_IRREGULAR, reason=self.why)
        log.warning(
            "restore_shortened" if self.why == "shortened" else "restore_rebuilds",
            partition=self.partition,
            why=self.why,
            restore_from=self.restore_from,
            committed=self.committed,
            log_begins=self.log_begins,
            checkpoints_forgotten=self.forgotten,
            _never_held=True,
        )


@dataclass(frozen=True, slots=True)
class PartitionStands:
    """How one owned partition stands; told about once a second. None leaves a gauge as it was."""

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
            meter.set(LAG_RECORDS, self.lag_high_watermark, partition=p, mark="high_watermark")
        if self.lag_last_stable is not None:
            meter.set(LAG_RECORDS, self.lag_last_stable, partition=p, mark="last_stable")
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
    """A unit's commit did not succeed; `why` is a value of that metric's label."""

    why: str
    error: BaseException
    records: int

    def emit(self, meter: Meter, log: Log) -> None:
        meter.count(COMMIT_FAILURES, why=self.why)
        log.warning("commit_failed", why=self.why, records=self.records, **described(self.error))


@dataclass(frozen=True, slots=True)
class TransactionsRedone:
    """Answers of the broker were lost; their transactions were aborted and done again, the unit is committed."""

    count: int

    def emit(self, meter: Meter, log: Log) -> None:
        meter.count(TRANSACTIONS_REDONE, self.count)
        log.info("transactions_redone", count=self.count)


@dataclass(frozen=True, slots=True)
class UnitDropped:
    """Effects were dropped before commit, as they are no longer ours to publish. Nothing is lost by it."""

    why: str
    records: int
    partitions: tuple[int, ...]

    def emit(self, meter: Meter, log: Log) -> None:
        meter.count(UNITS_DROPPED, why=self.why)
        log.warning("unit_dropped", why=self.why, records=self.records, partitions=self.partitions)


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
    """So much was rejected that the worker stops rather than flood the dead-letter topic."""

    rejected: int
    of_records: int
    run_length: int

    def emit(self, meter: Meter, log: Log) -> None:
        log.critical("breaker_tripped", rejected=self.rejected, of_records=self.of_records, run_length=self.run_length)


@dataclass(frozen=True, slots=True)
class WriterTakenOver:
    """A dead writer's open transaction was aborted, so that its partition's offsets became stable."""

    partition: int
    transactional_id: str
    waited_s: float

    def emit(self, meter: Meter, log: Log) -> None:
        meter.count(TAKEOVERS)
        log.warning(
            "writer_taken_over",
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
class BrokerLost:
    """The broker does not answer; told again while it lasts."""

    bootstrap: str
    silent_s: float
    error: BaseException

    def emit(self, meter: Meter, log: Log) -> None:
        log.warning("broker_lost", bootstrap=self.bootstrap, silent_s=round(self.silent_s, 1), **described(self.error))


@dataclass(frozen=True, slots=True)
class UnitBoundLowered:
    """A unit took too long to be committed: the next ones are smaller."""

    records: int
    bytes: int

    def emit(self, meter: Meter, log: Log) -> None:
        meter.count(UNIT_BOUND_LOWERED)
        log.warning("unit_bound_lowered", records=self.records, bytes=self.bytes)


@dataclass(frozen=True, slots=True)
class BrokerThrottles:
    """Brokers said in their answers that they hold us back: a quota. `request`: a value of that metric's label."""

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
    """A topic is not as it was: a setting, its partitions, or its id.

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


@dataclass(frozen=True, slots=True)
class StepVerified:
    """The self-audit found a published step right. `frontier`: behind the newest source record that it vouches for."""

    partition: int
    frontier: int

    def emit(self, meter: Meter, log: Log) -> None:
        meter.count(AUDIT_VERIFIED)
        meter.set(AUDIT_FRONTIER_OFFSET, self.frontier, partition=self.partition)
        log.debug("step_verified", partition=self.partition, frontier=self.frontier)


@dataclass(frozen=True, slots=True)
class _Judged:
    """What is told of a published step that was not verified.

    Offsets are of the source, the last one inclusive; `at` is where the published record stands. `fields` are paths.
    """

    step_id: str
    revision: str
    verdict: str
    why: str
    partition: int
    first_offset: int
    last_offset: int
    at: tuple[str, int, int]
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AuditMismatch(_Judged):
    """A published step is not what the log implies: we are wrong, or somebody else wrote it."""

    def emit(self, meter: Meter, log: Log) -> None:
        meter.count(AUDIT_MISMATCHES)
        log.error("audit_mismatch", **asdict(self), _never_held=True)


@dataclass(frozen=True, slots=True)
class AuditUndecided(_Judged):
    """Whether a published step is what the log implies hangs on what came before, and that is not known."""

    def emit(self, meter: Meter, log: Log) -> None:
        meter.count(AUDIT_SKIPPED, reason="undecidable")
        log.info("audit_undecided", **asdict(self))


@dataclass(frozen=True, slots=True)
class AuditSkipped:
    """A published step was to be checked and was not; `reason` is a value of that metric's label."""

    reason: str
    steps: int = 1

    def emit(self, meter: Meter, log: Log) -> None:
        meter.count(AUDIT_SKIPPED, self.steps, reason=self.reason)


@dataclass(frozen=True, slots=True)
class AuditStands:
    """How long ago a step of an owned partition was last verified; told about once a second."""

    partition: int
    age_s: float

    def emit(self, meter: Meter, log: Log) -> None:
        meter.set(AUDIT_FRONTIER_AGE, self.age_s, partition=self.partition)


@dataclass(frozen=True, slots=True)
class SelfAuditTroubled:
    """A check broke; the next one waits. The worker goes on."""

    error: BaseException
    backoff_s: float

    def emit(self, meter: Meter, log: Log) -> None:
        meter.count(AUDIT_SKIPPED, reason="unreadable")
        log.warning("self_audit_troubled", backoff_s=round(self.backoff_s, 3), **described(self.error))


@dataclass(frozen=True, slots=True)
class LoopTurned:
    """The event loop ran a timer, this much late. Half a second and more is said aloud."""

    late_s: float

    def emit(self, meter: Meter, log: Log) -> None:
        meter.observe(LOOP_LAG, self.late_s)
        if self.late_s >= 0.5:
            log.warning("event_loop_blocked", late_s=round(self.late_s, 3))


# --- The one object ----------------------------------------------------------------------------------------


class Telemetry:
    """The metrics and the log of one process.

    Args:
        level, format, stream: of the log; `auto` is console on a terminal and JSON lines elsewhere.
        worker: this process's name among several; stands on every log line.
        monotonic: seconds for the limit on repeats. now: seconds since 1970 for the last progress.
        heard: is given every happening before it is emitted (tests; a second outlet).

    Raises:
        ConfigError: `level` or `format` is unknown.
    """

    def __init__(
        self,
        *,
        level: str = "info",
        format: str = "auto",
        stream: TextIO | None = None,
        worker: str | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        heard: Callable[[Happening], None] | None = None,
    ) -> None:
        self.meter = Meter()
        self._now = now
        self._heard = heard
        self._repeats = Repeats(monotonic, self._held_back)
        bound = {} if worker is None else {"worker": worker}
        self.log = _log(stream or sys.stderr, level, format, self._repeats, self._unwritable).bind(**bound)
        self._handler: _FromLibraries | None = None
        self.meter.set(WORKER_UP, 1)
        self.meter.set(BUILD_INFO, 1, **_build())
        self.progressed()  # a process that has just begun is not one that has long stood still

    def happened(self, happening: Happening) -> None:
        """Count and say what happened."""
        if self._heard is not None:
            self._heard(happening)
        happening.emit(self.meter, self.log)

    # Bulk counters: once per batch or unit, so that a record costs nothing here.

    def applied(self, partition: int, records: int, bytes: int) -> None:
        """A batch of one partition was applied live."""
        self.meter.count(RECORDS_APPLIED, records, partition=partition)
        self.meter.count(APPLIED_BYTES, bytes, partition=partition)
        self.progressed()

    def progressed(self) -> None:
        """Something was applied or restored, or everything owned is at its end, if only because nothing is owned."""
        self.meter.set(LAST_PROGRESS, self._now())

    def counted(self, counts: Mapping[str, int]) -> None:
        """What the core counted in a batch: events by kind, deadlines fired, and what rightly changed nothing."""
        for kind, n in counts.items():
            if kind in _EVENT.values:
                self.meter.count(EVENTS, n, kind=kind)
            elif kind in _DEADLINES:
                self.meter.count(DEADLINES_FIRED, n, by=_DEADLINES[kind])
            else:
                self.meter.count(EVENTS_WITHOUT_EFFECT, n, kind=kind)

    def acked(self, partition: int, effects: Iterable[Effect]) -> None:
        """The effects of one partition are committed (not before: what is dropped was never published)."""
        published: Tally[tuple[Status, str]] = Tally()
        anomalies: Tally[str] = Tally()
        rejected: dict[Reason, tuple[int, DeadLetter]] = {}
        amendments = checkpoints = 0
        for effect in effects:
            if isinstance(effect, Publish):
                if effect.anomalies:
                    anomalies.update(effect.anomalies)
                if effect.revision:
                    amendments += 1
                else:
                    published[effect.status, effect.inferred or INFERRED_NO] += 1
            elif isinstance(effect, DeadLetter):
                n, first = rejected.get(effect.reason, (0, effect))
                rejected[effect.reason] = n + 1, first
            elif isinstance(effect, Checkpoint):
                checkpoints += 1
        for (status, inferred), n in published.items():
            self.meter.count(STEPS_PUBLISHED, n, status=status, inferred=inferred)
        for kind, n in anomalies.items():
            self.meter.count(ANOMALIES, n, kind=kind)
        if amendments:
            self.meter.count(AMENDMENTS, amendments)
        if checkpoints:
            self.meter.count(CHECKPOINTS, checkpoints)
        for reason, (n, first) in rejected.items():
            self.happened(RecordsRejected(reason, n, partition, first.offset, first.detail))

    def exposition(self) -> bytes:
        """What `/metrics` serves."""
        return self.meter.exposition()

    async def watch(self, every_s: float = 1.0) -> None:
        """Until cancelled: sample how late the event loop runs, and say what was held back."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + every_s
            await asyncio.sleep(every_s)
            self.happened(LoopTurned(max(0.0, loop.time() - due)))
            self.tell_held_back()

    def tell_held_back(self) -> None:
        """Say of each kind of line that was held back, and whose time is over, how often."""
        for method, kind, n in self._repeats.over():
            getattr(self.log, method)("log_lines_held_back", of=kind, held_back=n, _never_held=True)

    def hear_libraries(self) -> None:
        """Take the libraries' warnings and errors into this log, until `close`: stdlib logging, and `warnings`."""
        if self._handler is None:
            self._handler = _FromLibraries(self.log)
            logging.getLogger().addHandler(self._handler)
            logging.captureWarnings(True)

    def close(self, *, keep_hearing: bool = False) -> None:
        """Say what is still held back, and give the libraries' logging back.

        With `keep_hearing`, for a process that is about to end, libraries are heard to the last: what a loop reports
        of tasks and futures whose result was never retrieved comes when they are collected, after all else.
        """
        if self._handler is not None and not keep_hearing:
            logging.getLogger().removeHandler(self._handler)
            logging.captureWarnings(False)
            self._handler = None
        self._repeats.end()
        self.tell_held_back()

    def _held_back(self) -> None:
        self.meter.count(LOG_LINES_DROPPED, why="repeated")

    def _unwritable(self) -> None:
        self.meter.count(LOG_LINES_DROPPED, why="unwritable")


def _build() -> dict[str, str]:
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


# --- The log -----------------------------------------------------------------------------------------------

REPEAT_S: Final = 10.0
"""A kind of warning or error is written once in this time; the next line says how many were held back."""

_KINDS_KEPT: Final = 256  # of lines whose repeats are watched; beyond it the rest of a level share one limit
_TEXT_MAX: Final = 500  # characters of one value in a log line
_LIST_MAX: Final = 100  # entries of one value in a log line
_FRAMES_MAX: Final = 8

_Kind = tuple[str, ...]


class Repeats:
    """Lets one line of a kind through per `REPEAT_S` and counts the rest. Thread-safe."""

    def __init__(self, monotonic: Callable[[], float], held_back: Callable[[], None]) -> None:
        self._monotonic = monotonic
        self._on_held_back = held_back
        self._lock = threading.Lock()
        self._kinds: dict[_Kind, tuple[float, int]] = {}
        self._ended = False

    def admit(self, kind: _Kind) -> int | None:
        """How many lines of this kind were held back before this one; None: hold this one back too."""
        now = self._monotonic()
        with self._lock:
            if kind not in self._kinds and len(self._kinds) >= _KINDS_KEPT:
                kind = (kind[0],)
            since, held = self._kinds.get(kind, (-math.inf, 0))
            if now - since >= REPEAT_S:
                self._kinds[kind] = now, 0
                return held
            self._kinds[kind] = since, held + 1
        self._on_held_back()
        return None

    def over(self) -> list[tuple[str, str, int]]:
        """(level, kind, lines held back) of the kinds whose time is over; they are forgotten here."""
        now = self._monotonic()
        with self._lock:
            due = {k: held for k, (since, held) in self._kinds.items() if self._ended or now - since >= REPEAT_S}
            for kind in due:
                del self._kinds[kind]
        return [(kind[0], " ".join(kind[1:]) or "various", held) for kind, held in due.items() if held]

    def end(self) -> None:
        """All kinds' time is over from now on."""
        self._ended = True

    def processor(self, _: Any, method: str, line: EventDict) -> EventDict:
        """The structlog stage: holds repeats back, from `warning` up; `critical` always passes."""
        told_apart = line.pop("_kind", line.get("reason") or line.get("why"))
        if line.pop("_never_held", False) or method not in ("warning", "error"):
            return line
        kind = method, str(line["event"]), *([str(told_apart)] if told_apart else [])
        held = self.admit(kind)
        if held is None:
            raise structlog.DropEvent
        if held:
            line["held_back"] = held
        return line


def described(error: BaseException) -> dict[str, object]:
    """An exception as log fields, without payload text.

    Our own errors, the operating system's and the Kafka client's are free of payload by contract or by nature
    and keep their message. Of any other (a `KeyError` prints the key) class and place are told.
    """
    if isinstance(error, BaseExceptionGroup) and error.exceptions:
        return described(error.exceptions[0]) | {"errors": len(error.exceptions)}
    told: dict[str, object] = {"error": type(error).__name__}
    if isinstance(error, RunStepsError):
        told["message"] = error.message
        if error.hint:
            told["hint"] = error.hint
        if error.__cause__ is not None:
            told["cause"] = described(error.__cause__)
        return told
    if isinstance(error, OSError) or type(error).__module__.partition(".")[0] == "aiokafka":
        told["message"] = str(error)
    frames = traceback.extract_tb(error.__traceback__)[-_FRAMES_MAX:]
    if frames:
        told["at"] = [f"{'/'.join(PurePath(f.filename).parts[-2:])}:{f.lineno} {f.name}" for f in frames]
    return told


class _FromLibraries(logging.Handler):
    """Takes stdlib log records, of `warning` and above, into ours."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        told = described(record.exc_info[1]) if record.exc_info and record.exc_info[1] else {}
        pattern = _first_line(str(record.msg))
        try:
            message = _first_line(record.getMessage())
        except Exception:  # arguments that do not fit their pattern are the library's mistake, not ours
            message = pattern
        if "message" in told:
            told["cause"] = told.pop("message")
        level = "critical" if record.levelno >= 50 else "error" if record.levelno >= 40 else "warning"
        # The pattern tells kinds apart, the message would not: it holds the ever-changing parts.
        getattr(self._log, level)(
            "library_log", _kind=f"{record.name}: {pattern}", library=record.name, message=message, **told
        )


def _first_line(text: str) -> str:
    # What follows the first line in asyncio's records is the repr of tasks, and with it of their exceptions.
    return text.split("\n", 1)[0]


class _Lines:
    """Where finished lines go. A log that cannot be written is counted and never stops the worker."""

    def __init__(self, stream: TextIO, unwritable: Callable[[], None]) -> None:
        self._stream = stream
        self._unwritable = unwritable
        self._lock = threading.Lock()

    def msg(self, line: str) -> None:
        try:
            with self._lock:
                self._stream.write(line + "\n")
                self._stream.flush()
        except UnicodeEncodeError:
            self.msg(line.encode("ascii", "backslashreplace").decode())
        except (OSError, ValueError):  # full, gone or closed
            self._unwritable()

    debug = info = warning = error = critical = msg


def _log(
    stream: TextIO, level: str, format: str, repeats: Repeats, unwritable: Callable[[], None]
) -> FilteringBoundLogger:
    if level not in ("debug", "info", "warning", "error"):
        raise ConfigError(f"log.level: unknown level (got {level!r})", hint="debug, info, warning or error")
    if format not in ("auto", "json", "console"):
        raise ConfigError(f"log.format: unknown format (got {format!r})", hint="auto, json or console")
    terminal = stream.isatty()
    render: structlog.typing.Processor
    if format == "console" or (format == "auto" and terminal):
        render = structlog.dev.ConsoleRenderer(colors=terminal, pad_event_to=24)
    else:
        render = structlog.processors.JSONRenderer(serializer=json.dumps)
    logger: FilteringBoundLogger = structlog.wrap_logger(
        _Lines(stream, unwritable),
        processors=[
            repeats.processor,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="timestamp"),
            _plain,
            render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        context_class=dict,
        cache_logger_on_first_use=False,
    ).bind()
    return logger


def _plain(_: Any, __: str, line: EventDict) -> EventDict:
    """Every value as plain JSON of bounded size; first what people look for first."""
    first = {key: line.pop(key) for key in ("timestamp", "level", "event")}
    return {key: _plain_value(value) for key, value in {**first, **line}.items()}


def _plain_value(value: object) -> object:
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, str):
        return _cut(value)
    if isinstance(value, Mapping):
        return {_cut(str(k)): _plain_value(v) for k, v in list(value.items())[:_LIST_MAX]}
    if isinstance(value, list | tuple | set | frozenset):
        more = [f"and {len(value) - _LIST_MAX} more"] if len(value) > _LIST_MAX else []
        return [_plain_value(v) for v in list(value)[:_LIST_MAX]] + more
    # Bytes are somebody's payload, and an object's repr may hold some.
    return f"<{type(value).__name__}>"


def _cut(text: str) -> str:
    return text if len(text) <= _TEXT_MAX else text[: _TEXT_MAX - 1] + "…"
