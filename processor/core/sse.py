"""Server-sent events: lines to frames, for records that hold SSE text (envelope E5) and for `publish`.

Source: WHATWG HTML, "Interpreting an event stream". More forgiving in two ways, for what services send: an `event:`
line between two lots of data begins a new frame even without a blank line, and the last frame counts even if nothing
ends it.
Fields may stand in any order; `id:`, `retry:` and comments are read over.
"""

from __future__ import annotations

import re
from typing import Final

_LINE_END: Final = re.compile(rb"\r\n|\n|\r")
_FIELDS: Final = frozenset({b"event", b"data", b"id", b"retry"})
_FIELD: Final = re.compile(rb"[\r\n](?:event|data):")
_CARRIAGE_RETURN: Final = 0x0D  # as a number: CPython looks for bytes in bytes by way of an error
_BLANK: Final = re.compile(rb"[\t\n\r ]*")
_JSON: Final = (b"{", b"[", b'"')
"""What an object, a list and a text begin with."""


_NAME: Final = b"event: "
_DATA: Final = b"data: "
_ENDS: Final = (b"\n\n", b"\n", b"")


class Frame:
    """One event as it stood in the stream. `name` is None where the JSON in `data` names itself."""

    __slots__ = ("data", "name")

    def __init__(self, name: bytes | None, data: bytes) -> None:
        self.name, self.data = name, data


class SseFrames:
    """Collects the lines of a stream to frames. `held_bytes`: data of the frame that has begun."""

    __slots__ = ("_data", "_late_name", "_name", "held_bytes")

    def __init__(self) -> None:
        self.held_bytes = 0
        self._name: bytes | None = None
        self._late_name: bytes | None = None
        """Of an `event:` line behind the data: of that data, unless more data follows without a blank line between."""
        self._data: list[bytes] = []

    def take(self, line: bytes) -> Frame | None:
        """The frame that `line` (without its end) ends, if it ends one."""
        # Each prefix by itself: compiled, that costs a tenth of what it costs to cut a line at its colon.
        if line.startswith(b"data:"):
            return self._take_data(line[6:] if line.startswith(b"data: ") else line[5:])
        if line.startswith(b"event:"):
            return self._take_name(line[7:] if line.startswith(b"event: ") else line[6:])
        if len(line) == 0:
            return self.finish()
        if line == b"data":
            return self._take_data(b"")
        return self._take_name(b"") if line == b"event" else None

    def _take_data(self, content: bytes) -> Frame | None:
        ended = None
        if self._late_name is not None:
            name, self._late_name = self._late_name, None
            ended = self.finish()
            self._name = name
        self._data.append(content)
        self.held_bytes += len(content)
        return ended

    def _take_name(self, content: bytes) -> Frame | None:
        if len(self._data) == 0:
            self._name = content
            return None
        if self._name is None and self._late_name is None:
            self._late_name = content
            return None
        ended = self.finish()
        self._name = content
        return ended

    def finish(self) -> Frame | None:
        """The frame begun, at a blank line or at the end of the input; None if its data is empty."""
        frame = None
        if self.held_bytes > 0:
            data = self._data
            frame = Frame(self._name or self._late_name or None, data[0] if len(data) == 1 else b"\n".join(data))
            self.held_bytes = 0
        self._name = self._late_name = None
        if len(self._data) > 0:
            self._data = []
        return frame


def is_sse(text: bytes) -> bool:
    """Whether a text is of a stream: it does not begin as JSON does, and a line of it is an event's name or data.

    The first line is usually a field or a comment. Any other stands for an unknown field, such as a line of an
    HTTP head, and is read over.
    """
    if text.startswith(b"event:") or text.startswith(b"data:"):  # noqa: PIE810  see `SseFrames.take`
        return True
    if text.startswith(b"{"):
        return False
    begin = _BLANK.match(text)
    at = 0 if begin is None else begin.end()
    if text[at : at + 1] in _JSON:
        return False
    first = _LINE_END.split(text[at : at + 64], maxsplit=1)[0]
    return first[:1] == b":" or first.partition(b":")[0] in _FIELDS or _FIELD.search(text) is not None


def _only_frame(text: bytes) -> Frame | None:
    """The frame of a text that is a name, then data of one line and at most one blank line, as most texts are."""
    if not text.startswith(_NAME):
        return None
    end_of_name = text.find(b"\n")
    begin = end_of_name + 1 + len(_DATA)
    if end_of_name <= len(_NAME) or text[end_of_name + 1 : begin] != _DATA:
        return None
    end = text.find(b"\n", begin)
    if end < 0:
        end = len(text)
    if end <= begin or text[end:] not in _ENDS:
        return None
    return Frame(text[len(_NAME) : end_of_name], text[begin:end])


def frames_of(text: bytes) -> list[Frame]:
    """All frames of a whole text."""
    if _CARRIAGE_RETURN in text:
        text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    only = _only_frame(text)
    if only is not None:
        return [only]
    frames = SseFrames()
    found: list[Frame] = []
    for line in text.split(b"\n"):
        frame = frames.take(line)
        if frame is not None:
            found.append(frame)
    last = frames.finish()
    if last is not None:
        found.append(last)
    return found
