"""The fast and the slow path of the core come to the same, and the check that compares them (`Paths.BOTH`) sees it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.audit.judge.transition_observer import TransitionObserver
from processor.core.effects import Checkpoint, LogRecord, Publish
from processor.core.entry import Entry, Form
from processor.core.partition import PartitionState
from processor.core.path_check import PathsDifferError
from processor.core.rules import Rules
from processor.core.run_steps.fast_path import FastPath, Paths
from processor.core.run_steps.slow_path import SlowPath
from processor.core.run_steps.step import Step
from processor.core.step_state import StepState
from tests.core.raw_batches import raw_batch
from tests.core.record_columns_of import columns_of
from tests.core.responses_strategies import response_logs, usual_streams
from tests.core.scripted_log import RULES, Play, call, calls, delta, headers, published, refused, snapshot, step, text
from tests.core.strategies import ODDITIES, lives, logs
from tests.core.strategies import RULES as LOG_RULES
from tests.core.test_restart import Topics, mark, outcomes, portrait

USUAL: dict[str, Any] = {"type": "tool_calls", "step_details": {"type": "tool_calls", "tool_calls": []}}
"""With these an object is of the exact shape."""
ENTRIES = st.builds(
    lambda index, kind, bodies, ids: {"index": index} | kind | bodies | ids,
    st.sampled_from([0, 0, 0, 1, -1]),
    st.sampled_from([{"type": "function"}, {"type": "function"}, {"type": "code_interpreter"}, {"type": "mcp"}, {}]),
    st.sampled_from(
        [
            *({"function": {"arguments": grown}} for grown in ("a", "", None, "x" * 300)),
            *({"function": {"arguments": "a"} | more} for more in ({"name": "f"}, {"name": "g"}, {"output": "o"})),
            *({"code_interpreter": {"input": grown}} for grown in ("a", None)),
            *({"function": {"arguments": "a"}, "code_interpreter": {"input": "b"}}, {"function": {}}, {}),
        ]
    ),
    st.sampled_from([{}, {}, {}, {"id": "c"}, {"id": "d"}, {"id": None}]),
)
"""What the fast path must tell from what it may take."""


@pytest.mark.parametrize("length", [64, 65])
def test_the_fast_path_weighs_a_long_type_as_the_slow_path_does(length: int) -> None:
    play = Play()
    for _ in range(3):
        play.say("step.delta", calls(call(0, "ab", type="t" * length)))
    assert (found := play.state.steps["s1"].step) is not None
    assert found.characters == 3 * (2 + (length if length > 64 else 0))


def _logs(*pieces: dict[str, Any]) -> dict[str, Any]:
    return {"code_interpreter": {"outputs": list(pieces)}}


GROWN: tuple[dict[str, Any], ...] = (
    {"type": "mcp", "arguments": "a"},
    {"arguments": "a"},
    {"type": "t" * 65, "arguments": "a"},
    {"type": "openapi", "function": {"arguments": "a"}},
    {"function": {"arguments": "a"}},
    {"type": "azure_function", "azure_function": {"arguments": "a"}},
    {"type": "connected_agent", "connected_agent": {"arguments": "a"}},
    {"type": "fabric_dataagent", "fabric_dataagent": {"input": "a"}},
    {"type": "code_interpreter", "code_interpreter": {"input": "a"}},
    {"type": "code_interpreter"} | _logs({"index": 0, "type": "logs", "logs": "a"}),
    {"type": "code_interpreter"} | _logs({"index": 1, "logs": "a"}),
    {"type": "code_interpreter"} | _logs({"index": 0, "type": "t" * 65, "logs": "a"}),
)
"""Deltas that append text, one for each place (M2), and some that say less or more of their types."""
NEARLY: tuple[dict[str, Any], ...] = (
    {"type": "mcp", "arguments": "a", "function": {"arguments": "b"}},
    {"type": "mcp", "arguments": None},
    {"type": "mcp", "arguments": "a", "id": "c"},
    {"type": "mcp", "arguments": "a", "output": "o"},
    {"type": "mcp", "output": "o"},
    {"type": "mcp", "name": "n", "arguments": "a"},
    {"type": "mcp", "server_label": "l", "arguments": "a"},
    {"type": "odd", "arguments": "a"},
    {"type": "mcp"},
    {"azure_function": {"name": "f"}},
    {"azure_function": {"arguments": "a", "name": "g"}},
    {"azure_function": {"output": "o"}},
    {"fabric_dataagent": {"output": "o"}},
    {"azure_ai_search": {"input": "q"}},
    {"code_interpreter": {"input": "a", "outputs": []}},
    {"code_interpreter": {"outputs": []}},
    {"function": {"output": "o"}},
    _logs({"index": 0, "type": "odd", "logs": "a"}),
    _logs({"index": 0, "type": "logs", "logs": "a"}, {"index": 0, "type": "logs", "logs": "b"}),
    _logs({"index": 0, "type": "logs"}),
    _logs({"index": 1024, "type": "logs", "logs": "a"}),
    _logs({"index": -1, "type": "logs", "logs": "a"}),
    _logs({"type": "logs", "logs": "a"}),
    _logs({"index": 0, "type": "image", "image": {"file_id": "f"}}),
)
"""Deltas that look like those and say something else, too."""


@st.composite
def grown(draw: st.DrawFn) -> list[LogRecord]:
    """Deltas for one place or two, mostly, in the commonest spelling, and objects among them."""
    places = draw(st.lists(st.sampled_from(GROWN), min_size=1, max_size=2))
    values: list[dict[str, Any]] = []
    if draw(st.booleans()):
        values.append({"event": "thread.run.step.created", "data": step(**USUAL)})
    for _ in range(draw(st.integers(3, 15))):
        odd = draw(st.integers(0, 5))
        said = draw(st.sampled_from(places if odd else (*NEARLY, *GROWN)))
        index = draw(st.sampled_from([0, 0, 0, 0, 1])) if odd > 1 else draw(st.sampled_from([0, 1, -1, 1024]))
        second = [{"index": draw(st.sampled_from([0, 1]))} | said] if odd == 2 else []
        values.append({"event": "thread.run.step.delta", "data": calls({"index": index} | said, *second)})
    tool = {"type": "mcp", "arguments": "z", "code_interpreter": {"input": "z", "outputs": [{"logs": "z"}]}}
    for name in draw(st.lists(st.sampled_from(["in_progress", "completed"]), max_size=2)):
        status = "completed" if name == "completed" else "in_progress"
        stated = {"type": "tool_calls", "tool_calls": draw(st.sampled_from([[], [tool]]))}
        at = draw(st.integers(0, len(values)))
        values.insert(at, {"event": f"thread.run.step.{name}", "data": step(status, step_details=stated)})
    return [LogRecord(n, 1_000_000 + n, b"k", text(value)) for n, value in enumerate(values)]


@st.composite
def crowded(draw: st.DrawFn) -> list[LogRecord]:
    """Deltas of one call or two, of nearly the commonest shapes, with an object or an end among them."""
    values = [
        {"event": "thread.run.step.delta", "data": calls(*entries)}
        for entries in draw(st.lists(st.lists(ENTRIES, min_size=1, max_size=2), min_size=3, max_size=15))
    ]
    stated = {"type": "tool_calls", "tool_calls": [{"type": "function", "function": {"arguments": "z"}}]}
    for name in draw(st.lists(st.sampled_from(["created", "in_progress", "completed"]), max_size=2)):
        status = "completed" if name == "completed" else "in_progress"
        at = draw(st.integers(0, len(values)))
        values.insert(at, {"event": f"thread.run.step.{name}", "data": step(status, step_details=stated)})
    return [LogRecord(n, 1_000_000 + n, b"k", text(value)) for n, value in enumerate(values)]


def come_to_the_same(records: list[LogRecord], rules: Rules = LOG_RULES) -> None:
    def life(paths: Paths, *batches: Any) -> Any:
        state = PartitionState("t", 3, rules, paths=paths)
        effects = state.apply_batches(batches) if batches else state.apply(records)
        # Checkpoints may hold the same tree with its keys in another order; what counts is the state they give.
        kept = [effect.key for effect in effects if isinstance(effect, Checkpoint)]
        counts = {k: n for k, n in state.counts.items() if n}
        return outcomes(effects), kept, portrait(state), counts, state.restore_point()

    assert life(Paths.FAST) == life(Paths.SLOW)
    assert life(Paths.FAST, raw_batch(records)) == life(Paths.FAST, *columns_of(records)) == life(Paths.FAST)
    PartitionState("t", 3, rules, paths=Paths.BOTH).apply(records)


@given(
    st.one_of(
        logs(), crowded(), crowded(), grown(), grown(), grown(), response_logs(), usual_streams(), usual_streams()
    )
)
def test_the_fast_and_the_slow_path_come_to_the_same(records: list[LogRecord]) -> None:
    come_to_the_same(records)


@pytest.mark.parametrize("oddity", ODDITIES)
def test_whatever_is_unusual_in_a_life_both_paths_come_to_the_same(oddity: str) -> None:
    @given(lives(oddity), st.sampled_from(["", "", "", "x"]), st.sampled_from([1_000_000, 1_000_000, 500]))
    def with_it(records: list[LogRecord], pinned: str, max_record_bytes: int) -> None:
        rules = msgspec.structs.replace(LOG_RULES, object_type=pinned, max_record_bytes=max_record_bytes)
        come_to_the_same(records, rules)

    with_it()


@given(st.one_of(logs(), lives()), st.sampled_from([None, "r1"]))
def test_who_watches_changes_nothing(records: list[LogRecord], run_id: str | None) -> None:
    """Though it looks into steps as soon as there is one."""

    def belongs(_: str, fields: Mapping[str, Any]) -> bool | None:
        return None if fields.get("run_id") is None else fields["run_id"] == run_id

    watched = PartitionState("t", 3, LOG_RULES, observer=TransitionObserver(lambda _: None, belongs))
    plain = PartitionState("t", 3, LOG_RULES)
    assert outcomes(watched.apply(records)) == outcomes(plain.apply(records))
    assert portrait(watched) == portrait(plain)


@given(st.one_of(usual_streams(), response_logs()))
def test_who_watches_responses_changes_nothing_that_is_published(records: list[LogRecord]) -> None:
    """Contents of items that have ended are kept for a watcher: the states differ in that."""
    watched = PartitionState("t", 3, LOG_RULES, observer=TransitionObserver(lambda _: None, lambda _, __: None))
    assert outcomes(watched.apply(records)) == outcomes(PartitionState("t", 3, LOG_RULES).apply(records))


def test_a_repeat_that_the_limit_refuses_does_not_take_the_fast_path() -> None:
    """`in_progress` is a longer name than `created`: the record is larger though it says the same."""
    stated = step(type="tool_calls", step_details={"type": "tool_calls", "tool_calls": []})
    size = len(text({"event": "thread.run.step.created", "data": stated}))
    play = Play(Rules(max_step_bytes=size + 3))
    play.say("step.created", stated)
    assert refused(play.say("step.in_progress", stated)) == "step_too_large"


def test_the_fast_path_keeps_to_the_limits() -> None:
    play = Play(Rules(max_step_bytes=400, max_open_steps=1))
    assert refused(play.created(**USUAL, metadata={"a": "x" * 400})) == "step_too_large"
    assert play.created(**USUAL) == []
    assert refused(play.created(step_id="s2", **USUAL)) == "too_many_open_steps"
    assert (
        refused(play.say("step.completed", step("completed", **USUAL, metadata={"a": "x" * 400}))) == "step_too_large"
    )
    assert published(play.say("step.completed", step("completed", **USUAL))).anomalies == ("step_too_large",)


def test_the_fast_path_does_not_open_again_what_was_forgotten() -> None:
    play = Play(RULES)
    play.created(step_id="s0", **USUAL)
    for name, status in (("created", "in_progress"), ("completed", "completed"), ("created", "in_progress")):
        play.say(f"step.{name}", step(status, **USUAL))
    topics = Topics(0)
    play.wait(30)
    state = topics.restore(RULES)
    topics.commit(state, state.apply(play.log))
    assert topics.committed[1] == 0, "the step that is open makes a new owner read all"
    again = topics.restore(RULES)
    again.apply(play.log)
    assert list(again.steps) == list(state.steps) == ["s0"]


def test_two_calls_of_one_id_are_matched_as_the_slow_path_does() -> None:
    details = {"type": "tool_calls", "tool_calls": []}
    tool = {"id": "c", "type": "function", "function": {"name": "f", "arguments": None}}
    play = Play()
    play.created(type="tool_calls", step_details=details)
    for index in (0, 1):
        play.say("step.delta", calls(call(index, f"a{index}", id="c", function={"name": "f"})))
    play.completed(type="tool_calls", step_details=details | {"tool_calls": [tool, tool]})
    come_to_the_same(play.log)


def test_the_fast_path_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the property above would compare the slow path with itself."""
    details = {"type": "tool_calls", "tool_calls": []}
    tool = {"id": "c", "type": "function", "function": {"name": "f", "arguments": None, "output": "o"}}

    def general(*_: object) -> None:
        raise AssertionError("the slow path")

    monkeypatch.setattr(SlowPath, "apply_event", general)
    play = Play()
    for step_id in ("s1", "s2"):
        stated = step(step_id=step_id, type="tool_calls", step_details=details)
        play.say("step.created", stated, event_id=step_id)
        play.say("step.in_progress", stated, event_id=step_id + "b")
        play.say("step.delta", calls(call(0, "", id="c", function={"name": "f"}), step_id=step_id))
        with pytest.MonkeyPatch.context() as patch:
            if step_id == "s2":  # the template is known from the first
                patch.setattr(FastPath, "decide", general)
            play.say("step.delta", calls(call(0, "a"), step_id=step_id))
            play.say("step.delta", calls(call(0, '"b'), step_id=step_id), event_id="d")
        done = stated | {"status": "completed", "step_details": details | {"tool_calls": [tool]}}
        effect = published(play.say("step.completed", done))
        assert play.state.steps[step_id].form is Form.COMPACT, "it was materialised"
        assert snapshot(effect)["step_details"]["tool_calls"][0]["function"]["arguments"] == 'a"b'
        assert (headers(effect)["events"], effect.anomalies) == ("6", ())
    assert {k: n for k, n in play.state.counts.items() if n} == dict.fromkeys(
        ("created", "in_progress", "completed"), 2
    ) | {"delta": 6}


