"""Templates of text deltas: the bytes around sequence number, text and padding, the same in all deltas of one text.

A shape is learned from a delta that was decoded in full, and kept only if other contents in its places are read back as
just these. From a shape comes the template of each text; a value that matches a template need not be decoded.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import msgspec

from processor.core.json_bytes import alphanumeric_end, number_end, text_end
from processor.core.wire_types import read_any, read_text

if TYPE_CHECKING:
    from mypy_extensions import i64  # for the compiler alone

NUMBER: Final = "sequence_number"
TEXT: Final = "delta"
PADDING: Final = "obfuscation"
ITEM: Final = "item_id"
INDEX: Final = "output_index"
_PLACES: Final = (NUMBER, TEXT, PADDING, ITEM, INDEX)
_ORDERS: Final = frozenset({(NUMBER, TEXT), (TEXT, NUMBER), (NUMBER, TEXT, PADDING), (TEXT, PADDING, NUMBER)})
"""Of the places whose contents change from delta to delta."""
_PROBES: Final = ((0, "", "", "i", 0), (1234567, 'a"\\\n\u00e9', "Zz09", "msg-1_a", 17), (9, "}],", "x", "", 1023))
_PLAIN: Final = re.compile(rb"[A-Za-z0-9_.:+/=-]*")
"""Contents of a string that stand in JSON as they are."""
_MAX_TEXT: Final = 4_096
"""Longer ones are decoded in full, which is faster than to look at them byte by byte."""

_encode: Final = msgspec.json.Encoder().encode
_read_text: Final = read_text


class TextTemplate:
    """The deltas of one text: `head`, number or text, `middle`, text or number, `tail`; padding after the text, if any.

    The quotes of text and padding belong to the parts around them. `padding` is what stands between both.

    Attributes:
        begin, end: where the text stands in the value that `matches` has accepted last.
    """

    __slots__ = (
        "_head",
        "_head_size",
        "_is_numbered_first",
        "_middle",
        "_middle_size",
        "_padding",
        "_padding_size",
        "_tail",
        "_tail_size",
        "begin",
        "end",
    )

    def __init__(self, head: bytes, middle: bytes, padding: bytes, tail: bytes, *, is_numbered_first: bool) -> None:
        self._head, self._middle, self._padding, self._tail = head, middle, padding, tail
        self._head_size: i64 = len(head)
        self._middle_size: i64 = len(middle)
        self._padding_size: i64 = len(padding)
        self._tail_size: i64 = len(tail)
        self._is_numbered_first = is_numbered_first
        self.begin: i64 = 0
        self.end: i64 = 0

    def matches(self, value: bytes, number: int) -> bool:
        """Whether a value is a delta of this number with these parts. Its text may still be none that JSON allows.

        Whether `at` is -1 is asked before each slice: compiled, one from there is a `SystemError`.
        """
        if not value.startswith(self._head):
            return False
        size: i64 = len(value)
        at: i64 = self._head_size
        if self._is_numbered_first:
            at = number_end(value, at, size, number)
            stop = at + self._middle_size
            if at < 0 or value[at:stop] != self._middle:
                return False
            at = stop
        self.begin = at
        last: i64 = at + _MAX_TEXT
        if last > size:
            last = size
        at = text_end(value, at, last)
        if at < 0:
            return False
        self.end = at
        if self._padding_size:
            stop = at + self._padding_size
            if value[at:stop] != self._padding:
                return False
            at = alphanumeric_end(value, stop, size)
        if not self._is_numbered_first:
            stop = at + self._middle_size
            if value[at:stop] != self._middle:
                return False
            at = number_end(value, stop, size, number)
        return at >= 0 and at + self._tail_size == size and value.endswith(self._tail)

    def text_in(self, value: bytes, number: int) -> str | None:
        """The text of a delta of this number that matches; None if it does not."""
        return self.read_text(value) if self.matches(value, number) else None

    def read_text(self, value: bytes) -> str | None:
        """The text of the value that `matches` has just accepted; None if JSON allows no such text."""
        try:
            return _read_text(value[self.begin - 1 : self.end + 1])
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return None


class DeltaShape:
    """What the deltas of a producer have in common: the parts, and the places between them."""

    __slots__ = ("parts", "places")

    def __init__(self, parts: list[bytes], places: tuple[str, ...]) -> None:
        self.parts, self.places = parts, places

    def template_of(self, value: bytes) -> TextTemplate | None:
        """The template of the text that a delta of this shape belongs to; None if the value is of another shape."""
        at, parts = len(self.parts[0]), [self.parts[0]]
        if not value.startswith(self.parts[0]):
            return None
        for place, part in zip(self.places, self.parts[1:], strict=True):
            end = _end_of(place, value, at)
            if end < 0 or value[end : end + len(part)] != part:
                return None
            content = value[at:end]
            at = end + len(part)
            if place in (ITEM, INDEX):
                parts[-1] = parts[-1] + content + part
            else:
                parts.append(part)
        if at != len(value):
            return None
        first = next(place for place in self.places if place not in (ITEM, INDEX))
        if len(parts) == 3:
            return TextTemplate(parts[0], parts[1], b"", parts[2], is_numbered_first=first == NUMBER)
        if first == NUMBER:
            return TextTemplate(parts[0], parts[1], parts[2], parts[3], is_numbered_first=True)
        return TextTemplate(parts[0], parts[2], parts[1], parts[3], is_numbered_first=False)


def learn_shape(value: bytes) -> DeltaShape | None:
    """The shape of a value that was read as a delta with a number; None: it has none that could be used."""
    try:
        told = read_any(value)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    spans: list[tuple[int, int, str]] = []
    for place in _PLACES:
        if place in told:
            begin = _begin_of(place, value)
            end = _end_of(place, value, begin) if begin > 0 else -1
            if end < 0:
                return None
            spans.append((begin, end, place))
    spans.sort()
    places = tuple(place for _, _, place in spans)
    if tuple(place for place in places if place not in (ITEM, INDEX)) not in _ORDERS:
        return None
    ends = [0, *(end for _, end, _ in spans)]
    begins = [*(begin for begin, _, _ in spans), len(value)]
    if any(begin < end for begin, end in zip(begins, ends, strict=True)):
        return None
    found = DeltaShape([value[end:begin] for begin, end in zip(begins, ends, strict=True)], places)
    return found if all(_is_read_back(found, told, probe) for probe in _PROBES) else None


def _begin_of(place: str, value: bytes) -> int:
    """Where the content of a place begins: behind the quote of a string; -1 if nowhere."""
    name = f'"{place}":'.encode()
    at = value.find(name) + len(name)
    if at < len(name):
        return -1
    if value[at : at + 1] == b" ":
        at += 1
    if place in (NUMBER, INDEX):
        return at
    return at + 1 if value[at : at + 1] == b'"' else -1


def _end_of(place: str, value: bytes, begin: int) -> int:
    """Where the content ends that begins there; -1 if it is none for this place."""
    if place in (NUMBER, INDEX):
        end = begin
        while value[end : end + 1].isdigit():
            end += 1
        return end if end > begin and (end == begin + 1 or value[begin : begin + 1] != b"0") else -1
    end = value.find(b'"', begin)
    if place == TEXT:
        while end > 0 and _escapes_before(value, end) % 2:
            end = value.find(b'"', end + 1)
        return end
    if end < 0 or _PLAIN.fullmatch(value[begin:end]) is None:
        return -1
    return end if place == ITEM or end == begin or value[begin:end].isalnum() else -1


def _escapes_before(value: bytes, at: int) -> int:
    begin = at
    while value[begin - 1 : begin] == b"\\":
        begin -= 1
    return at - begin


def _is_read_back(shape: DeltaShape, told: dict[str, Any], probe: tuple[int, str, str, str, int]) -> bool:
    number, text, padding, item_id, index = probe
    contents: dict[str, Any] = {NUMBER: number, TEXT: text, PADDING: padding, ITEM: item_id, INDEX: index}
    value, expected = shape.parts[0], dict(told)
    for place, part in zip(shape.places, shape.parts[1:], strict=True):
        content = contents[place]
        expected[place] = content
        value += (_encode(content)[1:-1] if type(content) is str else b"%d" % content) + part
    try:
        read = read_any(value)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return False
    return bool(read == expected) and all(type(read[place]) is type(contents[place]) for place in shape.places)
