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
    """As in the worker: what a job holds is no garbage, and looking it through each time is dear.

    Nothing is collected first, as there: a job is one of many, and what the libraries hold is looked through for each.
    """
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def waited_for(main: Coroutine[Any, Any, _Answer]) -> _Answer:
    """What comes of it, in a loop of its own, as the worker's: of a replay, the reading is done there."""
    if sys.platform == "win32":
        return asyncio.run(main)
    import uvloop

    return uvloop.run(main)
