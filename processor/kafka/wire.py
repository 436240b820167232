# mypy: allow-subclassing-any
"""Requests that aiokafka does not have yet.

Field names and types follow Kafka's own message schemas; `InitProducerId` v3 is KIP-360, `TxnOffsetCommit` v3 and
`OffsetFetch` v7 are the two halves of KIP-447, `Metadata` v10 has topic ids (KIP-516); `InitProducerId` v5, `Produce`
v12, `TxnOffsetCommit` v5 and `EndTxn` v5 are transactions of version 2 (KIP-890), and `ApiVersions` v3 (KIP-584) tells
whether a cluster has them. All of them are flexible versions (KIP-482). We never send tagged fields: the library's
encoder for them leaves out their size, only the empty set is safe.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any, Final

from aiokafka import errors
from aiokafka.protocol.abstract import AbstractType
from aiokafka.protocol.api import Request, RequestStruct, Response, ResponseHeader_v0
from aiokafka.protocol.commit import OffsetFetchRequest_v3
from aiokafka.protocol.metadata import MetadataRequest_v2, MetadataRequest_v4
from aiokafka.protocol.transaction import InitProducerIdRequest_v0
from aiokafka.protocol.types import (
    Boolean,
    CompactArray,
    CompactBytes,
    CompactString,
    Int16,
    Int32,
    Int64,
    Schema,
    TaggedFields,
)

TXN_OFFSET_COMMIT: Final = 28
_TEXT: Final = CompactString("utf-8")
_TAGS: Final = ("tags", TaggedFields)
_NO_TAGS: Final[Mapping[int, bytes]] = {}
_NO_PRODUCER: Final = (-1, -1)
_NO_LEADER_EPOCH: Final = -1


# --- InitProducerId -------------------------------------------------------------------------------------------------


class InitProducerIdResponse_v3(Response):  # noqa: N801 - the library names messages like this
    API_KEY = 22
    API_VERSION = 3
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("error_code", Int16),
        ("producer_id", Int64),
        ("producer_epoch", Int16),
        _TAGS,
    )


class InitProducerIdRequest_v3(RequestStruct):  # noqa: N801
    API_KEY = 22
    API_VERSION = 3
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = InitProducerIdResponse_v3
    SCHEMA = Schema(
        ("transactional_id", _TEXT),
        ("transaction_timeout_ms", Int32),
        ("producer_id", Int64),
        ("producer_epoch", Int16),
        _TAGS,
    )


class InitProducerIdResponse_v4(InitProducerIdResponse_v3):  # noqa: N801
    API_VERSION = 4


class InitProducerIdRequest_v4(InitProducerIdRequest_v3):  # noqa: N801
    """As v3, but a fenced producer is told PRODUCER_FENCED (90)."""

    API_VERSION = 4
    RESPONSE_TYPE = InitProducerIdResponse_v4


class InitProducerIdResponse_v5(InitProducerIdResponse_v3):  # noqa: N801
    API_VERSION = 5


class InitProducerIdRequest_v5(InitProducerIdRequest_v3):  # noqa: N801
    """As v4, from a client that speaks transactions of version 2."""

    API_VERSION = 5
    RESPONSE_TYPE = InitProducerIdResponse_v5


class InitProducerId(Request[InitProducerIdRequest_v0 | InitProducerIdRequest_v3 | InitProducerIdRequest_v4]):
    """Ask for a producer id and epoch; for a transactional id this aborts its open transaction.

    Args:
        producer: id and epoch to be replaced by the next epoch (KIP-360, v3+); (-1, -1) starts anew.
    """

    API_KEY = 22

    def __init__(
        self, transactional_id: str | None, transaction_timeout_ms: int, producer: tuple[int, int] = _NO_PRODUCER
    ) -> None:
        self._settings = (transactional_id, transaction_timeout_ms)
        self._producer = producer

    def build(self, request: type[RequestStruct]) -> RequestStruct:
        if request.API_VERSION < 3:
            if self._producer != _NO_PRODUCER:
                raise errors.IncompatibleBrokerVersion("an epoch can be raised by InitProducerId v3 and newer only")
            return request(*self._settings)
        return request(*self._settings, *self._producer, _NO_TAGS)


class InitProducerIdOfV2(Request[InitProducerIdRequest_v5]):
    """As `InitProducerId`, for transactions of version 2."""

    API_KEY = 22

    def __init__(self, transactional_id: str, transaction_timeout_ms: int, producer: tuple[int, int]) -> None:
        self._fields = (transactional_id, transaction_timeout_ms, *producer)

    def build(self, request: type[RequestStruct]) -> RequestStruct:
        return request(*self._fields, _NO_TAGS)


# --- TxnOffsetCommit ------------------------------------------------------------------------------------------------


class TxnOffsetCommitResponse_v3(Response):  # noqa: N801
    API_KEY = TXN_OFFSET_COMMIT
    API_VERSION = 3
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "errors",
            CompactArray(
                ("topic", _TEXT),
                ("partitions", CompactArray(("partition", Int32), ("error_code", Int16), _TAGS)),
                _TAGS,
            ),
        ),
        _TAGS,
    )

    def __init__(self, *values: Any) -> None:
        super().__init__(*values)
        # The library's handler reads the shape of v0, which has no tags.
        answers: list[Any] = self.__dict__["errors"]
        self.errors = [(topic, [(row[0], row[1]) for row in rows]) for topic, rows, _ in answers]


class TxnOffsetCommitRequest_v3(RequestStruct):  # noqa: N801
    API_KEY = TXN_OFFSET_COMMIT
    API_VERSION = 3
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = TxnOffsetCommitResponse_v3
    SCHEMA = Schema(
        ("transactional_id", _TEXT),
        ("group_id", _TEXT),
        ("producer_id", Int64),
        ("producer_epoch", Int16),
        ("generation_id", Int32),
        ("member_id", _TEXT),
        ("group_instance_id", _TEXT),
        (
            "topics",
            CompactArray(
                ("topic", _TEXT),
                (
                    "partitions",
                    CompactArray(
                        ("partition", Int32),
                        ("offset", Int64),
                        ("leader_epoch", Int32),
                        ("metadata", _TEXT),
                        _TAGS,
                    ),
                ),
                _TAGS,
            ),
        ),
        _TAGS,
    )


class TxnOffsetCommitResponse_v5(TxnOffsetCommitResponse_v3):  # noqa: N801
    API_VERSION = 5


class TxnOffsetCommitRequest_v5(TxnOffsetCommitRequest_v3):  # noqa: N801
    """As v3, and the broker adds the group to the transaction itself (KIP-890)."""

    API_VERSION = 5
    RESPONSE_TYPE = TxnOffsetCommitResponse_v5


class TxnOffsetCommit(Request[TxnOffsetCommitRequest_v3]):
    """Commit offsets inside a transaction, as the group member that `token` describes (KIP-447).

    There is no older form here on purpose: without generation and member the broker accepts a zombie's offsets.

    Args:
        token: generation, member id, group instance id.
        offsets: by topic: partition, offset, metadata.
    """

    API_KEY = TXN_OFFSET_COMMIT

    def __init__(
        self,
        transactional_id: str,
        group_id: str,
        producer_id: int,
        producer_epoch: int,
        token: tuple[int, str, str | None],
        offsets: Mapping[str, Sequence[tuple[int, int, str]]],
    ) -> None:
        self._producer = (transactional_id, group_id, producer_id, producer_epoch)
        self._token = token
        self._offsets = offsets

    def build(self, request: type[RequestStruct]) -> RequestStruct:
        topics = [
            (
                topic,
                [(partition, offset, _NO_LEADER_EPOCH, text, _NO_TAGS) for partition, offset, text in rows],
                _NO_TAGS,
            )
            for topic, rows in self._offsets.items()
        ]
        return request(*self._producer, *self._token, topics, _NO_TAGS)


class TxnOffsetCommitOfV2(Request[TxnOffsetCommitRequest_v5]):
    """As `TxnOffsetCommit`, for transactions of version 2."""

    API_KEY = TXN_OFFSET_COMMIT

    def __init__(
        self,
        transactional_id: str,
        group_id: str,
        producer_id: int,
        producer_epoch: int,
        token: tuple[int, str, str | None],
        offsets: Mapping[str, Sequence[tuple[int, int, str]]],
    ) -> None:
        self._same = TxnOffsetCommit(transactional_id, group_id, producer_id, producer_epoch, token, offsets)

    def build(self, request: type[RequestStruct]) -> RequestStruct:
        return self._same.build(request)


# --- Produce, EndTxn, ApiVersions ------------------------------------------------------------------------------------


class ProduceResponse_v12(Response):  # noqa: N801
    API_KEY = 0
    API_VERSION = 12
    SCHEMA = Schema(
        (
            "topics",
            CompactArray(
                ("topic", _TEXT),
                (
                    "partitions",
                    CompactArray(
                        ("partition", Int32),
                        ("error_code", Int16),
                        ("offset", Int64),
                        ("log_append_time", Int64),
                        ("log_start_offset", Int64),
                        ("record_errors", CompactArray(("index", Int32), ("message", _TEXT), _TAGS)),
                        ("error_message", _TEXT),
                        _TAGS,
                    ),
                ),
                _TAGS,
            ),
        ),
        ("throttle_time_ms", Int32),
        _TAGS,
    )


class ProduceRequest_v12(RequestStruct):  # noqa: N801
    API_KEY = 0
    API_VERSION = 12
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = ProduceResponse_v12
    SCHEMA = Schema(
        ("transactional_id", _TEXT),
        ("required_acks", Int16),
        ("timeout_ms", Int32),
        (
            "topics",
            CompactArray(
                ("topic", _TEXT),
                ("partitions", CompactArray(("partition", Int32), ("records", CompactBytes), _TAGS)),
                _TAGS,
            ),
        ),
        _TAGS,
    )


class ProduceOfV2(Request[ProduceRequest_v12]):
    """Write batches, which adds their partitions to the transaction (KIP-890). One batch a partition.

    Args:
        topics: by topic: partition and the batch's bytes.
    """

    API_KEY = 0

    def __init__(
        self, transactional_id: str, timeout_ms: int, topics: Mapping[str, Sequence[tuple[int, bytes]]]
    ) -> None:
        self._transactional_id, self._timeout_ms, self._topics = transactional_id, timeout_ms, topics

    def build(self, request: type[RequestStruct]) -> RequestStruct:
        topics = [
            (topic, [(partition, batch, _NO_TAGS) for partition, batch in rows], _NO_TAGS)
            for topic, rows in self._topics.items()
        ]
        return request(self._transactional_id, -1, self._timeout_ms, topics, _NO_TAGS)


class EndTxnResponse_v5(Response):  # noqa: N801
    API_KEY = 26
    API_VERSION = 5
    SCHEMA = Schema(
        ("throttle_time_ms", Int32), ("error_code", Int16), ("producer_id", Int64), ("producer_epoch", Int16), _TAGS
    )


class EndTxnRequest_v5(RequestStruct):  # noqa: N801
    API_KEY = 26
    API_VERSION = 5
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = EndTxnResponse_v5
    SCHEMA = Schema(
        ("transactional_id", _TEXT),
        ("producer_id", Int64),
        ("producer_epoch", Int16),
        ("committed", Boolean),
        _TAGS,
    )


class EndTxnOfV2(Request[EndTxnRequest_v5]):
    """Commit or abort; the answer carries the producer id and epoch of the next transaction (KIP-890)."""

    API_KEY = 26

    def __init__(self, transactional_id: str, producer: tuple[int, int], *, commit: bool) -> None:
        self._fields = (transactional_id, *producer, commit)

    def build(self, request: type[RequestStruct]) -> RequestStruct:
        return request(*self._fields, _NO_TAGS)


class ApiVersionsResponse_v3(Response):  # noqa: N801
    API_KEY = 18
    API_VERSION = 3
    SCHEMA = Schema(
        ("error_code", Int16),
        ("api_versions", CompactArray(("api_key", Int16), ("min_version", Int16), ("max_version", Int16), _TAGS)),
        ("throttle_time_ms", Int32),
        _TAGS,
    )


class ApiVersionsRequest_v3(RequestStruct):  # noqa: N801
    API_KEY = 18
    API_VERSION = 3
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = ApiVersionsResponse_v3
    SCHEMA = Schema(("client_software_name", _TEXT), ("client_software_version", _TEXT), _TAGS)

    def parse_response_header(self, read_buffer: Any) -> Any:
        """Read the header of version 0: an answer that tells the versions cannot have one that depends on them."""
        return ResponseHeader_v0.decode(read_buffer)


class ApiVersions(Request[ApiVersionsRequest_v3]):
    """Ask for the features that the cluster has finalized (KIP-584)."""

    API_KEY = 18

    def build(self, request: type[RequestStruct]) -> RequestStruct:
        return request("run-steps", "0", _NO_TAGS)


def finalized_features(answer: Any) -> dict[str, int]:
    """The finalized level of each feature in an `ApiVersions` answer; empty where the cluster tells none.

    Tag 1 is the epoch of the features, tag 2 the features as name, highest and lowest level.
    """
    tags: Mapping[int, bytes] = answer.tags
    if 1 not in tags or 2 not in tags or Int64.decode(BytesIO(tags[1])) < 0:
        return {}
    rows: Any = _FEATURES.decode(BytesIO(tags[2]))
    return {name: highest for name, highest, *_ in rows}


_FEATURES: Final = CompactArray(("name", _TEXT), ("highest", Int16), ("lowest", Int16), _TAGS)


# --- OffsetFetch ----------------------------------------------------------------------------------------------------


class OffsetFetchResponse_v7(Response):  # noqa: N801
    API_KEY = 9
    API_VERSION = 7
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "topics",
            CompactArray(
                ("topic", _TEXT),
                (
                    "partitions",
                    CompactArray(
                        ("partition", Int32),
                        ("offset", Int64),
                        ("leader_epoch", Int32),
                        ("metadata", _TEXT),
                        ("error_code", Int16),
                        _TAGS,
                    ),
                ),
                _TAGS,
            ),
        ),
        ("error_code", Int16),
        _TAGS,
    )

    def __init__(self, *values: Any) -> None:
        super().__init__(*values)
        # The shape of v3: partition, offset, metadata, error code.
        answers: list[Any] = self.__dict__["topics"]
        self.topics = [(topic, [(row[0], row[1], row[3], row[4]) for row in rows]) for topic, rows, _ in answers]


class OffsetFetchRequest_v7(RequestStruct):  # noqa: N801
    API_KEY = 9
    API_VERSION = 7
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = OffsetFetchResponse_v7
    SCHEMA = Schema(
        ("group_id", _TEXT),
        ("topics", CompactArray(("topic", _TEXT), ("partitions", CompactArray(Int32)), _TAGS)),
        ("require_stable", Boolean),
        _TAGS,
    )


class OffsetFetch(Request[OffsetFetchRequest_v3 | OffsetFetchRequest_v7]):
    """Read a group's offsets; with `require_stable` a pending transactional commit answers error 88 (KIP-447).

    A broker without v7 cannot have pending commits of ours: it has no TxnOffsetCommit v3 either, so the transactional
    writer has refused it at start-up.
    """

    API_KEY = 9

    def __init__(self, group_id: str, topic: str, partitions: Sequence[int], *, require_stable: bool) -> None:
        self._group_id = group_id
        self._topic = topic
        self._partitions = list(partitions)
        self._require_stable = require_stable

    def build(self, request: type[RequestStruct]) -> RequestStruct:
        if request.API_VERSION < 7:
            return request(self._group_id, [(self._topic, self._partitions)])
        topics = [(self._topic, self._partitions, _NO_TAGS)]
        return request(self._group_id, topics, self._require_stable, _NO_TAGS)


# --- Metadata -------------------------------------------------------------------------------------------------------


class Uuid(AbstractType[str]):
    """Sixteen bytes, as Kafka's own tools print them: URL-safe base64 without padding; "" for the zero id."""

    @classmethod
    def encode(cls, value: str) -> bytes:
        return urlsafe_b64decode(value + "==") if value else bytes(16)

    @classmethod
    def decode(cls, data: BytesIO) -> str:
        raw = data.read(16)
        if len(raw) != 16:
            raise ValueError("Buffer underrun decoding a UUID")
        return urlsafe_b64encode(raw).rstrip(b"=").decode() if any(raw) else ""


