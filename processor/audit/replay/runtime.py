"""The event loop and garbage collector of a replay's processes."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

_Answer = TypeVar("_Answer")


@contextmanager
def collecting_seldom() -> Iterator[None]:
    """As in the worker: a job's long-lived objects are no garbage, and scanning them each time is expensive.

    Nothing is collected first, as there: a job is one of many, and what the libraries hold is looked through for each.
    What the job leaves is collected before that is thawed: its parts refer to each other in cycles, and the collector
    counts objects, not bytes, so the states of all partitions would be held until the end.
    """
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    try:
        yield
    finally:
        gc.collect()
        gc.set_threshold(*before)
        gc.unfreeze()


def waited_for(main: Coroutine[Any, Any, _Answer]) -> _Answer:
    """Run a coroutine in an event loop of the worker's kind: a replay reads in it."""
    if sys.platform == "win32":
        return asyncio.run(main)
    import uvloop

    return uvloop.run(main)
