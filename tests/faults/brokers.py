"""Three brokers, min.insync.replicas 2: killed, hung and restarted by their role, and at random."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Final

from tests.faults.cluster import Cluster, Node
from tests.faults.lab import Scene, Tally
from tests.faults.trouble import WORKERS, transactional_ids, under_load

ROLES: Final = ("source", "outcome", "checkpoints", "group", "transactions", "controller")
_HUNG_BOUND_S: Final = 10
"""Beyond the session's time-out: how soon a hung broker must be got around."""
_MOVES_S: Final = 1.5


def by_role(scene: Scene, role: str) -> Node:
    """The broker that has a role at this moment."""
    cluster, topics, rng = scene.cluster, scene.topics, scene.rng
    if role == "source":
        return cluster.leader(topics.source, rng.randrange(topics.partitions))
    if role == "outcome":
        return cluster.leader(rng.choice(sorted(topics.outcomes)), rng.randrange(3))
    if role == "checkpoints":
        return cluster.leader(topics.checkpoints, rng.randrange(topics.partitions))
    if role == "group":
        return cluster.group_coordinator(topics.group)
    if role == "transactions":
        return cluster.transaction_coordinator(rng.choice(sorted(transactional_ids(scene))))
    return cluster.controller()


def kills(cluster: Cluster, home: Path, tally: Tally, seconds: float, roles: tuple[str, ...] = ROLES) -> None:
    """The broker with each role in turn: kill -9, a while without it, restart; then one after the other."""
    with under_load(cluster, home, tally, is_patient=True, judge_s=150) as scene:
        began, turn = time.monotonic(), 0
        while turn == 0 or time.monotonic() - began < seconds:
            role = roles[turn % len(roles)]
            turn += 1
            node, at = by_role(scene, role), time.monotonic()
            node.kill()
            tally.faults += 1
            scene.until_moving(at)
            time.sleep(scene.rng.uniform(0, 4))
            at = time.monotonic()
            node.restart()
            cluster.await_in_sync()
            scene.until_moving(at)
            tally.notes.append(f"kill {role}: {tally.recoveries_s[-2]} s, its return: {tally.recoveries_s[-1]} s")
            scene.keep_up(WORKERS)
            if turn % len(roles) == 0 and roles == ROLES:
                _rolling(scene)


def _rolling(scene: Scene) -> None:
    at = time.monotonic()
    for node in scene.cluster.nodes:
        node.stop()
        node.launch()
        node.await_ready()
        scene.cluster.await_in_sync()
        scene.tally.faults += 1
    scene.until_moving(at)
    scene.tally.notes.append(f"restarted one after the other: {scene.tally.recoveries_s[-1]} s")


def below_min_isr(cluster: Cluster, home: Path, tally: Tally, seconds: float) -> None:
    """Two of three are gone for 20 s: nothing can be written; then they come back."""
    with under_load(cluster, home, tally, is_patient=True, judge_s=150) as scene:
        began, turn = time.monotonic(), 0
        while turn == 0 or time.monotonic() - began < seconds:
            turn += 1
            gone = scene.rng.sample(cluster.nodes, 2)
            for node in gone:
                node.kill()
            time.sleep(20)
            tally.faults += 2
            for node in gone:
                node.launch()
            for node in gone:
                node.await_ready()
            # From here on there is something to write to.
            scene.until_moving(time.monotonic(), 150)
            cluster.await_in_sync()
            scene.keep_up(WORKERS)


