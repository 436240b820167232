"""From effects to records: topics, keys, partitions; and dead letters that no batch can hold."""

from __future__ import annotations

from hashlib import sha256
from random import Random

from aiokafka.record.default_records import DefaultRecordBatchBuilder
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.audit.expected_records import ExpectedRecords
from processor.config.settings import Output, Settings
from processor.core.effects import Checkpoint, DeadLetter, Publish, Reason, Status
from processor.core.headers import REASON
from processor.kafka.output_records import (
    OMITTED_BYTES,
    OMITTED_DIGEST,
    OMITTED_HEADERS,
    OMITTED_KEY,
    SMALLEST_LIMIT_BYTES,
    Outputs,
    fitting,
    omitting,
)
from processor.kafka.records import OutRecord, batch_bytes, compression_growth_bytes
from processor.serve.topics import HEADERS_BYTES
from tests.examples import examples

HEADERS = (("runstep-reason", b"not_json"),)


def publish(status: Status) -> Publish:
    return Publish(status, "step_ä", b"{}", 1234, (("runstep-revision", b"0"),), 0, None, ())


def letter(value: bytes | None = b"?", *, timestamp: int = 7, key: bytes | None = b"run") -> DeadLetter:
    return DeadLetter(Reason.NOT_JSON, "", key, value, timestamp, HEADERS, 3)


def test_each_end_has_its_topic_and_the_step_is_the_key() -> None:
    ends = (Status.COMPLETED, Status.FAILED, Status.CANCELLED, Status.EXPIRED)
    out = list(Outputs.of_settings(Settings()).of(4, [publish(status) for status in ends]))
    assert [record.topic for record in out] == [f"run-steps.{status}" for status in ends]
    assert {(r.partition, r.key, r.value, r.timestamp, r.headers) for r in out} == {
        (None, "step_ä".encode(), b"{}", 1234, (("runstep-revision", b"0"),))
    }


def test_an_outcome_without_a_topic_is_switched_off() -> None:
    outputs = Outputs.of_settings(Settings(output=Output(failed="")))
    assert [r.topic for r in outputs.of(0, [publish(Status.EXPIRED), publish(Status.FAILED)])] == ["run-steps.expired"]


def test_a_dead_letter_is_as_it_came() -> None:
    (out,) = Outputs.of_settings(Settings()).of(0, [letter(b"\xff")])
    assert out == OutRecord("run-steps.dead-letter", None, b"run", b"\xff", 7, HEADERS)
    (unkeyed,) = Outputs.of_settings(Settings()).of(0, [letter(None, key=None, timestamp=-1)])
    assert (unkeyed.key, unkeyed.value, unkeyed.timestamp) == (None, None, 0), (
        "a record without a time has none to keep"
    )


def test_a_checkpoint_goes_to_the_partition_of_its_source() -> None:
    outputs = Outputs.of_settings(Settings())
    kept, forgotten = outputs.of(5, [Checkpoint(b"sx", b"state"), Checkpoint(b"sx", None)])
    assert kept == OutRecord("run-step-events.checkpoints", 5, b"sx", b"state", 0, ())
    assert forgotten.value is None


def test_order_is_kept() -> None:
    out = Outputs.of_settings(Settings()).of(0, [letter(b"1"), publish(Status.FAILED), letter(b"2")])
    assert [record.value for record in out] == [b"1", b"{}", b"2"]


DEAD = "run-steps.dead-letter"


def built(record: OutRecord, codec: int = 0) -> int:
    """Size of the batch that the client's own builder makes of one record."""
    builder = DefaultRecordBatchBuilder(2, codec, 0, -1, -1, 0, 1)
    assert builder.append(0, record.timestamp, record.key, record.value, list(record.headers)) is not None
    return len(builder.build())


CONTENTS = st.one_of(
    st.none(),
    st.binary(max_size=200),
    st.builds(bytes, st.one_of(st.integers(0, 300), st.integers(8_000, 20_000))),
    st.integers(0, 20_000).map(lambda size: Random(size).randbytes(size)),
)


@st.composite
def letters(draw: st.DrawFn) -> OutRecord:
    own = draw(st.lists(st.tuples(st.text(max_size=20), CONTENTS), max_size=3))
    headers = (*((name, content) for name, content in own if name != REASON), *HEADERS)
    return OutRecord(DEAD, None, draw(CONTENTS), draw(CONTENTS), draw(st.integers(0, 1 << 42)), headers)


@settings(max_examples=examples(300))
@given(letters(), st.data())
def test_a_dead_letter_is_whole_exactly_if_a_batch_holds_it(record: OutRecord, data: st.DataObject) -> None:
    """As the client's own batch builder has it, at limits around the record's size; a codec makes it little larger."""
    whole = built(record)
    assert batch_bytes(record) == whole
    limit = data.draw(st.one_of(st.integers(max(600, whole - 2), max(600, whole + 2)), st.integers(600, 70_000)))
    written = fitting(record, limit)
    assert (written is record) == (whole <= limit)
    assert built(written) <= limit
    grown = built(written) + compression_growth_bytes(built(written))
    assert all(built(written, codec) < grown for codec in (1, 2, 3, 4))
    if written.value != record.value:
        # The value went because no batch could have held it, whatever else had been left out that is smaller.
        smaller = record
        for form in omitting(record):
            if form.value == record.value:
                smaller = form
        assert built(smaller) > limit
    assert written in (record, *omitting(record))


def test_a_dead_letter_that_no_batch_holds_leaves_its_value_behind() -> None:
    """With its size and digest, so that the record can be found at its origin and known again."""
    large = b"[" * 3_000_000
    outputs = Outputs.of_settings(Settings(), {DEAD: 2_000_000})
    small, big, snapshot = outputs.of(0, [letter(b"small"), letter(large), publish(Status.COMPLETED)])
    assert small.value == b"small"
    assert snapshot.value == b"{}"
    assert big.value is None
    assert big.key == b"run"
    assert dict(big.headers) == {
        **dict(HEADERS),
        OMITTED_BYTES: b"3000000",
        OMITTED_DIGEST: sha256(large).hexdigest().encode(),
    }


def test_what_is_largest_goes_first() -> None:
    """A small value stays beside headers that no batch holds; what is missing is told."""
    own = (("theirs", b"h" * 50_000), ("also", None))
    record = OutRecord(DEAD, None, b"k" * 40_000, b"value", 7, (*own, *HEADERS))
    one = fitting(record, 60_000)
    assert (one.key, one.value) == (record.key, b"value")
    assert one.headers == (*HEADERS, (OMITTED_HEADERS, b"2"))
    two = fitting(record, 20_000)
    assert (two.key, two.value) == (None, b"value")
    assert two.headers == (*HEADERS, (OMITTED_HEADERS, b"2"), (OMITTED_KEY, b"40000"))


def test_what_the_start_up_check_lets_through_is_what_the_audit_expects() -> None:
    """No dead-letter topic is accepted whose limit is below the size up to which the audit wants dead letters whole."""
    assert SMALLEST_LIMIT_BYTES <= HEADERS_BYTES
    places = ExpectedRecords(Outputs.of_settings(Settings()), 0, {})
    assert not places.shortened(letter(b"x" * (SMALLEST_LIMIT_BYTES - 200)))
    assert len(places.shortened(letter(b"x" * SMALLEST_LIMIT_BYTES))) == 2
    assert not places.shortened(publish(Status.FAILED))
