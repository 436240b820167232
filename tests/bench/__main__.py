"""`make bench`: one run, one table. Ratios are taken between things measured in turn in this run."""

from __future__ import annotations

import argparse
import sys
import uuid
from pathlib import Path
from typing import Final

from processor.broker import Broker
from tests.bench import core, idle, latency, loops, memory, replay, worker
from tests.bench.load import Expected, Job
from tests.bench.measure import PURE, Book, Build, Run, compiled
from tests.compiled_wheel import missing

PARTITIONS: Final = 8
SECTIONS: Final = ("core", "memory", "worker", "restore", "visible", "growth", "replay", "idle")
UPSTREAM: Final = "consumer: upstream getmany doing nothing"

Modes = dict[str, dict[str, str]]
MODES: Final[Modes] = {
    "at least once, 100 ms": {"RUN_STEPS_DELIVERY__MODE": "at_least_once"},
    **{
        f"exactly once, {ms} ms": {
            "RUN_STEPS_DELIVERY__MODE": "exactly_once",
            "RUN_STEPS_DELIVERY__COMMIT_INTERVAL_MS": str(ms),
        }
        for ms in (50, 100, 500)
    },
}


def _workers(book: Book, broker: Broker, rounds: int, events: int, builds: list[Build]) -> None:
    """The consume loops and the whole worker on the same topic, in turn."""
    topic = f"bench.{uuid.uuid4().hex[:8]}"
    expected = worker.put_job(broker, topic, Job(events, partitions=PARTITIONS))
    book.notes.append(f"topic: {expected.events} events of {expected.bytes / expected.events:.0f} B, 8 partitions")
    runs: dict[str, list[Run]] = {}
    for number in range(rounds):
        for which, name in (("upstream", UPSTREAM), ("fast", "consumer: our fast path doing nothing")):
            run = loops.measured(which, broker, topic, f"{topic}.{which}.{number}", expected.events)
            runs.setdefault(name, []).append(run)
        for build in builds:
            for mode, settings in MODES.items():
                name = f"{mode}{build.suffix}"
                own = f"{topic}.{''.join(c if c.isalnum() else '-' for c in name)}.{number}"
                life = worker.Life(broker, topic, own, PARTITIONS, settings, build)
                runs.setdefault(f"worker: {name}", []).append(life.run(expected.events))
                life.check(expected, exactly_once="exactly" in mode)
    per_cpu_s = {name: [run.per_cpu_s for run in taken] for name, taken in runs.items()}
    for name, taken in runs.items():
        book.add(name, per_cpu_s[name], "events/CPU-s", against=(UPSTREAM, per_cpu_s[UPSTREAM]))
        book.add(f"{name}: by the clock", [run.per_s for run in taken], "events/s")
        book.add(f"{name}: broker CPU", [run.broker_us for run in taken], "us/event")
        if name.startswith("worker"):
            book.add(f"{name}: memory", [run.rss_bytes / 2**20 for run in taken], "MiB")


def _restore(book: Book, broker: Broker, rounds: int, events: int, build: Build) -> None:
    """kill -9 with `events` events since `restore_from`; a new process takes over."""
    topic = f"bench.restore.{uuid.uuid4().hex[:8]}"
    expected: Expected = worker.put_job(broker, topic, Job(events, seed=2, partitions=PARTITIONS))
    remember_all = {
        "RUN_STEPS_STEPS__ENDED_RETENTION_S": "86400",
        "RUN_STEPS_STEPS__ENDED_RETENTION_RECORDS": "100000000",
        "RUN_STEPS_SOURCE__SESSION_TIMEOUT_MS": "6000",
        "RUN_STEPS_SOURCE__HEARTBEAT_INTERVAL_MS": "1000",
    }
    killed: list[Run] = []
    restored: list[Run] = []
    for number in range(rounds):
        life = worker.Life(broker, topic, f"{topic}.{number}", PARTITIONS, remember_all, build)
        killed.append(life.run_and_kill(expected.events))
        restored.append(life.restore())
        life.check(expected)
        if restored[-1].events < expected.events * 0.9:
            raise RuntimeError(f"{topic}: only {restored[-1].events} of {expected.events} events had to be restored")
    book.notes.append(f"restore: {restored[-1].events} events folded again of {expected.events}")
    book.add(f"restore: assigned to live, {events // 1000} k events", [run.wall_s for run in restored], "s")
    book.add("restore: events folded silently", [run.per_cpu_s for run in restored], "events/CPU-s")
    book.add("restore: memory before the kill", [run.rss_bytes / 2**20 for run in killed], "MiB")
    book.add("restore: memory when live again", [run.rss_bytes / 2**20 for run in restored], "MiB")


