"""A peer's fold: on clean streams a well-known SDK accumulates to the same; every difference has a name."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.lib.streaming._assistants import accumulate_delta

from processor.core.merge import Notes, Tree, merge_delta, plain
from tests.core.test_recordings import SAMPLES, STORIES, STREAMS, recorded, sampled, told

FIRST = {
    "type": "tool_calls",
    "tool_calls": [{"index": 0, "type": "function", "id": "c", "function": {"arguments": "{", "n": 1}}],
}


def accumulated(deltas: list[Any]) -> Any:
    """The SDK's own fold."""
    found: dict[Any, Any] = {}
    for piece in copy.deepcopy(deltas):
        found = accumulate_delta(found, piece)
    return found


def ours(deltas: list[Any]) -> Any:
    tree: Tree = {}
    for piece in copy.deepcopy(deltas):
        merge_delta(tree, piece, Notes())
    return plain(tree)


def without_indexes(value: Any) -> Any:
    """The SDK leaves `index` in its entries; ours is removed when published (M1)."""
    if isinstance(value, dict):
        return {key: without_indexes(item) for key, item in value.items() if key != "index"}
    return [without_indexes(item) for item in value] if isinstance(value, list) else value


def assert_agree(stream: bytes) -> int:
    """Compare the folds of every step of a stream, after each delta; returns the number of deltas."""
    pieces: dict[str, list[Any]] = {}
    for name, data in told(stream):
        if name == "thread.run.step.delta":
            so_far = pieces.setdefault(data["id"], [])
            so_far.append(data["delta"]["step_details"])
    for deltas in pieces.values():
        for end in range(1, len(deltas) + 1):
            assert ours(deltas[:end]) == without_indexes(accumulated(deltas[:end]))
    return sum(map(len, pieces.values()))


@pytest.mark.parametrize("name", STREAMS)
def test_the_peer_agrees_on_recordings(name: str) -> None:
    assert assert_agree(recorded(*STREAMS[name])) > 0 or name in ("message_run", "tool_call, part 2")


@pytest.mark.parametrize("story", sorted(set(STORIES) - {"mcp_approval"}))
def test_the_peer_agrees_on_our_samples(story: str) -> None:
    deltas = assert_agree(sampled(*STORIES[story]))
    assert (deltas > 0) is ('"thread.run.step.delta"' in "".join(SAMPLES[name].read_text() for name in STORIES[story]))


def test_on_an_output_that_comes_late_the_peer_differs_by_the_repeated_id_alone() -> None:
    pieces = [data for name, data in told(sampled(*STORIES["mcp_approval"])) if name == "thread.run.step.delta"]
    late = pieces[-1]["id"]
    deltas = [data["delta"]["step_details"] for data in pieces if data["id"] == late]
    found, theirs = entry_of(ours(deltas)), entry_of(without_indexes(accumulated(deltas)))
    assert theirs["id"] == found["id"] * 2
    assert theirs | {"id": found["id"]} == found


@given(
    st.lists(st.text(max_size=10), min_size=1, max_size=10), st.sampled_from(["function", "code_interpreter", "mcp"])
)
def test_the_peer_agrees_on_any_clean_stream(texts: list[str], kind: str) -> None:
    def piece(grown: str) -> dict[str, Any]:
        bodies: dict[str, dict[str, Any]] = {
            "function": {"function": {"arguments": grown}},
            "code_interpreter": {"code_interpreter": {"input": grown}},
            "mcp": {"arguments": grown},
        }
        return {"type": "tool_calls", "tool_calls": [{"index": 0, "type": kind} | bodies[kind]]}

    first = piece("")
    first["tool_calls"][0]["id"] = "c"
    deltas = [first, *map(piece, texts)]
    assert ours(deltas) == without_indexes(accumulated(deltas))


def entry_of(found: Any) -> Any:
    (entry,) = found["tool_calls"]
    return entry


def test_difference_numbers_add_up_there() -> None:
    assert entry_of(accumulated([FIRST, FIRST]))["function"]["n"] == 2
    assert entry_of(ours([FIRST, FIRST]))["function"]["n"] == 1


def test_difference_repeated_ids_are_doubled_there() -> None:
    assert entry_of(accumulated([FIRST, FIRST]))["id"] == "cc"
    assert entry_of(ours([FIRST, FIRST]))["id"] == "c"


def test_difference_a_gap_between_indexes_mixes_two_calls_there() -> None:
    def piece(index: int, grown: str) -> dict[str, Any]:
        return {"tool_calls": [{"index": index, "function": {"arguments": grown}}]}

    deltas = [piece(0, "a"), piece(5, "f"), piece(2, "c"), piece(1, "b"), piece(5, "f")]
    texts = [entry["function"]["arguments"] for entry in ours(deltas)["tool_calls"]]
    assert texts == ["a", "b", "c", "ff"]
    theirs = [entry["function"]["arguments"] for entry in accumulated(deltas)["tool_calls"]]
    assert theirs == ["a", "fb", "c", "f"]


def test_difference_a_null_is_counted_here() -> None:
    notes = Notes()
    tree: Tree = {}
    null = {"type": "tool_calls", "tool_calls": [{"index": 0, "id": None}]}
    for piece in (FIRST, null):
        merge_delta(tree, copy.deepcopy(piece), notes)
    assert entry_of(plain(tree))["id"] == "c"
    assert notes.nulls == 1
    assert json.dumps(plain(tree)).count("null") == 0
