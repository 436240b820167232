"""JSON as bytes: where a text or a number ends in place, it ends as a value of its own."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from processor.core.json_bytes import alphanumeric_end, nests_deeper, number_end, text_end

BYTES = st.lists(st.sampled_from([*b'az09 ~}"\\\x7f\x80\xc3\xa9\x00\x1f\x20']), max_size=80).map(bytes)


@given(st.integers(0, 1200), st.integers(-1, 1200), st.sampled_from(["", "0", "00", "-", "+", " ", "1", "a"]), BYTES)
@example(0, 0, "", b"")
@example(0, 0, "0", b"")
@example(7, 7, "0", b"")
@example(10**15, 10**15, "", b"}")
@example(10**16, 10**16, "", b"}")
@example(2**64 + 5, 5, "", b"}")
def test_a_number_ends_where_its_digits_do(told: int, expected: int, before: str, behind: bytes) -> None:
    digits = f"{before}{told}".encode()
    value = b"x" + digits + behind
    size = 1 + len(digits) + next((n for n, code in enumerate(behind) if not 0x30 <= code <= 0x39), len(behind))
    run = value[1:size]
    is_it = run.isdigit() and str(int(run)).encode() == run and int(run) == expected and expected < 10**16
    assert number_end(value, 1, len(value), expected) == (size if is_it else -1)


def test_no_digits_are_no_number() -> None:
    assert number_end(b"}", 0, 1, 0) == -1
    assert number_end(b"", 0, 0, 0) == -1


@given(BYTES, BYTES)
def test_letters_and_digits_end_where_another_byte_stands(before: bytes, piece: bytes) -> None:
    value = before + piece
    run = next((n for n, code in enumerate(piece) if not (code < 0x80 and chr(code).isalnum())), len(piece))
    assert alphanumeric_end(value, len(before), len(value)) == len(before) + run


@given(BYTES, BYTES, st.integers(0, 80))
def test_a_text_ends_at_the_first_quote_that_no_escape_stands_before(before: bytes, piece: bytes, length: int) -> None:
    value, end = before + piece, min(len(before) + length, len(before) + len(piece))
    at = len(before)
    while at < end and value[at] != 0x22:
        at += 2 if value[at] == 0x5C else 1
    expected = at if at < end else -1
    assert text_end(value, len(before), end) == expected


@given(st.lists(st.sampled_from([*b'[]{}[[{{"\\a,']), max_size=60).map(bytes), st.integers(0, 8))
def test_brackets_nest_outside_of_texts_alone(value: bytes, levels: int) -> None:
    depth = deepest = at = 0
    while at < len(value):
        if value[at] == 0x22:
            end = text_end(value, at + 1, len(value))
            at = len(value) if end < 0 else end
        else:
            depth += (value[at] in b"[{") - (value[at] in b"]}")
        deepest = max(deepest, depth)
        at += 1
    assert nests_deeper(value, levels) is (deepest > levels)
