#!/usr/bin/env bash
# surprise: MirrorMaker 2 at its defaults turns records of aborted transactions into ones that read_committed readers get.
# versions: Maven org.apache.kafka:connect-mirror:4.3.1; PyPI confluent-kafka 2.16.1 writes and reads; Apache Kafka 4.4.0
# expected: a reader of committed data sees the same records in the copy as in the source. Kafka's documentation presents
#   geo-replication with MirrorMaker as a copy of topics; KIP-98 keeps aborted records from such readers.
# does: its consumer is read_uncommitted unless the SOURCE.consumer.isolation.level of its configuration says otherwise, its
#   producer writes plain records, and no markers are copied. What the source's readers never saw is committed in the copy.

. "$(dirname "$0")/lib/finding.sh"
. "$(dirname "$0")/lib/broker.sh"
python_packages confluent-kafka==2.16.1
java_packages mirror org.apache.kafka:connect-mirror:4.3.1 org.slf4j:slf4j-simple:1.7.36
broker_start
timeout 60 "$WORK/venv/bin/python" - <<'PYTHON'
import os

from confluent_kafka import Producer

producer = Producer({"bootstrap.servers": os.environ["BOOTSTRAP"], "transactional.id": "finding", "log_level": 0})
producer.init_transactions()
for value, end in (("aborted", producer.abort_transaction), ("committed", producer.commit_transaction)):
    producer.begin_transaction()
    producer.produce("orders", value, partition=0)
    producer.flush(30)
    end()
PYTHON
# One broker is source and target: the copy has the source's alias before its name.
cat >"$WORK/mirror.properties" <<SETTINGS
clusters=source,target
source.bootstrap.servers=$BOOTSTRAP
target.bootstrap.servers=$BOOTSTRAP
source->target.enabled=true
source->target.topics=orders
target->source.enabled=false
source->target.emit.checkpoints.enabled=false
emit.heartbeats.enabled=false
replication.factor=1
offset-syncs.topic.replication.factor=1
checkpoints.topic.replication.factor=1
heartbeats.topic.replication.factor=1
offset.storage.replication.factor=1
offset.storage.partitions=1
status.storage.replication.factor=1
status.storage.partitions=1
config.storage.replication.factor=1
SETTINGS
java -Xmx384m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -cp "$WORK/mirror/*" \
  org.apache.kafka.connect.mirror.MirrorMaker "$WORK/mirror.properties" >"$WORK/mirror.log" 2>&1 &
BACKGROUND+=($!)
seen=$(timeout 120 "$WORK/venv/bin/python" - <<'PYTHON'
import os
import time

from confluent_kafka import Consumer, TopicPartition

settings = {"bootstrap.servers": os.environ["BOOTSTRAP"], "group.id": "finding", "isolation.level": "read_committed"}
consumer = Consumer(settings | {"auto.offset.reset": "earliest", "enable.auto.commit": False, "log_level": 0})
for topic in ("orders", "source.orders"):
    deadline = time.monotonic() + 100
    while topic not in consumer.list_topics(timeout=30).topics and time.monotonic() < deadline:
        time.sleep(0.2)
    consumer.assign([TopicPartition(topic, 0, 0)])
    values: list[str] = []
    while "committed" not in values and time.monotonic() < deadline:
        if (message := consumer.poll(1)) and not message.error():
            values.append(message.value().decode())
    print(topic, *values)
PYTHON
) || { tail -n 30 "$WORK/mirror.log" >&2; exit 1; }
verdict "orders committed
source.orders aborted committed" "$seen"
