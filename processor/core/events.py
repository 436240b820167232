"""Decoding: the value and the headers of a record become events. Only this module knows the envelopes.

Envelopes are chosen per record (E1-E5 of docs/semantics.md). Bad data comes back as `Rejected`, never as an exception.
"""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import msgspec
from msgspec import structs

from processor.core.effects import Headers, Reason, Rejected
from processor.core.event_headers import EVENT_ID, RUN_ID, is_enveloped
from processor.core.event_names import api_name
from processor.core.exact_events import ExactEvent, ExactReader
from processor.core.json_bytes import MAX_NESTING, nests_deeper
from processor.core.lifecycle import RUN_ENDS, TERMINAL, Kind
from processor.core.responses.decode import is_response, read_numbered, read_response_event
from processor.core.responses.event import ERROR, ResponseEvent
from processor.core.responses.numbers import sequence_number
from processor.core.schema_frames import SchemaFrame, frame_of
from processor.core.split_characters import with_split_characters
from processor.core.sse import Frame, frames_of, is_sse
from processor.core.surrogates import may_hold_halves, without_halves
from processor.core.wire_types import (
    Decoded,
    Envelope,
    Event,
    Ignored,
    RunEnd,
    RunHead,
    Span,
    StepDelta,
    StepObject,
    StreamError,
    data_of,
    read_any,
    read_envelope,
    read_envelopes,
    read_run_head,
    skip,
)

_T = TypeVar("_T")

MAX_DEPTH: Final = 100
MAX_ID: Final = 256

MESSAGE_PREFIXES: Final = (b'{"event":"thread.message.', b'{"event": "thread.message.')
"""What no step needs is known by its first bytes: pieces of messages are the commonest events of a chat."""

_CREATED, _STATED, _IN_PROGRESS = Kind.CREATED, Kind.STATED, Kind.IN_PROGRESS
_TOMBSTONE: Final = Decoded((Ignored("tombstone"),), (None,))
_IGNORED: Final = Ignored("ignored")
_ONE_IGNORED: Final = Decoded((_IGNORED,), (None,))
_UNKNOWN: Final = Ignored("unknown_event")
_ERRORS: Final = frozenset({"error", "response.error"})
_TEXT: Final = 9  # no text begins with a byte below the tab
_BOM: Final = b"\xef\xbb\xbf"
_BRACE: Final = 0x7B
_NO_HEADERS: Final[dict[str, bytes | None]] = {}
STEP_EVENT: Final = "thread.run.step."
RUN_EVENT: Final = "thread.run."
_STEP_BYTES: Final = STEP_EVENT.encode()
_DELTA_BYTES: Final = b"delta"
STEP_OBJECTS: Final = frozenset({"thread.run.step", "assistant.run.step"})
DELTA_OBJECT: Final = "thread.run.step.delta"
STEP_NAMES: Final[Mapping[str, Kind]] = {kind.value: kind for kind in Kind if kind not in (Kind.DELTA, Kind.STATED)}
_NAMES_AS_BYTES: Final = {name.encode(): kind for name, kind in STEP_NAMES.items()}
_ENDS: Final[Mapping[str, Kind]] = {status.value: Kind(status.value) for status in TERMINAL}
_CALLS_BY_OTHER_TYPES: Final = ("mcp", "openapi")
"""Types that the SDKs' models allow for the details of a delta that holds tool calls."""
RUN_NAMES: Final = frozenset(RUN_ENDS) | {"created", "queued", "in_progress", "requires_action", "cancelling"}


