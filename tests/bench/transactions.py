"""What one transaction costs: version 2 (KIP-890) beside version 1, on one broker, in turn.

    .venv/bin/python -m tests.bench.transactions --transactions 300 --rounds 3

Each transaction writes one record to every partition of the output, and the offsets of as many source partitions;
`--pause-ms` lies between two of them, as the commit interval does in the worker.
"""

from __future__ import annotations

import argparse
import asyncio
import time
import uuid
from statistics import median
from typing import NamedTuple

from processor.broker import Broker
from processor.kafka.consumer import Committed
from processor.kafka.link import BrokerLink
from processor.kafka.records import OutRecord
from processor.kafka.writer import Unit
from tests.broker.kafka_members import Listener, member, transactional
from tests.kafka_tools import create_topics

PARTITIONS = (1, 8, 48)


class Cost(NamedTuple):
    """Of one transaction, in milliseconds."""

    broker_cpu_ms: float
    client_cpu_ms: float
    wall_ms: float


async def cost(broker: Broker, partitions: int, transactions: int, pause_s: float, version: int) -> Cost:
    name = f"bench.txn.{uuid.uuid4().hex[:8]}"
    source, sink = f"{name}.in", f"{name}.out"
    create_topics(broker.bootstrap, source, sink, partitions=partitions)
    original = BrokerLink.transaction_version

    async def fixed(*_: object) -> int:
        return version

    BrokerLink.transaction_version = fixed  # type: ignore[assignment, method-assign]
    try:
        listener = Listener()
        async with (
            member(broker.bootstrap, source, name, listener) as consumer,
            transactional(broker.bootstrap, source, name, consumer.token) as writer,
        ):
            await listener.owns(partitions)
            spent_s = 0.0
            broker_s = client_s = 0.0
            for number in range(transactions + 20):
                if number == 20:  # the first ones find coordinators and leaders
                    broker_s, client_s, spent_s = broker.cpu_seconds(), time.process_time(), 0.0
                records = [OutRecord(sink, p, b"key", b"x" * 300, 1_700_000_000_000, ()) for p in range(partitions)]
                offsets = {p: Committed(number, f"{number}") for p in range(partitions)}
                began = time.perf_counter()
                await writer.commit(Unit(consumer.token(), records, offsets))
                spent_s += time.perf_counter() - began
                await asyncio.sleep(pause_s)
            broker_s, client_s = broker.cpu_seconds() - broker_s, time.process_time() - client_s
    finally:
        BrokerLink.transaction_version = original  # type: ignore[method-assign]
    return Cost(*(seconds / transactions * 1000 for seconds in (broker_s, client_s, spent_s)))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.transactions", description=__doc__)
    parser.add_argument("--transactions", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pause-ms", type=float, default=10.0)
    asked = parser.parse_args()
    with Broker.start(light=False, heap_mb=1024) as broker:
        print(  # noqa: T201
            "| partitions | version | broker CPU ms | client CPU ms | wall ms | broker CPU ratio | client CPU ratio |"
        )
        print("|---:|---:|---:|---:|---:|---:|---:|")  # noqa: T201
        for partitions in PARTITIONS:
            runs: dict[int, list[Cost]] = {1: [], 2: []}
            for _ in range(asked.rounds):
                for version, taken in runs.items():
                    pause_s = asked.pause_ms / 1000
                    taken.append(asyncio.run(cost(broker, partitions, asked.transactions, pause_s, version)))
            for version, taken in runs.items():
                middle = Cost(*(median(column) for column in zip(*taken, strict=True)))
                ratios = [
                    median(one[field] / base[field] for one, base in zip(taken, runs[1], strict=True))
                    for field in (0, 1)
                ]
                cells = [*(f"{value:.2f}" for value in middle), *(f"{ratio:.2f}" for ratio in ratios)]
                print(f"| {partitions} | {version} | {' | '.join(cells)} |", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
