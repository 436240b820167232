"""The worker's loop between a scripted group and a scripted writer: each race of a rebalance, exactly when it hurts.

The log is real to the fold, and what must be published is what an uninterrupted fold of it publishes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from processor.audit.selfaudit.selfaudit import SelfAudit
from processor.config.settings import Settings
from processor.core.effects import LogRecord, Publish, Record
from processor.core.offset_metadata import METADATA_VERSION, LogIdentity, OffsetMetadata
from processor.core.partition import PartitionState
from processor.errors import BrokerUnavailable, CorruptLog, Fenced
from processor.kafka.client_config import Connection
from processor.kafka.consumer import Committed, GroupToken, RebalanceListener
from processor.kafka.errors import OffsetsUnstable, ReadStalled
from processor.kafka.output_records import Outputs
from processor.kafka.records import OutRecord
from processor.kafka.writer import Unit, _require_token
from processor.serve import clients, restore
from processor.serve.restore import RestoreGivenUp
from processor.serve.unit import ClosedUnit
from processor.serve.worker import Worker
from processor.telemetry.happenings import Happening, PartitionRestored, UnitDropped
from processor.telemetry.telemetry import Telemetry
from tests.core.scripted_log import step, text
from tests.shell.scripted_group import NOT_COMMITTED

ME = "me"
DEADLINE_S = 180.0


@dataclass
class World:
    """The broker as far as a worker can see it: logs, the group, and what has been committed."""

    log: dict[int, list[LogRecord]]
    ends: dict[int, int] = field(default_factory=dict)
    """Where a log ends, if later than behind its last record: markers, aborted batches."""
    committed: dict[int, Committed] = field(default_factory=dict)
    generation: int = 1
    published: list[OutRecord] = field(default_factory=list)
    commits: list[dict[int, Committed]] = field(default_factory=list)
    claims: list[dict[int, Committed]] = field(default_factory=list)
    decreased: list[str] = field(default_factory=list)
    is_down: bool = False
    most_at_once: int = 0
    """Commits under way."""
    told: list[Happening] = field(default_factory=list)
    members: set[str] = field(default_factory=lambda: {ME, "another"})
    """Client ids, as the group's coordinator tells them."""
    begun: list[str] = field(default_factory=list)
    unreadable: set[int] = field(default_factory=set)
    """Checkpoint partitions that a transaction holds open."""
    unstable: set[int] = field(default_factory=set)
    """Partitions whose offsets a transaction may still change."""
    may_commit: asyncio.Event = field(default_factory=asyncio.Event)
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)
    may_write: asyncio.Event = field(default_factory=asyncio.Event)
    committing: asyncio.Event = field(default_factory=asyncio.Event)
    asked_offsets: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.may_commit.set()
        self.may_answer.set()
        self.may_write.set()

    def end(self, partition: int) -> int:
        records = self.log[partition]
        return max(self.ends.get(partition, 0), records[-1].offset + 1 if records else 0)

    def keep(self, offsets: Mapping[int, Committed]) -> None:
        for partition, offset in offsets.items():
            before = self.committed.get(partition, NOT_COMMITTED)
            if offset.offset < before.offset:
                self.decreased.append(f"partition {partition}: {before.offset}, then {offset.offset}")
            self.committed[partition] = offset

    def restored(self) -> list[tuple[int, bool]]:
        """(partition, whether its state was resumed) of each that went live."""
        return [(h.partition, h.resumed) for h in self.told if isinstance(h, PartitionRestored)]


