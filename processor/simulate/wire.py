"""Encoding of events into records: the envelopes that producers use, with their variations."""

from __future__ import annotations

from base64 import b64encode
from random import Random
from typing import Final, NamedTuple

from processor.simulate.steps import Event, Kind

EVENT_ID: Final = "runstep-event-id"
MANY: Final = frozenset(("sse_many", "ce_batch"))
"""Envelopes that hold several events."""

Headers = list[tuple[str, bytes]]

_CONTENT_TYPES: Final = (
    b"application/cloudevents+json",
    b"application/cloudevents+json; charset=UTF-8",
    b"Application/CloudEvents+JSON",
)
_CLOUDEVENTS: Final = frozenset(("ce_structured", "ce_base64", "ce_batch", "ce_binary"))
_NAMESPACE: Final = "com.example.agents."


class Wrapped(NamedTuple):
    """The value and headers of a record."""

    value: bytes
    headers: Headers
    identified: bool
    """Its events have ids."""


def fits(envelope: str, event: Event) -> bool:
    """Whether an event can travel in an envelope. What ends a stream is no JSON, and only SSE can say it."""
    if event.kind is Kind.STREAM_END:
        return envelope in ("sse", "sse_many")
    return envelope != "bare" or event.bare


def wrap(rng: Random, envelope: str, events: list[Event], identity: str, with_id: bool) -> Wrapped:
    """Put events into one record. `identity` must be new for each record; CloudEvents always carry it."""
    if envelope in _CLOUDEVENTS:
        value, headers = _cloudevent(rng, envelope, events, identity)
        return Wrapped(value, headers, True)
    headers = [(EVENT_ID, identity.encode())] if with_id else []
    if envelope == "bare":
        return Wrapped(events[0].data.encode(), headers, with_id)
    if envelope == "event":
        return Wrapped(_stream_event(events[0]).encode(), headers, with_id)
    return Wrapped(_server_sent(rng, events), headers, with_id)


def _stream_event(event: Event) -> str:
    return f'{{"event":"{event.name}","data":{event.data}}}'


def _cloudevent(rng: Random, envelope: str, events: list[Event], identity: str) -> tuple[bytes, Headers]:
    source, _, number = identity.partition("/")
    prefix = _NAMESPACE if rng.random() < 0.5 else ""
    event = events[0]
    if envelope == "ce_binary":
        headers = [
            ("ce_specversion", b"1.0"),
            ("ce_type", (prefix + event.name).encode()),
            ("ce_source", source.encode()),
            ("ce_id", number.encode()),
            ("content-type", b"application/json"),
        ]
        value = event.data if rng.random() < 0.7 else _stream_event(event)
        return value.encode(), headers

    def structured(event: Event, number: str) -> str:
        if envelope == "ce_base64":
            data = f'"data_base64":"{b64encode(event.data.encode()).decode()}"'
        else:
            data = f'"data":{event.data}'
        return (
            f'{{"specversion":"1.0","id":"{number}","source":"{source}","type":"{prefix}{event.name}",'
            f'"datacontenttype":"application/json",{data}}}'
        )

    if envelope == "ce_batch":
        batch = ",".join([structured(e, f"{number}.{i}") for i, e in enumerate(events)])
        return f"[{batch}]".encode(), [("content-type", b"application/cloudevents-batch+json")]
    named = rng.random() < 0.7
    return structured(event, number).encode(), [("content-type", rng.choice(_CONTENT_TYPES))] if named else []


def _server_sent(rng: Random, events: list[Event]) -> bytes:
    """SSE text. Producers differ in line ends, comments, blank lines, and in whether they name the event."""
    end = "\r\n" if rng.random() < 0.2 else "\n"
    space = "" if rng.random() < 0.1 else " "
    lines = [": keep-alive", ""] if rng.random() < 0.1 else []
    nameless = rng.random() < 0.2
    close_up = not nameless and rng.random() < 0.2  # no blank line between frames
    last = len(events) - 1
    for i, event in enumerate(events):
        data = event.data
        if nameless:
            # Only with its name is the repeat of an opening no refresh.
            bare = event.kind is Kind.STREAM_END or (event.bare and event.kind is not Kind.CREATED)
            data = data if bare else _stream_event(event)
        else:
            lines.append(f"event:{space}{event.name}")
            if rng.random() < 0.05:
                lines.append(f"id:{space}{i}")
        if data[0] == "{" and rng.random() < 0.1:
            lines.append(f"data:{space}{{")
            data = data[1:]
        lines.append(f"data:{space}{data}")
        if i == last or not close_up:
            lines.append("")
    text = end.join(lines) + (end if rng.random() < 0.8 else "")
    return (b"\xef\xbb\xbf" if rng.random() < 0.05 else b"") + text.encode()
