"""The writers against a real broker: all or nothing, fenced by the group, and never without an end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.structs import OffsetAndMetadata, TopicPartition

from processor.broker import Broker
from processor.errors import BrokerUnavailable, Fenced
from processor.kafka.client_config import Connection
from processor.kafka.consumer import Committed, Consumer, GroupToken
from processor.kafka.errors import RecordTooLarge
from processor.kafka.link import BrokerLink
from processor.kafka.records import OutRecord, batch_bytes
from processor.kafka.transactions import Unanswered
from processor.kafka.writer import IdempotentWriter, TransactionalWriter, Unit, Writer, takeover
from tests.broker.kafka_members import Listener, member, out, transactional
from tests.conftest import started_or_skipped
from tests.kafka_tools import Names, Sent, create_topics, produce, read_topic


@pytest.fixture(params=["version 2", "version 1"])
def each_version(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a test with transactions of version 2 (KIP-890), and again as on a cluster that has not finalized them."""

    async def one(*_: object) -> int:
        return 1

    if request.param == "version 1":
        monkeypatch.setattr(BrokerLink, "transaction_version", one)


def topics(broker: Broker, names: Names, partitions: int = 2) -> tuple[str, str]:
    source, sink = names.topic("in"), names.topic("out")
    create_topics(broker.bootstrap, source, sink, partitions=partitions)
    return source, sink


def values(broker: Broker, topic: str, isolation: str = "read_committed") -> list[str]:
    return sorted((got.value or b"").decode() for got in read_topic(broker.bootstrap, topic, isolation=isolation))


@pytest.mark.usefixtures("each_version")
async def test_a_unit_is_committed_whole(broker: Broker, names: Names) -> None:
    source, sink = topics(broker, names)
    async with (
        member(broker.bootstrap, source, names.group) as consumer,
        transactional(broker.bootstrap, source, names.group, consumer.token) as writer,
    ):
        records = [out(sink, f"{i}", key=f"k{i}") for i in range(50)]
        offsets = {0: Committed(7, "zero"), 1: Committed(9, "one")}
        await writer.commit(Unit(consumer.token(), records, offsets))
        assert await consumer.stable_offsets([0, 1], timeout_s=60) == offsets
        await writer.commit(Unit(consumer.token(), [], {1: Committed(10, "offsets alone")}))
        await writer.commit(Unit(consumer.token(), [out(sink, "records alone")], {}))
        await writer.commit(Unit(consumer.token(), [], {}))
        assert (await consumer.stable_offsets([1], timeout_s=60))[1] == Committed(10, "offsets alone")
        assert not writer.dead
    assert len(values(broker, sink)) == 51


async def test_a_writer_asks_for_its_own_topics_alone(broker: Broker, names: Names) -> None:
    """Also one that waited before its first unit, while its metadata were refreshed."""
    source, sink = topics(broker, names)
    create_topics(broker.bootstrap, names.topic("other"))
    connection = Connection.build(broker.bootstrap)
    link = BrokerLink(
        connection, transactional_id=names.group, group_id=names.group, source_topic=source, transaction_timeout_ms=6000
    )
    try:
        await link.open()
        assert await link.client.force_metadata_update()
        assert link.client.cluster.brokers()
        assert link.client.cluster.topics() == set()
        assert await link.partitions_of({sink}) == {sink: 2}
        for _ in range(2):
            assert await link.client.force_metadata_update()
            assert link.client.cluster.topics() == {sink}
    finally:
        await link.close()


