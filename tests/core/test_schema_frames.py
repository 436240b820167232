"""Values behind the frame of a schema registry, and headers that say what they should and cannot: named, or read."""

from __future__ import annotations

import base64
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.core.effects import DeadLetter, LogRecord, Publish, Reason, Rejected
from processor.core.events import decode
from processor.core.partition import PartitionState
from processor.core.rules import Rules
from processor.core.wire_types import Decoded
from tests.core.scripted_log import step, text

_EVENT = text({"event": "thread.run.step.completed", "data": step("completed")})
_ID = uuid.UUID("01234567-89ab-cdef-0123-456789abcdef")
_FRAMES = {
    "byte 0, schema id 7": b"\0\0\0\0\x07",
    "byte 0, schema id 4294967297": b"\0\0\0\0\x01\0\0\0\x01",
    f"byte 1, schema {_ID}": b"\x01" + _ID.bytes,
    f"schema version {_ID}": b"\x03\0" + _ID.bytes,
}


@pytest.mark.parametrize("shown", _FRAMES)
def test_a_frame_is_named_where_it_is_not_read(shown: str) -> None:
    got = decode(_FRAMES[shown] + _EVENT)
    assert isinstance(got, Rejected)
    assert got.reason is Reason.NOT_JSON
    assert shown in got.detail
    assert "source.schema_frames" in got.detail


@pytest.mark.parametrize("shown", _FRAMES)
@pytest.mark.parametrize("value", [_EVENT, b" \n" + _EVENT, text(step("completed", object="thread.run.step"))])
def test_behind_a_frame_stands_what_would_stand_without(shown: str, value: bytes) -> None:
    if len(_FRAMES[shown]) == 9:  # eight bytes of id are known by the brace behind them
        value = value.lstrip()
    assert decode(_FRAMES[shown] + value, (), True) == decode(value)


def test_what_cannot_be_read_behind_a_frame_says_that_there_is_one() -> None:
    for value, reason in ((b"{", Reason.NOT_JSON), (b'{"a":1}', Reason.MALFORMED)):
        got = decode(b"\0\0\0\0\x07" + value, (), True)
        assert isinstance(got, Rejected)
        assert got.reason is reason
        assert got.detail.startswith("after a Schema Registry frame (byte 0, schema id 7): ")
    packed = decode(b"\x03\x05" + _ID.bytes + b"x\x9c", (), True)
    assert isinstance(packed, Rejected)
    assert "compressed" in packed.detail


@given(st.binary(max_size=40), st.booleans())
def test_no_bytes_break_it(value: bytes, with_frames: bool) -> None:
    assert isinstance(decode(value, (), with_frames), Rejected | Decoded)
    assert isinstance(decode(b"\0" + value, (), with_frames), Rejected | Decoded)


def test_the_switch_is_a_rule_and_dead_letters_keep_the_frame() -> None:
    framed = [LogRecord(n, 1_000 + n, b"k", b"\0\0\0\0\x07" + value) for n, value in enumerate((_EVENT, b"{"))]
    for with_frames, published, refused in ((False, 0, 2), (True, 1, 1)):
        rules = Rules(schema_frames=with_frames)
        effects = PartitionState("in", 0, rules, next_offset=0, live_from=0).apply(framed)
        letters = [effect for effect in effects if isinstance(effect, DeadLetter)]
        assert len([effect for effect in effects if isinstance(effect, Publish)]) == published
        assert [letter.value for letter in letters] == [record.value for record in framed[-refused:]]
    assert Rules(schema_frames=True).digest() != Rules().digest()


def test_the_rules_without_the_switch_have_the_digest_that_they_had_before_it() -> None:
    assert Rules(max_step_bytes=8 << 20).digest() == "d063af78578bdcec"


def test_an_id_in_a_header_changes_nothing() -> None:
    headers = [("__value_schema_id", b"\x01" + _ID.bytes), ("content-type", b"application/json+" + _ID.hex.encode())]
    assert decode(_EVENT, headers) == decode(_EVENT)


@pytest.mark.parametrize(
    ("named", "reason", "why"),
    [(None, Reason.MALFORMED, "null"), (b"\xffthread.run.step.completed", Reason.NOT_JSON, "not UTF-8")],
)
def test_a_type_that_cannot_be_read_is_named_by_its_header(named: bytes | None, reason: Reason, why: str) -> None:
    headers = [("ce_specversion", b"1.0"), ("ce_type", named)]
    got = decode(text(step("completed")), headers)
    assert got == Rejected(reason, f"header ce_type is {why}")
    assert decode(_EVENT, headers) == decode(_EVENT), "a value that names its event needs no header"


def test_an_event_name_in_sse_text_that_is_not_utf_8_is_named() -> None:
    got = decode(b"event: \xff\ndata: {}\n\n")
    assert isinstance(got, Rejected)
    assert "event's name" in got.detail


def test_base64_data_that_is_not_utf_8_is_still_told() -> None:
    cloud = {
        "specversion": "1.0",
        "type": "thread.run.step.completed",
        "data_base64": base64.b64encode(b"\xff").decode(),
    }
    assert isinstance(decode(text(cloud)), Rejected)
