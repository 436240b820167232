"""The command `replay`: where the range begins and ends, the published records read, tasks handed out, the verdict.

Order matters: first the ends of the source are fixed, then those of the output topics, which are read up to there,
then the source's ends are looked up again. So nothing that a living worker writes meanwhile looks wrong, and nothing
that was published before can name an offset that the log does not have.

What takes time is done by independent jobs, on one executor: first the output is shelved (`processor.replay.shelving`),
then each source partition is folded and compared (`run_task`).
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import msgspec

from processor.archives import (
    CAPTURE,
    ArchivedRecord,
    ArchiveError,
    Capture,
    Gap,
    Lacking,
    Recorder,
    lacking,
    manifest,
    reach,
    read,
    read_manifest,
    shares,
)
from processor.config import Settings
from processor.core.effects import FOLD_VERSION
from processor.core.links import framed
from processor.errors import CorruptLog, RunStepsError, UsageError
from processor.kafka.admin import Admin
from processor.kafka.consumer import PartitionReader
from processor.kafka.security import Connection
from processor.replay import Only, Part, PartitionResult, Task, run_task
from processor.replay.bounds import Bound, Committed, Edge, Offset, Time, parse
from processor.replay.pool import processes
from processor.replay.shelving import (
    Output,
    PublishedArchive,
    Shelved,
    Shelving,
    progress_path,
    run_shelving,
    shared_out,
    summed,
)
from processor.replay.sources import laid_end_to_end
from processor.report.manifest import About, Outcome, Range, open_questions, outcome, total_counts, total_coverage

if TYPE_CHECKING:
    from processor.report.against import Against

EXIT_PROVEN: Final = 0
EXIT_DIFFERENT: Final = 3
EXIT_UNPROVABLE: Final = 4
EXIT_CODES: Final = {
    Outcome.PROVEN: EXIT_PROVEN,
    Outcome.DIFFERENT: EXIT_DIFFERENT,
    Outcome.UNPROVABLE: EXIT_UNPROVABLE,
}

_CLIENT_ID: Final = "run-steps.replay"
_LOOK_S: Final = 0.4
_MOST_SHELVES: Final = 8
"""Each look-up goes through all of them: more would make it dearer than reading the output in parallel is worth."""


class AddsUpNot(RunStepsError):
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
        work: where shelves and spills are put; empty: a temporary folder. Dask workers must see it, too.
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
    only: Only = Only()
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


class Progress(msgspec.Struct, frozen=True):
    """How far it is. `what` is the stage in words, `done` and `total` are offsets (total 0: not known)."""

    what: str
    done: int
    total: int


Show = Callable[[Progress], None]
_Job = TypeVar("_Job")
_Result = TypeVar("_Result")


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """The whole result."""

    verdict: Outcome
    counts: dict[str, dict[str, int]]
    coverage: dict[str, int]
    about: About
    results: list[PartitionResult]
    questions: list[str]
    outputs: dict[str, int]
    report: str = ""
    evidence: str = ""
    root: str = ""
    against: Against | None = None

    @property
    def exit_code(self) -> int:
        """With `against` it is asked whether log or steps differ: what an older fold published proves nothing."""
        if self.against is not None:
            differs = self.against.differing or self.against.blocks or self.verdict is Outcome.DIFFERENT
            return EXIT_DIFFERENT if differs else EXIT_PROVEN
        return EXIT_CODES[self.verdict]


class _Span(msgspec.Struct):
    """One partition's range as it was resolved."""

    begin: int
    end: int
    complete: bool
    switch: int = 0
    parts: tuple[Part, ...] = ()


def program() -> str:
    """How reports name this program."""
    return f"run-steps {version('run-steps')}"


