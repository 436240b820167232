"""Parquet: one row per record or gap. The columns are in docs/archive-format.md.

The only module of the archives that imports pyarrow (extra `audit`); so it also unpacks Zstandard.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal

from processor.archives.byte_columns import spans
from processor.archives.foreign import LEFT_OUT, from_path, told_problems
from processor.archives.pages import DICTIONARY, Chunk, pages, row_groups
from processor.archives.records import (
    ArchivedRecord,
    ArchiveError,
    Batch,
    Columns,
    Gap,
    GapKind,
    Limits,
    Partition,
    refused,
)
from processor.core.effects import Headers
from processor.core.header_names import is_utf8, name_bytes, name_text
from processor.core.record_columns import RecordColumns
from processor.errors import RunStepsError

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError as exc:
    raise RunStepsError(
        "archives: Parquet and Zstandard files need pyarrow", hint="pip install 'run-steps[audit]'"
    ) from exc

_HEADERS: Final = pa.list_(
    pa.field(
        "element",
        pa.struct([pa.field("name", pa.string(), False), ("value", pa.binary()), ("raw_name", pa.binary())]),
        False,
    )
)
"""`raw_name` is null but for a name that is not UTF-8: its bytes, of which `name` is what can be shown."""
SCHEMA: Final = pa.schema(
    [
        pa.field("topic", pa.string(), False),
        pa.field("partition", pa.int32(), False),
        pa.field("offset", pa.int64(), False),
        pa.field("timestamp", pa.int64()),
        pa.field("key", pa.binary()),
        pa.field("value", pa.binary()),
        pa.field("headers", _HEADERS),
        pa.field("gap_last", pa.int64()),
        pa.field("kind", pa.string()),
    ]
)
"""A gap has `offset` as its first offset, `gap_last`, `kind`, and null in all that a record has."""

_OPTIONAL: Final = {"headers", "gap_last", "kind"}
_GROUP_BYTES: Final = 8 << 20
_GROUP_ROWS: Final = 1 << 14
_BATCH_BYTES: Final = 32 << 20
_BATCH_ROWS: Final = 1 << 12
_TAIL: Final = b"PAR1"

_Errors: Final = (pa.ArrowException, OSError, ValueError, LookupError, TypeError, OverflowError)
"""Exceptions that pyarrow raises for a damaged file: its own, and those of its Python part."""


class RecordingFile:
    """Writes items into an open file, a row group at a time. The same items give the same bytes."""

    def __init__(self, raw: BinaryIO, path: Path, limits: Limits) -> None:
        self._path, self._limits = path, limits
        self._rows: list[tuple[Any, ...]] = []
        self._held = 0
        self._writer = pq.ParquetWriter(
            raw,
            SCHEMA,
            compression="zstd",
            use_dictionary=["topic", "kind", "headers.list.element.name"],
            write_statistics=["partition", "offset", "timestamp"],
            write_page_checksum=True,
            store_schema=False,
        )

    def write(self, item: ArchivedRecord | Gap) -> int:
        where = (item.topic, item.partition)
        if isinstance(item, Gap):
            row: tuple[Any, ...] = (*where, item.first, None, None, None, None, item.last, item.kind.value)
            size = 64
        else:
            headers = [_header(name, content) for name, content in item.headers]
            row = (*where, item.offset, item.timestamp, item.key, item.value, headers, None, None)
            contents = (item.key, item.value, *(content for _, content in item.headers))
            size = 64 + sum(map(len, filter(None, contents))) + sum(len(name) for name, _ in item.headers)
            if size > self._limits.line_bytes or len(headers) > self._limits.headers:
                what = f"a record of {size} bytes and {len(headers)} headers at offset {item.offset}"
                raise refused(self._path, "", f"{what}; a reader takes {self._limits.line_bytes}")
        self._rows.append(row)
        self._held += size
        if self._held >= _GROUP_BYTES or len(self._rows) >= _GROUP_ROWS:
            self._flush()
        return size

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._rows:
            columns = zip(*self._rows, strict=True)
            arrays = [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)]
            self._writer.write_table(pa.Table.from_arrays(arrays, schema=SCHEMA))
            self._rows, self._held = [], 0


def _header(name: str, content: bytes | None) -> dict[str, Any]:
    if is_utf8(name):
        return {"name": name, "value": content}
    raw = name_bytes(name)
    return {"name": raw.decode("utf-8", "replace"), "value": content, "raw_name": raw}


def unpacked_zstd(raw: BinaryIO) -> Callable[[int], bytes]:
    """Reads what a Zstandard file unpacks to, piece by piece; OSError where it is torn or corrupt."""
    read: Callable[[int], bytes] = pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "zstd").read
    return read


def read_parquet(file: Path, limits: Limits) -> Iterator[Batch]:
    """The items of a file with their places, never holding more than one batch of rows.

    Raises:
        ArchiveError: not Parquet, other columns, a corrupt page, or more than the limits allow.
    """
    for unit, row, items in _read(file, limits, None):
        assert isinstance(items, list), "columns were not asked for"
        yield unit, row, items


def read_columns(file: Path, limits: Limits, only: Partition) -> Iterator[Batch | Columns]:
    """As `read_parquet`, with records of this partition as columns where they follow each other without a gap."""
    return _read(file, limits, only)


def _read(file: Path, limits: Limits, only: Partition | None) -> Iterator[Batch | Columns]:
    named = from_path(file)
    for group, row, raw in batches(file, limits, partial(_columns, file)):
        batch = _adapted(raw, *named)
        items: list[ArchivedRecord | Gap] = []
        unit = f"row group {group} row"
        try:
            columns = None if only is None else _record_columns(batch, only, limits)
            if columns is not None:
                yield unit, row + 1, columns
                continue
            plain = _plain(batch)
            if plain is not None:
                items = plain
            else:
                items.extend(_items(file, group, row, batch, limits))  # those before one that is refused stay
        except ArchiveError:
            if items:
                yield unit, row + 1, items
            raise
        except _Errors as exc:
            if items:
                yield unit, row + 1, items
            raise _damaged(file, f"row group {group} after row {row + len(items)}", exc) from exc
        if items:
            yield unit, row + 1, items


def last_row(file: Path, limits: Limits) -> ArchivedRecord | Gap | None:
    """The last item of a file; None if it cannot be read (reading the whole file gives the cause).

    Raises:
        ArchiveError: not Parquet, other columns, or more than the limits allow.
    """
    try:
        rows = opened(file, limits).metadata.num_row_groups
    except _Errors:
        return None
    item = None
    for group, row, raw in batches(file, limits, partial(_columns, file), from_group=max(0, rows - 1)):
        if not raw.num_rows:
            continue
        batch = _adapted(raw, *from_path(file))
        try:
            (item,) = _items(file, group, row + batch.num_rows - 1, batch.slice(batch.num_rows - 1), limits)
        except _Errors:
            return None
    return item


def has_headers(file: Path, limits: Limits) -> bool:
    """Whether a file has the column of headers.

    Raises:
        ArchiveError: not Parquet, or more than the limits allow.
    """
    return "headers" in opened(file, limits).schema_arrow.names


def batches(
    file: Path, limits: Limits, choose: Callable[[pa.Schema], Sequence[str]], from_group: int = 0
) -> Iterator[tuple[int, int, pa.RecordBatch]]:
    """Batches of a file, each with its row group and the number of rows of that group before it.

    Nothing is unpacked before footer and page headers show that it is within the limits. Convert columns to values
    with `values`: texts may come as a dictionary, of which a few bytes can name one large entry a million times.

    Args:
        choose: from the schema to the columns that are wanted.
        from_group: the first row group that is read; all are measured.

    Raises:
        ArchiveError: not Parquet, a corrupt page, or more than the limits allow; and what `choose` raises.
    """
    groups, with_dictionary = measure(file, limits)
    columns = list(choose(opened(file, limits).schema_arrow))
    parquet = opened(file, limits, sorted(with_dictionary))
    for group, (rows, unpacked) in enumerate(groups):
        if group < from_group:
            continue
        most = max(1, min(_BATCH_ROWS, _BATCH_BYTES * rows // max(unpacked, 1)))
        row = 0
        try:
            for batch in parquet.iter_batches(most, row_groups=[group], columns=columns, use_threads=False):
                yield group, row, batch
                row += batch.num_rows
        except _Errors as exc:
            raise _damaged(file, f"row group {group} after row {row}", exc) from exc


def measure(file: Path, limits: Limits) -> tuple[list[tuple[int, int]], set[str]]:
    """Rows and unpacked bytes of each row group, and the columns that have a dictionary. Unpacks nothing.

    Raises:
        ArchiveError: not Parquet, or more than the limits allow.
    """
    found = []
    with_dictionary: set[str] = set()
    with file.open("rb") as raw:
        groups, size = _groups(file, raw, limits)
        budget = max(limits.ratio_from_bytes, limits.ratio * size)
        for group, (rows, chunks) in enumerate(groups):
            unpacked = sum(_measure(file, raw, chunk, group, limits, with_dictionary) for chunk in chunks)
            budget -= unpacked
            if budget < 0 or unpacked > limits.group_bytes:
                what = f"unpacks to more than {limits.ratio} times its size or {limits.group_bytes} bytes"
                raise refused(file, f"row group {group}", what, hint="if it is to be trusted, write smaller row groups")
            found.append((rows, unpacked))
    return found, with_dictionary


def _damaged(file: Path, place: str, error: Exception) -> ArchiveError:
    return refused(file, place, f"cannot be read ({type(error).__name__})", hint="the file is damaged")


def _groups(file: Path, raw: BinaryIO, limits: Limits) -> tuple[list[tuple[int, list[Chunk]]], int]:
    """The row groups, if the last bytes say that this is Parquet with a footer of a sane size; the size of the file."""
    size = raw.seek(0, 2)
    raw.seek(max(0, size - 8))
    tail = raw.read(8)
    if size < 12 or tail[4:] != _TAIL:
        raise refused(file, "the footer", "not a Parquet file, or its end is missing")
    footer = int.from_bytes(tail[:4], "little")
    if footer > min(limits.footer_bytes, size - 8):
        raise refused(file, "the footer", f"claims {footer} bytes")
    raw.seek(size - 8 - footer)
    try:
        return row_groups(raw.read(footer)), size
    except ValueError as exc:
        raise refused(file, "the footer", str(exc), hint="the file is damaged") from exc


def opened(file: Path, limits: Limits, as_dictionary: Sequence[str] = ()) -> Any:
    """The file as pyarrow has it. Never ask it for the metadata of a column (`pages`).

    Raises:
        ArchiveError: the footer cannot be read.
    """
    try:
        return pq.ParquetFile(
            file,
            read_dictionary=list(as_dictionary),
            buffer_size=1 << 20,
            pre_buffer=False,
            coerce_int96_timestamp_unit="ms",  # in nanoseconds it ends in the year 2262
            thrift_string_size_limit=limits.footer_bytes,
            thrift_container_size_limit=limits.footer_bytes >> 4,
            page_checksum_verification=True,
        )
    except _Errors as exc:
        raise _damaged(file, "the footer", exc) from exc


def _measure(file: Path, raw: BinaryIO, chunk: Chunk, group: int, limits: Limits, with_dictionary: set[str]) -> int:
    """Unpacked size of a column of a row group. Columns that have a dictionary are added to `with_dictionary`.

    Those are read as dictionaries: one large entry named a million times by a few bytes must stay one entry.
    """
    place = f"row group {group} column {chunk.path}"
    try:
        found = pages(raw, chunk.begin, chunk.size)
    except (ValueError, OverflowError, OSError) as exc:
        raise refused(file, place, str(exc), hint="the file is damaged") from exc
    for page in found:
        if page.unpacked > limits.block_bytes or page.values > limits.rows:
            raise refused(file, place, f"claims a page of {page.unpacked} bytes and {page.values} values")
        if page.kind == DICTIONARY and chunk.is_bytes:
            with_dictionary.add(chunk.path)
    return sum(page.unpacked for page in found)


def _columns(file: Path, schema: pa.Schema) -> list[str]:
    """The columns to read, once they are known to be ours, each of a type that fits."""
    names = [name for name in schema.names if name not in LEFT_OUT]
    unknown = sorted(set(names) - set(SCHEMA.names))
    in_path = {name for name, found in zip(("topic", "partition"), from_path(file), strict=True) if found is not None}
    missing = [name for name in SCHEMA.names if name not in names and name not in _OPTIONAL | in_path]
    problems = [f"no column {', '.join(missing)}"] if missing else []
    if unknown or len(names) != len(set(names)):
        problems.append(f"unknown or repeated columns (got {', '.join(unknown) or 'a repeated one'})")
    for name in names:
        if name in unknown or schema.names.count(name) > 1:
            continue
        got = schema.field(name).type
        if not _fits(SCHEMA.field(name).type, got) and not (name == "timestamp" and pa.types.is_timestamp(got)):
            problems.append(f"column {name} is {got}, not {SCHEMA.field(name).type}")
    if problems:
        raise told_problems(file, problems)
    return names


def _adapted(batch: pa.RecordBatch, topic: str | None, partition: int | None) -> pa.RecordBatch:
    """A batch in our form: times as milliseconds, and columns for values that only folder names have."""
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    times = columns["timestamp"]
    rows = batch.num_rows
    is_whole = ("topic" in columns or topic is None) and ("partition" in columns or partition is None)
    if is_whole and not pa.types.is_timestamp(times.type):
        return batch
    if pa.types.is_timestamp(times.type):
        columns["timestamp"] = _milliseconds(times)
    columns.setdefault("topic", pa.array([topic] * rows, pa.string()))
    columns.setdefault("partition", pa.array([partition] * rows, pa.int32()))
    return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))


def _milliseconds(times: pa.Array) -> pa.Array:
    """Kafka's time has milliseconds: finer parts, which no record had, are cut off towards the past."""
    per_ms = {"s": 0, "ms": 1, "us": 1_000, "ns": 1_000_000}[times.type.unit]
    numbers = times.cast(pa.int64()).to_pylist()
    return pa.array([None if n is None else n * 1000 if per_ms == 0 else n // per_ms for n in numbers], pa.int64())


def _fits(wanted: pa.DataType, got: pa.DataType) -> bool:
    kinds = pa.types
    if kinds.is_dictionary(got):
        got = got.value_type
    if kinds.is_integer(wanted):
        return bool(kinds.is_integer(got))
    if kinds.is_string(wanted):
        return bool(kinds.is_string(got) or kinds.is_large_string(got))
    if kinds.is_binary(wanted):
        return any(of(got) for of in (kinds.is_binary, kinds.is_large_binary, kinds.is_string, kinds.is_large_string))
    if kinds.is_list(wanted):
        return bool(kinds.is_list(got) or kinds.is_large_list(got)) and _fits(wanted.value_type, got.value_type)
    return bool(
        kinds.is_struct(got)
        and [field.name for field in got] in ([field.name for field in wanted], ["name", "value"], ["key", "value"])
        and all(_fits(mine.type, theirs.type) for mine, theirs in zip(wanted, got, strict=False))
    )


def _record_columns(batch: pa.RecordBatch, only: Partition, limits: Limits) -> RecordColumns | None:
    """The rows of a batch that are records of one partition, with one offset after the other, in the types we write;
    None if any is not."""
    there = dict(zip(batch.schema.names, batch.columns, strict=True))
    rows = batch.num_rows
    if not rows or any(name in there and there[name].null_count != rows for name in ("gap_last", "kind")):
        return None
    if there["topic"].unique().to_pylist() != [only[0]]:
        return None
    partitions = _integers(there["partition"], pa.int32(), "i")
    offsets, times = (_integers(there[name], pa.int64(), "q") for name in ("offset", "timestamp"))
    if partitions is None or offsets is None or times is None or set(partitions) != {only[1]}:
        return None
    first = offsets[0]
    if offsets != list(range(first, first + rows)):
        return None
    keys, contents = _contents(there["key"]), _contents(there["value"])
    headers = _usual_headers(there["headers"], limits) if "headers" in there else []
    if keys is None or contents is None or headers is None:
        return None
    return RecordColumns(first, times, keys, contents, headers or None)


def _contents(column: pa.Array) -> list[bytes | None] | None:
    if column.type != pa.binary():
        return None
    if not len(column):
        return []
    valid, _, contents = column.buffers()
    places = _places(column)
    raw = contents.slice(places[0], places[-1] - places[0]).to_pybytes() if contents is not None else b""
    return spans(raw, places, valid.to_pybytes() if column.null_count else b"", column.offset)


def _places(column: pa.Array) -> list[int]:
    """Where each entry of a column of bytes or lists begins and the last one ends; it has one entry at least."""
    within: memoryview[int] = memoryview(column.buffers()[1]).cast("B").cast("i")
    return within[column.offset : column.offset + len(column) + 1].tolist()


def _usual_headers(column: pa.Array, limits: Limits) -> list[Headers] | None:
    """The headers of each row, none at all if no row has any; None where a name or a list is null, or not UTF-8."""
    if column.type.id != _HEADERS.id or column.null_count:
        return None
    flat = column.flatten()
    if not len(flat):
        return []
    raw_names = flat.field("raw_name") if flat.type.num_fields > 2 else None
    if flat.null_count or (raw_names is not None and raw_names.null_count < len(flat)):
        return None
    names, contents = values(flat.field(0)), _contents(flat.field(1))  # `name`, in Spark's schema `key`
    if None in names or contents is None:
        return None
    places = _places(column)
    if max(end - begin for begin, end in pairwise(places)) > limits.headers:
        return None
    pairs, first = list(zip(names, contents, strict=True)), places[0]
    return [pairs[begin - first : end - first] for begin, end in pairwise(places)]


def _plain(batch: pa.RecordBatch) -> list[ArchivedRecord | Gap] | None:
    """The rows of a batch that are records without headers in the types we write; None if any is not."""
    there = dict(zip(batch.schema.names, batch.columns, strict=True))
    rows = batch.num_rows
    for name in ("gap_last", "kind"):
        if name in there and there[name].null_count != rows:
            return None
    headers = there.get("headers")
    if headers is not None and len(headers.flatten()):
        return None
    topics, partitions = there["topic"], _integers(there["partition"], pa.int32(), "i")
    offsets, times = (_integers(there[name], pa.int64(), "q") for name in ("offset", "timestamp"))
    keys, contents = _contents(there["key"]), _contents(there["value"])
    if topics.null_count or partitions is None or offsets is None or times is None or keys is None or contents is None:
        return None
    return list(map(ArchivedRecord, values(topics), partitions, offsets, times, keys, contents))


def _integers(column: pa.Array, kind: pa.DataType, code: Literal["i", "q"]) -> list[int] | None:
    # `to_pylist` makes an object of Arrow's for each value first.
    if column.type != kind or column.null_count:
        return None
    numbers: memoryview[int] = memoryview(column.buffers()[1]).cast("B").cast(code)
    return numbers[column.offset : column.offset + len(column)].tolist()


def _items(file: Path, group: int, row: int, batch: pa.RecordBatch, limits: Limits) -> Iterator[ArchivedRecord | Gap]:
    """The rows of a batch; `row` were read before it."""
    there = {name: batch.column(name) for name in batch.schema.names}
    absent = [None] * batch.num_rows
    columns = [
        _headers(there[name]) if name == "headers" else values(there[name]) for name in SCHEMA.names if name in there
    ]
    listed = dict(zip([name for name in SCHEMA.names if name in there], columns, strict=True))
    for topic, partition, offset, timestamp, key, value, headers, last, kind in zip(
        *(listed.get(name, absent) for name in SCHEMA.names), strict=True
    ):
        row += 1
        wrong = ""
        if topic is None or partition is None or offset is None:
            wrong = "topic, partition or offset is null"
        elif last is not None or kind is not None:
            if last is None or kind not in _KINDS:
                wrong = f"not a gap (gap_last {last}, kind {kind!r})"
            elif timestamp is not None or key is not None or value is not None or headers:
                wrong = "both a gap and a record"
        elif timestamp is None:
            wrong = "timestamp is null"
        elif headers is not None and (len(headers) > limits.headers or any(name is None for name, _ in headers)):
            wrong = f"more than {limits.headers} headers, or one without a name"
        if wrong:
            raise refused(file, f"row group {group} row {row}", wrong)
        if last is not None:
            yield Gap(topic, partition, offset, last, GapKind(kind))
        else:
            yield ArchivedRecord(topic, partition, offset, timestamp, _raw(key), _raw(value), headers or ())


_KINDS: Final = frozenset(kind.value for kind in GapKind)


def _raw(content: str | bytes | None) -> bytes | None:
    return content.encode() if isinstance(content, str) else content


def values(column: pa.Array) -> list[Any]:
    """A column as Python values. Of a dictionary only the entries that this batch names are made, each once."""
    if not pa.types.is_dictionary(column.type):
        return list(column.to_pylist())
    named = column.indices.unique().drop_null()
    entries = dict(zip(named.to_pylist(), column.dictionary.take(named).to_pylist(), strict=True))
    indices = _integers(column.indices, pa.int32(), "i") or column.indices.to_pylist()
    return [None if index is None else entries[index] for index in indices]


def _headers(column: pa.Array) -> list[Any]:
    """Per row a tuple of (name, content), or None."""
    flat = column.flatten()
    names = values(flat.field(0))  # `name`, in Spark's schema `key`
    if flat.type.num_fields > 2 and (raw := flat.field("raw_name")).null_count < len(raw):
        told = map(_raw, values(raw))
        names = [name if of is None else name_text(of) for name, of in zip(names, told, strict=True)]
    pairs = list(zip(names, map(_raw, values(flat.field(1))), strict=True))
    lengths, found, at = column.value_lengths().to_pylist(), [], 0
    for length in lengths:
        found.append(None if length is None else tuple(pairs[at : at + length]))
        at += length or 0
    return found
