"""Transaction protocol of one producer: requests, what each answer means, and what follows a lost one.

A request whose connection dies may still reach the broker seconds later, and is then valid for the transaction that is
open in the same producer epoch. So the rule is: after a request that may have been sent and was not answered, nothing
is sent in that epoch but the end of the transaction.

On clusters with transaction.version 2 (KIP-890, Kafka 4.0+) `EndTxn` raises the epoch itself, saying the same `EndTxn`
again is answered with the same next epoch, and any late copy is refused. On older ones a transaction with a lost answer
is aborted, the epoch is raised in place (`InitProducerId` with the old id and epoch, KIP-360), and the group's offsets
are read back before anything else is written. Up to Kafka 3.9 partition leaders and group coordinators learn of a
raised epoch late, which leaves a narrow hole; docs/reliability.md says from which version on what holds.

Nothing here opens a connection: that is `Link` (kafka/link.py), or a scripted broker in the tests.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol, TypeVar

from aiokafka import errors
from aiokafka.errors import for_code

from processor.errors import BrokerUnavailable, Fenced, RunStepsError
from processor.kafka import error_codes
from processor.kafka.consumer import Committed, GroupToken
from processor.kafka.errors import RecordTooLarge, translate

_Answer = TypeVar("_Answer")

FIRST_PATIENCE_S: Final = 1.5
"""Timeout of the first request of a kind; each further try has twice as much."""
_FIRST_PAUSE_S: Final = 0.002
_LONGEST_PAUSE_S: Final = 0.05
_PRODUCE_BYTES: Final = 8 << 20
_SEQUENCES: Final = 1 << 31

# What may follow an error code. All of these come from a broker that has done nothing, or that recognises a repeat.
_AGAIN: Final = frozenset({3, 5, 6, 7, 14, 15, 16, 19, 20, 51, 56, 89})
"""Send the same request again: unknown topic (yet), leader or coordinator moved, timeouts, replicas, throttling."""
_CONCURRENT: Final = 51
_MOVED: Final = frozenset({3, 5, 6, 14, 15, 16, 56})
"""Look up leader and coordinator again first."""
_DUPLICATE: Final = 46
_ABORTABLE: Final = frozenset({45, 120})
"""Out-of-order sequence, transaction abortable: abort, and write the unit anew."""
_TOO_LARGE: Final = frozenset({10, 18})
_GROUP_FENCED: Final = frozenset({*(error.errno for error in error_codes.GROUP_FENCED), 27})
_REFUSED: Final = frozenset({2, 10, 12, 17, 18, 29, 30, 31, 32, 44, 76, 87})
"""The broker does not take what this unit holds: abort, and raise. The writer is in order."""


class Identity(NamedTuple):
    """Producer id and epoch (KIP-98)."""

    producer_id: int
    epoch: int


NO_IDENTITY: Final = Identity(-1, -1)


class Unanswered(Exception):
    """A request that may have reached the broker, and whose answer did not come."""


class NotSent(Exception):
    """A request that was certainly not sent: no connection, no known leader or coordinator."""


class Batch(Protocol):
    """Records of one partition that are written at once."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def count(self) -> int: ...
    @property
    def largest(self) -> int:
        """Size of the largest record in bytes."""

    def payload(self, identity: Identity, sequence: int) -> bytes:
        """The bytes of the batch, written by this producer; may be asked for once."""

    def written(self, offset: int) -> None:
        """The broker has it from this offset on; -1: it does not say where."""


class Produced(NamedTuple):
    code: int
    offset: int


TopicPartitionKey = tuple[str, int]


