"""Records on the output topics that an audit reads and does not judge, counted by what they claim. Pure."""

from __future__ import annotations

from bisect import insort
from collections import Counter
from collections.abc import Iterable
from typing import Final

import msgspec

from processor.audit.judge.verdicts import RecordLocation

PLACES: Final = 10
"""Number of records listed by location for each claim, the first in the order of topic, partition and offset."""

CLAIMS: Final = 100
"""Number of claims counted one by one, since anybody may have written them; the rest is one number."""


class Claims(msgspec.Struct, frozen=True):
    """Records by what they claim: the first claims in the order of their texts, and how many claim anything else.

    Attributes:
        first: of each claim the first `PLACES` records: topic, partition, offset.
    """

    named: dict[str, int] = {}
    others: int = 0
    first: dict[str, list[RecordLocation]] = {}

    def total(self) -> int:
        return sum(self.named.values()) + self.others


class NotJudged(msgspec.Struct, frozen=True, kw_only=True):
    """Records of the output that belong to no range of the audit.

    Attributes:
        sources: by the source topic that they name, which is another one.
        partitions: by the partition of this source that they name, which was not audited.
    """

    sources: Claims = Claims()
    partitions: Claims = Claims()


class ClaimCounter:
    """Count claims in memory that does not grow with them.

    Kept are the `CLAIMS` smallest texts. A text that was dropped is larger than all that are kept from then on, so the
    numbers do not depend on the order of the records, nor on how the reading was shared out.
    """

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._first: dict[str, list[RecordLocation]] = {}
        self._others = 0
        self._largest: str | None = None
        """The smallest dropped text: texts above it are no longer kept."""

    def add(self, claim: str, number: int = 1, places: Iterable[RecordLocation] = ()) -> None:
        if self._largest is not None and claim > self._largest:
            self._others += number
            return
        self._counts[claim] += number
        first = self._first.setdefault(claim, [])
        for place in places:
            if len(first) < PLACES or place < first[-1]:
                insort(first, place)
                del first[PLACES:]
        if len(self._counts) > 2 * CLAIMS:
            self._trim()

    def merge(self, claims: Claims) -> None:
        for claim, number in claims.named.items():
            self.add(claim, number, claims.first.get(claim, ()))
        self._others += claims.others

    def _trim(self) -> None:
        kept = sorted(self._counts)[:CLAIMS]
        self._others += self._counts.total()
        self._counts = Counter({claim: self._counts[claim] for claim in kept})
        self._first = {claim: self._first[claim] for claim in kept}
        self._others -= self._counts.total()
        self._largest = kept[-1]

    def claims(self) -> Claims:
        if len(self._counts) > CLAIMS:
            self._trim()
        first = {claim: places for claim, places in sorted(self._first.items()) if places}
        return Claims(dict(sorted(self._counts.items())), self._others, first)


def merged(parts: Iterable[Claims]) -> Claims:
    """Sum of several readings."""
    counter = ClaimCounter()
    for part in parts:
        counter.merge(part)
    return counter.claims()