class BadRecordError(Exception):
    """Carries a `Rejected` up to `decode`, which catches it."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.rejected = Rejected(reason, detail[:200])


def decode(
    value: bytes | None, headers: Headers = (), with_frames: bool = False, exact: ExactReader | None = None
) -> Decoded | Rejected:
    """Read one record; never raises.

    Args:
        with_frames: whether a schema registry frame before the value is passed over (E0), or refused by its name.
        exact: reads deltas and step objects of exact shapes, in any envelope; what it does not read becomes a
            `StepDelta` or a `StepObject`.

    Returns:
        its events in order, a `Rejected` among them for each event that cannot be read; `Rejected` alone if nothing
        of it can be.
    """
    if not value:
        return _TOMBSTONE
    if value.startswith(b"{") and value.startswith(MESSAGE_PREFIXES) and not is_enveloped(headers):
        return _ONE_IGNORED
    found = _decoded(value, headers, with_frames, exact)
    if _refuses(found) and may_hold_halves(value):
        # Half a surrogate pair is no UTF-8, and yet JSON: the object counts, with U+FFFD in the place of the half.
        mended = without_halves(value)
        if mended != value:
            marked = _marked(found, _decoded(mended, headers, with_frames))
            if isinstance(marked, Rejected):
                return marked
            return with_split_characters(marked, value, lambda other: _decoded(other, headers, with_frames))
    return found


def _refuses(found: Decoded | Rejected) -> bool:
    # By `type`: compiled, `isinstance` asks the metaclass of a structure, which costs ten times as much.
    if type(found) is Rejected:
        return True
    assert type(found) is Decoded
    for event in found.events:  # noqa: SIM110  a generator costs more than the loop
        if type(event) is Rejected:
            return True
    return False


def _marked(before: Decoded | Rejected, found: Decoded | Rejected) -> Decoded | Rejected:
    """What was read of the mended text, with a mark on the events that could not be read before."""
    if isinstance(found, Rejected):
        return found
    refused = [True] * len(found.events)
    if isinstance(before, Decoded) and len(before.events) == len(found.events):
        refused = [isinstance(event, Rejected) for event in before.events]
    return Decoded(
        tuple(
            structs.replace(event, mended=True)
            if was_refused and isinstance(event, (StepObject, StepDelta, ResponseEvent))
            else event
            for event, was_refused in zip(found.events, refused, strict=True)
        ),
        found.ids,
    )


def _decoded(value: bytes, headers: Headers, with_frames: bool, exact: ExactReader | None = None) -> Decoded | Rejected:
    try:
        told = {name.lower(): content for name, content in headers} if headers else _NO_HEADERS
        if value[0] < _TEXT and (frame := frame_of(value)) is not None:
            return _framed(value, frame, told, with_frames)
        return _decode(value, told, exact)
    except (BadRecordError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return _rejected(error)


def _framed(
    value: bytes, frame: SchemaFrame, headers: Mapping[str, bytes | None], with_frames: bool
) -> Decoded | Rejected:
    """What follows a frame. The detail of what is refused says that there is one."""
    if not with_frames:
        detail = f"begins with {frame.shown}: source.schema_frames has it read"
        return Rejected(Reason.NOT_JSON, detail)
    try:
        found = _decode(value[frame.size :], headers, None)
    except (BadRecordError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        found = _rejected(error)
    if isinstance(found, Rejected):
        return Rejected(found.reason, f"after {frame.shown}: {found.detail}"[:200])
    return found


def _rejected(error: Exception) -> Rejected:
    """The reason and detail of what could not be read; no payload in them."""
    if isinstance(error, BadRecordError):
        return error.rejected
    if isinstance(error, msgspec.ValidationError):
        return Rejected(Reason.NOT_JSON if "out of range" in str(error) else Reason.MALFORMED, str(error)[:200])
    if isinstance(error, RecursionError):
        return Rejected(Reason.TOO_DEEP, "nested deeper than the decoder goes")
    # the decoder's words name a byte position; a codec error would quote the bytes, so only its reason is kept
    detail = error.reason if isinstance(error, UnicodeDecodeError) else str(error)
    return Rejected(Reason.NOT_JSON, detail[:200])


def _decode(value: bytes, headers: Mapping[str, bytes | None], exact: ExactReader | None) -> Decoded | Rejected:
    if value.startswith(_BOM):
        value = value[len(_BOM) :]
    event_id: str | None = None
    if headers:
        event_id = _id_of(headers)
        content_type = (headers.get("content-type") or b"").lower()
        if content_type.startswith(b"application/cloudevents"):  # E3
            check_utf8(value)
            if content_type.startswith(b"application/cloudevents-batch"):
                return _in_order([_each_cloud_event(raw, exact) for raw in _read(read_envelopes, value)], event_id)
            event, own_id = _cloud_event(value, exact)
            return _one(event, own_id, event_id)
        if "ce_type" in headers and "ce_specversion" in headers:  # E4
            check_utf8(value)
            return _one(_binary_event(headers, value, exact), None, event_id)
    if is_sse(value):  # E5
        found = [_each_frame(frame, exact) for frame in frames_of(value)]
        if not any(type(event) is Rejected for event, _ in found):
            check_utf8(value)  # a comment, say: no event is to blame, so all of the record is
        return _in_order(found, event_id)
    check_utf8(value)
    return _one(*_json(value, exact), event_id)


def check_utf8(value: bytes) -> None:
    """The decoder does not look into strings that it skips. Raises `UnicodeDecodeError`."""
    if not value.isascii():
        value.decode()


def _check_depth(value: Span) -> None:
    """Refuse what is nested too deep to be decoded. The data of an envelope was looked at with the whole of it."""
    if type(value) is bytes and nests_deeper(value, MAX_NESTING):
        raise BadRecordError(Reason.TOO_DEEP, f"nested more than {MAX_NESTING} levels")


def _read(decoder: Callable[[Span], _T], value: Span) -> _T:
    """Decode. Of a value that has the wrong type and is not JSON either, the error says that it is not JSON."""
    _check_depth(value)
    try:
        return decoder(value)
    except msgspec.ValidationError:
        skip(value)  # the decoder above stopped at the first wrong type
        raise


def _one(event: Event, own_id: str | None, event_id: str | None) -> Decoded:
    return Decoded((event,), (event_id or own_id,))


# One event of several; what cannot be read is refused alone: the others of its record count.


def _each_frame(frame: Frame, exact: ExactReader | None) -> tuple[Event, str | None]:
    try:
        return _frame(frame, exact), None
    except (BadRecordError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return _rejected(error), None


def _each_cloud_event(value: Span, exact: ExactReader | None) -> tuple[Event, str | None]:
    try:
        return _cloud_event(value, exact)
    except (BadRecordError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return _rejected(error), None


def _in_order(found: list[tuple[Event, str | None]], event_id: str | None) -> Decoded | Rejected:
    if not found:
        return Decoded((_IGNORED,), (None,))
    first, own_id = found[0]
    if type(first) is Rejected and all(type(event) is Rejected for event, _ in found):
        return first
    if len(found) == 1:
        return _one(first, own_id, event_id)
    ids = [own for _, own in found] if not event_id else [f"{event_id}#{n}" for n in range(len(found))]
    return Decoded(tuple([event for event, _ in found]), tuple(ids))


def _id_of(headers: Mapping[str, bytes | None]) -> str | None:
    own = headers.get(EVENT_ID)
    if own:
        return own.decode("utf-8", "backslashreplace")
    cloud = headers.get("ce_id")
    if cloud:
        return (b"%b %b" % (headers.get("ce_source") or b"", cloud)).decode("utf-8", "backslashreplace")
    return None


def _type_of(headers: Mapping[str, bytes | None]) -> str:
    """The event's name of a CloudEvent in binary mode."""
    named = headers["ce_type"]
    if named is None:
        raise BadRecordError(Reason.MALFORMED, "header ce_type is null")
    try:
        return api_name(named.decode())
    except UnicodeDecodeError:
        raise BadRecordError(Reason.NOT_JSON, "header ce_type is not UTF-8") from None


