"""Header names of any bytes: read, folded, set aside, packed, framed and written again as they were. No broker."""

from __future__ import annotations

import struct
from contextlib import suppress
from random import Random

import aiokafka.codec
import pytest
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c
from aiokafka.structs import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from processor.audit.judge.block_digests import framed
from processor.audit.judge.verdicts import FindingKind
from processor.audit.published_index import _row, _unpack
from processor.core.effects import DeadLetter, LogRecord
from processor.core.header_names import is_utf8, name_bytes, name_text, shown
from processor.core.partition import PartitionState
from processor.core.rules import Rules
from processor.kafka.batch_builder import BatchBuilder
from processor.kafka.fetch import BatchRecords, CheckedRecords
from processor.kafka.raw_names import read_batch
from processor.kafka.records import OutRecord, batch_bytes

CODECS = ["", "gzip", "snappy", "lz4", "zstd"]
NAMES = st.binary(max_size=12) | st.text(max_size=6).map(str.encode)
CONTENTS = st.none() | st.binary(max_size=40)
HEADERS = st.lists(st.tuples(NAMES.map(name_text), CONTENTS), max_size=4).map(tuple)
RECORDS = st.lists(
    st.builds(LogRecord, st.just(0), st.integers(0, 1 << 42), CONTENTS, CONTENTS, HEADERS), min_size=1, max_size=4
)


def fetched(content: bytes, offset: int = 0) -> list[tuple[object, ...]]:
    source = BatchRecords(TopicPartition("t", 0), CheckedRecords(content), (), offset, None, None, True, 1)
    records, more = source.take(None)
    assert not more
    return [(r.offset, r.timestamp, r.key, r.value, tuple(r.headers)) for r in records]


@given(NAMES, NAMES)
def test_a_name_gives_back_its_bytes_and_no_two_are_one(one: bytes, other: bytes) -> None:
    assert name_bytes(name_text(one)) == one
    assert (name_text(one) == name_text(other)) == (one == other)
    assert is_utf8(name_text(one)) == (one.decode("utf-8", "ignore").encode() == one)
    shown(name_text(one)).encode()


@given(RECORDS, st.sampled_from(CODECS), st.booleans())
def test_what_is_written_reads_the_same(records: list[LogRecord], codec: str, log_append: bool) -> None:
    """Through our builder, and our reader beside the compiled one."""
    builder = BatchBuilder(1 << 20, is_transactional=True)
    for record in records:
        assert builder.append(record.timestamp, record.key, record.value, record.headers)
    batch = bytearray(builder.build(7, 3, 0))
    if codec == "" and len(records) == 1:
        assert batch_bytes(OutRecord("t", 0, records[0].key, records[0].value, 0, records[0].headers)) == len(batch)
    if codec:
        batch[61:] = getattr(aiokafka.codec, f"{codec}_encode")(bytes(batch[61:]))
        struct.pack_into(">h", batch, 21, struct.unpack_from(">h", batch, 21)[0] | CODECS.index(codec))
        struct.pack_into(">i", batch, 8, len(batch) - 12)
    if log_append:
        struct.pack_into(">h", batch, 21, struct.unpack_from(">h", batch, 21)[0] | 8)
    struct.pack_into(">q", batch, 0, 100)
    struct.pack_into(">I", batch, 17, calc_crc32c(bytes(batch[21:])))
    latest = max(record.timestamp for record in records)
    wanted = [
        (100 + at, latest if log_append else r.timestamp, r.key, r.value, r.headers) for at, r in enumerate(records)
    ]
    assert fetched(bytes(batch)) == wanted
    assert [(r.offset, r.timestamp, r.key, r.value, r.headers) for r in read_batch(bytes(batch))] == wanted


def test_good_records_around_such_a_name_are_not_lost() -> None:
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, 0, 1 << 20)
    for at in range(3):
        builder.append(at, 1, b"k", b"%d" % at, [("name", b"x"), ("other", None)])
    batch = bytearray(builder.build())
    second = batch.index(b"name", batch.index(b"name") + 1)
    batch[second : second + 4] = b"\xffa\xfe\x00"
    struct.pack_into(">I", batch, 17, calc_crc32c(bytes(batch[21:])))
    with pytest.raises(UnicodeDecodeError):
        list(MemoryRecords(bytes(batch)).next_batch())
    assert [(row[3], row[4]) for row in fetched(bytes(batch), 1)] == [
        (b"1", (("\udcffa\udcfe\0", b"x"), ("other", None))),
        (b"2", (("name", b"x"), ("other", None))),
    ]


def test_a_damaged_batch_with_such_a_name_ends_in_an_answer() -> None:
    builder = BatchBuilder(1 << 20, is_transactional=False)
    builder.append(1, b"k", b"v" * 30, [("\udcff", b"x"), ("b", None)])
    whole = builder.build(-1, -1, 0)
    random = Random(3)
    for _ in range(2_000):
        batch = bytearray(whole)
        for _ in range(random.randint(1, 3)):
            batch[random.randrange(61, len(batch))] = random.randrange(256)
        with suppress(CorruptRecordException, IndexError, ValueError, OverflowError):
            read_batch(bytes(batch))


@given(HEADERS)
def test_a_dead_letter_has_the_names_of_its_record(headers: tuple[tuple[str, bytes | None], ...]) -> None:
    state = PartitionState("t", 0, Rules())
    (effect,) = state.apply([LogRecord(0, 1, b"k", b"?", headers)])
    assert isinstance(effect, DeadLetter)
    assert effect.headers[: len(headers)] == headers


@given(RECORDS)
def test_records_are_packed_and_framed_by_their_bytes(records: list[LogRecord]) -> None:
    rows = {_row(FindingKind.DEAD_LETTER, "1", "x", record) for record in records}
    frames = {framed(record) for record in records}
    assert len(rows) == len(frames) == len(set(records))
    for record in records:
        *_, key, value, headers = _unpack(_row(FindingKind.DEAD_LETTER, "1", "x", record))
        named = tuple((n if isinstance(n, str) else name_text(n[0]), content) for n, content in headers)
        assert (key, value, named) == (record.key, record.value, record.headers)
