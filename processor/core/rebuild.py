"""Rebuilds: without usable offset metadata a state is folded again from the log, without effects."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from processor.core.effects import Checkpoint, Effect


class Rebuild:
    """Clock marks that a silent fold repeats, and checkpoints to be written when it is done."""

    __slots__ = ("_checkpoints", "_marks", "is_refusing")

    def __init__(self) -> None:
        self._marks: deque[tuple[int, int]] = deque()
        self._checkpoints: dict[bytes, bytes | None] | None = None
        self.is_refusing = False
        """Whether steps are refused (X2) in the silent fold, too."""

    def begin(self, unfit: Iterable[bytes], marks: Iterable[tuple[int, int]], *, refusing: bool) -> None:
        """See `PartitionState.rebuild`; `marks` in any order, all within the fold."""
        self._checkpoints = dict.fromkeys(unfit, None)
        self._marks = deque(sorted(marks))
        self.is_refusing = refusing

    def next_mark(self) -> int | None:
        """The position of the next clock mark to repeat."""
        return self._marks[0][0] if self._marks else None

    def take_mark(self, position: int) -> tuple[int, int] | None:
        """(position, ms) of the next clock mark that was set up to `position`; it is repeated."""
        return self._marks.popleft() if self._marks and self._marks[0][0] <= position else None

    def keep(self, effects: Iterable[Effect]) -> None:
        """Keep the checkpoints among the effects of a silent fold, if this is a rebuild."""
        if self._checkpoints is not None:
            for effect in effects:
                if isinstance(effect, Checkpoint):
                    self._checkpoints[effect.key] = effect.value

    def add(self, effects: Iterable[Effect]) -> None:
        """Keep the checkpoints among these effects, whether this is a rebuild or not."""
        if self._checkpoints is None:
            self._checkpoints = {}
        self.keep(effects)

    def end(self) -> list[Effect]:
        """End the rebuild; returns the checkpoints that have to be written, once."""
        kept, self._checkpoints, self.is_refusing = self._checkpoints or {}, None, False
        return [Checkpoint(key, value) for key, value in kept.items()]
