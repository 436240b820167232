"""Columns of decoded lines: what the lines of a piece hold, field by field. A module of its own, to be compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from msgspec.structs import astuple

from processor.archives.header_texts import as_bytes
from processor.core.effects import Headers
from processor.core.record_columns import RecordColumns

_astuple: Final = astuple
_NO_HEADERS: Final[Headers] = ()


def columns_of(
    lines: list[Any],
    topic: str,
    partition: int,
    times: tuple[int, int],
    most_headers: int,
    other_bytes: Callable[[Any], bytes | None],
    other_headers: Callable[[list[Any]], Headers],
) -> RecordColumns | None:
    """Lines that hold records of one partition, with one offset after the other; None where they are anything else.

    Args:
        lines: structures with topic, partition, offset, timestamp, key, value and headers, in this order.
        times: the first and the last timestamp there may be, in milliseconds.
        other_bytes, other_headers: read a key, value or headers that are not texts alone, or are too many.
    """
    least, most = times
    first_told: tuple[Any, ...] = _astuple(lines[0])
    first: int = first_told[2]
    offset = first
    timestamps: list[int] = []
    keys: list[bytes | None] = []
    values: list[bytes | None] = []
    headers: list[Headers] = []
    has_headers = False
    for line in lines:
        told: tuple[Any, ...] = _astuple(line)
        own_topic: str = told[0]
        own_partition: int = told[1]
        own_offset: int = told[2]
        timestamp: int = told[3]
        if own_offset != offset or own_partition != partition or own_topic != topic:
            return None
        if timestamp < least or timestamp > most:
            return None
        offset += 1
        timestamps.append(timestamp)
        key: object = told[4]
        keys.append(key.encode() if isinstance(key, str) else None if key is None else other_bytes(key))
        value: object = told[5]
        values.append(value.encode() if isinstance(value, str) else None if value is None else other_bytes(value))
        own: list[Any] = told[6]
        if len(own) == 0:
            headers.append(_NO_HEADERS)
            continue
        has_headers = True
        texts = as_bytes(own) if len(own) <= most_headers else None
        headers.append(other_headers(own) if texts is None else texts)
    return RecordColumns(first, timestamps, keys, values, headers if has_headers else None)
