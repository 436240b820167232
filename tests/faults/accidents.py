"""What happens around a worker: its log trimmed, a stranger's open transaction, clocks that jump, few descriptors."""

from __future__ import annotations

import contextlib
import functools
import json
import resource
import socket
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # the stub lacks some of them
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from processor.audit.report.manifest import Outcome
from processor.errors import ConfigError, OutOfMemory
from processor.simulate import Parameters
from tests import kafka_tools as kt
from tests.faults.cluster import Cluster
from tests.faults.lab import Scene, Tally
from tests.faults.service import Stage, created, delta, ended
from tests.faults.trouble import WORKERS, under_load
from tests.faults.worker_fleet import START_S, WAIT_S, Process, eventually

FAKETIME: Final = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")
_BEYOND_SESSION_S: Final = 10
_IDLE_S: Final = 8
_PROBES: Final = 3
"""Probes without an answer after which Kubernetes ends a container by default."""


def trimmed(cluster: Cluster, home: Path, tally: Tally, seconds: float) -> None:
    """The log is deleted up to where a restore would begin, as retention may; kills meanwhile.

    What was deleted of the open steps is in the checkpoints alone. Few runs are open, so that the simulated clock goes
    fast: ended steps are remembered for a minute of it, some 3,000 records here, and a restore begins before that.
    """
    partitions = 4
    parameters = Parameters(
        records=1 << 40, seed=tally.seed, partitions=partitions, open_runs=8, deltas=40, responses=0.4
    )
    settings = {"checkpoints.interval_s": "1"}
    with Scene(cluster, home, tally, partitions=partitions, parameters=parameters, settings=settings) as scene:
        scene.fleet.start(2)
        scene.fleet.await_ready()
        scene.begin(400)
        began, deleted = time.monotonic(), 0
        while time.monotonic() - began < seconds:
            time.sleep(scene.rng.uniform(1, 3))
            found = kt.committed(cluster.bootstrap, scene.topics.group, scene.topics.source)
            needless = {p: int(json.loads(metadata)["r"]) for p, (_, metadata) in found.items() if metadata}
            asked = [TopicPartition(scene.topics.source, p, offset) for p, offset in needless.items()]
            for future in cluster.admin.delete_records(asked).values():
                future.result(20)
            deleted = max(deleted, sum(needless.values()))
            at = time.monotonic()
            scene.any_running().kill()
            scene.keep_up(2)
            tally.faults += 1
            scene.until_moving(at)
        tally.rounds += 1
        restored = scene.fleet.log("partition_restored")
        tally.notes.append(f"{deleted} records deleted; restores with up to {_most(restored)} checkpoints")
        if (deleted < 1_000 and seconds > 20) or _most(restored) == 0:
            tally.problems.append("nothing was deleted or nothing was restored from checkpoints: the scenario is void")
        scene.judge(with_replay=False)


def _most(restored: list[dict[str, object]]) -> int:
    return max((int(str(line["checkpoints"])) for line in restored), default=0)


def stranger(cluster: Cluster, home: Path, tally: Tally, seconds: float) -> None:
    """A transaction that is never ended stands open on one checkpoint partition while its owner is killed.

    The other partitions must go on; the one must when the transaction is over.
    """
    with under_load(cluster, home, tally) as scene:
        topics = scene.topics
        producer = Producer(
            {
                "bootstrap.servers": cluster.bootstrap,
                "transactional.id": "stranger",
                "transaction.timeout.ms": 600_000,
                "log_level": 2,
            }
        )
        producer.init_transactions(10)
        producer.begin_transaction()
        producer.produce(topics.checkpoints, key=b"x", value=None, partition=0)
        producer.flush(10)
        owner = next(p for p in scene.fleet.running if 0 in p.log("partitions_assigned")[-1]["partitions"])
        at = time.monotonic()
        owner.kill()
        scene.keep_up(WORKERS)
        tally.faults += 1
        within_s = max(min(seconds, 40.0), scene.session_s + _BEYOND_SESSION_S)

        def others_moving() -> bool:
            standing = scene.offsets.now
            return time.monotonic() - at > scene.session_s and _still_s(scene, set(standing) - {0}) < 2.0

        if not scene.until("the other partitions go on while the transaction is open", others_moving, within_s):
            tally.problems[-1] += f" (committed: {scene.offsets.now})"
        producer.abort_transaction(10)
        scene.until_moving(time.monotonic(), 120)