def replay(options: Options, settings: Settings, connection: Callable[[], Connection], show: Show) -> Replayed:
    """Read, fold, compare and report.

    Args:
        connection: asked only where a broker is needed.

    Raises:
        UsageError, ArchiveError, BrokerUnavailable, BrokerRefused, CorruptLog, AddsUpNot.
    """
    if options.created is not None:
        _require_iso(options.created)
    if options.report and Path(options.report).exists() and any(Path(options.report).iterdir()):
        raise UsageError(f"replay: --report: {options.report}: not empty", hint="name a new folder for the report")
    if options.against:
        from processor.report.against import require_whole

        require_whole(Path(options.against), program())
    with _folder(options.work) as work, _executor(options) as executor:
        plan = _Plan(options, settings, connection, show, work)
        asyncio.run(plan.prepare())
        pool = _Pool(executor, options, show)
        plan.shelved(_shelve(plan.shelvings(), pool, work))
        asyncio.run(plan.look_again())
        tasks = plan.tasks()
        if options.record:
            begin_recording(options, tasks)
        results = _run_all(tasks, pool, work)
        if options.record:
            manifest.finish(Path(options.record), [(task.topic, task.partition) for task in tasks])
        trouble = [line for result in results for line in result.trouble] + plan.trouble(results)
        if trouble:
            raise AddsUpNot("replay: the counts do not add up: " + "; ".join(trouble), hint="please report it")
        return _summed(plan, plan.questioned(results), options, work)


def begin_recording(options: Options, tasks: Sequence[Task]) -> None:
    """Write into the archive that it is being recorded, and which offsets it is to hold, before any of them."""
    folder = Path(options.record)
    Recorder(folder, files=options.record_files)
    manifest.begin(folder, {(task.topic, task.partition): (task.begin, task.end) for task in tasks})


def _summed(plan: _Plan, results: list[PartitionResult], options: Options, work: Path) -> Replayed:
    about = plan.about()
    ranges = [msgspec.convert(result, Range, from_attributes=True) for result in results]
    against = None
    # What reports are read and drawn with takes a while to load.
    if options.against:
        from processor.report.against import compare_steps

        against = compare_steps(Path(options.against), work, ranges)
    evidence = root = ""
    if options.report:
        from processor.report import folder as reports

        written = reports.write(Path(options.report), work, results, about, created=options.created)
        evidence, root = written.evidence, written.root
    return Replayed(
        verdict=outcome(about, ranges),
        counts=total_counts(ranges),
        coverage=total_coverage(ranges),
        about=about,
        results=results,
        questions=open_questions(about, ranges),
        outputs=plan.outputs(),
        report=options.report,
        evidence=evidence,
        root=root,
        against=against,
    )


def _require_iso(created: str) -> None:
    try:
        datetime.fromisoformat(created)
    except ValueError:
        raise UsageError(
            f"replay: --created: not a time in ISO 8601 (got {created[:80]!r})", hint="2026-11-23T16:00:00Z"
        ) from None


@contextmanager
def _folder(work: str) -> Iterator[Path]:
    if work:
        Path(work).mkdir(parents=True, exist_ok=True)
        if any(Path(work).iterdir()):
            raise UsageError(f"replay: --work: {work}: not empty", hint="name a new folder")
        yield Path(work)
        return
    with tempfile.TemporaryDirectory(prefix="run-steps-replay-") as made:
        yield Path(made)


