"""`processor`, with its asyncio tasks counted: for the soak, which asks whether any are left behind.

Appends a line with their number to the file that COUNTED_TASKS names, every few seconds.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from pathlib import Path
from typing import Any, Final

from processor.cli.main import main

EVERY_S: Final = 2.0
VARIABLE: Final = "COUNTED_TASKS"


def count() -> int:
    """How many tasks of any loop are not done."""
    tasks: Any = asyncio.tasks
    known = getattr(tasks, "_scheduled_tasks", None)  # its name since Python 3.12
    for _ in range(10):
        try:
            return sum(not task.done() for task in list(tasks._all_tasks if known is None else known))
        except RuntimeError:  # a task was made meanwhile
            continue
    return -1


def _watch(path: Path) -> None:
    while True:
        time.sleep(EVERY_S)
        with path.open("a") as out:
            out.write(f"{count()}\n")


if __name__ == "__main__":
    threading.Thread(target=_watch, args=(Path(os.environ[VARIABLE]),), daemon=True).start()
    main()
