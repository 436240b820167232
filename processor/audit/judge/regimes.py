"""Which fold versions and rules made the published records of a partition, and which may stand. Pure.

A record names both. What this program cannot fold again, as it has another fold or does not know the settings, is
not provable, if it may stand; else it is extra: anybody could write such a name on a forged record. May stand:

- what the auditor names (`Accepted`);
- earlier fold versions of this program, if the auditor names none;
- if the auditor names none, settings that were changed at rest, and later fold versions: all of their records were
  caused before the first record of this fold under the audited settings, or all of them behind the last one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

import msgspec

from processor.audit.judge.published_headers import mark_of, offsets_of
from processor.audit.judge.verdicts import NEVER, FindingKind, Published, PublishedIndex
from processor.core.effects import FOLD_VERSION
from processor.core.headers import RULES, VERSION
from processor.core.rules import Rules

EARLIER_FOLDS: Final = frozenset(range(1, FOLD_VERSION))
"""The fold versions that this program had before."""

_MOST: Final = 1_000
"""Maximum regimes that are distinguished, since anybody may have written them; further ones may not stand."""
_NOTHING: Final = -1


class Accepted(msgspec.Struct, frozen=True):
    """Foreign fold versions and digests of settings that may stand in published records, as not provable.

    None where the auditor names none: then the defaults of this module hold.
    """

    folds: tuple[int, ...] | None = None
    rules: tuple[str, ...] | None = None


class Regime(NamedTuple):
    """Fold version and settings digest; "" where a record names no settings, as no dead letter does."""

    version: int
    rules: str


class _Span:
    """The causes of the records of one regime.

    A clock mark comes behind the record that is its cause: `begin` and `end` are (cause, milliseconds of the mark or
    -1).
    """

    def __init__(self) -> None:
        self.begin, self.end = (NEVER, _NOTHING), (_NOTHING, _NOTHING)

    @property
    def first(self) -> int:
        return self.begin[0]

    @property
    def last(self) -> int:
        return self.end[0]

    def add(self, cause: int, mark_ms: int) -> None:
        at = cause, mark_ms
        self.begin, self.end = min(self.begin, at), max(self.end, at)


def regime_of(headers: Mapping[str, bytes | None]) -> Regime | None:
    """The regime that a record names; None where its version cannot be read: then it is judged as any other."""
    version = headers.get(VERSION)
    if version is None or not version.isdigit() or len(version) > 18:
        return None
    return Regime(int(version), (headers.get(RULES) or b"").decode("utf-8", "backslashreplace")[:64])


class Regimes:
    """The regimes of one partition's published records.

    Args:
        rules: the audited settings.
        earlier: settings that are known to have been in force before.

    Attributes:
        own: the audited regime.
        others_may_stand: settings other than the audited ones may have been in force.
        known_until: up to this cause all records are of `known_rules`, which are not the audited ones; -1 for none.
        own_from: from this cause on records are of the audited settings; what began before may owe something to
            others. -1 where there are no others in front of it.
    """

    def __init__(
        self, index: PublishedIndex, rules: Rules, accepted: Accepted | None = None, earlier: Iterable[Rules] = ()
    ) -> None:
        self.own = Regime(FOLD_VERSION, rules.digest())
        self._accepted = accepted or Accepted()
        known = {one.digest(): one for one in earlier}
        named = self._accepted.rules
        self.others_may_stand = named is None or bool(known) or any(one != self.own.rules for one in named)
        self.known_until = self.own_from = _NOTHING
        self.known_rules: Rules | None = None
        self._before: list[Regime] = []
        self._behind: list[Regime] = []
        self._behind_from = NEVER
        self._may_stand: set[Regime] = set()
        if not all(self._is_own(regime_of({VERSION: version, RULES: digest})) for version, digest in index.regimes()):
            self._divide(_spans(index.all()), known)

    def _is_own(self, regime: Regime | None) -> bool:
        return regime is None or regime == self.own or regime == (FOLD_VERSION, "")

    def _divide(self, spans: Mapping[Regime, _Span], known: Mapping[str, Rules]) -> None:
        own = spans.get(self.own, _Span())
        before_end = _NOTHING
        for regime, span in sorted(spans.items()):
            if self._is_own(regime):
                continue
            is_before, is_behind = span.end < own.begin, own.end < span.begin
            is_apart = is_before or is_behind
            by_version = self._version_may_stand(regime.version, is_apart=is_apart)
            is_at_rest = is_apart and self._accepted.rules is None
            if not by_version or not (is_at_rest or regime.rules in known or self._rules_may_stand(regime.rules)):
                continue
            self._may_stand.add(regime)
            if is_before:
                self._before.append(regime)
                before_end = max(before_end, span.last)
            elif is_behind:
                self._behind.append(regime)
                self._behind_from = min(self._behind_from, own.last + (own.last < span.first))
        if not self._before:
            return
        # Where a mark of these settings has the cause of a record of the others, that cause is not judged.
        is_shared = before_end == own.first
        self.own_from = own.first + is_shared
        (first, *others) = self._before
        if not others and not is_shared and first.version == FOLD_VERSION and first.rules in known:
            self.known_until, self.known_rules = before_end, known[first.rules]

    def _version_may_stand(self, version: int, *, is_apart: bool) -> bool:
        folds = self._accepted.folds
        if folds is not None:
            return version == FOLD_VERSION or version in folds
        return version == FOLD_VERSION or version in EARLIER_FOLDS or (version > FOLD_VERSION and is_apart)

    def _rules_may_stand(self, rules: str) -> bool:
        return rules in ("", self.own.rules) or rules in (self._accepted.rules or ())

    def foreign(self, published: Published) -> tuple[str, bool]:
        """Reason why this fold and these settings cannot judge a record, and whether it may stand; "" if they can."""
        regime = regime_of(dict(published.headers))
        if regime is None or self._is_own(regime):
            return "", True
        if regime in self._may_stand:
            cause = offsets_of(published)[1]
            if self.known_rules is not None and regime in self._before and (cause or 0) <= self.known_until:
                return "", True
            return made_under(regime), True
        return self._refused(regime), False

    def _refused(self, regime: Regime) -> str:
        if not self._version_may_stand(regime.version, is_apart=False):
            return (
                f"it names fold version {regime.version}, which this program ({FOLD_VERSION}) does not know or was not "
                f"told to accept (--accept-fold {regime.version})"
            )
        return (
            f"it names other rules ({regime.rules}) than the records before it and behind it "
            f"(--accept-rules {regime.rules})"
        )

    def unknown_at(self, cause: int) -> str:
        """Reason why the effects of this cause cannot be judged; "" if they can be."""
        if self._before and self.known_until < cause < self.own_from:
            if self.known_rules is not None:
                return "the rules were changed there"
            return made_under(self._before[0])
        if self._behind and cause >= self._behind_from:
            return made_under(self._behind[0])
        return ""


def made_under(regime: Regime) -> str:
    if regime.version != FOLD_VERSION:
        return f"made by fold version {regime.version}, this program has {FOLD_VERSION}"
    return f"made under other rules ({regime.rules})"


def _spans(published: Iterable[Published]) -> dict[Regime, _Span]:
    """Span of causes of the records of each regime. Dead letters of this fold name no settings and are left out."""
    spans: dict[Regime, _Span] = {}
    for one, regime, cause in _regimes(published):
        if one.kind is FindingKind.DEAD_LETTER and regime.version == FOLD_VERSION:
            continue
        if regime not in spans and len(spans) >= _MOST:
            continue
        mark = mark_of(one)
        spans.setdefault(regime, _Span()).add(cause, _NOTHING if mark is None else mark[1])
    return spans


def _regimes(published: Iterable[Published]) -> Iterator[tuple[Published, Regime, int]]:
    for one in published:
        regime, (first, cause) = regime_of(dict(one.headers)), offsets_of(one)
        if regime is not None and first is not None and cause is not None and cause >= first:
            yield one, regime, cause
