"""Headers of a published step: as pairs and as bytes they say the same."""

from __future__ import annotations

from typing import Any, Final

from aiokafka.record.default_records import DefaultRecordBatchBuilder
from hypothesis import given
from hypothesis import strategies as st

from processor.core import headers as names
from processor.core.step_headers import SharedHeaders, StepHeaders
from processor.kafka.batch_builder import BatchBuilder

OFFSETS: Final = st.one_of(st.integers(0, 300), st.integers(0, 1 << 63))
COUNTS: Final = st.one_of(st.integers(0, 300), st.integers(0, 1 << 40))
TEXTS: Final = st.binary(max_size=200)


def made(topic: bytes, partition: bytes, version: bytes, rules: bytes, *of_step: Any) -> StepHeaders:
    return StepHeaders(SharedHeaders(topic, partition, version, rules), *of_step)


MADE: Final = st.builds(made, TEXTS, TEXTS, TEXTS, TEXTS, OFFSETS, OFFSETS, COUNTS, COUNTS, TEXTS)


@given(TEXTS, TEXTS, TEXTS, TEXTS, OFFSETS, OFFSETS, COUNTS, COUNTS, TEXTS)
def test_they_are_read_as_pairs(
    topic: bytes, partition: bytes, version: bytes, rules: bytes, first: int, last: int, events: int, revision: int,
    digest: bytes,
) -> None:  # fmt: skip
    found = made(topic, partition, version, rules, first, last, events, revision, digest)
    expected = (
        (names.SOURCE_TOPIC, topic),
        (names.SOURCE_PARTITION, partition),
        (names.FIRST_OFFSET, b"%d" % first),
        (names.LAST_OFFSET, b"%d" % last),
        (names.EVENTS, b"%d" % events),
        (names.REVISION, b"%d" % revision),
        (names.VERSION, version),
        (names.RULES, rules),
        (names.DIGEST, digest),
    )
    assert found == expected
    assert expected == found
    assert (*found,) == expected
    assert (len(found), found[3], found[:2]) == (9, expected[3], expected[:2])
    assert (hash(found), repr(found)) == (hash(expected), repr(expected))
    assert found != expected[1:]
    assert found == made(topic, partition, version, rules, first, last, events, revision, digest)
    assert found != made(topic, partition, version, rules, first + 1, last, events, revision, digest)


@given(st.lists(MADE, min_size=1, max_size=3))
def test_a_batch_has_the_same_bytes_as_with_the_pairs(many: list[StepHeaders]) -> None:
    ours, pairs = (BatchBuilder(1 << 20, is_transactional=True) for _ in range(2))
    client = DefaultRecordBatchBuilder(2, 0, 1, 7, 0, 0, 1 << 20)
    for number, headers in enumerate(many):
        size = ours.append(5, b"k", b"v", headers)  # type: ignore[arg-type]
        assert size == pairs.append(5, b"k", b"v", headers.pairs())
        client.append(number, 5, b"k", b"v", list(headers))
    assert ours.build(7, 0, 0) == pairs.build(7, 0, 0) == bytes(client.build())
