"""Object templates: whatever a learned template takes, both paths read the same and publish in the same bytes."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from processor.audit.judge.transition_observer import TransitionObserver
from processor.core.checkpoints import gone_checkpoint, step_key
from processor.core.effects import LogRecord, Publish
from processor.core.partition import PartitionState
from processor.core.rules import Rules
from processor.core.run_steps import object_template
from processor.core.run_steps.fast_path import FastPath, Paths
from processor.core.run_steps.object_shape import Hole, Shape
from processor.core.run_steps.object_template import learn_begin, learn_call, learn_end
from processor.core.run_steps.usual_events import exact_object, prefix_of
from tests.core.object_lives import lives_of_a_producer
from tests.core.scripted_log import Play, call, calls, published, refused, step, text
from tests.core.strategies import RULES
from tests.core.test_paths import come_to_the_same
from tests.examples import examples

EMPTY: dict[str, Any] = {"type": "tool_calls", "tool_calls": []}


BOTH_FORMS = pytest.mark.usefixtures("_both_forms")


@BOTH_FORMS
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=examples(150))
@given(
    lives_of_a_producer(),
    st.sampled_from([{}, {}, {}, {"max_step_bytes": 420}, {"max_open_steps": 1}, {"object_type": "x"}]),
)
def test_steps_by_templates_come_to_the_same_by_the_slow_path(records: list[LogRecord], rules: dict[str, Any]) -> None:
    come_to_the_same(records, msgspec.structs.replace(RULES, **rules))


def _whole(status: str, number: int, details: dict[str, Any], **more: Any) -> dict[str, Any]:
    return (
        step(status, f"step_{number}", thread_id="t", type=details["type"], step_details=details, expires_at=5_000)
        | more
    )


def _opening(number: int, tool: str = "function") -> dict[str, Any]:
    body = {tool: {"name": "f", "arguments": "a"}} if tool == "function" else {"name": "f", "arguments": "a"}
    return calls({"index": 0, "id": f"c{number}", "type": tool} | body, step_id=f"step_{number}")


def _live(play: Play, number: int, tool: str, ended: list[Any], **usage: int) -> Publish:
    details = (
        {"type": "message_creation", "message_creation": {"message_id": f"m{number}"}} if tool == "message" else EMPTY
    )
    begun = _whole("in_progress", number, details, usage=None, completed_at=None)
    play.say("step.created", begun)
    play.say("step.in_progress", begun)
    if tool != "message":
        play.say("step.delta", _opening(number, tool))
    last = details if tool == "message" else EMPTY | {"tool_calls": ended}
    return published(play.say("step.completed", _whole("completed", number, last, usage=usage, completed_at=7)))


@pytest.mark.skipif(hasattr(FastPath, "__mypyc_attrs__"), reason="a compiled class takes no other methods")
@pytest.mark.parametrize("tool", ["function", "message"])
@pytest.mark.parametrize("names_calls", [False, True])
def test_the_second_step_of_a_producer_is_not_parsed(
    monkeypatch: pytest.MonkeyPatch, tool: str, names_calls: bool
) -> None:
    """Else the property above would compare the slow path with itself."""
    play = Play()

    def ended(number: int) -> list[Any]:
        named = {"id": f"c{number}", "type": "function", "function": {"name": "f", "arguments": "a"}}
        return [named] if names_calls else []

    _live(play, 1, tool, ended(1), n=3)

    def never(*_: object) -> None:
        raise AssertionError("decided by reading")

    monkeypatch.setattr(FastPath, "decide", never)
    effect = _live(play, 20, tool, ended(20), n=40_000)
    assert json.loads(effect.value)["usage"] == {"n": 40_000}
    monkeypatch.undo()
    come_to_the_same(play.log)


@BOTH_FORMS
@pytest.mark.parametrize("odd", [b'"', b"\\", b"\\u0041", b"\x1f", b"\x7f", b"\x80", b'x","object":"y'])
def test_no_id_matches_that_needs_an_escape(odd: bytes) -> None:
    shape = Shape(b'{"id":"a","n":5}', [Hole(7, 8, 0), Hole(14, 15, 1)])
    assert shape.cut(b'{"id":"bcd","n":12}') == [b"bcd", b"12"]
    assert shape.cut(b'{"id":"b%bc","n":12}' % odd) is None


@BOTH_FORMS
@pytest.mark.parametrize("odd", [b"", b"0", b"012", b"-1", b"1.5", b"1e5", b" 1", b"1 ", b"1234567890123456", b"a"])
def test_no_number_matches_but_plain_digits(odd: bytes) -> None:
    shape = Shape(b'{"n":5,"id":"a"}', [Hole(5, 6, 1), Hole(13, 14, 0)])
    assert shape.cut(b'{"n":123456789012345,"id":"a"}') == [b"123456789012345", b"a"]
    assert shape.cut(b'{"n":%b,"id":"a"}' % odd) is None


@BOTH_FORMS
@pytest.mark.parametrize(
    "odd",
    [
        b'{"n":1,"id":"a"} ',
        b' {"n":1,"id":"a"}',
        b'{"n":1,"ID":"a"}',
        b'{"m":1,"id":"a"}',
        b'{"n":1,"id":"a"}"}',
        b'{"n":1,"id":"a","id":"a"}',
        b'{"n":1,"id":"a',
    ],
)
def test_every_constant_byte_counts(odd: bytes) -> None:
    assert Shape(b'{"n":5,"id":"a"}', [Hole(5, 6, 1), Hole(13, 14, 0)]).cut(odd) is None


def _learned_begin(data: dict[str, Any] | bytes) -> Any:
    whole = data if isinstance(data, bytes) else text(data)
    value = b'{"event":"thread.run.step.created","data":%b}' % whole
    head = prefix_of(value)
    assert head is not None
    event = exact_object(whole, head.kind)
    return None if event is None else learn_begin(value, head.data, event)


def _learned_end(data: dict[str, Any] | bytes) -> Any:
    whole = data if isinstance(data, bytes) else text(data)
    return learn_end(
        b'{"event":"thread.run.step.completed","data":%b}' % whole, len(b'{"event":"thread.run.step.completed","data":')
    )


def test_the_usual_objects_are_learned() -> None:
    assert _learned_begin(_whole("in_progress", 1, EMPTY)).shape
    ended = _learned_end(_whole("completed", 1, EMPTY, usage={"n": 5, "m": {"k": 3}}))
    assert (ended.left, ended.says_details, ended.message_at) == (True, False, -1)
    named = EMPTY | {"tool_calls": [{"id": "c", "type": "mcp", "arguments": "a"}]}
    assert _learned_end(_whole("completed", 1, named)).says_details
    message = {"type": "message_creation", "message_creation": {"message_id": "m"}}
    assert _learned_end(_whole("completed", 1, message)).message_at >= 0
    assert _learned_begin(_whole("in_progress", 1, message)).message_at >= 0
    delta = {"event": "thread.run.step.delta", "data": calls(call(0, "a", id="c", function={"name": "f"}))}
    assert learn_call(text(delta)) is not None


def test_an_end_tells_a_watcher_what_it_says_of_its_run_and_thread() -> None:
    """A thread that is a number stays one."""
    for thread, run in (("t", "r1"), (3, "r1"), (None, None)):
        watcher = TransitionObserver(lambda _: None, None)
        state = PartitionState("t", 0, RULES, observer=watcher)
        for number in range(3):
            more = {"thread_id": thread, "run_id": run}
            for name, status in (("created", "in_progress"), ("completed", "completed")):
                event = {"event": f"thread.run.step.{name}", "data": _whole(status, number, EMPTY, **more)}
                state.apply([LogRecord(state.next_offset, 1_000_000, b"k", text(event))])
        assert [ids[1:] for ids in watcher.revisions.values()] == [(run, thread)] * 3


@pytest.mark.parametrize(
    "data",
    [
        _whole("completed", 1, EMPTY, metadata={"a": "b"}),
        _whole("completed", 1, EMPTY, last_error={"code": "c", "message": "m"}),
        _whole("completed", 1, EMPTY, assistant_id="\u00e9"),
        _whole("completed", 1, EMPTY, assistant_id="a: 5,"),
        _whole("completed", 1, EMPTY, usage={f"a{n}": 900_000_000_000_000.5 + n for n in range(9)}, created_at=7),
        text(_whole("completed", 1, EMPTY)).replace(b'"id":"step_1"', b'"id":"step_0","id":"step_1"'),
        text(_whole("completed", 1, EMPTY)).replace(b'"id":"step_1"', b'"id":"step\\u005f1"'),
        text(_whole("completed", 1, EMPTY, created_at=3)).replace(b":3", b':3,"created_at":4'),
        text(_whole("completed", 1, EMPTY, metadata={"x": 5})).replace(b'"x"', b'"id":"a","id"'),
    ],
)
def test_where_more_may_vary_nothing_is_learned(data: dict[str, Any] | bytes) -> None:
    assert _learned_end(data) is None
    if b"900000000000000.5" in (data if isinstance(data, bytes) else text(data)):
        return  # for what is published alone
    begun = data if isinstance(data, bytes) else text(data)
    assert _learned_begin(begun.replace(b'"completed"', b'"in_progress"')) is None


@pytest.mark.parametrize(
    "read",
    [
        lambda whole: {"id": "a", "n": 5},
        lambda whole: {"id": "a" if b'"a"' in whole else "~0~", "n": 5 if b'"a"' in whole else 6},
        lambda whole: {"id": "a" if b'"a"' in whole else "~0~"} | ({} if b'"a"' in whole else {"more": 1}),
        lambda whole: {"id": "a" if b'"a"' in whole else "~0~", "n": 5 if b'"a"' in whole else 5.0},
        lambda whole: {"id": "a" if b'"a"' in whole else "~0~", "name": "more"},
    ],
)
def test_a_hole_that_changes_anything_else_is_none(read: Any) -> None:
    places = object_template.places_of(b'{"id":"a"}', [Hole(7, 8, 0)], lambda whole: {"id": json.loads(whole)["id"]})
    assert places == [("id",)]
    assert object_template.places_of(b'{"id":"a"}', [Hole(7, 8, 0)], read) is None


@pytest.mark.parametrize("name", ["created", "in_progress", "completed"])
def test_objects_by_templates_keep_to_the_limit(name: str) -> None:
    """The object of the second step is longer than all before it."""
    status = "completed" if name == "completed" else "in_progress"

    def say(play: Play, number: int) -> list[Any]:
        if name != "created":
            play.say("step.created", _whole("in_progress", number, EMPTY))
        return play.say(f"step.{name}", _whole(status, number, EMPTY))

    size = len(text({"event": f"thread.run.step.{name}", "data": _whole(status, 1, EMPTY)}))
    play = Play(Rules(max_step_bytes=size))
    assert [type(effect) for effect in say(play, 1)] == ([Publish] if name == "completed" else [])
    assert refused(say(play, 10)) == "step_too_large"


@pytest.mark.parametrize("limit", [0, 1, 100])
def test_what_repeats_the_beginning_is_counted_as_by_the_slow_path(limit: int) -> None:
    """Also where the step has grown, where its event was folded before, and where the value ends in another byte."""
    begun = _whole("in_progress", 1, EMPTY)
    value = text({"event": "thread.run.step.in_progress", "data": begun})
    rules = msgspec.structs.replace(RULES, max_step_bytes=len(value) + 2 + limit)
    play = Play(rules)
    play.say("step.created", begun, event_id="a")
    play.say("step.in_progress", begun, event_id="b")
    play.say("step.in_progress", begun, event_id="b")
    assert play.state.counts["duplicate"] == 1
    play.say("step.delta", calls(call(0, "abc", id="c", function={"name": "f"}), step_id="step_1"))
    assert [refused([effect]) for effect in play.put(value[:-1] + b"]")] == ["not_json"]
    play.put(value)
    come_to_the_same(play.log, rules)


def test_what_repeats_the_beginning_of_a_step_that_has_grown_keeps_to_the_limit() -> None:
    """It is longer than `created` by its name: what still had room for a delta may not have room for it."""
    begun, told = (
        _whole("in_progress", 1, EMPTY),
        calls(call(0, "abc", id="c", function={"name": "f"}), step_id="step_1"),
    )
    longest = len(text({"event": "thread.run.step.in_progress", "data": begun}))
    for limit in range(longest, longest + 6):
        rules = Rules(max_step_bytes=limit)
        play = Play(rules)
        play.say("step.created", begun)
        fits = not play.say("step.delta", told)
        effects = play.say("step.in_progress", begun)
        assert fits == (limit >= longest + 5 - len("in_progress") + len("created"))
        assert [refused([effect]) for effect in effects] == (["step_too_large"] if fits and limit < longest + 5 else [])
        come_to_the_same(play.log, rules)


@pytest.mark.parametrize("odd", ["", "x" * 256, "x" * 257])
def test_an_id_by_a_template_has_the_lengths_that_an_id_may_have(odd: str) -> None:
    play = Play()
    play.say("step.created", _whole("in_progress", 1, EMPTY))
    effects = play.say("step.created", _whole("in_progress", 2, EMPTY, id=odd))
    assert [refused([effect]) for effect in effects] == ([] if len(odd) == 256 else ["malformed"])
    come_to_the_same(play.log)


@pytest.mark.parametrize("tool", ["function", "message"])
def test_an_end_of_an_id_that_was_folded_is_a_repeat_also_by_a_template(tool: str) -> None:
    play = Play()
    _live(play, 1, tool, [])
    details = {"type": "message_creation", "message_creation": {"message_id": "m2"}} if tool == "message" else EMPTY
    play.say("step.created", _whole("in_progress", 2, details, usage=None, completed_at=None), event_id="a")
    ended = _whole("completed", 2, details, usage={}, completed_at=7)
    assert play.say("step.completed", ended, event_id="a") == []
    assert play.state.counts["duplicate"] == 1
    assert published(play.say("step.completed", ended, event_id="b")).step_id == "step_2"
    come_to_the_same(play.log)


@pytest.mark.parametrize("paths", [Paths.FAST, Paths.SLOW])
def test_a_template_begins_no_step_that_is_forgotten(paths: Paths) -> None:
    """Its record is behind the point that a new owner reads from, and before the last of the step's records."""
    state = PartitionState("t", 0, RULES, live_from=9, paths=paths)
    gone = gone_checkpoint(step_key("step_2"), 5, "t")
    assert gone.value is not None
    state.load([(gone.key, gone.value)])
    for number in (1, 2, 3):
        event = {"event": "thread.run.step.created", "data": _whole("in_progress", number, EMPTY)}
        state.apply([LogRecord(state.next_offset, 1_000_000, b"k", text(event))])
    assert sorted(state.steps) == ["step_1", "step_3"]


