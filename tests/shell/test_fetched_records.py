"""Records that are decoded while they are iterated over: what upstream's reader returns, and what breaks on the way."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.record._crecords import DefaultRecordBatchBuilder
from aiokafka.structs import TopicPartition
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from processor.core.effects import Publish, Record
from processor.core.partition import PartitionState
from processor.core.raw_batch import RawBatch
from processor.core.rules import Rules
from processor.errors import CorruptLog
from processor.kafka.fetch import BatchFetcher, BatchRecords, BatchResult, CheckedRecords
from processor.kafka.fetched_records import FetchedRecords, UndecodedBatch, sample
from tests.core.scripted_log import step, text
from tests.examples import examples
from tests.shell.test_kafka_contract import (
    ABORTED,
    CODECS,
    GAPS,
    LONELY_MARKER,
    MAGIC_0,
    MAGIC_1,
    PLAIN,
    READ_COMMITTED,
    READ_UNCOMMITTED,
    TP,
    Log,
    data,
    logs,
    plain,
    sealed,
    upstream,
)


def source(raw: bytes, start: int = 0, aborted: Sequence[tuple[int, int]] = (), isolation: int = 1) -> BatchRecords:
    return BatchRecords(TP, CheckedRecords(raw), list(aborted), start, None, None, True, isolation)


def taken(log: Log, start: int, isolation: int, cuts: Sequence[int]) -> tuple[list[Any], int]:
    """Take by the given limits, the last one repeated to the end; check every step of the way.

    A limit below 0: so many records, and no batch in part.
    """
    reading, limits, got = source(log.raw, start, log.aborted, isolation), list(cuts), list[Any]()
    while True:
        cut = limits.pop(0) if len(limits) > 1 else limits[0]
        limit = abs(cut)
        records, more = reading.take_undecoded(limit, in_part=cut > 0)
        found = [plain(record) for record in records]
        assert len(found) == len(records) <= limit
        assert [plain(record) for record in records] == found, "iterated over again"
        if found:
            assert plain(records[-1]) == found[-1]
            assert plain(records[0]) == found[0]
            assert [plain(record) for record in records[1:3]] == found[1:3]
            assert {plain(record) for record in sample(records)} <= set(found)
            assert 1 <= len(sample(records)) <= 8
        again = reading_again(records)
        assert [plain(record) for record in again] == found, "read by the core from the bytes"
        got += found
        assert not got or reading.next_fetch_offset > got[-1][0]
        if not more:
            return got, reading.next_fetch_offset


def reading_again(records: Sequence[Record]) -> list[Record]:
    """The records as the fold takes them, each kept; and what is known of them afterwards."""
    if not isinstance(records, FetchedRecords):
        return list(records)
    known = list(sample(records)), records[-1] if records else None
    assert known[0] or not records
    found = [
        record.record() if isinstance(record, RawBatch) else record for batch in records.batches() for record in batch
    ]
    now = list(sample(records)), records[-1] if records else None
    assert [plain(record) for record in known[0]] == [plain(record) for record in now[0]]
    assert known[1] is None or (now[1] is not None and plain(known[1]) == plain(now[1]))
    return found


@pytest.mark.parametrize("isolation", [READ_UNCOMMITTED, READ_COMMITTED])
@pytest.mark.parametrize("start", [0, 1, 4, 7])
@pytest.mark.parametrize("log", [PLAIN, ABORTED, LONELY_MARKER, GAPS, CODECS, MAGIC_0, MAGIC_1])
def test_it_takes_what_upstream_takes(log: Log, start: int, isolation: int) -> None:
    for limit in (1, 2, 3, 4, 5, 6, 1_000):
        assert taken(log, start, isolation, [limit]) == upstream(log, start, isolation)


@settings(max_examples=examples(150), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    logs(),
    st.integers(0, 40),
    st.sampled_from([0, 1]),
    st.lists(st.integers(-9, 9).filter(bool), max_size=5),
    st.integers(1, 9),
)
def test_it_takes_what_upstream_takes_of_any_log(
    log: Log, start: int, isolation: int, cuts: list[int], last: int
) -> None:
    assert taken(log, start, isolation, [*cuts, last]) == upstream(log, start, isolation)


def test_a_batch_without_room_is_left_whole_for_the_next_call() -> None:
    reading = source(data(0, 3) + data(3, 4) + data(7, 1))
    for count, begin in ((3, 0), (5, 3)):
        records, more = reading.take_undecoded(5)
        assert isinstance(records, FetchedRecords)
        assert reading.next_fetch_offset == begin + count
        pieces = [[record.offset for record in piece] for piece in records.batches() if isinstance(piece, RawBatch)]
        assert [offset for piece in pieces for offset in piece] == [*range(begin, begin + count)]
    assert more, "its end was not looked for"


def test_a_batch_larger_than_the_room_is_taken_in_part_if_it_may_be() -> None:
    reading = source(data(0, 4))
    records, more = reading.take_undecoded(3, in_part=False)
    assert (len(records), more, reading.next_fetch_offset) == (0, True, 0)
    offsets = []
    for _ in range(2):
        records, more = reading.take_undecoded(3)
        offsets.append([record.offset for record in records])
    assert (offsets, more) == ([[0, 1, 2], [3]], False)


class Consumed:
    """A partition that is assigned to us, for the fetcher: its position is where it was moved to."""

    active, paused, position = True, False, 0

    def state_value(self, _: TopicPartition) -> Consumed:
        return self

    def consumed_to(self, offset: int) -> None:
        self.position = offset


async def test_a_poll_divides_a_batch_of_its_first_partition_alone() -> None:
    """Else each poll would end with some records of the next one, decoded one by one."""
    logs = {TopicPartition("t", 1): data(0, 3), TopicPartition("t", 2): data(0, 3) + data(3, 9)}
    fetcher = object.__new__(BatchFetcher)
    fetcher._closed, fetcher._wait_consume_future = False, None
    fetcher._fetch_task = asyncio.get_running_loop().create_future()
    fetcher._subscriptions = SimpleNamespace(reassignment_in_progress=False)
    fetcher._records = {
        tp: BatchResult(tp, assignment=Consumed(), partition_records=source(log), backoff=0.0)
        for tp, log in logs.items()
    }
    polls = [await fetcher.take_undecoded(list(logs), timeout_s=0, limit=5) for _ in range(5)]
    found = [{tp.partition: [record.offset for record in records] for tp, records in poll.items()} for poll in polls]
    assert found == [{1: [0, 1, 2]}, {2: [0, 1, 2]}, {2: [3, 4, 5, 6, 7]}, {2: [8, 9, 10, 11]}, {}]


def test_whole_batches_are_not_decoded_when_they_are_taken() -> None:
    records, _ = source(data(0, 3) + unreadable(3)).take_undecoded(100)
    assert len(records) == 5
    got: list[int] = []
    with pytest.raises(CorruptLog, match=r"topic t: partition 0: .*"):
        got.extend(record.offset for record in records)
    with pytest.raises(CorruptLog):
        got.extend(record.offset for record in records)
    assert isinstance(records, FetchedRecords)
    read: list[int] = []
    with pytest.raises(CorruptLog, match=r"topic t: partition 0: .*"):
        read.extend(record.offset for batch in records.batches() for record in batch)
    assert read == [0, 1, 2, 3]


def attributes_of_records(batch: bytearray) -> set[int]:
    """Where they stand in a batch that is not compressed, of records shorter than 64 bytes."""
    at, found = 61, set()
    while at < len(batch):
        found.add(at + 1)
        at += 1 + batch[at] // 2
    return found


@settings(deadline=None)
@given(st.integers(0, 1), st.integers(0, 255), st.data())
def test_broken_bytes_end_the_core_s_reading_where_they_end_the_client_s(
    first: int, byte: int, drawn: st.DataObject
) -> None:
    batch = bytearray(data(first, 5))
    # The client reads the attributes of a record as a number of any length; they are one byte, and say nothing.
    places = sorted({*range(61, len(batch))} - attributes_of_records(batch))
    batch[drawn.draw(st.sampled_from(places))] = byte
    ends: list[tuple[list[Any], bool]] = []
    for way in ("client", "core"):
        records, _more = source(sealed(batch)).take_undecoded(100)
        assert isinstance(records, FetchedRecords)
        got: list[Any] = []
        try:
            pieces = [records] if way == "client" else records.batches()
            got.extend(plain(record) for piece in pieces for record in piece)
        except CorruptLog:
            ends.append((got, True))
        else:
            ends.append((got, False))
    assert ends[0] == ends[1]


def unreadable(base: int) -> bytes:
    """A batch of two records with a right checksum; the length of the second one is wrong."""
    batch = bytearray(data(base, 2))
    second = 61 + 1 + batch[61] // 2
    batch[second] += 2
    return sealed(batch)


def test_records_before_a_broken_one_are_returned_first() -> None:
    records, _ = source(data(0, 3) + unreadable(3)).take_undecoded(100)
    reading = iter(records)
    assert [next(reading).offset for _ in range(3)] == [0, 1, 2]


def test_a_sample_has_the_first_record_of_batches() -> None:
    records, _ = source(b"".join(data(3 * n, 3) for n in range(20))).take_undecoded(1_000)
    assert list(sample(records)) == [], "nothing was iterated over"
    for _ in records:
        pass
    assert [record.offset for record in sample(records)] == [0, 9, 18, 27, 36, 45, 54]


def test_an_empty_take_is_false() -> None:
    records, more = source(b"").take_undecoded(5)
    assert (bool(records), list(records), more) == (False, [], False)


def oddly_named(bad: int) -> bytes:
    """Three records that end steps; the name of a header of one is not UTF-8."""
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, 0, 1 << 20)
    for at in range(3):
        value = text({"event": "thread.run.step.completed", "data": step("completed", step_id=f"s{at}")})
        builder.append(at, 1_000_000, b"k", value, [("odd-name", b"x")])
    batch = bytearray(builder.build())
    found = -1
    for _ in range(bad + 1):
        found = batch.index(b"odd-name", found + 1)
    batch[found : found + 8] = b"\xffa\xfe\x00\xfdabc"
    return sealed(batch)


@pytest.mark.parametrize("bad", [0, 1, 2])
def test_a_name_that_is_not_utf8_neither_loses_nor_doubles_a_record(bad: int) -> None:
    raw = data(0, 4, gap=0) + bytes(struct.pack(">q", 4) + oddly_named(bad)[8:])
    found, position = source(raw).take(None)[0], None
    records, _ = source(raw).take_undecoded(100)
    assert isinstance(records, FetchedRecords)
    assert [plain(record) for record in records] == [plain(record) for record in found]
    assert [record.offset for record in records] == list(range(7)), position
    effects = PartitionState("t", 0, Rules()).apply(source(oddly_named(bad)).take_undecoded(100)[0])
    assert [effect.step_id for effect in effects if isinstance(effect, Publish)] == ["s0", "s1", "s2"]


def test_a_lack_of_memory_is_not_taken_for_a_broken_log(monkeypatch: pytest.MonkeyPatch) -> None:
    def records(_: UndecodedBatch) -> Any:
        raise MemoryError

    monkeypatch.setattr(UndecodedBatch, "records", records)
    with pytest.raises(MemoryError):
        list(source(data(0, 3)).take_undecoded(100)[0])


def test_the_broker_s_time_is_read_as_upstream_reads_it() -> None:
    batch = bytearray(data(0, 3))
    struct.pack_into(">h", batch, 21, 0x08)  # LogAppendTime: the time of all is the batch's largest
    struct.pack_into(">q", batch, 35, 77_777)
    log = Log(sealed(batch), [])
    assert {row[1] for row in upstream(log, 0, READ_COMMITTED)[0]} == {77_777}
    assert taken(log, 0, READ_COMMITTED, [100]) == upstream(log, 0, READ_COMMITTED)
