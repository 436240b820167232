"""One step's life over simulated logs: never a wrong verdict, whatever other steps, runs and clock marks had a say."""

from __future__ import annotations

import asyncio
import json
import time
from bisect import bisect_left
from collections import Counter
from operator import attrgetter
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

from processor.archives import ArchivedRecord
from processor.audit import explain, step_timeline
from processor.audit import explain as explaining
from processor.audit.explain import Explained, Logs, Marks, SettingsNamed, explain_from
from processor.audit.explain import _Topics as explaining_topics
from processor.audit.judge.published_headers import caused_at, mark_of
from processor.audit.judge.regimes import Accepted
from processor.audit.judge.settled import CLOCK_SKEW_S
from processor.audit.judge.verdicts import NEVER, Published, Unreadable, Verdict
from processor.audit.output_reading import Unread
from processor.audit.published_index import of_source
from processor.audit.replay.task import Task
from processor.audit.replay.task_judge import expected_records
from processor.audit.step_timeline import StepIncarnation
from processor.cli import main as cli
from processor.cli.explain import _show_incarnation
from processor.config.settings import Settings
from processor.core.effects import LogRecord
from processor.core.headers import CLOCK_MARK, REVISION, SOURCE_PARTITION, SOURCE_TOPIC
from processor.core.headers import RULES as RULES_HEADER
from processor.core.partition import PartitionState
from processor.core.rules import Rules
from processor.core.run_steps.step import Step
from processor.core.wire_types import canonical
from processor.errors import UsageError
from processor.kafka.client_config import Connection
from tests.core.scripted_log import Play, call, calls, step, text
from tests.shell import mutations
from tests.trial.honest_worlds import WORLDS, Worker


class Simulated:
    """The logs of a world: the source in archives, what was published in memory. Satisfies `explain.Logs`."""

    def __init__(
        self,
        made: mutations.World,
        folder: Path,
        *,
        marks_kept: bool = True,
        rules: Rules = mutations.RULES,
        accepted: Accepted | None = None,
        earlier_rules: tuple[Rules, ...] = (),
        output: dict[str, Any] | None = None,
    ) -> None:
        """`output`: fields of a `Task`, what the output topics lack and how many partitions they have."""
        self.made, self.marks_kept, self.rules = made, marks_kept, rules
        self.accepted, self.earlier_rules = accepted or Accepted(), earlier_rules
        self.output = output or {}
        self.files = {}
        for p, lines in mutations.archive_lines(made).items():
            self.files[p] = folder / f"explained-{p}.jsonl"
            self.files[p].write_bytes(b"".join(lines))
        self.marks_asked = 0
        self.notes: list[str] = []

    def _read(self, topics: mutations.Topics) -> list[tuple[LogRecord, Published | Unreadable]]:
        found = []
        for (topic, p), log in sorted(topics.items()):
            for record in log if topic != mutations.DEAD else ():
                one = of_source(mutations.SOURCE, mutations.PARTITIONS, topic, p, record)
                if one is not None:
                    found.append((record, one))
        return found

    async def published(self, step_id: str) -> list[Published | Unreadable]:
        return [one for record, one in self._read(self.made.topics) if record.key == step_id.encode()]

    async def marks(self, partition: int) -> Marks:
        self.marks_asked += 1
        read = [one for _, one in self._read(self.made.topics) if isinstance(one, Published)]
        told = tuple(one for one in read if one.source_partition == partition and mark_of(one))
        return Marks(told, True) if self.marks_kept else Marks((), False)

    async def settings_named(self, partition: int, begin: int, end: int) -> tuple[Published, ...]:
        found = SettingsNamed(partition, begin, end)
        for (topic, p), log in sorted(self.made.topics.items()):
            for record in log:
                is_dead = topic == mutations.DEAD
                found.take(of_source(mutations.SOURCE, mutations.PARTITIONS, topic, p, record, dead_letters=is_dead))
        return found.records()

    def unread(self, partition: int) -> Unread:
        kept_from = {}
        for topic, place in self.output.get("shortened", ()):
            is_dead = topic == mutations.DEAD
            read = (
                of_source(mutations.SOURCE, mutations.PARTITIONS, topic, place, record, dead_letters=is_dead)
                for record in self.made.topics[topic, place]
            )
            own = (r for r in read if isinstance(r, Published) and r.source_partition == partition)
            kept_from[topic, place] = next((cause for one in own if (cause := caused_at(one)) is not None), NEVER)
        others = {name: self.output.get(name, ()) for name in ("held", "holes", "broker_times")}
        return Unread(kept_from, **others)

    def _log(self, partition: int) -> list[ArchivedRecord]:
        return [item for item in self.made.logs[partition] if isinstance(item, ArchivedRecord)]

    async def bounds(self, partition: int) -> tuple[int, int]:
        return 0, self.made.ends[partition]

    async def timestamp_of(self, partition: int, offset: int) -> int | None:
        log = self._log(partition)
        at = bisect_left(log, offset, key=attrgetter("offset"))
        return log[at].timestamp if at < len(log) else None

    async def offset_at(self, partition: int, milliseconds: int) -> int | None:
        return next((r.offset for r in self._log(partition) if r.timestamp >= milliseconds), None)

    def task(self, partition: int, begin: int, end: int, *, complete: bool) -> Task:
        task = mutations.task_of(self.made, partition, str(self.files[partition]), begin, end)
        return msgspec.structs.replace(
            task,
            complete=complete,
            rules=self.rules,
            accepted=self.accepted,
            earlier_rules=self.earlier_rules,
            output_partitions=self.output.get("output_partitions", task.output_partitions),
        )


