"""Two workers for two sources that publish to the same topics: each is audited, redriven and rebuilt for itself.

The second source holds the same records as the first, so all ids, offsets and keys coincide: only the name of the
source tells the published records apart.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from processor.audit.judge.verdicts import Verdict
from processor.audit.reconcile.command import reconcile
from processor.audit.replay.command import replay
from processor.audit.replay.options import Options
from processor.audit.replay.outcome import Replayed
from processor.audit.report.manifest import Outcome
from processor.broker import Broker
from processor.config.loading import load
from processor.config.settings import Settings
from processor.core.headers import ATTEMPT, CLOCK_MARK, SOURCE_TOPIC
from processor.kafka.client_config import Connection
from processor.simulate import Parameters, Simulation
from processor.simulate.expected import Difference, Expected, compare
from tests.faults.service import Service, Stage, Tables, due_soon, ended, toml
from tests.kafka_tools import Got, Names, Sent, produce, read_topic

REFUSED: Final = 65
_USUAL: Final[Tables] = {
    "checkpoints": {"interval_s": 0.5},
    "self_audit": {"enabled": True, "steps_per_minute": 6000, "cpu_share": 1.0},
}


class Source(NamedTuple):
    """A source and the settings of its worker."""

    stage: Stage
    changes: Tables

    def is_own(self, got: Got) -> bool:
        return got.header(SOURCE_TOPIC) == self.stage.source.encode()

    def published(self) -> list[Got]:
        return [got for got in self.stage.published() if self.is_own(got)]

    def letters(self) -> list[Got]:
        return [got for got in self.stage.letters() if self.is_own(got)]

    def differences(self, expected: Expected) -> list[Difference]:
        """What came out otherwise than it must, before any redrive."""
        topics = {topic: status for status, topic in self.stage.outcomes.items()}
        letters = [got for got in self.letters() if got.header(ATTEMPT) == b"1"]
        return compare(expected, self.published(), letters, topics)

    def redriven(self, reason: str) -> int:
        """Redrive the dead letters of this source; returns how many there were."""
        told = json.loads(self.run("dead-letters", "redrive", "--first", "--json", "--reason", reason))
        assert told["left"]["foreign"] > 0
        count: int = told["redriven"]
        return count

    def is_at_its_end(self) -> bool:
        """Whether all but the markers of a redrive's transaction are committed."""
        last: dict[int, int] = {}
        for got in read_topic(self.stage.bootstrap, self.stage.source):
            last[got.partition] = max(last.get(got.partition, -1), got.offset)
        committed = self.stage.committed()
        return all(committed.get(partition, 0) > offset for partition, offset in last.items())

    def settings(self) -> Settings:
        return load(self._config(), {})

    def serve(self) -> Service:
        return self.stage.serve(self.changes)

    def run(self, *arguments: str) -> str:
        """Run a command of the program with this source's settings; returns what it printed."""
        command = [sys.executable, "-m", "processor", *arguments, "--config", str(self._config())]
        done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def replayed(self, *, sole_source: bool = False) -> Replayed:
        settings = self.settings()
        options = Options(end="end", sole_source=sole_source)
        return replay(options, settings, lambda: Connection.build(**settings.kafka.connection()), lambda _: None)

    def _config(self) -> Path:
        config = self.stage.home / f"{self.stage.names.prefix}.toml"
        config.write_text(toml(self.stage.tables(self.changes)))
        return config


@pytest.fixture
def sources(broker: Broker, names: Names, tmp_path: Path) -> tuple[Source, Source]:
    """The second one has a group and writers of its own, and the first one's topics to publish to."""
    first = Stage(broker.bootstrap, names, tmp_path)
    second = Stage(broker.bootstrap, Names(f"{names.prefix}.b", f"{names.group}.b"), tmp_path)
    second.outcomes, second.dead_letter = first.outcomes, first.dead_letter
    writers: Tables = {"delivery": {"transactional_id_prefix": f"{names.prefix}.writers"}}
    return Source(first, _USUAL), Source(second, {**_USUAL, **writers})


