"""Positions and checkpoints that are not of the log at hand: refused with both choices, or rebuilt from the log.

Each accident happens between two lives of a worker, in the middle of steps. Where the worker goes on, all that must be
published is published once with its contents, and the replay proves it.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.cimpl import NewPartitions

from processor.audit.replay.command import replay
from processor.audit.replay.options import Options
from processor.audit.report.manifest import Outcome
from processor.broker import Broker
from processor.config.loading import load
from processor.kafka.admin import Admin
from processor.kafka.client_config import Connection
from processor.kafka.consumer import Committed
from processor.simulate import Parameters, Produced, Simulation
from tests.conftest import started_or_skipped
from tests.faults.service import Service, Stage, Tables, created, delta, ended
from tests.kafka_tools import DEADLINE_S, Names, Sent, admin, committed, create_topics, produce

REFUSED, UNSAFE = 65, 64
KEEPING: Tables = {"checkpoints": {"interval_s": 1.0}}
FORGETTING: Tables = {**KEEPING, "steps": {"ended_retention_s": 1, "idle_grace_s": 86_400.0}}


@pytest.fixture
def stage(broker: Broker, names: Names, tmp_path: Path) -> Stage:
    return Stage(broker.bootstrap, names, tmp_path)


class Halves:
    """A simulated log of which the first half is processed; what comes next is the test's."""

    def __init__(self, stage: Stage, seed: int) -> None:
        self.stage = stage
        self.simulation = Simulation(
            Parameters(runs=40, partitions=stage.partitions, seed=seed, hung=0.1, interrupted=0.2, responses=0.4)
        )
        self.records: list[Produced] = list(self.simulation)
        middle = len(self.records) // 2
        self.first, self.second = self.records[:middle], self.records[middle:]
        with stage.serve(KEEPING) as service:
            service.until_live()
            stage.put(self.first)
            stage.until_done(self.first, service)
            assert service.terminate() == 0

    def finish(self, service: Service) -> None:
        """Process the second half; all of it is as it must be, once, and proven."""
        self.stage.put(self.second)
        self.stage.until_done(self.records, service)
        assert service.terminate() == 0
        assert self.stage.differences(self.simulation.expected) == []
        prove(self.stage)


def prove(stage: Stage) -> None:
    config = stage.home / f"{stage.names.prefix}-1.toml"
    settings = load(config, {})
    found = replay(
        Options(end="end", work=str(stage.home / "replay")),
        settings,
        lambda: Connection.build(**settings.kafka.connection()),
        lambda _: None,
    )
    assert found.verdict is Outcome.PROVEN, (found.counts, found.questions, found.about.notes)


def refused(stage: Stage, *says: str, changes: Tables | None = None) -> str:
    """A start is refused with 65 and changes nothing; what it says holds these."""
    before, offsets = len(stage.published()), stage.committed()
    with stage.serve(changes or KEEPING) as service:
        assert service.ended() == REFUSED, service.tail()
        said = service.said()
    for part in says:
        assert part in said, said
    assert len(stage.published()) == before
    assert offsets.items() <= stage.committed().items()
    return said


def set_offsets(stage: Stage, offsets: dict[int, int], metadata: dict[int, str] | None = None) -> None:
    """As `kafka-consumer-groups --reset-offsets` does, with no metadata; or with it, as a mirror does."""

    async def commit() -> None:
        texts = metadata or {}
        async with Admin(Connection.build(stage.bootstrap)) as own:
            await own.group_offsets(stage.group)  # a young cluster makes the topic of the offsets when first asked
            rows = {p: Committed(offset, texts.get(p, "")) for p, offset in offsets.items()}
            await own.commit_offsets(stage.group, stage.source, rows)

    asyncio.run(commit())


def delete_topic(stage: Stage, topic: str) -> None:
    client = admin(stage.bootstrap)
    for future in client.delete_topics([topic]).values():
        future.result(DEADLINE_S)
    deadline = time.monotonic() + DEADLINE_S
    while topic in client.list_topics(timeout=DEADLINE_S).topics:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def delete_group(stage: Stage) -> None:
    client = admin(stage.bootstrap)
    for future in client.delete_consumer_groups([stage.group]).values():
        future.result(DEADLINE_S)


def delete_records(stage: Stage, topic: str, before: dict[int, int]) -> None:
    client = admin(stage.bootstrap)
    for future in client.delete_records([TopicPartition(topic, p, offset) for p, offset in before.items()]).values():
        future.result(DEADLINE_S)


def partitions_of(stage: Stage, topic: str) -> int:
    return len(admin(stage.bootstrap).list_topics(topic, timeout=DEADLINE_S).topics[topic].partitions)


