"""The measured process of the replay bench. Apart, and small: each process of a pool loads the main module anew."""

from __future__ import annotations

import argparse
import os
import resource
import time
from pathlib import Path
from typing import Final

from processor.config import Settings, load
from processor.kafka.security import Connection
from processor.replay.run import Options, Progress, replay
from processor.report.manifest import Outcome
from tests.bench.lap import Lap

PARTITIONS: Final = 8
TOPIC: Final = "bench"
_FOLDING: Final = "folding and comparing"


def settings() -> Settings:
    """Of a replay from archives."""
    return Settings.model_validate({"source": {"topic": TOPIC}})


def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("archive", "topic"))
    parser.add_argument("events", type=int)
    parser.add_argument("folder")
    parser.add_argument("files")
    parser.add_argument("workers", type=int)
    asked = parser.parse_args()
    config, options = load(None, os.environ), Options(workers=asked.workers)
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

    lap = Lap()
    lap.begin()
    found = replay(options, config, lambda: Connection.build(**config.kafka.connection()), show)
    fold_s = time.perf_counter() - folding[0]
    if found.verdict is not Outcome.PROVEN:
        raise RuntimeError(f"{found.verdict}: {found.counts} {found.questions}")
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) * 1024
    records_read = sum(result.records for result in found.results)
    lap.end(records_read, rss_bytes=peak, fold_s=fold_s)


if __name__ == "__main__":
    _main()
