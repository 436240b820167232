"""What the exact reader reads, and that `decode` without it reads the same."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from processor.core.events import decode
from processor.core.exact_events import ExactEvent
from processor.core.lifecycle import Kind
from processor.core.run_steps.exact_fold import general
from processor.core.run_steps.exact_reader import DataReader, StatedObject, TextDelta
from processor.core.wire_types import Decoded, StepDelta, StepObject
from tests.core.scripted_log import call, calls, step, text

TEXTS = st.text(max_size=6) | st.sampled_from(["", '"', '\\"', '"}}]}}}', "s1", '","x":"', "\ud7ff", "\x00", "\u2028"])
IDS = st.text(max_size=4) | st.sampled_from(["s1", "", '"', "\\", "é", "i" * 256, "i" * 257])
LAYOUTS = st.sampled_from([(",", ":"), (", ", ": ")])
MESSAGE: dict[str, Any] = {
    "type": "message_creation",
    "step_details": {"type": "message_creation", "message_creation": {"message_id": "m"}},
}
TOOL = {"type": "code_interpreter", "id": "c", "code_interpreter": {"input": "1"}}


def read_in_full(name: str, data: bytes) -> Any:
    """The event of a name with this data, as the slow path reads it; None if it is refused."""
    found = decode(b'{"event":"thread.run.step.%b","data":%b}' % (name.encode(), data))
    return found.events[0] if isinstance(found, Decoded) else None


def same(found: ExactEvent, expected: Any) -> bool:
    event = general(found)
    if isinstance(event, StepDelta):
        return bool(event == expected)
    return isinstance(expected, StepObject) and event == expected


def delta(step_id: str, piece: str, layout: tuple[str, str], ascii_only: bool, **more: Any) -> bytes:
    told = calls(call(0, piece, **more), step_id=step_id)
    return json.dumps(told, separators=layout, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")


@given(st.lists(st.tuples(IDS, TEXTS, LAYOUTS, st.booleans()), min_size=1, max_size=8))
@example([("s1", "a", (",", ":"), True), ('"', "a", (",", ":"), True), ("s1", "\x00", (",", ":"), True)])
@example([("\x00", "a", (",", ":"), True), ("\x00", "a", (",", ":"), False)])
def test_by_template_or_not_a_delta_is_what_decode_reads(deltas: list[tuple[str, str, tuple[str, str], bool]]) -> None:
    reader = DataReader()
    for step_id, piece, layout, ascii_only in deltas:
        data = delta(step_id, piece, layout, ascii_only)
        found = reader.delta_in(data)
        if found is None:
            assert read_in_full("delta", data) is None
            assert not 0 < len(step_id) <= 256 or step_id[0] == "\x00"  # as names of responses begin
            continue
        assert same(found, read_in_full("delta", data))
        if isinstance(found, TextDelta):
            assert json.loads(b'"%b"' % found.piece) == piece
            assert (found.length, found.step_id) == (len(piece), step_id)


@given(st.lists(st.tuples(IDS, TEXTS), max_size=4), st.binary(max_size=3), st.integers(0, 200), st.integers(0, 3))
@example([], b'"', 11, 1)
def test_what_is_cut_or_changed_is_no_other_delta(deltas: list[tuple[str, str]], put: bytes, at: int, cut: int) -> None:
    reader = DataReader()
    for pair in [("s1", "a"), *deltas]:
        reader.delta_in(delta(*pair, (",", ":"), False))
    data = delta("s1", "some text", (",", ":"), False)
    changed = data[:at] + put + data[at + cut :]
    found = reader.delta_in(changed)
    if found is not None:
        assert same(found, read_in_full("delta", changed))


def test_text_is_found_by_a_template_from_the_second_delta_on() -> None:
    """Else the properties above would show nothing."""
    reader = DataReader()
    for layout in ((",", ":"), (", ", ": ")):
        read = [reader.delta_in(delta("s1", piece, layout, True)) for piece in ("a", "b", "\x00")]
        assert [isinstance(found, TextDelta) for found in read] == [False, True, True]
    assert reader.known == 2


def test_texts_that_a_template_leaves_no_room_for() -> None:
    """Where its two parts overlap, a text would have less than no characters."""
    reader = DataReader()
    reader.delta_in(delta("s1", "a", (",", ":"), True))
    whole = delta("s1", "", (",", ":"), True)
    assert isinstance(reader.delta_in(whole), TextDelta)
    assert reader.delta_in(whole.replace(b'""', b'"')) is None


OBJECTS = [
    ("created", step(**MESSAGE)),
    ("in_progress", step(type="tool_calls", step_details={"type": "tool_calls", "tool_calls": []})),
    ("completed", step("completed", **MESSAGE)),
    ("completed", step("failed", **MESSAGE)),
    ("completed", step("completed", type="tool_calls", step_details={"type": "tool_calls", "tool_calls": [TOOL]})),
    ("cancelled", step("cancelled", type="tool_calls", step_details={"type": "tool_calls", "tool_calls": [{}]})),
    ("completed", step("failed", type="tool_calls", step_details={"type": "tool_calls", "tool_calls": [TOOL]})),
]


@pytest.mark.parametrize(("name", "told"), OBJECTS)
@pytest.mark.parametrize("change", [{}, {"id": ""}, {"id": "i" * 257}, {"id": 1}, {"run_id": 1}, {"type": 1}, {"x": 1}])
def test_a_step_object_is_what_decode_reads(name: str, told: dict[str, Any], change: dict[str, Any]) -> None:
    data = text(told | change)
    found = DataReader().object_in(data, Kind(name))
    if found is not None:
        assert isinstance(found, StatedObject)
        assert same(found, read_in_full(name, data))


BARE: list[dict[str, Any]] = [
    calls(call(0, "a")),
    {"id": "s1", "delta": {"step_details": {"type": "tool_calls", "tool_calls": [call(0, "a")]}}},
    calls(call(0, "a")) | {"object": "thread.run.step"},
    *(told for _, told in OBJECTS),
    step(type="tool_calls", step_details={"type": "tool_calls", "tool_calls": []}) | {"object": "thread"},
    step(type="tool_calls", step_details={"type": "tool_calls", "tool_calls": []}) | {"object": "odd"},
    step(type="error", step_details={"type": "error", "tool_calls": []}),
    step(type="response.created", step_details={"type": "response.created", "tool_calls": []}),
    step("odd", type="tool_calls", step_details={"type": "tool_calls", "tool_calls": []}),
    step("odd", **MESSAGE),
    step(None, **MESSAGE),
]


@pytest.mark.parametrize("told", BARE)
def test_a_bare_value_is_what_it_is_read_as_in_full_whatever_was_read_before(told: dict[str, Any]) -> None:
    """The same text may have been the data of an event with a name, and then its reader remembers it."""
    reader, data = DataReader(), text(told)
    for name in ("created", "in_progress", "completed"):
        reader.object_in(data, Kind(name))
    for _ in range(3):
        reader.delta_in(data)
    expected = decode(data)
    found = decode(data, exact=reader)
    if isinstance(expected, Decoded) and isinstance(found, Decoded):
        (event,), (wanted,) = found.events, expected.events
        assert same(event, wanted) if isinstance(event, ExactEvent) else event == wanted, event
    else:
        assert found == expected


def test_what_is_said_again_is_known_by_its_text() -> None:
    reader, data = DataReader(), text(step(**MESSAGE))
    read = [reader.object_in(data, Kind.CREATED), reader.object_in(data, Kind.IN_PROGRESS), reader.bare_in(data)]
    assert [found.kind for found in read if isinstance(found, StatedObject)] == ["created", "in_progress", "stated"]
    for number in range(1_000):
        reader.object_in(text(step(step_id=f"s{number}", **MESSAGE)), Kind.CREATED)
    assert reader.bare_in(data) is None


def test_an_object_of_unusual_size_is_not_remembered() -> None:
    """Some hundred of them would take the memory of as many records for as long as the partition is owned."""
    for size, is_known in ((3_000, True), (5_000, False)):
        reader, data = DataReader(), text(step(assistant_id="a" * size, **MESSAGE))
        assert isinstance(reader.object_in(data, Kind.CREATED), StatedObject)
        assert (reader.bare_in(data) is not None) is is_known


def test_the_usual_objects_are_read() -> None:
    read = [DataReader().object_in(text(told), Kind(name)) is not None for name, told in OBJECTS]
    assert read == [True, True, True, False, True, True, False]
