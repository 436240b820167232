#!/usr/bin/env bash
# surprise: kafka-python and aiokafka refuse to write records that they read: a relay stops at a null header, or at any header.
# versions: PyPI kafka-python 3.0.12, aiokafka 0.14.0; confluent-kafka 2.16.1 writes; Apache Kafka 4.4.0
# expected: each record can be written as it was read. In the record format key, value and a header's value may each be null; the broker
#   takes such records, and both libraries read them.
# does: kafka-python refuses a header whose value is null (TypeError), though it gives None for it when it reads one. aiokafka's records
#   have their headers in a tuple, and its send() takes a list alone (TypeError), so that headers=record.headers fails for each record
#   that has some; list(record.headers) is written, nulls too. Both refuse a record without key and value, which may have headers
#   (ValueError; AssertionError).

. "$(dirname "$0")/lib/finding.sh"
. "$(dirname "$0")/lib/broker.sh"
python_packages confluent-kafka==2.16.1 aiokafka==0.14.0 kafka-python==3.0.12
broker_start
seen=$(timeout 60 "$WORK/venv/bin/python" - "$BOOTSTRAP" <<'PYTHON'
import asyncio
import sys

import aiokafka
import confluent_kafka
import kafka

RECORDS = {
    "header null": {"key": b"k", "value": b"v", "headers": [("note", None)]},
    "header empty": {"key": b"k", "value": b"v", "headers": [("note", b"")]},
    "value null": {"key": b"k", "value": None, "headers": []},
    "key null": {"key": None, "value": b"v", "headers": []},
    "key and value null": {"key": None, "value": None, "headers": [("note", b"x")]},
}
where = sys.argv[1]
producer = confluent_kafka.Producer({"bootstrap.servers": where})
for record in RECORDS.values():
    producer.produce("source", **record)
producer.flush()


def outcome(library, name, error):
    print(f"{library}, {name}: {'written' if error is None else type(error).__name__}")


reader = kafka.KafkaConsumer("source", bootstrap_servers=where, auto_offset_reset="earliest")
writer = kafka.KafkaProducer(bootstrap_servers=where)
for name, record in zip(RECORDS, reader):
    error = None
    try:
        writer.send("kafka-python", key=record.key, value=record.value, headers=record.headers).get(30)
    except (TypeError, ValueError, AssertionError) as raised:
        error = raised
    outcome("kafka-python", name, error)


async def relay(library, given):
    reader = aiokafka.AIOKafkaConsumer("source", bootstrap_servers=where, auto_offset_reset="earliest")
    async with reader, aiokafka.AIOKafkaProducer(bootstrap_servers=where) as writer:
        for name in RECORDS:
            record, error = await reader.getone(), None
            try:
                await writer.send_and_wait("aiokafka", key=record.key, value=record.value, headers=given(record.headers))
            except (TypeError, ValueError, AssertionError) as raised:
                error = raised
            outcome(library, name, error)


asyncio.run(relay("aiokafka", lambda headers: headers))
asyncio.run(relay("aiokafka with list()", list))
PYTHON
)
verdict "kafka-python, header null: TypeError
kafka-python, header empty: written
kafka-python, value null: written
kafka-python, key null: written
kafka-python, key and value null: ValueError
aiokafka, header null: TypeError
aiokafka, header empty: TypeError
aiokafka, value null: written
aiokafka, key null: written
aiokafka, key and value null: AssertionError
aiokafka with list(), header null: written
aiokafka with list(), header empty: written
aiokafka with list(), value null: written
aiokafka with list(), key null: written
aiokafka with list(), key and value null: AssertionError" "$seen"
