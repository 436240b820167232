"""`delivery.mode` changed in the middle of steps, with kills: nothing is lost, and what comes twice is equal."""

from __future__ import annotations

import json
import signal
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Final

from processor.audit.report.manifest import Outcome
from processor.broker import Broker
from processor.simulate import Parameters, Simulation
from tests.faults.service import Stage, Tables, created, delta, ended
from tests.faults.test_positions import set_offsets
from tests.kafka_tools import Names, committed

EXACTLY_ONCE, AT_LEAST_ONCE = "exactly_once", "at_least_once"
_DELTAS: Final = 600


def in_mode(mode: str, **delivery: int) -> Tables:
    source = {"max_poll_records": delivery.get("max_unit_records", 100)}
    return {"delivery": {"mode": mode, **delivery}, "source": source, "checkpoints": {"interval_s": 0.1}}


def moved_beyond(stage: Stage, before: int) -> bool:
    return sum(stage.committed().values()) > before


def test_kills_around_every_change_lose_nothing(broker: Broker, names: Names, tmp_path: Path) -> None:
    stage = Stage(broker.bootstrap, names, tmp_path)
    simulation = Simulation(Parameters(runs=150, partitions=stage.partitions, seed=23, responses=0.4, interrupted=0.2))
    records = list(simulation)
    modes = (EXACTLY_ONCE, AT_LEAST_ONCE, AT_LEAST_ONCE, EXACTLY_ONCE)
    part = len(records) // len(modes)
    for number, mode in enumerate(modes, 1):
        with stage.serve(in_mode(mode)) as service:
            service.until_live()
            before = sum(stage.committed().values())
            if number < len(modes):
                stage.put(records[(number - 1) * part : number * part])
                service.until("some of it", partial(moved_beyond, stage, before))
                service.send(signal.SIGKILL)
                service.ended()
            else:
                stage.put(records[(number - 1) * part :])
                stage.until_done(records, service)
                assert service.terminate() == 0
    found = {difference.kind for difference in stage.differences(simulation.expected)}
    assert found <= {"twice", "dead_letter_extra"}
    said = defaultdict(set)
    for got in stage.published():
        said[got.key, got.header("runstep-revision")].add((got.topic, got.value, got.headers))
    assert all(len(contents) == 1 for contents in said.values())


def test_a_kill_before_exactly_once_has_caught_up_with_the_checkpoints(
    broker: Broker, names: Names, tmp_path: Path
) -> None:
    """A worker killed with at_least_once left checkpoints ahead of its offset; its successor dies on the way there."""
    stage = Stage(broker.bootstrap, names, tmp_path, partitions=1)
    with stage.serve(in_mode(AT_LEAST_ONCE)) as service:
        service.until_live()
        stage.say(created("step_1"))
        service.until("its beginning", lambda: stage.committed().get(0) == 1)
        stage.say(*[delta("step_1", "x") for _ in range(_DELTAS)])
        service.until("its deltas", lambda: stage.committed().get(0) == 1 + _DELTAS)
        service.until(
            "a checkpoint of them", lambda: stage.kept().get(b"sstep_1") and stage.resume_points()[0]["r"] > 1
        )
        assert service.terminate() == 0
    # The metadata beside the first offset, as a kill right before the last commit would have left it.
    point = json.loads(committed(stage.bootstrap, stage.group, stage.source)[0][1])
    set_offsets(stage, {0: 1}, {0: json.dumps(point | {"r": 0, "c": 0})})
    with stage.serve(in_mode(EXACTLY_ONCE, max_unit_records=1)) as service:
        service.until("on the way", lambda: stage.committed()[0] > 1)
        service.send(signal.SIGKILL)
        service.ended()
    assert stage.committed()[0] < 1 + _DELTAS, "it had caught up: the test is void"
    with stage.serve(in_mode(EXACTLY_ONCE)) as service:
        service.until_live()
        stage.say(ended("step_1"))
        service.until("its end", lambda: stage.committed()[0] == 2 + _DELTAS)
        assert service.terminate() == 0
    (got,) = stage.published()
    assert b"x" * _DELTAS in (got.value or b"")
    assert stage.resume_points()[0].get("e", True), "caught up, the two agree again"
    assert stage.replayed() is Outcome.PROVEN
