"""Read-committed consumers of the output topics, as a downstream reader sees them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final, NamedTuple

from processor.core.headers import FIRST_OFFSET, SOURCE_OFFSET, SOURCE_PARTITION
from processor.kafka.client_config import Connection
from processor.kafka.partition_reader import PartitionReader

_LOOK_EVERY_S: Final = 0.2
_NO_PROGRESS_S: Final = 60.0
"""Longer than any open transaction of a dead worker can hold a reader back."""


class Out(NamedTuple):
    """A record of an output topic. `status`: the outcome whose topic it is, empty for a dead letter."""

    status: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]

    def header(self, name: str) -> str:
        """The last header of that name; empty if there is none."""
        return (dict(self.headers).get(name) or b"").decode("utf-8", "replace")

    @property
    def source(self) -> tuple[int, int]:
        """Partition and offset of the (first) source record it came from; -1 where it does not say."""
        offset = self.header(SOURCE_OFFSET if not self.status else FIRST_OFFSET)
        return int(self.header(SOURCE_PARTITION) or -1), int(offset or -1)


class Tail:
    """All records of one output topic, from its beginning on."""

    def __init__(self, connection: Connection, topic: str, status: str, *, seen: Callable[[], None]) -> None:
        self.topic = topic
        self.status = status
        self.records: list[Out] = []
        self._seen = seen
        self._positions: dict[int, int] = {}
        self._reader = PartitionReader(connection, topic=topic, client_id="run-steps-demo")

    async def follow(self, stop: asyncio.Event) -> None:
        """Read on until `stop` is set, and then once more to the end."""
        async with self._reader as reader:
            self._positions = await reader.begin_offsets(range(reader.partitions_of_topic()))
            while True:
                is_last = stop.is_set()
                await self._catch_up(reader)
                if is_last:
                    return
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_EVERY_S):
                        await stop.wait()

    async def _catch_up(self, reader: PartitionReader) -> None:
        ends = await reader.end_offsets(list(self._positions))
        if ends == self._positions:
            return
        async with contextlib.aclosing(reader.read_to(self._positions, ends, _NO_PROGRESS_S)) as batches:
            async for _, records in batches:
                self.records += [Out(self.status, r.key, r.value, tuple(r.headers)) for r in records]
                self._seen()
        self._positions = ends
