# mypy: allow-subclassing-any, disable-error-code=has-type
"""Writing: a unit of records and offsets, all of it or nothing (exactly once), or at least once.

A writer ends with its first error that is not a clean abort: what the broker did last is then unknown, and only the
log can tell. Make a new one with the same transactional id (that settles whatever is open), read the offsets again.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import zip_longest
from types import MappingProxyType
from typing import Any, Final, NamedTuple, Protocol

from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    MessageSizeTooLargeError,
    ProducerClosed,
    RecordListTooLargeError,
    for_code,
)
from aiokafka.producer import sender
from aiokafka.producer.message_accumulator import BatchBuilder, MessageAccumulator
from aiokafka.producer.transaction_manager import TransactionManager
from aiokafka.structs import OffsetAndMetadata, TopicPartition

from processor.errors import BrokerRefused, BrokerUnavailable, Fenced
from processor.kafka import pinned, wire
from processor.kafka.client import Client, silence
from processor.kafka.consumer import Committed, GroupToken
from processor.kafka.pinned import rebound
from processor.kafka.records import (
    BATCH_OVERHEAD_BYTES,
    DEFAULT_MAX_MESSAGE_BYTES,
    OutRecord,
    batch_bytes,
    compression_growth_bytes,
    partition_of,
)
from processor.kafka.security import Connection, explained
from processor.kafka.trouble import RecordTooLarge, translate, translated

_RETRY_BACKOFF_MS: Final = 20
_MAX_BATCH_BYTES: Final = 512 << 10
_NO_LIMITS: Final[Mapping[str, int]] = MappingProxyType({})


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
    async def start(self) -> None: ...
    async def commit(self, unit: Unit) -> None: ...
    async def stop(self, timeout_s: float) -> None: ...


class TransactionalWriter:
    """Exactly once: one transaction per unit, its offsets fenced by the group (KIP-98, KIP-447).

    Args:
        transactional_id: names this writer across its lives; a new life ends the transaction of the last.
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
        self._transactional_id = transactional_id
        self._group_id = group_id
        self._source_topic = source_topic
        self._token_now = token_now
        self._outlet = _Outlet(
            connection,
            where=f"transactional id {transactional_id}",
            commit_timeout_s=commit_timeout_s,
            compression=compression,
            limits=limits,
            transactional_id=transactional_id,
            transaction_timeout_ms=transaction_timeout_ms,
        )

    @property
    def transactional_id(self) -> str | None:
        return self._transactional_id

    @property
    def dead(self) -> bool:
        return self._outlet.dead

    async def start(self) -> None:
        """Get the producer id; the open transaction of an earlier life is aborted by that.

        Raises:
            BrokerRefused: the broker cannot do transactions, or does not let us.
            BrokerUnavailable: no broker, or its transaction coordinator did not answer in time.
        """
        await self._outlet.start()
        if not await self._outlet.producer.client.speaks(wire.TXN_OFFSET_COMMIT, 3):
            await self._outlet.stop(timeout_s=1.0)
            raise BrokerRefused(
                f"transactional id {self._transactional_id}: this broker has no transactions fenced by the group",
                hint='Apache Kafka 2.5 or newer is needed, or set [delivery] mode = "at_least_once"',
            )

    async def commit(self, unit: Unit) -> None:
        """Write a unit, all or nothing; on return it is committed.

        Raises:
            Fenced: the group has moved on. The unit is aborted, and if that went cleanly the writer lives on.
            RecordTooLarge: found before anything was sent the writer lives on, found by the broker it is dead.
            BrokerUnavailable, BrokerRefused: the writer is dead, the outcome in the log.
        """
        self._outlet.require_alive()
        _require_token(unit, self._token_now())
        batches = await self._outlet.batches([*unit.records, *unit.checkpoints], unit.places)
        async with self._outlet.ending():
            aborted = await self._transaction(unit, batches)
        if aborted is not None:
            raise aborted

    async def stop(self, timeout_s: float) -> None:
        """Close within about `timeout_s`. A transaction that is open stays so, until the next life or its timeout."""
        await self._outlet.stop(timeout_s)

    async def _transaction(self, unit: Unit, batches: list[_Batch]) -> Fenced | None:
        """Commit and return None, or abort and return the reason."""
        producer = self._outlet.producer
        offsets = {
            TopicPartition(self._source_topic, partition): OffsetAndMetadata(offset, metadata)
            for partition, (offset, metadata) in unit.offsets.items()
        }
        if not (batches or offsets):
            return None
        await producer.begin_transaction()
        try:
            # Data before offsets: whichever request comes first waits for the last transaction's markers, and only
            # the one that adds partitions waits in short steps.
            acks = await self._outlet.send(batches)
            if offsets:
                acks.append(producer.send_offsets(offsets, self._group_id, unit.token))
            await _all(acks)
            _require_token(unit, self._token_now())
        except (*wire.GROUP_FENCED, Fenced) as error:
            await producer.abort_transaction()
            reason = error if isinstance(error, Fenced) else translate(error, f"group {self._group_id}")
            assert isinstance(reason, Fenced)
            return reason
        await producer.commit_transaction()
        return None


