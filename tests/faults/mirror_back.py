"""A fail-over to the second cluster and the way back, as docs/second-cluster.md says, with workers killed throughout.

The page's settings and commands are the ones that are run. The source holds no transactions, so that offsets are the
same on both clusters and the replay on the first one judges what was published on both.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from processor.audit.report.manifest import Outcome
from processor.simulate import Parameters, Produced, Simulation
from processor.simulate.expected import compare
from tests import kafka_tools as kt
from tests.faults.audit_check import prove, replayed
from tests.faults.cluster import Cluster
from tests.faults.lab import Tally
from tests.faults.mirror import MirrorMaker, _contents, _ends, _has, _jars, _names, _see
from tests.faults.service import due_soon, ended
from tests.faults.worker_fleet import WAIT_S, Fleet, Load, Offsets, Topics, eventually
from tests.kafka_tools import Got, Sent

_PARTITIONS: Final = 12
_WORKERS: Final = 4
_RECORDS: Final = 6000
_PER_SECOND: Final = 600.0
_MARKING: Final[Mapping[str, str]] = {
    "steps__idle_grace_s": "0.5",
    "steps__grace_s": "1",
    "steps__ended_retention_s": "600",
}
"""A step ends by the clock soon after its deadline."""


def there_and_back(home: Path, tally: Tally, seconds: float) -> None:
    """Each part once: the time given is not asked for."""
    tally.home = str(home)
    _jars()
    with Cluster(home / "first") as first, Cluster(home / "second") as second:
        names = _names(tally)
        here = Topics.create(first.bootstrap, names, _PARTITIONS)
        there = Topics.create(second.bootstrap, names, _PARTITIONS, mirrored=[here.source])
        marked = Topics.create(second.bootstrap, _names(tally), 1)
        simulation = Simulation(
            Parameters(
                records=_RECORDS,
                seed=tally.seed,
                partitions=_PARTITIONS,
                hung=0.1,
                interrupted=0.2,
                responses=0.4,
            )
        )
        records = list(simulation)
        third = len(records) // 3
        with MirrorMaker(home / "mirror", first, second, [here.source]) as mirror:
            _lost_under_load(here, home / "on-first", records[:third], mirror, there, tally)
        # A producer that knows what it has not seen arrive says it again, and goes on.
        missing = list(_behind(records, _ends(there)))
        alone = third - (len(records) - len(missing))
        _see(tally, alone > 0, "all was mirrored: the scenario is void")
        tally.notes.append(f"{alone} records were on the first cluster alone")
        rest = len(missing) - third
        _killed_under_load(there, home / "on-second", missing[:rest], tally)
        due_ms = _ended_by_the_clock(marked, home / "marks")
        _go_back(first, second, home / "back", [there, marked], tally)
        here, remarked = (_at(topics, first.bootstrap) for topics in (there, marked))
        for topics, told in ((here, {}), (remarked, _MARKING)):
            _reset(topics, home, told)
        _killed_under_load(here, home / "on-first-again", missing[rest:], tally)
        published = [got for topic in here.outcomes for got in kt.read_topic(here.bootstrap, topic)]
        letters = kt.read_topic(here.bootstrap, here.dead_letter)
        tally.count(compare(simulation.expected, published, letters, dict(here.outcomes)))
        prove(Fleet(here, home), home / "whole")
        _not_ended_again(remarked, home / "marks-again", due_ms, tally)
    tally.rounds += 1
    tally.records += len(records)


def _lost_under_load(
    topics: Topics, home: Path, records: Sequence[Produced], mirror: MirrorMaker, there: Topics, tally: Tally
) -> None:
    """Kill a worker under load, then all of them while records are still to be mirrored."""
    home.mkdir()
    with Fleet(topics, home) as fleet:
        fleet.start(_WORKERS)
        fleet.await_ready()
        with Load(topics, records, _PER_SECOND) as load:
            eventually("a third is produced", lambda: load.sent > len(records) // 3, WAIT_S)
            fleet.running[0].kill()
            mirror.until("the mirror is at work", lambda: sum(_ends(there).values()) > 0)
            eventually("most is produced", lambda: load.sent > len(records) // 2, WAIT_S)
            mirror.close()
            load.hurry()
            eventually("all is produced", lambda: load.is_over, WAIT_S)
        tally.faults += _WORKERS  # the fleet is killed: leaving the block


def _killed_under_load(topics: Topics, home: Path, records: Sequence[Produced], tally: Tally) -> None:
    """Process these and all before them, with half of the workers killed midway and started again."""
    home.mkdir()
    with Fleet(topics, home) as fleet, Offsets(topics) as offsets:
        fleet.start(_WORKERS)
        fleet.await_ready()
        with Load(topics, records, _PER_SECOND) as load:
            eventually("half is produced", lambda: load.sent > len(records) // 2, WAIT_S)
            for process in fleet.running[: _WORKERS // 2]:
                process.kill()
                tally.faults += 1
            fleet.start(_WORKERS // 2)
            eventually("all is produced", lambda: load.is_over, 2 * WAIT_S)
        offsets.await_at(_ends(topics), 2 * WAIT_S)
        fleet.await_ready()
        fleet.stop()
    _see(tally, not offsets.decreased, f"offsets that decreased: {offsets.decreased}")


def _behind(records: Sequence[Produced], ends: Mapping[int, int]) -> list[Produced]:
    """What stands behind these ends, in each partition's order."""
    counts = {partition: itertools.count(1) for partition in ends}
    return [record for record in records if next(counts[record.partition]) > ends[record.partition]]


