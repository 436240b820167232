"""What cannot be read is refused alike by both paths and at any depth of the call stack, and breaks nothing else."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from processor.core.effects import DeadLetter, LogRecord, Publish
from processor.core.events import decode
from processor.core.json_bytes import MAX_NESTING
from processor.core.partition import PartitionState
from processor.core.responses.wire import TextDelta, WireEvent
from processor.core.wire_types import Decoded, Envelope, NamedRun
from tests.core.responses_log import log_of
from tests.core.scripted_log import RULES, Play, published, refused, run, step, text
from tests.core.test_paths import USUAL, come_to_the_same
from tests.core.test_restart import Topics, outcomes

ODD = (b"1e999", b"9" * 5_000, b"[" * 2_000 + b"]" * 2_000, b"[" * 700 + b"]" * 700)
RUN_ENDS = text({"event": "thread.run.failed", "data": run("failed")})
STREAM: list[dict[str, Any]] = [
    {"type": "response.created", "response": {"id": "resp_1"}},
    {"type": "response.output_item.added", "output_index": 0, "item": {"type": "message", "id": "m"}},
    *({"type": "response.output_text.delta", "output_index": 0, "item_id": "m", "delta": piece} for piece in "abcd"),
    {"type": "response.output_item.done", "output_index": 0, "item": {"type": "message", "id": "m"}},
]


def _with(value: bytes, name: str, content: bytes) -> bytes:
    return value[:-1] + b',"%b":%b}' % (name.encode(), content)


def test_what_one_path_reads_of_an_event_the_other_reads_too() -> None:
    """A field that is skipped unread by one alone may have a number in it that only the other one refuses."""
    of_envelopes = {*Envelope.__struct_fields__} - {"data"}  # which is not decoded there
    assert of_envelopes <= {*NamedRun.__struct_fields__}
    assert of_envelopes | {*WireEvent.__struct_fields__} <= {*TextDelta.__struct_fields__}


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("name", ["id", "object", "specversion", "type", "data_base64", "source", "else"])
def test_a_run_ends_by_what_can_be_read(name: str, odd: bytes) -> None:
    """What no rule names is skipped unread, so its numbers may be any."""
    play = Play(RULES)
    play.created(**USUAL)
    effects = play.put(_with(RUN_ENDS, name, odd))
    if name == "else" and odd[:1] != b"[":
        published(effects)
    else:
        assert refused(effects) == ("too_deep" if odd[:1] == b"[" else "not_json")
    come_to_the_same(play.log, RULES)


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize(
    "name", ["item_id", "item", "part", "text", "output", "id", "source", "object", "else", "data"]
)
@pytest.mark.parametrize("at", [2, 3, 4, 5])
def test_a_delta_of_a_response_that_cannot_be_read_harms_no_other_event(name: str, odd: bytes, at: int) -> None:
    """Whether its text has a template or none yet."""
    events = [event | {"sequence_number": number} for number, event in enumerate(STREAM)]
    log = log_of(events)
    was = log[at]
    assert was.value is not None
    log[at] = LogRecord(was.offset, was.timestamp, was.key, _with(was.value, name, odd), was.headers)
    found = outcomes(PartitionState("t", 3, RULES).apply(log))
    letters = [effect.reason.value for effect in found if isinstance(effect, DeadLetter)]
    is_skipped = name in ("else", "data") and odd[:1] != b"["
    assert letters == ([] if is_skipped else ["too_deep" if odd[:1] == b"[" else "not_json"])
    assert [type(effect) for effect in found if not isinstance(effect, DeadLetter)] == [Publish]
    come_to_the_same(log, RULES)


def _deeper(frames: int, call: Callable[[], Any]) -> Any:
    return _deeper(frames - 1, call) if frames else call()


@pytest.mark.parametrize("levels", [MAX_NESTING - 3, MAX_NESTING - 2, MAX_NESTING - 1, MAX_NESTING, 850, 930, 960, 990])
@pytest.mark.parametrize("brackets", [b"[]", b"{}"])
def test_how_deep_a_value_may_be_hangs_on_the_value_alone(levels: int, brackets: bytes) -> None:
    """A replay stands elsewhere on the stack than a worker, and other builds of Python go further or less far."""
    opened, closed = brackets[:1] + (b'"a":' if brackets == b"{}" else b""), brackets[1:]
    odd = opened * (levels - 1) + brackets + closed * (levels - 1)
    inner = b'{"id":"r1","status":"failed","x":%b}' % odd
    named = b'{"event":"thread.run.failed","data":%b}' % inner
    for value, around, headers in (
        (named, 2, ()),
        (b"data: " + named, 2, ()),
        (b"event: thread.run.failed\ndata: " + inner, 1, ()),
        (inner, 1, (("ce_specversion", b"1.0"), ("ce_type", b"thread.run.failed"))),
        (b'{"specversion":"1.0","type":"thread.run.failed","data_base64":"%b"}' % b64encode(inner), 1, ()),
        (b'{"specversion":"1.0","type":"thread.run.failed","data":%b}' % inner, 2, ()),
        (b'{"event":"thread.created","data":%b}' % inner, 2, ()),
        (b'{"type":"response.odd","sequence_number":0,"x":%b}' % odd, 1, ()),
        (b"event: response.odd\ndata: {%b}" % (b'"sequence_number":0,"x":' + odd), 1, ()),
        (b"{%b}" % (b'"sequence_number":0,"x":' + odd), 1, (("ce_specversion", b"1.0"), ("ce_type", b"response.odd"))),
    ):
        found = [_deeper(frames, partial(decode, value, headers)) for frames in (0, 50, 200)]
        assert found[0] == found[1] == found[2]
        assert isinstance(found[0], Decoded) is (levels + around <= MAX_NESTING), value[:60]


def test_what_is_ignored_without_reading_it_may_be_as_deep_as_it_likes() -> None:
    for value in (
        b"event: thread.message.delta\ndata: " + b"[" * 2_000,
        b'{"event":"thread.message.x",' + b"[" * 2_000,
    ):
        assert isinstance(decode(value), Decoded)


@pytest.mark.parametrize("step_id", ["\0", "\0resp_1"])
def test_no_step_takes_the_name_of_a_response(step_id: str) -> None:
    """Among the entries a response is named by NUL and its id: a step so named broke it, and every restart."""
    play, topics = Play(RULES), Topics(0)
    details = {"step_details": {"type": "tool_calls", "tool_calls": []}}
    for name, status in (("created", "in_progress"), ("in_progress", "in_progress"), ("completed", "completed")):
        assert refused(play.say(f"step.{name}", step(status, step_id, **USUAL))) == "malformed"
        assert refused(play.put(b"data: " + text(step(status, step_id, type="tool_calls") | details))) == "malformed"
    delta = {"id": step_id, "object": "thread.run.step.delta", "delta": details}
    assert refused(play.say("step.delta", delta)) == refused(play.put(text(delta))) == "malformed"
    come_to_the_same(play.log, RULES)
    state = topics.restore(RULES)
    topics.commit(state, [*state.apply(play.log), *state.checkpoint(1 << 40)])
    assert not topics.restore(RULES).steps


@pytest.mark.parametrize("more", [{"failed_at": 1 << 70}, {"last_error": {"code": 1 << 70}}, {"last_error": [1 << 70]}])
def test_a_number_of_more_than_64_bits_in_the_end_of_a_run_ends_its_steps(more: dict[str, Any]) -> None:
    """MessagePack, in which ended steps are kept, has no such numbers."""
    play = Play(RULES)
    play.created(**USUAL)
    effect = published(play.say("run.failed", run("failed", **more)))
    assert str(1 << 70).encode() in effect.value
    assert published(play.say("step.created", step(step_id="s2", **USUAL))).anomalies == ("after_run_ended",)
    assert play.completed().revision == 1
    come_to_the_same(play.log, RULES)
    topics = Topics(0)
    state = topics.restore(RULES)
    topics.commit(state, state.apply(play.log[:2]))
    again = topics.restore(RULES)
    assert [effect.value for effect in outcomes(again.apply(play.log))] == [effect.value for effect in play.effects[1:]]


def test_bytes_that_are_no_text_refuse_the_frame_that_has_them_alone() -> None:
    """Of an event that is ignored, too."""
    play = Play()
    good = b"event: thread.run.step.created\ndata: " + text(step()) + b"\n\n"
    (letter,) = play.put(good + b"event: thread.message.delta\ndata: \xff\n\n")
    assert refused([letter]) == "not_json"
    assert dict(letter.headers)["runstep-event-number"] == b"2/2"
    assert play.state.open_steps == 1