OTHER = msgspec.structs.replace(mutations.RULES, grace_s=7)


def changed_at_rest(seed: int) -> tuple[mutations.World, set[bytes | None]]:
    """Half of a log under other settings, the rest under the audited ones; and the digests that steps name."""
    worker = Worker(seed, rules=OTHER)
    worker.work(0.5)
    worker.restart(mutations.RULES, from_checkpoints=True)
    worker.work()
    steps = (r for (topic, _), log in worker.made.topics.items() if topic != mutations.DEAD for r in log)
    return worker.made, {dict(record.headers).get(RULES_HEADER) for record in steps}


def told(logs: Logs, step_id: str) -> Explained:
    return asyncio.run(explain_from(logs, step_id))


def step_ids(topics: mutations.Topics) -> list[str]:
    keys = {record.key for (topic, _), log in topics.items() if topic != mutations.DEAD for record in log if record.key}
    return sorted(key.decode("utf-8", "backslashreplace") for key in keys)


@pytest.mark.parametrize("seed", range(4))
def test_what_was_rightly_published_is_never_called_wrong(tmp_path: Path, seed: int) -> None:
    made = mutations.world(seed, runs=20)
    logs = Simulated(made, tmp_path)
    verdicts = Counter(told(logs, step_id).verdict for step_id in step_ids(made.topics))
    assert verdicts.keys() <= {Verdict.EQUAL, Verdict.UNVERIFIABLE}
    assert verdicts[Verdict.EQUAL] > 0.5 * verdicts.total(), verdicts


def test_a_step_on_two_partitions_of_the_source_says_why_it_has_two_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two kinds of producer, one run: each partition publishes an end of its own."""
    logs = Simulated(mutations.world(1, runs=5), tmp_path)
    step_id = step_ids(logs.made.topics)[0]
    (one,) = [found for found in asyncio.run(logs.published(step_id)) if isinstance(found, Published)][:1]
    assert told(logs, step_id).notes == ()

    async def published(_: str) -> list[Published]:
        return [one, msgspec.structs.replace(one, source_partition=one.source_partition + 1)]

    async def life(*_: object) -> StepIncarnation:
        return lived

    (lived,) = told(logs, step_id).lives[:1]
    monkeypatch.setattr(logs, "published", published)
    monkeypatch.setattr(explain, "_life", life)
    (note,) = told(logs, step_id).notes
    assert f"({one.source_partition}, {one.source_partition + 1})" in note
    assert "docs/producers.md" in note


@pytest.mark.parametrize("seed", range(4))
def test_without_the_marks_of_other_steps_it_says_so_and_accuses_nobody(tmp_path: Path, seed: int) -> None:
    made = mutations.world(seed, runs=20)
    logs = Simulated(made, tmp_path, marks_kept=False)
    for step_id in step_ids(made.topics):
        found = told(logs, step_id)
        assert found.verdict in (Verdict.EQUAL, Verdict.UNVERIFIABLE)
        for life in found.lives:
            assert life.verdict == Verdict.EQUAL or life.notes or any(one.why for one in life.issued)


@pytest.mark.parametrize(("kind", "seed"), [("broker_times", 0), ("shared_outputs", 7), ("partitions_added", 1)])
def test_what_happens_to_the_output_accuses_no_one(tmp_path: Path, kind: str, seed: int) -> None:
    """Times that are the broker's, a transaction that holds back the rest, another number of partitions."""
    hard = WORLDS[kind](seed)
    held = {topic for topic, _ in hard.options.get("held", ())}
    marks_kept = mutations.OUTCOMES["expired"] not in held
    logs = Simulated(hard.made, tmp_path, output=hard.options, marks_kept=marks_kept)
    verdicts = Counter(told(logs, step_id).verdict for step_id in step_ids(hard.made.topics))
    assert verdicts.keys() == {Verdict.EQUAL, Verdict.UNVERIFIABLE}, verdicts