@pytest.mark.parametrize("name", ["in_progress", "delta", "completed"])
def test_a_template_skips_what_a_checkpoint_holds(name: str) -> None:
    """The offset is set by hand: a step that was checkpointed is held in a form that no template takes, so far."""
    play = Play()
    _live(play, 1, "function", [], n=3)
    begun = _whole("in_progress", 2, EMPTY, usage=None, completed_at=None)
    said = {
        "in_progress": begun,
        "delta": _opening(2),
        "completed": _whole("completed", 2, EMPTY, usage={"n": 3}, completed_at=7),
    }
    play.say("step.created", begun)
    entry = play.state.steps["step_2"]
    entry.applied_below = play.state.next_offset + 1
    before = None if entry.step is None else entry.step.summary()
    assert play.say(f"step.{name}", said[name]) == []
    assert entry.step is not None
    assert entry.step.summary() == before
    assert play.say(f"step.{name}", said[name]) != [] or entry.step.summary() != before


def test_ends_by_a_template_are_counted_by_their_status() -> None:
    play = Play()
    for number in (1, 2, 3):
        play.say("step.created", _whole("in_progress", number, EMPTY, failed_at=None))
        play.say("step.failed", _whole("failed", number, EMPTY, failed_at=7))
    assert play.state.counts["failed"] == 3
    come_to_the_same(play.log)


