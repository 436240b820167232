"""Check the topics that a worker needs, or create them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from processor.config.settings import Settings
from processor.errors import ConfigError
from processor.kafka.admin import Admin, NewTopicFacts, TopicFacts, check_topics, retention_ms
from processor.kafka.client_config import Connection

_SOURCE_PARTITIONS: Final = 6
HEADERS_BYTES: Final = 16 << 10
"""What a record's headers may add to its value."""
SPARE_BYTES: Final = 4096
"""What a topic is given beyond what its largest record needs."""
_CHECKPOINT_GROWTH: Final = 5
_CHECKPOINT_FRAME_BYTES: Final = 256 << 10
_LATER: Final = "message.timestamp.after.max.ms"
_DAY_MS: Final = 86_400_000
_REQUESTS: Final = (
    "Produce", "Fetch", "ListOffsets", "Metadata", "OffsetFetch", "FindCoordinator", "JoinGroup", "Heartbeat",
    "LeaveGroup", "SyncGroup", "DescribeGroups", "DescribeConfigs",
)  # fmt: skip
_OF_TRANSACTIONS: Final = ("InitProducerId", "AddPartitionsToTxn", "AddOffsetsToTxn", "EndTxn", "TxnOffsetCommit")
_NO_TRANSACTIONS: Final = 'Apache Kafka 2.5 or newer is needed, or set [delivery] mode = "at_least_once"'


def checkpoint_record_bytes(settings: Settings) -> int:
    """The largest checkpoint that can be: an object and deltas at their limit, four bytes to the character, a frame."""
    return _CHECKPOINT_GROWTH * settings.steps.max_step_bytes + _CHECKPOINT_FRAME_BYTES


def _largest_step_bytes(max_message_bytes: int) -> int:
    """The largest steps.max_step_bytes whose checkpoints a topic takes."""
    return max(1024, (max_message_bytes - _CHECKPOINT_FRAME_BYTES) // _CHECKPOINT_GROWTH)


async def check_or_create_topics(settings: Settings, connection: Connection, *, create: bool) -> dict[str, int]:
    """Check all topics, or create missing ones. Returns the largest batch that each topic takes that is written to.

    Raises:
        ConfigError: all that is wrong with them, a line each.
        BrokerRefused: the broker does not know a request that a worker sends, or refuses one.
        BrokerUnavailable
    """
    source, dead_letter, checkpoints = settings.source.topic, settings.output.dead_letter, settings.checkpoint_topic
    outcomes = sorted({topic for topic in settings.outcome_topics.values() if topic})
    async with Admin(connection) as admin:
        await admin.require_requests([*_REQUESTS, *(["CreateTopics"] if create else [])])
        if settings.delivery.mode == "exactly_once":
            await admin.require_requests(_OF_TRANSACTIONS, hint=_NO_TRANSACTIONS)
        found = await admin.topics([source, dead_letter, checkpoints, *outcomes])
        if create:
            partitions = found[source].partitions if source in found else _SOURCE_PARTITIONS
            largest = found[source].max_message_bytes if source in found else 1 << 20
            wanted = [
                NewTopicFacts(source, partitions),
                *(NewTopicFacts(topic, partitions, _size(settings.output.max_record_bytes)) for topic in outcomes),
                NewTopicFacts(dead_letter, partitions, _size(max(largest, settings.output.max_record_bytes))),
                NewTopicFacts(
                    checkpoints,
                    partitions,
                    {"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.1"}
                    | _size(checkpoint_record_bytes(settings)),
                ),
            ]
            missing = [topic for topic in wanted if topic.name not in found]
            if missing:
                await admin.create(missing)
                found = await admin.topics([source, dead_letter, checkpoints, *outcomes])
    problems = topic_problems(settings, found)
    if problems:
        raise ConfigError("\n".join(problems), hint="--create-topics makes what is missing; it changes no topic")
    return {name: found[name].max_batch_bytes for name in (dead_letter, checkpoints, *outcomes)}


def topic_problems(settings: Settings, found: Mapping[str, TopicFacts]) -> list[str]:
    """Faults of the topics that a worker refuses at start, one line each with its remedy."""
    source, dead_letter, checkpoints = settings.source.topic, settings.output.dead_letter, settings.checkpoint_topic
    outcomes = sorted({topic for topic in settings.outcome_topics.values() if topic})
    problems = check_topics(
        found,
        source=source,
        outputs=[dead_letter, *outcomes],
        checkpoints=checkpoints,
        max_record_bytes=settings.output.max_record_bytes + HEADERS_BYTES,
    )
    if dead_letter in found and "compact" in found[dead_letter].cleanup:
        problems.append(
            f"topic {dead_letter}: compacted, which loses dead letters: of those with one key all but the last, and "
            "it takes none without a key; set cleanup.policy=delete"
        )
    if source in found and dead_letter in found:
        needed = found[source].max_batch_bytes + HEADERS_BYTES
        for key, value in found[dead_letter].limits_below(needed):
            problems.append(
                f"topic {dead_letter}: {key} is too small to take any record of {source} (got {value}); "
                f"set at least {needed}"
            )
    if checkpoints in found:
        needed = checkpoint_record_bytes(settings)
        for key, value in found[checkpoints].limits_below(needed):
            problems.append(
                f"topic {checkpoints}: {key} is too small for a step of steps.max_step_bytes (got {value}); set at "
                f"least {needed}, or steps.max_step_bytes = {_largest_step_bytes(value)} at most, on all workers"
            )
    return problems


def topic_warnings(settings: Settings, found: Mapping[str, TopicFacts]) -> list[str]:
    """Faults of the topics that do not keep a worker from starting, one line each with its remedy."""
    source = found.get(settings.source.topic)
    if source is None:
        return []
    warnings = []
    kept_ms = retention_ms(source)
    for name in sorted({*filter(None, settings.outcome_topics.values()), settings.output.dead_letter}):
        own_ms = retention_ms(found[name]) if name in found else None
        if own_ms is not None and (kept_ms is None or own_ms < kept_ms):
            warnings.append(
                f"topic {name}: keeps records for less time than {source.name} (retention.ms is {own_ms}, there "
                f"{'unlimited' if kept_ms is None else kept_ms}), and a published record has its source record's "
                "timestamp, as a dead letter has: of what the source holds longer, brokers delete it at their next "
                "check; raise retention.ms there"
            )
    later_ms = int(source.configs.get(_LATER, "9223372036854775807"))
    if source.configs.get("message.timestamp.type") != "LogAppendTime" and later_ms > _DAY_MS:
        known = str(later_ms) if _LATER in source.configs else "not known to this broker"
        warnings.append(
            f"topic {source.name}: takes timestamps far ahead of the clock ({_LATER} is {known}): one such record "
            f"expires all open steps of its partition, and later ones do not expire; set {_LATER}=3600000 (Kafka 3.6 "
            "or newer)"
        )
    return warnings


def _size(record_bytes: int) -> dict[str, str]:
    return {"max.message.bytes": str(record_bytes + HEADERS_BYTES + SPARE_BYTES)}
