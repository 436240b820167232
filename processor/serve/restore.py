"""Restore of assigned partitions: stable offsets, fencing of dead writers, checkpoints, and the claim.

Order matters (docs/decisions/0002): stable offset and metadata, then the high watermark of the checkpoint partition (a
committed transaction's checkpoints may become visible later than its offsets), then the checkpoints up to there, then
the claim. The silent fold up to the committed offset is the worker's own loop. `processor.serve.positions` decides
whether offset and checkpoints belong to this log.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import aclosing
from operator import attrgetter
from typing import Final, NamedTuple

from processor.config.settings import Settings
from processor.core.effects import REFERENCES_AS_BYTES, Record
from processor.core.headers import CLOCK_MARK, REASON, SOURCE_PARTITION, SOURCE_TOPIC
from processor.core.offset_metadata import METADATA_VERSION, MODE_RESUME, LogIdentity, OffsetMetadata
from processor.core.partition import PartitionState
from processor.core.rules import Rules
from processor.errors import BrokerUnavailable, CorruptLog, RunStepsError
from processor.kafka.client_config import Connection
from processor.kafka.compressed_groups import COMPRESSED
from processor.kafka.consumer import Committed, Consumer
from processor.kafka.errors import OffsetLost, OffsetsUnstable, ReadStalled
from processor.kafka.partition_reader import PartitionReader
from processor.kafka.writer import takeover
from processor.serve.highest_committed import HighestCommitted
from processor.serve.positions import (
    ALL,
    Facts,
    Group,
    PositionRefused,
    SourcePartition,
    Start,
    all_of,
    judge,
    unreachable,
    whole_now,
)
from processor.serve.stalls import Stalls
from processor.telemetry.happenings import RestoreIrregular, RestoreStalled, WriterTakenOver
from processor.telemetry.telemetry import Telemetry

_WHOLE_LOG_RECORDS: Final = 2_000_000
"""A rebuild folds a log of this size from its beginning; a larger one only as far back as `max_age_s` asks."""
_LAST_RECORDS: Final = 500
"""Number of offsets that are read to find the stream time of the log."""
_TAKEOVER_S: Final = 10.0
_RESTORE_AGAIN_S: Final = 1.0
_ABORT_SCAN_S: Final = 15.0  # brokers look for timed-out transactions every 10 s


class RestoreGivenUp(BrokerUnavailable):
    """A partition could not be restored for `unavailable_after_s`, over all incarnations: no restart."""


class Restored(NamedTuple):
    """A partition ready for its silent fold: the state stands at `restore_from`, checkpoints loaded.

    `end`: where its log ended. `kept`: the keys that its checkpoint partition holds. `exact_from`: see
    `AssignedPartition`.
    """

    partition: int
    state: PartitionState
    committed: Committed
    checkpoints: int
    end: int
    kept: set[bytes]
    exact_from: int


class Restorer:
    """Restores newly assigned partitions and claims them."""

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
        self._exactly_once = settings.delivery.mode == "exactly_once"
        self._log, self._whole = LogIdentity(), 0

    async def stable_offsets(self, partitions: Collection[int]) -> AsyncGenerator[dict[int, Committed], None]:
        """Yield committed offsets once no transaction can change them any more; partitions do not wait for each other.

        A writer that the offsets name and that is no member of the group any more is dead or will be fenced: its open
        transaction is aborted at once. Otherwise its readers downstream would wait for the transaction timeout.
        """
        began = time.monotonic()
        if self._own:
            await self._end_absent_writers(partitions, began)
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
                await self._end_absent_writers(error.partitions, began)
            self._highest.require(stable, self._settings.source.topic, self._settings.source.group_id)
            waiting -= stable.keys()
            if stable:
                yield stable

    async def _end_absent_writers(self, partitions: Collection[int], began: float) -> None:
        """Fence the writers that the offsets name and that are no members: each may have left a transaction open.

        A living one may be named beside a transaction that is not its own: a claim's, whose worker died within it.
        """
        named = {p: _writer(c) for p, c in (await self._consumer.pending_owners(partitions)).items()}
        named = {p: writer for p, writer in named.items() if writer not in ("", self._own)}
        if not named:
            return
        members = await self._consumer.member_clients()
        if not members or (self._own and self._own not in members):
            # An answer without this worker is not reliable: for a group with members of KIP-848 brokers answer that
            # it is dead and has no members, and live writers would be fenced.
            return
        dead = {writer: p for p, writer in sorted(named.items(), reverse=True) if writer not in members}
        ended = await asyncio.gather(
            *(takeover(self._connection, writer, _TAKEOVER_S) for writer in dead), return_exceptions=True
        )
        for (writer, partition), outcome in zip(dead.items(), ended, strict=True):
            if isinstance(outcome, RunStepsError):
                continue  # another new owner was quicker, or the wait for stable offsets will tell
            if isinstance(outcome, BaseException):
                raise outcome
            self._telemetry.happened(WriterTakenOver(partition, writer, time.monotonic() - began, outcome))

    async def restore_all(
        self, stable: Mapping[int, Committed], stalls: Stalls
    ) -> AsyncGenerator[list[Restored], None]:
        """Restore these partitions; try again, with another reader, what cannot be read.

        Raises:
            RestoreGivenUp: a partition was tried for `unavailable_after_s`.
        """
        limit_s = self._settings.kafka.unavailable_after_s
        for partition in stable:
            stalls.waits(partition, "its checkpoints are being read")
        waiting = dict(stable)
        while waiting:
            try:
                async with aclosing(self.restore(waiting)) as restoring:
                    async for ready in restoring:
                        done = {found.partition for found in ready}
                        waiting = {p: at for p, at in waiting.items() if p not in done}
                        yield ready
            except ReadStalled as error:
                waited_s = max(stalls.waited_s(partition) for partition in waiting)
                self._telemetry.happened(RestoreStalled(tuple(sorted(waiting)), waited_s, error))
                if waited_s >= limit_s:
                    raise RestoreGivenUp(
                        f"{error.message}; tried for {waited_s:.0f} s",
                        hint=f"{error.hint}; the limit is [kafka] unavailable_after_s = {limit_s:g}; nothing is lost",
                    ) from error
                await asyncio.sleep(_RESTORE_AGAIN_S)

    async def restore(self, stable: Mapping[int, Committed]) -> AsyncGenerator[list[Restored], None]:
        """Load the checkpoints of these partitions, claim them, and yield their states at `restore_from`.

        Each is yielded once its own checkpoints are read: one that cannot be read holds none of the others up.

        Raises:
            OffsetLost: retention has removed records that were never applied.
            CorruptLog: a position is not of this log (`PositionRefused`), or a checkpoint is not ours.
            ReadStalled: the checkpoints of those that were not yielded cannot be read.
        """
        if not stable:
            return
        # Before the group's offsets: a writer claims before it publishes, so output without a claim is older.
        written = await self._written() if any(c.offset < 0 for c in stable.values()) else []
        begin, end, self._log, group = await asyncio.gather(
            self._consumer.begin_offsets(list(stable)),
            self._consumer.end_offsets(list(stable)),
            self._consumer.log_identity(),
            self._group(),
        )
        claimed: set[int] = set()
        refused: list[PositionRefused] = []
        try:
            async with aclosing(self._checkpoints(list(stable))) as loading:
                async for loaded in loading:
                    starts: dict[int, Start] = {}
                    for partition, found in loaded.items():
                        facts = Facts(self._log, begin[partition], end[partition])
                        try:
                            starts[partition] = self._judge(partition, stable[partition], facts, found, group, written)
                        except PositionRefused as error:
                            refused.append(error)
                    states = await self._states(starts, begin, stable)
                    # Only what is claimed now or before: metadata must not say that all have an offset before they do.
                    whole = max(self._whole, whole_now(group, claimed | starts.keys()))
                    restored = [self._restored(p, starts[p], states[p], end[p], loaded[p], whole) for p in starts]
                    if restored:
                        claims = {found.partition: found.committed for found in restored}
                        await self._claim(claims)
                        # Not before: a rebalance may cut the claim off, and we go on with other partitions.
                        claimed |= starts.keys()
                        self._whole = whole
                        self._highest.saw(claims)
                        yield restored
        except ReadStalled:
            if not refused:
                raise
        if refused:
            raise all_of(sorted(refused, key=attrgetter("partition")))

    def _restored(
        self, partition: int, start: Start, state: PartitionState, end: int, found: Mapping[bytes, bytes], whole: int
    ) -> Restored:
        try:
            state.load(start.checkpoints.fit.items())
        except ValueError as error:
            raise self._not_ours(partition, error) from None
        metadata = self.metadata(
            start.restore_from,
            start.stream_time,
            len(found),
            start.offset >= start.exact_from,
            mode=start.mode,
            whole=whole,
            rules=state.rules,
        )
        claim = Committed(start.offset, metadata)
        return Restored(partition, state, claim, len(start.checkpoints.fit), end, set(found), start.exact_from)

    def metadata(
        self,
        restore_from: int,
        stream_time: int,
        kept: int,
        is_exact: bool,
        *,
        mode: int = MODE_RESUME,
        unit: int = 0,
        whole: int = 0,
        rules: Rules | None = None,
    ) -> str:
        """Metadata of an offset commit.

        Args:
            kept: how many keys the checkpoint partition then holds.
            is_exact: none of the checkpoints is ahead of the offset, where both are one transaction.
            rules: by which the records from `restore_from` on are folded; None: by those of now.
        """
        return OffsetMetadata(
            restore_from,
            stream_time,
            self._own,
            METADATA_VERSION,
            self._log.cluster,
            self._log.topic_id,
            kept,
            max(whole, self._whole),
            mode,
            unit,
            self._exactly_once and is_exact,
            (rules or self._rules).folding(),
        ).encode()

    def _place(self, partition: int) -> SourcePartition:
        settings = self._settings
        return SourcePartition(settings.source.topic, settings.checkpoint_topic, settings.source.group_id, partition)

    def _judge(
        self,
        partition: int,
        committed: Committed,
        facts: Facts,
        found: Mapping[bytes, bytes],
        group: Group,
        written: list[str],
    ) -> Start:
        asked = self._settings.begin_at
        try:
            start = judge(
                self._place(partition),
                committed.offset,
                committed.metadata,
                facts,
                found,
                group,
                written=written,
                exactly_once=self._exactly_once,
                start=self._settings.source.start,
                begin_at=asked.get(partition, asked.get(ALL)),
            )
        except ValueError as error:
            raise self._not_ours(partition, error) from None
        if 0 <= committed.offset < facts.begin:
            raise OffsetLost(
                f"topic {self._settings.source.topic}: partition {partition}: retention has removed records that were "
                f"not yet applied (committed at {committed.offset}, the log begins at {facts.begin})",
                partition=partition,
                offset=committed.offset,
            )
        return start

    def _not_ours(self, partition: int, error: ValueError) -> CorruptLog:
        return CorruptLog(
            f"topic {self._settings.checkpoint_topic}: partition {partition}: {error}",
            hint="is [checkpoints] topic another program's, or written by a newer version of this one?",
        )

    async def _group(self) -> Group:
        """Committed offsets of the group for all partitions of the topic; pending transactions do not count."""
        partitions = self._consumer.partitions_of_topic()
        found = await self._consumer.pending_owners(range(partitions))
        return Group(partitions, {p: OffsetMetadata.decode(c.metadata) for p, c in found.items() if c.offset >= 0})

    async def _written(self) -> list[str]:
        """The outcome topics that hold, or held, records."""
        topics = sorted({topic for topic in self._settings.outcome_topics.values() if topic})

        async def end(topic: str) -> int:
            async with self._reader(topic) as reader:
                return sum((await reader.end_offsets(range(reader.partitions_of_topic()))).values())

        ends = await asyncio.gather(*map(end, topics))
        return [topic for topic, records in zip(topics, ends, strict=True) if records]

    def _silent_rules(self, committed: Committed) -> Rules:
        """The settings under which what lies before the committed offset was folded; those of now where none are told.

        Under others a step could end in the silent fold that was open, and would never be published.
        """
        point = OffsetMetadata.decode(committed.metadata)
        return self._rules if point is None else self._rules.with_folding(point.rules)

    async def _states(
        self, starts: Mapping[int, Start], begin: Mapping[int, int], stable: Mapping[int, Committed]
    ) -> dict[int, PartitionState]:
        """States at where their silent fold starts, before their checkpoints are loaded."""
        rebuilding = {p: start for p, start in starts.items() if start.mode != MODE_RESUME}
        horizon_ms = self._horizon_ms([self._silent_rules(stable[p]) for p in rebuilding])
        since, since_ms = await self._reach(rebuilding, begin, horizon_ms) if rebuilding else ({}, 0)
        marks = await self._marks(since, since_ms) if any(since[p] < s.offset for p, s in rebuilding.items()) else {}
        states = {}
        for partition, start in starts.items():
            at = since.get(partition, start.restore_from)
            state = states[partition] = PartitionState(
                self._settings.source.topic,
                partition,
                self._rules,
                next_offset=at,
                live_from=start.offset,
                stream_time=start.stream_time,
                log=self._log.encode(),
                silent_rules=self._silent_rules(stable[partition]),
                grouping=COMPRESSED,
            )
            if partition in rebuilding:
                refusing = not start.checkpoints.fit
                state.rebuild(start.checkpoints.unfit, marks.get(partition, ()), refusing=refusing)
            if start.reason is not None:
                unfit = len(start.checkpoints.unfit)
                self._telemetry.happened(
                    RestoreIrregular(partition, start.reason, at, start.offset, begin[partition], unfit)
                )
        return states

    def _horizon_ms(self, before: Sequence[Rules]) -> int:
        """Time before an offset within which a record can matter, under the settings of now and those of before."""
        longest_s = max(one.max_age_s + one.grace_s + one.ended_retention_s for one in (self._rules, *before))
        return longest_s * 1000

    async def _reach(
        self, starts: Mapping[int, Start], begin: Mapping[int, int], horizon_ms: int
    ) -> tuple[dict[int, int], int]:
        """First offset of a rebuild's fold, and the timestamp before which no record matters.

        What the log says from `max_age_s`, grace and retention before the committed offset on is all that a step can
        be made of that names no later deadline. A log of moderate size is folded whole.
        """
        since: dict[int, int] = {}
        oldest_ms: list[int] = []
        async with self._reader(self._settings.source.topic) as reader:
            patience_s = self._settings.checkpoints.restore_timeout_s
            tails = {p: max(begin[p], start.offset - _LAST_RECORDS) for p, start in starts.items()}
            latest_ms = dict.fromkeys(starts, -1)
            async for partition, records in reader.read_to(tails, {p: s.offset for p, s in starts.items()}, patience_s):
                latest_ms[partition] = max(latest_ms[partition], *(record.timestamp for record in records))
            for partition, start in starts.items():
                first = None
                wanted_ms = latest_ms[partition] - horizon_ms
                if latest_ms[partition] >= 0:
                    first = (await reader.offsets_at([partition], max(0, wanted_ms)))[partition]
                reaches = begin[partition] == 0 or (first is not None and first > begin[partition])
                if start.lost_of >= 0 and not reaches:
                    raise unreachable(self._place(partition), start, begin[partition])
                since[partition] = begin[partition]
                if first is not None and start.offset - begin[partition] > _WHOLE_LOG_RECORDS:
                    since[partition] = min(max(first, begin[partition]), start.offset)
                oldest_ms.append(max(0, wanted_ms) if since[partition] > begin[partition] else 0)
        return since, min(oldest_ms)

    async def _marks(self, since: Mapping[int, int], since_ms: int) -> dict[int, set[tuple[int, int]]]:
        """Clock marks that were published for these partitions: (position, ms). The source does not have them."""
        marks: dict[int, set[tuple[int, int]]] = {p: set() for p in since}
        output, source = self._settings.output, self._settings.source.topic.encode()
        for topic in {output.expired, output.dead_letter}:
            async with self._reader(topic) as reader:
                partitions = range(reader.partitions_of_topic())
                ends = await reader.end_offsets(partitions)
                found = (
                    await reader.offsets_at(partitions, since_ms)
                    if since_ms
                    else await reader.begin_offsets(partitions)
                )
                begins = {p: ends[p] if at is None else at for p, at in found.items()}
                patience_s = self._settings.checkpoints.restore_timeout_s
                async for _, records in reader.read_to(begins, ends, patience_s):
                    for record in records:
                        mark = _mark_of(record, source, dead_letter=topic == output.dead_letter)
                        if mark is not None and mark[0] in marks:
                            marks[mark[0]].add(mark[1:])
        return marks

    def _reader(self, topic: str) -> PartitionReader:
        client_id = f"{self._settings.kafka.client_id}.restore"
        # A broker that has just come up may not know all topics yet, and a worker has no need to hurry.
        patience_s = self._settings.kafka.request_timeout_ms / 1000
        return PartitionReader(self._connection, topic=topic, client_id=client_id, missing_after_s=patience_s)

    async def _checkpoints(self, partitions: list[int]) -> AsyncGenerator[dict[int, dict[bytes, bytes]], None]:
        """Yield the latest value of every checkpoint key, by partition, of those that are read to their end."""
        latest: dict[int, dict[bytes, bytes]] = {p: {} for p in partitions}
        reader = self._reader(self._settings.checkpoint_topic)
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
    point = OffsetMetadata.decode(committed.metadata)
    return point.writer if point is not None else ""


def _mark_of(record: Record, source: bytes, *, dead_letter: bool) -> tuple[int, int, int] | None:
    """Partition, position and milliseconds of the clock mark that a published record carries; None without one.

    Other dead letters carry the headers of the source record, which this program did not write.
    """
    headers = dict(record.headers)
    if dead_letter and headers.get(REASON) not in REFERENCES_AS_BYTES:
        return None
    if headers.get(SOURCE_TOPIC) != source:
        return None
    partition = headers.get(SOURCE_PARTITION) or b""
    ms, _, position = (headers.get(CLOCK_MARK) or b"").partition(b"@")
    if not all(part.isdigit() and len(part) < 19 for part in (partition, ms, position)):
        return None
    return int(partition), int(position), int(ms)
