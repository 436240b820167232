#!/usr/bin/env bash
# surprise: The broker's offset.metadata.max.bytes counts UTF-16 units: up to three times as many bytes are taken.
# versions: Apache Kafka 4.4.0; PyPI kafka-python 3.0.12
# expected: a metadata string of more than 4096 bytes is refused (OFFSET_METADATA_TOO_LARGE, error 12). The broker setting is
#   named "bytes", defaults to 4096, and is documented as the maximum size of a metadata entry of an offset commit.
# does: the length of the Java string is compared. 4096 Chinese characters, 12288 bytes, are stored; 4097 Latin letters are
#   refused; of characters outside the basic plane 2048 are taken and 2049 refused. Who counts bytes on the client's side
#   refuses what fits, who counts code points (as Python's len does) is refused by the broker.

. "$(dirname "$0")/lib/finding.sh"
. "$(dirname "$0")/lib/broker.sh"
python_packages kafka-python==3.0.12
broker_start
seen=$(timeout 90 "$WORK/venv/bin/python" - <<'PYTHON'
import os

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import OffsetMetadataTooLargeError
from kafka.structs import OffsetAndMetadata

servers = os.environ["BOOTSTRAP"]
partition = TopicPartition("orders", 0)
KafkaProducer(bootstrap_servers=servers).send("orders", b"one", partition=0).get(30)
for character, count in (("a", 4096), ("a", 4097), ("\u6f22", 4096), ("\U0001f600", 2048), ("\U0001f600", 2049)):
    consumer = KafkaConsumer(bootstrap_servers=servers, group_id="finding", enable_auto_commit=False)
    consumer.assign([partition])
    try:
        consumer.commit({partition: OffsetAndMetadata(1, character * count, -1)})
        stored = len(consumer.committed(partition, metadata=True).metadata.encode())
        print(f"{count} x {ascii(character)}: {stored} bytes stored")
    except OffsetMetadataTooLargeError:
        print(f"{count} x {ascii(character)}: refused")
    consumer.close()
PYTHON
)
verdict "4096 x 'a': 4096 bytes stored
4097 x 'a': refused
4096 x '\\u6f22': 12288 bytes stored
2048 x '\\U0001f600': 8192 bytes stored
2049 x '\\U0001f600': refused" "$seen"
