"""Audit tables as Parquet, streamed in row groups. Same rows, same bytes: no clock, no path, no host goes into them.

Timestamps are int64 milliseconds (DuckDB: `epoch_ms(x)`, pandas: `unit="ms"`). Null says "there is none".
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from hashlib import file_digest
from pathlib import Path, PurePosixPath
from typing import Any, Final, Protocol, TypeVar
from uuid import uuid4

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from processor.audit.judge.verdicts import BlockDigest, Finding
from processor.audit.report.rows import FindingRows, PlainRows, StepRows, TransitionRows
from processor.core.effects import Transition

ROW_GROUP_ROWS: Final = 16_384
"""Rows of a table that are written together."""

_HELD_ROWS: Final = 2_048
"""Rows that are held as objects, which take several times the memory of Arrow's arrays; row groups are made of them."""

# Arrow's own keeps what is freed, in arenas of its own: as much again as a replay holds of rows.
pa.set_memory_pool(pa.system_memory_pool())

_TEXT: Final = pa.string()
_INT: Final = pa.int64()
_SMALL: Final = pa.int32()


def _schema(*fields: tuple[str, pa.DataType] | tuple[str, pa.DataType, bool]) -> pa.Schema:
    return pa.schema([pa.field(f[0], f[1], nullable=len(f) == 3) for f in fields])


SCHEMAS: Final[dict[str, pa.Schema]] = {
    "steps": _schema(
        ("step_id", _TEXT),
        ("run_id", _TEXT, True),
        ("thread_id", _TEXT, True),
        ("partition", _SMALL),
        ("first_offset", _INT),
        ("last_offset", _INT),
        ("events", _INT),
        ("revision", _SMALL, True),
        ("status", _TEXT),
        ("inferred", _TEXT, True),
        ("anomalies", _TEXT),
        ("opened_ms", _INT, True),
        ("ended_ms", _INT, True),
        ("published_topic", _TEXT, True),
        ("published_partition", _SMALL, True),
        ("published_offset", _INT, True),
        ("published_ms", _INT, True),
        ("verdict", _TEXT, True),
        ("digest", _TEXT, True),
    ),
    "transitions": _schema(
        ("step_id", _TEXT),
        ("partition", _SMALL),
        ("offset", _INT),
        ("timestamp", _INT),
        ("from", _TEXT, True),
        ("to", _TEXT, True),
        ("kind", _TEXT),
        ("refused", _TEXT, True),
    ),
    "findings": _schema(
        ("verdict", _TEXT),
        ("kind", _TEXT),
        ("partition", _SMALL),
        ("identity_1", _TEXT),
        ("identity_2", _TEXT),
        ("first_offset", _INT),
        ("cause_offset", _INT),
        ("topic", _TEXT, True),
        ("topic_partition", _SMALL, True),
        ("topic_offset", _INT, True),
        ("why", _TEXT),
        ("differences", pa.list_(pa.struct([("path", _TEXT), ("expected", _TEXT), ("got", _TEXT)]))),
    ),
    "coverage": _schema(("partition", _SMALL), ("first", _INT), ("last", _INT), ("kind", _TEXT)),
    "links": _schema(("partition", _SMALL), ("first", _INT), ("last", _INT), ("records", _SMALL), ("digest", _TEXT)),
    "timeline": _schema(
        ("partition", _SMALL), ("minute", _INT), ("status", _TEXT), ("count", _INT), ("rejected", _INT)
    ),
}


class FileDigest(msgspec.Struct, frozen=True):
    """A file of the report: its length, its SHA-256 in hexadecimal, its rows (-1 where it is no table)."""

    bytes: int
    sha256: str
    rows: int = -1


def digest_of(path: Path, rows: int = -1) -> FileDigest:
    """Raises OSError if it cannot be read."""
    with path.open("rb") as file:
        return FileDigest(os.fstat(file.fileno()).st_size, file_digest(file, "sha256").hexdigest(), rows)


def table_of(name: str) -> str:
    """The table that a file of a report belongs to, by the folder it lies in."""
    return PurePosixPath(name).parent.name


