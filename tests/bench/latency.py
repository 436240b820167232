"""When what happened can be seen downstream: latency against rate, and the pauses of a takeover and of a rebalance.

The load is open-loop: every record has its moment, whether or not those before it have been taken; the moment that an
end was due, not the one it got away, is where its latency begins. The reader is a read_committed consumer.

`python -m tests.bench.latency --apart` gives the worker a core that nothing else of this measurement uses: broker,
producer and reader have the others. Its producer's batches are encoded beforehand (`prepared_producer`), so that the
broker has nearly all of its core. It counts from when the broker is warm, and tells apart what is not the worker's
(`append_to_visible`). Where they share cores, what they take of the worker's is in the figures.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

from confluent_kafka import Consumer, Producer

from processor.broker import Broker
from processor.core.headers import SOURCE_PARTITION
from tests import kafka_tools
from tests.bench.append_to_visible import (
    MOST_WINDOWS,
    WINDOW_S,
    Ends,
    is_steady,
    quantile,
    send_until_steady,
    visible,
)
from tests.bench.load import Expected, Job, Made, records
from tests.bench.measure import PURE, Book, Build, compiled
from tests.bench.prepared_producer import PreparedProducer, prepared
from tests.bench.worker import KEEP, STATUSES, Life

PARTITIONS: Final = 8
RATES: Final = (1_000, 5_000, 10_000, 20_000, 40_000, 80_000, 120_000, 160_000)
SESSION_S: Final = 6.0

_WARM_S: Final = 3.0
_TICK_S: Final = 0.002
_START_S: Final = 60.0
_SATURATED_S: Final = 2.0
_ENDING: Final = tuple(f'{{"event":"thread.run.step.{status}"'.encode() for status in STATUSES)


class Load(NamedTuple):
    """Records with their moments, in seconds from the begin. `ends`: step id -> when its end is due."""

    moments: list[float]
    made: list[Made]
    ends: dict[bytes, float]

    @classmethod
    def of(cls, per_s: int, seconds: float, *, deltas: int, seed: int = 1) -> Load:
        open_runs = max(20, min(2_000, per_s // 5))
        job = Job(
            int(per_s * seconds), seed=seed, partitions=PARTITIONS, open_runs=open_runs, deltas=deltas, illegal=0.0
        )
        made = list(records(job, Expected()))
        moments = [number / per_s for number in range(len(made))]
        ends = {
            json.loads(one.value)["data"]["id"].encode(): moment
            for moment, one in zip(moments, made, strict=True)
            if one.value.startswith(_ENDING)
        }
        return cls(moments, made, ends)


class Reader:
    """Reads the outcome topics as a consumer downstream: notes each step id's first sight, and by source partition."""

    def __init__(self, bootstrap: str, topics: Sequence[str]) -> None:
        self.seen: dict[bytes, float] = {}
        self.by_partition: dict[int, list[float]] = {}
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": f"bench-{uuid.uuid4().hex[:8]}",
                "isolation.level": "read_committed",
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "fetch.wait.max.ms": 10,
            }
        )
        self._consumer.subscribe(list(topics))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while not self._stop.is_set():
            for message in self._consumer.consume(500, timeout=0.02):
                if message.error() is not None:
                    continue
                now, key = time.perf_counter(), message.key()
                self.seen.setdefault(key if isinstance(key, bytes) else b"", now)
                partition = int(dict(message.headers() or [])[SOURCE_PARTITION] or b"-1")
                self.by_partition.setdefault(partition, []).append(now)

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._consumer.close()


def _producer(broker: Broker) -> Producer:
    return Producer(
        {
            "bootstrap.servers": broker.bootstrap,
            "linger.ms": 2,
            "acks": "all",
            "queue.buffering.max.messages": 1_000_000,
        }
    )