class IdempotentWriter:
    """At least once: every record acknowledged by all replicas, and only then the offsets, fenced by the group.

    Args:
        claim: the consumer's generation-fenced commit.
        token_now: the consumer's membership at the moment.
    """

    transactional_id: str | None = None

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
            enable_idempotence=True,
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

    async def _acked(self, batches: list[_Batch]) -> None:
        if batches:
            async with self._outlet.ending():
                await _all(await self._outlet.send(batches))

    async def stop(self, timeout_s: float) -> None:
        await self._outlet.stop(timeout_s)


async def takeover(connection: Connection, transactional_id: str, timeout_s: float) -> None:
    """End what a dead writer left open, at once: initialising its id aborts its transaction and fences it.

    Only for a writer that is known to be gone: a living one is fenced by this, too.
    """
    outlet = _Outlet(
        connection,
        where=f"takeover of {transactional_id}",
        commit_timeout_s=timeout_s,
        compression=None,
        limits=_NO_LIMITS,
        transactional_id=transactional_id,
    )
    try:
        await outlet.start()
    finally:
        await outlet.stop(timeout_s=1.0)


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


class _Outlet:
    """A producer, the batches it is given, and its end."""

    def __init__(
        self,
        connection: Connection,
        *,
        where: str,
        commit_timeout_s: float,
        compression: str | None,
        limits: Mapping[str, int],
        **settings: object,
    ) -> None:
        self._connection = connection
        self._where = where
        self._timeout_s = commit_timeout_s
        self._limits = limits
        smallest = min(limits.values(), default=DEFAULT_MAX_MESSAGE_BYTES)
        largest = max(limits.values(), default=DEFAULT_MAX_MESSAGE_BYTES)
        self._settings = {
            **connection.kwargs(),
            "acks": "all",
            "linger_ms": 0,
            "retry_backoff_ms": _RETRY_BACKOFF_MS,
            "max_batch_size": min(
                _MAX_BATCH_BYTES, smallest - BATCH_OVERHEAD_BYTES - compression_growth_bytes(smallest)
            ),
            "max_request_size": largest,
            "compression_type": compression,
            **settings,
        }
        self._producer: FencedProducer | None = None
        self._units = 0
        self.dead = False

    @property
    def producer(self) -> FencedProducer:
        if self._producer is None:
            raise BrokerUnavailable(f"{self._where}: not started")
        return self._producer

    async def start(self) -> None:
        pinned.verify()
        producer = self._producer = FencedProducer(**self._settings)
        try:
            async with explained(self._connection, self._where), asyncio.timeout(self._timeout_s):
                await producer.start()
        except BaseException:
            self.dead = True
            await self.stop(timeout_s=1.0)
            raise

    def require_alive(self) -> None:
        if self.dead:
            raise BrokerUnavailable(
                f"{self._where}: the writer has ended", hint="start anew from the committed offsets"
            )

    async def batches(self, records: Sequence[OutRecord], places: Where | None = None) -> list[_Batch]:
        """Records in their order, by topic and partition, in batches; nothing is sent yet.

        Acknowledged, they tell where the records stand whose numbers are in `places`.

        The first batch of every partition comes before the second of any: the producer holds one per partition.

        Raises:
            RecordTooLarge: no batch can hold the record; the writer is none the worse.
        """
        self._units += 1
        queues: defaultdict[tuple[str, int], list[_Batch]] = defaultdict(list)
        partitions: dict[str, int] = {}
        for topic in {record.topic for record in records}:
            with translated(f"topic {topic}"):
                partitions[topic] = len(await self.producer.partitions_for(topic))
        for number, (topic, partition, key, value, timestamp, headers) in enumerate(records):
            if partition is None:
                # Without a key any partition will do: one per unit keeps batches whole.
                count = partitions[topic]
                partition = self._units % count if key is None else partition_of(key, count)
            queue = queues[topic, partition]
            fields = {"timestamp": timestamp, "key": key, "value": value, "headers": list(headers)}
            added = queue[-1].builder.append(**fields) if queue else None
            if added is None:
                queue.append(_Batch(topic, partition, self._builder(records[number]), [], []))
                added = queue[-1].builder.append(**fields)  # an empty batch takes a record of any size
            if added.size + BATCH_OVERHEAD_BYTES > self._limits.get(topic, DEFAULT_MAX_MESSAGE_BYTES):
                raise RecordTooLarge(topic, added.size)
            if places and number in places:
                queue[-1].asked.append((places, number, len(queue[-1].sizes)))
            queue[-1].sizes.append(added.size)
        return [batch for turn in zip_longest(*queues.values()) for batch in turn if batch is not None]

    def _builder(self, first: OutRecord) -> Any:
        """A batch to be begun with this record: not compressed where that might take it over the topic's limit.

        Bytes that cannot be compressed grow by it, and the library sends them so; the broker then refuses the batch.
        """
        size, limit = batch_bytes(first), self._limits.get(first.topic, DEFAULT_MAX_MESSAGE_BYTES)
        if size <= limit < size + compression_growth_bytes(size):
            return BatchBuilder(1, 0, is_transactional="transactional_id" in self._settings)
        return self.producer.create_batch()

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


