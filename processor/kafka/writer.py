# mypy: allow-subclassing-any, disable-error-code=has-type
"""Writers of units: records and source offsets, all of it or nothing (exactly once), or at least once.

A writer ends with its first error that is not a clean abort: what the broker did last is then unknown, and only the
log can tell. Make a new one with the same transactional id (that settles whatever is open), read the offsets again.
What is done about a lost answer stands in kafka/transactions.py.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import zip_longest
from types import MappingProxyType
from typing import Any, Final, Protocol

from aiokafka import AIOKafkaProducer
from aiokafka.errors import MessageSizeTooLargeError, ProducerClosed, RecordListTooLargeError
from aiokafka.producer import sender
from aiokafka.producer.message_accumulator import BatchBuilder, MessageAccumulator
from aiokafka.producer.transaction_manager import TransactionManager

from processor.errors import BrokerRefused, BrokerUnavailable, Fenced
from processor.kafka import pinned, wire
from processor.kafka.client import Client, silence
from processor.kafka.consumer import Committed, GroupToken
from processor.kafka.link import BrokerLink
from processor.kafka.pinned import rebound
from processor.kafka.raw_names import RawNamesBatch
from processor.kafka.records import (
    BATCH_OVERHEAD_BYTES,
    DEFAULT_MAX_MESSAGE_BYTES,
    OutRecord,
    batch_bytes,
    compression_growth_bytes,
    partition_of,
)
from processor.kafka.security import Connection, explained
from processor.kafka.transactions import Identity, Transactions
from processor.kafka.trouble import RecordTooLarge, translated

_RETRY_BACKOFF_MS: Final = 20
_MAX_BATCH_BYTES: Final = 512 << 10
_NO_LIMITS: Final[Mapping[str, int]] = MappingProxyType({})
_START_S: Final = 10.0
"""At least so long for a producer id: a young cluster first makes the topic of the transactions."""
_CODECS: Final = {None: 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}


Where = dict[int, tuple[int, int] | None]


@dataclass(slots=True)
class Unit:
    """What must happen together: records, checkpoints, and the source offsets (by partition) that they account for.

    `token` is the membership under which the first record of the unit was applied; in any other it is void. `places`
    asks of some `records`, by their number there, where they come to stand: a commit puts (partition, offset) in; what
    the broker does not tell stays None.
    """

    token: GroupToken
    records: list[OutRecord] = field(default_factory=list)
    offsets: dict[int, Committed] = field(default_factory=dict)
    checkpoints: list[OutRecord] = field(default_factory=list)
    places: Where = field(default_factory=dict)


class Writer(Protocol):
    """Where units go. `dead` is True after an error that leaves the outcome unknown: replace the writer."""

    @property
    def transactional_id(self) -> str | None: ...
    @property
    def dead(self) -> bool: ...
    @property
    def recovered(self) -> int:
        """How many transactions were begun anew after a lost answer."""

    async def start(self) -> None: ...
    async def commit(self, unit: Unit) -> None: ...
    async def claim(self, offsets: Mapping[int, Committed]) -> None:
        """Commit offsets alone, as the member that we are now. Raises what `commit` raises."""

    async def stop(self, timeout_s: float) -> None: ...


class TransactionalWriter:
    """Exactly once: one transaction per unit, its offsets fenced by the group (KIP-98, KIP-447, KIP-890).

    Args:
        transactional_id: names this writer across its incarnations; a new one ends the transaction of the last.
        group_id, source_topic: whose offsets a unit carries.
        token_now: the consumer's membership at the moment; a unit of another one is refused.
        transaction_timeout_ms: after this long the broker aborts what we left open.
        commit_timeout_s: how long one unit may take, all retries included.
        compression: None, "gzip", "snappy", "lz4" or "zstd".
        limits: max.message.bytes of the topics written to; what is not named has Kafka's own default.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        transactional_id: str,
        group_id: str,
        source_topic: str,
        token_now: Callable[[], GroupToken],
        transaction_timeout_ms: int = 15_000,
        commit_timeout_s: float = 20.0,
        compression: str | None = None,
        limits: Mapping[str, int] = _NO_LIMITS,
    ) -> None:
        self._connection = connection
        self._transactional_id = transactional_id
        self._where = f"transactional id {transactional_id}"
        self._token_now = token_now
        self._timeout_s = commit_timeout_s
        codec = _CODECS[compression]
        self._batching = _Batching(
            limits, lambda size: BatchBuilder(size, codec, is_transactional=1), transactional=True
        )
        self._link = BrokerLink(
            connection,
            transactional_id=transactional_id,
            group_id=group_id,
            source_topic=source_topic,
            transaction_timeout_ms=transaction_timeout_ms,
        )
        self._transactions = Transactions(self._link, where=self._where, group_id=group_id, source_topic=source_topic)
        self._one_at_a_time = asyncio.Lock()
        self._started = False
        self.dead = False

    @property
    def transactional_id(self) -> str | None:
        return self._transactional_id

    @property
    def transaction_version(self) -> int:
        """2 where the cluster refuses every late request of an ended transaction (KIP-890), else 1."""
        return 2 if self._transactions.v2 else 1

    @property
    def recovered(self) -> int:
        """How many transactions were begun anew after a lost answer."""
        return self._transactions.recovered

    async def start(self) -> None:
        """Get the producer id; the open transaction of an earlier incarnation is aborted by that.

        Raises:
            BrokerRefused: the broker cannot do transactions, or does not let us.
            BrokerUnavailable: no broker, or its transaction coordinator did not answer in time.
        """
        pinned.verify()
        try:
            async with explained(self._connection, self._where), asyncio.timeout(max(self._timeout_s, _START_S)):
                await self._link.open()
                if not await self._link.client.speaks(wire.TXN_OFFSET_COMMIT, 3):
                    raise BrokerRefused(
                        f"{self._where}: this broker has no transactions fenced by the group",
                        hint='Apache Kafka 2.5 or newer is needed, or set [delivery] mode = "at_least_once"',
                    )
                await self._transactions.start()
        except BaseException:
            self.dead = True
            await self.stop(timeout_s=1.0)
            raise
        self._started = True

    async def commit(self, unit: Unit) -> None:
        """Write a unit, all or nothing; on return it is committed.

        Raises:
            Fenced: the group has moved on. The unit is aborted, and if that went cleanly the writer lives on.
            RecordTooLarge, BrokerRefused: the same of a record that its topic does not take.
            BrokerUnavailable: the writer is dead, the outcome in the log.
        """
        async with self._one_at_a_time:
            self._require_alive()
            _require_token(unit, self._token_now())
            if not (unit.records or unit.checkpoints or unit.offsets):
                return
            records = [*unit.records, *unit.checkpoints]
            with translated(lambda: f"topics {', '.join(sorted({record.topic for record in records}))}"):
                async with asyncio.timeout(self._timeout_s):
                    partitions = await self._link.partitions_of({record.topic for record in records})
            turn = self._batching.next_turn()
            made = [self._batching.batches(records, partitions, turn, unit.places)]  # raises before anything is sent

            def batches() -> list[_Batch]:
                return made.pop() if made else self._batching.batches(records, partitions, turn, unit.places)

            async with self._ending():
                aborted = await self._transactions.commit(
                    batches, unit.offsets, unit.token, lambda: _require_token(unit, self._token_now())
                )
        if aborted is not None:
            raise aborted

    async def claim(self, offsets: Mapping[int, Committed]) -> None:
        """Commit offsets in a transaction of their own.

        A plain OffsetCommit that arrives late is valid for as long as the group's generation is, and would move the
        offsets back; one in a transaction is refused. Cancelling the caller leaves the transaction to end by itself:
        a rebalance must not cost the writer.
        """
        if offsets:
            commit = asyncio.create_task(self.commit(Unit(self._token_now(), offsets=dict(offsets))), name="claim")
            commit.add_done_callback(_seen)
            await asyncio.shield(commit)

    async def stop(self, timeout_s: float) -> None:
        """Close within about `timeout_s`. A transaction that is open stays so, until the next incarnation."""
        self.dead = True
        try:
            async with asyncio.timeout(timeout_s):
                await self._link.close()
        except TimeoutError:
            pass

    def _require_alive(self) -> None:
        if self.dead or not self._started:
            raise _ended(self._where)

    @asynccontextmanager
    async def _ending(self) -> AsyncIterator[None]:
        """A block with a deadline, in which any error ends the writer, cancellation included."""
        try:
            with translated(self._where):
                async with asyncio.timeout(self._timeout_s):
                    yield
        except BaseException:
            self.dead = True
            self._link.cut()
            raise


