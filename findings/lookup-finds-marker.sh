#!/usr/bin/env bash
# surprise: A look-up of offsets by time finds transaction markers, which no consumer can read.
# versions: Apache Kafka 4.4.0; PyPI kafka-python 3.0.12 and confluent-kafka 2.16.1
# expected: no offset, as the only record of the topic is older than the time asked for: the Java client's offsetsForTimes
#   speaks of the earliest offset whose timestamp is greater than or equal to the given one and of null where there is no such
#   message. For OffsetSpec.maxTimestamp (KIP-734): the record's own offset and time.
# does: the commit marker stands in the log as a record of its own with the broker's clock. Both look-ups answer with the
#   marker's offset and time, under read_committed, too. Who imports old data in a transaction and then asks "is there
#   anything of today?" is told yes, and when the newest record was written, the answer is the time of the commit.

. "$(dirname "$0")/lib/finding.sh"
. "$(dirname "$0")/lib/broker.sh"
python_packages kafka-python==3.0.12 confluent-kafka==2.16.1
broker_start
seen=$(timeout 90 "$WORK/venv/bin/python" - <<'PYTHON'
import os
import time

import confluent_kafka
import kafka
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

OLD_MS = 1_700_000_000_000  # November 2023
servers = {"bootstrap.servers": os.environ["BOOTSTRAP"]}
admin = AdminClient(servers)
admin.create_topics([NewTopic("orders", 1, 1, config={"retention.ms": "-1"})])["orders"].result(30)
started_ms = int(time.time() * 1000)
producer = confluent_kafka.Producer(servers | {"transactional.id": "finding", "log_level": 0})
producer.init_transactions()
producer.begin_transaction()
producer.produce("orders", "one", timestamp=OLD_MS)
producer.commit_transaction()

consumer = kafka.KafkaConsumer(
    bootstrap_servers=os.environ["BOOTSTRAP"], isolation_level="read_committed", auto_offset_reset="earliest"
)
partition = kafka.TopicPartition("orders", 0)
consumer.assign([partition])
records = consumer.poll(30_000)[partition]
print("records", [(record.offset, record.timestamp) for record in records])
found = consumer.offsets_for_times({partition: OLD_MS + 1})[partition]
print("first at or after that time + 1 ms: offset", found.offset, "of today" if found.timestamp >= started_ms else found)
where = confluent_kafka.TopicPartition("orders", 0)
latest = admin.list_offsets({where: OffsetSpec.max_timestamp()})[where].result(30)
print("largest timestamp: offset", latest.offset, "of today" if latest.timestamp >= started_ms else latest.timestamp)
PYTHON
)
verdict "records [(0, 1700000000000)]
first at or after that time + 1 ms: offset 1 of today
largest timestamp: offset 1 of today" "$seen"