class Member:
    """The consumer: a poll waits until the test hands something out."""

    def __init__(self, world: World, listener: RebalanceListener) -> None:
        self._world, self._listener = world, listener
        self._positions: dict[int, int] = {}
        self._waiting: asyncio.Future[dict[int, list[Record]]] | None = None
        self._asked: tuple[int, ...] = ()
        self.has_left = False
        self._changed = asyncio.Event()

    # What the worker calls

    async def start(self) -> None:
        self._world.begun.append("joined")

    async def stop(self, timeout_s: float) -> None:
        self.has_left = True

    def token(self) -> GroupToken:
        return GroupToken(self._world.generation, ME, None)

    async def poll(self, partitions: Collection[int], *, timeout_ms: int, max_records: int) -> dict[int, list[Record]]:
        self._asked = tuple(partitions)
        self._waiting = asyncio.get_running_loop().create_future()
        self._changed.set()
        return await self._waiting

    def hold(self, partitions: Collection[int]) -> None: ...

    def seek(self, partition: int, offset: int) -> None:
        self._positions[partition] = offset

    def position_now(self, partition: int) -> int | None:
        return self._positions.get(partition)

    def end_of(self, partition: int) -> tuple[int | None, int | None]:
        return self._world.end(partition), self._world.end(partition)

    async def stable_offsets(self, partitions: Collection[int], *, timeout_s: float) -> dict[int, Committed]:
        self._world.asked_offsets.set()
        await self._world.may_answer.wait()
        if self._world.is_down:
            raise BrokerUnavailable("group: no answer")
        if self._world.unstable:
            await asyncio.sleep(0.01)
        if pending := self._world.unstable & set(partitions):
            stable = {p: self._world.committed.get(p, NOT_COMMITTED) for p in set(partitions) - pending}
            raise OffsetsUnstable("group: pending", partitions=pending, stable=stable)
        return {p: self._world.committed.get(p, NOT_COMMITTED) for p in partitions}

    async def pending_owners(self, partitions: Collection[int]) -> dict[int, Committed]:
        return {p: self._world.committed.get(p, NOT_COMMITTED) for p in partitions}

    async def member_clients(self) -> frozenset[str]:
        return frozenset(self._world.members)

    async def begin_offsets(self, partitions: Collection[int]) -> dict[int, int]:
        return dict.fromkeys(partitions, 0)

    async def end_offsets(self, partitions: Collection[int]) -> dict[int, int]:
        return {p: self._world.end(p) for p in partitions}

    async def log_identity(self) -> LogIdentity:
        return LogIdentity("cluster", "topic")

    def partitions_of_topic(self) -> int:
        return len(self._world.log)

    async def claim(self, offsets: Mapping[int, Committed]) -> None:
        self._world.claims.append(dict(offsets))
        self._world.keep(offsets)

    # What the test calls

    async def inside_poll(self, *partitions: int) -> None:
        """Wait until the worker polls these partitions, waking it with nothing while it polls others."""
        async with asyncio.timeout(DEADLINE_S):
            while sorted(await self.polling()) != sorted(partitions):
                self.answer({})
                await asyncio.sleep(0)

    async def polling(self) -> tuple[int, ...]:
        """Wait until the worker polls, and return what."""
        while self._waiting is None or self._waiting.done():
            self._changed.clear()
            await self._changed.wait()
        return self._asked

    def fetch(self, limit: int) -> dict[int, list[Record]]:
        """Take records of what is being polled, as the library does: the positions have moved when it is done."""
        batch: dict[int, list[Record]] = {}
        for partition in self._asked:
            at = self._positions[partition]
            records = [r for r in self._world.log[partition] if r.offset >= at][:limit]
            if records:
                batch[partition] = [*records]
                self._positions[partition] = records[-1].offset + 1
            if len(records) < limit:
                self._positions[partition] = max(self._positions[partition], self._world.end(partition))
        return batch

    def answer(self, batch: dict[int, list[Record]]) -> None:
        """End the poll with this. The worker goes on only when the test next waits."""
        assert self._waiting is not None
        self._waiting.set_result(batch)

    def fail(self, error: Exception) -> None:
        """End the poll with an error."""
        assert self._waiting is not None
        self._waiting.set_exception(error)

    def wake(self) -> None:
        """End a poll that is under way, as a rebalance does."""
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result({})
            self._waiting = None

    def hand_out(self, limit: int = 1_000) -> None:
        self.answer(self.fetch(limit))


class ScriptedWriter:
    """Commits at once, or when the test lets it; never for another generation, as the group's coordinator does."""

    transactional_id = ME
    recovered = 0

    def __init__(self, world: World, member: Member) -> None:
        self._world, self._member = world, member
        self.dead = False
        self._under_way = 0

    async def start(self) -> None:
        self._world.begun.append("writer initialised")
        await self._world.may_write.wait()

    async def stop(self, timeout_s: float) -> None: ...

    async def claim(self, offsets: Mapping[int, Committed]) -> None:
        await self._member.claim(offsets)

    async def commit(self, unit: Unit) -> None:
        _require_token(unit, self._member.token())
        self._world.committing.set()
        self._under_way += 1
        self._world.most_at_once = max(self._world.most_at_once, self._under_way)
        await self._world.may_commit.wait()
        self._under_way -= 1
        _require_token(unit, self._member.token())
        self._world.commits.append(dict(unit.offsets))
        self._world.keep(unit.offsets)
        self._world.published += [record for record in unit.records if not record.topic.endswith(".checkpoints")]


