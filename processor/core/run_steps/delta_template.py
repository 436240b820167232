"""Delta templates: the bytes around the step's id and the text, the same in all plain deltas of a producer.

A template makes reading faster and decides no outcome. It is learned from a delta that was read in full, and used only
if other ids and texts in the same two places are read back as just these; then a value that matches need not be parsed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from processor.core.growing_text import inside
from processor.core.learned_bytes import size_of
from processor.core.named_events import DELTA_OBJECT
from processor.core.run_steps.text_place import TextPlace
from processor.core.wire_types import ExactData, exact_delta

_PROBES: Final = (("s", ""), ('"\\', 'a"\\\n\u00e9'), ("t", "}]"))
"""Ids and texts whose JSON must come through."""


class DeltaTemplate:
    """`head`, the id, `middle`, the text as JSON, `tail`. The quotes of id and text belong to the parts around them.

    `place` is where the text belongs; `names_itself`: such data say that they are a delta, and so may stand alone.
    """

    __slots__ = ("head", "middle", "names_itself", "place", "tail")

    def __init__(self, head: bytes, middle: bytes, tail: bytes, place: TextPlace, *, names_itself: bool) -> None:
        self.head, self.middle, self.tail, self.place = head, middle, tail, place
        self.names_itself = names_itself

    def fits(self, value: bytes) -> bool:
        if not (value.startswith(self.head) and value.endswith(self.tail)):
            return False
        return value.startswith(self.middle, value.find(b'"', len(self.head)))

    def size(self) -> int:
        """About how many bytes of memory it takes."""
        return size_of((self.head, self.middle, self.tail, repr(self.place.key).encode()))


def is_plain(step_id: str) -> bool:
    """Whether the id is ASCII and stands in JSON as it is."""
    return step_id.isascii() and inside(step_id) == step_id.encode()


def read_named(value: bytes) -> ExactData:
    """The delta in a value that begins with the event's name."""
    return exact_delta(value).data


def learn_template(
    value: bytes, data: ExactData, place: TextPlace, read: Callable[[bytes], ExactData]
) -> DeltaTemplate | None:
    """The template of a value that was read as `data`, a delta that adds text at one place and does nothing else.

    None: it has none that could be used.

    Args:
        read: what reads a value as a delta.
    """
    quoted = b'"%b"' % data.id.encode()
    head = value.find(quoted) + 1
    end_of_id, end_of_text = head + len(quoted) - 2, value.rfind(b'"')
    begin = _opening_quote(value, end_of_text)
    if not 0 < head < end_of_id < begin:
        return None
    found = DeltaTemplate(
        value[:head], value[end_of_id : begin + 1], value[end_of_text:], place, names_itself=data.object == DELTA_OBJECT
    )
    return found if all(_is_read_back(found, data, read, *probe) for probe in _PROBES) else None


def _opening_quote(value: bytes, end: int) -> int:
    """Where the string begins that is closed at `end`; -1 if nowhere."""
    begin = value.rfind(b'"', 0, end)
    while begin > 0:
        escapes = begin
        while value[escapes - 1 : escapes] == b"\\":
            escapes -= 1
        if (begin - escapes) % 2 == 0:
            return begin
        begin = value.rfind(b'"', 0, begin)
    return -1


def _is_read_back(
    template: DeltaTemplate, data: ExactData, read: Callable[[bytes], ExactData], step_id: str, text: str
) -> bool:
    value = b"".join((template.head, inside(step_id), template.middle, inside(text), template.tail))
    expected: Any = msgspec.to_builtins(data)
    expected["id"] = step_id
    template.place.put(expected["delta"]["step_details"], text)
    try:
        return bool(msgspec.to_builtins(read(value)) == expected)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return False
