#!/usr/bin/env bash
# surprise: bytewax's to_sink() writes a Kafka record under the present time, and the sink puts keys on other partitions.
# versions: PyPI bytewax 0.21.1, confluent-kafka 2.16.1 (librdkafka 2.16.0), kafka-python 3.0.12 writes and reads; Kafka 4.4.0
# expected: the record's own time. The docstring of KafkaSourceMessage.to_sink() says that key, value and timestamp are used.
# does: key, value and headers are used. The timestamp stays 0, which librdkafka takes for the present time, so that a copy of
#   old records is of today: retention, windows and look-ups by time go by that. Keys leave the partitions on which the Java
#   client and kafka-python put them, as the sink leaves librdkafka its default, CRC32.

. "$(dirname "$0")/lib/finding.sh"
. "$(dirname "$0")/lib/broker.sh"
python_packages bytewax==0.21.1 confluent-kafka==2.16.1 kafka-python==3.0.12
broker_start
seen=$(timeout 120 "$WORK/venv/bin/python" - <<'PYTHON'
import os
import time

import bytewax.operators as op
from bytewax.connectors.kafka import KafkaSink, KafkaSource
from bytewax.dataflow import Dataflow
from bytewax.testing import run_main
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient, NewTopic

brokers = [os.environ["BOOTSTRAP"]]
admin = KafkaAdminClient(bootstrap_servers=brokers)
admin.create_topics([NewTopic(name, num_partitions=4, replication_factor=1) for name in ("orders", "copy")])
producer = KafkaProducer(bootstrap_servers=brokers)
for number in range(4):
    producer.send("orders", b"value", f"key-{number}".encode(), [("id", b"7")], timestamp_ms=1_760_000_000_000 + number)
producer.flush(30)

flow = Dataflow("copy")
read = op.input("read", flow, KafkaSource(brokers, ["orders"], tail=False))
op.output("write", op.map("to_sink", read, lambda record: record.to_sink()), KafkaSink(brokers, "copy"))
run_main(flow)

for topic in ("orders", "copy"):
    reader = KafkaConsumer(bootstrap_servers=brokers, auto_offset_reset="earliest", consumer_timeout_ms=5_000)
    reader.assign([TopicPartition(topic, partition) for partition in range(4)])
    for record in sorted(reader, key=lambda record: record.key):
        when = "now" if abs(record.timestamp / 1000 - time.time()) < 3_600 else record.timestamp
        print(topic, record.key.decode(), "partition", record.partition, "headers", record.headers, "timestamp", when)
PYTHON
)
verdict "orders key-0 partition 1 headers [('id', b'7')] timestamp 1760000000000
orders key-1 partition 0 headers [('id', b'7')] timestamp 1760000000001
orders key-2 partition 2 headers [('id', b'7')] timestamp 1760000000002
orders key-3 partition 3 headers [('id', b'7')] timestamp 1760000000003
copy key-0 partition 0 headers [('id', b'7')] timestamp now
copy key-1 partition 2 headers [('id', b'7')] timestamp now
copy key-2 partition 0 headers [('id', b'7')] timestamp now
copy key-3 partition 2 headers [('id', b'7')] timestamp now" "$seen"