def _growth(book: Book, broker: Broker, rounds: int, events: int, build: Build) -> None:
    """The exactly-once worker's cost per event where there is more of something: flat, or to be explained."""
    cases = {f"{count} partitions": (events, count) for count in (8, 1, 48)} | {
        f"{events * 10 // 1000} k events": (events * 10, PARTITIONS)
    }
    base = f"growth: {events // 1000} k events, 8 partitions"
    runs: dict[str, list[Run]] = {}
    for number in range(rounds):
        for name, (many, partitions) in cases.items():
            topic = f"bench.growth.{uuid.uuid4().hex[:8]}"
            expected = worker.put_job(broker, topic, Job(many, partitions=partitions))
            life = worker.Life(broker, topic, f"{topic}.{number}", partitions, {}, build)
            label = base if name == "8 partitions" else f"growth: {name}"
            runs.setdefault(label, []).append(life.run(expected.events))
            life.check(expected)
    for what, unit in (("worker CPU", "us/event"), ("broker CPU", "us/event")):
        for label, taken in runs.items():
            values = [_spent(run, what) for run in taken]
            against = None if label == base else (f"{base}: {what}", [_spent(run, what) for run in runs[base]])
            book.add(f"{label}: {what}", values, unit, against=against)


def _spent(run: Run, what: str) -> float:
    return run.broker_us if what == "broker CPU" else 1e6 / run.per_cpu_s


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--pure", action="store_true", help="leave the compiled core out")
    parser.add_argument("--quick", action="store_true", help="small counts, for a look; no figures to quote")
    parser.add_argument("--only", action="append", choices=SECTIONS, help="a section; may be given several times")
    parser.add_argument("--rounds", type=int, help="interleaved rounds (default 5; quick: 3)")
    parser.add_argument(
        "--events", type=int, help="on the worker's topic, in the replay's archives (default 1000000; quick: 100000)"
    )
    asked = parser.parse_args()
    quick: bool = asked.quick
    rounds: int = asked.rounds or (3 if quick else 5)
    events: int = asked.events or (100_000 if quick else 1_000_000)
    sections = asked.only or list(SECTIONS)
    book = Book({"rounds": rounds, "events": events, "quick": quick})
    builds = [PURE]
    if {"core", "worker", "restore", "visible", "growth", "replay"} & set(sections) and not asked.pure:
        if lacking := missing():
            book.notes.append(f"not measured: the compiled core: {lacking}")
        else:
            builds.append(compiled(Path("build", "bench", "native").absolute()))
    book.notes.append(
        f"restore, latency, pauses, growth, replay: {'the compiled core' if len(builds) > 1 else 'pure Python'}"
    )
    if "core" in sections:
        core.in_turn(book, rounds, builds, quick=quick)
    if "memory" in sections:
        memory.per_open_step(book, 1 if quick else 3, (10_000, 100_000) if quick else (10_000, 100_000, 1_000_000))
    if "replay" in sections:
        replay.archived(book, min(rounds, 3), events, builds[-1])
    if {"worker", "restore", "visible", "growth", "replay", "idle"} & set(sections):
        with Broker.start(light=False, heap_mb=1024) as broker:
            if "idle" in sections:  # first: before the broker has other topics
                idle.shares(book, broker, min(rounds, 3))
            if "worker" in sections:
                _workers(book, broker, rounds, events, builds)
            if "restore" in sections:
                _restore(book, broker, min(rounds, 3), events if quick else 1_000_000, builds[-1])
            if "visible" in sections:
                latency.latency(book, broker, 3.0 if quick else 10.0, builds[-1])
                latency.pauses(book, broker, 1 if quick else 3, builds[-1])
            if "growth" in sections:
                _growth(book, broker, min(rounds, 3), events // 10, builds[-1])
            if "replay" in sections:
                replay.from_topic(book, broker, min(rounds, 3), min(events, 1_000_000), builds[-1])
    book.write(Path("build", "bench.json"))
    table = book.markdown()
    Path("build", "bench.md").write_text(table, encoding="utf-8")
    print(f"\n{table}\nwritten: build/bench.md, build/bench.json")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