def test_steps_whose_ids_end_alike_take_turns() -> None:
    """A delta is looked for by how its step's id ends: which step it is of, the whole id says."""
    play = Play()
    names = ("step_a", "step_b", "step_c")
    for step_id in (f"{name}_001" for name in names):
        play.created(step_id=step_id, **USUAL)
        play.say("step.delta", calls(call(0, "", id="c", function={"name": "f"}), step_id=step_id))
    for turn in range(5):
        for name in names:
            play.say("step.delta", calls(call(0, f"{name} {turn} "), step_id=f"{name}_001"), event_id=f"{name}:{turn}")
    for name in names:
        end = snapshot(play.completed(step_id=f"{name}_001", **USUAL))
        assert end["step_details"]["tool_calls"][0]["function"]["arguments"] == "".join(
            f"{name} {n} " for n in range(5)
        )
    come_to_the_same(play.log, RULES)


def test_an_entry_that_is_forgotten_holds_no_step() -> None:
    """Entries are found again without their names: one that is forgotten must lead to nothing."""
    entry = Entry("s1", 0)
    entry.hold(Step("s1", 0, 0))
    entry.drop()
    assert entry.step is None


@pytest.mark.parametrize("said", [said for said in GROWN if "t" * 65 not in str(said)])
@pytest.mark.parametrize("output", [{"output": "o"}, {}])
def test_deltas_of_every_place_take_the_fast_path(said: dict[str, Any], output: dict[str, Any]) -> None:
    """The first one makes the text, whatever else it says; from the third on nothing is parsed."""
    first = {"type": "tool", "id": "c", "function": {}} | output | said
    play = Play()
    play.created(**USUAL)
    play.say("step.delta", calls({"index": 0} | first))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SlowPath, "apply_event", _never)
        play.say("step.delta", calls({"index": 0} | said))
        patch.setattr(FastPath, "decide", _never)
        play.say("step.delta", calls({"index": 0} | said))
    assert play.state.templates == 1
    assert text(play.state.steps["s1"].materialise().snapshot()["step_details"]).count(b'"aaa"') == 1
    come_to_the_same(play.log)


