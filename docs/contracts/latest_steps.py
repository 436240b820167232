"""Reads the outcome topics from their beginning to their present end and prints each step's last revision:
id, revision and topic, separated by tabs, in the order of the ids.

    python latest_steps.py 127.0.0.1:9092 run-steps.completed run-steps.failed run-steps.cancelled run-steps.expired

Needs confluent-kafka. Exit 1: a record's value does not have the digest of its header.
"""

import hashlib
import sys

from confluent_kafka import Consumer, TopicPartition


def main(servers: str, topics: list[str]) -> int:
    consumer = Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": "latest-steps",  # never committed: each call reads all
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
        }
    )
    known = consumer.list_topics(timeout=30).topics
    partitions = [TopicPartition(topic, number, 0) for topic in topics for number in known[topic].partitions]
    consumer.assign(partitions)
    latest: dict[str, tuple[int, str]] = {}
    at_end: set[tuple[str, int]] = set()
    wrong = 0
    while len(at_end) < len(partitions):
        message = consumer.poll(30)
        if message is None:
            sys.exit("no answer for 30 s")
        if message.error():
            if message.error().name() != "_PARTITION_EOF":
                sys.exit(str(message.error()))
            at_end.add((message.topic(), message.partition()))
            continue
        headers = dict(message.headers())
        if hashlib.sha256(message.value()).hexdigest().encode() != headers["runstep-digest"]:
            print(f"{message.topic()} {message.partition()} {message.offset()}: wrong digest", file=sys.stderr)
            wrong += 1
            continue
        step_id, revision = message.key().decode(), int(headers["runstep-revision"])
        if step_id not in latest or revision > latest[step_id][0]:
            latest[step_id] = revision, message.topic()
    consumer.close()
    for step_id, (revision, topic) in sorted(latest.items()):
        print(step_id, revision, topic, sep="\t")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
