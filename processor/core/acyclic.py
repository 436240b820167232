"""`mypyc_attr` for the compiler; without it a decorator that changes nothing.

`@mypyc_attr(acyclic=True)` leaves the objects of a compiled class to reference counting: they are no part of a cycle,
and the garbage collector, which visits all that a partition remembers, need not visit them (docs/decisions/0037).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mypy_extensions import mypyc_attr as mypyc_attr
else:

    def mypyc_attr(*, acyclic):
        """Return the class as it is."""
        assert acyclic
        return lambda found: found
