"""A scripted Kafka cluster: what coordinators and leaders do with the requests of one transactional producer.

It answers as Apache Kafka does, measured on 4.4.0, 4.1.1 and 4.0.0: with transaction.version 2 (KIP-890) or before it,
there from 4.0 on, where a raised epoch is known to all. It shares no code with `processor.kafka.transactions`. A test
decides of every request whether it is answered, its answer is lost, it arrives later, or it is never sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

from processor.kafka.consumer import Committed, GroupToken
from processor.kafka.transactions import NO_IDENTITY, Identity, NotSent, Produced, TopicPartitionKey, Unanswered

PRODUCER_ID = 7
TOKEN = GroupToken(1, "member", None)


class Fate(Enum):
    """What becomes of one request."""

    ANSWERED = auto()
    ANSWER_LOST = auto()
    LATE = auto()
    """The connection breaks; the broker gets the bytes at some later time."""
    LOST = auto()
    NOT_SENT = auto()
    BUSY = auto()
    """Answered with an error that allows another try; nothing is done."""


@dataclass
class Cluster:
    """State of one transactional id, the partitions it writes to, and the group's offsets."""

    v2: bool
    aborts_when_raised: bool = True
    """Whether raising the epoch aborts an open transaction (4.4.0), or is refused (most others)."""
    epoch: int = -1
    last_epoch: int = -1
    open: bool = False
    ended: bool | None = None
    """How the last transaction ended: True by a commit; None: there was none in this epoch."""
    added: set[TopicPartitionKey] = field(default_factory=set)
    group_added: bool = False
    pending: list[tuple[TopicPartitionKey, str]] = field(default_factory=list)
    pending_offsets: dict[int, Committed] = field(default_factory=dict)
    sequences: dict[tuple[TopicPartitionKey, int], int] = field(default_factory=dict)
    visible: list[str] = field(default_factory=list)
    offsets: dict[int, Committed] = field(default_factory=dict)
    went_back: list[tuple[int, int]] = field(default_factory=list)

    # --- requests ---------------------------------------------------------------------------------------------

    def init_producer(self, identity: Identity) -> tuple[int, Identity]:
        if identity != NO_IDENTITY:
            if identity.epoch not in (self.epoch, self.last_epoch):
                return 90, NO_IDENTITY
            if self.open and (identity.epoch != self.epoch or not self.aborts_when_raised):
                if identity.epoch == self.epoch:
                    return 90, NO_IDENTITY
                # A late repeat inside the next transaction: that is aborted, and its producer fenced.
                self._end(commit=False)
                self.last_epoch, self.epoch = -1, self.epoch + 1
                return 51, NO_IDENTITY
            if identity.epoch == self.last_epoch:
                return 0, Identity(PRODUCER_ID, self.epoch)
        if self.open:
            self._end(commit=False)
        self.last_epoch = identity.epoch if identity != NO_IDENTITY else -1
        self.epoch += 1
        self.ended = None
        return 0, Identity(PRODUCER_ID, self.epoch)

    def add_partitions(
        self, identity: Identity, topic_partitions: Collection[TopicPartitionKey]
    ) -> dict[TopicPartitionKey, int]:
        if identity.epoch != self.epoch:
            return dict.fromkeys(topic_partitions, 47)
        self._begin()
        self.added.update(topic_partitions)
        return dict.fromkeys(topic_partitions, 0)

    def add_group(self, identity: Identity) -> int:
        if identity.epoch != self.epoch:
            return 47
        self._begin()
        self.group_added = True
        return 0

    def produce(self, batches: Mapping[TopicPartitionKey, bytes]) -> dict[TopicPartitionKey, Produced]:
        return {place: Produced(self._append(place, batch), -1) for place, batch in batches.items()}

    def commit_offsets(self, identity: Identity, token: GroupToken, offsets: Mapping[int, Committed]) -> dict[int, int]:
        code = self._offsets_code(identity, token)
        if code == 0:
            self.pending_offsets.update(offsets)
        return dict.fromkeys(offsets, code)

    def end(self, identity: Identity, *, commit: bool) -> tuple[int, Identity]:
        now = Identity(PRODUCER_ID, self.epoch)
        if self.v2:
            if identity.epoch == self.epoch and (self.open or not commit):
                self._end(commit=commit)
                self.last_epoch, self.epoch = self.epoch, self.epoch + 1
                return 0, Identity(PRODUCER_ID, self.epoch)
            if identity.epoch == self.epoch:
                return 48, NO_IDENTITY
            if identity.epoch == self.last_epoch and not self.open:
                return (0, now) if self.ended is commit else (48, NO_IDENTITY)
            return 90, NO_IDENTITY
        if identity.epoch != self.epoch:
            return 90, NO_IDENTITY
        if self.open:
            self._end(commit=commit)
            return 0, now
        return (0, now) if self.ended is commit else (48, NO_IDENTITY)

    # --- what they do -----------------------------------------------------------------------------------------

    def _begin(self) -> None:
        if not self.open:
            self.open, self.added, self.group_added = True, set(), False

    def _append(self, place: TopicPartitionKey, batch: bytes) -> int:
        epoch, sequence, name = batch.decode().split("|")
        if int(epoch) != self.epoch:
            return 47
        if self.v2:
            self._begin()
            self.added.add(place)
        elif not self.open or place not in self.added:
            return 48
        expected = self.sequences.get((place, int(epoch)), 0)
        if int(sequence) != expected:
            return 46 if int(sequence) < expected else 45
        self.sequences[place, int(epoch)] = expected + 1
        self.pending.append((place, name))
        return 0

    def _offsets_code(self, identity: Identity, token: GroupToken) -> int:
        if identity.epoch != self.epoch:
            return 47
        if token != TOKEN:
            return 22
        if self.v2:
            self._begin()
            self.group_added = True
        elif not self.open or not self.group_added:
            return 48
        return 0

    def _end(self, *, commit: bool) -> None:
        if commit:
            self.visible += [name for _, name in self.pending]
            for partition, committed in self.pending_offsets.items():
                before = self.offsets.get(partition, Committed(-1, "")).offset
                if committed.offset < before:
                    self.went_back.append((before, committed.offset))
                self.offsets[partition] = committed
        self.pending, self.pending_offsets = [], {}
        self.open, self.ended = False, commit


