"""View of a worker from its /metrics and /healthz, and the rates between two views (`run-steps top`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from processor.telemetry import metrics

_PARTITION: Final = metrics.PARTITION.name


@dataclass(frozen=True, slots=True)
class PartitionView:
    """One source partition as its owner reports it. None: not reported (yet)."""

    number: int
    lag_records: float | None = None
    lag_s: float | None = None
    applied: float = 0.0
    open_steps: float | None = None
    oldest_s: float | None = None
    committed: float | None = None
    restored: float | None = None
    paused: str = ""


@dataclass(frozen=True, slots=True)
class WorkerView:
    """The workers at one address, at one moment. `unreachable`: why there are none."""

    address: str
    at_s: float
    unreachable: str = ""
    reasons: tuple[str, ...] = ()
    states: tuple[str, ...] = ()
    version: str = ""
    partitions: Mapping[int, PartitionView] = field(default_factory=dict)
    published: float = 0.0
    rejected: float = 0.0
    restarts: float = 0.0


@dataclass(frozen=True, slots=True)
class Rates:
    """Per second between two views of one worker; None where there is no earlier view, or a counter began anew."""

    applied: Mapping[int, float | None]
    published: float | None
    rejected: float | None


def view(address: str, at_s: float, exposition: str, health: Iterable[str] = ()) -> WorkerView:
    """The view of one worker, or of the processes behind one address.

    Args:
        at_s: when this was read, on a clock that never goes back.
        exposition: its /metrics, in Prometheus' text format.
        health: the lines of its /healthz where it is not well.

    Raises:
        ValueError: it is not in that format.
    """
    values: dict[str, list[tuple[Mapping[str, str], float]]] = {}
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples:
            values.setdefault(sample.name, []).append((sample.labels, sample.value))

    def total(metric: metrics.Metric) -> float:
        return sum(value for _, value in values.get(metric.name, ()))

    def by_partition(metric: metrics.Metric, **labels: str) -> dict[int, float]:
        found: dict[int, float] = {}
        for own, value in values.get(metric.name, ()):
            if labels.items() <= own.items():
                number = int(own[_PARTITION])
                found[number] = max(value, found.get(number, 0.0))
        return found

    lag = by_partition(metrics.LAG_RECORDS, end="high_watermark")
    lag_s, applied = by_partition(metrics.LAG_SECONDS), by_partition(metrics.RECORDS_APPLIED)
    open_steps, oldest_s = by_partition(metrics.OPEN_STEPS), by_partition(metrics.OLDEST_OPEN_STEP_AGE)
    committed, restored = by_partition(metrics.COMMITTED_OFFSET), by_partition(metrics.RESTORE_PROGRESS)
    paused = {int(own[_PARTITION]): own["reason"] for own, on in values.get(metrics.PARTITION_PAUSED.name, ()) if on}
    # A counter stays when its partition has gone to another worker; a gauge goes with it.
    owned = sorted(lag.keys() | open_steps.keys() | committed.keys() | restored.keys())
    builds = [labels for labels, value in values.get(metrics.BUILD_INFO.name, ()) if value]
    return WorkerView(
        address,
        at_s,
        reasons=tuple(health),
        states=tuple(labels["state"] for labels, value in values.get(metrics.WORKER_STATE.name, ()) if value),
        version=f"{builds[0]['version']} ({builds[0]['core']})" if builds else "",
        partitions={
            number: PartitionView(
                number,
                lag.get(number),
                lag_s.get(number),
                applied.get(number, 0.0),
                open_steps.get(number),
                oldest_s.get(number),
                committed.get(number),
                restored.get(number),
                paused.get(number, ""),
            )
            for number in owned
        },
        published=total(metrics.STEPS_PUBLISHED),
        rejected=total(metrics.RECORDS_REJECTED),
        restarts=total(metrics.RESTARTS),
    )


def rates(before: WorkerView | None, now: WorkerView) -> Rates:
    """Growth of counters per second."""
    if before is None or before.unreachable or now.unreachable or now.at_s <= before.at_s:
        return Rates(dict.fromkeys(now.partitions), None, None)
    seconds = now.at_s - before.at_s

    def per_second(earlier: float, later: float) -> float | None:
        return (later - earlier) / seconds if later >= earlier else None

    applied = {
        number: per_second(before.partitions[number].applied, partition.applied)
        if number in before.partitions
        else None
        for number, partition in now.partitions.items()
    }
    return Rates(applied, per_second(before.published, now.published), per_second(before.rejected, now.rejected))
