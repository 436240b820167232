"""Unpacked sizes of a Parquet file, read from its footer and page headers before anything is unpacked.

A Parquet reader believes page headers: a few bytes can stand for gigabytes. And asking pyarrow for the metadata of
a column ends the whole process where its size statistics are damaged (26.0.1: an uncaught C++ exception). So
both are read here. They are Thrift structs in the compact protocol (parquet-format, "FileMetaData", "PageHeader").
"""

from __future__ import annotations

from typing import Annotated, Any, BinaryIO, Final

import msgspec

DICTIONARY: Final = 2
"""The page type of a dictionary."""

_STOP, _TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _STRUCT = 0, 1, 2, 3, 7, 8, 9, 10, 12
_INTEGERS: Final = {4, 5, 6}
_BYTE_ARRAY: Final = 6
_MOST_VALUES: Final = 1 << 21
_HEADER_BYTES: Final = 1 << 16
_LONGEST_HEADER: Final = 16 << 20
_DEPTH: Final = 8


_Count = Annotated[int, msgspec.Meta(ge=0)]


class Page(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One page: its type, its size packed and unpacked, and how many values (levels) it holds."""

    kind: int
    packed: _Count
    unpacked: _Count
    values: _Count


class Chunk(msgspec.Struct, frozen=True):
    """Extent of a column of a row group in the file: [begin, begin + size)."""

    path: str
    begin: int
    size: int
    is_bytes: bool


def row_groups(footer: bytes) -> list[tuple[int, list[Chunk]]]:
    """Rows and column chunks of each row group.

    Raises:
        ValueError: these bytes are no footer.
    """
    try:
        found = _Cursor(footer).struct(0).get(4, [])
        return [(_number(group[3]), [_chunk(column[3]) for column in group[1]]) for group in found]
    except (LookupError, TypeError, AttributeError) as exc:
        raise ValueError("the footer makes no sense") from exc


def _chunk(meta: dict[int, Any]) -> Chunk:
    starts = [_number(meta[field]) for field in (9, 11) if meta.get(field)]
    path = ".".join(part.decode("utf-8", "replace") for part in meta[3])
    return Chunk(path, min(starts, default=0), _number(meta[7]), meta[1] == _BYTE_ARRAY)


def _number(value: object) -> int:
    if not isinstance(value, int) or value < 0:
        raise TypeError
    return value


def pages(raw: BinaryIO, begin: int, size: int) -> list[Page]:
    """The pages of the column chunk that lies at [begin, begin + size).

    Raises:
        ValueError: these bytes are not a sequence of pages.
    """
    found: list[Page] = []
    at, end = begin, begin + size
    while at < end:
        page, length = _page(raw, at, end)
        at += length + page.packed
        if at > end:
            raise ValueError("a page reaches beyond its column")
        found.append(page)
    return found


def _page(raw: BinaryIO, at: int, end: int) -> tuple[Page, int]:
    """The page header at `at`, and its length."""
    for most in (_HEADER_BYTES, _LONGEST_HEADER):
        raw.seek(at)
        cursor = _Cursor(raw.read(min(most, end - at)))
        try:
            header = cursor.struct(0)
        except IndexError:
            continue
        counted = [part.get(1) for field in (5, 7, 8) if isinstance(part := header.get(field), dict)]
        try:
            page = msgspec.convert([header.get(1), header.get(3), header.get(2), *counted], Page)
        except msgspec.ValidationError as exc:
            raise ValueError("a page header makes no sense") from exc
        return page, cursor.at
    raise ValueError("a page header has no end")


class _Cursor:
    """Reader of Thrift's compact protocol, as far as Parquet needs it. IndexError: the bytes ended."""

    def __init__(self, data: bytes) -> None:
        self._data, self.at, self._left = data, 0, _MOST_VALUES

    def struct(self, depth: int) -> dict[int, Any]:
        """Fields by their number: integers, structs, lists and bytes; None for everything else."""
        if depth > _DEPTH:
            raise ValueError("a footer or page header is nested too deep")
        fields: dict[int, Any] = {}
        number = 0
        while (head := self._byte()) != _STOP:
            number = number + (head >> 4) if head >> 4 else self._integer()
            kind = head & 0x0F
            fields[number] = self._value(kind, depth) if kind not in {_TRUE, _FALSE} else None
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        self._left -= 1
        if self._left < 0:
            raise ValueError("a footer or page header with too many values")
        if kind in _INTEGERS:
            return self._integer()
        if kind == _STRUCT:
            return self.struct(depth + 1)
        if kind == _BINARY:
            size = self._unsigned()
            self._pass(size)
            return self._data[self.at - size : self.at]
        if kind in {_BYTE, _TRUE, _FALSE}:
            self._pass(1)
        elif kind == _DOUBLE:
            self._pass(8)
        elif kind in {_LIST, _SET}:
            head = self._byte()
            count = head >> 4 if head >> 4 != 15 else self._unsigned()
            return [self._value(head & 0x0F, depth + 1) for _ in range(count)]
        else:
            raise ValueError("a footer or page header holds what none holds")
        return None

    def _byte(self) -> int:
        self.at += 1
        return self._data[self.at - 1]

    def _pass(self, count: int) -> None:
        self.at += count
        if self.at > len(self._data):
            raise IndexError

    def _unsigned(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise ValueError("a number in a footer or page header has no end")

    def _integer(self) -> int:
        value = self._unsigned()
        return (value >> 1) ^ -(value & 1)
