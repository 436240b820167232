"""Which range of the source `explain` reads for a step; and that what names another place changes nothing of it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from processor.archives import ArchivedRecord
from processor.audit import explain as explaining
from processor.audit import step_timeline
from processor.audit.explain import explain_from
from processor.audit.judge.regimes import Accepted
from processor.audit.judge.settled import settled_after_ms
from processor.audit.judge.verdicts import Verdict
from processor.audit.replay.task_judge import expected_records
from processor.audit.step_timeline import StepIncarnation
from processor.core.effects import LogRecord
from processor.core.headers import CLOCK_MARK, FIRST_OFFSET, INFERRED, LAST_OFFSET, REVISION
from processor.core.partition import PartitionState
from processor.core.rules import Rules
from tests.core.scripted_log import START_S, Play, run, step, text
from tests.core.test_responses_repeats import CREATED, ENDED, added, at, piece, whole
from tests.shell import mutations
from tests.shell.test_explain import Simulated, told

NEED_MS: Final = settled_after_ms(mutations.RULES, retentions=2, readings=2)


def published_from(play: Play, rules: Rules = mutations.RULES) -> mutations.World:
    """The log of a play on partition 0 of the source, and what a worker publishes of it."""
    log = [
        ArchivedRecord(mutations.SOURCE, 0, r.offset, r.timestamp, r.key, r.value, tuple(r.headers)) for r in play.log
    ]
    made = mutations.World({0: [*log]}, {0: len(log)}, {})
    places = expected_records(mutations.task_of(made, 0))
    state = PartitionState(mutations.SOURCE, 0, rules)
    for effect in state.apply(log):
        placed = places.whole(effect)
        if placed is not None:
            out = made.topics.setdefault((placed.topic, placed.partition or 0), [])
            out.append(LogRecord(len(out), placed.timestamp, placed.key, placed.value, tuple(placed.headers)))
    return made


def completed(play: Play) -> None:
    play.created()
    play.say("step.completed", step("completed"))


def where(made: mutations.World) -> tuple[tuple[str, int], LogRecord]:
    """The one record of `s1`, and its place."""
    ((place, record),) = [(p, r) for p, log in made.topics.items() for r in log if r.key == b"s1"]
    return place, record


def forged(record: LogRecord, **headers: bytes) -> LogRecord:
    """The next record of the same topic, with other contents of headers."""
    named = {FIRST_OFFSET: headers.get("first"), LAST_OFFSET: headers.get("last"), REVISION: headers.get("revision")}
    kept = tuple((name, named.get(name) or content) for name, content in record.headers)
    return msgspec.structs.replace(record, offset=record.offset + 1, headers=kept)


@pytest.mark.parametrize(("begin", "marked_s"), [(0, 2 * START_S), (1, 1 << 40)], ids=["before it", "of the future"])
def test_a_mark_that_cannot_have_been_set_moves_no_time(tmp_path: Path, begin: int, marked_s: int) -> None:
    """Who writes `<any>@0` under another key would have an honest step called different: with its time, a run's end
    that was forgotten is remembered. None is open before the log begins, and no clock has come to the future."""
    play = Play(mutations.RULES)
    for _ in range(begin):
        play.put(b"[DONE]")
        play.at += 2 * NEED_MS / 1_000
    play.say("run.failed", run("failed"))
    play.wait(mutations.RULES.ended_retention_s + 1)
    play.say("run.completed", run("completed"))
    play.created()
    made = published_from(play)
    place, record = where(made)
    logs = Simulated(made, tmp_path)
    found = told(logs, "s1")
    assert found.verdict is Verdict.EQUAL
    assert found.lives[0].read == (begin, begin + 4), "it is read with the ends of its run"
    marked = ((INFERRED, b"deadline"), (CLOCK_MARK, b"%d@%d" % (marked_s * 1_000, begin)))
    other = msgspec.structs.replace(record, offset=record.offset + 1, key=b"other", headers=(*record.headers, *marked))
    made.topics[place].append(other)
    assert told(logs, "s1") == found


def test_a_record_of_the_step_that_names_offsets_behind_the_log_is_different(tmp_path: Path) -> None:
    """The log ends in front of its cause: nobody can have published it. Only what there is, is read."""
    play = Play(mutations.RULES)
    completed(play)
    made = published_from(play)
    place, record = where(made)
    assert told(Simulated(made, tmp_path), "s1").verdict is Verdict.EQUAL
    made.topics[place].append(forged(record, last=b"99", revision=b"1"))
    found = told(Simulated(made, tmp_path), "s1")
    (life,) = found.lives
    assert (found.verdict, life.read, life.notes) == (Verdict.DIFFERENT, (0, 2), ())
    assert [(one.verdict, one.why) for one in life.issued] == [("equal", ""), ("extra", "the log ends at 2")]


def test_a_record_of_the_step_that_begins_behind_the_log_is_different(tmp_path: Path) -> None:
    """There is no record at its beginning to take the time from: all of the log is read."""
    play = Play(mutations.RULES)
    completed(play)
    made = published_from(play)
    place, record = where(made)
    made.topics[place].append(forged(record, first=b"98", last=b"99", revision=b"1"))
    found = told(Simulated(made, tmp_path), "s1")
    one, other = found.lives
    assert (one.verdict, other.verdict, other.read) == ("equal", "different", (0, 2))
    assert [(each.verdict, each.why) for each in other.issued] == [("extra", "the log ends at 2")]


def test_a_record_of_the_step_that_begins_behind_its_own_cause_is_different(tmp_path: Path) -> None:
    """Up to its cause is read, and no further: the time at its beginning says nothing of that."""
    play = Play(mutations.RULES)
    completed(play)
    for _ in range(2):
        play.wait(2 * NEED_MS / 1_000)
    made = published_from(play)
    place, record = where(made)
    made.topics[place].append(forged(record, first=b"3", revision=b"1"))
    found = told(Simulated(made, tmp_path), "s1")
    one, other = found.lives
    assert (one.verdict, other.verdict, other.read) == ("equal", "different", (2, 2))
    assert [each.why for each in other.issued] == ["it names a cause before its own first offset"]


def test_of_a_step_that_is_said_to_begin_behind_the_log_nothing_is_read(tmp_path: Path) -> None:
    play = Play(mutations.RULES)
    completed(play)
    made = published_from(play)
    made.topics.clear()
    found = asyncio.run(explain_from(Simulated(made, tmp_path), "s1", 0, 99))
    (life,) = found.lives
    assert (life.read, life.verdict) == ((99, 99), "unverifiable")
    assert life.notes == ("No record of this range names the step.",)


@pytest.mark.parametrize("gone", ["shortened", "holes"])
def test_an_earlier_revision_that_is_gone_from_its_topic_is_not_missing(tmp_path: Path, gone: str) -> None:
    """By retention or by compaction: where nothing has taken it, it is."""
    play = Play()
    completed(play)
    play.say("step.completed", step("completed", usage={"total_tokens": 7}))
    made = published_from(play)
    ((place, (_, newest)),) = [(p, log) for p, log in made.topics.items() if log]
    less = mutations.World(made.logs, made.ends, {place: [newest]})
    found = told(Simulated(less, tmp_path, output={gone: (place,)}), "s1")
    assert [(one.revision, one.verdict) for one in found.lives[0].issued] == [(0, "unverifiable"), (1, "equal")]
    assert found.verdict is Verdict.UNVERIFIABLE
    assert told(Simulated(less, tmp_path), "s1").verdict is Verdict.DIFFERENT


def amended() -> mutations.World:
    """A step that completed, and an event behind it: its second revision."""
    play = Play()
    completed(play)
    play.say("step.completed", step("completed", usage={"total_tokens": 7}))
    return published_from(play)


def as_of(made: mutations.World, offset: int) -> LogRecord:
    """The record that a worker would publish that had begun there."""
    (place,) = made.topics
    later = mutations.World({0: [r for r in made.logs[0] if getattr(r, "offset", -1) >= offset]}, made.ends, {})
    state = mutations._state(0, offset, -1)
    (effect,) = state.apply([r for r in later.logs[0] if isinstance(r, ArchivedRecord)])
    whole = expected_records(mutations.task_of(made, 0)).whole(effect)
    assert whole is not None
    return LogRecord(len(made.topics[place]), whole.timestamp, whole.key, whole.value, tuple(whole.headers))


def test_a_life_that_another_one_goes_on_in_is_not_proven_by_its_own_records(tmp_path: Path) -> None:
    """A forged life that begins with the late event: from there on it is just what is published."""
    made = amended()
    ((place, log),) = made.topics.items()
    forged_life = as_of(made, 2)
    assert dict(forged_life.headers)[FIRST_OFFSET] == b"2"
    for records in ([*log, forged_life], [log[0], forged_life], [forged_life]):
        world = mutations.World(made.logs, made.ends, {place: records})
        found = told(Simulated(world, tmp_path), "s1")
        assert found.verdict is Verdict.UNVERIFIABLE, "a worker publishes this whose group was reset to there"
        assert found.lives[-1].read == (0, 3), "what was before is read"
        assert "its group was reset" in " ".join(found.lives[-1].notes)


def test_lives_that_overlap_are_not_equal_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = amended()
    ((place, log),) = made.topics.items()
    monkeypatch.setattr(explaining, "_life", alone := Alone(explaining._life))
    for first, cause, verdict in ((1, 2, Verdict.UNVERIFIABLE), (2, 2, Verdict.UNVERIFIABLE), (3, 3, Verdict.EQUAL)):
        other = forged(log[0], first=b"%d" % first, last=b"%d" % cause)
        world = mutations.World(made.logs, made.ends, {place: [*log, msgspec.structs.replace(other, offset=9)]})
        found = told(Simulated(world, tmp_path), "s1")
        assert alone.asked
        assert found.verdict is verdict
        assert all(("overlaps" in " ".join(life.notes)) is (verdict is not Verdict.EQUAL) for life in found.lives)


class Alone:
    """Of each life an answer that says that it is equal."""

    def __init__(self, life: Any) -> None:
        self._life, self.asked = life, 0

    async def __call__(self, *arguments: Any) -> StepIncarnation:
        self.asked += 1
        life: StepIncarnation = await self._life(*arguments)
        return msgspec.structs.replace(life, verdict=Verdict.EQUAL.value)


def test_a_run_that_ended_before_all_that_is_read_leaves_the_step_undecided(tmp_path: Path) -> None:
    """Its end is repeated until the step comes, and was another one at first: what is read cannot show that."""
    play = Play(mutations.RULES)
    play.say("run.failed", run("failed"))
    for _ in range(6):
        play.wait(mutations.RULES.ended_retention_s - 1)
        play.say("run.completed", run("completed"))
    play.created()
    logs = Simulated(published_from(play), tmp_path, accepted=Accepted(rules=(mutations.RULES.digest(),)))
    found = told(logs, "s1")
    assert found.lives[0].read[0] > 0
    assert found.verdict is Verdict.UNVERIFIABLE


def test_of_an_id_that_comes_again_each_life_has_its_own_events(tmp_path: Path) -> None:
    """For the second one is read from before the first: its run had ended."""
    play = Play(mutations.RULES)
    completed(play)
    play.wait(mutations.RULES.ended_retention_s + 1)
    play.say("run.completed", run("completed"))
    play.created()
    found = told(Simulated(published_from(play), tmp_path), "s1")
    assert [(life.verdict, life.read[0]) for life in found.lives] == [("equal", 0)] * 2
    assert [[event.offset for event in life.events] for life in found.lives] == [[0, 1], [4]]
    assert [(life.first_offset, life.last_offset) for life in found.lives] == [(0, 1), (4, 4)]


def test_an_event_of_a_response_is_told_of_the_item_that_it_was_folded_into(tmp_path: Path) -> None:
    """All of them say the same index, or none: a gateway's. What changes no item is told where it says it belongs."""
    play = Play(mutations.RULES)
    begun = [added(0, "m"), added(0, "f", kind="function_call")]
    pieces = [piece(0, "m", "a"), piece(0, "f", "{}", of="function_call_arguments"), piece(None, "m", "b")]
    repeat = at(4, pieces[1])
    for number, event in enumerate((CREATED, *begun, *pieces, repeat, at(6, ENDED))):
        play.put(text({"sequence_number": number} | event), headers=(("runstep-run-id", b"resp_1"),))
    logs = Simulated(published_from(play), tmp_path)
    for step_id, offsets in (("resp_1:0", [0, 1, 3, 5, 6, 7]), ("resp_1:1", [0, 2, 4, 7])):
        (life,) = told(logs, step_id).lives
        assert (life.verdict, [event.offset for event in life.events]) == ("equal", offsets)
        assert all(event.changes for event in life.events if event.offset not in (0, 6)), "each of them changed it"


