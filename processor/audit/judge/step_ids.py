"""Ids of the steps that a fold publishes, as an observer of its state sees them."""

from __future__ import annotations

from typing import Any

from processor.core.entry import Entry
from processor.core.observer import Observer
from processor.core.step_state import StepState


class StepIds(Observer):
    """Collects the ids of published steps.

    Attributes:
        found: (step id, the snapshot's `run_id`) of each revision, until its reader clears the list.
    """

    def __init__(self) -> None:
        self.found: list[tuple[str, Any]] = []

    def published(self, entry: Entry, step: StepState) -> None:
        self.found.append((entry.key, step.ids()[0]))
