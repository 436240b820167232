"""The lab sees what it is to see: planted faults are counted, a growing figure is a leak, a steady one is none."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition

from tests import kafka_tools as kt
from tests.faults import worker_fleet
from tests.faults.__main__ import table
from tests.faults.conftest import Behind
from tests.faults.lab import Scene, Tally, compare_copies, offsets_that_went_back
from tests.faults.recovery import recoveries
from tests.faults.soak import Sample, leaks
from tests.faults.worker_fleet import Offsets, Topics
from tests.kafka_tools import Got, Names, Sent


def test_what_is_planted_is_counted(behind: Behind, tmp_path: Path) -> None:
    """One step published twice, one never, and one altered."""
    tally = Tally("planted", 1)
    with Scene(behind.cluster, tmp_path, tally, partitions=1, session_s=3.0) as scene:
        scene.fleet.start()
        scene.fleet.await_ready()
        scene.put(300)
        scene.until_committed()
        published = [got for topic in scene.topics.outcomes for got in kt.read_topic(behind.cluster.bootstrap, topic)]
        again = published[0]
        kt.produce(
            behind.cluster.bootstrap,
            again.topic,
            [Sent(again.value, again.key, again.headers, partition=again.partition)],
        )
        steps = scene.simulation.expected.steps
        altered = published[1]
        revision = int(altered.header("runstep-revision") or b"0")
        key = ((altered.key or b"").decode(), revision)
        steps[key] = steps[key]._replace(snapshot_text=steps[key].snapshot_text.replace("{", '{"planted":1,', 1))
        steps["never", 0] = steps[key]
        scene.judge(with_replay=False)
    assert (tally.lost, tally.doubled, tally.wrong) == (1, 1, 1)
    assert any("was seen twice" in problem for problem in tally.problems)
    assert not tally.is_right


def test_an_offset_that_went_back_is_read_from_the_coordinators_log(behind: Behind, names: Names) -> None:
    topics = Topics.create(behind.cluster.bootstrap, names, 1)
    settings = {"bootstrap.servers": behind.cluster.bootstrap, "group.id": topics.group, "log_level": 2}
    consumer = Consumer(settings)
    for offset in (5, 7, 3, 9):
        consumer.commit(offsets=[TopicPartition(topics.source, 0, offset)], asynchronous=False)
    consumer.close()
    assert offsets_that_went_back(topics) == ["partition 0: 7, then 3"]


def test_copies_may_differ_in_their_fold_version_alone() -> None:
    def step(offset: int, value: bytes = b"{}", version: bytes = b"8", revision: bytes = b"0") -> Got:
        named = (("runstep-revision", revision), ("runstep-first-offset", b"1"), ("runstep-fold-version", version))
        return Got("out", 0, offset, 1, b"step_1", value, named)

    assert compare_copies([step(0), step(1, revision=b"1")]) == (0, [])
    assert compare_copies([step(0), step(1, version=b"7")]) == (1, [])
    copies, unequal = compare_copies([step(0), step(1), step(2, b"{1}")])
    assert (copies, len(unequal)) == (1, 1)


def test_who_has_read_all_does_not_wait() -> None:
    """Neither for a load that stands still, nor from before the fault; who has something to read and does not, does."""
    topics = Topics("", "", "in", "dead", {}, partitions=2)
    offsets = Offsets(topics)
    offsets.history = [(0.0, {0: 5, 1: 5}), (9.0, {0: 5, 1: 7}), (30.0, {0: 9, 1: 7})]
    written = [(0.0, 0, 5), (0.0, 1, 5), (8.0, 1, 6), (8.5, 1, 7), (26.0, 0, 9)]
    assert offsets.longest_wait_s(10.0, 40.0, written) == 4.0, "partition 0, from 26 to 30; partition 1 has read all"
    assert offsets.longest_wait_s(5.0, 28.0, written) == 2.0, "partition 0 still waits at the end"
    assert offsets.longest_wait_s(8.75, 12.0, written) == 0.25, "partition 1, from the fault on"
    assert offsets.longest_wait_s(10.0, 25.0, written) == 0.0


def test_a_recovery_ends_when_all_partitions_move() -> None:
    """Counted from each fault, also where the next one comes before; what has nothing to read does not count."""
    written = [(float(at), partition, at + 1) for at in range(40) for partition in (0, 1)]
    moves = [(float(at), {0: at, 1: at if at < 10 or at >= 18 else 9}) for at in range(40) if at < 10 or at >= 14]
    found = recoveries([*moves, (45.0, {0: 40, 1: 40})], written, [2.0, 9.5, 12.0, 44.0], 60.0)
    assert [each.seconds for each in found] == [1.0, 8.5, 6.0, 1.0], "partition 1 moves again at 18"
    assert [each.is_alone for each in found] == [True, False, True, True]
    assert [each.seconds for each in recoveries(moves, written, [50.0], 60.0)] == [10.0], (
        "two records are still to read"
    )
    assert recoveries([*moves, (45.0, {0: 40, 1: 40})], written, [50.0], 60.0) == [(0.0, True)]


def test_a_coordinator_that_was_away_is_not_believed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    topics = Topics("", "", "in", "dead", {}, partitions=1)
    patient, strict = Offsets(topics, is_patient=True), Offsets(topics)
    for offsets in (patient, strict):
        for offset in (5, 3, 6):
            offsets._note({0: offset})
    assert strict.decreased == ["partition 0: 5, then 3"]
    assert (patient.decreased, patient.now) == ([], {0: 6})
    monkeypatch.setattr(worker_fleet, "_STALE_S", 0.0)
    patient._note({0: 4})
    assert patient.decreased == ["partition 0: 6, then 4"]


def _samples(per_hour: float, start_mb: float = 100) -> list[Sample]:
    rng = random.Random(1)
    minutes = range(0, 240, 2)
    return [Sample(m * 60, start_mb + per_hour * m / 60 + rng.uniform(-3, 3), 40, 6, 20) for m in minutes]


def test_a_figure_that_grows_is_a_leak() -> None:
    assert leaks(_samples(0.5)) == []
    (found,) = leaks(_samples(12))
    assert "rss_mb grows" in found


def test_what_is_filled_in_the_beginning_is_no_leak() -> None:
    early = [sample._replace(rss_mb=40 + sample.at_s / 60) for sample in _samples(0) if sample.at_s < 3_000]
    assert leaks(early + [sample for sample in _samples(0) if sample.at_s >= 3_000]) == []


def test_the_table_sums_up() -> None:
    one = Tally("one", 1, rounds=2, faults=3, records=10, lost=1, recoveries_s=[1.0, 2.0])
    two = Tally("two", 1, rounds=1, faults=4, records=5, doubled=2, problems=["x"], recoveries_s=[9.0])
    head, *rows, total = table([one, two]).splitlines()
    assert head.split()[:7] == ["scenario", "rounds", "faults", "records", "lost", "doubled", "wrong"]
    assert [row.split()[0] for row in rows] == ["one", "two"]
    assert total.split() == ["all", "3", "7", "15", "1", "2", "0", "1", "2.0", "9.0", "9.0"]
