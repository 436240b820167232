"""The broker goes away: for a while, without a word, or for good."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from processor.broker import Broker
from processor.simulate import Parameters, Produced, Simulation
from tests.conftest import started_or_skipped
from tests.faults.service import Stage
from tests.kafka_tools import Names


@pytest.fixture(scope="module")
def doomed() -> Iterator[Broker]:
    """A broker of this module's own, to be killed and paused. Every test leaves it running."""
    with started_or_skipped() as running:
        yield running


@pytest.fixture
def stage(doomed: Broker, names: Names, tmp_path: Path) -> Stage:
    return Stage(doomed.bootstrap, names, tmp_path)


def thirds(records: list[Produced]) -> tuple[list[Produced], list[Produced], list[Produced]]:
    third = len(records) // 3
    return records[:third], records[third : 2 * third], records[2 * third :]


@pytest.mark.parametrize(("how", "away_s"), [("killed", 12.0), ("paused", 12.0)])
def test_a_broker_that_comes_back(doomed: Broker, stage: Stage, how: str, away_s: float) -> None:
    """The process lives on, and what came before, meanwhile and afterwards comes out once."""
    simulation = Simulation(Parameters(runs=60, partitions=stage.partitions, seed=3, responses=0.4))
    records = list(simulation)
    before, meanwhile, after = thirds(records)
    with stage.serve() as service:
        service.until_live()
        stage.put(before)
        stage.until_done(before, service)
        sending = threading.Thread(target=stage.put, args=(meanwhile,))
        if how == "killed":
            doomed.kill()
        else:
            doomed.pause()
        gone = time.monotonic()
        try:
            sending.start()
            service.until_logged("broker_lost", deadline_s=300)  # however long that takes, it is away until then
            service.until("the outage over", lambda: time.monotonic() - gone > away_s)
        finally:
            if how == "killed":
                doomed.restart()
            else:
                doomed.resume()
        sending.join()
        stage.put(after)
        stage.until_done(records, service, deadline_s=300)
        stage.until_equal(simulation.expected)
        service.until_logged("broker_back")
        assert service.until_live().terminate() == 0
    assert stage.differences(simulation.expected) == []


def test_a_broker_that_never_comes_back_ends_the_process(doomed: Broker, stage: Stage) -> None:
    """Exit 75 within its time, and a last word that says which broker and since when."""
    with stage.serve({"kafka": {"unavailable_after_s": 8.0}}) as service:
        service.until_live()
        doomed.kill()
        gone = time.monotonic()
        try:
            assert service.ended(deadline_s=300) == 75
            took = time.monotonic() - gone
            said = service.said()
        finally:
            doomed.restart()
    assert 7 <= took < 60
    assert doomed.bootstrap in said
    assert "since" in said
    assert "hint:" in said
    assert len(said.splitlines()) == 2, said


def test_a_silent_broker_ends_the_process(doomed: Broker, stage: Stage) -> None:
    """As above with sockets that stay open and bring nothing; unsent work does not hold the end up."""
    with stage.serve({"kafka": {"unavailable_after_s": 8.0, "request_timeout_ms": 3000}}) as service:
        service.until_live()
        doomed.pause()
        try:
            assert service.ended(deadline_s=300) == 75
            said = service.said()
        finally:
            doomed.resume()
    assert doomed.bootstrap in said
    assert "since" in said


def test_a_broker_that_was_never_there(names: Names, tmp_path: Path) -> None:
    stage = Stage("127.0.0.1:1", names, tmp_path, make=False)
    with stage.serve({"kafka": {"unavailable_after_s": 3.0}}) as service:
        assert service.ended(deadline_s=300) == 75
        said = service.said()
    assert "127.0.0.1:1" in said
    assert "nothing listens there" in said
    assert "since" in said


def test_sigterm_ends_a_process_whose_broker_is_away(doomed: Broker, stage: Stage) -> None:
    """An operator who stops it is not made to wait for `unavailable_after_s`."""
    with stage.serve() as service:
        service.until_live()
        doomed.kill()
        try:
            service.until_logged("broker_lost", deadline_s=300)
            assert service.terminate() in (0, 75)
        finally:
            doomed.restart()
