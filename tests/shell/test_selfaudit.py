"""The sampled self-audit: right output is never accused, a broken rule is found, and it keeps to what it may spend."""

from __future__ import annotations

import asyncio
import gc
import io
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.audit.judge.published_headers import began_at, caused_at, mark_of, read_published
from processor.audit.judge.verdicts import Finding, Published, Verdict
from processor.audit.selfaudit import selfaudit
from processor.audit.selfaudit.budget import TokenBucket, run_metered
from processor.audit.selfaudit.partition_history import KnownRange, PartitionHistory
from processor.audit.selfaudit.recheck import Recheck, slices
from processor.audit.selfaudit.selfaudit import SelfAudit
from processor.config.settings import SelfAudit as SelfAuditSettings
from processor.config.settings import Settings
from processor.core import merge
from processor.core.effects import Checkpoint, Effect, LogRecord, Publish
from processor.core.partition import PartitionState
from processor.core.rules import Rules
from processor.errors import BrokerUnavailable
from processor.kafka.client_config import Connection
from processor.kafka.errors import OffsetLost
from processor.kafka.output_records import Outputs
from processor.kafka.records import OutRecord
from processor.simulate import Parameters, Simulation
from processor.telemetry.happenings import Happening
from processor.telemetry.self_audit_happenings import (
    AuditMismatch,
    AuditSkipped,
    AuditStatus,
    AuditUndecided,
    SelfAuditTroubled,
    StepVerified,
)
from processor.telemetry.telemetry import Telemetry
from tests.core.responses_strategies import response_logs, usual_streams
from tests.core.scripted_log import call, calls, delta, run, step, text
from tests.core.strategies import RULES, logs
from tests.core.test_restart import Topics
from tests.shell import mutations

TOPIC = Settings().source.topic
OUTPUTS = Outputs({status: f"out.{status}" for status in ("completed", "failed", "cancelled", "expired")}, "dead", "")


class Owner:
    """A worker's fold of partition 3, with a history as its self-audit keeps it, and what it has published since."""

    def __init__(self, state: PartitionState) -> None:
        self.state = state
        self.history = PartitionHistory(3, state, 0.0)
        self.history.passed(state)
        self.published: list[Published] = []

    def apply(self, records: Sequence[LogRecord]) -> list[Effect]:
        effects = self.state.apply(records)
        self.history.passed(self.state)
        self._publish(effects)
        return effects

    def mark(self) -> list[Effect]:
        """One clock mark, where one can be set."""
        due = self.state.next_due_ms()
        if due is None or due < self.state.stream_time:
            return []
        self.history.marked(self.state.next_offset, due)
        effects = self.state.advance(due)
        self._publish(effects)
        return effects

    def _publish(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Publish):
                (record,) = OUTPUTS.of(3, (effect,))
                stands = LogRecord(len(self.published), record.timestamp, record.key, record.value, (*record.headers,))
                found = read_published(record.topic, 0, stands, dead_letters=False)
                assert isinstance(found, Published)
                self.published.append(found)


def judged(owner: Owner, published: Published, log: Sequence[LogRecord]) -> Finding:
    """As the task judges it, the log in memory."""
    first, end = span(published)
    for known_range in owner.history.ranges(first, end, mark_of(published)):
        finding = folded(owner, published, known_range, log)
        if finding.verdict is not Verdict.UNVERIFIABLE:
            break
    return finding


def decided(owner: Owner, published: Published, log: Sequence[LogRecord]) -> Iterator[Finding]:
    """From everywhere that a decision may be tried from, even where it can hardly be had."""
    first, end = span(published)
    for sample in owner.history.samples:
        if sample.offset <= first:
            yield folded(owner, published, owner.history.decisive(sample, end, mark_of(published)), log)


def span(published: Published) -> tuple[int, int]:
    first, cause = began_at(published), caused_at(published)
    assert first is not None
    assert cause is not None
    return first, cause + 1


def folded(owner: Owner, published: Published, known_range: KnownRange, log: Sequence[LogRecord]) -> Finding:
    recheck = Recheck(published, known_range, owner.state.topic, owner.state.rules, OUTPUTS)
    records = [record for record in log if known_range.begin <= record.offset < known_range.end]
    for at in range(0, len(records), 7):
        recheck.take(records[at : at + 7])
    return recheck.judged()