class _Plan:
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
        self._shelved: list[Shelved] = []
        self._notes: list[str] = []
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
                bound: Bound, p: int = p, own: list[Part] = own, first: int = first, behind: int = behind
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

    def _offset_at(self, own: list[Part], partition: int, milliseconds: int, behind: int) -> int:
        for part in laid_end_to_end(own, 0, 1 << 62)[0]:
            for item in self._read(partition, part):
                if not isinstance(item, Gap) and item.timestamp >= milliseconds:
                    return item.offset
        return behind

    def _surveyed(self) -> dict[int, list[Part]]:
        found: dict[int, list[Part]] = {}
        for path in self._options.archives:
            self._show(Progress(f"surveying {path}", 0, 0))
            reached = reach(Path(path), capture=self._options.capture)
            for (topic, partition), (begin, end) in reached.items():
                if topic == self._topic:
                    found.setdefault(partition, []).append(Part(path, begin, end))
            for one in lacking(Path(path), reached):
                if one.held.topic == self._topic:
                    self._lacking.setdefault(one.held.partition, []).append((path, one))
        return found

    def _promised(self, partition: int) -> list[tuple[int, int]]:
        """The offsets [begin, end) that an archive says it holds of a partition, where it does not hold all of them."""
        return [(one.held.begin, one.held.end) for _, one in self._lacking.get(partition, [])]

    def _tell_lacking(self, partition: int, low: int, high: int, parts: Sequence[Part]) -> None:
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
                self._notes.append(f"Partition {partition}: {text}")

    def questioned(self, results: list[PartitionResult]) -> list[PartitionResult]:
        """The results, with what archives lack of them."""
        return [
            msgspec.structs.replace(result, trouble=(*result.trouble, *self._questions.get(result.partition, ())))
            for result in results
        ]

    def _settle(self, partition: int, low: int, high: int, own: list[Part], topic_begin: int) -> None:
        parts, twice = laid_end_to_end(own, low, high)
        for part in twice:
            self._compare(partition, part, parts)
        switch = max((part.end for part in parts), default=low) if self._reads_topic else high
        if self._reads_topic and parts and switch > topic_begin and switch < high:
            self._notes.append(f"Partition {partition}: archives up to offset {switch}, the topic from there on.")
        self._spans[partition] = _Span(low, high, low == 0, switch, tuple(parts))
        self._tell_lacking(partition, low, high, parts)

    def _compare(self, partition: int, twice: Part, parts: list[Part]) -> None:
        """What two archives hold must be the same in both."""
        one = self._records(partition, [twice])
        other = self._records(
            partition, [Part(p.path, max(p.begin, twice.begin), min(p.end, twice.end)) for p in parts]
        )
        for mine, theirs in zip(one, other, strict=False):
            if mine != theirs:
                raise CorruptLog(
                    f"archive {twice.path}: {self._topic}-{partition}: offset {min(mine[0], theirs[0])} differs from "
                    "what another archive holds",
                    hint="find out which is right; the other cannot be used",
                )
        self._notes.append(
            f"Partition {partition}: offsets {twice.begin} to {twice.end - 1} are in more than one archive, and agree."
        )

    def _records(self, partition: int, parts: Sequence[Part]) -> Iterator[tuple[int, bytes]]:
        for part in parts:
            if part.begin < part.end:
                for item in self._read(partition, part):
                    if not isinstance(item, Gap):
                        yield item.offset, framed(item)

    def _read(self, partition: int, part: Part) -> Iterator[ArchivedRecord | Gap]:
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
        self._outputs += [Output(topic, p, begins[p], ends[p]) for p in partitions]

    def shelvings(self) -> list[Shelving]:
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
        jobs = min(_MOST_SHELVES, len(self._spans) if options.dask else options.workers)
        return [
            Shelving(
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
                connection=settings.kafka.connection() if of_topics else None,
            )
            for number, own in enumerate(shared_out([*of_archives, *of_topics], jobs))
        ]

    def shelved(self, found: list[Shelved]) -> None:
        """What came of those jobs, in their order."""
        self._shelved = found
        for one in found:
            self._shortened.update(one.shortened)
        # Where an output partition begins, the archive says that comes first on the command line.
        firsts: dict[tuple[str, int], tuple[int, int]] = {}
        for number, topic, partition, first in sorted(begin for one in found for begin in one.begins):
            firsts.setdefault((topic, partition), (number, first))
        self._shortened.update(place for place, (_, first) in firsts.items() if first > 0)
        self._notes += [
            f"{topic}, partition {p}: an open transaction holds back what lies behind offset {offset}."
            for topic, p, offset in sorted(held for one in found for held in one.held)
        ]
        if self._options.verify and self._options.published:
            self._notes.append(
                "On which partition a key stands was not compared: an archive does not say how many there are."
            )

    # --- tasks ------------------------------------------------------------------------------------------------

    def tasks(self) -> list[Task]:
        settings, options = self._settings, self._options
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
                shelves=tuple(one.name for one in self._shelved),
                log_end=self._log_ends.get(partition),
                switch=span.switch,
                archives=span.parts,
                capture=options.capture,
                shortened=tuple(sorted(self._shortened)),
                connection=settings.kafka.connection() if self._reads_topic else None,
                record=str(Path(options.record).resolve()) if options.record else "",
                record_files=options.record_files,
                verify=options.verify,
                evidence=bool(options.report or options.against),
                only=options.only,
                no_progress_s=options.no_progress_s,
            )
            for partition, span in sorted(self._spans.items())
        ]

    def outputs(self) -> dict[str, int]:
        """What was read of the output topics, and what of it was not in scope."""
        if not self._options.verify:
            return {}
        read, elsewhere, other_partitions, unreadable = summed(self._shelved)
        return {
            **dict(sorted(read.items())),
            "of another source": elsewhere,
            "of partitions not asked for": other_partitions,
            "unreadable": unreadable,
        }

    def trouble(self, results: Sequence[PartitionResult]) -> list[str]:
        read, *apart = summed(self._shelved)
        compared = sum(result.published for result in results)
        if not self._options.verify or read.total() == compared + sum(apart):
            return []
        return [f"{read.total()} records read from the output topics, {compared} compared, {sum(apart)} out of scope"]

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
            verified=options.verify,
        )


