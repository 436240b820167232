"""The whole worker of this tree beside that of another revision, both compiled, on the same topics, in turn.

`python -m tests.bench.worker_against 810dbd0` prints, as medians of pairs: events per CPU-second of both on the jobs
`calls` and `recorded`, exactly once, and the ratio; the highest resident memory of both; the broker's CPU for an event
with 8 and with 48 partitions. After every run all that was published is read and compared with what must come out.
"""

from __future__ import annotations

import argparse
import sys
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Final

from confluent_kafka import Producer, TopicPartition

from processor.broker import Broker
from processor.kafka.records import partition_of
from tests import kafka_tools
from tests.bench import recorded_job
from tests.bench.against import ROOT, THIS, built, unpack
from tests.bench.load import BEGIN_S, DEAD, Job
from tests.bench.measure import Build, Run, ended, follow, machine
from tests.bench.worker import Header, Life, put, put_job

PARTITIONS: Final = 8
MANY_PARTITIONS: Final = 48

Check = Callable[[Life], None]


@dataclass(frozen=True, slots=True)
class Taken:
    """One run of a worker. `peak_bytes`: the most resident memory that it ever had, start-up included."""

    run: Run
    peak_bytes: int


@dataclass(frozen=True, slots=True)
class Source:
    """A topic with a job on it: how many events, and what raises where the wrong things were published."""

    topic: str
    partitions: int
    events: int
    check: Check


def laid_out(revision: str, room: Path) -> Build:
    """Build the revision's compiled wheel, and put its own `tests` beside it: they know which methods to watch."""
    built(revision, room, compiled=True)
    if revision == THIS:
        (room / "tests").symlink_to(ROOT / "tests")
    else:
        unpack(revision, room, "tests")
    return Build(revision, room)


def calls(broker: Broker, events: int, partitions: int) -> Source:
    """The job `calls` on a topic of its own."""
    topic = f"calls.{partitions}.{uuid.uuid4().hex[:8]}"
    expected = put_job(broker, topic, Job(events, partitions=partitions))
    return Source(topic, partitions, expected.events, lambda life: life.check(expected))


def recorded(broker: Broker, events: int, partitions: int) -> Source:
    """The job `recorded`, with the headers that `publish` writes, on a topic of its own."""
    topic = f"recorded.{uuid.uuid4().hex[:8]}"
    expected = recorded_job.Expected()

    def made() -> Iterator[tuple[int, int, bytes, bytes, list[Header]]]:
        for timestamp, key, value, headers in recorded_job.recorded(events, expected, open_runs=2_000):
            yield partition_of(key, partitions), timestamp, key, value, headers

    count = put(broker, topic, partitions, made())
    known: dict[tuple[str, bytes | None], bytes | None] = {}

    def check(life: Life) -> None:
        """As many steps as the job has, each once, with the same bytes as from the worker that ran first."""
        found: dict[tuple[str, bytes | None], bytes | None] = {}
        for kind, published in life.topics.items():
            for got in kafka_tools.read_topic(broker.bootstrap, published):
                if kind == DEAD or (kind, got.key) in found:
                    raise RuntimeError(f"{life.name}: {kind}: {got.key!r}: a dead letter, or published twice")
                found[kind, got.key] = got.value
        if len(found) != expected.published:
            raise RuntimeError(f"{life.name}: {len(found)} steps published, {expected.published} expected")
        if found != (known or found):
            raise RuntimeError(f"{life.name}: published other bytes than the worker that ran first")
        known.update(found)

    return Source(topic, partitions, count, check)


def write_to_all(broker: Broker, topics: Collection[str], partitions: int) -> None:
    """Write to each partition of the topics, and delete that again: a broker's first pages of an index are dear.

    What is measured is what an event costs on topics that are in use. On new ones the first records of a partition take
    the broker milliseconds, which is much where a run has few for each.
    """
    producer = Producer({"bootstrap.servers": broker.bootstrap, "linger.ms": 5})
    for _ in range(4):
        for topic in topics:
            for partition in range(partitions):
                for _ in range(4):
                    producer.produce(topic, bytes(2_000), partition=partition, timestamp=BEGIN_S * 1000)
        if producer.flush(60):
            raise RuntimeError("the outputs cannot be written to")
    ends = [TopicPartition(topic, partition, -1) for topic in topics for partition in range(partitions)]
    client = kafka_tools.admin(broker.bootstrap)
    for deleted in client.delete_records(ends).values():
        deleted.result(60)


