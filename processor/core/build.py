"""Build of the core: interpreted Python, or compiled by mypyc (docs/decisions/0006). Both give the same bytes."""

from __future__ import annotations

from typing import Final

from processor.core.partition import PartitionState

CORE: Final = "compiled" if hasattr(PartitionState, "__mypyc_attrs__") else "pure"