def send(broker: Broker, topic: str, load: Load) -> float:
    """Send each record at its moment; returns the begin. All are acknowledged when this returns."""
    producer = _producer(broker)
    began = time.perf_counter()
    at, total = 0, len(load.made)
    while at < total:
        now = time.perf_counter() - began
        while at < total and load.moments[at] <= now:
            one = load.made[at]
            producer.produce(topic, one.value, one.key, partition=one.partition, timestamp=one.timestamp)
            at += 1
        producer.poll(0)
        time.sleep(_TICK_S)
    producer.flush(60)
    return began


@contextmanager
def without_collector() -> Iterator[None]:
    """No garbage collection in this process: with a million records in memory it would hold producer and reader up."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@contextmanager
def apart_from_workers(broker: Broker) -> Iterator[set[int]]:
    """Keep this process and the broker off one core, for the workers; yields that core.

    Raises:
        RuntimeError: there is only one.
    """
    cores = os.sched_getaffinity(0)
    if len(cores) < 2:
        raise RuntimeError("one core: nothing to divide")
    others = cores - {max(cores)}
    _move(broker.pid, others)
    _move(os.getpid(), others)
    try:
        yield {max(cores)}
    finally:
        _move(broker.pid, cores)
        _move(os.getpid(), cores)


def _move(process: int, cores: set[int]) -> None:
    """Have a process run on these cores alone; threads that it starts from now on follow the one that starts them."""
    for thread in Path("/proc", str(process), "task").iterdir():
        with suppress(ProcessLookupError):
            os.sched_setaffinity(int(thread.name), cores)


@contextmanager
def serving(life: Life, workers: int, cores: set[int] | None = None) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Worker processes of one group, ended with the block. More may be added to the list.

    Args:
        cores: on which alone they run; None: as this process does.
    """
    members = [start(life) for _ in range(workers)]
    if cores is not None:
        for process in members:
            _move(process.pid, cores)
    try:
        yield members
    finally:
        for process in members:
            if process.poll() is None:
                process.terminate()
        for process in members:
            process.wait(60)


def start(life: Life) -> subprocess.Popen[bytes]:
    log = Path("build", "bench", "serve.log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "processor", "serve"],
            cwd=life.build.room,
            env=os.environ | life.env,
            stdout=out,
            stderr=subprocess.STDOUT,
        )


def _life(broker: Broker, name: str, build: Build, times: str = "CreateTime", **settings: str) -> Life:
    topic, config = f"{name}.in", KEEP | {"message.timestamp.type": times}
    kafka_tools.create_topics(broker.bootstrap, topic, partitions=PARTITIONS, config=config)
    return Life(broker, topic, name, PARTITIONS, settings, build)


def _name(what: str) -> str:
    return f"bench.{what}.{uuid.uuid4().hex[:6]}"


def _await(reader: Reader, wanted: int, within_s: float) -> bool:
    """Whether so many ends are to be seen in time."""
    deadline = time.perf_counter() + within_s
    while len(reader.seen) < wanted:
        if time.perf_counter() > deadline:
            return False
        time.sleep(0.02)
    return True


def _warm(broker: Broker, life: Life, reader: Reader) -> None:
    """Until the group is assigned and what goes in comes out, nothing is measured."""
    load = Load.of(500, 1.0, deltas=2, seed=2)  # other ids than what is measured
    send(broker, life.source, load)
    if not _await(reader, len(load.ends), _START_S):
        raise RuntimeError(f"{life.name}: the worker published nothing in {_START_S:g} s; see build/bench/serve.log")
    reader.seen.clear()
    reader.by_partition.clear()


def latency(book: Book, broker: Broker, seconds: float, build: Build = PURE, *, rates: Sequence[int] = RATES) -> None:
    """One worker, exactly once at 100 ms: how long after an end was due it could be read, by rate, until saturation."""
    for per_s in rates:
        taken, unseen = _latencies(broker, per_s, seconds, build)
        if unseen:
            book.notes.append(f"latency at {per_s:,}/s: {unseen} ends not seen in a minute")
            return
        for share, name in ((0.5, "p50"), (0.99, "p99"), (0.999, "p99.9")):
            label = f"latency: append to visible, {per_s:,} events/s, {name}"
            book.add(label, [quantile(taken, share) * 1000], "ms")
        if quantile(taken, 0.5) > _SATURATED_S:
            book.notes.append(f"latency: saturated at {per_s:,} events/s (producer and reader share the machine)")
            return


