"""The scenarios of `python -m tests.faults`, by name: what each does with the seconds it is given."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

from tests.compat.versions import Served
from tests.faults import accidents, brokers, late, mirror, mirror_back, mixed, starts, trouble
from tests.faults.cluster import Cluster
from tests.faults.lab import Tally
from tests.faults.proxy import Proxy


@dataclass(frozen=True, slots=True)
class Scenario:
    """One row of the table. `run` gets a directory for its logs, the tally, and about how long it may take, in s."""

    name: str
    title: str
    run: Callable[[Path, Tally, float], None]
    share: float = 1.0
    """Of the whole time, against the other scenarios'."""
    is_usual: bool = True
    """Whether it runs without being named."""


def _aimed(transaction_version: int | None, *names: str) -> Callable[[Path, Tally, float], None]:
    def run(home: Path, tally: Tally, seconds: float) -> None:
        began, turn = time.monotonic(), 0
        seed = tally.seed
        usual = [name for name, aim in late.AIMS.items() if transaction_version == 1 or not aim.is_classic]
        with (
            Proxy(home / "faults.jsonl") as proxy,
            Cluster(home / "kafka", proxy=proxy, transaction_version=transaction_version) as cluster,
        ):
            # At least once through all of them.
            while turn == 0 or time.monotonic() - began < seconds:
                for name in names or usual:
                    tally.seed = seed + turn
                    one = Tally(f"{tally.scenario}-{name}", tally.seed)
                    late.aimed(cluster, home / f"{name}-{turn}", one, late.AIMS[name])
                    add(tally, one, name)
                turn += 1
        tally.seed = seed

    return run


def add(whole: Tally, one: Tally, name: str) -> None:
    """Count a round's tally into its scenario's."""
    if not one.is_right:
        counts = f"{one.lost} lost, {one.doubled} doubled, {one.wrong} wrong"
        whole.notes.append(f"{name}, seed {one.seed}: {counts}; logs in {one.home}")
    whole.rounds += one.rounds
    whole.faults += one.faults
    whole.records += one.records
    whole.lost += one.lost
    whole.doubled += one.doubled
    whole.wrong += one.wrong
    whole.recoveries_s += one.recoveries_s
    whole.problems += [f"{name}, seed {one.seed}: {problem}" for problem in one.problems]
    whole.notes += [f"{name}: {note}" for note in one.notes]


Timed = Callable[[Cluster, Path, Tally, float], None]


def _on(
    nodes: int,
    scenario: Timed,
    transaction_version: int | None = None,
    broker_settings: Mapping[str, str] | None = None,
) -> Callable[[Path, Tally, float], None]:
    """The scenario on a cluster of its own, behind a proxy."""

    def run(home: Path, tally: Tally, seconds: float) -> None:
        with (
            Proxy(home / "faults.jsonl") as proxy,
            Cluster(
                home / "kafka",
                nodes,
                proxy=proxy,
                transaction_version=transaction_version,
                broker_settings=broker_settings,
                heap_mb=320,
            ) as cluster,
        ):
            scenario(cluster, home / "fleet", tally, seconds)

    return run


def _on_release(version: str) -> Callable[[Path, Tally, float], None]:
    """The barrage of late copies on another release of Apache Kafka, downloaded at first."""

    def run(home: Path, tally: Tally, seconds: float) -> None:
        home.mkdir(parents=True, exist_ok=True)
        with Proxy(home / "faults.jsonl") as proxy, Served(version, home / "kafka", proxy=proxy) as cluster:
            late.barrage(cast(Cluster, cluster), home / "fleet", tally, seconds)

    return run


_ALL: Final = (
    Scenario("late-aimed", "one late copy of one request, at a named moment", _aimed(None), share=2),
    Scenario("late-aimed-tv1", "the same, transaction.version 1", _aimed(1), share=2),
    Scenario("late-barrage", "late copies at random, kills", _on(1, late.barrage), share=4),
    Scenario("late-barrage-tv1", "the same, transaction.version 1", _on(1, late.barrage, 1), share=4),
    Scenario("late-barrage-3.9", "the same on Apache Kafka 3.9.1", _on_release("3.9.1"), is_usual=False),
    Scenario("spoiled", "any request lost, delayed, cut or late; kills", _on(1, trouble.spoiled), share=4),
    Scenario("spoiled-tv1", "the same, transaction.version 1", _on(1, trouble.spoiled, 1), share=2),
    Scenario("pauses", "the broker pauses for longer than a request's time-out", _on(1, trouble.pauses), share=2),
    Scenario("latency", "all lives end together under a constant delay", _on(1, trouble.latency)),
    Scenario("zombies", "frozen at a named request, thawed after its session", _on(1, trouble.zombies), share=3),
    Scenario("hijack", "a stranger initialises a worker's transactional id", _on(1, trouble.hijack)),
    Scenario("twins", "two processes with one instance_id", _on(1, trouble.twins)),
    Scenario("mixed-modes", "both delivery modes in one group; kills", _on(1, mixed.modes)),
    Scenario("mixed-versions", "an earlier version as well, both modes; kills", _on(1, mixed.versions)),
    Scenario("storm", "members join, leave and are killed each 1-2 s", _on(1, trouble.storm)),
    Scenario("broker-kills", "three brokers: kill -9 by role, restarts", _on(3, brokers.kills), share=3),
    Scenario("below-min-isr", "two of three brokers gone for 20 s", _on(3, brokers.below_min_isr)),
    Scenario("hung", "one of three brokers stands still, by role", _on(3, brokers.hung), share=3),
    Scenario("brokers-random", "three brokers and three workers, at random", _on(3, brokers.at_random), share=3),
    Scenario("start", "the broker goes away at each request of a start", _on(1, starts.outages)),
    Scenario("trimmed", "the log deleted up to where a restore begins; kills", _on(1, accidents.trimmed)),
    Scenario("stranger", "a transaction never ended on a checkpoint partition", _on(1, accidents.stranger)),
    Scenario("clocks", "wall clocks that jump by hours and days (libfaketime)", _on(1, accidents.clocks)),
    Scenario("descriptors", "64 descriptors, and more connections held", _on(1, accidents.descriptors)),
    Scenario(
        "compacted",
        "the source compacted while its worker is stopped",
        _on(1, accidents.compacted, broker_settings=accidents.COMPACTING),
        share=0.5,
    ),
    Scenario(
        "expired-id",
        "the broker forgets the transactional id of an idle worker",
        _on(1, accidents.expired_id, broker_settings=accidents.EXPIRING),
        share=0.5,
    ),
    Scenario("memory", "workers that may have hardly more memory than they have", _on(1, accidents.memory)),
    Scenario("mirror", "a second cluster by the real MirrorMaker 2", mirror.both, share=0.5),
    Scenario("mirror-back", "a fail-over to it and the way back", mirror_back.there_and_back, share=0.5),
    Scenario("disk", "a replay that fills its disk (needs mount)", _on(1, accidents.full_disk), share=0.5),
)

SCENARIOS: Final = {scenario.name: scenario for scenario in _ALL}
