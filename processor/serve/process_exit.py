"""Run a process's coroutine to its exit code; force the exit if a task does not end."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
from collections.abc import Coroutine
from typing import Any, Final

from processor.errors import RunStepsError
from processor.printable import printable_lines
from processor.serve.stopping import ignore_further_signals

_EXIT_S: Final = 10.0  # for what is left of tasks once a worker has stopped

EXIT_BUG: Final = 70


def run_to_exit(main: Coroutine[Any, Any, int]) -> int:
    """Run the coroutine of a process in a new event loop; returns its exit code."""
    # The garbage collector need not scan the objects of start-up; long-lived ones are frozen again when live.
    gc.collect()
    gc.freeze()
    # More than a unit and the records of a poll hold at once: at 50,000 the collector scanned them, 4% of the CPU time.
    gc.set_threshold(200_000, 20, 100)
    timers: list[threading.Timer] = []

    async def until_done() -> int:
        code, last = EXIT_BUG, ""
        try:
            code = await main
            return code
        except RunStepsError as error:
            code, last = error.exit_code, printable_lines(f"run-steps: {error}\n")
            raise
        finally:
            if sys.platform != "win32":
                ignore_further_signals()
            # What is left of tasks is cancelled now and waited for. One of a library that never ends must not keep a
            # process that has said its last word.
            timers.append(threading.Timer(_EXIT_S, _end_by_force, (code, last)))
            timers[-1].daemon = True
            timers[-1].start()

    try:
        if sys.platform == "win32":
            return asyncio.run(until_done())
        import uvloop

        return uvloop.run(until_done())
    finally:
        for timer in timers:
            timer.cancel()


def _end_by_force(code: int, last: str) -> None:
    os.write(2, f"{last}run-steps: ended by force: something did not end within {_EXIT_S:g} s\n".encode())
    os._exit(code)
