"""Headers of published records (the evidence of a step) and of dead letters (reason and origin).

The names are API: readers of the topics and auditors rely on them.
"""

from __future__ import annotations

from typing import Final

from processor.core.effects import FOLD_VERSION, Reason, Record

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

VERSION_BYTES: Final = str(FOLD_VERSION).encode()


_TRACE_BYTES: Final = 4096
"""Of one trace header: more than any tracer writes, and our headers must fit beside a snapshot of any size."""


def trace_of(record: Record) -> tuple[tuple[str, bytes], ...]:
    """The trace context of a record: the last header of each name, where it is of a sane length."""
    headers = record.headers
    found = {name: held for name, held in headers if name in ("traceparent", "tracestate") and held is not None}
    if not found:
        return ()
    return tuple((name, content) for name, content in found.items() if len(content) <= _TRACE_BYTES)


def attempt_of(record: Record) -> int:
    """How often this record has been set aside before: the attempt that a redrive left in its headers, else 0."""
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
