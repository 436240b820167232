"""Steps that outlive workers: clock marks, checkpoints; and the mode that may say a thing twice."""

from __future__ import annotations

import json
import signal
import time
from collections import defaultdict
from pathlib import Path

import pytest

from processor.broker import Broker
from processor.simulate import Parameters, Simulation
from tests.faults.service import Stage, Tables, created, ended
from tests.kafka_tools import Names


@pytest.fixture
def stage(broker: Broker, names: Names, tmp_path: Path) -> Stage:
    return Stage(broker.bootstrap, names, tmp_path)


def test_a_deadline_on_an_idle_partition(stage: Stage) -> None:
    """It passes by the wall clock, is published once with its mark, and survives the worker that set it."""
    marking: Tables = {"steps": {"grace_s": 1, "idle_grace_s": 1.0, "ended_retention_s": 600}}
    with stage.serve(marking) as service:
        service.until_live()
        due_s = stage.say_due("step_1", 3)
        service.until("expired", lambda: stage.published("expired"))
        assert time.time() >= due_s + 1
        (expired,) = stage.published("expired")
        mark_ms, _, position = (expired.header("runstep-clock-mark") or b"").partition(b"@")
        assert (int(mark_ms), position) == ((due_s + 1) * 1000, b"1")
        assert expired.timestamp == int(mark_ms)
        assert expired.header("runstep-inferred") == b"deadline"
        service.send(signal.SIGKILL)
        service.ended()
    with stage.serve(marking) as service:
        service.until_live()
        # Idle once more for longer than the grace: what has been said is not said again.
        still = time.monotonic() + 3
        service.until("idle", lambda: time.monotonic() > still)
        stage.say(ended("step_1"))
        service.until("amended", lambda: stage.published("completed"))
        assert service.terminate() == 0
    assert [got.header("runstep-revision") for got in stage.published("expired")] == [b"0"]
    assert [got.header("runstep-revision") for got in stage.published("completed")] == [b"1"]
    assert stage.letters() == []


def test_an_open_step_does_not_hold_the_restore_back(stage: Stage) -> None:
    """It is written down, the restore point moves on without it, and in the end it is forgotten."""
    keeping: Tables = {"checkpoints": {"interval_s": 1.0}, "steps": {"ended_retention_s": 1, "idle_grace_s": 86_400.0}}
    key = b"sstep_open"
    now_ms = int(time.time() * 1000)
    others = [what(f"step_{n}") for n in range(100) for what in (created, ended)]
    with stage.serve(keeping) as service:
        service.until_live()
        stage.say(created("step_open", metadata={"asked": "by a person"}), timestamp=now_ms)
        service.until("a checkpoint", lambda: stage.kept().get(key))
        stage.say(*others, timestamp=now_ms + 5_000)
        stage.say(None, timestamp=now_ms + 10_000)
        count = 1 + len(others) + 1

        def moved_on() -> bool:
            return stage.committed().get(0) == count and stage.resume_points()[0]["r"] > 100

        service.until("the restore point moved on", moved_on)
        restore_from = stage.resume_points()[0]["r"]
        service.send(signal.SIGKILL)
        service.ended()
    with stage.serve(keeping) as service:
        service.until_live()
        (restored,) = service.logged("partition_restored", partition=0)
        assert restored["restore_from"] == restore_from
        assert restored["checkpoints"] == 1
        stage.say(ended("step_open"), timestamp=now_ms + 11_000)
        service.until("published", lambda: any(got.key == b"step_open" for got in stage.published()))
        stage.say(None, timestamp=now_ms + 20_000)
        stage.say(*[None] * 3, timestamp=now_ms + 21_000)
        service.until("forgotten", lambda: key in (kept := stage.kept()) and kept[key] is None)
        assert service.terminate() == 0
    (got,) = [got for got in stage.published() if got.key == b"step_open"]
    assert json.loads(got.value or b"")["metadata"] == {"asked": "by a person"}


def test_at_least_once(stage: Stage) -> None:
    """All of it comes; what comes twice, after a kill, is equal, and known by its id and revision."""
    simulation = Simulation(Parameters(runs=150, partitions=stage.partitions, seed=11, responses=0.4))
    records = list(simulation)
    mode: Tables = {"delivery": {"mode": "at_least_once"}, "source": {"max_poll_records": 100}}
    with stage.serve(mode) as service:
        service.until_live()
        stage.put(records[: len(records) // 2])
        service.until("some of it", lambda: sum(stage.committed().values()) > 200)
        service.send(signal.SIGKILL)
        service.ended()
    with stage.serve(mode) as service:
        stage.put(records[len(records) // 2 :])
        stage.until_done(records, service, deadline_s=300)
        assert service.terminate() == 0
    found = {difference.kind for difference in stage.differences(simulation.expected)}
    assert found <= {"twice", "dead_letter_extra"}
    said = defaultdict(set)
    for got in stage.published():
        said[got.key, got.header("runstep-revision")].add((got.topic, got.value))
    assert all(len(contents) == 1 for contents in said.values())


def test_at_least_once_without_a_fault_is_once(stage: Stage) -> None:
    simulation = Simulation(Parameters(runs=60, partitions=stage.partitions, seed=12, responses=0.4))
    records = list(simulation)
    with stage.serve({"delivery": {"mode": "at_least_once"}}) as service:
        service.until_live()
        stage.put(records)
        stage.until_done(records, service)
        assert service.terminate() == 0
    assert stage.differences(simulation.expected) == []
