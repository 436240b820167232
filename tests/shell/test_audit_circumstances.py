"""What is none of the worker's doing: compaction, partitions added, lost marks and times; and a forged mark."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from processor.archives import ArchivedRecord, Gap, GapKind, Recorder
from processor.audit.judge.verdicts import NEVER, FindingKind, Verdict
from processor.audit.replay.partition_task import _TaskRunner
from processor.audit.replay.record_sources import cut_at_holes
from processor.audit.report.manifest import Outcome
from processor.core import headers as evidence
from processor.core.effects import LogRecord, Publish
from processor.core.partition import PartitionState
from processor.kafka.fetch import Hidden
from processor.kafka.records import partition_of
from tests.core.scripted_log import step
from tests.shell import mutations
from tests.shell.test_audit import RULES, Case, one_step, verdicts
from tests.shell.test_replay import Archived


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


@pytest.fixture
def archived(tmp_path: Path) -> Archived:
    return Archived(tmp_path)


# --- one forged clock mark --------------------------------------------------------------------------------------------


def forged_expiry(made: mutations.World, partition: int) -> tuple[int, list[tuple[mutations.Place, LogRecord]]]:
    """The position of a clock mark that was due and never set, in the middle of a log, and what follows from it."""
    log = [item for item in made.logs[partition] if isinstance(item, ArchivedRecord)]
    marks = sorted(
        {
            (int(position), int(ms))
            for out in made.topics.values()
            for headers in (dict(r.headers) for r in out)
            if headers.get(evidence.SOURCE_PARTITION) == b"%d" % partition and evidence.CLOCK_MARK in headers
            for ms, _, position in [(headers[evidence.CLOCK_MARK] or b"").partition(b"@")]
        }
    )
    state = PartitionState(mutations.SOURCE, partition, mutations.RULES)
    for record in log:
        while marks and marks[0][0] <= record.offset:
            position, ms = marks.pop(0)
            state.moved_to(position)
            state.advance(ms)
        due = state.next_due_ms()
        if record.offset > made.ends[partition] // 3 and due is not None and due >= state.stream_time:
            break
        state.apply([record])
    assert due is not None
    effects = [mutations._PLACES[partition].whole(effect) for effect in state.advance(due)]
    return state.next_offset, [
        ((one.topic, one.partition or 0), LogRecord(0, one.timestamp, one.key, one.value, tuple(one.headers)))
        for one in effects
        if one is not None
    ]


@pytest.mark.parametrize(
    ("begin", "first_wrong", "disagreeing", "suspected"),
    [
        (0, 9, 1, [(10, 4), (8, 3), (5, 2)]),
        (5, 9, 1, [(10, 4), (8, 3)]),
        (0, 8, 1, [(8, 3), (5, 2), (2, 1)]),
        (0, NEVER, 0, []),
    ],
    ids=["the nearest three", "none before the range", "none behind it", "none where all agrees"],
)
def test_suspected_are_the_marks_of_the_range_in_front_of_the_first_finding_that_disagrees(
    begin: int, first_wrong: int, disagreeing: int, suspected: list[tuple[int, int]]
) -> None:
    """A mark stands in front of the record that it caused a finding at: its position is one behind the cause."""
    marks = [(2, 1), (5, 2), (8, 3), (10, 4), (12, 5)]
    task = SimpleNamespace(begin=begin)
    runner = SimpleNamespace(_marks=marks, _task=task, _first_wrong=first_wrong, disagreeing=disagreeing)
    assert _TaskRunner.suspected_marks(cast(Any, runner)) == suspected


def test_a_forged_mark_is_blamed_and_not_what_follows_from_it(archived: Archived, tmp_path: Path) -> None:
    """One forged expired record with a due mark: eight honest steps were called wrong."""
    position, forged = forged_expiry(archived.made, 0)
    topics = {place: list(log) for place, log in archived.made.topics.items()}
    for place, record in forged:
        topics.setdefault(place, []).append(record)
    with Recorder(tmp_path / "forged", files=".jsonl") as recorder:
        for (topic, partition), log in sorted(topics.items()):
            for n, r in enumerate(log):
                recorder.write(ArchivedRecord(topic, partition, n, r.timestamp, r.key, r.value, r.headers))
    found = archived.audit(published=(str(tmp_path / "forged"),), report=str(tmp_path / "report"))
    assert found.verdict is Outcome.DIFFERENT
    keys = {(record.key or b"").decode() for _, record in forged}
    for one in found.first:
        assert (one.verdict, one.cause_offset) == (Verdict.EXTRA, position - 1)
        assert one.why.startswith("its clock mark was never set")
        assert one.kind is FindingKind.DEAD_LETTER or one.identity[0] in keys
    assert sum(verdicts.get("extra", 0) for verdicts in found.counts.values()) == len(forged), found.counts
    assert found.counts["step"].keys() == {"equal", "extra"}
    plain = archived.audit(published=(str(tmp_path / "forged"),))
    assert plain.counts == found.counts


# --- holes ------------------------------------------------------------------------------------------------------------


def test_what_compaction_took_from_an_output_is_not_missing(case: Case) -> None:
    """operations.md allows compacted outcome topics: `missing: revision 0`."""
    one_step(case)
    case.play.say("step.completed", step("completed", id="s1", usage={"a": 1}))
    case.publish()
    ((place, log),) = case.out.items()
    assert len(log) == 2
    del log[0]
    assert sorted(verdicts(case.audit())) == ["equal", "missing"]
    (equal, gone) = sorted(case.audit(holes=(place,)), key=lambda one: one.verdict)
    assert (equal.verdict, gone.verdict) == (Verdict.EQUAL, Verdict.UNVERIFIABLE)
    assert "compaction" in gone.why


def test_a_compacted_offset_of_the_source_is_a_hole(archived: Archived, tmp_path: Path) -> None:
    """35 of 53 steps were called wrong over a source gap of kind `compacted`."""
    with Recorder(tmp_path / "compacted", files=".jsonl") as recorder:
        for log in archived.made.logs.values():
            for item in log:
                if isinstance(item, ArchivedRecord) and item.offset % 9 == 4:
                    recorder.write(Gap(item.topic, item.partition, item.offset, item.offset, GapKind.COMPACTED))
                else:
                    recorder.write(item)
    found = archived.audit(archives=(str(tmp_path / "compacted"),))
    assert found.verdict is Outcome.UNPROVABLE, found.counts
    assert found.coverage["compacted"] > 20


def test_a_hole_in_an_archive_of_the_output_is_one_wherever_it_is(archived: Archived, tmp_path: Path) -> None:
    place = ("out.completed", 0)
    with Recorder(tmp_path / "holed", files=".jsonl") as recorder:
        for (topic, partition), log in sorted(archived.made.topics.items()):
            for n, r in enumerate(log):
                if (topic, partition) == place and n == len(log) - 2:
                    recorder.write(Gap(topic, partition, r.offset, r.offset, GapKind.MISSING))
                else:
                    recorder.write(ArchivedRecord(topic, partition, r.offset, r.timestamp, r.key, r.value, r.headers))
    found = archived.audit(published=(str(tmp_path / "holed"),))
    assert found.verdict is Outcome.UNPROVABLE, found.counts
    assert "hole" in found.first[0].why


def test_offsets_that_nothing_explains_are_holes_between_what_was_read(archived: Archived) -> None:
    task = mutations.task_of(archived.made, 0)
    records = [LogRecord(at, 0, None, None) for at in (2, 3, 6, 7, 9)]
    hidden = [Hidden(0, 1, "aborted"), Hidden(4, 4, "marker"), Hidden(8, 8, "marker"), Hidden(12, 12, "marker")]
    pieces = [
        (one.first, one.last, one.kind) if isinstance(one, Gap) else [record.offset for record in one]
        for one in cut_at_holes(task, records, hidden, 0)
    ]
    assert pieces == [[2, 3], (5, 5, "compacted"), [6, 7, 9], (10, 11, "compacted")]
    assert list(cut_at_holes(task, (), (), 3)) == []


# --- partitions that were added ---------------------------------------------------------------------------------------


def grown(case: Case, steps: int, before: int, count: int) -> None:
    """So many steps, of which the first `before` were published when the topic had `count` partitions."""
    for number in range(steps):
        one_step(case, f"s{number}")
    case.publish()
    records = sorted(
        (int(dict(r.headers)[evidence.LAST_OFFSET] or 0), place, r) for place, log in case.out.items() for r in log
    )
    case.out.clear()
    for n, (_, (topic, p), record) in enumerate(records):
        assert record.key is not None
        log = case.out.setdefault((topic, partition_of(record.key, count) if n < before else p), [])
        log.append(msgspec.structs.replace(record, offset=len(log)))


def test_records_from_before_partitions_were_added_are_equal(case: Case) -> None:
    """71 steps were `different: partition`."""
    grown(case, steps=24, before=12, count=2)
    assert set(verdicts(case.audit())) == {"equal"}


def test_one_record_on_another_partition_is_not_excused_by_a_smaller_count(case: Case) -> None:
    grown(case, steps=24, before=0, count=3)
    key = b"s20"
    ((place, at),) = [(p, n) for p, log in case.out.items() for n, r in enumerate(log) if r.key == key]
    record = case.out[place].pop(at)
    case.out[place] = [msgspec.structs.replace(r, offset=n) for n, r in enumerate(case.out[place])]
    other = next(p for p in case.out if p != place)
    case.out[other].append(msgspec.structs.replace(record, offset=len(case.out[other])))
    wrong = [f for f in case.audit() if f.verdict is not Verdict.EQUAL]
    assert [(f.verdict, [d.path for d in f.differences]) for f in wrong] == [(Verdict.DIFFERENT, ["partition"])]


def test_too_few_records_for_a_smaller_count_are_left_undecided(case: Case) -> None:
    for before in range(24):
        case.play = type(case.play)(RULES)
        case.out.clear()
        grown(case, steps=24, before=before, count=2)
        assert set(verdicts(case.audit())) <= {"equal", "unverifiable"}


# --- times and marks that are gone ------------------------------------------------------------------------------------


def test_a_timestamp_of_the_broker_is_not_a_difference(case: Case) -> None:
    """LogAppendTime switched on under a running worker: `different: timestamp`."""
    one_step(case)
    case.publish()
    case.completed[0] = msgspec.structs.replace(case.completed[0], timestamp=case.completed[0].timestamp + 77)
    assert verdicts(case.audit()) == ["different"]
    ((place, _),) = case.out.items()
    assert verdicts(case.audit(broker_times={place: 1})) == ["different"], "from there on alone"
    (finding,) = case.audit(broker_times={place: 0})
    assert finding.verdict is Verdict.UNVERIFIABLE
    assert "LogAppendTime" in finding.why
    case.completed[0] = msgspec.structs.replace(case.completed[0], value=b"{}")
    assert verdicts(case.audit(broker_times={place: 0})) == ["different"]


@pytest.mark.parametrize("whole", [True, False])
def test_a_source_without_milliseconds_is_said(case: Case, *, whole: bool) -> None:
    case.play.at += 0.25
    one_step(case)
    case.play.put(b"{")
    if not whole:
        case.play.wait(0.5)
    case.publish()
    end = len(case.play.log) - (not whole)
    log = case.play.log[:end]
    case.play.log[:end] = [msgspec.structs.replace(r, timestamp=r.timestamp // 1000 * 1000) for r in log]
    assert set(verdicts(case.audit())) == {"different"}, "a topic keeps milliseconds"
    found = case.audit(is_archived=True)
    if not whole:  # a record that has milliseconds: then the others could have them, too
        assert Verdict.UNVERIFIABLE in {f.verdict for f in found} or set(verdicts(found)) == {"different"}
        return
    assert {f.verdict for f in found} == {Verdict.UNVERIFIABLE}
    assert all("whole seconds" in f.why for f in found)


def test_a_mark_that_is_gone_may_have_moved_the_time_of_later_steps(case: Case) -> None:
    """The head of the expired topic was deleted, and record times lag the marks in it: 40 of 126 were called wrong."""
    for number in range(4):  # an old recording played now: the clock is far ahead of the records
        case.play.created(id=f"lost{number}", expires_at=2_000_000 + number)
        due = case.play.state.next_due_ms()
        assert due is not None
        case.play.effects += [e for e in case.play.state.advance(due) if isinstance(e, Publish)]
    for number in range(6):
        case.play.created(id=f"s{number}", expires_at=1_500 + number)
        case.play.wait(400)
        case.play.say("step.completed", step("completed", id=f"s{number}"))
    case.publish()
    expired = mutations.OUTCOMES["expired"]
    shortened = {place: -1 for place in case.out if place[0] == expired}
    for place in shortened:
        log = case.out[place]
        gone = [r for r in log if (r.key or b"").startswith(b"lost")]
        shortened[place] = max(int(dict(r.headers)[evidence.LAST_OFFSET] or 0) for r in gone)
        case.out[place] = [r for r in log if r not in gone]
    assert "different" in verdicts(case.audit()) or "missing" in verdicts(case.audit())
    found = case.audit(kept_from=shortened)
    assert {f.verdict for f in found} <= {Verdict.EQUAL, Verdict.UNVERIFIABLE}


def test_a_deadline_that_fired_by_a_record_says_that_no_lost_mark_had_gone_further(case: Case) -> None:
    one_step(case, "s0")
    case.play.created(id="due", expires_at=2_000)
    case.play.wait(3_000)
    case.play.wait(1)
    case.play.wait(RULES.ended_retention_s + 200)
    now = round(case.play.at)
    case.play.created(id="later", created_at=now)
    case.play.say("step.completed", step("completed", id="later", created_at=now))
    case.publish()
    expired = mutations.OUTCOMES["expired"]
    for place, log in list(case.out.items()):
        case.out[place] = [r for r in log if r.key != b"later"]
    ((place, _),) = [(p, log) for p, log in case.out.items() if p[0] == expired]
    assert sorted(verdicts(case.audit(kept_from={place: 1}))) == ["equal", "equal", "missing"]
    case.out[place].clear()
    assert "missing" not in verdicts(case.audit(kept_from={place: 1}))
