"""The last witness of a fault test: the replay folds the log afresh and judges all that the workers published."""

from __future__ import annotations

from pathlib import Path

from processor.audit.replay.command import replay
from processor.audit.replay.options import Options
from processor.audit.replay.outcome import Replayed
from processor.audit.report.manifest import Outcome
from processor.config.loading import load
from processor.kafka.client_config import Connection
from tests import kafka_tools as kt
from tests.faults.worker_fleet import Fleet


def prove(fleet: Fleet, home: Path) -> Replayed:
    """See that the whole source topic proves all that was published, and that the counts add up.

    Args:
        fleet: at its end (see `fleet.finish`); the replay gets the settings that its workers got.
        home: where the replay may write.
    """
    topics = fleet.topics
    found = replayed(fleet, home)
    assert found.verdict is Outcome.PROVEN, (found.counts, found.questions, found.about.notes)
    published = sum(len(kt.read_topic(topics.bootstrap, topic)) for topic in topics.outcomes)
    letters = len(kt.read_topic(topics.bootstrap, topics.dead_letter))
    assert found.counts == {"step": {"equal": published}, "dead_letter": {"equal": letters}}
    assert {result.partition for result in found.results} == set(range(topics.partitions))
    assert all(result.begin == 0 for result in found.results)
    assert found.coverage["data"] == sum(result.records for result in found.results)
    assert sum(found.coverage.values()) == sum(result.end for result in found.results)
    return found


def replayed(fleet: Fleet, home: Path) -> Replayed:
    """Replay the whole source topic with the settings that the workers got."""
    settings = load(None, fleet.environment)
    return replay(
        Options(end="end", workers=2, work=str(home / "replay")),
        settings,
        lambda: Connection.build(**settings.kafka.connection()),
        lambda _: None,
    )
