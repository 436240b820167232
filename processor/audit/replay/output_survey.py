"""Survey of the output of a replay: extents of the output topics, jobs that index them, and their results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from processor.archives import held_within, holds_arrivals, overlap, require_as_recorded, shares
from processor.archives.records import printable
from processor.audit.judge.range_result import RangeResult
from processor.audit.judge.verdicts import Verdict
from processor.audit.replay.index_output import IndexJob, IndexResult, Output, PublishedArchive, shared_out, summed
from processor.audit.replay.options import Options
from processor.audit.replay.source_survey import CLIENT_ID, SourceSurvey
from processor.config.settings import Settings

if TYPE_CHECKING:  # its library takes long to load, and archives need none
    from processor.kafka.client_config import Connection

_UNNAMED: Final = (
    "{:,} offsets of the output are in no archive, and no gap says why: they count as markers of transactions. A "
    "record that the archive has lost there is missing."
)
_NO_MANIFEST: Final = (
    "Archive {} of the output has no manifest: nothing says how far it should reach, and which partitions it should "
    "hold. What it lacks there is missing."
)
_MOST_INDEXES: Final = 8
"""Each look-up goes through all of them: more would make it dearer than reading the output in parallel is worth."""


class OutputSurvey:
    """Extents of the output topics, and the results of the jobs that indexed them.

    Attributes:
        partitions: how many each topic has.
        shortened: (topic, partition) whose first records are gone.
        holes: (topic, partition) that lack records behind the first.
        captured: (topic, partition) that are read from an archive with times of arrival.
        index_results: of the jobs, in their order.
        notes: sentences for the report.
    """

    def __init__(self, options: Options, settings: Settings, connection: Callable[[], Connection]) -> None:
        self._options, self._settings, self._connect = options, settings, connection
        self.partitions: dict[str, int] = {}
        self.shortened: set[tuple[str, int]] = set()
        self.holes: set[tuple[str, int]] = set()
        self.captured: set[tuple[str, int]] = set()
        self.index_results: list[IndexResult] = []
        self.notes: list[str] = []
        self._markers = 0
        self._outputs: list[Output] = []

    async def find(self) -> None:
        """Ask where the output topics begin and end, unless their archives are read."""
        if self._options.verify and not self._options.published:
            for topic in self.topics():
                await self._find_output(topic)

    def topics(self) -> list[str]:
        topics = {topic for topic in self._settings.outcome_topics.values() if topic}
        return sorted(topics | {self._settings.output.dead_letter})

    async def _find_output(self, topic: str) -> None:
        from processor.kafka.partition_reader import PartitionReader

        async with PartitionReader(self._connect(), topic=topic, client_id=CLIENT_ID) as reader:
            partitions = list(range(reader.partitions_of_topic()))
            begins = await reader.begin_offsets(partitions)
            ends = await reader.end_offsets(partitions)
        self.partitions[topic] = len(partitions)
        self.shortened.update((topic, p) for p, begin in begins.items() if begin > 0)
        if gone := [p for p, begin in begins.items() if begin > 0]:
            self.notes.append(
                f"{topic}: retention has taken the first records of {'partition' if len(gone) == 1 else 'partitions'} "
                f"{', '.join(map(str, gone))}: what was published there before is not judged."
            )
        self._outputs += [Output(topic, p, begins[p], ends[p]) for p in partitions]

    def index_jobs(self, source: SourceSurvey, work: Path) -> list[IndexJob]:
        """The jobs that read the output, none without `verify`."""
        settings, options = self._settings, self._options
        if not options.verify:
            return []
        for path in options.published:
            require_as_recorded(Path(path), options.capture)
        of_archives, of_topics = [], []
        for number, path in enumerate(options.published):
            of_archives += [(size, PublishedArchive(number, path, within)) for within, size in shares(Path(path))]
        if not options.published:
            of_topics = [(max(0, output.end - output.begin), output) for output in self._outputs]
        jobs = min(_MOST_INDEXES, len(source.spans) if options.dask else options.workers)
        return [
            IndexJob(
                source=source.topic,
                partitions=source.partitions,
                wanted=tuple(sorted(source.spans)),
                topics=tuple(self.topics()),
                dead_letter=settings.output.dead_letter,
                work=str(work.resolve()),
                number=number,
                outputs=tuple(part for part in own if isinstance(part, Output)),
                archives=tuple(part for part in own if isinstance(part, PublishedArchive)),
                capture=options.capture,
                sole_source=options.sole_source,
                connection=settings.kafka.connection() if of_topics else None,
            )
            for number, own in enumerate(shared_out([*of_archives, *of_topics], jobs))
        ]

    def indexed(self, found: list[IndexResult]) -> None:
        """Take the results of the jobs, in their order.

        Raises:
            ArchiveError: archives of the output overlap.
        """
        self.index_results = found
        for one in found:
            self.shortened.update(one.shortened)
            self.holes.update(one.holes)
            self._markers += sum(n for _, _, n in one.markers)
        have_arrivals = [holds_arrivals(Path(path)) for path in self._options.published]
        ends: dict[tuple[str, int], int] = {}
        for extent in sorted(extent for one in found for extent in one.extents):
            place = (extent.topic, extent.partition)
            if have_arrivals[extent.archive]:
                self.captured.add(place)
            if extent.first <= ends.get(place, -1):
                raise overlap(self._options.published[extent.archive], place, extent.first)
            if place in ends:
                self.holes.update([place] if extent.begins_with_hole else [])
            elif extent.first > 0 or extent.begins_with_hole:
                self.shortened.add(place)
            ends[place] = extent.last
        self.notes += [
            f"{topic}, partition {p}: an open transaction holds back what lies behind offset {offset}; end it "
            f"(kafka-transactions.sh find-hanging --topic {topic}, then abort) and replay again."
            for topic, p, offset in sorted(held for one in found for held in one.held)
        ]
        if self._options.verify and self._options.published:
            self.notes.append(
                "On which partition a key stands was not compared: an archive does not say how many there are."
            )

    def outputs(self) -> dict[str, int]:
        """Numbers of records that were read from the output topics, and of those out of scope."""
        if not self._options.verify:
            return {}
        read, apart, unreadable = summed(self.index_results)
        return {
            **dict(sorted(read.items())),
            "of another source": apart.sources.total(),
            "of partitions not asked for": apart.partitions.total(),
            "unreadable": unreadable,
        }

    def note_missing(self, results: Sequence[RangeResult]) -> None:
        """Note what of the archives may explain missing records."""
        is_missing = any(verdicts.get(Verdict.MISSING.value) for one in results for verdicts in one.counts.values())
        if is_missing:
            self.notes += why_missing(self._options.published, self._markers)

    def trouble(self, results: Sequence[RangeResult]) -> list[str]:
        read, not_judged, unreadable = summed(self.index_results)
        compared = sum(result.published for result in results)
        apart = not_judged.sources.total() + not_judged.partitions.total() + unreadable
        if not self._options.verify or read.total() == compared + apart:
            return []
        return [f"{read.total()} records read from the output topics, {compared} compared, {apart} out of scope"]


def why_missing(published: Sequence[Path | str], markers: int) -> list[str]:
    """Sentences on what of archives of the output may explain that records are missing.

    Args:
        markers: offsets that no gap names, and that count as markers.
    """
    told = [_UNNAMED.format(markers)] if markers else []
    return told + [_NO_MANIFEST.format(printable(str(path))) for path in published if not held_within(Path(path))]