def run_reset(stage: Stage, *args: str, group: str = "") -> subprocess.CompletedProcess[str]:
    """Run it with the settings of the first start of `serve`; for another group if one is named."""
    config = stage.home / f"{stage.names.prefix}-1.toml"
    command = [sys.executable, "-m", "processor", "reset", "--config", str(config), *args]
    env = os.environ | ({"RUN_STEPS_SOURCE__GROUP_ID": group} if group else {})
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=180, check=False)


# --- 1: committed offsets are gone ----------------------------------------------------------------------------------


def test_a_deleted_group_is_no_first_start(stage: Stage) -> None:
    """It was: all published again with "earliest", the rest lost with "latest". Once told where to go on, it does."""
    halves = Halves(stage, 1)
    offsets = stage.committed()
    delete_group(stage)
    for start in ("earliest", "latest"):
        said = refused(
            stage,
            f"topic {stage.source}: partition ",
            f"no committed offset in group {stage.group}",
            "run-steps reset --partition ",
            "--to earliest",
            "or latest",
            "--begin-at",
            "another source.group_id has none (name the old one)",
            changes={**KEEPING, "source": {"start": start}},
        )
        assert "hint:" in said
    begin_at = [f"--begin-at={partition}={offset}" for partition, offset in offsets.items()]
    with stage.serve(KEEPING, options=begin_at) as service:
        service.until_live()
        assert {line["reason"] for line in service.logged("restore_rebuilds")} == {"asked"}
        halves.finish(service)


def test_one_partition_without_an_offset_is_named(stage: Stage) -> None:
    halves = Halves(stage, 2)
    before = committed(stage.bootstrap, stage.group, stage.source)
    delete_group(stage)
    set_offsets(stage, {0: before[0][0]}, {0: before[0][1]})
    refused(stage, "partition 1: no committed offset", "other partitions of group", "--partition 1 --to")
    assert run_reset(stage, "--partition", "1", "--to", str(before[1][0]), "--yes").returncode == 0
    with stage.serve(KEEPING) as service:
        halves.finish(service.until_live())


def test_another_group_goes_on_with_the_old_one_s_offsets_and_begins_again_with_empty_topics(stage: Stage) -> None:
    """As docs/operations.md says of other names, and of `--to earliest`: the replay proves the log each time."""
    halves = Halves(stage, 7)
    offsets = stage.committed()
    stage.group += "-new"
    for partition, offset in offsets.items():
        done = run_reset(stage, "--partition", str(partition), "--to", str(offset), "--yes", group=stage.group)
        assert done.returncode == 0, done.stderr
    with stage.serve(KEEPING) as service:
        halves.finish(service)
    for topic in (*stage.outcomes.values(), stage.dead_letter):
        delete_records(stage, topic, dict.fromkeys(range(partitions_of(stage, topic)), -1))
    assert run_reset(stage, "--to", "earliest", "--yes", group=stage.group).returncode == 0
    with stage.serve(KEEPING) as service:
        stage.until_done(halves.records, service)
        assert service.terminate() == 0
    assert stage.differences(halves.simulation.expected) == []
    assert stage.replayed(KEEPING) is Outcome.PROVEN


def test_a_partition_that_was_added_begins_at_its_beginning(stage: Stage) -> None:
    """Also with "latest", which is for groups that never were; the other partitions are not read again."""
    latest: Tables = {"source": {"start": "latest"}}
    with stage.serve(latest) as service:
        service.until_live()
        stage.say(created("step_1"), ended("step_1"))
        service.until("published", lambda: stage.published("completed"))
        assert service.terminate() == 0
    with stage.serve(latest) as service:  # one more life, which sees that each partition has an offset
        service.until_live()
        stage.say(created("step_2"), ended("step_2"))
        service.until("published", lambda: len(stage.published("completed")) == 2)
        assert service.terminate() == 0
    client = admin(stage.bootstrap)
    wanted = [NewPartitions(topic, 3) for topic in (stage.source, stage.checkpoints)]
    for future in client.create_partitions(wanted).values():
        future.result(DEADLINE_S)
    produce(stage.bootstrap, stage.source, [Sent(ended("step_3"), b"run_1", partition=2)])
    with stage.serve(latest) as service:
        service.until_live()
        service.until("published", lambda: len(stage.published("completed")) == 3)
        assert service.terminate() == 0
    assert sorted(got.key or b"" for got in stage.published("completed")) == [b"step_1", b"step_2", b"step_3"]


# --- 2: metadata is gone --------------------------------------------------------------------------------------------


