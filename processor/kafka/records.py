"""Output record and its partition, shared by the writers and the audit."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from processor.core.header_names import name_bytes

if TYPE_CHECKING:
    from mypy_extensions import i64  # a machine's integers where this is compiled; no product here needs more

DEFAULT_MAX_MESSAGE_BYTES: Final = 1_048_588
"""Kafka's own default of max.message.bytes."""
BATCH_OVERHEAD_BYTES: Final = 61
"""Size of the header of a batch of record format 2."""


class OutRecord(NamedTuple):
    """One record to write. Without a partition the key decides, as it does in the Java client."""

    topic: str
    partition: int | None
    key: bytes | None
    value: bytes | None
    timestamp: int
    headers: Sequence[tuple[str, bytes | None]]


def partition_of(key: bytes, partitions: int) -> int:
    """Partition of a key as the Java client chooses it."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions


def batch_bytes(record: OutRecord) -> int:
    """Size in bytes of a batch that holds this record alone, before compression.

    To the byte what the batch builder makes of it (tests/shell/test_output_records.py compares them).
    """
    body = 3  # attributes, timestamp delta and offset delta: the first record of a batch has all of them 0
    body += _sized(record.key) + _sized(record.value) + _varint_bytes(len(record.headers))
    for name, content in record.headers:
        body += _sized(name_bytes(name)) + _sized(content)
    return BATCH_OVERHEAD_BYTES + _varint_bytes(body) + body


def compression_growth_bytes(size_bytes: int) -> int:
    """Largest growth of a batch of so many bytes by a codec (measured: 25, and a byte in 3,000)."""
    return 64 + size_bytes // 1024


def _sized(content: bytes | None) -> int:
    return 1 if content is None else _varint_bytes(len(content)) + len(content)


def _varint_bytes(number: int) -> int:
    """Bytes of a number that is not negative, in zig-zag encoding: seven bits to the byte, one of them the sign's."""
    return max(1, (number.bit_length() + 7) // 7)


def murmur2(key: bytes) -> int:
    """The hash by which the Java client spreads keys over partitions (MurmurHash2, its seed, 32 bits)."""
    whole = len(key) & ~3
    h: i64 = 0x9747B28C ^ len(key)
    for (word,) in struct.iter_unpack("<I", key[:whole]):
        k: i64 = word
        k = k * 0x5BD1E995 & 0xFFFFFFFF
        h = (h * 0x5BD1E995 ^ (k ^ k >> 24) * 0x5BD1E995) & 0xFFFFFFFF
    if whole < len(key):
        rest: i64 = int.from_bytes(key[whole:], "little")
        h = (h ^ rest) * 0x5BD1E995 & 0xFFFFFFFF
    h = (h ^ h >> 13) * 0x5BD1E995 & 0xFFFFFFFF
    return h ^ h >> 15
