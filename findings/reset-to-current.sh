#!/usr/bin/env bash
# surprise: kafka-consumer-groups --reset-offsets --to-current, which moves no offset, erases the metadata stored with it.
# versions: Apache Kafka 4.4.0 (kafka-tools 4.4.0); PyPI kafka-python 3.0.12
# expected: nothing changes: the tool's help says "Reset offsets to current offset".
# does: the tool commits a new offset-and-metadata pair with an empty metadata string. Programs that keep a watermark, a
#   checkpoint's name or their version there (as Kafka Streams does with its partition time) find it empty afterwards.

. "$(dirname "$0")/lib/finding.sh"
. "$(dirname "$0")/lib/broker.sh"
python_packages kafka-python==3.0.12
broker_start
cat >"$WORK/offset.py" <<'PYTHON'
import os
import sys

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.structs import OffsetAndMetadata

servers = os.environ["BOOTSTRAP"]
partition = TopicPartition("orders", 0)
consumer = KafkaConsumer(bootstrap_servers=servers, group_id="finding", enable_auto_commit=False)
if sys.argv[1] == "before":
    KafkaProducer(bootstrap_servers=servers).send("orders", b"one", partition=0).get(30)
    consumer.assign([partition])
    consumer.commit({partition: OffsetAndMetadata(1, "watermark=1700000000000", -1)})
stored = consumer.committed(partition, metadata=True)
print(sys.argv[1], stored.offset, repr(stored.metadata))
consumer.close()
PYTHON
before=$(timeout 60 "$WORK/venv/bin/python" "$WORK/offset.py" before)
kafka_tool org.apache.kafka.tools.consumer.group.ConsumerGroupCommand --bootstrap-server "$BOOTSTRAP" \
  --group finding --reset-offsets --to-current --all-topics --execute
after=$(timeout 60 "$WORK/venv/bin/python" "$WORK/offset.py" after)
verdict "before 1 'watermark=1700000000000'
after 1 ''" "$before
$after"
