"""Brokers that lack an answer which a worker needs: it must end with 77 and say what is missing, and so must the rest.

They are built or found as the clients are. None is judged by what it stores, for nothing is served on it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from processor.broker import probe
from tests.compat.clients import PROGRAMS, built, python_client, run
from tests.faults.lab import Tally
from tests.faults.proxy import HOST

_SAMPLES: Final = Path(__file__).parents[2] / "processor" / "samples"
_START_S: Final = 60.0
_END_S: Final = 90.0
REFUSED: Final = 77
TANSU: Final = "0.6.0"
MOCK: Final = "2.16.1"
COMMANDS: Final = (
    ("serve", "--create-topics"),
    ("serve",),
    ("doctor",),
    ("publish", "message.sse"),
    ("replay",),
)
"""`serve` must refuse the broker. What the others end with is told, and is no bug of ours (70)."""


@contextlib.contextmanager
def mock(home: Path) -> Iterator[str]:
    """librdkafka's mock cluster; yields its address."""
    python = python_client("confluent-kafka", f"confluent-kafka=={MOCK}")()[0]
    process = subprocess.Popen(
        [python, PROGRAMS / "mock.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=home
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait(60)


@contextlib.contextmanager
def tansu(home: Path) -> Iterator[str]:
    """A tansu broker that keeps its log in memory; yields its address."""

    def build(folder: Path) -> None:
        if shutil.which("cargo") is None:
            raise RuntimeError("cargo is not installed")
        wanted = ["tansu", "--version", TANSU, "--locked", "--features", "dynostore"]
        run("cargo", "install", "--quiet", *wanted, "--root", folder, cwd=folder)

    program = built(f"tansu-{TANSU}", build) / "bin" / "tansu"
    port = next(probe.free_ports())
    url = f"tcp://{HOST}:{port}"
    command: list[str | Path] = [program, "broker", "--listener-url", url, "--advertised-listener-url", url]
    with (home / "tansu.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--storage-engine", "memory://tansu/"], stdout=log, stderr=log, stdin=subprocess.DEVNULL
        )
    try:
        deadline = time.monotonic() + _START_S
        while probe._is_free(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"tansu does not serve: {(home / 'tansu.log').read_text()[-500:]}")
            time.sleep(0.1)
        yield f"{HOST}:{port}"
    finally:
        process.kill()
        process.wait(60)


LACKING: Final = {
    "librdkafka's mock": (MOCK, mock),
    "tansu": (TANSU, tansu),
}


def refused(name: str, home: Path, tally: Tally) -> dict[str, Any]:
    """Try each command on the broker; what it ended with and what it said."""
    version, start = LACKING[name]
    home.mkdir(parents=True, exist_ok=True)
    said: dict[str, list[Any]] = {}
    with start(home) as bootstrap:
        for command in COMMANDS:
            said[" ".join(command)] = _tried(bootstrap, command, home)
    for told, (code, line) in said.items():
        if code == 70 or (told.startswith("serve") and code != REFUSED):
            tally.problems.append(f"{told}: ended with {code}: {line}")
    return {"kind": "lacking", "name": name, "version": version, "said": said}


def _tried(bootstrap: str, command: tuple[str, ...], home: Path) -> list[Any]:
    words = [str(_SAMPLES / word) if word.endswith(".sse") else word for word in command]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "processor", *words],
            env=os.environ | {"RUN_STEPS_KAFKA__BOOTSTRAP_SERVERS": bootstrap, "RUN_STEPS_HTTP__PORT": "0"},
            cwd=home,
            capture_output=True,
            text=True,
            timeout=_END_S,
        )
    except subprocess.TimeoutExpired:
        return [None, f"no end within {_END_S:g} s"]
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    telling = [line for line in lines if line.startswith("run-steps: ")] or [line for line in lines if "RED" in line]
    said = (telling or lines or [""])[-1].strip().replace(bootstrap, "ADDRESS")
    return [done.returncode, said.removeprefix("run-steps: ")[:300]]
