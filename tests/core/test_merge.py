"""The merge rules M1-M7, by example and by property."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.core.growing_text import Text
from processor.core.merge import (
    Indexed,
    Notes,
    Tree,
    adopt,
    bad_index,
    characters,
    fill,
    finish,
    merge_delta,
    odd_leaves,
    pack,
    plain,
    restore_leaves,
    unpack,
)
from tests.core.scripted_log import Play, call, calls, delta, published, refused, snapshot, step
from tests.core.strategies import details


def merged(*deltas: dict[str, Any]) -> tuple[Any, Notes]:
    """What the deltas' details come to."""
    tree: Tree = {}
    notes = Notes()
    for piece in deltas:
        assert bad_index(piece) is None
        merge_delta(tree, copy.deepcopy(piece), notes)
    return plain(tree), notes


def tools(*entries: dict[str, Any]) -> dict[str, Any]:
    return {"type": "tool_calls", "tool_calls": list(entries)}


def one(*entries: dict[str, Any]) -> tuple[Any, Notes]:
    """What these entries of index 0 come to, one delta each."""
    found, notes = merged(*(tools({"index": 0, "type": "x"} | entry) for entry in entries))
    (entry,) = found["tool_calls"]
    return {key: value for key, value in entry.items() if key != "type"}, notes


def ended(folded: list[dict[str, Any]], stated: Any) -> tuple[Any, Notes]:
    """What an ending object's details make of a fold."""
    tree: Tree = {}
    for piece in folded:
        merge_delta(tree, copy.deepcopy(piece), Notes())
    notes = Notes()
    finish(tree, stated, notes)
    return plain(tree), notes


# --- M1: indexes


def test_m1_disorder_and_gaps_are_kept_apart_and_sorted() -> None:
    found, notes = merged(tools(call(7, "h")), tools(call(0, "a")), tools(call(7, "i"), call(2, "c")))
    assert [entry["function"]["arguments"] for entry in found["tool_calls"]] == ["a", "c", "hi"]
    assert "index" not in json.dumps(found)
    assert notes == Notes()


@pytest.mark.parametrize("index", [1.0, True, "0", 1024, -1, None, [], 1 << 70])
def test_m1_a_bad_index_is_refused_and_changes_nothing(index: Any) -> None:
    play = Play()
    play.created()
    play.say("step.delta", calls(call(0, "a")))
    assert refused(play.say("step.delta", calls(call(0, "b"), call(index, "c")))) == "bad_index"
    assert snapshot(play.completed())["step_details"]["tool_calls"][0]["function"]["arguments"] == "a"


def test_m1_a_missing_index_is_refused_and_1023_is_not() -> None:
    play = Play()
    assert refused(play.say("step.delta", calls({"type": "function"}))) == "bad_index"
    assert play.say("step.delta", calls(call(1023, "a"))) == []


@pytest.mark.parametrize(
    "outputs", [[{"index": 0}, {}], [{"index": 1024}], [{"index": True}, {"index": 0}], [{"index": 0}, 5]]
)
def test_m1_outputs_have_an_index_of_their_own(outputs: Any) -> None:
    play = Play()
    assert refused(play.say("step.delta", calls(call(code_interpreter={"outputs": outputs})))) == "bad_index"


def test_m1_entries_of_an_object_are_matched_by_id_then_by_place() -> None:
    folded = [tools(call(3, "a", id="c1"), call(1, "b", id="c2"), call(5, "c"))]
    stated = tools(
        {"id": "c1", "function": {"arguments": "a"}, "n": 1},
        {"id": "c2", "function": {"arguments": "b"}, "n": 2},
        {"id": "c3", "function": {"arguments": "c"}, "n": 3},
    )
    found, notes = ended(folded, stated)
    assert [(entry["id"], entry["n"]) for entry in found["tool_calls"]] == [("c2", 2), ("c1", 1), ("c3", 3)]
    assert not notes.fold_divergence


@pytest.mark.parametrize(("folded", "order"), [(3, ["c9", "c1"]), (0, ["c1", "c9"])])
def test_m1_an_entry_of_an_object_that_matches_none_is_new(folded: int, order: list[str]) -> None:
    """It takes the index of its place if that is free, else it is last."""
    found, _ = ended([tools(call(folded, "a", id="c1"))], tools({"id": "c9"}, {"id": "c1"}))
    assert [entry["id"] for entry in found["tool_calls"]] == order


