"""A scripted broker for whole workers: a group with generations, source logs, and a transaction log for each writer.

Every request waits in `Broker.waiting` until a test answers it, loses it, or lets it arrive later, so a test chooses
the interleaving of several workers. Producers follow `scripted_cluster.Cluster`; batches are the writer's real bytes.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any

from aiokafka.record import MemoryRecords

from processor.core.effects import LogRecord, Record
from processor.core.offset_metadata import LogIdentity
from processor.errors import BrokerUnavailable
from processor.kafka.consumer import Committed, GroupToken, RebalanceListener
from processor.kafka.errors import OffsetsUnstable
from processor.kafka.transactions import Identity, NotSent, TopicPartitionKey, Unanswered
from tests.shell.scripted_cluster import Cluster, Fate, ScriptedLink

Out = tuple[str, bytes | None, bytes | None, tuple[tuple[str, bytes | None], ...]]
"""Topic, key, value and headers of a record that was written."""

NOT_COMMITTED = Committed(-1, "")
ILLEGAL_GENERATION = 22
STABLE = "OffsetFetch(stable)"


@dataclass(eq=False)
class Request:
    """One request on its way. `deliver` is what it does at the broker, `refused` what an error answer looks like."""

    link: WorkerLink | Member | CheckpointReader
    name: str
    deliver: Callable[[], Any]
    refused: Any
    answer: asyncio.Future[Any]

    @property
    def is_open(self) -> bool:
        return not self.answer.done()


@dataclass
class Broker:
    """Source logs, the group, its offsets, and all that writers have written."""

    log: dict[int, list[LogRecord]]
    checkpoint_topic: str
    v2: bool
    aborts_when_raised: bool
    arrived: dict[int, int] = field(default_factory=dict)
    """How many records of each log have been written by now."""
    committed: dict[int, Committed] = field(default_factory=dict)
    history: dict[int, list[Committed]] = field(default_factory=dict)
    published: Counter[Out] = field(default_factory=Counter)
    written: Counter[str] = field(default_factory=Counter)
    """Records by topic, those of aborted transactions too: what moves a high watermark."""
    checkpoints: dict[int, list[Record]] = field(default_factory=dict)
    writers: dict[str, Writers] = field(default_factory=dict)
    waiting: list[Request] = field(default_factory=list)
    late: list[Callable[[], Any]] = field(default_factory=list)
    generation: int = 0
    members: dict[str, Member] = field(default_factory=dict)
    joined: set[str] = field(default_factory=set)
    is_rebalancing: bool = False
    refused_tokens: int = 0
    decreased: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.arrived = dict.fromkeys(self.log, 0)
        self.checkpoints = {p: [] for p in self.log}
        self.history = {p: [] for p in self.log}

    def writer(self, transactional_id: str) -> Writers:
        if transactional_id not in self.writers:
            self.writers[transactional_id] = Writers(self.v2, self.aborts_when_raised, broker=self)
        return self.writers[transactional_id]

    async def ask(
        self, link: WorkerLink | Member | CheckpointReader, name: str, deliver: Callable[[], Any], refused: Any = None
    ) -> Any:
        request = Request(link, name, deliver, refused, asyncio.get_running_loop().create_future())
        self.waiting.append(request)
        try:
            return await request.answer
        except asyncio.CancelledError:
            if request in self.waiting:  # sent, and the asker is gone
                self.waiting.remove(request)
                self.late.append(deliver)
            raise

    # --- offsets ----------------------------------------------------------------------------------------------

    def unstable(self, partitions: Collection[int]) -> set[int]:
        return {p for writer in self.writers.values() if writer.open for p in writer.pending_offsets} & set(partitions)

    def offsets(self, partitions: Collection[int]) -> dict[int, Committed]:
        return {p: self.committed.get(p, NOT_COMMITTED) for p in partitions}

    def keep(self, offsets: Mapping[int, Committed]) -> None:
        for partition, committed in offsets.items():
            before = self.committed.get(partition, NOT_COMMITTED)
            if committed.offset < before.offset:
                self.decreased.append(f"partition {partition}: {before.offset}, then {committed.offset}")
            self.committed[partition] = committed
            self.history[partition].append(committed)

    # --- the group ----------------------------------------------------------------------------------------------

    def knows(self, token: GroupToken) -> bool:
        return token.generation == self.generation and token.member_id in self.members

    def join(self, member: Member) -> None:
        self.members[member.member_id] = member
        self.joined.add(member.member_id)
        self.is_rebalancing = True

    def leave(self, member: Member) -> None:
        if self.members.pop(member.member_id, None) is not None:
            self.joined.discard(member.member_id)
            self.is_rebalancing = True

    def all_have_joined(self) -> bool:
        """Whether a rebalance is under way and waits for nobody; those that are gone are not waited for."""
        return self.is_rebalancing and {name for name, m in self.members.items() if not m.is_gone} <= self.joined

    def complete(self, turn: int) -> None:
        """End the rebalance: who has not joined is evicted, the others share the partitions."""
        if not self.is_rebalancing or not self.joined:
            return
        self.members = {name: member for name, member in self.members.items() if name in self.joined}
        self.joined, self.is_rebalancing = set(), False
        self.generation += 1
        names = sorted(self.members)
        for number, name in enumerate(names):
            mine = [p for p in sorted(self.log) if (p + turn) % len(names) == number]
            self.members[name].told(self.generation, mine)


@dataclass
class Writers(Cluster):
    """The producers of one transactional id, one after the other, and their transaction."""

    broker: Broker = field(kw_only=True)
    wrote: list[tuple[TopicPartitionKey, Any]] = field(default_factory=list)

    def expire(self) -> None:
        """Abort a transaction that has been open for too long, as the coordinator does."""
        if self.open:
            self._end(commit=False)
            self.last_epoch, self.epoch = -1, self.epoch + 1

    def _append(self, place: TopicPartitionKey, batch: bytes) -> int:
        found = MemoryRecords(batch).next_batch()
        epoch, sequence = found.producer_epoch, found.base_sequence
        if epoch != self.epoch:
            return 47
        if self.v2:
            self._begin()
            self.added.add(place)
        elif not self.open or place not in self.added:
            return 48
        expected = self.sequences.get((place, epoch), 0)
        if sequence != expected:
            return 46 if sequence < expected else 45
        records = list(found)
        self.sequences[place, epoch] = expected + len(records)
        self.wrote += [(place, record) for record in records]
        self.broker.written[place[0]] += len(records)
        return 0

    def _offsets_code(self, identity: Identity, token: GroupToken) -> int:
        if identity.epoch != self.epoch:
            return 47
        if not self.broker.knows(token):
            self.broker.refused_tokens += 1
            return ILLEGAL_GENERATION
        if self.v2:
            self._begin()
            self.group_added = True
        elif not self.open or not self.group_added:
            return 48
        return 0

    def _end(self, *, commit: bool) -> None:
        if commit:
            for (topic, partition), record in self.wrote:
                if topic == self.broker.checkpoint_topic:
                    log = self.broker.checkpoints[partition]
                    log.append(LogRecord(len(log), record.timestamp, record.key, record.value))
                else:
                    self.broker.published[topic, record.key, record.value, tuple(record.headers)] += 1
            self.broker.keep(self.pending_offsets)
        self.wrote, self.pending_offsets = [], {}
        self.open, self.ended = False, commit


class WorkerLink(ScriptedLink):
    """`BrokerLink` to a `Broker`: each request waits there until the test says what becomes of it."""

    def __init__(self, broker: Broker, transactional_id: str, group_id: str) -> None:
        super().__init__(broker.writer(transactional_id), lambda: Fate.ANSWERED)
        self._broker, self._is_closed = broker, False
        self.process = transactional_id if group_id else ""
        """Whose it is; those of a takeover are not told apart."""
        self.client = SimpleNamespace(speaks=self._speaks)

    async def _speaks(self, *_: object) -> bool:
        return True

    async def open(self) -> None: ...

    def cut(self) -> None:
        """As a closed connection: what was sent may still arrive, and no answer comes any more."""
        self._is_closed = True
        for request in [r for r in self._broker.waiting if r.link is self]:
            self._broker.waiting.remove(request)
            self._broker.late.append(request.deliver)

    async def close(self) -> None:
        self.cut()

    async def partitions_of(self, topics: Collection[str]) -> dict[str, int]:
        return {t: len(self._broker.log) if t == self._broker.checkpoint_topic else 2 for t in topics}

    async def _request(self, name: str, deliver: Callable[[], Any], busy: Any) -> Any:
        if self._is_closed:
            await asyncio.Event().wait()  # the real one finds no connection until its time is up
        return await self._broker.ask(self, name, deliver, busy)

    async def stable_offsets(self, partitions: Collection[int], patience_s: float) -> dict[int, Committed] | None:
        def deliver() -> dict[int, Committed] | None:
            return None if self._broker.unstable(partitions) else self._broker.offsets(partitions)

        answer: dict[int, Committed] | None = await self._request("OffsetFetch(writer)", deliver, None)
        return answer


def settle(broker: Broker, request: Request, fate: Fate) -> None:
    """Let this become of a request that waits."""
    broker.waiting.remove(request)
    if fate is Fate.ANSWERED:
        answer = request.deliver()
    elif fate is Fate.BUSY and request.refused is not None:
        answer = request.refused
    else:
        if fate is Fate.ANSWER_LOST:
            request.deliver()
        elif fate is Fate.LATE:
            broker.late.append(request.deliver)
        error: Exception = NotSent(request.name) if fate in (Fate.NOT_SENT, Fate.BUSY) else Unanswered(request.name)
        if not isinstance(request.link, WorkerLink):
            error = BrokerUnavailable(f"{request.name}: no answer")
        request.answer.set_exception(error)
        return
    if isinstance(answer, Exception):
        request.answer.set_exception(answer)
    else:
        request.answer.set_result(answer)


class Member:
    """The worker's consumer, as a member of the scripted group. `seen`: the highest offsets that its process heard."""

    def __init__(
        self, broker: Broker, client_id: str, number: int, listener: RebalanceListener, seen: dict[int, int]
    ) -> None:
        self._broker, self._listener, self.seen = broker, listener, seen
        self.process = self.client_id = client_id
        self.member_id = f"{client_id}-{number}"
        self.is_gone = False
        """Killed: it says nothing to the group any more."""
        self._generation = -1
        self._assigned: list[int] = []
        self._positions: dict[int, int] = {}
        self._asked: tuple[int, ...] = ()
        self._limit = 0
        self._poll: asyncio.Future[None] | None = None
        self._in_hand: dict[int, list[Record]] | None = None
        self._revoking: asyncio.Task[None] | None = None
        self._kept: Exception | None = None

    # What the worker calls

    async def start(self) -> None:
        self._broker.join(self)

    async def stop(self, timeout_s: float) -> None:
        if self._revoking is not None:
            self._revoking.cancel()
            await asyncio.wait({self._revoking})
        if not self.is_gone:
            self.is_gone = True
            self._broker.leave(self)

    def token(self) -> GroupToken:
        return GroupToken(self._generation, self.member_id if self._generation >= 0 else "", None)

    async def poll(self, partitions: Collection[int], *, timeout_ms: int, max_records: int) -> dict[int, list[Record]]:
        self._raise_kept()
        self._asked, self._limit = tuple(partitions), max_records
        self._poll = asyncio.get_running_loop().create_future()
        await self._poll
        self._raise_kept()
        taken, self._in_hand = self._in_hand or {}, None
        return taken

    def hold(self, partitions: Collection[int]) -> None: ...

    def seek(self, partition: int, offset: int) -> None:
        assert partition in self._assigned
        self._positions[partition] = offset

    def position_now(self, partition: int) -> int | None:
        return self._positions.get(partition)

    def end_of(self, partition: int) -> tuple[int | None, int | None]:
        return self._broker.arrived[partition], self._broker.arrived[partition]

    async def stable_offsets(self, partitions: Collection[int], *, timeout_s: float) -> dict[int, Committed]:
        def deliver() -> dict[int, Committed] | Exception:
            pending = self._broker.unstable(partitions)
            stable = self._broker.offsets(set(partitions) - pending)
            if pending:
                return OffsetsUnstable("group: pending", partitions=pending, stable=stable)
            return stable

        answer: dict[int, Committed] = await self._broker.ask(self, STABLE, deliver)
        for partition, committed in answer.items():
            self.seen[partition] = max(self.seen.get(partition, -1), committed.offset)
        return answer

    async def pending_owners(self, partitions: Collection[int]) -> dict[int, Committed]:
        return self._broker.offsets(partitions)

    async def member_clients(self) -> frozenset[str]:
        return frozenset(member.client_id for member in self._broker.members.values())

    async def begin_offsets(self, partitions: Collection[int]) -> dict[int, int]:
        return dict.fromkeys(partitions, 0)

    async def end_offsets(self, partitions: Collection[int]) -> dict[int, int]:
        return {p: self._broker.arrived[p] for p in partitions}

    async def log_identity(self) -> LogIdentity:
        return LogIdentity("cluster", "topic")

    def partitions_of_topic(self) -> int:
        return len(self._broker.log)

    async def claim(self, offsets: Mapping[int, Committed]) -> None:
        raise AssertionError("exactly once claims in a transaction")

    # What the broker and the test do

    @property
    def is_polling(self) -> bool:
        return self._poll is not None and not self._poll.done()

    def take(self, limit: int) -> None:
        """Fetch records for the poll that waits; the positions have moved, and the worker has them only at `wake`."""
        if not self.is_polling or self._in_hand is not None:
            return
        self._in_hand, left = {}, min(limit, self._limit)
        for partition in self._asked:
            at = self._positions[partition]
            records = self._broker.log[partition][at : min(at + left, self._broker.arrived[partition])]
            if records and partition in self._assigned:
                self._in_hand[partition] = [*records]
                self._positions[partition] = records[-1].offset + 1
                left -= len(records)

    def wake(self) -> None:
        """End the poll that waits, with what is in hand."""
        if self._poll is not None and not self._poll.done():
            self._poll.set_result(None)

    def heartbeat(self, *, wakes: bool = True) -> None:
        """Hear from the group: a rebalance has begun, or we are no member any more."""
        if self.is_gone or self._revoking is not None or self._kept is not None:
            return
        is_member = self.member_id in self._broker.members
        if is_member and (not self._broker.is_rebalancing or self.member_id in self._broker.joined):
            return
        if not is_member:
            self._generation = -1
        if wakes:
            self.wake()
        self._revoking = asyncio.create_task(self._revoke(), name="revoke")

    async def _revoke(self) -> None:
        try:
            await self._listener.revoked(sorted(self._assigned))
        except Exception as error:
            self._kept = self._kept or error
            self.wake()
        self._assigned, self._revoking = [], None
        if self.member_id not in self._broker.members:
            self.member_id += "+"  # an evicted member joins as a new one
        self._broker.join(self)  # the library joins also after an error; the next poll raises it

    def told(self, generation: int, partitions: list[int]) -> None:
        """The group has answered the join."""
        if self.is_gone:
            return
        self._generation, self._assigned, self._positions = generation, partitions, {}
        try:
            self._listener.assigned(partitions)
        except Exception as error:
            self._kept = self._kept or error
        self.wake()

    def _raise_kept(self) -> None:
        if self._kept is not None:
            raise self._kept


