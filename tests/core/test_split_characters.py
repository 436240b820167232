r"""The halves of a surrogate pair in two deltas (`"now \ud83d"`, `"\ude80 today"`) are the character that they make.

A half whose other half does not come is U+FFFD, and the step says so (`replaced_half`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.core.effects import DeadLetter, Effect, LogRecord, Publish
from processor.core.merge import MERGE, Rule
from processor.core.partition import PartitionState
from processor.core.responses.wire import PLACES
from processor.core.run_steps.fast_path import Paths
from processor.core.run_steps.step import Step
from processor.core.surrogates import holds_half, joined
from tests.core.responses_log import record_of
from tests.core.scripted_log import RULES, calls, run, step
from tests.core.test_restart import Topics
from tests.examples import examples

ROCKET = "🚀"
APPENDED = [path for path, rule in MERGE.items() if rule is Rule.APPEND]


def escaped(value: object) -> bytes:
    """JSON of ASCII, as `json.dumps` and `JSON.stringify` write halves."""
    return json.dumps(value, separators=(",", ":")).encode()


def units_of(text: str) -> list[str]:
    """UTF-16 code units, a character each."""
    raw = text.encode("utf-16-le", "surrogatepass")
    return [chr(int.from_bytes(raw[at : at + 2], "little")) for at in range(0, len(raw), 2)]


def whole(pieces: Sequence[str]) -> str:
    """What the pieces make together."""
    return "".join(pieces).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def is_whole(pieces: Sequence[str]) -> bool:
    try:
        "".join(pieces).encode("utf-16-le", "surrogatepass").decode("utf-16-le")
    except UnicodeDecodeError:
        return False
    return True


def entry(path: str, text: str, *, begins: bool) -> dict[str, Any]:
    """A tool call's delta that brings a text at this path of the merge table."""
    _, *way, leaf = path.split(".")
    body: dict[str, Any] = {leaf: text}
    for name in reversed(way):
        body = {"outputs": [{"index": 0, "type": "logs"} | body]} if name == "outputs[]" else {name: body}
    kind = way[0] if way else "mcp"
    more = {"id": "call_1"} if begins else {}
    if begins and kind == "function":
        body["function"] |= {"name": "look_up", "output": None}
    return {"index": 0, "type": kind} | more | body


def text_at(path: str, snapshot: Any) -> str:
    """The published text at the path."""
    node = snapshot["step_details"]
    for name in path.replace("[]", ".0").split("."):
        node = node[int(name)] if name == "0" else node[name]
    assert isinstance(node, str)
    return node


def run_step_log(path: str, pieces: Sequence[str]) -> list[LogRecord]:
    created = {"event": "thread.run.step.created", "data": step(type="tool_calls")}
    deltas = [
        {"event": "thread.run.step.delta", "data": calls(entry(path, piece, begins=not number))}
        for number, piece in enumerate(pieces)
    ]
    ended = {"event": "thread.run.cancelled", "data": run("cancelled")}
    return [LogRecord(n, 1_000_000, b"r1", escaped(value), ()) for n, value in enumerate([created, *deltas, ended])]


def response_log(name: str, pieces: Sequence[str]) -> list[LogRecord]:
    place = PLACES[name]
    at: dict[str, Any] = {"output_index": 0} | ({place.index: 0} if place.index else {})
    response = {"id": "resp_1", "object": "response", "status": "in_progress", "output": []}
    item = {"id": "item_1", "type": place.item_type}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": response},
        {"type": "response.output_item.added", "output_index": 0, "item": item},
        *({"type": f"response.{name}.delta", **at, "delta": piece} for piece in pieces),
        {"type": "response.failed", "response": response | {"status": "failed"}},
    ]
    records = []
    for n, event in enumerate(events):
        headers = record_of({"sequence_number": n}, "resp_1", n, n).headers
        records.append(LogRecord(n, 1_000_000, b"resp_1", escaped(event | {"sequence_number": n}), headers))
    return records


def outcomes(effects: Sequence[Effect]) -> list[Effect]:
    return [effect for effect in effects if isinstance(effect, (Publish, DeadLetter))]


def in_one_life(records: Sequence[LogRecord]) -> list[Effect]:
    fast, slow = (outcomes(PartitionState("t", 3, RULES, paths=p).apply(records)) for p in (Paths.FAST, Paths.SLOW))
    assert fast == slow
    return fast


def with_a_crash_after_each(records: Sequence[LogRecord]) -> list[Effect]:
    """Every record is applied by an owner that has restored what the one before it had committed."""
    topics = Topics(0)
    for record in records:
        state = topics.restore(RULES)
        state.apply([one for one in records if state.next_offset <= one.offset < record.offset])
        effects = state.apply([record])
        effects += state.checkpoint(record.offset + 1)
        topics.commit(state, effects)
    return topics.outcomes


ALPHABET = st.sampled_from(["a", '"', "\\", "é", "\n", ROCKET, "🇵🇱", "\ufffd", "\ue000", "\ue83d", "\ud83d", "\ude80"])


