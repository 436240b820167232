"""kill -9 at any moment: what comes out is what must, once; the group's offsets only go forward; the log proves it.

Few times here; for as long as one likes: `python -m tests.faults --only storm,late-barrage,spoiled,brokers-random`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from random import Random

from processor.broker import Broker
from processor.simulate import Parameters, Simulation
from tests.faults.audit_check import prove
from tests.faults.worker_fleet import Fleet, Load, Topics, finish, watched
from tests.kafka_tools import Names

EVENTS = 28_000
KILLS = 4
"""On a slow machine fewer, but more than half: the work is over before."""
WORKERS = 3
PARTITIONS = 9
PER_SECOND = 1_100.0
"""So that there is work for as long as the kills last."""


def test_kills_at_random_moments(broker: Broker, names: Names, tmp_path: Path, figures: Callable[[str], None]) -> None:
    rng = Random(15)
    topics = Topics.create(broker.bootstrap, names, PARTITIONS)
    simulation = Simulation(Parameters(records=EVENTS, seed=15, partitions=PARTITIONS, responses=0.4))
    with Fleet(topics, tmp_path) as fleet, watched(topics) as (downstream, offsets):
        fleet.start(WORKERS)
        fleet.await_ready()
        load = Load(topics, simulation, PER_SECOND)
        with load:
            began = time.monotonic()
            kills = 0
            while kills < KILLS and not load.is_over:
                # Any moment: while units are in flight, while others take over, while a new one restores.
                time.sleep(rng.uniform(1.5, 7.0))
                rng.choice(fleet.running).kill()
                fleet.start()
                kills += 1
            ended = time.monotonic()
            assert kills > KILLS // 2, "the work must last for the kills: lower PER_SECOND"
            done = finish(fleet, simulation, load, downstream, offsets, within_s=300)
    judging = time.monotonic()
    prove(fleet, tmp_path)
    judged_s = time.monotonic() - judging
    restored = sorted(line["seconds"] for line in fleet.log("partition_restored"))
    assert restored
    lasted = ended - began
    applied = offsets.applied(began, ended)
    figures(
        f"{kills} kills in {lasted:.0f} s, {load.sent} events: {applied / lasted:.0f} applied per second between the "
        f"first and the last (offered: {PER_SECOND:.0f}); all done {done - ended:.1f} s after the last; "
        f"longest time without a commit {offsets.longest_pause_s(began, ended):.1f} s; "
        f"{len(restored)} restores, median {restored[len(restored) // 2]:.2f} s, longest {restored[-1]:.2f} s; "
        f"{len(fleet.log('writer_taken_over'))} dead writers' transactions ended, "
        f"{len(fleet.log('worker_restarted'))} lives ended by another's death; "
        f"proven by the replay in {judged_s:.1f} s"
    )
