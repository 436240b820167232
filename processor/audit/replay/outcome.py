"""Result of a replay: progress while it runs, the verdict with its numbers, and the exit code."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import TYPE_CHECKING, Final

import msgspec

from processor.audit.judge.range_result import RangeResult
from processor.audit.judge.verdicts import Finding
from processor.audit.report.manifest import About, Outcome

if TYPE_CHECKING:
    from processor.audit.report.compare import Against

EXIT_PROVEN: Final = 0
EXIT_DIFFERENT: Final = 3
EXIT_UNPROVABLE: Final = 4
EXIT_CODES: Final = {
    Outcome.PROVEN: EXIT_PROVEN,
    Outcome.DIFFERENT: EXIT_DIFFERENT,
    Outcome.UNPROVABLE: EXIT_UNPROVABLE,
}


class Progress(msgspec.Struct, frozen=True):
    """Progress of a replay: `what` is the stage in words, `done` and `total` are offsets (total 0: not known)."""

    what: str
    done: int
    total: int


Show = Callable[[Progress], None]


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """Result of a replay: the verdict, the counts, and the result of each range."""

    verdict: Outcome
    counts: dict[str, dict[str, int]]
    coverage: dict[str, int]
    about: About
    results: list[RangeResult]
    first: list[Finding]
    questions: list[str]
    not_judged: list[str]
    outputs: dict[str, int]
    report: str = ""
    evidence: str = ""
    root: str = ""
    against: Against | None = None

    @property
    def exit_code(self) -> int:
        """With `against` it is asked whether log or steps differ: what an older fold published proves nothing."""
        if self.against is not None:
            differs = self.against.differing or self.against.blocks or self.verdict is Outcome.DIFFERENT
            return EXIT_DIFFERENT if differs else EXIT_PROVEN
        return EXIT_CODES[self.verdict]


def program() -> str:
    """Name of this program in reports."""
    return f"run-steps {version('run-steps')}"
