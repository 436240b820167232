"""Records as columns, cut where an offset is left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from processor.core.effects import Headers, LogRecord
from processor.core.record_columns import RecordColumns


def columns_of(records: Sequence[LogRecord]) -> Iterator[RecordColumns]:
    begin = 0
    for at in range(1, len(records) + 1):
        if at == len(records) or records[at].offset != records[at - 1].offset + 1:
            piece = records[begin:at]
            headers: list[Headers] = [list(one.headers) if at % 2 else one.headers for one in piece]
            yield RecordColumns(
                piece[0].offset,
                [one.timestamp for one in piece],
                [one.key for one in piece],
                [one.value for one in piece],
                headers if any(headers) else None,
            )
            begin = at
