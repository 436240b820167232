"""Note which fold versions and [steps] settings made the published steps of a range, from the records themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from processor.audit.judge.range_result import InForce
from processor.audit.judge.regimes import Regime, regime_of

_MOST: Final = 100
"""Maximum regimes that are distinguished, the first in the log: any producer of the outcome topics can write more."""


class RegimeHistory:
    """Fold version and settings of published steps, with the offsets that caused them."""

    def __init__(self) -> None:
        self._spans: dict[Regime, tuple[int, int, int]] = {}

    def note(self, headers: Mapping[str, bytes | None], cause: int) -> None:
        """A published step with these headers, caused at this offset of the source."""
        regime = regime_of(headers)
        if regime is None:
            return
        span = self._spans.get(regime)
        if span is None:
            if len(self._spans) < _MOST:
                self._spans[regime] = (1, cause, cause)
            return
        records, first, last = span
        self._spans[regime] = (records + 1, min(first, cause), max(last, cause))

    def in_force(self) -> tuple[InForce, ...]:
        """The noted regimes, in the order of the first cause."""
        rows = [
            InForce(regime.version, regime.rules, records, first, last)
            for regime, (records, first, last) in self._spans.items()
        ]
        return tuple(sorted(rows, key=lambda row: (row.first_cause, row.fold_version, row.rules)))
