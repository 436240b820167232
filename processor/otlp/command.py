"""`run-steps export otlp`: read published steps from the topics or from archives, and send them as spans.

At least once: the positions, offsets of a group without members, are committed after the collector has taken the spans.
A run whose newest step is young is exported, and its positions stay before it: the next export has the run whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from processor.archives import CAPTURE, Capture, Gap, read, require_whole
from processor.core.effects import Record
from processor.errors import UsageError
from processor.kafka.admin import Admin
from processor.kafka.consumer import Committed
from processor.kafka.partition_reader import PartitionReader
from processor.otlp.runs import Place, Runs
from processor.otlp.spans import Span, SpanOptions, exported

if TYPE_CHECKING:
    from processor.config.settings import Settings
    from processor.kafka.client_config import Connection

BATCH_SPANS: Final = 512
_NO_PROGRESS_S: Final = 60.0


class Sink(Protocol):
    """Takes spans; returns how many it has refused for good."""

    def send(self, spans: Sequence[Span]) -> int: ...


class Exported(msgspec.Struct):
    """Counts of an export. `refused`: spans that the collector will never take."""

    steps: int = 0
    runs: int = 0
    spans: int = 0
    refused: int = 0
    unreadable: int = 0
    read_again: int = 0
    """Offsets that the next export begins with again, as runs there may go on."""


class Options(msgspec.Struct, frozen=True):
    """`idle_s`: a run whose newest step is older than that is complete."""

    spans: SpanOptions = SpanOptions()
    idle_s: float = 600.0
    since_ms: int | None = None


def export_group(settings: Settings) -> str:
    """The group whose offsets on the outcome topics are the export positions. It has no members."""
    return f"{settings.source.group_id}.otlp"


class Exporter:
    """Collects spans and sends them in batches."""

    def __init__(self, sink: Sink, options: Options) -> None:
        self._sink, self._options = sink, options
        self._waiting: list[Span] = []
        self.runs = Runs()
        self.result = Exported()

    def take(self, topic: str, partition: int, record: Record) -> None:
        """The next published record."""
        since = self._options.since_ms
        if since is not None and record.timestamp < since:
            return
        step = exported(record.value, record.headers, record.timestamp, self._options.spans)
        if step is None:
            self.result.unreadable += 1
            return
        self.result.steps += 1
        self.runs.take(step, (topic, partition), record.offset)
        self._add(step.spans)

    def finish(self) -> Exported:
        """Send the spans of the runs, and what is left."""
        self.result.runs = len(self.runs)
        for span in self.runs.spans(self._options.spans):
            self._add([span])
        self._send()
        return self.result

    def _add(self, spans: list[Span]) -> None:
        self._waiting += spans
        if len(self._waiting) >= BATCH_SPANS:
            self._send()

    def _send(self) -> None:
        if self._waiting:
            self.result.refused += self._sink.send(self._waiting)
            self.result.spans += len(self._waiting)
            self._waiting = []


def export_archives(
    settings: Settings, paths: Sequence[Path], sink: Sink, options: Options, capture: Capture = CAPTURE
) -> Exported:
    """Export archives of the outcome topics. No position is kept.

    Raises:
        ArchiveError: one cannot be read, lacks what its manifest names, or overlaps with another.
        BrokerRefused, BrokerUnavailable
        UsageError: they hold no record of an outcome topic.
    """
    topics = _topics(settings)
    exporter = Exporter(sink, options)
    require_whole(paths, capture)
    for path in paths:
        for item in read(path, capture=capture):
            if item.topic in topics and not isinstance(item, Gap):
                exporter.take(item.topic, item.partition, item)
    if not exporter.result.steps and not exporter.result.unreadable and options.since_ms is None:
        raise UsageError(
            "export: --published: no record of an outcome topic",
            hint=f"the outcome topics of the settings are {', '.join(topics)}",
        )
    return exporter.finish()


async def export_topics(
    settings: Settings, connect: Callable[[], Connection], sink: Sink, options: Options
) -> Exported:
    """Export what was published since the last export, and commit how far that was.

    With `since_ms` positions are neither read nor committed.

    Raises:
        BrokerRefused, BrokerUnavailable, OffsetLost, ReadStalled
    """
    exporter, group = Exporter(sink, options), export_group(settings)
    ends: dict[str, dict[int, int]] = {}
    for topic in _topics(settings):
        async with PartitionReader(connect(), topic=topic, client_id=group) as reader:
            own = range(reader.partitions_of_topic())
            begins, ends[topic] = await reader.begin_offsets(own), await reader.stable_end_offsets(own)
            starts = await _starts(connect, reader, group, topic, begins, options)
            async for partition, records in reader.read_to(starts, ends[topic], _NO_PROGRESS_S):
                for record in records:
                    exporter.take(topic, partition, record)
    done = exporter.finish()
    if options.since_ms is None:
        unsettled = exporter.runs.unsettled(options.idle_s, time.time_ns())
        done.read_again = sum(ends[t][p] - offset for (t, p), offset in unsettled.items())
        async with Admin(connect()) as admin:
            for topic, own_ends in ends.items():
                await admin.commit_offsets(group, topic, _positions(topic, own_ends, unsettled))
    return done


async def _starts(
    connect: Callable[[], Connection],
    reader: PartitionReader,
    group: str,
    topic: str,
    begins: Mapping[int, int],
    options: Options,
) -> dict[int, int]:
    if options.since_ms is not None:
        at = await reader.offsets_at(begins, options.since_ms)
        ends = await reader.stable_end_offsets(begins)
        return {p: ends[p] if found is None else found for p, found in at.items()}
    async with Admin(connect()) as admin:
        rows = await admin.group_offsets(group)
    committed = {p: row.offset for (name, p), row in rows.items() if name == topic}
    return {p: max(begin, committed.get(p, 0)) for p, begin in begins.items()}


def _positions(topic: str, ends: Mapping[int, int], unsettled: Mapping[Place, int]) -> dict[int, Committed]:
    return {p: Committed(unsettled.get((topic, p), end), "") for p, end in ends.items()}


def _topics(settings: Settings) -> list[str]:
    return sorted({topic for topic in settings.outcome_topics.values() if topic})
