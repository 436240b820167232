"""What a judge knows of the part of its range that is folded from one beginning."""

from __future__ import annotations

from operator import attrgetter
from typing import Final

from processor.audit.judge.verdicts import NEVER


class Segment:
    """A segment of the range without holes; where it is not `complete`, something unknown came before it.

    Attributes:
        known_ms: stream time had come at least so far when it began.
        settled_ms: a step that was created later owes nothing to what came before. Known with the first record.
        refused_from: from there on the number of open steps decided something, and that is not known.
    """

    def __init__(self, begin: int, known_ms: int, refused_from: int, *, complete: bool) -> None:
        self.begin, self.complete, self.known_ms, self.refused_from = begin, complete, known_ms, refused_from
        self.settled_ms = NEVER


begin_of: Final = attrgetter("begin")
