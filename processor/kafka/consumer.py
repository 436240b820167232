# mypy: allow-subclassing-any
"""Consumer of the source topic: a member of the consumer group.

It raises only this program's errors (`processor.kafka.errors`). After any of them it cannot be used any more: stop it
and make a new one, which starts from the committed offsets.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Final, NamedTuple, Protocol, TypeVar

from aiokafka import ConsumerRebalanceListener
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import KafkaConnectionError, KafkaError, RebalanceInProgressError, RequestTimedOutError, for_code
from aiokafka.protocol.admin import DescribeGroupsRequest
from aiokafka.structs import OffsetAndMetadata, TopicPartition

from processor.core.effects import Record
from processor.core.offset_metadata import LogIdentity
from processor.errors import BrokerUnavailable, Fenced
from processor.kafka import aiokafka_compat as pinned
from processor.kafka import error_codes, wire
from processor.kafka.batch_consumer import BatchConsumer, begin_offsets, end_offsets, stop_consumer
from processor.kafka.client_config import Connection
from processor.kafka.diagnosis import explained
from processor.kafka.errors import OffsetsUnstable, translated

_Answer = TypeVar("_Answer")

_NEVER_IDLE_MS: Final = 2**31 - 1
_RETRY_S: Final = 0.05
_FETCH_WAIT_MS: Final = 150
"""Longest wait of a fetch for records. The broker answers in order, so other requests wait behind the fetch."""


class GroupToken(NamedTuple):
    """Membership in the group (KIP-447): generation, member id, instance id. A negative generation: not a member."""

    generation: int
    member_id: str
    instance_id: str | None


class Committed(NamedTuple):
    """A committed offset and its metadata string. Offset -1: none committed."""

    offset: int
    metadata: str


class RebalanceListener(Protocol):
    async def revoked(self, partitions: list[int]) -> None:
        """The group is about to rebalance: stop applying first, then commit what is applied.

        Awaited before the join, so the time it takes is the callee's to bound (`rebalance_timeout_ms` at most). All
        partitions are named (eager rebalancing), none at the first join. After an eviction they are no longer ours:
        `token().generation` is negative then.
        """

    def assigned(self, partitions: list[int]) -> None:
        """The partitions of the new generation. Must only mark: no heartbeat is sent until it returns."""


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
            # The worker decides what is committed, where reading begins, and whether the loop still runs.
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
            await stop_consumer(consumer, timeout_s=1.0)
            raise

    async def stop(self, timeout_s: float) -> None:
        """Leave the group (a static member stays in it) and close, within about `timeout_s` whatever happens.

        `revoked` is not called: drain first.
        """
        if self._consumer is not None:
            await stop_consumer(self._consumer, timeout_s=timeout_s)

    def token(self) -> GroupToken:
        """Our membership as of now: compare it with a unit's before committing the unit."""
        coordinator = None if self._consumer is None else self._consumer._coordinator
        if coordinator is None:  # not started yet; the HTTP endpoints may ask before that
            return GroupToken(-1, "", None)
        return GroupToken(coordinator.generation, coordinator.member_id, coordinator._group_instance_id)

    async def poll(
        self, partitions: Collection[int], *, timeout_ms: int, max_records: int
    ) -> Mapping[int, Sequence[Record]]:
        """Records of these partitions only, in offset order; with no partitions it just waits.

        Returns:
            Partition to records, at most `max_records` in all, to be iterated over once (see `FetchedRecords`). May
            come back empty before its time, when a rebalance ended the wait. Always yields to the loop once.

        Raises:
            OffsetLost, Fenced, BrokerRefused, BrokerUnavailable, CorruptLog; also what `revoked` or `assigned`
            raised, which the library would swallow.
        """
        consumer = self._joined()
        self._bridge.raise_kept()
        with translated(self._where):
            consumer._coordinator.check_errors()
            taken = await consumer._fetcher.take_undecoded(
                self._topic_partitions(partitions), timeout_s=timeout_ms / 1000, limit=max_records
            )
        self._bridge.raise_kept()
        return {tp.partition: records for tp, records in taken.items()}

    def hold(self, partitions: Collection[int]) -> None:
        """Pause these partitions until `seek` gives a position: records fetched before it would be thrown away."""
        with translated(self._where):
            self._joined().pause(*self._topic_partitions(partitions))

    def seek(self, partition: int, offset: int) -> None:
        """Continue a partition from `offset`. Raises `Fenced` when it is not assigned to us."""
        tp = TopicPartition(self._topic, partition)
        with translated(self._where):
            self._joined().seek(tp, offset)
            self._joined().resume(tp)

    def position_now(self, partition: int) -> int | None:
        """The next offset to be read, past transaction markers and aborted batches, which no record shows.

        None while the partition has none: not assigned, or not positioned yet.
        """
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
            return await begin_offsets(self._joined(), self._topic_partitions(partitions), self._connection)

    async def end_offsets(self, partitions: Collection[int]) -> dict[int, int]:
        """High watermarks: where the log ends, open transactions included."""
        with translated(self._where):
            return await end_offsets(self._joined(), self._topic_partitions(partitions), self._connection)

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
            # The broker checks member and generation, not who owns the partition: send nothing in a newer generation.
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
        """Number of partitions of the source topic, as of the last metadata."""
        return len(self._joined().partitions_for_topic(self._topic) or ())

    def _joined(self) -> BatchConsumer:
        if self._consumer is None:
            raise BrokerUnavailable(f"{self._where}: not started")
        return self._consumer

    def _topic_partitions(self, partitions: Collection[int]) -> set[TopicPartition]:
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
            if response.error_code not in (0, error_codes.UNSTABLE):
                raise for_code(response.error_code)(self._group_id)
            for *_, code in rows:
                if code not in (0, error_codes.UNSTABLE):
                    raise for_code(code)(self._group_id)
            if response.error_code == error_codes.UNSTABLE:
                return {}, set(partitions)
            return (
                {partition: Committed(offset, text or "") for partition, offset, text, _ in rows},
                {partition for partition, *_, code in rows if code == error_codes.UNSTABLE},
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
    """Adapter of aiokafka's rebalance listener to ours: partition numbers only, and errors are kept."""

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
