"""Deltas alone in server-sent events and as bare objects: templates of the whole value, and what they must not take."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from processor.core.effects import LogRecord
from processor.core.run_steps.exact_fold import ExactFold
from processor.core.run_steps.lone_delta import is_alone, read_alone
from tests.core.scripted_log import Play, call, calls, text
from tests.core.test_exact_deltas import ALONE
from tests.core.test_paths import USUAL, come_to_the_same

_DELTA = "thread.run.step.delta"
_LONE = ("SSE", "SSE, lines that end in two bytes", "SSE without a name", "a bare object")
"""The envelopes of `ALONE` in which nothing but a delta's data differs."""
_interpreted = pytest.mark.skipif(
    hasattr(ExactFold, "__mypyc_attrs__"), reason="a compiled class takes no other methods"
)


def _never(*_: Any) -> Any:
    raise AssertionError("decoded")


def _begun(play: Play, *step_ids: str) -> None:
    for step_id in step_ids:
        play.created(step_id=step_id, **USUAL)
        begins = calls(call(0, "", id="c", function={"name": "f"}), step_id=step_id)
        play.say("step.delta", begins)


def _arguments(play: Play, step_id: str) -> str:
    entry = play.state.steps[step_id].materialise()
    found: str = entry.snapshot()["step_details"]["tool_calls"][0]["function"]["arguments"]
    return found


def _put(play: Play, envelope: str, piece: str, step_id: str) -> None:
    value, told = ALONE[envelope](_DELTA, calls(call(0, piece), step_id=step_id), "")
    play.put(value, headers=told)


