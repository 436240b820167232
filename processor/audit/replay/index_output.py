"""Index the published records of the output topics, in independent jobs.

A job reads some partitions of the output topics, or some archives of them, and writes an index of its own, by the
source partition that each record names. A reader of several indexes sees them as one, in the order of topic, partition
and offset: how the reading was shared out makes no difference.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar, cast
from uuid import uuid4

import msgspec

from processor.archives import CAPTURE, ArchivedRecord, Capture, Gap, GapKind, UnnamedOffsets, read_batches
from processor.audit.judge.not_judged import Claims, NotJudged, merged
from processor.audit.published_index import IndexWriter
from processor.audit.replay.progress_file import ProgressFile
from processor.audit.replay.record_sources import HOLES
from processor.audit.replay.runtime import collecting_seldom, waited_for
from processor.errors import BrokerUnavailable

if TYPE_CHECKING:  # their library takes long to load, and archives need none
    from processor.kafka.fetch import Hidden
    from processor.kafka.partition_reader import PartitionReader

_CLIENT_ID: Final = "run-steps.replay"
_OUTPUT_WAIT_S: Final = 20.0
"""Longest wait for an open transaction on the output topics: longer than a worker's may last."""

_RECORDS: Final = {ArchivedRecord}

_Unit = TypeVar("_Unit")


class Output(msgspec.Struct, frozen=True):
    """A partition of an output topic, offsets [begin, end)."""

    topic: str
    partition: int
    begin: int
    end: int


class PublishedArchive(msgspec.Struct, frozen=True):
    """An archive of the output; of a recorded one perhaps the files of one partition alone (`within`)."""

    number: int
    path: str
    within: tuple[str, int] | None


class Extent(NamedTuple):
    """Offsets of an output partition, both inclusive, from the first item of an archive to its last."""

    topic: str
    partition: int
    first: int
    last: int
    archive: int
    begins_with_hole: bool


