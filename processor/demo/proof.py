"""Last section of the demo: a replay proves what the workers published, and writes its report."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from processor.audit.replay import extra
from processor.config.settings import Settings
from processor.demo.screen import Screen
from processor.kafka.client_config import Connection

if TYPE_CHECKING:
    from processor.audit.replay.outcome import Progress, Replayed

EXIT_NOT_PROVEN: Final = 1

_PROCESSES: Final = 2
_PROJECT: Final = Path(__file__).parents[2]


def audit(screen: Screen, settings: Settings) -> int:
    """Replay the source topic against the topics of the outcomes. Returns 0 if it is proven or cannot be asked, else 1.

    Args:
        settings: those of the workers. The range ends where their group stands, so they may go on meanwhile.

    Raises:
        RunStepsError: no verdict was reached.
    """
    screen.section(
        "The audit",
        "Fold the log again and compare every published record with it.",
    )
    if absent := extra.missing():
        screen.say(f"skipped: {', '.join(absent)} not installed; to see it: {extra.HINT}")
        return 0
    from processor.audit.replay.command import replay
    from processor.audit.replay.options import Options

    folder, stages = report_folder(), _Stages(screen)
    began = time.monotonic()
    try:
        replayed = replay(
            Options(workers=_PROCESSES, report=str(folder)),
            settings,
            lambda: Connection.build(**settings.kafka.connection()),
            stages.show,
        )
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)  # half a report is none
        raise
    return tell(screen, replayed, time.monotonic() - began)


def tell(screen: Screen, replayed: Replayed, seconds: float) -> int:
    """Print the verdict first, then numbers and the report's path. Returns the exit code."""
    verdicts = sorted({name for counts in replayed.counts.values() for name in counts})
    rows = [
        [kind.replace("_", " ") + "s", *(f"{counts.get(name, 0):,}" for name in verdicts)]
        for kind, counts in sorted(replayed.counts.items(), reverse=True)
    ]
    is_proven = replayed.exit_code == 0
    (screen.good if is_proven else screen.bad)(f"{replayed.verdict.value}, after {seconds:.1f} s")
    screen.table(("published", *(name.replace("_", " ") for name in verdicts)), rows)
    covered = ", ".join(f"{count:,} {kind}" for kind, count in sorted(replayed.coverage.items()) if count)
    partitions = len(replayed.results)
    screen.say(f"every offset of {replayed.about.topic} ({partitions} partitions) is accounted for: {covered}")
    for line in replayed.questions:
        screen.bad(line)
    screen.say("the report, for a browser, DuckDB, or `run-steps replay --check`:")
    screen.command(str(Path(replayed.report) / "report.html"))
    return 0 if is_proven else EXIT_NOT_PROVEN


def report_folder() -> Path:
    """Folder of the report: build/demo-report when played in the project, anew each time; else a new temporary one.

    A temporary folder is kept, too. Its name is not to be guessed: others may write where temporary files are.
    """
    if Path.cwd() != _PROJECT or not (_PROJECT / "pyproject.toml").is_file():
        return Path(tempfile.mkdtemp(prefix="run-steps-demo-report-"))
    folder = _PROJECT / "build" / "demo-report"
    if folder.exists():
        shutil.rmtree(folder)
    return folder


class _Stages:
    """Says each stage of the replay once."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._said = ""

    def show(self, at: Progress) -> None:
        if at.what != self._said:
            self._said = at.what
            self._screen.say(at.what)