class _Batch(NamedTuple):
    topic: str
    partition: int
    builder: Any
    sizes: list[int]
    asked: list[tuple[Where, int, int]]
    """Where to put the place of a record, its number there, and its number in the batch."""


async def _acknowledgement(batch: _Batch, ack: Awaitable[Any]) -> None:
    try:
        first = (await ack).offset
    except (MessageSizeTooLargeError, RecordListTooLargeError) as error:
        raise RecordTooLarge(batch.topic, max(batch.sizes)) from error
    for places, number, at in batch.asked:
        if first >= 0:  # the answer to a repeated request may lack it
            places[number] = (batch.partition, first + at)


# --- the producer, with what aiokafka lacks -------------------------------------------------------------------------


class _InitProducerId(sender.InitPIDHandler):
    def create_request(self) -> wire.InitProducerId:
        transactions = self._sender._txn_manager
        return wire.InitProducerId(transactions.transactional_id, transactions.transaction_timeout_ms)


class _TxnOffsetCommit(sender.TxnOffsetCommitHandler):
    def create_request(self) -> wire.TxnOffsetCommit:
        transactions = self._sender._txn_manager
        rows: defaultdict[str, list[tuple[int, int, str]]] = defaultdict(list)
        for tp, (offset, metadata) in sorted(self._offsets.items()):
            rows[tp.topic].append((tp.partition, offset, metadata))
        return wire.TxnOffsetCommit(
            transactions.transactional_id,
            self._group_id,
            transactions.producer_id,
            transactions.producer_epoch,
            transactions.group_token,
            rows,
        )

    def handle_response(self, response: Any) -> float | None:
        answers = {for_code(code) for _, rows in response.errors for _, code in rows}
        for refusal in answers.intersection(wire.GROUP_FENCED):
            # Abortable, as in the Java client: the producer is in order, only the group has moved on.
            self._sender._txn_manager.error_transaction(refusal(self._group_id))
            return None
        backoff: float | None = super().handle_response(response)
        return backoff


class _Sender(sender.Sender):
    _do_txn_offset_commit = rebound(sender.Sender._do_txn_offset_commit, TxnOffsetCommitHandler=_TxnOffsetCommit)

    async def _do_init_pid(self, node_id: int) -> bool:
        done: bool = await _InitProducerId(self).do(node_id)
        return done


def _seen(future: asyncio.Future[Any]) -> None:
    """An error is told to whoever waits; if nobody does any more, for another error came first, it is no fault."""
    if not future.cancelled():
        future.exception()


class _Transactions(TransactionManager):
    group_token = GroupToken(-1, "", None)

    def add_offsets_to_txn(self, offsets: Any, group_id: str) -> asyncio.Future[None]:
        sent: asyncio.Future[None] = super().add_offsets_to_txn(offsets, group_id)
        sent.add_done_callback(_seen)
        return sent

    def error_transaction(self, error: Exception) -> None:
        """As upstream, but remembers what the transaction holds.

        Upstream forgets it here; the abort that follows then takes the transaction for empty and is never sent, and
        the next commit commits the aborted records, too.
        """
        partitions: set[TopicPartition] = set(self._txn_partitions)
        group = self._txn_consumer_group
        super().error_transaction(error)
        self._txn_partitions.update(partitions)
        self._txn_consumer_group = group
        self.wait_for_transaction_end().exception()  # seen: its owner hears of it by another way

    def fatal_error(self, error: Exception) -> None:
        super().fatal_error(error)
        self.wait_for_transaction_end().exception()


class _Accumulator(MessageAccumulator):
    def _append_batch(self, builder: Any, tp: TopicPartition) -> Any:
        batch = super()._append_batch(builder, tp)
        batch.future.add_done_callback(_seen)
        return batch

    def fail_all(self, error: Exception) -> None:
        super().fail_all(error)
        for batch in [batch for queue in self._batches.values() for batch in queue]:
            batch._drain_waiter.exception()  # seen: nobody waits for a batch to leave that never will


class FencedProducer(AIOKafkaProducer):
    """Upstream's producer with our client, and with offsets that the group fences."""

    __init__ = rebound(
        AIOKafkaProducer.__init__,
        AIOKafkaClient=Client,
        MessageAccumulator=_Accumulator,
        Sender=_Sender,
        TransactionManager=_Transactions,
    )

    async def send_offsets(
        self, offsets: Mapping[TopicPartition, OffsetAndMetadata], group_id: str, token: GroupToken
    ) -> None:
        self._txn_manager.group_token = token
        await self.send_offsets_to_transaction(offsets, group_id)
