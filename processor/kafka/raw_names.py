# mypy: allow-subclassing-any, disable-error-code=has-type
"""Record batches with header names that are not UTF-8, which aiokafka's compiled code neither reads nor writes.

This path is slow and rare: it is used only for a batch that the compiled code has refused because of its names.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any, Final

from aiokafka import codec
from aiokafka.errors import CorruptRecordException
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.default_records import DefaultRecordMetadata
from aiokafka.record.util import calc_crc32c, decode_varint, encode_varint

from processor.core.effects import LogRecord, Record
from processor.core.header_names import name_bytes, name_text
from processor.core.raw_batch import RawBatch
from processor.kafka.aiokafka_compat import with_globals

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
_TRANSACTIONAL: Final = 0x10
_LENGTH_FROM: Final = 12
_CHECKSUM_AT: Final = 17
_CHECKED_FROM: Final = 21


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


class _Builder:
    """Batch builder with the methods of the library's builder. Never compresses."""

    def __init__(
        self,
        magic: int,
        compression_type: int,
        *,
        is_transactional: int,
        producer_id: int,
        producer_epoch: int,
        base_sequence: int,
        batch_size: int,
    ) -> None:
        assert magic == 2
        assert not compression_type
        self._attributes = _TRANSACTIONAL if is_transactional else 0
        self._producer = (producer_id, producer_epoch, base_sequence)
        self._limit = batch_size
        self._times: list[int] = []
        self._content = bytearray()

    def set_producer_state(self, producer_id: int, producer_epoch: int, base_sequence: int) -> None:
        self._producer = (producer_id, producer_epoch, base_sequence)

    def append(
        self,
        offset: int,
        timestamp: int,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes | None]],
    ) -> Any:
        """Metadata of the record, or None if it is not the first and the batch is full."""
        record = bytearray(1)  # no attributes
        encode_varint(timestamp - (self._times[0] if self._times else timestamp), record.append)
        encode_varint(offset, record.append)
        _put(record, key)
        _put(record, value)
        encode_varint(len(headers), record.append)
        for name, content in headers:
            _put(record, name_bytes(name))
            _put(record, content)
        framed = bytearray()
        encode_varint(len(record), framed.append)
        framed += record
        if self._times and self.size() + len(framed) > self._limit:
            return None
        self._times.append(timestamp)
        self._content += framed
        return DefaultRecordMetadata(offset, len(framed), timestamp)

    def size(self) -> int:
        return _HEAD.size + len(self._content)

    def build(self) -> bytearray:
        count, length = len(self._times), _HEAD.size + len(self._content) - _LENGTH_FROM
        first_ms, max_ms = self._times[0], max(self._times)
        head = (0, length, -1, 2, 0, self._attributes, count - 1, first_ms, max_ms, *self._producer, count)
        batch = bytearray(_HEAD.pack(*head)) + self._content
        struct.pack_into(">I", batch, _CHECKSUM_AT, calc_crc32c(bytes(batch[_CHECKED_FROM:])))
        return batch


def _put(record: bytearray, content: bytes | None) -> None:
    encode_varint(-1 if content is None else len(content), record.append)
    if content is not None:
        record += content


class RawNamesBatch(BatchBuilder):
    """A batch under construction that takes header names of any bytes."""

    __init__ = with_globals(BatchBuilder.__init__, DefaultRecordBatchBuilder=_Builder)
    _set_producer_state = with_globals(BatchBuilder._set_producer_state, DefaultRecordBatchBuilder=_Builder)