@pytest.mark.parametrize("seed", range(3))
def test_what_was_changed_is_never_called_equal(tmp_path: Path, seed: int) -> None:
    """One byte, header, field or clock mark of a record that still stands under the step's key."""
    made, rng = mutations.world(seed, runs=20), Random(seed)
    places = [
        (place, at)
        for place, log in sorted(made.topics.items())
        if place[0] != mutations.DEAD
        for at in range(len(log))
    ]
    tried = 0
    while tried < 25:
        place, at = rng.choice(places)
        record = made.topics[place][at]
        changed = mutations.CHANGES[rng.choice(sorted(mutations.CHANGES))](record, rng)
        source = dict(changed.headers).get(SOURCE_TOPIC) if changed is not None else None
        if changed is None or changed == record or changed.key != record.key or source not in (None, b"events"):
            continue  # not told of this step, or of another source: nothing that is looked at
        topics = {**made.topics, place: [*made.topics[place][:at], changed, *made.topics[place][at + 1 :]]}
        mutated = mutations.World(made.logs, made.ends, topics)
        if mutations.could_be(made, topics):
            continue
        tried += 1
        found = told(Simulated(mutated, tmp_path), (record.key or b"").decode())
        assert found.verdict is not Verdict.EQUAL, (record.headers, changed.headers)


@pytest.mark.parametrize(("kind", "seed"), [("settings_changed", 4), ("retention_changed", 4)])
def test_a_change_of_settings_accuses_no_one(tmp_path: Path, kind: str, seed: int) -> None:
    """Of some steps other settings set the deadline, or for how long they or their runs were remembered."""
    hard = WORLDS[kind](seed)
    logs = Simulated(hard.made, tmp_path, rules=hard.options.get("rules", mutations.RULES))
    verdicts = Counter(told(logs, step_id).verdict for step_id in sorted({*step_ids(hard.made.topics)}))
    assert verdicts.keys() == {Verdict.EQUAL, Verdict.UNVERIFIABLE}, verdicts


@pytest.mark.parametrize("seed", range(6))
def test_whatever_settings_the_auditor_names_no_one_is_accused(tmp_path: Path, seed: int) -> None:
    made, digests = changed_at_rest(seed)
    counted = {}
    for name, options in {
        "nothing": {},
        "accepted": {"accepted": Accepted(rules=(OTHER.digest(),))},
        "earlier": {"earlier_rules": (OTHER,)},
    }.items():
        logs = Simulated(made, tmp_path, **options)  # type: ignore[arg-type]
        counted[name] = Counter(told(logs, step_id).verdict for step_id in step_ids(made.topics))
        assert Verdict.DIFFERENT not in counted[name], name
    assert counted["accepted"] == counted["nothing"]
    assert counted["earlier"][Verdict.EQUAL] > counted["nothing"][Verdict.EQUAL], "they are judged by their own"
    assert len(digests) == 2