def test_m1_an_entry_of_an_object_with_an_index_keeps_to_it() -> None:
    found, _ = ended([tools(call(3, id="c1"), call(4, id="c2"))], tools({"index": 4, "n": 1}, {"index": 3, "n": 2}))
    assert [(entry["id"], entry["n"]) for entry in found["tool_calls"]] == [("c1", 2), ("c2", 1)]


# --- M2: appended

APPENDED = [
    ("function", "arguments"),
    ("azure_function", "arguments"),
    ("connected_agent", "arguments"),
    ("code_interpreter", "input"),
]


@pytest.mark.parametrize(("body", "name"), APPENDED)
def test_m2_strings_of_this_list_are_appended(body: str, name: str) -> None:
    found, notes = one({body: {name: "a"}}, {body: {name: ""}}, {body: {name: "bé"}}, {body: {name: None}})
    assert found == {body: {name: "abé"}}
    assert notes == Notes(nulls=1)


def test_m2_the_arguments_of_mcp_and_the_logs_of_outputs_are_appended() -> None:
    assert one({"arguments": "a"}, {"arguments": "b"})[0] == {"arguments": "ab"}
    found, _ = one(
        {"code_interpreter": {"outputs": [{"index": 1, "type": "logs", "logs": "x"}]}},
        {"code_interpreter": {"outputs": [{"index": 0, "type": "image", "image": {"file_id": "f"}}]}},
        {"code_interpreter": {"outputs": [{"index": 1, "type": "logs", "logs": "y"}]}},
    )
    assert found["code_interpreter"]["outputs"] == [
        {"type": "image", "image": {"file_id": "f"}},
        {"type": "logs", "logs": "xy"},
    ]


def test_m2_outputs_without_any_index_replace() -> None:
    first, second = ({"code_interpreter": {"outputs": [{"type": "logs", "logs": logs}]}} for logs in "ab")
    assert one(first, second)[0] == {"code_interpreter": {"outputs": [{"type": "logs", "logs": "b"}]}}


@pytest.mark.parametrize(("held", "anomalies"), [("", ()), ("new", ()), ("old", ("changed_field",))])
def test_m2_a_delta_over_a_value_of_an_object_replaces(held: str, anomalies: tuple[str, ...]) -> None:
    play = Play()
    play.created(step_details=tools({"type": "function", "function": {"arguments": held}}))
    play.say("step.delta", calls(call(0, "new")))
    play.say("step.delta", calls(call(0, "er")))
    done = play.completed()
    assert snapshot(done)["step_details"]["tool_calls"][0]["function"]["arguments"] == "newer"
    assert done.anomalies == anomalies


# --- M3: set once


@pytest.mark.parametrize(
    "name",
    [
        "id",
        "name",
        "server_label",
        "message_id",
        "output",
        "requesturl",
        "response_metadata",
        "run_id",
        "thread_id",
        "assistant_id",
    ],
)
def test_m3_a_repeated_value_is_never_doubled(name: str) -> None:
    assert one({name: "v"}, {name: "v"}) == ({name: "v"}, Notes())
    assert one({name: ""}, {name: "v"}, {name: ""}, {name: None}) == ({name: "v"}, Notes(nulls=1))
    assert one({name: None}, {name: "v"}) == ({name: "v"}, Notes())
    assert one({name: "v"}, {name: "w"}) == ({name: "w"}, Notes(changed_field=True))


def test_m3_names_that_are_set_once_are_so_wherever_they_stand() -> None:
    assert one({"function": {"name": "f", "output": "x"}}, {"function": {"name": "f", "output": ""}}) == (
        {"function": {"name": "f", "output": "x"}},
        Notes(),
    )
    message = {"type": "message_creation", "message_creation": {"message_id": "m"}}
    assert merged(message, message) == (message, Notes())


