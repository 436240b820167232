"""How many bytes a partition may remember of how its producers write.

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
    """What is left of `MOST_BYTES`."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = MOST_BYTES

    def take(self, size: int) -> bool:
        """Whether something of this size may be remembered; if so, it counts from here on."""
        if size > MOST_OF_ONE or size > self.left:
            return False
        self.left -= size
        return True


def size_of(pieces: Iterable[bytes]) -> int:
    """About how many bytes of memory these take."""
    return sum(len(piece) + _OF_A_PIECE for piece in pieces)
