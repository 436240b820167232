"""Fields of one event that its key needs: of a run step, of the Responses API, or why it is neither."""

from __future__ import annotations

import re
from typing import Any, Final
from zlib import crc32

import msgspec

from processor.core.responses.numbers import sequence_number
from processor.core.sse import Frame
from processor.core.surrogates import may_hold_halves, without_halves
from processor.publish.sse import DONE

BARE_OBJECTS: Final = frozenset({"thread.run", "thread.run.step", "assistant.run.step", "thread.run.step.delta"})
"""Objects that the worker understands without an event name (envelope E2)."""
RESPONSE_ENDS: Final = frozenset({"completed", "failed", "incomplete", "cancelled"})
"""Final statuses of a response. A stream has no event for `cancelled`."""
RESPONSE: Final = "response."

KEEP_ALIVES: Final = frozenset({"ping", "keepalive", "keep-alive", "keep_alive", "heartbeat"})
"""Events by which gateways keep a connection open. One with a number has a place among those of its response."""

_UNFINISHED: Final = frozenset({"queued", "in_progress"})
_TAG: Final = re.compile(r"[A-Za-z0-9_.:-]{1,60}")
_NEITHER: Final = (
    "neither an event (with event and data) nor a run, a step, a step's delta or an event of the Responses API"
)


class RunEvent(msgspec.Struct, frozen=True, gc=False):
    """Ids in one event of a run, and its record value. `run` None: the event does not name it."""

    value: bytes
    id: str | None
    run: str | None
    thread: str | None
    kind: str
    name: str = ""
    """Of the event; "" of a bare object."""


class ResponseEvent(msgspec.Struct, frozen=True, gc=False):
    """Ids and number in one event of the Responses API, and its record value."""

    value: bytes
    type: str
    response_id: str | None
    """Only lifecycle events have it."""
    number: int | None
    """Its `sequence_number`."""
    item_id: str | None
    content: int = 0
    """A checksum of its type, item and piece of text, which an event that is read again has, too."""
    created_at: Any = None
    model: str | None = None


class Retrieved(msgspec.Struct, frozen=True, gc=False):
    """A response object, as `retrieve` answers it, and the event that stands for it."""

    value: bytes
    response_id: str


class ServiceError(msgspec.Struct, frozen=True, gc=False):
    """An `error` without a number: of the stream that it stands in, whichever dialect that speaks."""

    value: bytes
    as_run_event: RunEvent | None
    """Where an SSE line names it: the other dialect has no events without a name."""
    reason: str
    """Reason why it cannot be published where no stream has begun."""


class _Fields(msgspec.Struct, gc=False):
    """The few fields that decide the key. Typed loosely: the worker judges wrong types of other fields."""

    event: Any = None
    data: msgspec.Raw = msgspec.Raw(b"")
    object: Any = None
    id: Any = None
    run_id: Any = None
    thread_id: Any = None
    type: Any = None
    response: msgspec.Raw = msgspec.Raw(b"")
    response_id: Any = None
    sequence_number: Any = None
    output_index: Any = None
    delta: msgspec.Raw = msgspec.Raw(b"")
    item: msgspec.Raw = msgspec.Raw(b"")
    item_id: Any = None
    error: msgspec.Raw = msgspec.Raw(b"")
    status: Any = None
    created_at: Any = None
    model: Any = None
    code: Any = None
    detail: msgspec.Raw = msgspec.Raw(b"")
    message: Any = None
    statusCode: Any = None  # noqa: N815  as API gateways write it


Event = RunEvent | ResponseEvent | Retrieved | ServiceError

_decode: Final = msgspec.json.Decoder(_Fields).decode
_decode_text: Final = msgspec.json.Decoder(str).decode
_NOTHING: Final = _Fields()


def _fields(text: bytes | msgspec.Raw) -> _Fields:
    try:
        return _decode(text)
    except msgspec.DecodeError:
        whole = bytes(text)
        if not may_hold_halves(whole):
            raise
        return _decode(without_halves(whole))  # the record keeps the text as it came: the worker judges it


def _inside(part: msgspec.Raw) -> _Fields:
    """The fields of an object inside; of anything else, none."""
    return _fields(part) if bytes(memoryview(part)[:1]) == b"{" else _NOTHING


def read(frame: Frame) -> Event | str | None:
    """The event in a frame, or why it is none; None for an end mark or a keep-alive that is written as an event."""
    try:
        str(frame.data, "utf-8")  # the decoder below does not look into strings it skips
        return _read(frame)
    except UnicodeDecodeError:
        return "not UTF-8"
    except RecursionError:
        return "nested deeper than the decoder goes"
    except msgspec.DecodeError as exc:
        if frame.data.lstrip()[:1] == b"<":
            return "a page of HTML or XML, no event: a gateway's answer in the service's place?"
        return f"not a JSON object ({exc!s:.120})"


