"""Headers of the events that producers of ours write: their names, and what they say of an event beside its value."""

from __future__ import annotations

from typing import Any, Final

from processor.core.effects import Headers

EVENT_ID: Final = "runstep-event-id"
"""Names an event, so that a repeat can be told from an equal token."""

RUN_ID: Final = "runstep-run-id"
"""Names the run of an event that does not say it."""

SEQUENCE: Final = "runstep-sequence"
"""Numbers the events of a run, for people."""

SPECIAL: Final = b"\0"
"""In place of an event id, compared by identity: headers that hold an envelope."""

_CONTENT_TYPE: Final = "content-type"
_CLOUD_EVENT: Final = b"application/cloudevents"
_Header = tuple[Any, ...]
"""A name and a content. Of no known length, so that what is not asked for is not read from memory."""


def is_enveloped(headers: Headers) -> bool:
    """Whether headers say how the value is to be read, or may: a CloudEvent's, any content type."""
    return any(name[:3].lower() == "ce_" or name.lower() == _CONTENT_TYPE for name, _ in headers)


def are_published(headers: Headers) -> bool:
    """Whether they are event id, run id and sequence, in this order and in a list, as `publish` writes them."""
    if isinstance(headers, list) and len(headers) == 3:
        first: _Header = headers[0]
        second: _Header = headers[1]
        third: _Header = headers[2]
        event_id: str = first[0]
        run_id: str = second[0]
        sequence: str = third[0]
        return event_id == EVENT_ID and run_id == RUN_ID and sequence == SEQUENCE
    return False


def plain_id(headers: Headers) -> bytes | None:
    """The event id among headers that change nothing else; `SPECIAL` if they hold an envelope."""
    if are_published(headers):
        first: _Header = headers[0]
        own: bytes | None = first[1]
        return own if own is not None and len(own) > 0 else None
    found: bytes | None = None
    for name, content in headers:
        if name == EVENT_ID:
            found = content or None
        elif name in (RUN_ID, SEQUENCE):  # the others that `publish` writes
            continue
        elif name[:3].lower() == "ce_" or _asks_more(name.lower(), content):
            return SPECIAL
    return found


def _asks_more(name: str, content: bytes | None) -> bool:
    """Whether a header, its name in small letters, is an event id too, or the content type of CloudEvents."""
    if name == _CONTENT_TYPE:
        return content is not None and content[: len(_CLOUD_EVENT)].lower() == _CLOUD_EVENT
    return name == EVENT_ID