class Tables:
    """The six tables of one partition range, each a file `<table>/<partition>-<begin>.parquet` under `folder`.

    Rows keep the order in which they are given, so give them in an order that the log decides. Files appear under
    their names only when closed, whole: a task that is run twice, even at once, leaves the same files.

    Args:
        folder: made if it is not there.
        partition: of the source; written into each row.
        begin: the range's first offset, for the file name: a partition may be cut into several ranges.

    Attributes:
        steps, findings, transitions: the rows of these tables, for who writes very many.
    """

    def __init__(self, folder: Path, partition: int, begin: int = 0) -> None:
        self._partition = partition
        most = min(_HELD_ROWS, ROW_GROUP_ROWS)
        self._sinks = {
            name: _Sink(folder, f"{name}/{partition:05d}-{begin:019d}.parquet", schema)
            for name, schema in SCHEMAS.items()
        }
        self.steps = self._sinks["steps"].holding(StepRows(partition, most, self._sinks["steps"].take))
        self.transitions = self._sinks["transitions"].holding(
            TransitionRows(partition, most, self._sinks["transitions"].take)
        )
        self.findings = self._sinks["findings"].holding(FindingRows(most, self._sinks["findings"].take))
        self._coverage, self._links, self._timeline = (
            sink.holding(PlainRows(most, sink.take))
            for sink in (self._sinks["coverage"], self._sinks["links"], self._sinks["timeline"])
        )

    def step(
        self,
        *,
        step_id: str,
        run_id: str | None,
        thread_id: str | None,
        first_offset: int,
        last_offset: int,
        events: int,
        revision: int | None,
        status: str,
        inferred: str | None = None,
        anomalies: Sequence[str] = (),
        opened_ms: int | None = None,
        ended_ms: int | None = None,
        published: tuple[str, int, int] | None = None,
        published_ms: int | None = None,
        verdict: str | None = None,
        digest: str | None = None,
    ) -> None:
        """One revision of a finished step, or a step still open at the range's end.

        An open step has status `in_progress` and no revision, end, publication or verdict. `opened_ms` and `ended_ms`
        are the timestamps of the source records; `published` is (topic, partition, offset); `digest` is the SHA-256 of
        the snapshot that the log implies.
        """
        self.steps.add(
            step_id,
            run_id,
            thread_id,
            first_offset,
            last_offset,
            events,
            revision,
            status,
            inferred,
            ",".join(anomalies),
            opened_ms,
            ended_ms,
            published,
            published_ms,
            verdict,
            digest,
        )

    def transition(
        self,
        *,
        step_id: str,
        offset: int,
        timestamp: int,
        before: str | None,
        after: str | None,
        kind: str,
        refused: str | None = None,
    ) -> None:
        """A change of status, or one that was refused (`refused` is the reason, `after` the status that stands)."""
        self.transitions.add(Transition(step_id, offset, timestamp, before, after, kind, refused))

    def finding(self, finding: Finding) -> None:
        """Every finding that was counted, `equal` ones too: the verdict is counted again from this table."""
        self.findings.add(finding)

    def coverage(self, first: int, last: int, kind: str) -> None:
        """A range of offsets (both inclusive) of one kind, ascending and without holes over the range."""
        self._coverage.add(self._partition, first, last, kind)

    def block(self, block: BlockDigest) -> None:
        """The digest of a block of offsets, ascending."""
        self._links.add(self._partition, block.first, block.last, block.records, block.digest)

    def timeline(self, minute: int, status: str, count: int, rejected: int = 0) -> None:
        """Outcomes in a minute of record time.

        `minute` is its begin in milliseconds; `count` outcomes of that status. Dead letters stand in a row of their
        own with the status "". Rows of the same minute and status add up.
        """
        self._timeline.add(self._partition, minute, status, count, rejected)

    def close(self) -> dict[str, FileDigest]:
        """Write what is left, give the files their names; returns name relative to `folder` -> digest."""
        return {sink.name: sink.close() for sink in self._sinks.values()}

    def abandon(self) -> None:
        """Remove half-written files, after an error."""
        for sink in self._sinks.values():
            sink.abandon()


class _Rows(Protocol):
    def taken(self) -> list[list[Any]]: ...


_RowsT = TypeVar("_RowsT", bound=_Rows)


class _Sink:
    """Writer of one table, a row group at a time."""

    def __init__(self, folder: Path, name: str, schema: pa.Schema) -> None:
        self.name = name
        self._path = folder / name
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._part = self._path.with_name(f".{self._path.name}.{uuid4().hex}")
        self._schema = schema
        self._rows: _Rows | None = None
        self._taken: list[pa.RecordBatch] = []
        self._held = self._count = 0
        self._writer = pq.ParquetWriter(self._part, schema, compression="zstd", version="2.6", store_schema=False)

    def holding(self, rows: _RowsT) -> _RowsT:
        """Write these rows from now on; returns them."""
        self._rows = rows
        return rows

    def take(self) -> None:
        """Take the rows that are held as objects, and write a row group if there are enough for one."""
        assert self._rows is not None
        columns = self._rows.taken()
        if not columns or not columns[0]:
            return
        arrays = [_array(column, field.type) for column, field in zip(columns, self._schema, strict=True)]
        self._taken.append(pa.RecordBatch.from_arrays(arrays, schema=self._schema))
        self._held += len(columns[0])
        if self._held >= ROW_GROUP_ROWS:
            self._write()

    def _write(self) -> None:
        if self._taken:
            # In one piece, so that pages do not end where the rows were taken.
            table = pa.Table.from_batches(self._taken, schema=self._schema).combine_chunks()
            self._writer.write_table(table, row_group_size=ROW_GROUP_ROWS)
            self._count += self._held
            self._taken, self._held = [], 0

    def close(self) -> FileDigest:
        self.take()
        self._write()
        self._writer.close()
        digest = digest_of(self._part, self._count)
        self._part.replace(self._path)
        return digest

    def abandon(self) -> None:
        self._writer.close()
        self._part.unlink(missing_ok=True)


def _array(values: list[Any], kind: pa.DataType) -> pa.Array:
    try:
        return pa.array(values, kind)
    except (pa.ArrowInvalid, OverflowError, UnicodeEncodeError):
        # Texts and numbers come out of the headers of records that anybody may have written.
        return pa.array([_tame(value, kind) for value in values], kind)


def _tame(value: Any, kind: pa.DataType) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, int):
        limit = 1 << (kind.bit_width - 1)
        return max(-limit, min(limit - 1, value))
    if isinstance(value, list):
        return [{name: _tame(text, _TEXT) for name, text in entry.items()} for entry in value]
    return value