@pytest.mark.parametrize("name", ["input", "output", "whatever"])
def test_m3_all_of_azure_ai_search_is_set_once(name: str) -> None:
    found, notes = one({"azure_ai_search": {name: "q", "other": "o"}}, {"azure_ai_search": {name: ""}})
    assert found == {"azure_ai_search": {name: "q", "other": "o"}}
    assert notes == Notes()
    assert one({"azure_ai_search": {name: "q"}}, {"azure_ai_search": {name: "r"}})[1].changed_field


# --- M4, M5: everything else


def test_m4_numbers_and_booleans_are_replaced_and_never_added() -> None:
    assert one({"n": 3, "b": False}, {"n": 4, "b": True}, {"n": None}) == ({"n": 4, "b": True}, Notes(nulls=1))
    assert one({"n": 1 << 70}, {"n": (1 << 70) + 1}) == ({"n": (1 << 70) + 1}, Notes())


@pytest.mark.parametrize(
    ("tool", "name", "one_value", "other"),
    [
        ("deep_research", "input", "wh", "at"),
        ("browser_automation", "input", "wh", "at"),
        ("computer_use_preview", "output", {"type": "computer_screenshot", "u": 1}, {"type": "computer_screenshot"}),
        ("brand_new", "words", "wh", "at"),
        ("brand_new", "list", [1], [2]),
        ("brand_new", "list", [1], []),
        ("brand_new", "words", "wh", ""),
    ],
)
def test_m5_a_value_over_another_one_is_an_anomaly(tool: str, name: str, one_value: object, other: object) -> None:
    """Where no recording shows how a text comes, it may have come in pieces that were to be appended."""
    found, notes = one({tool: {name: one_value}}, {tool: {name: other}})
    assert found == {tool: {name: other}}
    assert notes == Notes(changed_field=True)
    assert one({tool: {name: one_value}}, {tool: {name: one_value}})[1] == Notes()


def test_m2_fabric_dataagent_input_is_appended() -> None:
    found, notes = one(*({"fabric_dataagent": {"input": piece}} for piece in ("wh", "at", "?")))
    assert found == {"fabric_dataagent": {"input": "what?"}}
    assert notes == Notes()


def test_m5_unknown_keys_follow_their_type() -> None:
    assert one({"s": ""}, {"s": "b"}, {"s": "b"}) == ({"s": "b"}, Notes())
    assert one({"o": {"a": 1, "s": ""}}, {"o": {"b": 2, "s": "y"}}) == ({"o": {"a": 1, "b": 2, "s": "y"}}, Notes())
    assert one({"l": []}, {"l": [3]}, {"l": [3]}) == ({"l": [3]}, Notes())
    assert one({"l": [{"index": 1, "v": 1}]}, {"l": [{"index": 0, "v": 2}]}, {"l": []}) == (
        {"l": [{"v": 2}, {"v": 1}]},
        Notes(),
    )
    assert one({"l": [{"index": 0}, {"index": "x"}]}, {"l": [{"index": 0}, {"index": 2000}]}) == (
        {"l": [{"index": 0}, {"index": 2000}]},
        Notes(changed_field=True),
    )


VALUES: list[Any] = ["a", 1, True, {"k": 1}, [1], [{"index": 0, "k": 1}]]


@pytest.mark.parametrize(("old", "new"), [(a, b) for a in VALUES for b in VALUES])
@pytest.mark.parametrize("key", ["odd", "arguments"])
def test_m5_a_value_over_one_of_another_type_replaces_it(key: str, old: Any, new: Any) -> None:
    found, notes = one({key: old}, {key: new})
    kinds = [list if isinstance(value, list) else type(value) for value in (old, new)]
    assert notes.changed_field is (kinds[0] is not kinds[1] or (kinds[0] is list and old != new))
    if notes.changed_field:
        assert found == {key: [{"k": 1}] if new == [{"index": 0, "k": 1}] else new}


# --- M6: the last word


@pytest.mark.parametrize("stated", [None, {}, {"type": None}, {"tool_calls": None}, {"tool_calls": []}])
def test_m6_nothing_said_erases_nothing(stated: Any) -> None:
    play = Play()
    play.created()
    play.say("step.delta", calls(call(0, "a", id="c")))
    done = play.completed(step_details=stated)
    assert snapshot(done)["step_details"] == tools({"type": "function", "id": "c", "function": {"arguments": "a"}})
    assert done.anomalies == ()


