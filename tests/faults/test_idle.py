"""Nothing comes, and next to nothing is done."""

from __future__ import annotations

import time
from pathlib import Path

from processor.broker import Broker
from processor.simulate import Dials, Simulation
from tests.faults.service import Stage
from tests.kafka_tools import Names

LOOK_S = 20.0
MOST_CPU = 0.02
"""Of one core. A share of processor time, not of the clock: how busy the machine is does not matter."""
MOST_GROWTH_BYTES = 2 << 20


def test_idle_is_idle(broker: Broker, names: Names, tmp_path: Path) -> None:
    """After some work, with steps open and a checkpoint interval that passes while we look."""
    stage = Stage(broker.bootstrap, names, tmp_path, partitions=4)
    records = list(Simulation(Dials(runs=40, partitions=4, seed=9)))[:-200]
    with stage.serve({"checkpoints": {"interval_s": 5.0}}) as service:
        service.until_live()
        stage.put(records)
        stage.until_done(records, service)
        settled = time.monotonic() + 8  # the open steps are written down, and what that allocated is there
        service.until("settled", lambda: time.monotonic() > settled)
        cpu_s, rss, began = service.cpu_s(), service.rss_bytes(), time.monotonic()
        service.until("the look over", lambda: time.monotonic() - began >= LOOK_S)
        share = (service.cpu_s() - cpu_s) / (time.monotonic() - began)
        grown = service.rss_bytes() - rss
        assert service.terminate() == 0
    assert share < MOST_CPU, f"{share:.1%} of a core"
    assert grown < MOST_GROWTH_BYTES, f"{grown} bytes more"
