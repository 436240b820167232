# mypy: allow-subclassing-any
"""Read-only questions about a cluster: permissions, features, group members, producers with an open transaction."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple

from aiokafka import errors
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.protocol.admin import DescribeGroupsRequest_v3, DescribeGroupsResponse_v3
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.coordination import FindCoordinatorRequest
from aiokafka.protocol.types import CompactArray, CompactString, Int16, Int32, Int64, Schema, TaggedFields

from processor.errors import BrokerUnavailable
from processor.kafka import wire
from processor.kafka.admin import Admin
from processor.kafka.errors import translated

_TEXT: Final = CompactString("utf-8")
_TAGS: Final = ("tags", TaggedFields)
_NO_TAGS: Final[Mapping[int, bytes]] = {}
_UNKNOWN_OPERATIONS: Final = -(1 << 31)
_FORBIDDEN: Final = frozenset({29, 30, 31, 53})
"""Topic, group, cluster, transactional id: authorization failed."""
_TRANSACTION: Final = 1
_NOT_YET: Final = frozenset({14, 15, 16})
_PAUSE_S: Final = 0.05

OPERATIONS: Final[Mapping[str, int]] = {
    "READ": 3, "WRITE": 4, "CREATE": 5, "DELETE": 6, "ALTER": 7, "DESCRIBE": 8, "CLUSTER_ACTION": 9,
    "DESCRIBE_CONFIGS": 10, "ALTER_CONFIGS": 11, "IDEMPOTENT_WRITE": 12,
}  # fmt: skip
"""Kafka's numbers of the operations of an ACL, which are the bits of an answer (KIP-430)."""


class DescribeProducersResponse_v0(Response):  # noqa: N801 - the library names messages like this
    API_KEY = 61
    API_VERSION = 0
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "topics",
            CompactArray(
                ("name", _TEXT),
                (
                    "partitions",
                    CompactArray(
                        ("partition", Int32),
                        ("error_code", Int16),
                        ("error_message", _TEXT),
                        (
                            "producers",
                            CompactArray(
                                ("producer_id", Int64),
                                ("producer_epoch", Int32),
                                ("last_sequence", Int32),
                                ("last_timestamp", Int64),
                                ("coordinator_epoch", Int32),
                                ("first_offset", Int64),
                                _TAGS,
                            ),
                        ),
                        _TAGS,
                    ),
                ),
                _TAGS,
            ),
        ),
        _TAGS,
    )


class DescribeProducersRequest_v0(RequestStruct):  # noqa: N801
    API_KEY = 61
    API_VERSION = 0
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = DescribeProducersResponse_v0
    SCHEMA = Schema(
        ("topics", CompactArray(("name", _TEXT), ("partitions", CompactArray(Int32)), _TAGS)),
        _TAGS,
    )


class DescribeProducers(Request[DescribeProducersRequest_v0]):
    """Ask a leader for the producers of partitions, with the begin of the transaction that each has open (KIP-664)."""

    API_KEY = 61

    def __init__(self, topic: str, partitions: Collection[int]) -> None:
        self._topic, self._partitions = topic, sorted(partitions)

    def build(self, request: type[RequestStruct]) -> RequestStruct:
        return request([(self._topic, self._partitions, _NO_TAGS)], _NO_TAGS)


class DescribeTopics(Request[wire.MetadataRequest_v10]):
    """Ask about topics and the cluster, with what this principal may do there (KIP-430); creates none."""

    API_KEY = 3

    def __init__(self, topics: Collection[str]) -> None:
        self._topics = sorted(topics)

    def build(self, request: type[RequestStruct]) -> RequestStruct:
        return request([("", topic, _NO_TAGS) for topic in self._topics], False, True, True, _NO_TAGS)


class DescribeGroupRequest_v3(DescribeGroupsRequest_v3):  # noqa: N801
    """As the library's, which reads the answer as one of version 2: without the permitted operations at its end."""

    RESPONSE_TYPE = DescribeGroupsResponse_v3


class DescribeGroup(Request[DescribeGroupRequest_v3]):
    """Ask about a group, with what this principal may do there (KIP-430). Brokers older than 2.3 do not know it."""

    API_KEY = 15

    def __init__(self, group_id: str) -> None:
        self._group_id = group_id

    def build(self, request: type[RequestStruct]) -> RequestStruct:
        return request([self._group_id], True)


class Broker(NamedTuple):
    node: int
    host: str
    port: int


class PartitionView(NamedTuple):
    """`leader` -1: none. `in_sync`: how many replicas are."""

    partition: int
    leader: int
    replicas: int
    in_sync: int


class TopicView(NamedTuple):
    """`operations`: what this principal may do; None where the broker does not say."""

    name: str
    exists: bool
    is_forbidden: bool
    operations: frozenset[str] | None
    partitions: tuple[PartitionView, ...]


class ClusterView(NamedTuple):
    cluster_id: str
    brokers: tuple[Broker, ...]
    topics: Mapping[str, TopicView]


class Member(NamedTuple):
    client_id: str
    host: str


class GroupView(NamedTuple):
    """`operations`: what this principal may do; None where it does not say. `is_forbidden`: nothing at all."""

    state: str
    protocol_type: str
    members: tuple[Member, ...]
    is_forbidden: bool
    operations: frozenset[str] | None


