"""In-memory index of published records, for the audits of a few records: `explain` and the worker's self-audit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from processor.audit.judge.differences import is_equal
from processor.audit.judge.published_headers import caused_at, mark_of
from processor.audit.judge.verdicts import (
    NEVER,
    ExpectedRecord,
    FindingKind,
    Published,
    RecordLocation,
    Unreadable,
    location_of,
)
from processor.core.effects import Reason
from processor.core.headers import RULES, VERSION


class MemoryIndex:
    """In-memory index of one source partition; satisfies `PublishedIndex`. Empty where nothing is to be compared.

    Args:
        published: the records, each from another location.
        marks: clock marks that are known beside those that the records name.
        kept_from: output partitions whose first records are gone -> the first cause that is named there, in records
            that need not be of this index.
    """

    def __init__(
        self,
        published: Iterable[Published] = (),
        marks: Iterable[tuple[int, int]] = (),
        kept_from: Mapping[tuple[str, int], int] | None = None,
    ) -> None:
        self._records = {location_of(one): one for one in sorted(published, key=location_of)}
        self._by_identity: dict[tuple[FindingKind, tuple[str, str]], list[RecordLocation]] = {}
        for location, one in self._records.items():
            self._by_identity.setdefault((one.kind, one.identity), []).append(location)
        named = (mark_of(one) for one in self._records.values())
        self._marks = sorted({*marks, *(mark for mark in named if mark is not None)})
        self._taken: set[RecordLocation] = set()
        self._kept_from = kept_from or {}
        self.count = len(self._records)
        self.holds_dead_letters = any(one.kind is FindingKind.DEAD_LETTER for one in self._records.values())
        self.last: dict[RecordLocation, Published] = {}

    def look(self, kind: FindingKind, identity: tuple[str, str]) -> list[Published]:
        there = [at for at in self._by_identity.get((kind, identity), ()) if at not in self._taken]
        self.last = {at: self._records[at] for at in there}
        return list(self.last.values())

    def all_of(self, kind: FindingKind, identity: tuple[str, str]) -> list[Published]:
        return [self._records[at] for at in self._by_identity.get((kind, identity), ())]

    def take(self, published: Published) -> None:
        at = location_of(published)
        assert at in self._records, "a record of this index"
        self._taken.add(at)

    def take_equal(
        self, kind: FindingKind, identity: tuple[str, str], expected: ExpectedRecord
    ) -> RecordLocation | None:
        there = self.look(kind, identity)
        if len(there) != 1 or not is_equal(expected, there[0]):
            return None
        self.take(there[0])
        return location_of(there[0])

    def left(self) -> Iterator[Published]:
        for at, published in self._records.items():
            if at not in self._taken:
                self.last = {at: published}
                yield published

    def marks(self) -> list[tuple[int, int]]:
        return self._marks

    def all(self) -> Iterator[Published]:
        return iter(self._records.values())

    def regimes(self) -> set[tuple[bytes | None, bytes | None]]:
        named = (dict(one.headers) for one in self._records.values())
        return {(headers.get(VERSION), headers.get(RULES)) for headers in named}

    def first_refusal_from(self, offset: int) -> int | None:
        causes = (caused_at(one) for one in self._records.values() if _is_refusal(one))
        return min((cause for cause in causes if cause is not None and cause >= offset), default=None)

    def strays(self) -> Iterator[tuple[FindingKind, Unreadable]]:
        return iter(())  # a record of no partition is not given to an index of one

    def kept_from(self, shortened: Iterable[tuple[str, int]]) -> dict[tuple[str, int], int]:
        return {place: self._kept_from.get(place, NEVER) for place in sorted(shortened)}


def _is_refusal(published: Published) -> bool:
    reason = published.identity[1]
    return published.kind is FindingKind.DEAD_LETTER and reason.startswith(Reason.TOO_MANY_OPEN_STEPS.value)
