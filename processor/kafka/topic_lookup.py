"""Look a topic up: it exists, it does not, this client may not see it, or no broker says.

The library asks for a missing topic until its request timeout has passed, and the error it raises then is the one of a
broker that did not answer.
"""

from __future__ import annotations

import asyncio
import difflib
import time
from collections.abc import Collection
from typing import Any, Final

from aiokafka.errors import (
    KafkaError,
    LeaderNotAvailableError,
    RequestTimedOutError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
    for_code,
)
from aiokafka.protocol.metadata import MetadataRequest

from processor.kafka.client import Client
from processor.kafka.errors import PermissionMissing, TopicMissing, translate

MISSING_AFTER_S: Final = 1.0
"""How long brokers must say that there is no such topic: a topic made a moment ago is not known to all of them yet."""
_ASK_AGAIN_S: Final = 0.1
_SIMILAR: Final = 3
_SIMILARITY: Final = 0.6


async def find_topic(client: Client, topic: str, *, missing_after_s: float, timeout_s: float) -> int:
    """Number of partitions of a topic. Asking does not create it.

    Raises:
        TopicMissing: for `missing_after_s` every answer said so.
        PermissionMissing: this principal may not describe it.
        BrokerRefused: the name is none.
        BrokerUnavailable: no broker answered, or the topic had no leader, for `timeout_s`.
    """
    reason: KafkaError = RequestTimedOutError("no broker says whether it exists")
    missing_since: float | None = None
    client.add_topic(topic)
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                is_answered = await client.force_metadata_update()
                partitions = client.cluster.partitions_for_topic(topic)
                if partitions:
                    return len(partitions)
                code = client.topic_errors.get(topic, 0) if is_answered else 0
                if code == UnknownTopicOrPartitionError.errno:
                    missing_since = time.monotonic() if missing_since is None else missing_since
                    if time.monotonic() - missing_since >= missing_after_s:
                        break
                else:
                    missing_since = None
                    reason = _reason(topic, code) if is_answered else reason
                await asyncio.sleep(_ASK_AGAIN_S)
    except TimeoutError:
        if missing_since is None:
            raise translate(reason, f"topic {topic}") from None
    raise TopicMissing(topic, await similar_topics(client, topic))


def _reason(topic: str, code: int) -> KafkaError:
    """The error of a topic that has no partitions to show. Raises what no further question will change."""
    if code == TopicAuthorizationFailedError.errno:
        raise PermissionMissing(
            f"topic {topic}: refused (not authorized)",
            hint="grant this principal Read on it; one that may not describe it is told the same "
            "of a topic that does not exist",
        )
    error = for_code(code)(topic) if code else LeaderNotAvailableError("none of its partitions has a leader yet")
    if not error.retriable:
        raise translate(error, f"topic {topic}")
    return error


async def similar_topics(client: Client, topic: str) -> tuple[str, ...]:
    """The topics that this client may see whose names are most like `topic`; none where no broker says."""
    for node_id in client.nodes():
        try:
            metadata = await client.send(node_id, MetadataRequest(None, allow_auto_topic_creation=False))
        except (KafkaError, TimeoutError):
            continue
        return most_like(topic, _names(metadata))
    return ()


def most_like(topic: str, names: Collection[str]) -> tuple[str, ...]:
    """The names that are most like `topic`, the likest first. A prefix or a suffix that lacks is no difference."""
    within = [name for name in sorted(names) if topic in name or (name and name in topic)]
    close = difflib.get_close_matches(topic, sorted(names), n=_SIMILAR, cutoff=_SIMILARITY)
    return tuple(dict.fromkeys([*close, *within]))[:_SIMILAR]


def _names(metadata: Any) -> list[str]:
    """Topics of an answer to a request for all, the brokers' own left out."""
    return [row[1] for row in metadata.topics if not row[0] and not (metadata.API_VERSION and row[2])]
