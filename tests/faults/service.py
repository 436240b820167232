"""`run-steps serve` as a process of its own, seen from outside: its log, its pages, its exit code; and its topics.

Every wait has a deadline and says what it waited for, with the end of the process's log.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from processor.audit.replay.command import replay
from processor.audit.replay.options import Options
from processor.audit.report.manifest import Outcome
from processor.config.loading import load
from processor.kafka.client_config import Connection
from processor.simulate import Produced
from processor.simulate.expected import Difference, Expected, compare
from tests.kafka_tools import (
    DEADLINE_S,
    Got,
    Names,
    Sent,
    admin,
    committed,
    create_topics,
    patiently,
    produce,
    read_topic,
)

STATUSES: Final = ("completed", "failed", "cancelled", "expired")
EVENT_ID: Final = "runstep-event-id"

Tables = Mapping[str, Mapping[str, Any]]

_FOR_EVER: Final = {"retention.ms": "-1"}
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")

_USUAL: Final[Tables] = {
    "kafka": {"request_timeout_ms": 5000, "metadata_max_age_ms": 5000, "unavailable_after_s": 60.0},
    "source": {"session_timeout_ms": 6000, "heartbeat_interval_ms": 500, "rebalance_timeout_ms": 15_000},
    "delivery": {"transaction_timeout_ms": 6000, "commit_timeout_s": 6.0, "drain_timeout_s": 10.0},
    # Simulated logs are years old: no clock mark unless a test is about them.
    "steps": {"idle_grace_s": 86_400.0},
    "http": {"port": 0},
    "log": {"format": "json"},
}


def until(what: str, found: Callable[[], Any], deadline_s: float = DEADLINE_S, told: Callable[[], str] = str) -> Any:
    """Ask until the answer is true, and return it."""
    deadline = time.monotonic() + deadline_s
    while not (answer := found()):
        assert time.monotonic() < deadline, f"{what}: not within {deadline_s:g} s\n{told()}"
        time.sleep(0.05)
    return answer


class Page(NamedTuple):
    status: int
    body: str

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Service:
    """A running `serve`. Leave the `with` block and whatever is left of it is killed."""

    def __init__(self, command: Sequence[str], home: Path, name: str) -> None:
        self.log_path = home / f"{name}.log"
        with self.log_path.open("wb") as log:
            # A group of its own: its worker processes can be ended with it, and nothing else.
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    # --- the process ---

    @property
    def pid(self) -> int:
        return self._process.pid

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def send(self, number: int) -> None:
        self._process.send_signal(number)

    def ended(self, deadline_s: float = DEADLINE_S) -> int:
        """Wait for its end; returns the exit code."""
        try:
            return self._process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {deadline_s:g} s\n{self.tail()}") from None

    def terminate(self, deadline_s: float = DEADLINE_S) -> int:
        self.send(signal.SIGTERM)
        return self.ended(deadline_s)

    def workers(self) -> list[int]:
        """The ids of its worker processes, where there are several."""
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                parent = int(stat.read_text().rsplit(")", 1)[1].split()[1])
                if parent == self.pid and b"spawn_main" in (stat.parent / "cmdline").read_bytes():
                    found.append(int(stat.parent.name))
        return sorted(found)

    def cpu_s(self) -> float:
        """Processor time it has used, user and system."""
        user, system = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
        return (int(user) + int(system)) / _TICKS

    def rss_bytes(self) -> int:
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * _PAGE_BYTES

    def peak_rss_bytes(self) -> int:
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no VmHWM: not Linux")

    # --- what it says ---

    def said(self) -> str:
        """All that it wrote that is no log line: the last word of a command."""
        return "\n".join(line for line in self._lines() if not line.startswith("{"))

    def logged(self, event: str, **fields: Any) -> list[dict[str, Any]]:
        """Its log lines of this event with these values."""
        lines = [json.loads(line) for line in self._lines() if line.startswith("{") and line.endswith("}")]
        return [line for line in lines if line["event"] == event and fields.items() <= line.items()]

    def tail(self, lines: int = 30) -> str:
        return "\n".join(self._lines()[-lines:])

    def until_logged(self, event: str, *, times: int = 1, deadline_s: float = DEADLINE_S, **fields: Any) -> None:
        self.until(f"{times} x {event} {fields}", lambda: len(self.logged(event, **fields)) >= times, deadline_s)

    def until_live(self, deadline_s: float = DEADLINE_S) -> Self:
        """Wait until it is assigned and restored, as its own page says."""
        self.until("ready", lambda: self.page("/readyz").status == 200, deadline_s)
        return self

    def until(self, what: str, found: Callable[[], Any], deadline_s: float = DEADLINE_S) -> Any:
        def still() -> Any:
            answer = found()
            assert answer or self.is_alive(), f"{what}: it ended before, exit {self._process.poll()}\n{self.tail()}"
            return answer

        return until(what, still, deadline_s, self.tail)

    def page(self, path: str) -> Page:
        """What a page answers; status 0 while there is nobody to ask."""
        lines = self.logged("listening", worker="front") or self.logged("listening")
        if not lines:
            return Page(0, "")
        try:
            with urllib.request.urlopen(lines[-1]["url"] + path, timeout=60) as answer:
                return Page(answer.status, answer.read().decode())
        except urllib.error.HTTPError as error:
            return Page(error.code, error.read().decode())
        except OSError:
            return Page(0, "")

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples with these labels."""
        total = 0.0
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        for line in self.page("/metrics").body.splitlines():
            sample, _, value = line.rpartition(" ")
            if sample.partition("{")[0] == name and all(label in sample for label in wanted):
                total += float(value)
        return total

    def _lines(self) -> list[str]:
        return self.log_path.read_text(errors="replace").splitlines()


