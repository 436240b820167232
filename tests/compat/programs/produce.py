"""Writes the lines of a plan (tests/compat/plan.py) with a Python client, in an environment of its own.

arguments: client bootstrap topic codec plain|transactions plan
"""

from __future__ import annotations

import asyncio
import base64
import sys
import uuid
from typing import Any

CHUNK = 50


def content(field: str) -> bytes | None:
    return None if field == "-" else base64.b64decode(field[1:])


def parsed(line: str) -> tuple[bytes | None, bytes | None, int | None, list[tuple[str, bytes | None]]]:
    key, value, timestamp, headers = line.rstrip("\n").split("\t")
    pairs = [pair.split(":") for pair in headers.split(",") if pair]
    named = [((content(name) or b"").decode(), content(text)) for name, text in pairs]
    return content(key), content(value), None if timestamp == "-" else int(timestamp), named


def chunks(lines: list[Any], is_transactional: bool) -> Any:
    """(lines, whether they are committed): every fifth chunk is first written into a transaction that is aborted."""
    if not is_transactional:
        yield lines, True
        return
    for number, begin in enumerate(range(0, len(lines), CHUNK)):
        if number % 5 == 4:
            yield lines[begin : begin + CHUNK], False
        yield lines[begin : begin + CHUNK], True


def with_confluent(bootstrap: str, topic: str, codec: str, lines: list[Any], is_transactional: bool) -> None:
    from confluent_kafka import Producer

    settings = {
        "bootstrap.servers": bootstrap,
        "compression.type": codec,
        "partitioner": "murmur2_random",
        "enable.idempotence": True,
        "message.max.bytes": 8388608,
    }
    if is_transactional:
        settings["transactional.id"] = f"compat-{uuid.uuid4()}"
    producer = Producer(settings)
    failed: list[object] = []
    if is_transactional:
        producer.init_transactions(60)
    for chunk, is_committed in chunks(lines, is_transactional):
        if is_transactional:
            producer.begin_transaction()
        for key, value, timestamp, headers in chunk:
            more = {} if timestamp is None else {"timestamp": timestamp}
            while True:
                try:
                    producer.produce(
                        topic,
                        value,
                        key,
                        headers=headers,
                        on_delivery=lambda error, _: failed.append(error) if error else None,
                        **more,
                    )
                    break
                except BufferError:
                    producer.poll(0.1)
            producer.poll(0)
        assert producer.flush(60) == 0
        if is_transactional:
            (producer.commit_transaction if is_committed else producer.abort_transaction)(60)
    assert not failed, failed[0]


def with_kafka_python(bootstrap: str, topic: str, codec: str, lines: list[Any], is_transactional: bool) -> None:
    from kafka import KafkaProducer  # type: ignore[import-not-found]

    more = {"transactional_id": f"compat-{uuid.uuid4()}"} if is_transactional else {}
    producer = KafkaProducer(
        bootstrap_servers=bootstrap,
        compression_type=None if codec == "none" else codec,
        max_request_size=8388608,
        **more,
    )
    if is_transactional:
        producer.init_transactions()
    for chunk, is_committed in chunks(lines, is_transactional):
        if is_transactional:
            producer.begin_transaction()
        sent = [
            producer.send(topic, value=value, key=key, headers=headers, timestamp_ms=timestamp)
            for key, value, timestamp, headers in chunk
        ]
        producer.flush()
        for one in sent:
            one.get(60)
        if is_transactional:
            (producer.commit_transaction if is_committed else producer.abort_transaction)()
    producer.close()


async def with_aiokafka(bootstrap: str, topic: str, codec: str, lines: list[Any], is_transactional: bool) -> None:
    from aiokafka import AIOKafkaProducer

    more = {"transactional_id": f"compat-{uuid.uuid4()}"} if is_transactional else {}
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap,
        compression_type=None if codec == "none" else codec,
        max_request_size=8388608,
        **more,
    )
    await producer.start()
    try:
        for chunk, is_committed in chunks(lines, is_transactional):
            if is_transactional:
                await producer.begin_transaction()
            sent = [
                await producer.send(topic, value, key, timestamp_ms=timestamp, headers=headers)
                for key, value, timestamp, headers in chunk
            ]
            await asyncio.gather(*sent)
            if is_transactional:
                await (producer.commit_transaction() if is_committed else producer.abort_transaction())
    finally:
        await producer.stop()


def main() -> None:
    client, bootstrap, topic, codec, mode, plan = sys.argv[1:]
    with open(plan) as file:
        lines = [parsed(line) for line in file]
    arguments = (bootstrap, topic, codec, lines, mode == "transactions")
    if client == "aiokafka":
        asyncio.run(with_aiokafka(*arguments))
    else:
        {"confluent-kafka": with_confluent, "kafka-python": with_kafka_python}[client](*arguments)


main()
