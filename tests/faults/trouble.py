"""Trouble upon a fleet under load, one broker: spoiled answers, pauses, latency, zombies, hijacks, twins, storms."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from confluent_kafka import Producer

from tests import kafka_tools as kt
from tests.faults.cluster import Cluster
from tests.faults.lab import Scene, Tally
from tests.faults.proxy import SPOILING, Action, Api
from tests.faults.worker_fleet import Process

WORKERS: Final = 3


@contextmanager
def under_load(
    cluster: Cluster,
    home: Path,
    tally: Tally,
    *,
    per_second: float = 200,
    workers: int = WORKERS,
    is_patient: bool = False,
    with_replay: bool = True,
    judge_s: float = 90,
    session_s: float = 6.0,
    settings: Mapping[str, str] | None = None,
) -> Iterator[Scene]:
    """A fleet whose partitions all move; judged when the block ends in order."""
    with Scene(cluster, home, tally, is_patient=is_patient, session_s=session_s, settings=settings) as scene:
        scene.fleet.start(workers)
        scene.fleet.await_ready()
        scene.begin(per_second)
        yield scene
        tally.rounds += 1
        scene.keep_up(1)
        scene.judge(judge_s, with_replay=with_replay)


def transactional_ids(scene: Scene) -> dict[str, Process]:
    """The transactional id of each process that runs."""
    return {
        line["transactional_id"]: process
        for process in scene.fleet.running
        for line in process.log("worker_started")
        if line.get("transactional_id")
    }


SPOILED: Final[Mapping[Api, float]] = {
    Api.PRODUCE: 2, Api.FETCH: 2, Api.HEARTBEAT: 2, Api.TXN_OFFSET_COMMIT: 4, Api.ADD_OFFSETS_TO_TXN: 3,
    Api.ADD_PARTITIONS_TO_TXN: 3, Api.END_TXN: 6, Api.INIT_PRODUCER_ID: 4, Api.OFFSET_FETCH: 4, Api.JOIN_GROUP: 3,
    Api.SYNC_GROUP: 3, Api.OFFSET_COMMIT: 4, Api.FIND_COORDINATOR: 2, Api.METADATA: 2, Api.LIST_OFFSETS: 3,
    Api.DESCRIBE_GROUPS: 2, Api.LEAVE_GROUP: 1, Api.API_VERSIONS: 1,
}  # fmt: skip


def spoiled(cluster: Cluster, home: Path, tally: Tally, seconds: float, every_s: float = 1.5) -> None:
    """Any request, any action of the proxy, with short time-outs; a kill each 15-40 s."""
    short = {
        "delivery.commit_timeout_s": "5", "delivery.transaction_timeout_ms": "10000",
        "kafka.request_timeout_ms": "6000", "supervisor.stall_timeout_s": "40",
    }  # fmt: skip
    with under_load(cluster, home, tally, settings=short) as scene:
        rng, proxy = scene.rng, scene.proxy
        before, began = len(proxy.fired), time.monotonic()
        next_kill, kills = began + rng.uniform(10, 20), 0
        while time.monotonic() - began < seconds:
            time.sleep(rng.expovariate(1 / every_s))
            api = rng.choices(list(SPOILED), list(SPOILED.values()))[0]
            delay_s = round(rng.choice((rng.uniform(0.1, 5), rng.uniform(1, 30))), 1)
            proxy.arm(api, rng.choice(SPOILING), seconds=delay_s, lasts_s=20)
            if time.monotonic() > next_kill:
                scene.any_running().kill()
                kills += 1
                next_kill = time.monotonic() + rng.uniform(15, 40)
            scene.keep_up(WORKERS)
        proxy.disarm()
        fired = proxy.fired[before:]
        tally.faults += len(fired) + kills
        tally.notes.append(f"{dict(Counter(f.action.value for f in fired))}; {kills} kills")
        scene.until_moving(time.monotonic())
        worst = max(scene.offsets.longest_partition_pause_s(f.at, f.at + 40) for f in fired) if fired else 0.0
        tally.recoveries_s += [round(worst, 2)]


def pauses(cluster: Cluster, home: Path, tally: Tally, seconds: float) -> None:
    """The broker stands still for longer than a request's time-out, again and again; no proxy has a hand in it.

    What the client then says again, the broker finds twice in its socket buffers.
    """
    settings = {
        "kafka.request_timeout_ms": "1500", "delivery.commit_interval_ms": "50", "source.heartbeat_interval_ms": "1000",
    }  # fmt: skip
    with under_load(cluster, home, tally, session_s=30.0, per_second=400, is_patient=True, settings=settings) as scene:
        rng, node = scene.rng, cluster.nodes[0]
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            at = time.monotonic()
            node.pause()
            time.sleep(rng.uniform(1.4, 4))
            node.resume()
            tally.faults += 1
            scene.keep_up(WORKERS)
            scene.until_moving(at)
            time.sleep(rng.uniform(0.2, 2))
            if rng.random() < 0.2:
                scene.any_running().kill()
                scene.keep_up(WORKERS)


def latency(cluster: Cluster, home: Path, tally: Tally, seconds: float, round_trip_s: float = 0.06) -> None:
    """All lives end together under a constant delay: do those that begin anew fence one another?"""
    with under_load(cluster, home, tally, per_second=120, is_patient=True) as scene:
        scene.proxy.delay_s = round_trip_s / 2
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            lives = len(scene.fleet.log("worker_restarted"))
            node, at = cluster.nodes[0], time.monotonic()
            node.pause()
            time.sleep(scene.rng.uniform(16, 19))
            node.resume()
            tally.faults += 1
            scene.until_moving(at)
            spent = len(scene.fleet.log("worker_restarted")) - lives
            tally.notes.append(f"{spent} lives of {WORKERS} workers")
            scene.keep_up(WORKERS)


ZOMBIE_POINTS: Final = (
    Api.END_TXN, Api.TXN_OFFSET_COMMIT, Api.PRODUCE, Api.OFFSET_FETCH, Api.OFFSET_COMMIT, Api.LIST_OFFSETS, Api.FETCH,
    Api.ADD_OFFSETS_TO_TXN, Api.ADD_PARTITIONS_TO_TXN, Api.INIT_PRODUCER_ID, Api.JOIN_GROUP, Api.SYNC_GROUP,
    Api.DESCRIBE_GROUPS,
)  # fmt: skip
_OF_A_START: Final = frozenset(ZOMBIE_POINTS[3:6]) | frozenset(ZOMBIE_POINTS[9:])


def zombies(
    cluster: Cluster, home: Path, tally: Tally, seconds: float, points: tuple[Api, ...] = ZOMBIE_POINTS
) -> None:
    """A worker is frozen the moment it says a named request, for longer than its session, and thawed.

    The request reaches the broker at once, or (each other round) only after another has taken over.
    """
    with under_load(cluster, home, tally, per_second=150) as scene:
        rng, began, turn = scene.rng, time.monotonic(), 0
        while turn == 0 or time.monotonic() - began < seconds:
            point = points[turn % len(points)]
            held_long = bool(turn // len(points) % 2) ^ bool(turn % 2)
            turn += 1
            if point in _OF_A_START:
                scene.any_running().kill()
                scene.keep_up(WORKERS)
            rule = scene.proxy.arm(point, Action.HOLD, lasts_s=10)
            if not rule.await_caught(10):
                tally.notes.append(f"no {point.name} came")
                continue
            frozen_at = time.monotonic()
            zombie = scene.owner_of(rule.peer_port)
            if zombie is None:
                rule.release()
                continue
            zombie.freeze()
            tally.faults += 1
            if not held_long:
                rule.release()
            time.sleep(scene.session_s * 1.5 + rng.uniform(-1, 2))
            rule.release()
            zombie.thaw()
            scene.keep_up(WORKERS)
            scene.until_moving(frozen_at)


def hijack(cluster: Cluster, home: Path, tally: Tally, seconds: float) -> None:
    """A stranger initialises a worker's transactional id, again and again."""
    with under_load(cluster, home, tally) as scene:
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            victim_id, _ = scene.rng.choice(sorted(transactional_ids(scene).items()))
            at = time.monotonic()
            stranger = Producer({"bootstrap.servers": cluster.bootstrap, "transactional.id": victim_id, "log_level": 2})
            kt.patiently(partial(stranger.init_transactions, 10))
            del stranger
            tally.faults += 1
            time.sleep(scene.rng.uniform(1, 5))
            scene.keep_up(WORKERS)
            scene.until_moving(at)
        tally.notes.append(f"{len(scene.fleet.log('worker_restarted'))} lives")


