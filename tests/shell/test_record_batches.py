"""Batches of output records: the bytes of the client's own builder, full where it is full, no larger for a codec.

No broker: that one takes what the writer sends is shown in tests/broker/test_kafka_writer.py.
"""

from __future__ import annotations

import time
from random import Random

import google_crc32c
import pytest
from aiokafka.producer import message_accumulator
from aiokafka.record._crc32c import crc as crc_in_python
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c
from hypothesis import example, given, settings
from hypothesis import strategies as st

from processor.core.varint import varint
from processor.kafka import batch_builder
from processor.kafka.batch_builder import BatchBuilder
from processor.kafka.checksum import crc32c
from processor.kafka.compression import CODECS
from processor.kafka.errors import RecordTooLarge
from processor.kafka.idempotent_producer import _ClosedBatch
from processor.kafka.record_batches import AckPositions, RecordBatch, RecordBatches
from processor.kafka.records import BATCH_OVERHEAD_BYTES, OutRecord, partition_of
from processor.kafka.transactions import Identity
from tests.examples import examples

WRITER = Identity(4711, 3)
CONTENTS = st.one_of(
    st.none(),
    st.binary(max_size=100),
    st.builds(bytes, st.sampled_from([63, 64, 4_095, 4_096, 8_191, 8_192, 20_000])),
    st.integers(0, 9_000).map(lambda size: Random(size).randbytes(size)),
)
TIMES = st.one_of(st.integers(0, 1 << 42), st.integers(1 << 41, (1 << 41) + 10_000))
HEADERS = st.lists(st.tuples(st.text(max_size=20), CONTENTS), max_size=70).map(tuple)
RECORDS = st.lists(
    st.builds(OutRecord, st.just("out"), st.just(0), CONTENTS, CONTENTS, TIMES, HEADERS), min_size=1, max_size=8
)


def theirs(records: list[OutRecord], codec: int) -> tuple[bytes, list[int]]:
    """The batch of the client's builder, and the sizes of the records in it."""
    builder = message_accumulator.BatchBuilder(1 << 20, codec, is_transactional=1)
    sizes = []
    for record in records:
        added = builder.append(
            timestamp=record.timestamp, key=record.key, value=record.value, headers=list(record.headers)
        )
        assert added is not None
        sizes.append(added.size)
    builder._set_producer_state(*WRITER, 17)
    return bytes(builder._build()), sizes


def ours(records: list[OutRecord], max_bytes: int, compression: str | None) -> tuple[bytes, list[int], BatchBuilder]:
    builder = BatchBuilder(max_bytes, *CODECS[compression], is_transactional=True)
    sizes = []
    for record in records:
        size = builder.append(record.timestamp, record.key, record.value, record.headers)
        if not size:
            break
        sizes.append(size)
    return builder.build(*WRITER, 17), sizes, builder


