"""The command `replay`: survey source and output, run the jobs and tasks, sum up the verdict, write the report.

Order matters: first the ends of the source are fixed, then those of the output topics, which are read up to there,
then the source's ends are looked up again. So nothing that a living worker writes meanwhile looks wrong, and nothing
that was published before can name an offset that the log does not have.

What takes time is done by independent jobs, on one executor: first the output is indexed (`index_output`), then each
source partition is folded and compared (`run_task`).
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from processor.archives import Recorder, manifest
from processor.audit.judge.range_result import RangeResult
from processor.audit.judge.verdicts import Finding
from processor.audit.replay.index_output import IndexJob, IndexResult, progress_path, run_index_job
from processor.audit.replay.options import Options
from processor.audit.replay.outcome import Progress, Replayed, Show, program
from processor.audit.replay.output_survey import OutputSurvey
from processor.audit.replay.plan import about_replay, make_tasks
from processor.audit.replay.process_pool import processes
from processor.audit.replay.progress_file import read_progress
from processor.audit.replay.run_task import run_task
from processor.audit.replay.source_survey import SourceSurvey
from processor.audit.replay.split_ids import split_among
from processor.audit.replay.task import Task, TaskResult
from processor.audit.report.manifest import About, not_judged, open_questions, outcome, total_counts, total_coverage
from processor.config.settings import Settings
from processor.errors import RunStepsError, UsageError

if TYPE_CHECKING:  # its library takes long to load, and archives need none
    from processor.kafka.client_config import Connection

_LOOK_S: Final = 0.4
_Job = TypeVar("_Job")
_Result = TypeVar("_Result")


class InconsistentCounts(RunStepsError):
    """The replay's own counts contradict each other: a bug of ours, and no verdict."""

    exit_code = 70


def replay(options: Options, settings: Settings, connection: Callable[[], Connection], show: Show) -> Replayed:
    """Read, fold, compare and report.

    Args:
        connection: asked only where a broker is needed.

    Raises:
        UsageError, ArchiveError, BrokerUnavailable, BrokerRefused, CorruptLog, InconsistentCounts.
    """
    if options.created is not None:
        _require_iso(options.created)
    if options.report and Path(options.report).exists() and any(Path(options.report).iterdir()):
        raise UsageError(f"replay: --report: {options.report}: not empty", hint="name a new folder for the report")
    if options.against:
        from processor.audit.report.compare import require_whole

        require_whole(Path(options.against), program())
    with _folder(options.work) as work, _executor(options) as executor:
        source, output = SourceSurvey(options, settings, connection, show), OutputSurvey(options, settings, connection)
        asyncio.run(_find(source, output))
        if options.against:
            from processor.audit.report.compare import require_same_kind

            require_same_kind(Path(options.against), source.words())
        pool = _Pool(executor, options, show)
        output.indexed(_run_index_jobs(output.index_jobs(source, work), pool, work))
        asyncio.run(source.look_again())
        tasks = make_tasks(options, settings, source, output, work)
        if options.record:
            begin_recording(options, tasks)
        results = _run_tasks(tasks, pool, work)
        if options.record:
            manifest.finish(Path(options.record), [(task.topic, task.partition) for task in tasks])
        ranges = [result.range for result in results]
        trouble = [line for one in ranges for line in one.trouble] + output.trouble(ranges)
        if trouble:
            raise InconsistentCounts("replay: the counts do not add up: " + "; ".join(trouble), hint="please report it")
        first = [finding for result in results for finding in result.first]
        output.note_missing(ranges)
        split = split_among([path for result in results for path in result.ids])
        about = about_replay(options, settings, source, output, split)
        return _summed(about, output.outputs(), source.questioned(ranges), first, options, work)


async def _find(source: SourceSurvey, output: OutputSurvey) -> None:
    await source.find()
    await output.find()


def begin_recording(options: Options, tasks: Sequence[Task]) -> None:
    """Write into the archive that it is being recorded, and which offsets it is to hold, before any of them."""
    folder = Path(options.record)
    Recorder(
        folder,
        files=options.record_files,
        has_arrivals=any(task.is_captured for task in tasks),
        lacks_headers=any(task.is_headless for task in tasks),
    )
    manifest.begin(folder, {(task.topic, task.partition): (task.begin, task.end) for task in tasks})


def _summed(
    about: About,
    outputs: dict[str, int],
    ranges: list[RangeResult],
    first: list[Finding],
    options: Options,
    work: Path,
) -> Replayed:
    against = None
    # What reports are read and drawn with takes a while to load.
    if options.against:
        from processor.audit.report.compare import compare_steps

        against = compare_steps(Path(options.against), work, ranges)
    evidence = root = ""
    if options.report:
        from processor.audit.report import folder as reports

        written = reports.write(Path(options.report), work, ranges, about, created=options.created)
        evidence, root = written.evidence, written.root
    return Replayed(
        verdict=outcome(about, ranges),
        counts=total_counts(ranges),
        coverage=total_coverage(ranges),
        about=about,
        results=ranges,
        first=first,
        questions=open_questions(about, ranges),
        not_judged=not_judged(about, ranges),
        outputs=outputs,
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


class _Pool:
    """Runs jobs on the executor and shows their progress."""

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


def _run_index_jobs(jobs: Sequence[IndexJob], pool: _Pool, work: Path) -> list[IndexResult]:
    total = sum(max(0, output.end - output.begin) for job in jobs for output in job.outputs)

    def at() -> Progress:
        done = sum(read_progress(progress_path(work, job.number)) for job in jobs)
        return Progress("reading the output", min(done, total) if total else done, total)

    return pool.run(run_index_job, jobs, at) if jobs else []


def _run_tasks(tasks: Sequence[Task], pool: _Pool, work: Path) -> list[TaskResult]:
    total = sum(task.end - task.begin for task in tasks)
    # The longest first: the last to end decides how long it takes.
    ordered = sorted(tasks, key=lambda task: task.begin - task.end)
    results = pool.run(run_task, ordered, lambda: Progress("folding and comparing", _progress(tasks, work), total))
    return sorted(results, key=lambda result: result.range.partition)


def _progress(tasks: Sequence[Task], work: Path) -> int:
    done = 0
    for task in tasks:
        offset = read_progress(work / f"progress-{task.partition:05d}")
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
