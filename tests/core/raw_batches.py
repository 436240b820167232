"""Records encoded as the log has them, to be read as a `RawBatch`."""

from __future__ import annotations

from collections.abc import Sequence

from processor.core.effects import LogRecord
from processor.core.raw_batch import RawBatch


def raw_batch(records: Sequence[LogRecord]) -> RawBatch:
    """One batch of these records, in the middle of other bytes."""
    base, first_ms = (records[0].offset, records[0].timestamp) if records else (0, 0)
    content = b"".join(encoded(record, base, first_ms) for record in records)
    return RawBatch(
        b"before" + content + b"behind", 6, 6 + len(content), len(records), base, first_ms, None, ValueError
    )


def encoded(record: LogRecord, base: int, first_ms: int) -> bytes:
    """A record of format 2."""
    body = b"\0" + varint(record.timestamp - first_ms) + varint(record.offset - base)
    body += sized(record.key) + sized(record.value) + varint(len(record.headers))
    for name, content in record.headers:
        body += sized(name.encode("utf-8", "surrogateescape")) + sized(content)
    return varint(len(body)) + body


def sized(content: bytes | None) -> bytes:
    return varint(-1) if content is None else varint(len(content)) + content


def varint(number: int) -> bytes:
    """In zig-zag encoding, as 64 bits."""
    left = (number << 1 ^ number >> 63) & 0xFFFF_FFFF_FFFF_FFFF
    found = bytearray()
    while left > 0x7F:
        found.append(left & 0x7F | 0x80)
        left >>= 7
    found.append(left)
    return bytes(found)
