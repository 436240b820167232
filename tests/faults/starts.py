"""An outage between two questions of a worker's start, at each of them in turn."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import uvloop

from processor.config.settings import Settings
from processor.errors import BrokerUnavailable, Fenced
from processor.serve.supervisor import _CurrentWorker, _supervise
from processor.telemetry.happenings import Happening, WorkerRestarted
from processor.telemetry.kafka_happenings import BrokerLost
from processor.telemetry.telemetry import Telemetry
from tests.faults.cluster import Cluster
from tests.faults.lab import Tally
from tests.faults.proxy import Action, Api
from tests.kafka_tools import Names

_OUTAGE_S: Final = 0.2
_READY_S: Final = 30.0
ALL: Final = range(1, 60)
"""A start with topics to create has about forty requests."""


def _settings(cluster: Cluster, names: Names) -> Settings:
    """Topics that do not exist yet: the start creates them."""
    statuses = ("completed", "failed", "cancelled", "expired")
    source = {"topic": names.topic("in"), "group_id": names.group}
    return Settings.model_validate(
        {
            "kafka": {"bootstrap_servers": cluster.client_bootstrap, "request_timeout_ms": 5000},
            "source": {**source, "session_timeout_ms": 6000, "heartbeat_interval_ms": 500},
            "output": {"dead_letter": names.topic("dead"), **{status: names.topic(status) for status in statuses}},
            "supervisor": {"backoff_initial_s": 0.05, "backoff_max_s": 0.2, "max_restarts": 20},
        }
    )


async def _failures(settings: Settings) -> list[BaseException]:
    """Start, wait until ready, and stop. Returns what the supervisor saw on the way."""
    told: list[Happening] = []
    telemetry = Telemetry(stream=io.StringIO(), format="json", heard=told.append)
    current, stop = _CurrentWorker(), asyncio.Event()
    living = asyncio.create_task(_supervise(settings, telemetry, current, stop, create_topics=True))
    try:
        async with asyncio.timeout(_READY_S):
            while not living.done() and not current.readyz().ok:  # noqa: ASYNC110 - what a probe does
                await asyncio.sleep(0.01)
        stop.set()
        await living
    finally:
        living.cancel()
        await asyncio.wait([living])
        telemetry.close()
    return [happening.error for happening in told if isinstance(happening, BrokerLost | WorkerRestarted)]


def outages(cluster: Cluster, home: Path, tally: Tally, seconds: float, requests: Iterable[int] = ALL) -> None:
    """The broker is away from the nth request of a start on, for a moment. An outage is no bug and no refusal."""
    proxy = cluster.proxy
    assert proxy is not None
    for nth in requests:
        prefix = f"{tally.scenario}-{tally.seed}-{nth}"
        rule = proxy.arm(Api, Action.OUTAGE, nth=nth, seconds=_OUTAGE_S)
        began = time.monotonic()
        found: list[BaseException] = []
        try:
            found = uvloop.run(_failures(_settings(cluster, Names(prefix, f"{prefix}.group"))))
        except Exception as error:  # the supervisor's last word, or not ready in time
            found.append(error)
        proxy.disarm()
        if not rule.has_fired():
            break  # a start has no more requests
        tally.faults += 1
        tally.recoveries_s.append(round(time.monotonic() - began, 2))
        api = proxy.fired[-1].api.name
        tally.problems += [
            f"request {nth}, {api}: {error!r}" for error in found if not isinstance(error, BrokerUnavailable | Fenced)
        ]
    tally.rounds += 1
