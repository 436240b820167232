"""The open steps of each run (L6)."""

from __future__ import annotations

from processor.core.entry import Entry


class RunIndex:
    """From a run id to its open steps; a run has seldom more than one at a time."""

    __slots__ = ("by_run",)

    def __init__(self) -> None:
        self.by_run: dict[str, str | set[str]] = {}

    def set(self, entry: Entry, run_id: str | None) -> None:
        """Have the open step belong to this run, and to no other."""
        if entry.run_id == run_id:
            return
        self.discard(entry)
        entry.run_id = run_id
        if run_id is None:
            return
        held = self.by_run.get(run_id)
        if held is None:
            self.by_run[run_id] = entry.key
        elif isinstance(held, set):
            held.add(entry.key)
        else:
            self.by_run[run_id] = {held, entry.key}

    def discard(self, entry: Entry) -> None:
        """Take a step out that is no longer open; `entry.run_id` stays."""
        run_id = entry.run_id
        if run_id is None:
            return
        held = self.by_run.get(run_id)
        if isinstance(held, set):
            held.discard(entry.key)
            if len(held) == 1:
                self.by_run[run_id] = held.pop()
        elif held == entry.key:
            del self.by_run[run_id]

    def open_in(self, run_id: str) -> list[str]:
        """The run's open steps, sorted."""
        held = self.by_run.get(run_id)
        return [] if held is None else sorted(held) if isinstance(held, set) else [held]
