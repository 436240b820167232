"""Ends of steps with calls of any tools: known by the outline of their tree, they come to the same as read."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.core.growing_text import Text
from processor.core.merge import Indexed, Notes, merge_delta
from processor.core.run_steps import compact_step
from processor.core.run_steps.tool_calls import Outlines, learn_named
from tests.core.scripted_log import Play, calls, published, step, text
from tests.core.test_paths import come_to_the_same
from tests.examples import examples

DETAILS: dict[str, Any] = {"type": "tool_calls", "tool_calls": []}
TEXTS = st.sampled_from(["", "a", '{"a": "b"}', "\u00e9\n", '","name":"x', "]}", "~0~", "mcp"])
IDS = st.sampled_from(["c1", "c2", "c", "", '"', "\\", "\u00e9", 'c1","type":"mcp', "~1~", "docs"])
ODD = [None, 7, True, 1.5, [], {}, ["x"], {"a": None}, "x"]


def whole(number: int, status: str, details: dict[str, Any]) -> dict[str, Any]:
    return step(status, f"step_{number}", thread_id="t", type="tool_calls", step_details=details, usage=None)


def live(play: Play, number: int, held: list[dict[str, Any]], told: list[dict[str, Any]]) -> list[Any]:
    """A step of these calls, whose end names those; late deltas say afterwards which texts are still the fold's."""
    play.say("step.created", whole(number, "in_progress", DETAILS))
    for index, one in enumerate(held):
        play.say("step.delta", calls({"index": index} | one, step_id=f"step_{number}"))
    effects: list[Any] = play.say("step.completed", whole(number, "completed", DETAILS | {"tool_calls": told}))
    for index, one in enumerate(held):
        more: dict[str, Any] = {"arguments": "+"} if one["type"] == "mcp" else {}
        play.say("step.delta", calls({"index": index, "type": one["type"]} | more, step_id=f"step_{number}"))
    return effects


def mcp(call_id: str, arguments: str | None, **more: Any) -> dict[str, Any]:
    return {"id": call_id, "type": "mcp", "name": "f", "server_label": "docs", "arguments": arguments} | more


def code(call_id: str, said: str | None, *logs: str, **more: Any) -> dict[str, Any]:
    outputs = [{"index": n, "type": "logs", "logs": one} for n, one in enumerate(logs)]
    held: dict[str, Any] = {"input": said} | ({"outputs": outputs} if logs else {})
    return {"id": call_id, "type": "code_interpreter", "code_interpreter": held | more}


@st.composite
def _call(draw: st.DrawFn, index: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """A call as a delta begins it, and as an end names it, which mostly is the same."""
    call_id, said = draw(IDS if draw(st.booleans()) else st.just(f"c{index}")), draw(TEXTS)
    if draw(st.booleans()):
        more: dict[str, Any] = draw(st.sampled_from([{}, {}, {"output": None}, {"output": "o"}, {"more": "m"}]))
        held = mcp(call_id, said, **more)
    else:
        held = code(call_id, said, *draw(st.lists(TEXTS, max_size=2)))
    told = dict(held)
    other = draw(st.sampled_from(["", "", "", "", "text", "null", "absent", "more", "type", "odd"]))
    field = draw(st.sampled_from(sorted(held)))
    if other == "text":
        told[field] = draw(TEXTS)
    elif other == "null":
        told[field] = None
    elif other == "absent":
        del told[field]
    elif other == "more":
        told["output"] = draw(st.sampled_from(ODD))
    elif other == "type":
        told["type"] = draw(st.sampled_from(["mcp", "other"]))
    elif other == "odd":
        told[field] = draw(st.sampled_from(ODD))
    return held, told


@settings(max_examples=examples(200))
@given(st.data())
def test_ends_that_name_calls_come_to_the_same(data: st.DataObject) -> None:
    """Some ends say the calls again, some leave them to the fold, and each step has calls like those of another."""
    play = Play()
    pairs = [[data.draw(_call(n)) for n in range(data.draw(st.sampled_from([1, 1, 2])))] for _ in range(2)]
    for number in range(1, 7):
        chosen = data.draw(st.sampled_from(pairs))
        held, told = [one for one, _ in chosen], [other for _, other in chosen]
        if data.draw(st.booleans()):
            held = [one | {"id": f"c{number}_{n}"} for n, one in enumerate(held)]
            told = [one | {"id": f"c{number}_{n}"} for n, one in enumerate(told)]
        live(play, number, held, [] if data.draw(st.sampled_from([False, False, True])) else told)
    come_to_the_same(play.log)


@pytest.mark.skipif(hasattr(compact_step.CompactStep, "__mypyc_attrs__"), reason="a compiled module keeps its own")
@pytest.mark.parametrize("said", ["left", "null", "text"])
@pytest.mark.parametrize("make", [mcp, code], ids=["mcp", "code_interpreter"])
def test_what_was_named_before_in_this_way_is_not_read(monkeypatch: pytest.MonkeyPatch, make: Any, said: str) -> None:
    def lived(play: Play, number: int) -> Any:
        held = [make(f"c{number}_{n}", f"text {number}_{n}") for n in range(2)]
        texts = [None if said == "null" else f"text {number}_{n}" for n in range(2)]
        told = [] if said == "left" else [make(f"c{number}_{n}", one, output=None) for n, one in enumerate(texts)]
        return published(live(play, number, held, told))

    play = Play()
    for number in (1, 2):  # by the first end the template is learned, by the second the outline
        lived(play, number)

    def never(*_: object) -> None:
        raise AssertionError("read")

    for name in ("read_tool_details", "publishable", "canonical"):
        monkeypatch.setattr(compact_step, name, never)
    assert b"text 3_1" in lived(play, 3).value
    monkeypatch.undo()
    come_to_the_same(play.log)


USUAL = ("no arguments", "an id that is JSON", "one id twice")
ODD_ENDS: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]]]] = {
    "another id": ([mcp("c", "a")], [mcp("d", "a")]),
    "another name": ([mcp("c", "a")], [mcp("c", "a", name="g")]),
    "other arguments": ([mcp("c", "a")], [mcp("c", "b")]),
    "no arguments": ([mcp("c", "a")], [mcp("c", None)]),
    "an output": ([mcp("c", "a")], [mcp("c", "a", output="o")]),
    "another type": ([mcp("c", "a", type="other")], [mcp("c", "a")]),
    "one id twice": ([mcp("c", "a"), mcp("c", "b")], [mcp("c", "a"), mcp("c", "b")]),
    "the other way round": ([mcp("c", "a"), mcp("d", "a")], [mcp("d", "a"), mcp("c", "a")]),
    "an id that is JSON": ([mcp('c","type":"mcp', "a")], [mcp('c","type":"mcp', "a")]),
    "other logs": ([code("c", "a", "l")], [code("c", "a", "m")]),
    "fewer logs": ([code("c", "a", "l", "m")], [code("c", "a", "l")]),
}


