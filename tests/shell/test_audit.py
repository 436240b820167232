"""The audit's verdicts, on logs in memory; and the short form of the mutation test (tests/shell/mutations.py)."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from processor.audit.judge.arrival_times import ArrivalTimes
from processor.audit.judge.block_digests import framed, framed_together
from processor.audit.judge.differences import differences
from processor.audit.judge.partition_audit import PartitionAudit
from processor.audit.judge.published_headers import read_published
from processor.audit.judge.regimes import Accepted
from processor.audit.judge.verdicts import NEVER, ExpectedRecord, Finding, FindingKind, Published, Unreadable, Verdict
from processor.audit.memory_index import MemoryIndex
from processor.audit.published_index import FileIndex, IndexWriter
from processor.audit.replay.task_judge import expected_records
from processor.core.effects import FOLD_VERSION, LogRecord, Publish
from processor.core.headers import CLOCK_MARK, DETAIL, EVENT_NUMBER, LAST_OFFSET, REVISION, SOURCE_PARTITION, VERSION
from processor.core.partition import PartitionState
from processor.core.rules import Rules
from processor.kafka.output_records import OMITTED_BYTES, omitting
from processor.kafka.records import OutRecord
from tests.core.record_columns_of import columns_of
from tests.core.scripted_log import Play, step, text
from tests.shell import mutations

RULES = Rules(ended_retention_s=60)


class Case:
    """One source partition, number 3 of `source`, with its output on topics in memory."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.play = Play(RULES)
        self.out: dict[tuple[str, int], list[LogRecord]] = {}
        task = msgspec.structs.replace(
            mutations.task_of(mutations.World({}, {3: 0}, {}), 3), topic="source", rules=RULES
        )
        self.places = expected_records(task)
        self.last: PartitionAudit
        """Of the last `audit`."""

    def publish(self) -> None:
        """Put all that came of the play so far where it belongs."""
        for effect in self.play.effects:
            placed = self.places.whole(effect)
            assert placed is not None
            log = self.out.setdefault((placed.topic, placed.partition or 0), [])
            log.append(LogRecord(len(log), placed.timestamp, placed.key, placed.value, tuple(placed.headers)))
        self.play.effects.clear()

    def audit(
        self,
        *,
        begin: int = 0,
        end: int | None = None,
        lost: tuple[int, int] | None = None,
        log_end: int | None = None,
        latest_mark_ms: int = NEVER,
        kept_from: dict[tuple[str, int], int] | None = None,
        held: tuple[tuple[str, int], ...] = (),
        rules: Rules = RULES,
        cut: int = 1,
        arrivals: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> list[Finding]:
        with IndexWriter(self.work, "source", 4, frozenset({3})) as shelves:
            for (topic, partition), log in self.out.items():
                for record in log:
                    shelves.put(topic, partition, record, dead_letters=topic == mutations.DEAD)
        records = [r for r in self.play.log if begin <= r.offset and (end is None or r.offset < end)]

        def state(offset: int, now: int, rules: Rules = rules) -> PartitionState:
            return PartitionState("source", 3, rules, next_offset=offset, live_from=offset, stream_time=now)

        with FileIndex(self.work, 3) as shelf:
            audit = PartitionAudit(
                state,
                shelf,
                self.places.whole,
                begin=begin,
                end=len(self.play.log) if end is None else end,
                complete=begin == 0,
                log_end=log_end,
                latest_mark_ms=latest_mark_ms,
                shortened=self.places.shortened,
                kept_from=kept_from,
                expired=mutations.OUTCOMES["expired"],
                held=held,
                placements=self.places.placements,
                arrival_times=ArrivalTimes(shelf, **(arrivals or {})),
                **options,
            )
            found = []
            for at, record in enumerate(records):
                if lost is not None and lost[0] <= record.offset <= lost[1]:
                    if record.offset == lost[1]:
                        found += [finding for _, finding in audit.lost(*lost)]
                    continue
                if at % cut == 0:
                    piece = records[at : at + cut]
                    pieces = [piece] if at // cut % 2 else list(columns_of(piece))
                    found += [finding for one in pieces for _, finding in audit.apply(one)]
            found += [finding for _, finding in audit.finish()]
            self.last = audit
            assert audit.out_of_range + sum(f.at is not None for f in found) == shelf.count
            return found

    @property
    def completed(self) -> list[LogRecord]:
        return next(log for (topic, _), log in self.out.items() if topic == mutations.OUTCOMES["completed"])


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def verdicts(findings: list[Finding]) -> list[str]:
    return [finding.verdict.value for finding in findings]


def one_step(case: Case, step_id: str = "s1") -> None:
    one_step_of(case.play, step_id)


def one_step_of(play: Play, step_id: str) -> None:
    play.created(id=step_id)
    play.say("step.completed", step("completed", id=step_id))


def test_what_was_published_as_the_log_implies_it_is_equal(case: Case) -> None:
    one_step(case)
    case.play.put(b"{")
    case.publish()
    findings = case.audit()
    assert verdicts(findings) == ["equal", "equal"]
    assert [f.kind for f in findings] == [FindingKind.STEP, FindingKind.DEAD_LETTER]
    assert findings[0].identity == ("s1", "0")
    assert (findings[0].first_offset, findings[0].cause_offset) == (0, 1)


def test_a_field_that_differs_is_named_with_both_sides(case: Case) -> None:
    one_step(case)
    case.publish()
    snapshot = json.loads(case.completed[0].value or b"")
    snapshot["failed_at"] = 9
    case.completed[0] = msgspec.structs.replace(case.completed[0], value=text(snapshot))
    (finding,) = case.audit()
    assert finding.verdict is Verdict.DIFFERENT
    told = {d.path: (d.expected, d.got) for d in finding.differences}
    assert told["value.failed_at"] == ("None", "9")


def test_the_same_json_in_other_bytes_is_a_difference(case: Case) -> None:
    one_step(case)
    case.publish()
    case.completed[0] = msgspec.structs.replace(case.completed[0], value=(case.completed[0].value or b"") + b" ")
    (finding,) = case.audit()
    assert [d.path for d in finding.differences] == ["value"]


def test_what_is_not_there_is_missing_and_what_no_one_implied_is_extra(case: Case) -> None:
    one_step(case)
    case.publish()
    case.completed[0] = msgspec.structs.replace(case.completed[0], key=b"other")
    findings = case.audit()
    assert {(f.verdict, f.identity[0]) for f in findings} == {(Verdict.MISSING, "s1"), (Verdict.EXTRA, "other")}


def test_twice_the_same_is_a_duplicate(case: Case) -> None:
    one_step(case)
    case.publish()
    case.completed.append(msgspec.structs.replace(case.completed[0], offset=7))
    findings = case.audit()
    assert sorted(verdicts(findings)) == ["duplicate", "equal"]
    twice = next(f for f in findings if f.verdict is Verdict.DUPLICATE)
    assert twice.at is not None
    assert twice.at[2] == 7


def test_an_id_that_lives_twice_is_published_twice_and_that_is_no_duplicate(case: Case) -> None:
    one_step(case)
    case.play.wait(RULES.ended_retention_s + 1)
    one_step(case)
    case.publish()
    assert len(case.completed) == 2
    assert verdicts(case.audit()) == ["equal", "equal"]
    del case.completed[0]
    assert verdicts(case.audit()) == ["missing", "equal"], "the second life is not taken for the first"


def test_out_of_order_names_both(case: Case) -> None:
    for number in range(3):
        one_step(case, f"s{number}")
    case.publish()
    place = next(p for p, log in case.out.items() if len(log) >= 2)
    log = case.out[place]
    log[0], log[-1] = log[-1], log[0]
    case.out[place] = [msgspec.structs.replace(r, offset=i) for i, r in enumerate(log)]
    wrong = [f for f in case.audit() if f.verdict is not Verdict.EQUAL]
    assert {f.verdict for f in wrong} == {Verdict.OUT_OF_ORDER}
    assert "caused before it" in wrong[0].why


def test_a_step_from_before_the_range_cannot_be_judged(case: Case) -> None:
    one_step(case)
    case.play.say("step.delta", {"id": "s1", "delta": {"step_details": None}})
    case.publish()
    findings = case.audit(begin=1)
    assert verdicts(findings) == ["unverifiable"]
    assert "began before" in findings[0].why.replace("may have begun", "began")


def test_a_run_that_ended_before_the_range_has_a_say_in_its_beginning(case: Case) -> None:
    """L6: a step that arrives after its run's end is ended at once; a range that begins in between cannot know."""
    case.play.say("run.completed", {"id": "run_1", "object": "thread.run", "status": "completed"})
    case.play.created(id="s1", run_id="run_1")
    case.play.say("step.completed", step("completed", id="s1", run_id="run_1"))
    for number in range(3):
        case.play.wait(200)
        one_step(case, f"later{number}")
    case.publish()
    assert set(verdicts(case.audit())) == {"equal"}
    found = case.audit(begin=1)
    assert {f.verdict for f in found if f.identity[0] == "s1"} <= {Verdict.UNVERIFIABLE, Verdict.EQUAL}
    assert {f.verdict for f in found if f.identity[0] != "s1"} == {Verdict.EQUAL}


def test_how_a_run_ended_before_the_range_is_not_guessed_from_its_repeats(case: Case) -> None:
    """L6: a run is remembered as it ended first, however often it is said again."""
    run = {"id": "r1", "object": "thread.run"}
    case.play.say("run.failed", run | {"status": "failed"})
    for _ in range(5):
        case.play.wait(RULES.ended_retention_s - 1)
        case.play.say("run.completed", run | {"status": "completed"})
    case.play.created(id="s1", created_at=round(case.play.at))
    case.publish()
    for accepted in (None, Accepted(rules=(RULES.digest(),))):
        assert {f.verdict for f in case.audit(begin=1, accepted=accepted)} == {Verdict.UNVERIFIABLE}


@pytest.mark.parametrize("lost", [None, (1, 2)])
def test_a_mark_before_the_range_or_in_a_hole_has_moved_the_time(case: Case, lost: tuple[int, int] | None) -> None:
    """An old recording played now: marks are far ahead of its records, and what has ended is remembered for long."""
    case.play.created(id="s1", expires_at=5_000)
    case.play.wait(1)
    due = case.play.state.next_due_ms()
    assert due is not None
    case.play.effects += [e for e in case.play.state.advance(due) if isinstance(e, Publish)]
    case.play.say("run.failed", {"id": "r1", "object": "thread.run", "status": "failed"})
    case.play.wait(1)
    case.play.wait(1_000)
    now_s = round(case.play.at)
    case.play.created(id="s2", run_id="r2", created_at=now_s, expires_at=now_s + 10)  # not usable: it has passed
    case.play.created(id="s3", run_id="r1", created_at=now_s)
    case.play.say("step.completed", step("completed", id="s3", run_id="r1", created_at=now_s))
    case.play.wait(2 * RULES.grace_s)
    case.publish()
    found = case.audit(lost=lost) if lost is not None else case.audit(begin=3)
    assert {f.verdict for f in found} <= {Verdict.EQUAL, Verdict.UNVERIFIABLE}


def test_a_mark_behind_the_last_record_stands_where_it_stood(case: Case) -> None:
    """Markers may follow: the range goes on, the mark's position does not move with it."""
    case.play.created(id="s1", expires_at=2_000)
    due = case.play.state.next_due_ms()
    assert due is not None
    case.play.effects += [e for e in case.play.state.advance(due) if isinstance(e, Publish)]
    case.publish()
    assert verdicts(case.audit(end=5)) == ["equal"]


def test_a_mark_in_front_of_a_hole_is_applied(case: Case) -> None:
    case.play.created(id="s1", expires_at=2_000)
    due = case.play.state.next_due_ms()
    assert due is not None
    case.play.effects += [e for e in case.play.state.advance(due) if isinstance(e, Publish)]
    case.play.wait(1)  # offset 1 is lost
    case.publish()
    assert verdicts(case.audit(lost=(1, 1))) == ["equal"]


def test_what_was_caused_behind_the_range_is_out_of_it(case: Case) -> None:
    one_step(case, "s1")
    one_step(case, "s2")
    case.publish()
    assert [f.identity[0] for f in case.audit(end=2)] == ["s1"]


def test_an_offset_that_the_log_does_not_have_is_no_excuse(case: Case) -> None:
    one_step(case)
    case.publish()
    headers = [(n, b"99" if n == LAST_OFFSET else c) for n, c in case.completed[0].headers]
    forged = msgspec.structs.replace(case.completed[0], offset=1, key=b"forged", headers=tuple(headers))
    case.completed.append(forged)
    assert verdicts(case.audit()) == ["equal"], "without the log's end it is out of the range"
    findings = case.audit(log_end=2)
    assert verdicts(findings) == ["equal", "extra"]
    assert "the log ends at 2" in findings[1].why


def test_behind_a_hole_only_what_begins_there_is_judged(case: Case) -> None:
    case.play.created(id="s1")
    case.play.created(id="s2")  # offset 1 is lost
    case.play.say("step.completed", step("completed", id="s1"))
    case.play.say("step.completed", step("completed", id="s2"))
    case.play.wait(RULES.ended_retention_s + 61)
    one_step(case, "s3")
    case.publish()
    found = {f.identity[0]: f.verdict for f in case.audit(lost=(1, 1))}
    assert found == {"s1": Verdict.UNVERIFIABLE, "s2": Verdict.UNVERIFIABLE, "s3": Verdict.EQUAL}


def test_what_retention_may_have_taken_from_an_output_is_not_missing(case: Case) -> None:
    one_step(case)
    case.publish()
    place = next(iter(case.out))
    case.out[place].clear()
    assert verdicts(case.audit()) == ["missing"]
    assert verdicts(case.audit(kept_from={place: 2})) == ["unverifiable"]
    assert verdicts(case.audit(kept_from={place: 1})) == ["unverifiable"], "one cause may have made several"
    assert verdicts(case.audit(kept_from={place: 0})) == ["missing"], "behind it all is said to be there"


def test_what_is_gone_with_all_outcome_topics_is_told_as_gone(case: Case) -> None:
    """Retention takes all of them at once where the source's records are older: no clock mark has to do with it."""
    one_step(case)
    case.publish()
    place = next(iter(case.out))
    case.out[place].clear()
    (finding,) = case.audit(kept_from={place: NEVER, (mutations.OUTCOMES["expired"], 0): NEVER})
    assert finding.verdict is Verdict.UNVERIFIABLE
    assert finding.why.startswith("the published records are gone")


def test_another_fold_version_is_not_judged(case: Case) -> None:
    one_step(case)
    case.publish()
    other = str(FOLD_VERSION + 1).encode()
    headers = [(n, other if n == VERSION else c) for n, c in case.completed[0].headers]
    case.completed[0] = msgspec.structs.replace(case.completed[0], headers=tuple(headers))
    (finding,) = case.audit()
    assert finding.verdict is Verdict.UNVERIFIABLE
    assert finding.why.startswith("made by fold version")


def test_what_an_older_fold_published_is_never_called_different(case: Case) -> None:
    """Fold version 1 ignored an `error` in the stream: it published one revision where this one has two."""
    one_step(case)
    case.play.created(id="s9", run_id="key")
    case.play.say("error", {"error": {"code": "server_error"}})
    case.play.completed(id="s9", run_id="key")
    case.publish()
    assert set(verdicts(case.audit())) == {"equal"}
    for log in case.out.values():
        kept = [record for record in log if record.key != b"s9" or dict(record.headers)[REVISION] == b"1"]
        older = {VERSION: b"1", REVISION: b"0"}
        log[:] = [msgspec.structs.replace(r, headers=tuple((n, older.get(n, c)) for n, c in r.headers)) for r in kept]
    found = case.audit()
    assert {finding.verdict for finding in found} == {Verdict.UNVERIFIABLE}
    assert {finding.why for finding in found} == {f"made by fold version 1, this program has {FOLD_VERSION}"}
    assert len(found) == 3, "the revision that the older fold did not publish is among them"


def test_a_clock_mark_is_applied_where_it_stood_and_one_that_was_not_due_is_found(case: Case) -> None:
    case.play.created(id="s1", expires_at=2_000)
    due = case.play.state.next_due_ms()
    assert due is not None
    case.play.effects += [e for e in case.play.state.advance(due) if isinstance(e, Publish)]
    case.play.wait(1)
    case.publish()
    assert verdicts(case.audit()) == ["equal"]
    ((_, log),) = case.out.items()
    headers = [(n, b"%d@1" % (due + 1000) if n == CLOCK_MARK else c) for n, c in log[0].headers]
    log[0] = msgspec.structs.replace(log[0], headers=tuple(headers))
    assert "extra" in verdicts(case.audit()) or "different" in verdicts(case.audit())


def test_a_clock_mark_before_markers_that_end_the_range_stands_where_it_stood(case: Case) -> None:
    case.play.created(id="s1", expires_at=2_000)
    due = case.play.state.next_due_ms()
    assert due is not None
    case.play.effects += [e for e in case.play.state.advance(due) if isinstance(e, Publish)]
    case.publish()
    assert verdicts(case.audit(end=4)) == ["equal"]


def test_a_dead_letter_without_its_value_is_accepted_where_the_value_is_large(case: Case) -> None:
    case.play.put(b"{" + b"x" * 100_000)
    case.publish()
    (log,) = case.out.values()
    record = next(omitting(_out(log[0])))
    log[0] = msgspec.structs.replace(log[0], value=record.value, headers=tuple(record.headers))
    assert dict(log[0].headers)[OMITTED_BYTES] == b"100001"
    assert verdicts(case.audit()) == ["equal"]
    log[0] = msgspec.structs.replace(log[0], headers=tuple(h for h in log[0].headers if h[0] != OMITTED_BYTES))
    assert verdicts(case.audit()) == ["different"]


def two_refused(case: Case, extra: bytes = b"") -> list[LogRecord]:
    """The dead letters of a record of which two events were refused for one reason."""
    ended = [b"data: " + text({"event": "thread.run.step.completed", "data": step("completed")})]
    refused = [b"data: " + text({"event": f"thread.run.step.{s}", "data": step(s)}) for s in ("failed", "cancelled")]
    case.play.put(b"\n\n".join([*ended, *refused, b": " + extra]) + b"\n\n")
    case.publish()
    return next(log for (topic, _), log in case.out.items() if topic == mutations.DEAD)


@pytest.mark.parametrize("extra", [b"", b"x" * 100_000])
def test_dead_letters_of_one_record_are_told_apart_by_the_number_of_the_event(case: Case, extra: bytes) -> None:
    log = two_refused(case, extra)
    assert [dict(record.headers)[EVENT_NUMBER] for record in log] == [b"2/3", b"3/3"]
    assert verdicts(case.audit()) == ["equal"] * 3
    reworded = (b"another sentence",) * 2
    for at, detail in enumerate(reworded):
        headers = [(name, detail if name == DETAIL else content) for name, content in log[at].headers]
        log[at] = msgspec.structs.replace(log[at], headers=tuple(headers))
    found = [finding for finding in case.audit() if finding.kind is FindingKind.DEAD_LETTER]
    assert [one.verdict for one in found] == [Verdict.DIFFERENT] * 2, "each was found, and only its detail differs"
    assert [[difference.path for difference in one.differences] for one in found] == [["header runstep-detail"]] * 2


@pytest.mark.parametrize("is_short", [False, True])
def test_a_dead_letter_without_the_number_of_its_event_is_different(case: Case, is_short: bool) -> None:
    """Workers that wrote none had fold versions before 3: no record of this one lacks it."""
    log = two_refused(case, b"x" * 100_000)
    headers = tuple(header for header in log[1].headers if header[0] != EVENT_NUMBER)
    changed = _out(msgspec.structs.replace(log[1], headers=headers))
    changed = next(omitting(changed)) if is_short else changed
    log[1] = msgspec.structs.replace(log[1], value=changed.value, headers=tuple(changed.headers))
    (found,) = (finding for finding in case.audit() if finding.verdict is not Verdict.EQUAL)
    assert found.verdict is Verdict.DIFFERENT
    assert "header runstep-event-number" in {difference.path for difference in found.differences}


def _out(record: LogRecord) -> OutRecord:
    return OutRecord(mutations.DEAD, None, record.key, record.value, record.timestamp, record.headers)


# --- reading what stands on the outputs -------------------------------------------------------------------------------


def test_what_names_no_place_of_the_source_is_a_stray(tmp_path: Path) -> None:
    def record(**headers: bytes) -> LogRecord:
        return LogRecord(0, 0, b"k", b"{}", tuple((f"runstep-{n.replace('_', '-')}", c) for n, c in headers.items()))

    with IndexWriter(tmp_path, "source", 4, frozenset({0, 1})) as shelves:
        shelves.put("out", 0, record(), dead_letters=False)
        shelves.put("out", 0, record(source_topic=b"source"), dead_letters=False)
        shelves.put("out", 0, record(source_topic=b"source", source_partition=b"9", revision=b"0"), dead_letters=False)
        shelves.put("out", 0, record(source_topic=b"other"), dead_letters=False)
        shelves.put("out", 0, record(source_topic=b"source", source_partition=b"3", revision=b"0"), dead_letters=False)
        shelves.put("out", 0, record(source_topic=b"source", source_partition=b"1", revision=b"0"), dead_letters=False)
    assert (shelves.elsewhere.claims().named, shelves.other_partitions.claims().named) == ({"other": 1}, {"3": 1})
    assert (shelves.unreadable, shelves.indexed) == (3, 1)
    assert shelves.read.total() == 6
    with FileIndex(tmp_path, 0) as shelf:
        assert [stray.why for _, stray in shelf.strays()] == [
            "no runstep-source-topic",
            "no runstep-source-partition",
            "names source partition 9 of 4",
        ]


def test_numbers_that_no_offset_can_be_are_not_read() -> None:
    headers = ((SOURCE_PARTITION, b"9" * 19),)
    found = read_published("t", 0, LogRecord(5, 0, b"k", b"", headers), dead_letters=False)
    assert isinstance(found, Unreadable)
    assert found.offset == 5


def test_the_short_form_of_a_framed_record_is_the_long_one() -> None:
    """The chain digest is an outsider's to check: one rule, however it is computed."""
    for key, value in ((b"k", b"v"), (None, b"v"), (b"k", None), (b"", b"")):
        record = LogRecord(12, 1_700_000_000_000, key, value)
        parts = [b"12", b"1700000000000", key, value]
        plain = b"".join(b"-1:" if p is None else b"%d:%b" % (len(p), p) for p in parts) + b"\n"
        assert framed(record) == plain
    with_header = LogRecord(1, 2, b"k", b"v", (("h", None), ("i", b"x")))
    assert framed(with_header) == b"1:11:21:k1:v1:h-1:1:i1:x\n"


def test_records_framed_together_are_framed_one_by_one() -> None:
    """Blocks that are all plain are spelled at once: nobody may see it."""
    rng = random.Random(4)
    spelled = Counter[bool]()
    for _ in range(600):
        offset = rng.choice([0, 5, 60, 95, 99_980, 10**6, 999_990, 10**18])
        now = rng.choice([1_720_000_000_000] * 4 + [10**12, 10**12 - 1, 10**13 - 3, -1, 0])
        odd = rng.choice([0.0, 0.0, 0.1])
        records = []
        for _ in range(rng.randint(0, 64)):
            key, value = (None if rng.random() < odd else b"%" * rng.choice([0, 1, 9, 10, 300]) for _ in range(2))
            name = rng.choice(["h", "\udcff", f"n{rng.random()}", "h\u00e9"])
            headers = ((name, b"1" * rng.choice([1, 5000])), ("i", None)) if rng.random() < odd else ()
            records.append(LogRecord(offset, now + rng.randint(0, 2), key, value, headers))
            offset += rng.choice([1, 1, 2])
        together = framed_together(records)
        assert together == b"".join(map(framed, records))
        spelled[odd == 0] += 1
    assert min(spelled.values()) > 100


def test_digits_that_change_within_a_block_are_spelled_anew() -> None:
    """Of offsets and timestamps that follow each other only the last three digits are looked up."""
    for offset, now in ((950, 1_720_000_000_990), (9_980, 1_719_999_999_999), (99_970, 10**12), (1_000, 10**13 - 64)):
        for size in (0, 4_095, 4_096, 70_000):
            records = [LogRecord(offset + n, now + n, b"k" * size, b"v" * size) for n in range(64)]
            assert framed_together(records) == b"".join(map(framed, records))


def test_headers_in_another_order_differ() -> None:
    placed = ExpectedRecord("t", 0, b"k", b"v", 1, (("a", b"1"), ("b", b"2")))
    published = Published(FindingKind.STEP, 0, ("k", "0"), "t", 0, 0, 1, b"k", b"v", (("b", b"2"), ("a", b"1")))
    assert [d.path for d in differences(placed, published)] == ["headers"]


def test_an_empty_shelf_names_no_clock_mark() -> None:
    assert MemoryIndex().marks() == []


def test_what_is_kept_for_a_restart_does_not_grow_with_the_range() -> None:
    """A forgotten step that was irregular leaves a trace until no restart could read its records again."""
    play = Play(RULES)
    for number in range(50):
        one_step_of(play, f"s{number}")
        play.say("step.failed", step("failed", id=f"s{number}"))
        play.wait(RULES.ended_retention_s + 1)

    def state(offset: int, now: int) -> PartitionState:
        return PartitionState("source", 3, RULES, next_offset=offset, live_from=offset, stream_time=now)

    apart = 1 << 12  # the log of a partition that is much larger, of which compaction has left little
    log = [msgspec.structs.replace(record, offset=record.offset * apart) for record in play.log]
    audit = PartitionAudit(state, MemoryIndex(), lambda _: None, begin=0, end=apart * len(log), complete=True)
    held = []
    for record in log:
        assert not list(audit.apply([record]))
        held.append(audit.state.gone_steps)
    assert 0 < max(held) <= 4, held


@pytest.mark.parametrize("cut", [1, 2, 3, 9])
def test_the_times_of_records_are_told_across_holes_and_however_they_are_cut(cut: int) -> None:
    def state(offset: int, now: int) -> PartitionState:
        return PartitionState("source", 3, RULES, next_offset=offset, live_from=offset, stream_time=now)

    def audited(*segments: list[int]) -> tuple[int, int]:
        audit = PartitionAudit(state, MemoryIndex(), lambda _: None, begin=0, end=100, complete=True)
        at = 0
        for number, times in enumerate(segments):
            if number:
                assert list(audit.lost(at, at + 9)) == []
                at += 10
            log = [LogRecord(at + n, time, None, None) for n, time in enumerate(times)]
            for begin in range(0, len(log), cut):
                assert list(audit.apply(log[begin : begin + cut])) == []
            at += len(times)
        assert list(audit.finish()) == []
        return audit.earliest_ms, audit.latest_ms

    assert audited([-1, 5_000, 3_000, 4_000], [9_000, 8_000, -1], [6_000]) == (3_000, 9_000)
    assert audited([7_000], [5_000, 6_000]) == (5_000, 7_000)
    assert audited([4_000, 6_000, 5_000]) == (4_000, 6_000)
    assert audited([-1, -1])[1] == -1


# --- mutation test ----------------------------------------------------------------------------------------------------


def test_every_mutation_is_found_and_named(tmp_path: Path) -> None:
    tried = list(mutations.run_mutations(60, seed=7, work=tmp_path, per_world=15))
    assert len(tried) == 60
    missed = [one for one in tried if not (one.found and one.named)]
    assert not missed, mutations.table(tried) + f"\n{missed[:3]}"


def test_untouched_ranges_of_all_shapes_are_not_accused(tmp_path: Path) -> None:
    shapes = 0
    for where, heard in mutations.untouched_ranges(40, seed=7, work=tmp_path):
        accused = [finding for _, finding in heard.findings if finding.verdict is not Verdict.UNVERIFIABLE]
        assert not accused, (where, accused[:3])
        assert not heard.strays
        shapes += heard.counts[Verdict.EQUAL] > 0
    assert shapes > 10, "most ranges have something to judge"
