"""Scan JSON in place, as bytes: find where its strings and decimal numbers end, and how deep it nests.

Compiled, short ones are walked byte by byte, which costs less than one call of a C function.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mypy_extensions import i64  # for the compiler alone

MAX_NESTING: Final = 500
"""Most levels of a text that is decoded at all. The decoder's own limit depends on its caller's stack and on the build
of Python, and no outcome may."""
_MAX_DIGITS: Final = 16
_IS_COMPILED: Final = not __file__.endswith(".py")
_MOST_DIGITS: Final = 15
"""Of numbers that all readers of JSON agree about."""
_ALPHANUMERIC: Final = re.compile(rb"[A-Za-z0-9]*")
_NESTING: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)|[\[{]+|[\]}]+', re.DOTALL)
"""A string, of which the last may have no end, or brackets that open or close one behind the other."""


def number_end(value: bytes, at: i64, size: i64, number: i64) -> i64:
    """Find the end of the digits at `at`, if they are `number` as JSON writes it; else -1."""
    if not _IS_COMPILED:
        return _number_end(value, at, size, number)
    begin: i64 = at
    found: i64 = 0
    while at < size:
        digit: i64 = value[at]
        digit -= 0x30
        if digit < 0 or digit > 9:
            break
        found = found * 10 + digit
        at += 1
    if found != number or at == begin or at > begin + _MAX_DIGITS:
        return -1
    return at if value[begin] != 0x30 or at == begin + 1 else -1


def _number_end(value: bytes, at: int, size: int, number: int) -> int:
    """The same by functions that are written in C."""
    digits = b"%d" % number
    end = at + len(digits)
    if number < 0 or not value.startswith(digits, at, size) or len(digits) > _MAX_DIGITS:
        return -1
    return -1 if end < size and 0x30 <= value[end] <= 0x39 else end


def alphanumeric_end(value: bytes, at: i64, size: i64) -> i64:
    """Find the end of the ASCII letters and digits at `at`; `at` itself where there is none."""
    if not _IS_COMPILED:
        found = _ALPHANUMERIC.match(value, at, size)
        return at if found is None else found.end()
    while at < size:
        code: i64 = value[at]
        if code > 0x39:
            code |= 0x20
            if code < 0x61 or code > 0x7A:
                return at
        elif code < 0x30:
            return at
        at += 1
    return at


def text_end(value: bytes, at: i64, end: i64) -> i64:
    """Find the quote that closes the JSON string that begins at `at`; -1 if none. What it holds is not checked."""
    if not _IS_COMPILED:
        found = value.find(b'"', at, end)
        if found < 0 or value.find(b"\\", at, found) < 0:
            return found
    while at < end:
        code: i64 = value[at]
        if code == 0x22:
            return at
        at += 2 if code == 0x5C else 1
    return -1


def plain_end(value: bytes, at: i64, end: i64) -> i64:
    """Find the quote that closes a string of printable ASCII without escapes; -1 if the string is another."""
    while at < end:
        code: i64 = value[at]
        if code > 0x5C:  # as most of them, in an order that asks little of these
            if code > 0x7E:
                return -1
        elif code < 0x23:
            if code == 0x22:
                return at
            if code < 0x20:
                return -1
        elif code == 0x5C:
            return -1
        at += 1
    return -1


def digits_end(value: bytes, at: i64, end: i64) -> i64:
    """Find the end of an integer above 0 of at most 15 digits at `at`; -1 if there is none."""
    begin: i64 = at
    while at < end:
        code: i64 = value[at]
        if code < 0x30 or code > 0x39:
            break
        at += 1
    if at == begin or at > begin + _MOST_DIGITS or value[begin] == 0x30:
        return -1
    return at


def nests_deeper(value: bytes, levels: int) -> bool:
    """Whether objects and lists nest more than `levels` deep, as far as the text can be read."""
    if len(value) <= levels or value.count(b"{") + value.count(b"[") <= levels:  # as nearly all
        return False
    if not _IS_COMPILED:
        return _nests_deeper(value, levels)
    size: i64 = len(value)
    most: i64 = levels
    depth: i64 = 0
    at: i64 = 0
    while at < size:
        code: i64 = value[at]
        if code == 0x22:
            at = text_end(value, at + 1, size)
            if at < 0:
                return False
        elif code == 0x5B or code == 0x7B:
            depth += 1
            if depth > most:
                return True
        elif code == 0x5D or code == 0x7D:
            depth -= 1
        at += 1
    return False


def _nests_deeper(value: bytes, levels: int) -> bool:
    """`nests_deeper` by a regular expression. Nothing is copied: a value of many MiB may be one row of brackets."""
    depth = 0
    for found in _NESTING.finditer(value):
        begin, end = found.span()
        code = value[begin]
        if code in b"[{":
            depth += end - begin
            if depth > levels:
                return True
        elif code != 0x22:
            depth -= end - begin
    return False
