"""Note which fold versions and rules made the published steps of a range, from the records themselves."""

from __future__ import annotations

from typing import Final

from processor.audit.judge.published_headers import RULES_AT, VERSION_AT, own_header
from processor.audit.judge.range_result import InForce
from processor.audit.judge.regimes import Regime, regime_of
from processor.core.effects import Headers
from processor.core.headers import RULES, VERSION

_MOST: Final = 100
"""Maximum regimes that are distinguished, the first in the log: any producer of the outcome topics can write more."""


class _Span:
    """Number of the steps of one regime, and the first and the last offset that caused one."""

    __slots__ = ("first", "last", "records")

    def __init__(self, cause: int) -> None:
        self.records, self.first, self.last = 0, cause, cause

    def add(self, cause: int) -> None:
        self.records += 1
        if cause > self.last:
            self.last = cause
        elif cause < self.first:
            self.first = cause


class RegimeHistory:
    """Fold version and settings of published steps, with the offsets that caused them."""

    def __init__(self) -> None:
        self._spans: dict[Regime, _Span] = {}
        self._by_header: dict[tuple[bytes | None, bytes | None], _Span] = {}
        """The same spans by the two headers as they stand: nearly all steps of a range have the same."""

    def note(self, headers: Headers, cause: int) -> None:
        """Note a published step by its headers and by the source offset that caused it."""
        named = dict(headers)
        self._note(named.get(VERSION), named.get(RULES), cause)

    def note_own(self, headers: Headers, cause: int) -> None:
        """Note a step that our own fold has made: `note`, but faster, as its headers have known places."""
        self._note(own_header(headers, VERSION_AT, VERSION), own_header(headers, RULES_AT, RULES), cause)

    def _note(self, version: bytes | None, rules: bytes | None, cause: int) -> None:
        as_written = version, rules
        span = self._by_header.get(as_written)
        if span is None:
            regime = regime_of({VERSION: version, RULES: rules})
            if regime is None:
                return
            span = self._spans.get(regime)
            if span is None:
                if len(self._spans) >= _MOST:
                    return
                span = self._spans[regime] = _Span(cause)
            if len(self._by_header) < _MOST:
                self._by_header[as_written] = span
        span.add(cause)

    def in_force(self) -> tuple[InForce, ...]:
        """The noted regimes, in the order of the first cause."""
        rows = [
            InForce(regime.version, regime.rules, span.records, span.first, span.last)
            for regime, span in self._spans.items()
        ]
        return tuple(sorted(rows, key=lambda row: (row.first_cause, row.fold_version, row.rules)))
