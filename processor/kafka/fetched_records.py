"""Fetched records that are decoded while they are iterated over, batch after batch.

Records that are decoded all at once have left the CPU's caches when their turn comes, and again when they are freed
(docs/decisions/0027). Compiled, the core reads them from the bytes of their batch (docs/decisions/0035).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Final, overload

from aiokafka.errors import CorruptRecordException, KafkaError
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import TopicPartition

from processor.core import raw_batch
from processor.core.batch_columns import columns_of
from processor.core.effects import Record
from processor.core.raw_batch import RawBatch
from processor.core.record_columns import RecordColumns
from processor.kafka.errors import translate
from processor.kafka.raw_names import raw_batch_of, read_batch

_SAMPLE: Final = 8
_IS_COMPILED: Final = not str(raw_batch.__file__).endswith(".py")
"""Without the compiler the client's decoder, which is compiled in any case, is faster."""


def sample(records: Sequence[Record]) -> Sequence[Record]:
    """A few records of a batch that was iterated over, at about even distances; at least one."""
    if isinstance(records, FetchedRecords):
        records = records.firsts
    return records[:: -(-len(records) // _SAMPLE) or 1]


def columns(records: Sequence[Record]) -> Sequence[RecordColumns] | None:
    """Fetched records as columns, one for each segment of offsets without a hole; None where objects are faster.

    Raises:
        CorruptLog: bytes behind a right checksum that are no records.
    """
    return columns_of(records.batches()) if isinstance(records, FetchedRecords) and _IS_COMPILED else None


def batches(records: Sequence[Record]) -> Iterable[Iterable[Record]]:
    """Records of a poll as the fold takes them: by batch and undecoded, where that is faster (`RawBatch`)."""
    return records.batches() if isinstance(records, FetchedRecords) and _IS_COMPILED else (records,)


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

    def batch(self, broken: Callable[[str], Exception]) -> RawBatch:
        """The batch, to be read by the core; `broken` as for `RawBatch`. Raises what a codec raises."""
        return raw_batch_of(self._content, self._begin, self._end, broken)


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
            raise self._broken(error) from error
        self.firsts, self._last = firsts, last

    def batches(self) -> Iterator[RawBatch | list[Record]]:
        """The same records, those of whole batches undecoded. Take the next piece when the one before was read.

        Raises:
            CorruptLog: as an iteration over the records; the pieces raise it, too.
        """
        firsts: list[Record] = []
        last: Record | None = None
        for part in self._parts:
            if isinstance(part, list):
                firsts += sample(part)
                yield part
                last = part[-1]
                continue
            try:
                batch = part.batch(lambda text: self._broken(CorruptRecordException(text)))
            except MemoryError:
                raise
            except Exception as error:
                raise self._broken(error) from error
            yield batch
            last = batch.record()
            firsts.append(next(iter(batch)).record())
        self.firsts, self._last = firsts, last

    def _broken(self, error: Exception) -> Exception:
        if not isinstance(error, KafkaError):
            error = CorruptRecordException(f"{type(error).__name__}: {error}")
        topic, partition = self._topic_partition
        return translate(error, f"topic {topic}: partition {partition}")

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | Sequence[Record]:
        if index == -1 and self._last is not None:
            return self._last
        return list(self)[index]
