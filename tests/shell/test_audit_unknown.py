"""What the judge cannot know (lost clock marks, steps that were open, runs that had ended) accuses no honest worker,
and what it can know is judged."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from processor.audit.judge.regimes import Accepted
from processor.audit.judge.settled import CLOCK_SKEW_S
from processor.audit.judge.verdicts import Finding, Verdict
from processor.core.effects import LogRecord, Publish
from processor.core.headers import CLOCK_MARK
from processor.core.partition import PartitionState
from processor.core.rules import Rules
from processor.kafka.records import partition_of
from tests.core.scripted_log import Play, run, step, text
from tests.shell import mutations
from tests.shell.test_audit import RULES, Case, one_step

EXPIRED: Final = mutations.OUTCOMES["expired"]
FAR_S: Final = 5_000_000
LONG: Final = msgspec.structs.replace(RULES, ended_retention_s=600)
TWO_OPEN: Final = msgspec.structs.replace(RULES, max_open_steps=2)
SETTLED_S: Final = RULES.ended_retention_s + 130
"""Behind the first record of a range, a step that is created now owes nothing to what came before it."""


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def only(rules: Rules) -> Accepted:
    """The auditor had no other settings: they excuse nothing."""
    return Accepted(rules=(rules.digest(),))


def by_step(found: list[Finding]) -> dict[str, str]:
    return {one.identity[0]: one.verdict.value for one in found}


def clock_strikes(case: Case) -> None:
    """The worker sets a clock mark at the next deadline: an old recording played now, the clock is far ahead."""
    due = case.play.state.next_due_ms()
    assert due is not None
    case.play.effects += [effect for effect in case.play.state.advance(due) if isinstance(effect, Publish)]


def overdue_step(case: Case, step_id: str) -> None:
    """A step of now whose end comes after its deadline has fired."""
    now_s = round(case.play.at)
    case.play.created(id=step_id, created_at=now_s, expires_at=now_s + 10)
    case.play.wait(10 + 2 * RULES.grace_s)
    case.play.say("step.completed", step("completed", id=step_id, created_at=now_s, expires_at=now_s + 10))


def beside(step_id: str, name: str) -> str:
    """Another id whose records stand on the same output partition."""
    wanted = partition_of(step_id.encode(), mutations.OUTPUTS)
    names = (f"{name}{number}" for number in range(100))
    return next(one for one in names if partition_of(one.encode(), mutations.OUTPUTS) == wanted)


def place_of(case: Case, step_id: str) -> tuple[str, int]:
    return next(place for place, log in case.out.items() if any(r.key == step_id.encode() for r in log))


def drop(case: Case, step_id: str) -> tuple[str, int]:
    """Take the records of a step off the topics; returns where they stood."""
    place = place_of(case, step_id)
    case.out[place] = [record for record in case.out[place] if record.key != step_id.encode()]
    return place


def test_a_mark_before_the_begin_of_a_complete_range_moves_no_time(case: Case) -> None:
    """Nothing was open there: who writes such a mark cannot take the judge's knowledge of the time away."""
    gone = beside("s1", "gone")
    case.play.created(id=gone, expires_at=2_000)
    clock_strikes(case)
    case.play.created(id="s1", expires_at=3_000)
    clock_strikes(case)
    case.play.wait(3_000)
    case.play.wait(SETTLED_S)
    one_step(case, "s2")
    now_s = round(case.play.at)
    case.play.created(id="lost", created_at=now_s)
    case.play.say("step.completed", step("completed", id="lost", created_at=now_s))
    case.publish()
    shortened = drop(case, gone)
    drop(case, "lost")
    place = place_of(case, "s2")
    honest = case.out[place][-1]
    mark = (CLOCK_MARK, b"%d@0" % (FAR_S * 1_000))
    offset = len(case.out[place])
    case.out[place].append(
        msgspec.structs.replace(honest, key=b"forged", offset=offset, headers=(*honest.headers, mark))
    )
    found = by_step(case.audit(kept_from={shortened: 1}, accepted=only(RULES)))
    assert found == {gone: "unverifiable", "s1": "equal", "s2": "equal", "lost": "missing", "forged": "extra"}


