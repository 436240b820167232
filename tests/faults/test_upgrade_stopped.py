"""An upgrade with all workers stopped, where the earlier version does not read the new one's checkpoints.

The earlier version is the wheel of the last commit before checkpoint version 3 (docs/decisions/0013), of fold version
2: what it published is not provable by the rules of this one, and is compared with the simulation's own result.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec
import pytest

from processor.audit.report.manifest import Outcome
from processor.broker import Broker
from processor.core.checkpoint_format import CheckpointEntry
from processor.core.effects import FOLD_VERSION
from processor.core.headers import VERSION
from processor.errors import CorruptLog
from processor.simulate import Parameters, Produced, Simulation
from tests import kafka_tools as kt
from tests.earlier_version import command_of_earlier_version
from tests.faults.audit_check import replayed
from tests.faults.worker_fleet import START_S, WAIT_S, Fleet, Load, Offsets, Topics, eventually, finish, watched
from tests.kafka_tools import Names

REVISION: Final = "94957fae77486b763856fafeaecd0712a5906ae5"
PARTITIONS: Final = 4
EVENTS: Final = 8_000
PER_SECOND: Final = 400.0
"""So slow that checkpoints are written meanwhile."""

SETTINGS: Final = {"checkpoints__interval_s": "0.2", "source__session_timeout_ms": "30000"}
"""Every stop is an orderly one here: no session must run out, however busy the machine is."""


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    return command_of_earlier_version(tmp_path_factory.mktemp("earlier"), REVISION)


def test_steps_whose_events_have_ids_survive_the_upgrade_and_the_way_back(
    broker: Broker, names: Names, tmp_path: Path, earlier: Sequence[str], figures: Callable[[str], None]
) -> None:
    """Stop the old workers, start new ones; a way back that is refused with 65 loses nothing; nothing differs."""
    topics = Topics.create(broker.bootstrap, names, PARTITIONS)
    simulation = Simulation(Parameters(records=EVENTS, seed=5, partitions=PARTITIONS, with_ids=1.0))
    records = list(simulation)
    with Fleet(topics, tmp_path, **SETTINGS) as fleet, watched(topics) as (downstream, offsets):
        fleet.start(2, program=earlier)
        fleet.await_ready()
        _stop_in_the_middle_of(records[: EVENTS // 3], fleet, offsets)
        before = _open_steps(topics)
        assert before
        assert {entry.version for entry in before.values()} == {1}

        fleet.start(2)
        fleet.await_ready()
        _stop_in_the_middle_of(records[EVENTS // 3 : 2 * EVENTS // 3], fleet, offsets)
        after = _open_steps(topics)
        assert 3 in {entry.version for entry in after.values()}

        stood = dict(offsets.now)
        (refused,) = fleet.start(program=earlier)
        assert refused.ended(START_S) == CorruptLog.exit_code
        said = refused.log_path.read_text(errors="replace")
        assert "version 3, this program" in said, said[-2000:]
        assert topics.checkpoints in said, "the refusal names the topic"
        assert offsets.now == stood
        assert _open_steps(topics) == after

        fleet.start(2)
        fleet.await_ready()
        with Load(topics, records[2 * EVENTS // 3 :], PER_SECOND) as load:
            finish(fleet, simulation, load, downstream, offsets, within_s=180)
    versions = Counter(got.header(VERSION) for got in downstream.published)
    assert versions.keys() == {b"2", b"%d" % FOLD_VERSION}
    found = replayed(fleet, tmp_path)
    assert found.verdict is Outcome.UNPROVABLE, "the other version's steps cannot be judged by this one's rules"
    assert found.counts["step"] == {"equal": versions[b"%d" % FOLD_VERSION], "unverifiable": versions[b"2"]}
    assert found.counts["dead_letter"].keys() <= {"equal", "unverifiable"}
    figures(f"{len(before)} and {len(after)} steps open at the two stops; {found.counts}")


def _stop_in_the_middle_of(records: Sequence[Produced], fleet: Fleet, offsets: Offsets) -> None:
    """Produce these and end all workers in an orderly way when half of each partition's is applied."""
    there = Counter(record.partition for record in records)
    half = {partition: offsets.now.get(partition, 0) + count // 2 for partition, count in there.items()}
    with Load(fleet.topics, records, PER_SECOND) as load:
        offsets.await_beyond(half, 2 * WAIT_S)
        fleet.stop()
        load.hurry()
        eventually("all are produced", lambda: load.is_over, WAIT_S)


def _open_steps(topics: Topics) -> dict[bytes, CheckpointEntry]:
    """The checkpoints in force of steps that have not ended: key -> entry."""
    latest = {got.key: got.value for got in kt.read_topic(topics.bootstrap, topics.checkpoints)}
    entries = {
        key: msgspec.msgpack.decode(value, type=CheckpointEntry)
        for key, value in latest.items()
        if key is not None and key.startswith(b"s") and value
    }
    return {key: entry for key, entry in entries.items() if entry.kind == "step" and entry.body}
