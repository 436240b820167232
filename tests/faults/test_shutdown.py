"""Ends: asked for in order, by a signal, under load; and of one process among several."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

import pytest

from processor.broker import Broker
from processor.simulate import Parameters, Simulation
from tests.faults.service import Stage, Tables, created, ended, until
from tests.kafka_tools import Names

DRAIN_S = 10.0


@pytest.fixture
def stage(broker: Broker, names: Names, tmp_path: Path) -> Stage:
    return Stage(broker.bootstrap, names, tmp_path)


def is_gone(pid: int) -> bool:
    """Ended, or ended and not yet waited for by whoever inherited it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.parametrize(
    "signals",
    [(signal.SIGTERM,), (signal.SIGINT,), (signal.SIGTERM, signal.SIGTERM)],
    ids=lambda numbers: "-".join(number.name for number in numbers),
)
def test_a_signal_under_load(stage: Stage, signals: tuple[signal.Signals, ...]) -> None:
    """Exit 0 within the drain budget, out of the group at once, and a successor goes on where it stopped."""
    simulation = Simulation(Parameters(runs=250, partitions=stage.partitions, seed=5, responses=0.4))
    records = list(simulation)
    # Small units, so that there is always one on its way.
    small: Tables = {
        "delivery": {"drain_timeout_s": DRAIN_S, "commit_interval_ms": 50},
        "source": {"max_poll_records": 50},
    }
    loading = threading.Thread(target=stage.put, args=(records,))
    with stage.serve(small) as service:
        service.until_live()
        loading.start()
        service.until("the first of them published", lambda: sum(stage.committed().values()) > 0)
        for number in signals:
            service.send(number)
        assert service.ended() == 0, "75 would say that the drain was not done in its budget"
        assert stage.members() == 0
        stopped_at = stage.committed()
        assert service.logged("state_changed", state="draining")
        assert not service.logged("worker_restarted")
    loading.join()
    assert sum(stopped_at.values()) < len(records), "it was not stopped under load"
    with stage.serve() as successor:
        stage.until_done(records, successor)
        stage.until_equal(simulation.expected)
        assert successor.terminate() == 0
    assert stage.differences(simulation.expected) == []


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_standard_descriptors_that_are_closed(stage: Stage, closed: str, workers: int) -> None:
    """A socket with the number of one of them ended the process by SIGABRT: at once, or after its last word."""
    shell = ("/bin/sh", "-c", f'exec "$0" "$@" {closed}', sys.executable)
    with stage.serve(workers=workers, program=shell) as service:
        stage.say(created("step_1"), ended("step_1"))
        service.until("published", lambda: stage.published("completed"))
        assert service.terminate() == 0
    assert [got.key for got in stage.published()] == [b"step_1"]
    assert "Assertion" not in service.said()


def test_what_is_applied_is_drained(stage: Stage) -> None:
    """A unit that waits for its interval is committed on the way out."""
    with stage.serve({"delivery": {"commit_interval_ms": 5000}}) as service:
        service.until_live()
        # The unit before it has just been sealed: the next one waits for its five seconds.
        stage.say(created("step_1"))
        service.until("a commit", lambda: stage.committed().get(0) == 1)
        stage.say(ended("step_1"))
        service.until("the end applied", lambda: service.metric("runstep_records_applied_total") == 2)
        assert stage.published() == []
        assert service.terminate() == 0
    assert [got.key for got in stage.published("completed")] == [b"step_1"]
    assert stage.committed()[0] >= 2


def test_several_workers_end_together(stage: Stage) -> None:
    """One place to scrape, one signal to end."""
    simulation = Simulation(Parameters(runs=80, partitions=stage.partitions, seed=6, responses=0.4))
    records = list(simulation)
    with stage.serve(workers=2) as service:
        service.until_live()
        service.until("both members", lambda: stage.members() == 2)
        stage.put(records)
        stage.until_done(records, service)
        shown = service.page("/metrics").body
        for worker in ("0", "1"):
            assert f'worker="{worker}"' in shown
            # two partitions, two workers: each has done its part
            assert service.metric("runstep_records_applied_total", worker=worker) > 0
        health = service.page("/healthz")
        assert health.status == 200
        assert set(health.json["workers"]) == {"0", "1"}
        workers = service.workers()
        assert len(workers) == 2
        assert service.terminate() == 0
        assert all(map(is_gone, workers))
        assert stage.members() == 0
    assert stage.differences(simulation.expected) == []


def test_a_worker_process_that_is_killed_is_started_again(stage: Stage) -> None:
    simulation = Simulation(Parameters(runs=80, partitions=stage.partitions, seed=7, responses=0.4))
    records = list(simulation)
    half = len(records) // 2
    with stage.serve(workers=2) as service:
        service.until_live()
        stage.put(records[:half])
        victim, other = service.workers()
        os.kill(victim, signal.SIGKILL)
        service.until_logged("child_ended", exit_code=-9, restarted=True)
        service.until("the front tells", lambda: service.page("/readyz").status == 503)
        stage.put(records[half:])
        service.until("a successor", lambda: len(service.workers()) == 2)
        assert other in service.workers()
        assert victim not in service.workers()
        stage.until_done(records, service, deadline_s=300)
        service.until_live()
        assert service.terminate() == 0
    assert stage.differences(simulation.expected) == []


def test_a_worker_process_killed_before_it_has_an_address(stage: Stage) -> None:
    """It is missed all the same."""
    with stage.serve(workers=2) as service:
        victim = service.until("a worker process", lambda: (service.workers() or [0])[0])
        os.kill(victim, signal.SIGKILL)
        service.until_logged("child_ended", exit_code=-9, restarted=True)
        service.until_live()
        assert service.terminate() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_worker_processes_that_have_just_been_started_end_well(stage: Stage, number: signal.Signals) -> None:
    """They had no handler yet, and the signal that their parent passed on was told as a bug (70)."""
    with stage.serve(workers=2) as service:
        workers = service.until("worker processes", lambda: len(found := service.workers()) == 2 and found)
        service.send(number)
        assert service.ended() == 0, service.said()
        assert all(map(is_gone, workers))


def test_worker_processes_end_with_their_parent(stage: Stage) -> None:
    """Orphans drain and leave: nobody would scrape them, stop them or start them again."""
    with stage.serve(workers=2) as service:
        service.until_live()
        workers = service.workers()
        service.send(signal.SIGKILL)
        assert service.ended() == -signal.SIGKILL
        until("the workers gone", lambda: all(map(is_gone, workers)))
        until("nobody in the group", lambda: stage.members() == 0)


def test_a_worker_process_that_cannot_go_on_ends_all(stage: Stage) -> None:
    """Its exit code is the exit code: the same will happen to the others."""
    with stage.serve({"rejections": {"max_run": 20}}, workers=2) as service:
        service.until_live()
        stage.say(*[b"no JSON"] * 50)
        assert service.ended() == 65
        assert "records in a row were rejected" in service.said()
        assert stage.members() == 0
