"""A producer whose batches were encoded beforehand, so that at its rate it takes next to nothing of the broker's core.

A client that encodes 80,000 records a second fills most of a core. Here a request has all records of `LINGER_S`, one
batch a partition, and is sent once the last of them was handed over. A batch is about as large as those of Kafka's own
producer, whose defaults are a linger.ms of 5 (KIP-1030) and 16 KiB.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import for_code
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.record._crecords import DefaultRecordBatchBuilder
from confluent_kafka import TIMESTAMP_CREATE_TIME, TIMESTAMP_LOG_APPEND_TIME

from tests.bench.load import Made

LINGER_S: Final = 0.005
_TIMEOUT_S: Final = 60
_ACKS_ALL: Final = -1

Delivered = Callable[[Any, Any], None]


class Prepared(NamedTuple):
    """One request: `batches` with their partitions, of `records` records together."""

    records: int
    batches: list[tuple[int, bytes]]


class Delivery(NamedTuple):
    """A delivery report, asked as that of confluent-kafka. `appended_ms` is -1 if the topic has CreateTime."""

    latency_s: float
    appended_ms: int

    def latency(self) -> float:
        return self.latency_s

    def timestamp(self) -> tuple[int, int]:
        kind = TIMESTAMP_CREATE_TIME if self.appended_ms < 0 else TIMESTAMP_LOG_APPEND_TIME
        return kind, self.appended_ms


def prepared(made: Iterable[Made], per_s: int) -> Iterator[Prepared]:
    """The requests of a load of so many records a second."""
    left, together = iter(made), max(1, round(per_s * LINGER_S))
    while due := list(islice(left, together)):
        by_partition: defaultdict[int, list[Made]] = defaultdict(list)
        for one in due:
            by_partition[one.partition].append(one)
        yield Prepared(len(due), [(partition, _batch(records)) for partition, records in by_partition.items()])


def _batch(records: list[Made]) -> bytes:
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1 << 30)
    for offset, one in enumerate(records):
        builder.append(offset, one.timestamp, one.key, one.value, [])
    return bytes(builder.build())


class PreparedProducer:
    """Sends prepared requests as their records are handed over; has what the bench calls of confluent-kafka's Producer.

    Its client runs in a thread of its own, which `with` begins and ends. All partitions have one leader.
    """

    def __init__(self, bootstrap: str, topic: str, requests: Iterable[Prepared]) -> None:
        self._bootstrap, self._topic = bootstrap, topic
        self._requests = deque(requests)
        self._handed = 0
        self._reports: list[tuple[int, float, Delivered]] = []
        self._answers: list[asyncio.Future[None]] = []
        self._given: deque[tuple[Delivered, Delivery]] = deque()  # answered, and not yet told
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._client: AIOKafkaClient | None = None
        self._leader = 0

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result(_TIMEOUT_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(_TIMEOUT_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def produce(self, one: Made, delivered: Delivered | None) -> None:
        """Hand over the next record; the last of a request sends it. `poll` calls `delivered` once it is answered."""
        if delivered is not None:
            self._reports.append((one.partition, time.perf_counter(), delivered))
        self._handed += 1
        if self._handed == self._requests[0].records:
            reports, self._reports, self._handed = self._reports, [], 0
            self._loop.call_soon_threadsafe(self._send, self._requests.popleft().batches, reports)

    def poll(self, timeout_s: float) -> None:
        """Give the reports that there are by now, in the caller's thread; it does not wait."""
        while self._given:
            delivered, delivery = self._given.popleft()
            delivered(None, delivery)

    def flush(self, timeout_s: float) -> None:
        """Wait until all that was sent is answered; records of a request that is not whole are not sent.

        Raises:
            KafkaError: the broker refused a batch.
            TimeoutError: not all of it was answered in time.
        """
        asyncio.run_coroutine_threadsafe(self._answered(), self._loop).result(timeout_s)
        self.poll(0)

    async def _open(self) -> None:
        self._client = AIOKafkaClient(bootstrap_servers=self._bootstrap)
        await self._client.bootstrap()
        # With no connection to the leader yet, a request goes ahead of those that still wait for one.
        self._leader = self._client.get_random_node()
        await self._client.ready(self._leader)

    async def _close(self) -> None:
        assert self._client is not None
        for answer in self._answers:
            answer.cancel()
        await self._client.close()

    async def _answered(self) -> None:
        await asyncio.gather(*self._answers)

    def _send(self, batches: list[tuple[int, bytes]], reports: list[tuple[int, float, Delivered]]) -> None:
        self._answers = [answer for answer in self._answers if not answer.done() or answer.exception()]
        self._answers.append(self._loop.create_task(self._request(batches, reports)))

    async def _request(self, batches: list[tuple[int, bytes]], reports: list[tuple[int, float, Delivered]]) -> None:
        assert self._client is not None
        request = ProduceRequest(None, _ACKS_ALL, _TIMEOUT_S * 1000, [(self._topic, batches)])
        answer = await self._client.send(self._leader, request)
        ((_, rows),) = answer.topics
        appended = {}
        for partition, code, _, appended_ms, *_ in rows:
            if code:
                raise for_code(code)(f"{self._topic}-{partition}")
            appended[partition] = appended_ms
        now = time.perf_counter()
        for partition, handed, delivered in reports:
            self._given.append((delivered, Delivery(now - handed, appended[partition])))