@pytest.mark.parametrize("nearly", [*NEARLY, *GROWN])
@pytest.mark.parametrize("opens", [True, False])
def test_what_looks_like_a_delta_of_a_place_is_folded_as_by_the_slow_path(nearly: dict[str, Any], opens: bool) -> None:
    """Among deltas of every place: alone, with another call behind it, at other indexes, and after the step's limit."""
    for said in GROWN:
        named = {"index": 0, "id": "c"} | said | ({"output": "o"} if opens else {})
        if opens and "function" in said:
            named = {"index": 0, "id": "c"} | said | {"function": {"name": "f"} | said["function"]}
        usual = calls({"index": 0} | said)
        values = [calls(named), usual, usual]
        for entries in (
            [{"index": 0} | nearly],
            [{"index": 0} | said, {"index": 0} | nearly],
            [{"index": 1} | said],
            [{"index": -1} | said],
            [{"index": 1024} | said],
        ):
            values += [calls(*entries), usual]
        values[4:4] = [calls({"index": 0} | nearly) | {"id": "s2"}, usual]
        events = [("delta", value) for value in values]
        if opens:
            events.insert(0, ("created", step(**USUAL)))
        events += [("completed", step("completed", **USUAL)), ("delta", usual)]
        log = [
            LogRecord(n, 1_000_000 + n, b"k", text({"event": f"thread.run.step.{name}", "data": data}))
            for n, (name, data) in enumerate(events)
        ]
        come_to_the_same(log)
        come_to_the_same(log, msgspec.structs.replace(LOG_RULES, max_step_bytes=265))