def test_the_deltas_of_a_response_are_deltas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They do not crowd out what ends their item, and say what they say where the step is not compared."""
    play = Play(mutations.RULES)
    told_events = [CREATED, added(0, "m"), *(piece(0, "m", f"{n:04d}") for n in range(30)), whole(0, "m", "end"), ENDED]
    for number, event in enumerate(told_events):
        play.put(text(at(number, event)), headers=(("runstep-run-id", b"resp_1"),))
    logs = Simulated(published_from(play), tmp_path)
    (all_of,) = told(logs, "resp_1:0").lives
    assert all_of.verdict == Verdict.EQUAL.value
    monkeypatch.setattr(step_timeline, "_ENOUGH", 5)
    monkeypatch.setattr(step_timeline, "_ENOUGH_OBJECTS", 2)
    (life,) = told(logs, "resp_1:0").lives
    assert life.events[5:] == all_of.events[-2:]
    assert [event.event for event in life.events[5:]] == ["item wholes", "response completed"]
    monkeypatch.setattr(step_timeline, "_ENOUGH", 100)
    monkeypatch.setattr(step_timeline, "_COMPARED", 1)
    (life,) = told(logs, "resp_1:0").lives
    (change,) = life.events[9].changes
    assert (change.path, change.what) == ("content[0].text", '+4 characters: "0007"')


class Times(Simulated):
    """Record times that a topic answers, in place of those of the log."""

    began_ms: int | None = None
    found: int | None = None
    asked: int | None = None

    async def timestamp_of(self, partition: int, offset: int) -> int | None:
        return self.began_ms

    async def offset_at(self, partition: int, milliseconds: int) -> int | None:
        self.asked = milliseconds
        return self.found


@pytest.mark.parametrize(
    ("began_ms", "found", "asked", "begin"),
    [
        (None, 7, None, 5),
        (NEED_MS + 3, 7, 3, 7),
        (NEED_MS - 3, 7, 0, 7),
        (NEED_MS, 12, 0, 10),
        (NEED_MS, None, 0, 10),
    ],
    ids=[
        "no record there: from the log's begin",
        "the first record of that time",
        "a time below zero is none: Kafka takes it for a place",
        "its first offset is a hole, and no earlier record is young enough",
        "no record is young enough any more",
    ],
)
def test_explain_begins_so_far_before_the_step_that_nothing_earlier_matters(
    tmp_path: Path, began_ms: int | None, found: int | None, asked: int | None, begin: int
) -> None:
    """Of a log from offset 5 on, for a step that begins at 10."""
    logs = Times(mutations.world(1, runs=1), tmp_path)
    logs.began_ms, logs.found = began_ms, found
    assert asyncio.run(explaining._far_enough_before(logs, 0, 10, 5)) == begin
    assert logs.asked == asked


def test_what_a_further_life_changed_is_told_of_that_life_alone(tmp_path: Path) -> None:
    """The step is forgotten with the very record that opens it again: nothing of the earlier life stands in it."""
    rules = msgspec.structs.replace(mutations.RULES, ended_retention_records=0)
    play = Play(rules)
    completed(play)
    completed(play)
    found = told(Simulated(published_from(play, rules), tmp_path, rules=rules), "s1")
    assert [life.verdict for life in found.lives] == ["equal", "equal"]
    first, again = ([(one.path, one.what) for one in life.events[0].changes] for life in found.lives)
    assert ("status", '"in_progress"') in again
    assert again == first
