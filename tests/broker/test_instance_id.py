"""Two processes with one instance_id fence each other; what they say names it."""

from __future__ import annotations

from pathlib import Path

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