def _still_s(scene: Scene, partitions: set[int]) -> float:
    """How long the slowest of these partitions has stood still."""
    moved = dict.fromkeys(partitions, 0.0)
    before: Mapping[int, int] = {}
    for at, offsets in list(scene.offsets.history):
        for partition in partitions:
            if offsets.get(partition) != before.get(partition):
                moved[partition] = at
        before = offsets
    return time.monotonic() - min(moved.values(), default=0.0)


def clocks(cluster: Cluster, home: Path, tally: Tally, seconds: float) -> None:
    """The wall clocks of the workers jump by hours and days, each its own; kills meanwhile. Needs libfaketime."""
    if not FAKETIME.exists():
        tally.notes.append(f"not run: {FAKETIME} is not there (Debian: libfaketime)")
        return
    with Scene(cluster, home, tally) as scene:

        def started(count: int) -> None:
            for _ in range(count):
                clock = home / f"clock-{len(scene.fleet.all)}"
                clock.write_text("+0\n")
                faked = {
                    "LD_PRELOAD": str(FAKETIME), "FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_NO_CACHE": "1",
                    "FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1",
                }  # fmt: skip
                scene.fleet.start(1, faked)

        started(WORKERS)
        scene.fleet.await_ready()
        scene.begin(200)
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            time.sleep(scene.rng.uniform(1, 3))
            at = time.monotonic()
            for clock in home.glob("clock-*"):
                clock.write_text(scene.rng.choice(("+3600\n", "-3600\n", "+0\n", "+86400\n", "-86400\n")))
            tally.faults += 1
            if scene.rng.random() < 0.4:
                scene.any_running().kill()
                tally.faults += 1
                started(WORKERS - len(scene.fleet.running))
            scene.until_moving(at)
        tally.rounds += 1
        scene.judge()


def descriptors(cluster: Cluster, home: Path, tally: Tally, seconds: float, limit: int = 64) -> None:
    """Few descriptors, and scrapers that hold more connections open than there are; a kill, so that others restore.

    Partitions must move on, and /healthz must still answer.
    """
    with under_load(cluster, home, tally, workers=2) as scene:
        held: list[socket.socket] = []
        began, turn, unanswered = time.monotonic(), 0, 0
        try:
            while turn == 0 or time.monotonic() - began < seconds:
                turn += 1
                for process in scene.fleet.running:
                    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (limit, limit))
                    held += _hold_pages(process, limit + 10)
                at = time.monotonic()
                scene.any_running().kill()
                scene.keep_up(2)
                tally.faults += 1
                scene.until_moving(at)
                for process in scene.fleet.running:
                    # The one that was started for the one that was killed may not have come so far.
                    scene.until("the worker listens", functools.partial(process.log, "listening"), START_S)
                    unanswered += _probe(process, tally)
                while held:
                    held.pop().close()
                time.sleep(2)
        finally:
            for connection in held:
                connection.close()
        tally.notes.append(f"{turn} rounds; {unanswered} single probes without an answer within 3 s")


def _probe(process: Process, tally: Tally) -> int:
    """Ask `/healthz` as a liveness probe does. Returns how often no answer came; three in a row are a problem."""
    for failures in range(_PROBES):
        if process.status("/healthz"):
            return failures
    tally.problems.append(f"worker {process.label}: /healthz does not answer while connections are held")
    return _PROBES


EXPIRING: Final = {
    "transactional.id.expiration.ms": "3000",
    "transaction.remove.expired.transaction.cleanup.interval.ms": "500",
}
"""Settings of a broker that soon forgets the transactional ids that are idle."""


COMPACTING: Final = {"log.cleaner.backoff.ms": "200"}
"""Settings of a broker that compacts at once."""


