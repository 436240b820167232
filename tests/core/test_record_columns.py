"""Records as columns: the same as objects, whatever they hold, to the fold and to the digests."""

from __future__ import annotations

import pytest
from hypothesis import given

from processor.audit.judge.block_digests import BlockDigests
from processor.audit.judge.published_headers import redriven_in
from processor.core import batch_columns
from processor.core.effects import LogRecord
from processor.core.event_headers import SPECIAL, plain_id
from processor.core.headers import REDRIVEN, trace_of
from processor.core.partition import PartitionState
from processor.core.record_columns import RecordColumns
from processor.core.responses.fast_path import response_named
from processor.core.rules import Rules
from tests.core.raw_batches import raw_batch
from tests.core.record_columns_of import columns_of
from tests.core.test_raw_batch import BESIDE, HEADERS, MESSAGE, RECORDS, jobs, log_records, plain


@given(RECORDS.map(log_records))
def test_what_is_shown_is_what_is_held(records: list[LogRecord]) -> None:
    pieces = list(columns_of(records))
    for _ in range(2):  # it begins anew
        shown, kept = [], []
        for piece in pieces:
            for record in piece:
                shown.append(plain(record))
                kept.append(record.record())
        assert shown == kept == records
    assert [one for piece in pieces for one in piece.records()] == records
    for piece in pieces:
        assert [piece[at] for at in range(len(piece))] == [piece[at] for at in range(-len(piece), 0)]


@given(HEADERS)
def test_headers_say_the_same_in_columns_and_as_objects(headers: tuple[tuple[str, bytes | None], ...]) -> None:
    record = LogRecord(0, 0, b"key", b"v", headers)
    (shown,) = [one for piece in columns_of([record]) for one in piece]
    assert shown.event_id() == plain_id(headers)
    assert (shown.event_id() is SPECIAL) == (plain_id(headers) is SPECIAL)
    assert not (shown.is_plain and plain_id(headers) is SPECIAL)
    assert trace_of(shown) == trace_of(record)
    assert response_named(shown) == response_named(record)


def test_a_job_comes_to_the_same_from_columns_and_from_objects() -> None:
    records = [
        LogRecord(offset + offset // 700, made.timestamp, made.key, made.value, tuple(made.headers))
        for offset, made in enumerate(jobs())
    ]
    as_objects, as_columns = PartitionState("t", 0, Rules()), PartitionState("t", 0, Rules())
    expected = as_objects.apply(records)
    effects = as_columns.apply_batches(list(columns_of(records)))
    assert len(expected) > 100
    assert effects == expected
    assert as_objects.counts == as_columns.counts
    assert as_objects.next_offset == as_columns.next_offset
    assert as_objects.restore_point() == as_columns.restore_point()


@pytest.mark.parametrize("beside", BESIDE)
def test_a_message_is_ignored_unless_headers_say_that_it_is_something_else(beside: str) -> None:
    record = LogRecord(0, 1_000, b"k", MESSAGE, BESIDE[beside])
    as_objects, as_columns = PartitionState("t", 0, Rules()), PartitionState("t", 0, Rules())
    assert as_columns.apply_batches(list(columns_of([record]))) == as_objects.apply([record])
    assert as_columns.counts == as_objects.counts


@given(RECORDS.map(log_records))
def test_the_digests_are_the_same(records: list[LogRecord]) -> None:
    """Offsets of one digit, far ones, and such as cross a block, a thousand, and what can be spelled together."""
    for first in (0, 60, 940, 10_000, 99_990, 1_000_000_000_000):
        for now in (0, 1_720_000_000_000, 10**12 - 1_001, 10**13 - 1_001):
            moved = [
                LogRecord(first + one.offset, now + one.timestamp, one.key, one.value, one.headers) for one in records
            ]
            moved = [one for run in range(20) for one in _behind(moved, run)]
            whole, pieces = BlockDigests(0, 1 << 62), BlockDigests(0, 1 << 62)
            once = [*whole.take(moved), *whole.finish()]
            told = [block for piece in columns_of(moved) for block in pieces.take(piece)]
            assert [*told, *pieces.finish()] == once
            assert pieces.range_digest == whole.range_digest


def _behind(records: list[LogRecord], run: int) -> list[LogRecord]:
    moved = run * (records[-1].offset - records[0].offset + 1) if records else 0
    return [LogRecord(one.offset + moved, one.timestamp, one.key, one.value, one.headers) for one in records]


def test_redriven_records_are_counted_once_each() -> None:
    headers = [(), ((REDRIVEN, b"a"),), (("x", None), (REDRIVEN, b"a"), (REDRIVEN, b"b")), (("x", b""),)]
    records = [LogRecord(at, 0, None, None, own) for at, own in enumerate(headers)]
    (piece,) = columns_of(records)
    assert redriven_in(piece) == redriven_in(records) == 2


def test_columns_are_of_one_length_and_never_empty() -> None:
    with pytest.raises(AssertionError):
        RecordColumns(0, [], [], [], [])
    with pytest.raises(AssertionError):
        RecordColumns(0, [1, 2], [None, None], [None], [(), ()])


@given(RECORDS.map(log_records))
def test_batches_come_to_the_columns_of_their_records(records: list[LogRecord]) -> None:
    """As one batch, as one of each record, and as objects; each segment without a hole by itself."""
    expected = [piece.records() for piece in columns_of(records)]
    for batches in ([raw_batch(records)], [raw_batch([one]) for one in records], [list(records)]):
        found = batch_columns.columns_of(batches)  # type: ignore[arg-type]
        assert [piece.records() for piece in found] == expected
    half = len(records) // 2
    mixed = batch_columns.columns_of([raw_batch(records[:half]), list(records[half:])])
    assert [piece.records() for piece in mixed] == expected
