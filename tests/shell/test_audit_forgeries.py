"""What an adversary writes to the topics, and what only looks like it: verdicts that accuse the forger alone."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from processor.audit.judge.published_headers import mark_in
from processor.audit.judge.verdicts import Verdict
from processor.core.effects import Publish
from processor.core.headers import CLOCK_MARK, DIGEST
from tests.core.scripted_log import step
from tests.shell import mutations
from tests.shell.test_audit import Case, one_step, one_step_of, verdicts


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def test_a_clock_mark_from_the_future_was_never_set(case: Case) -> None:
    """Whoever can write to the outcome topics could publish an open step as expired, ahead of its time: proven."""
    case.play.created(id="s1", expires_at=2_000)
    due = case.play.state.next_due_ms()
    assert due is not None
    case.play.effects += [e for e in case.play.state.advance(due) if isinstance(e, Publish)]
    case.play.wait(1)
    case.publish()
    assert verdicts(case.audit(latest_mark_ms=due)) == ["equal"]
    (finding,) = case.audit(latest_mark_ms=due - 1)
    assert finding.verdict is Verdict.EXTRA


@pytest.mark.parametrize("position", [b"0", b"1"])
def test_a_clock_mark_before_the_step_began_is_no_way_out_of_the_range(case: Case, position: bytes) -> None:
    """`<any>@0` on a forged copy put its cause before the range: proven, 36 of 36."""
    one_step_of(case.play, "s0")
    one_step(case)
    case.publish()
    honest = case.completed[-1]
    forged = (*honest.headers, (CLOCK_MARK, b"7@" + position))
    case.completed.append(msgspec.structs.replace(honest, offset=len(case.completed), headers=forged))
    found = verdicts(case.audit())
    assert found.count("equal") == 2
    assert set(found) - {"equal"} <= {"extra", "duplicate"}
    assert len(found) == 3


def test_a_producers_clock_mark_does_not_pass_as_the_workers(case: Case) -> None:
    """One unusable record with our header, from any producer of the source: an honest worker looked like a forger."""
    case.play.created(id="s1")
    case.play.put(b"{", headers=((CLOCK_MARK, b"9999999999999@1"), (DIGEST, b"0")))
    case.play.say("step.completed", step("completed", id="s1"))
    case.publish()
    assert verdicts(case.audit()) == ["equal", "equal"]
    ((letter,),) = (log for (topic, _), log in case.out.items() if topic == mutations.DEAD)
    assert dict(letter.headers)[f"source-{CLOCK_MARK}"] == b"9999999999999@1"
    assert CLOCK_MARK not in dict(letter.headers)
    old = tuple((name.removeprefix("source-"), content) for name, content in letter.headers)  # as written before
    assert mark_in(dict(old)) is None


def test_what_an_open_transaction_holds_back_is_not_missing(case: Case) -> None:
    """Somebody's open transaction on an outcome topic: the unread rest was told as missing, exit 3."""
    one_step(case, "s1")
    one_step(case, "s2")
    case.publish()
    ((topic, partition),) = case.out
    case.out[topic, partition].pop()
    assert verdicts(case.audit()) == ["equal", "missing"]
    assert verdicts(case.audit(held=((topic, partition + 1),))) == ["equal", "missing"]
    equal, held = case.audit(held=((topic, partition),))
    assert (equal.verdict, held.verdict) == (Verdict.EQUAL, Verdict.UNVERIFIABLE)
    assert "open transaction" in held.why
