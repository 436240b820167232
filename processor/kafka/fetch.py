# mypy: allow-subclassing-any, disable-error-code=has-type
"""The fast fetch path: batches stay undecoded for the worker, or become lists of the compiled record objects.

Upstream builds an eleven-field dataclass per record inside a generator: two thirds of a consumer's time, and collecting
them is a sixth. The compiled `DefaultRecord` already has every field of `core.effects.Record`.
Kept as upstream: what a checksum must be, the filter of aborted transactions (KIP-98), the skipping of control batches,
and what the next fetch offset is after each of them.
"""

from __future__ import annotations

import asyncio
import copy
import struct
import time
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any, Final, Literal, NamedTuple, TypeVar

from aiokafka.consumer.fetcher import READ_COMMITTED, READ_UNCOMMITTED, Fetcher, FetchError, FetchResult
from aiokafka.errors import ConsumerStoppedError, CorruptRecordException, KafkaError
from aiokafka.record.control_record import ABORT_MARKER, ControlRecord
from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import TopicPartition

from processor.core.effects import Record
from processor.kafka.aiokafka_compat import with_globals
from processor.kafka.checksum import crc32c
from processor.kafka.fetched_records import FetchedRecords, UndecodedBatch
from processor.kafka.raw_names import read_batch

_Limit = TypeVar("_Limit", int, int | None)
_Records = TypeVar("_Records", bound=Sequence[Record])

_offset: Final = attrgetter("offset")
_HEAD: Final = struct.Struct(">qi")
"""Head of a batch of any format: its base offset, and the number of bytes after this head."""
_COUNT: Final = struct.Struct(">i")
_COUNT_AT: Final = 57
_CHECKED_FROM: Final = 21
"""Start of the bytes under the checksum of a batch of format 2: its attributes."""


class Hidden(NamedTuple):
    """Offsets (both inclusive) of a batch that no reader is shown."""

    first: int
    last: int
    kind: Literal["marker", "aborted"]


class CheckedRecords(MemoryRecords):
    """Batches of upstream's class, with checksums computed by the CPU's CRC instruction.

    Upstream computes them in software, which takes a quarter of the time of reading a topic. Its class does not expose
    the bytes that it reads, so this one follows it from batch to batch.
    """

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.base_offset = -1
        """Base offset of the last batch."""
        self._content = content
        self._begin = self._end = 0

    def next_batch(self) -> Any:
        batch = super().next_batch()
        self._begin = self._end
        self.base_offset, length = _HEAD.unpack_from(self._content, self._begin)
        self._end += _HEAD.size + length
        return batch

    def raw_batch(self) -> bytes:
        """The bytes of the batch that came last."""
        return self._content[self._begin : self._end]

    def records_of_batch(self) -> int:
        """Number of records of the last batch, of format 2, by its header."""
        count: int = _COUNT.unpack_from(self._content, self._begin + _COUNT_AT)[0]
        return count

    def undecoded(self, batch: Any) -> UndecodedBatch:
        """The batch that came last, for later."""
        return UndecodedBatch(batch, self._content, self._begin, self._end)

    def is_intact(self, batch: Any) -> bool:
        """Whether the checksum of the last batch is right. Call it before reading the batch's records."""
        if isinstance(batch, DefaultRecordBatch):
            return bool(crc32c(self._content[self._begin + _CHECKED_FROM : self._end]) == batch.crc)
        return bool(batch.validate_crc())  # older formats have another checksum


