"""Record batches of format 2 under construction, with the bytes that the client's own builder would give them.

The client's builder is called by keyword for each record, measures each header twice and grows its buffer again and
again. Here a batch is a list of the pieces that its records have anyway, joined when it is sent. And header names may
be of any bytes (`core.header_names`), which the client's refuses.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from processor.core.header_names import name_bytes
from processor.core.step_headers import StepHeaders
from processor.core.varint import varint
from processor.kafka.checksum import crc32c

if TYPE_CHECKING:
    from mypy_extensions import i64  # for the compiler alone

_HEAD: Final = struct.Struct(">qiibI")
"""Base offset, length, partition leader epoch, format, checksum. All that follows is under the checksum."""
_CHECKED: Final = struct.Struct(">hiqqqhii")
"""Attributes, last offset delta, first and largest timestamp, producer id and epoch, first sequence, count."""
_LENGTH_FROM: Final = 12
_NO_EPOCH: Final = -1
_FORMAT: Final = 2
_TRANSACTIONAL: Final = 0x10
_MAX_NAMES: Final = 256
"""Dead letters have the header names of their records, of which there may be any number."""


_VARINTS: Final = [varint(number) for number in range(4096)]
_SHORT: Final = len(_VARINTS)
_NULL: Final = varint(-1)
_names: Final[dict[str, bytes]] = {}
"""Header names as they are written, their length in front."""


def _sized(size: i64) -> bytes:
    return _VARINTS[size] if size < _SHORT else varint(size)


def _written_name(name: str) -> bytes:
    content = name_bytes(name)
    written = varint(len(content)) + content
    if len(_names) < _MAX_NAMES:
        _names[name] = written
    return written


class BatchBuilder:
    """A batch of records of one partition.

    Args:
        max_bytes: the batch takes no further record that would make it larger than this, before compression. The first
            may be of any size.
        codec: Kafka's number of the codec by which it is compressed. 0: none.
        compress: compresses, if there is a codec.
    """

    def __init__(
        self,
        max_bytes: int,
        codec: int = 0,
        compress: Callable[[bytes], bytes] | None = None,
        *,
        is_transactional: bool,
    ) -> None:
        self._max_bytes: i64 = max_bytes
        self._codec, self._compress, self._is_transactional = codec, compress, is_transactional
        self._first_ms = self._latest_ms = 0
        self._pieces: list[bytes] = []
        self.bytes: i64 = _HEAD.size + _CHECKED.size
        """Size before compression."""
        self.count: i64 = 0
        """Number of records."""
        self.largest: i64 = 0
        """Size of the largest record in bytes."""

    def append(
        self, timestamp: int, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes | None]]
    ) -> int:
        """Add a record. Returns its size in bytes; 0: the batch is full."""
        pieces = self._pieces
        at = len(pieces)
        is_first = self.count == 0
        delta_ms = 0 if is_first else timestamp - self._first_ms
        written_ms = _VARINTS[delta_ms] if 0 <= delta_ms < _SHORT else varint(delta_ms)
        place = _sized(self.count)
        size: i64 = 1 + len(written_ms) + len(place)
        pieces.append(b"")  # the length, which is not known yet
        pieces.append(b"\0" + written_ms + place)  # without attributes
        if key is None:
            pieces.append(_NULL)
            size += 1
        else:
            length = _sized(len(key))
            pieces.append(length)
            pieces.append(key)
            size += len(length) + len(key)
        if value is None:
            pieces.append(_NULL)
            size += 1
        else:
            length = _sized(len(value))
            pieces.append(length)
            pieces.append(value)
            size += len(length) + len(value)
        if isinstance(headers, StepHeaders):
            written = headers.written()
            pieces.append(written)
            size += len(written)
            headers = ()
        else:
            length = _sized(len(headers))
            pieces.append(length)
            size += len(length)
        for name, content in headers:
            known = _names.get(name)
            if known is None:
                known = _written_name(name)
            pieces.append(known)
            size += len(known)
            if content is None:
                pieces.append(_NULL)
                size += 1
            else:
                length = _sized(len(content))
                pieces.append(length)
                pieces.append(content)
                size += len(length) + len(content)
        length = _sized(size)
        size += len(length)
        if not is_first and self.bytes + size > self._max_bytes:
            del pieces[at:]
            return 0
        pieces[at] = length
        if is_first:
            self._first_ms = self._latest_ms = timestamp
        elif timestamp > self._latest_ms:
            self._latest_ms = timestamp
        self.bytes += size
        self.count += 1
        self.largest = max(self.largest, size)
        return size

    def build(self, producer_id: int, epoch: int, sequence: int) -> bytes:
        """The bytes of the batch, written by this producer. What compression does not make smaller is as it is."""
        records = b"".join(self._pieces)
        codec, compress = self._codec, self._compress
        if codec and compress is not None:
            compressed = compress(records)
            if len(compressed) < len(records):
                records = compressed
            else:
                codec = 0
        attributes = codec | _TRANSACTIONAL if self._is_transactional else codec
        count = self.count
        checked = b"".join(
            (
                _CHECKED.pack(
                    attributes, count - 1, self._first_ms, self._latest_ms, producer_id, epoch, sequence, count
                ),
                records,
            )
        )
        length = _HEAD.size - _LENGTH_FROM + len(checked)
        return b"".join((_HEAD.pack(0, length, _NO_EPOCH, _FORMAT, crc32c(checked)), checked))
