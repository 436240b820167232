"""A backlog is drained in few transactions; kills, rebalances and stops amid long units lose and double nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from processor.broker import Broker
from processor.simulate import Parameters, Simulation
from tests.faults.audit_check import prove
from tests.faults.worker_fleet import WAIT_S, Downstream, Fleet, Load, Offsets, Topics, eventually, finish, watched
from tests.kafka_tools import Names

EVENTS = 40_000
PARTITIONS = 4
INTERVAL_S = 0.05
POLLED = 20
"""Records of one turn: so few that the work lasts for many intervals on any machine."""


@contextmanager
def backlog(broker: Broker, names: Names, home: Path) -> Iterator[tuple[Fleet, Simulation, Load, Downstream, Offsets]]:
    """A group without a member, and all that it has to do on the topic already."""
    topics = Topics.create(broker.bootstrap, names, PARTITIONS)
    simulation = Simulation(Parameters(records=EVENTS, seed=28, partitions=PARTITIONS))
    interval = {
        "delivery__commit_interval_ms": f"{INTERVAL_S * 1000:.0f}",
        "source__max_poll_records": str(POLLED),
    }
    with (
        Fleet(topics, home, **interval) as fleet,
        watched(topics) as (downstream, offsets),
        Load(topics, simulation, 1e6) as load,
    ):
        eventually("all is sent", lambda: load.is_over, WAIT_S)
        yield fleet, simulation, load, downstream, offsets


def test_a_backlog_is_drained_in_few_transactions(
    broker: Broker, names: Names, tmp_path: Path, figures: Callable[[str], None]
) -> None:
    with backlog(broker, names, tmp_path) as (fleet, simulation, load, downstream, offsets):
        (worker,) = fleet.start()
        eventually("the first unit is committed", lambda: sum(offsets.now.values()) > 0, WAIT_S)
        began = time.monotonic()
        eventually("all is committed", lambda: sum(offsets.now.values()) >= load.sent, WAIT_S)
        intervals = (time.monotonic() - began) / INTERVAL_S
        units = worker.metrics()["runstep_commit_seconds_count"]
        finish(fleet, simulation, load, downstream, offsets, within_s=300)
    prove(fleet, tmp_path)
    figures(f"{load.sent} events in {units:.0f} units within {intervals:.0f} intervals")
    assert units < intervals / 2


def test_what_interrupts_long_units(
    broker: Broker, names: Names, tmp_path: Path, figures: Callable[[str], None]
) -> None:
    with backlog(broker, names, tmp_path) as (fleet, simulation, load, downstream, offsets):
        places: list[int] = []

        def amid() -> None:
            """Wait for a commit, and for long enough behind it that the next unit would be over if it were not long."""
            before = len(offsets.history)
            eventually("another unit is committed", lambda: len(offsets.history) > before, WAIT_S)
            eventually("a long unit", lambda: time.monotonic() - offsets.history[-1][0] > 4 * INTERVAL_S, WAIT_S)
            places.append(sum(offsets.now.values()))

        (first,) = fleet.start()
        amid()
        first.kill()
        (second,) = fleet.start()
        amid()
        fleet.start()
        fleet.await_ready()  # a rebalance
        amid()
        second.terminate()
        assert second.ended(WAIT_S) == 0
        finish(fleet, simulation, load, downstream, offsets, within_s=300)
    assert fleet.log("commit_failed", "unit_dropped") == []
    prove(fleet, tmp_path)
    figures(f"{load.sent} events, interrupted after {', '.join(map(str, places))}")
