"""Text for a terminal: control sequences taken out, verdicts coloured, times in UTC."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table


def printable(text: str) -> str:
    """The text with U+FFFD for what moves a terminal or hides: control characters, line ends, bidi marks, surrogates.

    Ids, keys, fields and topics are what any producer wrote.
    """
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


def print_line(line: str) -> None:
    """Print one line, cleaned."""
    print(printable(line))


def plain(text: str) -> str:
    """The same for rich: its markup is escaped, line ends stay."""
    from rich.markup import escape

    return escape("\n".join(map(printable, text.split("\n"))))


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
