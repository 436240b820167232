"""Responses events read: the name and the JSON of one event become a `ResponseEvent`, or the reason why not."""

from __future__ import annotations

from typing import Any, Final

from msgspec import UNSET

from processor.core.effects import Reason, Rejected
from processor.core.merge import valid_index
from processor.core.responses.event import (
    ADDED,
    ANNOTATION,
    DONE,
    END,
    FOREIGN,
    LIFE,
    NOT_SAID,
    PART,
    PART_DONE,
    PIECES,
    SKIP,
    UNKNOWN,
    WHOLES,
    ResponseEvent,
)
from processor.core.responses.numbers import integer_of, sequence_number
from processor.core.responses.wire import (
    ENDS,
    LIFECYCLE,
    OUTPUT_CONTENT,
    PARTS,
    PLACES,
    PREFIX,
    SKIPPED,
    STDERR,
    STDOUT,
    Place,
    WireEvent,
    read_event,
)
from processor.core.wire_types import Span

MAX_RESPONSE_ID: Final = 1024
"""Characters of a response's id: gateways write more into theirs than services do."""

_BEGINNINGS: Final = frozenset({"created", "queued"})
_NAME: Final = len(PREFIX)


class _BadEventError(Exception):
    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.rejected = Rejected(reason, detail)


def is_response(name: str) -> bool:
    """Whether an event of this name is one of a Responses stream."""
    return name.startswith(PREFIX)


def read_response_event(name: str, data: Span) -> ResponseEvent | Rejected:
    """The event of this name.

    Raises:
        msgspec.MsgspecError, UnicodeDecodeError, RecursionError: the data is no JSON object.
    """
    wire = read_event(data)
    try:
        return _event(name, wire)
    except _BadEventError as error:
        return error.rejected


def read_numbered(data: Span) -> ResponseEvent | None:
    """An event that is not of Responses and has a place among them (`keepalive`): its number is not missing."""
    number = sequence_number(read_event(data).sequence_number)
    return None if number is None else ResponseEvent(FOREIGN, number)


def _event(name: str, wire: WireEvent) -> ResponseEvent:
    """The event of a name, from its decoded structure."""
    number = None
    if wire.sequence_number is not None:
        number = sequence_number(wire.sequence_number)
        if number is None:
            raise _BadEventError(Reason.MALFORMED, "sequence_number is not an integer from 0")
    own = name[_NAME:]
    if own in LIFECYCLE:
        return ResponseEvent(LIFE, number, own in _BEGINNINGS, value=_response(wire.response))
    if own == "done" and type(wire.response) is dict and wire.response.get("status") in ENDS:
        own = wire.response["status"]  # a gateway's name for whatever ends the response
    if own in ENDS:
        return ResponseEvent(END, number, value=_response(wire.response), status=own)
    if own in SKIPPED:
        return ResponseEvent(SKIP, number)
    stem, _, last = own.rpartition(".")
    if stem == "output_item" and last in (ADDED, DONE):
        return _item_event(last, number, wire)
    if stem in PARTS and last in (ADDED, DONE):
        holder, field = PARTS[stem]
        index, item_id = _index_of_item(wire), _name_of_item(wire)
        if _is_nothing(wire.part):
            return ResponseEvent(PIECES if last == ADDED else WHOLES, number, index=index, item_id=item_id)
        return ResponseEvent(
            PART if last == ADDED else PART_DONE,
            number,
            index=index,
            item_id=item_id,
            at=_index(getattr(wire, field), field),
            holder=holder,
            value=_object(wire.part, "part"),
        )
    if own == "output_text.annotation.added":
        annotation_index = wire.annotation_index
        return ResponseEvent(
            ANNOTATION,
            number,
            index=_index_of_item(wire),
            item_id=_name_of_item(wire),
            at=_index(wire.content_index, "content"),
            value=(
                NOT_SAID if annotation_index is None else _index(annotation_index, "annotation"),
                _object(wire.annotation, "annotation"),
            ),
        )
    found = _text_event(stem, last, number, wire)
    return found if found is not None else ResponseEvent(UNKNOWN, number)