class BatchRecords:
    """Records that one fetch returned for one partition, taken in lists.

    `next_fetch_offset` is the position after what was taken, past aborted and control batches and compacted gaps.
    The signature is that of upstream's `PartitionRecords`, in whose place the fetcher makes it.
    """

    def __init__(
        self,
        tp: TopicPartition,
        records: CheckedRecords,
        aborted_transactions: Iterable[tuple[int, int]] | None,
        fetch_offset: int,
        key_deserializer: None,
        value_deserializer: None,
        check_crcs: bool,
        isolation_level: int,
    ) -> None:
        self.next_fetch_offset: int = fetch_offset
        self.hidden: list[Hidden] = []
        """Batches that were skipped before the records that were taken."""
        self.broker_time_from: int | None = None
        """Base offset of the first batch whose timestamps are the broker's (LogAppendTime)."""
        self._tp = tp
        self._batches = records
        self._aborts = sorted(aborted_transactions or (), key=lambda entry: entry[1], reverse=True)
        self._aborting: set[int] = set()
        self._check_crcs = check_crcs
        self._committed_only = isolation_level == READ_COMMITTED
        # Records of the batch that is being taken, from `_taken` on, and the offset behind that batch.
        self._open: list[Record] = []
        self._taken = 0
        self._behind = fetch_offset
        self._left: Any = None
        """The batch that came last, where `take_undecoded` had no room for it."""

    def take(self, limit: int | None) -> tuple[list[Record], bool]:
        """At most `limit` records, and whether there may be more.

        Raises:
            CorruptRecordException: nothing can be read at `next_fetch_offset`.
        """
        taken: list[Record] = []
        while self._taken < len(self._open) or self._open_next():
            taken += self._next_part(None if limit is None else limit - len(taken))
            if len(taken) == limit:
                return taken, True
        return taken, False

    def take_undecoded(self, limit: int, *, in_part: bool = True) -> tuple[FetchedRecords, bool]:
        """As `take`, but whole batches are left to be decoded by the iteration over their records.

        A batch of more records than there is room for is left for the next call: as objects, in two parts, its records
        would be read by the slow way. It is taken in part where it would be the first.

        Args:
            in_part: False: take no batch in part; then there may be no records, and more to come.

        Raises:
            CorruptRecordException: nothing can be read at `next_fetch_offset`.
        """
        taken = FetchedRecords(self._tp)
        while len(taken) < limit:
            if self._taken < len(self._open):
                part = self._next_part(limit - len(taken))
                taken.add(part, len(part))
                continue
            batch = self._next_visible()
            if batch is None:
                return taken, False
            if isinstance(batch, DefaultRecordBatch) and self._batches.base_offset >= self.next_fetch_offset:
                count = self._batches.records_of_batch()
                if 0 <= count <= limit - len(taken):
                    if count:
                        taken.add(self._batches.undecoded(batch), count)
                    self.next_fetch_offset = batch.next_offset
                    continue
                if len(taken) or not in_part:
                    self._left = batch
                    break
            self._decode(batch)
        return taken, True

    def _next_part(self, limit: int | None) -> list[Record]:
        """At most `limit` of the decoded records; the position moves behind them."""
        stop = len(self._open) if limit is None else min(len(self._open), self._taken + limit)
        part = self._open[self._taken : stop]
        self._taken = stop
        self.next_fetch_offset = self._behind if stop == len(self._open) else part[-1].offset + 1
        return part

    def _open_next(self) -> bool:
        """Advance to the next batch with records to return; False at the end of the fetched bytes."""
        while (batch := self._next_visible()) is not None:
            if self._decode(batch):
                return True
        return False

    def _next_visible(self) -> Any:
        """The next batch that a reader may see, its checksum checked; None at the end of the fetched bytes."""
        if self._left is not None:
            left, self._left = self._left, None
            return left
        while self._batches.has_next():
            batch = self._batches.next_batch()
            if self._check_crcs and not self._batches.is_intact(batch):
                raise CorruptRecordException(f"{self._tp}: wrong checksum at offset {self._batches.base_offset}")
            if self._is_visible(batch):
                if self.broker_time_from is None and getattr(batch, "timestamp_type", 0) == 1:
                    self.broker_time_from = self._batches.base_offset
                return batch
            kind: Literal["marker", "aborted"] = "marker" if batch.is_control_batch else "aborted"
            self.hidden.append(Hidden(batch.base_offset, batch.next_offset - 1, kind))
            self.next_fetch_offset = batch.next_offset
        self._open, self._taken = [], 0
        return None

    def _decode(self, batch: Any) -> bool:
        """Decode a batch; False, and the position is behind it, if it has no records to return."""
        records = self._records_of(batch)
        # A batch comes whole even when the fetch began in its middle.
        taken = 0
        if records and records[0].offset < self.next_fetch_offset:
            taken = bisect_left(records, self.next_fetch_offset, key=_offset)
        if taken == len(records):
            self.next_fetch_offset = batch.next_offset
            return False
        self._open, self._taken, self._behind = records, taken, batch.next_offset
        return True

    def _records_of(self, batch: Any) -> list[Record]:
        try:
            return list(batch)
        except UnicodeDecodeError:  # the name of a header; in Kafka it may be of any bytes
            return read_batch(self._batches.raw_batch())

    def _is_visible(self, batch: Any) -> bool:
        if self._committed_only and batch.producer_id is not None:
            while self._aborts and self._aborts[-1][1] <= batch.base_offset:
                self._aborting.add(self._aborts.pop()[0])
            if batch.is_control_batch and _ends_in_abort(batch):
                self._aborting.discard(batch.producer_id)
            elif batch.is_transactional and batch.producer_id in self._aborting:
                return False
        return not batch.is_control_batch


