"""librdkafka's mock cluster: prints where it listens, and serves until its input ends."""

from __future__ import annotations

import sys

from confluent_kafka import Producer

producer = Producer({"bootstrap.servers": "nowhere:1", "test.mock.num.brokers": 1})
(broker,) = producer.list_topics(timeout=30).brokers.values()
sys.stdout.write(f"{broker.host}:{broker.port}\n")
sys.stdout.flush()
sys.stdin.read()