def _peek(value: Span) -> Envelope | None:
    _check_depth(value)
    try:
        return read_envelope(value)
    except (msgspec.MsgspecError, UnicodeDecodeError):  # not an object: what needs it as data says so
        return None


def _json(value: Span, exact: ExactReader | None) -> tuple[Event, str | None]:
    """E1, E2, or E3 known by its body."""
    if exact is not None:
        bare = exact.bare_in(value)
        if bare is not None:
            return bare, None
    envelope = _read(read_envelope, value)
    if type(envelope.event) is str and data_of(envelope) is not None:
        return _stream_event(envelope, exact), None
    if type(envelope.specversion) is str and type(envelope.type) is str:
        return _of_envelope(envelope, exact)
    if type(envelope.type) is str and (is_response(envelope.type) or envelope.type == "error"):  # E6
        return _named(envelope.type, value, exact), None
    if type(envelope.object) is str:
        return _bare(envelope.object, value, exact), None
    if type(envelope.type) is str:
        found = read_numbered(value)
        if found is not None:
            return found, None
    raise BadRecordError(Reason.MALFORMED, "a JSON object of no known form")


def _stream_event(envelope: Envelope, exact: ExactReader | None) -> Event:
    assert type(envelope.event) is str
    return _named(envelope.event, data_of(envelope), exact)


