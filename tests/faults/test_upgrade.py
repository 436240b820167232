"""Two versions of the program in one group: a rolling upgrade, the way back, and what becomes of open steps.

The earlier version is the wheel of a pinned commit (`tests/earlier_version.py`), of fold version 1.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import pytest

from processor.audit.report.manifest import Outcome
from processor.broker import Broker
from processor.core.checkpoints import RESPONSE_VERSION
from processor.core.effects import FOLD_VERSION
from processor.core.headers import VERSION
from processor.errors import CorruptLog
from processor.simulate import Parameters, Simulation
from tests.earlier_version import command_of_earlier_version
from tests.faults.audit_check import replayed
from tests.faults.service import EVENT_ID, Service, Stage, Tables, created, delta, ended, toml
from tests.faults.worker_fleet import WAIT_S, Fleet, Load, Process, Topics, finish, watched
from tests.kafka_tools import Got, Names, create_topics

PARTITIONS: Final = 6
EVENTS: Final = 13_000
PER_SECOND: Final = 500.0
"""So that there is work for as long as workers are replaced; on a slow machine they are replaced less often."""
RULES: Final = {"steps__max_step_bytes": "1572864"}
"""The one rule whose default differs between the two versions."""

CHANGES: Final[Tables] = {
    "steps": {"max_step_bytes": 1_572_864, "idle_grace_s": 86_400.0},
    "checkpoints": {"interval_s": 0.2},
}
WITHOUT_IDS: Final = {"event": 10.0, "bare": 1.0, "sse": 3.0, "sse_many": 1.0}
"""Forms of records that carry no event id: the earlier version refuses checkpoints of steps that have one."""
THIS: Final = (sys.executable,)


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    return command_of_earlier_version(tmp_path_factory.mktemp("earlier"))


def test_a_rolling_upgrade_and_the_way_back_under_load(
    broker: Broker,
    names: Names,
    tmp_path: Path,
    earlier: Sequence[str],
    figures: Callable[[str], None],
) -> None:
    """Upgrade, roll back, upgrade again, a worker at a time: every step once, whole, whichever version owned it."""
    topics = Topics.create(broker.bootstrap, names, PARTITIONS)
    simulation = Simulation(
        Parameters(records=EVENTS, seed=3, partitions=PARTITIONS, with_ids=0.0, envelopes=WITHOUT_IDS)
    )
    with Fleet(topics, tmp_path, **RULES) as fleet, watched(topics) as (downstream, offsets):
        fleet.start(2, program=earlier)
        fleet.await_ready()
        rounds = mixed = 0
        with Load(topics, simulation, PER_SECOND) as load:
            for program in (THIS, earlier, THIS):
                if load.is_over:
                    break
                rounds += 1
                for leaving in fleet.running:
                    fleet.start(program=program)
                    fleet.await_ready()
                    mixed += len(set(map(_fold_version, fleet.running))) == 2
                    leaving.terminate()
                    assert leaving.ended(WAIT_S) == 0
                    fleet.await_ready()
            assert rounds >= 2, "the load must last for an upgrade and the way back: raise EVENTS"
            finish(fleet, simulation, load, downstream, offsets, within_s=300)
    assert mixed == 2 * rounds, "both versions had partitions of one group, each time"
    assert fleet.log("worker_restarted", "commit_failed", "unit_dropped") == []
    versions = Counter(_version_of(got) for got in downstream.published)
    assert versions.keys() == {b"1", b"%d" % FOLD_VERSION}
    found = replayed(fleet, tmp_path)
    assert found.verdict is Outcome.UNPROVABLE, "the other version's steps cannot be judged by this one's rules"
    assert found.counts["step"].keys() <= {"equal", "unverifiable"}, found.counts
    assert found.counts["step"]["equal"] >= 0.9 * versions[b"%d" % FOLD_VERSION]
    figures(f"{dict(versions)} steps by fold version, {mixed} times with both versions in the group; {found.counts}")


def test_what_an_open_step_sees(broker: Broker, names: Names, tmp_path: Path, earlier: Sequence[str]) -> None:
    """A step that is open while the version changes comes out whole, under the version that folded its checkpoint."""
    stage = Stage(broker.bootstrap, names, tmp_path, partitions=1)
    changes = CHANGES
    with stage.serve(changes, program=earlier) as old:
        old.until_live()
        stage.say(created("step_up"), delta("step_up", "one, "))
        _until_checkpointed(stage, old, b"sstep_up")
        assert old.terminate() == 0
    with stage.serve(changes) as new:
        new.until_live()
        stage.say(delta("step_up", "two"), ended("step_up"))
        stage.say(created("step_back"), delta("step_back", "one, "))
        _until_checkpointed(stage, new, b"sstep_back")
        assert new.terminate() == 0
    with stage.serve(changes, program=earlier) as old:
        old.until_live()
        stage.say(delta("step_back", "two"), ended("step_back"))
        old.until("published", lambda: len(stage.published()) == 2)
        assert old.terminate() == 0
    published = {got.key: got for got in stage.published()}
    assert published.keys() == {b"step_up", b"step_back"}
    for got in published.values():
        assert got.value is not None
        assert b'"arguments":"one, two"' in got.value
        assert _version_of(got) == b"1"
    assert stage.letters() == []
    assert stage.replayed(changes) is Outcome.UNPROVABLE


def test_the_way_back_waits_for_responses(broker: Broker, names: Names, tmp_path: Path, earlier: Sequence[str]) -> None:
    """The earlier version refuses the checkpoint of a response, and starts once the response is forgotten."""
    stage = Stage(broker.bootstrap, names, tmp_path, partitions=1)
    changes: Tables = {**CHANGES, "steps": {**CHANGES["steps"], "ended_retention_s": 0}}
    key = b"s\0resp_1"
    with stage.serve(changes) as new:
        new.until_live()
        stage.say(_response("created", "in_progress"), key=b"resp_1")
        _until_checkpointed(stage, new, key)
        assert new.terminate() == 0
    with stage.serve(changes, program=earlier) as old:
        assert old.ended() == CorruptLog.exit_code
        assert f"version {RESPONSE_VERSION}, this program writes 1" in old.said(), old.tail()
    with stage.serve(changes) as new:
        new.until_live()
        stage.say(_response("completed", "completed"), key=b"resp_1")
        stage.say(created("step_later"))
        new.until("forgotten", lambda: stage.kept().get(key) is None)
        assert new.terminate() == 0
    with stage.serve(changes, program=earlier) as old:
        old.until_live()
        stage.say(ended("step_later"))
        old.until("published", lambda: any(got.key == b"step_later" for got in stage.published()))
        assert old.terminate() == 0


def test_the_way_back_by_a_reset(broker: Broker, names: Names, tmp_path: Path, earlier: Sequence[str]) -> None:
    """With a checkpoint topic of its own the earlier version rebuilds the state from the log, by its own rules.

    It refuses the checkpoints that are there: of a response, and of a step whose events have ids.
    """
    stage = Stage(broker.bootstrap, names, tmp_path, partitions=1)
    with stage.serve(CHANGES) as new:
        new.until_live()
        stage.say(created("step_1"), headers=((EVENT_ID, b"first"),))
        stage.say(delta("step_1", "one, "), headers=((EVENT_ID, b"second"),))
        _until_checkpointed(stage, new, b"sstep_1")
        assert new.terminate() == 0
    with stage.serve(CHANGES, program=earlier) as old:
        assert old.ended() == CorruptLog.exit_code
        assert "version 3, this program writes 1" in old.said(), old.tail()
    own: Tables = {**CHANGES, "checkpoints": {"topic": names.topic("earlier.checkpoints")}}
    compacted = {"cleanup.policy": "compact", "max.message.bytes": str(80 << 20)}
    create_topics(broker.bootstrap, own["checkpoints"]["topic"], config=compacted)
    config = tmp_path / "reset.toml"
    config.write_text(toml(stage.tables(own)))
    command = [*earlier, "-m", "processor", "reset", "--config", str(config)]
    subprocess.run([*command, "--to", "current", "--yes"], check=True, timeout=120)
    with stage.serve(own, program=earlier) as old:
        old.until_live()
        stage.say(delta("step_1", "two"), ended("step_1"))
        old.until("published", lambda: len(stage.published()) == 1)
        assert old.terminate() == 0
    assert b'"arguments":"one, two"' in (stage.published()[0].value or b"")


def _until_checkpointed(stage: Stage, service: Service, key: bytes) -> None:
    service.until(f"checkpoint {key!r}", lambda: stage.kept().get(key) is not None)


def _response(kind: str, status: str) -> bytes:
    number = 0 if kind == "created" else 1
    return (
        f'{{"type":"response.{kind}","sequence_number":{number},"response":{{"id":"resp_1","object":"response",'
        f'"created_at":1,"status":"{status}","output":[]}}}}'
    ).encode()


def _fold_version(process: Process) -> str:
    (line,) = (series for series in process.metrics() if series.startswith("runstep_build_info"))
    return line.partition('fold_version="')[2].partition('"')[0]


def _version_of(got: Got) -> bytes | None:
    return got.header(VERSION)
