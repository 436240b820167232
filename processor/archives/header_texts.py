"""Headers of a line that are texts, as nearly all are: a module of its own, so that it can be compiled."""

from __future__ import annotations

from typing import Any

_Pair = tuple[Any, ...]
"""A name and a content. Of no known length, so that what is not asked for is not read from memory."""


def as_bytes(headers: list[_Pair]) -> list[tuple[str, bytes | None]] | None:
    """Their contents encoded; None where any name or content is no text."""
    found: list[tuple[str, bytes | None]] = []
    for pair in headers:
        name: object = pair[0]
        content: object = pair[1]
        if not isinstance(name, str):
            return None
        if isinstance(content, str):
            found.append((name, content.encode()))
        elif content is None:
            found.append((name, None))
        else:
            return None
    return found
