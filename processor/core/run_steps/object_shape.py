"""The shape of a producer's objects: constant bytes with holes between them, and where the contents of the holes go.

What is cut is put straight into the pieces of which something else is joined (`Frame`): another list of it, to be put
in order afterwards, would cost as much again.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from processor.core.json_bytes import digits_end, plain_end, text_end
from processor.core.learned_bytes import size_of

if TYPE_CHECKING:
    from mypy_extensions import i64  # for the compiler alone

_IS_COMPILED: Final = not __file__.endswith(".py")
PLAIN: Final = 0
"""A text of printable ASCII without quote and backslash: an id, or a name."""
NUMBER: Final = 1
"""A whole number above 0 of at most 15 digits: a time, or a count."""
TEXT: Final = 2
"""Any text; whether it is one is yet to be seen."""
SPAN: Final = 3
"""The details of an end: any JSON, yet to be read."""
_PATTERNS: Final = (rb"([ !#-\[\]-~]*)", rb"([1-9][0-9]{0,14})", rb'((?:[^"\\]|\\.)*)', rb"(.*)")
_PATTERN_BYTES: Final = 20
"""What the expressions that cut a value take for a byte of its shape."""
NOWHERE: Final = 0xFF
"""In place of a place among the pieces of a `Frame`."""
MOST_HOLES: Final = 100
"""Of a shape, so that all places are below `NOWHERE`."""
_NOTHING: Final = b""
FIRST_HOLES: Final = 7
"""Of how many holes `Shape.lengths` tells, a byte each in a number of 64 bits."""


class Hole:
    """Where a template has a hole: what stands at `begin` to `end` in the value that it is learned from."""

    __slots__ = ("begin", "end", "kind")

    def __init__(self, begin: int, end: int, kind: int) -> None:
        self.begin, self.end, self.kind = begin, end, kind


class Frame:
    """Pieces that are the same each time, with places between them for those that are not.

    Args:
        blank: the pieces, b"" in each place.
        spots: for each hole of a shape where in `blank` its content belongs; `NOWHERE`: it is not asked for.
    """

    __slots__ = ("blank", "spots")

    def __init__(self, blank: list[bytes], spots: bytes) -> None:
        self.blank, self.spots = blank, spots


class SharedBeginning:
    """How objects that end a step begin as those that began it: with the same bytes, as far as `end` in their data.

    Args:
        begin, lengths: of the objects that began the steps: their template, and `Shape.lengths` of their holes.
        gaps, sizes: for each hole before `end` the bytes from the one before it, and its own.
        id_number: which of these holes has the step's id.
        says_run: whether one of them has the run's id, which the step knows.
    """

    __slots__ = ("begin", "end", "gaps", "id_at", "id_end", "lengths", "says_run", "sizes")

    def __init__(
        self, begin: object, lengths: i64, gaps: bytes, sizes: bytes, id_number: int, *, says_run: bool
    ) -> None:
        self.begin, self.gaps, self.sizes, self.says_run = begin, gaps, sizes, says_run
        self.lengths: i64 = lengths
        self.end: i64 = sum(gaps) + sum(sizes)
        self.id_end: i64 = sum(gaps[: id_number + 1]) + sum(sizes[: id_number + 1])
        self.id_at: i64 = self.id_end - sizes[id_number]


class Shape:
    """Constant bytes with holes between them: hole n follows part n. The quotes of a text belong to the parts.

    `frame`: where goes what is cut; the default has a place for each hole. `lengths`: of what stood in the first
    `FIRST_HOLES` of the value that was cut last, a byte each; -1 where one is longer.
    """

    __slots__ = ("_last", "_patterns", "first", "frame", "kinds", "lengths", "parts")

    def __init__(self, value: bytes, holes: list[Hole], frame: Frame | None = None) -> None:
        begins = [0, *(hole.end for hole in holes)]
        ends = [*(hole.begin for hole in holes), len(value)]
        parts = [value[begin:end] for begin, end in zip(begins, ends, strict=True)]
        self.first, self._last, self.parts = parts[0], parts[-1], parts[1:]
        self.kinds = bytes(hole.kind for hole in holes)
        self.frame = Frame([_NOTHING] * len(holes), bytes(range(len(holes)))) if frame is None else frame
        self._patterns: dict[int, Any] = {}
        self.lengths: i64 = -1

    def size(self) -> int:
        """About how many bytes of memory it takes, with its frame."""
        parts = (self.first, *self.parts)
        patterns = 0 if _IS_COMPILED else _PATTERN_BYTES * sum(map(len, parts))
        return size_of(parts) + size_of(self.frame.blank) + patterns

    def cut(self, value: bytes) -> list[bytes] | None:
        """The pieces of the frame with what stands in the holes, if this is a value of the shape."""
        if not value.startswith(self.first) or not value.endswith(self._last):
            return None
        frame = self.frame
        pieces: list[Any] = frame.blank.copy()
        return pieces if self._cuts_from(value, len(self.first), 0, pieces, frame.spots, _NOTHING) else None

    def cut_behind(
        self, value: bytes, begin: i64, opening: bytes, shared: SharedBeginning, frame: Frame, said: bytes
    ) -> list[Any] | None:
        """`cut` of a value whose data begins at `begin`, if as much of it is shared with `opening` as there should be.

        Args:
            opening: the data of an object that began a step, and was cut before.
            frame: in place of the shape's own.
            said: what stands in the hole of any JSON; b"": that is not known.
        """
        at: i64 = begin + shared.end
        if not opening.startswith(value[begin:at]) or not value.endswith(self._last):
            return None
        pieces: list[Any] = frame.blank.copy()
        gaps, sizes, spots = shared.gaps, shared.sizes, frame.spots
        count: i64 = len(gaps)
        number: i64 = 0
        hole_at: i64 = 0
        while number < count:
            hole_at += gaps[number]
            hole_end: i64 = hole_at + sizes[number]
            spot: i64 = spots[number]
            if spot != NOWHERE:
                pieces[spot] = opening[hole_at:hole_end]
            hole_at = hole_end
            number += 1
        part = self.parts[number - 1]
        next_at: i64 = at + len(part)
        if value[at:next_at] != part:
            return None
        return pieces if self._cuts_from(value, next_at, number, pieces, spots, said) else None

    def _cuts_from(self, value: bytes, at: i64, number: i64, pieces: list[Any], spots: bytes, said: bytes) -> bool:
        """The rest of `cut`, from this hole on, which begins at `at`."""
        if not _IS_COMPILED:
            return self._matches_from(value, at, number, pieces, spots, said)
        size: i64 = len(value)
        parts, kinds = self.parts, self.kinds
        last: i64 = len(kinds) - 1
        lengths: i64 = 0
        widest: i64 = 0
        while number <= last:
            part = parts[number]
            kind: i64 = kinds[number]
            if kind == PLAIN:
                end = plain_end(value, at, size)
            elif kind == NUMBER:
                end = digits_end(value, at, size)
            elif kind == TEXT:
                end = text_end(value, at, size)
            elif len(said) > 0:
                end = at + len(said)
                if value[at:end] != said:
                    return False
            else:
                end = value.rfind(part, at)
            if end < 0:
                return False
            next_at: i64 = end + len(part)
            if next_at > size or (number < last and value[end:next_at] != part):  # the last was looked at first
                return False
            spot: i64 = spots[number]
            if spot != NOWHERE:
                pieces[spot] = value[at:end]
            if number < FIRST_HOLES:
                widest |= end - at
                lengths = lengths << 8 | end - at
            number += 1
            at = next_at
        self.lengths = lengths if widest < 0x100 else -1
        return at == size

    def _matches_from(self, value: bytes, at: int, number: int, pieces: list[Any], spots: bytes, said: bytes) -> bool:
        """Match the rest of a value by a regular expression: where this module is not compiled nothing is as fast."""
        match = self._patterns.get(number)
        if match is None:
            pattern = b""
            for kind, part in zip(self.kinds[number:], self.parts[number:], strict=True):
                pattern += _PATTERNS[kind] + re.escape(part)
            match = self._patterns[number] = re.compile(pattern, re.DOTALL).fullmatch
        found = match(value, at)
        if found is None:
            return False
        cuts: tuple[bytes, ...] = found.groups()
        for hole, cut in enumerate(cuts, number):
            if said and self.kinds[hole] == SPAN and cut != said:
                return False
            if spots[hole] != NOWHERE:
                pieces[spots[hole]] = cut
        sizes = [len(cut) for cut in cuts[:FIRST_HOLES]]
        self.lengths = int.from_bytes(bytes(sizes)) if max(sizes, default=0) < 0x100 else -1
        return True
