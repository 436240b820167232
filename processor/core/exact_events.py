"""Events of exact shapes, which `core.events` hands on as they stand; `core.run_steps.exact_reader` reads them."""

from __future__ import annotations


class ExactEvent:
    """An event that says nothing but what its shape allows. A subclass says what."""

    __slots__ = ()
