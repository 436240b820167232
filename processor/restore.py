"""Taking over partitions: stable offsets, dead writers ended, checkpoints loaded, and the claim.

Order matters (docs/decisions/0002): stable offset and metadata, then the high watermark of the checkpoint partition (a
committed transaction's checkpoints may become visible later than its offsets), then the checkpoints up to there, then
the claim. The silent fold up to the committed offset is the worker's own loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping
from contextlib import aclosing
from typing import Final, NamedTuple

from processor.committed import HighestCommitted
from processor.config import Settings
from processor.core.effects import Record
from processor.core.partition import PartitionState
from processor.core.resume import ResumePoint
from processor.core.rules import Rules
from processor.errors import BrokerUnavailable, CorruptLog, RunStepsError
from processor.kafka.consumer import Committed, Consumer, PartitionReader
from processor.kafka.security import Connection
from processor.kafka.trouble import OffsetLost, OffsetsUnstable, ReadStalled
from processor.kafka.writer import takeover
from processor.telemetry import Telemetry, WriterTakenOver

_TAKEOVER_S: Final = 10.0
_ABORT_SCAN_S: Final = 15.0  # brokers look for timed-out transactions every 10 s


class Restored(NamedTuple):
    """A partition ready for its silent fold: the state stands at `restore_from`, checkpoints loaded.

    `end`: where its log ended.
    """

    partition: int
    state: PartitionState
    committed: Committed
    checkpoints: int
    end: int


class Restorer:
    """Makes newly assigned partitions ours."""

    def __init__(
        self,
        settings: Settings,
        connection: Connection,
        consumer: Consumer,
        telemetry: Telemetry,
        rules: Rules,
        *,
        own_writer: str,
        claim: Callable[[Mapping[int, Committed]], Awaitable[None]],
        highest: HighestCommitted,
    ) -> None:
        self._settings, self._connection, self._consumer = settings, connection, consumer
        self._telemetry, self._rules, self._own = telemetry, rules, own_writer
        self._claim, self._highest = claim, highest

    async def stable_offsets(self, partitions: Collection[int]) -> AsyncGenerator[dict[int, Committed], None]:
        """Yield committed offsets once no transaction can change them any more; partitions do not wait for each other.

        A writer that the offsets name and that is no member of the group any more is dead or will be fenced: its open
        transaction is aborted at once. Otherwise its readers downstream would wait for the transaction timeout.
        """
        if self._own:
            await self._end_absent_writers(partitions)
        began = time.monotonic()
        patience_s = self._settings.delivery.transaction_timeout_ms / 1000 + _ABORT_SCAN_S
        moment_s = self._settings.delivery.takeover_after_s
        waiting = set(partitions)
        while waiting:
            try:
                stable = await self._consumer.stable_offsets(waiting, timeout_s=moment_s)
            except OffsetsUnstable as error:
                if time.monotonic() - began > patience_s:
                    raise
                stable = {p: Committed(*at) for p, at in error.stable.items()}
                pending = await self._consumer.pending_owners(error.partitions)
                await self._end_writers({p: _writer(c) for p, c in pending.items()}, began)
            self._highest.require(stable, self._settings.source.topic, self._settings.source.group_id)
            waiting -= stable.keys()
            if stable:
                yield stable

    async def _end_absent_writers(self, partitions: Collection[int]) -> None:
        named = {p: _writer(c) for p, c in (await self._consumer.pending_owners(partitions)).items()}
        named = {p: writer for p, writer in named.items() if writer not in ("", self._own)}
        if named:
            members = await self._consumer.member_clients()
            if self._own not in members:
                # An answer without ourselves says nothing about others: of a group with members of KIP-848 brokers say
                # that it is dead and has none, and the living would be fenced.
                return
            await self._end_writers({p: w for p, w in named.items() if w not in members}, time.monotonic())

    async def _end_writers(self, writers: Mapping[int, str], began: float) -> None:
        dead = {writer: p for p, writer in sorted(writers.items(), reverse=True) if writer not in ("", self._own)}
        ended = await asyncio.gather(
            *(takeover(self._connection, writer, _TAKEOVER_S) for writer in dead), return_exceptions=True
        )
        for (writer, partition), outcome in zip(dead.items(), ended, strict=True):
            if isinstance(outcome, RunStepsError):
                continue  # another new owner was quicker, or the wait below will tell
            if outcome is not None:
                raise outcome
            self._telemetry.happened(WriterTakenOver(partition, writer, time.monotonic() - began))

    async def restore(self, stable: Mapping[int, Committed]) -> AsyncGenerator[list[Restored], None]:
        """Load the checkpoints of these partitions, claim them, and yield their states at `restore_from`.

        Each is yielded once its own checkpoints are read: one that cannot be read holds none of the others up.

        Raises:
            OffsetLost: retention has removed records that were never applied.
            CorruptLog: the log is shorter than what is committed, or a checkpoint is not ours.
            ReadStalled: the checkpoints of those that were not yielded cannot be read.
        """
        if not stable:
            return
        begin, end = await asyncio.gather(
            self._consumer.begin_offsets(list(stable)), self._consumer.end_offsets(list(stable))
        )
        points: dict[int, tuple[Committed, ResumePoint]] = {}
        for partition, committed in stable.items():
            points[partition] = self._resume(partition, committed, begin[partition], end[partition])
        async with aclosing(self._checkpoints(list(stable))) as loading:
            async for loaded in loading:
                restored = [self._restored(p, points[p], end[p], entries) for p, entries in loaded.items()]
                claims = {found.partition: found.committed for found in restored}
                await self._claim(claims)
                self._highest.saw(claims)
                yield restored

    def _restored(
        self, partition: int, point: tuple[Committed, ResumePoint], end: int, entries: Mapping[bytes, bytes]
    ) -> Restored:
        committed, resume = point
        state = PartitionState(
            self._settings.source.topic,
            partition,
            self._rules,
            next_offset=resume.restore_from,
            live_from=committed.offset,
            stream_time=resume.stream_time,
        )
        try:
            state.load(entries.items())
        except ValueError as error:
            topic = self._settings.checkpoint_topic
            raise CorruptLog(
                f"topic {topic}: partition {partition}: {error}",
                hint="is [checkpoints] topic another program's, or written by a newer version of this one?",
            ) from None
        claim = Committed(committed.offset, ResumePoint(resume.restore_from, resume.stream_time, self._own).encode())
        return Restored(partition, state, claim, len(entries), end)

    def _resume(self, partition: int, committed: Committed, begin: int, end: int) -> tuple[Committed, ResumePoint]:
        if committed.offset < 0:
            start = begin if self._settings.source.start == "earliest" else end
            return Committed(start, ""), ResumePoint(start)
        where = f"topic {self._settings.source.topic}: partition {partition}"
        if committed.offset > end:
            raise CorruptLog(
                f"{where}: committed at {committed.offset}, but the log ends at {end}",
                hint="was the topic made anew? set the group's offsets, with the workers stopped",
            )
        if committed.offset < begin:
            raise OffsetLost(
                f"{where}: retention has removed records that were not yet applied "
                f"(committed at {committed.offset}, the log begins at {begin})",
                partition=partition,
                offset=committed.offset,
            )
        point = ResumePoint.decode(committed.metadata) or ResumePoint(committed.offset)
        if point.restore_from < begin or point.restore_from > committed.offset:
            self._telemetry.log.warning(
                "restore_shortened", partition=partition, restore_from=point.restore_from, log_begins=begin
            )
            point = ResumePoint(min(max(point.restore_from, begin), committed.offset), point.stream_time)
        return committed, point

    async def _checkpoints(self, partitions: list[int]) -> AsyncGenerator[dict[int, dict[bytes, bytes]], None]:
        """Yield the latest value of every checkpoint key, by partition, of those that are read to their end."""
        latest: dict[int, dict[bytes, bytes]] = {p: {} for p in partitions}
        client_id = f"{self._settings.kafka.client_id}.restore"
        reader = PartitionReader(self._connection, topic=self._settings.checkpoint_topic, client_id=client_id)
        await reader.start()
        try:
            ends = await reader.end_offsets(partitions)
            begins = await reader.begin_offsets(partitions)
            patience_s = self._settings.checkpoints.restore_timeout_s
            async with aclosing(reader.read_each_to(begins, ends, patience_s)) as reading:
                async for taken, finished in reading:
                    for partition, records in taken.items():
                        _keep_latest(latest[partition], records)
                    if finished:
                        yield {partition: latest.pop(partition) for partition in sorted(finished)}
        except ReadStalled as error:
            raise ReadStalled(f"restore: {error.message}", partitions=error.partitions, hint=error.hint) from error
        except BrokerUnavailable as error:
            raise BrokerUnavailable(f"restore: {error.message}", hint=error.hint) from error
        finally:
            await reader.stop(timeout_s=2)


def _keep_latest(entries: dict[bytes, bytes], records: list[Record]) -> None:
    for record in records:
        if record.key is None:
            continue
        if record.value is None:
            entries.pop(record.key, None)
        else:
            entries[record.key] = record.value


def _writer(committed: Committed) -> str:
    point = ResumePoint.decode(committed.metadata)
    return point.writer if point is not None else ""