def warm_latency(book: Book, broker: Broker, per_s: int, seconds: float, build: Build, *, reads: bool) -> None:
    """The same once the broker is warm, the worker on a core of its own, with what is not its own told apart.

    Args:
        reads: whether a reader downstream takes part; without one only the broker's times are told.
    """
    life = _life(broker, _name("latency"), build, times="LogAppendTime")
    load = Load.of(per_s, (MOST_WINDOWS + 1) * WINDOW_S + seconds, deltas=20)
    ends = Ends(load.ends)
    topics = [life.topics[status] for status in STATUSES]
    reader = Reader(broker.bootstrap, topics)
    producer = PreparedProducer(broker.bootstrap, life.source, list(prepared(load.made, per_s)))
    wall_s = time.time() - time.perf_counter()
    with apart_from_workers(broker) as cores:
        try:
            with serving(life, 1, cores), without_collector(), producer:
                _warm(broker, life, reader)
                if not reads:
                    reader.close()
                measured_from, windows = send_until_steady(producer, load.made, per_s, seconds, ends)
                if reads:
                    _await(reader, len(ends.sent), 60.0)
                at_broker = _visible(broker, topics, ends.sent)
        finally:
            if reads:
                reader.close()
    counted = ends.within(measured_from, measured_from + seconds)
    missing = sum(step not in at_broker for step in counted)
    how = f"{per_s:,} events/s, {len(counted):,} ends"
    shown = ", ".join(f"{window * 1000:.0f}" for window in windows)
    book.notes.append(f"{how}: p99 of handed to acknowledged in windows of {WINDOW_S:g} s before, ms: {shown}")
    if not is_steady(windows):
        book.notes.append(f"{how}: not steady after {MOST_WINDOWS} windows: the broker was not warm")
    if missing:
        book.notes.append(f"{how}: {missing} of them were not visible in the end: no figure")
        return
    sent = [(ends.sent[step], at_broker[step], reader.seen.get(step, 0.0) + wall_s) for step in counted]
    spans: dict[str, list[float]] = {
        "append to visible": [at - s.appended for s, at, _ in sent],
        "not the worker's: due to handed": [s.handed - s.due for s, _, _ in sent],
        "not the worker's: handed to appended": [s.appended - s.handed for s, _, _ in sent],
        "not the worker's: handed to acknowledged": [s.acknowledged - s.handed for s, _, _ in sent],
    }
    if reads:
        spans["not the worker's: marker to seen"] = [seen - at for _, at, seen in sent]
        spans["all of it: due to seen"] = [seen - s.due for s, _, seen in sent]
    for span, taken in spans.items():
        for share, name in ((0.5, "p50"), (0.99, "p99"), (0.999, "p99.9")):
            book.add(f"latency, {how}, {span}, {name}", [quantile(taken, share) * 1000], "ms")


def _visible(broker: Broker, topics: Sequence[str], wanted: Collection[bytes]) -> dict[bytes, float]:
    """When each key could first be read; waits for a minute until all that are wanted could."""
    deadline = time.perf_counter() + 60.0
    while True:
        found = visible(broker.data_dir / "data", topics)
        if time.perf_counter() > deadline or all(step in found for step in wanted):
            return found
        time.sleep(0.5)