class ScriptedLink:
    """`transactions.Link` to a `Cluster`.

    Args:
        fate: of the next request.
        arrivals: how many of so many late requests reach the cluster now.
        turns: how often other requests have their turn before this one.
    """

    def __init__(
        self,
        cluster: Cluster,
        fate: Callable[[], Fate],
        arrivals: Callable[[int], int] = lambda waiting: 0,
        turns: Callable[[], int] = lambda: 0,
        late: list[Callable[[], Any]] | None = None,
    ) -> None:
        self.cluster, self._fate, self._arrivals, self._turns = cluster, fate, arrivals, turns
        self.late = [] if late is None else late
        self.sent: list[str] = []

    async def _request(self, name: str, deliver: Callable[[], Any], busy: Any) -> Any:
        for _ in range(self._turns()):
            await asyncio.sleep(0)
        for _ in range(self._arrivals(len(self.late))):
            self.late.pop(0)()
        fate = self._fate()
        if fate is not Fate.NOT_SENT:
            self.sent.append(name)
        if fate is Fate.ANSWERED:
            return deliver()
        if fate is Fate.BUSY:
            return busy
        if fate is Fate.NOT_SENT:
            raise NotSent(name)
        if fate is Fate.ANSWER_LOST:
            deliver()
        elif fate is Fate.LATE:
            self.late.append(deliver)
        raise Unanswered(name)

    async def transaction_version(self, patience_s: float) -> int:
        return 2 if self.cluster.v2 else 1

    async def init_producer(self, identity: Identity, patience_s: float, *, v2: bool) -> tuple[int, Identity]:
        deliver = lambda: self.cluster.init_producer(identity)  # noqa: E731
        answer: tuple[int, Identity] = await self._request("InitProducerId", deliver, (16, NO_IDENTITY))
        return answer

    async def add_partitions(
        self, identity: Identity, topic_partitions: Collection[TopicPartitionKey], patience_s: float
    ) -> dict[TopicPartitionKey, int]:
        busy = dict.fromkeys(topic_partitions, 51)
        deliver = lambda: self.cluster.add_partitions(identity, topic_partitions)  # noqa: E731
        answer: dict[TopicPartitionKey, int] = await self._request("AddPartitionsToTxn", deliver, busy)
        return answer

    async def add_group(self, identity: Identity, patience_s: float) -> int:
        answer: int = await self._request("AddOffsetsToTxn", lambda: self.cluster.add_group(identity), 51)
        return answer

    async def produce(
        self, node: int, batches: Mapping[TopicPartitionKey, bytes], patience_s: float, *, v2: bool
    ) -> dict[TopicPartitionKey, Produced]:
        busy = dict.fromkeys(batches, Produced(6, -1))
        answer: dict[TopicPartitionKey, Produced] = await self._request(
            "Produce", lambda: self.cluster.produce(batches), busy
        )
        return answer

    async def commit_offsets(
        self,
        identity: Identity,
        token: GroupToken,
        offsets: Mapping[int, Committed],
        patience_s: float,
        *,
        v2: bool,
    ) -> dict[int, int]:
        deliver = lambda: self.cluster.commit_offsets(identity, token, offsets)  # noqa: E731
        answer: dict[int, int] = await self._request("TxnOffsetCommit", deliver, dict.fromkeys(offsets, 14))
        return answer

    async def end(self, identity: Identity, patience_s: float, *, commit: bool, v2: bool) -> tuple[int, Identity]:
        name = f"EndTxn({'commit' if commit else 'abort'})"
        deliver = lambda: self.cluster.end(identity, commit=commit)  # noqa: E731
        answer: tuple[int, Identity] = await self._request(name, deliver, (51, NO_IDENTITY))
        return answer

    async def stable_offsets(self, partitions: Collection[int], patience_s: float) -> dict[int, Committed] | None:
        if self.cluster.open and self.cluster.pending_offsets:
            return None
        return {p: self.cluster.offsets.get(p, Committed(-1, "")) for p in partitions}

    def leader(self, place: TopicPartitionKey) -> int | None:
        return place[1] % 2

    async def refresh(self, patience_s: float) -> None:
        await asyncio.sleep(0)


@dataclass
class ScriptedBatch:
    """One record named `name` (`transactions.Batch`)."""

    topic: str
    partition: int
    name: str
    count: int = 1
    largest: int = 100
    offsets: list[int] = field(default_factory=list)

    def payload(self, identity: Identity, sequence: int) -> bytes:
        return f"{identity.epoch}|{sequence}|{self.name}".encode()

    def written(self, offset: int) -> None:
        self.offsets.append(offset)
