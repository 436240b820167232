"""Memory bound of what a partition learns of how its producers write (templates, outlines, shapes).

Templates are bounded in number where they are learned. What one of them has is up to who writes the records, and a
record may have a megabyte: so all of a partition have these bytes together, and what is large is not remembered.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from processor.core.acyclic import mypyc_attr

MOST_BYTES: Final = 1 << 20
"""Of all that is learned in one partition. The producers of a topic take some 100 KiB."""
MOST_OF_ONE: Final = 32 << 10
"""Of one thing that is learned: real ones have some 4,000, as Python 12,000."""
_OF_A_PIECE: Final = 64
"""What a piece of bytes takes beside what it holds, and what holds it."""


@mypyc_attr(acyclic=True)
class LearnedBytes:
    """Budget of learned bytes in one partition: `left` of `MOST_BYTES`."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = MOST_BYTES

    def take(self, size: int) -> bool:
        """Take `size` bytes from the budget; False, and nothing is taken, if they are too many."""
        if size > MOST_OF_ONE or size > self.left:
            return False
        self.left -= size
        return True


def size_of(pieces: Iterable[bytes]) -> int:
    """Estimate the memory of pieces of bytes, in bytes."""
    return sum(len(piece) + _OF_A_PIECE for piece in pieces)