def _ends_in_abort(batch: Any) -> bool:
    # Compaction may leave a control batch without its record; upstream raises there, at that offset, for ever.
    return any(ControlRecord.parse(record.key) == ABORT_MARKER for record in batch)


class BatchResult(FetchResult):
    """Buffered records of one partition."""

    def getall(self, max_records: int | None = None) -> list[Record]:
        """Take records and move the position behind them; after an error the buffer is gone, to be fetched again."""
        return self._taken(lambda source: source.take(max_records)) or []

    def get_undecoded(self, max_records: int, *, in_part: bool) -> Sequence[Record]:
        """As `getall`; the records are decoded by iterating over them. `in_part`: whether a batch may be divided."""
        return self._taken(lambda source: source.take_undecoded(max_records, in_part=in_part)) or ()

    def _taken(self, take: Callable[[BatchRecords], tuple[_Records, bool]]) -> _Records | None:
        if not self.check_assignment(self._topic_partition) or not self.has_more():
            return None
        source: BatchRecords = self._partition_records
        self._partition_records = None
        try:
            records, more = take(source)
        except (KafkaError, MemoryError):  # the bytes are as they were sent; it is we who have no room for them
            raise
        except Exception as error:  # the decoders raise what they like on bytes that no broker should send
            raise CorruptRecordException(f"{self._topic_partition}: {type(error).__name__}: {error}") from error
        self._partition_records = source
        self._update_position()
        if not more:
            self._partition_records = None
        return records


def _undecoded(found: BatchResult, limit: int, in_part: bool) -> Sequence[Record]:
    return found.get_undecoded(limit, in_part=in_part)