def test_offsets_set_by_a_tool_lose_nothing(stage: Stage) -> None:
    """`--reset-offsets --to-current` empties the metadata: the state is rebuilt. It was: wrong contents."""
    halves = Halves(stage, 3)
    set_offsets(stage, stage.committed())
    assert stage.resume_points() == {}
    with stage.serve(KEEPING) as service:
        service.until_live()
        lines = service.logged("restore_rebuilds", reason="metadata_missing", restore_from=0)
        assert sorted(line["partition"] for line in lines) == [0, 1]
        assert service.metric("runstep_restores_irregular_total", reason="metadata_missing") == 2
        halves.finish(service)


def test_a_clock_mark_is_rebuilt_from_what_was_published(stage: Stage) -> None:
    """Without metadata and checkpoints: what the wall clock ended does not end a second time."""
    marking: Tables = {"steps": {"grace_s": 1, "idle_grace_s": 0.5, "ended_retention_s": 600}}
    with stage.serve(marking) as service:
        service.until_live()
        due_s = stage.say_due("step_1", 1)
        service.until("expired", lambda: stage.published("expired"))
        assert service.terminate() == 0
    delete_topic(stage, stage.checkpoints)
    set_offsets(stage, stage.committed())
    with stage.serve(marking, create_topics=True) as service:
        service.until_live()
        stage.say(None, timestamp=(due_s + 60) * 1000)
        stage.say(ended("step_1"), timestamp=(due_s + 61) * 1000)
        service.until("amended", lambda: stage.published("completed"))
        assert service.terminate() == 0
    assert [got.header("runstep-revision") for got in stage.published("expired")] == [b"0"]
    assert [got.header("runstep-revision") for got in stage.published("completed")] == [b"1"]


# --- 3: checkpoints of a later offset, or of another log --------------------------------------------------------------


def with_long_step(stage: Stage) -> None:
    """A step is open and checkpointed, in the middle of other things; then the worker stops."""
    others = [what(f"step_{n}") for n in range(20) for what in (created, ended)]
    now_ms = int(time.time() * 1000)
    with stage.serve(FORGETTING) as service:
        service.until_live()
        begun = *others[:10], created("step_long", metadata={"asked": "by a person"}), delta("step_long", "abc")
        stage.say(*begun, timestamp=now_ms)
        service.until("a checkpoint", lambda: stage.kept().get(b"sstep_long"))
        stage.say(*others[10:], timestamp=now_ms + 5_000)
        stage.say(None, timestamp=now_ms + 10_000)
        service.until("all committed", lambda: stage.committed().get(0) == len(others) + 3)
        assert service.terminate() == 0


def long_step(stage: Stage) -> list[Any]:
    """Metadata and arguments of the long step, as often as it was published."""
    found = []
    for got in stage.published():
        if got.key == b"step_long":
            value = json.loads(got.value or b"")
            calls = value["step_details"]["tool_calls"] if value["step_details"] else []
            found.append((value["metadata"], [call["function"]["arguments"] for call in calls]))
    return found


WHOLE = [({"asked": "by a person"}, ["abc"])]


def test_checkpoints_of_a_later_offset(stage: Stage) -> None:
    """The offset was set back by a tool: refused; `reset` names what it does, does it when told, and all goes on."""
    with_long_step(stage)
    set_offsets(stage, {0: 4, 1: 0})
    refused(stage, "beyond the committed offset 4", "run-steps reset --partition 0 --to current")
    plan = run_reset(stage, "--to", "current")
    assert plan.returncode == 0
    assert (
        "partition 0: committed 4, goes on at 4, after a silent fold from 0; 0 of 1 checkpoints are kept" in plan.stdout
    )
    assert "nothing was changed" in plan.stdout
    refused(stage, "beyond the committed offset 4")
    assert run_reset(stage, "--to", "current", "--yes").returncode == 0
    before = len(stage.published())
    with stage.serve(FORGETTING) as service:
        service.until_live()
        stage.say(ended("step_long"))
        service.until("published", lambda: long_step(stage))
        assert service.terminate() == 0
    assert long_step(stage) == WHOLE
    assert len(stage.published()) == before + 18 + 1  # what follows offset 4 is published again, as was asked for


