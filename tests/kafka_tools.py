"""Talk to a broker as an outsider would, through confluent-kafka: not the client under test, so it can contradict it.

Every wait has a deadline and says what it waited for.
"""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

from confluent_kafka import (
    TIMESTAMP_NOT_AVAILABLE,
    Consumer,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._acl import AclBindingFilter, AclOperation, AclPermissionType
from confluent_kafka.admin._resource import ResourcePatternType, ResourceType
from confluent_kafka.cimpl import NewTopic

DEADLINE_S: Final = 180.0
"""Of a wait: a machine that is busy with other things is slow, and not wrong."""
PATIENCE_S: Final = 180.0
"""With errors that pass."""
_ONE_S: Final = 30.0
"""For one request, of those that are asked again."""

_PASSING: Final = frozenset(
    {
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._TIMED_OUT,
        KafkaError._TRANSPORT,
        KafkaError._WAIT_COORD,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NETWORK_EXCEPTION,
        KafkaError.NOT_COORDINATOR,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError.REQUEST_TIMED_OUT,
    }
)

T = TypeVar("T")
Headers = Sequence[tuple[str, bytes | None]]


@dataclass(frozen=True, slots=True)
class Sent:
    """A record to produce. `partition` None: by key, as the Java client does; `timestamp` in ms, None: now."""

    value: bytes | None
    key: bytes | None = None
    headers: Headers = ()
    timestamp: int | None = None
    partition: int | None = None


@dataclass(frozen=True, slots=True)
class Got:
    """A record as read. `timestamp` in ms, -1 where there is none."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]

    def header(self, name: str) -> bytes | None:
        """The last header of that name, or None."""
        return dict(self.headers).get(name)


@dataclass(frozen=True, slots=True)
class Names:
    """Names that no other test uses."""

    prefix: str
    group: str

    def topic(self, name: str) -> str:
        return f"{self.prefix}.{name}"


def is_passing(error: Exception) -> bool:
    """Whether an error of confluent-kafka says only that a broker is slow, moves what it leads, or is away for now.

    Its own `retriable()` is set for errors of transactions alone: "not coordinator" is final by it.
    """
    if isinstance(error, TimeoutError):
        return True
    cause = error.args[0] if isinstance(error, KafkaException) and error.args else None
    return isinstance(cause, KafkaError) and (cause.retriable() or cause.code() in _PASSING)


def _code(error: Exception) -> int | None:
    cause = error.args[0] if isinstance(error, KafkaException) and error.args else None
    return cause.code() if isinstance(cause, KafkaError) else None


def patiently(ask: Callable[[], T], within_s: float = PATIENCE_S) -> T:
    """Ask what changes nothing, again while the answer is one that passes; the last error is raised in the end."""
    deadline = time.monotonic() + within_s
    while True:
        try:
            return ask()
        except (KafkaException, TimeoutError) as error:
            if not is_passing(error) or time.monotonic() >= deadline:
                raise
            time.sleep(0.1)


def admin(bootstrap: str, **settings: Any) -> AdminClient:
    return AdminClient({"bootstrap.servers": bootstrap, **_quiet(settings)})


def revoke_all(client: AdminClient, principal: str) -> None:
    """Take away every ACL of a principal (`User:name`)."""
    everything = AclBindingFilter(
        ResourceType.ANY,
        None,  # type: ignore[arg-type]  # the stub does not know that None is any
        ResourcePatternType.ANY,
        principal,
        None,  # type: ignore[arg-type]
        AclOperation.ANY,
        AclPermissionType.ANY,
    )
    for future in client.delete_acls([everything]).values():
        future.result(DEADLINE_S)


def create_topics(
    bootstrap: str,
    *names: str,
    partitions: int = 1,
    replicas: int = 1,
    config: Mapping[str, str] | None = None,
    **settings: Any,
) -> None:
    """Create topics and wait until every partition has a leader that clients can find."""
    client = admin(bootstrap, **settings)
    wanted = {
        name: NewTopic(name, num_partitions=partitions, replication_factor=replicas, config=dict(config or {}))
        for name in names
    }
    _until_done(
        wanted,
        lambda left: client.create_topics([wanted[name] for name in left], operation_timeout=_ONE_S),
        KafkaError.TOPIC_ALREADY_EXISTS,
    )
    deadline = time.monotonic() + DEADLINE_S
    for name in names:
        while not _is_led(client, name, partitions):
            assert time.monotonic() < deadline, f"topic {name} has no leaders after {DEADLINE_S} s"


def remake_topics(bootstrap: str, *names: str, partitions: int, config: Mapping[str, str] | None = None) -> None:
    """Delete topics and create them again under the same names, once the broker has forgotten the old ones."""
    delete_topics(bootstrap, *names)
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            return create_topics(bootstrap, *names, partitions=partitions, config=config)
        except KafkaException:  # the deletion is not everywhere yet
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.05)


def delete_topics(bootstrap: str, *names: str) -> None:
    client = admin(bootstrap)  # held: a client that is collected takes its answers with it
    _until_done(
        names,
        lambda left: client.delete_topics(left, operation_timeout=_ONE_S),
        KafkaError.UNKNOWN_TOPIC_OR_PART,
    )


def _until_done(names: Iterable[str], ask: Callable[[list[str]], Mapping[str, Future[Any]]], done_before: int) -> None:
    """Ask for a change of each until it is answered.

    Args:
        done_before: the code that answers who asks again for what an unanswered request has done.
    """
    deadline = time.monotonic() + DEADLINE_S
    unanswered: set[str] = set()
    left = list(names)
    while left:
        asked, left = ask(left), []
        for name, future in asked.items():
            try:
                future.result(DEADLINE_S)
            except (KafkaException, TimeoutError) as error:
                if name in unanswered and _code(error) == done_before:
                    continue
                if not is_passing(error) or time.monotonic() >= deadline:
                    raise
                unanswered.add(name)
                left.append(name)
        if left:
            time.sleep(0.1)


def _is_led(client: AdminClient, topic: str, partitions: int) -> bool:
    seen = patiently(lambda: client.list_topics(topic, timeout=_ONE_S)).topics[topic]
    return len(seen.partitions) == partitions and all(part.leader >= 0 for part in seen.partitions.values())


def produce(
    bootstrap: str, topic: str, records: Iterable[Sent], *, transactional_id: str | None = None, **settings: Any
) -> list[tuple[int, int]]:
    """Produce in order, in one transaction if an id is given; returns (partition, offset) of each, acknowledged."""
    own = {} if transactional_id is None else {"transactional.id": transactional_id}
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "enable.idempotence": True,
            "partitioner": "murmur2_random",
            "linger.ms": 1,
            **own,
            **_quiet(settings),
        }
    )
    places: dict[int, tuple[int, int]] = {}
    failures: list[KafkaError] = []

    def note(number: int, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            failures.append(error)
        else:
            places[number] = (_known(message.partition()), _known(message.offset()))

    if transactional_id is not None:
        patiently(lambda: producer.init_transactions(_ONE_S))
        producer.begin_transaction()
    count = 0
    for count, record in enumerate(records, start=1):
        optional: dict[str, Any] = {}
        if record.timestamp is not None:
            optional["timestamp"] = record.timestamp
        if record.partition is not None:
            optional["partition"] = record.partition
        while True:
            try:
                producer.produce(
                    topic,
                    value=record.value,
                    key=record.key,
                    headers=list(record.headers),
                    on_delivery=partial(note, count),
                    **optional,
                )
                break
            except BufferError:  # librdkafka's queue is full: let it drain
                producer.poll(0.1)
        producer.poll(0)
    left = producer.flush(DEADLINE_S)
    assert not failures, f"topic {topic}: {failures[0]}"
    assert left == 0, f"topic {topic}: {left} records not acknowledged after {DEADLINE_S} s"
    if transactional_id is not None:
        patiently(lambda: producer.commit_transaction(_ONE_S))  # librdkafka commits the same one, once
    return [places[number] for number in range(1, count + 1)]


def produce_raw(bootstrap: str, topic: str, batch: bytes) -> int:
    """Produce a record batch as it is on partition 0, which no client library would send; returns its first offset."""
    header = struct.pack(">hhih", 0, 3, 1, -1)  # Produce v3, no client id
    body = struct.pack(">hhii", -1, -1, 10_000, 1) + struct.pack(">h", len(topic)) + topic.encode()
    body += struct.pack(">iii", 1, 0, len(batch)) + batch
    host, _, port = bootstrap.partition(":")
    with socket.create_connection((host, int(port)), timeout=DEADLINE_S) as connection:
        connection.sendall(struct.pack(">i", len(header + body)) + header + body)
        with connection.makefile("rb") as answers:
            (size,) = struct.unpack(">i", answers.read(4))
            answer = answers.read(size)
    code, offset = struct.unpack_from(">hq", answer, 4 + 4 + 2 + len(topic) + 4 + 4)
    assert not code, f"Produce was answered with error {code}"
    return int(offset)


def read_topic(
    bootstrap: str,
    topic: str,
    *,
    isolation: str = "read_committed",
    expect: int = 0,
    deadline_s: float = DEADLINE_S,
    **settings: Any,
) -> list[Got]:
    """All of a topic as it stands, partition by partition, each in order.

    Read to the end as that isolation level sees it: `read_committed` stops before the first open transaction.
    With `expect`, waits until there are at least that many records.
    """
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "kafka-tools-never-commits",
            "enable.auto.commit": False,
            "isolation.level": isolation,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 50,
            "fetch.error.backoff.ms": 20,
            "max.partition.fetch.bytes": 16 * 1024 * 1024,
            **_quiet(settings),
        }
    )
    try:
        known = patiently(lambda: consumer.list_topics(topic, timeout=_ONE_S), deadline_s).topics[topic]
        assert known.error is None, f"topic {topic}: {known.error}"
        consumer.assign([TopicPartition(topic, number, 0) for number in known.partitions])
        unread = set(known.partitions)
        got: list[Got] = []
        deadline = time.monotonic() + deadline_s
        while unread or len(got) < expect:
            assert time.monotonic() < deadline, (
                f"topic {topic}: {len(got)} records (expected {expect}), partitions {sorted(unread)} not at "
                f"their end after {deadline_s} s"
            )
            for message in consumer.consume(1000, timeout=0.1):
                error = message.error()
                if error is None:
                    got.append(_got(message))
                elif error.code() == KafkaError._PARTITION_EOF:
                    unread.discard(_known(message.partition()))
                elif not is_passing(KafkaException(error)):
                    raise KafkaException(error)
    finally:
        consumer.close()
    return sorted(got, key=lambda record: (record.partition, record.offset))


def committed(bootstrap: str, group: str, topic: str, **settings: Any) -> dict[int, tuple[int, str]]:
    """What the group has committed for a topic: partition -> (offset, metadata); a partition without is absent."""
    client = admin(bootstrap, **settings)  # held: a client that is collected takes its answers with it

    def ask() -> list[TopicPartition]:
        asked = client.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)], request_timeout=_ONE_S)
        return asked[group].result(DEADLINE_S).topic_partitions or []

    answered = patiently(ask)
    return {
        place.partition: (place.offset, _metadata(place))
        for place in answered
        if place.topic == topic and place.offset >= 0
    }


def _metadata(place: TopicPartition) -> str:
    """The metadata as it was committed.

    librdkafka does not end the text with a zero and its Python side reads on into other memory, which need not even
    be UTF-8: what follows a whole JSON value, as our metadata is, is not ours.
    """
    try:
        text = place.metadata or ""
    except UnicodeDecodeError as exc:
        text = exc.object[: exc.start].decode()
    if text.startswith("{"):
        _, end = json.JSONDecoder().raw_decode(text)
        text = text[:end]
    return text


def _got(message: Message) -> Got:
    kind, timestamp = message.timestamp()
    headers = message.headers() or []
    assert isinstance(headers, list), "confluent-kafka reads headers as a list of pairs"
    return Got(
        topic=_known(message.topic()),
        partition=_known(message.partition()),
        offset=_known(message.offset()),
        timestamp=-1 if kind == TIMESTAMP_NOT_AVAILABLE else timestamp,
        key=message.key(),
        value=message.value(),
        headers=tuple((name, value.encode() if isinstance(value, str) else value) for name, value in headers),
    )


def _known(value: T | None) -> T:
    assert value is not None
    return value


def _quiet(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments as librdkafka spells them (`security_protocol` -> `security.protocol`); callbacks as they are."""
    spelled = {name if name.endswith("_cb") else name.replace("_", "."): value for name, value in settings.items()}
    return {"log_level": 2, **spelled}
