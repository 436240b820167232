"""Headers of published records (the evidence of a step) and of dead letters (reason and origin).

The names are API: readers of the topics and auditors rely on them.
"""

from __future__ import annotations

import re
from typing import Final

from processor.core.effects import FOLD_VERSION, Reason, Record
from processor.core.shown_record import ShownRecord

SOURCE_TOPIC: Final = "runstep-source-topic"
SOURCE_PARTITION: Final = "runstep-source-partition"
FIRST_OFFSET: Final = "runstep-first-offset"
LAST_OFFSET: Final = "runstep-last-offset"
EVENTS: Final = "runstep-events"
REVISION: Final = "runstep-revision"
VERSION: Final = "runstep-fold-version"
RULES: Final = "runstep-rules"
DIGEST: Final = "runstep-digest"
INFERRED: Final = "runstep-inferred"
CLOCK_MARK: Final = "runstep-clock-mark"
ANOMALIES: Final = "runstep-anomalies"
TRACE: Final = ("traceparent", "tracestate")

REASON: Final = "runstep-reason"
DETAIL: Final = "runstep-detail"
EVENT_NUMBER: Final = "runstep-event-number"
"""Of a record of several events: which of them was refused, from 1, and how many there are (`2/3`)."""

SOURCE_OFFSET: Final = "runstep-source-offset"
SOURCE_TIMESTAMP: Final = "runstep-source-timestamp"
ATTEMPT: Final = "runstep-attempt"
REDRIVEN: Final = "runstep-redriven"
"""On a record that a redrive put back on the source topic: the dead letter that it was, `topic/partition/offset`."""

CONTENT_TYPE: Final = "content-type"
CE_SPECVERSION: Final = "ce_specversion"
CE_ID: Final = "ce_id"
CE_SOURCE: Final = "ce_source"
CE_TYPE: Final = "ce_type"
CE_SUBJECT: Final = "ce_subject"

VERSION_BYTES: Final = str(FOLD_VERSION).encode()


_TRACE_BYTES: Final = 4096
"""Of one trace header: more than any tracer writes, and our headers must fit beside a snapshot of any size."""


def trace_of(record: Record) -> tuple[tuple[str, bytes], ...]:
    """The trace context of a record: the last header of each name, if it has at most 4,096 bytes."""
    if isinstance(record, ShownRecord) and not record.may_trace:
        return ()
    headers = record.headers
    found = {name: held for name, held in headers if name in ("traceparent", "tracestate") and held is not None}
    if not found:
        return ()
    return tuple((name, content) for name, content in found.items() if len(content) <= _TRACE_BYTES)


_UNRESERVED: Final = re.compile(r"[A-Za-z0-9._~-]*", re.ASCII)
_ID_DIGITS: Final = 16
_SUBJECT_BYTES: Final = 1024
"""Of a subject, percent-encoded: with a longer one our headers would not fit beside a snapshot of any size."""


def cloudevents_type(status: str) -> str:
    """The CloudEvents type of a published step: the API's name of the event that ends a step so."""
    return f"thread.run.step.{status}"


def cloudevents_headers(
    source: str, status: str, step_id: str, partition: str, first_offset: int, revision: int, digest: str
) -> tuple[tuple[str, bytes], ...]:
    """The attributes of a published step as a CloudEvent in binary mode (CloudEvents 1.0, Kafka protocol binding).

    Args:
        source: `source`, the setting.
        partition: of the source topic.
        digest: hexadecimal, of the record's value. It tells apart steps that began in one record.

    Returns:
        Headers whose `ce_id` is the same for the same revision of the same step, in whatever process. `ce_subject` is
        the step id, percent-encoded where it has other characters than a URI's unreserved ones. It is left out where
        that is longer than 1,024 bytes: it is optional, and the record's key is the id.
    """
    subject = step_id
    if _UNRESERVED.fullmatch(step_id) is None:
        subject = "".join(
            one if _UNRESERVED.fullmatch(one) else "".join([f"%{byte:02X}" for byte in one.encode()]) for one in step_id
        )
    attributes = (
        (CONTENT_TYPE, b"application/json"),
        (CE_SPECVERSION, b"1.0"),
        (CE_ID, f"{partition}-{first_offset}-{revision}-{digest[:_ID_DIGITS]}".encode()),
        (CE_SOURCE, source.encode()),
        (CE_TYPE, cloudevents_type(status).encode()),
    )
    return attributes if len(subject) > _SUBJECT_BYTES else (*attributes, (CE_SUBJECT, subject.encode()))


def attempt_of(record: Record) -> int:
    """Number of times that this record was dead-lettered before, which a redrive leaves in its headers; else 0."""
    for name, content in record.headers:
        if name == ATTEMPT and content and content.isdigit() and len(content) < 6:
            return int(content)
    return 0


_WORKERS: Final = frozenset(
    {FIRST_OFFSET, LAST_OFFSET, EVENTS, REVISION, RULES, DIGEST, INFERRED, CLOCK_MARK, ANOMALIES}
)
"""Names that the worker alone writes, on published steps."""


def dead_letter_headers(
    topic: bytes, partition: bytes, record: Record, reason: Reason, detail: str, number: str = ""
) -> tuple[tuple[str, bytes | None], ...]:
    """The record's own headers, unchanged, then ours. A header of ours from an earlier attempt is replaced.

    Names that only a worker writes are not passed on as the worker's: a producer's `runstep-clock-mark` stands in the
    dead letter as `source-runstep-clock-mark`.
    """
    ours = (
        (REASON, reason.value.encode()),
        (DETAIL, detail.encode("utf-8", "backslashreplace")),
        *(((EVENT_NUMBER, number.encode()),) if number else ()),
        (SOURCE_TOPIC, topic),
        (SOURCE_PARTITION, partition),
        (SOURCE_OFFSET, b"%d" % record.offset),
        (SOURCE_TIMESTAMP, b"%d" % record.timestamp),
        (ATTEMPT, b"%d" % (attempt_of(record) + 1)),
        (VERSION, VERSION_BYTES),
    )
    names = {EVENT_NUMBER, *(name for name, _ in ours)}
    own = (
        (f"source-{name}" if name in _WORKERS else name, content)
        for name, content in record.headers
        if name not in names
    )
    return (*own, *ours)