class CheckpointReader:
    """`PartitionReader` of a scripted topic: the checkpoints as they are committed, of others only where they end."""

    def __init__(self, broker: Broker, process: str, topic: str) -> None:
        self._broker, self.process, self._topic = broker, process, topic

    async def start(self) -> None: ...

    async def stop(self, timeout_s: float) -> None: ...

    async def __aenter__(self) -> CheckpointReader:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    def partitions_of_topic(self) -> int:
        return 1

    async def begin_offsets(self, partitions: Collection[int]) -> dict[int, int]:
        return dict.fromkeys(partitions, 0)

    async def end_offsets(self, partitions: Collection[int]) -> dict[int, int]:
        return dict.fromkeys(partitions, self._broker.written[self._topic])

    async def read_each_to(
        self, begins: Mapping[int, int], *_: object
    ) -> AsyncGenerator[tuple[dict[int, list[Record]], set[int]], None]:
        waiting = set(begins)
        while waiting:
            taken: dict[int, list[Record]] = await self._broker.ask(
                self, "Fetch(checkpoints)", partial(self._read, frozenset(waiting))
            )
            waiting -= taken.keys()
            yield taken, set(taken)

    def _read(self, partitions: Collection[int]) -> dict[int, list[Record]]:
        """Those that no open transaction holds: others are read once it has ended."""
        held = {
            partition
            for writer in self._broker.writers.values()
            for (topic, partition), _ in writer.wrote
            if topic == self._topic
        }
        return {p: list(self._broker.checkpoints[p]) for p in partitions if p not in held}
