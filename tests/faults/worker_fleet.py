"""Worker processes as an operator runs them, a load upon them, and witnesses that watch from outside.

The workers know nothing of the tests: they get settings by environment and signals, and show pages and a log. The
witnesses are threads on confluent-kafka: a reader downstream, and a look at the group's offsets. A thread's error is
raised by its `close`. Every wait has a deadline and says what it waited for.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from confluent_kafka import (
    Consumer,
    ConsumerGroupState,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)
from confluent_kafka import Producer as ConfluentProducer
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from processor.config.settings import NOT_SETTINGS, PREFIX
from processor.simulate import Produced, Simulation
from processor.simulate.expected import compare
from tests import kafka_tools as kt
from tests.kafka_tools import Got, Names

SESSION_S: Final = 3.0
START_S: Final = 120.0
"""For a process to import, to join and to be ready on a busy machine."""
WAIT_S: Final = 180.0
"""For what takes a moment where nothing is wrong, and longer on a busy machine. No promise of ours."""
_STALE_S: Final = 10.0
_LOG_LINES: Final = 12
_CHATTER: Final = ("records_rejected", "log_lines_held_back", "Got error produce response")
_ENDS: Final = ("completed", "failed", "cancelled", "expired")


def eventually(what: str, is_so: Callable[[], Any], within_s: float, every_s: float = 0.02) -> Any:
    """Wait until `is_so` returns something true, and return that."""
    deadline = time.monotonic() + within_s
    while not (found := is_so()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_s:g} s: {what}")
        time.sleep(every_s)
    return found


@dataclass(frozen=True, slots=True)
class Topics:
    """One processor's topics, and its group."""

    bootstrap: str
    group: str
    source: str
    dead_letter: str
    outcomes: Mapping[str, str]
    """Topic -> status."""
    partitions: int

    @property
    def checkpoints(self) -> str:
        return f"{self.source}.checkpoints"

    @classmethod
    def create(
        cls, bootstrap: str, names: Names, partitions: int, replicas: int = 1, *, mirrored: Collection[str] = ()
    ) -> Topics:
        """Create the topics, with partitions enough to be told apart and few enough to be cheap.

        Args:
            mirrored: those that a mirror makes, and not we.
        """
        make = partial(kt.create_topics, bootstrap, replicas=replicas)
        outcomes = {names.topic(end): end for end in _ENDS}
        topics = cls(bootstrap, names.group, names.topic("in"), names.topic("dead"), outcomes, partitions)
        # The simulated clock lies far back: what it dates would be deleted at once.
        kept = {"retention.ms": "-1"}
        roomy = kept | {"max.message.bytes": "1100000"}
        compacted = kept | {"cleanup.policy": "compact", "max.message.bytes": "70000000"}
        bounded = kept | {"max.message.bytes": "1000000"}
        for name, count, config in (
            (topics.source, partitions, bounded),
            *((name, 3, roomy) for name in (*outcomes, topics.dead_letter)),
            (topics.checkpoints, partitions, compacted),
        ):
            if name not in mirrored:
                make(name, partitions=count, config=config)
        return topics

    def settings(self) -> dict[str, str]:
        by_status = {f"output.{status}": topic for topic, status in self.outcomes.items()}
        return {
            "kafka.bootstrap_servers": self.bootstrap,
            "source.topic": self.source,
            "source.group_id": self.group,
            "output.dead_letter": self.dead_letter,
            **by_status,
        }


# --- workers -------------------------------------------------------------------------------------------------------


