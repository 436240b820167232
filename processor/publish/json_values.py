"""Split lines into JSON values: one per line, one over several lines (pretty-printed), or the entries of an array.

Line by line, so that a bad line spoils no other: a line that is a whole JSON value is taken as one; only where a line
leaves a bracket open do the following lines belong to it.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

_TOKEN: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}\[\]"]', re.DOTALL)
_OPENING: Final = frozenset((b"{", b"["))
_is_json: Final = msgspec.json.Decoder(msgspec.Raw).decode


class JsonValues:
    """Collects lines to JSON texts. A text that is not JSON is returned unchanged: its decoder reports why.

    `held_bytes`: of the value that has begun.
    """

    def __init__(self) -> None:
        self.held_bytes = 0
        self._lines: list[bytes] = []
        self._depth = 0
        self._in_array = False

    def take(self, line: bytes) -> list[bytes]:
        """The values that `line` (without its end) completes."""
        text = line.strip(b"\x1e \t")  # a record separator (RFC 7464) may stand before a value
        if not self._lines:
            if not text:
                return []
            if self._in_array or text == b"[":
                return self._entry(text)
            if _whole(text):
                return self._entries(line, text)
        elif line[:1] == b"{":  # programs indent what is inside a value: the one that had begun was cut
            return [*self.drop(), *self.take(line)]
        depth = _depth(text)
        if not self._lines and depth <= 0:
            return [line]
        self._lines.append(line)
        self.held_bytes += len(line)
        self._depth += depth
        return [] if self._depth > 0 else self.drop()

    def drop(self) -> list[bytes]:
        """The value that has begun, as far as it came."""
        begun = [b"\n".join(self._lines)] if self._lines else []
        if self._in_array and begun:
            begun[0] = begun[0].strip().removesuffix(b",")
        self._lines.clear()
        self._depth = self.held_bytes = 0
        return begun

    def _entry(self, text: bytes) -> list[bytes]:
        """A line of an array that is written over several lines."""
        if not self._in_array:
            self._in_array = True
            return []
        if text == b"]":
            self._in_array = False
            return []
        entry = text.removesuffix(b",")
        if _whole(entry):
            return [entry]
        if (depth := _depth(text)) <= 0:
            return [text]
        self._lines.append(text)
        self.held_bytes += len(text)
        self._depth = depth
        return []

    def _entries(self, line: bytes, text: bytes) -> list[bytes]:
        """The value of a whole line; of an array of objects, each."""
        if text[:1] != b"[":
            return [line]
        entries = msgspec.json.decode(text, type=list[msgspec.Raw])
        objects = [bytes(entry) for entry in entries]
        return objects if objects and all(entry[:1] == b"{" for entry in objects) else [line]


def _whole(text: bytes) -> bool:
    try:
        _is_json(text)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def _depth(text: bytes) -> int:
    """Number of brackets that the line leaves open; an open text counts as one more."""
    depth = 0
    for found in _TOKEN.finditer(text):
        token = found[0]
        if token in _OPENING:
            depth += 1
        elif token in (b"}", b"]"):
            depth -= 1
    return depth
