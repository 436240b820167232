"""One mistake in the settings, as it is printed."""

from __future__ import annotations

from typing import NamedTuple


class Mistake(NamedTuple):
    """One mistake. `got` can be printed as it is."""

    where: str
    key: str
    what: str
    got: str
    hint: str

    def __str__(self) -> str:
        got = f" (got {self.got})" if self.got else ""
        return f"{': '.join(filter(None, (self.where, self.key, self.what)))}{got}\n  hint: {self.hint}"


def unreadable(exc: Exception) -> str:
    return "not UTF-8" if isinstance(exc, UnicodeDecodeError) else f"unreadable ({type(exc).__name__})"


def shown(value: object) -> str:
    text = repr(value) if isinstance(value, str | int | float | bool) else type_name(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def type_name(value: object) -> str:
    return {"dict": "a table", "list": "a list"}.get(type(value).__name__, type(value).__name__)
