# mypy: allow-subclassing-any
"""Reading: a member of the consumer group, and a reader that needs no group.

Both raise only this program's errors (`kafka.trouble`). After any of them the object is done for: stop it and make a
new one from the committed offsets.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping
from contextlib import aclosing
from typing import Final, Literal, NamedTuple, Protocol, TypeVar

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    RebalanceInProgressError,
    RequestTimedOutError,
    for_code,
)
from aiokafka.protocol.admin import DescribeGroupsRequest
from aiokafka.structs import OffsetAndMetadata, TopicPartition

from processor.core.effects import Record
from processor.core.resume import LogIdentity
from processor.errors import BrokerUnavailable, Fenced
from processor.kafka import pinned, wire
from processor.kafka.client import Client, silence
from processor.kafka.fetch import BatchFetcher, Hidden
from processor.kafka.pinned import rebound
from processor.kafka.security import Connection, explained
from processor.kafka.trouble import OffsetsUnstable, ReadStalled, translated

_Answer = TypeVar("_Answer")

_NEVER_IDLE_MS: Final = 2**31 - 1
_RETRY_S: Final = 0.05
_LEAVE_S: Final = 0.5
_READ_WAIT_S: Final = 0.5
_READ_RECORDS: Final = 4000
_FETCH_WAIT_MS: Final = 150
"""The broker answers a connection's requests in order: all else waits for a fetch that waits for records."""


class GroupToken(NamedTuple):
    """Who we are to the group (KIP-447). A negative generation: not a member."""

    generation: int
    member_id: str
    instance_id: str | None


class Committed(NamedTuple):
    """A committed offset and its metadata string. Offset -1: none committed."""

    offset: int
    metadata: str


NOT_COMMITTED: Final = Committed(-1, "")


class RebalanceListener(Protocol):
    async def revoked(self, partitions: list[int]) -> None:
        """The group is about to rebalance: stop applying first, then commit what is applied.

        Awaited before the join, so the time it takes is the callee's to bound (`rebalance_timeout_ms` at most). All
        partitions are named (eager rebalancing), none at the first join. After an eviction they are no longer ours:
        `token().generation` is negative then.
        """

    def assigned(self, partitions: list[int]) -> None:
        """The partitions of the new generation. Must only mark: no heartbeat is sent until it returns."""


class BatchConsumer(AIOKafkaConsumer):
    """Upstream's consumer with our client and our fetcher inside."""

    __init__ = rebound(AIOKafkaConsumer.__init__, AIOKafkaClient=Client)
    start = rebound(AIOKafkaConsumer.start, Fetcher=BatchFetcher)


