"""Events of exact shapes, which `core.events` hands on as they stand; `core.run_steps.exact_reader` reads them."""

from __future__ import annotations

from typing import Any

from processor.core.lifecycle import Kind


class ExactEvent:
    """An event that says nothing but what its shape allows. A subclass says what."""

    __slots__ = ()


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

    def bare_in(self, data: Any) -> ExactEvent | None:
        """The event in a text that is all of a value, if it is known at once as a bare object or delta."""
        return None
