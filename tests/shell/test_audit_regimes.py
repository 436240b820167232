"""Records made by another fold version or under other settings: who may have made them, and what is said of them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import msgspec
import pytest

from processor.audit.judge import regimes
from processor.audit.judge.regimes import Accepted
from processor.audit.judge.verdicts import Verdict
from processor.core.effects import FOLD_VERSION, LogRecord
from processor.core.headers import RULES as RULES_HEADER
from processor.core.headers import VERSION
from processor.core.partition import PartitionState
from processor.core.rules import Rules
from tests.core.scripted_log import step
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
    assert list(case.last.foreign) == [f"made under other [steps] settings ({DIGEST})"]


def test_settings_that_are_known_are_judged_each_under_its_own(case: Case) -> None:
    changed_at_rest(case)
    found = {finding.identity[0]: finding.verdict for finding in case.audit(earlier=(EARLIER,))}
    assert {v for name, v in found.items() if name.startswith(("old", "new"))} == {Verdict.EQUAL}
    assert set(found.values()) <= {Verdict.EQUAL, Verdict.UNVERIFIABLE}
    for name in ("old1", "new3"):
        digest = (DIGEST if name == "old1" else RULES.digest()).encode()
        honest = relabel(case, name.encode(), RULES_HEADER, digest, value=b"{}")
        wrong = [f.identity[0] for f in case.audit(earlier=(EARLIER,)) if f.verdict is Verdict.DIFFERENT]
        assert wrong == [name], "under settings that are known a difference is one"
        relabel(case, name.encode(), RULES_HEADER, digest, value=honest.value or b"")


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
    monkeypatch.setattr(regimes, "EARLIER_FOLDS", frozenset({7}))
    for number in range(4):
        one_step(case, f"s{number}")
    case.publish()
    relabel(case, b"s0", VERSION, b"7")
    relabel(case, b"s2", VERSION, b"7")  # workers of both versions take turns while the group is upgraded
    found = Counter(verdicts(case.audit()))
    assert found == {"equal": 2, "unverifiable": 2}
    assert case.last.foreign == {f"made by fold version 7, this program has {FOLD_VERSION}": 2}
    relabel(case, b"s2", VERSION, b"6")
    assert "extra" in verdicts(case.audit())
    assert "extra" in verdicts(case.audit(accepted=Accepted(folds=(6,)))), "then the earlier one was not named"


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