def accused(owner: Owner, log: Sequence[LogRecord]) -> list[Finding]:
    found: list[Finding] = []
    for published in owner.published:
        found += [judged(owner, published, log), *decided(owner, published, log)]
    return [f for f in found if f.verdict not in (Verdict.EQUAL, Verdict.UNVERIFIABLE)]


PLAIN = Rules(grace_s=5, max_age_s=100, ended_retention_s=20)
SHORT = [
    Rules(grace_s=5, max_age_s=100, ended_retention_s=retention_s, ended_retention_records=records, max_open_steps=room)
    for retention_s, records, room in ((0, 1_000, 100), (1, 1_000, 3), (5, 10, 4), (20, 1_000, 4))
]


@given(st.one_of(logs(max_size=120), response_logs(), usual_streams()), st.sampled_from([RULES, *SHORT]), st.data())
def test_what_is_right_is_never_accused(log: list[LogRecord], rules: Rules, data: st.DataObject) -> None:
    """Whatever the log, wherever the owner took over, perhaps under other settings, however it was cut, clock marks and
    samples included."""
    topics = Topics(log[0].offset if log else 0)
    owner = Owner(topics.restore(rules))
    at = 0
    while at < len(log):
        size = data.draw(st.integers(1, 12))
        effects = owner.apply(log[at : at + size])
        at += size
        for _ in range(data.draw(st.sampled_from([0, 0, 0, 0, 1, 2]))):
            effects += owner.mark()
        if data.draw(st.integers(0, 4)) == 0:
            effects += owner.state.checkpoint(data.draw(st.integers(0, owner.state.next_offset + 1)))
        topics.commit(owner.state, effects)
        if data.draw(st.integers(0, 9)) == 0:
            assert not accused(owner, log)
            rules = data.draw(st.sampled_from([rules, rules, RULES, *SHORT]))
            owner = _takes_over(topics, rules, log)
    assert not accused(owner, log)


def _takes_over(topics: Topics, rules: Rules, log: Sequence[LogRecord]) -> Owner:
    """The next life: its history begins where it went live."""
    state = topics.restore(rules)
    state.apply([record for record in log if state.next_offset <= record.offset < state.live_from])
    state.moved_to(topics.committed[0])
    return Owner(state)


@pytest.mark.parametrize("handovers", [False, True])
@pytest.mark.parametrize("responses", [0.0, 0.6])
def test_what_a_service_emits_is_verified_and_hardly_any_of_it_left_undecided(
    handovers: bool, responses: float
) -> None:
    rules, rng = mutations.RULES, Random(11)
    parameters = Parameters(
        runs=40, seed=11, deltas=4, text_bytes=8, garbage=0.04, illegal=0.1, hung=0.1, interrupted=0.2, midstream=0.02,
        late_output=0.6, chatter=1, responses=responses,
    )  # fmt: skip
    log = [
        LogRecord(offset, produced.timestamp, produced.key, produced.value, tuple(produced.headers))
        for offset, produced in enumerate(Simulation(parameters))
    ]
    owner = Owner(PartitionState(TOPIC, 3, rules))
    said: Counter[Verdict] = Counter()
    for at in range(0, len(log), 50):
        owner.apply(log[at : at + 50])
        if rng.random() < 0.05:
            owner.mark()
        if handovers and at % 500 == 450:
            said.update(judged(owner, published, log).verdict for published in owner.published)
            owner = Owner(owner.state)
    said.update(judged(owner, published, log).verdict for published in owner.published)
    assert set(said) <= {Verdict.EQUAL, Verdict.UNVERIFIABLE}
    assert said[Verdict.EQUAL] > 0.9 * said.total() > 50, said


@given(logs(max_size=120))
def test_whatever_a_broken_rule_changes_is_accused_and_nothing_else(log: list[LogRecord]) -> None:
    owner, honest = Owner(PartitionState(TOPIC, 3, RULES)), Owner(PartitionState(TOPIC, 3, RULES))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(merge, "_set_once", broken)
        for record in log:
            owner.apply([record])
    for record in log:
        honest.apply([record])
    right = {place(one): one for one in honest.published}
    for one in owner.published:
        same = right.get(place(one))
        is_right = same is not None and msgspec.structs.replace(same, offset=one.offset) == one
        finding, *_ = decided(owner, one, log)
        assert (finding.verdict is Verdict.EQUAL) == is_right
        assert finding.verdict is not Verdict.UNVERIFIABLE, "from the log's beginning all is known"


