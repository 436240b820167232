"""Record batches per partition, with compression."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Final

from aiokafka.producer.message_accumulator import BatchBuilder

from processor.errors import BrokerUnavailable
from processor.kafka.errors import RecordTooLarge
from processor.kafka.raw_names import RawNamesBatch
from processor.kafka.records import (
    BATCH_OVERHEAD_BYTES,
    DEFAULT_MAX_MESSAGE_BYTES,
    OutRecord,
    batch_bytes,
    compression_growth_bytes,
    partition_of,
)
from processor.kafka.transactions import Identity

AckPositions = dict[int, tuple[int, int] | None]


_MAX_BATCH_BYTES: Final = 512 << 10
CODECS: Final = {None: 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}


@dataclass(slots=True, eq=False)
class RecordBatch:
    """Records of one partition that are written at once (`transactions.Batch`)."""

    topic: str
    partition: int
    builder: Any
    sizes: list[int]
    asked: list[tuple[AckPositions, int, int]]
    """Targets for the position of acknowledged records: the list, the index in it, the record's index in the batch."""

    @property
    def count(self) -> int:
        return len(self.sizes)

    @property
    def largest(self) -> int:
        return max(self.sizes)

    def payload(self, identity: Identity, sequence: int) -> bytes:
        self.builder._set_producer_state(*identity, sequence)
        return bytes(self.builder._build())

    def written(self, offset: int) -> None:
        for ack_positions, number, at in self.asked:
            if offset >= 0:  # the answer to a repeated request may lack it
                ack_positions[number] = (self.partition, offset + at)


class RecordBatches:
    """Records put into batches.

    Args:
        limits: max.message.bytes by topic.
        builder: makes an empty batch of at most so many bytes.
    """

    def __init__(self, limits: Mapping[str, int], builder: Callable[[int], Any], *, transactional: bool) -> None:
        self._limits, self._make, self._transactional = limits, builder, transactional
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
        queues: defaultdict[tuple[str, int], list[RecordBatch]] = defaultdict(list)
        for number, (topic, partition, key, value, timestamp, headers) in enumerate(records):
            if partition is None:
                # Without a key any partition will do: one per unit keeps batches whole.
                count = partitions[topic]
                partition = turn % count if key is None else partition_of(key, count)
            queue = queues[topic, partition]
            fields = {"timestamp": timestamp, "key": key, "value": value, "headers": list(headers)}
            try:
                added = queue[-1].builder.append(**fields) if queue else None
                if added is None:
                    queue.append(RecordBatch(topic, partition, self._builder(records[number]), [], []))
                    added = queue[-1].builder.append(**fields)  # an empty batch takes a record of any size
            except UnicodeEncodeError:  # the name of a header: the compiled builder wants UTF-8, and has taken nothing
                if queue and not queue[-1].sizes:
                    queue.pop()
                queue.append(RecordBatch(topic, partition, self._builder(records[number], RawNamesBatch), [], []))
                added = queue[-1].builder.append(**fields)
            if added.size + BATCH_OVERHEAD_BYTES > self._limits.get(topic, DEFAULT_MAX_MESSAGE_BYTES):
                raise RecordTooLarge(topic, added.size)
            if ack_positions and number in ack_positions:
                queue[-1].asked.append((ack_positions, number, len(queue[-1].sizes)))
            queue[-1].sizes.append(added.size)
        return [batch for turn_ in zip_longest(*queues.values()) for batch in turn_ if batch is not None]

    def _builder(self, first: OutRecord, kind: type[BatchBuilder] | None = None) -> Any:
        """A batch to be begun with this record: not compressed where that might take it over the topic's limit.

        Bytes that cannot be compressed grow by it, and the library sends them so; the broker then refuses the batch.
        """
        size, limit = batch_bytes(first), self._limits.get(first.topic, DEFAULT_MAX_MESSAGE_BYTES)
        if kind is not None or size <= limit < size + compression_growth_bytes(size):
            return (kind or BatchBuilder)(1, 0, is_transactional=int(self._transactional))
        return self._make(self.max_batch_bytes)


def mark_retrieved(future: asyncio.Future[Any]) -> None:
    """Mark an error as retrieved: where another one came first, no task waits for this one any more."""
    if not future.cancelled():
        future.exception()


def writer_ended(where: str) -> BrokerUnavailable:
    return BrokerUnavailable(f"{where}: the writer has ended", hint="start anew from the committed offsets")