@pytest.mark.parametrize("what", ODD_ENDS)
def test_an_end_that_is_nearly_the_usual_one_comes_to_the_same(what: str) -> None:
    play = Play()
    held, told = ODD_ENDS[what]
    for number in (1, 2, 3):
        usual = [one | {"id": f"c{number}_{n}"} for n, one in enumerate(held)]
        live(play, number, usual, usual)
    live(play, 4, held, told)
    come_to_the_same(play.log)


def tree_of(*held: dict[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    merge_delta(tree, DETAILS | {"tool_calls": [{"index": n} | one for n, one in enumerate(held)]}, Notes())
    return tree


@pytest.mark.parametrize("what", [what for what in ODD_ENDS if what not in USUAL])
def test_what_an_end_says_of_its_own_is_not_learned(what: str) -> None:
    held, told = ODD_ENDS[what]
    assert learn_named(text(DETAILS | {"tool_calls": told}), tree_of(*held)) is None


def test_a_text_that_is_said_twice_is_not_learned() -> None:
    details = text(DETAILS | {"tool_calls": [mcp("c", "a")]})
    assert learn_named(details, tree_of(mcp("c", "a"))) is not None
    assert learn_named(details.replace(b'"id":"c"', b'"id":"c","id":"c"'), tree_of(mcp("c", "a"))) is None
    assert learn_named(details.replace(b'"id":"c"', b'"id":"c","id":"\\u0063"'), tree_of(mcp("c", "a"))) is None


@pytest.mark.parametrize("is_told", [True, False])
def test_a_type_that_reads_as_a_mark_comes_to_the_same(is_told: bool) -> None:
    play = Play()
    for number in range(1, 5):
        one = code(f"c{number}", "a", "l")
        one["code_interpreter"]["outputs"][0]["type"] = "~0~"
        live(play, number, [one], [one] if is_told else [])
    come_to_the_same(play.log)


def _with_half() -> dict[str, Any]:
    tree = tree_of(mcp("c", "a"))
    tree["tool_calls"].entries[0]["arguments"].write("\ud800")
    return tree


NO_OUTLINE: dict[str, dict[str, Any]] = {
    "a number": tree_of(mcp("c", "a", more=7)),
    "a list": tree_of(mcp("c", "a", more=["x"])),
    "half of a character": _with_half(),
    "an index that is not the next": {"type": "tool_calls", "tool_calls": Indexed({1: {"arguments": Text()}})},
}


@pytest.mark.parametrize("what", NO_OUTLINE)
def test_a_tree_that_is_like_no_other_has_no_outline(what: str) -> None:
    assert Outlines().of(NO_OUTLINE[what], []) is None


def test_only_so_many_outlines_are_known() -> None:
    outlines = Outlines()
    found = [outlines.of(tree_of(mcp("c", "a", **{f"more{n}": "x"})), []) for n in range(20)]
    assert found.count(None) == 4
