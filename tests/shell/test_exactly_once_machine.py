"""Whole workers against a scripted broker: any interleaving of loss, lateness, rebalance, death and zombies.

Worker, restorer, transactional writer and fold are the real ones; two processes share two partitions. After every move
what is committed must be, to the record, what an uninterrupted fold of the log below the committed offsets implies.
"""

from __future__ import annotations

import asyncio
import io
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import cache
from typing import Any, NamedTuple, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.config.settings import Settings
from processor.core.effects import LogRecord
from processor.core.partition import PartitionState
from processor.errors import BrokerUnavailable, CorruptLog, Fenced
from processor.kafka import transactions, writer
from processor.kafka.client_config import Connection
from processor.kafka.output_records import Outputs
from processor.serve import clients, restore
from processor.serve.highest_committed import HighestCommitted
from processor.serve.worker import Worker
from processor.telemetry.happenings import Happening, RestoreIrregular
from processor.telemetry.telemetry import Telemetry
from tests.core.scripted_log import delta, step, text
from tests.shell.scripted_cluster import Fate
from tests.shell.scripted_group import STABLE, Broker, CheckpointReader, Member, Out, WorkerLink, settle

SETTINGS = Settings.model_validate({"checkpoints": {"interval_s": 0.5}})
PARTITIONS = 2
RECORDS = 28
ROUNDS = 400
"""So many rounds without a fault must be enough to bring all to its end."""


