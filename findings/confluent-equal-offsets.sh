#!/usr/bin/env bash
# surprise: confluent-kafka's offsets are equal whatever they are: a check of committed against expected offsets cannot fail.
# versions: PyPI confluent-kafka 2.16.1; aiokafka 0.14.0 and kafka-python 3.0.12 for comparison
# expected: offset 5 is not offset 9. committed(), commit(), position(), offsets_for_times() and the admin client's offsets of a group are
#   all lists of TopicPartition, which has topic, partition, offset, metadata and error; the offset is what they are asked for.
# does: ==, hash and < look at topic and partition alone. committed == expected is true for the same partitions with any offsets, with
#   other metadata, and with an error in place of an offset; a set keeps the offset that came first; sorted() leaves offsets of a
#   partition as they came. aiokafka and kafka-python give the offset as a class of its own, which compares it.

. "$(dirname "$0")/lib/finding.sh"
python_packages confluent-kafka==2.16.1 aiokafka==0.14.0 kafka-python==3.0.12
seen=$(timeout 60 "$WORK/venv/bin/python" - <<'PYTHON'
import aiokafka.structs
import kafka.structs
from confluent_kafka import OFFSET_INVALID, TopicPartition

expected = [TopicPartition("runs", 0, 9), TopicPartition("runs", 1, 4)]
for what, committed in {
    "the same offsets": [TopicPartition("runs", 0, 9), TopicPartition("runs", 1, 4)],
    "5 in the place of 9": [TopicPartition("runs", 0, 5), TopicPartition("runs", 1, 4)],
    "nothing committed": [TopicPartition("runs", 0, OFFSET_INVALID), TopicPartition("runs", 1, OFFSET_INVALID)],
    "another partition": [TopicPartition("runs", 0, 9), TopicPartition("runs", 2, 4)],
}.items():
    print(f"confluent-kafka, {what}: {'equal' if committed == expected else 'not equal'}")
offsets = [TopicPartition("runs", 0, 9), TopicPartition("runs", 0, 5)]
print("confluent-kafka, set:", [each.offset for each in set(offsets)])
print("confluent-kafka, sorted:", [each.offset for each in sorted(offsets)])
of_aiokafka = [aiokafka.structs.OffsetAndMetadata(offset, "") for offset in (5, 9)]
print("aiokafka, 5 and 9:", "equal" if of_aiokafka[0] == of_aiokafka[1] else "not equal")
of_kafka_python = [kafka.structs.OffsetAndMetadata(offset, "", -1) for offset in (5, 9)]
print("kafka-python, 5 and 9:", "equal" if of_kafka_python[0] == of_kafka_python[1] else "not equal")
PYTHON
)
verdict "confluent-kafka, the same offsets: equal
confluent-kafka, 5 in the place of 9: equal
confluent-kafka, nothing committed: equal
confluent-kafka, another partition: not equal
confluent-kafka, set: [9]
confluent-kafka, sorted: [9, 5]
aiokafka, 5 and 9: not equal
kafka-python, 5 and 9: not equal" "$seen"
