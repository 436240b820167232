"""Consume loops that do nothing with their records: upstream's `getmany`, and our fast path. Each its own process."""

from __future__ import annotations

import argparse

import uvloop
from aiokafka import AIOKafkaConsumer

from processor.broker import Broker
from processor.kafka.client_config import Connection
from processor.kafka.consumer import Consumer
from tests.bench.measure import Run, child, collector_as_in_the_worker, ended, follow
from tests.bench.measured_process import MeasuredProcess

FETCH_MAX_BYTES = 4 << 20
PARTITION_FETCH_BYTES = 1 << 20
MAX_POLL_RECORDS = 4_000


async def upstream(bootstrap: str, topic: str, group: str, events: int) -> None:
    """The stock client doing nothing, with the worker's own fetch sizes."""
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=bootstrap,
        group_id=group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        fetch_max_bytes=FETCH_MAX_BYTES,
        max_partition_fetch_bytes=PARTITION_FETCH_BYTES,
    )
    await consumer.start()
    measured, seen = MeasuredProcess(), 0
    while seen < events:
        for records in (await consumer.getmany(timeout_ms=250, max_records=MAX_POLL_RECORDS)).values():
            measured.begin()
            seen += len(records)
    measured.end(seen)
    await consumer.stop()


class _FromTheBeginning:
    """Begins each partition at its first record."""

    def __init__(self) -> None:
        self.mine: list[int] = []
        self.is_new = False

    async def revoked(self, partitions: list[int]) -> None:
        self.mine = []

    def assigned(self, partitions: list[int]) -> None:
        self.mine, self.is_new = partitions, True


async def fast(bootstrap: str, topic: str, group: str, events: int) -> None:
    """Our consumer doing nothing."""
    listener = _FromTheBeginning()
    consumer = Consumer(
        Connection.build(bootstrap),
        topic=topic,
        group_id=group,
        client_id="bench",
        instance_id=None,
        session_timeout_ms=30_000,
        heartbeat_interval_ms=3_000,
        rebalance_timeout_ms=60_000,
        fetch_max_bytes=FETCH_MAX_BYTES,
        partition_fetch_bytes=PARTITION_FETCH_BYTES,
        listener=listener,
    )
    await consumer.start()
    measured, seen = MeasuredProcess(), 0
    while seen < events:
        if listener.is_new:
            listener.is_new = False
            for partition in listener.mine:
                consumer.seek(partition, 0)
        for records in (await consumer.poll(listener.mine, timeout_ms=250, max_records=MAX_POLL_RECORDS)).values():
            measured.begin()
            seen += len(records)
    measured.end(seen)
    await consumer.stop(timeout_s=5)


LOOPS = {"upstream": upstream, "fast": fast}


def measured(which: str, broker: Broker, topic: str, group: str, events: int) -> Run:
    """One run of one of `LOOPS` over the whole topic."""
    process = child("tests.bench.loops", which, broker.bootstrap, topic, group, str(events))
    try:
        return follow(process, broker)
    finally:
        ended(process)


def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("which", choices=LOOPS)
    parser.add_argument("bootstrap")
    parser.add_argument("topic")
    parser.add_argument("group")
    parser.add_argument("events", type=int)
    asked = parser.parse_args()
    collector_as_in_the_worker()
    uvloop.run(LOOPS[asked.which](asked.bootstrap, asked.topic, asked.group, asked.events))


if __name__ == "__main__":
    _main()