def source(partition: int) -> list[LogRecord]:
    """Steps that overlap, one that is open from the first record to the last, a late correction, a bad record."""

    def said(name: str, data: Any) -> bytes:
        return text({"event": f"thread.run.step.{name}", "data": data})

    def opened(name: str) -> bytes:
        details = {"type": "message_creation", "message_creation": {"message_id": "m"}}
        return said("created", step(step_id=f"{name}{partition}", step_details=details))

    def ended(name: str, **fields: Any) -> bytes:
        return said("completed", step("completed", step_id=f"{name}{partition}", **fields))

    values = [opened("long"), ended("long again")]
    for turn in range((RECORDS - 4) // 6):
        values += [
            opened(f"b{turn}"),
            ended(f"a{turn}"),
            said("delta", delta(f"b{turn}{partition}", type="message_creation", message_creation={"message_id": "n"})),
            b"{" + b" " * turn,
            ended(f"b{turn}"),
            ended(f"a{turn}", usage={"total_tokens": 3}),
        ]
    values += [ended("long"), ended("last")]
    assert len(values) == RECORDS
    return [LogRecord(offset, 1_000_000 + offset, b"key", value) for offset, value in enumerate(values)]


LOGS = {partition: source(partition) for partition in range(PARTITIONS)}


@cache
def implied(*offsets: int) -> Counter[Out]:
    """What a fold of the logs below these offsets publishes."""
    outputs, found = Outputs.of_settings(SETTINGS), Counter[Out]()
    for partition, end in enumerate(offsets):
        state = PartitionState(SETTINGS.source.topic, partition, SETTINGS.rules(), log="cluster topic")
        for out in outputs.of(partition, state.apply(LOGS[partition][: max(0, end)])):
            if out.topic != outputs.checkpoints:
                found[out.topic, out.key, out.value, tuple(out.headers)] += 1
    return found


class Op(Enum):
    """What happens next; `i` and `j` of a move say to whom and how."""

    ROUND = auto()
    """All that waits is answered, each worker is handed a few records, and time passes."""
    GO = auto()
    """The oldest requests are answered."""
    FATE = auto()
    """One request that waits meets a fate."""
    LATE = auto()
    """A late request arrives."""
    ARRIVE = auto()
    """Records are written to a source log."""
    UNIT = auto()
    """A worker applies a record of each partition and begins to commit."""
    POLL = auto()
    TAKE = auto()
    """A poll has taken records, and its worker does not have its turn yet."""
    TICK = auto()
    BEAT = auto()
    """A member hears from the group."""
    REVOKE = auto()
    """A rebalance begins, and a member hears of it between its poll's end and its worker's turn."""
    JOIN = auto()
    """The next generation begins, if all have joined."""
    EVICT = auto()
    """The next generation begins without those that have not joined; they become zombies."""
    KILL = auto()
    """A worker is cancelled, or its process is gone without a word."""
    START = auto()
    EXPIRE = auto()
    """The broker aborts an open transaction for its age."""
    STALE = auto()
    """The group's offsets are answered from before they moved, to a process that knows better."""


class Move(NamedTuple):
    op: Op
    i: int
    j: int


_WRITING = {Op.UNIT: 5, Op.GO: 5, Op.FATE: 6, Op.LATE: 4, Op.ROUND: 2, Op.TICK: 1, Op.START: 1}
_GROUP = {
    Op.REVOKE: 4, Op.BEAT: 4, Op.JOIN: 4, Op.GO: 5, Op.ROUND: 3, Op.UNIT: 4, Op.POLL: 2, Op.TAKE: 1, Op.TICK: 1,
    Op.EVICT: 1, Op.STALE: 1, Op.START: 1,
}  # fmt: skip
_ALL = dict.fromkeys(Op, 1) | {Op.ROUND: 4, Op.GO: 5, Op.FATE: 5, Op.LATE: 2, Op.UNIT: 4, Op.BEAT: 2, Op.JOIN: 2}


KINDS = {"writing": _WRITING, "group": _GROUP, "all": _ALL}
"""With one kind of trouble alone more of it comes together than with all kinds mixed."""


def _ops(weights: dict[Op, int]) -> list[Op]:
    return [op for op, times in weights.items() for _ in range(times)]


def _moves(weights: dict[Op, int]) -> st.SearchStrategy[list[Move]]:
    up_to_7 = st.integers(0, 7)
    return st.lists(st.builds(Move, st.sampled_from(_ops(weights)), up_to_7, up_to_7), min_size=40, max_size=160)


MOVES = st.one_of(*map(_moves, KINDS.values()))
FATES = [Fate.ANSWERED, Fate.ANSWER_LOST, Fate.LATE, Fate.LOST, Fate.NOT_SENT, Fate.BUSY, Fate.LATE, Fate.ANSWER_LOST]


@dataclass(eq=False)
class Process:
    """One process of the group and its present worker; stands for the `Connection` that clients are made with."""

    machine: Machine
    name: str
    highest: HighestCommitted = field(default_factory=HighestCommitted)
    seen: dict[int, int] = field(default_factory=dict)
    lives: int = 0
    worker: Worker | None = None
    member: Member | None = None
    running: asyncio.Task[None] | None = None
    met_stale: bool = False

    def consumer(self, listener: Any) -> Member:
        self.lives += 1
        self.member = Member(self.machine.broker, self.name, self.lives, listener, self.seen)
        return self.member

    def start(self) -> None:
        """Run the next worker, if there is none, as the supervisor does."""
        if self.running is not None:
            return
        self.worker = Worker(
            SETTINGS,
            cast(Connection, self),
            self.machine.telemetry,
            transactional_id=self.name,
            limits={},
            highest=self.highest,
            monotonic=lambda: self.machine.clock_s,
            now_ms=lambda: 0,
        )
        self.running = asyncio.create_task(self.worker.run(asyncio.Event()), name=f"worker {self.name}")

    async def kill(self, *, silently: bool) -> None:
        if self.running is None:
            return
        assert self.worker is not None
        if silently:
            assert self.member is not None
            self.member.is_gone = True
            cast(Any, self.worker)._writer._link.cut()
        self.running.cancel()
        await asyncio.wait({self.running})
        self.machine.deaths += 1
        self.running = None

    def look(self) -> None:
        """Note how a worker has ended, if it has."""
        if self.running is None or not self.running.done():
            return
        running, self.running = self.running, None
        self.machine.deaths += 1
        error = running.exception()
        if isinstance(error, CorruptLog) and self.met_stale:
            assert "went back" in str(error)
            self.met_stale, self.highest = False, HighestCommitted()  # a person starts the process again
            self.seen.clear()
        elif not isinstance(error, Fenced | BrokerUnavailable):
            raise AssertionError(f"worker {self.name}: ended by {error!r}") from error


class Machine:
    """Two processes, their broker, and time. A move changes one of them; `check` holds after each."""

    def __init__(self, telemetry: Telemetry, *, v2: bool, aborts_when_raised: bool) -> None:
        self.telemetry, self.clock_s = telemetry, 0.0
        self.broker = Broker(LOGS, SETTINGS.checkpoint_topic, v2, aborts_when_raised)
        self.processes = [Process(self, "a"), Process(self, "b")]
        self.deaths = 0

    async def quiet(self) -> None:
        """Let every task go on until all wait for a move."""
        loop: Any = asyncio.get_running_loop()
        for _ in range(100_000):
            await asyncio.sleep(0)
            if not loop._ready:
                return
        raise AssertionError("a task never waits")

    async def do(self, move: Move) -> None:
        broker, process = self.broker, self.processes[move.i % 2]
        member = process.member if process.running is not None else None
        match move.op:
            case Op.ROUND:
                if move.j:
                    process.start()
                broker.arrived[move.i % PARTITIONS] = min(RECORDS, broker.arrived[move.i % PARTITIONS] + move.j // 3)
                await self.round(2)
            case Op.GO:
                for _ in range(move.i + 1):
                    if broker.waiting:
                        settle(broker, broker.waiting[0], Fate.ANSWERED)
                        await self.quiet()
            case Op.FATE if broker.waiting:
                settle(broker, broker.waiting[move.i % len(broker.waiting)], FATES[move.j])
            case Op.LATE if broker.late:
                self.arrive(move.i)
            case Op.ARRIVE:
                at = move.i % PARTITIONS
                broker.arrived[at] = min(RECORDS, broker.arrived[at] + 1 + move.j)
            case Op.POLL if member is not None:
                member.take(1 + move.j)
                member.wake()
            case Op.TAKE if member is not None:
                member.take(1 + move.j)
            case Op.TICK:
                self.tick(1.1 if move.j % 2 else 0.15)
            case Op.BEAT if member is not None:
                member.heartbeat(wakes=not move.j % 2)
            case Op.REVOKE if member is not None:
                broker.is_rebalancing = True
                member.take(1 + move.j)
                member.heartbeat(wakes=False)
            case Op.JOIN if broker.all_have_joined():
                broker.complete(move.j)
            case Op.EVICT:
                broker.is_rebalancing = bool(broker.members)
                broker.complete(move.j)
            case Op.UNIT if member is not None:
                for partition in LOGS:
                    broker.arrived[partition] = min(RECORDS, broker.arrived[partition] + 1)
                for _ in range(2):
                    member.take(PARTITIONS)
                    member.wake()
                    self.clock_s += 0.1
                    await self.quiet()
            case Op.KILL:
                await process.kill(silently=bool(move.j % 2))
            case Op.START:
                process.start()
            case Op.EXPIRE:
                self.expire(move.i)
            case Op.STALE:
                self.answer_stale(move.j)
            case _:
                pass
        await self.quiet()
        self.check()

    def tick(self, seconds: float) -> None:
        self.clock_s += seconds
        for process in self.processes:
            if process.running is not None and process.member is not None:
                process.member.wake()

    def arrive(self, number: int) -> None:
        self.broker.late.pop(number % len(self.broker.late))()

    def expire(self, number: int) -> None:
        writers = list(self.broker.writers.values())
        if writers:
            writers[number % len(writers)].expire()

    def answer_stale(self, back: int) -> None:
        """Answer a process with an offset that is lower than one that it was answered before."""
        for request in self.broker.waiting:
            if request.name != STABLE:
                continue
            asker = cast(Member, request.link)
            answer = request.deliver()
            older = {
                p: lower[back % len(lower)]
                for p in (answer if isinstance(answer, dict) else ())
                if (lower := [c for c in self.broker.history[p] if c.offset < asker.seen.get(p, -1)])
            }
            if older:
                process = next(process for process in self.processes if process.member is asker)
                process.met_stale = True
                self.broker.waiting.remove(request)
                request.answer.set_result({**answer, **older})
                return

    async def round(self, records: int) -> None:
        """Some progress of everybody, without a fault."""
        for request in list(self.broker.waiting):
            if request.is_open and request in self.broker.waiting:
                settle(self.broker, request, Fate.ANSWERED)
                await self.quiet()
                self.check()
        for process in self.processes:
            if process.running is not None and process.member is not None:
                process.member.heartbeat()
                process.member.take(records)
        await self.quiet()
        if self.broker.all_have_joined():
            self.broker.complete(self.broker.generation)
        self.tick(0.15)
        await self.quiet()

    def check(self) -> None:
        """What must hold at any time."""
        assert self.broker.decreased == []
        offsets = [self.broker.committed[p].offset if p in self.broker.committed else 0 for p in range(PARTITIONS)]
        wanted = implied(*offsets)
        assert self.broker.published == wanted, f"committed up to {offsets}"
        for process in self.processes:
            process.look()

    def is_done(self) -> bool:
        return all(
            p in self.broker.committed and self.broker.committed[p].offset == RECORDS for p in range(PARTITIONS)
        ) and not (self.broker.waiting or self.broker.late)

    async def drain(self) -> None:
        """Bring all to its end with one worker, without any further fault."""
        self.broker.arrived = dict.fromkeys(LOGS, RECORDS)
        await self.processes[1].kill(silently=False)
        for member in [member for member in self.broker.members.values() if member.is_gone]:
            self.broker.leave(member)  # its session is over
        for number in range(ROUNDS):
            while self.broker.late:
                self.arrive(0)
            if number == 100:  # who left a transaction open, and is named nowhere, is waited for
                for writers in self.broker.writers.values():
                    writers.expire()
            self.processes[0].start()
            await self.round(100)
            self.check()
            if self.is_done():
                break
        else:
            raise AssertionError(f"no end: {self.broker.committed}, waiting {[r.name for r in self.broker.waiting]}")
        await self.processes[0].kill(silently=False)
        while self.broker.late:
            self.arrive(0)
        self.check()
        assert max(self.broker.published.values()) == 1


@pytest.fixture(autouse=True)
def _scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    def link(process: Process, *, transactional_id: str, group_id: str, **_: object) -> WorkerLink:
        return WorkerLink(process.machine.broker, transactional_id, group_id)

    monkeypatch.setattr(transactions, "_FIRST_PAUSE_S", 0)
    monkeypatch.setattr(writer, "BrokerLink", link)
    monkeypatch.setattr(clients, "Consumer", lambda process, *, listener, **_: process.consumer(listener))
    reader = lambda process, *, topic, **_: CheckpointReader(process.machine.broker, process.name, topic)  # noqa: E731
    monkeypatch.setattr(restore, "PartitionReader", reader)


@pytest.fixture(scope="module")
def telemetry() -> Iterator[Telemetry]:
    def heard(happening: Happening) -> None:
        assert not isinstance(happening, RestoreIrregular), happening

    telemetry = Telemetry(level="error", stream=io.StringIO(), heard=heard)
    yield telemetry
    telemetry.close()


def play(
    telemetry: Telemetry, moves: list[Move], *, v2: bool, aborts_when_raised: bool = True, rounds: int = 0
) -> Machine:
    """Run so many rounds without a fault, then the moves, then bring all to its end."""

    async def scenario() -> Machine:
        machine = Machine(telemetry, v2=v2, aborts_when_raised=aborts_when_raised)
        for process in machine.processes:
            process.start()
        await machine.quiet()
        for _ in range(rounds):
            await machine.round(2)
        for move in moves:
            await machine.do(move)
        await machine.drain()
        return machine

    return asyncio.run(scenario())


def plain(*ops: Op) -> list[Move]:
    return [Move(op, 0, 0) for op in ops]


@pytest.mark.parametrize("v2", [True, False], ids=["v2", "classic"])
def test_without_faults_none_dies(telemetry: Telemetry, v2: bool) -> None:
    """The harness itself."""
    moves = [Move(Op.ARRIVE, 0, 5), Move(Op.ARRIVE, 1, 5), *plain(*[Op.ROUND] * 40)]
    machine = play(telemetry, moves, v2=v2)
    assert machine.deaths == 2, "the two that are killed in the end"


@pytest.mark.parametrize("v2", [True, False], ids=["v2", "classic"])
def test_a_first_claim_that_a_rebalance_cuts_off_is_not_counted_as_made(telemetry: Telemetry, v2: bool) -> None:
    """Found by the machine: the next claim said that all partitions had an offset, and the other member refused."""

    async def scenario() -> None:
        machine = Machine(telemetry, v2=v2, aborts_when_raised=True)
        first, second = machine.processes
        broker = machine.broker

        async def answer_first(before: str) -> None:
            """Answer the first worker's requests until one of this name waits."""
            for _ in range(100):
                await machine.quiet()
                mine = [r for r in broker.waiting if r.link.process == first.name]
                if not mine or mine[0].name == before:
                    return
                settle(broker, mine[0], Fate.ANSWERED)
            raise AssertionError("no end")

        first.start()
        await answer_first("")
        broker.complete(0)
        await answer_first("TxnOffsetCommit")
        assert [r.name for r in broker.waiting] == ["TxnOffsetCommit"]
        second.start()
        await machine.quiet()
        assert first.member is not None
        first.member.heartbeat()
        await machine.quiet()
        broker.complete(0)
        await answer_first("")
        assert sorted(broker.committed) == [0], "the claim of both was refused, that of one was made"
        for _ in range(10):
            await machine.round(2)
        machine.check()
        assert sorted(broker.committed) == [0, 1]
        await machine.drain()

    asyncio.run(scenario())


@given(moves=MOVES, rounds=st.sampled_from([8, 12, 0]), v2=st.booleans(), aborts=st.booleans())
def test_any_interleaving_publishes_each_outcome_once(
    telemetry: Telemetry, moves: list[Move], rounds: int, v2: bool, aborts: bool
) -> None:
    """Committed records are at any moment those below the committed offsets, and in the end all of them."""
    play(telemetry, moves, v2=v2, aborts_when_raised=aborts, rounds=rounds)


@pytest.mark.parametrize("v2", [True, False], ids=["v2", "classic"])
@pytest.mark.parametrize("kind", KINDS)
def test_random_interleavings_publish_each_outcome_once(telemetry: Telemetry, kind: str, v2: bool) -> None:
    """As above, of moves that are evenly distributed: property tests favour short and repetitive ones."""
    ops = _ops(KINDS[kind])
    for seed in range(settings().max_examples * 3 // 4):
        chosen = random.Random(seed)
        moves = [Move(chosen.choice(ops), chosen.randrange(8), chosen.randrange(8)) for _ in range(100)]
        try:
            play(telemetry, moves, v2=v2, aborts_when_raised=bool(seed % 2), rounds=8)
        except Exception as error:
            error.add_note(f"in interleaving {seed}")
            raise