class NoCheckpoints:
    """Reads a checkpoint topic that has none; of some partitions nothing can be read."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def start(self) -> None: ...

    async def stop(self, timeout_s: float) -> None: ...

    async def __aenter__(self) -> NoCheckpoints:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    def partitions_of_topic(self) -> int:
        return 1

    async def end_offsets(self, partitions: Collection[int]) -> dict[int, int]:
        return dict.fromkeys(partitions, 0)

    begin_offsets = end_offsets

    async def offsets_at(self, partitions: Collection[int], timestamp_ms: int) -> dict[int, int | None]:
        return dict.fromkeys(partitions)

    async def read_to(self, *_: object) -> AsyncGenerator[tuple[int, list[Record]], None]:
        return
        yield

    async def read_each_to(
        self, begins: Mapping[int, int], *_: object
    ) -> AsyncGenerator[tuple[dict[int, list[Record]], set[int]], None]:
        yield {}, set(begins) - self._world.unreadable
        if stuck := set(begins) & self._world.unreadable:
            raise ReadStalled("topic c: nothing more to read", partitions=stuck, hint="kafka-transactions.sh")


@dataclass
class Life:
    """A worker that runs, and what moves it."""

    world: World
    worker: Worker
    member: Member
    running: asyncio.Task[None]
    clock: SimpleNamespace
    stop: asyncio.Event

    async def assign(self, *partitions: int) -> None:
        """A rebalance gives these, and the worker has opened them."""
        self.worker.assigned(list(partitions))
        self.member.wake()
        await self.member.inside_poll(*partitions)

    async def applied(self, limit: int = 1_000) -> None:
        """Hand out so many records of each partition, and let them be applied."""
        asked = self.member._asked
        self.member.hand_out(limit)
        await asyncio.sleep(0)
        await self.member.inside_poll(*asked)

    async def interval(self) -> None:
        """Let the commit interval pass, and what has been applied be committed."""
        self.clock.now += 1.0
        for _ in range(3):
            self.member.answer({})
            await asyncio.sleep(0)
            await self.member.inside_poll(*self.member._asked)

    async def rebalanced(self, *partitions: int) -> None:
        """A whole rebalance, from all that we own to these."""
        await self.worker.revoked(sorted(self.worker._owned))
        self.world.generation += 1
        await self.assign(*partitions)

    async def finished(self) -> None:
        """Apply and commit all there is, and end in order."""
        await self.applied()
        await self.interval()
        self.stop.set()
        self.member.answer({})
        async with asyncio.timeout(DEADLINE_S):
            await self.running

    async def ended_by(self, error: type[Exception]) -> None:
        with pytest.raises(error):
            async with asyncio.timeout(DEADLINE_S):
                await self.running

    def assert_equal(self) -> None:
        """Everything is published as an uninterrupted fold publishes it, once; no offset went back."""
        outputs = Outputs.of_settings(Settings())
        wanted: list[OutRecord] = []
        for partition, records in self.world.log.items():
            state = PartitionState(Settings().source.topic, partition, Settings().rules())
            wanted += outputs.of(partition, (e for e in state.apply(records) if isinstance(e, Publish)))
        assert sorted(map(str, self.world.published)) == sorted(map(str, wanted))
        assert self.world.decreased == []
        for partition in self.world.log:
            assert self.world.committed[partition].offset == self.world.end(partition)


@asynccontextmanager
async def living(
    world: World, monkeypatch: pytest.MonkeyPatch, kind: type[Worker] = Worker, audit: SelfAudit | None = None
) -> AsyncIterator[Life]:
    made: list[Member] = []

    def member(_: object, *, listener: RebalanceListener, **__: object) -> Member:
        made.append(Member(world, listener))
        return made[0]

    def taken_over(_: object, writer: str, __: float) -> None:
        raise AssertionError(f"{writer} lives")

    monkeypatch.setattr(clients, "Consumer", member)
    monkeypatch.setattr(clients, "TransactionalWriter", lambda *_, **__: ScriptedWriter(world, made[0]))
    monkeypatch.setattr(restore, "PartitionReader", lambda *_, **__: NoCheckpoints(world))
    monkeypatch.setattr(restore, "_RESTORE_AGAIN_S", 0.01)
    monkeypatch.setattr(restore, "takeover", taken_over)
    clock, stop = SimpleNamespace(now=0.0), asyncio.Event()
    telemetry = Telemetry(level="error", heard=world.told.append, now=lambda: clock.now)
    subject = kind(
        Settings(),
        Connection.build("127.0.0.1:1"),
        telemetry,
        transactional_id=ME,
        limits={},
        audit=audit,
        monotonic=lambda: clock.now,
        now_ms=lambda: 0,
    )
    running = asyncio.create_task(subject.run(stop), name="worker")
    try:
        yield Life(world, subject, made[0], running, clock, stop)
    finally:
        running.cancel()
        await asyncio.wait({running})
        telemetry.close()


def ended(offset: int, name: str = "") -> LogRecord:
    """A record that ends a step of its own."""
    return said(offset, "completed", step("completed", step_id=name or f"s{offset}"))


def said(offset: int, name: str, data: Any) -> LogRecord:
    return LogRecord(offset, 1_000_000 + offset, b"key", text({"event": f"thread.run.step.{name}", "data": data}))


def steps(count: int, prefix: str = "s") -> list[LogRecord]:
    return [ended(offset, f"{prefix}{offset}") for offset in range(count)]


def one_long_step(count: int) -> list[LogRecord]:
    """A step that begins with the log and ends with it, and short ones between."""
    details = {"type": "message_creation", "message_creation": {"message_id": "m"}}
    opened = said(0, "created", step(step_id="long", step_details=details))
    return [opened, *(ended(offset) for offset in range(1, count - 1)), ended(count - 1, "long")]


async def test_all_is_published_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The harness itself, with nothing going wrong."""
    world = World({0: steps(10), 1: one_long_step(10)})
    async with living(world, monkeypatch) as life:
        await life.assign(0, 1)
        await life.applied(3)
        await life.interval()
        assert {p: c.offset for p, c in world.committed.items()} == {0: 3, 1: 3}
        await life.finished()
        life.assert_equal()


