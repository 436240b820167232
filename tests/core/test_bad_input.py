"""Whatever bytes come: reading never raises, the fold never breaks, named pills are refused for the right reason."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.core.effects import DeadLetter, Headers, LogRecord, Publish, Reason, Rejected
from processor.core.events import decode
from processor.core.lifecycle import Kind
from processor.core.partition import PartitionState
from processor.core.rules import Rules
from processor.core.wire_types import Decoded, Event, Ignored, RunEnd, StepObject
from processor.publish.command import sample_files
from tests.core.scripted_log import Play, call, calls, published, refused, step, text

SAMPLES = b"".join(path.read_bytes() for path in sample_files())
FRAMES = [frame for frame in SAMPLES.split(b"\n\n") if b"thread.run" in frame]
CREATED = b'{"event":"thread.run.step.created","data":{"id":"s1","x":%b}}'
THREAD = b'{"event":"thread.created","data":{"id":"t1","x":%b}}'
RUN = b'{"event":"thread.run.failed","data":{"id":"r1","status":"failed","x":%b}}'


def reason(value: bytes, headers: Headers = ()) -> str:
    found = decode(value, headers)
    assert isinstance(found, Rejected), found
    return found.reason.value


def events(value: bytes | None, headers: Headers = ()) -> tuple[Event, ...]:
    found = decode(value, headers)
    assert isinstance(found, Decoded), found
    return found.events


# --- anything at all

HEADERS = st.lists(
    st.tuples(
        st.sampled_from(["content-type", "ce_type", "ce_specversion", "ce_id", "ce_source", "runstep-event-id", "x"]),
        st.one_of(
            st.none(),
            st.binary(max_size=8),
            st.sampled_from(
                [
                    b"application/cloudevents+json",
                    b"application/cloudevents-batch+json",
                    b"thread.run.step.delta",
                    b"1.0",
                ]
            ),
        ),
    ),
    max_size=4,
)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A frame of a sample, or its JSON alone, with some bytes changed, taken out, doubled or put in."""
    value = bytearray(draw(st.sampled_from(FRAMES)))
    if draw(st.booleans()):
        value = value.partition(b"\ndata: ")[2]
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(value)))
        match draw(st.sampled_from(["set", "cut", "double", "put", "nest"])):
            case "set":
                value[at : at + 1] = bytes([draw(st.integers(0, 255))])
            case "cut":
                del value[at : at + draw(st.integers(1, 40))]
            case "double":
                value[at:at] = value[at : at + draw(st.integers(1, 200))]
            case "put":
                value[at:at] = draw(
                    st.sampled_from([b'"', b"{", b"]", b"null", b"\\ud800", b"1e999", b"\xff", b"\n\n", b"\r"])
                )
            case "nest":
                value[at:at] = b"[" * draw(st.sampled_from([50, 101, 5_000]))
    return bytes(value)


@given(st.one_of(st.binary(max_size=200), mutated(), mutated(), mutated()), HEADERS)
def test_reading_never_raises(value: bytes, headers: list[tuple[str, bytes | None]]) -> None:
    found = decode(value, headers)
    if isinstance(found, Decoded):
        assert len(found.events) == len(found.ids) > 0
    else:
        assert 0 < len(found.detail) <= 200