@pytest.mark.parametrize("codec", [None, "gzip", "snappy", "lz4", "zstd"])
async def test_records_arrive_as_they_were_given_and_where_the_java_client_puts_them(
    broker: Broker, names: Names, codec: str | None
) -> None:
    source, sink = topics(broker, names, partitions=5)
    headers = [("a", b"1"), ("none", None)]
    async with (
        member(broker.bootstrap, source, names.group) as consumer,
        transactional(broker.bootstrap, source, names.group, consumer.token, compression=codec) as writer,
    ):
        keys = [f"step_{i}".encode() for i in range(40)]
        records = [OutRecord(sink, None, key, b"x", 1234, headers) for key in keys]
        records += [OutRecord(sink, 3, b"placed", None, 99, ()), OutRecord(sink, None, None, b"any", 5, ())]
        await writer.commit(Unit(consumer.token(), records, {}))
    got = {record.key: record for record in read_topic(broker.bootstrap, sink)}
    theirs = produce(broker.bootstrap, source, [Sent(b"x", key) for key in keys])
    assert [got[key].partition for key in keys] == [partition for partition, _ in theirs]
    assert (got[keys[0]].timestamp, got[keys[0]].headers) == (1234, tuple(headers))
    assert (got[b"placed"].partition, got[b"placed"].value) == (3, None)
    assert got[None].value == b"any"


@pytest.mark.usefixtures("each_version")
async def test_many_batches_of_one_partition_keep_their_order(broker: Broker, names: Names) -> None:
    source, sink = topics(broker, names, partitions=1)
    async with (
        member(broker.bootstrap, source, names.group) as consumer,
        transactional(broker.bootstrap, source, names.group, consumer.token) as writer,
    ):
        records = [OutRecord(sink, 0, None, b"%06d" % i + b"." * 5000, i, ()) for i in range(400)]
        await writer.commit(Unit(consumer.token(), records, {}))
    assert [got.timestamp for got in read_topic(broker.bootstrap, sink)] == list(range(400))


async def test_a_unit_of_another_generation_is_refused_before_anything_is_sent(broker: Broker, names: Names) -> None:
    source, sink = topics(broker, names)
    async with (
        member(broker.bootstrap, source, names.group) as consumer,
        transactional(broker.bootstrap, source, names.group, consumer.token) as writer,
    ):
        old = consumer.token()._replace(generation=consumer.token().generation - 1)
        evicted = consumer.token()._replace(generation=-1)
        for token in (old, evicted):
            with pytest.raises(Fenced):
                await writer.commit(Unit(token, [out(sink, "no")], {0: Committed(1, "")}))
        assert not writer.dead
    assert values(broker, sink, "read_uncommitted") == []


@pytest.mark.usefixtures("each_version")
@pytest.mark.parametrize("kind", ["old generation", "stranger"])
async def test_the_broker_refuses_who_is_not_the_member_it_says(broker: Broker, names: Names, kind: str) -> None:
    """KIP-447. The refused transaction is really aborted: the next one must not commit its records."""
    source, sink = topics(broker, names)
    async with member(broker.bootstrap, source, names.group) as consumer:
        live = consumer.token()
        held = live._replace(generation=live.generation - 1) if kind == "old generation" else live
        held = held._replace(member_id="somebody-else") if kind == "stranger" else held
        now = held
        async with transactional(broker.bootstrap, source, names.group, lambda: now) as writer:
            with pytest.raises(Fenced):
                await writer.commit(Unit(held, [out(sink, "refused")], {0: Committed(5, "refused")}))
            assert not writer.dead, "a clean abort leaves the writer in order"
            now = live
            await writer.commit(Unit(live, [out(sink, "accepted")], {0: Committed(3, "accepted")}))
        assert (await consumer.stable_offsets([0], timeout_s=60))[0] == Committed(3, "accepted")
    assert values(broker, sink) == ["accepted"]
    # The record and the offsets go out together: the abort that follows the refusal may come before the record.
    assert values(broker, sink, "read_uncommitted") in (["accepted", "refused"], ["accepted"])


async def test_after_a_rebalance_the_token_of_before_is_refused(broker: Broker, names: Names) -> None:
    source, sink = topics(broker, names)
    first, second = Listener(), Listener()
    async with member(broker.bootstrap, source, names.group, first) as consumer:
        await first.owns(2)
        before = consumer.token()
        async with (
            transactional(broker.bootstrap, source, names.group, lambda: before) as writer,
            member(broker.bootstrap, source, names.group, second),
        ):
            await asyncio.gather(first.owns(1), second.owns(1))
            assert consumer.token().generation > before.generation
            with pytest.raises(Fenced, match="IllegalGeneration"):
                await writer.commit(Unit(before, [out(sink, "late")], {0: Committed(5, "")}))
    assert values(broker, sink) == []


