"""Records for the source topic, and the headers that `publish` writes on them."""

from __future__ import annotations

from typing import Final, TypeVar

import msgspec

from processor.core.event_headers import EVENT_ID, RUN_ID, SEQUENCE

HEADER_EVENT_ID: Final = EVENT_ID
HEADER_RUN_ID: Final = RUN_ID
HEADER_SEQUENCE: Final = SEQUENCE
HEADER_ORIGIN: Final = "runstep-origin"

MAX_HELD_EVENTS: Final = 4096
MAX_REMEMBERED: Final = 65_536

_T = TypeVar("_T")


class Outgoing(msgspec.Struct, frozen=True, gc=False):
    """One record for the source topic."""

    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...]


class Refusal(msgspec.Struct, frozen=True, gc=False):
    """An event that cannot be published. `event` counts from 1 in its stream; no payload in `reason`."""

    event: int
    reason: str


def remember(known: dict[str, _T], key: str, value: _T) -> None:
    """Put into a dict of bounded size; what was not used for longest is forgotten first."""
    known.pop(key, None)  # so that the order of the dict is the order of use
    known[key] = value
    if len(known) > MAX_REMEMBERED:
        del known[next(iter(known))]
