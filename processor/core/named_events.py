"""Named events: the JSON of one event, whose name or kind of object is known, becomes the event. No envelopes here.

What a step, a delta, a run and an error must be like is checked here (`malformed`, `too_deep`). `core.events` finds
name and data in a record.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import msgspec

from processor.core.effects import Reason, Rejected
from processor.core.exact_events import ExactEvent
from processor.core.json_bytes import MAX_NESTING, nests_deeper
from processor.core.lifecycle import RUN_ENDS, TERMINAL, Kind
from processor.core.reader import ExactReader
from processor.core.responses.decode import is_response, read_response_event
from processor.core.responses.event import ERROR, ResponseEvent
from processor.core.responses.numbers import sequence_number
from processor.core.wire_types import (
    Event,
    Ignored,
    RunEnd,
    RunHead,
    Span,
    StepDelta,
    StepObject,
    StreamError,
    read_any,
    read_run_head,
    skip,
)

_T = TypeVar("_T")

MAX_DEPTH: Final = 100
"""Most levels of the data of a step event."""
MAX_ID: Final = 256
"""Most characters of the id of a step or a run."""

_CREATED, _STATED, _IN_PROGRESS, _DELTA = Kind.CREATED, Kind.STATED, Kind.IN_PROGRESS, Kind.DELTA
IGNORED: Final = Ignored("ignored")
_UNKNOWN: Final = Ignored("unknown_event")
_ERRORS: Final = frozenset({"error", "response.error"})
STEP_EVENT: Final = "thread.run.step."
RUN_EVENT: Final = "thread.run."
STEP_OBJECTS: Final = frozenset({"thread.run.step", "assistant.run.step"})
DELTA_OBJECT: Final = "thread.run.step.delta"
STEP_NAMES: Final[Mapping[str, Kind]] = {kind.value: kind for kind in Kind if kind not in (Kind.DELTA, Kind.STATED)}
STEP_EVENTS: Final[Mapping[str, Kind]] = {f"{STEP_EVENT}{kind.value}": kind for kind in Kind if kind is not Kind.STATED}
"""All events about steps, by their whole names."""
_ENDS: Final[Mapping[str, Kind]] = {status.value: Kind(status.value) for status in TERMINAL}
_CALLS_BY_OTHER_TYPES: Final = ("mcp", "openapi")
"""Types that the SDKs' models allow for the details of a delta that holds tool calls."""
RUN_NAMES: Final = frozenset(RUN_ENDS) | {"created", "queued", "in_progress", "requires_action", "cancelling"}