class IdempotentWriter:
    """At least once: every record acknowledged by all replicas, and only then the offsets, fenced by the group.

    Args:
        claim: the consumer's generation-fenced commit.
        token_now: the consumer's membership at the moment.
    """

    transactional_id: str | None = None
    recovered = 0

    def __init__(
        self,
        connection: Connection,
        *,
        claim: Callable[[Mapping[int, Committed]], Awaitable[None]],
        token_now: Callable[[], GroupToken],
        commit_timeout_s: float = 20.0,
        compression: str | None = None,
        limits: Mapping[str, int] = _NO_LIMITS,
    ) -> None:
        self._claim = claim
        self._token_now = token_now
        self._outlet = _Outlet(
            connection,
            where="producer",
            commit_timeout_s=commit_timeout_s,
            compression=compression,
            limits=limits,
        )

    @property
    def dead(self) -> bool:
        return self._outlet.dead

    async def start(self) -> None:
        """Get a producer id. Raises `BrokerRefused` or `BrokerUnavailable`."""
        await self._outlet.start()

    async def commit(self, unit: Unit) -> None:
        """Write the records, then commit the offsets. After an error all, some or none of the records are there.

        Checkpoints come in between: one that stood before its outputs would let a restart skip what it has not
        published, and one that was forgotten before the offsets moved on would be missed by a restart from there.
        """
        self._outlet.require_alive()
        _require_token(unit, self._token_now())
        records = await self._outlet.batches(unit.records, unit.places)
        kept = await self._outlet.batches([record for record in unit.checkpoints if record.value is not None])
        forgotten = await self._outlet.batches([record for record in unit.checkpoints if record.value is None])
        await self._acked(records)
        await self._acked(kept)
        _require_token(unit, self._token_now())
        await self._claim(unit.offsets)
        await self._acked(forgotten)

    async def claim(self, offsets: Mapping[int, Committed]) -> None:
        await self._claim(offsets)

    async def _acked(self, batches: list[_Batch]) -> None:
        if batches:
            async with self._outlet.ending():
                await _all(await self._outlet.send(batches))

    async def stop(self, timeout_s: float) -> None:
        await self._outlet.stop(timeout_s)