@pytest.mark.parametrize("kind", ["function", "t" * 64])
@pytest.mark.parametrize(
    "odd",
    [
        {"index": -1, "function": {"arguments": "b"}},
        {"index": 0, "type": "odd", "function": {"arguments": "b"}},
        {"index": 0, "function": {"arguments": "b"}},
        {"index": 1, "type": "function", "id": "d", "function": {"name": "f", "arguments": ""}, "arguments": "b"},
    ],
)
def test_a_compact_step_takes_no_delta_that_says_something_else(kind: str, odd: dict[str, Any]) -> None:
    play = Play()
    play.created(**USUAL)
    play.say("step.delta", calls(call(0, "a", type=kind, id="c", function={"name": "f"})))
    play.say("step.delta", calls(odd))
    play.say("step.delta", calls(call(0, "a", type=kind)))
    play.say("step.completed", step("completed", **USUAL))
    come_to_the_same(play.log)


def test_a_delta_for_a_text_that_an_object_brought_replaces_it() -> None:
    tool = {"type": "mcp", "id": "c", "arguments": "z"}
    play = Play()
    play.created(type="tool_calls", step_details={"type": "tool_calls", "tool_calls": [tool]})
    for _ in range(2):
        play.say("step.delta", calls({"index": 0, "type": "mcp", "arguments": "a"}))
    assert snapshot(play.completed())["step_details"]["tool_calls"] == [tool | {"arguments": "aa"}]
    come_to_the_same(play.log)


