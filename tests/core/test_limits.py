"""The limits X1-X3, and that what is remembered is bounded by them whatever comes."""

from __future__ import annotations

import json
from enum import Enum
from hashlib import sha256
from typing import Any

import pytest
from msgspec import Struct

from processor.core.effects import Checkpoint, DeadLetter, LogRecord, Publish, Reason
from processor.core.partition import PartitionState
from processor.core.rules import Rules
from tests.core.scripted_log import RULES, Play, call, calls, headers, published, refused, run, snapshot, step, text
from tests.core.test_restart import Topics

SMALL = Rules(grace_s=5, max_age_s=100, ended_retention_s=20, max_step_bytes=500, max_open_steps=2)


# --- X1: the size of a step


def test_x1_deltas_beyond_the_limit_are_refused_from_then_on() -> None:
    play = Play(SMALL)
    play.created(type="tool_calls")
    size = len(play.log[0].value or b"")
    room = SMALL.max_step_bytes - size
    assert play.say("step.delta", calls(call(0, "a" * (room - 10)))) == []
    assert play.say("step.delta", calls(call(0, "b" * 10))) == [], "up to the limit and including it"
    assert refused(play.say("step.delta", calls(call(0, "c")))) == "step_too_large"
    assert refused(play.say("step.delta", calls(call(0, "")))) == "step_too_large", "even one that brings nothing"
    effect = published(play.say("run.failed", run("failed")))
    assert effect.anomalies == ("step_too_large",)
    arguments = snapshot(effect)["step_details"]["tool_calls"][0]["function"]["arguments"]
    assert arguments == "a" * (room - 10) + "b" * 10, "a rejected event changes nothing"
    assert refused(play.say("step.delta", calls(call(0, "d")))) == "step_too_large"


def test_x1_an_object_counts_by_its_largest_and_once() -> None:
    play = Play(SMALL)
    play.created(note="x" * 300)
    assert play.say("step.in_progress", step(note="y" * 300)) == []
    assert refused(play.say("step.in_progress", step(note="z" * 500))) == "step_too_large"
    done = play.completed()
    assert (snapshot(done)["note"], done.anomalies) == ("y" * 300, ("step_too_large",))


def test_x1_an_ending_object_repeats_the_deltas_and_is_measured_alone() -> None:
    play = Play(SMALL)
    for piece in "abc":
        assert play.say("step.delta", calls(call(0, piece * 80))) == []
    whole = "a" * 80 + "b" * 80 + "c" * 80
    entry = {"type": "function", "function": {"arguments": whole}}
    done = play.completed(step_details={"type": "tool_calls", "tool_calls": [entry]})
    assert snapshot(done)["step_details"]["tool_calls"][0]["function"]["arguments"] == whole
    assert done.anomalies == ("joined_midstream",)


def test_x1_the_very_first_event_may_be_too_large() -> None:
    play = Play(SMALL)
    assert refused(play.created(note="x" * 600)) == "step_too_large"
    assert refused(play.say("step.delta", calls(call(0, "x" * 600)))) == "step_too_large"
    assert refused(play.say("step.completed", step("completed", note="x" * 600))) == "step_too_large"
    assert play.state.steps == {}
    assert play.state.open_steps == 0


def test_x1_the_fast_path_minds_the_limit() -> None:
    play = Play(SMALL)
    for piece in range(600):
        play.say("step.delta", calls(call(0, "a")))
        step_now = play.state.steps["s1"].step
        assert step_now is not None
        assert step_now.object_bytes + step_now.characters <= SMALL.max_step_bytes
        assert step_now.oversize is (piece >= SMALL.max_step_bytes)