def place(published: Published) -> tuple[tuple[str, str], int | None, int | None]:
    return published.identity, began_at(published), caused_at(published)


def broken(tree: dict[str, Any], key: str, old: Any, value: Any, notes: Any) -> None:
    """M3 without its second half: that a value was changed, it does not say."""
    tree[key] = value


NAMED_BEFORE = "it is named before its first offset, where it may have been open"
ITEM: dict[str, Any] = {"output_index": 0, "item": {"type": "message"}}


# --- each doubt, by the log that asks for it --------------------------------------------------------------------------


class Script:
    """A log said line by line to an owner; times in seconds."""

    def __init__(self, rules: Rules = PLAIN) -> None:
        self.owner = Owner(PartitionState(TOPIC, 3, rules))
        self.log: list[LogRecord] = []

    def say(self, at: float, name: str, data: Any) -> None:
        value = text({"event": f"thread.run.{name}", "data": data})
        record = LogRecord(len(self.log), round(at * 1000), b"k", value)
        self.log.append(record)
        self.owner.apply([record])

    def respond(self, at: float, number: int, kind: str, **fields: Any) -> None:
        """An event of response `resp`."""
        value = text({"type": f"response.{kind}", "sequence_number": number, **fields})
        record = LogRecord(len(self.log), round(at * 1000), b"resp", value)
        self.log.append(record)
        self.owner.apply([record])

    def whole(self, at: float, step_id: str, **fields: Any) -> None:
        self.say(at, "step.created", step(step_id=step_id, **fields))
        self.say(at, "step.completed", step("completed", step_id=step_id, **fields))

    def taken_over(self) -> None:
        """From here on there is a history; what was before is remembered and not known to it."""
        self.owner = Owner(self.owner.state)

    def decided(self, step_id: str) -> tuple[Verdict, str]:
        """What is said of the last revision of a step by a fold from where the history begins."""
        published = [one for one in self.owner.published if one.identity[0] == step_id][-1]
        finding, *_ = decided(self.owner, published, self.log)
        return finding.verdict, finding.why

    def verdict(self, step_id: str) -> Verdict:
        published = [one for one in self.owner.published if one.identity[0] == step_id][-1]
        return judged(self.owner, published, self.log).verdict


def test_a_run_that_may_have_ended_before_leaves_a_doubt() -> None:
    """The owner keeps the first end of a run as long as the run is named again; a later fold hears the later end."""
    script = Script()
    script.say(1000, "failed", run("failed"))
    script.taken_over()
    script.say(1015, "completed", run("completed"))
    script.say(1030, "completed", run("completed"))
    script.say(1045, "completed", run("completed"))
    script.say(1060, "step.created", step(step_id="late"))
    assert script.decided("late") == (Verdict.UNVERIFIABLE, "its run may have ended before the range")


def test_a_step_that_may_have_been_open_before_leaves_a_doubt() -> None:
    """Its earlier life began before the history and ended at a deadline that only its beginning tells."""
    script = Script()
    script.say(1000, "step.created", step(step_id="twice"))
    script.taken_over()
    script.say(1050, "step.delta", calls(call(0, "x"), step_id="twice"))
    script.whole(1106, "other")
    script.whole(1130, "twice")
    assert script.decided("twice") == (Verdict.UNVERIFIABLE, NAMED_BEFORE)
    assert script.verdict("twice") is Verdict.EQUAL, "its own range gives it"


def test_a_response_that_may_have_had_other_items_before_leaves_a_doubt() -> None:
    """It had ended before the history and was remembered. In the fold a late event begins its item anew, and the
    events of its next life belong to that one; to the worker they are of two items, whose types differ."""
    script = ended_before()
    script.respond(1015, 7, "output_item.added", **ITEM)
    script.whole(1044, "other")
    script.respond(1045, 8, "apply_patch_call_operation_diff.delta", output_index=0, delta="x")
    script.respond(1045, 9, "output_item.done", **ITEM)
    assert script.decided("resp:1") == (Verdict.UNVERIFIABLE, NAMED_BEFORE)
    assert script.verdict("resp:1") is Verdict.UNVERIFIABLE, "it joined midstream: its own range does not prove it"


