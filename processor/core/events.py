"""Decoding: the value and the headers of a record become events. Only this module knows the envelopes.

Envelopes are chosen per record (E1-E6 of docs/semantics.md); what is in one is read by `core.named_events`. Bad data
comes back as `Rejected`, never as an exception.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import UNSET, structs

from processor.core.base64_text import from_base64
from processor.core.effects import Headers, Reason, Rejected
from processor.core.event_headers import EVENT_ID, RUN_ID, is_enveloped
from processor.core.event_names import api_name
from processor.core.exact_events import ExactEvent
from processor.core.named_events import (
    IGNORED,
    MAX_ID,
    STEP_EVENT,
    STEP_NAMES,
    BadRecordError,
    bare_event,
    check_depth,
    check_utf8,
    event_named,
    exact_named,
    read_checked,
)
from processor.core.reader import ExactReader
from processor.core.responses.decode import is_response, read_numbered
from processor.core.responses.event import ResponseEvent
from processor.core.schema_frames import SchemaFrame, frame_of
from processor.core.split_characters import with_split_characters
from processor.core.sse import Frame, frames_of, is_sse
from processor.core.surrogates import may_hold_halves, without_halves
from processor.core.wire_types import (
    Decoded,
    Envelope,
    Event,
    Ignored,
    Span,
    StepDelta,
    StepObject,
    read_envelope,
    read_envelopes,
)

MESSAGE_PREFIXES: Final = (b'{"event":"thread.message.', b'{"event": "thread.message.')
"""What no step needs is known by its first bytes: pieces of messages are the commonest events of a chat."""

_TOMBSTONE: Final = Decoded((Ignored("tombstone"),), (None,))
_ONE_IGNORED: Final = Decoded((IGNORED,), (None,))
_TEXT: Final = 9  # no text begins with a byte below the tab
_BOM: Final = b"\xef\xbb\xbf"
_BRACE: Final = 0x7B
_NO_HEADERS: Final[dict[str, bytes | None]] = {}
_STEP_BYTES: Final = STEP_EVENT.encode()
_DELTA_BYTES: Final = b"delta"
_astuple: Final = structs.astuple
_FIELDS: Final = Envelope.__struct_fields__
_EVENT: Final = _FIELDS.index("event")
_DATA: Final = _FIELDS.index("data")
_OBJECT: Final = _FIELDS.index("object")
_SPECVERSION: Final = _FIELDS.index("specversion")
_TYPE: Final = _FIELDS.index("type")
_DATA_BASE64: Final = _FIELDS.index("data_base64")
_ID: Final = _FIELDS.index("id")
_SOURCE: Final = _FIELDS.index("source")
_NAMES_AS_BYTES: Final = {name.encode(): kind for name, kind in STEP_NAMES.items()}


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
    """Mark the events that only the mended text gave: they could not be read before."""
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
    """Decode the value behind a schema registry's frame, which the detail of a rejection names."""
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
                return _in_order(
                    [_each_cloud_event(one, exact) for one in read_checked(read_envelopes, value)], event_id
                )
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
    return _one(*_json(value, exact), event_id)


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
        return Decoded((IGNORED,), (None,))
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


def _read(value: Span) -> tuple[Any, ...]:
    """The fields of an `Envelope`. Compiled, a tuple is read at a fraction of what a structure costs."""
    return _astuple(read_checked(read_envelope, value))


def _peek(value: Span) -> tuple[Any, ...] | None:
    check_depth(value)
    try:
        return _astuple(read_envelope(value))
    except (msgspec.MsgspecError, UnicodeDecodeError):  # not an object: what needs it as data says so
        return None


def _json(value: Span, exact: ExactReader | None) -> tuple[Event, str | None]:
    """E1, E2, or E3 known by its body."""
    if exact is not None:
        bare = exact.bare_in(value)
        if bare is not None:  # which is UTF-8
            return bare, None
    check_utf8(value)
    told = _read(value)
    kind: object = told[_TYPE]
    if type(told[_EVENT]) is str and told[_DATA] is not UNSET:
        return event_named(told[_EVENT], told[_DATA], exact), None
    if type(told[_SPECVERSION]) is str and type(kind) is str:
        return _of_envelope(told, exact)
    if type(kind) is str and (is_response(kind) or kind == "error"):  # E6
        return event_named(kind, value, exact), None
    if type(told[_OBJECT]) is str:
        return bare_event(told[_OBJECT], value, exact), None
    if type(kind) is str:
        found = read_numbered(value)
        if found is not None:
            return found, None
    raise BadRecordError(Reason.MALFORMED, "a JSON object of no known form")


def _cloud_event(value: Span, exact: ExactReader | None) -> tuple[Event, str | None]:
    return _of_envelope(_read(value), exact)


def _of_envelope(told: tuple[Any, ...], exact: ExactReader | None) -> tuple[Event, str | None]:
    """The event in a CloudEvent, of which these are the fields of its `Envelope`."""
    kind: object = told[_TYPE]
    if type(kind) is not str:
        raise BadRecordError(Reason.MALFORMED, "a CloudEvent without a type")
    own = None
    event_id: object = told[_ID]
    if type(event_id) is str and event_id:
        source: object = told[_SOURCE]
        own = f"{source} {event_id}" if type(source) is str else f" {event_id}"
    data: Span = told[_DATA]
    if data is UNSET:
        encoded: object = told[_DATA_BASE64]
        data = _from_base64(encoded) if type(encoded) is str else b"null"
    named = api_name(kind)
    if exact is not None and (found := exact_named(named, data, exact)) is not None:
        return found, own  # no data of an exact shape names an event of its own
    inner = _peek(data)
    if inner is not None and type(inner[_EVENT]) is str and inner[_DATA] is not UNSET:
        return event_named(inner[_EVENT], inner[_DATA], exact), own
    return event_named(named, data, exact), own


def _from_base64(text: str) -> bytes:
    try:
        data = from_base64(text)
    except ValueError:
        raise BadRecordError(Reason.MALFORMED, "data_base64 is not base64") from None
    check_utf8(data)
    return data


def _binary_event(headers: Mapping[str, bytes | None], value: bytes, exact: ExactReader | None) -> Event:
    """The event of a CloudEvent in binary mode. Its value may name an event of its own; no exact shape does."""
    told = headers["ce_type"]
    if exact is not None and told is not None and told.isascii():
        found = exact_named(_type_of(headers), value, exact)
        if found is not None:
            return found
    inner = _peek(value)
    if inner is not None and type(inner[_EVENT]) is str and inner[_DATA] is not UNSET:
        return event_named(inner[_EVENT], inner[_DATA], exact)
    return event_named(_type_of(headers), value, exact)


def _frame(frame: Frame, exact: ExactReader | None) -> Event:
    data, name = frame.data, frame.name
    if data[0] != _BRACE and data.strip() == b"[DONE]":
        return IGNORED
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
        if found is not None:  # which is UTF-8
            return found
        exact = None
    check_utf8(data)
    try:
        whole_name = name.decode()
    except UnicodeDecodeError:
        raise BadRecordError(Reason.NOT_JSON, "the event's name in the SSE text is not UTF-8") from None
    if is_response(whole_name):
        check_depth(data)
    return event_named(whole_name, data, exact)


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
