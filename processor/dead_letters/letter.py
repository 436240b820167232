"""Dead letter as read from its topic, and the source record that it came from."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, NamedTuple

import msgspec

from processor.core.effects import Headers, Reason, Record
from processor.core.headers import (
    ANOMALIES,
    ATTEMPT,
    CLOCK_MARK,
    DETAIL,
    DIGEST,
    EVENT_NUMBER,
    EVENTS,
    FIRST_OFFSET,
    INFERRED,
    LAST_OFFSET,
    REASON,
    REDRIVEN,
    REVISION,
    RULES,
    SOURCE_OFFSET,
    SOURCE_PARTITION,
    SOURCE_TIMESTAMP,
    SOURCE_TOPIC,
    VERSION,
)
from processor.kafka.output_records import OMITTED_BYTES, OMITTED_DIGEST, OMITTED_HEADERS, OMITTED_KEY
from processor.kafka.records import OutRecord

_OURS: Final = frozenset(
    {
        REASON, DETAIL, EVENT_NUMBER, SOURCE_TOPIC, SOURCE_PARTITION, SOURCE_OFFSET, SOURCE_TIMESTAMP, ATTEMPT, VERSION,
        OMITTED_BYTES, OMITTED_DIGEST, OMITTED_HEADERS, OMITTED_KEY, REDRIVEN,
    }
)  # fmt: skip
"""Written on a dead letter, or by a redrive: not the producer's."""

_RENAMED: Final = {
    f"source-{name}": name
    for name in (
        FIRST_OFFSET, LAST_OFFSET, EVENTS, REVISION, RULES, DIGEST, INFERRED, CLOCK_MARK, ANOMALIES,
    )
}  # fmt: skip
"""A producer's header of a name that only a worker writes stands in the dead letter under the first name."""

_DIGITS: Final = 19
"""Maximum digits of a number in a header: an offset has 63 bits."""


class State(StrEnum):
    """State of a dead letter, which decides what a redrive does with it."""

    WAITING = "waiting"
    REDRIVEN = "redriven"
    PARKED = "parked"
    """It has been redriven as often as is allowed, and came back each time."""
    REFERENCE = "reference"
    """It names a snapshot that was too large, or a step at whose deadline or end the fold broke: no source record."""
    PART_OF_A_RECORD = "part_of_a_record"
    """One event of a record of several: the others were applied, and would be applied twice."""
    INCOMPLETE = "incomplete"
    """Its topic could not hold it whole: what was left out is in the source, if it is still there."""
    FOREIGN = "foreign"
    """It is no dead letter of this source topic, or none at all."""


class Letter(NamedTuple):
    """One record of the dead-letter topic. Numbers are -1 and texts empty where the header is not there or is not one.

    `timestamp` in milliseconds, of the source record. `attempt`: how often the record has been rejected.
    """

    topic: str
    partition: int
    offset: int
    timestamp: int
    reason: str
    detail: str
    event_number: str
    source_topic: str
    source_partition: int
    source_offset: int
    attempt: int
    is_whole: bool
    record: Record

    @property
    def position(self) -> str:
        return f"{self.partition}:{self.offset}"

    def state(self, source_topic: str, max_redrives: int, *, is_redriven: bool) -> State:
        """State of the letter for a redrive to `source_topic`, at most `max_redrives` times for one record."""
        if is_redriven:
            return State.REDRIVEN
        if self.source_topic != source_topic or self.source_partition < 0 or self.source_offset < 0:
            return State.FOREIGN
        if self.reason == Reason.SNAPSHOT_TOO_LARGE or (self.reason == Reason.INTERNAL_ERROR and self._names_a_step):
            return State.REFERENCE
        if self.event_number:
            return State.PART_OF_A_RECORD
        if not self.is_whole:
            return State.INCOMPLETE
        return State.PARKED if self.attempt > max_redrives else State.WAITING

    @property
    def _names_a_step(self) -> bool:
        """Whether it stands for a step, as where the fold broke and no record was at fault (docs/semantics.md)."""
        if any(name not in _OURS and name != CLOCK_MARK for name, _ in self.record.headers):
            return False  # a producer's, so it was a record
        try:
            told = msgspec.json.decode(self.record.value or b"")
        except (msgspec.DecodeError, RecursionError):
            return False
        return (
            isinstance(told, dict) and told.keys() == {"id", "run_id"} and self.record.key == f"{told['id']}".encode()
        )


def letter_of(topic: str, partition: int, record: Record) -> Letter:
    """Parse a record of the dead-letter topic; impossible values are treated as missing."""
    # The last header of a name is the worker's: the producer's own stand before it.
    headers = dict(record.headers)
    timestamp = _number(headers.get(SOURCE_TIMESTAMP))
    return Letter(
        topic,
        partition,
        record.offset,
        record.timestamp if timestamp < 0 else timestamp,
        _text(headers, REASON),
        _text(headers, DETAIL),
        _text(headers, EVENT_NUMBER),
        _text(headers, SOURCE_TOPIC),
        _number(headers.get(SOURCE_PARTITION)),
        _number(headers.get(SOURCE_OFFSET)),
        max(1, _number(headers.get(ATTEMPT))),
        _is_whole(record.headers),
        record,
    )


def _is_whole(headers: Headers) -> bool:
    """Whether nothing was left out of it. The worker says so behind its reason; a producer's header says nothing."""
    is_whole = True
    for name, _ in headers:
        is_whole = name == REASON or (is_whole and name not in (OMITTED_BYTES, OMITTED_HEADERS, OMITTED_KEY))
    return is_whole


def source_record(letter: Letter) -> OutRecord:
    """The record to produce to the source topic: partition, key, value, timestamp and headers of the one rejected.

    Behind the producer's own headers stand two: how often it has been rejected, and which dead letter it was. The
    old timestamp does not advance stream time, so that no open step expires by a redrive.
    """
    headers = (
        *own_headers(letter.record.headers),
        (ATTEMPT, b"%d" % letter.attempt),
        (REDRIVEN, f"{letter.topic}/{letter.partition}/{letter.offset}".encode()),
    )
    record = letter.record
    return OutRecord(
        letter.source_topic, letter.source_partition, record.key, record.value, max(0, letter.timestamp), headers
    )


def own_headers(headers: Headers) -> list[tuple[str, bytes | None]]:
    """The producer's headers of a dead letter, under the names that the producer gave them."""
    return [(_RENAMED.get(name, name), content) for name, content in headers if name not in _OURS]


def _text(headers: Mapping[str, bytes | None], name: str) -> str:
    return (headers.get(name) or b"").decode("utf-8", "backslashreplace")


def _number(content: bytes | None) -> int:
    return int(content) if content and content.isdigit() and len(content) <= _DIGITS else -1
