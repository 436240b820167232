r"""Halves of surrogate pairs in JSON text: `"\ud83d"` without its other half, which the grammar of JSON allows.

`JSON.stringify` and Python's `json.dumps` write one where a text was cut by length, or a delta between the halves. No
UTF-8 can hold it, so the decoder refuses the whole text; what it stands for is U+FFFD. In a text that deltas append to,
a half is kept until the text is published (`joined`): the other half may begin the next delta.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable
from typing import Final

from processor.core.base64_text import from_base64

_ESCAPE: Final = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"  # both halves: a character
    rb"|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})"  # one half alone
    rb"|\\.",  # any other escape, so that no backslash is read twice
    re.DOTALL,
)
_BASE64: Final = re.compile(rb'("data_base64"\s*:\s*")([A-Za-z0-9+/=\\]+)"')
"""The data of a CloudEvent where it is JSON in base64."""
_REPLACEMENT: Final = rb"\ufffd"
_ANY: Final = re.compile("[\ud800-\udfff]")
_ALONE: Final = re.compile("[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]")
_FIRST_HALF: Final = 0xD800


def may_hold_halves(text: bytes) -> bool:
    """Whether there is an escaped surrogate at all, paired or not, or data in base64 that may have one."""
    return b"\\ud" in text or b"\\uD" in text or b'"data_base64"' in text


def without_halves(text: bytes) -> bytes:
    """JSON text with each half that stands alone replaced by the escape of U+FFFD; of the same length."""
    return _changed(text, lambda part: _ESCAPE.sub(lambda found: _REPLACEMENT if found[1] else found[0], part))


def _changed(text: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """The text with a change made in it, and in the data that it holds in base64."""

    def in_base64(found: re.Match[bytes]) -> bytes:
        try:
            data = from_base64(found[2].replace(b"\\/", b"/"))
        except ValueError:
            return found[0]
        changed = change(data)
        return found[0] if changed == data else b'%b%b"' % (found[1], b64encode(changed))

    changed = change(text)
    return _BASE64.sub(in_base64, changed) if b'"data_base64"' in changed else changed


def with_stand_ins(text: bytes, first: int) -> bytes:
    """JSON text with each half that stands alone replaced by a character of its own, from `first` on.

    The same text with other stand-ins differs in the halves and nowhere else: `between` finds them so.
    """

    def stand_in(found: re.Match[bytes]) -> bytes:
        half = found[1]
        return found[0] if half is None else b"\\u%04x" % (int(half[2:], 16) - _FIRST_HALF + first)

    return _changed(text, lambda part: _ESCAPE.sub(stand_in, part))


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