@given(
    st.lists(st.one_of(mutated(), st.sampled_from(FRAMES)), max_size=12), st.lists(HEADERS, min_size=12, max_size=12)
)
def test_the_fold_never_breaks_and_loses_nothing(values: list[bytes], headers: list[Any]) -> None:
    """Without an end a record leaves no trace but its counts, or a dead letter with the very same bytes."""
    state = PartitionState("t", 0, Rules(max_step_bytes=4_000, max_record_bytes=3_000))
    records = [LogRecord(n, n, b"k%d" % n, v, tuple(h)) for n, (v, h) in enumerate(zip(values, headers, strict=False))]
    for effect in state.apply(records):
        if isinstance(effect, DeadLetter):
            assert effect.reason is not Reason.INTERNAL_ERROR, effect.detail
            if effect.reason is not Reason.SNAPSHOT_TOO_LARGE:
                record = records[effect.offset]
                assert (effect.key, effect.value) == (record.key, record.value)
        elif isinstance(effect, Publish):
            json.loads(effect.value)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "id",
                        "type",
                        "tool_calls",
                        "function",
                        "arguments",
                        "index",
                        "code_interpreter",
                        "outputs",
                        "logs",
                        "azure_ai_search",
                    ]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=15,
    ).flatmap(lambda odd: st.tuples(st.just(odd), st.sampled_from(["delta", "created", "in_progress", "completed"]))),
    st.data(),
)
def test_details_of_any_shape_never_break_the_fold(first: tuple[Any, str], data: st.DataObject) -> None:
    """Right names in wrong places and of wrong types, over each other."""
    play = Play()
    play.created()
    play.say(
        "step.delta",
        calls(call(0, "a", id="c1"), call(1, code_interpreter={"input": "x", "outputs": [{"index": 0, "logs": "l"}]})),
    )
    odd, name = first
    entry = odd if isinstance(odd, dict) else {"odd": odd}
    details = {"type": "tool_calls", "tool_calls": [{"index": data.draw(st.integers(0, 2))} | entry], "more": odd}
    body = (
        {"id": "s1", "delta": {"step_details": details}}
        if name == "delta"
        else step("completed" if name == "completed" else "in_progress", step_details=details)
    )
    for effect in (
        *play.say(f"step.{name}", body),
        *play.say("step.completed", step("completed", step_details=details)),
    ):
        assert isinstance(effect, Publish) or effect.reason is not Reason.INTERNAL_ERROR, effect


def test_a_bug_of_ours_is_quarantined_and_the_partition_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    play = Play()
    play.created()

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("with the payload in its words")

    with monkeypatch.context() as patch:
        patch.setattr("processor.core.run_steps.slow_path.move", broken)
        (effect,) = play.say("step.in_progress", step())
    assert isinstance(effect, DeadLetter)
    assert (effect.reason, effect.detail) == (Reason.INTERNAL_ERROR, "ZeroDivisionError in the fold; please report it")
    (again,) = play.say("step.completed", step("completed"))
    assert isinstance(again, DeadLetter)
    assert (again.reason, again.detail[:24]) == (Reason.INTERNAL_ERROR, "the step is quarantined:")
    play.say("step.created", step(step_id="s2"))
    (other,) = play.say("step.completed", step("completed", "s2"))
    assert isinstance(other, Publish)


def test_no_record_is_rejected_for_want_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    play = Play()
    play.created()

    def starved(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("processor.core.run_steps.slow_path.move", starved)
    with pytest.raises(MemoryError):
        play.say("step.in_progress", step())


# --- pills with a name


NO_NUMBERS = (b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1e999", b"01", b"9" * 5_000)
NO_STRINGS = (
    *(b'"\\ud80"', b'"a\x01"', b'"\xff"', b'"\xed\xa0\x80"', b'"\xc3("', b'"\xc0\x80"', b'"\xf4\x90\x80\x80"'),
)


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (b"[" * 200_000, "too_deep"),
        (b'{"a":' * 200_000, "too_deep"),
        (CREATED % (b"[" * 100_000 + b"]" * 100_000), "too_deep"),
        (THREAD % (b"[" * 100_000 + b"]" * 100_000), "too_deep"),
        (b"[1,2", "not_json"),
        (b"{", "not_json"),
        (b"hello", "not_json"),
        (b"\xef\xbb\xbf", "not_json"),
        (b"\xef\xbb\xbf\xef\xbb\xbf{}", "not_json"),
        (b"\x00", "not_json"),
        (b"{} {}", "not_json"),
        (b"[]", "malformed"),
        (b"{}", "malformed"),
        (b"null", "malformed"),
        (b"7", "malformed"),
        (b'"thread.run.step.created"', "malformed"),
        (b'{"event":"thread.run.step.created"}', "malformed"),
        (b'{"event":"thread.run.step.created","data":null}', "malformed"),
        (b'{"event":"thread.run.step.created","data":[]}', "malformed"),
        (b'{"event":"thread.run.failed","data":[1]}', "malformed"),
        (b'{"event":7,"data":{}}', "malformed"),
        *((CREATED % number, "not_json") for number in NO_NUMBERS),
        *((form % string, "not_json") for form in (CREATED, THREAD, RUN) for string in NO_STRINGS),
        (THREAD % b"NaN", "not_json"),
        (b'{"event":"ping","data":{},"\xff":1}', "not_json"),
        (b": \xff\n\ndata: [DONE]\n\n", "not_json"),
        (b"event: \xff\ndata: {}\n\n", "not_json"),
        (b"data: {}\n\n", "malformed"),
        (b"event: thread.run.step.created\ndata: nothing\n\n", "not_json"),
        (b"event: thread.run.failed\ndata: [1,2\n\n", "not_json"),
    ],
)  # fmt: skip
def test_pills_are_refused_for_the_right_reason(value: bytes, wanted: str) -> None:
    assert reason(value) == wanted