def _cloud_event(value: Span, exact: ExactReader | None) -> tuple[Event, str | None]:
    return _of_envelope(_read(read_envelope, value), exact)


def _of_envelope(envelope: Envelope, exact: ExactReader | None) -> tuple[Event, str | None]:
    """The event in a CloudEvent that was read as `envelope`."""
    if type(envelope.type) is not str:
        raise BadRecordError(Reason.MALFORMED, "a CloudEvent without a type")
    own = None
    if type(envelope.id) is str and envelope.id:
        own = f"{envelope.source if type(envelope.source) is str else ''} {envelope.id}"
    data = data_of(envelope)
    if data is None:
        data = _from_base64(envelope.data_base64) if type(envelope.data_base64) is str else b"null"
    named = api_name(envelope.type)
    if exact is not None and (found := _exact_named(named, data, exact)) is not None:
        return found, own  # no data of an exact shape names an event of its own
    inner = _peek(data)
    if inner is not None and type(inner.event) is str and data_of(inner) is not None:
        return _stream_event(inner, exact), own
    return _named(named, data, exact), own


def _from_base64(text: str) -> bytes:
    try:
        data = b64decode(text, validate=True)
    except (Base64Error, ValueError):
        raise BadRecordError(Reason.MALFORMED, "data_base64 is not base64") from None
    check_utf8(data)
    return data


def _binary_event(headers: Mapping[str, bytes | None], value: bytes, exact: ExactReader | None) -> Event:
    """The event of a CloudEvent in binary mode. Its value may name an event of its own; no exact shape does."""
    told = headers["ce_type"]
    if exact is not None and told is not None and told.isascii():
        found = _exact_named(_type_of(headers), value, exact)
        if found is not None:
            return found
    envelope = _peek(value)
    if envelope is not None and type(envelope.event) is str and data_of(envelope) is not None:
        return _stream_event(envelope, exact)
    return _named(_type_of(headers), value, exact)


def _frame(frame: Frame, exact: ExactReader | None) -> Event:
    data, name = frame.data, frame.name
    if data[0] != _BRACE and data.strip() == b"[DONE]":
        return _IGNORED
    check_utf8(data)
    if name is None:
        return _json(data, exact)[0]
    if exact is not None and name.startswith(_STEP_BYTES):
        tail = name[len(_STEP_BYTES) :]
        found: ExactEvent | None = None
        if tail == _DELTA_BYTES:
            found = exact.delta_in(data)
        else:
            named = _NAMES_AS_BYTES.get(tail)
            if named is not None:
                found = exact.object_in(data, named)
        if found is not None:
            return found
        exact = None
    try:
        whole_name = name.decode()
    except UnicodeDecodeError:
        raise BadRecordError(Reason.NOT_JSON, "the event's name in the SSE text is not UTF-8") from None
    if is_response(whole_name):
        _check_depth(data)
    return _named(whole_name, data, exact)


