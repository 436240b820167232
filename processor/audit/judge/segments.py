"""Segments of a range, each folded from one beginning, and what the judge cannot decide in them. Pure."""

from __future__ import annotations

from bisect import bisect_right
from operator import attrgetter
from typing import Final

import msgspec

from processor.audit.judge.output_gaps import OutputGaps
from processor.audit.judge.published_headers import offsets_of
from processor.audit.judge.verdicts import NEVER, FindingKind, Published, PublishedIndex, read_created
from processor.core.effects import DeadLetter, Publish, Reason
from processor.core.headers import ANOMALIES

STATEFUL: Final = frozenset(
    {
        Reason.BAD_INDEX,
        Reason.ILLEGAL_TRANSITION,
        Reason.TYPE_CHANGED,
        Reason.STEP_TOO_LARGE,
        Reason.TOO_MANY_OPEN_STEPS,
        Reason.SNAPSHOT_TOO_LARGE,
        Reason.INTERNAL_ERROR,
    }
)
"""Rejections that depend on what came before: a range that begins in mid-log cannot decide them."""

_AFTER_RUN: Final = "after_run_ended"
_BEFORE: Final = "it may hang on what came before the range"
_SOON: Final = "the step may have begun before the range, or so soon behind it that something from there has a say"


class Segment:
    """A segment of the range without holes; where it is not `complete`, something unknown came before it.

    Attributes:
        known_ms: stream time had come at least so far when it began.
        settled_ms: a step that was created later owes nothing to what came before. Known with the first record.
        refused_from: from there on the number of open steps decided something, and that is not known.
    """

    def __init__(self, begin: int, known_ms: int, *, complete: bool) -> None:
        self.begin, self.complete, self.known_ms = begin, complete, known_ms
        self.settled_ms = self.refused_from = NEVER


_begin_of: Final = attrgetter("begin")


class Segments:
    """The segments of one range in the order of their offsets, and the reasons why a finding cannot be decided there.

    Args:
        gaps: what is gone or held back of the output.
        first: the segment at the beginning of the range.
        end: of the range.

    Attributes:
        last: the segment that is being folded.
    """

    def __init__(self, index: PublishedIndex, gaps: OutputGaps, first: Segment, end: int) -> None:
        self._index, self._gaps, self._begin, self._end = index, gaps, first.begin, end
        self._all: list[Segment] = []
        self._lost: list[tuple[int, int]] = []
        self.last = first
        self._append(first)

    def add(self, begin: int, known_ms: int) -> None:
        """Begin a segment: from this offset on less is unknown than before."""
        self._append(Segment(begin, known_ms, complete=False))

    def add_behind_lost(self, first: int, last: int, known_ms: int) -> None:
        """Begin a segment behind offsets (inclusive) whose records cannot be read."""
        self._lost.append((first, last))
        self.add(last + 1, known_ms)

    def _append(self, segment: Segment) -> None:
        refused_from = None if segment.complete else self._index.first_refusal_from(segment.begin)
        segment.refused_from = NEVER if refused_from is None else refused_from
        self._all.append(segment)
        self.last = segment

    def note_refusal(self, effect: DeadLetter) -> None:
        """Note a dead letter that the log implies: it may say that too many steps were open (X2)."""
        if effect.reason is Reason.TOO_MANY_OPEN_STEPS:
            self.last.refused_from = min(self.last.refused_from, effect.offset)

    def undecidable(self, effect: Publish | DeadLetter, first: int, cause: int, told: int | None) -> str:
        """Reason why the range cannot show that an effect must have happened; "" if it can.

        Args:
            told: the first offset that the record published in its place names; None: there is no such record.
        """
        if isinstance(effect, DeadLetter):
            return self._unsure_of_letter(self.last, cause) if effect.reason in STATEFUL else ""
        is_after_run = _AFTER_RUN in effect.anomalies
        return self._unsure(self.last, first, cause, effect.value, is_after_run, agreed=first == told)

    def undecidable_left(self, published: Published, first: int, cause: int) -> str:
        """Reason why the range cannot show that a published record must not be there; "" if it can."""
        if self._is_lost(cause):
            return "records that it may hang on are missing"
        if published.kind is FindingKind.STEP:
            is_after_run = _AFTER_RUN.encode() in (dict(published.headers).get(ANOMALIES) or b"").split(b",")
            return self.began_before(published) or self._unsure(
                self._segment_of(cause), first, cause, published.value, is_after_run
            )
        if published.identity[1].partition(" ")[0] in STATEFUL:
            return self._unsure_of_letter(self._segment_of(cause), cause)
        return ""

    def began_before(self, published: Published) -> str:
        """Reason why a published step began before the segment that caused it; "" if it began in it."""
        first, cause = offsets_of(published)
        if first is None or cause is None or not self._begin <= cause:
            return ""
        segment = self._segment_of(min(cause, self._end))
        return "the step began before the range" if not segment.complete and first < segment.begin else ""

    def _unsure(
        self, segment: Segment, first: int, cause: int, value: bytes | None, after_run: bool, *, agreed: bool = False
    ) -> str:
        """Reason why the range cannot decide a step; "" if it can.

        Args:
            agreed: worker and fold name the same first offset, and so remembered the same of the step's response.
        """
        if why := self._gaps.lacks_marks(first):
            return why
        if segment.complete:
            return ""
        if after_run:
            return _BEFORE
        if cause >= segment.refused_from or first <= self._gaps.dead_from:
            return "steps were refused for want of room, or may have been, and how many were open is not known"
        try:
            created = read_created(value or b"")
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return _SOON
        if created.is_of_item and not agreed:
            return "its response may have begun before the range, and what it was there says which item is which"
        created_at = created.created_at
        if type(created_at) is not int or created_at * 1000 <= segment.settled_ms:
            return _SOON
        return ""

    def _unsure_of_letter(self, segment: Segment, cause: int) -> str:
        """Reason why the range cannot decide a rejection that depends on what came before; "" if it can."""
        return self._gaps.lacks_marks(cause) or ("" if segment.complete else _BEFORE)

    def _is_lost(self, cause: int) -> bool:
        at = bisect_right(self._lost, (cause, NEVER)) - 1
        return at >= 0 and self._lost[at][1] >= cause

    def _segment_of(self, offset: int) -> Segment:
        return self._all[max(0, bisect_right(self._all, offset, key=_begin_of) - 1)]
