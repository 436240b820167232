"""What every scenario of the lab is made of: a fleet upon a cluster, a load, witnesses, and a count of what went wrong.

A scenario does not assert: it counts, so that a long run tells all that it saw. `Tally.require_right` asserts, for the
short forms. Nothing that judges is code of the worker's: the expectation is the simulator's, the readers are
confluent-kafka, the offsets are decoded from the group coordinator's own log. (The replay's verdict is one more word.)
"""

from __future__ import annotations

import contextlib
import random
import struct
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import msgspec

from processor.core.headers import (
    EVENT_NUMBER,
    FIRST_OFFSET,
    REASON,
    REVISION,
    SOURCE_OFFSET,
    SOURCE_PARTITION,
    VERSION,
)
from processor.simulate import Parameters, Produced, Simulation, _Play
from processor.simulate.expected import Difference, Expected, compare
from tests import kafka_tools as kt
from tests.faults.audit_check import prove, replayed
from tests.faults.cluster import Cluster
from tests.faults.proxy import Proxy
from tests.faults.recovery import recoveries
from tests.faults.worker_fleet import (
    START_S,
    WAIT_S,
    Downstream,
    Ends,
    Fleet,
    Load,
    Offsets,
    Process,
    Topics,
    eventually,
)
from tests.kafka_tools import Got, Names, Sent

_MOVES_S: Final = 1.5


@dataclass
class Tally:
    """What a scenario did and what came of it."""

    scenario: str
    seed: int
    rounds: int = 0
    faults: int = 0
    records: int = 0
    lost: int = 0
    """Steps and dead letters that never came out."""
    doubled: int = 0
    """Steps and dead letters that came out twice."""
    wrong: int = 0
    """Whatever else came out otherwise than it must."""
    recoveries_s: list[float] = field(default_factory=list)
    """After each fault, the longest time in which a partition's committed offset did not move."""
    problems: list[str] = field(default_factory=list)
    """An offset that went back, a worker that did not end, a replay that does not agree, and the like."""
    notes: list[str] = field(default_factory=list)
    """Figures that are neither right nor wrong."""
    home: str = ""
    """Where the logs are."""

    @property
    def is_right(self) -> bool:
        return not (self.lost or self.doubled or self.wrong or self.problems)

    def recovery_s(self, quantile: float) -> float | None:
        ordered = sorted(self.recoveries_s)
        return ordered[min(len(ordered) - 1, int(len(ordered) * quantile))] if ordered else None

    def count(self, differences: Iterable[Difference]) -> None:
        """Count what was published otherwise than the simulator expects."""
        found = list(differences)
        kinds = Counter(difference.kind for difference in found)
        self.notes += [str(difference)[:300] for difference in found[:5]]
        self.lost += kinds.pop("missing", 0) + kinds.pop("dead_letter_missing", 0)
        self.doubled += kinds.pop("twice", 0) + kinds.pop("dead_letter_extra", 0)
        self.wrong += sum(kinds.values())

    def require_right(self) -> None:
        """For the short forms."""
        told = (
            f"{self.faults} faults, {self.lost} lost, {self.doubled} doubled, {self.wrong} wrong; logs in {self.home}"
        )
        assert self.is_right, "\n".join([f"{self.scenario}, seed {self.seed}: {told}", *self.problems])


class Endless(Simulation):
    """A simulation that goes on until `enough` is called; then the open runs come to their end, and it is over."""

    _play: _Play | None = None

    def __iter__(self) -> Iterator[Produced]:
        expected = self.expected = Expected()
        self._play = play = _Play(self.parameters, expected)
        for produced in play.records():
            expected.counts["records"] += 1
            yield produced

    def enough(self) -> None:
        """Open no further run."""
        if self._play is not None:
            self._play._parameters = msgspec.structs.replace(self.parameters, records=1)


