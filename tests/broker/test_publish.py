"""`publish` against a real broker: every event arrives, in order, where the worker will look for it."""

from __future__ import annotations

import asyncio
import json
import random
import time
from pathlib import Path
from typing import Any

import pytest

from processor.broker import Broker
from processor.errors import BrokerRefused, BrokerUnavailable
from processor.kafka.client_config import Connection
from processor.kafka.errors import PermissionMissing, RecordTooLarge
from processor.kafka.producer import COMPRESSIONS, Compression, EventProducer
from processor.publish.command import run, sample_files
from processor.publish.event_keying import EventKeyer
from processor.publish.event_stream import EventStream
from processor.publish.outgoing import Outgoing
from processor.publish.publisher import RunPublisher
from tests.conftest import started_or_skipped
from tests.kafka_tools import Got, Names, Sent, create_topics, produce, read_topic


def expected_of(files: list[Path]) -> list[Outgoing]:
    keyer, out = EventKeyer(), []
    for path in files:
        stream = EventStream(keyer)
        out += [*stream.feed(path.read_bytes()), *stream.finish()]
    return out


def by_key(records: list[Got] | list[Outgoing]) -> dict[bytes | None, list[tuple[bytes | None, Any]]]:
    keys: dict[bytes | None, list[tuple[bytes | None, Any]]] = {}
    for record in records:
        keys.setdefault(record.key, []).append((record.value, tuple(record.headers)))
    return keys


async def test_every_event_arrives_in_the_order_of_its_run(broker: Broker, names: Names) -> None:
    topic, said = names.topic("events"), list[str]()
    create_topics(broker.bootstrap, topic, partitions=5)
    files = sample_files()
    assert await run(files, topic=topic, connection=Connection(broker.bootstrap), echo=said.append) == 0
    expected = expected_of(files)
    got = read_topic(broker.bootstrap, topic)
    assert by_key(got) == by_key(expected)
    assert len(got) == len(expected)
    assert said == [f"published {len(expected)} events of 9 runs to {topic}; 0 refused"]


async def test_a_run_lies_on_the_partition_that_other_clients_would_choose(broker: Broker, names: Names) -> None:
    ours, theirs = names.topic("ours"), names.topic("theirs")
    create_topics(broker.bootstrap, ours, theirs, partitions=7)
    keys = [f"run_{number}".encode() for number in range(60)]
    async with EventProducer(Connection(broker.bootstrap)) as producer:
        for key in keys:
            await producer.send(ours, b"{}", key=key)
    produce(broker.bootstrap, theirs, [Sent(b"{}", key) for key in keys])
    places = [{got.key: got.partition for got in read_topic(broker.bootstrap, topic)} for topic in (ours, theirs)]
    assert places[0] == places[1]
    assert len(places[0]) == 60


async def test_a_program_publishes_beside_its_stream(broker: Broker, names: Names) -> None:
    topic = names.topic("events")
    create_topics(broker.bootstrap, topic, partitions=3)
    step = {"id": "step_1", "object": "thread.run.step", "run_id": "run_1"}
    delta = {"id": "step_1", "object": "thread.run.step.delta", "delta": {}}
    async with RunPublisher(bootstrap_servers=broker.bootstrap, topic=topic) as publisher:
        await publisher.publish({"event": "thread.run.step.created", "data": step})
        await publisher.flush()
        assert len(read_topic(broker.bootstrap, topic)) == 1
        await publisher.publish({"event": "thread.run.step.delta", "data": delta})
    got = read_topic(broker.bootstrap, topic)
    assert [json.loads(record.value or b"")["data"] for record in got] == [step, delta]
    assert {record.key for record in got} == {b"run_1"}
    assert [record.header("runstep-sequence") for record in got] == [b"0", b"1"]