def test_m6_nulls_of_an_entry_erase_nothing() -> None:
    folded = tools(call(0, "a", id="c", output="o", n=1, results=[1], more={"k": 1}))
    nulls: dict[str, Any] = {
        "id": None,
        "output": "",
        "n": None,
        "results": [],
        "more": {},
        "function": {"arguments": None},
    }
    found, notes = ended([folded], tools(nulls))
    assert found == plain(
        {"type": "tool_calls", "tool_calls": [{k: v for k, v in folded["tool_calls"][0].items() if k != "index"}]}
    )
    assert notes == Notes()


def test_m6_a_string_that_differs_from_the_pieces_stands_and_is_told() -> None:
    found, notes = ended([tools(call(0, "ab"))], tools({"function": {"arguments": "abc"}}))
    assert found["tool_calls"][0]["function"]["arguments"] == "abc"
    assert notes.fold_divergence
    assert not ended([tools(call(0, "abc"))], tools({"function": {"arguments": "abc"}}))[1].fold_divergence


def test_m6_calls_and_outputs_that_the_object_lacks_stay_and_are_told() -> None:
    found, notes = ended([tools(call(0, "a", id="c1"), call(1, "b", id="c2"))], tools({"id": "c2"}))
    assert [entry["id"] for entry in found["tool_calls"]] == ["c1", "c2"]
    assert notes.fold_divergence
    outputs = [{"index": 0, "logs": "a"}, {"index": 1, "logs": "b"}]
    found, notes = ended(
        [tools(call(code_interpreter={"outputs": outputs}))], tools({"code_interpreter": {"outputs": [{"logs": "a"}]}})
    )
    assert found["tool_calls"][0]["code_interpreter"]["outputs"] == [{"logs": "a"}, {"logs": "b"}]
    assert notes.fold_divergence


@pytest.mark.parametrize("body", ["function", "code_interpreter", "azure_ai_search", "odd"])
def test_a_list_in_place_of_an_object_is_kept_as_it_came(body: str) -> None:
    """The table matches no entries there: an `index` in them is content."""
    stated = tools({"id": "c", body: [{"index": 1, "a": 1}, {"index": 0, "a": 2}]})
    assert ended([], stated)[0] == stated
    filled: Tree = {}
    fill(filled, stated)
    assert plain(filled) == stated


def test_an_object_that_does_not_end_the_step_only_fills() -> None:
    tree: Tree = {}
    merge_delta(tree, tools(call(0, "a", id="c", n=1)), Notes())
    fill(tree, tools({"id": "c", "n": 2, "output": "o", "function": {"arguments": "x", "name": "f"}}, {"id": "d"}))
    assert plain(tree)["tool_calls"] == [
        {"type": "function", "id": "c", "n": 1, "output": "o", "function": {"arguments": "a", "name": "f"}},
        {"id": "d"},
    ]


# --- M7


def test_m7_a_change_of_type_is_refused_and_changes_nothing() -> None:
    play = Play()
    play.created(type="tool_calls")
    play.say("step.delta", calls(call(0, "a")))
    message: dict[str, Any] = {"type": "message_creation", "message_creation": {"message_id": "m"}}
    assert refused(play.say("step.delta", delta(**message))) == "type_changed"
    assert refused(play.say("step.in_progress", step(step_details=message))) == "type_changed"
    assert refused(play.say("step.completed", step("completed", type="message_creation"))) == "type_changed"
    assert play.state.open_steps == 1
    done = play.completed(type="tool_calls")
    assert snapshot(done)["step_details"] == tools({"type": "function", "function": {"arguments": "a"}})
    assert refused(play.say("step.delta", delta(**message))) == "type_changed"


# --- properties

texts = st.text(max_size=12)
ids = st.sampled_from(["c1", "c2"])


@st.composite
def scripts(draw: st.DrawFn) -> list[tuple[int, str, str, str]]:
    """Which string of which call grows by what: (index, body, name, text)."""
    places = [(body, name) for body, name in APPENDED]
    return [
        (index, *places[index % len(places)], grown)
        for index, grown in draw(
            st.lists(st.tuples(st.sampled_from([0, 1, 2, 7, 1023]), texts), min_size=1, max_size=8)
        )
    ]


