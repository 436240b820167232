"""The judge's short ways: records as columns, and dead letters that are equal, come to the same as the long ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from processor.audit.judge.partition_audit import PartitionAudit
from processor.audit.judge.regimes import Accepted
from processor.audit.judge.verdicts import FindingKind
from processor.audit.published_index import FileIndex
from processor.core.effects import FOLD_VERSION
from processor.core.headers import VERSION
from tests.core.scripted_log import call, calls
from tests.shell import mutations, test_audit
from tests.shell.test_audit import Case, one_step, verdicts
from tests.shell.test_audit_regimes import (
    EARLIER,
    LITTLE,
    changed_at_rest,
    drop,
    relabel,
    restarted,
    too_large_before,
)


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def lost(case: Case) -> None:
    changed_at_rest(case)
    drop(case, b"new1")


def named_late(case: Case) -> None:
    restarted(case, LITTLE)
    one_step(case, "old")
    restarted(case, test_audit.RULES)
    for number in range(4):
        case.play.created(id=f"n{number}")
    for number in range(4):
        one_step(case, f"s{number}")
    case.publish()
    drop(case, b"old")


@pytest.mark.parametrize("cut", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("earlier", [(), (EARLIER,), (LITTLE,)])
@pytest.mark.parametrize("log", [changed_at_rest, too_large_before, lost, named_late])
def test_records_as_columns_are_judged_as_records(
    case: Case, monkeypatch: pytest.MonkeyPatch, log: Callable[[Case], None], earlier: tuple[object, ...], cut: int
) -> None:
    """Changes of settings and clock marks fall between any two records, so into any piece."""
    log(case)
    found, remembered = case.audit(cut=cut, earlier=earlier), case.last._unnamed._before
    monkeypatch.setattr(test_audit, "columns_of", lambda piece: [piece])
    assert case.audit(cut=cut, earlier=earlier) == found
    assert case.last._unnamed._before == remembered, "where the first step names the settings"


def foreign(case: Case) -> None:
    """A step of another fold version, a dead letter of this one, a step that is missing."""
    one_step(case, "other")
    case.play.put(b"{")
    one_step(case, "gone")
    case.publish()
    relabel(case, b"other", VERSION, b"%d" % (FOLD_VERSION + 1), value=b"{}")
    drop(case, b"gone")


def refused_twice(case: Case) -> None:
    """Steps are refused deltas that are too large, as the audited settings say, and nothing names settings."""
    for number in range(3):
        case.play.created(id=f"s{number}", type="tool_calls")
        case.play.say("step.delta", calls(call(arguments="x" * 2_000_000), step_id=f"s{number}"))
        case.play.wait(1)
    case.publish()


@pytest.mark.parametrize("accepted", [None, Accepted(folds=(FOLD_VERSION + 1,))])
@pytest.mark.parametrize("log", [changed_at_rest, too_large_before, lost, named_late, foreign, refused_twice])
def test_equal_dead_letters_come_to_the_same_as_those_that_are_compared(
    case: Case, monkeypatch: pytest.MonkeyPatch, log: Callable[[Case], None], accepted: Accepted | None
) -> None:
    log(case)
    found, agreed = case.audit(accepted=accepted), case.last._unnamed._agreed
    monkeypatch.setattr(PartitionAudit, "_equal_letter", lambda *_: None)
    assert case.audit(accepted=accepted) == found
    assert case.last._unnamed._agreed == agreed
    assert len(agreed) > 0 or log is not refused_twice


@pytest.mark.parametrize(
    "name", ["runstep-rules", "runstep-fold-version", "runstep-event-number", "runstep-clock-mark"]
)
def test_what_a_refused_record_says_of_settings_is_judged_as_one_by_one(
    case: Case, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dead letter keeps the headers of its source record, and anybody may have written them."""
    one_step(case)
    case.play.put(b"{", headers=((name, b"1/2"),))
    case.play.put(b"[")
    case.publish()
    found = case.audit()
    monkeypatch.setattr(PartitionAudit, "_equal_letter", lambda *_: None)
    assert case.audit() == found
    assert verdicts(found) == ["equal"] * 3


def test_equal_dead_letters_are_taken_without_being_looked_at(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """A finding of each, in the order of the log; one that stands in front of an earlier one is out of order."""
    one_step(case)
    for _ in range(3):
        case.play.put(b"{")
    case.publish()
    ((dead, letters),) = [(place, log) for place, log in case.out.items() if place[0] == mutations.DEAD]
    looked: list[object] = []
    real = FileIndex.look

    def look(*args: Any) -> Any:
        looked.append(args)
        return real(*args)

    monkeypatch.setattr(FileIndex, "look", look)
    assert verdicts(case.audit()) == ["equal"] * 4
    assert case.last.implied[FindingKind.DEAD_LETTER] == 3
    assert looked == []
    case.out[dead] = [letters[1], letters[0], letters[2]]
    for at, letter in enumerate(case.out[dead]):
        case.out[dead][at] = msgspec.structs.replace(letter, offset=at)
    assert verdicts(case.audit()) == ["equal", "equal", "out_of_order", "equal"]