class Link(Protocol):
    """The requests of one transactional producer, each sent once at the most.

    Every method raises `Unanswered` or `NotSent`; `RunStepsError` where the broker cannot be asked at all. Codes are
    Kafka's error codes, 0 is none. `v2` chooses the request's form for transaction.version 2.
    """

    async def transaction_version(self, patience_s: float) -> int: ...
    async def init_producer(self, identity: Identity, patience_s: float, *, v2: bool) -> tuple[int, Identity]: ...
    async def add_partitions(
        self, identity: Identity, topic_partitions: Collection[TopicPartitionKey], patience_s: float
    ) -> Mapping[TopicPartitionKey, int]: ...
    async def add_group(self, identity: Identity, patience_s: float) -> int: ...
    async def produce(
        self, node: int, batches: Mapping[TopicPartitionKey, bytes], patience_s: float, *, v2: bool
    ) -> Mapping[TopicPartitionKey, Produced]: ...
    async def commit_offsets(
        self,
        identity: Identity,
        token: GroupToken,
        offsets: Mapping[int, Committed],
        patience_s: float,
        *,
        v2: bool,
    ) -> Mapping[int, int]: ...
    async def end(self, identity: Identity, patience_s: float, *, commit: bool, v2: bool) -> tuple[int, Identity]: ...
    async def stable_offsets(self, partitions: Collection[int], patience_s: float) -> Mapping[int, Committed] | None:
        """The group's committed offsets; None while a transaction may still change them."""

    def leader(self, place: TopicPartitionKey) -> int | None: ...
    async def refresh(self, patience_s: float) -> None:
        """Forget coordinators, ask for leaders. Never raises for want of an answer."""


class _InDoubt(Exception):
    """A request of the transaction may have been sent and was not answered, or the broker asks to abort it."""


class _GroupFenced(Exception):
    """The group does not know this member, or not in this generation."""


