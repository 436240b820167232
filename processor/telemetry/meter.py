"""The Prometheus registry of one process, and the merged exposition of several."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import product
from typing import Any, Final

import prometheus_client as prometheus
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from processor.telemetry.metrics import METRICS, OTHER, PARTITION, WORKER_UP, Label, Metric, Type

EXPOSITION_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_GONE_WITH_THE_PARTITION: Final = tuple(m for m in METRICS if m.type is Type.GAUGE and PARTITION in m.labels)
_COLLECTOR: Final = {
    Type.COUNTER: prometheus.Counter,
    Type.GAUGE: prometheus.Gauge,
    Type.HISTOGRAM: prometheus.Histogram,
}


class Meter:
    """The metrics of one process, in a registry of its own. Thread-safe.

    Series whose labels are all closed sets exist from the start, at 0: otherwise a rate misses the first occurrence
    of a reason.
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
        """Remove the gauges of a revoked partition.

        Its new owner reports them now; the lag of one partition must not be counted twice.
        """
        for metric in _GONE_WITH_THE_PARTITION:
            self._families[metric].remove_by_labels({PARTITION.name: str(partition)})
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
    """The registry without the `_created` series, which double the number of series and are not used here.

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
