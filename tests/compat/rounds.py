"""What each broker and each producer's library is put through. What is wrong stands in a tally; nothing asserts.

The witnesses are those of `tests.faults`: what must come out is the simulator's, readers are confluent-kafka.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final

from msgspec.structs import replace

from processor.audit.report.manifest import Outcome
from processor.simulate import Parameters, Simulation
from processor.simulate.expected import compare
from tests import kafka_tools as kt
from tests.compat.clients import Client
from tests.compat.plan import Planned, write
from tests.faults.audit_check import prove, replayed
from tests.faults.lab import Scene, Tally
from tests.faults.worker_fleet import WAIT_S, Fleet, Topics, eventually
from tests.kafka_tools import Got, Names

_PER_SECOND: Final = 150.0
_BETWEEN_S: Final = 3.0
_SESSION_S: Final = 6.0
_PART: Final = 300
_LARGE: Final = 1_000_000


def exactly_once(
    broker: Any, home: Path, tally: Tally, *, turns: int, kill_broker: Callable[[], None] | None, has_group_log: bool
) -> None:
    """Kill and freeze under load, then judge all that came out.

    Each turn: a worker is killed with SIGKILL and another takes over; one is frozen for longer than its session and
    goes on when its partitions are another's; the broker is killed with SIGKILL and comes back.

    Args:
        kill_broker: kills and restarts it; None for a broker that keeps nothing over its death.
        has_group_log: whether the group coordinator's own log can be read.
    """
    with Scene(broker, home, tally, partitions=3, session_s=_SESSION_S, is_patient=True) as scene:
        scene.fleet.start(2)
        scene.fleet.await_ready()
        scene.begin(_PER_SECOND)
        for _ in range(turns):
            tally.rounds += 1
            since = _fault(tally)
            scene.any_running().kill()
            scene.keep_up(2)
            scene.until_moving(since)
            time.sleep(_BETWEEN_S)

            since = _fault(tally)
            frozen = scene.any_running()
            frozen.freeze()
            time.sleep(_SESSION_S)
            scene.until_moving(since)
            frozen.thaw()
            time.sleep(_BETWEEN_S)

            if kill_broker is not None:
                since = _fault(tally)
                kill_broker()
                scene.until_moving(since)
                time.sleep(_BETWEEN_S)
        scene.judge(180, with_group_log=has_group_log)


def _fault(tally: Tally) -> float:
    tally.faults += 1
    return time.monotonic()


# --- producers ---

ODDITIES: Final[dict[str, Planned]] = {
    "header value null": Planned(b"odd", b"odd", None, [(b"a", None)]),
    "header value empty": Planned(b"odd", b"odd", None, [(b"a", b"")]),
    "header twice": Planned(b"odd", b"odd", None, [(b"a", b"1"), (b"b", b"2"), (b"a", b"3")]),
    "header name not UTF-8": Planned(b"odd", b"odd", None, [(b"\xff\x00a", b"1")]),
    "header name empty": Planned(b"odd", b"odd", None, [(b"", b"1")]),
    "no timestamp": Planned(b"odd", b"odd"),
    "timestamp 0": Planned(b"odd", b"odd", 0),
    "timestamp -5": Planned(b"odd", b"odd", -5),
    "key empty": Planned(b"", b"odd"),
    "key null": Planned(None, b"odd"),
    "key 1 MB": Planned(b"k" * _LARGE, b"odd"),
    "value empty": Planned(b"odd", b""),
    "value null": Planned(b"odd", None),
}
"""Records that cannot be used (or say nothing), each odd in one way. Not one of them may change its bytes."""


def produced(client: Client, bootstrap: str, home: Path, tally: Tally) -> dict[str, str]:
    """Let a client write a simulation, each part with another codec and the last in transactions, then the oddities.

    Returns:
        oddity, codec or `transactions` -> how the client failed with it, for those that it refused.
    """
    home.mkdir(parents=True, exist_ok=True)
    tally.home = str(home)
    names = Names(f"compat-{time.time_ns()}", f"compat-{time.time_ns()}.group")
    topics = Topics.create(bootstrap, names, 3)
    kt.create_topics(
        bootstrap, odd := names.topic("odd"), config={"retention.ms": "-1", "max.message.bytes": "4000000"}
    )
    told = Parameters(runs=60, seed=tally.seed, partitions=3, open_runs=20, deltas=8)
    if not client.has_timestamps:  # then nothing that must come may hang on the time of a record
        told = replace(told, start_ms=time.time_ns() // 1_000_000, hung=0, interrupted=0)
    simulation = Simulation(told)
    records = iter(simulation)
    refused: dict[str, str] = {}
    modes = [*client.codecs, *(["transactions"] if client.has_transactions else [])]
    for number, mode in enumerate(modes):
        count = None if number + 1 == len(modes) else _PART
        part = [
            Planned(
                one.key,
                one.value,
                one.timestamp if client.has_timestamps else None,
                [(name.encode(), content) for name, content in one.headers],
            )
            for one in islice(records, count)
        ]
        tally.records += len(part)
        if part and (failure := _write(client, bootstrap, topics.source, home, mode, part)):
            refused[mode] = failure
            tally.problems.append(f"{mode}: the client failed: {failure}")
            return refused
    refused |= {
        oddity: failure
        for oddity, one in ODDITIES.items()
        if (failure := _write(client, bootstrap, odd, home, "none", [one]))
    }
    with _worker(topics, home) as fleet:
        _until_committed(topics)
        fleet.stop()
        published = [got for topic in topics.outcomes for got in kt.read_topic(bootstrap, topic)]
        letters = kt.read_topic(bootstrap, topics.dead_letter)
        tally.count(compare(simulation.expected, published, letters, dict(topics.outcomes)))
        _proven(fleet, home, tally)
    _judge_oddities(bootstrap, names, odd, home, tally)
    return refused


def _write(client: Client, bootstrap: str, topic: str, home: Path, mode: str, part: list[Planned]) -> str:
    plan = home / "plan.tsv"
    write(plan, part)
    is_transactional = mode == "transactions"
    return client.write(bootstrap, topic, "none" if is_transactional else mode, plan, transactions=is_transactional)


def _judge_oddities(bootstrap: str, names: Names, odd: str, home: Path, tally: Tally) -> None:
    """A worker sets each of them aside as it came; the replay agrees."""
    other = Names(f"{names.prefix}.o", f"{names.prefix}.o.group")
    for end in ("completed", "failed", "cancelled", "expired", "dead"):
        kt.create_topics(bootstrap, other.topic(end), config={"retention.ms": "-1", "max.message.bytes": "4100000"})
    compacted = {"cleanup.policy": "compact", "max.message.bytes": "70000000"}
    kt.create_topics(bootstrap, f"{odd}.checkpoints", config=compacted)
    outcomes = {other.topic(end): end for end in ("completed", "failed", "cancelled", "expired")}
    topics = Topics(bootstrap, other.group, odd, other.topic("dead"), outcomes, 1)
    (home / "odd").mkdir(exist_ok=True)
    with _worker(topics, home / "odd") as fleet:
        _until_committed(topics)
        fleet.stop()
        verdict = replayed(fleet, home / "odd").verdict
        if verdict is not Outcome.PROVEN:
            tally.problems.append(f"oddities: the replay says {verdict}")
    # A header name that is not UTF-8 cannot be read by this witness; that record is left to the replay.
    with contextlib.suppress(UnicodeDecodeError):
        wanted = [_content(got) for got in kt.read_topic(bootstrap, odd) if got.value]
        letters = [_content(got) for got in kt.read_topic(bootstrap, topics.dead_letter)]
        if wanted != letters:
            tally.problems.append(f"oddities: {len(wanted)} written, {len(letters)} dead letters, not the same")


def _content(got: Got) -> tuple[object, ...]:
    """What a dead letter must keep of a record."""
    return got.key, got.value, tuple(pair for pair in got.headers if not pair[0].startswith("runstep-"))


@contextlib.contextmanager
def _worker(topics: Topics, home: Path) -> Iterator[Fleet]:
    wide = {"rejections__max_share": "1.0", "rejections__max_run": "100000"}
    with Fleet(topics, home, **wide) as fleet:
        fleet.start(1)
        fleet.await_ready()
        yield fleet


def _until_committed(topics: Topics) -> None:
    def is_there() -> bool:
        lag = [len(kt.committed(topics.bootstrap, topics.group, topics.source))]
        return sum(lag) == topics.partitions and not _lag(topics)

    eventually("the group stands at the end of the source", is_there, 2 * WAIT_S, every_s=0.5)


def _lag(topics: Topics) -> int:
    from confluent_kafka import Consumer, TopicPartition

    committed = kt.committed(topics.bootstrap, topics.group, topics.source)
    consumer = Consumer({"bootstrap.servers": topics.bootstrap, "group.id": "compat-never-commits"})
    try:
        ends = [
            consumer.get_watermark_offsets(TopicPartition(topics.source, number), timeout=30)[1]
            for number in range(topics.partitions)
        ]
    finally:
        consumer.close()
    return sum(end - committed[number][0] for number, end in enumerate(ends))


def _proven(fleet: Fleet, home: Path, tally: Tally) -> None:
    try:
        prove(fleet, home)
    except Exception as error:
        tally.problems.append(f"replay: {type(error).__name__}: {str(error)[:300]}")
