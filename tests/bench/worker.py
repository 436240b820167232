"""The whole worker on a real broker: what an event costs it, what it costs the broker, and whether all came out right.

The measured process is `serve` itself. Some of the worker's methods are wrapped to see when its first record comes,
when the last is committed, and when a restore is done; they run once per life or once per unit, never per record.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from confluent_kafka import Producer

from processor.broker import Broker
from processor.config.loading import load
from processor.core.effects import Record
from processor.serve import worker
from processor.serve.assigned_partition import AssignedPartition
from processor.serve.command import serve
from tests import kafka_tools
from tests.bench.load import DEAD, Expected, Job, records
from tests.bench.measure import PURE, Build, Run, child, ended, follow
from tests.bench.measured_process import MeasuredProcess
from tests.bench.verdict import judge

Header = tuple[str, bytes]

STATUSES = ("completed", "failed", "cancelled", "expired")
KEEP = {"retention.ms": "-1", "segment.ms": str(20 * 365 * 86_400_000)}
"""The records' time is long past and that of a marker is now: each partition would begin a segment between them."""
_LARGE = {"max.message.bytes": str(2 << 20)}  # a dead letter is its record and more


def put_job(broker: Broker, topic: str, job: Job) -> Expected:
    """Make the topic and write the job to it; returns what must come out."""
    expected = Expected()
    put(broker, topic, job.partitions, ((*made, ()) for made in records(job, expected)))
    return expected


def put(
    broker: Broker, topic: str, partitions: int, made: Iterable[tuple[int, int, bytes, bytes, Sequence[Header]]]
) -> int:
    """Make the topic and write records to it: partition, timestamp in ms, key, value, headers. Returns how many.

    Raises:
        RuntimeError: not all of them were taken.
    """
    kafka_tools.create_topics(broker.bootstrap, topic, partitions=partitions, config=KEEP)
    producer = Producer(
        {
            "bootstrap.servers": broker.bootstrap,
            "enable.idempotence": True,
            "linger.ms": 50,
            "batch.size": 256 << 10,
            "queue.buffering.max.messages": 500_000,
        }
    )
    failures: list[object] = []
    number = 0
    for number, (partition, timestamp, key, value, headers) in enumerate(made, 1):
        while True:
            try:
                producer.produce(
                    topic,
                    value,
                    key,
                    partition=partition,
                    timestamp=timestamp,
                    headers=list(headers),
                    on_delivery=lambda error, _: failures.append(error) if error is not None else None,
                )
                break
            except BufferError:
                producer.poll(0.1)
        if number % 1000 == 0:
            producer.poll(0)
    left = producer.flush(60)
    if left or failures:
        raise RuntimeError(f"topic {topic}: {left} records not delivered, {len(failures)} refused")
    return number


def make_outputs(broker: Broker, name: str, partitions: int) -> dict[str, str]:
    """The topics that a worker or a peer of that name publishes to: by status, and `DEAD`."""
    topics = {kind: f"{name}.{kind}" for kind in (*STATUSES, DEAD)}
    kafka_tools.create_topics(broker.bootstrap, *topics.values(), partitions=partitions, config=KEEP | _LARGE)
    return topics


