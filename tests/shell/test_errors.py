"""What the operating system denies is told as that: no bug of ours, no changed folder, no corrupt record."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from processor.audit.report.manifest import ReportError
from processor.cli import main as cli
from processor.errors import OutOfMemory, OutOfSpace, of_system


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_named_with_its_path_however_it_was_wrapped(code: int) -> None:
    try:
        try:
            raise OSError(code, os.strerror(code), "/data/report/x.parquet")
        except OSError as error:
            raise ReportError(f"x: {error}", hint="the replay's work folder was changed") from None
    except ReportError as wrapped:
        told = of_system(wrapped)
    assert isinstance(told, OutOfSpace)
    assert told.message.startswith("/data/report/x.parquet: ")
    assert told.exit_code == 74


def test_another_error_of_a_file_is_none_of_these() -> None:
    assert of_system(OSError(errno.EACCES, "no", "x")) is None
    assert of_system(ValueError("x")) is None


def test_want_of_memory_in_a_group_of_errors_is_found() -> None:
    told = of_system(ExceptionGroup("of tasks", [MemoryError()]))
    assert isinstance(told, OutOfMemory)
    assert told.exit_code == 71


_STARVED = """
import resource, sys
from pathlib import Path
from processor.errors import OutOfMemory, of_system
has = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (has + (64 << 10), -1))
try:
    {statement}
except Exception as error:
    told = of_system(error)
    sys.exit(told.exit_code if told is not None else f"{{type(error).__name__}}: {{error}}")
"""


@pytest.mark.parametrize(
    "statement",
    [
        "import threading; threading.Thread(target=print).start()",
        "import msgspec",
        "import os, mmap; mmap.mmap(-1, 1 << 30)",
        "bytearray(1 << 30)",
    ],
    ids=["thread", "extension-module", "mapping", "object"],
)
def test_want_of_memory_is_known_by_whatever_says_it(statement: str) -> None:
    """In a process that may have no more: three of these raise no `MemoryError`."""
    ended = subprocess.run(
        [sys.executable, "-c", _STARVED.format(statement=statement)], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 71, ended.stderr


def test_commands_end_with_the_code_of_what_was_denied(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def full(*_: object, **__: object) -> None:
        with Path("/dev/full").open("wb", buffering=0) as device:
            device.write(b"x")

    def starved(*_: object, **__: object) -> None:
        raise MemoryError

    def wrapped(*_: object, **__: object) -> None:
        try:
            full()
        except OSError as error:
            raise ReportError(f"x: {error}", hint="the replay's work folder was changed") from None

    monkeypatch.setattr(cli, "app", wrapped)
    assert cli._run([]) == 74
    assert "was changed" not in capsys.readouterr().err
    monkeypatch.setattr(cli, "app", full)
    assert cli._run([]) == 74
    said = capsys.readouterr().err
    assert "the disk is full" in said
    assert "bug" not in said
    monkeypatch.setattr(cli, "app", starved)
    assert cli._run([]) == 71
    assert "memory" in capsys.readouterr().err


def test_an_exception_chain_that_leads_back_to_itself_ends_the_search() -> None:
    """It hung the process after its last log line, instead of ending it with the exit code."""
    first, second = RuntimeError("first"), RuntimeError("second")
    first.__context__, second.__context__ = second, first
    assert of_system(first) is None