async def test_a_missing_topic_is_named_and_nothing_is_left_open(
    broker: Broker, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("processor.kafka.producer.MISSING_AFTER_S", 0.2)
    topic = names.topic("missing")
    with pytest.raises(BrokerRefused, match=f"topic {topic}: does not exist"):
        await run(sample_files()[:1], topic=topic, connection=Connection(broker.bootstrap), echo=print)


async def test_a_record_that_is_too_large_is_refused_alone(broker: Broker, names: Names, tmp_path: Path) -> None:
    topic, said = names.topic("events"), list[str]()
    create_topics(broker.bootstrap, topic)
    path = tmp_path / "events.jsonl"
    sizes = [10, 2_000_000, 1_000_000, 10]
    path.write_text(
        "\n".join(json.dumps({"object": "thread.run", "id": "run_1", "metadata": "x" * size}) for size in sizes)
    )
    assert await run([path], topic=topic, connection=Connection(broker.bootstrap), echo=said.append) == 65
    assert [len(got.value or b"") > 100 for got in read_topic(broker.bootstrap, topic)] == [False, True, False]
    assert "thread.run of run_1, run run_1: " in said[0]
    assert "larger than the topic takes" in said[0]
    assert "the lower of max.message.bytes and segment.bytes is 1048588" in said[0]
    async with EventProducer(Connection(broker.bootstrap), max_record_bytes=1_048_576) as producer:
        with pytest.raises(RecordTooLarge):
            await producer.send(topic, b"x" * 1_048_577, key=b"")
        await producer.send(topic, b"x" * 1_048_400, key=b"k")  # what we let through, the broker takes


async def test_a_topic_that_takes_less_is_named(broker: Broker, names: Names) -> None:
    topic = names.topic("small")
    create_topics(broker.bootstrap, topic, config={"max.message.bytes": "2000"})
    async with EventProducer(Connection(broker.bootstrap)) as producer:
        with pytest.raises(RecordTooLarge, match=f"topic {topic}: .* max.message.bytes and segment.bytes is 2000"):
            await producer.send(topic, b"x" * 5000, key=b"k")
        await producer.send(topic, b"x", key=b"k")
    assert len(read_topic(broker.bootstrap, topic)) == 1


async def test_an_event_is_as_large_as_the_topic_lets_it_be(broker: Broker, names: Names, tmp_path: Path) -> None:
    """Events over 1 MiB were refused whatever the topic took: a step that was completed came out as expired."""
    topic, said = names.topic("large"), list[str]()
    create_topics(broker.bootstrap, topic, config={"max.message.bytes": "10485760"})
    path = tmp_path / "events.jsonl"
    step = {"id": "step_1", "object": "thread.run.step", "run_id": "run_1", "status": "completed"}
    events = [
        {"event": "thread.run.step.completed", "data": step | {"metadata": "x" * size}} for size in (5 << 20, 11 << 20)
    ]
    path.write_text("\n".join(map(json.dumps, events)))
    assert await run([path], topic=topic, connection=Connection(broker.bootstrap), echo=said.append) == 65
    assert [len(got.value or b"") > 5 << 20 for got in read_topic(broker.bootstrap, topic)] == [True]
    assert "thread.run.step.completed of step_1, run run_1: without its end the worker publishes" in said[0]


async def test_where_the_limit_may_not_be_read_the_broker_decides(
    broker: Broker, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without DescribeConfigs a limit of 1 MiB was assumed, and an event that the topic takes was refused."""

    async def topics(*_: object) -> None:
        raise PermissionMissing("its settings may not be read")

    monkeypatch.setattr("processor.kafka.admin.Admin.topics", topics)
    topic = names.topic("large")
    create_topics(broker.bootstrap, topic, config={"max.message.bytes": "3000000"})
    async with EventProducer(Connection(broker.bootstrap)) as producer:
        for size in (10, 2_000_000, 4_000_000, 20, 2_500_000, 30, 3_100_000):
            if size < 3_000_000:
                await producer.send(topic, b"x" * size, key=b"k")
                continue
            with pytest.raises(
                RecordTooLarge, match=f"topic {topic}: a record is larger than the topic takes"
            ) as caught:
                await producer.send(topic, b"x" * size, key=b"k")
            assert "max.message.bytes is" not in str(caught.value)
        assert producer.acknowledged >= 4
    assert [len(got.value or b"") for got in read_topic(broker.bootstrap, topic)] == [10, 2_000_000, 20, 2_500_000, 30]


@pytest.mark.parametrize("codec", COMPRESSIONS)
async def test_the_limit_of_the_topic_is_one_after_compression(
    broker: Broker, names: Names, codec: Compression
) -> None:
    topic = names.topic("small")
    create_topics(broker.bootstrap, topic, config={"max.message.bytes": "20000"})
    async with EventProducer(Connection(broker.bootstrap), compression=codec) as producer:
        large = b"x" * 100_000
        if codec == "none":
            with pytest.raises(RecordTooLarge, match="got 100"):
                await producer.send(topic, large, key=b"k")
        else:
            await producer.send(topic, large, key=b"k")
        with pytest.raises(RecordTooLarge):
            await producer.send(topic, random.Random(1).randbytes(20_000), key=b"k")
        for _ in range(500):  # many small ones in one batch are no reason to refuse either
            await producer.send(topic, random.Random(2).randbytes(500), key=b"k")
    assert len(read_topic(broker.bootstrap, topic)) == 500 + (codec != "none")


async def test_a_broker_that_falls_silent_is_given_up_in_time(
    names: Names,
) -> None:
    topic, said = names.topic("events"), list[str]()
    with started_or_skipped() as own:
        create_topics(own.bootstrap, topic)
        connection = Connection(own.bootstrap)
        async with EventProducer(connection, timeout_s=10) as producer:
            await producer.send(topic, b"{}", key=b"k")
            await producer.flush()
            assert (producer.acknowledged, producer.unacknowledged) == (1, 0)
        producer = EventProducer(connection, timeout_s=2)
        await producer.start()
        await producer.send(topic, b"{}", key=b"k")
        await producer.flush()
        own.pause()
        began = time.monotonic()
        await producer.send(topic, b"{}", key=b"k")
        with pytest.raises(BrokerUnavailable, match="no acknowledgement: no progress for 2 s"):
            await producer.flush()
        with pytest.raises(BrokerUnavailable):
            await producer.send(topic, b"{}", key=b"k")
        with pytest.raises(BrokerUnavailable):
            await producer.close()
        with pytest.raises(BrokerUnavailable):
            await run(sample_files()[:1], topic=topic, connection=connection, timeout_s=2, echo=said.append)
        assert time.monotonic() - began < 60
        assert (producer.acknowledged, producer.unacknowledged) == (1, 1)
        own.resume()


async def test_leaving_by_an_error_still_delivers_what_was_queued(broker: Broker, names: Names) -> None:
    topic = names.topic("events")
    create_topics(broker.bootstrap, topic)
    with pytest.raises(asyncio.CancelledError):  # noqa: PT012  the context is what is tested
        async with EventProducer(Connection(broker.bootstrap)) as producer:
            await producer.send(topic, b"{}", key=b"k")
            raise asyncio.CancelledError
    assert len(read_topic(broker.bootstrap, topic)) == 1


async def test_many_records_are_kept_in_order_within_the_bound(broker: Broker, names: Names) -> None:
    topic = names.topic("events")
    create_topics(broker.bootstrap, topic)
    async with EventProducer(Connection(broker.bootstrap), max_unacknowledged=50) as producer:
        for number in range(3000):
            await producer.send(topic, b"%d" % number, key=b"k")
            assert producer.unacknowledged <= 50
    assert [int(got.value or b"") for got in read_topic(broker.bootstrap, topic)] == list(range(3000))
