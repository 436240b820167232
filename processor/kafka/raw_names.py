"""Reading of record batches with header names that are not UTF-8, which aiokafka's compiled code refuses.

`read_batch` is slow and rare: it is used only for a batch that the compiled code has refused because of its names.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from aiokafka import codec
from aiokafka.errors import CorruptRecordException
from aiokafka.record.util import decode_varint

from processor.core.effects import LogRecord, Record
from processor.core.header_names import name_text
from processor.core.raw_batch import RawBatch

_HEAD: Final = struct.Struct(">qiibIhiqqqhii")
"""Header of a batch of format 2, up to its first record."""
_CODECS: Final[dict[int, Callable[[bytes], bytes]]] = {
    0: bytes,
    1: codec.gzip_decode,
    2: codec.snappy_decode,
    3: codec.lz4_decode,
    4: codec.zstd_decode,
}
_CODEC_MASK: Final = 0x07
_LOG_APPEND_TIME: Final = 0x08


def raw_batch_of(content: bytes, begin: int, end: int, broken: Callable[[str], Exception]) -> RawBatch:
    """The whole batch of format 2 that stands there, its checksum checked before; `broken` as for `RawBatch`.

    Raises:
        LookupError: an unknown codec; and what a decoder raises.
    """
    base, _, _, _, _, attributes, _, first_ms, max_ms, _, _, _, count = _HEAD.unpack_from(content, begin)
    begin += _HEAD.size
    codec_number = attributes & _CODEC_MASK
    if codec_number:
        content = _CODECS[codec_number](content[begin:end])
        begin, end = 0, len(content)
    append_ms = max_ms if attributes & _LOG_APPEND_TIME else None
    return RawBatch(bytes(content), begin, end, count, base, first_ms, append_ms, broken)


def read_batch(batch: bytes) -> list[Record]:
    """Records of a whole batch of format 2, its checksum checked before.

    Raises:
        CorruptRecordException: the batch does not hold what its lengths say.
        LookupError: an unknown codec; and what a decoder raises.
    """
    base, _, _, _, _, attributes, _, first_ms, max_ms, _, _, _, count = _HEAD.unpack_from(batch)
    content = bytearray(_CODECS[attributes & _CODEC_MASK](batch[_HEAD.size :]))
    found: list[Record] = []
    at = 0
    for _ in range(count):
        length, at = decode_varint(content, at)
        end = at + length
        delta_ms, at = decode_varint(content, at + 1)  # behind the attributes
        delta, at = decode_varint(content, at)
        key, at = _take(content, at)
        value, at = _take(content, at)
        number, at = decode_varint(content, at)
        headers = []
        for _ in range(number):
            name, at = _take(content, at)
            held, at = _take(content, at)
            if name is None:
                raise CorruptRecordException("a header without a name")
            headers.append((name_text(name), held))
        if at != end or number < 0:
            raise CorruptRecordException(f"a record of {length} bytes does not hold what its lengths say")
        timestamp = max_ms if attributes & _LOG_APPEND_TIME else first_ms + delta_ms
        found.append(LogRecord(base + delta, timestamp, key, value, tuple(headers)))
    if at != len(content):
        raise CorruptRecordException("bytes behind the last record of a batch")
    return found


def _take(content: bytearray, at: int) -> tuple[bytes | None, int]:
    length, at = decode_varint(content, at)
    if length < 0:
        return None, at
    if at + length > len(content):
        raise CorruptRecordException("a record goes on behind its batch")
    return bytes(content[at : at + length]), at + length
