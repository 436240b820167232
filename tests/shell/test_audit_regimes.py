"""Records made by another fold version or under other settings: who may have made them, and what is said of them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import msgspec
import pytest

from processor.audit.judge import regimes
from processor.audit.judge.regimes import Accepted
from processor.audit.judge.verdicts import Finding, FindingKind, Verdict
from processor.core.effects import FOLD_VERSION, LogRecord, Publish
from processor.core.headers import DETAIL, VERSION
from processor.core.headers import RULES as RULES_HEADER
from processor.core.partition import PartitionState
from processor.core.rules import Rules
from tests.core.scripted_log import call, calls, refused, step
from tests.shell.test_audit import RULES, Case, one_step, verdicts

EARLIER = msgspec.structs.replace(RULES, grace_s=1, max_age_s=30)
DIGEST = EARLIER.digest()
NEWER = FOLD_VERSION + 1


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def relabelled(record: LogRecord, name: str, content: bytes) -> LogRecord:
    return msgspec.structs.replace(record, headers=tuple((n, content if n == name else c) for n, c in record.headers))


def relabel(case: Case, key: bytes, name: str, content: bytes, **fields: bytes) -> LogRecord:
    """Have the record of this key say something else; returns what it was."""
    ((place, at),) = [(p, n) for p, log in case.out.items() for n, r in enumerate(log) if r.key == key]
    honest = case.out[place][at]
    case.out[place][at] = msgspec.structs.replace(relabelled(honest, name, content), **fields)
    return honest


def drop(case: Case, key: bytes) -> None:
    for place, log in case.out.items():
        case.out[place] = [msgspec.structs.replace(r, offset=n) for n, r in enumerate(r for r in log if r.key != key)]


def restarted(case: Case, rules: Rules) -> None:
    """The worker was stopped and is started with these settings; it restores from the first record on."""
    end = len(case.play.log)
    case.play.state = PartitionState("source", 3, rules, next_offset=0, live_from=end)
    assert not case.play.state.apply(case.play.log)


def changed_at_rest(case: Case) -> None:
    """Steps under `EARLIER`, some of them open when the settings are changed to `RULES`, then steps under these."""
    restarted(case, EARLIER)
    for number in range(4):
        one_step(case, f"old{number}")
        case.play.created(id=f"hung{number}")
        case.play.wait(10)
    case.play.created(id="across")
    case.play.wait(20)
    restarted(case, RULES)
    case.play.say("step.completed", step("completed", id="across"))
    for number in range(4):
        case.play.wait(RULES.ended_retention_s + 200)
        case.play.created(id=f"new{number}", created_at=round(case.play.at))
        case.play.say("step.completed", step("completed", id=f"new{number}", created_at=round(case.play.at)))
    case.publish()


def test_settings_that_were_changed_at_rest_accuse_no_one(case: Case) -> None:
    """50 different and 16 extra: the records show two digests."""
    changed_at_rest(case)
    found = Counter(finding.verdict for finding in case.audit())
    assert set(found) == {Verdict.EQUAL, Verdict.UNVERIFIABLE}
    assert found[Verdict.EQUAL] >= 4
    assert list(case.last.foreign) == [f"made under other rules ({DIGEST})"]


def test_between_the_settings_that_are_known_nothing_is_missing(case: Case) -> None:
    """Behind the last step under the earlier settings, before the first under the audited ones: which were in force?"""
    restarted(case, EARLIER)
    one_step(case, "old")
    case.play.put(b"{")
    restarted(case, RULES)
    one_step(case, "new")
    case.publish()
    drop(case, b"key")
    found = {finding.verdict: finding for finding in case.audit(earlier=(EARLIER,))}
    assert set(found) == {Verdict.EQUAL, Verdict.UNVERIFIABLE}
    assert found[Verdict.UNVERIFIABLE].why == "the rules were changed there"


LITTLE = msgspec.structs.replace(RULES, max_step_bytes=400)
OWN = Accepted(rules=(RULES.digest(),))


def too_large_before(case: Case) -> None:
    """A step is refused a delta under `LITTLE`; no step is published under these, and the settings are changed."""
    restarted(case, LITTLE)
    case.play.created(id="s0", type="tool_calls")
    assert refused(case.play.say("step.delta", calls(call(arguments="x" * 500), step_id="s0"))) == "step_too_large"
    case.play.created(id="aside")
    restarted(case, RULES)
    case.play.say("step.completed", step("completed", id="s0"))
    case.play.say("step.completed", step("completed", id="aside"))
    one_step(case, "s1")
    case.publish()


def changed(case: Case, key: bytes) -> list[Finding]:
    """The findings that are not equal where the step of this key has another value."""
    honest = relabel(case, key, RULES_HEADER, RULES.digest().encode(), value=b"{}")
    found = [finding for finding in case.audit() if finding.verdict is not Verdict.EQUAL]
    relabel(case, key, RULES_HEADER, RULES.digest().encode(), value=honest.value or b"")
    return found


def test_settings_that_only_a_dead_letter_shows_accuse_no_one(case: Case) -> None:
    """A dead letter names no settings: `extra: the log does not imply it`."""
    too_large_before(case)
    found = [finding for finding in case.audit() if finding.verdict is not Verdict.EQUAL]
    assert [(one.verdict, one.kind) for one in found] == [(Verdict.UNVERIFIABLE, FindingKind.DEAD_LETTER)]
    assert f"--accept-rules {RULES.digest()}" in found[0].why
    assert sorted(verdicts(case.audit(accepted=OWN))) == ["equal"] * 3 + ["extra"], "the auditor knows of no others"


def test_a_step_without_what_other_settings_refused_is_no_difference(case: Case) -> None:
    """It comes from a checkpoint, without the delta; a step that the dead letter does not stand in is judged."""
    too_large_before(case)
    assert {one.verdict for one in changed(case, b"s0")} == {Verdict.UNVERIFIABLE}
    assert Verdict.DIFFERENT in {one.verdict for one in changed(case, b"aside")}
    assert Verdict.DIFFERENT in {one.verdict for one in changed(case, b"s1")}


def test_a_step_that_other_settings_refused_is_not_missing(case: Case) -> None:
    too_large_before(case)
    drop(case, b"s0")
    assert sorted(verdicts(case.audit())) == ["equal", "equal", "unverifiable", "unverifiable"]
    drop(case, b"aside")
    assert "missing" in verdicts(case.audit())


def test_a_dead_letter_between_steps_of_the_audited_settings_is_extra(case: Case) -> None:
    one_step(case, "s0")
    restarted(case, LITTLE)
    case.play.created(id="s1", type="tool_calls")
    case.play.say("step.delta", calls(call(arguments="x" * 500), step_id="s1"))
    restarted(case, RULES)
    case.play.say("step.completed", step("completed", id="s1"))
    case.publish()
    assert sorted(verdicts(case.audit())) == ["equal", "equal", "extra"]


def test_settings_that_were_changed_behind_the_last_step_accuse_no_one(case: Case) -> None:
    one_step(case, "s0")
    restarted(case, LITTLE)
    case.play.created(id="s1", type="tool_calls")
    case.play.say("step.delta", calls(call(arguments="x" * 500), step_id="s1"))
    case.publish()
    assert sorted(verdicts(case.audit())) == ["equal", "unverifiable"]


def test_a_dead_letter_that_the_audited_settings_imply_may_be_lacking_before_them(case: Case) -> None:
    """The earlier settings took in what the audited ones refuse."""
    restarted(case, msgspec.structs.replace(RULES, max_step_bytes=1 << 20))
    case.play.created(id="s0", type="tool_calls")
    assert not case.play.say("step.delta", calls(call(arguments="x" * 500), step_id="s0"))
    restarted(case, LITTLE)
    case.play.say("step.completed", step("completed", id="s0"))
    case.publish()
    found = case.audit(rules=LITTLE)
    assert sorted(verdicts(found)) == ["equal", "unverifiable"]
    assert "unverifiable" not in verdicts(case.audit(rules=LITTLE, accepted=Accepted(rules=(LITTLE.digest(),))))


def hung_before(case: Case) -> None:
    """Before the change a step opens that is due by `EARLIER`; behind it, clock marks end that step and a later one."""
    restarted(case, EARLIER)
    case.play.created(id="early")
    opened = case.play.state
    restarted(case, RULES)
    one_step(case, "first")
    case.play.wait(10)
    case.play.created(id="late")
    for step_id in ("early", "late"):
        entry = case.play.state.entry_named(step_id)
        assert entry is not None
        if step_id == "early":  # as its checkpoint says, which was written before the change
            case.play.state._transitions.deadlines.set(entry, opened.next_due_ms() // 1000)  # type: ignore[operator]
        due = case.play.state.next_due_ms()
        assert due is not None
        case.play.effects += [e for e in case.play.state.advance(due) if isinstance(e, Publish)]
    one_step(case, "last")
    case.publish()


def test_clock_marks_of_steps_from_before_the_change_accuse_no_one(case: Case) -> None:
    """The first is not due under the audited settings, and the second not before the step of the first has ended."""
    hung_before(case)
    found = {finding.identity[0]: finding.verdict for finding in case.audit()}
    assert found.pop("early") is Verdict.UNVERIFIABLE
    assert found == dict.fromkeys(("first", "late", "last"), Verdict.EQUAL)
    assert Verdict.EXTRA in {finding.verdict for finding in case.audit(accepted=OWN)}


@pytest.mark.parametrize("audited", [RULES, EARLIER], ids=["the later", "the earlier"])
def test_a_clock_mark_right_behind_the_change_accuses_no_one(case: Case, audited: Rules) -> None:
    """The last record under the settings of before and the first clock mark under the others have one cause."""
    restarted(case, EARLIER)
    case.play.created(id="hung")
    one_step(case, "done")
    due = case.play.state.next_due_ms()
    assert due is not None
    case.play.effects += [e for e in case.play.state.advance(due) if isinstance(e, Publish)]
    case.publish()
    relabel(case, b"hung", RULES_HEADER, RULES.digest().encode())  # as a worker that was started between the two
    found = {finding.identity[0]: finding.verdict for finding in case.audit(rules=audited)}
    assert found.keys() == {"hung", "done"}
    assert set(found.values()) <= {Verdict.UNVERIFIABLE, Verdict.EQUAL}


def test_of_a_dead_letter_settings_change_no_more_than_what_it_says(case: Case) -> None:
    restarted(case, LITTLE)
    case.play.created(id="s0", type="tool_calls")
    case.play.say("step.delta", calls(call(arguments="x" * 500), step_id="s0"))
    one_step(case, "s1")
    case.publish()
    assert verdicts(case.audit(rules=LITTLE)) == ["equal", "equal"]
    ((place, at),) = [(p, n) for p, log in case.out.items() for n, r in enumerate(log) if r.key == b"key"]
    honest = case.out[place][at]
    case.out[place][at] = relabelled(honest, DETAIL, b"another limit")
    assert sorted(verdicts(case.audit(rules=LITTLE))) == ["equal", "unverifiable"]
    case.out[place][at] = msgspec.structs.replace(honest, value=b"{}")
    assert sorted(verdicts(case.audit(rules=LITTLE))) == ["different", "equal"]


@pytest.mark.parametrize(("name", "content"), [(RULES_HEADER, b"0123456789abcdef"), (VERSION, b"%d" % NEWER)])
def test_a_forged_record_is_not_excused_by_what_it_claims(case: Case, name: str, content: bytes) -> None:
    """A foreign digest or version turned "difference" (3) into "not provable" (4)."""
    for number in range(3):
        one_step(case, f"s{number}")
    case.publish()
    relabel(case, b"s1", name, content, value=b"{}")
    found = {finding.verdict: finding for finding in case.audit() if finding.verdict is not Verdict.EQUAL}
    assert set(found) == {Verdict.MISSING, Verdict.EXTRA}
    assert "--accept" in found[Verdict.EXTRA].why
    accepted = Accepted(rules=(content.decode(),)) if name == RULES_HEADER else Accepted(folds=(NEWER,))
    assert sorted(verdicts(case.audit(accepted=accepted))) == ["equal", "equal", "unverifiable"]


def test_what_is_named_alone_may_stand(case: Case) -> None:
    """With a list of digests, a change at rest to another one is extra, too."""
    changed_at_rest(case)
    assert Verdict.EXTRA in {f.verdict for f in case.audit(accepted=Accepted(rules=("0" * 16,)))}
    assert Verdict.EXTRA not in {f.verdict for f in case.audit(accepted=Accepted(rules=(DIGEST,)))}


def test_an_upgrade_accuses_no_one(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records of an earlier fold are not provable, wherever they stand; and only of one that there was."""
    earlier, never = FOLD_VERSION + 2, FOLD_VERSION + 1
    monkeypatch.setattr(regimes, "EARLIER_FOLDS", frozenset({earlier}))
    for number in range(4):
        one_step(case, f"s{number}")
    case.publish()
    relabel(case, b"s0", VERSION, b"%d" % earlier)
    relabel(case, b"s2", VERSION, b"%d" % earlier)  # workers of both versions take turns while the group is upgraded
    found = Counter(verdicts(case.audit()))
    assert found == {"equal": 2, "unverifiable": 2}
    assert case.last.foreign == {f"made by fold version {earlier}, this program has {FOLD_VERSION}": 2}
    relabel(case, b"s2", VERSION, b"%d" % never)
    assert "extra" in verdicts(case.audit())
    assert "extra" in verdicts(case.audit(accepted=Accepted(folds=(never,)))), "then the earlier one was not named"


def test_a_log_that_an_earlier_fold_left_alone_does_not_miss_what_this_one_would_publish(case: Case) -> None:
    """A later version understands more: what the earlier one did not publish before the upgrade is not missing."""
    one_step(case, "s0")
    one_step(case, "s1")
    one_step(case, "s2")
    case.publish()
    relabel(case, b"s0", VERSION, b"%d" % NEWER)
    drop(case, b"s1")
    assert sorted(verdicts(case.audit())) == ["equal", "unverifiable", "unverifiable"]
    relabel(case, b"s0", VERSION, b"%d" % FOLD_VERSION)
    assert sorted(verdicts(case.audit())) == ["equal", "equal", "missing"]
