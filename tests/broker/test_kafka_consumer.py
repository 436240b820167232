"""The consumer and the reader against a real broker: every record that counts, positions past all that does not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack

import pytest
import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.client import ConnectionGroup
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.group import LeaveGroupRequest
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.structs import OffsetAndMetadata, TopicPartition
from confluent_kafka import TopicPartition as ConfluentPartition

from processor.broker import Broker
from processor.core.effects import Record
from processor.errors import BrokerRefused, BrokerUnavailable, Fenced
from processor.kafka.client import connect
from processor.kafka.client_config import Connection
from processor.kafka.consumer import Committed, Consumer
from processor.kafka.errors import OffsetLost, OffsetsUnstable
from processor.kafka.partition_reader import PartitionReader
from tests.broker.kafka_members import DEADLINE_S, Listener, member, until
from tests.conftest import started_or_skipped
from tests.kafka_tools import DEADLINE_S as TOOLS_DEADLINE_S
from tests.kafka_tools import Names, Sent, admin, create_topics, produce

CODECS = (None, "gzip", "snappy", "lz4", "zstd")


async def transaction(
    broker: Broker, topic: str, values: list[bytes], *, commit: bool, codec: str | None = None
) -> None:
    producer = AIOKafkaProducer(
        **Connection.build(broker.bootstrap).kwargs(), transactional_id=f"{topic}.{codec}", compression_type=codec
    )
    await producer.start()
    try:
        await producer.begin_transaction()
        await asyncio.gather(*[await producer.send(topic, value, partition=0) for value in values])
        await (producer.commit_transaction() if commit else producer.abort_transaction())
    finally:
        await producer.stop()


async def read_until(consumer: Consumer, partition: int, end: int) -> list[Record]:
    records: list[Record] = []
    async with asyncio.timeout(DEADLINE_S):
        while (consumer.position_now(partition) or 0) < end:
            records += (await consumer.poll([partition], timeout_ms=100, max_records=7)).get(partition, [])
    return records


def plain(record: Record) -> tuple[int, int, bytes | None, bytes | None, tuple[tuple[str, bytes | None], ...]]:
    return record.offset, record.timestamp, record.key, record.value, tuple(record.headers)


async def test_it_reads_what_upstream_reads(broker: Broker, names: Names) -> None:
    topic = names.topic("in")
    create_topics(broker.bootstrap, topic)
    for codec in CODECS:
        await transaction(broker, topic, [b"kept %d" % i for i in range(20)], commit=True, codec=codec)
        await transaction(broker, topic, [b"aborted %d" % i for i in range(20)], commit=False, codec=codec)
    produce(broker.bootstrap, topic, [Sent(b"plain", b"k", headers=[("h", b"1"), ("none", None)], timestamp=5)] * 10)
    upstream = AIOKafkaConsumer(
        bootstrap_servers=broker.bootstrap, isolation_level="read_committed", auto_offset_reset="earliest"
    )
    await upstream.start()
    try:
        place = TopicPartition(topic, 0)
        upstream.assign([place])
        expected: list[Record] = []
        while await upstream.position(place) < (await upstream.end_offsets([place]))[place]:
            for records in (await upstream.getmany(timeout_ms=100)).values():
                expected += records
    finally:
        await upstream.stop()
    assert len(expected) == 110
    async with member(broker.bootstrap, topic, names.group) as consumer:
        consumer.seek(0, 0)
        end = (await consumer.end_offsets([0]))[0]
        got = await read_until(consumer, 0, end)
        assert [plain(record) for record in got] == [plain(record) for record in expected]
        assert consumer.end_of(0) == (end, end)
    assert "_crecords" in type(got[0]).__module__


async def test_the_position_passes_a_marker_at_the_end(broker: Broker, names: Names) -> None:
    topic = names.topic("in")
    create_topics(broker.bootstrap, topic)
    await transaction(broker, topic, [b"a", b"b"], commit=True)
    await transaction(broker, topic, [b"c"], commit=False)
    async with member(broker.bootstrap, topic, names.group) as consumer:
        consumer.seek(0, 0)
        assert await consumer.begin_offsets([0]) == {0: 0}
        assert await consumer.end_offsets([0]) == {0: 5}
        assert [record.value for record in await read_until(consumer, 0, 5)] == [b"a", b"b"]
    reader = PartitionReader(Connection.build(broker.bootstrap), topic=topic, client_id="reader")
    async with reader:
        read = [(number, r.offset) async for number, rs in reader.read_to({0: 0}, {0: 5}, 5.0) for r in rs]
        assert read == [(0, 0), (0, 1)]
        read = [(number, r.offset) async for number, rs in reader.read_to({0: 1}, {0: 2}, 5.0) for r in rs]
        assert read == [(0, 1)], "a second read, and not a record at or behind the end"
        assert [rs async for rs in reader.read_to({0: 5}, {0: 5}, 5.0)] == []


async def test_an_open_transaction_holds_the_reader_back_until_it_gives_up(broker: Broker, names: Names) -> None:
    topic = names.topic("in")
    create_topics(broker.bootstrap, topic)
    connection = Connection.build(broker.bootstrap)
    producer = AIOKafkaProducer(**connection.kwargs(), transactional_id=names.group)
    await producer.start()
    try:
        await producer.begin_transaction()
        await producer.send_and_wait(topic, b"open", partition=0)
        async with PartitionReader(connection, topic=topic, client_id="reader") as reader:
            ends = await reader.end_offsets([0])
            assert ends == {0: 1}, "the high watermark, not the last stable offset"
            with pytest.raises(BrokerUnavailable, match="partition 0 at 0 of 1"):
                _ = [rs async for rs in reader.read_to({0: 0}, ends, 0.3)]
        uncommitted = PartitionReader(connection, topic=topic, client_id="r", isolation="read_uncommitted")
        async with uncommitted:
            assert [len(rs) async for _, rs in uncommitted.read_to({0: 0}, ends, 5.0)] == [1]
        async with member(broker.bootstrap, topic, names.group) as consumer:
            consumer.seek(0, 0)

            async def seen() -> bool:
                await consumer.poll([0], timeout_ms=50, max_records=10)
                return consumer.end_of(0) == (1, 0)

            await until(seen, "high watermark 1 and last stable offset 0")
        await producer.abort_transaction()
    finally:
        await producer.stop()


async def test_an_offset_that_retention_took_is_lost_and_named(broker: Broker, names: Names) -> None:
    topic = names.topic("in")
    create_topics(broker.bootstrap, topic)
    produce(broker.bootstrap, topic, [Sent(b"%d" % i) for i in range(10)])
    client = admin(broker.bootstrap)
    for future in client.delete_records([ConfluentPartition(topic, 0, 6)]).values():
        future.result(TOOLS_DEADLINE_S)
    async with member(broker.bootstrap, topic, names.group) as consumer:
        assert await consumer.begin_offsets([0]) == {0: 6}
        consumer.seek(0, 2)
        with pytest.raises(OffsetLost) as caught:
            await read_until(consumer, 0, 10)
        assert (caught.value.partition, caught.value.offset) == (0, 2)
    async with PartitionReader(Connection.build(broker.bootstrap), topic=topic, client_id="r") as reader:
        with pytest.raises(OffsetLost):
            _ = [rs async for rs in reader.read_to({0: 2}, {0: 10}, 5.0)]
        assert sum([len(rs) async for _, rs in reader.read_to({0: 6}, {0: 10}, 5.0)]) == 4


async def test_stable_offsets_wait_for_the_pending_transaction(broker: Broker, names: Names) -> None:
    topic = names.topic("in")
    create_topics(broker.bootstrap, topic, partitions=2)
    async with member(broker.bootstrap, topic, names.group) as consumer:
        await consumer.claim({0: Committed(1, "owner a"), 1: Committed(2, "owner b")})
        producer = AIOKafkaProducer(**Connection.build(broker.bootstrap).kwargs(), transactional_id=names.group)
        await producer.start()
        try:
            await producer.begin_transaction()
            await producer.send_offsets_to_transaction(
                {TopicPartition(topic, 0): OffsetAndMetadata(9, "new")}, names.group
            )
            with pytest.raises(OffsetsUnstable) as caught:
                await consumer.stable_offsets([0, 1], timeout_s=0.2)
            assert caught.value.partitions == {0}
            assert await consumer.pending_owners([0, 1]) == {0: Committed(1, "owner a"), 1: Committed(2, "owner b")}
            waiting = asyncio.create_task(consumer.stable_offsets([0, 1], timeout_s=DEADLINE_S))
            await asyncio.sleep(0.1)
            assert not waiting.done()
            await producer.commit_transaction()
            assert await waiting == {0: Committed(9, "new"), 1: Committed(2, "owner b")}
        finally:
            await producer.stop()


async def test_only_the_partitions_asked_for_are_taken(broker: Broker, names: Names) -> None:
    topic = names.topic("in")
    create_topics(broker.bootstrap, topic, partitions=2)
    produce(broker.bootstrap, topic, [Sent(b"x", partition=number) for number in (0, 1)] * 5)
    async with member(broker.bootstrap, topic, names.group) as consumer:
        assert consumer.partitions_of_topic() == 2
        for number in (0, 1):
            consumer.seek(number, 0)
        assert len(await read_until(consumer, 1, 5)) == 5
        for _ in range(3):
            assert await consumer.poll([], timeout_ms=50, max_records=10) == {}
        assert consumer.position_now(0) == 0
        records = await consumer.poll([0, 1], timeout_ms=1000, max_records=3)
        assert {number: len(rs) for number, rs in records.items()} == {0: 3}


async def test_a_held_partition_rests_until_it_is_sought(broker: Broker, names: Names) -> None:
    """What is fetched before we know where to begin is thrown away, and all other requests wait behind the fetch."""
    topic = names.topic("in")
    create_topics(broker.bootstrap, topic)
    produce(broker.bootstrap, topic, [Sent(b"x")] * 3)
    listener = Listener()
    async with member(broker.bootstrap, topic, names.group, listener) as consumer:
        await listener.owns(1)
        consumer.seek(0, 0)
        consumer.hold([0])
        assert await consumer.poll([0], timeout_ms=300, max_records=10) == {}
        consumer.seek(0, 1)
        assert [record.offset for record in await read_until(consumer, 0, 3)] == [1, 2]


async def test_the_members_of_the_group_are_known_by_their_client_ids(broker: Broker, names: Names) -> None:
    topic = names.topic("in")
    create_topics(broker.bootstrap, topic, partitions=2)
    first, second = Listener(), Listener()
    async with member(broker.bootstrap, topic, names.group, first, client_id="worker-a") as consumer:
        assert await consumer.member_clients() == {"worker-a"}
        async with member(broker.bootstrap, topic, names.group, second, client_id="worker-b"):
            await asyncio.gather(first.owns(1), second.owns(1))
            assert await consumer.member_clients() == {"worker-a", "worker-b"}
            assert consumer.position_now(second.mine[0]) is None
            consumer.seek(first.mine[0], 0)
            assert consumer.position_now(first.mine[0]) == 0


async def test_a_poll_always_lets_others_run(broker: Broker, names: Names) -> None:
    """Heartbeats and fetches live on the same loop: with data at hand upstream's getmany starves them."""
    topic = names.topic("in")
    create_topics(broker.bootstrap, topic)
    produce(broker.bootstrap, topic, [Sent(b"x")] * 200)
    async with member(broker.bootstrap, topic, names.group) as consumer:
        consumer.seek(0, 0)
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(other())
        while (consumer.position_now(0) or 0) < 200:
            before = turns
            await consumer.poll([0], timeout_ms=100, max_records=1)
            assert turns > before
        task.cancel()


