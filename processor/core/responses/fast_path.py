"""The fast path of Responses: a piece of text for an open item, in order; it changes nothing before it accepts."""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import UNSET

from processor.core.effects import Headers, Record, Status
from processor.core.entry import Entry
from processor.core.events import EVENT_ID, RUN_ID
from processor.core.growing_text import inside
from processor.core.headers import TRACE
from processor.core.responses.response import Response, TextCursor
from processor.core.responses.text_template import DeltaShape, TextTemplate, learn_shape
from processor.core.responses.wire import DELTAS, read_delta
from processor.core.transitions import Transitions

_Header = tuple[str, bytes | None]
_OPEN: Final = Status.IN_PROGRESS
_SEQUENCE: Final = "runstep-sequence"
_SAYING_NOTHING: Final = frozenset({EVENT_ID, _SEQUENCE, *TRACE})
"""Headers that say nothing of a numbered event which its value does not."""
_MAX_SHAPES: Final = 16
"""How many shapes of deltas are learned: producers have few."""
_SHAPE_ATTEMPTS: Final = 64
"""How often learning one may fail before nothing more is learned."""
_MAX_DECODED: Final = 3
"""A template is made from the second delta of a text in a row, or the third: where ids rotate, it fits no other."""


class TextPath:
    """Appends the text of deltas to open items.

    Attributes:
        at_work: open responses by their id as bytes; it may lack some, or hold some that have ended.
        appended: how many pieces, to be read and cleared by its reader.
    """

    __slots__ = ("_attempts", "_max_step_bytes", "_shapes", "_transitions", "appended", "at_work")

    def __init__(self, max_step_bytes: int, transitions: Transitions) -> None:
        self._max_step_bytes, self._transitions = max_step_bytes, transitions
        self._shapes: list[DeltaShape] = []
        self._attempts = _SHAPE_ATTEMPTS
        self.at_work: dict[bytes, Entry] = {}
        self.appended = 0

    def append(self, record: Record, value: bytes, headers: Headers, offset: int, before_ms: int) -> bool:
        """Append the text of a delta to an open item. False, and nothing is changed, if it is another event."""
        named: bytes | None = None
        if isinstance(headers, list) and len(headers) == 3:  # as `publish` writes them
            event_id: _Header = headers[0]
            run_id: _Header = headers[1]
            sequence: _Header = headers[2]
            if event_id[0] == EVENT_ID and run_id[0] == RUN_ID and sequence[0] == _SEQUENCE:
                named = run_id[1]
        if not named:
            named = _response_named(record, headers)
        entry = self.at_work.get(named) if named else None
        response = None if entry is None else entry.step
        if entry is None or not isinstance(response, Response) or offset < entry.applied_below:
            return False
        cursor, number = response.cursor, response.numbers.next
        template = None if cursor is None else cursor.template
        if template is not None and template.matches(value, number):
            piece = value[template.begin : template.end]
            brought = len(piece)
            if not template.is_plain:
                decoded = template.read_text(value)
                if decoded is None:
                    return False  # no JSON
                piece, brought = inside(decoded), len(decoded)
        else:
            cursor = self._decoded(response, value, number)
            if cursor is None:
                return False
            piece, brought = inside(cursor.piece), len(cursor.piece)
        assert cursor is not None
        item = cursor.item
        if item.status is not _OPEN or item.oversize or response.held_bytes + brought > self._max_step_bytes:
            return False
        cursor.text.add(piece)
        response.numbers.next = number + 1
        item.numbered = number
        item.characters += brought
        response.held_bytes += brought
        item.events += 1
        item.last_offset = response.last_offset = offset
        if entry.dirty_from < 0:
            self._transitions.retention.mark_dirty(entry, offset, before_ms)
        self.appended += 1
        return True

    def _decoded(self, response: Response, value: bytes, number: int) -> TextCursor | None:
        """Where the text of a delta goes that no template has read; None if it is another event or of no known text."""
        try:
            delta = read_delta(value)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return None
        place = DELTAS.get(delta.type)
        if delta.event is not UNSET or delta.specversion is not UNSET:  # an envelope
            return None
        if place is None or delta.sequence_number != number:
            return None
        item = response.items.get(delta.output_index)
        if item is None:
            return None
        index = 0
        if place.index:
            index = (
                delta.content_index
                if place.index == "content_index"
                else (delta.summary_index if place.index == "summary_index" else delta.command_index)
            )
        text = item.texts.get((place.name, index))
        if text is None or not (value.isascii() or _is_utf8(value)):
            return None
        cursor = response.cursor
        if cursor is None or cursor.text is not text:
            cursor = response.cursor = TextCursor(item, text)
        cursor.piece = delta.delta
        cursor.decoded += 1
        if 1 < cursor.decoded <= _MAX_DECODED:
            cursor.template = self._template_of(value)
        return cursor

    def _template_of(self, value: bytes) -> TextTemplate | None:
        """The template of the text that this delta belongs to, by a shape that is known, or is learned from it."""
        for shape in self._shapes:
            found = shape.template_of(value)
            if found is not None:
                return found
        if not self._attempts or len(self._shapes) >= _MAX_SHAPES:
            return None
        learned = learn_shape(value)
        if learned is None:
            self._attempts -= 1
            return None
        self._shapes.append(learned)
        return learned.template_of(value)


def _response_named(record: Record, headers: Headers) -> bytes | None:
    """The response of a record whose headers say nothing else; None where they do, or where nothing names it."""
    named = record.key
    for name, content in headers:
        if name == RUN_ID:
            named = content or named
        elif name not in _SAYING_NOTHING:
            return None
    return named


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True