def test_a_topic_made_anew_under_checkpoints_and_offsets(stage: Stage) -> None:
    """Same name, another log: neither the offset with its metadata nor the checkpoints are believed."""
    with_long_step(stage)
    old = committed(stage.bootstrap, stage.group, stage.source)
    delete_topic(stage, stage.source)
    create_topics(stage.bootstrap, stage.source, partitions=stage.partitions, config={"retention.ms": "-1"})
    stage.say(*[ended(f"new_{n}") for n in range(60)])
    refused(stage, "partition 0: no committed offset", f"topic {stage.checkpoints} holds 1 checkpoints of it")
    set_offsets(stage, {p: offset for p, (offset, _) in old.items()}, {p: text for p, (_, text) in old.items()})
    refused(stage, "is of another topic of this name")
    set_offsets(stage, {0: 60, 1: 0})
    refused(stage, "holds checkpoints of another log", "run-steps reset --partition 0 --to earliest")
    assert run_reset(stage, "--to", "earliest", "--yes").returncode == 0
    with stage.serve(FORGETTING) as service:
        service.until_live()
        service.until("all is published", lambda: len(stage.published("completed")) == 20 + 60)
        service.until("the old checkpoint is forgotten", lambda: stage.kept().get(b"sstep_long") is None)
        assert service.terminate() == 0


def test_reset_is_for_groups_at_rest(stage: Stage) -> None:
    with stage.serve() as service:
        service.until_live()
        done = run_reset(stage, "--to", "earliest", "--yes")
        assert done.returncode == UNSAFE
        assert f"group {stage.group}: has members" in done.stderr
        assert service.terminate() == 0
    assert "is not in the log" in run_reset(stage, "--to", "7", "--partition", "0").stderr
    assert "one partition's" in run_reset(stage, "--to", "0").stderr
    assert "has 2 (got 2)" in run_reset(stage, "--to", "latest", "--partition", "2").stderr


# --- 4: the checkpoint topic is lost ---------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["made anew", "wiped"])
def test_lost_checkpoints_are_rebuilt_from_the_log(stage: Stage, how: str) -> None:
    """It was: a long-open step came out nearly empty."""
    with_long_step(stage)
    assert stage.resume_points()[0]["r"] > 10
    if how == "made anew":
        delete_topic(stage, stage.checkpoints)
    else:
        produce(stage.bootstrap, stage.checkpoints, [Sent(None, b"sstep_long", partition=0)])
    with stage.serve(FORGETTING, create_topics=True) as service:
        service.until_live()
        (line,) = service.logged("restore_rebuilds")
        assert (line["partition"], line["reason"], line["restore_from"]) == (0, "checkpoints_lost", 0)
        stage.say(ended("step_long"))
        service.until("published", lambda: long_step(stage))
        assert service.terminate() == 0
    assert long_step(stage) == WHOLE


def test_lost_checkpoints_without_the_log(stage: Stage) -> None:
    """What the log no longer holds is not made up."""
    with_long_step(stage)
    delete_topic(stage, stage.checkpoints)
    delete_records(stage, stage.source, {0: 12})
    with stage.serve(FORGETTING, create_topics=True) as service:
        assert service.ended() == REFUSED, service.tail()
        said = service.said()
    assert "1 checkpoints were committed with offset 43" in said
    assert "--to current" in said


# --- 5: another cluster ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def other() -> Iterator[Broker]:
    with started_or_skipped() as running:
        yield running


def test_offsets_of_another_cluster(broker: Broker, other: Broker, stage: Stage, names: Names, tmp_path: Path) -> None:
    """A mirror copies offsets with their metadata, and the offsets do not mean the same records."""
    with_long_step(stage)
    there = Stage(other.bootstrap, names, tmp_path)
    there.say(*[ended(f"new_{n}") for n in range(60)])
    copied = committed(broker.bootstrap, stage.group, stage.source)
    set_offsets(there, {p: o for p, (o, _) in copied.items()}, {p: text for p, (_, text) in copied.items()})
    point = stage.resume_points()[0]
    said = refused(there, f"is of another cluster ({point['k']}; this one is ", "docs/second-cluster.md")
    assert "hint:" in said


# --- 7: who tells of lost data is heard -------------------------------------------------------------------------------


def test_every_shortened_restore_is_told(stage: Stage) -> None:
    """A line per partition: none is held back as a repeat."""
    for partition in range(2):
        stage.say(
            created(f"step_{partition}"), *[ended(f"other_{partition}_{n}") for n in range(9)], partition=partition
        )
    with stage.serve({"checkpoints": {"interval_s": 600.0}}) as service:
        service.until_live()
        service.until("all committed", lambda: stage.committed() == {0: 10, 1: 10})
        assert service.terminate() == 0
    delete_records(stage, stage.source, {0: 5, 1: 5})
    with stage.serve() as service:
        service.until_live()
        lines = service.logged("restore_shortened", log_begins=5)
        assert sorted(line["partition"] for line in lines) == [0, 1]
        assert service.metric("runstep_restores_irregular_total", reason="shortened") == 2
        assert service.terminate() == 0