class BatchFetcher(Fetcher):
    """A fetcher that returns records in lists, and keeps to the timeout."""

    _proc_fetch_request = with_globals(
        Fetcher._proc_fetch_request,
        MemoryRecords=CheckedRecords,
        PartitionRecords=BatchRecords,
        FetchResult=BatchResult,
    )

    observer: Callable[[TopicPartition, list[Hidden]], None] | None = None
    """Called with what was passed over, before the records taken with it are returned."""

    broker_times: dict[TopicPartition, int] = {}  # noqa: RUF012 - replaced, never changed
    """First offset of batches whose timestamps are the broker's (LogAppendTime), by partition."""

    async def take(
        self, wanted: Collection[TopicPartition], *, timeout_s: float, limit: int | None
    ) -> dict[TopicPartition, list[Record]]:
        """Buffered records of these partitions; if there are none, wait once, for data or until the timeout.

        Replaces `getmany`, which ignores its timeout during a rebalance and never returns when the consumer is
        stopped in one, does not yield to the loop while there is data (so heartbeats are late), reads an empty set
        of partitions as all of them, and counts itself as polling for ever once it was cancelled.

        Returns:
            Lists of records by partition. May be empty before the timeout, when a rebalance or data for other
            partitions ended the wait.
        """
        return await self._take(wanted, timeout_s, limit, lambda found, most, _: found.getall(most))

    async def take_undecoded(
        self, wanted: Collection[TopicPartition], *, timeout_s: float, limit: int
    ) -> Mapping[TopicPartition, Sequence[Record]]:
        """As `take`; the records are decoded by iterating over them, which is to be done once."""
        return await self._take(wanted, timeout_s, limit, _undecoded)

    async def _take(
        self,
        wanted: Collection[TopicPartition],
        timeout_s: float,
        limit: _Limit,
        getall: Callable[[BatchResult, _Limit, bool], _Records],
    ) -> dict[TopicPartition, _Records]:
        await asyncio.sleep(0)
        taken = self._drain(wanted, limit, getall)
        if not taken and timeout_s > 0:
            news = self._create_fetch_waiter()
            try:
                await asyncio.wait([news], timeout=timeout_s)
            finally:
                if not news.done():
                    news.cancel()
            if not news.cancelled():
                news.result()  # errors of the group are raised here
            taken = self._drain(wanted, limit, getall)
        self._subscriptions._last_fetch_ended = time.monotonic()
        return taken

    def wake(self) -> None:
        """End the waits of all who are in `take`."""
        for waiter in list(self._fetch_waiters):
            self._notify(waiter)

    async def high_watermarks(
        self, partitions: Collection[TopicPartition], timeout_ms: int
    ) -> dict[TopicPartition, int]:
        """Ends of the log as it stands; upstream answers with the last stable offset under read_committed."""
        plain = copy.copy(self)
        plain._isolation_level = READ_UNCOMMITTED
        ends: dict[TopicPartition, int] = await plain.end_offsets(partitions, timeout_ms)
        return ends

    def _drain(
        self,
        wanted: Collection[TopicPartition],
        limit: _Limit,
        getall: Callable[[BatchResult, _Limit, bool], _Records],
    ) -> dict[TopicPartition, _Records]:
        if self._closed:
            raise ConsumerStoppedError
        if self._fetch_task.done():
            self._fetch_task.result()
        taken: dict[TopicPartition, _Records] = {}
        if self._subscriptions.reassignment_in_progress:
            return taken
        for tp in [tp for tp in self._records if tp in wanted]:
            try:
                records = self._take_from(tp, limit, getall, in_part=not taken)
            except KafkaError as error:
                if not taken:
                    raise
                # What was taken of the others has moved their positions: hand it over, the error comes next.
                self._records[tp] = FetchError(error=error, backoff=self._prefetch_backoff)
                break
            if records:
                taken[tp] = records
                if limit is not None:
                    limit -= len(records)
                    if limit == 0:
                        break
        return taken

    def _take_from(
        self,
        tp: TopicPartition,
        limit: _Limit,
        getall: Callable[[BatchResult, _Limit, bool], _Records],
        *,
        in_part: bool,
    ) -> _Records:
        buffered = self._records[tp]
        try:
            if isinstance(buffered, FetchError):
                buffered.check_raise()
            source: BatchRecords | None = buffered._partition_records
            records = getall(buffered, limit, in_part)
        except KafkaError:
            self._drop(tp)
            raise
        if source is not None and source.hidden:
            if self.observer is not None:
                self.observer(tp, source.hidden)
            source.hidden = []
        if source is not None and source.broker_time_from is not None and tp not in self.broker_times:
            self.broker_times = {**self.broker_times, tp: source.broker_time_from}
        if not buffered.has_more():
            self._drop(tp)
        return records

    def _drop(self, tp: TopicPartition) -> None:
        del self._records[tp]
        self._notify(self._wait_consume_future)  # the partition may be fetched again