class Consumer:
    """One member of the group that reads the source topic.

    Args:
        instance_id: static membership (KIP-345); None: dynamic.
        rebalance_timeout_ms: how long the group waits for `listener.revoked`.
        fetch_max_bytes: most that one fetch brings from one broker.
        partition_fetch_bytes: most that one fetch brings of one partition.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        topic: str,
        group_id: str,
        client_id: str,
        instance_id: str | None,
        session_timeout_ms: int,
        heartbeat_interval_ms: int,
        rebalance_timeout_ms: int,
        fetch_max_bytes: int,
        partition_fetch_bytes: int,
        listener: RebalanceListener,
    ) -> None:
        self._connection = connection
        self._topic = topic
        self._group_id = group_id
        self._where = f"group {group_id}, topic {topic}"
        self._request_timeout_s = connection.request_timeout_ms / 1000
        self._session_s = session_timeout_ms / 1000
        self._join_timeout_s = rebalance_timeout_ms / 1000 + self._request_timeout_s
        self._bridge = _Bridge(listener, self._wake)
        self._make: Callable[[], BatchConsumer] = lambda: BatchConsumer(
            **{**connection.kwargs(), "client_id": client_id},
            group_id=group_id,
            group_instance_id=instance_id,
            session_timeout_ms=session_timeout_ms,
            heartbeat_interval_ms=heartbeat_interval_ms,
            rebalance_timeout_ms=rebalance_timeout_ms,
            fetch_max_bytes=fetch_max_bytes,
            max_partition_fetch_bytes=partition_fetch_bytes,
            fetch_max_wait_ms=_FETCH_WAIT_MS,
            # Ours to decide: what is committed, where reading begins, and whether the loop still turns.
            enable_auto_commit=False,
            auto_offset_reset="none",
            max_poll_interval_ms=_NEVER_IDLE_MS,
            isolation_level="read_committed",
            # Exactly one: with two the group is joined twice. Not the sticky one: it shares state in a process.
            partition_assignment_strategy=(RoundRobinPartitionAssignor,),
        )
        self._consumer: BatchConsumer | None = None

    async def start(self) -> None:
        """Join the group; returns with the first assignment known, though `assigned` may be called a moment later.

        Raises:
            BrokerRefused: credentials, ACLs, a missing topic, settings that the broker does not take.
            BrokerUnavailable: no broker, or the group did not form within the rebalance timeout.
        """
        pinned.verify()
        consumer = self._consumer = self._make()
        consumer._client.session_s = self._session_s
        consumer.subscribe([self._topic], listener=self._bridge)  # before start: later it races with the join
        try:
            async with explained(self._connection, self._where), asyncio.timeout(self._join_timeout_s):
                await consumer.start()
        except BaseException:
            await _stop(consumer, timeout_s=1.0)
            raise

    async def stop(self, timeout_s: float) -> None:
        """Leave the group (a static member stays in it) and close, within about `timeout_s` whatever happens.

        `revoked` is not called: drain first.
        """
        if self._consumer is not None:
            await _stop(self._consumer, timeout_s=timeout_s)

    def token(self) -> GroupToken:
        """Our membership as of now: compare it with a unit's before committing the unit."""
        coordinator = None if self._consumer is None else self._consumer._coordinator
        if coordinator is None:  # not started yet, and the pages may ask all the same
            return GroupToken(-1, "", None)
        return GroupToken(coordinator.generation, coordinator.member_id, coordinator._group_instance_id)

    async def poll(self, partitions: Collection[int], *, timeout_ms: int, max_records: int) -> dict[int, list[Record]]:
        """Records of these partitions only, in offset order; with no partitions it just waits.

        Returns:
            Partition to records, at most `max_records` in all. May come back empty before its time, when a
            rebalance ended the wait. Always yields to the loop once.

        Raises:
            OffsetLost, Fenced, BrokerRefused, BrokerUnavailable, CorruptLog; also what `revoked` or `assigned`
            raised, which the library would swallow.
        """
        consumer = self._joined()
        self._bridge.raise_kept()
        with translated(self._where):
            consumer._coordinator.check_errors()
            taken = await consumer._fetcher.take(
                self._places(partitions), timeout_s=timeout_ms / 1000, limit=max_records
            )
        self._bridge.raise_kept()
        return {tp.partition: records for tp, records in taken.items()}

    def hold(self, partitions: Collection[int]) -> None:
        """Fetch nothing of these until `seek` says from where: it would be thrown away, and be waited for."""
        with translated(self._where):
            self._joined().pause(*self._places(partitions))

    def seek(self, partition: int, offset: int) -> None:
        """Continue a partition from `offset`. Raises `Fenced` when it is not assigned to us."""
        tp = TopicPartition(self._topic, partition)
        with translated(self._where):
            self._joined().seek(tp, offset)
            self._joined().resume(tp)

    async def position(self, partition: int) -> int:
        """The next offset to be read: past transaction markers and aborted batches, which no record shows."""
        with translated(self._where):
            async with asyncio.timeout(self._request_timeout_s):
                position: int = await self._joined().position(TopicPartition(self._topic, partition))
                return position

    def position_now(self, partition: int) -> int | None:
        """As `position`, without waiting: None while the partition has none (not assigned, not yet sought)."""
        subscription = self._joined()._subscription.subscription
        assignment = subscription.assignment if subscription is not None else None
        tp = TopicPartition(self._topic, partition)
        if assignment is None or tp not in assignment.tps:
            return None
        state = assignment.state_value(tp)
        position: int | None = state.position if state.has_valid_position else None
        return position

    async def member_clients(self) -> frozenset[str]:
        """The client ids of all that are members of the group now."""
        request = DescribeGroupsRequest([self._group_id])

        async def describe() -> frozenset[str]:
            response = await self._joined()._coordinator._send_req(request)
            clients: set[str] = set()
            for code, _, _, _, _, members, *_ in response.groups:
                if code:
                    raise for_code(code)(self._group_id)
                clients.update(member[1] for member in members)
            return frozenset(clients)

        return await self._coordinated(describe)

    def end_of(self, partition: int) -> tuple[int | None, int | None]:
        """High watermark and last stable offset, as the last fetch of this partition saw them."""
        subscription = self._joined()._subscription.subscription
        assignment = subscription.assignment if subscription is not None else None
        state = assignment.state_value(TopicPartition(self._topic, partition)) if assignment is not None else None
        return (state.highwater, state.lso) if state is not None else (None, None)

    async def begin_offsets(self, partitions: Collection[int]) -> dict[int, int]:
        """The first offset that retention has left, by partition."""
        with translated(self._where):
            return await _begin_offsets(self._joined(), self._places(partitions), self._connection)

    async def end_offsets(self, partitions: Collection[int]) -> dict[int, int]:
        """High watermarks: where the log ends, open transactions included."""
        with translated(self._where):
            return await _end_offsets(self._joined(), self._places(partitions), self._connection)

    async def stable_offsets(self, partitions: Collection[int], *, timeout_s: float) -> dict[int, Committed]:
        """The committed offsets, once no pending transaction can change them (KIP-447).

        Raises:
            OffsetsUnstable: after `timeout_s`, naming the partitions that are still pending.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            committed, unstable = await self._committed(partitions, require_stable=True)
            if not unstable:
                return committed
            if time.monotonic() >= deadline:
                raise OffsetsUnstable(
                    f"{self._where}: offsets of partitions {sorted(unstable)} still pending after {timeout_s:g} s",
                    partitions=unstable,
                    stable={partition: at for partition, at in committed.items() if partition not in unstable},
                )
            await asyncio.sleep(_RETRY_S)

    async def pending_owners(self, partitions: Collection[int]) -> dict[int, Committed]:
        """The committed offsets as they stand, pending transactions or not; their metadata names the writer."""
        committed, _ = await self._committed(partitions, require_stable=False)
        return committed

    async def claim(self, offsets: Mapping[int, Committed]) -> None:
        """Commit offsets, fenced by the generation that we are in at the time of the call.

        A commit whose answer is lost is not repeated: its first copy may still arrive, and would move the offsets back
        for as long as this generation lasts.

        Raises:
            Fenced: the group has moved on; nothing was committed for us.
            BrokerUnavailable: no answer; the offsets may be committed or not.
        """
        token = self.token()
        consumer = self._joined()
        rows = {
            TopicPartition(self._topic, partition): OffsetAndMetadata(offset, metadata)
            for partition, (offset, metadata) in offsets.items()
        }

        async def commit() -> None:
            # The broker checks member and generation, never who owns the partition: so not a word in a newer one.
            if token.generation < 0 or self.token() != token:
                raise Fenced(f"{self._where}: the group rebalanced before a commit", hint="rejoin from the log")
            try:
                await consumer._coordinator._do_commit_offsets(None, rows)
            except RebalanceInProgressError as error:
                raise Fenced(f"{self._where}: the group is rebalancing", hint="rejoin from the log") from error

        if rows:
            await self._coordinated(commit, repeat_unanswered=False)

    async def log_identity(self) -> LogIdentity:
        """The cluster that we are connected to and the id of the source topic there, asked afresh."""
        client = self._joined()._client

        async def ask() -> LogIdentity:
            cluster, ids = wire.topic_ids(await client.send(client.get_random_node(), wire.TopicIds([self._topic])))
            return LogIdentity(cluster, ids.get(self._topic, ""))

        with translated(self._where):
            async with asyncio.timeout(self._request_timeout_s):
                while True:
                    try:
                        return await ask()
                    except KafkaError as error:
                        if not error.retriable:
                            raise
                    await asyncio.sleep(_RETRY_S)

    def partitions_of_topic(self) -> int:
        """How many partitions the source topic has, as of the last metadata."""
        return len(self._joined().partitions_for_topic(self._topic) or ())

    def _joined(self) -> BatchConsumer:
        if self._consumer is None:
            raise BrokerUnavailable(f"{self._where}: not started")
        return self._consumer

    def _places(self, partitions: Collection[int]) -> set[TopicPartition]:
        return {TopicPartition(self._topic, partition) for partition in partitions}

    def _wake(self) -> None:
        if self._consumer is not None and self._consumer._fetcher is not None:
            self._consumer._fetcher.wake()

    async def _committed(
        self, partitions: Collection[int], *, require_stable: bool
    ) -> tuple[dict[int, Committed], set[int]]:
        request = wire.OffsetFetch(self._group_id, self._topic, sorted(partitions), require_stable=require_stable)

        async def fetch() -> tuple[dict[int, Committed], set[int]]:
            response = await self._joined()._coordinator._send_req(request)
            rows = [row for _, rows in response.topics for row in rows]
            if response.error_code not in (0, wire.UNSTABLE):
                raise for_code(response.error_code)(self._group_id)
            for *_, code in rows:
                if code not in (0, wire.UNSTABLE):
                    raise for_code(code)(self._group_id)
            if response.error_code == wire.UNSTABLE:
                return {}, set(partitions)
            return (
                {partition: Committed(offset, text or "") for partition, offset, text, _ in rows},
                {partition for partition, *_, code in rows if code == wire.UNSTABLE},
            )

        return await self._coordinated(fetch) if partitions else ({}, set())

    async def _coordinated(self, ask: Callable[[], Awaitable[_Answer]], *, repeat_unanswered: bool = True) -> _Answer:
        """Ask the group's coordinator, wherever it has moved to, until it answers or the time is up."""
        coordinator = self._joined()._coordinator
        with translated(self._where):
            async with asyncio.timeout(self._request_timeout_s):
                while True:
                    await coordinator.ensure_coordinator_known()
                    try:
                        return await ask()
                    except KafkaError as error:
                        # Raised here and not by the broker: a connection that broke, or an answer that did not come.
                        unanswered = isinstance(error, KafkaConnectionError | RequestTimedOutError)
                        if not error.retriable or (unanswered and not repeat_unanswered):
                            raise
                        if error.invalid_metadata or "Coordinator" in type(error).__name__:
                            coordinator.coordinator_dead()
                    await asyncio.sleep(_RETRY_S)


