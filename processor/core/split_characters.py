"""Characters that were split between two deltas: the halves are put back into the texts that deltas append to.

The decoder reads a record whose halves were replaced by U+FFFD. Two more readings, with two sets of stand-ins, tell
which characters of an appended text are halves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from msgspec import structs

from processor.core.effects import Rejected
from processor.core.merge import ENTRIES, EVERY, SHAPE, Rule
from processor.core.responses.event import PIECES, ResponseEvent
from processor.core.surrogates import between, with_stand_ins
from processor.core.wire_types import Decoded, Event, StepDelta

_ONE: Final = 0xE000
_OTHER: Final = 0xE800
"""Where two ranges of 2,048 characters for private use begin: as many as there are halves."""


def with_split_characters(found: Decoded, value: bytes, read: Callable[[bytes], Decoded | Rejected]) -> Decoded:
    """Put the halves of `value` back into the appended texts of its deltas.

    Args:
        found: what was read with U+FFFD in the place of each half; its deltas that hold one are marked (`mended`).
        read: decodes a record like this one.
    """
    if not any(_may_append(event) for event in found.events):
        return found
    one, other = (read(with_stand_ins(value, first)) for first in (_ONE, _OTHER))
    if isinstance(one, Rejected) or isinstance(other, Rejected):
        return found
    if not len(found.events) == len(one.events) == len(other.events):
        return found
    readings = zip(found.events, one.events, other.events, strict=True)
    return Decoded(tuple(_restored(*reading) for reading in readings), found.ids)


def _may_append(event: Event) -> bool:
    if isinstance(event, ResponseEvent):
        return event.mended and event.what == PIECES
    return isinstance(event, StepDelta) and event.mended


def _restored(event: Event, one: Event, other: Event) -> Event:
    """The event with its halves; it stays marked where another of its strings held one, too."""
    if not _may_append(event):
        return event
    if isinstance(event, StepDelta) and isinstance(one, StepDelta) and isinstance(other, StepDelta):
        same = _restore(event.details, one.details, other.details, SHAPE)
        return structs.replace(event, mended=not same or one.step_id != other.step_id)
    if isinstance(event, ResponseEvent) and isinstance(one, ResponseEvent) and isinstance(other, ResponseEvent):
        texts = tuple(
            (place, index, between(first, second, _ONE))
            for (place, index, first), (_, _, second) in zip(one.texts, other.texts, strict=True)
        )
        return structs.replace(event, texts=texts, mended=False)
    return event


def _restore(details: Any, one: Any, other: Any, shape: Any) -> bool:
    """Put halves into what the merge table appends. Returns whether the two readings are the same in all else."""
    if not isinstance(shape, dict):
        return bool(one == other)
    if isinstance(details, list):
        below = shape.get(ENTRIES)
        found = [_restore(*entry, below) for entry in zip(details, one, other, strict=True)]
        return all(found)
    if not isinstance(details, dict):
        return bool(one == other)
    if one.keys() != other.keys():  # a name holds a half
        return False
    same = True
    for key in details:
        first, second = one.get(key), other.get(key)
        rule = shape.get(key) or shape.get(EVERY)
        if rule is Rule.APPEND and isinstance(first, str) and isinstance(second, str):
            details[key] = between(first, second, _ONE)
        elif not _restore(details[key], first, second, rule):
            same = False
    return same
