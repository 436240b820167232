r"""Halves of surrogate pairs in JSON text: `"\ud83d"` without its other half, which the grammar of JSON allows.

`JSON.stringify` and Python's `json.dumps` write one where a text was cut by length, or a delta between the halves. No
UTF-8 can hold it, so the decoder refuses the whole text; what it stands for is U+FFFD.
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


def may_hold_halves(text: bytes) -> bool:
    """Whether there is an escaped surrogate at all, paired or not."""
    return b"\\ud" in text or b"\\uD" in text


def without_halves(text: bytes) -> bytes:
    """JSON text with each half that stands alone replaced by the escape of U+FFFD; of the same length."""
    return _ESCAPE.sub(lambda found: _REPLACEMENT if found[1] else found[0], text)