def test_a_response_that_may_have_counted_on_before_leaves_a_doubt() -> None:
    """Its numbers have come before in the fold, where it has no item yet: there its next life is one of repeats."""
    script = ended_before()
    script.respond(1015, 7, "in_progress", response={"id": "resp"})
    script.respond(1015, 8, "in_progress", response={"id": "resp"})
    script.whole(1044, "other")
    script.respond(1045, 7, "output_text.delta", delta="x")
    script.respond(1045, 9, "completed", response={"id": "resp", "output": []})
    assert script.decided("resp:0") == (Verdict.UNVERIFIABLE, NAMED_BEFORE)
    assert script.verdict("resp:0") is Verdict.UNVERIFIABLE


def ended_before() -> Script:
    """A response has ended, and is remembered where the history begins."""
    script = Script()
    script.respond(1000, 0, "created", response={"id": "resp"})
    script.respond(1000, 1, "completed", response={"id": "resp", "output": []})
    script.taken_over()
    return script


def test_a_partition_that_may_not_have_been_full_leaves_a_doubt() -> None:
    script = Script(msgspec.structs.replace(PLAIN, max_open_steps=2))
    script.whole(1000, "p1")
    script.whole(1000, "p2")
    script.taken_over()
    script.say(1010, "step.created", step(step_id="p1"))
    script.say(1010, "step.created", step(step_id="p2"))
    script.whole(1060, "s1")
    assert script.decided("s1") == (Verdict.UNVERIFIABLE, "how many steps were open is not known")


# --- a broken rule ----------------------------------------------------------------------------------------------------


def renamed(script: Script, at: float, step_id: str) -> None:
    """A step whose tool call is named twice, folded by an owner with a broken rule."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(merge, "_set_once", broken)
        script.say(at, "step.created", step(step_id=step_id))
        for name in ("first", "second"):
            script.say(at, "step.delta", delta(step_id, type="tool_calls", tool_calls=[MCP | {"name": name}]))
        script.say(at, "step.completed", step("completed", step_id=step_id))


MCP = {"index": 0, "type": "mcp", "id": "c"}


def test_a_broken_rule_is_found_where_nothing_came_before() -> None:
    script = Script()
    renamed(script, 1000, "s1")
    script.whole(1000, "s2")
    assert script.verdict("s1") is Verdict.DIFFERENT
    assert script.verdict("s2") is Verdict.EQUAL


def test_a_broken_rule_is_found_in_mid_log_once_what_came_before_is_forgotten() -> None:
    script = Script()
    script.whole(1000, "s0")
    script.taken_over()
    renamed(script, 1001, "soon")
    assert script.verdict("soon") is Verdict.UNVERIFIABLE, "the history has only begun"
    for at in range(1002, 1060, 5):
        script.whole(at, f"between{at}")
    renamed(script, 1060, "later")
    assert script.verdict("later") is Verdict.DIFFERENT
    assert script.verdict("between1057") is Verdict.EQUAL


def test_a_step_that_joined_midstream_is_right_only_where_nothing_came_before() -> None:
    script = Script()
    script.say(1000, "step.completed", step("completed", step_id="s1"))
    assert script.verdict("s1") is Verdict.EQUAL
    script.taken_over()
    script.say(1001, "step.completed", step("completed", step_id="s2"))
    assert script.verdict("s2") is Verdict.UNVERIFIABLE


def test_offsets_set_back_by_hand_bring_memories_from_later_and_nothing_is_decided_until_then() -> None:
    """A checkpoint of a run that ended later has a say in what is read again: until stream time has come to there."""
    before = Script()
    before.say(1100, "failed", run("failed"))
    before.say(1100, "step.created", step(step_id="hung", run_id=None, expires_at=1_105))
    due = before.owner.state.next_due_ms()
    assert due is not None
    script = Script()
    marked = before.owner.state.advance(due)
    script.owner.state.load((e.key, e.value) for e in marked if isinstance(e, Checkpoint) and e.value is not None)
    script.taken_over()
    script.whole(1050, "s0", run_id=None)
    assert not script.owner.history.samples
    script.say(1051, "step.created", step(step_id="again"))
    assert script.owner.published[-1].identity[0] == "again", "its run is remembered"
    assert script.verdict("again") is Verdict.UNVERIFIABLE
    script.whole(due / 1000, "s1", run_id=None)
    assert script.owner.history.samples


def test_a_history_is_bounded_and_decides_nothing_before_the_marks_that_it_dropped() -> None:
    script = Script(msgspec.structs.replace(PLAIN, max_age_s=1, ended_retention_s=0))
    script.whole(1000, "s0")
    history = script.owner.history
    for number in range(5_000):
        history.passed(PartitionState(TOPIC, 3, PLAIN, next_offset=2 + number, stream_time=1_000_000 + 2_000 * number))
    assert len(history.samples) == 1_024
    oldest = history.samples[0].offset
    for number in range(4_096 + 1):
        history.marked(oldest + 10 + number, 20_000_000 + number)
    assert history.samples[0].offset == oldest + 10


# --- what it may spend ------------------------------------------------------------------------------------------------


class Clock:
    """Seconds, moved by hand or by who waits for them."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)


