"""The measured process of the replay bench. Apart, and small: each process of a pool loads the main module anew.

As the command does, it begins the pool before it loads what it needs itself; what is measured begins after both.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.bench.measured_process import MeasuredProcess, peak_bytes

if TYPE_CHECKING:
    from processor.audit.replay.outcome import Progress
    from processor.config.settings import Settings
    from processor.core.effects import LogRecord

PARTITIONS: Final = 8
TOPIC: Final = "bench"
_FOLDING: Final = "folding and comparing"


def settings() -> Settings:
    """Of a replay from archives."""
    from processor.config.settings import Settings

    return Settings.model_validate({"source": {"topic": TOPIC}})


def _folds(events: int) -> None:
    """What a second process gains that has nothing to do with the first: the same fold once, then twice at once."""
    measured = MeasuredProcess()
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        list(pool.map(_fold, [events] * 2))
        measured.begin()
        alone = _wall_s(pool, events, 1)
        together = _wall_s(pool, events, 2)
        alone = (alone + _wall_s(pool, events, 1)) / 2
    measured.end(3 * events, gain=2 * alone / together)


def _wall_s(pool: ProcessPoolExecutor, events: int, folds: int) -> float:
    began = time.perf_counter()
    list(pool.map(_fold, [events] * folds))
    return time.perf_counter() - began


@cache
def _log(events: int) -> list[LogRecord]:
    from processor.core.effects import LogRecord
    from tests.bench.load import Expected, Job, records

    made = records(Job(events, seed=9, partitions=1, open_runs=2_000 // PARTITIONS), Expected())
    return [LogRecord(offset, m.timestamp, m.key, m.value) for offset, m in enumerate(made)]


def _fold(events: int) -> None:
    from processor.core.partition import PartitionState

    log, state = _log(events), PartitionState(TOPIC, 0, settings().rules())
    for at in range(0, len(log), 4_000):
        state.apply(log[at : at + 4_000])
        state.restore_point_at(state.next_offset)


def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("archive", "topic", "folds"))
    parser.add_argument("events", type=int)
    parser.add_argument("folder")
    parser.add_argument("files")
    parser.add_argument("workers", type=int)
    asked = parser.parse_args()
    if asked.what == "folds":
        _folds(asked.events)
        return
    if asked.workers > 1:
        from processor.audit.replay import process_pool as pool

        pool.begin()
    from processor.audit.replay.command import replay
    from processor.audit.replay.options import Options
    from processor.audit.report.manifest import Outcome
    from processor.config.loading import load
    from processor.kafka.client_config import Connection

    config, options = load(None, os.environ), Options(workers=asked.workers, report=asked.folder)
    if asked.what == "archive":
        config, folder = settings(), Path(asked.folder)
        options = Options(
            archives=(str(folder / asked.files),),
            published=(str(folder / "published"),),
            end=str(asked.events // PARTITIONS),
            workers=asked.workers,
        )
    folding: list[float] = []

    def show(progress: Progress) -> None:
        if progress.what == _FOLDING and not folding:
            folding.append(time.perf_counter())

    measured = MeasuredProcess()
    measured.begin()
    found = replay(options, config, lambda: Connection.build(**config.kafka.connection()), show)
    fold_s = time.perf_counter() - folding[0]
    if found.verdict is not Outcome.PROVEN:
        raise RuntimeError(f"{found.verdict}: {found.counts} {found.questions}")
    records_read = sum(result.records for result in found.results)
    measured.end(records_read, rss_bytes=peak_bytes(), fold_s=fold_s)


if __name__ == "__main__":
    _main()
