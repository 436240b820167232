"""Members that come and go with nothing at fault: the commonest rebalance, and where steps are doubled most easily."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from confluent_kafka import Producer, TopicPartition

from processor.broker import Broker
from processor.simulate import Parameters, Produced, Simulation
from processor.simulate.expected import compare
from tests import kafka_tools as kt
from tests.faults.worker_fleet import WAIT_S, Ends, Fleet, Load, Process, Topics, finish, watched
from tests.kafka_tools import Names

PARTITIONS = 6
EVENTS = 17_000
"""More: `python -m tests.faults --only storm`."""
PER_SECOND = 1_500.0


def test_members_come_and_go_under_load(
    broker: Broker, names: Names, tmp_path: Path, figures: Callable[[str], None]
) -> None:
    topics = Topics.create(broker.bootstrap, names, PARTITIONS)
    simulation = Simulation(Parameters(records=EVENTS, seed=8, partitions=PARTITIONS, responses=0.4))
    with Fleet(topics, tmp_path) as fleet, watched(topics) as (downstream, offsets):
        fleet.start()
        fleet.await_ready()
        with Load(topics, simulation, PER_SECOND) as load:
            rounds = 0
            while not load.is_over:  # a slow machine does fewer rounds
                rounds += 1
                fleet.start()
                fleet.await_ready()
                fleet.start(2)  # both at once: the second rebalance cuts the first one off
                fleet.await_ready()
                for leaving in fleet.running[:3]:
                    leaving.terminate()
                    assert leaving.ended(WAIT_S) == 0
                    fleet.await_ready()
            finish(fleet, simulation, load, downstream, offsets, within_s=300)
    assert fleet.log("worker_restarted") == [], "no life ended before its time"
    assert fleet.log("commit_failed", "unit_dropped") == []
    kept = sum(_resumed_where_it_was(process) for process in fleet.all)
    assert kept > 0
    restored = fleet.log("partition_restored")
    figures(
        f"{rounds} rounds, {len(fleet.all)} members, {kept} partitions stayed where they were and were resumed, "
        f"{len(restored)} restored, longest {max(line['seconds'] for line in restored):.2f} s"
    )


def _resumed_where_it_was(process: Process) -> int:
    """How many partitions a rebalance left with this worker; not one of them was restored."""
    live: set[int] = set()
    kept: set[int] = set()
    count = 0
    for line in process.log("partitions_assigned", "partition_restored", "partition_resumed"):
        if line["event"] == "partitions_assigned":
            kept = live & set(line["partitions"])
            live = set(kept)
            count += len(kept)
            continue
        partition = line["partition"]
        if partition in kept:
            assert line["event"] == "partition_resumed", f"worker {process.label}, partition {partition}: {line}"
        else:
            assert line["event"] == "partition_restored", f"worker {process.label}, partition {partition}: {line}"
        live.add(partition)
    return count


def test_the_end_of_a_log_that_holds_no_record(broker: Broker, names: Names, tmp_path: Path) -> None:
    """Transactions of the producer, the last one aborted; nothing but an aborted one; and all of it deleted."""
    topics = Topics.create(broker.bootstrap, names, 4)
    simulation = Simulation(Parameters(runs=30, seed=4, partitions=1, responses=0.4))
    records = list(simulation)
    _transactions(topics, 0, records, aborted=records[:50])
    _transactions(topics, 1, [], aborted=records[:50])
    _transactions(topics, 2, records[:20], aborted=[])
    client = kt.admin(topics.bootstrap)
    gone = TopicPartition(topics.source, 2, Ends(topics.bootstrap).high_watermarks(topics.source, [2])[2])
    client.delete_records([gone])[gone].result(WAIT_S)
    ends = Ends(topics.bootstrap).high_watermarks(topics.source, range(4))
    assert ends[0] > len(records) + 50
    assert ends[2] > 20
    with Fleet(topics, tmp_path) as fleet, watched(topics) as (_, offsets):
        for _ in range(2):  # the second life begins at those ends
            fleet.start()
            fleet.await_ready()
            fleet.await_no_lag(WAIT_S)
            fleet.stop()
        offsets.await_at(ends, WAIT_S)
        assert offsets.decreased == []
    published = [got for topic in topics.outcomes for got in kt.read_topic(topics.bootstrap, topic)]
    letters = kt.read_topic(topics.bootstrap, topics.dead_letter)
    assert compare(simulation.expected, published, letters, dict(topics.outcomes)) == []
    assert fleet.log("worker_restarted", "commit_failed") == []


def _transactions(topics: Topics, partition: int, kept: list[Produced], *, aborted: list[Produced]) -> None:
    """Write records to one partition, some to a transaction, and last a transaction that is aborted."""
    producer = Producer(
        {"bootstrap.servers": topics.bootstrap, "transactional.id": f"{topics.source}.{partition}", "log_level": 2}
    )
    producer.init_transactions(WAIT_S)
    for some in _in_hundreds(kept):
        producer.begin_transaction()
        _put(producer, topics, partition, some)
        producer.commit_transaction(WAIT_S)
    if aborted:
        producer.begin_transaction()
        _put(producer, topics, partition, aborted)
        assert producer.flush(WAIT_S) == 0
        producer.abort_transaction(WAIT_S)


def _put(producer: Producer, topics: Topics, partition: int, records: list[Produced]) -> None:
    for r in records:
        producer.produce(
            topics.source, r.value, r.key, partition=partition, headers=list(r.headers), timestamp=r.timestamp
        )


def _in_hundreds(records: list[Produced]) -> Iterator[list[Produced]]:
    for at in range(0, len(records), 100):
        yield records[at : at + 100]