def test_the_delta_that_first_says_the_type_of_the_details_is_merged() -> None:
    """Not taken for one that adds text alone."""
    play = Play()
    play.say("step.delta", delta(tool_calls=[call(0, "a")]))
    for _ in range(3):
        play.say("step.delta", calls(call(0, "a")))
    come_to_the_same(play.log)


TOOL_CALLS: tuple[dict[str, Any], ...] = (
    {"type": "mcp", "name": "search", "server_label": "docs", "arguments": "a"},
    {"type": "mcp", "arguments": "a"},
    {"type": "function", "name": "odd", "function": {"name": "f", "arguments": "a"}},
    {"type": "function", "server_label": "odd", "function": {"name": "f", "arguments": "a"}},
    {"type": "code_interpreter", "code_interpreter": {"input": "a", "outputs": []}},
    {"type": "code_interpreter"} | _logs({"index": 0, "type": "logs", "logs": "a"}),
    {"type": "code_interpreter"} | _logs({"index": 1, "type": "logs", "logs": "a"}),
    {"type": "file_search", "file_search": {}},
    {"type": "bing_grounding", "bing_grounding": {"requesturl": "u"}},
    {"type": "azure_ai_search", "azure_ai_search": {"input": "q", "output": "o"}},
    {"type": "openapi", "function": {"name": "f", "arguments": "a", "output": None}},
    {"type": "azure_function", "azure_function": {"name": "f", "arguments": "\ud83d"}},
)
"""First deltas of calls of every tool, usual ones and odd ones."""


