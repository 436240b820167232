"""A replay reads topics as columns where the core is compiled: the same records and gaps come as without it."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import TopicPartition

from processor.archives import Gap
from processor.audit.replay.record_sources import Ledger, _read_range, pieces
from processor.audit.replay.task import Task
from processor.broker import Broker
from processor.core.batch_columns import columns_of
from processor.core.effects import LogRecord
from processor.core.record_columns import RecordColumns
from processor.core.rules import Rules
from processor.kafka import fetched_records
from tests import kafka_tools as kt
from tests.broker.test_kafka_consumer import CODECS, plain, transaction
from tests.kafka_tools import Names, Sent


@pytest.mark.parametrize("codecs", [CODECS, ()], ids=["transactions", "none"])
async def test_columns_of_a_topic_are_its_records(
    broker: Broker, names: Names, monkeypatch: pytest.MonkeyPatch, codecs: tuple[str | None, ...]
) -> None:
    """Transactions, aborted ones between them, single records, and a head that was deleted; ranges that begin and end
    within a batch. What a fetch passed over is told by objects alone."""
    topic = names.topic("in")
    kt.create_topics(broker.bootstrap, topic)
    for codec in codecs:
        await transaction(broker, topic, [b"kept %d" % i for i in range(20)], commit=True, codec=codec)
        await transaction(broker, topic, [b"aborted %d" % i for i in range(3)], commit=False, codec=codec)
    sent = [Sent(None, None, headers=[("h", b"1"), ("none", None)], timestamp=5), Sent(b"v", b"k"), Sent(b"", b"")]
    for one in sent:
        kt.produce(broker.bootstrap, topic, [one])
    kt.produce(broker.bootstrap, topic, [Sent(b"%d" % i, b"k", headers=[("h", b"1")] * (i % 2)) for i in range(130)])
    client = kt.admin(broker.bootstrap)
    for future in client.delete_records([TopicPartition(topic, 0, 4)]).values():
        future.result(kt.DEADLINE_S)
    end = len(codecs) * (20 + 1 + 3 + 1) + 3 + 130
    columns = []
    for begin, behind in ((0, end), (7, end - 20), (30, 31), (21, 44), (101, end)):
        told = []
        for is_compiled in (False, True):
            monkeypatch.setattr(fetched_records, "_IS_COMPILED", is_compiled)
            found, noted = await _read(broker, topic, begin, behind)
            as_columns = [piece for piece in found if isinstance(piece, RecordColumns)]
            assert is_compiled or not as_columns
            columns += as_columns
            told.append(([one for piece in found for one in _items(piece)], noted))
        assert told[0] == told[1]
        assert sum(last - first + 1 for first, last, _ in told[0][1]) == behind - begin
    assert bool(columns) != bool(codecs)


@pytest.mark.parametrize("offsets", [(3, 4, 5), (5, 6), (3, 4, 7), (4, 9)])
async def test_holes_are_told_by_columns_too(monkeypatch: pytest.MonkeyPatch, offsets: tuple[int, ...]) -> None:
    """As compaction leaves them: in front of what a fetch has, and within."""
    monkeypatch.setattr(fetched_records, "columns", lambda records: columns_of([records]))

    class Reader:
        def observe(self, told: object) -> None: ...

        async def read_undecoded_to(self, *_: object) -> Any:
            yield 0, [LogRecord(offset, 1, b"k", b"v") for offset in offsets]

    noted: list[tuple[int, int, str]] = []
    ledger = Ledger(3, 10, lambda first, last, kind: noted.append((first, last, kind)))
    reader: Any = Reader()
    found = [piece async for piece in _read_range(_task("t", 3, 10, {}), reader, ledger)]
    covered: list[int] = []
    for piece in found:
        covered += range(piece.first, piece.last + 1) if isinstance(piece, Gap) else [one.offset for one in piece]
    assert covered == list(range(3, offsets[-1] + 1))
    assert [one.offset for piece in found if not isinstance(piece, Gap) for one in piece] == list(offsets)


async def _read(broker: Broker, topic: str, begin: int, end: int) -> tuple[list[Any], list[tuple[int, int, str]]]:
    task = _task(topic, begin, end, {"bootstrap_servers": broker.bootstrap})
    noted: list[tuple[int, int, str]] = []
    ledger = Ledger(begin, end, lambda first, last, kind: noted.append((first, last, kind)))
    return [piece async for piece in pieces(task, ledger)], noted


def _task(topic: str, begin: int, end: int, connection: dict[str, Any]) -> Task:
    return Task(
        topic=topic, partition=0, begin=begin, end=end, complete=True, rules=Rules(), outcome_topics={},
        dead_letter="", output_partitions={}, work="", connection=connection,
    )  # fmt: skip


def _items(piece: Any) -> list[Any]:
    if isinstance(piece, RecordColumns):
        return [plain(record) for record in piece.records()]
    return [plain(record) for record in piece] if isinstance(piece, list) else [piece]
