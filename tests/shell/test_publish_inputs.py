"""The inputs of `publish`: files, pipes, devices and the standard input, also those that cannot be read."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from processor.errors import UsageError
from processor.publish.command import run, sample_files
from tests.shell.test_publish import PART1, RUN, Terminal, events_of, sse


async def test_a_missing_file_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    terminal = Terminal()
    with pytest.raises(UsageError, match="no such file"):
        await terminal.run(sample_files()[0], tmp_path / "missing.sse")
    assert terminal.out == []


async def test_standard_input_is_published_as_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading) as stdin, os.fdopen(writing, "wb", buffering=0) as service:
        monkeypatch.setattr(sys, "stdin", stdin)
        arrived = asyncio.Event()
        async with asyncio.timeout(60):
            task = asyncio.create_task(run([], topic="t", dry_run=True, echo=lambda _: arrived.set(), warn=print))
            service.write(sse(("thread.run.queued", RUN)))
            await arrived.wait()  # while the other end is still open
            service.write(PART1)
            service.close()
            assert await task == 0


async def test_standard_input_may_be_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    with sample_files()[0].open() as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert await terminal.run() == 0
    assert len(terminal.out) == len(events_of(sample_files()[0].read_bytes()))


async def test_a_pipe_with_a_name_is_published(tmp_path: Path) -> None:
    """`publish <(curl -N ...)` and `publish /dev/stdin` were told that there is no such file."""
    terminal = Terminal()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writing = os.open(pipe, os.O_RDWR)  # both ends: neither open waits for the other
    task = asyncio.create_task(terminal.run(pipe))
    async with asyncio.timeout(60):
        os.write(writing, PART1[:60])
        await asyncio.sleep(0.1)
        os.write(writing, PART1[60:])
        os.close(writing)
        assert await task == 0
    assert len(terminal.out) == len(events_of(PART1))


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/proc/self/mem", "/proc/self/mem: cannot be read: Input/output error"),
        (str(Path(__file__).parent), "a folder"),
    ],
)
async def test_what_cannot_be_read_is_named(path: str, told: str) -> None:
    """It was "a bug of ours" (70)."""
    with pytest.raises(UsageError, match=told):
        await Terminal().run(Path(path))


async def test_a_closed_standard_input_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(UsageError, match="the standard input is closed"):
        await Terminal().run()


async def test_a_dry_run_of_a_long_file_can_be_stopped(tmp_path: Path) -> None:
    """Nothing in it waits, so that Ctrl-C was heeded at its end."""
    path = tmp_path / "long.sse"
    path.write_bytes(PART1 * 3000)
    terminal = Terminal()
    task = asyncio.create_task(terminal.run(path))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(terminal.out) < 3000
