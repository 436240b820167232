#!/usr/bin/env bash
# surprise: A loop of confluent-kafka with "if not message: continue" reads no tombstones and no empty values: they are false.
# versions: PyPI confluent-kafka 2.16.1, aiokafka 0.14.0 and kafka-python 3.0.12 for comparison; Apache Kafka 4.4.0
# expected: 4 records. poll() gives a message or None, and an object that is no container is true in Python unless its class says
#   otherwise; the records of aiokafka and kafka-python are true.
# does: len(message) is the length of the value, so that a message without a value, or with an empty one, is false. Such a loop skips
#   each deletion of a compacted topic, commits the offsets behind it and reports nothing. With "is None", as in the library's examples,
#   all records are read. list comprehensions over consume() with "if message" skip them likewise.

. "$(dirname "$0")/lib/finding.sh"
. "$(dirname "$0")/lib/broker.sh"
python_packages confluent-kafka==2.16.1 aiokafka==0.14.0 kafka-python==3.0.12
broker_start
seen=$(timeout 60 "$WORK/venv/bin/python" - "$BOOTSTRAP" <<'PYTHON'
import asyncio
import sys
import time

import aiokafka
import confluent_kafka
import kafka

settings = {"bootstrap.servers": sys.argv[1]}
producer = confluent_kafka.Producer(settings)
for key, value in ((b"a", b"one"), (b"b", None), (b"c", b""), (b"d", b"four")):
    producer.produce("records", key=key, value=value)
producer.flush()


def loop(name, ends):
    consumer = confluent_kafka.Consumer(settings | {"group.id": "none"})
    consumer.assign([confluent_kafka.TopicPartition("records", 0, 0)])
    keys, until = [], time.monotonic() + 30
    while b"d" not in keys and time.monotonic() < until:
        message = consumer.poll(1)
        if ends(message):
            continue
        keys.append(message.key())
    consumer.close()
    print(f"{name}: {b' '.join(keys).decode()}")


loop("confluent-kafka, if message is None: continue", lambda message: message is None)
loop("confluent-kafka, if not message: continue", lambda message: not message)


async def aio():
    async with aiokafka.AIOKafkaConsumer("records", bootstrap_servers=sys.argv[1], auto_offset_reset="earliest") as consumer:
        return [bool(await consumer.getone()) for _ in range(4)]


print("aiokafka, records that are true:", sum(asyncio.run(aio())))
reader = kafka.KafkaConsumer("records", bootstrap_servers=sys.argv[1], auto_offset_reset="earliest")
print("kafka-python, records that are true:", sum(bool(next(reader)) for _ in range(4)))
PYTHON
)
verdict "confluent-kafka, if message is None: continue: a b c d
confluent-kafka, if not message: continue: a d
aiokafka, records that are true: 4
kafka-python, records that are true: 4" "$seen"
