"""Text for a terminal: markup escaped, verdicts coloured, times in UTC."""

from __future__ import annotations

from typing import TYPE_CHECKING

from processor.printable import printable_lines

if TYPE_CHECKING:
    from rich.table import Table


def plain(text: str) -> str:
    """The text cleaned (line ends stay), and its markup escaped for rich."""
    from rich.markup import escape

    return escape(printable_lines(text))


def table_of(*columns: str, pad_edge: bool = False) -> Table:
    """A table whose cells are folded where the terminal is narrow, and never cut."""
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=pad_edge)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


_VERDICT_STYLES = {"equal": "green", "unverifiable": "yellow"}


def verdict_style(verdict: str) -> str:
    return _VERDICT_STYLES.get(verdict, "red")


def utc_time(milliseconds: int) -> str:
    from datetime import UTC, datetime

    try:
        return (
            datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        )
    except (OverflowError, ValueError, OSError):
        return f"{milliseconds} ms"
