"""Nothing comes, and next to nothing is done."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from processor.broker import Broker
from processor.simulate import Dials, Simulation
from tests.faults.service import Stage
from tests.kafka_tools import Names, create_topics

LOOK_S = 20.0
MOST_CPU = 0.02
"""Of one core. A share of processor time, not of the clock."""
MOST_TIMES_A_CONSUMER = 4.0
"""Where the machine makes waking up dear, as virtual ones do at times: beside an idle consumer in the same seconds."""
MOST_GROWTH_BYTES = 2 << 20


_CONSUMER = """
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


def cpu_s(pid: int) -> float:
    """User and system time of a process."""
    told = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(told[11]) + int(told[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def idle_consumer(bootstrap: str, topic: str) -> Iterator[int]:
    """The process id of the library's own consumer, which waits for records that do not come."""
    process = subprocess.Popen([sys.executable, "-c", _CONSUMER, bootstrap, topic], stderr=subprocess.DEVNULL)
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()


def test_idle_is_idle(broker: Broker, names: Names, tmp_path: Path) -> None:
    """After some work, with steps open and a checkpoint interval that passes while we look."""
    stage = Stage(broker.bootstrap, names, tmp_path, partitions=4)
    records = list(Simulation(Dials(runs=40, partitions=4, seed=9)))[:-200]
    create_topics(broker.bootstrap, names.topic("nothing"), partitions=4)
    with ExitStack() as looks, stage.serve({"checkpoints": {"interval_s": 5.0}}) as service:
        service.until_live()
        stage.put(records)
        stage.until_done(records, service)
        settled = time.monotonic() + 8  # the open steps are written down, and what that allocated is there
        service.until("settled", lambda: time.monotonic() > settled)
        consumer = looks.enter_context(idle_consumer(broker.bootstrap, names.topic("nothing")))
        begun = time.monotonic() + 3
        service.until("the consumer has begun", lambda: time.monotonic() > begun)
        spent, theirs, rss, began = service.cpu_s(), cpu_s(consumer), service.rss_bytes(), time.monotonic()
        service.until("the look over", lambda: time.monotonic() - began >= LOOK_S)
        seconds = time.monotonic() - began
        share, beside = (service.cpu_s() - spent) / seconds, (cpu_s(consumer) - theirs) / seconds
        grown = service.rss_bytes() - rss
        assert service.terminate() == 0
    assert share < max(MOST_CPU, MOST_TIMES_A_CONSUMER * beside), (
        f"{share:.1%} of a core, an idle consumer {beside:.1%}"
    )
    assert grown < MOST_GROWTH_BYTES, f"{grown} bytes more"