def twins(cluster: Cluster, home: Path, tally: Tally, seconds: float) -> None:
    """Two processes with one `instance_id`, so with one transactional id; frozen ones replaced by a namesake."""
    with under_load(cluster, home, tally, workers=1, settings={"source.instance_id": "b"}) as scene:
        named = {"RUN_STEPS_SOURCE__INSTANCE_ID": "a"}
        (first,) = scene.fleet.start(1, named)
        began, turn = time.monotonic(), 0
        while turn == 0 or time.monotonic() - began < seconds:
            at = time.monotonic()
            is_frozen = bool(turn % 2)
            if is_frozen:
                first.freeze()
            (second,) = scene.fleet.start(1, named)
            tally.faults += 1
            time.sleep(scene.session_s * 1.5)
            if is_frozen:
                first.thaw()
                time.sleep(scene.session_s / 2)
            for process in (first, second):
                if process.exit_code is not None:
                    tally.notes.append(f"a twin ended by itself: {process.exit_code}")
            if first.exit_code is None:
                first.kill()
            if second.exit_code is None:
                first = second
            else:
                (first,) = scene.fleet.start(1, named)
            scene.until_moving(at)
            turn += 1


_STORM_S: Final = 30.0
"""How long members come and go before the group is left alone until all partitions move."""


def storm(cluster: Cluster, home: Path, tally: Tally, seconds: float) -> None:
    """Members join, leave and are killed every 1-2 s."""
    with under_load(cluster, home, tally, workers=2) as scene:
        began, bursts = time.monotonic(), list[list[float]]()
        leaving: list[Process] = []
        while not bursts or time.monotonic() - began < seconds:
            bursts.append(_come_and_go(scene, min(_STORM_S, seconds), leaving))
            scene.until_quiet(90)
        scene.note_recoveries(bursts)
        for process in leaving:
            if process.exit_code not in (None, 0) and process.log():  # a signal before it began to listen ends it
                tally.problems.append(f"worker {process.label}: exit {process.exit_code} on SIGTERM")


def _come_and_go(scene: Scene, seconds: float, leaving: list[Process]) -> list[float]:
    """Members that join, leave and are killed for so long; when each did. `leaving` gets those that were asked to."""
    rng, began, at = scene.rng, time.monotonic(), list[float]()
    while time.monotonic() - began < seconds:
        time.sleep(rng.uniform(1, 2))
        live = [process for process in scene.fleet.running if process not in leaving]
        at.append(time.monotonic())
        scene.tally.faults += 1
        if len(live) < 2 or (len(live) < 5 and rng.random() < 0.5):
            scene.fleet.start()
        elif rng.random() < 0.8:
            one = rng.choice(live)
            one.terminate()
            leaving.append(one)
        else:
            rng.choice(live).kill()
    scene.keep_up(2)
    at.append(time.monotonic())
    return at
