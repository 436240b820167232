"""A reader of exact shapes, which `core.events` asks first; `core.run_steps.exact_reader` has the one that learns."""

from __future__ import annotations

from typing import Any

from processor.core.exact_events import ExactEvent
from processor.core.lifecycle import Kind
from processor.core.wire_types import Ignored, RunEnd


class ExactReader:
    """Reads the data of events that have an exact shape. What it reads, `events.decode` would read as the same event.

    This one reads none.
    """

    __slots__ = ()

    def delta_in(self, data: Any) -> ExactEvent | None:
        """The delta in a JSON text, which is bytes or `Raw`."""
        return None

    def object_in(self, data: Any, named: Kind | None) -> ExactEvent | None:
        """The step object in a text, of an event of this name; None: of a bare object that is known to be a step."""
        return None

    def run_in(self, name: str, data: Any) -> RunEnd | Ignored | None:
        """The event about a run in a text, if it is known. `name`: `completed`, say; "": of a bare object."""
        return None

    def learn_run(self, name: str, data: Any, found: RunEnd | Ignored) -> None:
        """Learn from a text that was read as `found`."""

    def bare_in(self, data: Any) -> ExactEvent | None:
        """The event in a text that is all of a value, if it is known at once as a bare object or delta."""
        return None
