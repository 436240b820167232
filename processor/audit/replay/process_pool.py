"""Processes for the tasks of a replay.

They are forked from a server process, where the system has one (all but Windows): it imports the tasks' libraries once,
while the command imports its own. The command itself is not forked: it may have threads.
"""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.context import BaseContext
from typing import Final

from processor.audit.replay.run_task import ready

_LOADED: Final = [
    "processor.audit.replay.partition_task",
    "processor.audit.replay.index_output",
    "processor.cli.main",  # each process loads the command's main module anew
]


def begin() -> None:
    """Start the server's imports. Call it before the command imports anything else."""
    if _context().get_start_method() == "forkserver":
        from multiprocessing import forkserver

        forkserver.ensure_running()


def processes(count: int) -> ProcessPoolExecutor:
    pool = ProcessPoolExecutor(count, mp_context=_context())
    for _ in range(min(count, os.cpu_count() or 1)):
        pool.submit(ready)  # so that each has begun before there is a task for it
    return pool


def _context() -> BaseContext:
    way = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(way)
    if way == "forkserver":
        context.set_forkserver_preload(_LOADED)
    return context
