#!/usr/bin/env bash
# surprise: A FastStream relay writes a tombstone as an empty value, which deletes nothing, and the JSON text null as a tombstone.
# versions: PyPI faststream 0.7.8 with its extra kafka, aiokafka 0.14.0; kafka-python 3.0.12 writes and reads; Apache Kafka 4.4.0
# expected: each value as it came: on a compacted topic a null value alone deletes its key, and no bytes or the text null are values.
#   publish(None) does write a null value, so that a handler which returns what it was given should write again what was there.
# does: a null value is handed to the handler as b"", as is an empty one, and the text null as None. What was to be deleted stays on
#   the topic for good, as a record that is no JSON, and a state that is null deletes the one before it.

. "$(dirname "$0")/lib/finding.sh"
. "$(dirname "$0")/lib/broker.sh"
python_packages "faststream[kafka]==0.7.8" aiokafka==0.14.0 kafka-python==3.0.12
broker_start
seen=$(timeout 60 "$WORK/venv/bin/python" - <<'PYTHON' 2>/dev/null
import asyncio
import os

from faststream.kafka import KafkaBroker, KafkaMessage
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

address = os.environ["BOOTSTRAP"]
producer = KafkaProducer(bootstrap_servers=address)
for value in (b'{"step":1}', b"", None, b"null"):
    producer.send("states", key=b"run-1", value=value, partition=0)
producer.flush()
broker = KafkaBroker(address, logger=None)
done = asyncio.Event()
handled = []


@broker.subscriber("states", auto_offset_reset="earliest", group_id="relay")
async def relay(state, message: KafkaMessage):
    handled.append(state)
    await broker.publish(state, "copies", key=message.raw_message.key)
    if len(handled) == 4:
        done.set()


async def main():
    await broker.start()
    await asyncio.wait_for(done.wait(), 40)
    await broker.stop()


asyncio.run(main())
print("handled:", *map(repr, handled))
for topic in ("states", "copies"):
    reader = KafkaConsumer(bootstrap_servers=address, auto_offset_reset="earliest", consumer_timeout_ms=3000)
    reader.assign([TopicPartition(topic, 0)])
    print(f"{topic}:", *(record.value for record in reader))
PYTHON
)
verdict "handled: {'step': 1} b'' b'' None
states: b'{\"step\":1}' b'' None b'null'
copies: b'{\"step\":1}' b'' b'' None" "$seen"
