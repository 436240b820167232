"""Records read from the bytes of their batch: the same as objects, whatever they hold, and no more than there are."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.core.effects import LogRecord, Record
from processor.core.event_headers import EVENT_ID, RUN_ID, SEQUENCE, SPECIAL, are_published, plain_id
from processor.core.header_names import name_text
from processor.core.headers import TRACE, trace_of
from processor.core.partition import PartitionState
from processor.core.raw_batch import RawBatch
from processor.core.responses.fast_path import response_named
from processor.core.rules import Rules
from tests.bench import recorded_job
from tests.bench.recorded_job import Made
from tests.bench.responses_job import responses
from tests.core.raw_batches import encoded, raw_batch, sized, varint

PUBLISHED = [EVENT_ID, RUN_ID, SEQUENCE]
KNOWN_NAMES = [
    *PUBLISHED,
    "Runstep-Event-Id",
    "runstep-event-iD",
    "runstep-else-ids",
    "runstep-event-ie",
    "runstep-EVENT-id",
    "ce_of_14_chars",
    "trace_of_chars",
    "ce_of_16_letters",
    "trace_of_letters",
    "content-type",
    "Content-Type",
    "ce_id",
    "CE_id",
    "client",
    "traceparent",
    "tracestate",
    "other",
    "",
    "\udcff\u00e9",
]
NAMES = st.sampled_from(KNOWN_NAMES)
CONTENTS = st.one_of(
    st.sampled_from([None, b"", b"id:7", b"\xff", b"0" * 63, b"0" * 64, b"0" * 200]), st.none() | st.binary(max_size=5)
)
NEARLY_PUBLISHED = st.builds(lambda at, name: [*PUBLISHED[:at], name, *PUBLISHED[at + 1 :]], st.integers(0, 2), NAMES)
HEADERS = st.one_of(st.just(PUBLISHED), NEARLY_PUBLISHED, st.lists(NAMES, max_size=4)).flatmap(
    lambda names: st.tuples(*(st.tuples(st.just(name), CONTENTS) for name in names))
)
BODY = b"\0" + varint(0) * 2
BYTES = st.one_of(st.none(), st.binary(max_size=70), st.just(b"v" * 9_000))
RECORDS = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from([0, 1, -1, 70, -9_000, 1 << 40]), BYTES, BYTES, HEADERS), max_size=6
)


def log_records(
    drawn: list[tuple[int, int, bytes | None, bytes | None, tuple[tuple[str, bytes | None], ...]]],
) -> list[LogRecord]:
    offset, found = 5, []
    for gap, delta_ms, key, value, headers in drawn:
        offset += 1 + gap
        found.append(LogRecord(offset, 1_000 + delta_ms, key, value, headers))
    return found


def plain(record: Record) -> LogRecord:
    return LogRecord(record.offset, record.timestamp, record.key, record.value, tuple(record.headers))


@given(RECORDS.map(log_records))
def test_what_is_read_is_what_was_written(records: list[LogRecord]) -> None:
    batch = raw_batch(records)
    for _ in range(2):  # it begins anew
        shown, kept = [], []
        for record in batch:
            shown.append(plain(record))
            kept.append(record.record())
        assert shown == records
        assert list(map(plain, kept)) == records, "while the batch has been read further"


@given(HEADERS, BYTES)
def test_headers_say_the_same_as_bytes_and_as_objects(
    headers: tuple[tuple[str, bytes | None], ...], key: bytes | None
) -> None:
    record = LogRecord(0, 0, key, b"v", headers)
    (shown,) = list(raw_batch([record]))
    named = headers[1][1] if are_published(list(headers)) else None
    assert shown.run_id() == named
    assert shown.event_id() == plain_id(list(headers))
    assert shown.is_plain or not are_published(list(headers)), "those of most records are not asked for as objects"
    assert not (shown.is_plain and plain_id(list(headers)) is SPECIAL)
    assert trace_of(shown) == trace_of(shown.record()) == trace_of(record)
    assert (shown.event_id() is SPECIAL) == (plain_id(list(headers)) is SPECIAL)
    assert response_named(shown) == response_named(record) == response_named(shown.record())


def read_as_bytes(block: bytes) -> list[tuple[str, bytes | None]]:
    """Three headers read by the format alone. IndexError: there are fewer, ValueError: others."""
    found: list[bytes | None] = []
    at = 0
    for _ in range(6):
        number = shift = 0
        while True:
            number |= (block[at] & 0x7F) << shift
            at, shift = at + 1, shift + 7
            if block[at - 1] < 0x80:
                break
        size = (number >> 1) ^ -(number & 1)
        if at + size > len(block) or (size < 0 and len(found) % 2 == 0):
            raise ValueError
        found.append(None if size < 0 else block[at : at + size])
        at += max(size, 0)
    if at != len(block):
        raise ValueError
    return [(name_text(found[n] or b""), found[n + 1]) for n in (0, 2, 4)]


def say_the_same(block: bytes) -> None:
    body = BODY + sized(None) + sized(b"v") + varint(3) + block
    content = varint(len(body)) + body
    reading = RawBatch(content, 0, len(content), 1, 0, 0, None, ValueError)
    try:
        headers = read_as_bytes(block)
    except (IndexError, ValueError):
        with pytest.raises(ValueError, match=r"behind|hold what|without"):
            list(reading)
        return
    (shown,) = list(reading)
    assert shown.event_id() == plain_id(headers), block
    if (
        EVENT_ID,
        b"\0",
    ) not in headers:  # CPython has one object of it, which is `SPECIAL`: it is read by the general way
        assert not (shown.is_plain and plain_id(headers) is SPECIAL)
    assert shown.may_trace or not any(name in TRACE for name, _ in headers)
    assert list(shown.headers) == headers


def block_of(*contents: bytes | None) -> bytes:
    named = zip(PUBLISHED, contents, strict=True)
    return b"".join(sized(name.encode()) + sized(content) for name, content in named)


@pytest.mark.parametrize("contents", [(b"a", b"r", b"1"), (b"", None, b""), (b"i" * 63, b"r" * 63, b"1" * 63)])
def test_the_usual_headers_with_any_other_byte_say_what_their_bytes_say(contents: tuple[bytes | None, ...]) -> None:
    block = block_of(*contents)
    say_the_same(block)
    others = [0, 1, 2, 3, 0x1B, 0x1C, 0x1D, 0x1E, 0x20, 0x21, 0x22, 0x7E, 0x7F, 0x80, 0x82, 0xFF, *b"cCtTrReEx"]
    for at in range(len(block)):
        for other in {*others, block[at] + 1 & 0xFF, block[at] ^ 0x20}:
            say_the_same(block[:at] + bytes([other]) + block[at + 1 :])
        say_the_same(block[:at])
        say_the_same(block[:at] + block[at + 1 :])


@pytest.mark.parametrize("place", range(3))
def test_another_name_among_the_usual_headers_says_what_it_says(place: int) -> None:
    for name in [*KNOWN_NAMES, *(n.upper() for n in KNOWN_NAMES)]:
        names = [*PUBLISHED[:place], name, *PUBLISHED[place + 1 :]]
        say_the_same(
            b"".join(
                sized(n.encode("utf-8", "surrogateescape")) + sized(n.encode("utf-8", "surrogateescape")[:5])
                for n in names
            )
        )


@pytest.mark.parametrize("size", [0x80, 0x81, 0x82, 0xFE, 0xFF])
@pytest.mark.parametrize("place", range(3))
def test_a_size_in_one_byte_that_has_to_be_in_two_says_what_its_bytes_say(place: int, size: int) -> None:
    contents = [b"a", b"r", b"1"]
    block = block_of(*(content * (size >> 1) if n == place else content for n, content in enumerate(contents)))
    say_the_same(block.replace(sized(contents[place] * (size >> 1)), bytes([size]) + contents[place] * (size >> 1)))


@pytest.mark.parametrize("number", [2, 4])
def test_another_number_of_headers_than_there_are_breaks_the_batch(number: int) -> None:
    block = block_of(b"a", b"r", b"1")
    body = BODY + sized(None) + sized(None) + varint(number) + block
    content = varint(len(body)) + body
    with pytest.raises(ValueError, match=r"behind|hold what"):
        list(RawBatch(content, 0, len(content), 1, 0, 0, None, ValueError))


def test_headers_of_one_record_say_nothing_of_the_next() -> None:
    beside: list[tuple[tuple[str, bytes | None], ...]] = [
        ((EVENT_ID, b"a"), (RUN_ID, b"r"), (SEQUENCE, b"1"), ("traceparent", b"t")),
        ((RUN_ID, b"r"),),
        (("ce_id", b"1"),),
        (),
        ((EVENT_ID, b"a"), (EVENT_ID, b"b")),
        ((EVENT_ID, b"a"), (SEQUENCE, b"r"), (SEQUENCE, b"1")),
        ((RUN_ID, b"a"), (RUN_ID, b"r"), (SEQUENCE, b"1")),
        ((EVENT_ID, b"a"), (RUN_ID, b"r"), (RUN_ID, b"1")),
        ((EVENT_ID, b"a"), (RUN_ID, b"r"), (SEQUENCE, b"1"), (SEQUENCE, b"1")),
    ]
    records = [LogRecord(offset, 0, None, b"v", headers) for offset, headers in enumerate(beside)]
    shown = [(record.event_id(), record.run_id(), trace_of(record)) for record in raw_batch(records)]
    expected = [
        (plain_id(headers), headers[1][1] if are_published(list(headers)) else None, trace_of(record))
        for headers, record in zip(beside, records, strict=True)
    ]
    assert shown == expected


@given(RECORDS.map(log_records).filter(bool), st.data())
def test_no_byte_may_lack_and_none_is_read_behind_the_end(records: list[LogRecord], data: st.DataObject) -> None:
    content = b"".join(encoded(record, 0, 0) for record in records)
    end = data.draw(st.integers(0, len(content) - 1))
    with pytest.raises(ValueError, match=r"behind|hold|without"):
        list(RawBatch(content, 0, end, len(records), 0, 0, None, ValueError))
    with pytest.raises(ValueError, match="behind"):
        list(RawBatch(content + b"\0", 0, len(content) + 1, len(records), 0, 0, None, ValueError))
    with pytest.raises(ValueError, match="behind"):
        list(RawBatch(content, 0, len(content), len(records) + 1, 0, 0, None, ValueError))


BROKEN = {
    "a length of nothing": varint(0),
    "a negative length": varint(-3) + BODY,
    "a length beyond all": varint((1 << 63) - 1) + BODY,
    "a number without an end": b"\xff" * 12,
    "a key beyond the record": varint(8) + BODY + varint(9) + b"k" * 9 + sized(b"") + varint(0),
    "a key beyond all": varint(13) + BODY + varint((1 << 63) - 1),
    "a value beyond the record": varint(8) + BODY + sized(None) + varint(9) + b"v" * 9 + varint(0),
    "fewer headers than none": varint(6) + BODY + sized(None) + sized(None) + varint(-1),
    "a header without a name": varint(8) + BODY + sized(None) + sized(None) + varint(1) + sized(None) + sized(b""),
    "a name beyond the record": varint(8) + BODY + sized(None) + sized(None) + varint(1) + sized(b"abc") + sized(b""),
    "a content beyond the record": varint(8)
    + BODY
    + sized(None)
    + sized(None)
    + varint(1)
    + sized(b"")
    + sized(b"abc"),
    "more headers than there are": varint(6) + BODY + sized(None) + sized(None) + varint(1),
    "a name beyond all": varint(16) + BODY + sized(None) + sized(None) + varint(1) + varint((1 << 63) - 1),
    "a content beyond all": varint(17)
    + BODY
    + sized(None)
    + sized(None)
    + varint(1)
    + sized(b"")
    + varint((1 << 63) - 1),
    "a header of one length alone": varint(7) + BODY + sized(None) + sized(None) + varint(1) + sized(None),
    "bytes behind the headers": varint(7) + BODY + sized(None) + sized(None) + varint(0) + b"\0",
}


@pytest.mark.parametrize("what", BROKEN)
def test_lengths_that_do_not_fit_break_the_batch(what: str) -> None:
    content = BROKEN[what]
    intact = encoded(LogRecord(0, 0, b"k", b"v"), 0, 0)
    reading = iter(RawBatch(intact + content + bytes(40), 0, len(intact + content), 2, 0, 0, None, ValueError))
    assert next(reading).value == b"v"
    with pytest.raises(ValueError, match=r"goes on behind|hold what|fewer|without"):
        next(reading)


def test_the_broker_s_time_is_that_of_all_records() -> None:
    content = b"".join(encoded(LogRecord(n, 7 + n, None, b"v"), 0, 0) for n in range(2))
    assert [r.timestamp for r in RawBatch(content, 0, len(content), 2, 0, 0, 99, ValueError)] == [99, 99]


def jobs() -> Iterator[Made]:
    """Both dialects on one topic, with the headers that `publish` writes, and without any."""
    theirs = iter(list(responses(1_500, recorded_job.Expected())))
    for number, made in enumerate(recorded_job.recorded(3_000, recorded_job.Expected())):
        yield made if number % 5 else made._replace(headers=[])
        yield from [other for other in [next(theirs, None)] if other is not None]


def test_a_job_comes_to_the_same_from_bytes_and_from_objects() -> None:
    records = [
        LogRecord(offset, made.timestamp, made.key, made.value, tuple(made.headers))
        for offset, made in enumerate(jobs())
    ]
    as_objects, as_bytes = PartitionState("t", 0, Rules()), PartitionState("t", 0, Rules())
    expected = as_objects.apply(records)
    effects = as_bytes.apply_batches([raw_batch(records[:2_000]), records[2_000:2_100], raw_batch(records[2_100:])])
    assert len(expected) > 100
    assert effects == expected
    for one, other in [(as_objects, as_bytes)]:
        assert one.counts == other.counts
        assert one.next_offset == other.next_offset == len(records)
        assert (one.value_bytes, one.earliest_ms, one.latest_ms) == (
            other.value_bytes,
            other.earliest_ms,
            other.latest_ms,
        )
        assert one.restore_point() == other.restore_point()


MESSAGE = b'{"event":"thread.message.delta","data":'  # no JSON, which shows where it is decoded
ENVELOPE = (("ce_specversion", b"1.0"), ("ce_id", b"1"), ("ce_source", b"s"), ("ce_type", b"thread.run.step.created"))
BESIDE = {
    "nothing": (),
    "those of publish": tuple((name, b"x:1") for name in PUBLISHED),
    "another": (("other", b""),),
    "an envelope": ENVELOPE,
}


@pytest.mark.parametrize("beside", BESIDE)
def test_a_message_is_ignored_unless_headers_say_that_it_is_something_else(beside: str) -> None:
    record = LogRecord(0, 1_000, b"k", MESSAGE, BESIDE[beside])
    as_objects, as_bytes = PartitionState("t", 0, Rules()), PartitionState("t", 0, Rules())
    effects = as_bytes.apply_batches([raw_batch([record])])
    assert effects == as_objects.apply([record])
    assert as_bytes.counts == as_objects.counts
    assert (as_bytes.counts["ignored"], len(effects)) == ((0, 1) if beside == "an envelope" else (1, 0))