@pytest.mark.usefixtures("each_version")
async def test_a_token_that_changes_at_the_last_moment_aborts_the_unit(broker: Broker, names: Names) -> None:
    source, sink = topics(broker, names)
    async with member(broker.bootstrap, source, names.group) as consumer:
        live = consumer.token()
        seen = iter([live, live._replace(generation=live.generation + 1), live, live])
        async with transactional(broker.bootstrap, source, names.group, lambda: next(seen)) as writer:
            with pytest.raises(Fenced):
                await writer.commit(Unit(live, [out(sink, "gone")], {0: Committed(5, "")}))
            await writer.commit(Unit(live, [out(sink, "kept")], {0: Committed(6, "")}))
        assert (await consumer.stable_offsets([0], timeout_s=60))[0].offset == 6
    assert values(broker, sink) == ["kept"]


async def abandoned(
    connection: Connection, consumer: Consumer, names: Names, source: str, sink: str
) -> AIOKafkaProducer:
    """A writer that died in the middle of a transaction, after its offsets: nobody will end it for 15 minutes."""
    producer = AIOKafkaProducer(
        **connection.kwargs(), transactional_id=f"{names.group}.dead", transaction_timeout_ms=900_000
    )
    await producer.start()
    await producer.begin_transaction()
    await producer.send_and_wait(sink, b"never", partition=0)
    offsets = {TopicPartition(source, 0): OffsetAndMetadata(50, "pending")}
    await producer.send_offsets_to_transaction(offsets, names.group)
    return producer


async def test_a_takeover_ends_the_transaction_of_a_dead_writer_at_once(broker: Broker, names: Names) -> None:
    source, sink = topics(broker, names)
    connection = Connection.build(broker.bootstrap)
    async with member(broker.bootstrap, source, names.group) as consumer:
        dead = await abandoned(connection, consumer, names, source, sink)
        try:
            began = time.monotonic()
            assert await takeover(connection, f"{names.group}.dead", timeout_s=60), "a transaction was open"
            assert not await takeover(connection, f"{names.group}.dead", timeout_s=60), "it was ended"
            assert await consumer.stable_offsets([0], timeout_s=60) == {0: Committed(-1, "")}
            assert time.monotonic() - began < 60, "of a transaction of 15 minutes"
            with pytest.raises(Exception, match=r"Fenced|Epoch|FENCED"):
                await dead.commit_transaction()
        finally:
            await dead.stop()
    produce(broker.bootstrap, sink, [Sent(b"after", partition=0)])
    assert values(broker, sink) == ["after"]


@pytest.mark.usefixtures("each_version")
async def test_a_writer_that_was_taken_over_ends_as_fenced(broker: Broker, names: Names) -> None:
    source, sink = topics(broker, names)
    async with (
        member(broker.bootstrap, source, names.group) as consumer,
        transactional(broker.bootstrap, source, names.group, consumer.token) as writer,
    ):
        await takeover(Connection.build(broker.bootstrap), f"{names.group}.writer", timeout_s=60)
        with pytest.raises(Fenced):
            await writer.commit(Unit(consumer.token(), [out(sink, "zombie")], {}))
        assert writer.dead
        with pytest.raises(BrokerUnavailable, match="has ended"):
            await writer.commit(Unit(consumer.token(), [out(sink, "again")], {}))
    assert values(broker, sink) == []


async def test_a_record_too_large_is_found_before_anything_is_sent(broker: Broker, names: Names) -> None:
    source, sink = topics(broker, names)
    async with (
        member(broker.bootstrap, source, names.group) as consumer,
        transactional(broker.bootstrap, source, names.group, consumer.token, limits={sink: 2000}) as writer,
    ):
        with pytest.raises(RecordTooLarge) as caught:
            await writer.commit(Unit(consumer.token(), [out(sink, "a"), out(sink, "x" * 2000)], {}))
        assert caught.value.topic == sink
        assert 2000 <= caught.value.size < 2100
        await writer.commit(Unit(consumer.token(), [out(sink, "y" * 1900)], {}))
    assert values(broker, sink, "read_uncommitted") == ["y" * 1900]


