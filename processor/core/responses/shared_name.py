"""Shared names: a second response under the key or header that names the first. Its events are refused, never mixed in.

Only lifecycle events say when their response was created; texts and items do not say which response they are of. So
from the beginning of a second one on, whatever does not say the first one's time is refused, until the first is
forgotten. The ids that lifecycle events say decide nothing: gateways change them from event to event.
"""

from __future__ import annotations

from typing import Any, Final

from processor.core.effects import Reason, Rejected
from processor.core.responses.event import END, FOREIGN, LIFE, SKIP, ResponseEvent
from processor.core.responses.numbers import MAX_NUMBER
from processor.core.responses.response import Response

REFUSED: Final = Rejected(
    Reason.ILLEGAL_TRANSITION, "two responses have one key or runstep-run-id, which must be the response's own id"
)


def note_created(response: Response, event: ResponseEvent) -> None:
    """Note when the response was created, as its first lifecycle event that says it does."""
    if response.created_s is None:
        response.created_s = _created_s(event)


def is_of_another(response: Response, event: ResponseEvent) -> bool:
    """Whether an event is of another response than the first of this name, which is shared from there on.

    Asked of the events that a stream begins with, and of all others where the name is shared already.
    """
    created_s, own_s = _created_s(event), response.created_s
    if response.is_shared:
        return created_s != own_s
    if created_s is None or own_s is None or created_s == own_s:
        return False
    if event.number is None:  # a stream may begin with two such events
        response.is_shared = bool(response.items) or response.ending is not None
    else:
        response.is_shared = event.number < response.numbers.next
    return response.is_shared


def says_nothing(event: ResponseEvent) -> bool:
    """Whether nothing is lost with an event of another response."""
    return event.what in (SKIP, FOREIGN)


def _created_s(event: ResponseEvent) -> int | None:
    return seconds(event.value.get("created_at")) if event.what in (LIFE, END) else None


def seconds(value: Any) -> int | None:
    """A time that a response says, in whole seconds."""
    if type(value) is float and 0 <= value < MAX_NUMBER:
        return int(value)
    return value if type(value) is int else None
