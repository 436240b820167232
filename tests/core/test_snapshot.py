"""The snapshot: what is published of a step, byte for byte."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.core.effects import DeadLetter, Effect, LogRecord, Publish, Status
from processor.core.partition import PartitionState
from processor.core.rules import Rules
from processor.core.run_steps.step import Step
from processor.core.step_state import SCHEMA_KEYS
from processor.core.wire_types import canonical
from tests.core.scripted_log import Play, call, calls, published, run, snapshot, step, text
from tests.core.strategies import RULES, lives, logs

KEYS = [
    "assistant_id", "cancelled_at", "completed_at", "created_at", "expired_at", "failed_at", "id", "last_error",
    "metadata", "object", "run_id", "status", "step_details", "thread_id", "type",
]  # fmt: skip


def test_all_fifteen_keys_are_there_null_where_nothing_is_known() -> None:
    assert sorted(SCHEMA_KEYS) == KEYS
    play = Play()
    effect = published(play.put(text({"event": "thread.run.step.failed", "data": {"id": "s1"}})))
    known = {"id": "s1", "object": "thread.run.step", "status": "failed"}
    assert snapshot(effect) == dict.fromkeys(KEYS) | known
    assert effect.anomalies == ("joined_midstream",)


def test_every_extra_key_is_kept() -> None:
    play = Play()
    play.created(usage=None, expires_at=1_050, vendor={"a": [1, {"b": None}]})
    found = snapshot(play.completed(usage={"total_tokens": 5}, later="x"))
    extras = {key: value for key, value in found.items() if key not in KEYS}
    assert extras == {
        "usage": {"total_tokens": 5},
        "expires_at": 1_050,
        "vendor": {"a": [1, {"b": None}]},
        "later": "x",
    }


def test_the_object_is_kept_as_it_came_unless_it_is_pinned() -> None:
    for rules, wanted in ((Rules(), "assistant.run.step"), (Rules(object_type="thread.run.step"), "thread.run.step")):
        assert snapshot(Play(rules).completed(object="assistant.run.step"))["object"] == wanted


@pytest.mark.parametrize("said", [0, False, 0.0, [], {}, "x"])
def test_an_object_that_is_no_text_is_kept_as_it_came(said: Any) -> None:
    found = snapshot(Play().completed(object=said))["object"]
    assert (found, type(found)) == (said, type(said))


@pytest.mark.parametrize("said", [{"object": None}, {"object": ""}])
def test_an_object_that_says_nothing_is_that_of_a_run_step(said: dict[str, Any]) -> None:
    assert snapshot(Play().completed(**said))["object"] == "thread.run.step"


def test_what_a_pin_covers_is_no_change() -> None:
    """The same end whose bytes come out the same is a repeat."""
    play = Play(Rules(object_type="thread.run.step"))
    play.completed()
    assert play.say("step.completed", step("completed", object="assistant.run.step")) == []
    assert play.state.counts["repeated"] == 1


def test_the_type_comes_from_the_details_where_no_object_said_it() -> None:
    play = Play()
    play.say("step.delta", calls(call(0, "a")))
    assert snapshot(play.completed())["type"] == "tool_calls"


# --- objects onto the snapshot


def test_an_object_in_between_replaces_by_what_it_says_and_erases_nothing() -> None:
    play = Play()
    play.created(metadata={"a": 1}, assistant_id="a", usage={"x": 1})
    play.say("step.in_progress", step(metadata={"b": 2}, assistant_id=None, usage=None))
    found = snapshot(play.completed())
    assert (found["metadata"], found["assistant_id"], found["usage"]) == ({"b": 2}, "a", {"x": 1})


def test_the_last_word_erases_all_but_what_identifies_the_step() -> None:
    play = Play()
    kept = {"run_id": "r1", "thread_id": "t", "assistant_id": "a", "created_at": 5, "type": "tool_calls"}
    details = {"type": "tool_calls", "tool_calls": []}
    erased = {"metadata": {"a": 1}, "usage": {"x": 1}, "last_error": {"code": "x"}, "failed_at": 1}
    play.created(**kept, **erased, step_details=details)
    nulls = dict.fromkeys((*kept, *erased, "step_details"))
    found = snapshot(play.completed(**nulls))
    assert {key: found[key] for key in nulls} == kept | dict.fromkeys(erased) | {"step_details": details}


def test_fields_that_the_last_word_does_not_name_stay() -> None:
    play = Play()
    play.created(metadata={"a": 1})
    assert snapshot(play.completed())["metadata"] == {"a": 1}


@pytest.mark.parametrize(("status", "anomalies"), [("completed", ("expired_at_disagrees",)), ("expired", ())])
def test_expired_at_does_not_make_a_step_expired(status: str, anomalies: tuple[str, ...]) -> None:
    play = Play()
    play.created()
    effect = published(play.say(f"step.{status}", step(status, expired_at=99)))
    assert (effect.status.value, effect.anomalies, snapshot(effect)["expired_at"]) == (status, anomalies, 99)


# --- canonical bytes


def test_canonical_bytes_to_the_letter() -> None:
    value = {
        "b": [1, -2, 1 << 64, 1.0, 1e16, 0.1, 1e-7, True, None, {}],
        "é": '/\u2028\x7f😀"\\\n\x00',
        "B": "",
        "\U00010000": 1,
        "\uffff": 2,
    }
    wanted = (
        '{"B":"","b":[1,-2,18446744073709551616,1.0,1e16,0.1,1e-7,true,null,{}],'
        '"é":"/\u2028\x7f😀\\"\\\\\\n\\u0000","\uffff":2,"\U00010000":1}'
    )
    assert canonical(value) == wanted.encode()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_canonical_bytes_read_back_as_the_same_value(value: Any) -> None:
    """By another reader, and written again they are the same bytes."""
    encoded = canonical(value)
    back = json.loads(encoded)
    assert repr(back) == repr(_sorted(value))
    assert canonical(back) == encoded


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value


# --- what was published can be had again


@given(st.one_of(logs(), lives()))
def test_every_snapshot_has_its_keys_and_is_canonical(records: list[LogRecord]) -> None:
    for effect in PartitionState("t", 3, RULES).apply(records):
        if isinstance(effect, Publish):
            found = json.loads(effect.value)
            assert found.keys() >= set(KEYS)
            assert (found["id"], found["status"]) == (effect.step_id, effect.status.value)
            assert canonical(found) == effect.value
            assert "index" not in json.dumps(found.get("step_details"))


@given(st.one_of(logs(max_size=30), lives()))
def test_packing_a_step_between_any_two_records_changes_nothing(records: list[LogRecord]) -> None:
    plain, packed = PartitionState("t", 3, RULES), PartitionState("t", 3, RULES)
    expected: list[Effect] = []
    found: list[Effect] = []
    for record in records:
        expected += plain.apply([record])
        found += packed.apply([record])
        for entry in packed.steps.values():
            if entry.step is not None:
                entry.hold(Step.unpack(entry.step.pack()))
    assert found == expected


def test_an_inferred_end_is_laid_over_and_leaves_the_fields_alone() -> None:
    play = Play()
    play.created(failed_at=None, last_error=None)
    play.say("run.failed", run("failed", failed_at=7, last_error={"code": "x"}))
    entry = play.state.steps["s1"]
    assert entry.materialise().fields["failed_at"] is None
    (effect,) = play.effects
    assert isinstance(effect, Publish)
    assert not isinstance(effect, DeadLetter)
    assert snapshot(effect)["failed_at"] == 7


@given(lives())
def test_looking_at_an_open_step_changes_nothing(records: list[LogRecord]) -> None:
    """What `peek` says is what the materialised step says; the step is in the form it had, packed or at work."""
    state = PartitionState("t", 0, RULES)
    for number, record in enumerate(records):
        state.apply([record])
        if number % 5 == 4:
            state.checkpoint(state.next_offset)
        for entry in state.steps.values():
            if entry.status is not Status.IN_PROGRESS:
                continue
            before = (entry.step, entry.body)
            form = entry.step.compact_form if isinstance(entry.step, Step) else None
            told = entry.peek().peek()
            assert (entry.step, entry.body) == before
            assert not isinstance(entry.step, Step) or entry.step.compact_form is form
            if number == len(records) - 1:  # only now may it be materialised
                step = entry.materialise()
                assert isinstance(step, Step)
                assert told == (step.fields.get("thread_id"), step.details_type())