class Stage:
    """The topics and the group of one test on one broker, and processes that serve them.

    Args:
        kafka: the `[kafka]` table, where it is more than the address.
    """

    def __init__(
        self,
        bootstrap: str,
        names: Names,
        home: Path,
        *,
        partitions: int = 2,
        make: bool = True,
        source: Mapping[str, str] | None = None,
    ) -> None:
        self.bootstrap, self.names, self.home, self.partitions = bootstrap, names, home, partitions
        self.source, self.dead_letter = names.topic("in"), names.topic("dead")
        self.checkpoints = f"{self.source}.checkpoints"
        self.outcomes = {status: names.topic(status) for status in STATUSES}
        self.group = names.group
        self.dead_letter_max_bytes = _room(source) + (64 << 10)
        self._served = 0
        if make:
            create_topics(bootstrap, self.source, partitions=partitions, config={**_FOR_EVER, **(source or {})})
            create_topics(bootstrap, *self.outcomes.values(), partitions=2, config=_FOR_EVER)
            create_topics(
                bootstrap, self.dead_letter, config={**_FOR_EVER, "max.message.bytes": str(self.dead_letter_max_bytes)}
            )
            compacted = {"cleanup.policy": "compact", "max.message.bytes": str(80 << 20)}
            create_topics(bootstrap, self.checkpoints, partitions=partitions, config=compacted)

    # --- serving ---

    def tables(self, changes: Tables | None = None) -> dict[str, dict[str, Any]]:
        """The settings: usual for tests, this stage's own, and the changes."""
        own: Tables = {
            "kafka": {"bootstrap_servers": self.bootstrap},
            "source": {"topic": self.source, "group_id": self.group},
            "output": {**self.outcomes, "dead_letter": self.dead_letter},
        }
        merged: dict[str, dict[str, Any]] = {}
        for tables in (_USUAL, own, changes or {}):
            for section, keys in tables.items():
                merged.setdefault(section, {}).update(keys)
        return merged

    def serve(
        self,
        changes: Tables | None = None,
        *,
        workers: int = 1,
        create_topics: bool = False,
        options: Sequence[str] = (),
        program: Sequence[str] = (sys.executable,),
    ) -> Service:
        self._served += 1
        config = self.home / f"{self.names.prefix}-{self._served}.toml"
        config.write_text(toml(self.tables(changes)))
        command = [*program, "-m", "processor", "serve", "--config", str(config), "--workers", str(workers)]
        if create_topics:
            command.append("--create-topics")
        command += options
        return Service(command, self.home, config.stem)

    # --- what goes in ---

    def put(self, records: Iterable[Produced]) -> None:
        """Produce, in order, and wait for every acknowledgement."""
        sent = (Sent(r.value, r.key, r.headers, r.timestamp, r.partition) for r in records)
        produce(self.bootstrap, self.source, sent)

    def say(self, *values: bytes | None, **changes: Any) -> None:
        """Produce these values on partition 0, with the time of now."""
        options: dict[str, Any] = {"key": b"run_1", "partition": 0} | changes
        produce(self.bootstrap, self.source, [Sent(value, **options) for value in values])

    def say_due(self, step_id: str, in_s: int) -> int:
        """Produce a step's creation on partition 0; returns the second in which it expires."""
        record, due_s = due_soon(step_id, in_s)
        produce(self.bootstrap, self.source, [record])
        return due_s

    # --- what comes out ---

    def published(self, *statuses: str) -> list[Got]:
        return [got for s in statuses or STATUSES for got in read_topic(self.bootstrap, self.outcomes[s])]

    def letters(self) -> list[Got]:
        return read_topic(self.bootstrap, self.dead_letter)

    def kept(self) -> dict[bytes | None, bytes | None]:
        """The checkpoints in force: key -> latest value."""
        return {got.key: got.value for got in read_topic(self.bootstrap, self.checkpoints)}

    def committed(self) -> dict[int, int]:
        return {p: offset for p, (offset, _) in committed(self.bootstrap, self.group, self.source).items()}

    def resume_points(self) -> dict[int, dict[str, Any]]:
        """The metadata beside the committed offsets."""
        found = committed(self.bootstrap, self.group, self.source)
        return {partition: json.loads(text) for partition, (_, text) in found.items() if text}

    def replayed(self, changes: Tables | None = None, **how: Any) -> Outcome:
        """What a replay of the whole source topic finds of all that was published."""
        config = self.home / f"{self.names.prefix}-replay.toml"
        config.write_text(toml(self.tables(changes)))
        settings = load(config, {})
        options = Options(end="end", workers=1, **how)
        replayed = replay(options, settings, lambda: Connection.build(**settings.kafka.connection()), lambda _: None)
        return replayed.verdict

    def members(self) -> int:
        client = admin(self.bootstrap)

        def ask() -> int:
            described = client.describe_consumer_groups([self.group], request_timeout=20)[self.group]
            return len(described.result(30).members)

        return patiently(ask)

    def differences(self, expected: Expected) -> list[Difference]:
        topics = {topic: status for status, topic in self.outcomes.items()}
        return compare(expected, self.published(), self.letters(), topics)

    def until_done(self, records: Sequence[Produced], service: Service, deadline_s: float = DEADLINE_S) -> None:
        """Wait until the group has committed all of these records."""
        counts: dict[int, int] = {}
        for record in records:
            counts[record.partition] = counts.get(record.partition, 0) + 1

        def done() -> bool:
            now = self.committed()
            return all(now.get(partition, 0) >= count for partition, count in counts.items())

        service.until(f"all of {len(records)} records committed", done, deadline_s)

    def until_equal(self, expected: Expected, deadline_s: float = DEADLINE_S) -> None:
        """Wait until what came out is what must come out. What came twice, or ought not to be, no waiting mends."""
        deadline = time.monotonic() + deadline_s
        while found := self.differences(expected):
            beyond_help = [d for d in found if d.kind not in ("missing", "dead_letter_missing")]
            assert not beyond_help, f"{len(beyond_help)} differences, first: {beyond_help[0]}"
            assert time.monotonic() < deadline, f"{len(found)} missing after {deadline_s:g} s, first: {found[0]}"
            time.sleep(0.1)