class MetadataResponse_v10(Response):  # noqa: N801
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
                ("name", _TEXT),
                ("topic_id", Uuid),
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
        ("authorized_operations", Int32),
        _TAGS,
    )


class MetadataRequest_v10(RequestStruct):  # noqa: N801
    API_KEY = 3
    API_VERSION = 10
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = MetadataResponse_v10
    SCHEMA = Schema(
        ("topics", CompactArray(("topic_id", Uuid), ("name", _TEXT), _TAGS)),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
        _TAGS,
    )


class TopicIds(Request[MetadataRequest_v2 | MetadataRequest_v4 | MetadataRequest_v10]):
    """Ask for the cluster id and the topic ids (KIP-516). Brokers before 2.8 have no topic ids and answer without."""

    API_KEY = 3

    def __init__(self, topics: Sequence[str]) -> None:
        self._topics = list(topics)

    def build(self, request: type[RequestStruct]) -> RequestStruct:
        if request.API_VERSION < 4:
            return request(self._topics)
        if request.API_VERSION < 10:
            return request(self._topics, False)
        return request([("", topic, _NO_TAGS) for topic in self._topics], False, False, False, _NO_TAGS)


def topic_ids(response: Any) -> tuple[str, dict[str, str]]:
    """The cluster id and each topic's id out of an answer to `TopicIds`; "" where the broker does not say.

    Raises:
        KafkaError: what the broker answered about one of the topics.
    """
    ids = {}
    for row in response.topics:
        code, name = row[0], row[1]
        if code:
            raise errors.for_code(code)(name)
        ids[name] = row[2] if response.API_VERSION >= 10 else ""
    return response.cluster_id or "", ids
