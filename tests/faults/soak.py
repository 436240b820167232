"""Hours of load, kills, freezes and pauses upon one worker that stays: `python -m tests.faults.soak --hours 8`.

The worker's memory, descriptors, threads and asyncio tasks are sampled; none may have a slope. Everything that comes
out is judged as in every other scenario. Prints the table, keeps it and the samples as JSON; exit 1 if not right.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final, NamedTuple

from tests.faults.__main__ import table
from tests.faults.cluster import Cluster
from tests.faults.counted import VARIABLE
from tests.faults.lab import Scene, Tally
from tests.faults.proxy import Action, Api, Proxy
from tests.faults.worker_fleet import Process

_ROOT: Final = Path(__file__).parents[2]
_WARM_SHARE: Final = 0.25
"""Of the time: what a process fills in its first minutes is no leak."""
BOUNDS_PER_HOUR: Final[Mapping[str, float]] = {"rss_mb": 4.0, "descriptors": 1.0, "threads": 0.5, "tasks": 1.0}
"""A slope that is larger, twice its standard error taken off, is a leak."""


class Sample(NamedTuple):
    """What the worker holds at one moment."""

    at_s: float
    rss_mb: float
    descriptors: int
    threads: int
    tasks: int


def sample(process: Process, began: float, tasks_path: Path) -> Sample:
    """Look at it from outside."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    figures = {name: int(re.search(rf"^{name}:\s+(\d+)", status, re.MULTILINE)[1]) for name in ("VmRSS", "Threads")}  # type: ignore[index]
    counted = tasks_path.read_text().split() if tasks_path.exists() else []
    return Sample(
        round(time.monotonic() - began, 1),
        figures["VmRSS"] / 1024,
        len(os.listdir(f"/proc/{process.pid}/fd")),
        figures["Threads"],
        int(counted[-1]) if counted else -1,
    )


def slope_per_hour(samples: Sequence[Sample], figure: str) -> tuple[float, float]:
    """The slope of a figure, by least squares, and its standard error."""
    points = [(s.at_s / 3600, float(getattr(s, figure))) for s in samples if getattr(s, figure) >= 0]
    if len(points) < 3:
        return 0.0, math.inf
    mean_x, mean_y = (sum(axis) / len(points) for axis in zip(*points, strict=True))
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread
    rest = sum((y - mean_y - slope * (x - mean_x)) ** 2 for x, y in points)
    return slope, math.sqrt(rest / (len(points) - 2) / spread)


def leaks(samples: Sequence[Sample]) -> list[str]:
    """The figures that grow."""
    warm = samples[int(len(samples) * _WARM_SHARE) :]
    found = []
    for figure, bound in BOUNDS_PER_HOUR.items():
        slope, error = slope_per_hour(warm, figure)
        if slope - 2 * error > bound:
            found.append(f"{figure} grows by {slope:.1f} an hour (standard error {error:.1f}, bound {bound:g})")
    return found


def soak(
    cluster: Cluster,
    home: Path,
    tally: Tally,
    seconds: float,
    per_second: float = 250,
    samples: list[Sample] | None = None,
) -> None:
    """The scenario; adds to the samples, which are there whatever breaks it."""
    settings = {"self_audit.enabled": "true", "self_audit.steps_per_minute": "60"}
    tasks_path = home / "tasks"
    samples = [] if samples is None else samples
    with Scene(cluster, home, tally, is_patient=True, settings=settings) as scene:
        (kept,) = scene.fleet.start(1, {VARIABLE: str(tasks_path)}, "tests.faults.counted")
        scene.fleet.start(2)
        scene.fleet.await_ready()
        scene.begin(per_second)
        rng, node, began = scene.rng, cluster.nodes[0], time.monotonic()
        told: Counter[str] = Counter()
        while time.monotonic() - began < seconds:
            time.sleep(rng.uniform(4, 12))
            at = time.monotonic()
            others = [process for process in scene.fleet.running if process is not kept]
            kind = rng.choice(("kill", "kill", "term", "freeze", "pause", "broker kill", "late", "cut"))
            if kind == "kill":
                rng.choice(others).kill()
            elif kind == "term":
                rng.choice(others).terminate()
            elif kind == "freeze":
                process = rng.choice(scene.fleet.running)
                process.freeze()
                time.sleep(rng.choice((2, 9)))
                process.thaw()
            elif kind == "pause":
                node.pause()
                time.sleep(rng.uniform(2, 12))
                node.resume()
            elif kind == "broker kill":
                node.kill()
                time.sleep(rng.uniform(0, 5))
                node.launch()
                node.await_ready()
            else:
                apis = (Api.TXN_OFFSET_COMMIT, Api.END_TXN, Api.PRODUCE, Api.FETCH, Api.HEARTBEAT, Api.OFFSET_FETCH)
                action = Action.LATE if kind == "late" else rng.choice((Action.CUT_AFTER, Action.DROP_ANSWER))
                scene.proxy.arm(rng.choice(apis), action, seconds=round(rng.uniform(0.02, 3), 3), lasts_s=5)
            told[kind] += 1
            tally.faults += 1
            scene.keep_up(3)
            scene.until_moving(at)
            if kept.exit_code is not None:
                tally.problems.append(f"the worker that stays ended: {kept.exit_code}: {kept.tail()[-300:]}")
                break
            samples.append(sample(kept, began, tasks_path))
        tally.rounds += 1
        tally.notes.append(str(dict(told)))
        tally.problems += leaks(samples)
        for figure in BOUNDS_PER_HOUR:
            slope, error = slope_per_hour(samples[int(len(samples) * _WARM_SHARE) :], figure)
            first, last = (getattr(samples[i], figure) for i in (0, -1)) if samples else (0, 0)
            tally.notes.append(
                f"{figure}: {first:.0f} -> {last:.0f}, {slope:+.2f} an hour (standard error {error:.2f})"
            )
        scene.judge(150)


def main(arguments: Sequence[str] | None = None) -> int:
    """Soak, print, keep; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak")
    parser.add_argument("--hours", type=float, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--per-second", type=float, default=250, help="records")
    parser.add_argument("--work", type=Path, help="where logs and data go; kept (default: a temporary directory)")
    parser.add_argument("--json", type=Path, default=_ROOT / "build" / "soak.json", dest="report")
    given = parser.parse_args(arguments)
    home = given.work or Path(tempfile.mkdtemp(prefix="run-steps-soak-"))
    tally, samples = Tally("soak", given.seed), list[Sample]()
    with Proxy(home / "faults.jsonl") as proxy, Cluster(home / "kafka", proxy=proxy) as cluster:
        try:
            soak(cluster, home / "fleet", tally, given.hours * 3600, given.per_second, samples)
        except Exception as error:  # hours of samples are to be kept all the same
            tally.problems.append(f"the soak broke: {type(error).__name__}: {error}")
            traceback.print_exc()
    given.report.parent.mkdir(parents=True, exist_ok=True)
    found = asdict(tally) | {"hours": given.hours, "samples": [each._asdict() for each in samples]}
    given.report.write_text(json.dumps(found, indent=1) + "\n")
    sys.stdout.write(table([tally]) + "".join(f"{line}\n" for line in [*tally.notes, *tally.problems]))
    sys.stdout.write(f"logs: {home}; kept: {given.report}\n")
    return 0 if tally.is_right else 1


if __name__ == "__main__":
    sys.exit(main())
