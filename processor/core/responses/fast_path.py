"""The fast path of Responses: a piece of text for an open item, in order; it changes nothing before it accepts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import UNSET

from processor.core.effects import Headers, Record, Status
from processor.core.entry import Entry
from processor.core.event_headers import EVENT_ID, RUN_ID, SEQUENCE, are_published
from processor.core.growing_text import inside, length_of
from processor.core.headers import TRACE
from processor.core.json_bytes import MAX_NESTING, nests_deeper
from processor.core.learned_bytes import size_of
from processor.core.responses.response import Response, TextCursor
from processor.core.responses.text_template import DeltaShape, TextTemplate, learn_shape
from processor.core.responses.wire import DELTAS, read_delta
from processor.core.shown_record import ShownRecord
from processor.core.transitions import Transitions

if TYPE_CHECKING:
    from mypy_extensions import i64  # for the compiler alone

_Header = tuple[Any, ...]
"""A name and a content. Of no known length, so that what is not asked for is not read from memory."""
_RECENT: Final = 2_048
"""How many entries are found again without their ids being hashed: a power of two."""
_OPEN: Final = Status.IN_PROGRESS
_SAYING_NOTHING: Final = frozenset({EVENT_ID, SEQUENCE, *TRACE})
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

    __slots__ = ("_attempts", "_max_step_bytes", "_recent", "_shapes", "_transitions", "appended", "at_work")

    def __init__(self, max_step_bytes: int, transitions: Transitions) -> None:
        self._max_step_bytes, self._transitions = max_step_bytes, transitions
        self._shapes: list[DeltaShape] = []
        self._attempts = _SHAPE_ATTEMPTS
        self.at_work: dict[bytes, Entry] = {}
        self._recent: list[Entry | None] = [None] * _RECENT
        self.appended = 0

    def append(self, named: bytes, value: bytes, offset: int, before_ms: int) -> bool:
        """Append the text of a delta to an open item. False, and nothing is changed, if it is another event.

        `named`: what `response_named` says of the record.
        """
        entry = self._entry_of(named)
        response = None if entry is None else entry.step
        if entry is None or not isinstance(response, Response) or offset < entry.applied_below:
            return False
        cursor, number = response.cursor, response.numbers.next
        template = None if cursor is None else cursor.template
        if template is not None and template.matches(value, number):
            brought = length_of(value, template.begin, template.end)
            if brought >= 0:
                piece = value[template.begin : template.end]
            else:
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

    def _entry_of(self, named: bytes) -> Entry | None:
        """The entry of an open response; it is looked for by how the id ends before the whole id is hashed."""
        size: i64 = len(named)
        if size < 3:
            return self.at_work.get(named)
        last: i64 = named[size - 1]
        one: i64 = named[size - 2]
        other: i64 = named[size - 3]
        slot: i64 = (last * 31 + one) * 31 + other & _RECENT - 1
        entry = self._recent[slot]
        response = None if entry is None else entry.step
        if not isinstance(response, Response) or response.id_bytes != named:
            entry = self.at_work.get(named)
            if entry is not None:
                self._recent[slot] = entry
        return entry

    def _decoded(self, response: Response, value: bytes, number: int) -> TextCursor | None:
        """Find the text of a delta that no template has read; None if it is another event or of no known text."""
        try:
            delta = read_delta(value)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        if nests_deeper(value, MAX_NESTING):  # asked of deltas alone: other events are larger, and asked when decoded
            return None
        place = DELTAS.get(delta.type)
        if delta.event is not UNSET or delta.specversion is not UNSET:  # an envelope
            return None
        if place is None or delta.sequence_number != number or response.has_moved or response.unnumbered:
            return None
        if response.is_shared:
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
        if learned is None or not self._transitions.learned.take(size_of(learned.parts)):
            self._attempts -= 1
            return None
        self._shapes.append(learned)
        return learned.template_of(value)


def response_named(record: Record) -> bytes | None:
    """The response of a record whose headers say nothing else; None where they do, or where nothing names it."""
    if isinstance(record, ShownRecord):
        named = record.run_id()
        if named is not None and len(named) > 0:
            return named
    headers: Headers = record.headers
    if are_published(headers):
        second: _Header = headers[1]
        run_id: bytes | None = second[1]
        if run_id is not None and len(run_id) > 0:
            return run_id
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