class Scene:
    """A fleet of workers on topics of its own, a simulation, and the witnesses. Leaving the block ends all of it.

    Args:
        home: for the logs; made anew.
        tally: what is seen goes there.
        is_patient: brokers will be away: the witnesses wait for them.
        settings: of the workers, by their dotted names.
        may_end_with: exit codes that are the right answer to what the scenario does to a worker.
    """

    def __init__(
        self,
        cluster: Cluster,
        home: Path,
        tally: Tally,
        *,
        partitions: int = 4,
        session_s: float = 6.0,
        is_patient: bool = False,
        parameters: Parameters | None = None,
        settings: Mapping[str, str] | None = None,
        may_end_with: frozenset[int] = frozenset(),
    ) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.cluster, self.home, self.tally = cluster, home, tally
        tally.home = tally.home or str(home)
        self.rng = random.Random(tally.seed)
        prefix = f"{tally.scenario}-{tally.seed}-{uuid.uuid4().hex[:6]}"
        names = Names(prefix, f"{prefix}.group")
        self.topics = Topics.create(cluster.bootstrap, names, partitions, cluster.replicas)
        self.simulation = Endless(
            parameters
            or Parameters(
                records=1 << 40,
                seed=tally.seed,
                partitions=partitions,
                open_runs=20,
                deltas=6,
                responses=0.4,
                gateways=0.3,
            )
        )
        self._records: Iterator[Produced] | None = None
        self._put = 0
        self._load: Load | None = None
        wanted = {
            "kafka.bootstrap_servers": cluster.client_bootstrap,
            "source.session_timeout_ms": f"{session_s * 1000:.0f}",
            "source.heartbeat_interval_ms": f"{session_s * 1000 / 6:.0f}",
            "supervisor.max_restarts": "1000",
            "supervisor.backoff_max_s": "3",
            **(settings or {}),
        }
        self.session_s = session_s
        self._may_end_with = frozenset({0, 75, -9, -15}) | may_end_with
        self.fleet = Fleet(self.topics, home, **{key.replace(".", "__"): value for key, value in wanted.items()})
        self.downstream = Downstream(self.topics, is_patient=is_patient)
        self.offsets = Offsets(self.topics, is_patient=is_patient)
        self._ends = Ends(cluster.bootstrap)

    @property
    def acknowledged(self) -> list[tuple[float, int, int]]:
        """What the load has written (`Load.history`)."""
        return [] if self._load is None else list(self._load.history)

    @property
    def proxy(self) -> Proxy:
        assert self.cluster.proxy is not None, "this scenario needs a cluster behind a proxy"
        return self.cluster.proxy

    def __enter__(self) -> Self:
        self.downstream.start()
        self.offsets.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.cluster.proxy is not None:
            self.cluster.proxy.disarm()
        if self._load is not None:
            self.simulation.enough()
        self.fleet.__exit__(kind, error, trace)
        for witness in (self.downstream, self.offsets):
            if error is None:
                witness.close()
            else:
                with contextlib.suppress(Exception):
                    witness.close()

    # --- load ---

    def put(self, count: int) -> None:
        """Produce that many records of the simulation, acknowledged."""
        if self._records is None:
            self._records = iter(self.simulation)
        self._send(list(islice(self._records, count)))

    def begin(self, per_second: float) -> None:
        """Produce records of the simulation at a rate until the judgement; returns when all partitions move.

        What moves is what the load wrote: at offset 0 a partition is only claimed. A fault any earlier would be one of
        the load's start, which gets its producer id from the controller, by way of any broker.
        """
        self._load = Load(self.topics, self.simulation, per_second).start()
        partitions = range(self.topics.partitions)
        eventually("all partitions move", lambda: all(self.offsets.now.get(p, 0) > 0 for p in partitions), START_S)

    def _send(self, records: list[Produced]) -> None:
        sent = [Sent(r.value, r.key, tuple(r.headers), r.timestamp, r.partition) for r in records]
        kt.produce(self.cluster.bootstrap, self.topics.source, sent)
        self._put += len(sent)

    # --- waiting ---

    def until(self, what: str, is_so: Callable[[], Any], within_s: float) -> bool:
        """Wait; what does not come to be in time is a problem, not an end."""
        try:
            eventually(what, is_so, within_s, every_s=0.02)
        except AssertionError as error:
            self.tally.problems.append(str(error))
            return False
        return True

    def ends(self) -> dict[int, int]:
        """Where the source partitions end."""
        return self._ends.high_watermarks(self.topics.source, range(self.topics.partitions))

    def is_at(self, ends: dict[int, int]) -> bool:
        return all(self.offsets.now.get(partition, 0) == end for partition, end in ends.items())

    def until_committed(self, within_s: float = 90.0) -> bool:
        """Wait until all that was put is committed."""
        ends = self.ends()
        if self.until(f"the group stands at the end {ends}", lambda: self.is_at(ends), within_s):
            return True
        self.tally.problems[-1] += f" (committed: {self.offsets.now})"
        return False

    def until_moving(self, since: float, within_s: float = 90.0) -> None:
        """Under a load: wait until every partition moves after a fault, and note how long one stood still."""
        moving = self.until(
            "every partition moves again",
            lambda: self.offsets.moved_since(max(since, time.monotonic() - _MOVES_S)),
            within_s,
        )
        pause_s = self.offsets.longest_partition_pause_s(since, time.monotonic())
        self.tally.recoveries_s.append(round(pause_s, 2))
        if not moving:
            told = {p.label: (p.status("/healthz"), p.status("/readyz")) for p in self.fleet.running}
            self.tally.problems[-1] += f" (committed: {self.offsets.now}; health and readiness: {told})"

    def note_recoveries(self, bursts: Sequence[Sequence[float]]) -> None:
        """Under a load, where faults overlap: note after how long all partitions moved, from each burst's last fault.

        What the earlier faults of a burst have to do with a pause cannot be told apart: a note gives their figures.

        Args:
            bursts: when the faults of each burst began; after each burst `until_quiet` was called.
        """
        history, written, now = list(self.offsets.history), self.acknowledged, time.monotonic()
        faults = [at for burst in bursts for at in burst]
        every = Tally("", 0, recoveries_s=[each.seconds for each in recoveries(history, written, faults, now)])
        last = [max(burst) for burst in bursts if burst]
        self.tally.recoveries_s += [each.seconds for each in recoveries(history, written, last, now)]
        p50, p99, longest = (every.recovery_s(quantile) for quantile in (0.5, 0.99, 1.0))
        told = f"{len(faults)} faults in {len(last)} bursts"
        self.tally.notes.append(f"{told}; from any of them on: p50 {p50} s, p99 {p99} s, longest {longest} s")

    def until_quiet(self, within_s: float = 150.0) -> None:
        """After a burst: wait until every partition moves; `note_recoveries` says how long that took."""
        self.until_moving(time.monotonic(), within_s)
        self.tally.recoveries_s.pop()

    # --- workers ---

    def keep_up(self, count: int) -> None:
        """Start as many processes as are missing."""
        if missing := count - len(self.fleet.running):
            self.fleet.start(missing)

    def any_running(self) -> Process:
        self.keep_up(1)
        return self.rng.choice([process for process in self.fleet.running if not process.is_stopped])

    def owner_of(self, port: int) -> Process | None:
        """The worker whose connection has this port at its own end."""
        return next((process for process in self.fleet.running if process.has_socket(port)), None)

    # --- judgement ---

    def judge(
        self,
        within_s: float = 90.0,
        *,
        with_replay: bool = True,
        with_group_log: bool = True,
        may_repeat: bool = False,
    ) -> None:
        """Let the workers come to the end, end them, and count into the tally what came out otherwise than it must.

        Args:
            with_group_log: whether the broker has the topic of the group coordinator.
            may_repeat: workers publish at least once: of what comes twice it is asked alone whether it is equal.
        """
        tally, topics = self.tally, self.topics
        if self.cluster.proxy is not None:
            self.proxy.disarm()
            self.proxy.delay_s = 0.0
        self.simulation.enough()
        if self._load is not None:
            load = self._load
            load.hurry()
            self.until("the load is over", lambda: load.is_over, 120)
            load.close()
            tally.records += load.sent
            self._load = None
        else:
            self.put(1 << 40)
            tally.records += self._put
        self.until_committed(within_s)
        self._stop()
        published = [got for topic in topics.outcomes for got in kt.read_topic(topics.bootstrap, topic)]
        letters = kt.read_topic(topics.bootstrap, topics.dead_letter)
        found = compare(self.simulation.expected, published, letters, dict(topics.outcomes))
        if may_repeat:
            copies, unequal = compare_copies([*published, *letters])
            tally.notes.append(f"{copies} came twice, {len(unequal)} of them unequal")
            tally.problems += unequal[:5]
            found = [each for each in found if each.kind not in _REPEATS]
        tally.count(found)
        down = self.downstream
        all_seen = lambda: len(down.published) >= len(published) and len(down.dead_letters) >= len(letters)  # noqa: E731
        self.until("the reader downstream has seen all that is there", all_seen, WAIT_S)
        for told, what in ((down.twice, "was seen twice"), (down.disordered, "was seen out of order")):
            if told and not may_repeat:
                tally.problems.append(f"downstream: {len(told)} {what}: {told[:1]}")
        if self.offsets.decreased:
            tally.problems.append(f"a committed offset went back: {self.offsets.decreased[:3]}")
        if with_group_log and (went_back := offsets_that_went_back(topics)):
            tally.problems.append(f"{_GROUP_LOG}: {len(went_back)} offsets went back: {went_back[:3]}")
        if with_replay and may_repeat:
            judged = replayed(self.fleet, self.home).counts
            tally.notes.append(f"replay: {judged}")
            if any(kinds.keys() - {"equal", "duplicate", "unverifiable"} for kinds in judged.values()):
                tally.problems.append(f"replay: {judged}")
        elif with_replay:
            try:
                prove(self.fleet, self.home)
            except Exception as error:  # whatever it is, the other counts are to be told
                tally.problems.append(f"replay: {type(error).__name__}: {str(error)[:300]}")

    def _stop(self) -> None:
        live = self.fleet.running
        for process in self.fleet.all:
            if process.exit_code is not None and process.exit_code not in self._may_end_with:
                told = f"worker {process.label}: ended by itself with {process.exit_code}: {process.tail()[-300:]}"
                self.tally.problems.append(told)
        for process in live:
            if process.is_stopped:
                process.thaw()
            process.terminate()
        for process in live:
            try:
                code = process.ended(90)
            except AssertionError as error:
                self.tally.problems.append(str(error))
                process.kill()
                continue
            if code == 75:  # its drain met a rebalance or the broker's absence: said so, and nothing is lost by it
                self.tally.notes.append(f"worker {process.label}: exit 75 on SIGTERM")
            elif code != 0 and process.log():  # a signal before it began to listen ends it at once
                self.tally.problems.append(f"worker {process.label}: exit {code} on SIGTERM: {process.tail()[-300:]}")


