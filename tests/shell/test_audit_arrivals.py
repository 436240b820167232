"""What times of arrival leave open, and what they do not, one finding at a time (`judge.arrival_times`)."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from processor.audit.judge.regimes import Accepted
from processor.audit.judge.verdicts import Finding, FindingKind, Verdict
from processor.core import headers as evidence
from processor.core.effects import LogRecord, Publish
from processor.core.rules import Rules
from tests.core.scripted_log import Play, call, calls, run, step, text
from tests.shell.test_audit import RULES, Case, one_step

DAYS: Final = 10 * 86_400
"""Longer than a step may stay open, and than an end is remembered."""
ITEM: Final = {"id": "m", "type": "message", "status": "in_progress", "content": []}
CREATED: Final = {"type": "response.created", "sequence_number": 0, "response": {"id": "key", "model": "one"}}
ADDED: Final = {"type": "response.output_item.added", "output_index": 0, "sequence_number": 1, "item": ITEM}
RENAMED: Final = {"type": "response.in_progress", "sequence_number": 2, "response": {"id": "key", "model": "two"}}
DONE: Final = {"type": "response.output_item.done", "output_index": 0, "sequence_number": 2, "item": ITEM}
DIFFERENT, UNVERIFIABLE = Verdict.DIFFERENT, Verdict.UNVERIFIABLE


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def at_once(case: Case, first: int = 0, behind: int | None = None) -> None:
    """Have these records arrive when the first of them did."""
    log = case.play.log
    log[first:behind] = [msgspec.structs.replace(r, timestamp=log[first].timestamp) for r in log[first:behind]]


def found(case: Case, rules: Rules = RULES, **arrivals: Any) -> list[Finding]:
    """The findings, where no other rules were in force that might explain what differs."""
    sole = Accepted(rules=(rules.digest(),))
    return case.audit(rules=rules, arrivals=arrivals or {"of_source": True}, accepted=sole)


def change(case: Case, made: Callable[[LogRecord], LogRecord]) -> None:
    case.out = {place: [made(record) for record in log] for place, log in case.out.items()}


def rewritten(record: LogRecord, **fields: Any) -> LogRecord:
    """A published record with other fields in its value, and the digest of them."""
    value = json.dumps({**json.loads(record.value or b""), **fields}, sort_keys=True, separators=(",", ":")).encode()
    return told(msgspec.structs.replace(record, value=value), evidence.DIGEST, sha256(value).hexdigest().encode())


def told(record: LogRecord, name: str, content: bytes) -> LogRecord:
    headers = tuple((own, content if own == name else held) for own, held in record.headers)
    return msgspec.structs.replace(record, headers=headers)


def paths_of(finding: Finding) -> set[str]:
    return {one.path for one in finding.differences}


def left_open(
    case: Case, *paths: str, of_all: int = 1, rules: Rules = RULES, behind: int | None = None
) -> list[Finding]:
    """Publish, and have the records in front of `behind` arrive at once: none of the findings is decided, and in one
    of them these paths differ."""
    case.publish()
    at_once(case, behind=behind)
    findings = found(case, rules)
    assert [finding.verdict for finding in findings] == [UNVERIFIABLE] * of_all
    assert any({*paths} <= paths_of(finding) for finding in findings)
    return findings


def one_item(case: Case, rules: Rules = RULES) -> None:
    """A response with one item, which is done at once."""
    case.play = Play(rules)
    for event in (CREATED, ADDED, DONE):
        case.play.put(text(event))
        case.play.wait(1)


def test_of_a_published_step_its_time_is_open_and_all_else_is_not(case: Case) -> None:
    one_step(case)
    case.publish()
    case.play.log[:] = [msgspec.structs.replace(r, timestamp=r.timestamp + 7) for r in case.play.log]
    (finding,) = found(case)
    assert (finding.verdict, paths_of(finding)) == (UNVERIFIABLE, {"timestamp"})
    changes: list[Callable[[LogRecord], LogRecord]] = [
        lambda r: msgspec.structs.replace(r, headers=r.headers[::-1]),
        lambda r: told(r, evidence.EVENTS, b"9"),
        lambda r: told(r, evidence.LAST_OFFSET, b"0"),
        lambda r: told(r, evidence.DIGEST, b"0" * 64),
        lambda r: rewritten(r, metadata={"a": "b"}),
        lambda r: rewritten(r, completed_at=9),
    ]
    honest = case.out
    for made in changes:
        case.out = honest
        change(case, made)
        (finding,) = found(case)
        assert finding.verdict is DIFFERENT, finding


def test_another_text_of_an_item_that_expired_is_a_difference(case: Case) -> None:
    """Which of its events were folded does not follow from times; how far its response had come does."""
    for event in (CREATED, ADDED):
        case.play.put(text(event))
    case.play.wait(DAYS)  # it expires here
    case.play.put(text(RENAMED))
    case.play.wait(DAYS)  # and here, where all before came at once
    left_open(case, "value.assistant_id", behind=4)
    change(case, lambda r: rewritten(r, step_details={}))
    (finding,) = found(case)
    assert finding.verdict is DIFFERENT


def test_which_end_of_a_run_that_ended_twice_is_remembered_follows_from_times(case: Case) -> None:
    case.play.say("run.failed", run("failed", failed_at=1, last_error={"code": "a", "message": "m"}))
    case.play.wait(DAYS)
    case.play.say("run.failed", run("failed", failed_at=2, last_error={"code": "a", "message": "n"}))
    case.play.created()
    left_open(case, "value.last_error.message")


def test_how_many_events_a_step_that_expired_had_follows_from_times(case: Case) -> None:
    case.play.created()
    case.play.wait(DAYS)
    case.play.say("step.delta", calls(call(0, "a")))
    case.play.wait(DAYS)
    left_open(case, f"header {evidence.EVENTS}", of_all=2, behind=3)


def test_the_time_at_which_a_run_ended_its_steps_is_that_of_its_record(case: Case) -> None:
    case.play.created()
    case.play.wait(5)
    case.play.say("run.failed", run("failed"))
    left_open(case, "value.failed_at")


def test_what_a_refused_event_followed_follows_from_times(case: Case) -> None:
    case.play.created()
    case.play.wait(DAYS)
    case.play.say("run.failed", run("failed"))
    case.play.say("step.in_progress", step())
    left_open(case, f"header {evidence.DETAIL}", of_all=2)


def test_a_reference_to_a_snapshot_tells_of_its_times(case: Case) -> None:
    rules = Rules(max_record_bytes=1)
    one_item(case, rules)
    (finding,) = left_open(case, "value.digest", rules=rules)
    assert finding.kind is FindingKind.DEAD_LETTER


def test_one_header_of_each_name_is_kept_of_a_record_that_was_set_aside(case: Case) -> None:
    """The first one or the last; other headers are as they were."""
    other = ("other", b"3")
    case.play.put(b"no JSON", headers=(("note", b"1"), ("note", b"2"), other))
    case.publish()
    (record,) = case.play.log
    case.play.log[:] = [msgspec.structs.replace(record, headers=(("note", b"1"), other))]
    (finding,) = found(case)
    assert (finding.verdict, paths_of(finding)) == (UNVERIFIABLE, {"header note"})
    case.play.log[:] = [record]
    change(case, lambda r: msgspec.structs.replace(r, headers=(("note", b"1"), *r.headers[2:])))
    (finding,) = found(case, outputs=list(case.out))
    assert (finding.verdict, paths_of(finding)) == (UNVERIFIABLE, {"header note"})
    change(case, lambda r: told(r, "other", b"4"))
    (finding,) = found(case, outputs=list(case.out))
    assert finding.verdict is DIFFERENT


def test_what_no_time_explains_is_missing_or_extra(case: Case) -> None:
    case.play.put(b"no JSON")
    case.publish()
    letters, case.out = case.out, {}
    (finding,) = found(case)
    assert finding.verdict is Verdict.MISSING
    case.out = {place: [*log, msgspec.structs.replace(log[0], offset=1)] for place, log in letters.items()}
    assert {finding.verdict for finding in found(case)} == {Verdict.EQUAL, Verdict.DUPLICATE}


def test_an_item_that_is_published_twice_is_extra(case: Case) -> None:
    """One alone may be of a response that is remembered by one side only: when it was created, it does not say."""
    one_item(case)
    case.publish()
    at_once(case)
    log = case.play.log[:]
    case.play.log[:] = log[:1]
    case.play.log += [msgspec.structs.replace(r, value=None) for r in log[1:]]
    (finding,) = found(case)
    assert finding.verdict is UNVERIFIABLE
    case.out = {place: [one, msgspec.structs.replace(one, offset=1)] for place, (one,) in case.out.items()}
    assert {finding.verdict for finding in found(case)} == {Verdict.EXTRA}


def test_the_id_of_an_event_has_the_digest_that_the_value_has(case: Case) -> None:
    rules = Rules(cloudevents_source="/here")
    one_item(case, rules)
    left_open(case, f"header {evidence.CE_ID}", rules=rules)
    change(case, lambda r: told(r, evidence.CE_ID, b"3-0-0-" + b"0" * 16))
    (finding,) = found(case, rules)
    assert finding.verdict is DIFFERENT


def test_a_dead_letter_that_no_time_explains_is_extra(case: Case) -> None:
    case.play.put(b"no JSON")
    case.publish()
    case.play.log[:] = [msgspec.structs.replace(r, value=None) for r in case.play.log]
    (finding,) = found(case)
    assert finding.verdict is Verdict.EXTRA


@pytest.mark.parametrize(("hides_ends", "verdict"), [(False, Verdict.MISSING), (True, UNVERIFIABLE)])
def test_an_end_that_need_not_be_published_may_be_remembered(case: Case, hides_ends: bool, verdict: Verdict) -> None:
    one_step(case)
    case.publish()
    case.out = {}
    (finding,) = found(case, of_source=True, hides_ends=hides_ends)
    assert finding.verdict is verdict


def test_an_end_that_was_too_large_may_be_remembered(case: Case) -> None:
    rules = Rules(ended_retention_s=60, max_record_bytes=1_000)
    case.play = Play(rules)
    case.play.say("step.completed", step("completed", metadata={"a": "x" * 1_000}))
    case.play.wait(DAYS)
    case.play.say("step.completed", step("completed", metadata=None))
    case.publish()
    at_once(case)
    assert {finding.verdict for finding in found(case, rules)} == {Verdict.EQUAL, UNVERIFIABLE}


def test_an_end_that_the_worker_had_forgotten_may_be_remembered(case: Case) -> None:
    one_step(case)
    case.play.wait(DAYS)
    one_step(case)
    case.publish()
    at_once(case)
    assert {finding.verdict for finding in found(case)} == {Verdict.EQUAL, UNVERIFIABLE}


def test_what_names_a_clock_mark_that_is_taken_for_forged_is_extra(case: Case) -> None:
    case.play.created(expires_at=2_000)
    due = case.play.state.next_due_ms()
    assert due is not None
    case.play.effects += [e for e in case.play.state.advance(due) if isinstance(e, Publish)]
    case.publish()
    findings = case.audit(arrivals={"of_source": True}, ignored_marks=[(1, due)])
    assert [finding.verdict for finding in findings] == [Verdict.EXTRA]


def test_a_clock_mark_that_was_not_next_by_times_of_arrival_was_set_all_the_same(case: Case) -> None:
    """By these another step was due earlier: its end is not decided, and the time has gone on."""
    case.play.created(id="s1")
    case.play.created(id="s2", expires_at=round(case.play.at) + RULES.max_age_s - 5)
    for _ in range(2):
        due = case.play.state.next_due_ms()
        assert due is not None
        case.play.effects += [e for e in case.play.state.advance(due) if isinstance(e, Publish)]
    case.publish()
    first = case.play.log[0]
    case.play.log[0] = msgspec.structs.replace(first, timestamp=first.timestamp - 10_000)
    verdicts = {finding.identity[0]: finding.verdict for finding in found(case)}
    assert verdicts == {"s1": UNVERIFIABLE, "s2": Verdict.EQUAL}
