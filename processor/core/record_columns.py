"""Records as columns: what is read many at a time is not made an object for each record.

Looking up five fields of an object by name, once for the digests and once for the fold, costs more than a list's
items, and most records are never asked for as a whole (docs/decisions/0042).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from processor.core.effects import Headers, LogRecord, Record
from processor.core.event_headers import plain_id
from processor.core.shown_record import ShownRecord

if TYPE_CHECKING:
    from mypy_extensions import i64  # for the compiler alone


class RecordColumns(ShownRecord):
    """One or more records of a partition, with one offset after the other.

    Args:
        first: offset of the first one.
        timestamps, keys, values, headers: of each, in this order; no headers at all where none of them has any.
    """

    def __init__(
        self,
        first: int,
        timestamps: list[int],
        keys: list[bytes | None],
        values: list[bytes | None],
        headers: list[Headers] | None,
    ) -> None:
        super().__init__()
        assert len(timestamps) == len(keys) == len(values) > 0
        assert headers is None or len(headers) == len(timestamps)
        self._first: i64 = first
        self._count: i64 = len(timestamps)
        self.timestamps, self.keys, self.values, self.all_headers = timestamps, keys, values, headers
        self._next: i64 = 0
        self._headers: Headers = ()

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, at: int) -> LogRecord:
        """One record, counted from the end where `at` is below 0."""
        if at < 0:
            at += len(self.timestamps)
        headers = () if self.all_headers is None else tuple(self.all_headers[at])
        return LogRecord(self._first + at, self.timestamps[at], self.keys[at], self.values[at], headers)

    def records(self) -> list[Record]:
        """Each as an object."""
        return [self[at] for at in range(len(self.timestamps))]

    def __iter__(self) -> RecordColumns:
        self._next = 0
        return self

    def __next__(self) -> RecordColumns:
        at = self._next
        if at >= self._count:
            raise StopIteration
        self._next = at + 1
        self.offset = self._first + at
        self.timestamp = self.timestamps[at]
        self.value = self.values[at]
        if self.all_headers is not None:
            headers = self.all_headers[at]
            self._headers = headers
            self.may_trace = len(headers) > 0
            self.is_plain = not self.may_trace
        return self

    @property
    def key(self) -> bytes | None:
        return self.keys[self._next - 1]

    @property
    def headers(self) -> Headers:
        return self._headers

    def event_id(self) -> bytes | None:
        return None if self.is_plain else plain_id(self._headers)

    def run_id(self) -> bytes | None:
        return None

    def record(self) -> LogRecord:
        return self[self._next - 1]
