"""Conversion of an input to UTF-8: gzip bodies are decompressed, UTF-16 (as PowerShell writes it) is decoded."""

from __future__ import annotations

import codecs
import zlib
from typing import Final, Protocol

_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_HEAD_BYTES: Final = 4
_MAX_PIECE_BYTES: Final = 1 << 20
_MARKS: Final = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16: its mark begins like that one's
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


class _Step(Protocol):
    def feed(self, chunk: bytes) -> list[bytes]: ...

    def finish(self) -> list[bytes]: ...


class TextDecoder:
    """UTF-8 out of chunks in any encoding that its first bytes tell. Everything else passes as it is.

    `problems`: what is wrong with the encoding, once each; no payload.
    """

    def __init__(self) -> None:
        self.problems: list[str] = []
        self._head: bytes | None = b""
        self._step: _Step | None = None

    def feed(self, chunk: bytes) -> list[bytes]:
        """The text of `chunk`, in pieces of bounded size."""
        if self._head is not None:
            self._head += chunk
            if len(self._head) < _HEAD_BYTES:  # no event is as short
                return []
            chunk, self._head = self._head, None
            self._step = self._chosen(chunk)
        return [chunk] if self._step is None else self._step.feed(chunk)

    def finish(self) -> list[bytes]:
        """The rest of the text, at the end of the input."""
        if self._head:
            head, self._head = self._head, None
            self._step = self._chosen(head)
            return [*([head] if self._step is None else self._step.feed(head)), *self.finish()]
        return [] if self._step is None else self._step.finish()

    def _chosen(self, head: bytes) -> _Step | None:
        if head.startswith(_GZIP):
            return _Gzip(self.problems)
        if head.startswith(_ZSTD):
            self.problems.append("compressed with zstd; decompress it first (zstd -dc)")
        for mark, encoding in _MARKS:
            if head.startswith(mark):
                return _Wide(encoding, len(mark))
        if len(head) >= _HEAD_BYTES and head[1] == head[3] == 0 and head[0] and head[2]:
            return _Wide("utf-16-le", 0)
        if len(head) >= _HEAD_BYTES and head[0] == head[2] == 0 and head[1] and head[3]:
            return _Wide("utf-16-be", 0)
        return None


class _Gzip:
    """A gzip body: one member after the other, what it holds judged by its own first bytes."""

    def __init__(self, problems: list[str]) -> None:
        self._problems = problems
        self._inner = TextDecoder()
        self._inner.problems = problems
        self._member = zlib.decompressobj(wbits=31)
        self._broken = False
        self._is_inside = False

    def feed(self, chunk: bytes) -> list[bytes]:
        out: list[bytes] = []
        while chunk and not self._broken:
            try:
                text = self._member.decompress(chunk, _MAX_PIECE_BYTES)
            except zlib.error:
                self._broken = True
                self._problems.append("its gzip data is damaged; what stood before that is read")
                break
            out += self._inner.feed(text) if text else []
            chunk = self._member.unconsumed_tail
            if self._member.eof:
                chunk = self._member.unused_data.lstrip(b"\0")
                self._member = zlib.decompressobj(wbits=31)
                self._is_inside = bool(chunk)
            else:
                self._is_inside = True
        return out

    def finish(self) -> list[bytes]:
        if not self._broken and self._is_inside:
            self._problems.append("its gzip data ends early; what was there is read")
        return self._inner.finish()


class _Wide:
    """UTF-16 or UTF-32. A half of a pair without its other half becomes U+FFFD."""

    def __init__(self, encoding: str, skipped: int) -> None:
        self._decoder = codecs.getincrementaldecoder(encoding)(errors="replace")
        self._skipped = skipped

    def feed(self, chunk: bytes) -> list[bytes]:
        text, self._skipped = chunk[self._skipped :], 0
        return [self._decoder.decode(text).encode()]

    def finish(self) -> list[bytes]:
        return [self._decoder.decode(b"", True).encode()]
