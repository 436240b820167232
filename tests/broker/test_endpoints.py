"""The pages of a worker at work."""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest

from processor.broker import Broker
from processor.telemetry.metrics import METRICS
from tests.faults.service import Stage, created, delta, ended
from tests.kafka_tools import Names

SECRET = "the-users-own-words"
SUFFIXES = ("_bucket", "_sum", "_count", "_total")


@pytest.fixture
def stage(broker: Broker, names: Names, tmp_path: Path) -> Stage:
    return Stage(broker.bootstrap, names, tmp_path)


def test_the_pages_tell_how_it_stands(stage: Stage) -> None:
    with stage.serve() as service:
        service.until("a page", lambda: service.page("/healthz").status == 200)
        service.until_live()
        ready = service.page("/readyz").json
        assert ready["ok"] is True
        assert ready["assigned"] == [0, 1]
        stage.say(created("step_open", thread_id="thread_9"), delta("step_open", SECRET))
        stage.say(created("step_done"), ended("step_done"), b"garbage")
        service.until("all applied", lambda: service.metric("runstep_records_applied_total") == 5)
        service.until("published", lambda: len(stage.published()) == 1)

        (step,) = service.page("/steps").json["steps"]
        assert (step["step_id"], step["run_id"], step["thread_id"]) == ("step_open", "run_1", "thread_9")
        assert (step["status"], step["partition"], step["offset"]) == ("in_progress", 0, 0)
        assert step["age_s"] >= 0
        assert service.page("/steps?limit=0").status == 400

        # A transaction's marker lies behind the last record of an output, none on the source: lag reads 0.
        service.until("no lag", lambda: service.metric("runstep_lag_records", end="high_watermark") == 0)
        shown = service.page("/metrics").body
        names = {line.split("{")[0].split(" ")[0] for line in shown.splitlines() if not line.startswith("#")}
        known = {name for metric in METRICS for name in (metric.name, *(metric.name + s for s in SUFFIXES))}
        assert {name for name in names if name.startswith("runstep_")} <= known
        assert service.metric("runstep_records_rejected_total", reason="not_json") == 1
        pages = "".join(service.page(path).body for path in ("/", "/healthz", "/readyz", "/metrics", "/steps"))
        assert SECRET not in pages
        assert service.terminate() == 0
    assert SECRET not in service.tail(10_000)
    assert "garbage" not in service.tail(10_000)


def test_ready_only_when_restored(stage: Stage) -> None:
    """While another holds the group up, or before the first assignment, the answer is no, with the reason."""
    with stage.serve() as service:
        first = service.until("an answer", lambda: service.page("/readyz").status and service.page("/readyz"))
        if first.status == 503:
            assert first.json["reasons"]
        service.until_live()
        assert service.terminate() == 0
        assert service.page("/readyz").status == 0, "nobody listens when it has ended"


POLLERS, IDLE, PROBES = 60, 300, 20
_PAUSE_S = 0.02
_PROBE_S = 30.0
"""Far longer than a probe of an orchestrator waits: how long it takes is the machine's, that it is answered is ours."""


async def crowd(url: str, over: asyncio.Event, counted: Counter[int], ready: asyncio.Event) -> None:
    """Poll /metrics and /steps over connections that stay, and hold as many more that ask nothing, until `over`."""
    address = urlsplit(url)
    assert address.hostname is not None
    assert address.port is not None

    async def poll(session: aiohttp.ClientSession, path: str) -> None:
        while not over.is_set():
            try:
                async with session.get(url + path) as answer:
                    await answer.read()
                    counted[answer.status] += 1
            except aiohttp.ClientError:
                counted[0] += 1
            await asyncio.sleep(_PAUSE_S)

    async def say_nothing() -> None:
        while not over.is_set():
            _, writer = await asyncio.open_connection(address.hostname, address.port)
            stack.callback(writer.close)
            held.append(writer)
            if len(held) >= IDLE:
                ready.set()
                await over.wait()

    held: list[asyncio.StreamWriter] = []
    async with (
        AsyncExitStack() as stack,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
        asyncio.TaskGroup() as tasks,
    ):
        for number in range(POLLERS):
            tasks.create_task(poll(session, "/steps?limit=1000" if number % 2 else "/metrics"))
        tasks.create_task(say_nothing())


def probe(url: str) -> int:
    """Ask as the image's health check does, over a connection of its own."""
    try:
        with urllib.request.urlopen(url, timeout=_PROBE_S) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.parametrize("workers", [1, 2])
def test_every_probe_is_answered_in_a_crowd(stage: Stage, workers: int) -> None:
    """Whoever polls the other pages, and however many connections say nothing: an orchestrator restarts nothing."""
    with stage.serve(workers=workers) as service:
        service.until_live()
        stage.say(*(created(f"step_{n}") for n in range(200)))
        service.until("applied", lambda: service.metric("runstep_records_applied_total") == 200)
        lines = service.logged("listening", worker="front") or service.logged("listening")
        url = lines[-1]["url"]

        async def probed() -> tuple[list[int], Counter[int]]:
            over, ready, counted = asyncio.Event(), asyncio.Event(), Counter[int]()
            crowded = asyncio.create_task(crowd(url, over, counted, ready))
            await ready.wait()
            paths = ["/healthz", "/readyz"] * (PROBES // 2)
            answers = [await asyncio.to_thread(probe, url + path) for path in paths]
            over.set()
            await crowded
            return answers, counted

        answers, counted = asyncio.run(asyncio.wait_for(probed(), 300))
        assert answers == [200] * PROBES
        assert counted[200] > PROBES, "the crowd was one"
        assert service.page("/healthz").status == 200
        assert service.terminate() == 0
