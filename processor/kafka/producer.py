# mypy: allow-subclassing-any
"""Producer behind `publish`: sends records to a topic and counts acknowledgements.

Not the worker's writer: no transaction, no offsets. Once anything failed the producer is finished, because the
client's idempotent sequence numbers have a gap from then on and a later record would overtake the lost one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Final, Literal, Self, get_args

from aiokafka import AIOKafkaProducer
from aiokafka import errors as kafka_errors

from processor.errors import BrokerRefused, BrokerUnavailable, Fenced, RunStepsError
from processor.kafka import aiokafka_compat as pinned
from processor.kafka.admin import Admin
from processor.kafka.aiokafka_compat import with_globals
from processor.kafka.client import Client, force_close
from processor.kafka.client_config import Connection
from processor.kafka.diagnosis import explained
from processor.kafka.errors import RecordTooLarge, translate
from processor.kafka.records import (
    BATCH_OVERHEAD_BYTES,
    DEFAULT_MAX_MESSAGE_BYTES,
    OutRecord,
    batch_bytes,
    compression_growth_bytes,
)
from processor.kafka.topic_lookup import MISSING_AFTER_S, find_topic

_FIND_TOPIC_S: Final = 10.0
_MAX_BATCH_BYTES: Final = 256 * 1024
_NO_LIMIT_BYTES: Final = 2**31 - 1

Compression = Literal["none", "gzip", "snappy", "lz4", "zstd"]
COMPRESSIONS: Final[tuple[Compression, ...]] = get_args(Compression)

_TROUBLE: Final = (kafka_errors.KafkaError, NotImplementedError, OSError, TimeoutError)


class _Producer(AIOKafkaProducer):
    """Upstream's producer on our client, which can be force-closed."""

    __init__ = with_globals(AIOKafkaProducer.__init__, AIOKafkaClient=Client)


