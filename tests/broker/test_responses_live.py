"""Both dialects on one topic of a real broker: simulated and published, folded by a worker that is killed, replayed."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

import pytest

from processor.audit.report.manifest import Outcome
from processor.broker import Broker
from processor.demo import recordings
from processor.demo.tails import Out
from processor.kafka.client_config import Connection
from processor.publish.command import response_sample_files, run, sample_files
from processor.simulate.expected import compare
from tests import kafka_tools as kt
from tests.broker.test_replay import WAIT_S, audit, committed, play
from tests.faults.worker_fleet import Fleet, Topics, eventually
from tests.kafka_tools import Names


@pytest.fixture
def topics(broker: Broker, names: Names) -> Topics:
    return Topics.create(broker.bootstrap, names, partitions=2)


def test_both_dialects_are_published_folded_and_proven(topics: Topics, tmp_path: Path) -> None:
    files, said = [*sample_files(), *response_sample_files()], list[str]()
    connection = Connection(topics.bootstrap)
    with Fleet(topics, tmp_path, **{"http.enabled": "false"}) as fleet:
        simulation, total = play(topics, runs=30, seed=5, responses=0.6, lost=0.3, dropped=0.3, rotated=0.3)
        (worker,) = fleet.start()
        eventually("some of it is done", lambda: committed(topics) > total / 3, WAIT_S)
        worker.kill()
        (worker,) = fleet.start()
        # Twice: what comes again is known, and changes nothing.
        for _ in range(2):
            sending = run(files, topic=topics.source, connection=connection, compression="lz4", echo=said.append)
            assert asyncio.run(sending) == 0
        total += sum(int(line.split()[1]) for line in said if line.startswith("published"))
        eventually("all of it is done", partial(_is_done, topics, total), WAIT_S)
        worker.terminate()
        assert worker.ended(WAIT_S) == 0
    out = [
        Out(status, record.key, record.value, tuple(record.headers))
        for topic, status in topics.outcomes.items()
        for record in kt.read_topic(topics.bootstrap, topic)
    ]
    dead = kt.read_topic(topics.bootstrap, topics.dead_letter)
    told = recordings.read(files)
    of_samples = [record for record in out if (record.key or b"").decode() in told]
    assert [str(difference) for difference in recordings.compare(told, of_samples)] == []
    simulated = [record for record in out if (record.key or b"").decode() not in told]
    assert [str(difference) for difference in compare(simulation.expected, simulated, dead)] == []
    replayed = audit(topics)
    assert replayed.verdict is Outcome.PROVEN, (replayed.counts, replayed.questions)
    assert replayed.counts == {"step": {"equal": len(out)}, "dead_letter": {"equal": len(dead)}}


def _is_done(topics: Topics, total: int) -> bool:
    return committed(topics) >= total
