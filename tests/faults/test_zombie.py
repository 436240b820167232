"""A worker that stands still inside an open transaction for longer than its session, and then goes on.

It must not publish anything more, its partitions must not wait for it, and neither must those who read downstream.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from processor.broker import Broker
from processor.simulate import Parameters, Simulation
from tests.faults.audit_check import prove
from tests.faults.worker_fleet import SESSION_S, WAIT_S, Ends, Fleet, Load, Process, Topics, eventually, finish, watched
from tests.kafka_tools import Names

PARTITIONS = 4
EVENTS = 22_000
PER_SECOND = 900.0
TRANSACTION_S = 4 * WAIT_S
"""Long after this test would have failed: only a successor can end the open transaction before."""
HELD_S = SESSION_S / 2
"""A transaction of a living worker is over long before, and the frozen one is still a member."""

Held = dict[tuple[str, int], int]
"""(topic, partition) -> last stable offset"""


def freeze_inside_a_transaction(process: Process, ends: Ends, places: set[tuple[str, int]]) -> tuple[float, Held]:
    """Stop the process where it holds a transaction open; returns when, and the partitions it holds back.

    A partition is held back by whoever writes there. So: stop it, and see whether one stays where it is.
    """

    def caught() -> tuple[float, Held] | None:
        if not ends.held_back(places):
            return None
        process.freeze()
        at = time.monotonic()
        held = ends.held_back(places)
        while held and time.monotonic() - at < HELD_S:
            stable = ends.last_stable(set(held))
            held = {place: offset for place, offset in held.items() if stable[place] == offset}
        if held:
            return at, held
        process.thaw()
        return None

    found: tuple[float, Held] = eventually("the worker is caught inside a transaction", caught, WAIT_S, every_s=0.0)
    return found


def test_a_worker_frozen_inside_a_transaction(
    broker: Broker, names: Names, tmp_path: Path, figures: Callable[[str], None]
) -> None:
    topics = Topics.create(broker.bootstrap, names, PARTITIONS)
    simulation = Simulation(Parameters(records=EVENTS, seed=3, partitions=PARTITIONS, responses=0.4))
    ends = Ends(broker.bootstrap)
    places = {(topic, p) for topic in topics.outcomes for p in range(3)}
    patient = {"delivery__transaction_timeout_ms": f"{TRANSACTION_S * 1000:.0f}"}
    with Fleet(topics, tmp_path, log__level="debug", **patient) as fleet, watched(topics) as (downstream, offsets):
        zombie, successor = fleet.start(2)
        fleet.await_ready()
        with Load(topics, simulation, PER_SECOND) as load:
            mine = set(zombie.log("partitions_assigned")[-1]["partitions"])
            assert 0 < len(mine) < PARTITIONS
            offsets.await_beyond(dict.fromkeys(mine, 100), WAIT_S)
            frozen_at, held = freeze_inside_a_transaction(zombie, ends, places)
            standing = {p: offsets.now[p] for p in mine}
            seen_before = len(downstream.published)

            def freed() -> bool:
                stable = ends.last_stable(set(held))
                return all(stable[place] > offset for place, offset in held.items())

            eventually("readers downstream are no longer held back", freed, WAIT_S)
            freed_s = time.monotonic() - frozen_at
            went_on_s = offsets.await_beyond(standing, WAIT_S) - frozen_at
            figures(
                f"successor commits {went_on_s:.2f} s, readers go on {freed_s:.2f} s after the stop (session "
                f"{SESSION_S:g} s); the load is {'over' if load.is_over else 'still on'}"
            )
            assert len(downstream.published) > seen_before
            # It wakes up with an open transaction, records in hand and the belief that it is a member.
            lives = len(zombie.log("worker_restarted"))
            done = len(zombie.log("unit_committed"))
            zombie.thaw()
            eventually("the zombie ends that life", lambda: len(zombie.log("worker_restarted")) > lives, WAIT_S)
            after = zombie.log("unit_committed", "worker_restarted")[done + lives :]
            assert after[0]["event"] == "worker_restarted"
            # It is told by the group or the broker, or, frozen for longer than commit_timeout_s, by its own clock.
            assert after[0]["reason"] in ("fenced", "broker_unavailable")
            fleet.await_ready()
            assert zombie.log("partitions_assigned")[-1]["partitions"]
            finish(fleet, simulation, load, downstream, offsets, within_s=300)
    assert len(successor.log("writer_taken_over")) >= 1
    prove(fleet, tmp_path)