def _wire(name: str, data: Any) -> dict[str, Any]:
    return {"event": f"thread.run.step.{name}", "data": data}


def _log_of(values: list[dict[str, Any]]) -> list[LogRecord]:
    # As JSON.stringify writes it: half a character is an escape.
    lines = (json.dumps(value, separators=(",", ":")).encode() for value in values)
    return [LogRecord(n, 1_000_000 + n, b"k", line) for n, line in enumerate(lines)]


@pytest.mark.parametrize("said", TOOL_CALLS)
@pytest.mark.parametrize("index", [0, 1])
def test_steps_of_every_tool_end_as_by_the_slow_path(said: dict[str, Any], index: int) -> None:
    """With what the end says of the call, or leaves to the fold; then late deltas, another end and a checkpoint."""
    first = {"index": index, "id": "c"} | said
    told = {key: value for key, value in first.items() if key != "index"}
    stated = step(**USUAL, expires_at=2_000, usage=None)
    more = [_wire("delta", calls({"index": index} | piece)) for piece in GROWN[:11:2]]
    for ended in ([], [told], [told | {"id": "d"}], [told, told], [told | {"extra": [{"index": 3}], "nil": None}]):
        details = {"type": "tool_calls", "tool_calls": ended}
        end = step("completed", type="tool_calls", step_details=details, completed_at=5)
        other = step("completed", type="tool_calls", step_details=details, completed_at=6)
        for between in ([], more):
            opened = [_wire("created", stated), _wire("delta", calls(first)), *between, _wire("in_progress", stated)]
            late = [_wire("delta", calls({"index": index} | said)), *more, _wire("completed", other)]
            log = _log_of([*opened, _wire("completed", end), *late])
            come_to_the_same(log)
            if ended in ([], [told]):
                come_to_the_same(log, msgspec.structs.replace(LOG_RULES, object_type="x"))
                come_to_the_same(log, msgspec.structs.replace(LOG_RULES, max_step_bytes=330))


