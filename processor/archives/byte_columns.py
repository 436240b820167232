"""Columns of bytes as Arrow has them: contents one behind the other, and where each ends. A module of its own, to be
compiled."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mypy_extensions import i64  # for the compiler alone


def spans(contents: bytes, places: list[int], valid: bytes, first: i64) -> list[bytes | None]:
    """Each content, or None where it is null.

    Args:
        contents: begins with the first content of all.
        places: where each content begins and the last one ends, counted from anywhere.
        valid: a bit for each content, from bit `first` on, the lowest of a byte first, that is 0 if it is null; empty
            if none is.
    """
    found: list[bytes | None] = []
    base: i64 = places[0]
    begin: i64 = 0
    for at in range(1, len(places)):
        end: i64 = places[at] - base
        bit: i64 = first + at - 1
        if len(valid) > 0 and valid[bit >> 3] >> (bit & 7) & 1 == 0:
            found.append(None)
        else:
            found.append(contents[begin:end])
        begin = end
    return found
