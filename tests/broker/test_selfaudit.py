"""A worker that audits itself, on a real broker: what it publishes is verified, what it gets wrong is found."""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from processor.broker import Broker
from tests import kafka_tools as kt
from tests.broker.test_replay import one_step, play, renamed
from tests.broker.test_topics_live import set_configs
from tests.faults.worker_fleet import Fleet, Process, Topics, eventually
from tests.kafka_tools import Names

WAIT_S = 180.0
EAGER = {"self_audit.enabled": "true", "self_audit.steps_per_minute": "6000", "self_audit.cpu_share": "1"}
FORGETFUL = """
from processor.serve import restore
from processor.core.partition import PartitionState

class Forgetful(PartitionState):
    def apply_batches(self, batches):
        return super().apply_batches([[one for one in batch if b'"second"' not in one.value] for batch in batches])

restore.PartitionState = Forgetful
"""
"""What the worker itself folds lacks records: a state gone wrong, as no rule of the fold would have it."""


@pytest.fixture
def topics(broker: Broker, names: Names) -> Topics:
    return Topics.create(broker.bootstrap, names, partitions=2)


def audited(worker: Process, what: str) -> Callable[[], float]:
    return lambda: worker.metrics().get(f"runstep_audit_{what}", 0.0)


@pytest.mark.parametrize("mode", ["exactly_once", "at_least_once"])
def test_what_a_worker_publishes_is_verified(topics: Topics, tmp_path: Path, mode: str) -> None:
    with Fleet(topics, tmp_path, **EAGER, **{"delivery.mode": mode}) as fleet:
        (worker,) = fleet.start()
        eventually("it is ready", worker.is_ready, WAIT_S)
        play(topics, runs=40, seed=5, deltas=4, interrupted=0.2, hung=0.1, late_output=0.3)
        eventually("steps are verified", lambda: audited(worker, "verified_total")() >= 5, WAIT_S, every_s=0.1)
        fleet.await_no_lag(WAIT_S)
        found = {name: value for name, value in worker.metrics().items() if name.startswith("runstep_audit_")}
        assert found["runstep_audit_mismatch_total"] == 0
        assert found['runstep_audit_skipped_total{reason="unreadable"}'] == 0
        assert found['runstep_audit_skipped_total{reason="unplaced"}'] == 0
        assert any(name.startswith("runstep_audit_verified_offset") and value > 0 for name, value in found.items())
        assert any(name.startswith("runstep_audit_verified_age_seconds") for name in found)
        fleet.stop()
    assert not worker.log("audit_mismatch", "self_audit_troubled")


def test_a_worker_that_folds_something_else_than_the_log_is_found_out(topics: Topics, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(FORGETFUL)
    with Fleet(topics, tmp_path, **EAGER) as fleet:
        fleet.environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])
        (worker,) = fleet.start()
        eventually("it is ready", worker.is_ready, WAIT_S)
        kt.produce(topics.bootstrap, topics.source, [*one_step("s1"), *renamed("s2")])
        (found,) = eventually("it is told", lambda: worker.log("audit_mismatch"), WAIT_S)
        assert (found["step_id"], found["revision"], found["verdict"]) == ("s2", "0", "different")
        assert (found["partition"], found["first_offset"], found["last_offset"]) == (0, 3, 6)
        assert set(found["fields"]) == {
            "header runstep-anomalies",
            "header runstep-digest",
            "header runstep-events",
            "value.step_details.tool_calls[0].name",
        }
        assert "first" not in json.dumps(found).replace("first_offset", "")
        assert audited(worker, "mismatch_total")() == 1
        health = _page(worker, "/healthz")
        assert health["ok"] is True
        assert "partition 0, offsets 3 to 6" in health["reasons"][0]
        assert worker.is_ready()
        fleet.stop()


def test_a_record_with_the_time_of_the_broker_is_no_mismatch(topics: Topics, broker: Broker, tmp_path: Path) -> None:
    """LogAppendTime must not be set (operations.md). Where it is, the worker is not wrong: its time is gone."""
    (completed,) = (topic for topic, status in topics.outcomes.items() if status == "completed")
    with Fleet(topics, tmp_path, **EAGER) as fleet:
        (worker,) = fleet.start()
        eventually("it is ready", worker.is_ready, WAIT_S)
        set_configs(broker, completed, message_timestamp_type="LogAppendTime")
        kt.produce(topics.bootstrap, topics.source, one_step("s1"))
        (found,) = eventually("it is told", lambda: worker.log("audit_mismatch", "audit_undecided"), WAIT_S)
        assert (found["event"], found["fields"]) == ("audit_undecided", ["timestamp"])
        assert "LogAppendTime" in found["why"]
        assert audited(worker, "mismatch_total")() == 0
        fleet.stop()


def _page(worker: Process, path: str) -> Any:
    url = worker.log("listening")[0]["url"]
    with urllib.request.urlopen(url + path, timeout=30) as answer:
        return json.load(answer)
