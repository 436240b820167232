"""What the writers do without a broker to talk to."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from aiokafka.cluster import ClusterMetadata
from aiokafka.errors import KafkaError
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.structs import OffsetAndMetadata, TopicPartition

from processor.kafka import writer
from processor.kafka.security import Connection

HERE = TopicPartition("in", 0)


async def test_after_an_error_nobody_waits_for_the_other_answers() -> None:
    answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def refused() -> None:
        raise ValueError("refused")

    async def answered() -> None:
        await asyncio.shield(answer)

    with pytest.raises(ValueError, match="refused"):
        await writer._all([refused(), answered()])
    before = asyncio.all_tasks()
    await asyncio.sleep(0)
    assert [task for task in before - {asyncio.current_task()} if not task.done()] == []


async def test_an_answer_that_nobody_came_to_wait_for_is_no_news() -> None:
    """The unit is given up between the sending of its batches and the wait for them."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[None] = loop.create_future()
    outlet = writer._Outlet(
        Connection.build("localhost:9"), where="here", commit_timeout_s=1.0, compression=None, limits={}
    )

    class Producer:
        async def send_batch(self, *_: object, **__: object) -> asyncio.Future[None]:
            return answer

    outlet._producer = cast(Any, Producer())
    batch = writer._Batch(
        "out", 0, BatchBuilder(1000, 0, is_transactional=True, key_serializer=None, value_serializer=None), [], []
    )
    for ack in await outlet.send([batch]):
        ack.close()
    answer.set_exception(KafkaError("the connection is closed"))
    await asyncio.sleep(0)
    # An error nobody looked at fails the test as it ends.


async def test_what_fails_after_its_waiter_has_gone_is_no_news() -> None:
    """A record is refused, the wait for the rest of the unit is given up, and then the silenced sender ends, too."""
    loop = asyncio.get_running_loop()
    transactions = writer._Transactions("id", 1000)
    transactions.set_pid_and_epoch(1, 0)
    accumulator = writer._Accumulator(ClusterMetadata(), 1000, 0, 1, txn_manager=transactions, loop=loop)
    transactions.begin_transaction()
    waiting = [
        asyncio.shield(transactions.add_offsets_to_txn({HERE: OffsetAndMetadata(1, "")}, "group")),
        await accumulator.add_batch(accumulator.create_builder(), HERE, 1),
    ]

    async def refused() -> None:
        raise ValueError("refused")

    async def answered(answer: asyncio.Future[None]) -> None:
        await answer

    with pytest.raises(ValueError, match="refused"):
        await writer._all([*map(answered, waiting), refused()])
    for _ in range(3):  # until the answers are no longer shielded
        await asyncio.sleep(0)
    ended = KafkaError("the connection is closed")
    accumulator.fail_all(ended)
    transactions.fatal_error(ended)
    await asyncio.sleep(0)
    # An error nobody looked at fails the test as it ends.