def _uncovered(low: int, high: int, parts: Sequence[Part]) -> bool:
    """Whether some offset of [low, high) is in none of the parts, which do not overlap."""
    return low < high and sum(max(0, min(high, part.end) - max(low, part.begin)) for part in parts) < high - low


def _require_as_recorded(path: Path, capture: Capture) -> None:
    """Refuse output that lacks what its manifest names: every record of it would be accused as missing."""
    if read_manifest(path):
        for one in lacking(path, reach(path, capture=capture)):
            raise ArchiveError(f"archive {path}: {one}", hint="record it again, or fetch the whole of it")


# --- running ------------------------------------------------------------------------------------------------------


class _Pool:
    """The executor, and how its jobs are waited for."""

    def __init__(self, executor: Executor, options: Options, show: Show) -> None:
        self._executor, self._options, self._show = executor, options, show

    def run(self, do: Callable[[_Job], _Result], jobs: Sequence[_Job], at: Callable[[], Progress]) -> list[_Result]:
        """All of the jobs, begun in this order; `at` says how far they are."""
        futures: list[Future[_Result]] = [self._executor.submit(do, job) for job in jobs]
        pending = set(futures)
        self._show(at())
        try:
            while pending:
                if self._options.dask:
                    # Dask's futures are its own: they are asked, not waited for with the standard library's `wait`.
                    time.sleep(_LOOK_S)
                    done = {future for future in pending if future.done()}
                else:
                    done, _ = wait(pending, timeout=_LOOK_S, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
                pending -= done
                self._show(at())
        except BaseException:
            for future in futures:
                future.cancel()
            raise
        return [future.result() for future in futures]


def _shelve(jobs: Sequence[Shelving], pool: _Pool, work: Path) -> list[Shelved]:
    total = sum(max(0, output.end - output.begin) for job in jobs for output in job.outputs)

    def at() -> Progress:
        done = sum(_told(progress_path(work, job.number)) for job in jobs)
        return Progress("reading the output", min(done, total) if total else done, total)

    return pool.run(run_shelving, jobs, at) if jobs else []


def _run_all(tasks: Sequence[Task], pool: _Pool, work: Path) -> list[PartitionResult]:
    total = sum(task.end - task.begin for task in tasks)
    # The longest first: the last to end decides how long it takes.
    ordered = sorted(tasks, key=lambda task: task.begin - task.end)
    results = pool.run(run_task, ordered, lambda: Progress("folding and comparing", _progress(tasks, work), total))
    return sorted(results, key=lambda result: result.partition)


def _told(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0


def _progress(tasks: Sequence[Task], work: Path) -> int:
    done = 0
    for task in tasks:
        offset = _told(work / f"progress-{task.partition:05d}")
        done += min(max(0, offset - task.begin), task.end - task.begin)
    return done


@contextmanager
def _executor(options: Options) -> Iterator[Executor]:
    if options.dask:
        if not options.work:
            raise UsageError("replay: --dask needs --work", hint="name a new folder that all workers see")
        try:
            from distributed import Client
        except ImportError:
            raise UsageError("replay: --dask needs more", hint='pip install "run-steps[dask]"') from None
        connect: Any = Client
        client = connect(options.dask)
        try:
            yield cast(Executor, client.get_executor(pure=False))
        finally:
            client.close()
        return
    if options.workers == 1:
        with ThreadPoolExecutor(1) as here:
            yield here
        return
    with processes(options.workers) as pool:
        yield pool
