"""Parse the headers of a published record: its source, its identity, its offsets and its clock mark."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from processor.audit.judge.verdicts import FindingKind, Published, Unreadable
from processor.core.effects import REFERENCES_AS_BYTES, Headers, Publish, Record
from processor.core.headers import (
    CLOCK_MARK,
    DETAIL,
    EVENT_NUMBER,
    FIRST_OFFSET,
    LAST_OFFSET,
    REASON,
    REDRIVEN,
    REVISION,
    SOURCE_OFFSET,
    SOURCE_PARTITION,
    SOURCE_TOPIC,
)
from processor.core.record_columns import RecordColumns

_EVENT_NUMBER: Final = re.compile(rb"([1-9][0-9]{0,9})/([1-9][0-9]{0,9})", re.ASCII)

_TOPIC: Final = re.compile(rb"[a-zA-Z0-9._-]{1,249}", re.ASCII)

Named = tuple[FindingKind, int, str, str]
"""Names in a published record: its kind, the source partition, and its identity there."""


def source_of(source: bytes, record: Record, headers: Mapping[str, bytes | None]) -> bytes | str:
    """Read the source topic that a record names; or the reason, in words, why it names no possible one.

    Args:
        source: the topic that is audited.
        headers: those of the record by name, the last of each.
    """
    topic = headers.get(SOURCE_TOPIC)
    if len(headers) != len(record.headers) and sum(name == SOURCE_TOPIC for name, _ in record.headers) > 1:
        return f"names its {SOURCE_TOPIC} more than once"
    if topic == source:
        return source
    if not topic:
        return f"its {SOURCE_TOPIC} is empty" if SOURCE_TOPIC in headers else f"no {SOURCE_TOPIC}"
    if _TOPIC.fullmatch(topic) is None or topic in (b".", b".."):
        return f"its {SOURCE_TOPIC} can be no topic"
    if topic.lower() == source.lower():
        return f"its {SOURCE_TOPIC} is the source in other case"
    return topic


def named_by(record: Record, headers: Mapping[str, bytes | None], *, dead_letters: bool) -> Named | str:
    """Read the source and identity of a record; or the reason, in words, why they cannot be read.

    Args:
        headers: those of the record by name, the last of each.
    """
    source = number_in(headers.get(SOURCE_PARTITION))
    if source is None:
        return f"no {SOURCE_PARTITION}"
    if dead_letters:
        offset, reason = number_in(headers.get(SOURCE_OFFSET)), headers.get(REASON)
        if offset is None or reason is None:
            return f"no {SOURCE_OFFSET} or {REASON}"
        return FindingKind.DEAD_LETTER, source, str(offset), reason_in(reason, headers)
    revision, key = number_in(headers.get(REVISION)), record.key
    if key is None or revision is None:
        return f"no key or no {REVISION}"
    return FindingKind.STEP, source, key.decode("utf-8", "backslashreplace"), str(revision)


def published_as(named: Named, topic: str, partition: int, record: Record) -> Published:
    """The record, with what it names."""
    kind, source, one, two = named
    return Published(
        kind,
        source,
        (one, two),
        topic,
        partition,
        record.offset,
        record.timestamp,
        record.key,
        record.value,
        tuple(record.headers),
    )


def read_published(topic: str, partition: int, record: Record, *, dead_letters: bool) -> Published | Unreadable:
    """Read the evidence of a record on one of our output topics."""
    named = named_by(record, dict(record.headers), dead_letters=dead_letters)
    if isinstance(named, str):
        return Unreadable(topic, partition, record.offset, named)
    return published_as(named, topic, partition, record)


def reason_in(reason: bytes, headers: Mapping[str, bytes | None]) -> str:
    """Reason, and for a record of several events the number of the one that was refused.

    Dead letters from before there was a header for it have the number at the end of their detail.
    """
    text = reason.decode("utf-8", "backslashreplace")
    number = _EVENT_NUMBER.fullmatch(headers.get(EVENT_NUMBER) or b"")
    if number is not None:
        return f"{text} (event {number[1].decode()} of {number[2].decode()})"
    found = (headers.get(DETAIL) or b"").decode("utf-8", "backslashreplace")
    at = found.rfind(" (event ")
    return text if at < 0 else text + found[at:]


def own_header(headers: Headers, at: int, name: str) -> bytes:
    """A header of a step as our own fold has made it: where it puts it, or wherever it may be."""
    here = headers[at]
    return (here[1] if here[0] == name else dict(headers)[name]) or b""


def offsets_in(effect: Publish) -> tuple[int, int]:
    """The first offset of a step that our own fold publishes, and the cause, as `offsets_of` reads them."""
    headers = effect.headers
    first = int(own_header(headers, FIRST_OFFSET_AT, FIRST_OFFSET))
    if effect.inferred is not None:
        mark = dict(headers).get(CLOCK_MARK)
        if mark is not None:
            return first, int(mark.partition(b"@")[2]) - 1
    return first, int(own_header(headers, LAST_OFFSET_AT, LAST_OFFSET))


FIRST_OFFSET_AT: Final = 2
LAST_OFFSET_AT: Final = 3
EVENTS_AT: Final = 4
VERSION_AT: Final = 6
RULES_AT: Final = 7
DIGEST_AT: Final = 8
"""Where `Publication.of_step` puts them. Who looks there looks at the name as well: a header found by its name alone
takes a dictionary of all of them, for each step."""


def redriven_in(records: Sequence[Record] | RecordColumns) -> int:
    """Count the records that a redrive has put back, by their headers."""
    if isinstance(records, RecordColumns):
        found = records.all_headers
        return 0 if found is None else sum([_is_redriven(headers) for headers in found if len(headers) > 0])
    return sum([_is_redriven(record.headers) for record in records])


def _is_redriven(headers: Headers) -> bool:
    for name, _ in headers:  # noqa: SIM110  compiled, a generator is an object
        if name == REDRIVEN:
            return True
    return False


def mark_of(published: Published) -> tuple[int, int] | None:
    """(position, milliseconds) of the clock mark that a record names, if it names one."""
    return mark_in(dict(published.headers))


def mark_in(headers: Mapping[str, bytes | None]) -> tuple[int, int] | None:
    """Read the clock mark, (position, milliseconds), from a record's headers by name; None if they name none.

    Of the dead letters only references to a step can carry one; the others hold the headers of the record that came in,
    and no word of those is the worker's.
    """
    text, reason = headers.get(CLOCK_MARK), headers.get(REASON)
    if text is None or (reason is not None and reason not in REFERENCES_AS_BYTES):
        return None
    milliseconds, _, position = text.partition(b"@")
    found = (number_in(position), number_in(milliseconds))
    return None if found[0] is None or found[1] is None else (found[0], found[1])


def number_in(text: bytes | None) -> int | None:
    if text is None:
        return None
    small = _SMALL.get(text)
    return small if small is not None else int(text) if text.isdigit() and len(text) < 19 else None


_SMALL: Final = {b"%d" % number: number for number in range(1_000)}
"""Revisions and partitions: reading a number takes longer than finding it."""


def offsets_of(published: Published) -> tuple[int | None, int | None]:
    """(first, cause) that a published record names. A clock mark's cause is the record in front of it."""
    mark = mark_of(published)
    if published.kind is FindingKind.DEAD_LETTER:
        first: int | None = int(published.identity[0])
        last = first
    else:
        headers = dict(published.headers)
        first, last = number_in(headers.get(FIRST_OFFSET)), number_in(headers.get(LAST_OFFSET))
    return first, last if mark is None else mark[0] - 1


def began_at(published: Published) -> int | None:
    """The source offset at which a published step began, as its headers say."""
    return offsets_of(published)[0]


def caused_at(published: Published) -> int | None:
    """The source offset of the record that caused it (of a clock mark: the offset before it), as its headers say."""
    return offsets_of(published)[1]
