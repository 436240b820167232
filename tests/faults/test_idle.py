"""Nothing comes, and next to nothing is done."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from processor.broker import Broker
from processor.simulate import Parameters, Simulation
from tests.faults.service import Stage
from tests.kafka_tools import Names

LOOK_S = 11.0
"""Two checkpoint intervals and two refreshes of the metadata, as the test sets them."""
MOST_WAKES_PER_S = 50.0
"""Some 15 are usual: 7 fetches, 2 heartbeats, the timers. A loop that polls every 20 ms passes the limit."""
MOST_CALLS_PER_S = 60.0
"""Reads and writes. Some 20 are usual: each request is one write and one read."""
LEAST_ASLEEP = 0.25
"""Of the clock. A loop that never waits is never asleep; an idle worker is for 0.97, beside ten busy processes 0.9."""
MOST_GROWTH_BYTES = 2 << 20


class Doings(NamedTuple):
    """What a process has done so far: counted, so that neither a slow machine nor a busy one makes it more.

    Processor time is no measure here: what a wake-up costs differs tenfold between machines and minutes.
    `make bench` measures it.
    """

    at_s: float
    wakes: int
    calls: int
    awake_s: float
    """Of its main thread: running, or waiting for a processor."""

    @classmethod
    def of(cls, pid: int) -> Doings:
        """Read them from /proc."""
        home = Path(f"/proc/{pid}")
        wakes = sum(_field(status, "voluntary_ctxt_switches") for status in home.glob("task/*/status"))
        ran_ns, waited_ns, _ = (home / "schedstat").read_text().split()
        calls = _field(home / "io", "syscr") + _field(home / "io", "syscw")
        return cls(time.monotonic(), wakes, calls, (int(ran_ns) + int(waited_ns)) / 1e9)


def _field(path: Path, name: str) -> int:
    return next(int(line.split()[1]) for line in path.read_text().splitlines() if line.startswith(f"{name}:"))


def test_idle_is_idle(broker: Broker, names: Names, tmp_path: Path, figures: Callable[[str], None]) -> None:
    """After some work, with steps open and checkpoint intervals that pass while we look."""
    stage = Stage(broker.bootstrap, names, tmp_path, partitions=4)
    records = list(Simulation(Parameters(runs=40, partitions=4, seed=9, responses=0.4)))[:-200]
    with stage.serve({"checkpoints": {"interval_s": 5.0}}) as service:
        service.until_live()
        stage.put(records)
        stage.until_done(records, service)
        settled = time.monotonic() + 8  # the open steps are written down, and what that allocated is there
        service.until("settled", lambda: time.monotonic() > settled)
        began, rss, spent = Doings.of(service.pid), service.rss_bytes(), service.cpu_s()
        service.until("the look over", lambda: time.monotonic() - began.at_s >= LOOK_S)
        ended, grown, cpu_s = Doings.of(service.pid), service.rss_bytes() - rss, service.cpu_s() - spent
        said = service.tail(8)
        assert service.terminate() == 0
    seconds = ended.at_s - began.at_s
    wakes, calls = (ended.wakes - began.wakes) / seconds, (ended.calls - began.calls) / seconds
    asleep = 1 - (ended.awake_s - began.awake_s) / seconds
    found = f"{wakes:.0f} wake-ups and {calls:.0f} reads and writes a second, {asleep:.1%} asleep, "
    found += f"{cpu_s / seconds:.1%} of a core, {grown} bytes more"
    figures(found)
    assert 0 < wakes < MOST_WAKES_PER_S, f"{found}\n{said}"
    assert 0 < calls < MOST_CALLS_PER_S, f"{found}\n{said}"
    assert asleep > LEAST_ASLEEP, f"{found}\n{said}"
    assert grown < MOST_GROWTH_BYTES, f"{found}\n{said}"
