"""Reads the data of deltas and step objects of the exact shapes, in whatever envelope it came.

The text of most deltas is found by a template: the bytes of the data around the step's id and the text, learned from a
delta that was read in full (`delta_template`). What does not match is parsed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from processor.core.exact_events import ExactEvent
from processor.core.growing_text import inside, length_of
from processor.core.learned_bytes import LearnedBytes
from processor.core.lifecycle import Kind
from processor.core.named_events import MAX_ID, STEP_OBJECTS, is_id
from processor.core.reader import ExactReader
from processor.core.run_steps.compact_step import opens_exactly
from processor.core.run_steps.delta_template import DeltaTemplate, is_plain, learn_template
from processor.core.run_steps.run_template import RunTemplates
from processor.core.run_steps.text_place import piece_of
from processor.core.run_steps.usual_events import ENDS, OBJECT, ExactObject, exact_object, tool_step
from processor.core.wire_types import (
    ExactData,
    Ignored,
    RunEnd,
    StepDelta,
    StepObject,
    exact_data,
    read_any,
    read_text,
)

if TYPE_CHECKING:
    from mypy_extensions import i64  # for the compiler alone

_CREATED, _IN_PROGRESS, _STATED = Kind.CREATED, Kind.IN_PROGRESS, Kind.STATED
_ID: Final = b'{"id":'
_FUNCTION: Final = b'"function":'
_TOOLS: Final = b'"tool_calls":[{'
_read_text: Final = read_text
_MAX_TEMPLATES: Final = 128
"""How many are learned: one for each place of a text and each way to write JSON."""
_MAX_OPENINGS: Final = 256
_MOST_OPENING_BYTES: Final = 4096
"""Of one that is remembered: real ones have some 500, and a record may have a megabyte."""
_MOST_OPENINGS_BYTES: Final = 256 << 10
"""Of all of them; what is read of them takes about twice that beside it."""
_ATTEMPTS: Final = 64
"""How often learning one may fail before nothing more is learned."""


class TextDelta(ExactEvent):
    """A delta whose `data` matches a template: it adds `piece`, of `length` characters, at `place`."""

    __slots__ = ("data", "length", "names_itself", "piece", "place", "step_id")

    def __init__(self, step_id: str, template: DeltaTemplate, piece: bytes, length: int, data: bytes) -> None:
        self.step_id, self.place, self.names_itself = step_id, template.place, template.names_itself
        self.piece, self.length, self.data = piece, length, data


class ParsedDelta(ExactEvent):
    """A delta of the exact shape."""

    __slots__ = ("delta",)

    def __init__(self, delta: ExactData) -> None:
        self.delta = delta


class StatedObject(ExactEvent):
    """A step object that says what its name says; `exact` unless it has calls of other tools than functions."""

    __slots__ = ("data", "exact", "kind", "step_id")

    def __init__(self, kind: Kind, step_id: str, data: bytes, exact: ExactObject | None) -> None:
        self.kind, self.step_id, self.data, self.exact = kind, step_id, data, exact

    def general(self) -> StepObject:
        """Convert to the event that the slow path takes."""
        return StepObject(self.kind, self.step_id, read_any(self.data))


class DataReader(ExactReader):
    """Reads for one partition; it learns the templates of its producers."""

    __slots__ = ("_attempts", "_id_end", "_learned", "_opening_bytes", "_openings", "_templates", "known", "runs")

    def __init__(self, learned: LearnedBytes | None = None) -> None:
        self._learned = LearnedBytes() if learned is None else learned
        self.runs = RunTemplates(self._learned)
        self._templates: dict[bytes, list[DeltaTemplate]] = {}
        """By `head`."""
        self.known = 0
        self._attempts = _ATTEMPTS
        self._id_end: i64 = 0
        """Where the id of the last delta ended."""
        self._openings: dict[bytes, ExactObject] = {}
        """Objects in progress that were read lately, by their text: most are said again."""
        self._opening_bytes = 0

    def delta_in(self, data: Any) -> ExactEvent | None:
        text: bytes = data if type(data) is bytes else bytes(data)
        found = self.text_delta(text)
        if found is not None:
            return found
        try:
            delta = exact_data(text)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return None
        if not is_id(delta.id):
            return None
        self._learn(text, delta)
        return ParsedDelta(delta)

    def text_delta(self, data: bytes) -> TextDelta | None:
        """The delta in a text that matches a template."""
        for head, templates in self._templates.items():
            if not data.startswith(head):
                continue
            begin: i64 = len(head)
            end = self._id_end
            # As many characters as bytes: ASCII that stands for itself, without a quote or an escape.
            if not (begin < end < len(data) and data[end] == 0x22 and length_of(data, begin, end) == end - begin):
                end = data.find(b'"', begin)  # only here: a look costs less than to search
                if end <= begin or length_of(data, begin, end) != end - begin:
                    return None
            if end - begin > MAX_ID:
                return None
            self._id_end = end
            rest = data[end:]
            for template in templates:
                if rest.startswith(template.middle) and rest.endswith(template.tail):
                    at: i64 = len(template.middle)
                    behind: i64 = len(rest) - len(template.tail)
                    if at > behind:
                        return None
                    length = length_of(rest, at, behind)
                    if length >= 0:
                        piece = rest[at:behind]
                    else:
                        try:
                            text = _read_text(rest[at - 1 : behind + 1])
                        except (msgspec.MsgspecError, UnicodeDecodeError):
                            return None
                        piece, length = inside(text), len(text)
                    return TextDelta(data[begin:end].decode("ascii"), template, piece, length, data)
            return None
        return None

    def object_in(self, data: Any, named: Kind | None) -> ExactEvent | None:
        text: bytes = data if type(data) is bytes else bytes(data)
        if named is None or named is _CREATED or named is _IN_PROGRESS:
            known = self._openings.get(text)
            if known is not None:
                return StatedObject(_STATED if named is None else named, known.step_id, text, known)
        elif text.find(_TOOLS) >= 0 and text.find(_FUNCTION) < 0:
            stated = tool_step(text, named)
            if stated is None or not is_id(stated.id):
                return None
            return StatedObject(named, stated.id, text, None)
        found = exact_object(text, named)
        if found is None:
            return None
        is_opening = found.kind not in ENDS and opens_exactly(found) and found.told[OBJECT] in STEP_OBJECTS
        if is_opening and len(text) <= _MOST_OPENING_BYTES:
            if len(self._openings) >= _MAX_OPENINGS or self._opening_bytes + len(text) > _MOST_OPENINGS_BYTES:
                self._openings.clear()
                self._opening_bytes = 0
            self._openings[text] = found
            self._opening_bytes += len(text)
        return StatedObject(found.kind, found.step_id, text, found)

    def run_in(self, name: str, data: Any) -> RunEnd | Ignored | None:
        return self.runs.read(name, data if type(data) is bytes else bytes(data))

    def learn_run(self, name: str, data: Any, found: RunEnd | Ignored) -> None:
        self.runs.learn(name, bytes(data), found)

    def bare_in(self, data: Any) -> ExactEvent | None:
        text: bytes = data if type(data) is bytes else bytes(data)
        if not text.startswith(_ID):
            return None
        found = self.text_delta(text)
        if found is not None:
            return found if found.names_itself else None
        known = self._openings.get(text)
        return None if known is None else StatedObject(_STATED, known.step_id, text, known)

    def _learn(self, data: bytes, delta: ExactData) -> None:
        if self.known >= _MAX_TEMPLATES or self._attempts == 0 or not is_plain(delta.id):
            return
        piece = piece_of(delta)
        if piece is None:
            return
        for templates in self._templates.values():
            for known in templates:
                if known.fits(data):  # its id or text has something odd
                    return
        found = learn_template(data, delta, piece.place, exact_data)
        if found is None or not self._learned.take(found.size()):
            self._attempts -= 1
            return
        self._templates.setdefault(found.head, []).append(found)
        self.known += 1


def general_delta(event: TextDelta | ParsedDelta) -> StepDelta:
    """A delta in the general form."""
    delta = exact_data(event.data) if isinstance(event, TextDelta) else event.delta
    return StepDelta(delta.id, msgspec.to_builtins(delta.delta.step_details))
