"""`python -m tests.bench.replay_against <revision>`: `replay --report` of this tree beside that of another one.

Both are built into compiled wheels; each is the whole command, in processes of its own, over the same records of the
source and what its own fold publishes of them, read from archives or (`--files topic`) from the topics of a broker. CPU
time is that of the command and of every process that came of it; memory is the largest sum over them that a look every
quarter of a second found. Linux alone: it adopts what a pool leaves behind.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import resource
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Final

from processor.archives import ArchivedRecord, Recorder, read
from processor.broker import Broker
from processor.kafka.records import partition_of
from processor.simulate import generate
from processor.simulate.parameters import Parameters
from tests.bench import load, recorded_job
from tests.bench.against import THIS, built
from tests.bench.record_published import PARTITIONS, TOPIC
from tests.bench.worker import STATUSES, put

CHILD: Final = Path(__file__).parent / "record_published.py"
JOBS: Final = ("calls", "recorded", "simulated")
TOPICS: Final = "topic"
"""In place of a kind of file: source and output are read from a broker."""
_LOOK_S: Final = 0.25
_BEGIN_EVENTS: Final = 2_000
_ADOPT_ORPHANS: Final = 36
"""PR_SET_CHILD_SUBREAPER of prctl(2)."""


@dataclass(frozen=True, slots=True)
class Run:
    cpu_s: float
    peak_mib: float
    records: int


def source(job: str, events: int) -> Iterator[ArchivedRecord]:
    """The records of a job, of one partition after the other where the job has no partitions of its own."""
    if job == "simulated":
        ends = [0] * PARTITIONS
        for made in generate(Parameters(records=events, seed=5, partitions=PARTITIONS, open_runs=400)):
            offset, ends[made.partition] = ends[made.partition], ends[made.partition] + 1
            yield ArchivedRecord(
                TOPIC, made.partition, offset, made.timestamp, made.key, made.value, tuple(made.headers)
            )
        return
    for partition in range(PARTITIONS):
        seed, share = 100 + partition, -(-events // PARTITIONS)
        if job == "calls":
            asked = load.Job(share, seed=seed, partitions=1, open_runs=2_000 // PARTITIONS, per_s=125)
            for offset, call in enumerate(load.records(asked, load.Expected())):
                yield ArchivedRecord(TOPIC, partition, offset, call.timestamp, call.key, call.value)
            continue
        for offset, one in enumerate(recorded_job.recorded(share, recorded_job.Expected(), seed=seed)):
            timestamp = recorded_job.BEGIN_S * 1000 + offset * 8
            yield ArchivedRecord(TOPIC, partition, offset, timestamp, one.key, one.value, tuple(one.headers))


def replayed(
    room: Path, job: Path, own: Path, files: str, workers: int, topics: Mapping[str, str] | None = None
) -> Run:
    """One replay with a report, of archives, or of the topics that these settings name.

    Raises:
        RuntimeError: it did not end with "proven".
    """
    report = own / "report"
    shutil.rmtree(report, ignore_errors=True)
    archive = job / files if files == ".jsonl" else own / files
    command = [
        sys.executable, "-P", "-m", "processor", "replay", "--config", str(job.parent / "bench.toml"),
        *(() if topics else ("--archive", str(archive), "--published", str(own / "published"))),
        "--workers", str(workers), "--report", str(report), "--json",
    ]  # fmt: skip
    before, stop, peak = _cpu_s(), threading.Event(), [0]
    with (own / "said.log").open("w") as said:
        process = subprocess.Popen(
            command,
            env=environment(room, job.parent) | dict(topics or {}),
            cwd=room,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            start_new_session=True,
        )

        def look() -> None:
            while not stop.wait(_LOOK_S):
                peak[0] = max(peak[0], _resident_bytes(process.pid))

        watching = threading.Thread(target=look)
        watching.start()
        assert process.stdout is not None
        told = process.stdout.read()
        process.wait()
    while True:
        try:
            os.waitpid(-process.pid, 0)  # of its group: a broker is a child of ours, too
        except ChildProcessError:
            break
    stop.set()
    watching.join()
    found = json.loads(told) if told else {}
    if found.get("verdict") != "proven":
        raise RuntimeError(f"{command}: {found.get('verdict')}, {(own / 'said.log').read_text()[-500:]}")
    return Run(_cpu_s() - before, peak[0] / 2**20, sum(result["records"] for result in found["results"]))


def environment(room: Path, folder: Path) -> dict[str, str]:
    """As installed: modules are read as bytecode, those of libraries too, wherever Python may write it."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return kept | {"PYTHONPATH": str(room), "PYTHONPYCACHEPREFIX": str(folder / "bytecode")}


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _resident_bytes(session: int) -> int:
    """Over all processes of a session."""
    resident = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # gone by now
            continue
        resident += int(fields[21]) * resource.getpagesize() if int(fields[3]) == session else 0
    return resident


