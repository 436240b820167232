"""An output topic without records that can be read: what retention and open transactions leave of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import ClassVar, Self

from processor.core.effects import LogRecord


class EmptyReader:
    """An output topic of two partitions without records, in place of a `PartitionReader`."""

    begins: ClassVar[dict[int, int]] = {0: 0, 1: 0}
    stable: ClassVar[dict[int, int]] = {0: 8, 1: 8}

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

    async def read_to(self, *_: object) -> AsyncIterator[tuple[int, list[LogRecord]]]:
        none: list[tuple[int, list[LogRecord]]] = []
        for each in none:
            yield each