async def test_what_was_handed_out_but_not_applied_is_not_committed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The consumer's position is ahead of us between a poll's end and our turn; the revocation comes right there."""
    world = World({0: steps(10)})
    async with living(world, monkeypatch) as life:
        await life.assign(0)
        await life.applied(3)
        life.member.hand_out(4)
        assert life.member.position_now(0) == 7
        await life.worker.revoked([0])
        assert world.committed[0].offset == 3
        assert len(world.published) == 3
        world.generation += 1
        await life.assign(0)
        await life.finished()
        life.assert_equal()


async def test_the_end_of_a_log_that_no_record_marks_is_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    """Markers and aborted batches: the position moves and no record comes. It counts, once all is applied."""
    world = World({0: steps(3), 1: []}, ends={0: 8, 1: 4})
    async with living(world, monkeypatch) as life:
        await life.assign(0, 1)
        await life.finished()
        assert {p: c.offset for p, c in world.committed.items()} == {0: 8, 1: 4}
        life.assert_equal()


async def test_ready_is_who_was_told_its_partitions_and_has_restored_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """A member knows its generation before it knows what is its own."""
    world = World({0: steps(3)})
    async with living(world, monkeypatch) as life:
        assert life.worker.readyz().reasons == ["the group has not said yet which partitions are ours"]
        await life.assign(0)
        assert life.worker.readyz().ok
        await life.worker.revoked([0])
        world.generation += 1
        assert not life.worker.readyz().ok
        await life.assign()
        assert life.worker.readyz().ok, "a member without partitions has nothing to wait for"
        await life.assign(0)
        await life.finished()


async def test_a_batch_of_an_old_epoch_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was fetched before a rebalance that gave us the partition anew: between it and where we read now is a gap."""
    world = World({0: one_long_step(10)})
    async with living(world, monkeypatch) as life:
        await life.assign(0)
        await life.applied(4)
        old = life.member.fetch(3)
        await life.worker.revoked([0])
        assert world.committed[0].offset == 4
        # Another member had it in between: it must be restored, from its first record on.
        world.committed[0] = Committed(4, OffsetMetadata(0, -1, "another").encode())
        world.generation += 1
        life.worker.assigned([0])
        assert life.worker._opening is not None
        await asyncio.wait({life.worker._opening}, timeout=DEADLINE_S)
        life.member.answer(old)
        await asyncio.sleep(0)
        await life.member.inside_poll(0)
        await life.finished()
        life.assert_equal()


