"""Members of a group and writers for the tests of `processor.kafka`, ended with the test whatever becomes of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from processor.kafka.client_config import Connection
from processor.kafka.consumer import Consumer, GroupToken
from processor.kafka.records import OutRecord
from processor.kafka.writer import TransactionalWriter

DEADLINE_S = 180.0


class Listener:
    """Notes what it is told; `drain` is awaited in `revoked`."""

    def __init__(self, drain: Callable[[], Awaitable[None]] | None = None) -> None:
        self.mine: list[int] = []
        self.happened: list[tuple[str, list[int]]] = []
        self.changed = asyncio.Event()
        self.drain = drain

    async def revoked(self, partitions: list[int]) -> None:
        self.happened.append(("revoked", partitions))
        self.mine = []
        self.changed.set()
        if self.drain is not None:
            await self.drain()

    def assigned(self, partitions: list[int]) -> None:
        self.happened.append(("assigned", partitions))
        self.mine = partitions
        self.changed.set()

    async def owns(self, count: int) -> list[int]:
        """Wait until exactly `count` partitions are assigned."""
        async with asyncio.timeout(DEADLINE_S):
            while len(self.mine) != count:
                self.changed.clear()
                await self.changed.wait()
        return self.mine


@asynccontextmanager
async def member(
    bootstrap: str, topic: str, group: str, listener: Listener | None = None, **changes: Any
) -> AsyncIterator[Consumer]:
    settings: dict[str, Any] = {
        "topic": topic,
        "group_id": group,
        "client_id": "test",
        "instance_id": None,
        "session_timeout_ms": 10_000,
        "heartbeat_interval_ms": 100,
        "rebalance_timeout_ms": 10_000,
        "fetch_max_bytes": 4 << 20,
        "partition_fetch_bytes": 1 << 20,
        "listener": listener or Listener(),
    }
    consumer = Consumer(Connection.build(bootstrap), **{**settings, **changes})
    await consumer.start()
    try:
        yield consumer
    finally:
        await consumer.stop(5.0)


@asynccontextmanager
async def transactional(
    bootstrap: str, topic: str, group: str, token_now: Callable[[], GroupToken], **changes: Any
) -> AsyncIterator[TransactionalWriter]:
    settings: dict[str, Any] = {"transactional_id": f"{group}.writer", "group_id": group, "source_topic": topic}
    writer = TransactionalWriter(Connection.build(bootstrap), **{**settings, **changes}, token_now=token_now)
    await writer.start()
    try:
        yield writer
    finally:
        await writer.stop(5.0)


def out(topic: str, value: str, *, key: str | None = "k", partition: int | None = None) -> OutRecord:
    return OutRecord(topic, partition, key.encode() if key is not None else None, value.encode(), 1_000, [])


async def until(holds: Callable[[], Awaitable[bool]], what: str, deadline_s: float = DEADLINE_S) -> None:
    try:
        async with asyncio.timeout(deadline_s):
            while not await holds():  # noqa: ASYNC110 - the broker has no event for it
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"not within {deadline_s} s: {what}") from None
