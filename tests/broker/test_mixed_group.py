"""A member of the new group protocol (KIP-848) in the workers' group: the living are not taken for dead."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from confluent_kafka import Consumer

from processor.broker import Broker
from tests.faults.service import Stage, created, ended, until
from tests.kafka_tools import Names

PARTITIONS = 6


@contextlib.contextmanager
def member_of_the_new_protocol(bootstrap: str, group: str, topic: str) -> Iterator[threading.Event]:
    """Join, poll and never commit, in a thread; the event is set once it has partitions."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "group.protocol": "consumer",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "log_level": 2,
        }
    )
    joined, stop = threading.Event(), threading.Event()

    def work() -> None:
        while not stop.is_set():
            consumer.poll(0.1)
            if consumer.assignment():
                joined.set()

    consumer.subscribe([topic])
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield joined
    finally:
        stop.set()
        thread.join(60)
        consumer.close()


def test_a_living_writer_is_not_taken_over_in_a_group_with_a_member_of_the_new_protocol(
    broker: Broker, names: Names, tmp_path: Path
) -> None:
    """Brokers describe such a group to a classic member as dead, without members: its writers would all seem gone."""
    stage = Stage(broker.bootstrap, names, tmp_path, partitions=PARTITIONS)
    with stage.serve() as first:
        first.until_live()
        stage.say(created("step_1"), ended("step_1"))
        first.until("published", lambda: len(stage.published("completed")) == 1)
        with member_of_the_new_protocol(stage.bootstrap, stage.group, stage.source) as joined:
            until("the new member has partitions", joined.is_set)
            first.until_logged("partitions_assigned", times=2)
            with stage.serve() as second:
                second.until_logged("partition_restored")
                assert not second.logged("writer_taken_over"), second.tail()
            assert not first.logged("worker_restarted", reason="fenced"), first.tail()