class IndexJob(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the output, and what is needed to index it.

    Attributes:
        source, partitions: the source topic and how many partitions it has.
        wanted: the partitions that are audited.
        topics: all output topics; what an archive holds of others is left out.
        work: a folder that every worker sees.
        number: of this job, from 0.
        capture: for archives of Event Hubs Capture, its pattern alone.
        sole_source: no other source is published to these topics.
        connection: as in a `Task`.
    """

    source: str
    partitions: int
    wanted: tuple[int, ...]
    topics: tuple[str, ...]
    dead_letter: str
    work: str
    number: int
    outputs: tuple[Output, ...] = ()
    archives: tuple[PublishedArchive, ...] = ()
    capture: Capture = CAPTURE
    sole_source: bool = False
    connection: dict[str, Any] | None = None


class IndexResult(msgspec.Struct, frozen=True, kw_only=True):
    """Result of a job.

    Attributes:
        name: of its index.
        read: records by topic; `elsewhere`, `other_partitions` and `unreadable` are those of them that no task gets.
        shortened: (topic, partition) of the outputs whose first records retention has taken while they were read.
        holes: (topic, partition) of the outputs that lack records behind the first: by compaction, or an archive does.
        markers: (topic, partition, number) of offsets in archives that no gap names and that count as markers.
        broker_times: (topic, partition, offset) from which on batches have the broker's times (LogAppendTime).
        extents: of each archive that was read.
        held: (topic, partition, offset) behind which an open transaction holds back the rest.
    """

    name: str
    read: dict[str, int]
    elsewhere: Claims
    other_partitions: Claims
    unreadable: int
    shortened: tuple[tuple[str, int], ...]
    extents: tuple[Extent, ...]
    held: tuple[tuple[str, int, int], ...]
    holes: tuple[tuple[str, int], ...] = ()
    markers: tuple[tuple[str, int, int], ...] = ()
    broker_times: tuple[tuple[str, int, int], ...] = ()


def shared_out(units: Iterable[tuple[int, _Unit]], jobs: int) -> list[list[_Unit]]:
    """Units by their size into at most so many jobs of about the same size, none of them empty."""
    bins: list[tuple[int, list[_Unit]]] = [(0, []) for _ in range(jobs)]
    for size, unit in sorted(units, key=lambda one: -one[0]):
        least = min(range(jobs), key=lambda at: bins[at][0])
        bins[least] = (bins[least][0] + size + 1, [*bins[least][1], unit])
    return [own for _, own in bins if own]


def progress_path(work: str | Path, number: int) -> Path:
    """The progress file of a job."""
    return Path(work) / f"reading-{number:05d}"


def run_index_job(job: IndexJob) -> IndexResult:
    """Read and index: in this process, in a pool's, or on another machine.

    Raises:
        ArchiveError, BrokerUnavailable, BrokerRefused.
    """
    # A name of its own each time: an executor may run a job twice, even at once.
    name = f"{job.number:05d}-{uuid4().hex}"
    writer = IndexWriter(
        Path(job.work), job.source, job.partitions, frozenset(job.wanted), name, sole_source=job.sole_source
    )
    with collecting_seldom(), writer:
        reading = _Reading(job, writer)
        if job.archives:
            reading.archives()
        else:
            waited_for(reading.topics())
    return IndexResult(
        name=name,
        read=dict(writer.read),
        elsewhere=writer.elsewhere.claims(),
        other_partitions=writer.other_partitions.claims(),
        unreadable=writer.unreadable,
        shortened=tuple(sorted(reading.shortened)),
        extents=tuple(
            Extent(*place, first, last, number, (number, place) in reading.begin_with_hole)
            for (number, place), (first, last) in sorted(reading.extents.items())
        ),
        held=tuple(reading.held),
        holes=tuple(sorted(reading.holes)),
        markers=tuple((*place, n) for place, n in sorted(reading.markers.items())),
        broker_times=tuple((*place, offset) for place, offset in sorted(reading.broker_times.items())),
    )


class _Reading:
    """A job under way."""

    def __init__(self, job: IndexJob, writer: IndexWriter) -> None:
        self._job, self._writer = job, writer
        self.shortened: set[tuple[str, int]] = set()
        self.extents: dict[tuple[int, tuple[str, int]], tuple[int, int]] = {}
        self.begin_with_hole: set[tuple[int, tuple[str, int]]] = set()
        self.holes: set[tuple[str, int]] = set()
        self.markers: Counter[tuple[str, int]] = Counter()
        self.broker_times: dict[tuple[str, int], int] = {}
        self.held: list[tuple[str, int, int]] = []
        self._progress = ProgressFile(progress_path(job.work, job.number))

    def archives(self) -> None:
        job = self._job
        capture = Capture(pattern=job.capture.pattern)
        done = 0
        for archive in job.archives:
            self._unnamed = UnnamedOffsets(Path(archive.path))
            for items in read_batches(Path(archive.path), within=archive.within, capture=capture):
                first = items[0]
                place = (first.topic, first.partition)
                if set(map(type, items)) == _RECORDS and {(item.topic, item.partition) for item in items} == {place}:
                    if first.topic in job.topics:
                        self._put(archive.number, place, cast(list[ArchivedRecord], items))
                else:
                    for item in items:
                        self._take(archive.number, item)
                done += len(items)
                self._progress.write(done)
            self.holes |= self._unnamed.holes()
            self.markers.update(self._unnamed.markers())

    def _take(self, archive: int, item: ArchivedRecord | Gap) -> None:
        place = (item.topic, item.partition)
        if item.topic not in self._job.topics:
            return
        if isinstance(item, Gap):
            if item.kind in HOLES:
                if (archive, place) in self.extents:
                    self.holes.add(place)
                else:
                    self.begin_with_hole.add((archive, place))
            self._reach(archive, place, item.first, item.last, item.last - item.first + 1, item.kind)
            return
        self._put(archive, place, [item])

    def _put(self, archive: int, place: tuple[str, int], records: list[ArchivedRecord]) -> None:
        """Records of one output partition."""
        topic, partition = place
        self._reach(archive, place, records[0].offset, records[-1].offset, len(records))
        self._writer.put_all(topic, partition, records, dead_letters=topic == self._job.dead_letter)

    def _reach(
        self, archive: int, place: tuple[str, int], first: int, last: int, count: int, kind: GapKind | None = None
    ) -> None:
        self._unnamed.take(place, first, last, count, kind)
        self.extents[archive, place] = self.extents.get((archive, place), (first,))[0], last

    async def topics(self) -> None:
        by_topic: dict[str, list[Output]] = {}
        for output in self._job.outputs:
            by_topic.setdefault(output.topic, []).append(output)
        done = 0
        for topic, outputs in sorted(by_topic.items()):
            done = await self._topic(topic, outputs, done)

    def _unread_of(
        self, reader: PartitionReader, positions: Mapping[int, int], ends: Mapping[int, int]
    ) -> Counter[int]:
        """Count by partition the offsets without a record that no marker and no aborted transaction explains."""
        unread: Counter[int] = Counter(dict.fromkeys(positions, 0))

        def explained(partition: int, hidden: list[Hidden]) -> None:
            unread[partition] -= sum(
                min(span.last, ends[partition] - 1) - max(span.first, positions[partition]) + 1 for span in hidden
            )

        reader.observe(explained)
        return unread

    async def _topic(self, topic: str, outputs: list[Output], done: int) -> int:
        """Returns how many offsets were read by now."""
        from processor.kafka.client_config import Connection
        from processor.kafka.errors import OffsetLost
        from processor.kafka.partition_reader import PartitionReader

        assert self._job.connection is not None
        connection = Connection.build(**self._job.connection)
        dead_letters, put_all = topic == self._job.dead_letter, self._writer.put_all
        ends = {output.partition: output.end for output in outputs}
        positions = {output.partition: output.begin for output in outputs}
        while True:
            async with PartitionReader(connection, topic=topic, client_id=_CLIENT_ID) as reader:
                begins = await reader.begin_offsets(list(ends))
                self.shortened.update((topic, p) for p, begin in begins.items() if begin > positions[p])
                positions = {p: max(begin, positions[p]) for p, begin in begins.items()}
                unread = self._unread_of(reader, positions, ends)
                try:
                    async for p, records in reader.read_to(positions, ends, _OUTPUT_WAIT_S):
                        put_all(topic, p, records, dead_letters=dead_letters)
                        behind = records[-1].offset + 1
                        done += behind - positions[p]
                        unread[p] += behind - positions[p] - len(records)
                        positions[p] = behind
                        self._progress.write(done)
                    for p, offset in reader.broker_times().items():
                        self.broker_times.setdefault((topic, p), offset)
                    lacking = {p: n + max(0, ends[p] - positions[p]) for p, n in unread.items()}
                    self.holes.update((topic, p) for p, n in lacking.items() if n > 0)
                    return done
                except OffsetLost:
                    continue  # retention is at work: what it took is said, the rest is read
                except BrokerUnavailable:
                    stable = await reader.stable_end_offsets(list(ends))
                    held = {p: offset for p, offset in stable.items() if offset < ends[p]}
                    if not held:
                        raise
                    self.held += [(topic, p, offset) for p, offset in sorted(held.items())]
                    return done


def summed(found: Sequence[IndexResult]) -> tuple[Counter[str], NotJudged, int]:
    """Add up the results of all jobs: records by topic, those that no task gets, and how many belong to no source."""
    read: Counter[str] = Counter()
    for one in found:
        read.update(one.read)
    sources, partitions = merged(one.elsewhere for one in found), merged(one.other_partitions for one in found)
    return read, NotJudged(sources=sources, partitions=partitions), sum(one.unreadable for one in found)
