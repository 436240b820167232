"""What is normal is not a warning: a first start on a new cluster, a long idle time, and the wake from it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from processor.broker import Broker
from tests.faults.service import Service, Stage, created, ended
from tests.kafka_tools import Names, create_topics

IDLE_MS = 6_000
"""Brokers close connections that say nothing for so long; ten minutes is usual.

Longer than a member waits for its answer when it joins: until the others have learned of it by a heartbeat (3 s).
"""


@pytest.fixture
def fresh() -> Iterator[Broker]:
    """A cluster that has never seen a group or a transaction."""
    with Broker.start(settings={"connections.max.idle.ms": str(IDLE_MS)}) as broker:
        yield broker


_USUAL_TIMES = {"source": {"session_timeout_ms": 30_000, "heartbeat_interval_ms": 3000, "rebalance_timeout_ms": 60_000}}
"""The defaults: with the short ones of other tests a busy machine is a fault that is told, and rightly."""


def complaints(service: Service) -> list[str]:
    """Its log lines of level warning and above."""
    lines = [json.loads(line) for line in service.log_path.read_text().splitlines() if line.startswith("{")]
    assert lines
    return [json.dumps(line) for line in lines if line["level"] not in ("debug", "info")]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_first_start_an_idle_time_and_a_wake_warn_of_nothing(
    fresh: Broker, names: Names, tmp_path: Path, workers: int
) -> None:
    """Neither the offsets nor the transaction topic exist yet; the broker closes connections while nothing comes."""
    stage = Stage(fresh.bootstrap, names, tmp_path, make=False)
    create_topics(stage.bootstrap, stage.source)
    with stage.serve(_USUAL_TIMES, create_topics=True, workers=workers) as service:
        service.until_live()
        stage.say(created("step_1"), ended("step_1"))
        service.until("published", lambda: len(stage.published()) == 1)
        idle_since = time.monotonic()
        service.until("idle for long", lambda: time.monotonic() - idle_since > 2 * IDLE_MS / 1000)
        stage.say(created("step_2"), ended("step_2"))
        service.until("published", lambda: len(stage.published()) == 2)
        assert service.page("/healthz").status == 200
        assert service.terminate() == 0
    assert not complaints(service), "\n".join(complaints(service))
    assert service.said() == ""