async def test_a_rebalance_drains_first_and_polling_goes_on(broker: Broker, names: Names) -> None:
    topic = names.topic("in")
    create_topics(broker.bootstrap, topic, partitions=4)
    tokens = []

    async def drain() -> None:
        tokens.append(consumer.token())
        await consumer.claim({number: Committed(11, "drained") for number in range(4)})

    first, second = Listener(), Listener()
    async with member(broker.bootstrap, topic, names.group, first) as consumer:
        assert await first.owns(4) == [0, 1, 2, 3]
        before = consumer.token()
        first.drain = drain
        async with member(broker.bootstrap, topic, names.group, second) as other:
            async with asyncio.timeout(DEADLINE_S):
                while len(first.mine) != 2:
                    assert await consumer.poll(first.mine, timeout_ms=50, max_records=10) == {}
            await second.owns(2)
            assert sorted(first.mine + second.mine) == [0, 1, 2, 3]
            assert tokens == [before], "still a member of the old generation while draining"
            assert consumer.token().generation == other.token().generation > before.generation
            with pytest.raises(Fenced):
                consumer.seek(second.mine[0], 0)
            assert await other.stable_offsets([3], timeout_s=DEADLINE_S) == {3: Committed(11, "drained")}
            first.drain = None
        await first.owns(4)
    assert [what for what, _ in first.happened[1:4]] == ["assigned", "revoked", "assigned"]