@given(scripts(), st.data())
def test_deltas_cut_into_any_pieces_give_the_same_snapshot(
    script: list[tuple[int, str, str, str]], data: st.DataObject
) -> None:
    """The pieces of one string keep their order; where they are cut and what comes between does not matter."""

    def entry(index: int, body: str, name: str, grown: str) -> dict[str, Any]:
        return tools({"index": index, "type": body, "id": f"c{index}", body: {name: grown, "n": 3}})

    whole: list[dict[str, Any]] = [entry(*line) for line in script]
    queues: dict[int, list[dict[str, Any]]] = {}
    for index, body, name, grown in script:
        cut = data.draw(st.lists(st.integers(0, len(grown)), max_size=4).map(sorted))
        for start, end in zip([0, *cut], [*cut, len(grown)], strict=True):
            queues.setdefault(index, []).append(entry(index, body, name, grown[start:end]))
    pieces: list[dict[str, Any]] = []
    while queues:
        index = data.draw(st.sampled_from(sorted(queues)))
        pieces.append(queues[index].pop(0))
        if not queues[index]:
            del queues[index]
    several: list[dict[str, Any]] = []
    for piece in pieces:  # and some share a delta
        together: bool = data.draw(st.booleans())
        if together and several:
            several[-1]["tool_calls"].extend(piece["tool_calls"])
        else:
            several.append(tools(*piece["tool_calls"]))
    assert merged(*whole) == merged(*several) == (merged(*whole)[0], Notes())


@given(st.lists(details(indexed=True), max_size=8))
def test_the_same_delta_again_adds_to_strings_of_the_list_and_to_nothing_else(
    pieces: list[dict[str, Any] | None],
) -> None:
    """Ids are not doubled, numbers not added: without the strings of M2, applying all twice is applying once."""
    told = [_without_appended(piece) for piece in pieces if piece and bad_index(piece) is None]
    once, twice = merged(*told)[0], merged(*told, *told[-1:])[0]
    assert once == twice


def _without_appended(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_appended(v) for k, v in value.items() if k not in ("arguments", "input", "logs")}
    if isinstance(value, list):
        return [_without_appended(item) for item in value]
    return value


@given(st.lists(details(indexed=True), max_size=8), details(indexed=False))
def test_a_last_word_of_nulls_erases_nothing(pieces: list[dict[str, Any] | None], shape: dict[str, Any] | None) -> None:
    told = [piece for piece in pieces if piece and bad_index(piece) is None]
    nulls: dict[str, Any] = dict.fromkeys(shape or {})
    assert ended(told, nulls)[0] == nulls | merged(*told)[0]


@given(st.lists(details(indexed=True), max_size=8), details(indexed=False))
def test_trees_survive_a_checkpoint(pieces: list[dict[str, Any] | None], more: dict[str, Any] | None) -> None:
    """Packed and unpacked at any point, what follows is merged the same: texts still grow, indexes still match."""
    told = [piece for piece in pieces if piece and bad_index(piece) is None]
    tree: Tree = {}
    packed: Tree = {}
    for piece in told:
        merge_delta(tree, copy.deepcopy(piece), Notes())
        merge_delta(packed, copy.deepcopy(piece), Notes())
        packed = unpack(pack(packed))
    notes, packed_notes = Notes(), Notes()
    finish(tree, copy.deepcopy(more or {}), notes)
    finish(packed, copy.deepcopy(more or {}), packed_notes)
    assert plain(tree) == plain(packed)
    assert notes == packed_notes


def test_integers_beyond_64_bits_survive_a_checkpoint() -> None:
    tree: Tree = {}
    merge_delta(tree, tools({"index": 0, "n": 1 << 200, "l": [{"index": 3, "m": -(1 << 70)}]}), Notes())
    assert plain(unpack(pack(tree))) == plain(tree)


