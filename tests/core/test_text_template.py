"""Templates of text deltas of Responses: whatever a template takes, decoding in full reads the same."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from processor.core.effects import LogRecord
from processor.core.partition import PartitionState
from processor.core.responses.response import Response
from processor.core.responses.text_template import TextTemplate, _begin_of, _end_of, learn_shape
from processor.core.run_steps.fast_path import Paths
from processor.core.wire_types import read_any
from tests.core.responses_log import RULES, log_of, renumbered
from tests.core.responses_strategies import SHAPES, SPELLINGS
from tests.examples import examples

TEXTS = st.text(max_size=6) | st.sampled_from(["", '"', "\\", '\\"', '"}', '","obfuscation":"', "\x00", "\ud7ff", "é"])
IDS = st.sampled_from(["msg_1", "", "a-b.c", "fa6f3a83-5d25"])
PADDINGS = st.sampled_from(["", "aZ09", "0"])
NUMBERS = st.sampled_from([0, 9, 10, 4_095, 4_096, 1 << 40])
USED = {0, 1, 2, 3, 4, 6}
"""The shapes that have a template: in the others the padding stands before the text."""


def delta(shape: Sequence[str], number: int, text: str, padding: str, item_id: str, index: int = 2) -> dict[str, Any]:
    told = {
        "type": "response.output_text.delta", "sequence_number": number, "item_id": item_id, "output_index": index,
        "content_index": 0, "delta": text, "logprobs": [], "obfuscation": padding,
    }  # fmt: skip
    return {name: told[name] for name in shape}


def spelled(event: dict[str, Any], separators: tuple[str, str], ascii_only: bool) -> bytes:
    return json.dumps(event, separators=separators, ensure_ascii=ascii_only).encode()


def learned(value: bytes) -> TextTemplate | None:
    shape = learn_shape(value)
    return None if shape is None else shape.template_of(value)


@pytest.mark.parametrize("number", range(len(SHAPES)))
@pytest.mark.parametrize("separators", SPELLINGS)
def test_the_shapes_of_services_are_learned_and_serve_every_text(number: int, separators: tuple[str, str]) -> None:
    shape = SHAPES[number]
    found = learn_shape(spelled(delta(shape, 7, 'a"b', "aZ", "msg_1"), separators, True))
    assert (found is not None) is (number in USED)
    if found is None:
        return
    other = spelled(delta(shape, 12, "of another item", "", "msg_2", 31), separators, True)
    template = found.template_of(other)
    assert template is not None
    for count, text in ((12, ""), (99, 'x"\\\n'), (4_321, "é")):
        value = spelled(delta(shape, count, text, "0a", "msg_2", 31), separators, False)
        assert template.text_in(value, count) == text
        assert template.text_in(value, count + 1) is None


@settings(max_examples=examples(400), deadline=None)
@given(st.sampled_from(SHAPES), st.sampled_from(SPELLINGS), st.booleans(), st.data())
def test_what_a_template_takes_is_read_the_same_in_full(
    shape: Sequence[str], separators: tuple[str, str], ascii_only: bool, data: st.DataObject
) -> None:
    """Of a delta that is right, and of one with a byte too many, too few, or another."""
    item_id, number = data.draw(IDS), data.draw(NUMBERS)
    first = delta(shape, data.draw(NUMBERS), data.draw(TEXTS), data.draw(PADDINGS), item_id)
    template = learned(spelled(first, separators, ascii_only))
    if template is None:
        return
    event = delta(shape, number, data.draw(TEXTS), data.draw(PADDINGS), item_id)
    value = bytearray(spelled(event, separators, ascii_only))
    assert template.text_in(bytes(value), number) == event["delta"]
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(value) - 1))
        cut = data.draw(st.integers(0, 30))
        value[at : at + cut] = data.draw(
            st.sampled_from([b"", b'"', b"\\", b"0", b"-", b"\xff", b"\n", b'"x":1,', b"}"])
        )
        if not value:
            return
        text = template.text_in(bytes(value), number)
        if text is not None:
            bytes(value).decode()
            expected = first | {"delta": text, "sequence_number": number}
            told = read_any(bytes(value))
            assert told | {"obfuscation": 0} == expected | {"obfuscation": 0}
            assert isinstance(told.get("obfuscation", ""), str)


@settings(deadline=None)
@given(st.binary(max_size=40), st.integers(0, 12))
@example(b'":"', 1)
def test_any_bytes_for_a_text_and_its_padding(odd: bytes, number: int) -> None:
    """Head and tail overlap, parts are found inside of a text: what is taken is JSON and says so."""
    for shape in (SHAPES[0], SHAPES[1], SHAPES[2]):
        value = spelled(delta(shape, 7, "a", "b", "m"), (",", ":"), True)
        template = learned(value)
        assert template is not None
        begin = value.index(b'"delta":"') + 9
        for end in range(begin, len(value) + 1):
            other = value[:begin] + odd + value[end:]
            text = template.text_in(other, number)
            assert text is None or read_any(other)["delta"] == text


@pytest.mark.parametrize(
    "value",
    [
        '{"type":"response.output_text.delta","delta":"a","delta":"b","sequence_number":1,"output_index":0}',
        '{"x":{"delta":"a"},"delta":"b","sequence_number":1,"output_index":0}',
        '{"delta":"a","sequence_number":1e0,"output_index":0}',
        '{"delta":"a","sequence_number":1,"output_index":0,"obfuscation":"a b"}',
        '{"delta":"a","sequence_number":1,"output_index":0,"item_id":null}',
        '{"x":"\\"delta\\":\\"","delta":"b","sequence_number":1,"output_index":0,"sequence_number":2}',
        '{"delta":"a","sequence_number":1,"output_index":-1}',
    ],
)
def test_where_the_places_are_not_certain_nothing_is_learned(value: str) -> None:
    assert learn_shape(value.encode()) is None


@pytest.mark.parametrize("named", [True, False])
def test_the_template_is_used(monkeypatch: pytest.MonkeyPatch, named: bool) -> None:
    """Else the properties would compare decoding with itself: of a text only its first deltas are decoded."""
    events: list[dict[str, Any]] = [
        {"type": "response.created", "sequence_number": 0, "response": {"id": "resp_1"}},
        {"type": "response.output_item.added", "sequence_number": 1, "output_index": 2, "item": {"type": "message"}},
        *(delta(SHAPES[1], number, f" w{number}", "pad", "msg_1") for number in range(2, 20)),
    ]
    records = [
        LogRecord(r.offset, r.timestamp, r.key if named else b"other", r.value, list(r.headers))  # type: ignore[arg-type]
        for r in log_of(events)
    ]
    state = PartitionState("t", 3, RULES)
    state.apply(records[:6])
    calls: list[int] = []
    real = TextTemplate.text_in

    def seen(self: TextTemplate, value: bytes, number: int) -> str | None:
        calls.append(number)
        return real(self, value, number)

    if not hasattr(TextTemplate, "__mypyc_attrs__"):
        monkeypatch.setattr(TextTemplate, "text_in", seen)
        monkeypatch.setattr("processor.core.responses.fast_path.read_delta", None)
    state.apply(records[6:])
    response = state.steps["\0resp_1"].step
    assert isinstance(response, Response)
    (text,) = response.items[2].texts.values()
    assert text.getvalue() == "".join(f" w{number}" for number in range(2, 20))
    assert calls in ([], list(range(6, 20)))


def test_responses_whose_ids_end_alike_take_turns() -> None:
    """A response is looked for by how its id ends: which one it is, the whole id says.

    Each has the number next that the one before it had last, and an item of the same id.
    """
    names = ("resp_a_001", "resp_b_001", "resp_b_a_001", "01")
    streams = []
    for at, name in enumerate(names):
        opened: list[dict[str, Any]] = [
            {"type": "response.created", "response": {"id": name}},
            {"type": "response.output_item.added", "output_index": 2, "item": {"type": "message"}},
        ]
        opened += (delta(SHAPES[0], 0, f"{name} {number} ", "pad", "msg_1") for number in range(9))
        streams.append(log_of([event | {"sequence_number": at + n} for n, event in enumerate(opened)]))
    state = PartitionState("t", 3, RULES, paths=Paths.BOTH)
    for r in renumbered(record for turn in zip(*streams, strict=True) for record in turn):
        state.apply([LogRecord(r.offset, r.timestamp, r.key, r.value, list(r.headers))])  # type: ignore[arg-type]
    for name in names:
        response = state.steps["\0" + name].step
        assert isinstance(response, Response)
        (text,) = response.items[2].texts.values()
        assert text.getvalue() == "".join(f"{name} {number} " for number in range(9))


def test_what_stands_around_the_text_must_be_the_same() -> None:
    """Also where it is as long, and where the padding is no plain string."""
    for shape in (SHAPES[0], SHAPES[1]):
        value = spelled(delta(shape, 7, "a", "PAD", "m"), (",", ":"), True)
        template = learned(value)
        assert template is not None
        assert template.text_in(value, 7) == "a"
        for odd in (b"\xff", b"a\\", b"a\n", b'a\\"', b"a b", b"\xc3\xa9"):
            assert template.text_in(value.replace(b"PAD", odd), 7) is None
        assert template.text_in(value.replace(b'"logprobs":[]', b'"logprobs":{}'), 7) is None
        assert template.text_in(value.replace(b'"obfuscation"', b'"Obfuscation"'), 7) is None
        assert template.text_in(value.replace(b'"delta":"a"', b'"delta":"'), 7) is None


def test_a_text_that_json_cannot_hold_is_not_taken() -> None:
    template = learned(spelled(delta(SHAPES[0], 7, "a", "b", "m"), (",", ":"), True))
    assert template is not None
    for broken in (b"\xff", b"\\x", b"\n", b'"', b"\\", b"\\ud83d"):
        value = spelled(delta(SHAPES[0], 7, "@", "b", "m"), (",", ":"), True).replace(b"@", broken)
        assert template.text_in(value, 7) is None
        with pytest.raises((msgspec.MsgspecError, UnicodeDecodeError)):
            read_any(value)


@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[4], SHAPES[1]])
def test_each_part_of_a_delta_is_looked_at(shape: Sequence[str]) -> None:
    value = spelled(delta(shape, 7, "@", "PAD", "m"), (",", ":"), True)
    template = learned(value)
    assert template is not None
    assert template.matches(value, 7)
    assert value[template.begin : template.end] == b"@"
    for digits in (b"07", b"", b"-7", b"%d" % (7 + (1 << 64)), b"7.0"):
        for number in (7, 0):
            assert not template.matches(value.replace(b'number":7', b'number":' + digits), number)
    assert not template.matches(value.replace(b'"sequence_number"', b'"sequence-number"'), 7)
    for odd in (b"@", b":", b"`", b"[", b"_", b"/", b"{") if b"PAD" in value else ():
        assert not template.matches(value.replace(b"PAD", b"P" + odd + b"D"), 7)
    for text in ("é".encode(), b"\\n", b'a\\"', b"\\\\"):
        other = value.replace(b'"@"', b'"' + text + b'"')
        assert template.matches(other, 7)
        assert other[template.begin : template.end] == text


@pytest.mark.parametrize("shape", [*SHAPES[:2], ("item_id", "sequence_number", "delta", "output_index", "type")])
def test_a_value_of_another_shape_has_no_template(shape: Sequence[str]) -> None:
    """Where it is as long, too: its text would be taken for another one. What names the item may stand in front."""
    value = spelled(delta(shape, 7, "a", "PAD", "m"), (",", ":"), True)
    found = learn_shape(value)
    assert found is not None
    template = found.template_of(value)
    assert template is not None
    assert template.text_in(spelled(delta(shape, 8, "b", "PAD", "m"), (",", ":"), True), 8) == "b"
    for one, other in ((b"output_text", b"output_tixt"), (b"_number", b"-number"), (b'"delta"', b'"Delta"')):
        assert one in value
        assert found.template_of(value.replace(one, other)) is None
    for odd in (value + b" ", value[:-1], value.replace(b":7", b":x"), value.replace(b':"a"', b':"a')):
        assert found.template_of(odd) is None


@pytest.mark.parametrize("shape", SHAPES[:5])
@pytest.mark.parametrize("text", ["", "plain", 'a\\"b\\"', "\\" * 9])
def test_a_delta_that_was_cut_anywhere_is_not_taken(shape: Sequence[str], text: str) -> None:
    """Nor is a byte read that is not there."""
    value = spelled(delta(shape, 7, text, "PAD", "m"), (",", ":"), True)
    template = learned(spelled(delta(shape, 7, "a", "b", "m"), (",", ":"), True))
    assert template is not None
    assert template.matches(value, 7)
    assert not any(template.matches(value[:end], 7) for end in range(len(value)))


def test_a_long_text_is_left_to_be_decoded() -> None:
    template = learned(spelled(delta(SHAPES[0], 7, "a", "b", "m"), (",", ":"), True))
    assert template is not None
    for size in (4_095, 4_096):
        value = spelled(delta(SHAPES[0], 7, "a" * size, "b", "m"), (",", ":"), True)
        assert template.matches(value, 7) is (size == 4_095)


@pytest.mark.parametrize(
    ("place", "value", "content"),
    [
        ("delta", b'{"delta":"a\\\\\\"b"}', b'a\\\\\\"b'),
        ("delta", b'{"delta": "a"}', b"a"),
        ("delta", b'{"delta":"","x":1}', b""),
        ("delta", b'{"delta":null}', None),
        ("delta", b'{"delta" :"a"}', None),
        ("delta", b'{"delta":"a', None),
        ("delta", b'{"x":"a"}', None),
        ("sequence_number", b'{"sequence_number":0}', b"0"),
        ("sequence_number", b'{"sequence_number": 10}', b"10"),
        ("sequence_number", b'{"sequence_number":}', None),
        ("sequence_number", b'{"sequence_number":01}', None),
        ("sequence_number", b'{"sequence_number":"1"}', None),
        ("output_index", b'{"output_index":7,"x":1}', b"7"),
        ("output_index", b'{"output_index":null}', None),
        ("item_id", b'{"item_id":"a-b.c"}', b"a-b.c"),
        ("item_id", b'{"item_id":"a b"}', None),
        ("item_id", b'{"item_id":null,"x":"a"}', None),
        ("item_id", b'{"item_id":"a', None),
        ("obfuscation", b'{"obfuscation":"aZ09"}', b"aZ09"),
        ("obfuscation", b'{"obfuscation":""}', b""),
        ("obfuscation", b'{"obfuscation":"a-b"}', None),
    ],
)
def test_a_place_begins_and_ends_where_its_content_does(place: str, value: bytes, content: bytes | None) -> None:
    begin = _begin_of(place, value)
    end = _end_of(place, value, begin)
    assert (value[begin:end] if min(begin, end) >= 0 else None) == content
