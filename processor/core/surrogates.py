r"""Halves of surrogate pairs in JSON text: `"\ud83d"` without its other half, which the grammar of JSON allows.

`JSON.stringify` and Python's `json.dumps` write one where a text was cut by length, or a delta between the halves. No
UTF-8 can hold it, so the decoder refuses the whole text; what it stands for is U+FFFD. In a text that deltas append to,
a half is kept until the text is published (`joined`): the other half may begin the next delta.
"""

from __future__ import annotations

import re
from typing import Final

_ESCAPE: Final = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"  # both halves: a character
    rb"|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})"  # one half alone
    rb"|\\.",  # any other escape, so that no backslash is read twice
    re.DOTALL,
)
_REPLACEMENT: Final = rb"\ufffd"
_ANY: Final = re.compile("[\ud800-\udfff]")
_ALONE: Final = re.compile("[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]")
_FIRST_HALF: Final = 0xD800


def may_hold_halves(text: bytes) -> bool:
    """Whether there is an escaped surrogate at all, paired or not."""
    return b"\\ud" in text or b"\\uD" in text


def without_halves(text: bytes) -> bytes:
    """JSON text with each half that stands alone replaced by the escape of U+FFFD; of the same length."""
    return _ESCAPE.sub(lambda found: _REPLACEMENT if found[1] else found[0], text)


def with_stand_ins(text: bytes, first: int) -> bytes:
    """JSON text with each half that stands alone replaced by a character of its own, from `first` on.

    The same text with other stand-ins differs in the halves and nowhere else: `between` finds them so.
    """

    def stand_in(found: re.Match[bytes]) -> bytes:
        half = found[1]
        return found[0] if half is None else b"\\u%04x" % (int(half[2:], 16) - _FIRST_HALF + first)

    return _ESCAPE.sub(stand_in, text)


def between(one: str, other: str, first: int) -> str:
    """A text with its halves, of two readings of it with other stand-ins; those of `one` begin at `first`."""
    return "".join(a if a == b else chr(ord(a) - first + _FIRST_HALF) for a, b in zip(one, other, strict=True))


def holds_half(text: str) -> bool:
    """Whether a text of appended pieces has a half whose other half did not come."""
    return not text.isascii() and _ALONE.search(text) is not None


def joined(text: str) -> str:
    """A text of appended pieces as it is published: halves that met are a character, U+FFFD stands for others."""
    if text.isascii() or _ANY.search(text) is None:
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def as_bytes(text: str) -> bytes:
    """A text with its halves as bytes for a checkpoint; UTF-8 where it has none."""
    return text.encode("utf-8", "surrogatepass")


def from_bytes(content: bytes) -> str:
    """The text that `as_bytes` gave."""
    return content.decode("utf-8", "surrogatepass")