class Process:
    """One `serve`: a process, its log and its pages."""

    def __init__(
        self,
        label: str,
        environment: Mapping[str, str],
        log_path: Path,
        module: str = "processor",
        program: Sequence[str] = (sys.executable,),
    ) -> None:
        self.label, self.log_path = label, log_path
        self.began = time.monotonic()
        self.is_stopped = False
        with log_path.open("wb") as log:
            self._popen = subprocess.Popen(
                [*program, "-m", module, "serve"], env=dict(environment), stdout=log, stderr=log
            )
        self._url = ""

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        return self._popen.poll()

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self._popen.kill()
        self._popen.wait(WAIT_S)

    def freeze(self) -> None:
        """SIGSTOP; returns when the kernel says that it stands."""
        self._popen.send_signal(signal.SIGSTOP)
        eventually("the process stands", lambda: self._kernel_state() == "T", WAIT_S, every_s=0.001)
        self.is_stopped = True

    def thaw(self) -> None:
        """SIGCONT."""
        self._popen.send_signal(signal.SIGCONT)
        self.is_stopped = False

    def terminate(self) -> None:
        """SIGTERM; see `ended`."""
        self._popen.terminate()

    def ended(self, within_s: float) -> int:
        """Wait for its end and return the exit code."""
        try:
            return self._popen.wait(within_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"worker {self.label}: still running {within_s:g} s after SIGTERM") from None

    def log(self, *events: str) -> list[dict[str, Any]]:
        """Its log lines, or only those of the named events."""
        found = []
        for line in self.log_path.read_text(errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                entry = json.loads(line)
                if isinstance(entry, dict) and (not events or entry.get("event") in events):
                    found.append(entry)
        return found

    def tail(self) -> str:
        lines = self.log_path.read_text(errors="replace").splitlines()
        lines = [line for line in lines if not any(event in line for event in _CHATTER)][-_LOG_LINES:]
        return "\n".join(f"  {line[:400]}" for line in lines) or "  (it said nothing)"

    def is_ready(self) -> bool:
        """Whether /readyz says so."""
        if self._popen.poll() is not None:
            raise AssertionError(f"worker {self.label}: ended with {self._popen.returncode}")
        return self._get("/readyz") is not None

    def metrics(self) -> dict[str, float]:
        """Series as written on /metrics -> value. Empty while it does not answer."""
        text = self._get("/metrics")
        rows = (line.rpartition(" ") for line in (text or "").splitlines() if line and not line.startswith("#"))
        return {series: float(value) for series, _, value in rows}

    def status(self, path: str) -> int:
        """The status of a page; 0: no answer."""
        if not self._url:
            self._get(path)
        try:
            with urllib.request.urlopen(self._url + path, timeout=3) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as refusal:
            refusal.close()
            return refusal.code
        except (OSError, ValueError):
            return 0

    def has_socket(self, port: int) -> bool:
        """Whether one of its connections has this port at its own end."""
        with contextlib.suppress(OSError):
            rows = [line.split() for line in Path(f"/proc/{self.pid}/net/tcp").read_text().splitlines()[1:]]
            sockets = {f"socket:[{row[9]}]" for row in rows if int(row[1].rpartition(":")[2], 16) == port}
            for descriptor in Path(f"/proc/{self.pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    if os.readlink(descriptor) in sockets:
                        return True
        return False

    def _get(self, path: str) -> str | None:
        """The page, or None while it answers otherwise than 200, or not at all."""
        if not self._url:
            self._url = next((line["url"] for line in self.log("listening")), "")
        if not self._url:
            return None
        try:
            with urllib.request.urlopen(self._url + path, timeout=5) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as refusal:
            refusal.close()
            return None
        except OSError:
            return None

    def _kernel_state(self) -> str:
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]


class Fleet:
    """All processes that a test starts. Leaving the block ends them; a failure carries their last log lines."""

    def __init__(self, topics: Topics, home: Path, **settings: str) -> None:
        self.topics = topics
        self.all: list[Process] = []
        self._home = home
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(PREFIX) or k in NOT_SETTINGS}
        wanted = {
            **topics.settings(),
            "source.session_timeout_ms": f"{SESSION_S * 1000:.0f}",
            "source.heartbeat_interval_ms": "500",
            # Simulated deadlines lie in the past: a clock mark would end steps whose events are still to come.
            "steps.idle_grace_s": "3600",
            "checkpoints.interval_s": "2",
            "supervisor.max_restarts": "100",
            "http.port": "0",
            "log.format": "json",
            **{key.replace("__", "."): value for key, value in settings.items()},
        }
        own = {f"{PREFIX}{key.upper().replace('.', '__')}": value for key, value in wanted.items()}
        self.environment = inherited | own

    @property
    def running(self) -> list[Process]:
        return [process for process in self.all if process.exit_code is None]

    def start(
        self,
        count: int = 1,
        environment: Mapping[str, str] | None = None,
        module: str = "processor",
        program: Sequence[str] = (sys.executable,),
    ) -> list[Process]:
        """Start processes, with more in their environment if need be; they join in their own time.

        Args:
            program: the Python to run, with its options; another one has another version of the module.
        """
        started = []
        for _ in range(count):
            label = str(len(self.all))
            log_path = self._home / f"worker-{label}.log"
            process = Process(label, self.environment | dict(environment or {}), log_path, module, program)
            self.all.append(process)
            started.append(process)
        return started

    def await_ready(self, within_s: float = START_S) -> None:
        """Wait until those that run own all partitions between them, restored."""

        def settled() -> bool:
            live = [p for p in self.running if not p.is_stopped]
            owned = [p.metrics().get("runstep_partitions_assigned", 0) for p in live if p.is_ready()]
            return len(owned) == len(live) and sum(owned) == self.topics.partitions

        eventually("all partitions are owned and restored", settled, within_s, every_s=0.1)

    def stop(self, within_s: float = WAIT_S) -> None:
        """End all that run in an orderly way, and see that it was one."""
        live = self.running
        for process in live:
            process.terminate()
        for process in live:
            assert process.ended(within_s) == 0, f"worker {process.label}: exit {process.exit_code} on SIGTERM"

    def lag(self) -> dict[str, float]:
        """Lag by partition and mark, as the workers' pages show it."""
        found: dict[str, float] = {}
        for process in self.running:
            found |= {k: v for k, v in process.metrics().items() if k.startswith("runstep_lag_records")}
        return found

    def await_no_lag(self, within_s: float) -> None:
        """Wait until the pages show every partition, against both marks, with a lag of 0."""

        def none() -> bool:
            lag = self.lag()
            return len(lag) == 2 * self.topics.partitions and not any(lag.values())

        try:
            eventually("lag 0 on every partition", none, within_s, every_s=0.2)
        except AssertionError as error:
            error.add_note(f"lag: {self.lag()}")
            raise

    def log(self, *events: str) -> list[dict[str, Any]]:
        """Of all processes, each entry with its `process`."""
        return [entry | {"process": p.label} for p in self.all for entry in p.log(*events)]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self.running:
            process.kill()
        if error is not None:
            for process in self.all[-8:]:
                error.add_note(f"worker {process.label} (exit {process.exit_code}), its last lines:\n{process.tail()}")


