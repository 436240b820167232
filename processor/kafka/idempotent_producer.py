# mypy: allow-subclassing-any, disable-error-code=has-type
"""Idempotent producer of at-least-once delivery: aiokafka's, with prepared batches and a bounded end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import MessageSizeTooLargeError, ProducerClosed, RecordListTooLargeError
from aiokafka.producer import sender
from aiokafka.producer.message_accumulator import BatchBuilder, MessageAccumulator
from aiokafka.producer.transaction_manager import TransactionManager

from processor.errors import BrokerUnavailable
from processor.kafka import aiokafka_compat as pinned
from processor.kafka import wire
from processor.kafka.aiokafka_compat import with_globals
from processor.kafka.client import Client, force_close
from processor.kafka.client_config import Connection
from processor.kafka.diagnosis import explained
from processor.kafka.errors import RecordTooLarge, translated
from processor.kafka.record_batches import AckPositions, RecordBatch, RecordBatches, mark_retrieved, writer_ended
from processor.kafka.records import DEFAULT_MAX_MESSAGE_BYTES, OutRecord
from processor.kafka.transactions import NO_IDENTITY, Identity

RETRY_BACKOFF_MS: Final = 20


class ProducerSession:
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
        self._batching = RecordBatches(limits, compression, transactional=False)
        self._settings = {
            **connection.kwargs(),
            "acks": "all",
            "linger_ms": 0,
            "retry_backoff_ms": RETRY_BACKOFF_MS,
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
            raise writer_ended(self._where)

    async def batches(
        self, records: Sequence[OutRecord], ack_positions: AckPositions | None = None
    ) -> list[RecordBatch]:
        """As `RecordBatches.batches`. Raises `RecordTooLarge`; the writer can still be used."""
        partitions: dict[str, int] = {}
        for topic in {record.topic for record in records}:
            with translated(f"topic {topic}"):
                partitions[topic] = len(await self.producer.partitions_for(topic))
        return self._batching.batches(records, partitions, self._batching.next_turn(), ack_positions)

    async def send(self, batches: Sequence[RecordBatch]) -> list[Coroutine[Any, Any, None]]:
        """Pass the batches to the producer; the futures returned resolve when the broker has them."""
        acks: list[Coroutine[Any, Any, None]] = []
        for batch in batches:
            ack = await self.producer.send_batch(_ClosedBatch(batch), batch.topic, partition=batch.partition)
            ack.add_done_callback(mark_retrieved)
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
            self.producer.client.abort()
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
        await force_close(producer.client, [producer._sender.sender_task])


async def _acknowledgement(batch: RecordBatch, ack: Awaitable[Any]) -> None:
    try:
        batch.written((await ack).offset)
    except (MessageSizeTooLargeError, RecordListTooLargeError) as error:
        raise RecordTooLarge(batch.topic, batch.largest, records=batch.count) from error


class _ClosedBatch(BatchBuilder):
    """A batch of ours, with the methods that upstream's producer calls of a builder of its own."""

    def __init__(self, batch: RecordBatch) -> None:
        self._batch, self._written_by, self._payload = batch, (*NO_IDENTITY, 0), b""

    def _set_producer_state(self, producer_id: int, producer_epoch: int, base_sequence: int) -> None:
        self._written_by = (producer_id, producer_epoch, base_sequence)

    def _build(self) -> bytes:
        """The same bytes each time: what is sent again has to be what was sent before."""
        if not self._payload:
            producer_id, epoch, sequence = self._written_by
            self._payload = self._batch.payload(Identity(producer_id, epoch), sequence)
        return self._payload

    def record_count(self) -> int:
        return self._batch.count

    def close(self) -> None:
        """Do nothing: the batch is closed already."""

    def closed(self) -> bool:
        return True


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
        batch.future.add_done_callback(mark_retrieved)
        return batch

    def fail_all(self, error: Exception) -> None:
        super().fail_all(error)
        for batch in [batch for queue in self._batches.values() for batch in queue]:
            batch._drain_waiter.exception()  # retrieved: no caller waits for a batch that will never be sent


class _Sequences(TransactionManager):
    def fatal_error(self, error: Exception) -> None:
        """As upstream, which takes for granted that a transaction is open."""
        if self._transaction_waiter is None:
            self._transaction_waiter = asyncio.get_running_loop().create_future()
        super().fatal_error(error)
        self._transaction_waiter.exception()  # seen: the batches fail with it


class IdempotentProducer(AIOKafkaProducer):
    """Upstream's producer with our client."""

    __init__ = with_globals(
        AIOKafkaProducer.__init__,
        AIOKafkaClient=Client,
        MessageAccumulator=_Accumulator,
        Sender=_Sender,
        TransactionManager=_Sequences,
    )