def test_a_mark_of_a_step_from_before_the_range_moves_the_time(case: Case) -> None:
    """The worker's time was ahead of the records: a deadline that they seem to reach had passed when the step came."""
    case.play.created(id="s0", expires_at=2_000)
    case.play.wait(0)
    clock_strikes(case)
    case.play.wait(SETTLED_S)
    now_s = round(case.play.at)
    case.play.created(id="s1", created_at=now_s, expires_at=now_s + 10)
    case.play.wait(10 + 2 * RULES.grace_s)
    case.play.say("step.completed", step("completed", id="s1", created_at=now_s, expires_at=now_s + 10))
    case.publish()
    assert by_step(case.audit(accepted=only(RULES))) == {"s0": "equal", "s1": "equal"}
    assert by_step(case.audit(begin=1, accepted=only(RULES))) == {"s0": "unverifiable", "s1": "equal"}


def test_a_mark_behind_those_that_are_gone_is_applied_though_another_step_seems_due(case: Case) -> None:
    """What the mark that is gone had ended is open here, and due before the next one: that is no forged mark."""
    gone = beside("s1", "gone")
    case.play.created(id=gone, expires_at=2_000)
    clock_strikes(case)
    case.play.created(id="s1", expires_at=3_000)
    clock_strikes(case)
    case.publish()
    shortened = drop(case, gone)
    found = by_step(case.audit(kept_from={shortened: 1}, accepted=only(RULES)))
    assert found == {gone: "unverifiable", "s1": "equal"}


def test_behind_a_deadline_that_makes_the_time_known_an_end_may_be_remembered_for_longer(case: Case) -> None:
    """A mark that is gone had moved the time on before a run ended: the worker remembers that end for longer."""
    case.play = Play(LONG)
    gone = beside("s1", "gone")
    case.play.created(id=gone, expires_at=1_500)
    case.play.created(id="s1", expires_at=1_510)
    clock_strikes(case)
    case.play.say("run.failed", run("failed", "r9"))
    case.play.wait(1_510 + LONG.grace_s - case.play.at)
    case.play.created(id="s2", expires_at=round(case.play.at) + 10)
    case.play.wait(10 + LONG.grace_s)
    assert 1_000 + LONG.ended_retention_s < case.play.at < 1_500 + LONG.grace_s + LONG.ended_retention_s
    case.play.created(id="late", run_id="r9")
    case.publish()
    assert len(case.play.log) == 7
    assert by_step(case.audit(rules=LONG, accepted=only(LONG))).keys() == {gone, "s1", "s2", "late"}
    shortened = drop(case, gone)
    found = by_step(case.audit(kept_from={shortened: 3}, rules=LONG, accepted=only(LONG)))
    assert found == {gone: "unverifiable", "s1": "equal", "s2": "equal", "late": "unverifiable"}


def test_a_step_that_an_event_ended_does_not_make_the_time_known(case: Case) -> None:
    """It is equal at any time: a mark that is gone may still have gone further than the records since."""
    case.play.created(id="gone", expires_at=2_000)
    clock_strikes(case)
    case.play.wait(0)
    one_step(case, "s1")
    case.play.wait(0)
    case.play.wait(SETTLED_S)
    overdue_step(case, "s2")
    case.publish()
    shortened = drop(case, "gone")
    found = by_step(case.audit(kept_from={shortened: 1}, accepted=only(RULES)))
    assert found == {"s1": "equal", "s2": "unverifiable"}, "what is gone seems open"