@pytest.mark.parametrize(
    "fields",
    [
        {"id": None}, {"id": ""}, {"id": 5}, {"id": "x" * 257}, {"status": 5}, {"run_id": []}, {"type": 1},
        {"step_details": []}, {"step_details": "x"}, {"step_details": {"type": 1}},
        {"step_details": {"tool_calls": {}}}, {"step_details": {"tool_calls": [1]}},
    ],
)  # fmt: skip
def test_a_wrong_type_where_it_matters_is_malformed(fields: dict[str, Any]) -> None:
    value = text({"event": "thread.run.step.completed", "data": step("completed") | fields})
    assert reason(value) == "malformed"
    if fields.keys() <= {"id", "step_details"}:
        data = {"id": fields.get("id", "s1"), "delta": {"step_details": fields.get("step_details")}}
        assert reason(text({"event": "thread.run.step.delta", "data": data})) == "malformed"


@pytest.mark.parametrize("delta", [None, [], "x", 5])
def test_a_delta_that_is_no_object_is_malformed(delta: Any) -> None:
    assert reason(text({"event": "thread.run.step.delta", "data": {"id": "s1", "delta": delta}})) == "malformed"


@pytest.mark.parametrize(
    ("value", "headers", "wanted"),
    [
        (text({"specversion": "1.0", "type": "thread.run.step.created", "data_base64": "?"}), [], "malformed"),
        (text({"specversion": "1.0", "type": "thread.run.step.created", "data_base64": "e30"}), [], "malformed"),
        (text({"specversion": "1.0", "type": "thread.run.step.created", "data_base64": "e30g="}), [], "malformed"),
        (text({"specversion": "1.0", "type": "thread.run.step.created", "data_base64": "é"}), [], "malformed"),
        (text({"specversion": "1.0", "type": "thread.message.delta", "data_base64": "ey/+"}), [], "not_json"),
        (text({"specversion": "1.0", "type": "thread.run.step.created"}), [], "malformed"),
        (b"{}", [("content-type", b"application/cloudevents+json")], "malformed"),
        (b"{}", [("content-type", b"application/cloudevents-batch+json")], "malformed"),
        (b"{", [("content-type", b"application/cloudevents-batch+json")], "not_json"),
        (b"[1]", [("content-type", b"application/cloudevents-batch+json")], "malformed"),
        (b"{", [("ce_specversion", b"1.0"), ("ce_type", b"thread.run.step.created")], "not_json"),
        (b"[1,2", [("ce_specversion", b"1.0"), ("ce_type", b"thread.run.failed")], "not_json"),
        (b"{}", [("ce_specversion", b"1.0"), ("ce_type", b"\xff")], "not_json"),
    ],
)
def test_cloud_events_that_cannot_be_used(value: bytes, headers: Headers, wanted: str) -> None:
    assert reason(value, headers) == wanted


def test_a_rejection_tells_nothing_of_the_payload() -> None:
    for form in (CREATED, THREAD, RUN):
        for pill in (b'"secret\xff"', b'"secret\\ud800"', b"secret", b"1e999"):
            found = decode(form % pill)
            assert not isinstance(found, Rejected) or "secret" not in found.detail


