"""Members with an instance_id: two of one name fence each other, and one that stops stays a member for its session."""

from __future__ import annotations

from pathlib import Path

import pytest

from processor.broker import Broker
from tests.faults.service import Stage
from tests.kafka_tools import Names


def test_two_processes_with_one_instance_id_are_told_which(broker: Broker, names: Names, tmp_path: Path) -> None:
    stage = Stage(broker.bootstrap, names, tmp_path)
    alike: dict[str, dict[str, object]] = {"source": {"instance_id": "worker-7"}, "supervisor": {"max_restarts": 1}}
    with stage.serve(alike) as first:
        first.until_live()
        with stage.serve(alike) as second:
            for service in (first, second):
                assert service.ended(60) == 75
                assert "source.instance_id = worker-7: does another process use it?" in service.said(), service.tail()


@pytest.mark.parametrize(("instance_id", "left"), [("", 0), ("worker-7", 1)])
def test_a_member_with_an_instance_id_does_not_leave_when_it_stops(
    broker: Broker, names: Names, tmp_path: Path, instance_id: str, left: int
) -> None:
    """Its partitions wait for it until its session ends: operations.md and kubernetes.md say so."""
    stage = Stage(broker.bootstrap, names, tmp_path)
    with stage.serve({"source": {"instance_id": instance_id, "session_timeout_ms": 300_000}}) as worker:
        worker.until_live()
        assert worker.terminate() == 0
        assert stage.members() == left