def toml(tables: Tables) -> str:
    """The few kinds of values that settings have are spelled in TOML as in JSON."""
    lines = []
    for section, keys in tables.items():
        lines += [f"[{section}]", *(f"{key} = {json.dumps(value)}" for key, value in keys.items())]
    return "\n".join(lines) + "\n"


def event(name: str, data: Mapping[str, Any]) -> bytes:
    return json.dumps({"event": name, "data": data}).encode()


def created(step_id: str, **fields: Any) -> bytes:
    return event("thread.run.step.created", _step(step_id, "in_progress", fields))


def due_soon(step_id: str, in_s: int) -> tuple[Sent, int]:
    """The creation of a step on partition 0 that expires `in_s` seconds later, and that second.

    The record has the time that the deadline was reckoned from: with the time at which it is sent, the deadline might
    have passed before, and such a one counts for nothing (L7a).
    """
    now_s = int(time.time())
    due_s = now_s + in_s
    return Sent(created(step_id, expires_at=due_s), b"run_1", timestamp=now_s * 1000, partition=0), due_s


def ended(step_id: str, status: str = "completed", **fields: Any) -> bytes:
    return event(f"thread.run.step.{status}", _step(step_id, status, fields))


def delta(step_id: str, arguments: str) -> bytes:
    calls = [{"index": 0, "type": "function", "function": {"arguments": arguments}}]
    details = {"type": "tool_calls", "tool_calls": calls}
    return event(
        "thread.run.step.delta",
        {"id": step_id, "object": "thread.run.step.delta", "delta": {"step_details": details}},
    )


def _step(step_id: str, status: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": step_id,
        "object": "thread.run.step",
        "run_id": "run_1",
        "thread_id": "thread_1",
        "status": status,
        "type": "tool_calls",
        **fields,
    }


def _room(source: Mapping[str, str] | None) -> int:
    return int((source or {}).get("max.message.bytes", 1 << 20))