async def test_a_poll_keeps_its_time_during_a_rebalance(broker: Broker, names: Names) -> None:
    topic = names.topic("in")
    create_topics(broker.bootstrap, topic, partitions=2)
    release = asyncio.Event()

    async def slow() -> None:
        await release.wait()

    first = Listener()
    async with AsyncExitStack() as stack:
        consumer = await stack.enter_async_context(member(broker.bootstrap, topic, names.group, first))
        await first.owns(2)
        first.drain = slow
        for number in (0, 1):
            consumer.seek(number, 0)
        polling = asyncio.create_task(consumer.poll([0, 1], timeout_ms=60_000, max_records=10))
        joining = asyncio.create_task(
            stack.enter_async_context(member(broker.bootstrap, topic, names.group, Listener()))
        )
        await first.owns(0)
        began = time.monotonic()
        assert await polling == {}, "the rebalance ends the wait"
        assert await consumer.poll([0, 1], timeout_ms=100, max_records=10) == {}
        assert time.monotonic() - began < 30, "a poll of 60 s"

        release.set()
        await joining
        await first.owns(1)


async def test_what_a_callback_raises_is_raised_by_the_next_poll(broker: Broker, names: Names) -> None:
    topic = names.topic("in")
    create_topics(broker.bootstrap, topic, partitions=2)

    async def fail() -> None:
        raise Fenced("the drain failed")

    first, second = Listener(fail), Listener()
    first.drain = None
    async with member(broker.bootstrap, topic, names.group, first) as consumer:
        await first.owns(2)
        first.drain = fail
        async with member(broker.bootstrap, topic, names.group, second):
            await second.owns(1)
            with pytest.raises(Fenced, match="the drain failed"):
                await consumer.poll([], timeout_ms=5000, max_records=10)