@_interpreted
@pytest.mark.parametrize("envelope", [*_LONE, "the usual"])
def test_a_lone_delta_is_appended_without_decoding_it(envelope: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the lengths of the ids: behind one that is two letters shorter a quote is where the longer one ends."""
    step_ids = ("s1", "s22", "s300", "s4", "s5000")
    play = Play()
    _begun(play, *step_ids)

    def put(piece: str, step_id: str) -> None:
        if envelope == "the usual":
            play.say("step.delta", calls(call(0, piece), step_id=step_id))
        else:
            _put(play, envelope, piece, step_id)

    for step_id in step_ids:
        for _ in range(3):  # one is read in full, one by the template of its data
            put("a", step_id)
    monkeypatch.setattr(ExactFold, "apply", _never)
    monkeypatch.setattr(ExactFold, "append", _never)
    for piece in ("b", "\u00e9", 'q"\\\n', ""):
        for step_id in ("s1", "s300", "s22", "s5000", "s4"):
            put(piece, step_id)
    monkeypatch.undo()
    assert {_arguments(play, step_id) for step_id in step_ids} == {'aaab\u00e9q"\\\n'}
    come_to_the_same(play.log)


@_interpreted
@pytest.mark.parametrize("usual_last", [True, False])
def test_the_usual_envelope_is_expected_where_others_come_between(
    usual_last: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is expected is one envelope at a time: that of most producers."""
    play = Play()
    step_ids = [f"s{number:02}" for number in range(40)]
    _begun(play, *step_ids)
    said = calls(call(0, "a"), step_id="s00")
    play.say("step.delta", said)
    play.say("step.delta", said)
    for step_id in step_ids[1:20]:
        _put(play, "SSE", "a", step_id)
    if usual_last:
        monkeypatch.setattr(ExactFold, "append", _never)
        play.say("step.delta", said)
    else:  # no longer: so many calls were not by chance
        for step_id in step_ids[20:]:
            _put(play, "SSE", "a", step_id)
        monkeypatch.setattr(ExactFold, "append", _never)
        monkeypatch.setattr(ExactFold, "apply", _never)
        _put(play, "SSE", "a", "s39")
        _put(play, "SSE", "a", "s05")
    monkeypatch.undo()
    come_to_the_same(play.log)


@pytest.mark.parametrize(
    "layout",
    [
        b"id: %d\nevent: thread.run.step.delta\ndata: %b\n\n",
        b"event: thread.run.step.delta\nid: %d\ndata: %b\n\n",
        b"event: thread.run.step.delta\ndata: %b\nid: %d\n\n",
        b": %d\nevent: thread.run.step.delta\ndata: %b\n\n",
    ],
)
def test_what_numbers_its_events_teaches_no_template(layout: bytes) -> None:
    """Each would be a template that no other value fits, and room for templates is bounded."""
    play = Play()
    _begun(play, "s1")
    known = play.state.templates
    for number in range(5):
        data = text(calls(call(0, "a")))
        told = (number, data) if layout.index(b"%d") < layout.index(b"%b") else (data, number)
        play.put(layout % told)
    assert play.state.templates == known
    assert _arguments(play, "s1") == "aaaaa"
    come_to_the_same(play.log)


def _value(envelope: str, piece: str, step_id: str = "s1") -> bytes:
    return ALONE[envelope](_DELTA, calls(call(0, piece), step_id=step_id), "")[0]


@pytest.mark.parametrize("envelope", _LONE)
def test_only_a_lone_delta_is_read_as_one(envelope: str) -> None:
    value = _value(envelope, "a")
    assert is_alone(value)
    assert read_alone(value).id == "s1"
    for other in (
        ALONE[envelope]("thread.run.step.created", {"id": "s1"}, "")[0],
        ALONE["SSE"](_DELTA, calls(call(0, "a")) | {"more": 1}, "")[0],
        _value("SSE", "a") * 2,
        b'{"id":"s1"}',
    ):
        with pytest.raises((msgspec.MsgspecError, UnicodeDecodeError)):
            read_alone(other)


@st.composite
def _logs(draw: st.DrawFn) -> list[LogRecord]:
    """Lone deltas of three steps by turns, some of them cut, joined, or changed in one place."""
    play = Play()
    _begun(play, "s1", "s2", "s33")
    begun = list(play.log)
    values: list[bytes] = []
    for _ in range(draw(st.integers(3, 14))):
        step_id = draw(st.sampled_from(["s1", "s2", "s33"]))
        envelope = draw(st.sampled_from([*_LONE, *_LONE[:1] * 4]))
        values.append(_value(envelope, draw(st.sampled_from(["a", "", 'q"', "\u00e9", "\n", "}"])), step_id))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(values) - 1))
        place = draw(st.integers(0, len(values[at])))
        change = draw(st.sampled_from([b"", b"\n", b"\r", b'"', b"\\", b"\xff", b" ", b"\n\n", values[0]]))
        values[at] = values[at][:place] + change + values[at][place + draw(st.integers(0, 1)) :]
    return begun + [LogRecord(len(begun) + n, 1_000_000 + n, b"k", value, ()) for n, value in enumerate(values)]


_TWO = [_value("SSE", "a"), _value("SSE", "a"), _value("SSE", "b") + _value("SSE", "c"), _value("SSE", "d")]


@given(_logs())
@example([LogRecord(n, 1_000_000, b"k", value, ()) for n, value in enumerate(_TWO)])
def test_lone_deltas_come_to_the_same_by_both_paths(records: list[LogRecord]) -> None:
    come_to_the_same(records)


@pytest.mark.parametrize("between", [b"", b"\n", b"\n\n", b": a comment\n"])
def test_a_value_that_begins_and_ends_as_lone_deltas_do_is_read_in_full(between: bytes) -> None:
    play = Play()
    _begun(play, "s1")
    for piece in "aaa":
        _put(play, "SSE", piece, "s1")
    play.put(_value("SSE", "b") + between + _value("SSE", "c"))
    assert _arguments(play, "s1") == "aaabc"
    for odd in (b"\n", b"\r", b"\x00", b'"', b'","x":"'):
        play.put(_value("SSE", "d~e").replace(b"~", odd))
    come_to_the_same(play.log)
