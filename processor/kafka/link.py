# mypy: allow-subclassing-any
"""A transactional producer's requests over aiokafka's connections, each sent once at the most.

The library's own sender repeats a request whose connection died. Here the caller gets `Unanswered`, and the
connection is cut, so that a late answer cannot be taken for that of another request.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from aiokafka.client import ConnectionGroup, CoordinationType
from aiokafka.conn import CloseReason
from aiokafka.errors import (
    IncompatibleBrokerVersion,
    KafkaError,
    RequestTimedOutError,
    UnknownTopicOrPartitionError,
    for_code,
)
from aiokafka.protocol.coordination import FindCoordinatorRequest
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.transaction import AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, EndTxnRequest
from aiokafka.structs import TopicPartition

from processor.kafka import error_codes, wire
from processor.kafka.client import SILENT, Client
from processor.kafka.client_config import Connection
from processor.kafka.consumer import Committed, GroupToken
from processor.kafka.errors import translate
from processor.kafka.transactions import Identity, NotSent, Produced, TopicPartitionKey, Unanswered

_API_VERSIONS: Final = 18
_SILENT_S: Final = 0.5
"""Timeout of a connection to a silent broker: long enough for one that is back; another may lead by now."""
_TRANSACTION_VERSION: Final = "transaction.version"


class BrokerLink:
    """`transactions.Link` to a real cluster.

    Args:
        group_id, source_topic: whose offsets are committed.
        transaction_timeout_ms: after this long the broker aborts what was left open.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        transactional_id: str,
        group_id: str,
        source_topic: str,
        transaction_timeout_ms: int,
    ) -> None:
        self._connection = connection
        self._id, self._group_id, self._topic = transactional_id, group_id, source_topic
        self._timeout_ms = transaction_timeout_ms
        self._coordinators: dict[int, int] = {}
        self._attempts: dict[tuple[int, ConnectionGroup], asyncio.Future[Any]] = {}
        self._client: Client | None = None

    @property
    def client(self) -> Client:
        assert self._client is not None, "open() comes first"
        return self._client

    async def open(self) -> None:
        """Connect to the cluster. Raises what aiokafka raises."""
        settings = self._connection.kwargs()
        self._client = Client(**settings)
        await self._client.bootstrap()

    def cut(self) -> None:
        """Close every connection at once and open no other."""
        if self._client is not None:
            self._client.abort()

    async def close(self) -> None:
        if self._client is not None:
            self._client.abort()
            if attempts := list(self._attempts.values()):
                for attempt in attempts:
                    attempt.cancel()
                await asyncio.wait(attempts)
            await self._client.close()

    async def partitions_of(self, topics: Collection[str]) -> dict[str, int]:
        """The number of partitions of each topic.

        Raises:
            UnknownTopicOrPartitionError: a broker says that there is none.
            RequestTimedOutError: no broker has said anything.
        """
        return {topic: len(await self._partitions(topic)) for topic in sorted(topics)}

    async def _partitions(self, topic: str) -> Collection[int]:
        try:
            found: Collection[int] = await self.client._wait_on_metadata(topic)
        except UnknownTopicOrPartitionError:
            # The library raises it as well where no broker answered within the request time-out: ask once more.
            if not await self.client.force_metadata_update():
                raise RequestTimedOutError(f"no broker says how many partitions topic {topic} has") from None
            known: Collection[int] | None = self.client.cluster.partitions_for_topic(topic)
            if known is None:
                raise
            return known
        return found

    # --- transactions.Link ------------------------------------------------------------------------------------

    async def transaction_version(self, patience_s: float) -> int:
        connection = await self._connected(self.client.get_random_node(), ConnectionGroup.DEFAULT, patience_s)
        low, high = connection._versions.get(_API_VERSIONS, (0, 0))
        if not low <= wire.ApiVersionsRequest_v3.API_VERSION <= high:
            return 0
        answer = await _answered(connection, wire.ApiVersions(), patience_s)
        return wire.finalized_features(answer).get(_TRANSACTION_VERSION, 0)

    async def init_producer(self, identity: Identity, patience_s: float, *, v2: bool) -> tuple[int, Identity]:
        kind = wire.InitProducerIdOfV2 if v2 else wire.InitProducerId
        answer = await self._coordinated(kind(self._id, self._timeout_ms, identity), patience_s)
        return answer.error_code, Identity(answer.producer_id, answer.producer_epoch)

    async def add_partitions(
        self, identity: Identity, topic_partitions: Collection[TopicPartitionKey], patience_s: float
    ) -> dict[TopicPartitionKey, int]:
        topics: defaultdict[str, list[int]] = defaultdict(list)
        for topic, partition in topic_partitions:
            topics[topic].append(partition)
        request = AddPartitionsToTxnRequest(self._id, *identity, list(topics.items()))
        answer = await self._coordinated(request, patience_s)
        return {(topic, partition): code for topic, rows in answer.errors for partition, code in rows}

    async def add_group(self, identity: Identity, patience_s: float) -> int:
        answer = await self._coordinated(AddOffsetsToTxnRequest(self._id, *identity, self._group_id), patience_s)
        code: int = answer.error_code
        return code

    async def produce(
        self, node: int, batches: Mapping[TopicPartitionKey, bytes], patience_s: float, *, v2: bool
    ) -> dict[TopicPartitionKey, Produced]:
        topics: defaultdict[str, list[tuple[int, bytes]]] = defaultdict(list)
        for (topic, partition), payload in batches.items():
            topics[topic].append((partition, payload))
        timeout_ms = int(patience_s * 1000)
        request: Any = (
            wire.ProduceOfV2(self._id, timeout_ms, topics)
            if v2
            else ProduceRequest(self._id, -1, timeout_ms, list(topics.items()))
        )
        connection = await self._connected(node, ConnectionGroup.DEFAULT, patience_s)
        answer = await _answered(connection, request, patience_s)
        return {(topic, row[0]): Produced(row[1], row[2]) for topic, rows, *_ in answer.topics for row in rows}

    async def commit_offsets(
        self,
        identity: Identity,
        token: GroupToken,
        offsets: Mapping[int, Committed],
        patience_s: float,
        *,
        v2: bool,
    ) -> dict[int, int]:
        kind = wire.TxnOffsetCommitOfV2 if v2 else wire.TxnOffsetCommit
        rows: Sequence[tuple[int, int, str]] = [(p, offset, text) for p, (offset, text) in sorted(offsets.items())]
        request = kind(self._id, self._group_id, *identity, token, {self._topic: rows})
        answer = await self._coordinated(request, patience_s, CoordinationType.GROUP)
        return {partition: code for _, found in answer.errors for partition, code in found}

    async def end(self, identity: Identity, patience_s: float, *, commit: bool, v2: bool) -> tuple[int, Identity]:
        if not v2:
            answer = await self._coordinated(EndTxnRequest(self._id, *identity, commit), patience_s)
            return answer.error_code, identity
        answer = await self._coordinated(wire.EndTxnOfV2(self._id, identity, commit=commit), patience_s)
        return answer.error_code, Identity(answer.producer_id, answer.producer_epoch)

    async def stable_offsets(self, partitions: Collection[int], patience_s: float) -> dict[int, Committed] | None:
        request = wire.OffsetFetch(self._group_id, self._topic, sorted(partitions), require_stable=True)
        answer = await self._coordinated(request, patience_s, CoordinationType.GROUP)
        rows = [row for _, found in answer.topics for row in found]
        codes = {answer.error_code, *(code for *_, code in rows)} - {0}
        if error_codes.UNSTABLE in codes:
            return None
        for code in codes:
            error = for_code(code)(self._group_id)
            if error.retriable:
                self._coordinators.clear()
                raise NotSent(str(error))
            raise translate(error, f"group {self._group_id}")
        return {partition: Committed(offset, text or "") for partition, offset, text, _ in rows}

    def leader(self, place: TopicPartitionKey) -> int | None:
        node = self.client.cluster.leader_for_partition(TopicPartition(*place))
        return None if node in (None, -1) else int(node)

    async def refresh(self, patience_s: float) -> None:
        self._coordinators.clear()
        try:
            async with asyncio.timeout(patience_s):
                await self.client.force_metadata_update()
        except (TimeoutError, KafkaError):
            pass  # asked again before the next try

    # --- asking -----------------------------------------------------------------------------------------------

    async def _coordinated(self, request: Any, patience_s: float, kind: int = CoordinationType.TRANSACTION) -> Any:
        node = await self._coordinator(kind, patience_s)
        connection = await self._connected(node, ConnectionGroup.COORDINATION, patience_s)
        try:
            return await _answered(connection, request, patience_s)
        except Unanswered:
            self._coordinators.pop(kind, None)
            raise

    async def _coordinator(self, kind: int, patience_s: float) -> int:
        if kind not in self._coordinators:
            self._coordinators[kind] = await self._find_coordinator(kind, patience_s)
        return self._coordinators[kind]

    async def _find_coordinator(self, kind: int, patience_s: float) -> int:
        """Ask the brokers, one after the other; one that does not answer is asked last by all clients from then on."""
        name, key = ("group", self._group_id) if kind == CoordinationType.GROUP else ("transactional id", self._id)
        for node in self.client.nodes():
            try:
                connection = await self._connected(node, ConnectionGroup.DEFAULT, patience_s)
                answer = await _answered(connection, FindCoordinatorRequest(key, kind), patience_s)
            except NotSent:
                continue
            except Unanswered:
                SILENT.timed_out((connection.host, connection.port))
                continue
            if answer.error_code == 0:
                return int(answer.coordinator_id)
            error = for_code(answer.error_code)(key)
            if error.retriable:
                raise NotSent(f"{name} {key}: {error}")
            raise translate(error, f"{name} {key}")
        raise NotSent(f"{name} {key}: no broker says who coordinates it")

    async def _connected(self, node: int | None, group: ConnectionGroup, patience_s: float) -> Any:
        """A connection to the node. An attempt that takes longer is left to itself: the client notes how it ends.

        A silent node is not waited for: what it led or coordinated may have moved, and only who asks again learns it.
        """
        connection = None
        if node is not None:
            if self.client.is_silent(node):
                patience_s = min(patience_s, _SILENT_S)
            attempt = self._attempts.get((node, group))
            if attempt is None:
                attempt = asyncio.ensure_future(self.client._get_conn(node, group=group))
                self._attempts[node, group] = attempt
                attempt.add_done_callback(lambda _: self._attempts.pop((node, group), None))
            await asyncio.wait({attempt}, timeout=patience_s)
            connection = attempt.result() if attempt.done() else None
        if connection is None or not connection.connected():
            for kind in [kind for kind, known in self._coordinators.items() if known == node]:
                del self._coordinators[kind]
            raise NotSent(f"node {node}: no connection")
        return connection


async def _answered(connection: Any, request: Any, patience_s: float) -> Any:
    try:
        async with asyncio.timeout(patience_s + connection.muted_s()):
            return await connection.send(request)
    except (NotImplementedError, IncompatibleBrokerVersion) as error:  # no version in common: nothing was sent
        raise translate(error, "transactions") from error
    except (TimeoutError, KafkaError, OSError) as error:
        connection.close(reason=CloseReason.CONNECTION_TIMEOUT)
        raise Unanswered(str(error) or type(error).__name__) from error