@pytest.mark.parametrize("codec", [None, "gzip", "snappy", "lz4", "zstd"])
async def test_bytes_that_no_codec_makes_smaller_fit_up_to_the_limit(
    broker: Broker, names: Names, codec: str | None
) -> None:
    """A codec makes such a batch larger; one that would then be too large is sent as it is, alone or with others."""
    source, sink = names.topic("in"), names.topic("small")
    create_topics(broker.bootstrap, source)
    create_topics(broker.bootstrap, sink, config={"max.message.bytes": "100000"})
    noise = Random(2).randbytes(100_000)
    ours = batch_bytes(OutRecord(sink, 0, b"k", noise, 1, ())) - len(noise)
    async with (
        member(broker.bootstrap, source, names.group) as consumer,
        transactional(
            broker.bootstrap, source, names.group, consumer.token, limits={sink: 100_000}, compression=codec
        ) as writer,
    ):
        records = [OutRecord(sink, 0, b"k", noise[: 100_000 - ours - less], 1, ()) for less in (0, 1, 25, 2_000, 0)]
        records += [OutRecord(sink, 0, b"k", noise[at : at + 900], 1, ()) for at in range(0, 90_000, 300)]
        await writer.commit(Unit(consumer.token(), records, {0: Committed(1, "")}))
    assert [got.value for got in read_topic(broker.bootstrap, sink)] == [record.value for record in records]


@pytest.mark.usefixtures("each_version")
async def test_a_record_that_the_broker_finds_too_large_names_its_topic(broker: Broker, names: Names) -> None:
    source, sink = names.topic("in"), names.topic("small")
    create_topics(broker.bootstrap, source)
    create_topics(broker.bootstrap, sink, config={"max.message.bytes": "1000"})
    async with (
        member(broker.bootstrap, source, names.group) as consumer,
        transactional(broker.bootstrap, source, names.group, consumer.token) as writer,
    ):
        with pytest.raises(RecordTooLarge) as caught:
            await writer.commit(Unit(consumer.token(), [out(sink, "x" * 3000)], {0: Committed(1, "")}))
        assert caught.value.topic == sink
        assert not writer.dead, "the unit was aborted"
        await writer.commit(Unit(consumer.token(), [out(sink, "fits")], {0: Committed(2, "")}))
        assert (await consumer.stable_offsets([0], timeout_s=60))[0].offset == 2
    assert values(broker, sink) == ["fits"]


async def test_a_batch_that_the_broker_finds_too_large_is_told_as_a_batch(broker: Broker, names: Names) -> None:
    source, sink = names.topic("in"), names.topic("small")
    create_topics(broker.bootstrap, source)
    create_topics(broker.bootstrap, sink, config={"max.message.bytes": "1000"})
    async with (
        member(broker.bootstrap, source, names.group) as consumer,
        transactional(broker.bootstrap, source, names.group, consumer.token) as writer,
    ):
        with pytest.raises(RecordTooLarge, match="a batch of 3 records is larger than the topic takes"):
            await writer.commit(Unit(consumer.token(), [out(sink, "x" * 500)] * 3, {0: Committed(1, "")}))
        assert not writer.dead, "the unit was aborted"


async def test_a_missing_topic_is_named_and_costs_nothing(broker: Broker, names: Names) -> None:
    source, _ = topics(broker, names)
    connection = Connection.build(broker.bootstrap, request_timeout_ms=1000)
    token = GroupToken(1, "m", None)
    writer = TransactionalWriter(
        connection, transactional_id=names.group, group_id=names.group, source_topic=source, token_now=lambda: token
    )
    await writer.start()
    with pytest.raises(Exception, match="nowhere"):
        await writer.commit(Unit(token, [out("nowhere", "x")], {}))
    assert not writer.dead
    await writer.stop(5.0)