def drained(broker: Broker, source: Source, build: Build, *, in_use: bool = False) -> Taken:
    """One worker reads the topic from its first record to its last, exactly once; then its output is checked.

    Args:
        in_use: whether the outputs have been written to before.
    """
    name = f"{source.topic}.{uuid.uuid4().hex[:6]}"
    life = Life(broker, source.topic, name, source.partitions, {}, build)
    anew: tuple[str, ...] = ()
    if in_use:
        write_to_all(broker, life.topics.values(), source.partitions)
        anew = ("--anew", str(source.partitions))
    process = life.start(source.events, *anew)
    try:
        run = follow(process, broker)
        status = Path("/proc", str(process.pid), "status").read_text()
    finally:
        process.terminate()
        code = ended(process)
    if code:
        raise RuntimeError(f"{name}: the worker ended with {code}; see build/bench/worker.log")
    source.check(life)
    return Taken(run, int(status.partition("VmHWM:")[2].split()[0]) * 1024)


def compared(base: str, rooms: Mapping[str, Path] | None, *, rounds: int, events: int, only: str) -> Iterator[str]:
    """Lines of the table, each as it is known."""
    with TemporaryDirectory() as folder:
        builds = (
            [Build(name, room) for name, room in rooms.items()]
            if rooms
            else [laid_out(revision, Path(folder, str(n))) for n, revision in enumerate((base, THIS))]
        )
        with Broker.start(light=False, heap_mb=1024) as broker:
            yield f"| exactly once, {events:,} events | {builds[0].suffix} | {builds[1].suffix} | ratio |"
            yield "|---|---:|---:|---:|"
            few = calls(broker, events, PARTITIONS) if only != "recorded" else None
            if few is not None and only != "partitions":
                yield from _beside("calls", [_turn(broker, few, builds) for _ in range(rounds)])
            if only in ("", "recorded"):
                source = recorded(broker, events, PARTITIONS)
                yield from _beside("recorded", [_turn(broker, source, builds) for _ in range(rounds)])
            if few is not None and only != "calls":
                many = calls(broker, events, MANY_PARTITIONS)
                yield f"| {builds[1].suffix} | {PARTITIONS} partitions | {MANY_PARTITIONS} partitions | ratio |"
                for source in (few, many):  # the broker's own code has to be compiled first
                    drained(broker, source, builds[1], in_use=True)
                taken = [
                    [drained(broker, source, builds[1], in_use=True) for source in (few, many)] for _ in range(rounds)
                ]
                yield _row("broker CPU, us an event", [[t.run.broker_us for t in pair] for pair in taken])
                yield _row("worker CPU, us an event", [[1e6 / t.run.per_cpu_s for t in pair] for pair in taken])


def _turn(broker: Broker, source: Source, builds: list[Build]) -> list[Taken]:
    return [drained(broker, source, build) for build in builds]


def _beside(name: str, taken: list[list[Taken]]) -> Iterator[str]:
    yield _row(f"{name}: events per CPU-second", [[t.run.per_cpu_s for t in pair] for pair in taken])
    yield _row(f"{name}: broker CPU, us an event", [[t.run.broker_us for t in pair] for pair in taken])
    yield _row(f"{name}: peak memory, MiB", [[t.peak_bytes / 2**20 for t in pair] for pair in taken])


def _row(name: str, pairs: list[list[float]]) -> str:
    theirs, ours = (median(pair[n] for pair in pairs) for n in (0, 1))
    ratios = [pair[1] / pair[0] for pair in pairs]
    digits = 0 if theirs >= 1000 else 2
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}" if len(ratios) > 1 else ""
    return f"| {name} | {theirs:,.{digits}f} | {ours:,.{digits}f} | {median(ratios):.2f} ({spread}) |"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.worker_against", description=__doc__)
    parser.add_argument("base", help="revision to compare with")
    parser.add_argument("--rounds", type=int, default=3, help="pairs (default 3)")
    parser.add_argument("--events", type=int, default=1_000_000, help="of each job (default 1000000)")
    parser.add_argument("--only", default="", choices=("", "calls", "recorded", "partitions"))
    parser.add_argument(
        "--rooms", nargs=2, type=Path, help="builds laid out before, of the base and of this tree: nothing is built"
    )
    asked = parser.parse_args()
    rooms = dict(zip((asked.base, THIS), map(Path.absolute, asked.rooms), strict=True)) if asked.rooms else None
    for line in compared(asked.base, rooms, rounds=asked.rounds, events=asked.events, only=asked.only):
        print(line, flush=True)  # noqa: T201
    print("\n".join(f"- {name}: {told}" for name, told in machine().items()))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