def compacted(cluster: Cluster, home: Path, tally: Tally, seconds: float) -> None:
    """The source is compacted while its worker is stopped, then set back: what is gone, a replay alone can tell.

    A start is refused in between. What it lacks afterwards makes no record wrong: the log that is left implies it, or
    nothing is known.
    """
    home.mkdir(parents=True, exist_ok=True)
    prefix = f"{tally.scenario}-{tally.seed}-{uuid.uuid4().hex[:6]}"
    stage = Stage(cluster.bootstrap, kt.Names(prefix, f"{prefix}.group"), home, partitions=1)
    with stage.serve() as service:
        service.until_live()
        stage.say(created("ended"), ended("ended"), key=b"1")
        stage.say(created("open"), delta("open", "one"), key=b"2")
        service.until("all committed", lambda: stage.committed().get(0) == 4)
        service.terminate()
    stage.say(delta("open", "two"), key=b"2")
    stage.say(created("new"), ended("new"), key=b"3")
    alter = functools.partial(_set_configs, cluster, stage.source)
    alter({"cleanup.policy": "compact", "segment.ms": "200", "min.cleanable.dirty.ratio": "0.0"})

    def left() -> set[int]:
        stage.say(b"", key=b"rolls the segment")
        return {got.offset for got in kt.read_topic(stage.bootstrap, stage.source) if got.offset < 7}

    eventually("all but the last of each key is gone", lambda: left() == {1, 4, 6}, WAIT_S, every_s=0.5)
    tally.faults += 1
    with stage.serve() as service:
        if service.ended() != ConfigError.exit_code:
            tally.problems.append(f"a compacted source was taken: {service.tail()[-300:]}")
    alter({"cleanup.policy": "delete"})
    with stage.serve() as service:
        service.until_live()
        stage.say(ended("open"), key=b"2")
        service.until("all is published", lambda: len(stage.published()) == 3)
        if service.terminate() != 0:
            tally.problems.append(f"the worker did not end well: {service.tail()[-300:]}")
    if (verdict := stage.replayed()) is not Outcome.UNPROVABLE:
        tally.problems.append(f"over the holes the replay is {verdict}")
    tally.rounds += 1


def _set_configs(cluster: Cluster, topic: str, changes: Mapping[str, str]) -> None:
    to = AlterConfigOpType.SET
    entries = [ConfigEntry(name, value, incremental_operation=to) for name, value in changes.items()]
    asked = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
    for future in cluster.admin.incremental_alter_configs([asked]).values():
        future.result(WAIT_S)


def expired_id(cluster: Cluster, home: Path, tally: Tally, seconds: float) -> None:
    """The broker forgets the transactional id of a worker that was idle: one restart inside, told as that."""
    with Scene(cluster, home, tally, partitions=2) as scene:
        (worker,) = scene.fleet.start()
        scene.fleet.await_ready()
        scene.put(200)
        scene.until_committed()
        began = time.monotonic()
        while tally.rounds == 0 or time.monotonic() - began < seconds:
            time.sleep(_IDLE_S)
            at = time.monotonic()
            scene.put(50)
            scene.until_committed()
            tally.recoveries_s.append(round(time.monotonic() - at, 2))
            tally.faults += 1
            tally.rounds += 1
        restarts = worker.log("worker_restarted")
        if not restarts:
            tally.problems.append("no transactional id expired: the scenario is void")
        untold = [line for line in restarts if "has forgotten this transactional id" not in str(line)]
        tally.problems += [f"a restart for another reason: {line}" for line in untold]
        tally.notes.append(f"{len(restarts)} restarts in {tally.rounds} rounds")
        scene.judge()