class Heard(SelfAudit):
    """A self-audit that chooses all and notes what the worker tells it."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def passed(self, state: PartitionState) -> None:
        self.told.append(("passed", state.partition, state.next_offset))

    def marked(self, partition: int, position: int, mark_ms: int) -> None:
        self.told.append(("marked", partition, position, mark_ms))

    def closed(self) -> None:
        self.told.append("closed")

    def choose(self, records: Sequence[OutRecord]) -> dict[int, tuple[int, int] | None]:
        return dict.fromkeys(range(len(records)))

    def published(self, records: Sequence[OutRecord], places: Mapping[int, tuple[int, int] | None]) -> None:
        self.told.append(("published", [records[number].key for number in places]))

    def stand(self) -> None: ...


async def test_the_self_audit_is_told_what_it_must_know(monkeypatch: pytest.MonkeyPatch) -> None:
    """From when a partition is live, what is committed and not before, the clock marks, and when all is over."""
    opened = said(2, "created", step(step_id="hung", expires_at=2_000))
    world = World({0: [*steps(2), opened]})
    audit = Heard()
    async with living(world, monkeypatch, audit=audit) as life:
        await life.assign(0)
        await life.applied(2)
        await life.interval()
        assert audit.told == [("passed", 0, 0), ("passed", 0, 2), ("published", [b"s0", b"s1"])]
        audit.told.clear()
        await life.applied()
        life.worker._now_ms = lambda: 3_000_000
        life.clock.now += Settings().steps.idle_grace_s
        await life.interval()
        due_ms = (2_000 + Settings().steps.grace_s) * 1000
        assert audit.told == [("passed", 0, 3), ("marked", 0, 3, due_ms), ("published", [b"hung"])]
        audit.told.clear()
        await life.rebalanced(0)
        assert audit.told == ["closed", ("passed", 0, 3)]
        await life.finished()
        assert audit.told[-1] == "closed"


class OpenWhileDraining(Worker):
    """Without a safeguard: the gate closes when the drain is over."""

    async def _drain(self) -> None:
        closed, self._pollable = self._pollable, tuple(self._owned)
        self.assignment_epoch -= 1
        try:
            await super()._drain()
        finally:
            self.assignment_epoch += 1
            self._pollable = closed


class LiveToken(Worker):
    """Without a safeguard: a unit bears the generation in which it is sealed."""

    def _close_unit(self) -> Any:
        sealed = super()._close_unit()
        if sealed is not None:
            sealed.unit.token = self._consumer.token()
        return sealed


async def turn_while_a_revocation_drains(life: Life, passing_s: float) -> None:
    """A slow commit, and the loop goes round meanwhile, with or without another commit falling due."""
    world = life.world
    await life.assign(0)
    await life.applied(3)
    world.may_commit.clear()
    revoking = asyncio.create_task(life.worker.revoked([0]))
    async with asyncio.timeout(DEADLINE_S):
        await world.committing.wait()
    life.member.hand_out(3)
    for _ in range(3):
        await life.member.polling()
        life.clock.now += passing_s
        life.member.answer({})
        await asyncio.sleep(0)
    world.may_commit.set()
    await revoking
    world.generation += 1
    await life.assign(0)
    await life.finished()


@pytest.mark.parametrize("passing_s", [0.0, 1.0])
async def test_the_gate_closes_before_the_drain(monkeypatch: pytest.MonkeyPatch, passing_s: float) -> None:
    """What the loop gets hold of while a revocation drains must be neither applied nor noted nor committed."""
    world = World({0: steps(10)})
    async with living(world, monkeypatch) as life:
        await turn_while_a_revocation_drains(life, passing_s)
        assert world.most_at_once == 1
        life.assert_equal()


async def test_without_the_gate_it_goes_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World({0: steps(10)})
    async with living(world, monkeypatch, OpenWhileDraining) as life:
        await turn_while_a_revocation_drains(life, 0.0)
        with pytest.raises(AssertionError):
            life.assert_equal()


async def test_a_revocation_that_meets_the_end_of_the_loop_drains_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGTERM in a rebalance: the writer has one transaction, and the group must not go on before it is done."""
    world = World({0: steps(6)})
    async with living(world, monkeypatch) as life:
        await life.assign(0)
        await life.applied(3)
        world.may_commit.clear()
        life.clock.now += 1.0
        life.member.answer({})  # the first three are on their way
        async with asyncio.timeout(DEADLINE_S):
            await world.committing.wait()
        await life.member.inside_poll(0)
        await life.applied()
        revoking = asyncio.create_task(life.worker.revoked([0]))
        await asyncio.sleep(0)
        life.stop.set()
        life.member.answer({})
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not revoking.done()
        world.may_commit.set()
        async with asyncio.timeout(DEADLINE_S):
            await revoking
            await life.running
        assert world.most_at_once == 1
        life.assert_equal()


