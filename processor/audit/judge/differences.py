"""Compare a published record with the expected one, field by field, and find the record that was meant as it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from processor.audit.judge.published_headers import number_in
from processor.audit.judge.verdicts import Difference, ExpectedRecord, FindingKind, Published
from processor.core.effects import Headers, Reason
from processor.core.header_names import shown
from processor.core.headers import FIRST_OFFSET, LAST_OFFSET


def is_equal(expected: ExpectedRecord, got: Published) -> bool:
    """Whether every byte agrees."""
    return (
        expected.value == got.value
        and expected.key == got.key
        and expected.timestamp == got.timestamp
        and expected.topic == got.topic
        and expected.partition in (None, got.partition)
        and tuple(expected.headers) == got.headers
    )


def differences(expected: ExpectedRecord, got: Published) -> list[Difference]:
    """Field by field; empty where every byte agrees."""
    if is_equal(expected, got):
        return []
    found: list[Difference] = []
    for name in ("topic", "partition", "key", "timestamp"):
        left, right = getattr(expected, name), getattr(got, name)
        if left != right and not (name == "partition" and left is None):
            found.append(Difference(name, _short(left), _short(right)))
    found += _header_differences(expected.headers, got.headers)
    if expected.value != got.value:
        found += _value_differences(expected.value, got.value)
    return found


def _header_differences(expected: Headers, got: Headers) -> Iterator[Difference]:
    left, right = dict(expected), dict(got)
    for name in sorted(left.keys() | right.keys()):
        if name not in left or name not in right or left[name] != right[name]:
            yield Difference(
                f"header {shown(name)}", _short(left.get(name, "absent")), _short(right.get(name, "absent"))
            )
    if left == right and tuple(expected) != tuple(got):
        yield Difference("headers", "in this order", "in another order, or repeated")


def _value_differences(expected: bytes | None, got: bytes | None) -> list[Difference]:
    try:
        left, right = msgspec.json.decode(expected or b""), msgspec.json.decode(got or b"")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return [Difference("value", _short(expected), _short(got))]
    found = list(_json_differences("value", left, right))
    return found or [Difference("value", "canonical bytes", "the same JSON in other bytes")]


def _json_differences(path: str, left: Any, right: Any) -> Iterator[Difference]:
    if isinstance(left, dict) and isinstance(right, dict):
        for key in sorted(left.keys() | right.keys()):
            if key not in left or key not in right:
                yield Difference(f"{path}.{key}", _short(left.get(key, "absent")), _short(right.get(key, "absent")))
            else:
                yield from _json_differences(f"{path}.{key}", left[key], right[key])
    elif isinstance(left, list) and isinstance(right, list) and len(left) == len(right):
        for at, (one, other) in enumerate(zip(left, right, strict=True)):
            yield from _json_differences(f"{path}[{at}]", one, other)
    elif left != right or type(left) is not type(right):
        yield Difference(path, _short(left), _short(right))


def _short(value: object, limit: int = 120) -> str:
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text)} characters)"


def nearest(
    candidates: list[Published], expected: ExpectedRecord, kind: FindingKind, first: int, last: int
) -> Published | None:
    """The published record meant as the implied one: an id may have two incarnations, each with revisions from 0 on."""
    if kind is FindingKind.DEAD_LETTER:
        # A record is refused once for a reason; of the snapshots that are too large it may have ended several, and a
        # deadline or a run's end may have met a bug in several steps.
        several = any(c.identity[1] in (Reason.SNAPSHOT_TOO_LARGE, Reason.INTERNAL_ERROR) for c in candidates)
        return next((c for c in candidates if not several or c.key == expected.key), None)
    for published in candidates:
        headers = dict(published.headers)
        named = number_in(headers.get(FIRST_OFFSET)), number_in(headers.get(LAST_OFFSET))
        if named[0] == first or named[1] == last:
            return published
    return None
