"""Split a byte stream into lines, whatever the chunks it comes in."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final

MAX_EVENT_BYTES: Final = 64 * 1024 * 1024

UTF8_BOM: Final = b"\xef\xbb\xbf"
DONE: Final = b"[DONE]"
TOO_LONG: Final = bytes(bytearray(b"too long"))
"""Stands for a line that went on for more than `MAX_EVENT_BYTES`; to be told by identity."""

_LINE_END: Final = re.compile(rb"\r\n|\n|\r")


class Format(StrEnum):
    """Format of a stream. AUTO: JSON lines if the first line begins as JSON does, SSE otherwise."""

    AUTO = "auto"
    SSE = "sse"
    JSONL = "jsonl"


class LineSplitter:
    """Lines out of chunks, wherever they are cut. A line ends with CR, LF or CRLF; a leading BOM is dropped."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []  # joined only when their line ends: a long line costs no quadratic copying
        self._held_bytes = 0
        self._after_cr = False
        self._start: bytes | None = b""  # the first bytes, until they can be told from a BOM

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines that end in `chunk`, without their ends; `TOO_LONG` for one that no memory should hold."""
        if self._start is not None:
            chunk = self._start + chunk
            if len(chunk) < len(UTF8_BOM) and UTF8_BOM.startswith(chunk):
                self._start = chunk
                return []
            self._start = None
            chunk = chunk.removeprefix(UTF8_BOM)
        if self._after_cr and chunk:
            chunk = chunk.removeprefix(b"\n")  # the second half of a CRLF that was cut in two
            self._after_cr = False
        if not chunk:
            return []
        *lines, rest = _LINE_END.split(chunk)
        self._after_cr = chunk.endswith(b"\r")
        if lines and self._held_bytes:
            lines[0] = self._joined(lines[0])
        if rest:
            self._held_bytes += len(rest)
            if self._held_bytes > MAX_EVENT_BYTES:
                self._pieces.clear()  # only its end is still waited for
            else:
                self._pieces.append(rest)
        return lines

    def finish(self) -> list[bytes]:
        """The last line, if the input ended without a line end."""
        rest = self._start or b""
        self._start = None
        if self._held_bytes:
            rest = self._joined(rest)
        return [rest] if rest else []

    def _joined(self, end: bytes) -> bytes:
        """The line whose last piece is `end`."""
        whole = TOO_LONG if self._held_bytes > MAX_EVENT_BYTES else b"".join((*self._pieces, end))
        self._pieces.clear()
        self._held_bytes = 0
        return whole
