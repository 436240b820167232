"""Deltas of the exact shape in every envelope: folded without the slow path, and to the same as by it."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.core.checkpoints import gone_checkpoint, step_key
from processor.core.effects import Checkpoint, Headers, LogRecord
from processor.core.partition import PartitionState
from processor.core.run_steps.exact_fold import ExactFold
from processor.core.run_steps.fast_path import FastPath, Paths
from processor.core.run_steps.slow_path import SlowPath
from processor.core.run_steps.step import Step
from tests.core.scripted_log import Play, call, calls, headers, published, refused, snapshot, step, text
from tests.core.strategies import RULES as LOG_RULES
from tests.core.test_paths import ENTRIES, GROWN, NEARLY, USUAL, come_to_the_same

_DELTA = "thread.run.step.delta"
_JSON = (("content-type", b"application/json"),)
_CLOUD = (("content-type", b"application/cloudevents+json"),)
_BATCH = (("content-type", b"application/cloudevents-batch+json"),)
Written = tuple[bytes, Headers]
"""A value and its headers."""


def _cloud(name: str, data: Any, event_id: str, field: str = "data") -> dict[str, Any]:
    return {"specversion": "1.0", "id": event_id, "source": "s", "type": f"com.example.{name}", field: data}


def _sse(name: str, data: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), text(data))


def _binary(name: str, data: Any, event_id: str) -> Written:
    told = {"ce_specversion": "1.0", "ce_type": name, "ce_id": event_id, "ce_source": "s"}
    return text(data), tuple((key, value.encode()) for key, value in told.items())


ALONE: dict[str, Callable[[str, Any, str], Written]] = {
    "SSE": lambda name, data, _: (_sse(name, data), ()),
    "SSE, lines that end in two bytes": lambda name, data, _: (_sse(name, data).replace(b"\n", b"\r\n"), ()),
    "SSE without a name": lambda name, data, _: (b"data: %b\n\n" % text({"event": name, "data": data}), ()),
    "a bare object": lambda _, data, __: (text(data), ()),
    "a CloudEvent": lambda name, data, event_id: (text(_cloud(name, data, event_id)), _CLOUD),
    "a CloudEvent, known by its body": lambda name, data, event_id: (text(_cloud(name, data, event_id)), ()),
    "a CloudEvent in base64": lambda name, data, event_id: (
        text(_cloud(name, base64.b64encode(text(data)).decode(), event_id, "data_base64")),
        _CLOUD,
    ),
    "a CloudEvent around an event": lambda name, data, event_id: (
        text(_cloud("odd", {"event": name, "data": data}, event_id)),
        _CLOUD,
    ),
    "a binary CloudEvent": _binary,
    "an event with a content type": lambda name, data, _: (text({"event": name, "data": data}), _JSON),
}
"""Envelopes of one event: from name, data and id to a record."""
TOGETHER: dict[str, Callable[[list[tuple[str, Any, str]]], Written]] = {
    "SSE": lambda events: (b"".join(_sse(name, data) for name, data, _ in events), ()),
    "a batch of CloudEvents": lambda events: (text([_cloud(*event) for event in events]), _BATCH),
}
"""Envelopes of several."""


def _never(*_: Any) -> Any:
    raise AssertionError("the slow path")


@pytest.mark.parametrize("envelope", ALONE)
@pytest.mark.parametrize("said", GROWN)
def test_text_is_appended_without_the_slow_path_in_every_envelope(envelope: str, said: dict[str, Any]) -> None:
    write = ALONE[envelope]
    play = Play()
    play.created(**USUAL)
    play.say("step.delta", calls({"index": 0} | said))
    with pytest.MonkeyPatch.context() as patch:
        if len(str(said)) < 80:  # a type of 65 letters counts as growth
            patch.setattr(SlowPath, "apply_event", _never)
        for n in range(3):
            value, told = write(_DELTA, calls({"index": 0} | said), f"e{n}")
            play.put(value, headers=told)
    found = play.state.steps["s1"].step
    assert found is not None
    assert found.events == 5
    assert play.state.counts["delta"] == 4
    come_to_the_same(play.log)


@pytest.mark.parametrize("envelope", TOGETHER)
def test_deltas_of_one_record_are_appended_without_the_slow_path(envelope: str) -> None:
    play = Play()
    play.created(**USUAL)
    deltas = [calls(call(0, "", id="c", function={"name": "f"})), *(calls(call(0, piece)) for piece in "abc")]
    value, told = TOGETHER[envelope]([(_DELTA, data, f"e{n}") for n, data in enumerate(deltas)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SlowPath, "apply_event", _never)
        play.put(value, headers=told)
    done = step("completed", type="tool_calls", step_details={"type": "tool_calls", "tool_calls": []})
    effect = published(play.say("step.completed", done))
    assert headers(effect)["events"] == "6"
    assert snapshot(effect)["step_details"]["tool_calls"][0]["function"]["arguments"] == "abc"
    come_to_the_same(play.log)


def test_what_repeats_the_id_of_a_cloud_event_is_folded_once() -> None:
    play = Play()
    play.created(**USUAL)
    for piece, event_id in (("", "a"), ("x", "b"), ("y", "b"), ("z", "c")):
        more = {"id": "c", "function": {"name": "f"}} if not piece else {}
        value, told = ALONE["a CloudEvent"](_DELTA, calls(call(0, piece, **more)), event_id)
        play.put(value, headers=told)
    assert play.state.counts["duplicate"] == 1
    assert snapshot_arguments(play) == "xz"
    come_to_the_same(play.log)


def snapshot_arguments(play: Play) -> str:
    entry = play.state.steps["s1"].materialise()
    found: str = entry.snapshot()["step_details"]["tool_calls"][0]["function"]["arguments"]
    return found


def test_a_delta_that_says_more_than_the_exact_shape_is_read_in_full() -> None:
    play = Play()
    play.created(**USUAL)
    for odd in (calls(call(0, "a", more=1)), calls(call(0, "a")) | {"more": 1}, calls(call(0, "a")) | {"id": ""}):
        value, told = ALONE["SSE"](_DELTA, odd, "")
        came = play.put(value, headers=told)
        assert not came or refused(came) == "malformed"
    assert snapshot_arguments(play) == "aa"
    come_to_the_same(play.log)


def test_the_name_of_an_event_decides_and_not_the_shape_of_its_data() -> None:
    """A delta's data under another name is no delta."""
    for envelope in ("SSE", "a CloudEvent", "a binary CloudEvent"):
        play = Play()
        play.created(**USUAL)
        play.say("step.delta", calls(call(0, "", id="c", function={"name": "f"})))
        value, told = ALONE[envelope]("thread.run.step.in_progress", calls(call(0, "a")), "e")
        play.put(value, headers=told)
        assert snapshot_arguments(play) == ""
        come_to_the_same(play.log)


