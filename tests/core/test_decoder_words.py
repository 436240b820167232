"""The JSON decoder's words stand in dead letters, which replay derives again: other words would accuse honest workers.

If a release of msgspec words one of these otherwise, the fold version goes up with it. `pyproject.toml` lets no
release in that was not tried.
"""

from __future__ import annotations

import pytest

from processor.core.effects import DeadLetter
from tests.core.scripted_log import Play, headers


@pytest.mark.parametrize(
    ("value", "detail"),
    [
        (b"{", "Input data was truncated"),
        (b"[1,]", "JSON is malformed: trailing comma in array (byte 3)"),
        (b'{"a":1,}', "JSON is malformed: trailing comma in object (byte 7)"),
        (b'{"a":\x01}', "JSON is malformed: invalid character (byte 5)"),
        (b'{"a" 1}', "JSON is malformed: expected ':' (byte 5)"),
        (b"{1:2}", "JSON is malformed: object keys must be strings (byte 1)"),
        (b'{"a":"\\q"}', "JSON is malformed: invalid escaped character (byte 7)"),
        (b'{"a":"\\ud8"}', "JSON is malformed: invalid character in unicode escape (byte 11)"),
        (b'{"a":01}', "JSON is malformed: invalid number (byte 6)"),
        (b"{} x", "JSON is malformed: trailing characters (byte 4)"),
        (b'{"event":"thread.run.step.delta","data":{"a":1e999}}', "Number out of range - at `$[...]`"),
        (b'{"event":"thread.run.step.delta","data":"\xff"}', "invalid start byte"),
    ],
)
def test_the_decoders_words_are_those_of_the_releases_that_were_tried(value: bytes, detail: str) -> None:
    (effect,) = Play().put(value)
    assert isinstance(effect, DeadLetter)
    assert headers(effect)["detail"] == detail
