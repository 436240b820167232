"""Growing texts: what is kept as JSON is the text that was read, and it is published as our encoder writes it."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.core.growing_text import Text, inside
from processor.core.growing_text import length_of as length_between
from processor.core.surrogates import as_bytes, joined
from processor.core.wire_types import canonical, read_text
from tests.examples import examples

ODD = '"\\\x00\n\r\t\b\f\x1f/\x7f\x80é\u2028\uffff😀nu0b'
TEXTS = st.text(st.sampled_from(ODD) | st.characters(codec="utf-8"), max_size=30)
BYTES = st.lists(
    st.sampled_from(
        [b"\\", b'"', b"n", b"t", b"u", b"/", b"\\n", b'\\"', b"\\\\", b"\\u00e9", b"\\u0001", b"\\ud83d", b"\x00",
         b"\x1f", b"\x7f", b"\xc3", b"\xa9", b"\xc3\xa9", b"\xed\xa0\xbd", b"\xf0\x9f\x98\x80", b"a"]
    ),
    max_size=8,
).map(b"".join)  # fmt: skip


LONG = b"x" * 257


def readable(piece: bytes) -> str | None:
    """What the decoder says of the piece between quotes."""
    try:
        return read_text(b'"%b"' % piece)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def length_of(piece: bytes) -> int:
    """By both ways: as it is, and behind so much that the other way is taken."""
    short, at = length_between(b"ab" + piece + b'"', 2, 2 + len(piece)), len(LONG)
    long = length_between(LONG + piece + b'"', 0, at + len(piece))
    assert long == (-1 if short < 0 else short + at)
    return short


@pytest.mark.parametrize(
    ("piece", "length"),
    [
        (b"", 0), (b"ab", 2), (rb"a\"b", 3), (rb"\\", 1), (rb"\\\"", 2), (rb"\\\\n", 3), (rb"\n\t\r\b\f", 5),
        ("é😀".encode(), 2), ('\\"é'.encode(), 2), (b"\x7f", 1),
        (b'"', -1), (b'a"', -1), (b"\\", -1), (b'\\\\"', -1), (b'\\""', -1), (rb"\/", -1), (rb"\u00e9", -1),
        (rb"\u0001", -1), (rb"\x", -1), (rb"\\\/", -1), (b"\x00", -1), (b"\x1f\xc3\xa9", -1), (b"\xc3", -1),
        (b"\xed\xa0\xbd", -1), (b'\xc3\xa9"', -1), (b"\xc3\\n\xa9", -1), (b'\xc3\\"\xa9', -1), (b"\xc3\\\\\xa9", -1),
    ],
)  # fmt: skip
def test_the_length_of_some_pieces(piece: bytes, length: int) -> None:
    assert length_of(piece) == length


@settings(max_examples=examples(400))
@given(BYTES | st.binary(max_size=12))
def test_the_length_of_a_piece_is_that_of_the_text_which_is_written_so(piece: bytes) -> None:
    text = readable(piece)
    length = length_of(piece)
    if length >= 0:
        assert text is not None
        assert (length, inside(text)) == (len(text), piece)


@given(TEXTS)
def test_what_our_encoder_writes_is_known_but_for_rare_control_characters(text: str) -> None:
    written = inside(text)
    assert length_of(written) == (-1 if "\\u00" in written.decode().replace("\\\\", "") else len(text))


@given(st.lists(TEXTS, max_size=5), st.data())
def test_a_text_is_the_sum_of_its_pieces_however_they_came(pieces: list[str], data: st.DataObject) -> None:
    text, whole = Text(), "".join(pieces)
    for piece in pieces:
        if data.draw(st.booleans()):
            text.add(inside(piece))
        else:
            text.write(piece)
    assert (text.getvalue(), text.quoted(), text.encoded()) == (whole, canonical(whole), whole.encode())
    assert canonical({"a": text.raw()}) == canonical({"a": whole})
    assert text.is_said_by(canonical(whole))
    assert not text.is_said_by(canonical(whole + "x"))
    assert not text.may_hold_half


@given(st.lists(st.tuples(st.text(max_size=3) | st.just("long " * 300), st.booleans()), max_size=60))
def test_a_text_is_its_pieces_whenever_it_is_read(pieces: list[tuple[str, bool]]) -> None:
    """Pieces wait to be joined: reading between them changes nothing."""
    text, whole = Text(), ""
    for piece, is_read in pieces:
        text.add(inside(piece))
        whole += piece
        if is_read:
            assert text.getvalue() == whole
    assert (text.getvalue(), text.quoted()) == (whole, canonical(whole))


@given(st.lists(TEXTS | st.sampled_from(["\ud83d", "\ude00", "\ud83d\\", '"\ude00"', "\udc00\n"]), max_size=5))
def test_halves_are_kept_until_the_text_is_published(pieces: list[str]) -> None:
    text, whole = Text(), "".join(pieces)
    for piece in pieces:
        text.write(piece)
    assert (text.getvalue(), text.encoded()) == (whole, as_bytes(whole))
    assert text.may_hold_half == any("\ud800" <= char <= "\udfff" for char in whole)
    if text.may_hold_half:
        assert not text.is_said_by(json.dumps(joined(whole)).encode())
