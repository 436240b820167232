"""An output topic in place of a broker's: what retention, compaction and open transactions leave of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import ClassVar, Self

from processor.core.effects import Record
from processor.kafka.fetch import Hidden


class EmptyReader:
    """An output topic of two partitions, without records unless a test gives some, in place of a `PartitionReader`."""

    begins: ClassVar[dict[int, int]] = {0: 0, 1: 0}
    stable: ClassVar[dict[int, int]] = {0: 8, 1: 8}

    records: ClassVar[dict[int, list[Record]]] = {}
    hidden: ClassVar[dict[int, list[Hidden]]] = {}
    times: ClassVar[dict[int, int]] = {}

    def __init__(self, *_: object, **__: object) -> None: ...

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    def partitions_of_topic(self) -> int:
        return 2

    async def begin_offsets(self, _: object) -> dict[int, int]:
        return self.begins

    async def stable_end_offsets(self, _: object) -> dict[int, int]:
        return self.stable

    async def end_offsets(self, _: object) -> dict[int, int]:
        return {0: 8, 1: 8}

    def observe(self, told: Callable[[int, list[Hidden]], None]) -> None:
        for partition, spans in self.hidden.items():
            told(partition, spans)

    def broker_times(self) -> dict[int, int]:
        return self.times

    async def read_to(self, *_: object) -> AsyncIterator[tuple[int, list[Record]]]:
        for each in self.records.items():
            yield each
