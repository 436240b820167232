"""What the writers do without a broker to talk to."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from aiokafka.cluster import ClusterMetadata
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from processor.kafka.batch_builder import BatchBuilder
from processor.kafka.client_config import Connection
from processor.kafka.idempotent_producer import ProducerSession, _Accumulator, _Sequences
from processor.kafka.record_batches import RecordBatch
from processor.kafka.writer import _all

HERE = TopicPartition("in", 0)


async def test_after_an_error_nobody_waits_for_the_other_answers() -> None:
    answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def refused() -> None:
        raise ValueError("refused")

    async def answered() -> None:
        await asyncio.shield(answer)

    with pytest.raises(ValueError, match="refused"):
        await _all([refused(), answered()])
    before = asyncio.all_tasks()
    await asyncio.sleep(0)
    assert [task for task in before - {asyncio.current_task()} if not task.done()] == []


async def test_an_answer_that_nobody_came_to_wait_for_is_no_news() -> None:
    """The unit is given up between the sending of its batches and the wait for them."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[None] = loop.create_future()
    outlet = ProducerSession(
        Connection.build("localhost:9"), where="here", commit_timeout_s=1.0, compression=None, limits={}
    )

    class Producer:
        async def send_batch(self, *_: object, **__: object) -> asyncio.Future[None]:
            return answer

    outlet._producer = cast(Any, Producer())
    batch = RecordBatch("out", 0, BatchBuilder(1000, is_transactional=True))
    for ack in await outlet.send([batch]):
        ack.close()
    answer.set_exception(KafkaError("the connection is closed"))
    await asyncio.sleep(0)
    # An error nobody looked at fails the test as it ends.


async def test_a_batch_that_fails_after_its_waiter_has_gone_is_no_news() -> None:
    """A record is refused, the wait for the rest of the unit is given up, and then the sender ends, too."""
    loop = asyncio.get_running_loop()
    accumulator = _Accumulator(ClusterMetadata(), 1000, 0, 1, loop=loop)
    waiting = [await accumulator.add_batch(accumulator.create_builder(), HERE, 1)]

    async def refused() -> None:
        raise ValueError("refused")

    async def answered(answer: asyncio.Future[None]) -> None:
        await answer

    with pytest.raises(ValueError, match="refused"):
        await _all([*map(answered, waiting), refused()])
    for _ in range(3):  # until the answers are no longer shielded
        await asyncio.sleep(0)
    accumulator.fail_all(KafkaError("the connection is closed"))
    sequences = _Sequences(None, 1000)
    sequences.fatal_error(KafkaError("the connection is closed"))
    await asyncio.sleep(0)
    # An error nobody looked at fails the test as it ends.