def test_a_deadline_of_a_step_that_a_mark_which_is_gone_may_have_ended_does_not_make_the_time_known(case: Case) -> None:
    """Its own record may be gone: who writes the one that the log without the mark implies would have another, honest
    step accused."""
    gone = beside("s1", "gone")
    case.play.created(id="s1", expires_at=2_000)
    case.play.created(id=gone, expires_at=4_000)
    clock_strikes(case)
    clock_strikes(case)
    case.play.wait(0)
    case.play.wait(2_000 + RULES.grace_s - case.play.at)
    (implied,) = PartitionState("source", 3, RULES).apply(case.play.log)
    case.play.wait(0)
    case.play.wait(SETTLED_S)
    overdue_step(case, "s2")
    case.publish()
    shortened = drop(case, gone)
    assert drop(case, "s1") == shortened
    forged = case.places.whole(implied)
    assert forged is not None
    log = case.out[shortened]
    log.append(LogRecord(len(log), forged.timestamp, forged.key, forged.value, tuple(forged.headers)))
    found = by_step(case.audit(kept_from={shortened: 2}, accepted=only(RULES)))
    assert (found["s1"], found["s2"]) == ("equal", "unverifiable")


@pytest.mark.parametrize("after_s", [5, 50])
def test_a_step_that_is_remembered_from_before_the_range_is_not_judged_by_when_it_was_created_anew(
    case: Case, after_s: int
) -> None:
    """The range's first record is late by what clocks may differ, and the step says to be created by as much later."""
    case.play.at = 1_100
    one_step(case, "s1")
    case.play.wait(-CLOCK_SKEW_S)
    case.play.at = 1_100 + after_s
    created_at = 1_100 + after_s + CLOCK_SKEW_S
    case.play.created(id="s1", created_at=created_at)
    case.play.say("step.completed", step("completed", id="s1", created_at=created_at))
    case.publish()
    assert set(by_step(case.audit(accepted=only(RULES))).values()) == {"equal"}
    found = case.audit(begin=2, accepted=only(RULES))
    assert {one.verdict for one in found} == {Verdict.UNVERIFIABLE}


def test_a_step_that_says_it_began_before_the_range_is_not_judged_by_when_it_was_created(case: Case) -> None:
    """Its first event does not say when it was created, its last one does: late enough for a step of the range."""
    case.play.created(id="s1")
    case.play.wait(0)
    case.play.wait(SETTLED_S)
    case.play.say("step.completed", step("completed", id="s1", created_at=round(case.play.at)))
    case.publish()
    assert by_step(case.audit(accepted=only(RULES))) == {"s1": "equal"}
    assert by_step(case.audit(begin=1, accepted=only(RULES))) == {"s1": "unverifiable"}


def respond(case: Case, number: int, kind: str, **fields: Any) -> None:
    """An event of response `key`."""
    case.play.put(text({"type": f"response.{kind}", "sequence_number": number, **fields}))


def item(index: int, said: int | None = None) -> dict[str, Any]:
    content = [{"type": "output_text", "text": f"text {index}"}]
    done = {"type": "message", "id": f"m{index}", "status": "completed", "content": content}
    return {"output_index": index if said is None else said, "item": done}


@pytest.mark.parametrize("said", [0, 1])
def test_a_response_from_before_the_range_is_not_judged_by_when_its_items_began(case: Case, said: int) -> None:
    """An item that was done before seems to begin with the response's end, or with an item that a gateway gives the
    same index: late enough for a step that says when it was created."""
    respond(case, 0, "created", response={"id": "key"})
    respond(case, 1, "output_item.done", **item(0))
    case.play.wait(0)
    case.play.wait(SETTLED_S)
    respond(case, 2, "output_item.added", **item(1, said))
    respond(case, 3, "output_item.done", **item(1, said))
    respond(case, 4, "completed", response={"id": "key", "output": [item(0)["item"], item(1)["item"]]})
    case.publish()
    assert by_step(case.audit(accepted=only(RULES))) == {"key:0": "equal", "key:1": "equal"}
    assert {one.verdict for one in case.audit(begin=2, accepted=only(RULES))} == {Verdict.UNVERIFIABLE}


