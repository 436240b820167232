"""Topics that change under a running or a frozen worker: noticed within seconds, and told with what follows."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Final

import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # the stub lacks some of them
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    ResourceType,
)

from processor.broker import Broker
from tests.faults.service import Service, Stage, Tables, created, ended
from tests.kafka_tools import DEADLINE_S, Names, admin, delete_topics, remake_topics

CORRUPT: Final = 65
CONFIG: Final = 78
FRESH: Final = {"kafka": {"metadata_max_age_ms": 1000}}


def add_partitions(broker: Broker, topic: str, total: int) -> None:
    client = admin(broker.bootstrap)
    for future in client.create_partitions([NewPartitions(topic, total)]).values():
        future.result(DEADLINE_S)


def set_configs(broker: Broker, topic: str, **changes: str) -> None:
    entries = [
        ConfigEntry(name.replace("_", "."), value, incremental_operation=AlterConfigOpType.SET)
        for name, value in changes.items()
    ]
    client = admin(broker.bootstrap)
    wanted = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
    for future in client.incremental_alter_configs([wanted]).values():
        future.result(DEADLINE_S)


@pytest.mark.parametrize("how", ["deleted", "smaller than a record may be"])
def test_a_change_that_ends_a_worker_is_what_it_says_also_under_load(
    broker: Broker, names: Names, tmp_path: Path, how: str
) -> None:
    """What the worker meets first, and would end with another code for, is what the change has caused."""
    stage = Stage(broker.bootstrap, names, tmp_path)
    out = stage.outcomes["completed"]
    service = stage.serve({"delivery": {"compression": "none"}}).until_live()
    if how == "deleted":
        delete_topics(broker.bootstrap, out)
    else:
        set_configs(broker, out, max_message_bytes="50000")
    stage.say(ended("step_1", note="x" * 100_000))
    said = refused(service, CONFIG)
    assert f"topic {out}: " in said


def refused(service: Service, code: int) -> str:
    with service:
        assert service.ended() == code, service.tail()
        return service.said()


def test_a_source_topic_made_anew_ends_a_running_worker(broker: Broker, names: Names, tmp_path: Path) -> None:
    stage = Stage(broker.bootstrap, names, tmp_path)
    service = stage.serve().until_live()
    stage.say(created("step_1"), ended("step_1"))
    service.until("published", lambda: stage.published("completed"))
    remake_topics(broker.bootstrap, stage.source, partitions=2)
    said = refused(service, CORRUPT)
    assert f"topic {stage.source}" in said
    assert len(stage.published()) == 1


def test_a_source_topic_made_anew_under_a_frozen_worker_ends_it(broker: Broker, names: Names, tmp_path: Path) -> None:
    """Its records begin at 0 again, so that the position of the frozen worker lies within the new log."""
    stage = Stage(broker.bootstrap, names, tmp_path)
    service = stage.serve().until_live()
    stage.say(created("step_1"), ended("step_1"))
    service.until("published", lambda: stage.published("completed"))
    service.send(signal.SIGSTOP)
    remake_topics(broker.bootstrap, stage.source, partitions=2)
    stage.say(*(created(f"step_{number}") for number in range(2, 8)))
    service.send(signal.SIGCONT)
    said = refused(service, CORRUPT)
    assert f"topic {stage.source}: made anew while the worker ran" in said


def test_checkpoints_made_anew_end_a_running_worker_and_the_next_restores_from_the_log(
    broker: Broker, names: Names, tmp_path: Path
) -> None:
    stage = Stage(broker.bootstrap, names, tmp_path)
    service = stage.serve({"checkpoints": {"interval_s": 0.5}}).until_live()
    stage.say(created("step_1", note="from the first topic"))
    service.until("checkpointed", stage.kept)
    compacted = {"cleanup.policy": "compact", "max.message.bytes": str(80 << 20)}
    remake_topics(broker.bootstrap, stage.checkpoints, partitions=2, config=compacted)
    assert f"topic {stage.checkpoints}: made anew while the worker ran" in refused(service, CORRUPT)
    stage.say(ended("step_1"))
    with stage.serve() as service:
        service.until("published", lambda: len(stage.published("completed")) == 1)
        assert service.logged("restore_rebuilds", partition=0)
        assert service.terminate() == 0
    assert b"from the first topic" in (stage.published("completed")[0].value or b"")


def test_partitions_added_to_an_outcome_topic_are_told(broker: Broker, names: Names, tmp_path: Path) -> None:
    stage = Stage(broker.bootstrap, names, tmp_path)
    out = stage.outcomes["completed"]
    with stage.serve(FRESH) as service:
        service.until_live()
        add_partitions(broker, out, 5)
        service.until_logged("topic_changed", topic=out, setting="partitions", was="2", now="5")
        page = service.page("/healthz")
        assert page.status == 200
        assert any(out in reason for reason in page.json["reasons"]), page
        assert service.terminate() == 0


def test_a_topic_that_is_deleted_ends_a_running_worker(broker: Broker, names: Names, tmp_path: Path) -> None:
    """And --create-topics does not make it anew: what it held would be forgotten without a word."""
    stage = Stage(broker.bootstrap, names, tmp_path)
    service = stage.serve(create_topics=True).until_live()
    delete_topics(broker.bootstrap, stage.checkpoints)
    said = refused(service, CONFIG)
    assert f"topic {stage.checkpoints}: missing, though it was there" in said


def test_partitions_added_to_the_source_are_named_and_the_old_ones_served(
    broker: Broker, names: Names, tmp_path: Path
) -> None:
    stage = Stage(broker.bootstrap, names, tmp_path)
    with stage.serve(FRESH) as service:
        service.until_live()
        add_partitions(broker, stage.source, 3)
        service.until("not served", lambda: service.metric("runstep_partitions_not_served") == 1)
        service.until_logged("partitions_assigned", times=2)
        stage.say(created("step_1"), ended("step_1"))
        service.until("the old ones are served", lambda: len(stage.published("completed")) == 1)
        health = service.page("/healthz")
        assert health.status == 200
        assert any(f"--alter --topic {stage.checkpoints} --partitions 3" in r for r in health.json["reasons"])
        stage.say(created("step_2"), ended("step_2"), partition=2)
        add_partitions(broker, stage.checkpoints, 3)
        service.until("the new one is served", lambda: len(stage.published("completed")) == 2)
        service.until("nothing to complain of", lambda: service.metric("runstep_partitions_not_served") == 0)
        assert service.logged("topic_changed", topic=stage.source, setting="partitions", was="2", now="3")
        assert not service.logged("worker_restarted")
        assert service.terminate() == 0


def test_settings_that_change_are_told_and_in_force(broker: Broker, names: Names, tmp_path: Path) -> None:
    stage = Stage(broker.bootstrap, names, tmp_path)
    out = stage.outcomes["completed"]
    with stage.serve() as service:
        service.until_live()
        set_configs(broker, out, retention_ms="3600000", max_message_bytes="2000000")
        set_configs(broker, stage.source, retention_ms="7200000")
        service.until_logged("topic_changed", topic=out, setting="retention.ms", now="3600000")
        service.until_logged("topic_changed", topic=out, setting="max.message.bytes", now="2000000")
        service.until_logged("topic_changed", topic=stage.source, setting="retention.ms", now="7200000")
        assert service.metric("runstep_topic_changes_total", role="written", setting="retention.ms") == 1
        assert service.terminate() == 0


def test_a_setting_that_start_would_refuse_ends_a_running_worker(broker: Broker, names: Names, tmp_path: Path) -> None:
    stage = Stage(broker.bootstrap, names, tmp_path)
    service = stage.serve().until_live()
    set_configs(broker, stage.source, cleanup_policy="compact")
    said = refused(service, CONFIG)
    assert f"topic {stage.source}: compacted, which loses events; set cleanup.policy=delete" in said
    assert "nothing is lost" not in said, "the broker goes on removing records"
    assert "run-steps replay --to end" in said


@pytest.mark.parametrize("is_known", [True, False], ids=["once it is known", "at once"])
def test_a_limit_that_is_lowered_is_in_force_for_the_next_unit(
    broker: Broker, names: Names, tmp_path: Path, *, is_known: bool
) -> None:
    """A batch that meets it before the worker knows is no reason to end: a start would not refuse it."""
    stage = Stage(broker.bootstrap, names, tmp_path)
    small: Tables = {
        "output": {"max_record_bytes": 100_000},
        "steps": {"max_step_bytes": 100_000},
        "delivery": {"compression": "none", "commit_interval_ms": 500},
    }
    with stage.serve(small) as service:
        service.until_live()
        set_configs(broker, stage.outcomes["completed"], max_message_bytes="150000")
        if is_known:
            service.until_logged("worker_restarted")
            service.until_live()
        stage.say(*(ended(f"step_{number}", note="x" * 60_000) for number in range(12)))
        service.until("published", lambda: len(stage.published("completed")) == 12)
        assert len(service.logged("worker_restarted")) == 1
        assert service.terminate() == 0
