"""Topics and offsets as an operator needs them: asked for without side effects, and judged."""

from __future__ import annotations

import pytest

from processor.broker import Broker
from processor.errors import BrokerRefused
from processor.kafka.admin import Admin, NewTopicFacts, check_topics
from processor.kafka.client_config import Connection
from processor.kafka.consumer import Committed
from tests.broker.kafka_members import member
from tests.kafka_tools import Names, remake_topics


async def test_topics_are_created_described_and_judged(broker: Broker, names: Names) -> None:
    source, sink, kept = names.topic("in"), names.topic("out"), names.topic("in.checkpoints")
    async with Admin(Connection.build(broker.bootstrap)) as admin:
        assert await admin.topics([source, sink, kept]) == {}
        await admin.create(
            [
                NewTopicFacts(source, 3),
                NewTopicFacts(sink, 1, {"max.message.bytes": "2000"}),
                NewTopicFacts(kept, 2, {"cleanup.policy": "compact,delete"}),
            ]
        )
        found = await admin.topics([source, sink, kept, names.topic("other")])
        assert sorted(found) == sorted([source, sink, kept])
        assert (found[source].partitions, found[source].replicas) == (3, 1)
        assert found[sink].max_message_bytes == 2000
        problems = check_topics(found, source=source, outputs=[sink, "gone"], checkpoints=kept, max_record_bytes=4000)
        await admin.create([NewTopicFacts(source, 9)])
        assert (await admin.topics([source]))[source].partitions == 3, "what exists is left as it is"
        with pytest.raises(BrokerRefused, match=r"max\.message\.bytes"):
            await admin.create([NewTopicFacts(names.topic("bad"), 1, {"max.message.bytes": "no"})])
    assert [problem.split(";")[0] for problem in problems] == [
        "topic gone: missing",
        f"topic {kept}: must be compacted and nothing else (got compact,delete)",
        f"topic {kept}: fewer partitions than {source} (got 2)",
        f"topic {sink}: max.message.bytes is too small (got 2000)",
    ]


async def test_a_topic_made_anew_has_another_id(broker: Broker, names: Names) -> None:
    topic = names.topic("in")
    async with Admin(Connection.build(broker.bootstrap)) as own:
        await own.create([NewTopicFacts(topic, 1)])
        first = await own.cluster_topics([topic])
        assert first.cluster_id
        assert first.ids[topic]
        remake_topics(broker.bootstrap, topic, partitions=1)
        second = await own.cluster_topics([topic])
        assert second.cluster_id == first.cluster_id
        assert second.ids[topic] != first.ids[topic]


async def test_a_groups_offsets_come_with_their_metadata(broker: Broker, names: Names) -> None:
    source = names.topic("in")
    async with Admin(Connection.build(broker.bootstrap)) as admin:
        await admin.create([NewTopicFacts(source, 2)])
        assert await admin.group_offsets(names.group) == {}
        async with member(broker.bootstrap, source, names.group) as consumer:
            await consumer.claim({1: Committed(5, "writer=me")})
        assert await admin.group_offsets(names.group) == {(source, 1): Committed(5, "writer=me")}