_GROUP_LOG: Final = "__consumer_offsets"
_REPEATS: Final = frozenset({"twice", "dead_letter_extra"})


def compare_copies(records: Iterable[Got]) -> tuple[int, list[str]]:
    """Count the records that stand there more than once, and name those whose copies differ.

    Their fold version may: it is of the worker that published the copy.
    """
    found: dict[Any, list[Any]] = {}
    for got in records:
        named = {name: value for name, value in got.headers if name != VERSION}
        which = (got.key, *(named.get(name) for name in _IDENTITY))
        found.setdefault(which, []).append((got.topic, got.value, named))
    copies = [one for one in found.items() if len(one[1]) > 1]
    return len(copies), [f"copies differ: {which}" for which, each in copies if any(c != each[0] for c in each)]


_IDENTITY: Final = (
    SOURCE_PARTITION, FIRST_OFFSET, REVISION, SOURCE_OFFSET, REASON, EVENT_NUMBER,
)  # fmt: skip


def offsets_that_went_back(topics: Topics) -> list[str]:
    """Decode the group coordinator's log: each offset of the group that was committed below the one before it."""
    latest: dict[int, int] = {}
    found: list[str] = []
    for got in kt.read_topic(topics.bootstrap, _GROUP_LOG):
        if got.key is None or got.value is None or struct.unpack_from(">h", got.key)[0] not in (0, 1):
            continue  # a deletion, or the group's own state
        group, at = _text(got.key, 2)
        topic, at = _text(got.key, at)
        (partition,) = struct.unpack_from(">i", got.key, at)
        if (group, topic) != (topics.group, topics.source):
            continue
        (offset,) = struct.unpack_from(">q", got.value, 2)
        if offset < latest.get(partition, -1):
            found.append(f"partition {partition}: {latest[partition]}, then {offset}")
        latest[partition] = offset
    return found


def _text(data: bytes, at: int) -> tuple[str, int]:
    (length,) = struct.unpack_from(">h", data, at)
    return data[at + 2 : at + 2 + length].decode(), at + 2 + length
