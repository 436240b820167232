"""Base64 as RFC 4648 has it: padded, nothing else in it. The same on every Python that we run on."""

from __future__ import annotations

from binascii import a2b_base64
from typing import Final

_QUANTUM: Final = 4
"""Characters for each three bytes."""


def from_base64(text: str | bytes) -> bytes:
    """Decode padded base64 (RFC 4648, section 4).

    Pythons before 3.13 take padding behind a text that needs none, which 3.13 refuses: that is looked for here, so that
    a log gives the same on both.

    Raises:
        ValueError: it is not base64. `binascii.Error` is one.
    """
    if len(text) % _QUANTUM != 0 or text[-3:] in ("===", b"==="):
        raise ValueError("not padded as base64 is")
    return a2b_base64(text, strict_mode=True)
