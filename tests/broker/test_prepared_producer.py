"""The latency bench's producer: every record once, at its place, and an answer for each that asks for one."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import islice
from typing import Any

import pytest
from aiokafka.conn import create_conn
from aiokafka.errors import MessageSizeTooLargeError
from confluent_kafka import TIMESTAMP_CREATE_TIME, TIMESTAMP_LOG_APPEND_TIME

from processor.broker import Broker
from tests.bench.load import Expected, Job, Made, records
from tests.bench.prepared_producer import LINGER_S, PreparedProducer, prepared
from tests.kafka_tools import Names, Sent, create_topics, produce, read_topic

PARTITIONS = 3
RATE = 4_000
COUNT = 1_000


def _load() -> list[Made]:
    job = Job(COUNT, partitions=PARTITIONS, open_runs=20)
    return list(islice(records(job, Expected()), COUNT))


def _led(broker: Broker, topic: str) -> None:
    """Write one record to each partition: this client repeats what comes before a partition is led, the bench's not."""
    produce(broker.bootstrap, topic, [Sent(b"first", b"first", partition=number) for number in range(PARTITIONS)])


def test_a_request_has_what_is_due_within_a_linger() -> None:
    requests = list(prepared(_load(), RATE))
    assert {request.records for request in requests} == {int(RATE * LINGER_S)}
    assert len(requests) == COUNT / RATE / LINGER_S


@pytest.mark.parametrize(
    ("times", "kind"), [("LogAppendTime", TIMESTAMP_LOG_APPEND_TIME), ("CreateTime", TIMESTAMP_CREATE_TIME)]
)
def test_each_record_arrives_once_and_each_report_is_given(broker: Broker, names: Names, times: str, kind: int) -> None:
    topic, made = names.topic("in"), _load()
    create_topics(broker.bootstrap, topic, partitions=PARTITIONS, config={"message.timestamp.type": times})
    _led(broker, topic)
    reported: Counter[int] = Counter()

    def report(number: int, error: Any, message: Any) -> None:
        assert error is None
        assert message.timestamp()[0] == kind
        assert message.latency() > 0
        reported[number] += 1

    with PreparedProducer(broker.bootstrap, topic, prepared(made, RATE)) as producer:
        for number, one in enumerate(made):
            asks = None if number % 7 else lambda error, message, number=number: report(number, error, message)
            producer.produce(one, asks)
        producer.flush(60)
    assert reported == Counter(range(0, COUNT, 7))
    wanted = defaultdict(list, {partition: [(b"first", b"first")] for partition in range(PARTITIONS)})
    for one in made:
        wanted[one.partition].append((one.key, one.value))
    found: defaultdict[int, list[tuple[bytes, bytes]]] = defaultdict(list)
    for got in read_topic(broker.bootstrap, topic):
        found[got.partition].append((got.key or b"", got.value or b""))
    assert found == wanted


def test_the_leader_is_connected_before_the_first_request(
    broker: Broker, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the requests of the first milliseconds wait for the connection, and the first one after them goes first."""
    topic, opened = names.topic("in"), list[int]()
    create_topics(broker.bootstrap, topic, partitions=PARTITIONS)

    async def counted(*args: Any, **kwargs: Any) -> Any:
        opened.append(1)
        return await create_conn(*args, **kwargs)

    monkeypatch.setattr("aiokafka.client.create_conn", counted)
    _led(broker, topic)
    with PreparedProducer(broker.bootstrap, topic, prepared(_load(), RATE)) as producer:
        before = len(opened)
        for one in _load():
            producer.produce(one, None)
        producer.flush(60)
        assert len(opened) == before


def test_what_the_broker_refuses_is_an_error(broker: Broker, names: Names) -> None:
    topic, made = names.topic("in"), _load()
    create_topics(broker.bootstrap, topic, partitions=PARTITIONS, config={"max.message.bytes": "1000"})
    _led(broker, topic)
    with PreparedProducer(broker.bootstrap, topic, prepared(made, RATE)) as producer:
        for one in made:
            producer.produce(one, None)
        with pytest.raises(MessageSizeTooLargeError):
            producer.flush(60)
