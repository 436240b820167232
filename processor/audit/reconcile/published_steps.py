"""Collect the published records that lists of the service can be compared with, from the topics or from archives."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from processor.archives import (
    CAPTURE,
    ArchivedRecord,
    Capture,
    Gap,
    UnnamedOffsets,
    holds_arrivals,
    read,
    require_whole,
)
from processor.archives.records import Partition
from processor.audit.judge.published_headers import began_at
from processor.audit.judge.verdicts import FindingKind, Published, Unreadable, location_of
from processor.audit.published_index import of_source
from processor.audit.reconcile.comparison import Doubt, PublishedStep, latest_s
from processor.audit.replay.output_survey import why_missing
from processor.audit.replay.record_sources import HOLES
from processor.config.settings import Settings
from processor.core.effects import REFERENCES, Record
from processor.core.headers import ANOMALIES, INFERRED
from processor.kafka.admin import Admin
from processor.kafka.client_config import Connection
from processor.kafka.partition_reader import PartitionReader

_CLIENT_ID: Final = "run-steps.reconcile"
_WAIT_S: Final = 20.0
_SKEW_MS: Final = 60_000
"""Largest difference between the clocks of the service and of the records."""
_MANY: Final = 1 << 31
"""Partitions of a source where they cannot be counted: an archive of its output does not say how many there are."""


class _ArchivedOutput:
    """What archives of the output topics hold, and where they begin and lack something.

    Attributes:
        last_ms: the latest time of a record, -1 where there is none.
        markers: offsets that count as markers of transactions (`UnnamedOffsets`).
    """

    def __init__(self, topics: Collection[str]) -> None:
        self._topics = topics
        self._begins: dict[Partition, int] = {}
        self._first: dict[Partition, tuple[int, int]] = {}
        """Offset and time of the first record."""
        self._has_holes = False
        self.last_ms = -1
        self.markers: Counter[Partition] = Counter()

    def items(self, path: Path, capture: Capture) -> Iterator[ArchivedRecord]:
        """The records of the output topics in an archive. Archives come in any order."""
        unnamed = UnnamedOffsets(path)
        for item in read(path, capture=capture):
            if item.topic not in self._topics:
                continue
            place = (item.topic, item.partition)
            if isinstance(item, Gap):
                self._has_holes |= item.kind in HOLES
                self._begins[place] = min(self._begins.get(place, item.first), item.first)
                unnamed.take(place, item.first, item.last, item.last - item.first + 1, item.kind)
                continue
            unnamed.take(place, item.offset, item.offset, 1)
            self._begins[place] = min(self._begins.get(place, item.offset), item.offset)
            first = (item.offset, item.timestamp)
            self._first[place] = min(self._first.get(place, first), first)
            self.last_ms = max(self.last_ms, item.timestamp)
            yield item
        self._has_holes |= bool(unnamed.holes())
        self.markers.update(unnamed.markers())

    def first_ms(self) -> int:
        """The latest time of a first record behind which others may be gone, -1 where there is none."""
        return max(
            (self._first[p][1] for p, begin in self._begins.items() if begin > 0 and p in self._first), default=-1
        )

    def why(self) -> str:
        """The reason why any record that is not there may have been; "" if there is none."""
        if self._has_holes:
            return "the archive has holes"
        if not self._begins:
            return "the archive holds no record of the output topics"
        gone = sorted(place for place, begin in self._begins.items() if begin > 0 and place not in self._first)
        return (
            f"the archive holds no record of {gone[0][0]}, partition {gone[0][1]}, which has had some" if gone else ""
        )


class PublishedSteps:
    """The newest published record of each step that is listed, or whose run is.

    Args:
        steps, runs: the ids that are listed.

    Attributes:
        newest: step id -> source partition -> record.
        references: step id -> reason of the dead letter that stands in its place.
        read: how many records there were; `unreadable` of them name no step of the source.
        doubt: why a record that is not there may have been.
        notes: sentences that a reader must know.
    """

    def __init__(self, settings: Settings, steps: Collection[str], runs: Collection[str]) -> None:
        self._settings, self._steps, self._runs = settings, steps, runs
        self.topics = sorted({topic for topic in settings.outcome_topics.values() if topic})
        self.dead_letter = settings.output.dead_letter
        self.newest: dict[str, dict[int, PublishedStep]] = {}
        self.references: dict[str, str] = {}
        self.read = 0
        self.unreadable = 0
        self.doubt = Doubt()
        self.notes: list[str] = []
        self._why_missing: list[str] = []

    def note_missing(self) -> None:
        """Note what of the archives may explain missing steps."""
        self.notes += self._why_missing

    def take(self, topic: str, partition: int, record: Record, source_partitions: int) -> None:
        """The next record of an output topic."""
        self.read += 1
        dead_letters = topic == self.dead_letter
        one = of_source(
            self._settings.source.topic, source_partitions, topic, partition, record, dead_letters=dead_letters
        )
        if isinstance(one, Unreadable):
            self.unreadable += not dead_letters
        elif one is not None:
            self._take_reference(one) if dead_letters else self._take_step(one)

    def _take_reference(self, one: Published) -> None:
        reason = one.identity[1].partition(" ")[0]
        step_id = (one.key or b"").decode("utf-8", "replace")
        if one.kind is FindingKind.DEAD_LETTER and reason in REFERENCES and step_id in self._steps:
            self.references[step_id] = reason

    def _take_step(self, one: Published) -> None:
        try:
            snapshot = msgspec.json.decode(one.value or b"")
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            snapshot = None
        if not isinstance(snapshot, dict):
            self.unreadable += 1
            return
        step_id = one.identity[0]
        if step_id not in self._steps and snapshot.get("run_id") not in self._runs:
            return
        headers = dict(one.headers)
        anomalies = (headers.get(ANOMALIES) or b"").decode("utf-8", "replace")
        found = PublishedStep(
            location_of(one),
            one.source_partition,
            (began_at(one) or 0, int(one.identity[1])),
            {**snapshot, "id": step_id},
            (headers.get(INFERRED) or b"").decode("utf-8", "replace"),
            tuple(filter(None, anomalies.split(","))),
            one.timestamp,
        )
        own = self.newest.setdefault(step_id, {})
        before = own.get(one.source_partition)
        if before is None or before.order <= found.order:
            own[one.source_partition] = found

    def read_archives(self, paths: Sequence[Path], capture: Capture = CAPTURE) -> None:
        """Read archives of the output topics.

        A capture has times of arrival, which are later than what a worker had come to. Then the steps that were read
        say how far that was.

        Raises:
            ArchiveError: one cannot be read, or lacks what its manifest names.
        """
        require_whole(paths, capture)
        output = _ArchivedOutput({*self.topics, self.dead_letter})
        for path in paths:
            for item in output.items(path, capture):
                self.take(item.topic, item.partition, item, _MANY)
        last_ms = output.last_ms
        if any(map(holds_arrivals, paths)):
            last_ms = min(last_ms, 1000 * max((latest_s(one.snapshot) for one in self._all_newest()), default=-1))
        first_ms = output.first_ms()
        self.doubt = Doubt(output.why(), first_ms + _SKEW_MS if first_ms >= 0 else None, last_ms - _SKEW_MS)
        self._why_missing = why_missing(paths, sum(output.markers.values()))

    def _all_newest(self) -> Iterator[PublishedStep]:
        return (one for by_partition in self.newest.values() for one in by_partition.values())

    async def read_topics(self, connect: Callable[[], Connection]) -> None:
        """Read the output topics up to where they end now.

        Raises:
            BrokerUnavailable, BrokerRefused: the broker does not answer, or does not let us.
        """
        partitions, lag = await self._lag(connect)
        why = "" if not lag else f"the group has yet to read {lag:,} offsets of the source"
        first_ms = -1
        for topic in (*self.topics, self.dead_letter):
            async with PartitionReader(connect(), topic=topic, client_id=_CLIENT_ID) as reader:
                own = range(reader.partitions_of_topic())
                begins, ends = await reader.begin_offsets(own), await reader.end_offsets(own)
                stable = await reader.stable_end_offsets(own)
                held = [p for p in own if stable[p] < ends[p]]
                if held:
                    why = why or f"an open transaction holds back records of {topic}"
                    self.notes.append(
                        f"{topic}, partition {held[0]}: an open transaction holds back what lies behind offset "
                        f"{stable[held[0]]}."
                    )
                seen: set[int] = set()
                async for p, records in reader.read_to(begins, stable, _WAIT_S):
                    if p not in seen and begins[p] > 0:
                        first_ms = max(first_ms, records[0].timestamp)
                    seen.add(p)
                    for record in records:
                        self.take(topic, p, record, partitions)
                if any(begins[p] > 0 and p not in seen for p in own):
                    why = why or f"retention has taken all records of a partition of {topic}"
        if lag:
            self.notes.append(
                f"The group {self._settings.source.group_id} has yet to read {lag:,} offsets of the source."
            )
        now_ms = round(time.time() * 1000)
        self.doubt = Doubt(why, first_ms + _SKEW_MS if first_ms >= 0 else None, now_ms - _SKEW_MS)

    async def _lag(self, connect: Callable[[], Connection]) -> tuple[int, int]:
        """(Partitions of the source, how many offsets of it the group has not committed yet).

        What has been committed is published: asked before the output topics are read.
        """
        topic, group = self._settings.source.topic, self._settings.source.group_id
        async with Admin(connect()) as admin:
            rows = await admin.group_offsets(group)
        async with PartitionReader(connect(), topic=topic, client_id=_CLIENT_ID) as reader:
            own = range(reader.partitions_of_topic())
            begins, ends = await reader.begin_offsets(own), await reader.end_offsets(own)
        committed = {p: row.offset for (name, p), row in rows.items() if name == topic}
        return len(own), sum(max(0, ends[p] - max(begins[p], committed.get(p, 0))) for p in own)
