"""Text for a terminal: control sequences taken out, verdicts coloured, times in UTC."""

from __future__ import annotations


def plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)


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