def _item_event(last: str, number: int | None, wire: WireEvent) -> ResponseEvent:
    if _is_nothing(wire.item) or (last == DONE and wire.item == {}):
        if last == ADDED:  # some services announce an item that never comes
            return ResponseEvent(SKIP, number)
        return ResponseEvent(DONE, number, index=_index_of_item(wire), item_id=_name_of_item(wire))
    item = _object(wire.item, "item")
    return ResponseEvent(last, number, index=_index_of_item(wire), item_id=name_of(item.get("id")), value=item)


def _text_event(stem: str, last: str, number: int | None, wire: WireEvent) -> ResponseEvent | None:
    place = PLACES.get(stem)
    if stem == OUTPUT_CONTENT and last in ("delta", DONE):
        output, item_id = _index_of_item(wire), _name_of_item(wire)
        texts = _shell_output(wire, last)
        return ResponseEvent(PIECES if last == "delta" else WHOLES, number, index=output, item_id=item_id, texts=texts)
    if place is None or last not in ("delta", DONE, ADDED):
        return None
    output, item_id = _index_of_item(wire), _name_of_item(wire)
    at = _index(getattr(wire, place.index), place.index) if place.index else 0
    if last == "delta":
        text = wire.delta
    else:
        text = getattr(wire, "command" if stem == "shell_call_command" else place.field)
    says_nothing = text is None or (text is UNSET and last == DONE) or (text == "" and last == ADDED)
    if says_nothing or (place.is_guessed and type(text) is not str):
        return ResponseEvent(WHOLES if last == DONE else PIECES, number, index=output, item_id=item_id)
    if type(text) is not str:
        raise _BadEventError(Reason.MALFORMED, f"{stem}.{last}: its text is not a string")
    return ResponseEvent(
        WHOLES if last == DONE else PIECES, number, index=output, item_id=item_id, texts=((place, at, text),)
    )


def _shell_output(wire: WireEvent, last: str) -> tuple[tuple[Place, int, str], ...]:
    at = _index(wire.command_index, "command")
    if last == "delta":
        held = _object(wire.delta, "delta")
    else:
        output = wire.output
        if output is None or output is UNSET:  # it says nothing of the texts
            return ()
        if type(output) is not list or not all(type(one) is dict for one in output):
            raise _BadEventError(Reason.MALFORMED, "output is not a list of objects")
        held = output[at] if at < len(output) else output[0] if len(output) == 1 else {}
    found: list[tuple[Place, int, str]] = []
    for place in (STDOUT, STDERR):
        text = held.get(place.field)
        if type(text) is str and (text or last == "delta"):
            found.append((place, at, text))
    return tuple(found)


def _index(value: Any, what: str) -> int:
    """An index that an event says; 0 where it does not."""
    found = 0 if value is None else integer_of(value)
    if found is None or not valid_index(found):
        what = what.removesuffix("_index")
        raise _BadEventError(Reason.BAD_INDEX, f"{what}_index: not an integer from 0 to 1023")
    return found


def _index_of_item(wire: WireEvent) -> int:
    return NOT_SAID if wire.output_index is None else _index(wire.output_index, "output")


def _name_of_item(wire: WireEvent) -> str:
    return name_of(wire.item_id)


def name_of(value: Any) -> str:
    """An item's id; "" where it has none."""
    return value if type(value) is str else ""


def _is_nothing(value: Any) -> bool:
    return value is None or value is UNSET


def _object(value: Any, what: str) -> dict[str, Any]:
    if type(value) is not dict:
        raise _BadEventError(Reason.MALFORMED, f"{what} is not an object")
    return value


def _response(value: Any) -> dict[str, Any]:
    """The response in a lifecycle event; an empty one where the event says nothing of it."""
    response = {} if _is_nothing(value) else _object(value, "response")
    output = response.get("output")
    if output is not None and not (type(output) is list and all(type(item) is dict for item in output)):
        raise _BadEventError(Reason.MALFORMED, "output is not a list of objects")
    return response


def named_response(value: Any) -> str | None:
    """The id of a response object."""
    found = value.get("id") if type(value) is dict and value is not UNSET else None
    return found if type(found) is str and 0 < len(found) <= MAX_RESPONSE_ID else None
