"""Archives that other programs wrote: Spark's schema, TIMESTAMP columns, folders `topic=.../partition=...`, `kcat -J`.

Each is read as it is where nothing of a record is lost; else it is refused, with every reason.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import unquote

import msgspec

from processor.archives.records import NO_TIMESTAMP, ArchivedRecord, Limits, is_topic, refused

LEFT_OUT: Final = frozenset({"timestampType"})
"""Columns that are ignored: Spark's kind of timestamp."""

CONVERSION: Final = (
    'columns to records, with DuckDB: COPY (SELECT topic, "partition", "offset", epoch_ms("timestamp") AS "timestamp", '
    '"key", "value", list_transform(headers, lambda h: {\'name\': h."key", \'value\': h."value"}) AS headers FROM '
    "'in/*.parquet' ORDER BY topic, \"partition\", \"offset\") TO 'archive.parquet' (FORMAT parquet)"
)
"""The statement that converts what is refused; docs/archive-format.md has it, too."""


def from_path(file: Path) -> tuple[str | None, int | None]:
    """Topic and partition that the folders above a file name as Hive does, `topic=T/partition=3`; None where not."""
    topic = partition = None
    for part in file.parts[:-1]:
        name, found, value = part.partition("=")
        if found and name == "topic" and is_topic(unquote(value)):
            topic = unquote(value)
        elif found and name == "partition" and value.isascii() and value.isdigit() and len(value) < 10:
            partition = int(value)
    return topic, partition


class _KcatLine(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """Record as `kcat -J` and `-C -f` in its form write it; `tstype` is `create`, `logappend` or `unknown`."""

    topic: str
    partition: int
    offset: int
    tstype: str
    ts: int
    key: str | None
    payload: str | None
    headers: list[str | None] = []
    broker: int = -1


_decode_kcat: Final = msgspec.json.Decoder(_KcatLine).decode


def kcat_record(line: bytes, limits: Limits) -> ArchivedRecord | None:
    """The record of a line of `kcat -J`; None where it is no such line.

    Raises:
        ValueError: it is one, and cannot be a record.
    """
    if b'"tstype"' not in line:
        return None
    try:
        got = _decode_kcat(line)
    except UnicodeDecodeError:
        raise ValueError(_RAW) from None
    except msgspec.ValidationError:
        return None
    except msgspec.DecodeError as exc:
        raise ValueError(_RAW if "utf-8" in str(exc).lower() else f"not JSON ({exc})") from exc
    names = got.headers[::2]
    if len(got.headers) % 2 or any(name is None for name in names):
        raise ValueError("headers of kcat that are not pairs of a name and a value")
    if len(names) > limits.headers:
        raise ValueError(f"more than {limits.headers} headers (got {len(names)})")
    headers = tuple((name or "", _encoded(value)) for name, value in zip(names, got.headers[1::2], strict=True))
    timestamp = NO_TIMESTAMP if got.tstype == "unknown" else got.ts
    return ArchivedRecord(
        got.topic, got.partition, got.offset, timestamp, _encoded(got.key), _encoded(got.payload), headers
    )


_RAW: Final = "bytes that are not UTF-8 in a line of kcat -J, which writes them raw: the record cannot be told from it"


def _encoded(text: str | None) -> bytes | None:
    return None if text is None else text.encode()


TABLES: Final = {"_delta_log": "Delta Lake", "metadata": "Iceberg", ".hoodie": "Hudi"}


def require_no_table(folder: Path) -> None:
    """Refuse the folder of a table format: its own log lists the valid files, others were replaced or not committed.

    Raises:
        ArchiveError: it is one.
    """
    for name, kind in TABLES.items():
        for found in folder.rglob(name):
            if found.is_dir() and (name != "metadata" or any(found.glob("*.metadata.json"))):
                raise refused(
                    found.parent,
                    "",
                    f"the folder of a table of {kind}: its own log says which files count",
                    hint="read the table with its own library and write what it holds to Parquet",
                )


_PACKED: Final = re.compile(
    r"\.(?:jsonl|ndjson|json)\.(?:bz2|lz4|xz|lzma|zip|z|br|sz|snappy|zstd|7z|tgz)$"
    r"|\.(?:avro|parquet)\.(?:gz|zst|bz2|lz4|xz|lzma|zip|z|br|sz|snappy|zstd|7z)$",
    re.IGNORECASE,
)
"""Names of archive files that another program has packed."""


def require_unpacked(folder: Path) -> None:
    """Refuse a folder of which some files are packed in a way that is not read: the others alone would be a part of it,
    and the records of the packed ones missing.

    Raises:
        ArchiveError: it has such a file.
    """
    for found in sorted(p for p in folder.rglob("*") if _PACKED.search(p.name) and p.is_file()):
        if not any(part.startswith(("_", ".")) for part in found.relative_to(folder).parts):
            raise refused(
                found,
                "",
                "packed in a way that is not read here, and left out it would be missing",
                hint="unpack it, or pack JSON lines with gzip or Zstandard (.jsonl.gz, .jsonl.zst)",
            )


def told_problems(file: Path, problems: Sequence[str]) -> Exception:
    """Every reason why a schema cannot be read, at once, and the statement that converts it."""
    return refused(file, "the schema", "; ".join(problems), hint=CONVERSION)