def test_a_record_that_names_settings_of_another_time_is_not_proven_by_them(tmp_path: Path) -> None:
    """Anybody may write the name of settings that are known: between records of the audited ones they were not in
    force, and what they imply proves nothing."""
    made = mutations.world(3, runs=20)
    own, other = mutations.RULES.digest().encode(), OTHER.digest().encode()
    tried = 0
    for place, log in sorted(made.topics.items()):
        for at, record in enumerate(log):
            if place[0] == mutations.DEAD or dict(record.headers).get(RULES_HEADER) != own or at in (0, len(log) - 1):
                continue
            headers = tuple((n, other if n == RULES_HEADER else c) for n, c in record.headers)
            forged = [*log[:at], msgspec.structs.replace(record, headers=headers), *log[at + 1 :]]
            world, step_id = mutations.World(made.logs, made.ends, {**made.topics, place: forged}), record.key or b""

            def verdict(world: mutations.World = world, step_id: bytes = step_id, **options: Any) -> Verdict:
                return told(Simulated(world, tmp_path, **options), step_id.decode()).verdict

            assert verdict(earlier_rules=(OTHER,)) is Verdict.UNVERIFIABLE
            assert verdict(accepted=Accepted(rules=(OTHER.digest(),))) is Verdict.UNVERIFIABLE
            assert verdict(accepted=Accepted(rules=(mutations.RULES.digest(),))) is Verdict.DIFFERENT
            assert verdict() is not Verdict.EQUAL
            tried += 1
            break
    assert tried > 3


def test_settings_that_remembered_for_longer_are_read_from_farther_before(tmp_path: Path) -> None:
    made = mutations.world(3, runs=40)
    last = max(r.offset for r in made.logs[0] if isinstance(r, ArchivedRecord))
    longer = msgspec.structs.replace(mutations.RULES, ended_retention_s=1_000_000)

    def begin(*earlier: Rules) -> int:
        logs = Simulated(made, tmp_path, earlier_rules=earlier)
        return asyncio.run(explaining._far_enough_before(logs, 0, last, 0))

    assert begin() == begin(OTHER) > begin(OTHER, longer)


def test_the_command_names_other_settings_as_a_replay_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []

    def topics(*arguments: Any, **_: Any) -> Simulated:
        given.extend(arguments)
        return Simulated(made, tmp_path)

    made, earlier = mutations.world(1, runs=6), tmp_path / "earlier.toml"
    earlier.write_text("[steps]\ngrace_s = 7\n")
    monkeypatch.setattr(explaining, "_Topics", topics)
    options = ["--accept-rules", "d1", "--accept-rules", "d2", "--accept-fold", "1", "--earlier-config", str(earlier)]
    cli._run(["explain", step_ids(made.topics)[0], *options])
    _, _, others = given
    assert others.accepted == Accepted((1,), ("d1", "d2"))
    assert [rules.grace_s for rules in others.earlier_rules] == [7]
    task = explaining_topics(Settings(), lambda: Connection.build("127.0.0.1:1"), others, all_partitions=False).task(
        0, 0, 1, complete=True
    )
    assert (task.accepted, task.earlier_rules) == (others.accepted, others.earlier_rules)


def test_a_clock_mark_from_the_future_was_never_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A forged expiry of a step that is open: with its mark believed, each of its bytes is right."""
    made = mutations.world(1, runs=20)
    marked = [(mark, r.key) for log in made.topics.values() for r in log if (mark := dict(r.headers).get(CLOCK_MARK))]
    mark, key = marked[0]
    step_id = (key or b"").decode()
    assert told(Simulated(made, tmp_path), step_id).verdict is Verdict.UNVERIFIABLE
    due_s = int(mark.partition(b"@")[0]) / 1000
    monkeypatch.setattr("time.time", lambda: due_s - CLOCK_SKEW_S - 1)
    assert told(Simulated(made, tmp_path), step_id).verdict is Verdict.DIFFERENT


def test_the_command_prints_what_the_guide_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every name of the JSON, in the guide's words, and the exit code of the verdict."""
    made = mutations.world(1, runs=6)
    record = next(r for log in made.topics.values() for r in log if REVISION in dict(r.headers))
    step_id = (record.key or b"").decode()
    monkeypatch.setattr(explaining, "_Topics", lambda *_, **__: Simulated(made, tmp_path))
    code = cli._run(["explain", step_id, "--json"])
    printed = json.loads(capsys.readouterr().out)
    assert code == {"equal": 0, "different": 3, "unverifiable": 4}[printed["verdict"]]
    life = printed["lives"][0]
    assert printed.keys() == {"verdict", "step_id", "lives", "strays", "notes"}
    assert life.keys() == {
        "step_id", "run_id", "thread_id", "status", "topic", "partition", "first_offset", "last_offset", "read",
        "events", "issued", "verdict", "notes",
    }  # fmt: skip
    event, issued = life["events"][0], life["issued"][0]
    assert event.keys() == {"offset", "timestamp", "event", "before", "after", "refused", "changes"}
    assert event["changes"][0].keys() == {"path", "what"}
    assert issued.keys() == {"revision", "status", "place", "timestamp", "verdict", "why", "differences"}
    guide = (Path(__file__).parents[2] / "docs" / "auditors-guide.md").read_text("utf-8")
    for part in (printed, life, event, issued, event["changes"][0]):
        for name in part:
            assert f"`{name}`" in guide, name
    cli._run(["explain", step_id])
    assert step_id in capsys.readouterr().out