class OpenTransaction(NamedTuple):
    """A transaction that holds readers of a partition back. `last_timestamp_ms`: of its producer's last record."""

    topic: str
    partition: int
    producer_id: int
    first_offset: int
    last_timestamp_ms: int


class Inspector(Admin):
    """An admin client that asks more, and changes nothing. Use as `async with Inspector(connection) as inspector`."""

    @asynccontextmanager
    async def _asking(self, where: str) -> AsyncIterator[None]:
        with translated(where):
            async with asyncio.timeout(self.timeout_s):
                yield

    async def cluster(self, topics: Collection[str]) -> ClusterView:
        """Brokers, and each topic's partitions and permitted operations. Needs Kafka 2.8 or newer."""
        async with self._asking(self.where):
            answer = await self.client()._send_request(DescribeTopics(topics))
        found = {}
        for code, name, _, _, partitions, operations, *_ in answer.topics:
            views = tuple(PartitionView(row[1], row[2], len(row[4]), len(row[5])) for row in partitions)
            found[name] = TopicView(name, code == 0, code in _FORBIDDEN, _operations(operations), views)
        brokers = tuple(Broker(node, host, port) for node, host, port, *_ in answer.brokers)
        return ClusterView(answer.cluster_id or "", brokers, found)

    async def features(self) -> dict[str, int]:
        """The finalized level of each feature of the cluster (KIP-584): metadata.version, transaction.version, ..."""
        async with self._asking(self.where):
            return wire.finalized_features(await self.client()._send_request(wire.ApiVersions()))

    async def broker_settings(self, node: int) -> dict[str, str] | None:
        """The settings of a broker; None if we may not read them (DescribeConfigs on the cluster)."""
        async with self._asking(f"broker {node}"):
            resource = ConfigResource(ConfigResourceType.BROKER, str(node))
            answers = await self.client().describe_configs([resource])
        for code, _, _, _, entries in answers[0].resources:
            if code in _FORBIDDEN:
                return None
            if code:
                raise BrokerUnavailable(f"broker {node}: its settings: {errors.for_code(code).__name__}")
            return {key: value for key, value, *_ in entries if value is not None}
        return None

    async def group(self, group_id: str) -> GroupView:
        """State, members and permitted operations of a group."""
        admin = self.client()
        async with self._asking(f"group {group_id}"):
            while True:
                coordinator = await admin._send_request(FindCoordinatorRequest(group_id, 0))
                code = coordinator.error_code
                if code == 0:
                    answer = await admin._send_request(DescribeGroup(group_id), coordinator.coordinator_id)
                    code, _, state, kind, _, members, operations, *_ = answer.groups[0]
                    if code == 0:
                        found = tuple(sorted(Member(row[1], row[2]) for row in members))
                        return GroupView(state, kind, found, False, _operations(operations))
                if code in _FORBIDDEN:
                    return GroupView("", "", (), True, frozenset())
                if code not in _NOT_YET:
                    raise errors.for_code(code)(group_id)
                await asyncio.sleep(_PAUSE_S)

    async def may_write_transactional_id(self, transactional_id: str) -> bool:
        """Whether this principal may use a transactional id.

        It asks for a producer id with a timeout that no broker takes: permission is looked at first, so the refusal
        says whether we have it, and nothing is begun.
        """
        admin = self.client()
        async with self._asking(f"transactional id {transactional_id}"):
            while True:
                coordinator = await admin._send_request(FindCoordinatorRequest(transactional_id, _TRANSACTION))
                code = coordinator.error_code
                if code == 0:
                    answer = await admin._send_request(
                        wire.InitProducerId(transactional_id, 0), coordinator.coordinator_id
                    )
                    code = answer.error_code
                    if code not in _NOT_YET:
                        return code not in _FORBIDDEN
                if code in _FORBIDDEN:
                    return False
                if code not in _NOT_YET:
                    raise errors.for_code(code)(transactional_id)
                await asyncio.sleep(_PAUSE_S)

    async def open_transactions(self, topic: str, leaders: Mapping[int, int]) -> list[OpenTransaction]:
        """The open transactions on partitions; `leaders`: partition -> node. Needs READ on the topic."""
        by_node: dict[int, list[int]] = {}
        for partition, node in leaders.items():
            by_node.setdefault(node, []).append(partition)
        found: list[OpenTransaction] = []
        for node, partitions in sorted(by_node.items()):
            async with self._asking(f"topic {topic}"):
                answer = await self.client()._send_request(DescribeProducers(topic, partitions), node)
                found += _open_in(topic, answer.topics)
        return found


def _open_in(topic: str, topics: Iterable[Any]) -> Iterable[OpenTransaction]:
    for _, partitions, *_ in topics:
        for partition, code, _, producers, *_ in partitions:
            if code:
                raise errors.for_code(code)(f"{topic}-{partition}")
            for producer_id, _, _, last_timestamp_ms, _, first_offset, *_ in producers:
                if first_offset >= 0:
                    yield OpenTransaction(topic, partition, producer_id, first_offset, last_timestamp_ms)


def _operations(bits: int) -> frozenset[str] | None:
    if bits == _UNKNOWN_OPERATIONS:
        return None
    return frozenset(name for name, bit in OPERATIONS.items() if bits >> bit & 1)
