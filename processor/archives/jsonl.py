"""JSON lines, plain or compressed: one record or gap a line. The format is docs/archive-format.md.

Bytes that are UTF-8 are written as a JSON string, all others as `{"base64": "..."}`, names of headers too: a line can
be read by people and still holds every byte.
"""

from __future__ import annotations

import gzip
import zlib
from codecs import BOM_UTF8
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

import msgspec

from processor.archives.foreign import kcat_record
from processor.archives.header_texts import as_bytes
from processor.archives.line_columns import columns_of
from processor.archives.line_ends import lines_of_objects
from processor.archives.records import (
    MAX_OFFSET,
    MAX_TIMESTAMP,
    MIN_TIMESTAMP,
    ArchivedRecord,
    Batch,
    Columns,
    Gap,
    GapKind,
    Limits,
    Partition,
    refused,
)
from processor.core.header_names import is_utf8, name_bytes, name_text
from processor.core.record_columns import RecordColumns

CHUNK_BYTES: Final = 1 << 16
"""Small enough that the records of a piece are still in the CPU's cache when they are digested and folded."""


class _Base64(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    base64: bytes


_Bytes = str | _Base64 | None
_Name = str | _Base64


class _RecordLine(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    topic: str
    partition: int
    offset: int
    timestamp: int
    key: _Bytes
    value: _Bytes
    headers: list[tuple[_Name, _Bytes]]


class _GapLine(msgspec.Struct, frozen=True, gc=False):
    topic: str
    partition: int
    gap: tuple[int, int]
    kind: GapKind


class _Line(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """A line: a record or a gap. An unknown field is refused: a misspelt `headers` would change what the fold sees."""

    topic: str
    partition: int
    offset: int | msgspec.UnsetType = msgspec.UNSET
    timestamp: int | msgspec.UnsetType = msgspec.UNSET
    key: _Bytes | msgspec.UnsetType = msgspec.UNSET
    value: _Bytes | msgspec.UnsetType = msgspec.UNSET
    headers: list[tuple[_Name, _Bytes]] = []
    gap: tuple[int, int] | msgspec.UnsetType = msgspec.UNSET
    kind: GapKind | msgspec.UnsetType = msgspec.UNSET


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(_Line).decode
_record_decoder: Final = msgspec.json.Decoder(_RecordLine)
_decode_record: Final = _record_decoder.decode
_decode_record_lines: Final = _record_decoder.decode_lines


def encode_line(item: ArchivedRecord | Gap) -> bytes:
    """The line, with its line end. The same item gives the same bytes."""
    if isinstance(item, Gap):
        return _encode(_GapLine(item.topic, item.partition, (item.first, item.last), item.kind)) + b"\n"
    headers = [(_name(name), _text(content)) for name, content in item.headers]
    line = _RecordLine(
        item.topic, item.partition, item.offset, item.timestamp, _text(item.key), _text(item.value), headers
    )
    return _encode(line) + b"\n"


def _name(name: str) -> _Name:
    return name if is_utf8(name) else _Base64(name_bytes(name))


def _text(content: bytes | None) -> _Bytes:
    if content is None:
        return None
    try:
        return content.decode()
    except UnicodeDecodeError:
        return _Base64(content)


def _bytes(content: _Bytes) -> bytes | None:
    if type(content) is str:
        return content.encode()
    return content.base64 if isinstance(content, _Base64) else None


def decode_line(line: bytes, limits: Limits) -> ArchivedRecord | Gap:
    """One line without its end.

    Raises:
        ValueError: what is wrong with it.
    """
    try:
        return _records((_decode_record(line),), limits)[0]
    except _NO_RECORD:
        return _decode_other(line, limits)


_NO_RECORD: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def _records(lines: Iterable[_RecordLine], limits: Limits) -> list[ArchivedRecord | Gap]:
    """Records of lines that hold all their fields.

    Raises:
        ValueError: too many headers.
    """
    # One comprehension: calls for each key and value cost as much as the decoding.
    return [
        ArchivedRecord(
            line.topic,
            line.partition,
            line.offset,
            line.timestamp,
            key.encode() if type(key := line.key) is str else _bytes(key),
            value.encode() if type(value := line.value) is str else _bytes(value),
            _headers(headers, limits) if (headers := line.headers) else (),
        )
        for line in lines
    ]


def _columns(lines: list[_RecordLine], only: Partition, limits: Limits) -> RecordColumns | None:
    """Lines that hold records of this partition, with one offset after the other; None where they are anything else.

    Raises:
        ValueError: too many headers.
    """
    topic, partition = only
    if not 0 <= lines[0].offset <= MAX_OFFSET - len(lines):
        return None
    times = (MIN_TIMESTAMP, MAX_TIMESTAMP)
    return columns_of(
        cast(list[Any], lines), topic, partition, times, limits.headers, _bytes, lambda own: _header_list(own, limits)
    )


def _headers(headers: list[tuple[_Name, _Bytes]], limits: Limits) -> tuple[tuple[str, bytes | None], ...]:
    return tuple(_header_list(headers, limits))


def _header_list(headers: list[tuple[_Name, _Bytes]], limits: Limits) -> list[tuple[str, bytes | None]]:
    if len(headers) > limits.headers:
        raise ValueError(f"more than {limits.headers} headers (got {len(headers)})")
    texts = as_bytes(cast(list[tuple[Any, ...]], headers))
    if texts is not None:
        return texts
    return [
        (
            name if type(name) is str else _kept_name(name),
            content.encode() if type(content) is str else _bytes(content),
        )
        for name, content in headers
    ]


def _kept_name(name: _Name) -> str:
    return name if isinstance(name, str) else name_text(name.base64)


def _decode_other(line: bytes, limits: Limits) -> ArchivedRecord | Gap:
    """Parse a line that is not a record with all its fields: without headers, a gap, or invalid."""
    try:
        got = _decode(line)
    except msgspec.ValidationError as exc:
        if (foreign := kcat_record(line, limits)) is not None:
            return foreign
        raise ValueError(str(exc)) from exc
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        if (foreign := kcat_record(line, limits)) is not None:
            return foreign
        raise ValueError(f"not JSON ({exc})") from exc
    key, value, offset, timestamp = got.key, got.value, got.offset, got.timestamp
    if got.gap is not msgspec.UNSET:
        if got.kind is msgspec.UNSET:
            raise ValueError("a gap without `kind`")
        if not (offset is timestamp is key is value is msgspec.UNSET and not got.headers):
            raise ValueError("both a gap and a record")
        return Gap(got.topic, got.partition, got.gap[0], got.gap[1], got.kind)
    if (
        offset is msgspec.UNSET
        or timestamp is msgspec.UNSET
        or key is msgspec.UNSET
        or value is msgspec.UNSET
        or got.kind is not msgspec.UNSET
    ):
        raise ValueError("a record needs `offset`, `timestamp`, `key` and `value`, a gap needs `gap` and `kind`")
    return ArchivedRecord(
        got.topic, got.partition, offset, timestamp, _bytes(key), _bytes(value), _headers(got.headers, limits)
    )


def read_lines(file: Path, limits: Limits) -> Iterator[Batch]:
    """The items of a file with their places. Empty lines are passed over; the last line may lack its end.

    Raises:
        ArchiveError: a line that is neither, too long a line, a corrupt or too well compressed file.
    """
    return cast(Iterator[Batch], _read_lines(file, limits, None))


def read_columns(file: Path, limits: Limits, only: Partition) -> Iterator[Batch | Columns]:
    """As `read_lines`, with records of this partition as columns where they follow each other without a gap."""
    return _read_lines(file, limits, only)


def _read_lines(file: Path, limits: Limits, only: Partition | None) -> Iterator[Batch | Columns]:
    first = 1
    for piece in _pieces(file, limits):
        if first == 1:
            piece = piece.removeprefix(BOM_UTF8)
        if records := _all_records(piece, limits, only):
            count = len(records)
            # One by one, for the types.
            if isinstance(records, RecordColumns):
                yield "line", first, records
            else:
                yield "line", first, records
            first += count
        else:
            lines = piece.split(b"\n")
            yield from _one_by_one(file, lines, first, limits)
            first += len(lines)


def _all_records(piece: bytes, limits: Limits, only: Partition | None) -> list[ArchivedRecord | Gap] | RecordColumns:
    """The records of lines, as nearly all are, one a line; none at all where a line may be anything else."""
    if len(piece) > limits.line_bytes and max(map(len, piece.split(b"\n"))) > limits.line_bytes:
        return []
    try:
        count = lines_of_objects(piece)
        if not count:  # lines may end in a carriage return, or be empty
            return _records(map(_decode_record, piece.split(b"\n")), limits)
        lines = _decode_record_lines(piece)
        if len(lines) != count:
            return []
        columns = None if only is None else _columns(lines, only, limits)
        return _records(lines, limits) if columns is None else columns
    except (*_NO_RECORD, ValueError):
        return []


def _one_by_one(file: Path, lines: list[bytes], first: int, limits: Limits) -> Iterator[Batch]:
    items: list[ArchivedRecord | Gap] = []
    number = first
    for number, line in enumerate(lines, first):
        if not line or line.isspace():
            if items:
                yield "line", number - len(items), items
                items = []
            continue
        try:
            if len(line) > limits.line_bytes:
                raise ValueError(f"longer than {limits.line_bytes} bytes")
            items.append(decode_line(line, limits))
        except ValueError as exc:
            if items:
                yield "line", number - len(items), items
            raise refused(file, f"line {number}", str(exc)) from exc
    if items:
        yield "line", number + 1 - len(items), items


def last_line(file: Path, limits: Limits) -> ArchivedRecord | Gap | None:
    """The last item of a file; None if the last line is missing or no item (reading the whole file gives the cause).

    Raises:
        ArchiveError: a line too long, a corrupt or too well compressed file.
    """
    last = b""
    packed = file.name.endswith((".gz", ".zst"))
    for lines in (piece.split(b"\n") for piece in _pieces(file, limits)) if packed else _tail(file, limits):
        last = next((line for line in reversed(lines) if line and not line.isspace()), last)
    try:
        return decode_line(last.removeprefix(BOM_UTF8), limits) if len(last) <= limits.line_bytes else None
    except ValueError:
        return None


def _tail(file: Path, limits: Limits) -> Iterator[list[bytes]]:
    """The last lines of a file that is not compressed."""
    with file.open("rb") as raw:
        size, reach = raw.seek(0, 2), CHUNK_BYTES
        while True:
            raw.seek(max(0, size - reach))
            lines = raw.read(reach).split(b"\n")
            # The first of them may be the rest of a line.
            if reach >= size or any(line and not line.isspace() for line in lines[1:]):
                yield lines if reach >= size else lines[1:]
                return
            if reach > limits.line_bytes:
                return
            reach *= 2


def _pieces(file: Path, limits: Limits) -> Iterator[bytes]:
    """Whole lines, the last one without its end, as many as a chunk holds, never holding more than one beside it."""
    held = 0
    rest: list[bytes] = []
    for number, chunk in enumerate(_chunks(file, limits)):
        first, last = chunk.find(b"\n"), chunk.rfind(b"\n")
        held += len(chunk) if first < 0 else first
        if held > limits.line_bytes:
            before = sum(chunk.count(b"\n") for chunk in islice(_chunks(file, limits), number))
            raise refused(file, f"line {before + 1}", f"longer than {limits.line_bytes} bytes")
        if last < 0:
            rest.append(chunk)
            continue
        rest.append(chunk[:last])
        yield b"".join(rest)
        rest, held = [chunk[last + 1 :]], len(chunk) - last - 1
    yield b"".join(rest)


def _chunks(file: Path, limits: Limits) -> Iterator[bytes]:
    """The unpacked bytes of a file in pieces of at most `CHUNK_BYTES`."""
    packed = file.name.endswith((".gz", ".zst"))
    if packed and not file.stat().st_size:
        raise refused(file, "", "empty, which no compressed file is", hint=_TORN)
    with file.open("rb") as raw:
        read, unpacked = _opened(file, raw), 0
        while True:
            try:
                chunk = read(CHUNK_BYTES)
            except EOFError as exc:
                raise refused(
                    file, f"after {unpacked} unpacked bytes", "the compressed file ends too early", hint=_TORN
                ) from exc
            except (OSError, zlib.error) as exc:
                raise refused(file, f"after {unpacked} unpacked bytes", f"cannot be unpacked ({exc})") from exc
            if not chunk:
                return
            unpacked += len(chunk)
            if packed and unpacked > limits.ratio_from_bytes and unpacked > limits.ratio * raw.tell():
                raise refused(
                    file,
                    f"after {unpacked} unpacked bytes",
                    f"unpacks to more than {limits.ratio} times its size",
                    hint="if the file is to be trusted, unpack it first",
                )
            yield chunk


_TORN: Final = "it was cut off while being written or copied; fetch it again"


def _opened(file: Path, raw: BinaryIO) -> Callable[[int], bytes]:
    if file.name.endswith(".gz"):
        return gzip.GzipFile(fileobj=raw, mode="rb").read
    if file.name.endswith(".zst"):
        from processor.archives.parquet import unpacked_zstd

        return unpacked_zstd(raw)
    return raw.read
