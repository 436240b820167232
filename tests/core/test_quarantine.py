"""A bug in the fold: its step is quarantined, the partition goes on, and all other steps are as without it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from processor.core import checkpoints
from processor.core.effects import Checkpoint, DeadLetter, Effect, LogRecord, Publish, Reason, Status
from processor.core.partition import PartitionState
from processor.core.rules import Rules
from processor.core.run_steps.step import Step
from processor.core.step_state import StepState
from tests.core.scripted_log import Play, run, step
from tests.core.strategies import lives, logs
from tests.core.test_restart import Topics, mark, outcomes
from tests.examples import examples

pytestmark = pytest.mark.skipif(hasattr(Step, "__mypyc_attrs__"), reason="a compiled class takes no other methods")

RULES = Rules(grace_s=5, max_age_s=100, ended_retention_s=20, ended_retention_records=15, max_step_bytes=2_000)
METHODS = sorted(
    name
    for name, member in {**vars(StepState), **vars(Step)}.items()
    if callable(member) and name not in ("__init__", "unpack", "__module__", "irregular")
)
ROOTED = ("encoded", "end_with_run", "infer", "pack")
"""Methods that every way of folding comes to: which of the others are called depends on how a step is held."""
BROKEN_ID = "s1"


class BugError(Exception):
    """A bug, with the payload in its words."""


def break_step(patch: pytest.MonkeyPatch, method: str) -> None:
    real = getattr(Step, method)

    def broken(self: Step, *args: Any, **more: Any) -> Any:
        if self.step_id == BROKEN_ID:
            raise BugError("secret")
        return real(self, *args, **more)

    patch.setattr(Step, method, broken)


def of_others(effects: list[Effect], records: list[LogRecord]) -> list[Effect]:
    """What came of other steps than the broken one."""
    named = {record.offset for record in records if b'"s1"' in (record.value or b"")}
    return [
        effect
        for effect in effects
        if (isinstance(effect, Publish) and effect.step_id != BROKEN_ID)
        or (isinstance(effect, DeadLetter) and effect.offset not in named and effect.key != BROKEN_ID.encode())
    ]


def lived(records: list[LogRecord], *, marks: bool) -> list[Effect]:
    """One life: every record, a checkpoint and, if wanted, a clock mark now and then."""
    state = PartitionState("t", 3, RULES)
    effects: list[Effect] = []
    for number, record in enumerate(records):
        effects += state.apply([record])
        if number % 7 == 6:
            effects += state.checkpoint(state.next_offset - 3)
            state.restore_point_at(state.next_offset)
        if marks and number % 11 == 10:
            effects += mark(state, 1)
    effects += mark(state, 20 if marks else 0)
    assert state.open_steps == sum(entry.status is Status.IN_PROGRESS for entry in state.steps.values())
    held = [key for keys in state.deadlines().values() for key in keys]
    assert sorted(held) == sorted(key for key, e in state.steps.items() if e.status is Status.IN_PROGRESS)
    return effects


@settings(
    max_examples=examples(150), deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(st.one_of(logs(), lives()), st.sampled_from(METHODS))
def test_whatever_breaks_the_partition_goes_on(records: list[LogRecord], method: str) -> None:
    """No call into the state raises; whatever method of the step is broken, the other steps come out the same."""
    whole = lived(records, marks=False)
    with pytest.MonkeyPatch.context() as patch:
        break_step(patch, method)
        effects = lived(records, marks=False)
        lived(records, marks=True)  # which marks are set hangs on the deadlines of all steps
        assert lived(records, marks=False) == effects
    assert of_others(effects, records) == of_others(whole, records)
    assert not any("secret" in effect.detail for effect in effects if isinstance(effect, DeadLetter))


@settings(
    max_examples=examples(150), deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(st.one_of(logs(), lives()), st.sampled_from(ROOTED[:3]), st.data())
def test_a_restart_anywhere_gives_the_same(records: list[LogRecord], method: str, data: st.DataObject) -> None:
    with pytest.MonkeyPatch.context() as patch:
        break_step(patch, method)
        expected = outcomes(PartitionState("t", 3, RULES).apply(records))
        topics = Topics(records[0].offset if records else 0)
        state = topics.restore(RULES)
        for record in records:
            if record.offset < state.next_offset:
                continue
            topics.commit(state, state.apply([record])) if state.is_live else state.apply([record])
            if data.draw(st.integers(0, 3)) == 0:
                state = topics.restore(RULES)
                again = [r for r in records if state.next_offset <= r.offset <= record.offset]
                assert not outcomes(state.apply(again))
                state.moved_to(topics.committed[0])
        assert topics.outcomes == expected


@pytest.mark.parametrize("by", ["record", "mark"])
def test_a_deadline_that_meets_a_bug_is_set_aside_once(monkeypatch: pytest.MonkeyPatch, by: str) -> None:
    """It was raised out of `apply` and came again after every restart."""
    play = Play()
    play.created(id="s1")
    play.created(id="s2", run_id="r2")
    due = play.state.next_due_ms()
    assert due is not None
    with monkeypatch.context() as patch:
        break_step(patch, "infer")
        if by == "record":
            effects = play.say("step.created", step(step_id="s3", run_id="r3"), at=due / 1000)
        else:
            effects = [effect for effect in play.state.advance(due) if not isinstance(effect, Checkpoint)]
    letter, published = effects
    assert isinstance(letter, DeadLetter)
    assert (letter.reason, letter.key, letter.value) == (Reason.INTERNAL_ERROR, b"s1", b'{"id":"s1","run_id":"r1"}')
    assert letter.detail == "BugError in the fold; please report it"
    assert ("runstep-clock-mark" in dict(letter.headers)) == (by == "mark")
    assert isinstance(published, Publish)
    assert published.step_id == "s2"
    (refused,) = play.say("step.completed", step("completed"))
    assert isinstance(refused, DeadLetter)
    assert refused.reason is Reason.INTERNAL_ERROR


def test_the_other_steps_of_a_run_end_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    play = Play()
    play.created(id="s1")
    play.created(id="s2")
    break_step(monkeypatch, "end_with_run")
    letter, published = play.say("run.completed", run("completed"))
    assert isinstance(letter, DeadLetter)
    assert (letter.reason, letter.key) == (Reason.INTERNAL_ERROR, b"s1")
    assert isinstance(published, Publish)
    assert published.step_id == "s2"


def test_a_step_that_cannot_be_checkpointed_stays_in_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """When to checkpoint is a matter of clocks: no outcome may depend on it."""
    play = Play()
    play.created(id="s1")
    play.created(id="s2", run_id="r2")
    with monkeypatch.context() as patch:
        break_step(patch, "pack")
        (kept,) = play.state.checkpoint(play.state.next_offset)
        assert isinstance(kept, Checkpoint)
        assert kept.key == b"ss2"
        assert play.state.restore_point_at(play.state.next_offset)[0] == 0
    (kept,) = play.state.checkpoint(play.state.next_offset)
    assert isinstance(kept, Checkpoint)
    assert kept.key == b"ss1"
    assert play.completed().step_id == "s1"


def test_an_encoder_that_fails_leaves_all_to_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> bytes:
        raise BugError

    play = Play()
    play.created(id="s1")
    due = play.state.next_due_ms()
    assert due is not None
    monkeypatch.setattr(checkpoints, "encode_checkpoint", broken)
    assert [type(effect) for effect in play.state.advance(due)] == [Publish, DeadLetter]
    assert play.state.checkpoint(play.state.next_offset) == []
    assert play.state.restore_point_at(play.state.next_offset)[0] == 0