def test_what_a_delta_brings_is_its_strings_and_all_else_that_can_grow() -> None:
    """Index, short types and the names of the table are free: they cannot make a step large."""
    assert characters(tools(call(0, "abc", id="c1", code_interpreter={"input": "x"}, output=""))) == 3 + 2 + 1
    strange = {"own": {"type": "zzz", "s": "é"}, "list": ["xy", 5, None, True, 0.5], "type": "t" * 65, "index": 1024}
    assert characters(strange) == (3 + 8 + 1 + 1) + (4 + 5 * 8 + 2 + 4 * 8) + 65 + 8
    assert characters({"arguments": 10**3000}) > 3000
    deep: Any = {}
    for _ in range(20):
        deep = {"function": deep}
    assert characters(deep) == 8 * (20 - 7), "a name of the table in no place of the table"


def test_nulls_that_change_nothing_are_counted() -> None:
    play = Play()
    play.created()
    play.say("step.delta", calls(call(0, "a", id="c")))
    play.say("step.delta", calls(call(0, None, id=None, output=None, function={"arguments": None})))
    assert play.state.counts["null_ignored"] == 2
    assert published(play.say("step.completed", step("completed"))).anomalies == ()


TREE_DELTAS = st.lists(
    st.fixed_dictionaries(
        {"index": st.integers(0, 2)},
        optional={
            "id": st.sampled_from(["c", "d"]),
            "arguments": st.sampled_from(["a", "\ud83d", None]),
            "function": st.one_of(
                st.fixed_dictionaries({}, optional={"arguments": st.just("b"), "name": st.just("f")}),
                st.sampled_from([[], [3], [{"a": 1}], [{"index": 0, "a": 1}]]),
            ),
            "code_interpreter": st.fixed_dictionaries(
                {},
                optional={
                    "input": st.just("i"),
                    "outputs": st.sampled_from(
                        [[], [3], [{"logs": "l"}], [{"index": 0, "logs": "l"}], [{"index": 1, "image": {"logs": []}}]]
                    ),
                },
            ),
            "other": st.sampled_from([[], [{"index": 0, "logs": "l"}], {"a": [{}]}]),
        },
    ),
    min_size=1,
    max_size=4,
)


def _structure(value: Any) -> Any:
    """A tree with its texts and indexed lists as plain data that tells them apart."""
    if isinstance(value, Text):
        return ("text", value.getvalue())
    if isinstance(value, Indexed):
        return ("indexed", {index: _structure(entry) for index, entry in value.entries.items()})
    if isinstance(value, dict):
        return {key: _structure(item) for key, item in value.items()}
    return value


@given(TREE_DELTAS)
def test_a_tree_comes_back_from_its_json_and_its_odd_leaves(entries: list[dict[str, Any]]) -> None:
    tree: dict[str, Any] = {}
    for entry in entries:
        merge_delta(tree, {"type": "tool_calls", "tool_calls": [entry]}, Notes())
    leaves = odd_leaves(tree)
    if leaves is not None:
        again = adopt(json.loads(json.dumps(plain(tree))))
        restore_leaves(again, leaves)
        assert _structure(again) == _structure(tree)


def test_which_trees_come_back_from_their_json() -> None:
    """Else the property above would show nothing."""
    tree: dict[str, Any] = {}
    entry = {"index": 0, "arguments": "a", "code_interpreter": {"input": "i", "outputs": []}}
    merge_delta(tree, {"type": "tool_calls", "tool_calls": [entry]}, Notes())
    at = ("tool_calls", 0, "code_interpreter")
    assert odd_leaves(tree) == [("tool_calls", 0, "arguments"), (*at, "input"), (*at, "outputs")]
    merge_delta(tree, {"tool_calls": [{"index": 2}]}, Notes())
    assert odd_leaves(tree) is None
    without_index: dict[str, Any] = {}
    outputs = {"index": 0, "code_interpreter": {"outputs": [{"logs": "l"}]}}
    merge_delta(without_index, {"tool_calls": [outputs]}, Notes())
    assert odd_leaves(without_index) is None
    for body, leaves in (([], []), ([{"a": 1}], []), ([{"index": 0, "a": 1}], None)):
        astray: dict[str, Any] = {}
        merge_delta(astray, {"tool_calls": [{"index": 0, "function": body}]}, Notes())
        assert odd_leaves(astray) == leaves, "a list where the table has an object"