async def test_an_evicted_member_has_no_generation_and_commits_nothing(broker: Broker, names: Names) -> None:
    topic = names.topic("in")
    create_topics(broker.bootstrap, topic)
    seen: list[object] = []

    async def drain() -> None:
        seen.append(consumer.token().generation)
        try:
            await consumer.claim({0: Committed(1, "")})
        except Fenced as error:
            seen.append(type(error))

    first = Listener()
    async with member(broker.bootstrap, topic, names.group, first) as consumer:
        await first.owns(1)
        before = consumer.token()
        first.drain = drain
        inner = consumer._joined()._coordinator
        await inner._send_req(LeaveGroupRequest(names.group, before.member_id))

        async def back() -> bool:
            return consumer.token().generation > before.generation and first.mine == [0]

        await until(back, "a member again")
        assert seen == [-1, Fenced]
        assert consumer.token().member_id != before.member_id
        assert await consumer.pending_owners([0]) == {0: Committed(-1, "")}


async def test_a_claim_of_an_old_generation_is_not_even_sent(broker: Broker, names: Names) -> None:
    topic = names.topic("in")
    create_topics(broker.bootstrap, topic, partitions=2)
    first, second = Listener(), Listener()
    async with member(broker.bootstrap, topic, names.group, first) as consumer:
        await first.owns(2)
        claim = consumer.claim({0: Committed(5, "")})
        async with member(broker.bootstrap, topic, names.group, second):
            await asyncio.gather(first.owns(1), second.owns(1))
            await claim  # begun only now: the generation is the one at the call
        assert (await consumer.pending_owners([0]))[0].offset == 5


