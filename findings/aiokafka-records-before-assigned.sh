#!/usr/bin/env bash
# surprise: aiokafka hands out records of new partitions while on_partitions_assigned is still preparing for them.
# versions: PyPI aiokafka 0.14.0; Apache Kafka 4.4.0
# expected: no record before the callback has returned. ConsumerRebalanceListener.on_partitions_assigned is documented for the
#   load of state and is called "after partition re-assignment completes and before the consumer starts fetching data again".
# does: fetching starts first and getmany does not wait for a coroutine callback. A program that seeks, or loads a partition's
#   state, in the callback has by then been given records from the old position, without the state (aiokafka issue 738).

. "$(dirname "$0")/lib/finding.sh"
. "$(dirname "$0")/lib/broker.sh"
python_packages aiokafka==0.14.0
broker_start
seen=$(timeout 90 "$WORK/venv/bin/python" - <<'PYTHON'
import asyncio
import os

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener

SERVERS = os.environ["BOOTSTRAP"]
order: list[str] = []
handed_out = asyncio.Event()


class Prepare(ConsumerRebalanceListener):
    async def on_partitions_revoked(self, revoked):
        pass

    async def on_partitions_assigned(self, assigned):
        if not assigned:
            return
        order.append("callback begins")
        try:  # as long as it takes to be handed a record, 10 s at most
            await asyncio.wait_for(handed_out.wait(), 10)
        except TimeoutError:
            pass
        order.append("callback ends")


async def main() -> None:
    async with AIOKafkaProducer(bootstrap_servers=SERVERS) as producer:
        await producer.send_and_wait("orders", b"one", partition=0)
    consumer = AIOKafkaConsumer(
        bootstrap_servers=SERVERS, group_id="finding", auto_offset_reset="earliest", session_timeout_ms=30_000
    )
    consumer.subscribe(["orders"], listener=Prepare())
    await consumer.start()
    while not any(text.startswith("record") for text in order):
        for records in (await consumer.getmany(timeout_ms=200)).values():
            order.append(f"record {records[0].value.decode()}")
            handed_out.set()
    while "callback ends" not in order:
        await asyncio.sleep(0.01)
    await consumer.stop()
    print(*order, sep="\n")


asyncio.run(main())
PYTHON
)
verdict "callback begins
record one
callback ends" "$seen"
