"""Retention and deadlines that were changed at rest, with no published step to show it: who is accused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
import pytest

from processor.audit.judge.regimes import Accepted
from processor.audit.judge.verdicts import Finding, Verdict
from processor.core.deadlines import NEVER
from processor.core.effects import Checkpoint
from processor.core.partition import PartitionState
from processor.core.rules import Rules
from tests.core.scripted_log import run, step
from tests.shell.test_audit import RULES, Case, one_step

SHORT: Final = msgspec.structs.replace(RULES, ended_retention_s=0)
LONG: Final = msgspec.structs.replace(RULES, ended_retention_s=31_536_000)
FEW: Final = msgspec.structs.replace(RULES, ended_retention_records=0)
PATIENT: Final = msgspec.structs.replace(RULES, max_age_s=10 * RULES.max_age_s)
OWN: Final = Accepted(rules=(RULES.digest(),))
LATE_S: Final = RULES.ended_retention_s + 40
SOON_S: Final = 5


def restarted(case: Case, rules: Rules) -> None:
    """The worker was stopped and is started with these settings; it restores from its checkpoints."""
    old = case.play.state
    end = old.next_offset
    checkpoints = [effect for effect in old.checkpoint(NEVER) if isinstance(effect, Checkpoint)]
    begin, stream_time, _ = old.restore_point_at(end)
    state = PartitionState("source", 3, rules, next_offset=begin, live_from=end, stream_time=stream_time)
    state.load([(one.key, one.value) for one in checkpoints if one.value is not None])
    state.apply([record for record in case.play.log if record.offset >= begin])
    state.moved_to(end)
    case.play.state = state


def remembered_for_longer(case: Case) -> None:
    one_step(case, "s0")
    restarted(case, LONG)
    case.play.wait(LATE_S)
    case.play.say("step.in_progress", step("in_progress", id="s0"))


def repeated_after_longer(case: Case) -> None:
    """A producer sends all of a step again; it is remembered, and nothing is published."""
    one_step(case, "s0")
    restarted(case, LONG)
    case.play.wait(LATE_S)
    one_step(case, "s0")


def forgotten_sooner(case: Case) -> None:
    one_step(case, "s0")
    restarted(case, SHORT)
    case.play.wait(SOON_S)
    case.play.say("step.in_progress", step("in_progress", id="s0"))


def amended_by_none(case: Case) -> None:
    """A delta behind the end: the step begins anew, and is open."""
    one_step(case, "s0")
    restarted(case, SHORT)
    case.play.wait(SOON_S)
    late = {"step_details": {"type": "message_creation", "message_creation": {"message_id": "m"}}}
    case.play.say("step.delta", {"id": "s0", "object": "thread.run.step.delta", "delta": late})


def run_forgotten_by_time(case: Case) -> None:
    _run_forgotten_before(case, SHORT)


def run_forgotten_by_records(case: Case) -> None:
    _run_forgotten_before(case, FEW)


def _run_forgotten_before(case: Case, rules: Rules) -> None:
    """A run ends, with no step to show the settings; they are changed, and steps of the run come late."""
    restarted(case, rules)
    case.play.say("run.completed", run("completed"))
    case.play.wait(SOON_S)
    case.play.put(b"[DONE]")
    case.play.put(b"[DONE]")
    restarted(case, RULES)
    one_step(case, "s0")
    case.play.wait(SOON_S)
    one_step(case, "s1")


def run_forgotten_behind(case: Case) -> None:
    one_step(case, "s0")
    case.play.say("run.completed", run("completed"))
    restarted(case, SHORT)
    case.play.wait(SOON_S)
    case.play.created(id="s1")


def open_for_longer(case: Case) -> None:
    """A deadline that the audited settings let come is none under those in force."""
    one_step(case, "s0")
    restarted(case, PATIENT)
    case.play.created(id="s1")
    case.play.wait(RULES.max_age_s + 200)
    case.play.put(b"[DONE]")


WORLDS: Final = (
    remembered_for_longer, repeated_after_longer, forgotten_sooner, amended_by_none, run_forgotten_by_time,
    run_forgotten_by_records, run_forgotten_behind, open_for_longer,
)  # fmt: skip


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def disagreeing(found: list[Finding]) -> set[str]:
    return {one.verdict.value for one in found} - {Verdict.EQUAL.value, Verdict.UNVERIFIABLE.value}


@pytest.mark.parametrize("world", WORLDS)
def test_what_was_remembered_for_another_time_accuses_no_one(case: Case, world: Callable[[Case], None]) -> None:
    world(case)
    case.publish()
    found = case.audit()
    assert not disagreeing(found)
    why = {one.why for one in found if one.verdict is Verdict.UNVERIFIABLE}
    assert len(why) == 1
    assert f"--accept-rules {RULES.digest()}" in why.pop()
    assert disagreeing(case.audit(accepted=OWN)), "the auditor knows of no others"


@pytest.mark.parametrize("cut", [1, 3, 100])
def test_between_steps_of_the_audited_settings_an_end_is_remembered_as_they_say(case: Case, cut: int) -> None:
    """The same records, and steps in front of them and behind: those settings were in force."""
    one_step(case, "first")
    run_forgotten_by_time(case)
    case.play.wait(SOON_S)
    one_step(case, "last")
    case.publish()
    found = case.audit(cut=cut)
    assert {one.identity[0] for one in found if one.verdict is Verdict.DIFFERENT} >= {"s0", "s1"}


def test_a_step_that_is_lost_is_missing_where_no_setting_could_have_kept_it_back(case: Case) -> None:
    """The last one, and the first one: they began and ended anew, by their own events."""
    for step_id in ("s0", "s1", "s2"):
        one_step(case, step_id)
    case.publish()
    whole = case.out
    for lost in (b"s0", b"s2"):
        case.out = {place: [record for record in log if record.key != lost] for place, log in whole.items()}
        assert disagreeing(case.audit()) == {"missing"}
