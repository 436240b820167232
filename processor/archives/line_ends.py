"""Line ends of JSON lines: a module of its own, so that it can be compiled (docs/decisions/0006)."""

from __future__ import annotations

from typing import Final

_END: Final = 0x7D
_BEGIN: Final = 0x7B
"""Braces."""


def lines_of_objects(piece: bytes) -> int:
    """Number of lines, if each line end stands between the end of an object and the begin of one; else 0.

    So no value reaches over a line end, and no line is empty: with as many values as lines, each line is one.
    """
    count, at = 1, piece.find(b"\n")
    behind = len(piece) - 1
    while at >= 0:
        if not 0 < at < behind or piece[at - 1] != _END or piece[at + 1] != _BEGIN:
            return 0
        count += 1
        at = piece.find(b"\n", at + 1)
    return count