@pytest.mark.parametrize("what", ["ids", "names", "numbers", "types", "integers", "entries", "nested"])
def test_x1_whatever_a_step_grows_by_its_checkpoint_stays_small(what: str) -> None:
    """Else a checkpoint could grow beyond what the broker takes, and the partition would stand still for good."""
    play = Play(Rules(max_step_bytes=2_000))
    play.created(type="tool_calls")
    for n in range(300):
        entries: dict[str, dict[str, Any]] = {
            "ids": {},
            "names": {f"name {n} {i}": None for i in range(5)},
            "numbers": {f"{n}": {f"{i}": i for i in range(10)}},
            "types": {"type": "t" * 100 + str(n)},
            "integers": {f"{n}": 10**100},
            "entries": {f"{n}": [{"index": i, "type": "x"} for i in range(20)]},
            "nested": {"function": {"arguments": {"arguments": {f"{n % 10}": {f"{n}": {}}}}}},
        }
        entry = entries[what]
        event_id = f"event {n}" if what == "ids" else None
        play.say("step.delta", calls({"index": n, "type": "x"} | entry), event_id=event_id)
    (checkpoint,) = play.state.checkpoint(1 << 40)
    assert isinstance(checkpoint, Checkpoint)
    assert len(checkpoint.value or b"") < 4 * 2_000 + 1_000
    assert {effect.reason.value for effect in play.effects if isinstance(effect, DeadLetter)} == {"step_too_large"}


# --- X2: the number of open steps


def test_x2_a_step_for_which_there_is_no_room_is_refused_whole() -> None:
    play = Play(SMALL)
    for step_id in ("s1", "s2"):
        play.created(step_id=step_id)
    assert refused(play.created(step_id="s3")) == "too_many_open_steps"
    assert refused(play.say("step.delta", calls(call(0, "a"), step_id="s4"))) == "too_many_open_steps"
    play.completed(step_id="s1")
    assert play.state.open_steps == 1, "there is room again, but not for half a step"
    for step_id in ("s3", "s4"):
        assert refused(play.say("step.delta", calls(call(0, "b"), step_id=step_id))) == "too_many_open_steps"
        assert refused(play.say("step.completed", step("completed", step_id))) == "too_many_open_steps"
    assert play.say("run.failed", run("failed")) == [play.effects[-1]], "s2 alone; the refused end with no run"
    assert play.created(step_id="s5", run_id="r2") == []


def test_x2_what_is_refused_is_forgotten_as_other_ends_are() -> None:
    play = Play(SMALL)
    for step_id in ("s1", "s2"):
        play.created(step_id=step_id)
    play.created(step_id="s3")
    play.wait(20)
    assert refused(play.say("step.in_progress", step(step_id="s3"))) == "too_many_open_steps"
    play.wait(21)
    play.completed(step_id="s1")
    assert play.say("step.in_progress", step(step_id="s3")) == []


def test_x2_an_end_that_stands_alone_needs_no_room() -> None:
    play = Play(SMALL)
    for step_id in ("s1", "s2"):
        play.created(step_id=step_id)
    assert play.completed(step_id="s3").anomalies == ("joined_midstream",)
    assert play.state.open_steps == 2


@pytest.mark.parametrize("crash_at", range(1, 8))
def test_x2_a_restart_in_the_middle_refuses_the_same(crash_at: int) -> None:
    """How many were open when the step came is not to be had from the log: the checkpoint says it."""
    events = [
        ("created", step()),
        ("created", step(step_id="s2")),
        ("created", step(step_id="s3")),
        ("completed", step("completed", "s1")),
        ("delta", calls(call(0, "x"), step_id="s3")),
        ("created", step(step_id="s4")),
        ("completed", step("completed", "s3")),
        ("completed", step("completed", "s4")),
    ]
    log = [
        LogRecord(n, 1_000_000 + n, b"k", text({"event": f"thread.run.step.{name}", "data": data}))
        for n, (name, data) in enumerate(events)
    ]
    topics = Topics(0)
    state = topics.restore(SMALL)
    topics.commit(state, state.apply(log[:crash_at]))
    state = topics.restore(SMALL)
    topics.commit(state, state.apply(log[state.next_offset :]))
    found = [
        (effect.offset, effect.reason) if isinstance(effect, DeadLetter) else effect.step_id
        for effect in topics.outcomes
        if isinstance(effect, DeadLetter | Publish)
    ]
    no_room = Reason.TOO_MANY_OPEN_STEPS
    assert found == [(2, no_room), "s1", (4, no_room), (6, no_room), "s4"]