def compared(base: str, jobs: list[str], files: list[str], *, events: int, rounds: int) -> Iterator[str]:
    """Rows of a table, as they come.

    Raises:
        RuntimeError: a build failed, or a replay did not end with "proven".
    """
    ctypes.CDLL(None).prctl(_ADOPT_ORPHANS, 1)
    with TemporaryDirectory(prefix="run-steps-bench-") as name:
        folder = Path(name)
        (folder / "bench.toml").write_text(f'[source]\ntopic = "{TOPIC}"\n')
        rooms = {base: folder / "base", THIS: folder / "this"}
        for revision, room in rooms.items():
            built(revision, room, compiled=True)
        record_job(folder / "begin", rooms, "calls", _BEGIN_EVENTS)
        for room in rooms.values():  # one that is not counted writes the bytecode
            for workers in (1, 2):
                replayed(room, folder / "begin", folder / "begin" / room.name, ".jsonl", workers)
        yield f"| `replay --report` | {base}: k events/CPU-s | MiB | {THIS} | MiB | {THIS} / {base} |"
        yield "|---|---:|---:|---:|---:|---:|"
        for job in jobs:
            record_job(folder / job, rooms, job, events)
            for kind in files:
                with ExitStack() as exits:
                    topics: dict[str, dict[str, str]] = {}
                    if kind == TOPICS:
                        broker = exits.enter_context(Broker.start(light=False, heap_mb=1024))
                        topics = on_topics(broker, folder / job, rooms)
                    for workers in (1, 2):
                        pairs: list[tuple[Run, Run]] = []
                        for number in range(rounds):
                            taken = {}
                            for revision in (base, THIS)[:: 1 if number % 2 == 0 else -1]:
                                room, own = rooms[revision], folder / job / rooms[revision].name
                                taken[revision] = replayed(room, folder / job, own, kind, workers, topics.get(revision))
                            pairs.append((taken[base], taken[THIS]))
                        yield _row(f"`{job}`, {kind}, processes: {workers}", pairs)


def record_job(folder: Path, rooms: dict[str, Path], job: str, events: int) -> None:
    with Recorder(folder / ".jsonl", files=".jsonl") as recorder:
        for record in source(job, events):
            recorder.write(record)
    for room in rooms.values():
        own = folder / room.name
        own.mkdir()
        subprocess.run(
            [sys.executable, "-P", CHILD, own], env=os.environ | {"PYTHONPATH": str(room)}, cwd=room, check=True
        )


def on_topics(broker: Broker, job: Path, rooms: dict[str, Path]) -> dict[str, dict[str, str]]:
    """Put the source and what each tree published of it on topics; returns the settings of each that name them."""
    put(broker, TOPIC, PARTITIONS, _placed(job / ".jsonl"))
    found = {}
    for revision, room in rooms.items():
        own = found[revision] = {"RUN_STEPS_KAFKA__BOOTSTRAP_SERVERS": broker.bootstrap}
        for kind in (*STATUSES, "dead_letter"):
            topic = own[f"RUN_STEPS_OUTPUT__{kind.upper()}"] = f"{room.name}.{kind}"
            put(broker, topic, PARTITIONS, _placed(job / room.name / "published", kind))
    return found


def _placed(archive: Path, kind: str = "") -> Iterator[tuple[int, int, Any, Any, tuple[tuple[str, Any], ...]]]:
    """The records of an archive, or those of one output topic of it, which stand where their keys belong."""
    for record in read(archive):
        if isinstance(record, ArchivedRecord) and record.topic.replace("-", "_").endswith(kind):
            partition = record.partition
            if kind and record.key is not None:
                partition = partition_of(record.key, PARTITIONS)
            yield partition, record.timestamp, record.key, record.value, record.headers


def _row(name: str, pairs: list[tuple[Run, Run]]) -> str:
    cells = []
    for side in zip(*pairs, strict=True):
        cells.append(f"{median(run.records / run.cpu_s / 1000 for run in side):.1f}")
        cells.append(f"{median(run.peak_mib for run in side):.0f}")
    ratio = median(theirs.cpu_s / ours.cpu_s for theirs, ours in pairs)
    return f"| {name} | {' | '.join(cells)} | {ratio:.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.replay_against", description=__doc__)
    parser.add_argument("base", help="revision to compare with")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each tree (default 3)")
    parser.add_argument("--events", type=int, default=1_000_000, help="of each job (default 1000000)")
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS))
    parser.add_argument("--files", nargs="+", choices=(".jsonl", ".parquet", TOPICS), default=[".jsonl", ".parquet"])
    asked = parser.parse_args()
    for row in compared(asked.base, asked.jobs, asked.files, events=asked.events, rounds=asked.rounds):
        print(row, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
