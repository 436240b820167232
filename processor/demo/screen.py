"""Output of the demo: sections, live progress on a terminal, a plain line every two seconds elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from rich.console import Group
from rich.live import Live
from rich.markup import escape
from rich.padding import Padding
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from processor.printable_console import Console

_PLAIN_EVERY_S: Final = 2.0
_PLAIN_WIDTH: Final = 110


class Screen:
    """Everything goes to standard output, in order."""

    def __init__(self, sections: int) -> None:
        self._console = Console(highlight=False)
        if not self._console.is_terminal:  # a log file has no width of its own
            self._console = Console(highlight=False, width=_PLAIN_WIDTH)
        self._sections = sections
        self._section = 0

    def section(self, title: str, why: str) -> None:
        """Print a heading, and one or two sentences on its purpose."""
        self._section += 1
        self._console.print(f"\n[bold cyan]{self._section}/{self._sections}  {title}[/]")
        self._console.print(f"     [dim]{why}[/]")

    def say(self, text: str, mark: str = "·", style: str = "") -> None:
        """Print one event; `text` is shown as it is."""
        if not self._console.is_terminal:
            self._console.print(Text(f"  {mark}  {text}"), soft_wrap=True)
            return
        line = Table.grid(padding=(0, 2, 0, 0))  # a long text hangs together under its beginning
        line.add_row("", f"[cyan]{mark}[/]", Text(text, style))
        self._console.print(line)

    def command(self, text: str) -> None:
        """Print a command on one line, however long, so that it can be copied."""
        self._console.print(Text(f"       {text}"), soft_wrap=True)

    def good(self, text: str) -> None:
        self.say(text, "✓", "green")

    def bad(self, text: str) -> None:
        self.say(text, "✗", "bold red")

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]], *, numbers_from: int = 1) -> None:
        """A row whose first cell begins with blanks is part of the one above."""
        table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
        for at, column in enumerate(columns):
            table.add_column(column, justify="right" if at >= numbers_from else "left", overflow="fold")
        for row in rows:
            table.add_row(*map(escape, row), style="dim" if row[0].startswith(" ") else "")
        self._console.print(Padding(table, (1, 0, 1, 5), expand=False))

    @contextmanager
    def progress(self, total: int) -> Iterator[Meter]:
        """Show how far it is while the block runs; `say` prints above it."""
        if not self._console.is_terminal:
            yield Meter(self._console, total)
            return
        bars = Progress(
            TextColumn("     {task.description:<8}"),
            BarColumn(40, finished_style="green"),
            TextColumn("{task.fields[said]}"),
        )
        meter = Meter(self._console, total, bars)
        with Live(Group(bars, meter.line), console=self._console, transient=True, refresh_per_second=8):
            yield meter


class Meter:
    """Progress of the simulated runs: records sent, records done, and what has come out."""

    def __init__(self, console: Console, total: int, bars: Progress | None = None) -> None:
        self.line = Text()
        self._console, self._total, self._bars = console, total, bars
        self._said_at = time.monotonic()
        self._tasks: list[TaskID] = []
        if bars is not None:
            self._tasks = [bars.add_task(name, total=total, said="") for name in ("sent", "done")]

    def show(self, *, sent: int, done: int, steps: int, letters: int) -> None:
        """Take the latest counts; they are shown when it is time."""
        came = f"came out: {steps:,} steps, {letters:,} dead letters"
        if self._bars is not None:
            for task, count in zip(self._tasks, (sent, done), strict=True):
                self._bars.update(task, completed=count, said=f"{count:,} of {self._total:,} records")
            self.line.plain = f"     {came}"
        elif time.monotonic() - self._said_at >= _PLAIN_EVERY_S:
            self._said_at = time.monotonic()
            self._console.print(f"  ·  sent {sent:,}, done {done:,} of {self._total:,} records; {came}")