async def commit_in_the_next_generation(life: Life) -> None:
    """The group has moved on and nobody told us; the records were applied before."""
    await life.assign(0)
    await life.applied(3)
    life.world.generation += 1
    life.clock.now += 1.0
    life.member.answer({})
    await life.member.inside_poll(0)
    life.member.answer({})


async def test_a_unit_of_an_old_generation_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """It bears the generation in which its first record was applied; the broker checks no more than that."""
    world = World({0: steps(10)})
    async with living(world, monkeypatch) as life:
        await commit_in_the_next_generation(life)
        await life.ended_by(Fenced)
        assert world.commits == []
        assert world.published == []
        assert UnitDropped("generation", 3, (0,)) in world.told


async def test_without_the_stamp_it_is_committed(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World({0: steps(10)})
    async with living(world, monkeypatch, LiveToken) as life:
        await commit_in_the_next_generation(life)
        await life.member.inside_poll(0)
        assert world.commits != []


async def test_after_an_eviction_nothing_is_committed(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World({0: steps(10)})
    async with living(world, monkeypatch) as life:
        await life.assign(0)
        await life.applied(3)
        world.generation = -1
        with pytest.raises(Fenced):
            await life.worker.revoked([0])
        assert world.commits == []
        assert life.worker._retained == {}
        assert UnitDropped("revoked", 3, (0,)) in world.told


class BrokenOff(list[Record]):
    """Records, and behind them bytes that cannot be decoded."""

    def __iter__(self) -> Iterator[Record]:
        yield from super().__iter__()
        raise CorruptLog("topic t: partition 1: no record")


async def test_a_revocation_commits_nothing_of_what_an_error_broke_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Applied are some partitions of the last poll, and their positions are not noted yet."""
    world = World({0: steps(10), 1: steps(10, "t")})
    async with living(world, monkeypatch) as life:
        await life.assign(0, 1)
        await life.applied(3)
        await life.interval()
        await life.applied(2)
        world.may_commit.clear()
        world.committing.clear()
        life.clock.now += 1.0
        life.member.answer({})  # the last two are on their way, which delays the end
        async with asyncio.timeout(DEADLINE_S):
            await world.committing.wait()
        await life.member.inside_poll(0, 1)
        batch = life.member.fetch(4)
        life.member.answer({0: batch[0], 1: BrokenOff(batch[1])})
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not life.worker._pollable, "it is ending"
        assert life.worker._pending.records, "the records of partition 0 are applied"
        revoking = asyncio.create_task(life.worker.revoked([0, 1]))
        world.may_commit.set()
        async with asyncio.timeout(DEADLINE_S):
            await revoking
        await life.ended_by(CorruptLog)
        assert {record.key for record in world.published} == {
            b"%s%d" % (name, n) for name in (b"s", b"t") for n in range(3)
        }
        assert len(world.published) == 6
        assert {p: c.offset for p, c in world.committed.items()} == {0: 3, 1: 3}


async def test_a_life_that_ends_in_two_errors_leaves_the_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """A member that nobody reads for and that still sends heartbeats would keep its partitions for ever."""
    world = World({0: steps(10)}, is_down=True)
    async with living(world, monkeypatch) as life:
        life.worker.assigned([0])
        assert life.worker._opening is not None
        await asyncio.wait({life.worker._opening}, timeout=DEADLINE_S)
        await life.member.polling()
        life.member.fail(Fenced("group: we are no member any more"))
        await life.ended_by(Fenced)
        assert life.member.has_left


async def test_a_partition_that_is_being_restored_is_not_committed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its position is below the committed offset: whoever came next would publish again what lies between."""
    point = OffsetMetadata(0, -1, "another", METADATA_VERSION).encode()
    world = World({0: one_long_step(10), 1: steps(10, "t")}, committed={0: Committed(6, point)})
    async with living(world, monkeypatch) as life:
        await life.assign(0, 1)
        await life.applied(2)
        await life.interval()
        assert [sorted(offsets) for offsets in world.commits] == [[1]]
        assert world.restored() == [(1, False)]
        assert world.committed[0].offset == 6
        await life.rebalanced(0, 1)
        assert world.decreased == []
        assert (0, True) not in world.restored()
        # What the dead owner had published by then.
        state = PartitionState(Settings().source.topic, 0, Settings().rules())
        before = state.apply(world.log[0][:6])
        world.published += Outputs.of_settings(Settings()).of(0, (e for e in before if isinstance(e, Publish)))
        await life.finished()
        life.assert_equal()


async def test_a_rebalance_that_leaves_a_partition_where_it_was_restores_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World({0: one_long_step(10), 1: steps(10, "t")})
    async with living(world, monkeypatch) as life:
        await life.assign(0, 1)
        await life.applied(3)
        claims = len(world.claims)
        await life.rebalanced(0)
        assert world.restored() == [(0, False), (1, False), (0, True)]
        resumed = next(h for h in reversed(world.told) if isinstance(h, PartitionRestored))
        assert (resumed.restore_from, resumed.committed) == (0, 3), "where it stands, not where it stood when restored"
        assert len(world.claims) == claims
        await life.rebalanced(0, 1)
        await life.applied(3)
        assert world.restored()[3:] == [(0, True), (1, False)]
        await life.finished()
        life.assert_equal()


async def test_rebalances_do_not_put_off_the_checkpoints_of_what_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else `restore_from` stands still wherever members come and go more often than `checkpoints.interval_s`."""
    world = World({0: one_long_step(10)})
    async with living(world, monkeypatch) as life:
        await life.assign(0)
        await life.applied(3)
        await life.interval()
        known = list(life.worker._owned[0].positions)
        assert known, "where the partition stood, and when"
        await life.rebalanced(0)
        assert list(life.worker._owned[0].positions)[: len(known)] == known
        await life.finished()
        life.assert_equal()


async def test_a_rebalance_that_the_next_one_cuts_off_restores_nothing_either(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three members that start at once: the second rebalance comes while the first still asks for the offsets."""
    world = World({0: one_long_step(10)})
    async with living(world, monkeypatch) as life:
        await life.assign(0)
        await life.applied(3)
        await life.worker.revoked([0])
        world.generation += 1
        world.may_answer.clear()
        world.asked_offsets.clear()
        life.worker.assigned([0])
        async with asyncio.timeout(DEADLINE_S):
            await world.asked_offsets.wait()
        await life.worker.revoked([0])
        world.may_answer.set()
        world.generation += 1
        await life.assign(0)
        assert world.restored() == [(0, False), (0, True)]
        await life.finished()
        life.assert_equal()


@pytest.mark.parametrize(
    "meanwhile",
    [
        pytest.param(lambda c: Committed(c.offset, OffsetMetadata(0, -1, "another").encode()), id="another-claimed-it"),
        pytest.param(lambda c: Committed(c.offset + 2, c.metadata), id="the-offset-moved"),
        pytest.param(lambda c: Committed(c.offset, ""), id="set-by-hand"),
    ],
)
async def test_a_retained_state_that_is_not_what_is_committed_is_restored(
    monkeypatch: pytest.MonkeyPatch, meanwhile: Any
) -> None:
    """Offset *and* metadata: with the same offset another owner may have let deadlines fire (a clock mark)."""
    world = World({0: steps(10)})
    async with living(world, monkeypatch) as life:
        await life.assign(0)
        await life.applied(3)
        await life.worker.revoked([0])
        world.committed[0] = meanwhile(world.committed[0])
        world.generation += 1
        await life.assign(0)
        await life.applied()
        assert world.restored() == [(0, False), (0, False)]


# --- start-up and stalls ----------------------------------------------------------------------------------------------


async def test_the_group_is_joined_before_the_writer_is_initialised(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that is no member yet, a new owner would take our writer for a dead one's, and fence it."""
    world = World({0: steps(1)})
    async with living(world, monkeypatch) as life:
        await life.assign(0)
        assert world.begun == ["joined", "writer initialised"]


async def test_nothing_is_claimed_before_the_writer_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends what its last life left open, which may change the offsets; and it is what commits."""
    world = World({0: steps(3)})
    world.may_write.clear()
    async with living(world, monkeypatch) as life:
        life.worker.assigned([0])
        for _ in range(50):
            await asyncio.sleep(0)
        assert not world.asked_offsets.is_set()
        assert world.claims == []
        world.may_write.set()
        await life.member.inside_poll(0)
        await life.finished()
    life.assert_equal()


async def test_one_unreadable_checkpoint_partition_holds_no_other_up(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World({0: steps(3, "a"), 1: steps(3, "b")}, unreadable={1})
    async with living(world, monkeypatch) as life:
        life.worker.assigned([0, 1])
        await life.member.inside_poll(0)
        await life.applied()
        await life.interval()
        assert world.committed[0].offset == 3
        assert life.worker.healthz().ok
        life.clock.now += 61
        life.member.answer({})
        await life.member.polling()
        health = life.worker.healthz()
        assert not health.ok
        assert health.reasons == ["partition 1: its checkpoints are being read, no progress for 62 s"]
        world.unreadable.clear()  # the transaction was aborted: it comes back by itself
        async with asyncio.timeout(DEADLINE_S):
            while 1 not in life.worker._owned:  # noqa: ASYNC110 - the worker has no event for it
                await asyncio.sleep(0.01)
        await life.member.inside_poll(0, 1)
        await life.finished()
        assert life.worker.healthz().ok
    life.assert_equal()


async def test_a_partition_that_stays_unreadable_ends_the_worker_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World({0: steps(1)}, unreadable={0})
    async with living(world, monkeypatch) as life:
        life.worker.assigned([0])
        life.clock.now += Settings().kafka.unavailable_after_s
        async with asyncio.timeout(DEADLINE_S):
            assert life.worker._opening is not None
            await asyncio.wait({life.worker._opening})
        life.member.answer({})
        with pytest.raises(RestoreGivenUp, match="tried for 300 s") as told:
            await life.running
    assert "kafka-transactions.sh" in told.value.hint


async def test_offsets_that_are_not_stable_hold_no_other_partition_up(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World({0: steps(3, "a"), 1: steps(3, "b")}, unstable={1})
    async with living(world, monkeypatch) as life:
        life.worker.assigned([0, 1])
        await life.member.inside_poll(0)
        world.unstable.clear()
        await life.member.inside_poll(0, 1)
        await life.finished()
    life.assert_equal()


async def test_of_a_group_that_does_not_name_ourselves_none_is_taken_for_dead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Brokers say of a group with KIP-848 members that it is dead and has none; its classic members live."""
    point = OffsetMetadata(0, writer="another").encode()
    world = World({0: steps(3)}, committed={0: Committed(0, point)}, members=set())
    async with living(world, monkeypatch) as life:
        await life.assign(0)
        await life.finished()
        life.assert_equal()


@pytest.mark.parametrize("members", [{ME, "another"}, set()], ids=["a-member", "not-described"])
async def test_a_living_writer_is_not_taken_over_for_an_open_transaction(
    monkeypatch: pytest.MonkeyPatch, members: set[str]
) -> None:
    """Of a worker that dies within its claim the transaction is open, and the offset names the owner before it."""
    point = OffsetMetadata(0, writer="another").encode()
    world = World({0: steps(3)}, committed={0: Committed(0, point)}, members=members, unstable={0})
    async with living(world, monkeypatch) as life:
        life.worker.assigned([0])
        for _ in range(3):  # it is asked again once the answer that all is pending was taken
            async with asyncio.timeout(DEADLINE_S):
                await world.asked_offsets.wait()
            world.asked_offsets.clear()
        world.unstable.clear()
        await life.member.inside_poll(0)
        await life.finished()
    life.assert_equal()


async def test_a_hung_commit_is_a_reason_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World({0: steps(3, "a")})
    async with living(world, monkeypatch) as life:
        life.worker.assigned([0])
        await life.member.inside_poll(0)
        world.may_commit.clear()
        committing = asyncio.create_task(
            life.worker._commit(ClosedUnit(Unit(life.member.token(), offsets={}), {}, 7, 0))
        )
        await asyncio.sleep(0)
        assert not any("commit" in reason for reason in life.worker.healthz().reasons)
        life.clock.now += 61
        assert "commit: 7 records have been under way for 61 s" in life.worker.healthz().reasons
        world.may_commit.set()
        await committing
        assert not any("commit" in reason for reason in life.worker.healthz().reasons)
        await life.applied()
        await life.finished()
    life.assert_equal()
