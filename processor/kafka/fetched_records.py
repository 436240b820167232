"""Fetched records that are decoded while they are iterated over, batch after batch.

Records that are decoded all at once have left the CPU's caches when their turn comes, and again when they are freed
(docs/decisions/0027).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Final, overload

from aiokafka.errors import CorruptRecordException, KafkaError
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import TopicPartition

from processor.core.effects import Record
from processor.kafka.errors import translate
from processor.kafka.raw_names import read_batch

_SAMPLE: Final = 8


def sample(records: Sequence[Record]) -> Sequence[Record]:
    """A few records of a batch that was iterated over, at about even distances; at least one."""
    if isinstance(records, FetchedRecords):
        records = records.firsts
    return records[:: -(-len(records) // _SAMPLE) or 1]


class UndecodedBatch:
    """A whole batch of format 2, its checksum checked, and the fetched bytes that hold it."""

    def __init__(self, batch: Any, content: bytes, begin: int, end: int) -> None:
        self._batch = batch
        self._content, self._begin, self._end = content, begin, end

    def records(self) -> Iterator[Record]:
        """Decode from the first record on. The client's batch can do so once."""
        batch, self._batch = self._batch, None
        # The client's batch refuses a second `iter()`, which every `for` makes.
        return islice(MemoryRecords(self.raw()).next_batch() if batch is None else batch, None)

    def raw(self) -> bytes:
        return self._content[self._begin : self._end]


class FetchedRecords(Sequence[Record]):
    """Records of one partition in offset order, as a sequence that is decoded by each iteration over it.

    Iterate once: each iteration decodes anew, and an index other than -1 behind an iteration decodes everything.

    Raises:
        CorruptLog: while iterated over: bytes behind a right checksum that are no records.
    """

    def __init__(self, topic_partition: TopicPartition) -> None:
        self._topic_partition = topic_partition
        self._parts: list[list[Record] | UndecodedBatch] = []
        self._count = 0
        self.firsts: Sequence[Record] = ()
        """Set by an iteration that comes to its end: the first record of each batch."""
        self._last: Record | None = None

    def add(self, part: list[Record] | UndecodedBatch, count: int) -> None:
        """Add records that stand behind all others; `count`: how many, at least one."""
        self._parts.append(part)
        self._count += count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Record]:
        firsts: list[Record] = []
        last: Record | None = None
        try:
            for part in self._parts:
                if isinstance(part, list):
                    firsts += sample(part)
                    yield from part
                    last = part[-1]
                    continue
                try:
                    records = part.records()
                    last = next(records)
                    firsts.append(last)
                    yield last
                    for last in records:
                        yield last
                except UnicodeDecodeError:  # the name of a header; in Kafka it may be of any bytes
                    behind = -1 if last is None else last.offset
                    for last in read_batch(part.raw()):
                        if last.offset > behind:
                            yield last
        except MemoryError:  # the bytes are as they were sent; it is we who have no room for them
            raise
        except Exception as error:  # the decoders raise what they like on bytes that no broker should send
            broken = (
                error if isinstance(error, KafkaError) else CorruptRecordException(f"{type(error).__name__}: {error}")
            )
            topic, partition = self._topic_partition
            raise translate(broken, f"topic {topic}: partition {partition}") from error
        self.firsts, self._last = firsts, last

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | Sequence[Record]:
        if index == -1 and self._last is not None:
            return self._last
        return list(self)[index]
