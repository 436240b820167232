"""Text places: which text of which tool call a delta appends to.

What deltas may append to is decided by the merge table (M2): it is what the tree of a step holds as `Text`.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import UNSET

from processor.core.growing_text import Text
from processor.core.merge import SHORT, Indexed, Tree
from processor.core.wire_types import DeltaOutput, ExactCall, ExactData

_BODIES: Final = 5
"""The first of the fields of an `ExactCall` that hold a text or lead to it."""
_OUTPUTS: Final = "outputs"
_astuple: Final = msgspec.structs.astuple
_UNSET: Final = UNSET


class TextPlace:
    """Place of a text in the details of a step.

    Args:
        index: of the tool call.
        kind: the call's type; None where a delta does not say it.
        body: the object of the call that holds the text; "" where the call itself does.
        output: the index among the body's outputs, and `output_kind` its type; -1 where it is in no output.
        field: the name of the text.
    """

    __slots__ = ("body", "field", "index", "key", "kind", "output", "output_kind")

    def __init__(self, index: int, kind: str | None, body: str, output: int, output_kind: str | None, field: str):
        self.index, self.kind, self.body = index, kind, body
        self.output, self.output_kind, self.field = output, output_kind, field
        self.key: Any = (
            index,
            kind,
            body,
            output,
            output_kind,
            field,
        )
        """To compare places by. `Any` keeps it one object: compiled, a tuple would be made anew each time."""

    def text_in(self, tree: Tree) -> Text | None:
        """The text here, if a delta that says what the place says adds to it and changes nothing else."""
        calls = tree.get("tool_calls")
        if type(calls) is not Indexed or tree.get("type") != "tool_calls":
            return None
        holder: Any = calls.entries.get(self.index)
        if holder is None or not _is_of(holder, self.kind):
            return None
        if self.body:
            holder = holder.get(self.body)
            if type(holder) is not dict:
                return None
        if self.output >= 0:
            outputs = holder.get(_OUTPUTS)
            holder = outputs.entries.get(self.output) if type(outputs) is Indexed else None
            if holder is None or not _is_of(holder, self.output_kind):
                return None
        text = holder.get(self.field)
        return text if type(text) is Text else None

    def put(self, details: Tree, text: str) -> None:
        """Put a text here in a delta's details as plain JSON, which have another one here."""
        holder = details["tool_calls"][0]
        if self.body:
            holder = holder[self.body]
        if self.output >= 0:
            holder = holder[_OUTPUTS][0]
        holder[self.field] = text


_FIRST_ARGUMENTS: Final = tuple(TextPlace(index, "function", "function", -1, None, "arguments") for index in range(8))


def arguments_at(index: int, kind: str) -> TextPlace:
    """The place of a function's arguments; those of the first calls are one object each, for all steps."""
    if kind == "function" and index < len(_FIRST_ARGUMENTS):
        return _FIRST_ARGUMENTS[index]
    return TextPlace(index, kind, "function", -1, None, "arguments")


class Piece:
    """A text that a delta adds at a place."""

    __slots__ = ("place", "text")

    def __init__(self, place: TextPlace, text: str) -> None:
        self.place, self.text = place, text


def piece_of(data: ExactData) -> Piece | None:
    """The text that a delta adds, if that is all that it says."""
    calls = data.delta.step_details.tool_calls
    if len(calls) != 1:
        return None
    call = calls[0]
    if call.id is not _UNSET or call.name is not _UNSET or call.server_label is not _UNSET:
        return None
    name = body_of(call)
    if not name:
        return None
    held: Any = getattr(call, name)
    kind = None if call.type is _UNSET else call.type
    if type(held) is str:
        return Piece(TextPlace(call.index, kind, "", -1, None, name), held)
    field = _only(held, 0)
    if not field:
        return None
    value: Any = getattr(held, field)
    if type(value) is not list:
        return Piece(TextPlace(call.index, kind, name, -1, None, field), value) if type(value) is str else None
    output: DeltaOutput | None = value[0] if len(value) == 1 else None
    if output is None:
        return None
    output_kind = None if output.type is _UNSET else output.type
    place = TextPlace(call.index, kind, name, output.index, output_kind, "logs")
    return Piece(place, output.logs) if type(output.logs) is str else None


def body_of(call: ExactCall) -> str:
    """The one field of a delta's call that holds a text or leads to it; "" if it has none, or several."""
    return _only(call, _BODIES)


def _only(told: msgspec.Struct, begin: int) -> str:
    """Which one field from `begin` on is set; "" if none is, or several are."""
    found = ""
    for number, value in enumerate(_astuple(told)):
        if number >= begin and value is not _UNSET:
            if found:
                return ""
            found = told.__struct_fields__[number]
    return found


def _is_of(holder: Tree, kind: str | None) -> bool:
    """Whether an entry is of the type that a delta says, or the delta says none. A long one counts as growth (X1)."""
    return kind is None or (holder.get("type") == kind and len(kind) <= SHORT)