# --- threads -------------------------------------------------------------------------------------------------------


class _Thread:
    """A thread with a switch. What breaks it is raised by `close`."""

    def __init__(self, name: str) -> None:
        self._end = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._guarded, name=name, daemon=True)

    def start(self) -> Self:
        self._thread.start()
        return self

    @property
    def is_over(self) -> bool:
        return not self._thread.is_alive()

    def close(self, within_s: float = WAIT_S) -> None:
        """End it, and raise what broke it."""
        self._end.set()
        self._thread.join(within_s)
        assert self.is_over, f"{self._thread.name}: still running after {within_s:g} s"
        if self._error is not None:
            raise self._error

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self._end.set()
            self._thread.join(WAIT_S)

    def _guarded(self) -> None:
        try:
            self._work()
        except BaseException as error:
            self._error = error

    def _work(self) -> None:
        raise NotImplementedError


class Load(_Thread):
    """Produces records at a rate, whatever becomes of them: an open loop."""

    def __init__(self, topics: Topics, records: Iterable[Produced], per_second: float) -> None:
        super().__init__("load")
        self._topics, self._records, self._rate = topics, records, per_second
        self.sent = 0
        self.history: list[tuple[float, int, int]] = []
        """(monotonic time, partition, the offset after it) of each record that all replicas have acknowledged."""
        self._is_hurried = False

    def hurry(self) -> None:
        """Produce what is left as fast as it goes."""
        self._is_hurried = True

    def _work(self) -> None:
        producer = ConfluentProducer(
            {
                "bootstrap.servers": self._topics.bootstrap,
                "enable.idempotence": True,
                "linger.ms": 5,
                "log_level": 2,
                # A broker that hangs is to stop the workers, not the load.
                "request.timeout.ms": 3000,
                "socket.timeout.ms": 4000,
                # A broker of ZooKeeper's days that has just started knows no topics for a moment.
                "topic.metadata.propagation.max.ms": 600_000,
            }
        )
        failures: list[KafkaError] = []

        def note(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                failures.append(error)
                return
            offset = message.offset()
            if offset is not None:  # it has none where the answer to a repeated request does not say it
                self.history.append((time.monotonic(), kt._known(message.partition()), offset + 1))

        began = time.monotonic()
        for record in self._records:
            if self._end.is_set():
                break
            ahead_s = self.sent / self._rate - (time.monotonic() - began)
            if ahead_s > 0.02 and not self._is_hurried:
                self._end.wait(ahead_s)
            while True:
                try:
                    producer.produce(
                        self._topics.source,
                        value=record.value,
                        key=record.key,
                        partition=record.partition,
                        headers=list(record.headers),
                        timestamp=record.timestamp,
                        on_delivery=note,
                    )
                    break
                except BufferError:
                    producer.poll(0.1)
            producer.poll(0)
            self.sent += 1
        left = producer.flush(WAIT_S)
        assert not failures, f"load: {failures[0]}"
        assert left == 0, f"load: {left} records not acknowledged"


class Downstream(_Thread):
    """A concurrent `read_committed` reader of all that is published, which notes each thing as it sees it.

    `is_patient`: trouble with brokers is waited out, not raised.
    """

    def __init__(self, topics: Topics, *, is_patient: bool = False) -> None:
        super().__init__("downstream")
        self._topics, self._is_patient = topics, is_patient
        self.published: list[Got] = []
        self.dead_letters: list[Got] = []
        self.twice: list[str] = []
        self.disordered: list[str] = []
        self.seen: dict[tuple[str, int], Got] = {}
        self.came_at: dict[tuple[str, int], float] = {}

    def _work(self) -> None:
        topics = self._topics
        consumer = Consumer(
            {
                "bootstrap.servers": topics.bootstrap,
                "group.id": "downstream-never-commits",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "auto.offset.reset": "error",
                "fetch.wait.max.ms": 50,
                "log_level": 2,
            }
        )
        try:
            known = kt.patiently(lambda: consumer.list_topics(timeout=20)).topics
            names = [*topics.outcomes, topics.dead_letter]
            consumer.assign([TopicPartition(name, p, 0) for name in names for p in known[name].partitions])
            latest: dict[tuple[str, str], int] = {}
            while not self._end.is_set():
                for message in consumer.consume(500, timeout=0.1):
                    error = message.error()
                    if error is not None:
                        failure = KafkaException(error)
                        if self._is_patient or kt.is_passing(failure):
                            continue
                        raise failure
                    self._note(kt._got(message), latest)
        finally:
            consumer.close()

    def _note(self, got: Got, latest: dict[tuple[str, str], int]) -> None:
        if got.topic == self._topics.dead_letter:
            self.dead_letters.append(got)
            return
        step, revision = (got.key or b"").decode(), int(got.header("runstep-revision") or b"0")
        if (step, revision) in self.seen:
            self.twice.append(f"{step} revision {revision}: {_place(self.seen[step, revision])} and {_place(got)}")
        # Kafka orders a partition, and a key has one in each topic; between topics a reader may see either first.
        if latest.get((step, got.topic), -1) >= revision:
            self.disordered.append(f"{step} revision {revision} in {_place(got)}, after {latest[step, got.topic]}")
        latest[step, got.topic] = revision
        self.seen[step, revision] = got
        self.came_at[step, revision] = time.monotonic()
        self.published.append(got)


class Offsets(_Thread):
    """Looks at the group's committed offsets all the time. One that decreases is noted as soon as it is seen.

    `is_patient`: trouble with brokers is waited out, not raised; nor is it believed for some seconds that an offset has
    decreased, for a coordinator that hung and goes on answers from what it knew, until it learns that another has its
    part. (Whether one ever did is read from the coordinators' log: `lab.offsets_that_went_back`.)
    """

    def __init__(self, topics: Topics, every_s: float = 0.03, *, is_patient: bool = False) -> None:
        super().__init__("offsets")
        self._topics, self._every_s, self._is_patient = topics, every_s, is_patient
        self.now: dict[int, int] = {}
        self.history: list[tuple[float, dict[int, int]]] = []
        """(monotonic time, offsets), one entry per change."""
        self.decreased: list[str] = []
        self._lower_since: float | None = None

    def _work(self) -> None:
        topics = self._topics
        asked = [TopicPartition(topics.source, p) for p in range(topics.partitions)]
        consumer = Consumer(
            {
                "bootstrap.servers": topics.bootstrap,
                "group.id": topics.group,
                "enable.auto.commit": False,
                "isolation.level": "read_uncommitted",  # else the answer waits for pending transactions
                "log_level": 2,
                "socket.timeout.ms": 3000,  # a broker that hangs must not hold the witness up
            }
        )
        answered = time.monotonic()
        try:
            while not self._end.wait(self._every_s):
                try:
                    answer = consumer.committed(asked, timeout=10)
                except KafkaException as error:
                    silent_s = time.monotonic() - answered
                    if self._is_patient or (kt.is_passing(error) and silent_s < kt.PATIENCE_S):
                        continue
                    raise
                answered = time.monotonic()
                if any(place.error is not None for place in answer):
                    continue
                self._note({place.partition: place.offset for place in answer if place.offset >= 0})
        finally:
            consumer.close()

    def _note(self, offsets: dict[int, int]) -> None:
        lower = {p: before for p, before in self.now.items() if offsets.get(p, -1) < before}
        if lower and self._is_patient:
            self._lower_since = self._lower_since or time.monotonic()
            if time.monotonic() - self._lower_since < _STALE_S:
                return
        self._lower_since = None
        for partition, before in lower.items():
            self.decreased.append(f"partition {partition}: {before}, then {offsets.get(partition, -1)}")
        if offsets != self.now:
            self.now = offsets
            self.history.append((time.monotonic(), offsets))

    def await_beyond(self, marks: Mapping[int, int], within_s: float) -> float:
        """Wait until every one of these partitions has a larger offset; returns when that was (monotonic)."""

        def beyond(offsets: Mapping[int, int]) -> bool:
            return all(offsets.get(partition, -1) > mark for partition, mark in marks.items())

        eventually(f"committed offsets beyond {dict(marks)}", lambda: beyond(self.now), within_s)
        return next(at for at, offsets in self.history if beyond(offsets))

    def await_at(self, ends: Mapping[int, int], within_s: float) -> float:
        """Wait until these offsets are committed; returns when the last of them was (monotonic)."""
        try:
            eventually("the group stands at the end of the log", lambda: self.now == ends, within_s)
        except AssertionError as error:
            error.add_note(f"committed {self.now}, the ends are {dict(ends)}")
            raise
        return self.history[-1][0]

    def applied(self, since: float, until: float) -> int:
        """How far the offsets went in all in that time."""
        sums = [(at, sum(offsets.values())) for at, offsets in self.history]
        return _last(sums, until) - _last(sums, since)

    def longest_partition_pause_s(self, since: float, until: float) -> float:
        """The longest time in which some partition's offset did not move."""
        latest = dict.fromkeys(range(self._topics.partitions), since)
        standing: dict[int, int] = {}
        worst = 0.0
        for at, offsets in list(self.history):
            for partition, offset in offsets.items():
                if offset != standing.get(partition):
                    standing[partition] = offset
                    if since < at < until:
                        worst = max(worst, at - latest[partition])
                        latest[partition] = at
        return max(worst, *(until - at for at in latest.values()))

    def longest_wait_s(self, since: float, until: float, written: Sequence[tuple[float, int, int]]) -> float:
        """The longest time in which some partition's offset did not move though there was something to read.

        Args:
            written: `Load.history`.
        """
        worst = 0.0
        for partition in range(self._topics.partitions):
            ends = [(at, end) for at, where, end in written if where == partition]
            moves, standing = [], -1
            for at, offsets in list(self.history):
                if offsets.get(partition, -1) != standing:
                    standing = offsets.get(partition, -1)
                    moves.append((at, standing))
            before = [move for move in moves if move[0] <= since][-1:] or [(since, 0)]
            after = [move for move in moves if since < move[0] < until]
            for (at, offset), (moved_at, _) in pairwise([*before, *after, (until, -1)]):
                # From when there was more than what was committed; never from before the fault.
                more_at = next((came_at for came_at, end in ends if end > offset), until)
                worst = max(worst, moved_at - max(since, at, more_at))
        return worst

    def moved_since(self, moment: float) -> bool:
        """Whether every partition's offset has moved since then."""
        changes = list(self.history)
        before: dict[int, int] = {}
        moved: set[int] = set()
        for at, offsets in changes:
            for partition, offset in offsets.items():
                if at > moment and offset != before.get(partition, -1):
                    moved.add(partition)
            before = offsets
        return len(moved) == self._topics.partitions

    def longest_pause_s(self, since: float, until: float) -> float:
        """The longest time in which not one offset moved."""
        moments = [since, *(at for at, _ in self.history if since < at < until), until]
        return max(b - a for a, b in pairwise(moments))


def _last(sums: list[tuple[float, int]], at: float) -> int:
    return max((total for when, total in sums if when <= at), default=0)


def _place(got: Got) -> str:
    return f"{got.topic}/{got.partition}@{got.offset}"


# --- the broker's view ---------------------------------------------------------------------------------------------


class Ends:
    """Where logs end: high watermarks and last stable offsets, asked for with one client."""

    def __init__(self, bootstrap: str) -> None:
        self._admin: AdminClient = kt.admin(bootstrap)

    def high_watermarks(self, topic: str, partitions: Iterable[int]) -> dict[int, int]:
        return {p: end for (_, p), end in self._ask({(topic, p) for p in partitions}, committed=False).items()}

    def held_back(self, places: Collection[tuple[str, int]]) -> dict[tuple[str, int], int]:
        """The partitions that an open transaction holds back, each with its last stable offset."""
        stable = self._ask(places, committed=True)  # first: what ends between the two is not open
        high = self._ask(places, committed=False)
        return {place: stable[place] for place in places if stable[place] < high[place]}

    def last_stable(self, places: Collection[tuple[str, int]]) -> dict[tuple[str, int], int]:
        return self._ask(places, committed=True)

    def _ask(self, places: Collection[tuple[str, int]], *, committed: bool) -> dict[tuple[str, int], int]:
        level = IsolationLevel.READ_COMMITTED if committed else IsolationLevel.READ_UNCOMMITTED
        latest: Any = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        asked = {TopicPartition(*place): latest for place in places}

        def ask() -> dict[tuple[str, int], int]:
            answer = self._admin.list_offsets(asked, isolation_level=level, request_timeout=10)
            return {(tp.topic, tp.partition): future.result(20).offset for tp, future in answer.items()}

        return kt.patiently(ask)


def members(bootstrap: str, group: str) -> tuple[ConsumerGroupState, list[str]]:
    """The group's state and its members' client ids."""
    client = kt.admin(bootstrap)
    found = kt.patiently(lambda: client.describe_consumer_groups([group], request_timeout=10)[group].result(20))
    return found.state, sorted(member.client_id for member in found.members)


# --- the verdict ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def watched(topics: Topics) -> Iterator[tuple[Downstream, Offsets]]:
    """Both witnesses, from before the first record to after the last."""
    with Downstream(topics) as downstream, Offsets(topics) as offsets:
        yield downstream, offsets


def finish(
    fleet: Fleet, simulation: Simulation, load: Load, downstream: Downstream, offsets: Offsets, within_s: float
) -> float:
    """Let the workers come to the end of the log, end them, and see that all came out as it must.

    Returns:
        When the last offset was committed (monotonic).
    """
    topics = fleet.topics
    eventually("all records are produced", lambda: load.is_over, within_s)
    load.close()
    ends = Ends(topics.bootstrap).high_watermarks(topics.source, range(topics.partitions))
    done_at = offsets.await_at(ends, within_s)
    fleet.await_no_lag(WAIT_S)
    fleet.stop()
    published = [got for topic in topics.outcomes for got in kt.read_topic(topics.bootstrap, topic)]
    letters = kt.read_topic(topics.bootstrap, topics.dead_letter)
    differences = compare(simulation.expected, published, letters, dict(topics.outcomes))
    kinds = Counter(difference.kind for difference in differences)
    assert not differences, f"{dict(kinds)}: {[str(d) for d in differences[:5]]}; twice: {downstream.twice[:5]}"
    # The concurrent reader saw the very same, each once and in order, while it happened.
    eventually(
        "the reader downstream has seen all",
        lambda: len(downstream.published) >= len(published) and len(downstream.dead_letters) >= len(letters),
        WAIT_S,
    )
    assert downstream.twice == []
    assert downstream.disordered == []
    assert sorted(downstream.published, key=_place) == sorted(published, key=_place)
    assert sorted(downstream.dead_letters, key=_place) == sorted(letters, key=_place)
    assert offsets.decreased == []
    assert offsets.now == ends
    return done_at
