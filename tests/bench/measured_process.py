"""What a measured process says of itself. Loads next to nothing: what it loads is in the figures."""

from __future__ import annotations

import json
import os
import resource
import time
from pathlib import Path


class MeasuredProcess:
    """For the measured process: say when the first record has come, and when the last is done with."""

    def __init__(self) -> None:
        self._cpu = self._wall = -1.0

    def begin(self) -> None:
        if self._cpu < 0:
            self._say({"at": "begin"})
            self._cpu, self._wall = _cpu_s(), time.perf_counter()

    def end(self, events: int, **more: float) -> None:
        cpu_s, wall_s = _cpu_s() - self._cpu, time.perf_counter() - self._wall
        self._say({"at": "end", "events": events, "cpu_s": cpu_s, "wall_s": wall_s, "rss_bytes": rss_bytes()} | more)

    @staticmethod
    def _say(what: dict[str, object]) -> None:
        print(json.dumps(what), flush=True)  # noqa: T201


def _cpu_s() -> float:
    """CPU time of this process, of those that came of it, and of those that they have waited for."""
    ticks = 0
    parents: dict[int, tuple[int, int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            told = path.read_text().rpartition(")")[2].split()
        except OSError:  # gone by now
            continue
        parents[int(path.parent.name)] = int(told[1]), sum(map(int, told[11:15]))
    for process in parents:
        ancestor = process
        while ancestor in parents and ancestor != os.getpid():
            ancestor = parents[ancestor][0]
        if ancestor == os.getpid() != process:
            ticks += parents[process][1]
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime + ticks / os.sysconf("SC_CLK_TCK")


def peak_bytes() -> int:
    """The most that this process held of real memory; what `getrusage` tells begins with the peak of its parent."""
    told = Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()
    return int(told[0]) * 1024


def rss_bytes() -> int:
    """What this process holds of real memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
