"""The stop event of a process: set by a signal, and waited for beside other work."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import Any, Final, TypeVar

_Answer = TypeVar("_Answer")
_STOPS: Final = (signal.SIGTERM, signal.SIGINT)


def stop_on_signal() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in _STOPS:
        loop.add_signal_handler(number, stop.set)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)
    return stop


def ignore_further_signals() -> None:
    """Hold SIGTERM and SIGINT back for the rest of this process: it ends, and its exit code is known.

    A service manager sends SIGTERM to each process of a service, and the parent of several sends another.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)


@contextmanager
def signals_held_back() -> Iterator[None]:
    """Context in which a process is started that gets SIGTERM and SIGINT only once it calls `stop_on_signal`.

    It inherits the mask. One that comes while it still imports would end it as a fault does.
    """
    resource_tracker.ensure_running()  # its start would take the mask off
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


async def unless(stop: asyncio.Event, work: Coroutine[Any, Any, _Answer]) -> _Answer | None:
    """Result of the work, or None if `stop` is set before it is done; the work is cancelled then."""
    working = asyncio.create_task(work)
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        working.cancel()
        stopping.cancel()
        await asyncio.wait({working, stopping})


async def wait_or_stop(stop: asyncio.Event, seconds: float) -> None:
    """Wait so long, or until `stop` is set."""
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        pass