def test_a_response_that_is_remembered_from_before_the_range_is_not_judged_by_when_it_began_anew(case: Case) -> None:
    """Its end is forgotten, and its numbers come again. In the range it seems to have gone on all the time."""
    respond(case, 0, "created", response={"id": "key"})
    respond(case, 9, "completed", response={"id": "key", "output": []})
    respond(case, 10, "in_progress", response={"id": "key"})
    case.play.wait(SETTLED_S)
    respond(case, 7, "output_text.delta", delta="x")
    respond(case, 11, "completed", response={"id": "key", "output": []})
    case.publish()
    assert by_step(case.audit(accepted=only(RULES))) == {"key:0": "equal"}
    assert by_step(case.audit(begin=2, accepted=only(RULES))) == {"key:0": "unverifiable"}


def test_an_item_of_a_response_that_began_in_the_range_is_judged(case: Case) -> None:
    """It was published as of the response's first record in the range, so the worker remembered no more of it."""
    case.play.wait(0)
    case.play.wait(0)
    case.play.wait(SETTLED_S)
    respond(case, 0, "created", response={"id": "key"})
    respond(case, 1, "output_item.added", **item(0))
    respond(case, 2, "output_item.done", **item(0))
    case.publish()
    assert by_step(case.audit(begin=1, accepted=only(RULES))) == {"key:0": "equal"}
    place = place_of(case, "key:0")
    (right,) = case.out[place]
    case.out[place] = [msgspec.structs.replace(right, value=(right.value or b"").replace(b"text 0", b"text 9"))]
    assert by_step(case.audit(begin=1, accepted=only(RULES))) == {"key:0": "different"}


def refused_for_want_of_room(case: Case) -> None:
    """Two steps that are open before offset 2 leave no room for `s1`; a step comes when they have ended."""
    case.play = Play(TWO_OPEN)
    case.play.created(id="a")
    case.play.created(id="b")
    case.play.wait(0)
    case.play.wait(SETTLED_S)
    now_s = round(case.play.at)
    case.play.created(id="s1", created_at=now_s)
    case.play.say("step.completed", step("completed", id="s1", created_at=now_s))


def test_a_step_behind_a_refusal_for_want_of_room_is_not_missing(case: Case) -> None:
    refused_for_want_of_room(case)
    case.publish()
    found = case.audit(begin=2, rules=TWO_OPEN, accepted=only(TWO_OPEN))
    assert {one.verdict for one in found} == {Verdict.UNVERIFIABLE}
    assert "s1" in by_step(found)


def test_a_step_whose_refusal_may_be_gone_is_not_missing(case: Case) -> None:
    """Retention took the first dead letters: behind the first that is there, all of them are there."""
    refused_for_want_of_room(case)
    now_s = round(case.play.at)
    for name in ("a", "b"):
        case.play.say("step.completed", step("completed", id=name))
    case.play.put(b"{")
    kept = len(case.play.log) - 1
    case.play.created(id="s2", created_at=now_s)
    case.play.say("step.completed", step("completed", id="s2", created_at=now_s))
    case.publish()
    dead = next(place for place in case.out if place[0] == mutations.DEAD)
    case.out[dead] = case.out[dead][-1:]
    drop(case, "s2")
    found = by_step(
        case.audit(
            begin=2,
            rules=TWO_OPEN,
            accepted=only(TWO_OPEN),
            kept_from={dead: kept},
            dead_letter=mutations.DEAD,
        )
    )
    assert found["s1"] == "unverifiable"
    assert found["s2"] == "missing"


def test_a_step_behind_a_refusal_that_only_the_range_implies_is_not_extra(case: Case) -> None:
    """Their run had ended before the range: of steps that are open here the worker had room for others."""
    case.play = Play(TWO_OPEN)
    case.play.say("run.failed", run("failed", "r9"))
    case.play.created(id="a", run_id="r9")
    case.play.created(id="b", run_id="r9")
    case.play.wait(SETTLED_S)
    now_s = round(case.play.at)
    case.play.created(id="s1", created_at=now_s)
    case.play.say("step.completed", step("completed", id="s1", created_at=now_s))
    case.publish()
    found = case.audit(begin=1, rules=TWO_OPEN, accepted=only(TWO_OPEN))
    assert {one.verdict for one in found} == {Verdict.UNVERIFIABLE}
    assert "s1" in by_step(found)