def _named(name: str, data: Span, exact: ExactReader | None) -> Event:
    """The event of this name with this data. Only what concerns steps is read."""
    if name.startswith(STEP_EVENT):
        tail = name[len(STEP_EVENT) :]
        if exact is not None and (found := _exact_named(name, data, exact)) is not None:
            return found
        if tail == "delta":
            return _delta(_object(data))
        named = STEP_NAMES.get(tail)
        return _UNKNOWN if named is None else step_of(_object(data), named)
    if name.startswith(RUN_EVENT):
        tail = name[len(RUN_EVENT) :]
        return _run(data, tail) if tail in RUN_NAMES else _UNKNOWN
    if name.startswith("thread.") or name == "done":
        return _IGNORED
    if name in _ERRORS:
        return _stream_error(name, data)
    if is_response(name):
        return _response_event(name, data)
    return _UNKNOWN


def _exact_named(name: str, data: Span, exact: ExactReader) -> ExactEvent | None:
    """The event of this name if it concerns a step and its data has an exact shape."""
    if not name.startswith(STEP_EVENT):
        return None
    tail = name[len(STEP_EVENT) :]
    if tail == "delta":
        return exact.delta_in(data)
    named = STEP_NAMES.get(tail)
    return None if named is None else exact.object_in(data, named)


def _response_event(name: str, data: Span) -> Event:
    found = read_response_event(name, data)
    if isinstance(found, ResponseEvent) and found.value is not None:
        text = bytes(data)
        if text.count(b"{") + text.count(b"[") > MAX_DEPTH and _deeper_than(found.value, MAX_DEPTH):
            raise BadRecordError(Reason.TOO_DEEP, f"nested more than {MAX_DEPTH} levels")
    return found


def _stream_error(name: str, data: Span) -> Event:
    """What an `error` event says: in `error` where it is wrapped, else in the data itself. It need not be JSON.

    One that is numbered, or names its type, is of a Responses stream.
    """
    is_responses = name != "error"
    _check_depth(data)
    try:
        told = read_any(data)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return ResponseEvent(ERROR, None) if is_responses else StreamError(None)
    if type(told) is not dict:
        said = {"message": told} if type(told) is str else None
        return ResponseEvent(ERROR, None, value=said) if is_responses else StreamError(said)
    error = _object(data).get("error")
    if type(error) is not dict:
        own = {key: value for key, value in told.items() if key not in ("type", "sequence_number")}
        error = {"message": error} if type(error) is str else own
    number = sequence_number(told.get("sequence_number"))
    if is_responses or told.get("type") == "error" or type(told.get("sequence_number")) is int or number is not None:
        return ResponseEvent(ERROR, number, value=error)
    return StreamError(error if "error" in told else told)


def run_named(key: bytes | None, headers: Headers, longest: int = MAX_ID) -> str | None:
    """The run of a record that says it nowhere else: by its header, or by its key. None if it is longer than that."""
    named = key
    for name, content in headers:
        if name.lower() == RUN_ID and content:
            named = content
    if not named:
        return None
    try:
        run_id = named.decode()
    except UnicodeDecodeError:
        return None
    return run_id if len(run_id) <= longest else None


def _bare(kind: str, value: Span, exact: ExactReader | None) -> Event:
    if kind in STEP_OBJECTS:
        found = None if exact is None else exact.object_in(value, None)
        return step_of(_object(value), None) if found is None else found
    if kind == DELTA_OBJECT:
        found = None if exact is None else exact.delta_in(value)
        return _delta(_object(value)) if found is None else found
    if kind == "thread.run":
        return _run(value, None)
    if kind.startswith("thread"):
        return _IGNORED
    raise BadRecordError(Reason.MALFORMED, "a JSON object of no known form")