@pytest.mark.parametrize("tool", ["mcp", "code_interpreter", "file_search"])
def test_a_step_of_another_tool_stays_compact(tool: str) -> None:
    """Its end is read once and kept as it was published."""
    said: dict[str, Any] = {"type": tool, tool: {}}
    if tool == "mcp":
        said = {"type": tool, "name": "search", "server_label": "docs", "arguments": "{"}
    elif tool == "code_interpreter":
        said = {"type": tool, tool: {"input": "a", "outputs": []}}
    play = Play()
    play.created(**USUAL)
    play.say("step.delta", calls({"index": 0, "id": "c"} | said))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SlowPath, "apply_event", _never)
        details = {"type": "tool_calls", "tool_calls": [{"id": "c"} | said]}
        play.say("step.completed", step("completed", type="tool_calls", step_details=details))
    assert play.state.steps["s1"].form is Form.COMPACT
    come_to_the_same(play.log)


def _nested(levels: int) -> Any:
    return {"a": _nested(levels - 1)} if levels else 1


@pytest.mark.parametrize(
    "odd",
    [
        {"status": "failed"},
        {"status": None},
        {"type": "message_creation"},
        {"type": None},
        {"object": ""},
        {"expired_at": 7},
        {"run_id": None, "thread_id": "t"},
        {"more": 1},
        {"id": "s2"},
        {"step_details": {"type": "message_creation", "tool_calls": []}},
        {"step_details": {"type": "tool_calls", "tool_calls": [{"id": "c", "deep": _nested(101)}]}},
        {"step_details": {"type": "tool_calls", "tool_calls": [{"id": "c", "deep": _nested(60), "too": _nested(60)}]}},
        {"step_details": {"type": "tool_calls", "tool_calls": [3]}},
        {"step_details": {"type": "tool_calls", "tool_calls": None}},
        {"step_details": None},
    ],
)
def test_an_odd_end_of_another_tool_is_taken_as_by_the_slow_path(odd: dict[str, Any]) -> None:
    said = {"type": "mcp", "name": "search", "arguments": "a"}
    end = step("completed", **USUAL, completed_at=5) | odd
    log = _log_of(
        [
            _wire("created", step(**USUAL)),
            _wire("delta", calls({"index": 0, "id": "c"} | said)),
            _wire("completed", end),
            _wire("delta", calls({"index": 0, "type": "mcp", "arguments": "b"})),
        ]
    )
    come_to_the_same(log)


def test_an_end_with_the_id_of_another_step_ends_that_one() -> None:
    """The last of two equal names counts."""
    play = Play()
    play.created(**USUAL)
    play.created(step_id="s2", **USUAL)
    end = text({"event": "thread.run.step.completed", "data": step("completed", step_id="s2", **USUAL)})
    play.put(end.replace(b'"data":{', b'"data":{"id":"s1",'))
    assert [entry.status.value for entry in play.state.steps.values()] == ["in_progress", "completed"]
    come_to_the_same(play.log)


def _never(*_: object) -> None:
    raise AssertionError("not by this path")


# --- the check of both paths


@given(st.one_of(logs(), lives(), usual_streams()), st.data())
def test_both_paths_are_compared_across_checkpoints_marks_and_restarts(
    records: list[LogRecord], data: st.DataObject
) -> None:
    """What is compared changes nothing: the effects are those of the fast path alone."""
    states = [PartitionState("t", 3, LOG_RULES, paths=paths) for paths in (Paths.FAST, Paths.BOTH)]
    for number, record in enumerate(records):
        for_both = [state.apply([record]) for state in states]
        kept = {"checkpoint": data.draw(st.booleans()), "mark": data.draw(st.integers(0, 9)) == 0}
        if kept["checkpoint"]:
            for state, effects in zip(states, for_both, strict=True):
                effects += state.checkpoint(state.next_offset - number % 4)
                effects += state.restore_point_at(state.next_offset)[2]
        if kept["mark"]:
            for state, effects in zip(states, for_both, strict=True):
                effects += mark(state, 1)
        assert for_both[0] == for_both[1]
    assert portrait(states[0]) == portrait(states[1])


