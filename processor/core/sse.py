"""Server-sent events: lines to frames, for records that hold SSE text (envelope E5) and for `publish`.

Source: WHATWG HTML, "Interpreting an event stream". More forgiving in two ways, for what services send: an `event:`
line after data begins a new frame even without a blank line between, and the last frame counts even if nothing ends it.
Fields may stand in any order; `id:`, `retry:` and comments are read over.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

_LINE_END: Final = re.compile(rb"\r\n|\n|\r")
_FIELDS: Final = frozenset({b"event", b"data", b"id", b"retry"})


class Frame(NamedTuple):
    """One event as it stood in the stream. `name` is None where the JSON in `data` names itself."""

    name: bytes | None
    data: bytes


class SseFrames:
    """Collects the lines of a stream to frames. `held_bytes`: data of the frame that has begun."""

    __slots__ = ("_data", "_name", "held_bytes")

    def __init__(self) -> None:
        self.held_bytes = 0
        self._name: bytes | None = None
        self._data: list[bytes] = []

    def take(self, line: bytes) -> Frame | None:
        """The frame that `line` (without its end) ends, if it ends one."""
        if not line:
            return self.finish()
        field, _, content = line.partition(b":")
        content = content.removeprefix(b" ")
        if field == b"data":
            self._data.append(content)
            self.held_bytes += len(content)
        elif field == b"event":
            ended = self.finish() if self._data else None
            self._name = content
            return ended
        return None

    def finish(self) -> Frame | None:
        """The frame begun, at a blank line or at the end of the input; None if its data is empty."""
        frame = Frame(self._name or None, b"\n".join(self._data)) if any(self._data) else None
        self._name = None
        self._data.clear()
        self.held_bytes = 0
        return frame


def is_sse(text: bytes) -> bool:
    """Whether the first line that is not empty is a field or a comment of a stream; JSON never begins like one."""
    begin = text[:1024].lstrip(b"\r\n")
    line = _LINE_END.split(begin, maxsplit=1)[0]
    return line.startswith(b":") or line.partition(b":")[0] in _FIELDS


def frames_of(text: bytes) -> list[Frame]:
    """All frames of a whole text."""
    frames = SseFrames()
    found = [frames.take(line) for line in _LINE_END.split(text)]
    return [frame for frame in (*found, frames.finish()) if frame is not None]