async def test_at_least_once_commits_offsets_after_the_records(broker: Broker, names: Names) -> None:
    source, sink = topics(broker, names)
    async with member(broker.bootstrap, source, names.group) as consumer:
        writer = IdempotentWriter(
            Connection.build(broker.bootstrap), claim=consumer.claim, token_now=consumer.token, compression="lz4"
        )
        await writer.start()
        try:
            await writer.commit(Unit(consumer.token(), [out(sink, "a"), out(sink, "b")], {1: Committed(4, "m")}))
            assert await consumer.pending_owners([1]) == {1: Committed(4, "m")}
            stale = consumer.token()._replace(generation=0)
            with pytest.raises(Fenced):
                await writer.commit(Unit(stale, [out(sink, "c")], {1: Committed(5, "m")}))
        finally:
            await writer.stop(5.0)
    assert values(broker, sink) == ["a", "b"]


async def test_at_least_once_writes_checkpoints_behind_outputs_and_forgets_behind_offsets(
    broker: Broker, names: Names
) -> None:
    """A crash between any two of them repeats; in another order it would skip what was never published."""
    source, sink = topics(broker, names)
    kept = names.topic("kept")
    create_topics(broker.bootstrap, kept)
    seen: list[tuple[str, int]] = []

    async with member(broker.bootstrap, source, names.group) as consumer:

        async def claim(offsets: Mapping[int, Committed]) -> None:
            seen.extend((topic, len(read_topic(broker.bootstrap, topic))) for topic in (sink, kept))
            await consumer.claim(offsets)

        writer = IdempotentWriter(Connection.build(broker.bootstrap), claim=claim, token_now=consumer.token)
        await writer.start()
        sent: list[str] = []
        send = writer._outlet.send

        async def noted(batches: Sequence[Any]) -> Any:
            sent.extend(batch.topic for batch in batches)
            return await send(batches)

        writer._outlet.send = noted  # type: ignore[method-assign]
        checkpoints = [OutRecord(kept, 0, b"s1", None, 0, ()), OutRecord(kept, 0, b"s2", b"state", 0, ())]
        try:
            unit = Unit(consumer.token(), [out(sink, "a")], {1: Committed(4, "m")}, checkpoints)
            await writer.commit(unit)
        finally:
            await writer.stop(5.0)
    assert seen == [(sink, 1), (kept, 1)], "at the commit: the output and the state, not yet the forgetting"
    assert sent == [sink, kept, kept]
    assert [got.value for got in read_topic(broker.bootstrap, kept)] == [b"state", None]


async def test_a_silent_broker_ends_the_commit_and_the_stop_in_time(names: Names) -> None:
    with started_or_skipped() as broker:
        source, sink = topics(broker, names)
        token = GroupToken(1, "m", None)
        writer = TransactionalWriter(
            Connection.build(broker.bootstrap),
            transactional_id=names.group,
            group_id=names.group,
            source_topic=source,
            token_now=lambda: token,
            commit_timeout_s=1.0,
        )
        await writer.start()
        await writer.commit(Unit(token, [out(sink, "before")], {}))
        broker.pause()
        try:
            began = time.monotonic()
            with pytest.raises(BrokerUnavailable):
                async with asyncio.timeout(60):
                    await writer.commit(Unit(token, [out(sink, "lost")], {}))
            assert writer.dead
            await writer.stop(1.0)
            assert time.monotonic() - began < 30, "a commit of 1 s and a stop of 1 s"
        finally:
            broker.resume()


