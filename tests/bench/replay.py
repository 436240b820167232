"""The replay with all its verdicts: what a record of the source costs, what a second core brings, and the memory.

The archives are of the standard job, a partition each, and of what an honest worker publishes of it; the topic is the
worker bench's own, with the output of the worker that is measured in the same round. Each replay is a process of its
own (and, where asked, the processes of its pool), and must end with "proven".
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
import uuid
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final

from processor.archives import ArchivedRecord, Recorder
from processor.audit.replay.task import Task
from processor.audit.replay.task_judge import expected_records
from processor.broker import Broker
from processor.core.partition import PartitionState
from tests.bench import worker
from tests.bench.load import Expected, Job, records
from tests.bench.measure import Book, Build, Run, child, ended, follow
from tests.bench.replayed import PARTITIONS, TOPIC, settings

FILES: Final = (".jsonl", ".parquet")
LIVE: Final = "worker: exactly once, on the same topic"

FOLDS: Final = "replay: two independent folds by the clock"
"""What the machine gives a second process that waits for nothing: no replay on two can gain more."""

_BATCH: Final = 4_000
_FOLD_EVENTS: Final = 300_000
_PER_S: Final = 125
"""Records of a partition in a second of record time: a step is forgotten long before the range has ended."""


def archived(book: Book, rounds: int, events: int, build: Build) -> None:
    """From archives: both kinds, one process and two, a tenth of the range and all of it."""
    with tempfile.TemporaryDirectory(prefix="run-steps-bench-") as folder:
        _make_all(Path(folder), events)
        runs: dict[str, list[Run]] = {}
        gains: list[float] = []
        for _ in range(rounds):
            gains.append(_gain(build))
            for files in FILES:
                for workers in (1, 2):
                    name = f"replay: {files} archive, {_processes(workers)}"
                    runs.setdefault(name, []).append(_audit("archive", folder, files, workers, events, build))
            tenth = _audit("archive", folder, FILES[0], 1, events // 10, build)
            runs.setdefault("replay: a tenth of the range", []).append(tenth)
        book.add(f"{FOLDS} (beside the archives)", gains, "x one alone")
        _told(book, runs, gains)
        whole, tenth_of_it = runs[f"replay: {FILES[0]} archive, {_processes(1)}"], runs["replay: a tenth of the range"]
        small = "replay: memory at its peak, a tenth of the range"
        before = [run.rss_bytes / 2**20 for run in tenth_of_it]
        book.add(small, before, "MiB")
        name = f"replay: memory at its peak, {events // 1000} k events"
        book.add(name, [run.rss_bytes / 2**20 for run in whole], "MiB", against=(small, before))


def from_topic(book: Book, broker: Broker, rounds: int, events: int, build: Build) -> None:
    """From the topic, after the worker whose rate it is held against."""
    topic = f"bench.replay.{uuid.uuid4().hex[:8]}"
    expected = worker.put_job(broker, topic, Job(events, seed=3, partitions=PARTITIONS))
    live: list[Run] = []
    runs: dict[str, list[Run]] = {}
    reported: list[Run] = []
    gains: list[float] = []
    for number in range(rounds):
        life = worker.Life(broker, topic, f"{topic}.{number}", PARTITIONS, {}, build)
        live.append(life.run(expected.events))
        gains.append(_gain(build))
        for workers in (1, 2):
            run = _audit("topic", "", "", workers, expected.events, build, env=life.env, broker=broker)
            runs.setdefault(f"replay: topic, {_processes(workers)}", []).append(run)
        with tempfile.TemporaryDirectory(prefix="run-steps-bench-") as folder:
            reported.append(_audit("topic", folder, "", 1, expected.events, build, env=life.env, broker=broker))
    book.add(LIVE, [run.per_cpu_s for run in live], "events/CPU-s")
    book.add(FOLDS, gains, "x one alone")
    against = (LIVE, [run.per_cpu_s for run in live])
    _told(book, runs, gains, against=against)
    book.add("replay: topic, with a report", [run.per_cpu_s for run in reported], "events/CPU-s", against=against)


def _gain(build: Build) -> float:
    return _audit("folds", "", "", 2, _FOLD_EVENTS, build).more["gain"]


def _processes(workers: int) -> str:
    return "1 process" if workers == 1 else f"{workers} processes"


def _told(
    book: Book, runs: dict[str, list[Run]], gains: list[float], against: tuple[str, list[float]] | None = None
) -> None:
    for name, taken in runs.items():
        if not name.endswith(("process", "processes")):
            continue
        book.add(name, [run.per_cpu_s for run in taken], "events/CPU-s", against=against)
        alone = name.replace(_processes(2), _processes(1))
        for what, rates in (
            ("by the clock", {n: [run.per_s for run in runs[n]] for n in (name, alone)}),
            (
                "by the clock, output read",
                {n: [run.events / run.more["fold_s"] for run in runs[n]] for n in (name, alone)},
            ),
        ):
            first = (f"{alone}: {what}", rates[alone]) if alone != name else None
            book.add(f"{name}: {what}", rates[name], "events/s", against=first)
        if alone != name:
            gained = [two.per_s / one.per_s / gain for one, two, gain in zip(runs[alone], taken, gains, strict=True)]
            book.add(f"{name}: of what two independent folds gain", gained, "x")


def _audit(
    what: str,
    folder: str,
    files: str,
    workers: int,
    events: int,
    build: Build,
    env: dict[str, str] | None = None,
    broker: Broker | None = None,
) -> Run:
    process = child("tests.bench.replayed", what, str(events), folder, files, str(workers), env=env, build=build)
    try:
        return follow(process, broker, patience_s=600.0 + events / 5_000)
    finally:
        if ended(process) and sys.exc_info()[0] is None:
            raise RuntimeError(f"{process.args!r}: see build/bench/replayed.log")


# --- the archives ---------------------------------------------------------------------------------------------------


def _make_all(folder: Path, events: int) -> None:
    with ProcessPoolExecutor(os.cpu_count(), mp_context=multiprocessing.get_context("spawn")) as pool:
        list(pool.map(partial(_make, folder, -(-events // PARTITIONS)), range(PARTITIONS)))


def _make(folder: Path, events: int, partition: int) -> None:
    """One partition's source, in each kind of file, and what is published of it.

    What it has published stands on a partition of that number: where a key belongs is not compared in archives.
    """
    config = settings()
    outcomes, dead = config.outcome_topics, config.output.dead_letter
    task = Task(
        topic=TOPIC, partition=partition, begin=0, end=0, complete=True, rules=config.rules(),
        outcome_topics=outcomes, dead_letter=dead, output_partitions={}, work="",
    )  # fmt: skip
    places = expected_records(task)
    state = PartitionState(TOPIC, partition, config.rules())
    sources = [Recorder(folder / files, files=files) for files in FILES]
    published = Recorder(folder / "published", files=".jsonl")
    ends = dict.fromkeys((*outcomes.values(), dead), 0)
    job = Job(events, seed=100 + partition, partitions=1, open_runs=2_000 // PARTITIONS, per_s=_PER_S)
    made = (
        ArchivedRecord(TOPIC, partition, offset, m.timestamp, m.key, m.value)
        for offset, m in enumerate(records(job, Expected()))
    )
    while batch := list(islice(made, _BATCH)):
        for record in batch:
            for source in sources:
                source.write(record)
        for effect in state.apply(batch):
            placed = places.whole(effect)
            if placed is None:
                continue
            published.write(
                ArchivedRecord(
                    placed.topic, partition, ends[placed.topic], placed.timestamp, placed.key, placed.value,
                    tuple(placed.headers),
                )
            )  # fmt: skip
            ends[placed.topic] += 1
        state.restore_point_at(state.next_offset)
    for recorder in (*sources, published):
        recorder.close()