def test_x2_a_restart_refuses_nobody_whom_the_first_owner_took() -> None:
    """Restored from checkpoints the open steps are all there before the log that led to them is read again."""
    events = [
        ("created", step()),
        ("completed", step("completed")),
        ("created", step(step_id="s2")),
        ("created", step(step_id="s3")),
        ("delta", calls(call(0, "late"))),
    ]
    log = [
        LogRecord(n, 1_000_000, b"k", text({"event": f"thread.run.step.{name}", "data": data}))
        for n, (name, data) in enumerate(events)
    ]
    topics = Topics(0)
    state = topics.restore(SMALL)
    topics.commit(state, state.apply(log[:4]) + state.checkpoint(4))
    assert topics.committed[:2] == (4, 0), "s1 has ended and needs the log; s2 and s3 do not"
    state = topics.restore(SMALL)
    assert state.open_steps == 2
    effect = published(state.apply(log))
    assert (effect.step_id, effect.revision, effect.anomalies) == ("s1", 1, ())


# --- X3: a snapshot that its topic would not take


def test_x3_a_reference_names_the_clock_mark_that_ended_the_step() -> None:
    """Else a replay could not know when the step had ended."""
    play = Play(Rules(max_record_bytes=200, max_age_s=10, grace_s=5))
    play.created(thread_id="t" * 200)
    due = play.state.next_due_ms()
    assert due is not None
    found = [effect for effect in play.state.advance(due) if isinstance(effect, DeadLetter)]
    assert [headers(effect)["clock-mark"] for effect in found] == [f"{due}@1"]


def test_x3_a_snapshot_too_large_for_a_record_is_set_aside_as_a_reference() -> None:
    rules = Rules(max_record_bytes=600)
    play, large = Play(rules), Play()
    for one in (play, large):
        one.created(thread_id="t1")
        one.say("step.delta", calls(call(0, "x" * 400)))
    whole = large.completed()
    (effect,) = play.say("step.completed", step("completed"))
    assert isinstance(effect, DeadLetter)
    assert effect.reason is Reason.SNAPSHOT_TOO_LARGE
    assert json.loads(effect.value or b"") == {
        "id": "s1",
        "run_id": "r1",
        "thread_id": "t1",
        "status": "completed",
        "revision": 0,
        "first_offset": 0,
        "last_offset": 2,
        "digest": sha256(whole.value).hexdigest(),
        "size": len(whole.value),
    }
    assert (effect.key, effect.offset) == (b"s1", 2)
    assert headers(effect)["reason"] == "snapshot_too_large"
    assert headers(effect)["source-offset"] == "2"
    (again,) = play.say("step.delta", calls(call(0, "y")))
    assert isinstance(again, DeadLetter)
    assert json.loads(again.value or b"")["revision"] == 1


def test_x3_the_limit_itself_fits() -> None:
    value = Play().completed().value
    assert Play(Rules(max_record_bytes=len(value))).completed().value == value
    assert (
        refused(Play(Rules(max_record_bytes=len(value) - 1)).say("step.completed", step("completed")))
        == "snapshot_too_large"
    )


# --- what is remembered is bounded


def remembered(part: object, path: str = "") -> dict[str, int]:
    """How many things each container of the state and its collaborators holds."""
    names = getattr(part, "__mypyc_attrs__", None) or getattr(type(part), "__slots__", None) or vars(part)
    found: dict[str, int] = {}
    for name in names:
        value, at = getattr(part, name), f"{path}.{name}"
        if hasattr(value, "__len__"):
            found |= {} if name in ("topic", "counts", "_recent") else {at: len(value)}  # the last is of a fixed size
        elif type(value).__module__.startswith("processor.core.") and not isinstance(value, Struct | Enum):
            found |= remembered(value, at)
    return found