@pytest.mark.parametrize(("levels", "fits"), [(98, True), (99, False), (101, False), (900, False)])
def test_a_step_event_may_be_nested_a_hundred_levels(levels: int, fits: bool) -> None:
    """`data` and the delta's own braces count: here two of them."""
    nested = b'{"id":"s1","x":{"y":' + b"[" * levels + b"]" * levels + b"}}"
    for value in (
        b'{"event":"thread.run.step.created","data":%b}' % nested,
        b"event: thread.run.step.created\ndata: " + nested,
    ):
        found = decode(value)
        assert isinstance(found, Decoded) is fits
        assert fits or found.reason is Reason.TOO_DEEP  # type: ignore[union-attr]


def test_what_is_nested_a_hundred_levels_is_folded_published_and_checkpointed() -> None:
    play = Play()
    nested: Any = "deepest"
    for _ in range(96):
        nested = {"k": nested}
    play.created(step_details={"type": "tool_calls", "odd": nested})
    assert play.state.checkpoint(1 << 40) != []
    assert b"deepest" in play.completed().value


def test_a_run_is_not_measured_for_its_depth_nor_read_beyond_its_end() -> None:
    (event,) = events(RUN % (b"[" * 150 + b"]" * 150))
    assert event == RunEnd("r1", "failed", None, None)


def test_many_brackets_cost_no_memory() -> None:
    value = b"[" * 100_000_000
    wrapped = CREATED % value[:20_000_000]
    tracemalloc.start()
    try:
        assert reason(value) == "too_deep"
        assert reason(wrapped) == "too_deep"
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_a_step_of_twenty_megabytes_is_refused_by_its_size_and_can_be_allowed() -> None:
    value = text({"event": "thread.run.step.completed", "data": step("completed", metadata={"k": "é" * 10_000_000})})
    assert refused(Play(Rules()).put(value)) == "step_too_large"
    effect = published(Play(Rules(max_step_bytes=1 << 25, max_record_bytes=1 << 25)).put(value))
    assert len(effect.value) > 20_000_000


# --- what looks odd and is right


def test_the_last_of_equal_keys_counts() -> None:
    value = b'{"event":"ping","data":{},"event":"thread.run.step.created","data":{"id":"a","id":"s1","x":1,"x":2}}'
    assert events(value) == (StepObject(Kind.CREATED, "s1", {"id": "s1", "x": 2}),)


@pytest.mark.parametrize(
    "number",
    [
        "18446744073709551616",
        "-9223372036854775809",
        "9" * 400,
        "0.1",
        "1.0",
        "1e16",
        "-0.0",
        "5e-324",
        "123456789012345680.0",
    ],
)
def test_numbers_come_out_as_they_came_in(number: str) -> None:
    """Integers digit by digit, also through a checkpoint; doubles in their shortest form."""
    play = Play()
    play.put(CREATED % number.encode())
    (checkpoint,) = play.state.checkpoint(1 << 40)
    play.state = PartitionState(
        "t", 3, play.state.rules, next_offset=1, live_from=1, stream_time=play.state.stream_time
    )
    play.state.load([(checkpoint.key, checkpoint.value)])  # type: ignore[union-attr, list-item]
    expected = "1.2345678901234568e17" if number.startswith("1234") else number
    assert f'"x":{expected}'.encode() + b"}" == play.completed().value[-len(expected) - 5 :]


def test_a_surrogate_pair_is_one_character_and_text_is_not_escaped() -> None:
    play = Play()
    play.put(CREATED % b'"\\ud83d\\ude00\\u00e9\\u2028/\\u007f\\u0001\\n\\"\\\\"')
    assert '"x":"😀é\u2028/\x7f\\u0001\\n\\"\\\\"'.encode() in play.completed().value


def test_null_and_empty_are_tombstones_and_move_time() -> None:
    play = Play()
    play.put(None, at=2_000)
    play.put(b"", at=3_000)
    assert play.state.counts["tombstone"] == 2
    assert play.state.stream_time == 3_000_000
    assert events(None, [("ce_type", b"x"), ("ce_specversion", b"1")]) == (Ignored("tombstone"),)