def test_what_a_template_cannot_tell_is_read() -> None:
    """A second call at the index of the first, and an end that names another call."""
    play = Play()
    _live(play, 1, "function", [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "a"}}], n=3)
    begun = _whole("in_progress", 2, EMPTY, usage=None, completed_at=None)
    play.say("step.created", begun)
    play.say("step.delta", _opening(2))
    play.say("step.delta", _opening(2))
    other = EMPTY | {"tool_calls": [{"id": "x", "type": "function", "function": {"name": "f", "arguments": "b"}}]}
    ended = published(play.say("step.completed", _whole("completed", 2, other, usage={"n": 3}, completed_at=7)))
    assert ended.anomalies != ()
    come_to_the_same(play.log)


def test_a_step_that_is_known_or_for_which_there_is_no_room_is_not_begun_by_a_template() -> None:
    rules = msgspec.structs.replace(RULES, max_open_steps=2)
    play = Play(rules)
    for number in (1, 1, 2):
        assert play.say("step.created", _whole("in_progress", number, EMPTY)) == []
    assert refused(play.say("step.created", _whole("in_progress", 3, EMPTY))) == "too_many_open_steps"
    come_to_the_same(play.log, rules)


def test_an_object_that_says_another_deadline_is_no_repeat() -> None:
    play = Play()
    for number, expires_at in ((1, 5_000), (2, 5_000), (3, 1_050)):
        play.say("step.created", _whole("in_progress", number, EMPTY, expires_at=expires_at))
    play.say("step.in_progress", _whole("in_progress", 1, EMPTY, expires_at=1_040))
    dues = [play.state.steps[f"step_{number}"].due_s for number in (1, 2, 3)]
    assert (dues[0] < dues[2] < dues[1]) is True
    come_to_the_same(play.log)