async def takeover(connection: Connection, transactional_id: str, timeout_s: float) -> None:
    """End what a dead writer left open, at once: initialising its id aborts its transaction and fences it.

    Only for a writer that is known to be gone: a living one is fenced by this, too.

    Raises:
        BrokerRefused, BrokerUnavailable
    """
    where = f"takeover of {transactional_id}"
    link = BrokerLink(
        connection, transactional_id=transactional_id, group_id="", source_topic="", transaction_timeout_ms=15_000
    )
    try:
        async with explained(connection, where), asyncio.timeout(timeout_s):
            await link.open()
            await Transactions(link, where=where, group_id="", source_topic="").start()
    finally:
        await link.close()


def _require_token(unit: Unit, now: GroupToken) -> None:
    if unit.token.generation < 0 or unit.token != now:
        raise Fenced(
            f"group: a unit of generation {unit.token.generation} in generation {now.generation}",
            hint="the group rebalanced: drop the unit, its records come again from the log",
        )


async def _all(acks: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Wait for all, or for the first error; after one nobody goes on waiting for answers that will not come."""
    waiting = [asyncio.create_task(ack) for ack in acks]
    try:
        await asyncio.gather(*waiting)
    finally:
        for task in waiting:
            task.cancel()


# --- what both writers are made of ----------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class _Batch:
    """Records of one partition that are written at once (`transactions.Batch`)."""

    topic: str
    partition: int
    builder: Any
    sizes: list[int]
    asked: list[tuple[Where, int, int]]
    """Where to put the place of a record, its number there, and its number in the batch."""

    @property
    def count(self) -> int:
        return len(self.sizes)

    @property
    def largest(self) -> int:
        return max(self.sizes)

    def payload(self, identity: Identity, sequence: int) -> bytes:
        self.builder._set_producer_state(*identity, sequence)
        return bytes(self.builder._build())

    def written(self, offset: int) -> None:
        for places, number, at in self.asked:
            if offset >= 0:  # the answer to a repeated request may lack it
                places[number] = (self.partition, offset + at)


class _Batching:
    """Records put into batches.

    Args:
        limits: max.message.bytes by topic.
        builder: makes an empty batch of at most so many bytes.
    """

    def __init__(self, limits: Mapping[str, int], builder: Callable[[int], Any], *, transactional: bool) -> None:
        self._limits, self._make, self._transactional = limits, builder, transactional
        smallest = min(limits.values(), default=DEFAULT_MAX_MESSAGE_BYTES)
        self.max_batch_bytes = min(
            _MAX_BATCH_BYTES, smallest - BATCH_OVERHEAD_BYTES - compression_growth_bytes(smallest)
        )
        self._turn = 0

    def next_turn(self) -> int:
        """Count the units: their records without a key go to one partition after the other."""
        self._turn += 1
        return self._turn

    def batches(
        self,
        records: Sequence[OutRecord],
        partitions: Mapping[str, int],
        turn: int,
        places: Where | None = None,
    ) -> list[_Batch]:
        """Records in their order, by topic and partition, in batches; nothing is sent yet.

        Acknowledged, they tell where the records stand whose numbers are in `places`. The first batch of every
        partition comes before the second of any.

        Raises:
            RecordTooLarge: no batch can hold the record.
        """
        queues: defaultdict[tuple[str, int], list[_Batch]] = defaultdict(list)
        for number, (topic, partition, key, value, timestamp, headers) in enumerate(records):
            if partition is None:
                # Without a key any partition will do: one per unit keeps batches whole.
                count = partitions[topic]
                partition = turn % count if key is None else partition_of(key, count)
            queue = queues[topic, partition]
            fields = {"timestamp": timestamp, "key": key, "value": value, "headers": list(headers)}
            try:
                added = queue[-1].builder.append(**fields) if queue else None
                if added is None:
                    queue.append(_Batch(topic, partition, self._builder(records[number]), [], []))
                    added = queue[-1].builder.append(**fields)  # an empty batch takes a record of any size
            except UnicodeEncodeError:  # the name of a header: the compiled builder wants UTF-8, and has taken nothing
                if queue and not queue[-1].sizes:
                    queue.pop()
                queue.append(_Batch(topic, partition, self._builder(records[number], RawNamesBatch), [], []))
                added = queue[-1].builder.append(**fields)
            if added.size + BATCH_OVERHEAD_BYTES > self._limits.get(topic, DEFAULT_MAX_MESSAGE_BYTES):
                raise RecordTooLarge(topic, added.size)
            if places and number in places:
                queue[-1].asked.append((places, number, len(queue[-1].sizes)))
            queue[-1].sizes.append(added.size)
        return [batch for turn_ in zip_longest(*queues.values()) for batch in turn_ if batch is not None]

    def _builder(self, first: OutRecord, kind: type[BatchBuilder] | None = None) -> Any:
        """A batch to be begun with this record: not compressed where that might take it over the topic's limit.

        Bytes that cannot be compressed grow by it, and the library sends them so; the broker then refuses the batch.
        """
        size, limit = batch_bytes(first), self._limits.get(first.topic, DEFAULT_MAX_MESSAGE_BYTES)
        if kind is not None or size <= limit < size + compression_growth_bytes(size):
            return (kind or BatchBuilder)(1, 0, is_transactional=int(self._transactional))
        return self._make(self.max_batch_bytes)


def _seen(future: asyncio.Future[Any]) -> None:
    """Mark an error as retrieved: where another one came first, no task waits for this one any more."""
    if not future.cancelled():
        future.exception()


def _ended(where: str) -> BrokerUnavailable:
    return BrokerUnavailable(f"{where}: the writer has ended", hint="start anew from the committed offsets")


# --- at least once --------------------------------------------------------------------------------------------------


class _Outlet:
    """An idempotent producer, the batches it is given, and its end."""

    def __init__(
        self,
        connection: Connection,
        *,
        where: str,
        commit_timeout_s: float,
        compression: str | None,
        limits: Mapping[str, int],
    ) -> None:
        self._connection = connection
        self._where = where
        self._timeout_s = commit_timeout_s
        self._batching = _Batching(limits, lambda _: self.producer.create_batch(), transactional=False)
        self._settings = {
            **connection.kwargs(),
            "acks": "all",
            "linger_ms": 0,
            "retry_backoff_ms": _RETRY_BACKOFF_MS,
            "max_batch_size": self._batching.max_batch_bytes,
            "max_request_size": max(limits.values(), default=DEFAULT_MAX_MESSAGE_BYTES),
            "compression_type": compression,
            "enable_idempotence": True,
        }
        self._producer: IdempotentProducer | None = None
        self.dead = False

    @property
    def producer(self) -> IdempotentProducer:
        if self._producer is None:
            raise BrokerUnavailable(f"{self._where}: not started")
        return self._producer

    async def start(self) -> None:
        pinned.verify()
        producer = self._producer = IdempotentProducer(**self._settings)
        try:
            async with explained(self._connection, self._where), asyncio.timeout(self._timeout_s):
                await producer.start()
        except BaseException:
            self.dead = True
            await self.stop(timeout_s=1.0)
            raise

    def require_alive(self) -> None:
        if self.dead:
            raise _ended(self._where)

    async def batches(self, records: Sequence[OutRecord], places: Where | None = None) -> list[_Batch]:
        """As `_Batching.batches`. Raises `RecordTooLarge`; the writer is none the worse."""
        partitions: dict[str, int] = {}
        for topic in {record.topic for record in records}:
            with translated(f"topic {topic}"):
                partitions[topic] = len(await self.producer.partitions_for(topic))
        return self._batching.batches(records, partitions, self._batching.next_turn(), places)

    async def send(self, batches: Sequence[_Batch]) -> list[Coroutine[Any, Any, None]]:
        """Hand the batches to the producer; what is returned resolves when the broker has them."""
        acks: list[Coroutine[Any, Any, None]] = []
        for batch in batches:
            batch.builder.close()
            ack = await self.producer.send_batch(batch.builder, batch.topic, partition=batch.partition)
            ack.add_done_callback(_seen)
            acks.append(_acknowledgement(batch, ack))
        return acks

    @asynccontextmanager
    async def ending(self) -> AsyncIterator[None]:
        """A block with a deadline, in which any error ends the writer, cancellation included."""
        try:
            with translated(self._where):
                async with asyncio.timeout(self._timeout_s):
                    yield
        except BaseException:
            self.dead = True
            # Now, not at stop(): in the background it would go on retrying, and might yet commit.
            self.producer.client.retire()
            raise

    async def stop(self, timeout_s: float) -> None:
        producer = self._producer
        if producer is None:
            return
        if not self.dead:
            self.dead = True
            try:
                async with asyncio.timeout(timeout_s):
                    await producer.stop()
                return
            except Exception:  # whatever broke it, the rest of it has to go too
                producer._message_accumulator.fail_all(ProducerClosed())
        producer._closed = True
        await silence(producer.client, [producer._sender.sender_task])


async def _acknowledgement(batch: _Batch, ack: Awaitable[Any]) -> None:
    try:
        batch.written((await ack).offset)
    except (MessageSizeTooLargeError, RecordListTooLargeError) as error:
        raise RecordTooLarge(batch.topic, batch.largest) from error


# --- the idempotent producer, with what aiokafka lacks ---------------------------------------------------------------


class _InitProducerId(sender.InitPIDHandler):
    def create_request(self) -> wire.InitProducerId:
        transactions = self._sender._txn_manager
        return wire.InitProducerId(transactions.transactional_id, transactions.transaction_timeout_ms)


class _Sender(sender.Sender):
    async def _do_init_pid(self, node_id: int) -> bool:
        done: bool = await _InitProducerId(self).do(node_id)
        return done


class _Accumulator(MessageAccumulator):
    def _append_batch(self, builder: Any, tp: Any) -> Any:
        batch = super()._append_batch(builder, tp)
        batch.future.add_done_callback(_seen)
        return batch

    def fail_all(self, error: Exception) -> None:
        super().fail_all(error)
        for batch in [batch for queue in self._batches.values() for batch in queue]:
            batch._drain_waiter.exception()  # seen: nobody waits for a batch to leave that never will


class _Sequences(TransactionManager):
    def fatal_error(self, error: Exception) -> None:
        """As upstream, which takes for granted that a transaction is open."""
        if self._transaction_waiter is None:
            self._transaction_waiter = asyncio.get_running_loop().create_future()
        super().fatal_error(error)
        self._transaction_waiter.exception()  # seen: the batches fail with it


class IdempotentProducer(AIOKafkaProducer):
    """Upstream's producer with our client."""

    __init__ = rebound(
        AIOKafkaProducer.__init__,
        AIOKafkaClient=Client,
        MessageAccumulator=_Accumulator,
        Sender=_Sender,
        TransactionManager=_Sequences,
    )