async def test_its_coordinators_connection_knows_the_session(broker: Broker, names: Names) -> None:
    """How long a heartbeat is waited for follows from it."""
    topic = names.topic("in")
    create_topics(broker.bootstrap, topic)
    async with member(broker.bootstrap, topic, names.group, session_timeout_ms=7_000) as consumer:
        held = consumer._joined()._client._conns
        assert {
            connection.session_s for (_, group), connection in held.items() if group is ConnectionGroup.COORDINATION
        } == {7.0}


@pytest.mark.parametrize("when", ["idle", "draining"])
async def test_stop_is_bounded(broker: Broker, names: Names, when: str) -> None:
    topic = names.topic("in")
    create_topics(broker.bootstrap, topic, partitions=2)

    async def never() -> None:
        await asyncio.Event().wait()

    first = Listener()
    long = {"session_timeout_ms": 120_000, "rebalance_timeout_ms": 120_000}
    async with AsyncExitStack() as stack:
        consumer = await stack.enter_async_context(member(broker.bootstrap, topic, names.group, first, **long))
        await first.owns(2)
        polling = asyncio.create_task(consumer.poll([0], timeout_ms=60_000, max_records=1))
        joining: asyncio.Task[object] | None = None
        if when == "draining":
            first.drain = never
            joining = asyncio.create_task(
                stack.enter_async_context(member(broker.bootstrap, topic, names.group, Listener()))
            )
            await first.owns(0)
        began = time.monotonic()
        async with asyncio.timeout(DEADLINE_S):
            await consumer.stop(0.5)
        assert time.monotonic() - began < 30, "of a poll of 60 s, a rebalance of 120 s, a drain without an end"
        polling.cancel()
        await asyncio.gather(polling, return_exceptions=True)
        if joining is not None:
            async with asyncio.timeout(DEADLINE_S):  # it left the group, so that the others need not wait for it
                await joining


async def test_a_missing_topic_is_refused_and_not_created(names: Names) -> None:
    topic = names.topic("misspelt")
    with started_or_skipped(settings={"auto.create.topics.enable": "true"}) as eager:
        connection = Connection.build(eager.bootstrap, request_timeout_ms=1000)
        with pytest.raises((BrokerRefused, BrokerUnavailable)):
            async with PartitionReader(connection, topic=topic, client_id="r"):
                pass
        assert topic not in admin(eager.bootstrap).list_topics(timeout=TOOLS_DEADLINE_S).topics


def test_a_closed_transport_is_a_lost_connection_on_uvloop_too(broker: Broker) -> None:
    """uvloop raises RuntimeError there, which ends the library's tasks instead of making it reconnect (#1038)."""

    async def write_on_a_closed_one() -> None:
        host, port = broker.bootstrap.split(":")
        connection = await connect(host, int(port))
        connection._writer.transport.abort()
        await asyncio.sleep(0)
        with pytest.raises(KafkaConnectionError):
            await connection.send(MetadataRequest([]))
        assert not connection.connected()

    run: Callable[..., None] = uvloop.run
    run(write_on_a_closed_one())