class BadRecordError(Exception):
    """Carries a `Rejected` up to `decode`, which catches it."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.rejected = Rejected(reason, detail[:200])


def check_utf8(value: bytes) -> None:
    """Refuse a value that is not UTF-8: the decoder does not look into strings that it skips.

    Raises:
        UnicodeDecodeError: it is not UTF-8.
    """
    if not value.isascii():
        value.decode()


def check_depth(value: Span) -> None:
    """Refuse a value nested too deep to be decoded. The data of an envelope was checked with the whole of it."""
    if type(value) is bytes and nests_deeper(value, MAX_NESTING):
        raise BadRecordError(Reason.TOO_DEEP, f"nested more than {MAX_NESTING} levels")


def read_checked(decoder: Callable[[Span], _T], value: Span) -> _T:
    """Decode a value. Where it has a wrong type and is not JSON either, the error says that it is not JSON."""
    check_depth(value)
    try:
        return decoder(value)
    except msgspec.ValidationError:
        skip(value)  # the decoder above stopped at the first wrong type
        raise


def event_named(name: str, data: Span, exact: ExactReader | None) -> Event:
    """Read the event of this name from its data. Only what concerns steps is read.

    Raises:
        BadRecordError, msgspec.MsgspecError, UnicodeDecodeError: the data is not what the name asks for.
    """
    if name.startswith(STEP_EVENT):
        tail = name[len(STEP_EVENT) :]
        if exact is not None and (found := exact_named(name, data, exact)) is not None:
            return found
        if tail == "delta":
            return _delta(_object(data))
        named = STEP_NAMES.get(tail)
        return _UNKNOWN if named is None else step_of(_object(data), named)
    if name.startswith(RUN_EVENT):
        tail = name[len(RUN_EVENT) :]
        return _run(data, tail, exact) if tail in RUN_NAMES else _UNKNOWN
    if name.startswith("thread.") or name == "done":
        return IGNORED
    if name in _ERRORS:
        return _stream_error(name, data)
    if is_response(name):
        return _response_event(name, data)
    return _UNKNOWN


def exact_named(name: str, data: Span, exact: ExactReader) -> ExactEvent | None:
    """Read the event of this name if it concerns a step and its data has an exact shape; else None."""
    named = STEP_EVENTS.get(name)
    if named is None:
        return None
    return exact.delta_in(data) if named is _DELTA else exact.object_in(data, named)


def _response_event(name: str, data: Span) -> Event:
    found = read_response_event(name, data)
    if isinstance(found, ResponseEvent) and found.value is not None:
        text = bytes(data)
        if text.count(b"{") + text.count(b"[") > MAX_DEPTH and _deeper_than(found.value, MAX_DEPTH):
            raise BadRecordError(Reason.TOO_DEEP, f"nested more than {MAX_DEPTH} levels")
    return found


def _stream_error(name: str, data: Span) -> Event:
    """Decode an `error` event: its `error` where it is wrapped, else the data itself, which need not be JSON.

    One that is numbered, or names its type, is of a Responses stream.
    """
    is_responses = name != "error"
    check_depth(data)
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


def bare_event(kind: str, value: Span, exact: ExactReader | None) -> Event:
    """Read a bare object of this kind (E2), its field `object`. Raises what `event_named` raises."""
    if kind in STEP_OBJECTS:
        found = None if exact is None else exact.object_in(value, None)
        return step_of(_object(value), None) if found is None else found
    if kind == DELTA_OBJECT:
        found = None if exact is None else exact.delta_in(value)
        return _delta(_object(value)) if found is None else found
    if kind == "thread.run":
        return _run(value, None, exact)
    if kind.startswith("thread"):
        return IGNORED
    raise BadRecordError(Reason.MALFORMED, "a JSON object of no known form")


def _object(value: Span) -> dict[str, Any]:
    check_depth(value)
    data = read_any(value)
    if type(data) is not dict:
        raise BadRecordError(Reason.MALFORMED, "data is not an object")
    text = bytes(value)
    if text.count(b"{") + text.count(b"[") > MAX_DEPTH and _deeper_than(data, MAX_DEPTH):
        raise BadRecordError(Reason.TOO_DEEP, f"nested more than {MAX_DEPTH} levels")
    return data


def _deeper_than(value: Any, levels: int) -> bool:
    """Whether a value nests deeper: level by level, as recursion would end at the interpreter's own limit."""
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
    """The step object in `data`; `named`: what the event's name says, None of a bare object.

    Raises:
        BadRecordError: an id, a status, a type or details of a wrong type.
    """
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


def _run(value: Span, named: str | None, exact: ExactReader | None) -> RunEnd | Ignored:
    found = None if exact is None else exact.run_in(named or "", value)
    if found is None:
        found = run_of(read_checked(read_run_head, value), named)
        if exact is not None:
            exact.learn_run(named or "", value, found)
    return found


def run_of(head: RunHead, named: str | None) -> RunEnd | Ignored:
    """The end of the run in `head`, if it has ended; `named`: what follows `thread.run.` in the event's name, if any.

    Raises:
        BadRecordError: a status or an id of a wrong type.
    """
    status = head.status
    if type(status) not in (str, type(None)):
        raise BadRecordError(Reason.MALFORMED, "status is not a string")
    ended = status if status in RUN_ENDS else named if status is None and named in RUN_ENDS else None
    if ended is None:
        return IGNORED
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
