"""Function calls by the fast path against a fold of a few lines that knows nothing of paths, templates and trees."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.core.rules import Rules
from tests.core.scripted_log import Play, call, calls, refused, snapshot, step, text
from tests.core.test_paths import USUAL, come_to_the_same
from tests.examples import examples

TEXTS = st.sampled_from(["", "a", "bc", '"', "\\", "é", "\n", '"}}', "x" * 90])
SAID = st.fixed_dictionaries({}, optional=dict.fromkeys(("arguments", "name", "output"), TEXTS | st.none()))
ALONE = st.fixed_dictionaries({"arguments": TEXTS})
ENTRY = st.tuples(
    st.sampled_from([0, 0, 0, 1, 1, 2]),
    st.one_of(SAID, ALONE, ALONE, ALONE, ALONE, st.fixed_dictionaries({"output": TEXTS})),
    st.sampled_from([None, None, None, None, "c0", "c1"]),
)


def _begun(play: Play, **more: Any) -> None:
    play.created(**USUAL)
    play.say("step.delta", calls(call(0, "a", id="c", function={"name": "f"} | more)))


def _arguments(play: Play) -> list[Any]:
    found = snapshot(play.completed())["step_details"]["tool_calls"]
    return [entry["function"].get("arguments") for entry in found]


def _folded(entries: list[tuple[int, dict[str, Any], str | None]]) -> list[dict[str, Any]]:
    """Arguments are one text; of anything else the last that is neither null nor empty stands."""
    found: dict[int, dict[str, Any]] = {}
    for index, said, call_id in entries:
        held = found.setdefault(index, {"type": "function", "function": {}})
        if call_id is not None:
            held["id"] = call_id
        for field, told in said.items():
            before = held["function"].get(field)
            if field == "arguments" and told is not None:
                held["function"][field] = (before or "") + told
            elif not before or told:
                held["function"][field] = told if told is not None or before is None else before
    return [found[index] for index in sorted(found)]


@settings(max_examples=examples(150))
@given(
    st.integers(0, 2),
    st.lists(ENTRY, min_size=1, max_size=12),
    st.booleans(),
    st.sampled_from(["named", "named", "bare", "frame"]),
)
def test_calls_come_to_what_their_deltas_say(
    opened: int, entries: list[tuple[int, dict[str, Any], str | None]], is_spaced: bool, form: str
) -> None:
    """The first calls begin as nearly all do."""
    entries = [(index, {"name": "f", "arguments": "a"}, f"c{index}") for index in range(opened)] + entries
    play = Play()
    separators = (", ", ": ") if is_spaced else (",", ":")

    def put(name: str, data: dict[str, Any]) -> None:
        told = data if form == "bare" else {"event": f"thread.run.step.{name}", "data": data}
        value = json.dumps(told, separators=separators).encode()
        play.put(b"data: %b\n\n" % value if form == "frame" else value)

    put("created", step(**USUAL))
    for index, said, call_id in entries:
        put("delta", calls(call(index, function=said, **({} if call_id is None else {"id": call_id}))))
    found = snapshot(play.completed())["step_details"]["tool_calls"]
    assert found == _folded(entries)


@pytest.mark.parametrize("said", [{"output": "o"}, {"name": "g"}, {"output": ""}, {"name": ""}])
@pytest.mark.parametrize("more", [{}, {"output": None}])
def test_what_a_delta_says_of_another_field_is_no_part_of_the_arguments(
    said: dict[str, str], more: dict[str, None]
) -> None:
    play = Play()
    _begun(play, **more)
    play.say("step.delta", calls(call(0, function=said)))
    play.say("step.delta", calls(call(0, "b")))
    assert _arguments(play) == ["ab"]
    come_to_the_same(play.log)


def test_a_step_that_is_too_large_takes_no_delta_that_would_fit() -> None:
    """One is missing before it: what is published would have a hole."""
    rules = Rules(max_step_bytes=600)
    play = Play(rules)
    _begun(play)
    for piece in ("x" * 700, "b"):
        assert refused(play.say("step.delta", calls(call(0, piece)))) == "step_too_large"
    assert _arguments(play) == ["a"]
    come_to_the_same(play.log, rules)


def test_a_delta_that_has_a_name_twice_teaches_nothing_of_where_the_next_one_belongs() -> None:
    play = Play()
    _begun(play)
    play.say("step.delta", calls(call(1, "b", id="d", function={"name": "f"})))
    for _ in range(2):
        play.say("step.delta", calls(call(0, "a")))
    usual = text({"event": "thread.run.step.delta", "data": calls(call(0, "a"))})
    play.put(usual.replace(b'"a"}', b'"a"},"index":1,"function":{"arguments":"b"}'))
    play.say("step.delta", calls(call(0, "c")))
    assert _arguments(play) == ["aaac", "bb"]
    come_to_the_same(play.log)


def test_no_delta_is_folded_twice_or_lost_where_calls_take_turns() -> None:
    play = Play()
    play.created(**USUAL)
    for index in range(3):
        play.say("step.delta", calls(call(index, "", id=f"c{index}", function={"name": "f"})))
    for number in range(30):
        play.say("step.delta", calls(call(number % 3, f"{number},")))
    assert _arguments(play) == ["".join(f"{n}," for n in range(i, 30, 3)) for i in range(3)]
    come_to_the_same(play.log)


@pytest.mark.parametrize("call_id", ["c", ""])
@pytest.mark.parametrize("tool", ["function", "mcp"])
def test_two_calls_of_one_id_are_those_that_the_end_names_in_their_order(call_id: str, tool: str) -> None:
    """Some gateways leave ids empty. The second call was published a third time, and the first of them unnamed."""
    play = Play()
    play.created(**USUAL)
    told = []
    for index in range(2):
        body = {"arguments": f"a{index}"} if tool == "mcp" else {"function": {"name": "f", "arguments": f"a{index}"}}
        told.append({"id": call_id, "type": tool} | body)
        play.say("step.delta", calls({"index": index} | told[index]))
    effect = play.completed(type="tool_calls", step_details={"type": "tool_calls", "tool_calls": told})
    assert snapshot(effect)["step_details"]["tool_calls"] == told
    assert effect.anomalies == ()
    come_to_the_same(play.log)
