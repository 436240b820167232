#!/usr/bin/env bash
# surprise: confluent-kafka writes a record with timestamp 0 (1 January 1970) under the present time.
# versions: PyPI confluent-kafka 2.16.1 (librdkafka 2.16.0), kafka-python 3.0.12 writes for comparison and reads; Kafka 4.4.0
# expected: timestamp 0, as kafka-python writes it. produce() documents "Message timestamp (CreateTime) in milliseconds since
#   epoch UTC. Default value is current time", and 0 was given, not left out.
# does: librdkafka takes 0 for "not given". 1 and 2 go out as they are, so of three records a millisecond apart the first
#   moves by half a century behind the others; look-ups and retention by time follow it.

. "$(dirname "$0")/lib/finding.sh"
. "$(dirname "$0")/lib/broker.sh"
python_packages confluent-kafka==2.16.1 kafka-python==3.0.12
broker_start
seen=$(timeout 90 "$WORK/venv/bin/python" - <<'PYTHON'
import os
import time

import confluent_kafka
import kafka
from confluent_kafka.admin import AdminClient, NewTopic

servers = os.environ["BOOTSTRAP"]
admin = AdminClient({"bootstrap.servers": servers})
admin.create_topics([NewTopic("orders", 1, 1, config={"retention.ms": "-1"})])["orders"].result(30)
started_ms = int(time.time() * 1000)
confluent = confluent_kafka.Producer({"bootstrap.servers": servers})
for timestamp in (0, 1, 2):
    confluent.produce("orders", f"confluent-kafka {timestamp}", timestamp=timestamp)
confluent.flush(30)
kafka.KafkaProducer(bootstrap_servers=servers).send("orders", b"kafka-python 0", timestamp_ms=0).get(30)
consumer = kafka.KafkaConsumer("orders", bootstrap_servers=servers, auto_offset_reset="earliest")
for _, record in zip(range(4), consumer):
    when = "now" if record.timestamp >= started_ms else record.timestamp
    print("given to", record.value.decode(), "in the log", when)
PYTHON
)
verdict "given to confluent-kafka 0 in the log now
given to confluent-kafka 1 in the log 1
given to confluent-kafka 2 in the log 2
given to kafka-python 0 in the log 0" "$seen"
