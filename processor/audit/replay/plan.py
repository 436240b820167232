"""Plan a replay: survey the source and the output, and cut them into tasks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from processor.archives import (
    CAPTURE,
    ArchivedRecord,
    ArchiveError,
    Capture,
    Gap,
    Lacking,
    lacking,
    reach,
    read,
    read_manifest,
    shares,
)
from processor.audit.judge.block_digests import framed
from processor.audit.judge.range_result import RangeResult
from processor.audit.judge.regimes import Accepted
from processor.audit.judge.settled import CLOCK_SKEW_S
from processor.audit.replay.index_output import IndexJob, IndexResult, Output, PublishedArchive, shared_out, summed
from processor.audit.replay.outcome import Progress, Show, program
from processor.audit.replay.range_bounds import Bound, Committed, Edge, Offset, Time, parse
from processor.audit.replay.record_sources import laid_end_to_end
from processor.audit.replay.task import ArchiveRange, StepFilter, Task
from processor.audit.report.manifest import About
from processor.config.settings import Settings
from processor.core.effects import FOLD_VERSION
from processor.core.rules import Rules
from processor.errors import CorruptLog, RunStepsError, UsageError
from processor.kafka.admin import Admin
from processor.kafka.client_config import Connection
from processor.kafka.partition_reader import PartitionReader

_CLIENT_ID: Final = "run-steps.replay"
LOOK_S: Final = 0.4
_MOST_INDEXES: Final = 8
"""Each look-up goes through all of them: more would make it dearer than reading the output in parallel is worth."""


class InconsistentCounts(RunStepsError):
    """The replay's own counts contradict each other: a bug of ours, and no verdict."""

    exit_code = 70


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for on the command line.

    Attributes:
        start, end: as `bounds.parse` reads them; an empty end: where the settings' group stands, else the end.
        archives: of the source. With `and_topic` the topic is read from where they end.
        published: archives of the output topics, read instead of the topics.
        capture: where archives of Event Hubs Capture say which topic and partition they are of; for `published` its
            pattern alone, they are of several.
        partitions: of the source; empty: all.
        work: where indexes and tables are put; empty: a temporary folder. Dask workers must see it, too.
        sole_source: nothing else is published to the output topics: what names another source belongs to no source.
        accepted: other fold versions and settings digests that may stand in published records.
        earlier_rules: settings that are known to have been in force before those of the configuration.
        against: a report whose steps are compared with those of this replay. The published records are read all
            the same: clock marks stand in nothing else.
    """

    start: str = "beginning"
    end: str = ""
    archives: tuple[str, ...] = ()
    and_topic: bool = False
    published: tuple[str, ...] = ()
    capture: Capture = CAPTURE
    partitions: tuple[int, ...] = ()
    only: StepFilter = StepFilter()
    record: str = ""
    record_files: str = ".jsonl.gz"
    workers: int = 1
    dask: str = ""
    report: str = ""
    created: str | None = None
    work: str = ""
    verify: bool = True
    no_progress_s: float = 60.0
    against: str = ""
    sole_source: bool = False
    accepted: Accepted = Accepted()
    earlier_rules: tuple[Rules, ...] = ()


class _Span(msgspec.Struct):
    """One partition's range as it was resolved."""

    begin: int
    end: int
    complete: bool
    switch: int = 0
    parts: tuple[ArchiveRange, ...] = ()