def _latencies(broker: Broker, per_s: int, seconds: float, build: Build) -> tuple[list[float], int]:
    """Seconds from each end's moment to when it could be read, and how many ends were not to be read in a minute."""
    life = _life(broker, _name("latency"), build)
    load = Load.of(per_s, _WARM_S + seconds, deltas=20)
    reader = Reader(broker.bootstrap, [life.topics[status] for status in STATUSES])
    try:
        with serving(life, 1), without_collector():
            _warm(broker, life, reader)
            began = send(broker, life.source, load)
            _await(reader, len(load.ends), 60.0)
    finally:
        reader.close()
    measured = {step: began + at for step, at in load.ends.items() if at >= _WARM_S}
    taken = [reader.seen[step] - due for step, due in measured.items() if step in reader.seen]
    return taken, len(measured) - len(taken)


def pauses(book: Book, broker: Broker, rounds: int, build: Build = PURE) -> None:
    """The longest time without output of a partition: when a third member joins, and when one of three is killed."""
    joined: list[float] = []
    killed: list[float] = []
    for _ in range(rounds):
        life = _life(
            broker,
            _name("pauses"),
            build,
            RUN_STEPS_SOURCE__SESSION_TIMEOUT_MS=str(int(SESSION_S * 1000)),
            RUN_STEPS_SOURCE__HEARTBEAT_INTERVAL_MS="1000",
        )
        load = Load.of(2_000, 32.0, deltas=2)
        reader = Reader(broker.bootstrap, [life.topics[status] for status in STATUSES])
        try:
            with serving(life, 2) as members:
                _warm(broker, life, reader)
                sending = threading.Thread(target=send, args=(broker, life.source, load))
                sending.start()
                time.sleep(3.0)
                join_at = time.perf_counter()
                members.append(start(life))
                time.sleep(10.0)
                kill_at = time.perf_counter()
                members[0].send_signal(signal.SIGKILL)
                sending.join()
                if not _await(reader, len(load.ends), 30.0):
                    raise RuntimeError(f"{life.name}: {len(load.ends) - len(reader.seen)} ends never came out")
        finally:
            reader.close()
        joined.append(_longest(reader, join_at, kill_at))
        killed.append(_longest(reader, kill_at, kill_at + SESSION_S + 10.0))
    book.add("rebalance: longest pause of a partition, third member joins", joined, "s")
    book.add(f"takeover: longest pause of a partition, kill -9, session {SESSION_S:g} s", killed, "s")


def _longest(reader: Reader, begin: float, end: float) -> float:
    """The longest time between two outputs of one source partition, of those that end in the span."""
    gaps = [
        later - earlier
        for times in reader.by_partition.values()
        for earlier, later in pairwise(times)
        if begin < later <= end
    ]
    return max(gaps)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.latency", description=__doc__)
    parser.add_argument("--apart", action="store_true", help="the worker has a core that nothing else here uses")
    parser.add_argument("--rates", default="80000", help="events a second, separated by commas (default 80000)")
    parser.add_argument("--seconds", type=float, default=10.0, help="measured at each rate (default 10)")
    parser.add_argument("--rounds", type=int, default=3, help="times (default 3)")
    parser.add_argument("--unread", action="store_true", help="with --apart: no reader downstream meanwhile")
    parser.add_argument("--pure", action="store_true", help="the core as Python")
    parser.add_argument("--room", type=Path, help="a compiled build laid out before: nothing is built")
    asked = parser.parse_args()
    build = PURE
    if asked.room is not None:
        build = Build(" (compiled)", asked.room.absolute())
    elif not asked.pure:
        build = compiled(Path("build", "bench", "native").absolute())
    rates = [int(rate) for rate in asked.rates.split(",")]
    book = Book({"form": build.suffix or "pure Python", "seconds": asked.seconds})
    with Broker.start(light=False, heap_mb=1024) as broker:
        for _ in range(asked.rounds):
            if not asked.apart:
                latency(book, broker, asked.seconds, build, rates=rates)
                continue
            for rate in rates:
                warm_latency(book, broker, rate, asked.seconds, build, reads=not asked.unread)
    print(f"\n{book.under()}")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