def _object(value: Span) -> dict[str, Any]:
    _check_depth(value)
    data = read_any(value)
    if type(data) is not dict:
        raise BadRecordError(Reason.MALFORMED, "data is not an object")
    text = bytes(value)
    if text.count(b"{") + text.count(b"[") > MAX_DEPTH and _deeper_than(data, MAX_DEPTH):
        raise BadRecordError(Reason.TOO_DEEP, f"nested more than {MAX_DEPTH} levels")
    return data


def _deeper_than(value: Any, levels: int) -> bool:
    """Level by level, without recursion: what comes here may be nested up to the decoder's own limit."""
    layer = [value]
    for _ in range(levels):
        layer = [
            item
            for parent in layer
            for item in (parent.values() if type(parent) is dict else parent)
            if type(item) in (dict, list)
        ]
        if not layer:
            return False
    return True


def is_id(found: str) -> bool:
    """Whether a step may have this id. What begins with NUL is the name of a response among the entries."""
    return 0 < len(found) <= MAX_ID and found[0] != "\0"


def _id(data: Mapping[str, Any]) -> str:
    found = data.get("id")
    if type(found) is str and is_id(found):
        return found
    raise BadRecordError(
        Reason.MALFORMED, f"step id is not a string of 1 to {MAX_ID} characters that begins with no NUL"
    )


def _checked_details(details: Any) -> dict[str, Any]:
    if details is None:
        return {}
    if type(details) is not dict:
        raise BadRecordError(Reason.MALFORMED, "step_details is not an object")
    if type(details.get("type")) not in (str, type(None)):
        raise BadRecordError(Reason.MALFORMED, "step_details.type is not a string")
    calls = details.get("tool_calls")
    if calls is not None and not (type(calls) is list and all(type(call) is dict for call in calls)):
        raise BadRecordError(Reason.MALFORMED, "tool_calls is not a list of objects")
    return details


def _delta(data: dict[str, Any]) -> StepDelta:
    step_id = _id(data)
    delta = data.get("delta")
    if type(delta) is not dict:
        raise BadRecordError(Reason.MALFORMED, "delta is not an object")
    details = _checked_details(delta.get("step_details"))
    if details.get("type") in _CALLS_BY_OTHER_TYPES and details.get("tool_calls") is not None:
        details["type"] = "tool_calls"
    return StepDelta(step_id, details)


def step_of(data: dict[str, Any], named: Kind | None) -> StepObject:
    step_id = _id(data)
    _checked_details(data.get("step_details"))
    status = data.get("status")
    for name, found in (("status", status), ("run_id", data.get("run_id")), ("type", data.get("type"))):
        if found is not None and type(found) is not str:
            raise BadRecordError(Reason.MALFORMED, f"{name} is not a string")
    kind = named or _STATED
    if status == "in_progress":
        kind = kind if kind is _CREATED or kind is _STATED else _IN_PROGRESS
        return StepObject(kind, step_id, data, named is not None and kind is not named)
    stated = None if status is None else _ENDS.get(status)
    return StepObject(
        stated or kind,
        step_id,
        data,
        named is not None and (stated or kind) is not named,
        status is not None and not stated,
    )


def _run(value: Span, named: str | None) -> RunEnd | Ignored:
    return run_of(_read(read_run_head, value), named)


def run_of(head: RunHead, named: str | None) -> RunEnd | Ignored:
    status = head.status
    if type(status) not in (str, type(None)):
        raise BadRecordError(Reason.MALFORMED, "status is not a string")
    ended = status if status in RUN_ENDS else named if status is None and named in RUN_ENDS else None
    if ended is None:
        return _IGNORED
    if not (type(head.id) is str and 0 < len(head.id) <= MAX_ID):
        raise BadRecordError(Reason.MALFORMED, f"run id is not a string of 1 to {MAX_ID} characters")
    ended_at = getattr(head, f"{ended}_at")
    return RunEnd(
        head.id,
        ended,
        ended_at if type(ended_at) is int else None,
        head.last_error,
        named is not None and named != ended,
    )