def test_an_allowance_is_saved_up_to_its_most_and_may_be_owed() -> None:
    clock = Clock()
    allowance = TokenBucket(2.0, 3.0, clock)
    clock.now = 100.0
    assert allowance.left() == 3.0
    allowance.take(4.0)
    assert allowance.owed_s() == 0.5
    clock.now = 100.25
    assert allowance.owed_s() == 0.25
    clock.now = 101.0
    assert allowance.left() == 1.0


async def test_the_meter_counts_the_own_turns_alone_and_lets_a_cancellation_through() -> None:
    clock, spent = Clock(), list[float]()
    others, ended = asyncio.Event(), asyncio.Event()

    async def work() -> str:
        clock.now += 1
        await others.wait()
        clock.now += 2
        try:
            await asyncio.Event().wait()
        finally:
            clock.now += 4
            ended.set()
        return "never"

    task = asyncio.create_task(_run(run_metered(work(), clock, spent.append)))
    await asyncio.sleep(0)
    clock.now += 100
    others.set()
    for _ in range(3):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
    assert ended.is_set()
    assert sum(spent) == 7


async def _run(work: Any) -> Any:
    return await work


async def test_the_meter_returns_what_the_work_returns_and_raises_what_it_raises() -> None:
    async def fine() -> int:
        await asyncio.sleep(0)
        return 7

    async def broken() -> int:
        await asyncio.sleep(0)
        raise KeyError("x")

    assert await run_metered(fine(), Clock(), lambda _: None) == 7
    with pytest.raises(KeyError):
        await run_metered(broken(), Clock(), lambda _: None)


def test_large_records_make_small_slices() -> None:
    small = [LogRecord(n, 0, b"k", b"x" * 10) for n in range(900)]
    assert [len(part) for part in slices(small)] == [400, 400, 100]
    large = [LogRecord(n, 0, b"k", b"x" * 100_000) for n in range(5)]
    assert [len(part) for part in slices(large)] == [2, 2, 1]
    assert [record for part in slices(small) for record in part] == small


# --- the task ---------------------------------------------------------------------------------------------------------


class Shop:
    """A self-audit whose broker is a script, its clock moved by its own pauses."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **own: Any) -> None:
        self.script = Script(Settings().rules())
        self.clock, self.spent = Clock(), 0.0
        self.told: list[Happening] = []
        self.news = asyncio.Event()
        self.fails: list[Exception] = []
        self.at_read: Callable[[], None] = lambda: None
        self.output: dict[str, list[LogRecord]] = {}
        self.broker_times: dict[int, int] = {}
        shop = self

        class Reader:
            """The source is the script's log; an outcome topic has one partition."""

            def __init__(self, _: object, *, topic: str, **__: object) -> None:
                self._topic = topic

            async def start(self) -> None: ...

            async def stop(self, timeout_s: float) -> None: ...

            def broker_times(self) -> dict[int, int]:
                return {} if self._topic == Settings().source.topic else shop.broker_times

            async def read_to(
                self, begin: dict[int, int], end: dict[int, int], _: float
            ) -> AsyncGenerator[tuple[int, list[LogRecord]], None]:
                if shop.fails:
                    raise shop.fails.pop(0)
                shop.at_read()
                ((partition, first),) = begin.items()
                log = shop.script.log if self._topic == Settings().source.topic else shop.output[self._topic]
                records = [record for record in log if first <= record.offset < end[partition]]
                if records:
                    yield partition, records

        monkeypatch.setattr(selfaudit, "PartitionReader", Reader)
        settings = Settings(self_audit=SelfAuditSettings(enabled=True, **({"steps_per_minute": 6000.0} | own)))
        self.audit = SelfAudit(
            settings,
            Connection.build("127.0.0.1:1"),
            Telemetry(stream=io.StringIO(), heard=self._heard),
            monotonic=self.clock,
            processor_time=self._processor_time,
            sleep=self.clock.sleep,
            random=Random(1),
        )
        self.audit.passed(self.script.owner.state)

    def _heard(self, happening: Happening) -> None:
        self.told.append(happening)
        self.news.set()

    def _processor_time(self) -> float:
        """Every look at the clock costs a millisecond, of both kinds."""
        self.spent += 0.001
        self.clock.now += 0.001
        return self.spent

    def publish(self) -> None:
        """Commit what the script has brought about since, a unit per step, and have it checked."""
        for published in self.script.owner.published:
            status = published.topic.removeprefix("out.")
            topic = Settings().outcome_topics[status]
            log = self.output.setdefault(topic, [])
            record = LogRecord(len(log), published.timestamp, published.key, published.value, (*published.headers,))
            log.append(record)
            out = OutRecord(topic, None, record.key, record.value, record.timestamp, record.headers)
            self.clock.now += 60
            places = self.audit.choose([out])
            self.audit.published([out], dict.fromkeys(places, (0, record.offset)))
        self.script.owner.published.clear()
        self.audit.passed(self.script.owner.state)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.audit.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait({task})

    async def heard(self, *kinds: type[Happening]) -> list[Happening]:
        """Wait until so many things of these kinds were told, in this order, and return them."""
        async with asyncio.timeout(60):
            while len(found := [one for one in self.told if type(one) in ANSWERS]) < len(kinds):
                self.news.clear()
                await self.news.wait()
        assert [type(one) for one in found] == list(kinds)
        return found