def _read(frame: Frame) -> Event | str | None:
    outer = _fields(frame.data)
    if frame.name is not None:
        name = str(frame.name, "utf-8")
        if is_of_responses(outer, name):
            return _response_event(outer, name, frame.data)
        if name in KEEP_ALIVES:
            return None
        # Bytes around bytes, not decode and encode: numbers, escapes and spacing stay as the service sent them.
        event = _run_event(outer, b'{"event":' + msgspec.json.encode(name) + b',"data":' + frame.data + b"}", name)
        if name == "error":
            typed = outer.type == "error"
            return ServiceError(frame.data if typed else event.value, event, error_in(outer) or _NEITHER)
        return event
    if isinstance(outer.event, str):
        if outer.event == "done":
            return None
        data = bytes(outer.data)
        if data[:1] == b'"':  # as programs dump the frames of an SSE client: the JSON of the data as a text
            return read(Frame(outer.event.encode(), _decode_text(data).encode()))
        inner = _fields(data)
        if is_of_responses(inner, outer.event):
            return _response_event(inner, outer.event, data)
        if outer.event in KEEP_ALIVES:
            return None
        return _run_event(inner, frame.data, outer.event)
    if is_of_responses(outer, ""):
        return _response_event(outer, "", frame.data)
    if isinstance(outer.type, str) and outer.type in KEEP_ALIVES:
        return None
    if outer.object in BARE_OBJECTS:
        return _run_event(outer, frame.data)
    if outer.object == "response":
        return _retrieved(outer, frame.data)
    error = error_in(outer)
    if error is not None and outer.type == "error":
        return ServiceError(frame.data, None, error)
    return error or f"{_NEITHER}{_tagged(outer)}"


def is_of_responses(fields: _Fields, name: str) -> bool:
    """Whether it is an event of the Responses API: by its type, its SSE name, or a number that no other API writes."""
    kind = fields.type
    if isinstance(kind, str):
        numbered = sequence_number(fields.sequence_number) is not None and not isinstance(fields.object, str)
        return kind.startswith(RESPONSE) or numbered
    return name.startswith(RESPONSE)


def _response_event(fields: _Fields, name: str, data: bytes) -> ResponseEvent:
    kind, value = _text(fields.type), data
    if kind is None:
        kind, value = name, b'{"event":' + msgspec.json.encode(name) + b',"data":' + data + b"}"
    response = _inside(fields.response)
    item = _inside(fields.item)
    return ResponseEvent(
        value,
        kind,
        _text(response.id) or _text(fields.response_id),
        sequence_number(fields.sequence_number),
        _text(fields.item_id) or _text(item.id),
        crc32(fields.delta, crc32(f"{kind} {fields.output_index}".encode("utf-8", "replace"))) or 1,
        response.created_at,
        _text(response.model),
    )


def _retrieved(fields: _Fields, data: bytes) -> Retrieved | str:
    own, status = _text(fields.id), fields.status
    if own is None:
        return "a response object without an id"
    if status in _UNFINISHED:
        return f"response {own:.80} is still {status}: retrieve it again when it has ended"
    if status not in RESPONSE_ENDS:
        return f"response {own:.80}: its status is none that ends a response"
    return Retrieved(b'{"type":"response.' + status.encode() + b'","response":' + data.strip() + b"}", own)


def _run_event(fields: _Fields, value: bytes, name: str = "") -> RunEvent:
    kind = _text(fields.object) or "event"
    own = _text(fields.id)
    run = own if kind == "thread.run" else _text(fields.run_id)
    thread = own if kind == "thread" else _text(fields.thread_id)
    return RunEvent(value, own, run, thread, kind, name)


def error_in(fields: _Fields) -> str | None:
    """Description of the body of an HTTP error, or of an unnamed error in a stream: type and code, no text."""
    inner = _inside(fields.error)
    is_one = (
        (bytes(fields.error) not in (b"", b"null"))
        or fields.object == "error"
        or fields.type == "error"
        or (fields.type is None and fields.object is None and bytes(fields.detail) not in (b"", b"null"))
        or (isinstance(fields.message, str) and (fields.code is not None or fields.statusCode is not None))
    )
    if not is_one:
        return None
    said = [
        f"{label} {tag}"
        for label, value in (
            ("status", fields.statusCode if fields.statusCode is not None else fields.status),
            ("type", inner.type if inner.type is not None else (fields.type if fields.type != "error" else None)),
            ("code", inner.code if inner.code is not None else fields.code),
        )
        if (tag := _tag(value))
    ]
    return "an error of the service, not an event" + (f" ({', '.join(said)})" if said else "")


def _tagged(fields: _Fields) -> str:
    """The type that the value names, if that is a plain name."""
    tag = _tag(fields.object) or _tag(fields.type)
    return f" (it calls itself {tag})" if tag else ""


def _tag(value: object) -> str:
    if isinstance(value, bool):
        return ""
    text = str(value) if isinstance(value, int) and abs(value) < 10**12 else value
    return text if isinstance(text, str) and _TAG.fullmatch(text) else ""


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def described(key: bytes, value: bytes) -> str:
    """A record that could not be sent, by its event, object and run, and what its absence leads to."""
    fields = _fields(value)
    inner = _inside(fields.data) if fields.event is not None else fields
    name = _text(fields.event) or _text(fields.type) or _text(fields.object) or "event"
    own = _text(inner.item_id) or _text(_inside(inner.item).id) or _text(inner.id)
    what = f"{name:.80}{f' of {own:.80}' if own else ''}, run {key.decode():.80}"
    step_ends = name.startswith("thread.run.step.") and name.rpartition(".")[2] in _STEP_ENDS
    if step_ends or name == "response.output_item.done":
        return f"{what}: without its end the worker publishes the step as expired"
    return what


_STEP_ENDS: Final = frozenset({"completed", "failed", "cancelled", "expired"})


def ends_stream(frame: Frame) -> bool:
    """Whether it is the end mark of an HTTP response."""
    return frame.data.strip() == DONE or frame.name == b"done"
