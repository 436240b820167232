"""Published records that are gone or held back, and the findings that are undecidable because of it. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from processor.audit.judge.verdicts import NEVER, ExpectedRecord

OutputPartition = tuple[str, int]

_HELD: Final = (
    "an open transaction on an output topic holds back what may be this record, or a clock mark that explains it"
)
_MARKS: Final = "clock marks may have gone with the first records of the topic of expired steps"
_HOLE: Final = (
    "records are gone from within an output topic (compaction, or a hole in an archive): this one, or a clock mark "
    "that explains it, may be among them"
)
_HEAD: Final = "the published records are gone: the topic no longer holds its first records"


class OutputGaps:
    """Decides which findings a gap of the output makes undecidable.

    Args:
        kept_from: output partitions that retention has shortened -> the first cause that a record there names; of
            that cause some may be gone (a run's end ends several steps), behind it all are there.
        held: output partitions of which an open transaction holds back the rest: nothing is known of that.
        holes: output partitions that lack records behind their first one.
        marks: the clock marks that records name, (position, milliseconds), ascending.
        begin: of the range.

    Attributes:
        dead_from: up to this cause, what tells of refusals may be gone.
    """

    def __init__(
        self,
        kept_from: Mapping[OutputPartition, int],
        held: Collection[OutputPartition],
        holes: Collection[OutputPartition],
        dead_letter: str,
        expired: str,
        marks: Sequence[tuple[int, int]],
        begin: int = 0,
    ) -> None:
        self._held, self._holes = frozenset(held), frozenset(holes)
        # What is held back or lies in a hole is no more there than what retention took, whatever its cause.
        self._kept_from = {**kept_from, **dict.fromkeys(self._held | self._holes, NEVER)}
        self.dead_from = self._first_kept(dead_letter)
        lost = self._first_kept(expired)
        self._marks_from = lost
        self.marks_are_lost = lost >= 0
        """Whether there may have been clock marks that no record names any more."""
        self.is_time_open = 0 <= lost < NEVER
        """Whether a clock mark that is gone may have moved the stream time further than the records since have."""
        self.known_from = next((at for at, _ in marks if at > lost), NEVER) if self.is_time_open else NEVER
        """The first clock mark that is there behind those that may be gone: its position."""
        if self.known_from <= begin:
            self.time_is_known(begin - 1)

    def time_is_known(self, cause: int) -> None:
        """A deadline fired there when the records or a mark that is there say so: no mark had gone further."""
        if self.is_time_open and cause >= self._marks_from:
            self._marks_from, self.is_time_open = cause, False

    def lacks_marks_before(self, first: int) -> bool:
        """Whether a step that begins there was open while marks that are gone may have been set."""
        return first <= self._marks_from

    def lacks_marks(self, first: int) -> str:
        """Reason why a step that begins there may have met clock marks that are gone; "" if it cannot have."""
        if first > self._marks_from and not self.is_time_open:
            return ""
        if self._marks_from == NEVER and (self._held or self._holes):
            return _HELD if self._held else _HOLE
        return _MARKS

    def lacks(self, expected: ExpectedRecord, cause: int) -> str:
        """Reason why a missing record may have been published; "" if it cannot have been."""
        if expected.partition is not None:
            from_cause = self._kept_from.get((expected.topic, expected.partition), -1)
        else:
            from_cause = self._first_kept(expected.topic)
        if cause > from_cause:
            return ""
        if self._is_among(self._held, expected):
            return _HELD
        return _HOLE if self._is_among(self._holes, expected) else _HEAD

    def _is_among(self, places: Collection[OutputPartition], expected: ExpectedRecord) -> bool:
        return any(topic == expected.topic and expected.partition in (None, p) for topic, p in places)

    def _first_kept(self, topic: str) -> int:
        """The first cause that the topic's shortened partitions name, the largest of them; -1 if none is shortened."""
        return max((cause for (name, _), cause in self._kept_from.items() if name == topic), default=-1)
