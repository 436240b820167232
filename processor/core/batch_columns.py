"""Columns of fetched batches: what a replay reads from a topic is not made an object for each record.

Both the digests and the fold look at each record; as columns it is read from its batch once
(docs/decisions/0045).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from processor.core.effects import Headers, Record
from processor.core.raw_batch import RawBatch
from processor.core.record_columns import RecordColumns

_NO_HEADERS: Final[Headers] = ()


class _Segment:
    """Records with one offset after the other."""

    def __init__(self, first: int) -> None:
        self._first = self.behind = first
        self._timestamps: list[int] = []
        self._keys: list[bytes | None] = []
        self._values: list[bytes | None] = []
        self._headers: list[Headers] = []
        self._has_headers = False

    def add(self, timestamp: int, key: bytes | None, value: bytes | None, headers: Headers) -> None:
        self.behind += 1
        self._timestamps.append(timestamp)
        self._keys.append(key)
        self._values.append(value)
        if len(headers) > 0:
            self._has_headers = True
            self._headers.append(headers)
        else:
            self._headers.append(_NO_HEADERS)

    def columns(self) -> RecordColumns:
        headers = self._headers if self._has_headers else None
        return RecordColumns(self._first, self._timestamps, self._keys, self._values, headers)


def columns_of(batches: Iterable[RawBatch | list[Record]]) -> list[RecordColumns]:
    """The records of batches as columns, one for each segment of offsets without a hole, in offset order.

    Raises:
        Exception: what iterating over the batches raises.
    """
    found: list[_Segment] = []
    segment = _Segment(-1)
    for batch in batches:
        if isinstance(batch, RawBatch):
            for shown in batch:  # compiled, its fields are read directly
                if shown.offset != segment.behind:
                    segment = _Segment(shown.offset)
                    found.append(segment)
                segment.add(shown.timestamp, shown.key, shown.value, shown.headers)
            continue
        for record in batch:
            if record.offset != segment.behind:
                segment = _Segment(record.offset)
                found.append(segment)
            segment.add(record.timestamp, record.key, record.value, record.headers)
    return [each.columns() for each in found]