@st.composite
def cut(draw: st.DrawFn) -> list[str]:
    """A text, cut anywhere between code units."""
    units = units_of("".join(draw(st.lists(ALPHABET, min_size=1, max_size=12))))
    places = sorted(draw(st.sets(st.integers(0, len(units)), max_size=5)) | {0, len(units)})
    return ["".join(units[begin:end]) for begin, end in pairwise(places)]


@pytest.mark.parametrize("path", APPENDED)
@settings(max_examples=examples(60), deadline=None)
@given(pieces=cut())
def test_a_text_comes_out_whole_wherever_it_was_cut(path: str, pieces: list[str]) -> None:
    _holds(run_step_log(path, pieces), pieces, lambda snapshot: text_at(path, snapshot))


@pytest.mark.parametrize("name", PLACES)
@settings(max_examples=examples(60), deadline=None)
@given(pieces=cut())
def test_a_text_of_a_response_too(name: str, pieces: list[str]) -> None:
    _holds(response_log(name, pieces), pieces, lambda snapshot: _found(snapshot, name))


def _holds(records: list[LogRecord], pieces: list[str], text_of: Callable[[Any], str]) -> None:
    found = in_one_life(records)
    assert with_a_crash_after_each(records) == found
    (published,) = found
    assert isinstance(published, Publish)
    assert text_of(json.loads(published.value)) == whole(pieces)
    assert ("replaced_half" in published.anomalies) == (not is_whole(pieces))


def _found(snapshot: dict[str, Any], name: str) -> str:
    """The one text of a snapshot that is a list's or an object's innermost string under the place's own name."""
    field = PLACES[name].field
    hits: list[str] = []

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            for key, held in value.items():
                if key == field and isinstance(held, str):
                    hits.append(held)
                walk(held)
        elif isinstance(value, list):
            for held in value:
                if field == "command" and isinstance(held, str):
                    hits.append(held)
                walk(held)

    walk(snapshot["step_details"])
    assert hits, snapshot
    return hits[0]


def test_the_case_of_the_report() -> None:
    path = "tool_calls[].function.arguments"
    (published,) = in_one_life(run_step_log(path, ["now \ud83d", "\ude80 today"]))
    assert isinstance(published, Publish)
    assert text_at(path, json.loads(published.value)) == "now 🚀 today"
    assert published.anomalies == ()


def test_a_half_that_waits_is_completed_by_a_late_delta() -> None:
    """The step was published with U+FFFD; the other half comes later, and with it revision 1."""
    path = "tool_calls[].function.arguments"
    *log, last = run_step_log(path, ["now \ud83d", "\ude80"])
    late = log.pop()
    records = [LogRecord(n, 1_000_000, b"r1", one.value, ()) for n, one in enumerate([*log, last, late])]
    for found in (in_one_life(records), with_a_crash_after_each(records)):
        first, second = found
        assert isinstance(first, Publish)
        assert isinstance(second, Publish)
        assert text_at(path, json.loads(first.value)) == "now \ufffd"
        assert "replaced_half" in first.anomalies
        assert (second.revision, text_at(path, json.loads(second.value))) == (1, "now 🚀")
        assert "replaced_half" not in second.anomalies


def test_an_ending_object_that_states_the_whole_text_agrees() -> None:
    path = "tool_calls[].code_interpreter.input"
    *log, _ = run_step_log(path, ["now \ud83d", "\ude80"])
    call = {"id": "call_1", "type": "code_interpreter", "code_interpreter": {"input": "now 🚀", "outputs": []}}
    details = {"type": "tool_calls", "tool_calls": [call]}
    ended = {
        "event": "thread.run.step.completed",
        "data": step("completed", type="tool_calls", step_details=details),
    }
    (published,) = in_one_life([*log, LogRecord(len(log), 1_000_000, b"r1", escaped(ended), ())])
    assert isinstance(published, Publish)
    assert published.anomalies == ()


def test_a_half_in_another_string_of_the_delta_is_replaced_at_once() -> None:
    path = "tool_calls[].function.arguments"
    log = run_step_log(path, ["now \ud83d", "\ude80"])
    value = (log[1].value or b"").replace(b'"call_1"', b'"call_\\ud83d"')
    log[1] = LogRecord(1, 1_000_000, b"r1", value, ())
    (published,) = in_one_life(log)
    assert isinstance(published, Publish)
    assert published.anomalies == ("replaced_half",)
    snapshot = json.loads(published.value)
    assert snapshot["step_details"]["tool_calls"][0]["id"] == "call_\ufffd"
    assert text_at(path, snapshot) == "now 🚀"


@given(st.lists(ALPHABET, max_size=12).map("".join))
def test_joined_is_what_utf_16_makes_of_it(text: str) -> None:
    assert joined(text) == whole([text])
    assert holds_half(text) == (not is_whole([text]))


def test_a_checkpoint_keeps_the_half() -> None:
    state = PartitionState("t", 3, RULES)
    state.apply(run_step_log("tool_calls[].arguments", ["now \ud83d"])[:-1])
    (entry_of,) = state.steps.values()
    held = entry_of.materialise()
    assert isinstance(held, Step)
    again = Step.unpack(held.pack())
    assert again.tree["tool_calls"].entries[0]["arguments"].getvalue() == "now \ud83d"
