"""Check that the extra `audit` is installed, before its libraries are imported, for a clear error message."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final

from processor.errors import UsageError

_LIBRARIES: Final = ("duckdb", "fastavro", "jinja2", "markupsafe", "pyarrow")
HINT: Final = "pip install 'run-steps[audit]'"


def missing() -> list[str]:
    """The libraries of the extra that are not there; empty: all are."""
    return [name for name in _LIBRARIES if find_spec(name) is None]


def require(command: str) -> None:
    """Raises `UsageError` with the remedy, on behalf of a command, if the extra is not installed."""
    if absent := missing():
        raise UsageError(f"{command}: needs the extra `audit` (not installed: {', '.join(absent)})", hint=HINT)
