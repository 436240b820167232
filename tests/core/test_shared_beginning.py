"""Ends that begin with the same bytes as the object that began the step: they come to the same as where all is read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from processor.audit.judge.transition_observer import TransitionObserver
from processor.core.partition import PartitionState
from processor.core.run_steps import object_shape, object_template
from processor.core.run_steps.object_path import ObjectPath
from tests.core.scripted_log import RULES, Play, published
from tests.core.test_paths import come_to_the_same
from tests.examples import examples

pytestmark = pytest.mark.usefixtures("_both_forms")
CALLS: Final[dict[str, Any]] = {"type": "tool_calls", "tool_calls": []}


def whole(step_id: str, status: str, **more: Any) -> dict[str, Any]:
    return {
        "id": step_id, "object": "thread.run.step", "created_at": 990, "run_id": f"run_{step_id}", "assistant_id": "a",
        "thread_id": f"thread_{step_id}", "type": "tool_calls", "status": status, "completed_at": None,
        "expires_at": 4_000, "last_error": None, "step_details": CALLS, "usage": None,
    } | more  # fmt: skip


def ordered(data: dict[str, Any], *first: str) -> dict[str, Any]:
    """The same with other names in front, behind the id."""
    return {name: data[name] for name in dict.fromkeys(("id", *first, *data))}


def end(play: Play, data: dict[str, Any]) -> Any:
    return play.say("step.completed", data | {"completed_at": 1_005})


def learned(ids: tuple[str, ...] = ("s1", "s2", "s3")) -> Play:
    """Producers' steps; by the first the templates are learned, by the second what begin and end share."""
    play = Play()
    for step_id in ids:
        play.say("step.created", whole(step_id, "in_progress"))
        published(end(play, whole(step_id, "completed")))
    return play


@pytest.mark.skipif(hasattr(ObjectPath, "__mypyc_attrs__"), reason="a compiled class takes no other methods")
def test_what_the_step_began_with_is_not_cut_again(monkeypatch: pytest.MonkeyPatch) -> None:
    play = learned()
    play.say("step.created", whole("s4", "in_progress"))

    def never(*_: object) -> None:
        raise AssertionError("cut")

    monkeypatch.setattr(object_shape.Shape, "cut", never)
    found = published(end(play, whole("s4", "completed")))
    monkeypatch.undo()
    assert b'"run_s4"' in found.value
    come_to_the_same(play.log)


ODD: Final[dict[str, dict[str, Any]]] = {
    "another run": {"run_id": "run_s9"},
    "a run of another length": {"run_id": "r"},
    "no run": {"run_id": None},
    "an assistant that needs an escape": {"assistant_id": '"'},
    "created at another time": {"created_at": 991},
    "another type": {"type": "message_creation"},
    "another id": {"id": "s3"},
    "an id of no step": {"id": "s0"},
    "an id of another length": {"id": "step_4"},
    "more at the end": {"more": 1},
    "another status": {"status": "failed"},
    "another usage that is as long": {"usage": True},
}


@pytest.mark.parametrize("what", ODD)
def test_an_end_that_begins_otherwise_comes_to_the_same(what: str) -> None:
    play = learned()
    play.say("step.created", whole("s4", "in_progress"))
    end(play, whole("s4", "completed") | ODD[what])
    end(play, whole("s4", "completed"))
    come_to_the_same(play.log)


@pytest.mark.parametrize("what", ["run_id", "thread_id", "created_at", "expires_at", "usage"])
def test_a_step_that_began_in_another_order_comes_to_the_same(what: str) -> None:
    play = learned()
    for step_id in ("s4", "s5", "s6"):
        play.say("step.created", ordered(whole(step_id, "in_progress"), what))
        published(end(play, whole(step_id, "completed")))
        play.say("step.created", ordered(whole(f"{step_id}x", "in_progress"), what))
        published(end(play, ordered(whole(f"{step_id}x", "completed"), what)))
    come_to_the_same(play.log)


def test_an_end_that_leaves_out_what_the_step_began_with_comes_to_the_same() -> None:
    play = learned()
    for step_id in ("s4", "s5", "s6"):
        play.say("step.created", whole(step_id, "in_progress", failed_at=7))
        assert b'"failed_at":7' in published(end(play, whole(step_id, "completed"))).value
    come_to_the_same(play.log)


