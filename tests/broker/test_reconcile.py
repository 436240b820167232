"""Reconcile on a real broker: what a worker published, and what it has yet to read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from processor.audit.judge.verdicts import Verdict
from processor.audit.reconcile.command import Reconciled, reconcile
from processor.audit.report.manifest import Outcome
from processor.broker import Broker
from processor.kafka.client_config import Connection
from tests import kafka_tools as kt
from tests.broker.test_replay import committed, settings_of
from tests.faults.worker_fleet import Fleet, Topics, eventually
from tests.kafka_tools import Names, Sent

WAIT_S = 180.0
T0_S = 1_761_861_610


@pytest.fixture
def topics(broker: Broker, names: Names) -> Topics:
    return Topics.create(broker.bootstrap, names, partitions=2)


def listed(step_id: str, run_id: str) -> dict[str, Any]:
    return {
        "id": step_id, "object": "thread.run.step", "created_at": T0_S, "run_id": run_id, "thread_id": "t",
        "assistant_id": "a", "type": "tool_calls", "status": "completed", "completed_at": T0_S + 5,
        "step_details": {"type": "tool_calls", "tool_calls": []}, "usage": {"total_tokens": 1},
    }  # fmt: skip


def sent(step: dict[str, Any]) -> Sent:
    event = {"event": "thread.run.step.completed", "data": step}
    return Sent(json.dumps(event).encode(), key=step["run_id"].encode(), timestamp=(T0_S + 6) * 1000)


def test_what_a_worker_published_agrees_and_what_it_has_yet_to_read_is_not_called_missing(
    topics: Topics, tmp_path: Path
) -> None:
    steps = [listed(f"s{number}", f"run_{number % 3}") for number in range(9)]
    late = listed("late", "run_0")
    lists = tmp_path / "lists.json"
    settings = settings_of(topics)

    def reconciled(*expected: dict[str, Any]) -> Reconciled:
        lists.write_text(json.dumps({"object": "list", "data": expected, "has_more": False}))
        return reconcile([lists], settings, lambda: Connection.build(topics.bootstrap))

    with Fleet(topics, tmp_path, **{"http.enabled": "false"}) as fleet:
        kt.produce(topics.bootstrap, topics.source, [sent(step) for step in steps])
        (worker,) = fleet.start()
        eventually("it is done", lambda: committed(topics) >= len(steps), WAIT_S)
        worker.terminate()
        assert worker.ended(WAIT_S) == 0
    assert (reconciled(*steps).verdict, reconciled(*steps).counts) == (Outcome.PROVEN, {"equal": 9, "open": 0})
    (missing,) = [one for one in reconciled(*steps, late).steps if one.verdict is not Verdict.EQUAL]
    assert (missing.step_id, missing.verdict) == ("late", Verdict.MISSING)
    kt.produce(topics.bootstrap, topics.source, [sent(late)])
    found = reconciled(*steps, late)
    assert found.verdict is Outcome.UNPROVABLE
    (undecided,) = [one for one in found.steps if one.verdict is not Verdict.EQUAL]
    assert (undecided.verdict, undecided.why) == (
        Verdict.UNVERIFIABLE,
        "the group has yet to read 1 offsets of the source",
    )
