# mypy: allow-subclassing-any
"""Admin requests: create and describe topics, read and set a group's offsets, check settings of topics."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from functools import partial
from typing import Any, Final, NamedTuple, Self

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    NodeNotReadyError,
    RequestTimedOutError,
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
    for_code,
)
from aiokafka.protocol.commit import OffsetCommitRequest
from aiokafka.protocol.metadata import MetadataRequest

from processor.errors import BrokerRefused, BrokerUnavailable, UsageError
from processor.kafka import aiokafka_compat as pinned
from processor.kafka import error_codes, wire
from processor.kafka.aiokafka_compat import with_globals
from processor.kafka.client import Client
from processor.kafka.client_config import Connection
from processor.kafka.consumer import Committed
from processor.kafka.diagnosis import explained
from processor.kafka.errors import OffsetsUnstable, PermissionMissing, TopicMissing, translate, translated
from processor.kafka.topic_lookup import similar_topics

_BATCH_OVERHEAD_BYTES: Final = 61
_USUAL_REPLICAS: Final = 3
_UNKNOWN_TOPIC: Final = 3
_SETTLED_S: Final = 0.05
_TIMESTAMP_LIMITS: Final = (
    "message.timestamp.before.max.ms",
    "message.timestamp.after.max.ms",
    "message.timestamp.difference.max.ms",
)
_NO_SUCH_BROKER: Final = "this broker does not do all that is needed: docs/compatibility.md"
_NEEDED_SETTINGS: Final = ("cleanup.policy", "max.message.bytes")
BATCH_LIMITS: Final = ("max.message.bytes", "segment.bytes")
"""Topic settings of which the lower one limits a batch: a segment holds batches whole."""
_NUMBERS: Final = (*BATCH_LIMITS, "min.insync.replicas", *_TIMESTAMP_LIMITS)
_NO_TIMESTAMP_LIMIT_MS: Final = (1 << 63) - 1
_NOT_YET: Final = frozenset({14, 15, 16})  # the group's coordinator is loading, unknown, or another: nothing was done
REQUESTS: Final[Mapping[str, int]] = {
    "Produce": 0, "Fetch": 1, "ListOffsets": 2, "Metadata": 3, "OffsetCommit": 8, "OffsetFetch": 9,
    "FindCoordinator": 10, "JoinGroup": 11, "Heartbeat": 12, "LeaveGroup": 13, "SyncGroup": 14, "DescribeGroups": 15,
    "CreateTopics": 19, "InitProducerId": 22, "AddPartitionsToTxn": 24, "AddOffsetsToTxn": 25, "EndTxn": 26,
    "TxnOffsetCommit": 28, "DescribeConfigs": 32,
}  # fmt: skip
"""Requests by name: their API keys."""
_HAS_MEMBERS: Final = (22, 25, 27)  # ILLEGAL_GENERATION, UNKNOWN_MEMBER_ID, REBALANCE_IN_PROGRESS


class TopicFacts(NamedTuple):
    """Partitions, replicas and settings of a topic. `configs` holds every setting in force, defaults included."""

    name: str
    partitions: int
    replicas: int
    configs: Mapping[str, str]

    @property
    def max_message_bytes(self) -> int:
        return int(self.configs["max.message.bytes"])

    @property
    def max_batch_bytes(self) -> int:
        """The largest batch that the topic takes."""
        return min(value for _, value in self._batch_limits)

    def limits_below(self, needed: int) -> list[tuple[str, int]]:
        """The settings that keep a batch of `needed` bytes out, with their values."""
        return [(key, value) for key, value in self._batch_limits if value < needed]

    @property
    def _batch_limits(self) -> list[tuple[str, int]]:
        return [(key, int(self.configs[key])) for key in BATCH_LIMITS if key in self.configs]

    @property
    def cleanup(self) -> frozenset[str]:
        return frozenset(self.configs["cleanup.policy"].split(","))


class ClusterTopics(NamedTuple):
    """A cluster's id and its topics' ids. One that was deleted and created again has its old name and another id."""

    cluster_id: str
    ids: Mapping[str, str]


class NewTopicFacts(NamedTuple):
    """A topic to create. Without `replicas`: three, or as many as there are brokers."""

    name: str
    partitions: int
    configs: Mapping[str, str] = {}
    replicas: int | None = None


class Admin:
    """Use as `async with Admin(connection) as admin`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.timeout_s = connection.request_timeout_ms / 1000
        self.where = f"admin at {connection.bootstrap_servers}"
        self._admin: _AdminClient | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Connect. Raises `BrokerRefused` or `BrokerUnavailable` with the cause."""
        pinned.verify()
        admin = self._admin = _AdminClient(**self._connection.kwargs())
        try:
            async with explained(self._connection, self.where), asyncio.timeout(self.timeout_s):
                await admin.start()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        if self._admin is not None:
            self._admin._client.abort()
            await self._admin.close()

    async def require_requests(self, names: Collection[str], hint: str = _NO_SUCH_BROKER) -> None:
        """See that the broker knows these requests (`REQUESTS`), in any version.

        Raises:
            BrokerRefused: it does not: it only speaks a part of Kafka's protocol.
        """
        with translated(self.where):
            async with asyncio.timeout(self.timeout_s):
                known = await self.client()._client.known_requests()
        lacking = [name for name in names if REQUESTS[name] not in known]
        if lacking:
            raise BrokerRefused(
                f"{self.where}: the broker's answer to ApiVersions lacks {', '.join(lacking)}", hint=hint
            )

    async def topics(self, names: Collection[str]) -> dict[str, TopicFacts]:
        """The facts of those among `names` that exist; asking does not create them."""
        with translated(self.where):
            async with asyncio.timeout(self.timeout_s):
                rows = (
                    {row["topic"]: row for row in await self.client().describe_topics(sorted(names))} if names else {}
                )
                found = [name for name, row in rows.items() if row["error_code"] != _UNKNOWN_TOPIC]
                for name in found:
                    _raise_for(rows[name]["error_code"], name)
                configs = await self._configs(found)
        for name in found:
            if not rows[name]["partitions"]:
                raise BrokerRefused(
                    f"topic {name}: the broker's answer to Metadata names no partition of it",
                    hint="a topic that is being made or deleted has none for a moment: start again",
                )
        return {
            name: TopicFacts(
                name, len(rows[name]["partitions"]), len(rows[name]["partitions"][0]["replicas"]), configs[name]
            )
            for name in found
        }

    async def require_topics(self, names: Collection[str]) -> dict[str, TopicFacts]:
        """The facts of topics that must all exist. Raises `TopicMissing` for the first that does not."""
        found = await self.topics(names)
        for name in names:
            if name not in found:
                raise TopicMissing(name, await similar_topics(self.client()._client, name))
        return found

    async def cluster_topics(self, names: Collection[str]) -> ClusterTopics:
        """The cluster's id, and the ids of these topics, all of which must exist ("" from brokers older than 2.8)."""
        with translated(self.where):
            async with asyncio.timeout(self.timeout_s):
                return ClusterTopics(*wire.topic_ids(await self.client()._send_request(wire.TopicIds(sorted(names)))))

    async def create(self, topics: Iterable[NewTopicFacts]) -> None:
        """Create topics and wait until every client can find them. One that exists already is left as it is.

        Raises:
            BrokerRefused: the broker does not allow it, or not with these settings; the others may exist by then.
        """
        wanted = {topic.name: topic for topic in topics}
        if not wanted:
            return
        admin = self.client()
        await self.require_requests(["CreateTopics"])
        with translated(self.where):
            async with asyncio.timeout(self.timeout_s):
                brokers = len((await admin.describe_cluster())["brokers"])
                answer = await admin.create_topics(
                    [
                        NewTopic(
                            topic.name,
                            topic.partitions,
                            topic.replicas or min(_USUAL_REPLICAS, brokers),
                            topic_configs=dict(topic.configs),
                        )
                        for topic in wanted.values()
                    ]
                )
                for name, code, text in answer.topic_errors:
                    if code != TopicAlreadyExistsError.errno:
                        _raise_for(code, name, text)
                while len(await self.topics(wanted)) < len(wanted):  # noqa: ASYNC110 - the broker has no event for it
                    await asyncio.sleep(_SETTLED_S)

    async def group_offsets(self, group_id: str) -> dict[tuple[str, int], Committed]:
        """Committed offsets of a group, by topic and partition; pending transactions do not count."""
        with translated(f"group {group_id}"):
            async with asyncio.timeout(self.timeout_s):
                try:
                    rows = await _patiently(partial(self.client().list_consumer_group_offsets, group_id))
                except TypeError as error:  # upstream reads the list of topics without looking whether there is one
                    raise BrokerRefused(
                        f"group {group_id}: the broker's answer to OffsetFetch has no list of topics",
                        hint=_NO_SUCH_BROKER,
                    ) from error
        return {(tp.topic, tp.partition): Committed(row.offset, row.metadata or "") for tp, row in rows.items()}

    async def members(self, group_id: str) -> list[str]:
        """The client ids of all members of a group; none where it is empty or does not exist."""
        with translated(f"group {group_id}"):
            async with asyncio.timeout(self.timeout_s):
                answers = await _patiently(partial(self._described, group_id))
        clients = []
        for code, _, _, _, _, members, *_ in answers[0].groups:
            _raise_for(code, group_id)
            clients += [member[1] for member in members]
        return sorted(clients)

    async def stable_offsets(self, group_id: str, topic: str, partitions: Collection[int]) -> dict[int, Committed]:
        """Committed offsets of a group for a topic; offset -1 where there is none.

        Raises:
            OffsetsUnstable: a transaction that is still open may change them.
        """
        request = wire.OffsetFetch(group_id, topic, sorted(partitions), require_stable=True)
        with translated(f"group {group_id}"):
            async with asyncio.timeout(self.timeout_s):
                response = await _patiently(partial(self._fetched_offsets, group_id, request))
        rows = [row for _, rows in response.topics for row in rows]
        unstable = [partition for partition, *_, code in rows if error_codes.UNSTABLE in (code, response.error_code)]
        if unstable:
            raise OffsetsUnstable(
                f"group {group_id}: offsets of partitions {sorted(unstable)} are pending", partitions=unstable
            )
        _raise_for(response.error_code, group_id)
        for partition, _, _, code in rows:
            _raise_for(code, f"{topic}-{partition}")
        return {partition: Committed(offset, text or "") for partition, offset, text, _ in rows}

    async def commit_offsets(self, group_id: str, topic: str, offsets: Mapping[int, Committed]) -> None:
        """Set a group's offsets without being a member. Sent again only after a refusal; the broker takes
        it of an empty group alone, so a late copy finds no workers' offsets to change.

        Raises:
            UsageError: the group has members; nothing was changed.
        """
        rows = [(partition, offset, text) for partition, (offset, text) in sorted(offsets.items())]
        request = OffsetCommitRequest(group_id, -1, "", -1, [(topic, rows)])
        with translated(f"group {group_id}"):
            async with asyncio.timeout(self.timeout_s):
                while True:
                    response = await self._ask_coordinator(group_id, request)
                    codes = {p: code for _, answers in response.topics for p, code in answers}
                    if not _NOT_YET & set(codes.values()):
                        break
                    await asyncio.sleep(_SETTLED_S)
        for partition, code in codes.items():
            if code in _HAS_MEMBERS:
                raise UsageError(
                    f"group {group_id}: has members; nothing was changed", hint="stop all workers of the group first"
                )
            _raise_for(code, f"{topic}-{partition}")

    async def _described(self, group_id: str) -> Any:
        answers = await self.client().describe_consumer_groups([group_id])
        _raise_not_yet({code for code, *_ in answers[0].groups}, group_id)
        return answers

    async def _fetched_offsets(self, group_id: str, request: Any) -> Any:
        response = await self._ask_coordinator(group_id, request)
        _raise_not_yet({response.error_code, *(row[3] for _, rows in response.topics for row in rows)}, group_id)
        return response

    async def _ask_coordinator(self, group_id: str, request: Any) -> Any:
        admin = self.client()
        return await admin._send_request(request, await admin.find_coordinator(group_id))

    async def _configs(self, names: Collection[str]) -> dict[str, dict[str, str]]:
        if not names:
            return {}
        await self.require_requests(["DescribeConfigs"])
        answers = await self.client().describe_configs(
            [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
        )
        configs = {}
        for code, text, _, name, entries in answers[0].resources:
            if code == TopicAuthorizationFailedError.errno:
                raise PermissionMissing(
                    f"topic {name}: its settings may not be read (Topic authorization failed)",
                    hint="grant this principal DescribeConfigs on every topic of [source], [output] and [checkpoints]",
                )
            _raise_for(code, name, text)
            configs[name] = {key: value for key, value, *_ in entries if value is not None}
            _require_settings(name, configs[name])
        return configs

    def client(self) -> _AdminClient:
        """The library's client. Raises `BrokerUnavailable` before `start`."""
        if self._admin is None:
            raise BrokerUnavailable(f"{self.where}: not started")
        return self._admin


def _require_settings(name: str, configs: Mapping[str, str]) -> None:
    """Require the settings that have no safe default. Some brokers that only speak Kafka's protocol leave them out."""
    lacking = [key for key in _NEEDED_SETTINGS if key not in configs]
    no_number = [key for key in _NUMBERS if not configs.get(key, "0").lstrip("-").isdigit()]
    if lacking or no_number:
        what = " and ".join(
            [f"lacks {key}" for key in lacking]
            + [f"has {key} as no number (got {configs[key]!r:.40})" for key in no_number]
        )
        raise BrokerRefused(
            f"topic {name}: the broker's answer to DescribeConfigs {what}",
            hint=_NO_SUCH_BROKER,
        )


def check_topics(
    found: Mapping[str, TopicFacts],
    *,
    source: str,
    outputs: Collection[str],
    checkpoints: str,
    max_record_bytes: int,
) -> list[str]:
    """Faults of the topics, one line each with its remedy; empty when there are none.

    Args:
        outputs: every topic that we write to, checkpoints apart.
        max_record_bytes: the largest record that we write.
    """
    problems = [
        f"topic {name}: missing; create it, or start with --create-topics"
        for name in sorted({source, *outputs, checkpoints})
        if name not in found
    ]
    kept, log = found.get(checkpoints), found.get(source)
    if log is not None and "compact" in log.cleanup:
        problems.append(f"topic {source}: compacted, which loses events; set cleanup.policy=delete")
    if kept is not None and kept.cleanup != {"compact"}:
        got = ",".join(sorted(kept.cleanup))
        problems.append(
            f"topic {checkpoints}: must be compacted and nothing else (got {got}); set cleanup.policy=compact"
        )
    if kept is not None and log is not None and kept.partitions < log.partitions:
        problems.append(
            f"topic {checkpoints}: fewer partitions than {source} (got {kept.partitions}); "
            f"add {log.partitions - kept.partitions}"
        )
    for name in sorted(set(outputs)):
        topic = found.get(name)
        if topic is not None and topic.configs.get("message.timestamp.type") == "LogAppendTime":
            problems.append(
                f"topic {name}: overwrites the source records' timestamps (message.timestamp.type=LogAppendTime); "
                "set message.timestamp.type=CreateTime, or no replay can show that the outputs are the log's"
            )
        problems += _tighter_timestamps(topic, log) if topic is not None and log is not None else ()
    for name in sorted({*outputs, checkpoints}):
        topic = found.get(name)
        in_sync = int(topic.configs.get("min.insync.replicas", "1")) if topic is not None else 1
        if topic is not None and in_sync > topic.replicas:
            problems.append(
                f"topic {name}: no write can succeed: min.insync.replicas is {in_sync}, and it has {topic.replicas} "
                f"replicas; set min.insync.replicas={max(1, topic.replicas - 1)}, or add replicas"
            )
        needed = max_record_bytes + _BATCH_OVERHEAD_BYTES
        for key, value in topic.limits_below(needed) if topic is not None else ():
            problems.append(f"topic {name}: {key} is too small (got {value}); set at least {needed}")
    return problems


def retention_ms(topic: TopicFacts) -> int | None:
    """Retention of a topic by time; None: unlimited."""
    kept = topic.configs.get("retention.ms", "-1")
    return int(kept) if "delete" in topic.cleanup and kept.isdigit() else None


def takes_timestamp(topic: TopicFacts, timestamp: int, now_ms: int) -> bool:
    """Whether the topic takes a record of this time, in ms. With LogAppendTime it writes its own."""
    if topic.configs.get("message.timestamp.type") == "LogAppendTime":
        return True
    before_ms, after_ms, either_ms = (
        int(topic.configs.get(setting, _NO_TIMESTAMP_LIMIT_MS)) for setting in _TIMESTAMP_LIMITS
    )
    return -min(after_ms, either_ms) <= now_ms - timestamp <= min(before_ms, either_ms)


def _tighter_timestamps(topic: TopicFacts, source: TopicFacts) -> list[str]:
    """Timestamp limits stricter than the source's: a published record has the timestamp of its source record.

    A source with LogAppendTime has no timestamps but the broker's own.
    """
    if source.configs.get("message.timestamp.type") == "LogAppendTime":
        return []
    problems = []
    for setting in _TIMESTAMP_LIMITS:
        limit = int(topic.configs.get(setting, _NO_TIMESTAMP_LIMIT_MS))
        taken = int(source.configs.get(setting, _NO_TIMESTAMP_LIMIT_MS))
        if limit < taken:
            problems.append(
                f"topic {topic.name}: refuses timestamps that {source.name} takes "
                f"({setting} is {limit}, there {taken}); set {setting}={taken}"
            )
    return problems


async def _patiently(ask: Callable[[], Awaitable[Any]]) -> Any:
    """Repeat a request until the coordinator is there: a new cluster creates the offsets topic on the first request."""
    while True:
        try:
            return await ask()
        except KafkaError as error:
            if not error.retriable:
                raise
        await asyncio.sleep(_SETTLED_S)


def _raise_not_yet(codes: Collection[int], name: str) -> None:
    """Raise the errors that `_patiently` retries: the coordinator is loading, or is another broker."""
    if pending := _NOT_YET.intersection(codes):
        raise for_code(min(pending))(name)


def _raise_for(code: int, name: str, text: str | None = None) -> None:
    if code:
        error = for_code(code)(text or name)
        raise translate(error, f"topic {name}")


class _AdminClient(AIOKafkaAdminClient):
    """Upstream's admin with our client; asking for a topic does not create it."""

    __init__ = with_globals(AIOKafkaAdminClient.__init__, AIOKafkaClient=Client)
    _get_cluster_metadata = with_globals(
        AIOKafkaAdminClient._get_cluster_metadata,
        MetadataRequest=partial(MetadataRequest, allow_auto_topic_creation=False),
    )

    async def _send_request(self, request: Any, node_id: Any = None) -> Any:
        """As upstream; what any broker can answer is asked of the next one if one does not."""
        if node_id is not None:
            return await super()._send_request(request, node_id)
        failure: KafkaError = NodeNotReadyError("no broker is known")
        for node in self._client.nodes():
            try:
                return await self._client.send(node, request)
            except (KafkaConnectionError, NodeNotReadyError, RequestTimedOutError) as error:
                failure = error
        raise failure

    async def _send_to_controller(self, request: Any) -> Any:
        """As upstream, which does not expect that no broker is the controller: there is none amid an outage."""
        if self._client.cluster.controller is None:
            await self._client.force_metadata_update()
        if self._client.cluster.controller is None:
            raise NodeNotReadyError("no controller is known")
        return await super()._send_to_controller(request)
