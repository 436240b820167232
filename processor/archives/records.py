"""Records and gaps of an archive, the limits of reading one, and the error when it cannot be read."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Final

import msgspec

from processor.core.record_columns import RecordColumns
from processor.errors import RunStepsError

Partition = tuple[str, int]
"""Topic and partition."""

MAX_OFFSET: Final = (1 << 63) - 1
MAX_PARTITION: Final = (1 << 31) - 1
MAX_TIMESTAMP: Final = (1 << 63) - 1
MIN_TIMESTAMP: Final = -(1 << 63)
"""Brokers take any int64 from a producer, and store it."""

NO_TIMESTAMP: Final = -1
_TOPIC: Final = re.compile(r"[A-Za-z0-9._-]{1,249}", re.ASCII)


class ArchivedRecord(msgspec.Struct, frozen=True, gc=False):
    """One record of a topic, as Kafka has it. Satisfies `core.effects.Record`. `timestamp` is in milliseconds."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()


class GapKind(StrEnum):
    """Reason why there is no record at an offset."""

    MARKER = "marker"
    ABORTED = "aborted"
    COMPACTED = "compacted"
    MISSING = "missing"
    UNKNOWN = "unknown"


class Gap(msgspec.Struct, frozen=True, gc=False):
    """The offsets `first` to `last`, both inclusive, hold no record."""

    topic: str
    partition: int
    first: int
    last: int
    kind: GapKind


Batch = tuple[str, int, list[ArchivedRecord | Gap]]
"""Items that follow each other in a file, never none, with the place of the first ("line", 7), for the error if one is
refused: the next one is line 8."""

Columns = tuple[str, int, RecordColumns]
"""The same of records of one partition, without an object for each."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits on memory and unpacked bytes when an archive is read, whatever it claims.

    Args:
        line_bytes: the longest JSON line, and so about the largest record.
        block_bytes: the largest Avro block or Parquet page, packed and unpacked.
        group_bytes: the largest Parquet row group, unpacked.
        ratio: unpacked to packed size of a compressed file, looked at once `ratio_from_bytes` were unpacked.
        headers: headers of one record.
        rows: values in one Parquet page, rows in one Avro block.
        footer_bytes: Parquet footer, Avro file header.
    """

    line_bytes: int = 128 << 20
    block_bytes: int = 256 << 20
    group_bytes: int = 1 << 30
    ratio: int = 250
    ratio_from_bytes: int = 256 << 20
    headers: int = 10_000
    rows: int = 1 << 22
    footer_bytes: int = 16 << 20


LIMITS: Final = Limits()


class Capture(msgspec.Struct, frozen=True, kw_only=True):
    """Source of topic and partition of an Event Hubs Capture file: its path, or these fields.

    `pattern` is the name format of the capture, matched against the end of the path; it must hold `{EventHub}` and
    `{PartitionId}` where `topic` and `partition` are not given.
    """

    pattern: str = "{Namespace}/{EventHub}/{PartitionId}/{Year}/{Month}/{Day}/{Hour}/{Minute}/{Second}"
    topic: str | None = None
    partition: int | None = None


CAPTURE: Final = Capture()


class ArchiveError(RunStepsError):
    """An archive is damaged or not valid. The message names the file and the place; it holds no payload."""

    exit_code = 65


def refused(path: Path, place: str, what: str, hint: str = "") -> ArchiveError:
    """`archive FILE PLACE: what`, all of bounded length and printable."""
    where = f"{printable(str(path), 300)} {place}".rstrip()
    return ArchiveError(f"archive {where}: {printable(what)}", hint=hint)


def printable(text: str, limit: int = 200) -> str:
    """Text from outside with its unprintable characters escaped."""
    shown = text if len(text) <= limit else f"{text[:limit]}..."
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)


def is_topic(name: str) -> bool:
    """Kafka's rule for topic names. What it lets through is also safe as the name of a folder."""
    return _TOPIC.fullmatch(name) is not None and name not in {".", ".."}