@pytest.mark.parametrize("kind", ["created", "completed", "delta", "in_progress", "run", "ended by its run", "refused"])
def test_a_stream_of_ever_new_ids_is_remembered_only_so_far(kind: str) -> None:
    """Retention and the limit of open steps bound every container, not only the table of steps."""
    rules = Rules(grace_s=5, max_age_s=50, ended_retention_s=20, max_open_steps=300 if kind != "refused" else 0)
    state = PartitionState("t", 0, rules)
    most: dict[str, int] = {}
    per_second = 5
    for n in range(4_000):
        name, run_id = f"s{n}", f"r{n}"
        match kind:
            case "run":
                body = {"event": "thread.run.failed", "data": run("failed", run_id)}
            case "delta":
                body = {"event": "thread.run.step.delta", "data": calls(call(0, "a"), step_id=name)}
            case "ended by its run":
                even = {"event": "thread.run.step.created", "data": step(step_id=name, run_id=run_id)}
                body = even if n % 2 == 0 else {"event": "thread.run.failed", "data": run("failed", f"r{n - 1}")}
            case "refused":
                body = {"event": "thread.run.step.created", "data": step(step_id=name, run_id=run_id)}
            case _:
                status = "completed" if kind == "completed" else "in_progress"
                body = {"event": f"thread.run.step.{kind}", "data": step(status, name, run_id=run_id)}
        state.apply([LogRecord(n, n * 1000 // per_second, b"k", text(body))])
        if n % 100 == 99:
            state.restore_point_at(n + 1)
        if n % 500 == 499:
            for container, count in remembered(state).items():
                most[container] = max(most.get(container, 0), count)
    bound = per_second * (50 + 5 + 20 + 20) + 200
    assert {container: count for container, count in most.items() if count > bound} == {}


def test_the_number_of_ended_steps_is_bounded_where_time_stands_still() -> None:
    rules = Rules(ended_retention_records=100)
    state = PartitionState("t", 0, rules)
    for n in range(1_000):
        state.apply(
            [LogRecord(n, 0, b"k", text({"event": "thread.run.step.completed", "data": step("completed", f"s{n}")}))]
        )
        assert len(state.steps) <= 101
    state.restore_point_at(1_000)
    assert max(remembered(state).values()) <= 202


@pytest.mark.parametrize("expires_in", [None, 500, 1 << 30])
def test_steps_that_come_and_go_leave_no_deadlines_behind(expires_in: int | None) -> None:
    """Not even where nobody seals the units, as in a replay, and one old step stays open all the while."""
    play = Play(Rules())
    play.created(step_id="old", run_id="r0")
    for n in range(4_000):
        fields: dict[str, Any] = {} if expires_in is None else {"expires_at": int(play.at) + expires_in + n % 3_000}
        play.at += 0.1
        play.state.apply(
            [
                LogRecord(
                    2 * n + at, round(play.at * 1000), b"k", text({"event": f"thread.run.step.{name}", "data": data})
                )
                for at, name, data in (
                    (1, "created", step(step_id=f"s{n}", **fields)),
                    (2, "completed", step("completed", f"s{n}")),
                )
            ]
        )
    assert play.state.open_steps == 1
    assert max(remembered(play.state).values()) < 3_000
    assert play.state.restore_point()[0] == 0


def test_a_step_named_again_and_again_after_its_end_is_remembered_once() -> None:
    play = Play(RULES)
    play.completed()
    for _ in range(2_000):
        play.at += 0.1
        play.created()
    assert len(play.state.steps) == 1
    play.state.restore_point_at(play.state.next_offset)
    assert max(remembered(play.state).values()) < 500
