"""Answers of brokers that lack something, or refuse a batch: told by their name, never a bug of ours."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from processor.config.settings import Settings
from processor.errors import BrokerRefused
from processor.kafka.admin import REQUESTS, Admin, NewTopicFacts
from processor.kafka.client_config import Connection
from processor.kafka.errors import RecordTooLarge
from processor.serve.clients import name_the_setting

_WHOLE = (("cleanup.policy", "delete"), ("max.message.bytes", "1000012"), ("min.insync.replicas", "1"))


class _Answers:
    """What a broker says of one topic, as aiokafka's admin client hands it out."""

    def __init__(
        self, settings: Sequence[tuple[str, str | None]], partitions: int = 1, without: Sequence[str] = ()
    ) -> None:
        self._settings, self._partitions = settings, partitions
        self._known = frozenset(key for name, key in REQUESTS.items() if name not in without)
        self._client = self

    async def known_requests(self) -> frozenset[int]:
        return self._known

    async def describe_topics(self, names: list[str]) -> list[dict[str, Any]]:
        partition = {"replicas": [1]}
        return [{"topic": name, "error_code": 0, "partitions": [partition] * self._partitions} for name in names]

    async def describe_configs(self, asked: list[Any]) -> list[Any]:
        return [SimpleNamespace(resources=[(0, "", 2, one.name, list(self._settings)) for one in asked])]


async def _asked(answers: _Answers) -> dict[str, Any]:
    admin = Admin(Connection.build("127.0.0.1:1"))
    admin._admin = answers  # type: ignore[assignment]
    return dict(await admin.topics(["in"]))


async def test_a_broker_that_says_all_is_believed() -> None:
    assert (await _asked(_Answers(_WHOLE)))["in"].cleanup == {"delete"}


@pytest.mark.parametrize("missing", ["cleanup.policy", "max.message.bytes"])
async def test_a_setting_that_a_broker_leaves_out_is_named(missing: str) -> None:
    """tansu 0.6.0 answers DescribeConfigs without cleanup.policy: that was a KeyError, and 70."""
    with pytest.raises(BrokerRefused, match=f"topic in: .*DescribeConfigs lacks {missing}") as caught:
        await _asked(_Answers([(key, value) for key, value in _WHOLE if key != missing]))
    assert caught.value.exit_code == 77
    assert "docs/compatibility.md" in caught.value.hint


@pytest.mark.parametrize("value", [None, "", "unlimited"])
async def test_a_setting_that_is_no_number_is_named(value: str | None) -> None:
    settings = [(key, value if key == "max.message.bytes" else known) for key, known in _WHOLE]
    with pytest.raises(BrokerRefused, match=r"DescribeConfigs (lacks|has) max\.message\.bytes"):
        await _asked(_Answers(settings))


async def test_a_request_that_a_broker_does_not_know_is_named() -> None:
    """librdkafka's mock cluster knows neither: a start waited for a controller, which it never names."""
    admin = Admin(Connection.build("127.0.0.1:1"))
    admin._admin = _Answers(_WHOLE, without=["CreateTopics", "DescribeConfigs"])  # type: ignore[assignment]
    with pytest.raises(BrokerRefused) as caught:
        await admin.topics(["in"])
    assert caught.value.exit_code == 77
    assert caught.value.message.endswith("ApiVersions lacks DescribeConfigs")
    with pytest.raises(BrokerRefused, match="ApiVersions lacks CreateTopics"):
        await admin.create([NewTopicFacts("in", 1)])
    with pytest.raises(BrokerRefused, match="ApiVersions lacks CreateTopics, DescribeConfigs"):
        await admin.require_requests(["CreateTopics", "Fetch", "DescribeConfigs"])


async def test_offsets_without_a_list_of_topics_are_named() -> None:
    """librdkafka's mock cluster answers null where all topics are asked for: that was a TypeError, and 70."""

    async def list_consumer_group_offsets(_: str) -> None:
        for _ in None:  # type: ignore[attr-defined]
            pass

    admin = Admin(Connection.build("127.0.0.1:1"))
    admin._admin = SimpleNamespace(list_consumer_group_offsets=list_consumer_group_offsets)  # type: ignore[assignment]
    with pytest.raises(BrokerRefused, match="group g: the broker's answer to OffsetFetch has no list of topics"):
        await admin.group_offsets("g")


async def test_a_topic_without_partitions_is_named() -> None:
    with pytest.raises(BrokerRefused, match="names no partition"):
        await _asked(_Answers(_WHOLE, partitions=0))


def test_a_batch_that_is_too_large_is_told_as_that() -> None:
    assert "a record is larger" in str(RecordTooLarge("out", 7))
    told = str(RecordTooLarge("out", 7, records=3))
    assert "a batch of 3 records is larger than the topic takes" in told
    assert "segment.bytes" in told
    assert "the lower of max.message.bytes and segment.bytes is 5" in str(RecordTooLarge("out", 7, 5, records=3))


@pytest.mark.parametrize(
    ("topic", "names"),
    [
        ("run-steps.completed", ("to at least 1020480, or lower output.max_record_bytes",)),
        ("run-step-events.checkpoints", ("to at least 8130560, or lower steps.max_step_bytes",)),
        ("run-steps.dead-letter", ("to at least 1020480, and 16384 more than run-step-events takes",)),
    ],
)
def test_the_worker_names_the_settings_of_a_record_that_is_too_large(topic: str, names: tuple[str, ...]) -> None:
    """The topic's, ours, and where the record is."""
    error = name_the_setting(RecordTooLarge(topic, 7), Settings())
    for name in (*names, "max.message.bytes", "segment.bytes", "a restart reads the same records of run-step-events"):
        assert name in error.hint
    assert "a restart" not in name_the_setting(BrokerRefused("no"), Settings()).hint


def test_hints_name_settings_that_there_are() -> None:
    """One said `[kafka] partition_fetch_bytes`, which is a key of [source]."""
    known = {f"[{section}] {key}" for section, model in Settings() for key in type(model).model_fields}
    sections = "|".join(section for section, _ in Settings())
    named = [
        (path.name, found)
        for path in (Path(__file__).parents[2] / "processor").rglob("*.py")
        for found in re.findall(rf"\[(?:{sections})\] [a-z]+_[a-z_]+", path.read_text())
    ]
    assert len(named) > 5
    assert [(path, found) for path, found in named if found not in known] == []
