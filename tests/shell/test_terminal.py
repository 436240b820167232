"""What commands show on a narrow terminal: nothing is cut at 80 columns, and NO_COLOR is kept."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from typing import Any, cast

import pytest
import typer
from rich.console import Console

from processor.cli import main as cli
from processor.cli.terminal import table_of
from processor.cli.top import _screen
from processor.telemetry.log import Repeats, make_log
from processor.telemetry.worker_view import PartitionView, WorkerView

COLUMNS = 80
CUT = "\N{HORIZONTAL ELLIPSIS}"


def commands() -> Iterator[tuple[str, ...]]:
    """Every command and every command of a group."""
    yield ()
    for name, command in cast(Any, typer.main.get_command(cli.app)).commands.items():
        yield (name,)
        yield from ((name, part) for part in getattr(command, "commands", {}))


@pytest.mark.parametrize("command", [*commands()], ids=" ".join)
def test_no_help_is_cut(
    command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(COLUMNS))
    assert cli._run([*command, "--help"]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= COLUMNS
    assert CUT not in shown


def shown(what: object) -> str:
    console = Console(file=io.StringIO(), width=COLUMNS, force_terminal=True, color_system=None)
    console.print(what)
    written = cast(io.StringIO, console.file).getvalue()
    assert max(map(len, written.splitlines())) <= COLUMNS
    return written


def test_a_long_cell_is_folded() -> None:
    table = table_of("step", "topic", "reason")
    cells = ["step_" + "a" * 60, "topic-" + "b" * 60, "reason-" + "c" * 60]
    table.add_row(*cells)
    written = shown(table)
    assert CUT not in written
    for letter, cell in zip("abc", cells, strict=True):
        assert written.count(letter) >= cell.count(letter)


def test_top_fits_a_terminal() -> None:
    partitions = {n: PartitionView(n, 1e9, 1e6, 1e9, 1e5, 1e6, 1e12, 1.0, "INC-7" if n else "") for n in range(2)}
    view = WorkerView(
        f"http://run-steps-{'0' * 40}.run-steps.namespace.svc.cluster.local:8080",
        1.0,
        reasons=("partition 3: at 17 of 19, no progress for 61 s",),
        states=("restoring", "restarting"),
        version="0.1.0 (compiled)",
        partitions=partitions,
        published=1e9,
    )
    written = shown(_screen([view], [view]))
    assert CUT not in written
    assert "paused" in written
    assert written.count("0" * 10) >= 3, "the address is there whole"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("colours", [True, False])
def test_the_log_on_a_terminal_keeps_no_color(monkeypatch: pytest.MonkeyPatch, colours: bool) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    if not colours:
        monkeypatch.setenv("NO_COLOR", "1")
    stream = Terminal()
    make_log(stream, "info", "console", Repeats(time.monotonic, lambda: None), lambda: None).info("worker_started")
    assert ("\x1b[" in stream.getvalue()) is colours
