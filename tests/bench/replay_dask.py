"""`python -m tests.bench.replay_dask`: `replay --report` on Dask's cluster beside the process pool, two processes each.

The wheel of this tree is built compiled; scheduler and workers run on this machine and are there before the command
begins, as a cluster is. CPU time is that of the command, of its pool, and what the cluster's processes took meanwhile.
Target: within 10 %. Linux alone.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from tests.bench.against import THIS, built
from tests.bench.record_published import TOPIC
from tests.bench.replay_against import JOBS, environment, record_job

WORKERS = 2
_BEGIN_EVENTS = 2_000
_PATIENCE_S = 20


@contextmanager
def cluster(room: Path, folder: Path) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """Address and processes of a scheduler and its workers that import from `room`."""
    at = folder / "scheduler.json"
    with (folder / "dask.log").open("wb") as log:
        base = [sys.executable, "-P", "-m"]
        commands = [
            [*base, "distributed.cli.dask_scheduler", "--port", "0", "--no-dashboard", "--scheduler-file", str(at)]
        ] + [
            [*base, "distributed.cli.dask_worker", "--scheduler-file", str(at), "--nthreads", "1", "--no-nanny"]
        ] * WORKERS
        started = [
            subprocess.Popen(each, env=environment(room, folder), cwd=folder, stdout=log, stderr=log)
            for each in commands
        ]
        try:
            yield _address(at, started), started
        finally:
            for process in reversed(started):  # a worker whose scheduler has ended does not always end itself
                process.terminate()
                try:
                    process.wait(_PATIENCE_S)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def _address(at: Path, started: Sequence[subprocess.Popen[bytes]]) -> str:
    from distributed import Client

    until = time.monotonic() + 120
    while not at.exists():
        if time.monotonic() > until or any(process.poll() is not None for process in started):
            raise RuntimeError(f"no scheduler: {at}")
        time.sleep(0.1)
    connect: Any = Client
    with connect(scheduler_file=str(at)) as client:
        client.wait_for_workers(WORKERS, timeout=120)
        return str(client.scheduler.address)


def _cpu_s(processes: Sequence[subprocess.Popen[bytes]]) -> float:
    """Of the children that have ended, and of these."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    ticks = 0
    for process in processes:
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        ticks += sum(map(int, fields[11:15]))
    return ended.ru_utime + ended.ru_stime + ticks / os.sysconf("SC_CLK_TCK")


def _children() -> set[int]:
    return {int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}


def timed(
    room: Path, job: Path, way: Sequence[str], processes: Sequence[subprocess.Popen[bytes]]
) -> tuple[float, float]:
    """CPU seconds and seconds by the clock of one replay.

    Raises:
        CalledProcessError: it did not end with "proven".
    """
    own = job / room.name
    for name in ("report", "work"):
        shutil.rmtree(own / name, ignore_errors=True)
    before, begun = _cpu_s(processes), time.monotonic()
    subprocess.run(
        [
            sys.executable, "-P", "-m", "processor", "replay", "--config", str(job.parent / "bench.toml"),
            "--archive", str(job / ".jsonl"), "--published", str(own / "published"), "--report", str(own / "report"),
            "--work", str(own / "work"), "--json", *way,
        ],
        env=environment(room, job.parent), cwd=room, check=True, capture_output=True,
    )  # fmt: skip
    while left := _children() - {process.pid for process in processes}:  # of the pool, whose command has ended
        os.waitpid(min(left), 0)
    return _cpu_s(processes) - before, time.monotonic() - begun


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.replay_dask", description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--job", choices=JOBS, default="calls")
    asked = parser.parse_args()
    ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER: what a pool leaves behind is counted, too
    with TemporaryDirectory(prefix="run-steps-bench-") as name:
        folder = Path(name)
        (folder / "bench.toml").write_text(f'[source]\ntopic = "{TOPIC}"\n')
        room = folder / "this"
        built(THIS, room, compiled=True)
        record_job(folder / asked.job, {THIS: room}, asked.job, asked.events)
        with cluster(room, folder) as (address, processes):
            ratios: list[tuple[float, float]] = []
            ways = {"pool": ["--workers", str(WORKERS)], "dask": ["--dask", address]}
            record_job(folder / "begin", {THIS: room}, "calls", _BEGIN_EVENTS)
            for way in ways.values():  # one that is not counted writes the bytecode
                timed(room, folder / "begin", way, processes)
            for number in range(asked.rounds):
                turn = list(ways) if number % 2 == 0 else list(ways)[::-1]
                took = {way: timed(room, folder / asked.job, ways[way], processes) for way in turn}
                cpu, clock = (dask / pool for dask, pool in zip(took["dask"], took["pool"], strict=True))
                ratios.append((cpu, clock))
                print(f"{took}: dask / pool {cpu:.2f} by CPU, {clock:.2f} by the clock", flush=True)  # noqa: T201
            cpu, clock = (median(side) for side in zip(*ratios, strict=True))
            print(f"median: {cpu:.2f} by CPU, {clock:.2f} by the clock")  # noqa: T201


if __name__ == "__main__":
    main()
