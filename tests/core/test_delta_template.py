"""Delta templates: whatever a learned template takes, the slow path reads the same."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from processor.core.run_steps.delta_template import DeltaTemplate, is_plain, learn_template, read_named
from processor.core.run_steps.step import Step
from processor.core.run_steps.text_place import piece_of
from processor.core.run_steps.usual_events import exact, prefix_of
from processor.core.wire_types import ExactData
from tests.core.scripted_log import Play, call, calls, text

IDS = st.text(min_size=1, max_size=4) | st.sampled_from(["s1", '"', "\\", "arguments", "thread.run.step.delta"])
TEXTS = st.text(max_size=6) | st.sampled_from(["", '"', '\\"', '"}}]}}}}', "s1", '","x":"', "\ud7ff", "\x00"])


def learned(value: bytes) -> DeltaTemplate | None:
    found = exact(value, prefix_of(value))
    assert isinstance(found, ExactData)
    piece = piece_of(found)
    assert piece is not None
    return learn_template(value, found, piece.place, read_named)


@given(IDS, TEXTS, IDS, TEXTS, st.booleans(), st.sampled_from([(",", ":"), (", ", ": ")]), st.data())
@example("s1", "a", "s1", "a", True, (",", ":"), None)
def test_a_template_that_was_learned_says_what_the_slow_path_reads(
    step_id: str, arguments: str, other: str, more: str, ascii_only: bool, separators: tuple[str, str], data: Any
) -> None:
    told = calls(call(0, arguments), step_id=step_id)
    event = {"event": "thread.run.step.delta", "data": told}
    if data is not None and data.draw(st.booleans()):
        event["data"] = {name: told[name] for name in data.draw(st.permutations(list(told)))}
    value = json.dumps(event, separators=separators, ensure_ascii=ascii_only).encode()
    found = learned(value)
    if found is None:
        return
    assert found.fits(value) or not is_plain(step_id)
    inside = (json.dumps(part, ensure_ascii=False)[1:-1].encode() for part in (other, more))
    other_value = b"".join((found.head, next(inside), found.middle, next(inside), found.tail))
    again = exact(other_value, prefix_of(other_value))
    assert isinstance(again, ExactData)
    assert (again.id, again.delta.step_details.tool_calls[0].function.arguments) == (other, more)  # type: ignore[union-attr]


def test_the_usual_templates_are_learned() -> None:
    """Else the property above would show nothing."""
    for separators in ((",", ":"), (", ", ": ")):
        event = {"event": "thread.run.step.delta", "data": calls(call(0, 'a"b'))}
        found = learned(json.dumps(event, separators=separators).encode())
        assert found is not None
        assert found.head.endswith(b'"id":%b"' % separators[1][1:].encode())


@pytest.mark.parametrize(
    "value",
    [
        '{"event":"thread.run.step.delta","data":{"object":"s1","id":"s1","delta":D}}',
        '{"event":"thread.run.step.delta","data":{"id":"s1","id":"s1","delta":D}}',
        '{"event":"thread.run.step.delta","data":{"delta":D,"id":"s1","object":"x"}}',
    ],
)
def test_where_the_places_are_not_certain_nothing_is_learned(value: str) -> None:
    details = {"type": "tool_calls", "tool_calls": [call(0, "a")]}
    assert learned(value.replace("D", text({"step_details": details}).decode()).encode()) is None


def test_a_delta_that_names_its_call_teaches_nothing() -> None:
    """What matches says more than its text."""
    play = Play()
    details = {"type": "tool_calls", "tool_calls": []}
    play.created(type="tool_calls", step_details=details)
    for number in range(3):
        play.say("step.delta", calls(call(number, "a", id="c1", function={"name": "f"})))
    assert play.state.templates == 0
    play.say("step.delta", calls(call(2, "b")))
    assert play.state.templates == 1
    play.say("step.delta", calls(call(2, "b", id="c2")))
    assert play.completed(step_details=details).anomalies == ("changed_field",)


def test_a_broken_text_in_a_known_template_is_told_as_ever() -> None:
    play = Play()
    play.created(type="tool_calls", step_details={"type": "tool_calls", "tool_calls": []})
    play.say("step.delta", calls(call(0, "a", id="c1", function={"name": "f"})))
    value = text({"event": "thread.run.step.delta", "data": calls(call(0, "@"))})
    play.put(value)
    assert play.state.templates == 1
    for broken in (b"\xff", b"\\x", b"\n", b"\x00", b"\x1f", b'"', b"\\", b"a\x00", b'a"'):
        (effect,) = play.put(value.replace(b"@", broken))
        assert effect.reason.value == "not_json"  # type: ignore[union-attr]
    for broken in (
        value.replace(b'"@"', b'"'),
        value[:-1] + b"]",
        value[:-2] + b" ]",
    ):  # one quote for both; other ends
        (effect,) = play.put(broken)
        assert effect.reason.value == "not_json"  # type: ignore[union-attr]
    step = play.state.steps["s1"].materialise()
    assert isinstance(step, Step)
    assert (step.events, step.tree["tool_calls"].entries[0]["function"]["arguments"].getvalue()) == (3, "a@")
    assert play.put(value.replace(b"@", b"\\ud800")) == []  # half a character
    assert (
        step.tree["tool_calls"].entries[0]["function"]["arguments"].getvalue() == "a@\ud800"
    )  # its other half may come


def test_an_id_that_ends_in_a_backslash_has_no_template() -> None:
    """In its place `\\"` would be half of an escape and no end."""
    play = Play()
    details = {"type": "tool_calls", "tool_calls": []}
    for step_id in ("s1", "s\\"):
        play.created(step_id=step_id, type="tool_calls", step_details=details)
        play.say("step.delta", calls(call(0, "a", id="c", function={"name": "f"}), step_id=step_id))
        play.say("step.delta", calls(call(0, "b"), step_id=step_id))
    value = text({"event": "thread.run.step.delta", "data": calls(call(0, "b"))})
    (effect,) = play.put(value.replace(b'"id":"s1"', b'"id":"s\\"'))
    assert effect.reason.value == "not_json"  # type: ignore[union-attr]