class EventProducer:
    """Sends records in order per key and counts the acknowledgements. All waits are bounded.

    Args:
        connection: where to connect, as which user.
        timeout_s: the longest time without any sign of progress before `BrokerUnavailable`.
        max_record_bytes: the largest record that is sent, as it stands in its batch. None: each topic's own
            `max.message.bytes`; where the user may not read it, what is larger than Kafka's default (1 MiB) is sent
            alone, and the broker decides.
        max_unacknowledged: `send` waits for acknowledgements above this many records under way.
        idempotent: False for brokers without idempotent producers; a retry may then double a record (the event
            ids tell the two from equal tokens).
        compression: of the record batches. The topic's limit is one after compression.

    `acknowledged` counts the records the broker has confirmed, `unacknowledged` those sent and not confirmed.
    Leaving the context flushes, and raises if anything was not acknowledged.

    The partition of a key is the one the Java client would choose (murmur2, positive, modulo partitions).
    """

    def __init__(
        self,
        connection: Connection,
        *,
        timeout_s: float = 30.0,
        max_record_bytes: int | None = None,
        max_unacknowledged: int = 10_000,
        idempotent: bool = True,
        compression: Compression = "none",
    ) -> None:
        self.acknowledged = 0
        self.unacknowledged = 0
        self._connection = connection
        self._where = f"kafka {connection.bootstrap_servers}"
        self._timeout_s = timeout_s
        self._max_record_bytes = max_record_bytes
        self._max_unacknowledged = max_unacknowledged
        self._idempotent = idempotent
        self._compression = compression
        self._producer: _Producer | None = None
        self._failure: RunStepsError | None = None
        self._progress = asyncio.Event()
        self._limits: dict[str, int] = {}  # by topic, in bytes
        self._unknown_limits: set[str] = set()
        """Topics whose settings the user may not read: the broker alone knows what is too large."""

    async def start(self) -> None:
        """Connect.

        Raises:
            BrokerUnavailable, BrokerRefused: nothing is left open.
        """
        pinned.verify()
        arguments = self._connection.kwargs()
        # Created here and not in __init__: the client binds to the running loop.
        producer = self._producer = _Producer(
            **arguments
            | {"request_timeout_ms": min(arguments["request_timeout_ms"], max(1, int(self._timeout_s * 1000)))},
            acks="all",
            enable_idempotence=self._idempotent,
            max_request_size=_NO_LIMIT_BYTES,  # the topic's limit is the one that refuses
            max_batch_size=_MAX_BATCH_BYTES,
            compression_type=None if self._compression == "none" else self._compression,
            linger_ms=0,
        )
        try:
            async with explained(self._connection, self._where), asyncio.timeout(self._timeout_s):
                await producer.start()
        except BaseException:
            await self._silence(producer)
            raise

    async def send(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes,
        headers: Sequence[tuple[str, bytes]] = (),
        timestamp_ms: int | None = None,
    ) -> None:
        """Queue one record; returns before it is acknowledged (see `flush`). A value of None is a tombstone.

        Raises:
            RecordTooLarge: it is larger than the topic takes; the producer goes on.
            BrokerUnavailable, BrokerRefused: this record or an earlier one was lost; the producer is finished.
        """
        self._raise_failure()
        assert self._producer is not None, "start() comes first"
        if topic not in self._limits:
            await self._find(self._producer, topic)
        limit = self._limits[topic]
        size = len(value or b"") + len(key) + sum(len(name) + len(content) for name, content in headers)
        if 2 * size > limit:
            size = self._size_alone(self._producer, OutRecord(topic, 0, key, value, 0, tuple(headers)), limit)
            if size > limit and topic not in self._unknown_limits:
                raise RecordTooLarge(topic, size, limit)
            if size > limit:
                await self._send_alone(topic, value, size, key=key, headers=list(headers), timestamp_ms=timestamp_ms)
                return
        await self._until_at_most(self._max_unacknowledged - 1)
        try:
            async with asyncio.timeout(self._timeout_s):
                future = await self._producer.send(
                    topic, value, key=key, headers=list(headers), timestamp_ms=timestamp_ms
                )
        except _TROUBLE as exc:
            self._failure = self._translated(exc, "cannot send")
            raise self._failure from exc
        self.unacknowledged += 1
        future.add_done_callback(self._settled)

    async def flush(self) -> None:
        """Wait until all that was sent is acknowledged.

        Raises:
            BrokerUnavailable: `timeout_s` passed without a single acknowledgement.
            BrokerRefused: the broker said no to a record.
        """
        await self._until_at_most(0)

    async def close(self) -> None:
        """Flush and disconnect; raises what `flush` raises, after disconnecting. Bounded in every state."""
        producer = self._producer
        if producer is None:
            return
        try:
            await self.flush()
            async with asyncio.timeout(self._timeout_s):
                await producer.stop()
            self._producer = None
        except _TROUBLE as exc:
            raise self._translated(exc, "cannot disconnect") from exc
        finally:
            if self._producer is not None:
                await self._silence(producer)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if exc is None:
            await self.close()
            return
        # The body's own error is the one to see; what it queued is still delivered where that is possible.
        with contextlib.suppress(RunStepsError):
            await self.close()

    async def _send_alone(self, topic: str, value: bytes | None, size: int, **rest: Any) -> None:
        """Send a record that the topic may not take, when all before it is acknowledged, and wait for the answer."""
        await self._until_at_most(0)
        producer = self._producer
        assert producer is not None, "start() comes first"
        try:
            async with asyncio.timeout(self._timeout_s):
                await (await producer.send(topic, value, **rest))
        except (kafka_errors.MessageSizeTooLargeError, kafka_errors.RecordListTooLargeError) as exc:
            # The refused record has a sequence number, which the broker will miss: a new producer counts anew.
            await self._end(producer)
            await self.start()
            self._limits.clear()  # the new one has to find the topics, too
            raise RecordTooLarge(topic, size) from exc
        except _TROUBLE as exc:
            self._failure = self._translated(exc, "cannot send")
            raise self._failure from exc
        self.acknowledged += 1

    def _settled(self, future: asyncio.Future[Any]) -> None:
        error = kafka_errors.ProducerClosed() if future.cancelled() else future.exception()
        if error is None:
            self.unacknowledged -= 1
            self.acknowledged += 1
        elif self._failure is None:
            self._failure = self._translated(error, "not acknowledged")
        self._progress.set()

    async def _find(self, producer: _Producer, topic: str) -> None:
        """Wait for the topic's metadata, but not as long as the client would: a missing topic is a typing error."""
        await find_topic(
            producer.client, topic, missing_after_s=MISSING_AFTER_S, timeout_s=min(self._timeout_s, _FIND_TOPIC_S)
        )
        limit = self._limits[topic] = self._max_record_bytes or await self._limit_of(topic)
        # A batch of small records must fit as well; of one record, it is as large as that is.
        accumulator = producer._message_accumulator
        most = limit - BATCH_OVERHEAD_BYTES - compression_growth_bytes(limit)
        accumulator._batch_size = max(1, min(accumulator._batch_size, most))

    def _size_alone(self, producer: _Producer, record: OutRecord, limit: int) -> int:
        """Size in bytes of a batch that holds this record alone, as the broker gets it."""
        plain = batch_bytes(record)
        if self._compression == "none" or plain + compression_growth_bytes(plain) <= limit:
            return plain
        batch = producer.create_batch()
        batch.append(timestamp=0, key=record.key, value=record.value, headers=list(record.headers))
        return len(batch._build())

    async def _limit_of(self, topic: str) -> int:
        """Largest batch that the topic takes; Kafka's default where the user may not read it (no DescribeConfigs)."""
        try:
            async with Admin(self._connection) as admin:
                found = await admin.topics([topic])
        except BrokerRefused:
            self._unknown_limits.add(topic)
            return DEFAULT_MAX_MESSAGE_BYTES
        return found[topic].max_batch_bytes if topic in found else DEFAULT_MAX_MESSAGE_BYTES

    async def _until_at_most(self, count: int) -> None:
        while self.unacknowledged > count:
            self._raise_failure()
            self._progress.clear()
            try:
                async with asyncio.timeout(self._timeout_s):
                    await self._progress.wait()
            except TimeoutError as exc:
                self._failure = self._translated(exc, "no acknowledgement")
                raise self._failure from exc
        self._raise_failure()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _translated(self, exc: BaseException, what: str) -> RunStepsError:
        """The client's error as ours: which broker, what was being done, what to do."""
        where = f"{self._where}: {what}"
        if isinstance(exc, TimeoutError):
            return BrokerUnavailable(
                f"{where}: no progress for {self._timeout_s:g} s", hint="is the broker up, and is this its address?"
            )
        if isinstance(exc, (kafka_errors.MessageSizeTooLargeError, kafka_errors.RecordListTooLargeError)):
            return BrokerRefused(
                f"{where}: topic {', '.join(self._limits)}: a record is larger than the topic takes",
                hint="raise max.message.bytes of the topic",
            )
        ours = translate(exc, where)
        if isinstance(ours, Fenced):  # there is no successor: the client lost count of its sequence
            return BrokerUnavailable(ours.message, hint="publish again with a new producer")
        return ours

    async def _silence(self, producer: _Producer) -> None:
        """Disconnect at once: the client's own stop() would first deliver what is queued, without a time limit."""
        self._producer = None
        if self._failure is None:
            self._failure = BrokerUnavailable(f"{self._where}: disconnected", hint="publish again with a new producer")
        await self._end(producer)

    async def _end(self, producer: _Producer) -> None:
        producer._closed = True
        producer._message_accumulator.fail_all(kafka_errors.ProducerClosed())
        await force_close(producer.client, [producer._sender.sender_task])
