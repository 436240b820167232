"""Several workers in processes of their own, with one place to scrape."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import sys
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from typing import Final

from processor.config.settings import Settings
from processor.core.rules import MAX_DIGITS
from processor.errors import BrokerUnavailable, RunStepsError
from processor.kafka.client_config import Connection
from processor.printable import print_lines
from processor.serve.broker_availability import BrokerAvailability
from processor.serve.http import Aggregator, Server
from processor.serve.process_exit import EXIT_BUG, run_to_exit
from processor.serve.stopping import signals_held_back, stop_on_signal, unless, wait_or_stop
from processor.serve.supervisor import KILL_AFTER_S, run_one
from processor.serve.topics import check_or_create_topics
from processor.telemetry.happenings import ChildEnded, HttpConnectionRefused, Listening, WorkerStopped
from processor.telemetry.telemetry import Telemetry

_SAID_WHY: Final = frozenset({64, 65, 74, 75, 77, 78})
"""Exit codes of a worker process with which a new process would end as well: it is not restarted.

74 is among them: the disk is still full for the next process. 71 is not: memory is free again once the process has
ended. Restarts after it are limited as after any other exit.
"""


@dataclass(slots=True)
class _Child:
    name: str
    process: multiprocessing.process.BaseProcess
    pipe: Pipe
    url: str = ""


def _child_main(settings: Settings, name: str, pipe: Pipe) -> None:
    def announce(port: int) -> None:
        pipe.send(port)

    sys.set_int_max_str_digits(MAX_DIGITS)
    try:
        code = run_to_exit(run_one(settings, create_topics=False, name=name, announce=announce, parent=pipe))
    except RunStepsError as error:
        print_lines(f"run-steps: worker {name}: {error}", to_stderr=True)
        code = error.exit_code
    sys.stderr.flush()
    os._exit(code)


def _child_settings(settings: Settings, number: int) -> Settings:
    """Settings of one child: a port of its own, and a static member id of its own."""
    source = settings.source
    if source.instance_id:
        source = source.model_copy(update={"instance_id": f"{source.instance_id}-{number}"})
    http = settings.http.model_copy(update={"host": "127.0.0.1", "port": 0})
    return settings.model_copy(update={"http": http, "source": source})


async def run_several(settings: Settings, *, create_topics: bool, workers: int) -> int:
    """Run N processes, each a member of the group; this one merges their endpoints and restarts them."""
    began = time.monotonic()
    telemetry = Telemetry(level=settings.log.level, format=settings.log.format, worker="front")
    telemetry.hear_libraries()
    stop = stop_on_signal()
    if not await _topics_once_there(settings, telemetry, stop, create=create_topics):
        return 0
    children = [_spawn(settings, number) for number in range(workers)]
    http, site = settings.http, Aggregator(lambda: {c.name: c.url for c in children})
    server = Server(
        site,
        http.host,
        http.port,
        control=http.control,
        refused=lambda r: telemetry.happened(HttpConnectionRefused(*r)),
    )
    code = 0
    try:
        if settings.http.enabled:
            port = await server.start()
            telemetry.happened(Listening(f"http://{settings.http.host}:{port}"))
        code = await _watch_children(settings, telemetry, children, stop)
    finally:
        for child in children:
            if child.process.is_alive():
                child.process.terminate()
        patience_s = settings.delivery.drain_timeout_s + KILL_AFTER_S
        await asyncio.to_thread(_join, children, patience_s)
        await server.stop()
        telemetry.happened(WorkerStopped(code, time.monotonic() - began))
        telemetry.close(keep_hearing=True)
    return code or _worst_exit([child.process.exitcode for child in children])


async def _topics_once_there(settings: Settings, telemetry: Telemetry, stop: asyncio.Event, *, create: bool) -> bool:
    """Wait for the broker as a single worker does. Returns False if `stop` was set before it was there."""
    connection = Connection.build(**settings.kafka.connection())
    availability = BrokerAvailability(settings, telemetry)
    while not stop.is_set():
        try:
            checking = check_or_create_topics(settings, connection, create=create)
            return await unless(stop, availability.bounded(checking)) is not None
        except BrokerUnavailable as error:
            availability.failed(error)
            await wait_or_stop(stop, min(settings.supervisor.backoff_initial_s, availability.left_s()))
    return False


def _spawn(settings: Settings, number: int) -> _Child:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(
        target=_child_main, args=(_child_settings(settings, number), str(number), theirs), name=f"worker-{number}"
    )
    with signals_held_back():
        process.start()
    theirs.close()
    return _Child(str(number), process, ours)


def _worst_exit(codes: Iterable[int | None]) -> int:
    """Exit status for several processes: the first that is not 0; one that a signal ended counts as a bug (70)."""
    first = next((code for code in codes if code), 0)
    return first if first >= 0 else EXIT_BUG


async def _watch_children(settings: Settings, telemetry: Telemetry, children: list[_Child], stop: asyncio.Event) -> int:
    """Note each child's address; restart one that a signal or a bug ended, else return its exit code."""
    supervisor = settings.supervisor
    restarts: deque[float] = deque()
    while not stop.is_set():
        for at, child in enumerate(children):
            if not child.url and child.pipe.poll():
                with contextlib.suppress(EOFError):  # it has ended, which the next line sees
                    child.url = f"http://127.0.0.1:{child.pipe.recv()}"
            if child.process.is_alive():
                continue
            code = child.process.exitcode or 0
            now = time.monotonic()
            while restarts and now - restarts[0] > supervisor.restart_window_s:
                restarts.popleft()
            again = code not in _SAID_WHY and len(restarts) < supervisor.max_restarts
            telemetry.happened(ChildEnded(child.name, code, again))
            if not again:
                return code if code > 0 else EXIT_BUG
            restarts.append(now)
            children[at] = _spawn(settings, at)
        await wait_or_stop(stop, 0.1)
    return 0


def _join(children: list[_Child], patience_s: float) -> None:
    deadline = time.monotonic() + patience_s
    for child in children:
        child.process.join(max(0.0, deadline - time.monotonic()))
        if child.process.is_alive():
            child.process.kill()
            child.process.join()