@pytest.mark.skipif(hasattr(FastPath, "__mypyc_attrs__"), reason="a compiled class takes no other methods")
def test_a_bug_in_one_delta_leaves_the_others_of_its_record() -> None:
    play = Play()
    for step_id in ("s1", "s2"):
        play.created(step_id=step_id, **USUAL)
        play.say("step.delta", calls(call(0, "", id="c", function={"name": "f"}), step_id=step_id))
    decide = FastPath.decide_delta

    def broken(self: FastPath, event: Any, offset: int, event_id: str | None) -> Any:
        if event.id == "s1":
            raise ZeroDivisionError
        return decide(self, event, offset, event_id)

    events = [(_DELTA, calls(call(0, "x"), step_id=step_id), "") for step_id in ("s1", "s2")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FastPath, "decide_delta", broken)
        came = play.put(*TOGETHER["SSE"](events)[:1])
    assert [refused([effect]) for effect in came if headers(effect).get("reason")] == ["internal_error"]
    found = play.state.steps["s2"].materialise().snapshot()
    assert found["step_details"]["tool_calls"][0]["function"]["arguments"] == "x"


def test_deltas_are_folded_fast_by_the_fast_path_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The slow path stays a second opinion: it never sees what the exact shapes were read into."""
    monkeypatch.setattr(ExactFold, "apply", _never)
    play = Play()
    play.state = PartitionState("source", 3, LOG_RULES, paths=Paths.SLOW)
    play.created(**USUAL)
    for envelope, write in ALONE.items():
        value, told = write(_DELTA, calls(call(0, "a")), envelope)
        play.put(value, headers=told)
    assert play.state.counts["delta"] == len(ALONE)


_MESSAGE = {"type": "message_creation", "message_creation": {"message_id": "m"}}


@pytest.mark.parametrize("envelope", [name for name in ALONE if name != "a bare object"])
@pytest.mark.parametrize("details", [{"type": "tool_calls", "tool_calls": []}, _MESSAGE])
def test_a_step_begins_and_ends_without_the_slow_path_in_every_envelope(envelope: str, details: dict[str, Any]) -> None:
    """A bare object has no name: what it does, the lifecycle decides."""
    write, play = ALONE[envelope], Play()
    told = {"type": details["type"], "step_details": details, "expires_at": 2_000}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SlowPath, "apply_event", _never)
        for number, name in enumerate(("created", "in_progress", "in_progress")):
            value, said = write(f"thread.run.step.{name}", step(**told), f"e{number}")
            assert not play.put(value, headers=said)
        value, said = write("thread.run.step.completed", step("completed", **told), "done")
        effect = published(play.put(value, headers=said))
    assert snapshot(effect)["step_details"] == details
    assert (play.state.counts["created"], play.state.counts["completed"]) == (1, 1)
    come_to_the_same(play.log)


@pytest.mark.parametrize("envelope", ["SSE without a name", "a bare object"])
def test_a_bare_object_begins_repeats_and_ends_a_step_without_the_slow_path(envelope: str) -> None:
    def bare(data: Any) -> bytes:
        return b"data: %b\n" % text(data) if envelope != "a bare object" else text(data)

    play = Play()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SlowPath, "apply_event", _never)
        for _ in range(2):
            assert not play.put(bare(step(**USUAL)))
        assert not play.put(_sse("thread.run.step.created", step(**USUAL)))
        play.put(bare(calls(call(0, "", id="c", function={"name": "f"}))))
        assert not play.put(bare(step(**USUAL)))
        effect = published(play.put(bare(step("completed", **USUAL))))
    assert headers(effect)["events"] == "5"
    counted = {kind: play.state.counts[kind] for kind in ("stated", "created", "repeated", "completed")}
    assert counted == {"stated": 3, "created": 1, "repeated": 1, "completed": 1}
    come_to_the_same(play.log)


@pytest.mark.parametrize("name", ["delta", "in_progress", "created"])
def test_an_event_that_comes_again_is_passed_over_without_the_slow_path(name: str) -> None:
    """It names its step again, so that this is remembered from here on, and leaves it as compact as it was."""
    play, again = Play(), step(**USUAL) if name != "delta" else calls(call(0, "x"))
    play.created(**USUAL)
    play.say("step.delta", calls(call(0, "", id="c", function={"name": "f"})))
    write = ALONE["a CloudEvent"]
    for event_id in ("a", "b"):  # the second time by a template, or as it was read before
        value, told = write(f"thread.run.step.{name}", again, event_id)
        play.put(value, headers=told)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SlowPath, "apply_event", _never)
        value, told = write(f"thread.run.step.{name}", again, "b")
        play.put(value, headers=told, at=play.at + 1)
        published(play.put(_sse("thread.run.step.completed", step("completed", **USUAL))))
    assert play.state.counts["duplicate"] == (0 if name == "created" else 1)
    come_to_the_same(play.log)


def test_what_the_slow_path_passes_over_leaves_a_step_compact() -> None:
    play = Play()
    play.say("step.created", step(**USUAL), event_id="a")
    play.say("step.created", step(**USUAL) | {"metadata": {"a": "b"}}, event_id="b")
    play.say("step.delta", calls(call(0, "a", more=1)), event_id="a")
    held = play.state.steps["s1"].step
    assert isinstance(held, Step)
    assert held.compact_form is not None
    assert held.compact_form.calls is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SlowPath, "apply_event", _never)
        published(play.say("step.completed", step("completed", **USUAL)))
    come_to_the_same(play.log)


_FUNCTION: dict[str, Any] = {"type": "function", "id": "c"}
_LEFT_TO_THE_FOLD: dict[str, dict[str, Any]] = {
    "its type": {"type": None},
    "its details": {"step_details": None},
    "its ids": {"run_id": None, "thread_id": None, "type": None},
    "a call's arguments": {
        "step_details": {"type": "tool_calls", "tool_calls": [_FUNCTION | {"function": {"name": "f"}}]}
    },
    "them, and says its output": {
        "step_details": {"type": "tool_calls", "tool_calls": [_FUNCTION | {"function": {"name": "f", "output": "o"}}]}
    },
}


@pytest.mark.parametrize("left", _LEFT_TO_THE_FOLD)
@pytest.mark.parametrize("envelope", ["SSE", "an event"])
@pytest.mark.parametrize("tool", ["function", "mcp", "message"])
def test_an_end_may_leave_to_the_fold(left: str, envelope: str, tool: str) -> None:
    """Each of these several times over, so that what may be learned is learned."""
    play, told = Play(), USUAL if tool != "message" else {"type": "message_creation", "step_details": _MESSAGE}
    for number in range(4):
        step_id = f"s{number}"
        play.created(step_id=step_id, **told)
        opened = call(0, "", id="c", function={"name": "f"})
        if tool == "mcp":
            opened = {"index": 0, "type": "mcp", "id": "c", "name": "f", "server_label": "l", "arguments": ""}
        if tool != "message":
            play.say("step.delta", calls(opened, step_id=step_id))
        for piece in "ab":
            said = {"type": "mcp", "arguments": piece} if tool == "mcp" else {}
            if tool != "message":
                play.say("step.delta", calls(call(0, None if said else piece) | said, step_id=step_id))
        end = step("completed", step_id=step_id, **told) | _LEFT_TO_THE_FOLD[left]
        name = "thread.run.step.completed"
        play.put(_sse(name, end) if envelope == "SSE" else text({"event": name, "data": end}))
        play.say("step.delta", calls(call(0, "c"), step_id=step_id))
    come_to_the_same(play.log)


@pytest.mark.parametrize("left", list(_LEFT_TO_THE_FOLD))
def test_an_end_that_leaves_something_to_the_fold_is_folded_fast(left: str) -> None:
    play = Play()
    play.created(**USUAL)
    play.say("step.delta", calls(call(0, "a", id="c", function={"name": "f"})))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SlowPath, "apply_event", _never)
        end = step("completed", **USUAL) | _LEFT_TO_THE_FOLD[left]
        effect = published(play.say("step.completed", end))
    (told,) = snapshot(effect)["step_details"]["tool_calls"]
    assert (told["function"]["name"], told["function"]["arguments"]) == ("f", "a")
    assert (snapshot(effect)["type"], snapshot(effect)["run_id"]) == ("tool_calls", "r1")
    come_to_the_same(play.log)


def test_objects_of_an_exact_shape_that_the_slow_path_folds() -> None:
    """Each is told by SSE text: what it is, and what becomes of it, is the same."""
    begin, other, end = step(**USUAL), step(**USUAL) | {"run_id": "r2"}, step("completed", **USUAL)
    message = step(type="message_creation", step_details=_MESSAGE)
    created, again, done = "thread.run.step.created", "thread.run.step.in_progress", "thread.run.step.completed"
    for events in (
        [(created, begin), (created, begin), (done, end), (created, begin), (done, end)],
        [(created, begin), (again, other), (done, end)],
        [(again, begin), (done, end)],
        [(done, end)],
        [(created, begin), (done, step("completed", type="message_creation", step_details=_MESSAGE))],
        [(created, message), (done, end)],
        [(created, step(type="tool_calls", step_details=_MESSAGE)), (done, end)],
    ):
        play = Play()
        for name, data in events:
            play.put(_sse(name, data))
        come_to_the_same(play.log)


LIMITS = [{"max_step_bytes": size} for size in range(160, 420, 4)] + [{"max_open_steps": 2}]


@pytest.mark.parametrize(
    "events",
    [
        [("created", {}), ("completed", {"status": "completed"})],
        [("created", {}), ("completed", {"status": "completed", "metadata": {"a": "b" * 99}})],
        [("created", {"metadata": {"a": "b" * 99}}), ("created", {}), ("completed", {"status": "completed"})],
        [("created", {})] + [("in_progress", {})] * 3 + [("completed", {"status": "completed"})],
        [(name, {"id": f"s{n}"}) for n in range(4) for name in ("created", "in_progress")],
    ],
)
def test_objects_keep_to_the_limits(events: list[tuple[str, dict[str, Any]]]) -> None:
    """Of the size of a step, which the ids of its events count to, and of the number of open ones."""
    log = [
        LogRecord(n, 1_000_000 + n, b"k", _sse(f"thread.run.step.{name}", step(**USUAL) | more), (_id(n),))
        for n, (name, more) in enumerate(events)
    ]
    for limits in LIMITS:
        come_to_the_same(log, msgspec.structs.replace(LOG_RULES, **limits))


def test_texts_found_by_templates_go_where_they_belong() -> None:
    """By turns to two calls, to one that no delta has begun, and with more than the step has room for."""
    play = Play()
    play.created(**USUAL)
    for index in (0, 1):
        play.say("step.delta", calls(call(index, "", id=f"c{index}", function={"name": "f"})))
    for n in range(9):
        for index in (0, 1) if n < 5 else (0, 1, 2):
            play.put(_sse(_DELTA, calls(call(index, f"{index}" * n))))
    entry = play.state.steps["s1"].materialise().snapshot()["step_details"]["tool_calls"]
    assert [len(one["function"]["arguments"]) for one in entry[:2]] == [36, 36]
    assert [set(one["function"]["arguments"]) for one in entry] == [{"0"}, {"1"}, {"2"}]
    for size in range(4, 80, 4):
        come_to_the_same(play.log, msgspec.structs.replace(LOG_RULES, max_step_bytes=300 + size))
    come_to_the_same(play.log)


def test_an_object_that_repeats_an_id_is_folded_once() -> None:
    play, told = Play(), step(**USUAL)
    for name, event_id in (("created", "a"), ("in_progress", "b"), ("in_progress", "b"), ("completed", "b")):
        data = told if name != "completed" else told | {"status": name}
        value, said = ALONE["a CloudEvent"](f"thread.run.step.{name}", data, event_id)
        assert not play.put(value, headers=said)
    assert play.state.counts["duplicate"] == 2
    come_to_the_same(play.log)


@pytest.mark.parametrize("paths", [Paths.FAST, Paths.SLOW])
def test_what_a_checkpoint_has_is_not_folded_again(paths: Paths) -> None:
    """A restore reads records from before the checkpoint of an open step: objects and texts."""
    events = [("created", step(**USUAL)), ("in_progress", step(**USUAL))]
    events += [("delta", calls(call(0, "", id="c", function={"name": "f"})))]
    events += [("delta", calls(call(0, piece))) for piece in "abc"]
    log = [
        LogRecord(n, 1_000_000 + n, b"k", _sse(f"thread.run.step.{name}", data), ())
        for n, (name, data) in enumerate(events)
    ]
    state = PartitionState("source", 3, LOG_RULES, paths=paths)
    assert not state.apply(log)
    (kept,) = state.checkpoint(len(log))
    assert isinstance(kept, Checkpoint)
    assert kept.value is not None
    other = PartitionState("source", 3, LOG_RULES, live_from=len(log), paths=paths)
    other.load([(kept.key, kept.value)])
    assert not other.apply(log)
    assert other.steps["s1"].materialise().summary() == state.steps["s1"].materialise().summary()


def test_a_step_that_is_gone_does_not_begin_again() -> None:
    """A restore reads records that a checkpoint says are forgotten."""
    gone = gone_checkpoint(step_key("s1"), 0, "")
    assert gone.value is not None
    for offset in (0, 1):
        state = PartitionState("source", 3, LOG_RULES, paths=Paths.BOTH)
        state.load([(gone.key, gone.value)])
        state.apply([LogRecord(offset, 1_000_000, b"k", _sse("thread.run.step.created", step(**USUAL)), ())])
        assert state.open_steps == offset


def _id(number: int) -> tuple[str, bytes]:
    return "runstep-event-id", b"an id of some length, %d" % number


_EVENTS = st.tuples(
    st.just(_DELTA),
    st.one_of(
        st.lists(ENTRIES, min_size=1, max_size=2).map(lambda entries: calls(*entries)),
        st.sampled_from(GROWN + NEARLY).map(lambda said: calls({"index": 0} | said)),
        st.sampled_from("abc").map(lambda piece: calls(call(0, piece))),
    ),
    st.sampled_from([f"e{n}" for n in range(12)]),
)
_OBJECTS = st.sampled_from(
    [
        ("thread.run.step.created", step(**USUAL), ""),
        ("thread.run.step.in_progress", step(**USUAL), ""),
        ("thread.run.step.completed", step("completed", **USUAL), "done"),
        ("thread.run.step.completed", step("cancelled", **USUAL), ""),
        ("thread.run.step.created", step(type="message_creation", step_details=_MESSAGE), "e3"),
        ("thread.run.step.in_progress", step(**USUAL), "e4"),
        ("thread.run.step.failed", step("failed", type="message_creation", step_details=_MESSAGE), "e5"),
        ("thread.run.step.completed", step("completed", type=None, step_details=None), ""),
        ("thread.run.step.failed", step("failed", type="message_creation", step_details=None), ""),
        ("thread.run.step.created", step(type=None, step_details=None), ""),
        *(
            ("thread.run.step.completed", step("completed", **USUAL) | left, event_id)
            for event_id, left in zip(("", "e6", "", "e7", ""), _LEFT_TO_THE_FOLD.values(), strict=True)
        ),
    ]
)


@st.composite
def enveloped(draw: st.DrawFn) -> list[LogRecord]:
    """Deltas of exact and other shapes and objects, each record in an envelope of its own."""
    found: list[Written] = []
    events = draw(st.lists(st.one_of(_EVENTS, _EVENTS, _EVENTS, _OBJECTS), min_size=2, max_size=14))
    while events:
        size = draw(st.integers(1, 3))
        taken, events = events[:size], events[size:]
        if size == 1:
            found.append(draw(st.sampled_from(list(ALONE.values())))(*taken[0]))
        else:
            found.append(draw(st.sampled_from(list(TOGETHER.values())))(taken))
    return [LogRecord(n, 1_000_000 + n, b"k", value, tuple(told)) for n, (value, told) in enumerate(found)]


@given(enveloped())
def test_in_any_envelope_the_fast_and_the_slow_path_come_to_the_same(records: list[LogRecord]) -> None:
    come_to_the_same(records)


@pytest.mark.parametrize("is_at_work", [True, False])
@pytest.mark.parametrize("with_ids", [True, False])
@pytest.mark.parametrize("envelope", ALONE)
def test_what_a_checkpoint_holds_is_not_folded_again_in_any_envelope(
    envelope: str, with_ids: bool, is_at_work: bool
) -> None:
    """A new owner reads from before the checkpoint on; the names and ids of events do not tell what it has folded."""
    play, write = Play(), ALONE[envelope]
    begins = calls(call(0, "", id="c", function={"name": "f"}))
    events = [
        ("created", step(**USUAL)),
        ("in_progress", step(**USUAL)),
        ("delta", begins),
        ("delta", calls(call(0, "x"))),
    ]
    for number, (name, data) in enumerate(events):
        value, told = write(f"thread.run.step.{name}", data, f"e{number}" if with_ids else "")
        play.put(value, headers=told)
    kept = [effect for effect in play.state.checkpoint(play.state.next_offset) if isinstance(effect, Checkpoint)]
    restored = PartitionState("source", 3, LOG_RULES, next_offset=0, live_from=len(play.log))
    restored.load((effect.key, effect.value) for effect in kept if effect.value is not None)
    if is_at_work:
        restored.steps["s1"].materialise()
    before = dict(restored.counts)
    assert not restored.apply(play.log)
    assert dict(restored.counts) == before
    played, play.state = play.state, restored
    assert snapshot_arguments(play) == "x"
    assert restored.steps["s1"].materialise().events == played.steps["s1"].materialise().events
