"""A record to be written, and the partition it belongs to. Known to those who write and to those who check them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from mypy_extensions import i64  # a machine's integers where this is compiled; no product here needs more


class OutRecord(NamedTuple):
    """One record to write. Without a partition the key decides, as it does in the Java client."""

    topic: str
    partition: int | None
    key: bytes | None
    value: bytes | None
    timestamp: int
    headers: Sequence[tuple[str, bytes | None]]


def partition_of(key: bytes, partitions: int) -> int:
    """Where the Java client puts a key."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions


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