class Plan:
    """Finds out what there is, and makes the tasks."""

    def __init__(
        self, options: Options, settings: Settings, connection: Callable[[], Connection], show: Show, work: Path
    ) -> None:
        self._options, self._settings, self._connect, self._show, self._work = options, settings, connection, show, work
        self._topic = settings.source.topic
        self._reads_topic = not options.archives or options.and_topic
        self._spans: dict[int, _Span] = {}
        self._shortened: set[tuple[str, int]] = set()
        self._output_partitions: dict[str, int] = {}
        self._log_ends: dict[int, int] = {}
        self._partitions = 0
        self._outputs: list[Output] = []
        self._index_results: list[IndexResult] = []
        self._notes: list[str] = []
        self._reading: list[str] = []
        self._lacking: dict[int, list[tuple[str, Lacking]]] = {}
        self._questions: dict[int, list[str]] = {}

    async def prepare(self) -> None:
        start, end = self._bounds()
        if self._reads_topic:
            await self._find_on_topic(start, end)
        else:
            self._find_in_archives(start, end)
        if self._options.verify and not self._options.published:
            for topic in self._output_topics():
                await self._find_output(topic)

    async def look_again(self) -> None:
        """Where the source ends, now that the output has been read."""
        if self._reads_topic:
            async with self._reader(self._topic) as reader:
                self._log_ends = await reader.end_offsets(list(self._spans))

    def _bounds(self) -> tuple[Bound, Bound]:
        start = parse("--from", self._options.start)
        if start is Edge.END:
            raise UsageError("replay: --from: nothing lies behind the end", hint="give the end with --to")
        if self._options.end:
            return start, parse("--to", self._options.end)
        if self._reads_topic:
            return start, Committed(self._settings.source.group_id, or_end=True)
        return start, Edge.END

    def _reader(self, topic: str) -> PartitionReader:
        return PartitionReader(self._connect(), topic=topic, client_id=_CLIENT_ID)

    def _chosen(self, there: Sequence[int]) -> list[int]:
        absent = sorted(set(self._options.partitions) - set(there))
        if absent:
            raise UsageError(f"replay: --partition: {self._topic} has no partition {absent[0]}")
        return sorted(set(self._options.partitions) or there)

    # --- the source -------------------------------------------------------------------------------------------

    async def _find_on_topic(self, start: Bound, end: Bound) -> None:
        groups = {bound.group for bound in (start, end) if isinstance(bound, Committed)}
        committed: dict[tuple[str, int], int] = {}
        if groups:
            async with Admin(self._connect()) as admin:
                for group in groups:
                    rows = await admin.group_offsets(group)
                    committed |= {(group, p): c.offset for (topic, p), c in rows.items() if topic == self._topic}
        extents = self._surveyed()
        async with self._reader(self._topic) as reader:
            self._partitions = reader.partitions_of_topic()
            chosen = self._chosen(range(self._partitions))
            begins = await reader.begin_offsets(chosen)
            stable = await reader.stable_end_offsets(chosen)
            ends = await reader.end_offsets(chosen)
            times = {
                b.milliseconds: await reader.offsets_at(chosen, b.milliseconds)
                for b in (start, end)
                if isinstance(b, Time)
            }
        for p in chosen:
            if stable[p] < ends[p]:
                self._notes.append(
                    f"Partition {p}: an open transaction holds back what lies behind offset {stable[p]}: "
                    "it is not in the range."
                )

            def offset_of(bound: Bound, p: int = p) -> int:
                match bound:
                    case Edge.BEGINNING:
                        return begins[p]
                    case Edge.END:
                        return stable[p]
                    case Offset(offset):
                        return offset
                    case Time(milliseconds):
                        found = times[milliseconds][p]
                        return stable[p] if found is None else found
                    case Committed(group, or_end):
                        found = committed.get((group, p), -1)
                        if found < 0 and not or_end:
                            raise UsageError(f"replay: group {group} has committed nothing of partition {p}")
                        return stable[p] if found < 0 else found

            own = extents.get(p, [])
            low = offset_of(start)
            if start is Edge.BEGINNING:
                low = min([low, *(part.begin for part in own), *(begin for begin, _ in self._promised(p))])
            high = offset_of(end)
            if high > stable[p]:
                self._notes.append(f"Partition {p}: the log can be read up to offset {stable[p]} (asked for {high}).")
                high = stable[p]
            self._settle(p, low, max(low, high), own, begins[p])
            if 0 < begins[p] == low:
                self._notes.append(f"Partition {p}: the log begins at offset {begins[p]}; what was before is gone.")
            if high < stable[p]:
                self._notes.append(f"Partition {p}: the range ends at offset {high}; the log goes on to {stable[p]}.")

    def _find_in_archives(self, start: Bound, end: Bound) -> None:
        if isinstance(start, Committed) or isinstance(end, Committed):
            raise UsageError("replay: committed:<group> needs the topic", hint="give an offset, or add --and-topic")
        extents = self._surveyed()
        if not extents and not self._lacking:
            raise UsageError(f"replay: --archive: no records of topic {self._topic}", hint="set source.topic")
        self._partitions = 1 << 31  # not to be known from archives
        for p in self._chosen(sorted(extents.keys() | self._lacking.keys())):
            own = extents.get(p, [])
            spans = [(part.begin, part.end) for part in own] + self._promised(p)
            first, behind = min(begin for begin, _ in spans), max(end for _, end in spans)

            def offset_of(
                bound: Bound, p: int = p, own: list[ArchiveRange] = own, first: int = first, behind: int = behind
            ) -> int:
                match bound:
                    case Edge.BEGINNING:
                        return first
                    case Offset(offset):
                        return offset
                    case Time(milliseconds):
                        return self._offset_at(own, p, milliseconds, behind)
                return behind

            low = offset_of(start)
            self._settle(p, low, max(low, offset_of(end)), own, behind)

    def _offset_at(self, own: list[ArchiveRange], partition: int, milliseconds: int, behind: int) -> int:
        for part in laid_end_to_end(own, 0, 1 << 62)[0]:
            for item in self._read(partition, part):
                if not isinstance(item, Gap) and item.timestamp >= milliseconds:
                    return item.offset
        return behind

    def _surveyed(self) -> dict[int, list[ArchiveRange]]:
        found: dict[int, list[ArchiveRange]] = {}
        for path in self._options.archives:
            self._show(Progress(f"surveying {path}", 0, 0))
            reached = reach(Path(path), capture=self._options.capture)
            for (topic, partition), (begin, end) in reached.items():
                if topic == self._topic:
                    found.setdefault(partition, []).append(ArchiveRange(path, begin, end))
            for one in lacking(Path(path), reached):
                if one.held.topic == self._topic:
                    self._lacking.setdefault(one.held.partition, []).append((path, one))
        return found

    def _promised(self, partition: int) -> list[tuple[int, int]]:
        """The offsets [begin, end) that an archive says it holds of a partition, where it does not hold all of them."""
        return [(one.held.begin, one.held.end) for _, one in self._lacking.get(partition, [])]

    def _tell_lacking(self, partition: int, low: int, high: int, parts: Sequence[ArchiveRange]) -> None:
        """Say what archives lack of their own manifest. The topic, or another archive, may hold it."""
        for path, one in self._lacking.get(partition, []):
            text = f"archive {path}: {one}."
            others = [part for part in parts if part.path != path]
            missing = any(_uncovered(max(first, low), min(behind, high), others) for first, behind in one.missing)
            # Nothing but the recording could have said that what it holds ends here, and it was cut short.
            is_cut = not one.held.complete and one.there is not None and one.there[1] == high
            if not self._reads_topic and (missing or is_cut):
                self._questions.setdefault(partition, []).append(text)
            else:
                self._reading.append(f"Partition {partition}: {text}")

    def questioned(self, results: list[RangeResult]) -> list[RangeResult]:
        """The results, with what archives lack of them."""
        return [
            msgspec.structs.replace(result, trouble=(*result.trouble, *self._questions.get(result.partition, ())))
            for result in results
        ]

    def _settle(self, partition: int, low: int, high: int, own: list[ArchiveRange], topic_begin: int) -> None:
        parts, twice = laid_end_to_end(own, low, high)
        for part in twice:
            self._compare(partition, part, parts)
        switch = max((part.end for part in parts), default=low) if self._reads_topic else high
        if self._reads_topic and parts and switch > topic_begin and switch < high:
            self._reading.append(f"Partition {partition}: archives up to offset {switch}, the topic from there on.")
        self._spans[partition] = _Span(low, high, low == 0, switch, tuple(parts))
        self._tell_lacking(partition, low, high, parts)

    def _compare(self, partition: int, twice: ArchiveRange, parts: list[ArchiveRange]) -> None:
        """What two archives hold must be the same in both."""
        one = self._records(partition, [twice])
        other = self._records(
            partition, [ArchiveRange(p.path, max(p.begin, twice.begin), min(p.end, twice.end)) for p in parts]
        )
        for mine, theirs in zip(one, other, strict=False):
            if mine != theirs:
                raise CorruptLog(
                    f"archive {twice.path}: {self._topic}-{partition}: offset {min(mine[0], theirs[0])} differs from "
                    "what another archive holds",
                    hint="find out which is right; the other cannot be used",
                )
        self._reading.append(
            f"Partition {partition}: offsets {twice.begin} to {twice.end - 1} are in more than one archive, and agree."
        )

    def _records(self, partition: int, parts: Sequence[ArchiveRange]) -> Iterator[tuple[int, bytes]]:
        for part in parts:
            if part.begin < part.end:
                for item in self._read(partition, part):
                    if not isinstance(item, Gap):
                        yield item.offset, framed(item)

    def _read(self, partition: int, part: ArchiveRange) -> Iterator[ArchivedRecord | Gap]:
        where, capture = (self._topic, partition), self._options.capture
        return read(Path(part.path), only=where, begin=part.begin, end=part.end, capture=capture)

    # --- what was published -----------------------------------------------------------------------------------

    def _output_topics(self) -> list[str]:
        topics = {topic for topic in self._settings.outcome_topics.values() if topic}
        return sorted(topics | {self._settings.output.dead_letter})

    async def _find_output(self, topic: str) -> None:
        async with self._reader(topic) as reader:
            partitions = list(range(reader.partitions_of_topic()))
            begins = await reader.begin_offsets(partitions)
            ends = await reader.end_offsets(partitions)
        self._output_partitions[topic] = len(partitions)
        self._shortened.update((topic, p) for p, begin in begins.items() if begin > 0)
        if gone := [p for p, begin in begins.items() if begin > 0]:
            self._notes.append(
                f"{topic}: retention has taken the first records of {'partition' if len(gone) == 1 else 'partitions'} "
                f"{', '.join(map(str, gone))}: what was published there before is not judged."
            )
        self._outputs += [Output(topic, p, begins[p], ends[p]) for p in partitions]

    def index_jobs(self) -> list[IndexJob]:
        """The jobs that read the output, none without `verify`."""
        settings, options = self._settings, self._options
        if not options.verify:
            return []
        for path in options.published:
            _require_as_recorded(Path(path), options.capture)
        of_archives, of_topics = [], []
        for number, path in enumerate(options.published):
            of_archives += [(size, PublishedArchive(number, path, within)) for within, size in shares(Path(path))]
        if not options.published:
            of_topics = [(max(0, output.end - output.begin), output) for output in self._outputs]
        jobs = min(_MOST_INDEXES, len(self._spans) if options.dask else options.workers)
        return [
            IndexJob(
                source=self._topic,
                partitions=self._partitions,
                wanted=tuple(sorted(self._spans)),
                topics=tuple(self._output_topics()),
                dead_letter=settings.output.dead_letter,
                work=str(self._work.resolve()),
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
        """What came of those jobs, in their order."""
        self._index_results = found
        for one in found:
            self._shortened.update(one.shortened)
        # Where an output partition begins, the archive says that comes first on the command line.
        firsts: dict[tuple[str, int], tuple[int, int]] = {}
        for number, topic, partition, first in sorted(begin for one in found for begin in one.begins):
            firsts.setdefault((topic, partition), (number, first))
        self._shortened.update(place for place, (_, first) in firsts.items() if first > 0)
        self._notes += [
            f"{topic}, partition {p}: an open transaction holds back what lies behind offset {offset}; end it "
            f"(kafka-transactions.sh find-hanging --topic {topic}, then abort) and replay again."
            for topic, p, offset in sorted(held for one in found for held in one.held)
        ]
        if self._options.verify and self._options.published:
            self._notes.append(
                "On which partition a key stands was not compared: an archive does not say how many there are."
            )

    # --- tasks ------------------------------------------------------------------------------------------------

    def tasks(self) -> list[Task]:
        settings, options = self._settings, self._options
        latest_mark_ms = round((time.time() + CLOCK_SKEW_S) * 1000)
        return [
            Task(
                topic=self._topic,
                partition=partition,
                begin=span.begin,
                end=span.end,
                complete=span.complete,
                rules=settings.rules(),
                outcome_topics=settings.outcome_topics,
                dead_letter=settings.output.dead_letter,
                output_partitions=self._output_partitions,
                work=str(self._work.resolve()),
                indexes=tuple(one.name for one in self._index_results),
                log_end=self._log_ends.get(partition),
                latest_mark_ms=latest_mark_ms,
                accepted=options.accepted,
                earlier_rules=options.earlier_rules,
                switch=span.switch,
                archives=span.parts,
                capture=options.capture,
                shortened=tuple(sorted(self._shortened)),
                held=tuple(sorted({(topic, p) for one in self._index_results for topic, p, _ in one.held})),
                holes=tuple(sorted({place for one in self._index_results for place in one.holes})),
                broker_times=tuple(sorted(place for one in self._index_results for place in one.broker_times)),
                connection=settings.kafka.connection() if self._reads_topic else None,
                record=str(Path(options.record).resolve()) if options.record else "",
                record_files=options.record_files,
                verify=options.verify,
                tables=bool(options.report or options.against),
                only=options.only,
                no_progress_s=options.no_progress_s,
            )
            for partition, span in sorted(self._spans.items())
        ]

    def outputs(self) -> dict[str, int]:
        """What was read of the output topics, and what of it was not in scope."""
        if not self._options.verify:
            return {}
        read, apart, unreadable = summed(self._index_results)
        return {
            **dict(sorted(read.items())),
            "of another source": apart.sources.total(),
            "of partitions not asked for": apart.partitions.total(),
            "unreadable": unreadable,
        }

    def trouble(self, results: Sequence[RangeResult]) -> list[str]:
        read, not_judged, unreadable = summed(self._index_results)
        compared = sum(result.published for result in results)
        apart = not_judged.sources.total() + not_judged.partitions.total() + unreadable
        if not self._options.verify or read.total() == compared + apart:
            return []
        return [f"{read.total()} records read from the output topics, {compared} compared, {apart} out of scope"]

    def about(self) -> About:
        settings, options, only = self._settings, self._options, self._options.only
        source = "topic" if self._reads_topic else ""
        if options.archives:
            source = " and ".join(filter(None, ("archives", source)))
        named = {"steps": only.steps, "runs": only.runs, "threads": only.threads}
        return About(
            program=program(),
            fold_version=FOLD_VERSION,
            topic=self._topic,
            source=source,
            rules=settings.rules(),
            outcome_topics=settings.outcome_topics,
            dead_letter=settings.output.dead_letter,
            output_partitions=dict(sorted(self._output_partitions.items())),
            narrowed={name: sorted(ids) for name, ids in named.items() if ids},
            notes=self._notes,
            reading=self._reading,
            verified=options.verify,
            sole_source=options.sole_source,
            not_judged=summed(self._index_results)[1],
        )


def _uncovered(low: int, high: int, parts: Sequence[ArchiveRange]) -> bool:
    """Whether some offset of [low, high) is in none of the parts, which do not overlap."""
    return low < high and sum(max(0, min(high, part.end) - max(low, part.begin)) for part in parts) < high - low


def _require_as_recorded(path: Path, capture: Capture) -> None:
    """Refuse output that lacks what its manifest names: every record of it would be accused as missing."""
    if read_manifest(path):
        for one in lacking(path, reach(path, capture=capture)):
            raise ArchiveError(f"archive {path}: {one}", hint="record it again, or fetch the whole of it")