_HOSTILE = "\x1b[2J\x1b]0;owned\x07\u202e\n\udc80[red]"


def _hostile(value: object) -> object:
    """The same with a control sequence behind every text."""
    if isinstance(value, dict):
        return {name: _hostile(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_hostile(one) for one in value]
    return value + _HOSTILE if isinstance(value, str) else value


def test_no_field_of_a_step_reaches_the_terminal_as_it_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ids, keys and values are what any producer wrote: a control sequence in one changed the reader's screen."""
    made = mutations.world(1, runs=6)
    record = next(r for log in made.topics.values() for r in log if REVISION in dict(r.headers))
    monkeypatch.setattr(explaining, "_Topics", lambda *_, **__: Simulated(made, tmp_path))
    cli._run(["explain", (record.key or b"").decode(), "--json"])
    found = json.loads(capsys.readouterr().out)
    for life in found["lives"]:
        _show_incarnation(msgspec.convert(_hostile(life), StepIncarnation))
    printed = capsys.readouterr().out
    assert "owned" in printed
    assert all(c.isprintable() or c == "\n" for c in printed)


def test_a_step_that_nobody_published_is_a_matter_of_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing was published"):
        told(Simulated(mutations.world(1, runs=2), tmp_path), "step_nobody")


def test_a_record_without_papers_under_the_steps_key_is_a_stray(tmp_path: Path) -> None:
    made = mutations.world(1, runs=4)
    step_id = step_ids(made.topics)[0]
    place, log = next((p, log) for p, log in made.topics.items() if any(r.key == step_id.encode() for r in log))
    stray = LogRecord(log[-1].offset + 1, 0, step_id.encode(), b"{}")
    beyond = msgspec.structs.replace(stray, offset=stray.offset + 1, headers=((SOURCE_TOPIC, b"events"),))
    made.topics[place] = [*log, stray, beyond]
    found = told(Simulated(made, tmp_path), step_id)
    assert {life.verdict for life in found.lives} == {"equal"}
    assert found.verdict is Verdict.DIFFERENT
    assert [one.why for one in found.strays] == [f"no {SOURCE_TOPIC}", f"no {SOURCE_PARTITION}"]


def long_life(folder: Path, deltas: int) -> Simulated:
    """One step with so many deltas of 10 characters, completed, and published as the log implies it."""
    rules = msgspec.structs.replace(mutations.RULES, max_step_bytes=1 << 22, max_record_bytes=1 << 22)
    play = Play(rules)
    play.put(text({"event": "thread.run.step.created", "data": step()}))
    for number in range(deltas):
        said = calls(call(0, f"{number:010d}", id="c1")) if number == 0 else calls(call(0, f"{number:010d}"))
        play.put(text({"event": "thread.run.step.delta", "data": said}))
    play.put(text({"event": "thread.run.step.completed", "data": step("completed", completed_at=1_001)}))
    log = [
        ArchivedRecord(mutations.SOURCE, 0, r.offset, r.timestamp, r.key, r.value, tuple(r.headers)) for r in play.log
    ]
    made = mutations.World({0: [*log]}, {0: len(log)}, {})
    state = PartitionState(mutations.SOURCE, 0, rules)
    places = expected_records(msgspec.structs.replace(mutations.task_of(made, 0), rules=rules))
    for effect in state.apply(log):
        placed = places.whole(effect)
        if placed is not None:
            published = LogRecord(0, placed.timestamp, placed.key, placed.value, tuple(placed.headers))
            made.topics[placed.topic, placed.partition or 0] = [published]

    class Long(Simulated):
        def task(self, partition: int, begin: int, end: int, *, complete: bool) -> Task:
            return msgspec.structs.replace(super().task(partition, begin, end, complete=complete), rules=rules)

    return Long(made, folder)


def test_events_that_are_not_shown_are_counted_and_their_offsets_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs = long_life(tmp_path, 20)
    (whole,) = told(logs, "s1").lives
    assert (whole.verdict, len(whole.events), whole.notes) == ("equal", 22, ())
    monkeypatch.setattr(step_timeline, "_ENOUGH", 5)
    (life,) = told(logs, "s1").lives
    assert life.events == (*whole.events[:5], whole.events[-1]), "the end is shown, whatever stands before it"
    assert life.notes == ("16 more events of the step, at offsets 5 to 20, were read and folded, and are not shown.",)
    assert msgspec.structs.replace(life, events=whole.events, notes=()) == whole, "the rest is the same"


def test_a_step_too_large_to_be_compared_at_each_delta_is_told_by_what_deltas_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Comparing costs the size of the step: the sum has a bound, or time would grow as the square."""
    logs = long_life(tmp_path, 200)
    (whole,) = told(logs, "s1").lives
    monkeypatch.setattr(step_timeline, "_COMPARED", 20_000)
    taken = 0

    def counted(self: Step, object_type: str = "") -> dict[str, Any]:
        nonlocal taken
        taken += 1
        return snapshot(self, object_type)

    snapshot = Step.snapshot
    monkeypatch.setattr(Step, "snapshot", counted)
    (life,) = told(logs, "s1").lives
    assert taken < 100
    assert life.verdict == "equal"
    assert [(e.offset, e.event, e.before, e.after) for e in life.events] == [
        (e.offset, e.event, e.before, e.after) for e in whole.events
    ]
    (note,) = life.notes
    assert note.startswith("From offset ")
    first = int(note.split()[2])
    assert life.events[:first] == whole.events[:first]
    said = [change.what for change in life.events[first].changes]
    assert f'"{first - 1:010d}"' in said
    assert life.events[-1] == whole.events[-1], "the end changes what it changes, and not what deltas before it did"


def test_the_cost_of_an_event_does_not_grow_by_encoding_the_step_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = 0

    def counted(value: object) -> bytes:
        nonlocal encoded
        found = canonical(value)
        encoded += len(found)
        return found

    monkeypatch.setattr(step_timeline, "canonical", counted)
    costs = []
    for deltas in (100, 400):
        encoded = 0
        assert told(long_life(tmp_path, deltas), "s1").verdict is Verdict.EQUAL
        costs.append(encoded)
    assert costs[1] < 5 * costs[0], "four times the deltas, about four times the bytes"


def test_the_time_that_a_long_step_takes_grows_with_its_deltas(tmp_path: Path) -> None:
    """It grew with their square: 30 s of CPU for a hundred thousand, where the replay of all took 1.6 s."""
    taken_s = []
    for deltas in (25_000, 100_000):
        own = tmp_path / str(deltas)
        own.mkdir()
        logs = long_life(own, deltas)
        began = time.process_time()
        found = told(logs, "s1")
        taken_s.append(time.process_time() - began)
        assert found.verdict is Verdict.EQUAL
        (life,) = found.lives
        assert life.events[-1].after == "completed"
    assert taken_s[1] < 8 * taken_s[0], "four times the deltas, not sixteen times the CPU"


class Began(Simulated):
    """The same logs where retention has taken the beginning of the source."""

    begin = 0

    async def bounds(self, partition: int) -> tuple[int, int]:
        return self.begin, self.made.ends[partition]


def test_a_step_whose_beginning_is_gone_from_the_log_is_not_decided(tmp_path: Path) -> None:
    logs = Began(mutations.world(1), tmp_path)
    equal = (told(logs, step_id) for step_id in step_ids(logs.made.topics))
    found = next(one for one in equal if one.verdict is Verdict.EQUAL and len(one.lives) == 1)
    (life,) = found.lives
    logs.begin = life.first_offset + 1
    again = told(logs, found.step_id)
    assert again.verdict is Verdict.UNVERIFIABLE
    assert any(f"The log begins at offset {logs.begin}" in note for note in again.lives[0].notes)
