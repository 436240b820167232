"""Groups of ended steps: many steps kept together as bytes, so that they can be compressed.

Ended steps look alike: together they compress to a quarter, one by one hardly (docs/decisions/0034). What a group
holds, and when, changes no outcome: a step is the same from its group as from its object.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from processor.core.merge import pack, unpack

LARGE_BYTES: Final = 32 << 10
"""A step of so many bytes is alone in its group: an event that comes late for another one must not read it too."""


def _unchanged(content: bytes) -> bytes:
    return content


@dataclass(frozen=True, slots=True)
class Grouping:
    """Sizes at which ended steps are grouped, and the compression of a group's bytes.

    Args:
        most_bytes, most_steps: a group is made once the waiting steps have so many bytes, or are so many.
        compress, decompress: functions of bytes alone, each of which undoes the other.
    """

    most_bytes: int = 64 << 10
    most_steps: int = 128
    compress: Callable[[bytes], bytes] = _unchanged
    decompress: Callable[[bytes], bytes] = _unchanged


PLAIN: Final = Grouping()
"""Groups that are not compressed."""


Held = list[Any] | bytes
"""An ended step as plain data, or packed."""


class EndedGroup:
    """Steps by their places, which count from 0."""

    __slots__ = ("_content", "_decompress")

    def __init__(self, steps: list[Held], grouping: Grouping) -> None:
        self._content = grouping.compress(pack(steps))
        self._decompress = grouping.decompress

    def step_at(self, place: int) -> Held:
        """One step; all of the group are decompressed and read for it."""
        steps: Any = unpack(self._decompress(self._content))
        found: Held = steps[place]
        return found