def memory(cluster: Cluster, home: Path, tally: Tally, seconds: float) -> None:
    """A worker may have hardly more memory than it has (RLIMIT_AS): it goes on, or ends with 71, and another goes on.

    No record may be set aside or lost for it.
    """
    ends: Counter[str] = Counter()
    with Scene(cluster, home, tally, may_end_with=frozenset({OutOfMemory.exit_code})) as scene:
        scene.fleet.start(2)
        scene.fleet.await_ready()
        scene.begin(400)
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            process = scene.any_running()
            # Before its first words it is the interpreter that would end, with a code of its own.
            scene.until("the worker has begun", functools.partial(process.log, "worker_started"), START_S)
            at = time.monotonic()
            room = scene.rng.choice((0, 64 << 10, 1 << 20, 4 << 20))
            resource.prlimit(process.pid, resource.RLIMIT_AS, (_address_space_bytes(process) + room, -1))
            tally.faults += 1
            while process.exit_code is None and time.monotonic() - at < 12:
                time.sleep(0.1)
            ends[f"exit {process.exit_code}" if process.exit_code is not None else "went on"] += 1
            if process.exit_code is None:
                resource.prlimit(process.pid, resource.RLIMIT_AS, (-1, -1))
            scene.keep_up(2)
            scene.until_moving(at)
        tally.rounds += 1
        tally.notes.append(str(dict(ends)))
        if f"exit {OutOfMemory.exit_code}" not in ends and seconds > 20:
            tally.problems.append(f"no worker ended with {OutOfMemory.exit_code}: the scenario is void")
        scene.judge()


def _address_space_bytes(process: Process) -> int:
    return int(Path(f"/proc/{process.pid}/statm").read_text().split()[0]) * resource.getpagesize()


def _hold_pages(process: Process, count: int) -> list[socket.socket]:
    """Connections that asked for a page and stay."""
    url = next((line["url"] for line in process.log("listening")), "")
    held: list[socket.socket] = []
    with contextlib.suppress(OSError, ValueError):
        for _ in range(count if url else 0):
            connection = socket.create_connection(("127.0.0.1", urlsplit(url).port or 0), timeout=1)
            connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            held.append(connection)
    return held


def full_disk(cluster: Cluster, home: Path, tally: Tally, seconds: float) -> None:
    """A replay whose report, recording or work folder fills its disk says so: no traceback, no "bug", no verdict.

    Needs the right to mount a tmpfs.
    """
    with Scene(cluster, home, tally) as scene:
        scene.fleet.start()
        scene.fleet.await_ready()
        scene.put(6_000)
        scene.until_committed(60)
        for kilobytes in (60, 300, 900):
            for what in ("report", "record", "work"):
                small = home / f"small-{kilobytes}-{what}"
                small.mkdir()
                mounted = subprocess.run(
                    ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(small)], capture_output=True
                )
                if mounted.returncode:
                    tally.notes.append(f"not run: no right to mount: {mounted.stderr.decode().strip()[:100]}")
                    scene.judge()
                    return
                try:
                    _replay_onto(scene, small, what, kilobytes)
                finally:
                    subprocess.run(["umount", str(small)], check=True)
        tally.rounds += 1
        scene.judge()


_WRONG_CODES: Final = {1: "a verdict", 70: "a bug of ours"}


def _replay_onto(scene: Scene, small: Path, what: str, kilobytes: int) -> None:
    environment = dict(scene.fleet.environment)
    options = {"report": ["--report", str(small / "r")], "record": ["--record", str(small / "a")], "work": []}[what]
    if what == "work":
        environment["TMPDIR"] = str(small)
    done = subprocess.run(
        [sys.executable, "-m", "processor", "replay", "--workers", "1", "--to", "end", *options],
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
    )
    where = f"{what} on a disk of {kilobytes} kB"
    if done.returncode == 0:
        scene.tally.notes.append(f"{where}: it fits")
        return
    scene.tally.faults += 1
    said = " / ".join(done.stderr.splitlines()[-2:])[-200:]
    if done.returncode in _WRONG_CODES:
        scene.tally.problems.append(f"{where}: exit {done.returncode} says {_WRONG_CODES[done.returncode]}: {said}")
    elif "Traceback" in done.stderr:
        scene.tally.problems.append(f"{where}: exit {done.returncode} with a traceback: {said}")
    else:
        scene.tally.notes.append(f"{where}: exit {done.returncode}: {said}")
