"""Record batches per partition, with compression."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any, Final

from processor.errors import BrokerUnavailable
from processor.kafka.batch_builder import BatchBuilder
from processor.kafka.compression import CODECS
from processor.kafka.errors import RecordTooLarge
from processor.kafka.records import (
    BATCH_OVERHEAD_BYTES,
    DEFAULT_MAX_MESSAGE_BYTES,
    OutRecord,
    compression_growth_bytes,
    partition_of,
)
from processor.kafka.transactions import Identity

AckPositions = dict[int, tuple[int, int] | None]

_MAX_BATCH_BYTES: Final = 512 << 10


class RecordBatch:
    """Records of one partition that are written at once (`transactions.Batch`).

    `asked`: targets for the position of acknowledged records: the list, the index in it, the record's index in the
    batch.
    """

    def __init__(self, topic: str, partition: int, builder: BatchBuilder) -> None:
        self.topic, self.partition, self.builder = topic, partition, builder
        self.asked: list[tuple[AckPositions, int, int]] = []

    @property
    def count(self) -> int:
        return self.builder.count

    @property
    def largest(self) -> int:
        return self.builder.largest

    def payload(self, identity: Identity, sequence: int) -> bytes:
        producer_id, epoch = identity
        return self.builder.build(producer_id, epoch, sequence)

    def written(self, offset: int) -> None:
        for ack_positions, number, at in self.asked:
            if offset >= 0:  # the answer to a repeated request may lack it
                ack_positions[number] = (self.partition, offset + at)


class RecordBatches:
    """Records put into batches.

    Args:
        limits: largest batch by topic: its max.message.bytes, or segment.bytes if that is less.
        compression: None, "gzip", "snappy", "lz4" or "zstd".
    """

    def __init__(self, limits: Mapping[str, int], compression: str | None, *, transactional: bool) -> None:
        self._limits, self._transactional = limits, transactional
        self._codec, self._compress = CODECS[compression]
        smallest = min(limits.values(), default=DEFAULT_MAX_MESSAGE_BYTES)
        self.max_batch_bytes = min(
            _MAX_BATCH_BYTES, smallest - BATCH_OVERHEAD_BYTES - compression_growth_bytes(smallest)
        )
        self._turn = 0

    def next_turn(self) -> int:
        """Count the units: their records without a key go to one partition after the other."""
        self._turn += 1
        return self._turn

    def batches(
        self,
        records: Sequence[OutRecord],
        partitions: Mapping[str, int],
        turn: int,
        ack_positions: AckPositions | None = None,
    ) -> list[RecordBatch]:
        """Records in their order, by topic and partition, in batches; nothing is sent yet.

        Acknowledged, they tell where the records stand whose numbers are in `ack_positions`. The first batch of every
        partition comes before the second of any.

        Raises:
            RecordTooLarge: no batch can hold the record.
        """
        queues: dict[tuple[str, int], list[RecordBatch]] = {}
        for number, record in enumerate(records):
            topic, partition, key, value, timestamp, headers = record
            if partition is None:
                # Without a key any partition will do: one per unit keeps batches whole.
                count = partitions[topic]
                partition = turn % count if key is None else partition_of(key, count)
            place = topic, partition
            queue = queues.get(place)
            if queue is None:
                queue = queues[place] = []
            size = queue[-1].builder.append(timestamp, key, value, headers) if queue else 0
            if not size:
                builder = BatchBuilder(
                    self.max_batch_bytes, self._codec, self._compress, is_transactional=self._transactional
                )
                queue.append(RecordBatch(topic, partition, builder))
                size = builder.append(timestamp, key, value, headers)  # an empty batch takes a record of any size
            if size + BATCH_OVERHEAD_BYTES > self._limits.get(topic, DEFAULT_MAX_MESSAGE_BYTES):
                raise RecordTooLarge(topic, size)
            if ack_positions and number in ack_positions:
                batch = queue[-1]
                batch.asked.append((ack_positions, number, batch.builder.count - 1))
        return [batch for turn_ in zip_longest(*queues.values()) for batch in turn_ if batch is not None]


def mark_retrieved(future: asyncio.Future[Any]) -> None:
    """Mark an error as retrieved: where another one came first, no task waits for this one any more."""
    if not future.cancelled():
        future.exception()


def writer_ended(where: str) -> BrokerUnavailable:
    return BrokerUnavailable(f"{where}: the writer has ended", hint="start anew from the committed offsets")