def _ended_by_the_clock(topics: Topics, home: Path) -> int:
    """A step whose deadline passes while its partition is idle; returns the deadline, in ms."""
    home.mkdir()
    record, due_s = due_soon("step_hung", 1)
    kt.produce(topics.bootstrap, topics.source, [record])
    with Fleet(topics, home, **_MARKING) as fleet:
        fleet.start()
        eventually("the step expires", lambda: _expired(topics), WAIT_S, every_s=0.5)
        fleet.stop()
    return due_s * 1000


def _not_ended_again(topics: Topics, home: Path, due_ms: int, tally: Tally) -> None:
    """What the second cluster's clock ended is ended here as well: a late event amends it."""
    home.mkdir()
    late = Sent(ended("step_hung"), b"run_1", partition=0, timestamp=due_ms + 60_000)
    with Fleet(topics, home, **_MARKING) as fleet, Offsets(topics) as offsets:
        fleet.start()
        fleet.await_ready()
        kt.produce(topics.bootstrap, topics.source, [late])
        offsets.await_at(_ends(topics), WAIT_S)
        fleet.stop()
        published = [got for topic in topics.outcomes for got in kt.read_topic(topics.bootstrap, topic)]
        revisions = Counter((topics.outcomes[got.topic], got.header("runstep-revision")) for got in published)
        as_it_must = revisions == {("expired", b"0"): 1, ("completed", b"1"): 1}
        _see(tally, as_it_must, f"of the step that the clock ended there came {dict(revisions)}")
        found = replayed(fleet, home)
        _see(tally, found.verdict is Outcome.PROVEN, f"the marked step is {found.verdict}: {found.counts}")


def _expired(topics: Topics) -> list[Got]:
    (topic,) = (topic for topic, end in topics.outcomes.items() if end == "expired")
    return kt.read_topic(topics.bootstrap, topic)


def _go_back(first: Cluster, second: Cluster, home: Path, sets: Sequence[Topics], tally: Tally) -> None:
    """The page's steps 1 to 4: the first cluster's topics go, and the second's are mirrored there."""
    kt.delete_topics(second.bootstrap, *(f"mm2-{what}.first.internal" for what in ("configs", "offsets", "status")))
    mirrored = [[topics.source, *topics.outcomes, topics.dead_letter] for topics in sets]
    kt.delete_topics(first.bootstrap, sets[0].checkpoints, *mirrored[0])
    known = kt.admin(first.bootstrap)
    eventually("they are gone", lambda: sets[0].source not in known.list_topics(timeout=10).topics, WAIT_S)
    compacted = {"cleanup.policy": "compact", "max.message.bytes": "70000000"}
    for topics in sets:
        kt.create_topics(first.bootstrap, topics.checkpoints, partitions=topics.partitions, config=compacted)
    every = list(itertools.chain(*mirrored))
    wanted = {topic: _contents(sets[0], topic) for topic in every}
    there = {topic: len(found) for topic, found in wanted.items()}
    back = _at(sets[0], first.bootstrap)
    with MirrorMaker(home, first, second, every, block="mm2-back.properties") as mirror:
        for topic in every:
            mirror.until(f"{topic} is mirrored", partial(_has, back, topic, there[topic]))
    for topic in every:
        _see(tally, _contents(back, topic) == wanted[topic], f"{topic}: mirrored otherwise than it is")
        _see(tally, len(_contents(sets[0], topic)) == there[topic], f"{topic}: the mirror wrote to the second cluster")
    for topics in sets:
        _see(tally, _ends(_at(topics, first.bootstrap)) == _ends(topics), "the offsets differ: no proof of the whole")


def _at(topics: Topics, bootstrap: str) -> Topics:
    """The topics of the same names on another cluster."""
    return Topics(bootstrap, topics.group, topics.source, topics.dead_letter, topics.outcomes, topics.partitions)


def _reset(topics: Topics, home: Path, settings: Mapping[str, str]) -> None:
    """The page's step 5."""
    done = subprocess.run(
        [sys.executable, "-m", "processor", "reset", "--to", "latest", "--yes"],
        env=Fleet(topics, home, **settings).environment,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
    )
    assert done.returncode == 0, done.stderr
