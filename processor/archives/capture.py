"""Event Hubs Capture: Avro object container files, as the service writes them into a storage account.

The container is parsed here, so that no block is unpacked beyond its limit whatever the file claims (Avro 1.11
specification, "Object Container Files"); fastavro decodes the records. docs/archive-format.md says how a captured event
becomes a record.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Final

import cramjam
import msgspec

from processor.archives.records import ArchivedRecord, Capture, Limits, printable, refused
from processor.core.header_names import name_bytes
from processor.errors import RunStepsError, UsageError

_MAGIC: Final = b"Obj\x01"
_SYNC_BYTES: Final = 16
_MAX_META: Final = 64
_KAFKA_KEY: Final = "x-opt-kafka-key"
_PARTITION_KEY: Final = "x-opt-partition-key"
_ENQUEUED: Final = "x-opt-enqueued-time"

_FIELDS: Final = {
    "SequenceNumber": {"long", "int"},
    "Offset": {"string", "null"},
    "EnqueuedTimeUtc": {"string", "null"},
    "SystemProperties": {"map", "null"},
    "Properties": {"map", "null"},
    "Body": {"bytes", "null"},
}
_MAP_VALUES: Final = {"long", "int", "double", "float", "string", "bytes", "null"}
_NEEDED: Final = {"SequenceNumber", "EnqueuedTimeUtc", "SystemProperties", "Properties", "Body"}

_Decode = Callable[[BinaryIO], Any]


def read_capture(file: Path, capture: Capture, limits: Limits) -> Iterator[tuple[str, int, ArchivedRecord]]:
    """The records of a capture file with their places. A file without events (the service writes those) has none.

    Raises:
        UsageError: neither path nor `capture` says which topic and partition it is.
        ArchiveError: not a capture file, or a corrupt block.
    """
    topic, partition = _named(file, capture)
    with file.open("rb") as raw:
        source = _Source(file, raw)
        codec, decode = _header(source, limits)
        sync = source.take(_SYNC_BYTES, "the header")
        number = 0
        while not source.ended():
            number += 1
            place = f"block {number}"
            rows, size = source.long(place), source.long(place)
            if not 0 <= rows <= limits.rows or not 0 <= size <= limits.block_bytes:
                raise refused(file, place, f"claims {rows} events in {size} bytes")
            packed = source.take(size, place)
            if source.take(_SYNC_BYTES, place) != sync:
                raise refused(file, place, "does not end with the mark of this file", hint="the file is damaged")
            block = BytesIO(_unpacked(file, place, codec, packed, limits))
            for row in range(1, rows + 1):
                try:
                    record = _record(topic, partition, decode(block), limits)
                except _NotARecord as exc:
                    raise refused(file, f"{place} event {row}", str(exc)) from exc
                except Exception as exc:  # fastavro lets through whatever struct, codecs or indexing raise
                    what = f"cannot be decoded ({type(exc).__name__})"
                    raise refused(file, f"{place} event {row}", what) from exc
                yield f"{place} event", row, record
            if block.read(1):
                raise refused(file, place, "holds more than its events")


class _Source:
    """The file, read in bounded pieces."""

    def __init__(self, file: Path, raw: BinaryIO) -> None:
        self.file, self._raw = file, raw

    def take(self, size: int, place: str) -> bytes:
        taken = self._raw.read(size)
        if len(taken) != size:
            raise refused(self.file, place, "the file ends too early", hint="it was cut off; fetch it again")
        return taken

    def long(self, place: str) -> int:
        """A zigzag variable-length integer of at most 64 bits."""
        value = 0
        for shift in range(0, 70, 7):
            byte = self.take(1, place)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return (value >> 1) ^ -(value & 1)
        raise refused(self.file, place, "a length has no end")

    def ended(self) -> bool:
        byte = self._raw.read(1)
        if byte:
            self._raw.seek(-1, 1)
        return not byte


def _header(source: _Source, limits: Limits) -> tuple[str, _Decode]:
    """The codec and the decoder of the schema."""
    place = "the header"
    if source.take(len(_MAGIC), place) != _MAGIC:
        raise refused(source.file, place, "not an Avro container file")
    meta: dict[bytes, bytes] = {}
    while (entries := source.long(place)) != 0:
        if entries < 0:
            entries = -entries
            source.long(place)
        if len(meta) + entries > _MAX_META:
            raise refused(source.file, place, f"more than {_MAX_META} entries")
        for _ in range(entries):
            name = source.take(_length(source, limits), place)
            meta[name] = source.take(_length(source, limits), place)
    codec = meta.get(b"avro.codec", b"null").decode("ascii", "replace")
    if codec not in _UNPACKERS:
        raise refused(source.file, place, f"codec {codec!r}", hint=f"known are {', '.join(_UNPACKERS)}")
    return codec, _decoder(source.file, meta.get(b"avro.schema", b""))


def _length(source: _Source, limits: Limits) -> int:
    size = source.long("the header")
    if not 0 <= size <= min(limits.footer_bytes, 1 << 20):
        raise refused(source.file, "the header", f"claims an entry of {size} bytes")
    return size


def _decoder(file: Path, schema: bytes) -> _Decode:
    """Decoder for the file's own schema, once that is known to be one of a capture.

    The check is also a guard: an arbitrary schema could make a few bytes decode into endless values.
    """
    place = "the schema"
    try:
        named = msgspec.json.decode(schema)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise refused(file, place, "not JSON") from exc
    if not (isinstance(named, dict) and named.get("type") == "record" and isinstance(named.get("fields"), list)):
        raise refused(file, place, "not that of a record")
    there = set()
    for field in named["fields"]:
        name = field.get("name") if isinstance(field, dict) else None
        if not isinstance(name, str) or name not in _FIELDS or name in there:
            raise refused(file, place, f"not that of Event Hubs Capture (got field {name!r})")
        there.add(name)
        wrong = _kinds(field.get("type")) - _FIELDS[name]
        if wrong:
            raise refused(file, place, f"field {name} cannot be {printable(', '.join(sorted(wrong)), 40)}")
    if _NEEDED - there:
        raise refused(file, place, f"no field {', '.join(sorted(_NEEDED - there))}")
    try:
        from fastavro import parse_schema, schemaless_reader
    except ImportError as exc:
        raise RunStepsError(
            "archives: Event Hubs Capture files need fastavro", hint="pip install 'run-steps[audit]'"
        ) from exc
    try:
        parsed = parse_schema(named, named_schemas={})
    except Exception as exc:  # its own error classes have no common root
        raise refused(file, place, f"cannot be used ({type(exc).__name__})") from exc
    return lambda block: schemaless_reader(block, parsed, None, handle_unicode_errors="surrogateescape")


def _kinds(kind: object) -> set[str]:
    """Names of the types of a field; a map counts as one only if its values are of plain types."""
    if isinstance(kind, str):
        return {kind}
    if isinstance(kind, list):
        return set().union(*map(_kinds, kind)) if kind else {"nothing"}
    if isinstance(kind, dict):
        inner = kind.get("type")
        if inner == "map":
            return {"map"} if _kinds(kind.get("values")) <= _MAP_VALUES else {"map of other things"}
        if isinstance(inner, str) and inner in _MAP_VALUES and "logicalType" not in kind:
            return {inner}
    return {"of that type"}


def _unpacked(file: Path, place: str, codec: str, packed: bytes, limits: Limits) -> bytes:
    try:
        block = _UNPACKERS[codec](packed, limits.block_bytes)
    except (zlib.error, OSError, ValueError, cramjam.DecompressionError) as exc:
        raise refused(file, place, "cannot be unpacked", hint="the file is damaged") from exc
    if len(block) > limits.block_bytes or (
        len(block) > limits.ratio_from_bytes and len(block) > limits.ratio * len(packed)
    ):
        raise refused(file, place, f"unpacks to more than {limits.block_bytes} bytes or {limits.ratio} times its size")
    return block


def _inflated(packed: bytes, limit: int) -> bytes:
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    block = unpacker.decompress(packed, limit + 1)
    if len(block) <= limit and not unpacker.eof:  # bytes may follow it: some writers leave part of zlib's checksum
        raise ValueError("no whole stream")
    return block


def _unsnapped(packed: bytes, limit: int) -> bytes:
    """Raw snappy and the CRC-32 of what it holds, big-endian. Snappy says in front how much it unpacks to."""
    if cramjam.snappy.decompress_raw_len(packed) > limit:
        raise ValueError("too large")
    block = bytes(cramjam.snappy.decompress_raw(packed[:-4]))
    if zlib.crc32(block) != int.from_bytes(packed[-4:], "big"):
        raise ValueError("checksum")
    return block


_UNPACKERS: Final[dict[str, Callable[[bytes, int], bytes]]] = {
    "null": lambda packed, _: packed,
    "deflate": _inflated,
    "snappy": _unsnapped,
}


class _NotARecord(Exception):
    """A decoded event that is not valid."""


def _record(topic: str, partition: int, event: dict[str, Any], limits: Limits) -> ArchivedRecord:
    system, properties = event["SystemProperties"] or {}, event["Properties"] or {}
    if len(properties) > limits.headers:
        raise _NotARecord(f"more than {limits.headers} properties (got {len(properties)})")
    key = system.get(_KAFKA_KEY)
    if key is None:
        key = system.get(_PARTITION_KEY)
    enqueued = system.get(_ENQUEUED)
    try:
        timestamp = enqueued if isinstance(enqueued, int) else _milliseconds(event["EnqueuedTimeUtc"])
    except ValueError as exc:
        raise _NotARecord(f"EnqueuedTimeUtc cannot be read (got {event['EnqueuedTimeUtc']!r})") from exc
    return ArchivedRecord(
        topic,
        partition,
        event["SequenceNumber"],
        timestamp,
        _content(key),
        event["Body"],
        tuple((name, _content(content)) for name, content in properties.items()),
    )


def _content(content: object) -> bytes | None:
    """A property as the bytes of a header: text as UTF-8, numbers in decimal, bytes as they are."""
    if content is None or isinstance(content, bytes):
        return content
    return name_bytes(str(content))  # text of an Avro file is kept as names are: not all of it need be UTF-8


_US_TIME: Final = re.compile(r"(\d{1,2})/(\d{1,2})/(\d{4}) (\d{1,2}):(\d{2}):(\d{2}) ([AP])M", re.ASCII)
_ISO_TIME: Final = re.compile(r"(\d{4})-(\d{2})-(\d{2})T(\d{2}):(\d{2}):(\d{2})(?:\.(\d{1,9}))?(?:Z|\+00:00)", re.ASCII)


def _milliseconds(text: str | None) -> int:
    """`7/24/2024 10:15:30 PM`, as the service writes it, or ISO 8601 in UTC; ValueError for anything else."""
    if us := _US_TIME.fullmatch(text or ""):
        month, day, year, hour, minute, second = map(int, us.groups()[:6])
        if not 1 <= hour <= 12:
            raise ValueError("no such hour")
        moment = datetime(year, month, day, hour % 12 + 12 * (us[7] == "P"), minute, second, tzinfo=UTC)
        return round(moment.timestamp()) * 1000
    if iso := _ISO_TIME.fullmatch(text or ""):
        moment = datetime(*map(int, iso.groups()[:6]), tzinfo=UTC)  # type: ignore[arg-type, misc]
        return round(moment.timestamp()) * 1000 + int((iso[7] or "0").ljust(3, "0")[:3])
    raise ValueError("no known form")


def _named(file: Path, capture: Capture) -> tuple[str, int]:
    """Topic and partition from the options, else from the path by the pattern of the capture."""
    topic, partition = capture.topic, capture.partition
    if topic is None or partition is None:
        found = _in_path(file, capture.pattern)
        topic = found.get("EventHub") if topic is None else topic
        if partition is None and found.get("PartitionId", "").isdecimal():
            partition = int(found["PartitionId"])
    if topic is None or partition is None:
        lacking = "topic" if topic is None else "partition"
        raise UsageError(
            f"archive {printable(str(file), 300)}: the path does not say which {lacking} it is of",
            hint=f"its end is not like {capture.pattern}; see --capture-pattern, "
            "and for a source also `replay --capture-topic` and `--capture-partition`",
        )
    return topic, partition


def _in_path(file: Path, pattern: str) -> dict[str, str]:
    """Values of the names in braces, from the end of the path; empty if it does not match the pattern."""
    seen: set[str] = set()
    expression = ""
    for literal, name in re.findall(r"([^{}]*)(?:\{([A-Za-z]\w*)\})?", pattern):
        expression += re.escape(literal)
        if name:
            expression += f"(?P={name})" if name in seen else f"(?P<{name}>[^/]+?)"
            seen.add(name)
    match = re.fullmatch(f"(?:.*/)?{expression}", file.absolute().with_suffix("").as_posix(), re.ASCII | re.DOTALL)
    return match.groupdict() if match else {}
