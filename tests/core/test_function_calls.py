"""Ends that name function calls: known by their bytes, they come to the same as where they are read."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from processor.core.run_steps import compact_step
from processor.core.run_steps.object_template import learn_named
from tests.core.scripted_log import RULES, Play, call, calls, published, step, text
from tests.core.test_paths import come_to_the_same
from tests.examples import examples

pytestmark = pytest.mark.usefixtures("_both_forms")
DETAILS: dict[str, Any] = {"type": "tool_calls", "tool_calls": []}
TEXTS = st.sampled_from(["", "a", '{"a": "b"}', "\u00e9\n", '","name":"x', "]}"])
IDS = st.sampled_from(["c1", "c2", "c", "", '"', "\\", "\u00e9", 'c1","type":"function'])


def whole(number: int, status: str, details: dict[str, Any]) -> dict[str, Any]:
    return step(status, f"step_{number}", thread_id="t", type="tool_calls", step_details=details, usage=None)


def named(call_id: str, name: str, arguments: str | None, **more: Any) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments} | more}


def live(play: Play, number: int, held: list[dict[str, Any]], told: list[dict[str, Any]]) -> list[Any]:
    """A step of these calls, whose end names those; late deltas say afterwards which texts are still the fold's."""
    play.say("step.created", whole(number, "in_progress", DETAILS))
    for index, one in enumerate(held):
        play.say("step.delta", calls({"index": index} | one, step_id=f"step_{number}"))
    effects: list[Any] = play.say("step.completed", whole(number, "completed", DETAILS | {"tool_calls": told}))
    for index in range(len(held)):
        play.say("step.delta", calls(call(index, "+"), step_id=f"step_{number}"))
    return effects


@st.composite
def _named_calls(draw: st.DrawFn, count: int, arguments: str, output: dict[str, Any]) -> tuple[list[Any], list[Any]]:
    """Calls as deltas begin them, and as an end names them, which mostly are the same."""
    held, told = [], []
    for index in range(count):
        call_id, name = draw(IDS if draw(st.booleans()) else st.just(f"c{index}")), draw(st.sampled_from(["f", "g"]))
        said, kind = draw(TEXTS), draw(st.sampled_from(["function"] * 5 + ["other"]))
        says_output = draw(st.sampled_from([{}, {"output": None}]))
        held.append(named(call_id, name, said, **says_output) | {"type": kind})
        other = draw(st.sampled_from(["", "", "", "id", "name", "arguments", "type", "null"]))
        told.append(
            named(
                "x" if other == "id" else call_id,
                "x" if other == "name" else name,
                None if arguments == "null" or other == "null" else said + "x" * (other == "arguments"),
                **output,
            )
            | {"type": "function" if other == "type" else kind}
        )
    return held, told


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=examples(150))
@given(st.data(), st.sampled_from(["null", "said"]), st.sampled_from([{}, {"output": None}]))
def test_ends_that_name_calls_come_to_the_same(data: st.DataObject, arguments: str, output: dict[str, Any]) -> None:
    play = Play()
    for number in range(1, 5):
        count = data.draw(st.sampled_from([1, 1, 2, 2, 0, 3]))
        live(play, number, *data.draw(_named_calls(count, arguments, output)))
    come_to_the_same(play.log)


@pytest.mark.skipif(hasattr(compact_step.CompactStep, "__mypyc_attrs__"), reason="a compiled module keeps its own")
@pytest.mark.parametrize("arguments", [None, "a"])
@pytest.mark.parametrize("count", [1, 2])
def test_what_was_named_before_in_this_way_is_not_read(
    monkeypatch: pytest.MonkeyPatch, arguments: str | None, count: int
) -> None:
    def of(number: int, said: str | None) -> list[dict[str, Any]]:
        return [named(f"c{number}_{n}", "f", said, output=None) for n in range(count)]

    play = Play()
    for number in (1, 2):  # by the first end the template is learned, by the second how it names calls
        published(live(play, number, of(number, "a"), of(number, arguments)))

    def never(*_: object) -> None:
        raise AssertionError("read")

    monkeypatch.setattr(compact_step, "read_exact_details", never)
    published(live(play, 3, of(3, "a"), of(3, arguments)))
    monkeypatch.undo()
    come_to_the_same(play.log)


ODD_ENDS: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]]]] = {
    "another id": ([named("c", "f", "a")], [named("d", "f", "a")]),
    "another name": ([named("c", "f", "a")], [named("c", "g", "a")]),
    "other arguments": ([named("c", "f", "a")], [named("c", "f", "b")]),
    "no arguments": ([named("c", "f", "a")], [named("c", "f", None)]),
    "an output": ([named("c", "f", "a")], [named("c", "f", "a", output="o")]),
    "another type": ([named("c", "f", "a") | {"type": "other"}], [named("c", "f", "a")]),
    "a type of its own": ([named("c", "f", "a") | {"type": "other"}], [named("c", "f", "a") | {"type": "other"}]),
    "one id twice": ([named("c", "f", "a")] * 2, [named("c", "f", "a")] * 2),
    "the other way round": (
        [named("c", "f", "a"), named("d", "f", "a")],
        [named("d", "f", "a"), named("c", "f", "a")],
    ),
    "an id that is JSON": ([named('c","type":"function', "f", "a")], [named('c","type":"function', "f", "a")]),
}


@pytest.mark.parametrize("what", ODD_ENDS)
def test_an_end_that_is_nearly_the_usual_one_comes_to_the_same(what: str) -> None:
    play = Play()
    held, told = ODD_ENDS[what]
    for number in (1, 2, 3):
        usual = [named(f"c{number}_{n}", "f", "a") for n in range(len(held))]
        live(play, number, usual, usual)
    live(play, 4, held, told)
    come_to_the_same(play.log, RULES)


@pytest.mark.parametrize("held", [{}, {"output": None}])
@pytest.mark.parametrize("told", [{}, {"output": None}])
def test_an_output_is_said_where_a_delta_or_the_end_says_it(held: dict[str, Any], told: dict[str, Any]) -> None:
    play = Play()
    for number in (1, 2, 3):
        one, other = named(f"c{number}", "f", "a", **held), named(f"c{number}", "f", "a", **told)
        effect = published(live(play, number, [one], [other]))
        assert (b'"output"' in effect.value) == bool(held or told)
    come_to_the_same(play.log)


@pytest.mark.parametrize(
    "details",
    [
        DETAILS | {"tool_calls": [named("c", "f", "a") | {"more": 1}]},
        DETAILS | {"tool_calls": [named("c", "f", "a", output="o")]},
        DETAILS | {"tool_calls": [named("\u00e9", "f", "a")]},
        {"type": "other", "tool_calls": [named("c", "f", "a")]},
        {"type": "tool_calls"},
        DETAILS | {"message_creation": {"message_id": "m"}, "tool_calls": [named("c", "f", "a")]},
        text(DETAILS | {"tool_calls": [named("c", "f", "a")]}).replace(b'"id":"c"', b'"id":"c","id":"c"'),
    ],
)
def test_details_that_hold_more_are_not_learned(details: dict[str, Any] | bytes) -> None:
    assert learn_named(details if isinstance(details, bytes) else text(details)) is None
