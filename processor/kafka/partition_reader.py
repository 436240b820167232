"""Read partitions without a group: for restores, checkpoints and audits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import aclosing
from typing import Final, Literal, cast

from aiokafka.structs import TopicPartition

from processor.core.effects import Record
from processor.errors import BrokerUnavailable
from processor.kafka import aiokafka_compat as pinned
from processor.kafka.batch_consumer import BatchConsumer, begin_offsets, end_offsets, stop_consumer
from processor.kafka.client_config import Connection
from processor.kafka.diagnosis import explained
from processor.kafka.errors import ReadStalled, translated
from processor.kafka.fetch import Hidden
from processor.kafka.topic_lookup import MISSING_AFTER_S, find_topic

_READ_WAIT_S: Final = 0.5
_READ_RECORDS: Final = 4000
_Take = Callable[..., Awaitable[Mapping[TopicPartition, Sequence[Record]]]]


class PartitionReader:
    """Reads partitions of one topic between given offsets, without a group: restore and replay.

    Args:
        isolation: "read_committed" hides records of aborted and open transactions.
        missing_after_s: how long the brokers must say that there is no such topic before it is believed.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        topic: str,
        client_id: str,
        isolation: Literal["read_committed", "read_uncommitted"] = "read_committed",
        fetch_max_bytes: int = 4 << 20,
        partition_fetch_bytes: int = 1 << 20,
        missing_after_s: float = MISSING_AFTER_S,
    ) -> None:
        self._connection = connection
        self._missing_after_s = missing_after_s
        self._topic = topic
        self._where = f"topic {topic}"
        self._make: Callable[[], BatchConsumer] = lambda: BatchConsumer(
            **{**connection.kwargs(), "client_id": client_id},
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level=isolation,
            fetch_max_bytes=fetch_max_bytes,
            max_partition_fetch_bytes=partition_fetch_bytes,
        )
        self._consumer: BatchConsumer | None = None

    async def start(self) -> None:
        """Connect.

        Raises:
            TopicMissing: the brokers say so.
            PermissionMissing, BrokerRefused, BrokerUnavailable
        """
        pinned.verify()
        consumer = self._consumer = self._make()
        try:
            timeout_s = self._connection.request_timeout_ms / 1000
            async with explained(self._connection, self._where), asyncio.timeout(timeout_s):
                await consumer.start()
            await find_topic(consumer._client, self._topic, missing_after_s=self._missing_after_s, timeout_s=timeout_s)
        except BaseException:
            await stop_consumer(consumer, timeout_s=1.0)
            raise

    async def stop(self, timeout_s: float) -> None:
        if self._consumer is not None:
            await stop_consumer(self._consumer, timeout_s=timeout_s)

    async def __aenter__(self) -> PartitionReader:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop(timeout_s=5.0)

    def partitions_of_topic(self) -> int:
        return len(self._started().partitions_for_topic(self._topic) or ())

    async def begin_offsets(self, partitions: Collection[int]) -> dict[int, int]:
        """The first offset that retention has left, by partition."""
        with translated(self._where):
            return await begin_offsets(self._started(), self._topic_partitions(partitions), self._connection)

    async def end_offsets(self, partitions: Collection[int]) -> dict[int, int]:
        """High watermarks: where the log ends, open transactions included."""
        with translated(self._where):
            return await end_offsets(self._started(), self._topic_partitions(partitions), self._connection)

    async def stable_end_offsets(self, partitions: Collection[int]) -> dict[int, int]:
        """Last stable offsets: where the log ends before the first open transaction (under "read_committed")."""
        with translated(self._where):
            ends = await self._started()._fetcher.end_offsets(
                self._topic_partitions(partitions), self._connection.request_timeout_ms
            )
        return {tp.partition: offset for tp, offset in ends.items()}

    async def offsets_at(self, partitions: Collection[int], timestamp_ms: int) -> dict[int, int | None]:
        """The first offset whose record is as young as that or younger; None where there is none."""
        with translated(self._where):
            found = await self._started().offsets_for_times(
                dict.fromkeys(self._topic_partitions(partitions), timestamp_ms)
            )
        return {tp.partition: None if place is None else place.offset for tp, place in found.items()}

    def observe(self, told: Callable[[int, list[Hidden]], None]) -> None:
        """Call `told` with the batches that `read_to` skips, before it yields the records read with them."""
        self._started()._fetcher.observer = lambda tp, hidden: told(tp.partition, hidden)

    def broker_times(self) -> dict[int, int]:
        """First offset of each partition from which batches had the broker's times (LogAppendTime)."""
        found = self._started()._fetcher.broker_times
        return {tp.partition: offset for tp, offset in found.items()}

    async def read_to(
        self, partition_offsets: Mapping[int, int], ends: Mapping[int, int], no_progress_s: float
    ) -> AsyncGenerator[tuple[int, list[Record]], None]:
        """Yield (partition, records) from the given offsets up to, not including, `ends`.

        As `read_each_to`, without word of the partitions that are finished.
        """
        async with aclosing(self.read_each_to(partition_offsets, ends, no_progress_s)) as reading:
            async for taken, _ in reading:
                for partition, records in taken.items():
                    yield partition, records

    async def read_undecoded_to(
        self, partition_offsets: Mapping[int, int], ends: Mapping[int, int], no_progress_s: float
    ) -> AsyncGenerator[tuple[int, Sequence[Record]], None]:
        """As `read_to`; the records are decoded by iterating over them, which is to be done once (`FetchedRecords`)."""
        take = self._started()._fetcher.take_undecoded
        async with aclosing(self._read(take, partition_offsets, ends, no_progress_s)) as reading:
            async for taken, _ in reading:
                for partition, records in taken.items():
                    yield partition, records

    async def read_each_to(
        self, partition_offsets: Mapping[int, int], ends: Mapping[int, int], no_progress_s: float
    ) -> AsyncGenerator[tuple[dict[int, list[Record]], set[int]], None]:
        """Yield (records by partition, partitions that are now read up to their ends), as both come about.

        A partition is read when its *position* reaches the end: the last offsets of a log are often a transaction's
        marker or an aborted batch, and no record ever bears them. One read at a time: who leaves one early closes it.

        Raises:
            OffsetLost: retention has removed the first offset.
            ReadStalled: no position moved for `no_progress_s` (an open transaction holds readers back, too).
        """
        take = self._started()._fetcher.take
        async with aclosing(self._read(take, partition_offsets, ends, no_progress_s)) as reading:
            async for taken, read in reading:
                yield cast(dict[int, list[Record]], taken), read  # as `take` returns lists

    async def _read(
        self, take: _Take, partition_offsets: Mapping[int, int], ends: Mapping[int, int], no_progress_s: float
    ) -> AsyncGenerator[tuple[dict[int, Sequence[Record]], set[int]], None]:
        """Read the partitions up to their ends with `take`, a function of the fetcher; see `read_to`."""
        consumer = self._started()
        ends_by_topic_partition = {
            TopicPartition(self._topic, p): ends[p] for p, start in partition_offsets.items() if start < ends[p]
        }
        with translated(self._where):
            consumer.assign(list(ends_by_topic_partition))
            for tp in ends_by_topic_partition:
                consumer.seek(tp, partition_offsets[tp.partition])
        state = consumer._subscription.subscription.assignment.state_value
        positions = {tp: state(tp).position for tp in ends_by_topic_partition}
        moved_at = time.monotonic()
        try:
            if empty := partition_offsets.keys() - {tp.partition for tp in ends_by_topic_partition}:
                yield {}, set(empty)
            while ends_by_topic_partition:
                with translated(self._where):
                    taken = await take(set(ends_by_topic_partition), timeout_s=_READ_WAIT_S, limit=_READ_RECORDS)
                now = {tp: state(tp).position for tp in ends_by_topic_partition}
                wanted: dict[int, Sequence[Record]] = {}
                for tp, records in taken.items():
                    end = ends_by_topic_partition[tp]
                    if now[tp] > end:  # else no record of them can stand at the end or behind it
                        records = [record for record in records if record.offset < end]
                    if records:
                        wanted[tp.partition] = records
                if now != positions:
                    moved_at = time.monotonic()
                elif time.monotonic() - moved_at > no_progress_s:
                    stuck = ", ".join(
                        f"{tp.partition} at {now[tp]} of {ends_by_topic_partition[tp]}"
                        for tp in sorted(ends_by_topic_partition)
                    )
                    raise ReadStalled(
                        f"{self._where}: nothing more to read for {no_progress_s:g} s: partition {stuck}",
                        partitions=[tp.partition for tp in ends_by_topic_partition],
                        hint="a broker is down, or a transaction is still open on the topic: kafka-transactions.sh "
                        f"find-hanging --topic {self._topic}, then abort",
                    )
                positions = now
                read = {tp for tp, end in ends_by_topic_partition.items() if now[tp] >= end}
                if wanted or read:
                    yield wanted, {tp.partition for tp in read}
                ends_by_topic_partition = {tp: end for tp, end in ends_by_topic_partition.items() if tp not in read}
        finally:
            # Without a reader the fetcher would go on fetching to keep its buffers full.
            consumer.pause(*(consumer.assignment()))

    def _started(self) -> BatchConsumer:
        if self._consumer is None:
            raise BrokerUnavailable(f"{self._where}: not started")
        return self._consumer

    def _topic_partitions(self, partitions: Collection[int]) -> set[TopicPartition]:
        return {TopicPartition(self._topic, partition) for partition in partitions}