@pytest.mark.parametrize("status_at", ["status", "thread_id"])
def test_a_run_that_is_said_behind_what_is_shared_is_that_of_the_step_from_then_on(status_at: str) -> None:
    play, watcher = Play(), TransitionObserver(lambda _: None, None)
    play.state = PartitionState("source", 3, RULES, observer=watcher)
    for step_id in ("s1", "s2", "s3", "s4"):
        play.say("step.created", ordered(whole(step_id, "in_progress"), status_at, "status"))
        other = whole(step_id, "completed", run_id=f"rum_{step_id}")
        published(end(play, ordered(other, status_at, "status")))
    assert [ids[1] for ids in watcher.revisions.values()] == ["rum_s1", "rum_s2", "rum_s3", "rum_s4"]
    come_to_the_same(play.log)


@pytest.mark.parametrize("size", [255, 256])
def test_an_id_whose_length_is_no_byte_comes_to_the_same(size: int) -> None:
    play = learned()
    for step_id in ("s4", "s5", "s6"):
        of_run = {"run_id": step_id * (size // 2) + "r" * (size % 2)}
        play.say("step.created", whole(step_id, "in_progress", **of_run))
        published(end(play, whole(step_id, "completed", **of_run)))
    come_to_the_same(play.log)


def swapped(data: dict[str, Any]) -> dict[str, Any]:
    """The same with run and thread in each other's place."""
    other = {"run_id": "thread_id", "thread_id": "run_id"}
    return {other.get(name, name): data[other.get(name, name)] for name in data}


@pytest.mark.parametrize("change", [1, -1])
def test_what_one_id_has_more_than_before_another_may_have_less(change: int) -> None:
    """Up to where both are over all would stand in its place."""
    play = Play()
    for number in range(4):
        more = change if number == 3 else 0
        of_step = {"run_id": "r" * (5 + more), "thread_id": "t" * (5 - more)}
        play.say("step.created", whole(f"s{number}", "in_progress", **of_step))
        assert b'"run_id":"%s"' % of_step["run_id"].encode() in end_of(play, f"s{number}", of_step).value
    come_to_the_same(play.log)


def test_ids_in_each_others_place_come_to_the_same() -> None:
    """They are as long as those of before, so that all would stand in its place but for these."""
    play = Play()
    for number in range(6):
        of_step = {"run_id": "rrrrr", "thread_id": "ttttt"}
        turned: Callable[[dict[str, Any]], dict[str, Any]] = swapped if number % 2 else dict
        play.say("step.created", turned(whole(f"s{number}", "in_progress", **of_step)))
        play.say("step.completed", turned(whole(f"s{number}", "completed", **of_step, completed_at=1_005)))
    come_to_the_same(play.log)


def end_of(play: Play, step_id: str, of_step: dict[str, Any]) -> Any:
    return published(end(play, whole(step_id, "completed", **of_step)))


LENGTHS: Final = st.sampled_from([1, 2, 3])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=examples(150))
@given(st.data())
def test_ids_of_any_lengths_come_to_the_same(data: st.DataObject) -> None:
    """What one hole has less another may have more: the places of the last step would fit, but for what is there."""
    play = Play()
    for number in range(8):
        step_id = f"{number}" * data.draw(LENGTHS)
        of_step: dict[str, Any] = {
            "run_id": "r" * data.draw(LENGTHS),
            "thread_id": "t" * data.draw(LENGTHS),
            "created_at": data.draw(st.sampled_from([9, 99, 990])),
        }
        begun = data.draw(st.sampled_from(["run_id", "run_id", "thread_id"]))
        play.say("step.created", ordered(whole(step_id, "in_progress", **of_step), begun))
        changes = [{}, {}, {}, {"run_id": "r"}, {"thread_id": "tt"}, {"created_at": 99}]
        odd: dict[str, Any] = data.draw(st.sampled_from(changes))
        ended = ordered(whole(step_id, "completed", **of_step | odd), data.draw(st.sampled_from([begun, "run_id"])))
        end(play, ended)
    come_to_the_same(play.log)


def test_it_is_learned_anew_only_so_often() -> None:
    """Where ids have other lengths each time, learning would cost more than it saves."""
    play = Play()
    for number in range(object_template._MAX_SHARES + 20):
        step_id = f"s{number}"
        of_step = {"run_id": "r" * (number % 2 + 1)}
        play.say("step.created", whole(step_id, "in_progress", **of_step))
        published(end(play, whole(step_id, "completed", **of_step)))
    ends = [template for templates in play.state._run_steps.objects._ends for template in templates]
    assert [template._shares for template in ends] == [0]