@settings(max_examples=examples(300))
@given(RECORDS, st.sampled_from(list(CODECS)), st.one_of(st.just(1 << 20), st.integers(1, 30_000)))
def test_a_batch_has_the_bytes_of_the_clients_builder(
    records: list[OutRecord], compression: str | None, max_bytes: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", lambda: 1.0)  # gzip writes it
        written, sizes, builder = ours(records, max_bytes, compression)
        expected, expected_sizes = theirs(records[: len(sizes)], CODECS[compression][0])
    plain, _ = theirs(records[: len(sizes)], 0)
    assert sizes == expected_sizes
    assert (builder.count, builder.largest, builder.bytes) == (len(sizes), max(sizes), len(plain))
    assert len(sizes) == 1 or len(plain) <= max_bytes, "too much"
    more, _ = theirs(records[: len(sizes) + 1], 0)
    assert len(sizes) == len(records) or len(more) > max_bytes, "there was room"
    # The client sends what a codec has made larger; then the batch may be larger than its topic takes.
    assert written == (expected if len(expected) < len(plain) else plain)


@given(st.integers(-(1 << 63), (1 << 63) - 1))
@example(4_095)
@example(-1)
def test_a_number_reads_as_it_was_written(number: int) -> None:
    found = shift = 0
    for byte in varint(number):
        found |= (byte & 0x7F) << shift
        shift += 7
    assert found >> 1 ^ -(found & 1) == number
    assert all(byte >= 0x80 for byte in varint(number)[:-1])
    assert varint(number)[-1] < 0x80


def test_times_that_go_back_and_lie_far_apart_read_as_they_were() -> None:
    times = [5, 0, 1 << 62, 4, 4_101, 5 + 4_095, 5 + 4_096]
    builder = BatchBuilder(1 << 20, is_transactional=False)
    for at in times:
        builder.append(at, b"k", b"v", ())
    batch = MemoryRecords(builder.build(-1, -1, 0)).next_batch()
    assert batch is not None
    assert (batch.max_timestamp, batch.is_transactional, batch.validate_crc()) == (1 << 62, False, True)
    assert [record.timestamp for record in batch] == times


def test_more_than_some_thousand_records_read_in_their_order() -> None:
    builder = BatchBuilder(1 << 20, is_transactional=True)
    for number in range(5_000):
        assert builder.append(1, None, b"%d" % number, ())
    records = list(MemoryRecords(builder.build(1, 2, 3)).next_batch() or ())
    assert [(record.offset, record.value) for record in records] == [(n, b"%d" % n) for n in range(5_000)]


def test_a_batch_can_be_asked_for_again_and_by_another_writer() -> None:
    builder = BatchBuilder(1 << 20, is_transactional=True)
    builder.append(1, b"k", b"v", ())
    first = builder.build(7, 1, 0)
    assert builder.build(7, 1, 0) == first
    batch = MemoryRecords(builder.build(7, 2, 9)).next_batch()
    assert batch is not None
    assert (batch.producer_id, batch.producer_epoch, batch.base_sequence) == (7, 2, 9)


def test_a_full_batch_is_as_it_was_before_the_record_that_it_does_not_take() -> None:
    builder = BatchBuilder(200, is_transactional=True)
    assert builder.append(5, b"k", b"v", ())
    before, size = builder.build(1, 1, 1), builder.bytes
    assert builder.append(9, b"k", bytes(200), (("name", b"content"),)) == 0
    assert (builder.build(1, 1, 1), builder.bytes, builder.count) == (before, size, 1)
    assert builder.append(4, b"k", b"v", ())


def test_names_that_only_dead_letters_have_do_not_fill_the_memory() -> None:
    builder = BatchBuilder(1 << 20, is_transactional=True)
    for number in range(2 * batch_builder._MAX_NAMES):
        builder.append(1, None, b"", ((f"name {number}", b"x"), ("\udcff", None)))
    assert len(batch_builder._names) <= batch_builder._MAX_NAMES
    records = list(MemoryRecords(builder.build(1, 1, 1).replace(b"\xff", b"y")).next_batch() or ())
    assert [tuple(r.headers) for r in records] == [
        ((f"name {number}", b"x"), ("y", None)) for number in range(2 * batch_builder._MAX_NAMES)
    ]


@pytest.mark.parametrize("compression", CODECS)
def test_what_a_codec_makes_larger_is_sent_as_it_is(compression: str | None) -> None:
    written, _, builder = ours([OutRecord("out", 0, None, Random(1).randbytes(5_000), 0, ())], 1 << 20, compression)
    assert len(written) == builder.bytes
    assert written[22] & 0x07 == 0


def test_records_go_to_batches_by_topic_and_partition_in_their_order() -> None:
    records = [OutRecord("ab"[n % 2], None, b"k%d" % (n % 7), b"%d" % n, n, ()) for n in range(100)]
    made = RecordBatches({}, None, transactional=True).batches(records, {"a": 3, "b": 2}, 0)
    assert len({(batch.topic, batch.partition) for batch in made}) == len(made)
    for batch in made:
        read = list(MemoryRecords(batch.payload(WRITER, 0)).next_batch() or ())
        wanted = [
            r.value for r in records
            if r.topic == batch.topic and partition_of(r.key or b"", {"a": 3, "b": 2}[r.topic]) == batch.partition
        ]  # fmt: skip
        assert [r.value for r in read] == wanted
        assert batch.count == len(wanted)


def test_the_first_batch_of_every_partition_comes_first_and_positions_are_those_of_the_records() -> None:
    batching = RecordBatches({}, None, transactional=True)
    large = bytes(batching.max_batch_bytes // 2)
    records = [OutRecord("out", n % 2, None, large, 0, ()) for n in range(6)]
    ack_positions: AckPositions = {0: None, 5: None}
    made = batching.batches(records, {"out": 2}, 0, ack_positions)
    assert [(batch.partition, batch.count) for batch in made] == [(0, 1), (1, 1)] * 3
    for offset, batch in enumerate(made):
        batch.written(100 + offset)
    assert ack_positions == {0: (0, 100), 5: (1, 105)}
    made[-1].written(-1)
    assert ack_positions[5] == (1, 105)


def test_positions_count_within_a_batch() -> None:
    records = [OutRecord("out", 0, None, b"", 0, ()) for _ in range(3)]
    ack_positions: AckPositions = {1: None, 2: None}
    (batch,) = RecordBatches({}, "zstd", transactional=True).batches(records, {"out": 1}, 0, ack_positions)
    batch.written(50)
    assert ack_positions == {1: (0, 51), 2: (0, 52)}


def test_a_record_is_refused_at_the_byte_that_its_topic_does_not_take() -> None:
    size = BatchBuilder(1, is_transactional=True).append(0, b"k", bytes(5_000), ()) + BATCH_OVERHEAD_BYTES
    record = OutRecord("out", 0, b"k", bytes(5_000), 0, ())
    (batch,) = RecordBatches({"out": size}, None, transactional=True).batches([record], {}, 0)
    assert len(batch.payload(WRITER, 0)) == size
    with pytest.raises(RecordTooLarge):
        RecordBatches({"out": size - 1}, "zstd", transactional=True).batches([record], {}, 0)


def test_records_without_a_key_go_to_one_partition_a_unit() -> None:
    batching = RecordBatches({}, None, transactional=True)
    records = [OutRecord("out", None, None, b"%d" % n, 0, ()) for n in range(5)]
    for turn in range(4):
        (batch,) = batching.batches(records, {"out": 3}, turn)
        assert batch.partition == turn % 3


def test_the_idempotent_producer_is_given_the_same_bytes_again() -> None:
    builder = BatchBuilder(1 << 20, is_transactional=False)
    builder.append(1, b"k", b"v", ())
    batch = _ClosedBatch(RecordBatch("out", 0, builder))
    batch._set_producer_state(7, 3, 11)
    sent = batch._build()
    assert sent == builder.build(7, 3, 11)
    batch._set_producer_state(8, 0, 0)
    assert batch._build() == sent
    assert (batch.record_count(), batch.closed()) == (1, True)
    batch.close()


@pytest.mark.parametrize("implementation", ["c", "python"])
@given(content=st.binary(max_size=300))
def test_checksums_are_those_of_the_client(content: bytes, implementation: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(google_crc32c, "implementation", implementation)
        assert crc32c(content) == calc_crc32c(content) == crc_in_python(content)