@pytest.mark.usefixtures("each_version")
async def test_a_commit_that_is_cancelled_ends_the_writer(broker: Broker, names: Names) -> None:
    source, sink = topics(broker, names)
    async with (
        member(broker.bootstrap, source, names.group) as consumer,
        transactional(broker.bootstrap, source, names.group, consumer.token) as writer,
    ):
        commit = asyncio.create_task(writer.commit(Unit(consumer.token(), [out(sink, "x")], {0: Committed(1, "")})))
        sequences = writer._transactions._sequences
        while not commit.done() and not sequences:  # noqa: ASYNC110 - it is to be caught half way
            await asyncio.sleep(0)
        commit.cancel()
        with pytest.raises(asyncio.CancelledError):
            await commit
        assert writer.dead
        # The next life of the same id settles it, whichever way it had gone.
        async with (
            member(broker.bootstrap, source, names.group) as consumer,
            transactional(broker.bootstrap, source, names.group, consumer.token),
        ):
            offset = (await consumer.stable_offsets([0], timeout_s=60))[0].offset
            assert values(broker, sink) == (["x"] if offset == 1 else [])


@pytest.mark.parametrize("mode", ["transactional", "idempotent"])
async def test_it_is_told_where_records_came_to_stand(broker: Broker, names: Names, mode: str) -> None:
    """Those that were asked for, in several partitions and batches; a second unit stands behind the first."""
    source, sink = topics(broker, names, partitions=3)
    async with member(broker.bootstrap, source, names.group) as consumer:
        connection = Connection.build(broker.bootstrap)
        writer: Writer = (
            IdempotentWriter(connection, claim=consumer.claim, token_now=consumer.token)
            if mode == "idempotent"
            else TransactionalWriter(
                connection,
                transactional_id=names.prefix,
                group_id=names.group,
                source_topic=source,
                token_now=consumer.token,
            )
        )
        await writer.start()
        try:
            for unit in range(2):
                records = [out(sink, f"{unit}-{i}-" + "x" * 20_000, key=f"k{i}") for i in range(120)]
                asked = Unit(consumer.token(), records, {}, ack_positions=dict.fromkeys((0, 50, 119)))
                await writer.commit(asked)
                stands = {(got.partition, got.offset): got.value for got in read_topic(broker.bootstrap, sink)}
                assert {n: stands[place] for n, place in asked.ack_positions.items() if place is not None} == {
                    n: records[n].value for n in (0, 50, 119)
                }
        finally:
            await writer.stop(5.0)


async def test_the_cluster_says_which_transactions_it_has(broker: Broker, names: Names) -> None:
    source, _ = topics(broker, names)
    async with (
        member(broker.bootstrap, source, names.group) as consumer,
        transactional(broker.bootstrap, source, names.group, consumer.token) as writer,
    ):
        assert writer.transaction_version == 2


@pytest.mark.usefixtures("each_version")
@pytest.mark.parametrize("request_name", ["produce", "commit_offsets", "end"])
async def test_a_lost_answer_costs_less_than_two_seconds(
    broker: Broker, names: Names, request_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker does what it was asked, the answer never comes, and the unit is there once, with its offsets."""
    source, sink = topics(broker, names)
    async with (
        member(broker.bootstrap, source, names.group) as consumer,
        transactional(broker.bootstrap, source, names.group, consumer.token) as writer,
    ):
        began = time.monotonic()
        await writer.commit(Unit(consumer.token(), [out(sink, "before")], {0: Committed(1, "before")}))
        undisturbed_s = time.monotonic() - began
        original = getattr(BrokerLink, request_name)
        lost: list[str] = []

        async def once_lost(self: BrokerLink, *given: Any, **named: Any) -> Any:
            answer = await original(self, *given, **named)
            if not lost:
                lost.append(request_name)
                raise Unanswered(request_name)
            return answer

        monkeypatch.setattr(BrokerLink, request_name, once_lost)
        began = time.monotonic()
        await writer.commit(Unit(consumer.token(), [out(sink, "once")], {0: Committed(2, "once")}))
        took_s = time.monotonic() - began
        assert lost
        await writer.commit(Unit(consumer.token(), [out(sink, "after")], {0: Committed(3, "after")}))
        assert (await consumer.stable_offsets([0], timeout_s=60))[0] == Committed(3, "after")
        assert not writer.dead
    assert values(broker, sink) == ["after", "before", "once"]
    assert took_s < 2.0 + 20 * undisturbed_s
