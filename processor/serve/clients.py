"""Build a worker's consumer and writer from the settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from processor.config.settings import Settings
from processor.errors import RunStepsError
from processor.kafka.client_config import Connection
from processor.kafka.consumer import Consumer, RebalanceListener
from processor.kafka.errors import RecordTooLarge
from processor.kafka.writer import IdempotentWriter, TransactionalWriter, Writer
from processor.serve.topics import HEADERS_BYTES, SPARE_BYTES, checkpoint_record_bytes

_REJOIN_S: Final = 5.0  # for what comes between a drain and the join


def build_consumer(
    settings: Settings, connection: Connection, *, client_id: str, listener: RebalanceListener
) -> Consumer:
    source, delivery = settings.source, settings.delivery
    return Consumer(
        connection,
        topic=source.topic,
        group_id=source.group_id,
        client_id=client_id,
        instance_id=source.instance_id or None,
        session_timeout_ms=source.session_timeout_ms,
        heartbeat_interval_ms=source.heartbeat_interval_ms,
        # The group waits for a drain, and a drain that is not done in its time is given up.
        rebalance_timeout_ms=min(source.rebalance_timeout_ms, int((delivery.drain_timeout_s + _REJOIN_S) * 1000)),
        fetch_max_bytes=source.fetch_max_bytes,
        partition_fetch_bytes=min(source.partition_fetch_bytes, source.fetch_max_bytes),
        listener=listener,
    )


def build_writer(
    settings: Settings, connection: Connection, consumer: Consumer, *, transactional_id: str, limits: Mapping[str, int]
) -> Writer:
    """The writer of `delivery.mode`.

    Args:
        limits: the largest batch of each topic that it writes to.
    """
    source, delivery = settings.source, settings.delivery
    compression = None if delivery.compression == "none" else delivery.compression
    if delivery.mode == "exactly_once":
        return TransactionalWriter(
            connection,
            transactional_id=transactional_id,
            group_id=source.group_id,
            source_topic=source.topic,
            token_now=consumer.token,
            transaction_timeout_ms=delivery.transaction_timeout_ms,
            commit_timeout_s=delivery.commit_timeout_s,
            compression=compression,
            limits=limits,
        )
    return IdempotentWriter(
        connection,
        claim=consumer.claim,
        token_now=consumer.token,
        commit_timeout_s=delivery.commit_timeout_s,
        compression=compression,
        limits=limits,
    )


def name_the_setting(error: RunStepsError, settings: Settings) -> RunStepsError:
    """Name in the hint of a `RecordTooLarge` the settings that decide it, and where the record is; returns it."""
    if not isinstance(error, RecordTooLarge):
        return error
    needed, source = settings.output.max_record_bytes + HEADERS_BYTES, settings.source.topic
    remedy = "or lower output.max_record_bytes, on all workers"
    if error.topic == settings.checkpoint_topic:
        needed, remedy = checkpoint_record_bytes(settings), "or lower steps.max_step_bytes, on all workers"
    elif error.topic == settings.output.dead_letter:
        remedy = f"and {HEADERS_BYTES} more than {source} takes"
    error.hint = (
        f"set max.message.bytes and segment.bytes of the topic to at least {max(needed, error.size) + SPARE_BYTES}, "
        f"{remedy}; of its unit nothing was written and no offset committed: a restart reads the same records of "
        f"{source} again"
    )
    return error
