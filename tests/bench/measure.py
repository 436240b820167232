"""Fair figures: everything that is compared runs in turn, several times, and what is told are medians.

CPU time is the measure, not the clock: it is what users pay for, and a busy neighbour disturbs it least.
"""

from __future__ import annotations

import gc
import json
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple

from processor.broker import Broker
from processor.broker.parts import KAFKA_VERSION
from tests import compiled_wheel

_CHILD_S: Final = 600.0
_LIBRARIES: Final = ("aiokafka", "msgspec", "uvloop", "cramjam", "google-crc32c", "prometheus-client")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. `spread`: (largest - smallest) / median of the rounds; `ratio_to`: other row -> ratio."""

    name: str
    value: float
    unit: str
    spread: float
    ratio_to: dict[str, float]


@dataclass(slots=True)
class Book:
    """All that was measured in this run."""

    settings: dict[str, Any]
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(
        self, name: str, values: Sequence[float], unit: str, *, against: tuple[str, Sequence[float]] | None = None
    ) -> None:
        """Note one value per round, and show it; see `note`."""
        print(_cells(self.note(name, values, unit, against=against)), flush=True)  # noqa: T201

    def note(
        self, name: str, values: Sequence[float], unit: str, *, against: tuple[str, Sequence[float]] | None = None
    ) -> Row:
        """Note one value per round. `against`: another row, whose values of the same rounds make the ratio."""
        middle = median(values)
        ratios = {}
        if against is not None:
            ratios[against[0]] = median(ours / theirs for ours, theirs in zip(values, against[1], strict=True))
        spread = (max(values) - min(values)) / middle if middle else 0.0
        self.rows.append(Row(name, middle, unit, spread, ratios))
        return self.rows[-1]

    def markdown(self) -> str:
        head = ["| measured | value | unit | spread | ratio |", "|---|---:|---|---:|---|"]
        return "\n".join([*head, *map(_cells, self.rows), "", self.under(), ""])

    def under(self) -> str:
        """What the figures were taken under, and the notes, as a list."""
        told = [f"- {name}: {value}" for name, value in (machine() | self.settings).items()]
        return "\n".join([*told, *(f"- {note}" for note in self.notes)])

    def write(self, path: Path) -> None:
        """A list of rows, each with the machine, the versions and the settings it was measured under."""
        under = {"machine": machine(), "settings": self.settings}
        rows = [
            {"name": r.name, "value": r.value, "unit": r.unit, "spread": round(r.spread, 4), "ratio_to": r.ratio_to}
            | under
            for r in self.rows
        ]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def _cells(row: Row) -> str:
    ratios = ", ".join(f"{ratio:.2f} x {name}" for name, ratio in row.ratio_to.items())
    return f"| {row.name} | {figure(row.value)} | {row.unit} | {row.spread:.0%} | {ratios} |"


def figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


_LOAD_AT_BEGIN: Final = os.getloadavg()


def machine() -> dict[str, str]:
    """What the figures depend on, the load by others included."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        named = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = named[0] if named else model
    return {
        "machine": f"{model}, {os.cpu_count()} cores, {platform.system()} {platform.release()}",
        "load before (1, 5, 15 min)": " ".join(f"{load:.2f}" for load in _LOAD_AT_BEGIN),
        "versions": ", ".join(
            (
                f"Python {platform.python_version()}",
                *(f"{name} {version(name)}" for name in _LIBRARIES),
                f"Apache Kafka {KAFKA_VERSION}",
            )
        ),
    }


# --- in this process -----------------------------------------------------------------------------------------------


class Case(NamedTuple):
    """A thing to time: `prepare` makes, untimed, what is then run once. `events`: how many one run takes."""

    name: str
    events: int
    prepare: Callable[[], Callable[[], object]]


def collector_as_in_the_worker() -> None:
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def microseconds(case: Case) -> float:
    """CPU microseconds per event."""
    run = case.prepare()
    collector_as_in_the_worker()
    began = time.process_time()
    run()
    seconds = time.process_time() - began
    del run
    gc.unfreeze()
    return seconds / case.events * 1e6


# --- in a process of its own ---------------------------------------------------------------------------------------


class Build(NamedTuple):
    """A form of the program: `suffix` ends the names of its rows; a process in the directory `room` imports it."""

    suffix: str
    room: Path


PURE: Final = Build("", compiled_wheel.ROOT)


def compiled(room: Path) -> Build:
    """Build the compiled form and lay it open in `room`, anew.

    Raises:
        RuntimeError: that failed, or what is imported from there is not compiled.
    """
    compiled_wheel.lay_open(room)
    asked = [sys.executable, "-m", "processor", "--version"]
    told = subprocess.run(asked, cwd=room, capture_output=True, text=True, check=True).stdout
    if "compiled" not in told:
        raise RuntimeError(f"{room}: {told}")
    return Build(" (compiled)", room)


@dataclass(frozen=True, slots=True)
class Run:
    """What one process took, from its first record to its last. `more`: what else it said at the end."""

    events: int
    cpu_s: float
    wall_s: float
    broker_cpu_s: float
    rss_bytes: int
    more: dict[str, float]

    @property
    def per_cpu_s(self) -> float:
        return self.events / self.cpu_s

    @property
    def per_s(self) -> float:
        return self.events / self.wall_s

    @property
    def broker_us(self) -> float:
        """Broker CPU per event, in microseconds."""
        return self.broker_cpu_s / self.events * 1e6


def child(
    module: str, *arguments: str, env: dict[str, str] | None = None, build: Build = PURE
) -> subprocess.Popen[str]:
    """Start a module of this package as a process that is measured."""
    log = Path("build", "bench", f"{module.rpartition('.')[2]}.log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as stderr:
        return subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=build.room,
            env=os.environ | (env or {}),
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )


def follow(process: subprocess.Popen[str], broker: Broker | None, patience_s: float = _CHILD_S) -> Run:
    """Read what the process says of its lap, and the broker's CPU beside it (0 where there is none).

    Raises:
        RuntimeError: it ended, or said nothing for long, before its lap was done.
    """
    assert process.stdout is not None
    broker_before = 0.0
    patience = threading.Timer(patience_s, process.kill)
    patience.start()
    try:
        for text in process.stdout:
            said = json.loads(text)
            if said.pop("at") == "begin":
                broker_before = broker.cpu_seconds() if broker is not None else 0.0
                continue
            return Run(
                said.pop("events"),
                said.pop("cpu_s"),
                said.pop("wall_s"),
                broker.cpu_seconds() - broker_before if broker is not None else 0.0,
                said.pop("rss_bytes"),
                said,
            )
    finally:
        patience.cancel()
    raise RuntimeError(f"{process.args!r}: ended with {process.wait()} before its lap; see build/bench/*.log")


def ended(process: subprocess.Popen[str], within_s: float = 60.0) -> int:
    """Its exit code; killed if it does not end in time."""
    try:
        return process.wait(within_s)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