def hung(
    cluster: Cluster,
    home: Path,
    tally: Tally,
    seconds: float,
    roles: tuple[str, ...] = ROLES,
    hold_s: float = 90,
    *,
    is_short: bool = False,
) -> None:
    """The broker with each role in turn stands still (SIGSTOP) while the others go on: when do all partitions move?

    A problem is a partition that does not move again while the broker hangs; and, in the long form, a 99th percentile
    above the session's time-out and 10 s. `is_short`: two workers, no replay at the end, and no such bound: how soon it
    is depends on the machine, too.
    """
    workers = 2 if is_short else WORKERS
    with under_load(
        cluster, home, tally, is_patient=True, judge_s=150, workers=workers, with_replay=not is_short
    ) as scene:
        began, turn = time.monotonic(), 0
        while turn == 0 or time.monotonic() - began < seconds:
            role = roles[turn % len(roles)]
            turn += 1
            node, at = by_role(scene, role), time.monotonic()
            node.pause()
            tally.faults += 1
            waited_s, is_live = _live_again(scene, at, hold_s)
            node.resume()
            tally.recoveries_s.append(round(waited_s, 2))
            told = f"hung {role}: live again after {waited_s:.1f} s"
            if not is_live:
                told = f"hung {role}: not live again within {hold_s:g} s (a partition waited for {waited_s:.1f} s)"
                tally.problems.append(told)
            tally.notes.append(told)
            cluster.await_in_sync()
            scene.until_moving(time.monotonic())
            tally.recoveries_s.pop()
            scene.keep_up(workers)
        bound_s, p99_s = scene.session_s + _HUNG_BOUND_S, tally.recovery_s(0.99)
        if not is_short and p99_s is not None and p99_s > bound_s:
            tally.problems.append(f"hung: p99 {p99_s:.1f} s of {len(tally.recoveries_s)} (bound: {bound_s:g} s)")


def _live_again(scene: Scene, since: float, within_s: float) -> tuple[float, bool]:
    """How long a partition with something to read stood still, and whether all move again.

    A load that has stopped is no fault of the workers': they are live when they have read all that was acknowledged.
    """
    settled_s = scene.session_s + 2
    while True:
        time.sleep(0.2)
        now = time.monotonic()
        is_over = now - since > within_s
        if is_over or (now - since > settled_s and scene.offsets.moved_since(now - _MOVES_S)):
            waits_s = scene.offsets.longest_wait_s(since, now, scene.acknowledged)
            return waits_s, not is_over or scene.offsets.longest_wait_s(
                now - _MOVES_S, now, scene.acknowledged
            ) < _MOVES_S


def at_random(cluster: Cluster, home: Path, tally: Tally, seconds: float) -> None:
    """Kills and pauses of brokers and of workers, at random and together, in bursts."""
    with under_load(cluster, home, tally, is_patient=True, judge_s=150) as scene:
        began, told, bursts = time.monotonic(), Counter[str](), list[list[float]]()
        while not bursts or time.monotonic() - began < seconds:
            bursts.append(_burst(scene, told))
            scene.until_quiet()
        scene.note_recoveries(bursts)
        tally.notes.append(str(dict(told)))


def _burst(scene: Scene, told: Counter[str]) -> list[float]:
    """One to six faults, half a second to six apart; when each began, and when the broker came back."""
    rng, cluster, at = scene.rng, scene.cluster, list[float]()
    back_at = 0.0
    """When the broker that is away has to come back; 0: none is."""
    for _ in range(rng.randint(1, 6)):
        if back_at and time.monotonic() > back_at:
            cluster.await_all()
            at.append(time.monotonic())
            back_at = 0.0
        kind = rng.choice(("kill", "pause", "worker kill", "worker kill", "worker freeze", "worker term", "both"))
        if back_at and kind in ("kill", "both", "pause"):
            continue
        at.append(time.monotonic())
        if kind in ("kill", "both", "pause"):
            node = rng.choice(cluster.nodes)
            back_at = time.monotonic() + rng.uniform(2, 14)
            node.pause() if kind == "pause" else node.kill()
        if kind in ("worker kill", "both"):
            scene.any_running().kill()
        elif kind == "worker term":
            scene.any_running().terminate()
        elif kind == "worker freeze":
            process = scene.any_running()
            process.freeze()
            time.sleep(rng.choice((1, 8)))
            process.thaw()
            at.append(time.monotonic())
        told[kind] += 1
        scene.tally.faults += 1
        scene.keep_up(WORKERS)
        time.sleep(rng.uniform(0.5, 6))
    if back_at:
        time.sleep(max(0.0, back_at - time.monotonic()))
        cluster.await_all()
        at.append(time.monotonic())
    return at
