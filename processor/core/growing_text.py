r"""Texts that grow at their end, kept as JSON has them between its quotes.

Most pieces of a delta are written as our own encoder writes them (`length_of`). They are appended as they stand in the
record and published as they stand here: neither decoded nor encoded again, though arguments are JSON within JSON and so
full of `\"`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import Raw

from processor.core.acyclic import mypyc_attr
from processor.core.surrogates import as_bytes, from_bytes

if TYPE_CHECKING:
    from mypy_extensions import i64  # for the compiler alone

_IS_COMPILED: Final = not __file__.endswith(".py")
_SHORT: Final = 256
"""A longer piece is looked at by functions that are written in C; compiled, a short one is walked faster."""
_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(str).decode
_raw: Final = Raw
_PLAIN: Final = bytes(code if 0x20 <= code < 0x7F and code not in b'"\\' else not code for code in range(256))
"""For `bytes.translate`: keeps the bytes that stand for themselves in JSON text and in UTF-8, changes all others."""
_NO_ESCAPES: Final = bytes(code if code >= 0x20 and code not in b'"\\' else not code for code in range(256))
"""The same, but it keeps what is not ASCII."""
_BACKSLASH: Final = 0x5C  # as a number: CPython looks for bytes in bytes by way of an error
_ESCAPED_BACKSLASH: Final = b"\\\\"
_ESCAPED_QUOTE: Final = b'\\"'
_ESCAPES: Final = (_ESCAPED_QUOTE, b"\\n", b"\\t", b"\\r", b"\\b", b"\\f")
_CHARACTER: Final = b"."
_NOTHING: Final = b""
_QUOTE: Final = b'"'


def inside(text: str) -> bytes:
    """Encode a text as JSON, without the quotes around it.

    Raises:
        UnicodeEncodeError: it has half of a surrogate pair.
    """
    return _encode(text)[1:-1]


def length_of(value: bytes, begin: i64, end: i64) -> i64:
    """Count the characters of a JSON string from its bytes without quotes, if our encoder writes the same; else -1.

    -1 also where the bytes are no JSON string at all. `begin` and `end` are offsets in `value`.
    """
    if not _IS_COMPILED or end - begin > _SHORT:
        piece = value[begin:end]
        if piece.translate(_PLAIN) == piece:
            return end - begin
        return _length_of(piece)
    at: i64 = begin
    length: i64 = end - begin
    is_ascii = True
    while at < end:
        code: i64 = value[at]
        if code > 0x5C:  # as most of them, in an order that asks little of these
            if code >= 0x80:
                is_ascii = False
                if code < 0xC0:  # it continues a character
                    length -= 1
        elif code == 0x5C:
            at += 1
            if at == end:
                return -1
            code = value[at]
            if code != 0x22 and not _is_escape(code):
                return -1
            length -= 1
        elif code < 0x20 or code == 0x22:
            return -1
        at += 1
    return length if is_ascii or _is_utf8(value[begin:end]) else -1


def _is_escape(code: i64) -> bool:
    """Whether a byte may follow a backslash: `\\\\`, `\\n`, `\\t`, `\\r`, `\\b`, `\\f`."""
    return code == 0x5C or code == 0x6E or code == 0x74 or code == 0x72 or code == 0x62 or code == 0x66


def _is_utf8(piece: bytes) -> bool:
    try:
        piece.decode()
    except UnicodeDecodeError:
        return False
    return True


def _length_of(piece: bytes) -> int:
    """`length_of` by functions that are written in C: faster for long texts, and where this module is not compiled."""
    # A character for each escape: bytes on both sides of one that is left out could make a character together.
    rest = piece.replace(_ESCAPED_QUOTE, _CHARACTER)  # nearly all escapes are of quotes
    if _BACKSLASH in rest:
        rest = piece.replace(_ESCAPED_BACKSLASH, _CHARACTER)
        # Now each backslash begins an escape: of a row of them every pair is gone.
        for escape in _ESCAPES:
            rest = rest.replace(escape, _CHARACTER)
    if rest.translate(_PLAIN) == rest:
        return len(rest)
    if rest.translate(_NO_ESCAPES) != rest:
        return -1
    try:
        return len(rest.decode())
    except UnicodeDecodeError:
        return -1


@mypyc_attr(acyclic=True)
class Text:
    """A text that grows at its end, kept as one piece of bytes: a piece of text as an object has 50 bytes more.

    A half of a surrogate pair is kept as three bytes, as UTF-8 would have it; its other half may come. `may_hold_half`:
    whether there was ever one.
    """

    __slots__ = ("_held", "may_hold_half")

    def __init__(self) -> None:
        self._held = bytearray()
        self.may_hold_half = False

    def add(self, piece: bytes) -> None:
        """Append what `inside` gives, or `length_of` knows the length of."""
        self._held += piece

    def write(self, piece: str) -> None:
        try:
            self._held += inside(piece)
        except UnicodeEncodeError:
            self.may_hold_half = True
            self._held += as_bytes(json.dumps(piece, ensure_ascii=False)[1:-1])

    def getvalue(self) -> str:
        if self.may_hold_half:
            text: str = json.loads(f'"{from_bytes(bytes(self._held))}"')
            return text
        return _decode(self.quoted())

    def inside(self) -> bytearray:
        """The text as JSON, without its quotes, to be copied; not where it `may_hold_half`."""
        return self._held

    def quoted(self) -> bytes:
        """The text as JSON; not where it `may_hold_half`."""
        return _NOTHING.join((_QUOTE, self._held, _QUOTE))

    def is_said_by(self, quoted: bytes) -> bool:
        """Whether what our encoder wrote says the same."""
        return not self.may_hold_half and self.quoted() == quoted

    def raw(self) -> Any:
        """The text as JSON for an encoder, which writes it as it is; not where it `may_hold_half`."""
        return _raw(self.quoted())

    def encoded(self) -> bytes:
        """Encode the text as bytes, for `from_bytes` to read back."""
        return as_bytes(self.getvalue())
