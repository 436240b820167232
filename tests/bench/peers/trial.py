"""One process at the job, watched from outside and in the same way whoever it is: by /proc and by the broker.

The lap is from its first record, which it announces, until the group's committed offsets are at the end. So neither
an interpreter's start nor a JVM's is in it; its warming up is.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple, TextIO

from confluent_kafka import ConsumerGroupTopicPartitions

from processor.broker import Broker
from tests import kafka_tools
from tests.bench.load import Expected
from tests.bench.measure import Run
from tests.bench.verdict import Verdict, judge

LOOK_S: Final = 0.05
_END_S: Final = 30.0
_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Contestant:
    """Somebody at the job.

    Args:
        group: the consumer group; every topic of this contestant's own has it in its name.
        topics: where it publishes: by status, and `DEAD`.
        start: begins a process, standard output piped.
    """

    name: str
    exactly_once: bool
    group: str
    topics: Mapping[str, str]
    start: Callable[[], subprocess.Popen[str]]


@dataclass(frozen=True, slots=True)
class Trial:
    """How it went.

    Args:
        run: what it took; None if it was killed on the way or did not finish.
        killed_at: how many events were committed at each kill.
        problem: why it did not finish, or nothing.
    """

    verdict: Verdict
    run: Run | None = None
    killed_at: list[int] = field(default_factory=list)
    problem: str = ""


class _Unfinished(Exception):
    """It ended, or took too long, before the job was done."""


def attempt(
    who: Contestant, broker: Broker, source: str, expected: Expected, *, kills: Sequence[float], patience_s: float
) -> Trial:
    """Let it do the whole job, and judge what came out.

    Args:
        kills: SIGKILL so many seconds after the first record, and start again; once for each.
    """
    group = _Group(broker.bootstrap, who.group, source)
    deadline = time.monotonic() + patience_s
    killed_at: list[int] = []
    problem, begun, done = "", None, None
    process = _Process(who.start(), broker)
    try:
        for after_s in kills:
            process.until(process.first_record.is_set, deadline)
            time.sleep(after_s)
            killed_at.append(expected.events if process.said_end.is_set() else group.committed())
            process.kill()
            process = _Process(who.start(), broker)
            if killed_at[-1] >= expected.events:
                break
        process.until(lambda: process.said_end.is_set() or group.committed() >= expected.events, deadline)
        begun, done = process.begun, process.moment()
        if begun is None and not killed_at:
            raise _Unfinished("did not say when it met its first record")
    except _Unfinished as exc:
        problem = str(exc)
    finally:
        process.end()
    verdict = judge(broker.bootstrap, who.topics, expected)
    run = None
    if begun is not None and done is not None and not killed_at:
        run = Run(
            expected.events,
            done.cpu_s - begun.cpu_s,
            done.at_s - begun.at_s,
            done.broker_cpu_s - begun.broker_cpu_s,
            done.peak_bytes,
            {},
        )
    return Trial(verdict, run, killed_at, problem)


class _Group:
    """How far a consumer group is."""

    def __init__(self, bootstrap: str, group: str, source: str) -> None:
        self._client = kafka_tools.admin(bootstrap)
        self._group, self._source = group, source

    def committed(self) -> int:
        """Offsets summed over the partitions."""
        asked = self._client.list_consumer_group_offsets([ConsumerGroupTopicPartitions(self._group)])
        places = asked[self._group].result(kafka_tools.DEADLINE_S).topic_partitions or []
        return sum(max(0, place.offset) for place in places if place.topic == self._source)


# --- the process and its tree --------------------------------------------------------------------------------------


class _Moment(NamedTuple):
    at_s: float
    cpu_s: float
    peak_bytes: int
    broker_cpu_s: float


class _Process:
    def __init__(self, process: subprocess.Popen[str], broker: Broker) -> None:
        assert process.stdout is not None
        self._process, self._broker = process, broker
        self.begun: _Moment | None = None
        self.first_record, self.said_end = threading.Event(), threading.Event()
        self._listener = threading.Thread(target=self._listen, args=(process.stdout,), name="marks", daemon=True)
        self._listener.start()

    def _listen(self, said: TextIO) -> None:
        """Until it closes its output. Libraries greet and log there, too."""
        for text in said:
            at = None
            with contextlib.suppress(ValueError, TypeError, KeyError):
                at = json.loads(text)["at"]
            if at == "begin" and self.begun is None:
                self.begun = self.moment()
                self.first_record.set()
            elif at == "end":
                self.said_end.set()

    def until(self, reached: Callable[[], bool], deadline: float) -> None:
        """Look now and then.

        Raises:
            _Unfinished: it ended before, or it is `deadline` by the monotonic clock.
        """
        while not reached():
            if self._process.poll() is not None:
                raise _Unfinished(f"ended with {self._process.returncode} before it was done")
            if time.monotonic() > deadline:
                raise _Unfinished("not done in time")
            time.sleep(LOOK_S)

    def moment(self) -> _Moment:
        pids = _tree(self._process.pid)
        cpu_s, peak = sum(map(_cpu_s, pids)), sum(map(_peak_bytes, pids))
        return _Moment(time.monotonic(), cpu_s, peak, self._broker.cpu_seconds())

    def kill(self) -> None:
        for pid in _tree(self._process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        self._listener.join()

    def end(self) -> None:
        """In order, if it can."""
        self._process.terminate()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self.kill()
        self._listener.join(_END_S)


def _tree(pid: int) -> list[int]:
    """The process and its descendants, itself first."""
    found = [pid]
    for parent in found:
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += map(int, children.read_text().split())
    return found


def _cpu_s(pid: int) -> float:
    """User and system, of itself and of the children it has waited for; 0 if it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0.0
    return sum(map(int, stat.rpartition(")")[2].split()[11:15])) / _TICKS


def _peak_bytes(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))