class Transactions:
    """The transactions of one producer, one after the other.

    Args:
        where: begins the message of every error.
        group_id, source_topic: whose offsets are committed, for messages.
    """

    def __init__(self, link: Link, *, where: str, group_id: str, source_topic: str) -> None:
        self._link, self._where = link, where
        self._group, self._topic = group_id, source_topic
        self._identity = NO_IDENTITY
        self._sequences: defaultdict[TopicPartitionKey, int] = defaultdict(int)
        self._known: dict[int, Committed] = {}
        self.v2 = False
        self.found_open = False
        """Whether `start` found a transaction of the id that was not ended."""
        self.recovered = 0
        """Number of transactions that were repeated after a lost response."""

    async def start(self) -> None:
        """Get the producer id; that aborts what an earlier incarnation of the transactional id left open.

        A repeated request is harmless here: a late copy fences us, which ends this writer, and the log decides.
        """
        self.v2 = await self._until_answered(self._link.transaction_version) >= 2

        def code_of(answer: tuple[int, Identity]) -> int:
            self.found_open = self.found_open or answer[0] == _CONCURRENT
            return answer[0]

        code, identity = await self._coded(
            lambda patience_s: self._link.init_producer(NO_IDENTITY, patience_s, v2=self.v2), first=code_of
        )
        self._require(code)
        self._become(identity)

    async def commit(
        self,
        batches: Callable[[], Iterable[Batch]],
        offsets: Mapping[int, Committed],
        token: GroupToken,
        require_token: Callable[[], None],
    ) -> RunStepsError | None:
        """Write batches and offsets in one transaction, anew as often as answers are lost.

        Args:
            batches: makes the batches, for each attempt afresh.
            require_token: raises `Fenced` once the group has moved on.

        Returns:
            None when it is committed; the reason when it is aborted (`Fenced`, `RecordTooLarge`, `BrokerRefused`): the
            producer is in order then.

        Raises:
            RunStepsError: the outcome is unknown, or this producer is fenced: it must not be used any more.
        """
        patience_s = FIRST_PATIENCE_S
        while True:
            try:
                await self._write(list(batches()), offsets, token, patience_s)
                require_token()
            except (_GroupFenced, Fenced, _Refusal) as reason:
                await self._abort(offsets, in_doubt=False)
                if isinstance(reason, Fenced):
                    return reason
                return translate(reason.__cause__ or reason, f"group {self._group}")
            except _InDoubt:
                await self._abort(offsets, in_doubt=True)
            else:
                if await self._commit(offsets):
                    return None
            self.recovered += 1
            patience_s *= 2

    # --- the parts of a transaction ---------------------------------------------------------------------------

    async def _write(
        self, batches: Sequence[Batch], offsets: Mapping[int, Committed], token: GroupToken, patience_s: float
    ) -> None:
        """Records and offsets, side by side. All requests are answered or given up when this returns or raises."""
        if batches and not self.v2:
            # Data before offsets: whichever request comes first waits for the last transaction's markers.
            await self._add_partitions({(b.topic, b.partition) for b in batches}, patience_s)
        work: list[Awaitable[None]] = []
        if batches:
            work.append(self._produce(batches, patience_s))
        if offsets:
            work.append(self._commit_offsets(offsets, token, patience_s))
        outcomes = await asyncio.gather(*work, return_exceptions=True)
        # What ends the writer comes before what ends the transaction, a lost answer before a refusal.
        failed = [outcome for outcome in outcomes if outcome is not None]
        for kinds in ((RunStepsError,), (_InDoubt,), (_GroupFenced, _Refusal), (BaseException,)):
            for outcome in failed:
                if isinstance(outcome, kinds):
                    raise outcome

    async def _add_partitions(self, topic_partitions: Collection[TopicPartitionKey], patience_s: float) -> None:
        await self._all_answered(
            lambda left: self._link.add_partitions(self._identity, left, patience_s), topic_partitions, lambda _: None
        )

    async def _produce(self, batches: Sequence[Batch], patience_s: float) -> None:
        """Write the batches; those of one partition one after the other."""
        waiting: defaultdict[TopicPartitionKey, list[Batch]] = defaultdict(list)
        for batch in reversed(batches):
            waiting[batch.topic, batch.partition].append(batch)
        while waiting:
            turn = {place: queue.pop() for place, queue in waiting.items()}
            waiting = defaultdict(list, {place: queue for place, queue in waiting.items() if queue})
            await self._produce_turn(turn, patience_s)

    async def _produce_turn(self, turn: Mapping[TopicPartitionKey, Batch], patience_s: float) -> None:
        """Write one batch of each partition. One that is sent again has the sequence number of the first time."""
        payloads: dict[TopicPartitionKey, bytes] = {}
        for place, batch in turn.items():
            sequence = self._sequences[place]
            payloads[place] = batch.payload(self._identity, sequence)
            self._sequences[place] = (sequence + batch.count) % _SEQUENCES

        def done(place: TopicPartitionKey, answer: Produced) -> None:
            turn[place].written(answer.offset)

        async def ask(left: Collection[TopicPartitionKey]) -> Mapping[TopicPartitionKey, Produced]:
            by_node: defaultdict[int, list[TopicPartitionKey]] = defaultdict(list)
            for place in left:
                node = self._link.leader(place)
                if node is not None:
                    by_node[node].append(place)
            if not by_node:
                raise NotSent("no leader is known")
            asking = [
                self._link.produce(node, {place: payloads[place] for place in chunk}, patience_s, v2=self.v2)
                for node, topic_partitions in by_node.items()
                for chunk in _chunks(topic_partitions, payloads)
            ]
            answers: dict[TopicPartitionKey, Produced] = {}
            unsent: NotSent | None = None
            failure: BaseException | None = None
            for answer in await asyncio.gather(*asking, return_exceptions=True):
                if isinstance(answer, NotSent):
                    unsent = answer
                elif isinstance(answer, BaseException):
                    failure = failure or answer
                else:
                    answers.update(answer)
            if failure is not None:
                raise failure
            if unsent is not None and not answers:
                raise unsent
            return answers

        await self._all_answered(ask, turn, done, turn)

    async def _commit_offsets(self, offsets: Mapping[int, Committed], token: GroupToken, patience_s: float) -> None:
        if not self.v2:
            code = await self._coded(
                lambda _: self._link.add_group(self._identity, patience_s), first=int, doubt=_InDoubt
            )
            self._require(code)
        await self._all_answered(
            lambda left: self._link.commit_offsets(
                self._identity, token, {p: offsets[p] for p in left}, patience_s, v2=self.v2
            ),
            offsets,
            lambda *_: None,
        )

    async def _commit(self, offsets: Mapping[int, Committed]) -> bool:
        """End the transaction with a commit. False: it is aborted, and must be written anew."""
        if self.v2:
            await self._end_v2(commit=True)
            self._known.update(offsets)
            return True
        try:
            code, _ = await self._coded(
                lambda patience_s: self._link.end(self._identity, patience_s, commit=True, v2=False),
                first=lambda a: a[0],
                doubt=_InDoubt,
            )
        except _InDoubt:
            return await self._settle(offsets, may_be_committed=True)
        self._require(code)
        self._known.update(offsets)
        return True

    async def _abort(self, offsets: Mapping[int, Committed], *, in_doubt: bool) -> None:
        if self.v2:
            await self._end_v2(commit=False)
        else:
            await self._settle(offsets if in_doubt else {}, may_be_committed=False)

    async def _end_v2(self, *, commit: bool) -> None:
        """`EndTxn` v5, the same bytes until it is answered: the broker gives a repeat the same answer (KIP-890)."""
        identity = self._identity

        async def end(patience_s: float) -> tuple[int, Identity]:
            return await self._link.end(identity, patience_s, commit=commit, v2=True)

        code, following = await self._coded(end, first=lambda a: a[0])
        self._require(code)
        self._become(following)

    async def _settle(self, offsets: Mapping[int, Committed], *, may_be_committed: bool) -> bool:
        """Before version 2: end the transaction, raise the epoch, and see in the group's offsets how it ended.

        Returns whether it is committed. An `EndTxn` that may still be under way belongs to the old epoch from then on.
        """
        try:
            code, _ = await self._coded(
                lambda patience_s: self._link.end(self._identity, patience_s, commit=False, v2=False),
                first=lambda a: a[0],
                doubt=_InDoubt,
            )
            if code != errors.InvalidTxnState.errno:  # 48: nothing is open, it has been ended before
                self._require(code)
        except _InDoubt:
            pass
        # Repeating this one is safe: the broker knows the epoch before the current one, and answers the same.
        code, identity = await self._coded(
            lambda patience_s: self._link.init_producer(self._identity, patience_s, v2=False), first=lambda a: a[0]
        )
        self._require(code)
        self._become(identity)
        if not offsets:
            if may_be_committed:
                raise BrokerUnavailable(
                    f"{self._where}: no answer to a commit without offsets", hint="the log says how it ended"
                )
            return False
        return await self._read_back(offsets, may_be_committed=may_be_committed)

    async def _read_back(self, offsets: Mapping[int, Committed], *, may_be_committed: bool) -> bool:
        found: Mapping[int, Committed] | None = None
        pause_s = _FIRST_PAUSE_S
        while found is None:
            found = await self._until_answered(lambda patience_s: self._link.stable_offsets(list(offsets), patience_s))
            if found is None:
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        if may_be_committed and all(found.get(p) == mine for p, mine in offsets.items()):
            self._known.update(offsets)
            return True
        for partition, mine in offsets.items():
            stands, before = found.get(partition), self._known.get(partition)
            if stands == mine or (before is not None and stands != before):
                raise BrokerUnavailable(
                    f"{self._where}: partition {partition}: the group's offset is not what was committed last "
                    f"(got {stands.offset if stands else None}, expected {before.offset if before else mine.offset})",
                    hint="a late request of an ended transaction moved it; a new writer starts from the log",
                )
        return False

    # --- asking ------------------------------------------------------------------------------------------------

    async def _all_answered(
        self,
        ask: Callable[[Collection[Any]], Awaitable[Mapping[Any, Any]]],
        wanted: Collection[Any],
        done: Callable[..., None],
        batches: Mapping[TopicPartitionKey, Batch] | None = None,
    ) -> None:
        """Ask about all of `wanted`, again for those whose answer allows it, until each is done.

        Raises:
            _InDoubt, _GroupFenced, _Refusal, RunStepsError
        """
        left = set(wanted)
        pause_s = _FIRST_PAUSE_S
        while left:
            try:
                answers = await ask(sorted(left))
            except Unanswered as error:
                raise _InDoubt from error
            except NotSent:
                answers = {}
            moved = len(answers) < len(left)
            for place, answer in answers.items():
                code = answer.code if isinstance(answer, Produced) else answer
                if code in (0, _DUPLICATE):
                    if isinstance(answer, Produced):
                        done(place, answer if code == 0 else Produced(code, -1))
                    left.discard(place)
                elif code in _AGAIN:
                    moved = moved or code in _MOVED
                else:
                    self._raise_for(code, place, batches)
            if left:
                if moved:
                    await self._link.refresh(FIRST_PATIENCE_S)
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def _coded(
        self,
        ask: Callable[[float], Awaitable[_Answer]],
        *,
        first: Callable[[_Answer], int],
        doubt: type[Exception] | None = None,
    ) -> _Answer:
        """Ask until the answer's code is none of those that allow another try.

        `doubt`: raised when an answer is lost; None: the request may be repeated.
        """
        pause_s, patience_s = _FIRST_PAUSE_S, FIRST_PATIENCE_S
        while True:
            moved = True
            try:
                answer = await ask(patience_s)
            except Unanswered as error:
                if doubt is not None:
                    raise doubt from error
                patience_s *= 2
            except NotSent:
                pass
            else:
                code = first(answer)
                if code not in _AGAIN:
                    return answer
                moved = code in _MOVED
            if moved:
                await self._link.refresh(FIRST_PATIENCE_S)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def _until_answered(self, ask: Callable[[float], Awaitable[_Answer]]) -> _Answer:
        return await self._coded(ask, first=lambda _: 0)

    def _require(self, code: int) -> None:
        if code:
            raise translate(for_code(code)(), self._where)

    def _raise_for(self, code: int, place: Any, batches: Mapping[TopicPartitionKey, Batch] | None) -> None:
        if code in _GROUP_FENCED:
            raise _GroupFenced from for_code(code)(self._group)
        if code in _ABORTABLE:
            raise _InDoubt from for_code(code)()
        if code in _TOO_LARGE and batches is not None:
            raise _Refusal from RecordTooLarge(place[0], batches[place].largest, records=batches[place].count)
        topic, partition = place if isinstance(place, tuple) else (self._topic, place)
        error = translate(for_code(code)(), f"{self._where}: topic {topic}: partition {partition}")
        if code in _REFUSED:
            raise _Refusal from error
        raise error

    def _become(self, identity: Identity) -> None:
        if identity != self._identity:
            self._identity = identity
            self._sequences.clear()


class _Refusal(Exception):
    """The broker does not take what the unit holds; its cause is the error to raise."""


def _chunks(
    topic_partitions: Sequence[TopicPartitionKey], payloads: Mapping[TopicPartitionKey, bytes]
) -> Iterable[list[TopicPartitionKey]]:
    """Parts of a request that a broker takes at once (socket.request.max.bytes is 100 MiB by default)."""
    chunk: list[TopicPartitionKey] = []
    size = 0
    for place in topic_partitions:
        if chunk and size + len(payloads[place]) > _PRODUCE_BYTES:
            yield chunk
            chunk, size = [], 0
        chunk.append(place)
        size += len(payloads[place])
    yield chunk