class _Bridge(ConsumerRebalanceListener):
    """Between the library's callbacks and ours: bare partition numbers, and no error lost."""

    def __init__(self, listener: RebalanceListener, wake: Callable[[], None]) -> None:
        self._listener = listener
        self._wake = wake
        self._kept: Exception | None = None

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        self._wake()
        try:
            await self._listener.revoked(sorted(tp.partition for tp in revoked))
        except Exception as error:  # the library would log it and join all the same
            self._keep(error)

    def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        try:
            self._listener.assigned(sorted(tp.partition for tp in assigned))
        except Exception as error:
            self._keep(error)
        self._wake()

    def raise_kept(self) -> None:
        if self._kept is not None:
            raise self._kept

    def _keep(self, error: Exception) -> None:
        self._kept = self._kept or error
        self._wake()


class PartitionReader:
    """Reads partitions of one topic between given offsets, without a group: restore and replay.

    Args:
        isolation: "read_committed" hides records of aborted and open transactions.
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
    ) -> None:
        self._connection = connection
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
        """Connect. Raises `BrokerRefused` or `BrokerUnavailable`, also when the topic does not exist."""
        pinned.verify()
        consumer = self._consumer = self._make()
        try:
            timeout_s = self._connection.request_timeout_ms / 1000
            async with explained(self._connection, self._where), asyncio.timeout(timeout_s):
                await consumer.start()
                await consumer._client._wait_on_metadata(self._topic)
        except BaseException:
            await _stop(consumer, timeout_s=1.0)
            raise

    async def stop(self, timeout_s: float) -> None:
        if self._consumer is not None:
            await _stop(self._consumer, timeout_s=timeout_s)

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
            return await _begin_offsets(self._started(), self._places(partitions), self._connection)

    async def end_offsets(self, partitions: Collection[int]) -> dict[int, int]:
        """High watermarks: where the log ends, open transactions included."""
        with translated(self._where):
            return await _end_offsets(self._started(), self._places(partitions), self._connection)

    async def stable_end_offsets(self, partitions: Collection[int]) -> dict[int, int]:
        """Last stable offsets: where the log ends before the first open transaction (under "read_committed")."""
        with translated(self._where):
            ends = await self._started()._fetcher.end_offsets(
                self._places(partitions), self._connection.request_timeout_ms
            )
        return {tp.partition: offset for tp, offset in ends.items()}

    async def offsets_at(self, partitions: Collection[int], timestamp_ms: int) -> dict[int, int | None]:
        """The first offset whose record is as young as that or younger; None where there is none."""
        with translated(self._where):
            found = await self._started().offsets_for_times(dict.fromkeys(self._places(partitions), timestamp_ms))
        return {tp.partition: None if place is None else place.offset for tp, place in found.items()}

    def observe(self, told: Callable[[int, list[Hidden]], None]) -> None:
        """Have `read_to` tell of the batches that it hides, before it yields what it read with them."""
        self._started()._fetcher.observer = lambda tp, hidden: told(tp.partition, hidden)

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
        consumer = self._started()
        places = {TopicPartition(self._topic, p): ends[p] for p, start in partition_offsets.items() if start < ends[p]}
        with translated(self._where):
            consumer.assign(list(places))
            for tp in places:
                consumer.seek(tp, partition_offsets[tp.partition])
        state = consumer._subscription.subscription.assignment.state_value
        positions = {tp: state(tp).position for tp in places}
        moved_at = time.monotonic()
        try:
            if empty := partition_offsets.keys() - {tp.partition for tp in places}:
                yield {}, set(empty)
            while places:
                with translated(self._where):
                    taken = await consumer._fetcher.take(set(places), timeout_s=_READ_WAIT_S, limit=_READ_RECORDS)
                wanted: dict[int, list[Record]] = {}
                for tp, records in taken.items():
                    end = places[tp]
                    if records[-1].offset >= end:
                        records = [record for record in records if record.offset < end]
                    if records:
                        wanted[tp.partition] = records
                now = {tp: state(tp).position for tp in places}
                if now != positions:
                    moved_at = time.monotonic()
                elif time.monotonic() - moved_at > no_progress_s:
                    stuck = ", ".join(f"{tp.partition} at {now[tp]} of {places[tp]}" for tp in sorted(places))
                    raise ReadStalled(
                        f"{self._where}: nothing more to read for {no_progress_s:g} s: partition {stuck}",
                        partitions=[tp.partition for tp in places],
                        hint="a broker is down, or a transaction is still open on the topic: kafka-transactions.sh "
                        f"find-hanging --topic {self._topic}, then abort",
                    )
                positions = now
                read = {tp for tp, end in places.items() if now[tp] >= end}
                if wanted or read:
                    yield wanted, {tp.partition for tp in read}
                places = {tp: end for tp, end in places.items() if tp not in read}
        finally:
            # Without a reader the fetcher would go on fetching to keep its buffers full.
            consumer.pause(*(consumer.assignment()))

    def _started(self) -> BatchConsumer:
        if self._consumer is None:
            raise BrokerUnavailable(f"{self._where}: not started")
        return self._consumer

    def _places(self, partitions: Collection[int]) -> set[TopicPartition]:
        return {TopicPartition(self._topic, partition) for partition in partitions}


async def _begin_offsets(
    consumer: BatchConsumer, places: Collection[TopicPartition], connection: Connection
) -> dict[int, int]:
    found = await consumer._fetcher.beginning_offsets(places, connection.request_timeout_ms)
    return {tp.partition: offset for tp, offset in found.items()}


async def _end_offsets(
    consumer: BatchConsumer, places: Collection[TopicPartition], connection: Connection
) -> dict[int, int]:
    found = await consumer._fetcher.high_watermarks(places, connection.request_timeout_ms)
    return {tp.partition: offset for tp, offset in found.items()}


async def _stop(consumer: BatchConsumer, *, timeout_s: float) -> None:
    """Stop in an orderly way if that ends in time; else cut it off."""
    try:
        async with asyncio.timeout(timeout_s):
            await consumer.stop()
    except asyncio.CancelledError:
        consumer._client.retire()
        raise
    except Exception:  # whatever broke it, the rest of it has to go too
        consumer._closed = True
        tasks = _tasks(consumer)
        if isinstance(consumer._coordinator, GroupCoordinator):
            # A member that is gone without a word holds up the rebalance of all others.
            leaving = asyncio.create_task(consumer._coordinator._maybe_leave_group())
            await asyncio.wait([leaving], timeout=_LEAVE_S)
            tasks.append(leaving)
        await silence(consumer._client, tasks)


def _tasks(consumer: BatchConsumer) -> list[asyncio.Task[object] | None]:
    coordinator, fetcher = consumer._coordinator, consumer._fetcher
    names = ("_coordination_task", "_heartbeat_task", "_commit_refresh_task", "_reset_committed_task")
    tasks = [getattr(coordinator, name, None) for name in names]
    if fetcher is not None:
        tasks += [fetcher._fetch_task, *fetcher._pending_tasks]
    return tasks
