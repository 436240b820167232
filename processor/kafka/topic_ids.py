# mypy: allow-subclassing-any
"""Metadata v10 names the cluster and gives each topic's id, which a topic of the same name made anew does not share.

Field names and types follow Kafka's own message schema (KIP-516). Brokers speak it from 2.8 on; on older ones a topic
has no id. The client library stops at v5.
"""

from __future__ import annotations

from collections.abc import Collection
from io import BytesIO
from typing import Final, NamedTuple
from uuid import UUID

from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.metadata import MetadataRequest_v5
from aiokafka.protocol.types import (
    AbstractType,
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Schema,
    TaggedFields,
)

_TEXT: Final = CompactString("utf-8")
_TAGS: Final = ("tags", TaggedFields)


class _Uuid(AbstractType[UUID]):
    """Sixteen bytes, most significant first."""

    @classmethod
    def encode(cls, value: UUID) -> bytes:
        return value.bytes

    @classmethod
    def decode(cls, data: BytesIO) -> UUID:
        return UUID(bytes=data.read(16))


class MetadataResponse_v10(Response):  # noqa: N801 - the library names messages like this
    API_KEY = 3
    API_VERSION = 10
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("brokers", CompactArray(("node_id", Int32), ("host", _TEXT), ("port", Int32), ("rack", _TEXT), _TAGS)),
        ("cluster_id", _TEXT),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("topic", _TEXT),
                ("topic_id", _Uuid),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline_replicas", CompactArray(Int32)),
                        _TAGS,
                    ),
                ),
                ("authorized_operations", Int32),
                _TAGS,
            ),
        ),
        ("cluster_authorized_operations", Int32),
        _TAGS,
    )


class MetadataRequest_v10(RequestStruct):  # noqa: N801
    API_KEY = 3
    API_VERSION = 10
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = MetadataResponse_v10
    SCHEMA = Schema(
        ("topics", CompactArray(("topic_id", _Uuid), ("topic", _TEXT), _TAGS)),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
        _TAGS,
    )


class ClusterTopics(NamedTuple):
    """A cluster's id and its topics' ids. `ids` is empty where the broker is older than 2.8, and tells none."""

    cluster_id: str
    ids: dict[str, UUID]


class TopicIds(Request[MetadataRequest_v5 | MetadataRequest_v10]):
    """Ask for the ids of these topics; asking does not create them."""

    API_KEY = 3

    def __init__(self, names: Collection[str]) -> None:
        self._names = sorted(names)

    def build(self, request: type[RequestStruct]) -> RequestStruct:
        if request.API_VERSION < 10:
            return request(self._names, False)
        return request([(UUID(int=0), name, {}) for name in self._names], False, False, False, {})


def cluster_topics(response: Response) -> ClusterTopics:
    """The answer to `TopicIds`; topics with an error (missing, or not ours to see) are left out."""
    ids = {}
    if response.API_VERSION >= 10:
        ids = {topic: topic_id for code, topic, topic_id, *_ in response.topics if not code}
    return ClusterTopics(response.cluster_id or "", ids)
