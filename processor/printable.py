"""What the program prints: every line and every cell is cleaned for a terminal here, and nothing is printed elsewhere.

Ids, keys, fields, topics and errors hold what any producer or broker wrote.
"""

from __future__ import annotations

import json
import sys
from typing import Any


def printable(text: str) -> str:
    """The text with U+FFFD for what moves a terminal or hides: controls, line ends, bidi marks, surrogates."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "\ufffd" for c in text)


def printable_lines(text: str) -> str:
    """Clean a text of several lines: `printable` of each, with the line ends as they are."""
    return "\n".join(map(printable, text.split("\n")))


def printable_json(text: str) -> str:
    """Clean a JSON text, in one line: what `printable` would replace is escaped, so that the value stays the same."""
    return "".join(c if c.isprintable() else " " if c in "\n\r\t" else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    return json.dumps(character)[1:-1].replace("\x7f", "\\u007f")


def print_line(line: str, *, flush: bool = False) -> None:
    """Print one line, cleaned."""
    print(printable(line), flush=flush)  # noqa: T201


def print_lines(text: str, *, to_stderr: bool = False) -> None:
    """Print a text of several lines, each cleaned."""
    print(printable_lines(text), file=sys.stderr if to_stderr else sys.stdout)


def print_json(value: Any, *, indent: int | None = 2) -> None:
    """Print JSON in ASCII: what a terminal would obey is escaped, and nothing is lost."""
    print(json.dumps(value, indent=indent).replace("\x7f", "\\u007f"))  # noqa: T201


def warn(line: str) -> None:
    """Print one line, cleaned, on standard error."""
    print(printable(line), file=sys.stderr)  # noqa: T201
