"""A broker that does not answer is not one that says no."""

from __future__ import annotations

import pytest

from processor.errors import BrokerRefused, BrokerUnavailable
from processor.kafka.client_config import Connection
from processor.kafka.consumer import GroupToken
from processor.kafka.records import OutRecord
from processor.kafka.writer import TransactionalWriter, Unit
from tests import kafka_tools as kt
from tests.faults.conftest import Behind
from tests.faults.proxy import Action, Api
from tests.kafka_tools import Names

_TOKEN = GroupToken(1, "member", None)


def _writer(behind: Behind, names: Names) -> TransactionalWriter:
    return TransactionalWriter(
        Connection.build(bootstrap_servers=behind.cluster.client_bootstrap, request_timeout_ms=500),
        transactional_id=names.topic("writer"),
        group_id=names.group,
        source_topic=names.topic("in"),
        token_now=lambda: _TOKEN,
        commit_timeout_s=15,
    )


async def test_topics_that_no_broker_tells_of_are_not_missing(behind: Behind, names: Names) -> None:
    topic = names.topic("out")
    writer = _writer(behind, names)
    await writer.start()
    kt.create_topics(behind.cluster.bootstrap, topic)  # after the start, which asks for all topics that there are
    rule = behind.proxy.arm(Api.METADATA, Action.DROP_ANSWER, times=1000)
    try:
        with pytest.raises(BrokerUnavailable):
            await writer.commit(Unit(_TOKEN, [OutRecord(topic, 0, b"k", b"v", 1, ())]))
        assert rule.has_fired()
    finally:
        behind.proxy.disarm()
        await writer.stop(2)


async def test_a_topic_that_a_broker_denies_is_missing(behind: Behind, names: Names) -> None:
    writer = _writer(behind, names)
    await writer.start()
    try:
        with pytest.raises(BrokerRefused, match="create the topic"):
            await writer.commit(Unit(_TOKEN, [OutRecord(names.topic("none"), 0, b"k", b"v", 1, ())]))
    finally:
        await writer.stop(2)
