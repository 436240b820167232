# mypy: allow-subclassing-any
"""The aiokafka consumer that `Consumer` and `PartitionReader` are built on, and its offsets."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Final, TypeVar

from aiokafka import AIOKafkaConsumer
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.structs import TopicPartition

from processor.kafka.aiokafka_compat import with_globals
from processor.kafka.client import Client, force_close
from processor.kafka.client_config import Connection
from processor.kafka.fetch import BatchFetcher

_Answer = TypeVar("_Answer")
_LEAVE_S: Final = 0.5


class BatchConsumer(AIOKafkaConsumer):
    """Upstream's consumer with our client and our fetcher inside."""

    __init__ = with_globals(AIOKafkaConsumer.__init__, AIOKafkaClient=Client)
    start = with_globals(AIOKafkaConsumer.start, Fetcher=BatchFetcher)


async def begin_offsets(
    consumer: BatchConsumer, topic_partitions: Collection[TopicPartition], connection: Connection
) -> dict[int, int]:
    found = await consumer._fetcher.beginning_offsets(topic_partitions, connection.request_timeout_ms)
    return {tp.partition: offset for tp, offset in found.items()}


async def end_offsets(
    consumer: BatchConsumer, topic_partitions: Collection[TopicPartition], connection: Connection
) -> dict[int, int]:
    found = await consumer._fetcher.high_watermarks(topic_partitions, connection.request_timeout_ms)
    return {tp.partition: offset for tp, offset in found.items()}


async def stop_consumer(consumer: BatchConsumer, *, timeout_s: float) -> None:
    """Stop in an orderly way if that ends in time; else cut it off."""
    try:
        async with asyncio.timeout(timeout_s):
            await consumer.stop()
    except asyncio.CancelledError:
        consumer._client.abort()
        raise
    except Exception:  # whatever broke it, the rest of it has to go too
        consumer._closed = True
        tasks = _tasks(consumer)
        if isinstance(consumer._coordinator, GroupCoordinator):
            # A member that does not leave the group holds up the rebalance of all others.
            leaving = asyncio.create_task(consumer._coordinator._maybe_leave_group())
            await asyncio.wait([leaving], timeout=_LEAVE_S)
            tasks.append(leaving)
        await force_close(consumer._client, tasks)


def _tasks(consumer: BatchConsumer) -> list[asyncio.Task[object] | None]:
    coordinator, fetcher = consumer._coordinator, consumer._fetcher
    names = ("_coordination_task", "_heartbeat_task", "_commit_refresh_task", "_reset_committed_task")
    tasks = [getattr(coordinator, name, None) for name in names]
    if fetcher is not None:
        tasks += [fetcher._fetch_task, *fetcher._pending_tasks]
    return tasks
