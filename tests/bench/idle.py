"""What a worker costs where nothing comes, beside an idle consumer of the library in the same seconds.

Both wait on one broker. What a wake-up costs differs tenfold between machines and minutes, so that the ratio is what to
look at; how often a worker wakes up is judged by tests/faults/test_idle.py.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from processor.broker import Broker
from tests.bench.measure import Book
from tests.faults.service import Stage
from tests.kafka_tools import Names

_LOOK_S: Final = 20.0
_SETTLED_S: Final = 5.0
_CONSUMER: Final = """
import asyncio, sys
from aiokafka import AIOKafkaConsumer
async def main():
    async with AIOKafkaConsumer(
        sys.argv[2], bootstrap_servers=sys.argv[1], group_id=sys.argv[2] + ".idle", fetch_max_wait_ms=150
    ) as consumer:
        while True:
            await consumer.getmany(timeout_ms=250)
asyncio.run(main())
"""


def shares(book: Book, broker: Broker, rounds: int) -> None:
    """Processor time of each, in percent of a core."""
    ours, theirs = [], []
    prefix = f"bench-idle-{uuid.uuid4().hex[:8]}"
    with tempfile.TemporaryDirectory(prefix="run-steps-idle-") as home:
        stage = Stage(broker.bootstrap, Names(prefix, f"{prefix}.group"), Path(home), partitions=4)
        with stage.serve() as service, _consumer(broker.bootstrap, stage.source) as consumer:
            service.until_live()
            time.sleep(_SETTLED_S)
            for _ in range(rounds):
                began, spent, beside = time.monotonic(), service.cpu_s(), _cpu_s(consumer)
                time.sleep(_LOOK_S)
                seconds = time.monotonic() - began
                ours.append(100 * (service.cpu_s() - spent) / seconds)
                theirs.append(100 * (_cpu_s(consumer) - beside) / seconds)
            service.terminate()
    name = "idle: upstream consumer"
    book.add(name, theirs, "% of a core")
    book.add("idle: worker", ours, "% of a core", against=(name, theirs))


@contextmanager
def _consumer(bootstrap: str, topic: str) -> Iterator[int]:
    """The process id of the library's own consumer in a group of its own."""
    process = subprocess.Popen([sys.executable, "-c", _CONSUMER, bootstrap, topic], stderr=subprocess.DEVNULL)
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()


def _cpu_s(pid: int) -> float:
    """User and system time of a process."""
    told = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(told[11]) + int(told[12])) / os.sysconf("SC_CLK_TCK")
