"""`run-steps pause` and `resume` on a live worker."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from processor.broker import Broker
from processor.errors import BrokerRefused
from tests.faults.service import Service, Stage, Tables, ended
from tests.kafka_tools import Names

STALL_S = 3.0


def run(service: Service, *arguments: str) -> subprocess.CompletedProcess[str]:
    address = service.logged("listening", worker="front") or service.logged("listening")
    command = [sys.executable, "-m", "processor", *arguments[:2], address[-1]["url"], *arguments[2:]]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_one_partition_stands_still_and_the_others_go_on(broker: Broker, names: Names, tmp_path: Path) -> None:
    """Behind the one port of two processes. For longer than a stall may last, and with nothing lost in the end."""
    stage = Stage(broker.bootstrap, names, tmp_path)
    changes: Tables = {"http": {"control": True, "port": 0}, "supervisor": {"stall_timeout_s": STALL_S}}
    with stage.serve(changes, workers=2) as service:
        service.until_live()
        done = run(service, "pause", "1", "--reason", "INC-7 broken downstream")
        assert (done.returncode, done.stdout) == (0, "partition 1 is paused: INC-7 broken downstream\n"), done.stderr
        stage.say(ended("step_0"), partition=0)
        stage.say(ended("step_1"), partition=1)
        service.until("published", lambda: [got.key for got in stage.published()] == [b"step_0"])
        paused = {"partition": "1", "reason": "INC-7 broken downstream"}
        service.until("the metric", lambda: service.metric("runstep_partition_paused", **paused) == 1)
        before = service.metric("runstep_last_progress_timestamp_seconds")
        service.until(
            "progress for longer than a stall may last, of both workers",
            lambda: service.metric("runstep_last_progress_timestamp_seconds") > before + 2 * (STALL_S + 2),
        )
        assert [got.key for got in stage.published()] == [b"step_0"]
        health = service.page("/healthz")
        assert health.status == 200
        assert "partition 1 is paused: INC-7 broken downstream" in health.body
        done = run(service, "resume", "1")
        assert done.returncode == 0, done.stderr
        service.until("published", lambda: len(stage.published()) == 2)
        assert service.metric("runstep_partition_paused") == 0
        assert not service.logged("worker_restarted")
        assert service.logged("partition_paused", partition=1)
        assert service.logged("partition_pause_ended", partition=1)
        unknown = run(service, "pause", "7", "--reason", "x")
        assert (unknown.returncode, "partition 7 is not assigned" in unknown.stderr) == (64, True), unknown.stderr
        assert service.terminate() == 0


def test_it_is_off_by_default(broker: Broker, names: Names, tmp_path: Path) -> None:
    stage = Stage(broker.bootstrap, names, tmp_path)
    with stage.serve() as service:
        service.until_live()
        refused = run(service, "pause", "0", "--reason", "x")
        assert refused.returncode == BrokerRefused.exit_code
        assert "set [http] control = true" in refused.stderr
        assert service.terminate() == 0