class Life:
    """The topics, the group and the settings of one worker, which nobody else uses."""

    def __init__(
        self,
        broker: Broker,
        source: str,
        name: str,
        partitions: int,
        settings: Mapping[str, str],
        build: Build = PURE,
    ) -> None:
        self.broker, self.source, self.name, self.build = broker, source, name, build
        self.topics = make_outputs(broker, name, partitions)
        kafka_tools.create_topics(
            broker.bootstrap,
            f"{name}.checkpoints",
            partitions=partitions,
            config={"cleanup.policy": "compact", "max.message.bytes": str(80 << 20)},
        )
        self.env = {
            "RUN_STEPS_KAFKA__BOOTSTRAP_SERVERS": broker.bootstrap,
            "RUN_STEPS_SOURCE__TOPIC": source,
            "RUN_STEPS_SOURCE__GROUP_ID": name,
            "RUN_STEPS_CHECKPOINTS__TOPIC": f"{name}.checkpoints",
            "RUN_STEPS_HTTP__PORT": "0",
            **{f"RUN_STEPS_OUTPUT__{status.upper()}": self.topics[status] for status in STATUSES},
            "RUN_STEPS_OUTPUT__DEAD_LETTER": self.topics[DEAD],
            **settings,
        }

    def start(self, events: int, *more: str) -> subprocess.Popen[str]:
        """A process that serves, and says when offsets for `events` records are committed."""
        return child("tests.bench.worker", "serve", str(events), *more, env=self.env, build=self.build)

    def run(self, events: int) -> Run:
        """Serve until all is committed, then end it in order."""
        process = self.start(events)
        try:
            return follow(process, self.broker)
        finally:
            process.terminate()
            code = ended(process)
            if code and sys.exc_info()[0] is None:
                raise RuntimeError(f"{self.name}: the worker ended with {code}; see build/bench/worker.log")

    def run_and_kill(self, events: int) -> Run:
        """Serve until all is committed, then kill -9."""
        process = self.start(events)
        try:
            return follow(process, self.broker)
        finally:
            process.kill()
            process.wait()

    def restore(self) -> Run:
        """Begin again after a kill: measured from the assignment until every partition is live."""
        process = child("tests.bench.worker", "restore", "0", env=self.env, build=self.build)
        try:
            return follow(process, self.broker)
        finally:
            process.terminate()
            ended(process)

    def check(self, expected: Expected, *, exactly_once: bool = True) -> None:
        """Everything came out, with the right contents, and (if so promised) once.

        Raises:
            RuntimeError: it did not.
        """
        verdict = judge(self.broker.bootstrap, self.topics, expected)
        if not verdict.is_correct(exactly_once=exactly_once):
            raise RuntimeError(f"{self.name}: {verdict}")


# --- the measured process ------------------------------------------------------------------------------------------


def _watch_commits(events: int) -> None:
    """Measured from the first record handed to the core until offsets for `events` records are committed."""
    measured, done = MeasuredProcess(), dict[int, int]()
    apply, commit = worker.Worker._apply, worker.Worker._commit

    def first(self: worker.Worker, owned: AssignedPartition, records: Sequence[Record], now: float) -> None:
        measured.begin()
        worker.Worker._apply = apply  # type: ignore[method-assign]
        apply(self, owned, records, now)

    async def noted(self: worker.Worker, closed: Any) -> None:
        await commit(self, closed)
        done.update({partition: committed.offset for partition, committed in closed.unit.offsets.items()})
        if sum(done.values()) >= events:
            worker.Worker._commit = commit  # type: ignore[method-assign]
            measured.end(events)

    worker.Worker._apply = first  # type: ignore[method-assign]
    worker.Worker._commit = noted  # type: ignore[method-assign]


def _watch_restore() -> None:
    """Measured from the assignment until every partition is live."""
    measured = MeasuredProcess()
    assigned, announce = worker.Worker.assigned, worker.Worker._announce
    born = time.perf_counter()

    def begun(self: worker.Worker, partitions: list[int]) -> None:
        measured.begin()
        assigned(self, partitions)

    def announced(self: worker.Worker, *args: Any, **kwargs: Any) -> None:
        announce(self, *args, **kwargs)
        owned = self._owned.values()
        if len(owned) == len(self._assigned) and all(o.state.is_live for o in owned):
            events = sum(o.state.live_from - o.restored_from for o in owned)
            measured.end(events, since_start_s=time.perf_counter() - born)

    worker.Worker.assigned = begun  # type: ignore[method-assign]
    worker.Worker._announce = announced  # type: ignore[method-assign]


def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("serve", "restore"))
    parser.add_argument("events", type=int)
    parser.add_argument("--anew", type=int, default=0, help="so many partitions begin at 0, whatever the outputs hold")
    asked = parser.parse_args()
    if asked.what == "serve":
        _watch_commits(asked.events)
    else:
        _watch_restore()
    settings = load(None, os.environ).beginning_at(dict.fromkeys(range(asked.anew), "earliest"))
    sys.exit(serve(settings, create_topics=False, workers=1))


if __name__ == "__main__":
    _main()
