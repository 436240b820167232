#!/usr/bin/env bash
# surprise: quixstreams copies a tombstone as the JSON text null, so that a compacted topic keeps what was to be deleted.
# versions: PyPI quixstreams 3.28.1 (with confluent-kafka 2.12.2), kafka-python 3.0.12 writes and reads; Apache Kafka 4.4.0
# expected: a null value for a null value: on a compacted topic it is the one record that deletes a key. Connect's JsonConverter and
#   confluent-kafka's JSONSerializer hand it on as null.
# does: a null value is read as None, and the JSON serializer, which is the default, writes None as the four letters null. Integers
#   beyond 64 bits come out as floating-point numbers, too. With the bytes deserializer and serializer both stay what they are.

. "$(dirname "$0")/lib/finding.sh"
. "$(dirname "$0")/lib/broker.sh"
python_packages quixstreams==3.28.1 confluent-kafka==2.12.2 kafka-python==3.0.12
broker_start
seen=$(timeout 120 "$WORK/venv/bin/python" - <<'PYTHON'
import os

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient, NewTopic
from quixstreams import Application

broker = os.environ["BOOTSTRAP"]
admin = KafkaAdminClient(bootstrap_servers=broker)
admin.create_topics([NewTopic(name, num_partitions=1, replication_factor=1) for name in ("orders", "json", "bytes")])
producer = KafkaProducer(bootstrap_servers=broker)
for value in (b'{"id":18446744073709551617}', None):
    producer.send("orders", value, b"key-1")
producer.flush(30)

for kind in ("json", "bytes"):
    app = Application(broker, consumer_group=kind, auto_offset_reset="earliest", auto_create_topics=False, loglevel="ERROR")
    orders, copy = app.topic("orders", value_deserializer=kind), app.topic(kind, value_serializer=kind)
    app.dataframe(orders).to_topic(copy)
    app.run(count=2, timeout=30)
for topic in ("orders", "json", "bytes"):
    reader = KafkaConsumer(bootstrap_servers=broker, auto_offset_reset="earliest", consumer_timeout_ms=5_000)
    reader.assign([TopicPartition(topic, 0)])
    print(f"{topic}:", [record.value for record in reader])
PYTHON
)
verdict "orders: [b'{\"id\":18446744073709551617}', None]
json: [b'{\"id\":1.8446744073709552e+19}', b'null']
bytes: [b'{\"id\":18446744073709551617}', None]" "$seen"