def test_a_state_that_is_checked_is_restored_as_any_other() -> None:
    play, topics = Play(RULES), Topics(0)
    play.created(**USUAL)
    state = topics.restore(RULES)
    topics.commit(state, [*state.apply(play.log), *state.checkpoint(1)])
    restored = PartitionState(
        "t", 3, RULES, next_offset=1, live_from=1, stream_time=play.state.stream_time, paths=Paths.BOTH
    )
    restored.load(topics.checkpoints.items())
    record = LogRecord(
        1, 1_001_000, b"k", text({"event": "thread.run.step.completed", "data": step("completed", **USUAL)})
    )
    assert [type(effect) for effect in restored.apply([record])] == [Publish]


@pytest.mark.skipif(hasattr(Step, "__mypyc_attrs__"), reason="a compiled class takes no other methods")
@pytest.mark.parametrize("method", ["begin_exact", "open_call", "append_text", "end_exact"])
def test_a_fast_path_that_does_something_else_is_found(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """Each method that does what was decided counts one event too many."""
    real = getattr(Step, method)

    def wrong(self: Step, *args: Any) -> Any:
        self.events += 1
        return real(self, *args)

    log = [
        {"event": "thread.run.step.created", "data": step(**USUAL)},
        {"event": "thread.run.step.delta", "data": calls(call(0, "", id="c", function={"name": "f"}))},
        {"event": "thread.run.step.delta", "data": calls(call(0, "a"))},
        {"event": "thread.run.step.completed", "data": step("completed", **USUAL)},
    ]
    records = [LogRecord(n, 1_000_000 + n, b"k", text(value)) for n, value in enumerate(log)]
    PartitionState("t", 3, RULES, paths=Paths.BOTH).apply(records)
    monkeypatch.setattr(Step, method, wrong)
    with pytest.raises(PathsDifferError, match="offset"):
        PartitionState("t", 3, RULES, paths=Paths.BOTH).apply(records)


@pytest.mark.skipif(hasattr(Step, "__mypyc_attrs__"), reason="a compiled class has no interpreted children")
def test_a_step_of_another_dialect_is_left_alone() -> None:
    """Events of run steps that name it are refused, and change nothing of it."""

    class Other(StepState):
        pass

    play = Play()
    play.created(**USUAL)
    other = Other("s1", 0, 1_000)
    play.state.steps["s1"].hold(other)
    assert refused(play.say("step.delta", calls(call(0, "a")))) == "illegal_transition"
    assert refused(play.say("step.completed", step("completed", **USUAL))) == "illegal_transition"
    assert play.state.steps["s1"].step is other
    assert other.events == 0


@pytest.mark.parametrize("name", ["created", "in_progress", "completed"])
def test_an_object_that_was_cut_anywhere_is_refused_as_by_the_slow_path(name: str) -> None:
    whole = json.dumps({"event": f"thread.run.step.{name}", "data": step("s1", **USUAL)}, separators=(",", ":"))
    for end in range(len(whole) + 1):
        cut = whole[:end].encode()
        come_to_the_same([LogRecord(0, 1, b"k", cut), LogRecord(1, 1, b"k", cut + b"}")])


def test_an_id_is_found_in_an_object_whatever_its_length() -> None:
    fast = Play().state._run_steps._fast
    ids = ["s1", "s", "step_100", "step_9", "", "step_10", "step_1000"]
    for step_id in [*ids, *reversed(ids)]:  # a later quote of a short one stands where that of a longer one did
        assert fast.id_in(f'{{"id":"{step_id}","object":"thread.run.step"}}'.encode()) == step_id
    assert fast.id_in(b'{"id":"') == fast.id_in(b'{"object":"x","id":"s"}') == ""
