"""Run one task in this process, a pool's, or on another machine."""

from __future__ import annotations

import sys

from processor.audit.replay.task import Task, TaskResult
from processor.core.rules import MAX_DIGITS


def ready() -> None:
    """Load what a task needs, so that a process has begun before there is a task for it."""
    import processor.audit.replay.partition_task  # noqa: F401


def run_task(task: Task) -> TaskResult:
    """Fold one range and judge it: in this process, in a pool's, or on another machine."""
    from processor.audit.replay.partition_task import run

    sys.set_int_max_str_digits(MAX_DIGITS)
    return run(task)