ANSWERS = (StepVerified, AuditMismatch, AuditUndecided, AuditSkipped, SelfAuditTroubled)


async def test_what_is_right_is_counted_and_moves_the_verified_offset(monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Shop(monkeypatch)
    shop.script.whole(1000, "s1")
    shop.script.whole(1000, "s2")
    shop.publish()
    async with shop.running():
        assert await shop.heard(StepVerified, StepVerified) == [StepVerified(3, 2), StepVerified(3, 4)]
    shop.clock.now += 30
    shop.told.clear()
    shop.audit.stand()
    assert [round(one.age_s, 1) for one in shop.told if isinstance(one, AuditStatus)] == [30.0]
    assert shop.audit.reasons() == []


async def test_what_is_wrong_is_told_with_its_offsets_and_fields_and_stays_a_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shop = Shop(monkeypatch)
    renamed(shop.script, 1000, "s1")
    shop.publish()
    async with shop.running():
        (found,) = await shop.heard(AuditMismatch)
    assert isinstance(found, AuditMismatch)
    assert (found.step_id, found.revision, found.verdict) == ("s1", "0", "different")
    assert (found.partition, found.first_offset, found.last_offset) == (3, 0, 3)
    assert found.at == (Settings().output.completed, 0, 0)
    assert found.fields == ("header runstep-anomalies",)
    shop.audit.closed()
    (reason,) = shop.audit.reasons()
    assert "partition 3, offsets 0 to 3" in reason


async def test_what_cannot_be_decided_is_no_mismatch(monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Shop(monkeypatch)
    shop.script.whole(1000, "s0")
    shop.script.owner.published.clear()
    shop.audit.closed()
    shop.audit.passed(shop.script.owner.state)
    renamed(shop.script, 1000, "s1")
    shop.publish()
    async with shop.running():
        await shop.heard(AuditUndecided)
    assert shop.audit.reasons() == []


@pytest.mark.parametrize(("times", "answer"), [({0: 0}, AuditUndecided), ({0: 1}, AuditMismatch), ({}, AuditMismatch)])
async def test_a_time_of_the_broker_is_no_mismatch(
    monkeypatch: pytest.MonkeyPatch, times: dict[int, int], answer: type[Happening]
) -> None:
    """LogAppendTime: where the record's batch says so, its own time is gone."""
    shop = Shop(monkeypatch)
    shop.script.whole(1000, "s1")
    shop.publish()
    (log,) = shop.output.values()
    log[0] = msgspec.structs.replace(log[0], timestamp=log[0].timestamp + 7)
    shop.broker_times = times
    async with shop.running():
        (found,) = await shop.heard(answer)
    assert isinstance(found, AuditMismatch | AuditUndecided)
    assert found.fields == ("timestamp",)


async def test_whatever_breaks_a_check_is_told_and_the_next_one_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Shop(monkeypatch)
    for name in ("s1", "s2", "s3"):
        shop.script.whole(1000, name)
    shop.fails = [BrokerUnavailable("away"), ZeroDivisionError()]
    shop.publish()
    async with shop.running():
        one, other, _ = await shop.heard(SelfAuditTroubled, SelfAuditTroubled, StepVerified)
    assert isinstance(one, SelfAuditTroubled)
    assert isinstance(other, SelfAuditTroubled)
    assert (one.backoff_s, other.backoff_s) == (1.0, 2.0)


async def test_what_retention_took_and_what_is_too_long_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Shop(monkeypatch, max_range_records=1000)
    shop.script.whole(1000, "s1")
    shop.script.say(1000, "step.created", step(step_id="long"))
    for _ in range(1000):
        shop.script.log.append(LogRecord(len(shop.script.log), 1_000_000, b"k", None))
    shop.script.owner.apply(shop.script.log)
    shop.script.say(1000, "step.completed", step("completed", step_id="long"))
    shop.fails = [OffsetLost("gone")]
    shop.publish()
    async with shop.running():
        found = await shop.heard(AuditSkipped, AuditSkipped)
    assert found == [AuditSkipped("retention"), AuditSkipped("range_too_long")]


async def test_a_check_of_a_revoked_partition_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the partition comes back at once: what was noted of it is no longer known to be whole."""
    shop = Shop(monkeypatch)
    for name in ("s1", "s2"):
        shop.script.whole(1000, name)
    shop.publish()

    def revoke() -> None:
        shop.audit.closed()
        shop.audit.passed(shop.script.owner.state)

    shop.at_read = revoke
    async with shop.running():
        found = await shop.heard(AuditSkipped, AuditSkipped)
    assert found == [AuditSkipped("revoked", 1), AuditSkipped("revoked")], "what waited, and what was under way"


def test_what_the_queue_does_not_take_or_no_place_is_known_of_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Shop(monkeypatch)
    for number in range(20):
        shop.script.whole(1000, f"s{number}")
    published = shop.script.owner.published[0]
    shop.publish()
    assert shop.told == [AuditSkipped("queue_full")] * 4
    out = OutRecord(published.topic, None, published.key, published.value, 0, published.headers)
    shop.audit.published([out], {0: None})
    assert shop.told[-1] == AuditSkipped("unplaced")
    shop.audit.closed()
    assert shop.told[-1] == AuditSkipped("revoked", 16)
    shop.audit.published([out], {0: (0, 0)})
    assert shop.told[-1] == AuditSkipped("revoked")


def test_steps_are_chosen_at_the_rate_and_dead_letters_never(monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Shop(monkeypatch, steps_per_minute=6.0)
    steps = [OutRecord(Settings().output.completed, None, b"%d" % n, b"", 0, ()) for n in range(20)]
    unit = [OutRecord(Settings().output.dead_letter, None, None, b"", 0, ()), *steps]
    chosen: list[int] = []
    for _ in range(600):
        shop.clock.now += 1.0
        chosen += shop.audit.choose(unit)
    assert 60 <= len(chosen) <= 62, "two are there from the start"
    assert 0 not in chosen
    assert len(set(chosen)) > 15, "any of a unit, not always the first"
    assert shop.audit.choose(unit[:1]) == {}


async def test_checking_keeps_to_its_share_of_a_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Shop(monkeypatch, cpu_share=0.1)
    shop.script.say(1000, "step.created", step(step_id="s1"))
    shop.script.log += [LogRecord(1 + n, 1_000_000, b"k", None) for n in range(20_000)]
    shop.script.owner.apply(shop.script.log)
    shop.script.say(1000, "step.completed", step("completed", step_id="s1"))
    shop.publish()
    began = shop.clock.now
    async with shop.running():
        await shop.heard(StepVerified)
    took_s = shop.clock.now - began
    assert shop.spent > 0.1, "a turn for each of the slices"
    assert shop.spent / 2 <= 0.1 * took_s + 0.02


def test_a_fold_is_freed_when_its_check_is_over() -> None:
    """Without the garbage collector, which counts objects and not their bytes: it may not come for hours."""
    script = Script()
    script.whole(1000, "s1")

    def states() -> int:
        return sum(type(one) is PartitionState for one in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        before = states()
        assert script.verdict("s1") is Verdict.EQUAL
        assert states() == before
    finally:
        gc.enable()
