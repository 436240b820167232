"""Parse the bounds of a range: --from and --to."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from enum import Enum
from typing import Final

import msgspec

from processor.errors import UsageError

_OFFSET: Final = re.compile(r"[0-9]{1,18}", re.ASCII)
_MILLISECONDS: Final = re.compile(r"([0-9]{1,15})ms", re.ASCII)
_HINT: Final = (
    "an offset, a time (2024-07-03T10:00:00Z, or 1720000000000ms), beginning, end or committed:<group>; a time without "
    "a zone is UTC"
)


class Edge(Enum):
    BEGINNING = "beginning"
    END = "end"


class Offset(msgspec.Struct, frozen=True):
    """The same offset in every partition."""

    offset: int


class Time(msgspec.Struct, frozen=True):
    """The first record as young as that or younger, in milliseconds."""

    milliseconds: int


class CommittedBound(msgspec.Struct, frozen=True):
    """The committed offset of a group; with `or_end` the end, in partitions without one."""

    group: str
    or_end: bool = False


Bound = Edge | Offset | Time | CommittedBound


def parse(option: str, text: str) -> Bound:
    """Raises UsageError: it is none of the forms."""
    if text in ("beginning", "end"):
        return Edge(text)
    if _OFFSET.fullmatch(text):
        return Offset(int(text))
    found = _MILLISECONDS.fullmatch(text)
    if found:
        return Time(int(found[1]))
    group = text.removeprefix("committed:")
    if group and group != text:
        return CommittedBound(group)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"replay: {option}: no place in a log (got {text[:80]!r})", hint=_HINT) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return Time(max(0, round(moment.timestamp() * 1000)))  # no record is older than 1970