def test_each_source_is_published_once_and_proven(sources: tuple[Source, Source]) -> None:
    """The second is refused, then begun as the page says; both are killed under way, and redriven before they go on."""
    first, second = sources
    simulation = Simulation(
        Parameters(runs=30, partitions=2, seed=7, responses=0.4, interrupted=0.2, hung=0.1, garbage=0.03)
    )
    records = list(simulation)
    half = len(records) // 2
    with first.serve() as one:
        one.until_live()
        first.stage.put(records[:half])
        one.until("some are published", first.published)
        with second.serve() as refused:  # the topics hold the first one's records
            assert refused.ended() == REFUSED, refused.tail()
            assert "run-steps reset" in refused.said()
        second.run("reset", "--to", "earliest", "--yes")
        second.stage.put(records[:half])
        with second.serve() as two:
            two.until("some are published", second.published)
            for service, source in ((two, second), (one, first)):
                before = len(source.published())
                source.stage.put(records[half:])
                service.until("more is published", partial(_has, source, before + 1))
                service.send(signal.SIGKILL)
    waiting = [source.redriven("malformed") for source in sources]
    assert all(waiting), "there was nothing to redrive: the test is void"
    with first.serve() as one, second.serve() as two:
        for service, source in ((one, first), (two, second)):
            service.until("all is committed", source.is_at_its_end)
            assert service.metric("runstep_audit_mismatch_total") == 0
            assert service.terminate() == 0
    for source, count in zip(sources, waiting, strict=True):
        assert source.differences(simulation.expected) == []
        assert sum(got.header(ATTEMPT) == b"2" for got in source.letters()) == count
    _judged(sources)


def _has(source: Source, count: int) -> bool:
    return len(source.published()) >= count


def _judged(sources: Sequence[Source]) -> None:
    """Each is proven; nobody is accused of what the other published, unless it is said that there is no other."""
    counts = [{"step": len(source.published()), "dead_letter": len(source.letters())} for source in sources]
    for source, own, others in zip(sources, counts, reversed(counts), strict=True):
        found = source.replayed()
        assert found.verdict is Outcome.PROVEN, (found.counts, found.questions, found.about.notes)
        assert found.counts == {kind: {"equal": count} for kind, count in own.items()}
        alone = source.replayed(sole_source=True)
        assert alone.verdict is Outcome.DIFFERENT
        assert alone.counts == {kind: {"equal": count, "extra": others[kind]} for kind, count in own.items()}


def test_what_the_other_source_came_to_counts_for_nothing_here(sources: tuple[Source, Source], tmp_path: Path) -> None:
    """A step that the other worker's clock ended is open here until its own end comes, also after a rebuild.

    Replay and reconcile see of each the end that it has come to.
    """
    first, second = sources
    record, due_s = due_soon("step_1", 1)
    produce(first.stage.bootstrap, first.stage.source, [record])
    with first.serve() as service:
        service.until("committed", lambda: first.stage.committed().get(0) == 1)
        assert service.terminate() == 0
    produce(second.stage.bootstrap, second.stage.source, [record])
    marking = Source(second.stage, {**second.changes, "steps": {"idle_grace_s": 0.5, "grace_s": 1}})
    with marking.serve() as service:
        service.until("the clock ends it", lambda: second.stage.published("expired"))
        assert service.terminate() == 0
    (expired,) = second.stage.published()
    assert (expired.header(CLOCK_MARK) or b"").endswith(b"@1")
    first.run("reset", "--to", "current", "--yes")
    at_end = Sent(ended("step_1"), b"run_1", timestamp=due_s * 1000, partition=0)
    with first.serve() as service:
        service.until_live()
        assert service.logged("restore_rebuilds", partition=0)
        produce(first.stage.bootstrap, first.stage.source, [at_end])
        service.until("published", first.published)
        assert service.terminate() == 0
    (got,) = first.published()
    assert got.topic == first.stage.outcomes["completed"]
    for source in (first, marking):
        judged = source.replayed()
        assert judged.verdict is Outcome.PROVEN, (judged.counts, judged.questions, judged.about.notes)
    lists = tmp_path / "lists.json"
    lists.write_text(json.dumps({"object": "list", "data": [json.loads(got.value or b"")], "has_more": False}))
    for source, verdict in ((first, Verdict.EQUAL), (marking, Verdict.UNVERIFIABLE)):
        settings = source.settings()
        found = reconcile([lists], settings, partial(Connection.build, **settings.kafka.connection()))
        assert [(one.step_id, one.verdict) for one in found.steps] == [("step_1", verdict)]
