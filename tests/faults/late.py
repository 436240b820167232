"""A request that the broker gets late: its connection was cut, the client has said it again, and now the first copy.

Aimed: one request of one kind, and the copy comes at a named moment, between transactions or inside the next. Unaimed:
a barrage of cut connections, each request delivered a little later, whatever is under way by then, and kills.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Final

from tests.faults.cluster import Cluster
from tests.faults.lab import Scene, Tally
from tests.faults.proxy import Action, Api, Rule
from tests.faults.worker_fleet import WAIT_S, eventually

_FIRST: Final = 400
_MORE: Final = 40


class Moment(Enum):
    """When the late copy comes."""

    BETWEEN = auto()
    """Nothing is under way; then the worker is killed, and another takes over."""
    BEFORE_OFFSETS = auto()
    """The next transaction has its records and not yet its offsets; then the worker is killed."""
    BEFORE_END = auto()
    """The next transaction is about to be committed; when it is, the worker is killed."""
    SLOW_PRODUCE = auto()
    """The next transaction has its offsets while its records are still under way. No kill."""


@dataclass(frozen=True, slots=True)
class Aim:
    """Which request comes late, and when."""

    name: str
    apis: frozenset[Api]
    moment: Moment
    is_claim: bool = False
    """The first such request of a new owner, rather than one of a transaction with records."""
    is_classic: bool = False
    """Only the protocol before transaction.version 2 has such a request."""


def _aims() -> Mapping[str, Aim]:
    offsets = frozenset({Api.TXN_OFFSET_COMMIT})
    claim = frozenset({Api.OFFSET_COMMIT, Api.TXN_OFFSET_COMMIT})
    end, produce = frozenset({Api.END_TXN}), frozenset({Api.PRODUCE})
    aims = [
        Aim("claim", claim, Moment.BETWEEN, is_claim=True),
        Aim("claim-inside", claim, Moment.BEFORE_END, is_claim=True),
        Aim("claim-end", end, Moment.BETWEEN, is_claim=True),
        Aim("init", frozenset({Api.INIT_PRODUCER_ID}), Moment.BETWEEN, is_claim=True),
        Aim("offsets", offsets, Moment.BETWEEN),
        Aim("offsets-inside", offsets, Moment.BEFORE_END),
        Aim("end", end, Moment.BETWEEN),
        Aim("end-inside", end, Moment.BEFORE_OFFSETS),
        Aim("end-slow-produce", end, Moment.SLOW_PRODUCE),
        Aim("produce", produce, Moment.BETWEEN),
        Aim("produce-inside", produce, Moment.BEFORE_END),
        Aim("add-partitions", frozenset({Api.ADD_PARTITIONS_TO_TXN}), Moment.BETWEEN, is_classic=True),
        Aim("add-offsets", frozenset({Api.ADD_OFFSETS_TO_TXN}), Moment.BETWEEN, is_classic=True),
    ]
    return {aim.name: aim for aim in aims}


AIMS: Final = _aims()


def aimed(cluster: Cluster, home: Path, tally: Tally, aim: Aim, *, with_replay: bool = True) -> None:
    """One round of an aim, on topics of its own."""
    with Scene(cluster, home, tally, partitions=1, session_s=3.0) as scene:
        scene.fleet.start()
        scene.fleet.await_ready()
        scene.put(_FIRST)
        scene.until_committed()
        kept = _keep(scene, aim)
        tally.rounds += 1
        if kept is None:
            if not aim.is_classic:
                tally.problems.append(f"{aim.name}: no such request came")
            else:
                tally.notes.append(f"{aim.name}: no such request in this protocol")
        else:
            tally.faults += 1
            began = time.monotonic()
            _strike(scene, aim, kept)
            scene.proxy.disarm()
            scene.keep_up(1)
            scene.fleet.await_ready()
            scene.put(_MORE)
            scene.until_committed()
            tally.recoveries_s.append(round(time.monotonic() - began, 2))
        scene.judge(with_replay=with_replay)


def _keep(scene: Scene, aim: Aim) -> Rule | None:
    """Have one such request kept back, said again by the client, and answered."""
    if aim.is_claim:
        scene.fleet.running[0].kill()
    kept = scene.proxy.arm(aim.apis, Action.KEEP)
    if aim.is_claim:
        scene.keep_up(1)
        scene.fleet.await_ready()
    scene.put(_FIRST if aim.is_claim else _MORE)
    # Of a request that this protocol does not have, none will come.
    if not kept.await_caught(15 if aim.is_classic else WAIT_S):
        return None
    scene.until_committed()
    return kept


def _strike(scene: Scene, aim: Aim, kept: Rule) -> None:
    """Let the first copy come at its moment."""
    proxy, worker = scene.proxy, scene.fleet.running[0]
    if aim.moment is Moment.BETWEEN:
        _deliver(scene, kept)
        worker.kill()
        return
    held_api = {
        Moment.BEFORE_OFFSETS: Api.TXN_OFFSET_COMMIT,
        Moment.BEFORE_END: Api.END_TXN,
        Moment.SLOW_PRODUCE: Api.PRODUCE,
    }[aim.moment]
    produced, committed = proxy.answered[Api.PRODUCE], proxy.answered[Api.TXN_OFFSET_COMMIT]
    held = proxy.arm(held_api, Action.HOLD)
    scene.put(_MORE)
    if not held.await_caught(WAIT_S):
        scene.tally.problems.append(f"{aim.name}: no {held_api.name} came to be held")
    if aim.moment is Moment.BEFORE_OFFSETS:
        _soon(lambda: proxy.answered[Api.PRODUCE] > produced)
        _deliver(scene, kept)
        worker.kill()
        held.release()
    elif aim.moment is Moment.BEFORE_END:
        _deliver(scene, kept)
        held.release()
        held.await_answered(WAIT_S)
        worker.kill()
    else:
        _soon(lambda: proxy.answered[Api.TXN_OFFSET_COMMIT] > committed)
        _deliver(scene, kept)
        held.release()
        scene.until_committed()


def _deliver(scene: Scene, kept: Rule) -> None:
    kept.release()
    if not kept.await_answered(WAIT_S):
        scene.tally.notes.append("the late copy was not answered")


def _soon(is_so: object) -> None:
    """Wait for what a writer may do next; one that waits for an answer before it goes on does not."""
    assert callable(is_so)
    try:
        eventually("the next request is answered", is_so, 2)
    except AssertionError:
        return


WEIGHTS: Final[Mapping[Api, float]] = {
    Api.TXN_OFFSET_COMMIT: 4,
    Api.END_TXN: 4,
    Api.PRODUCE: 2,
    Api.OFFSET_COMMIT: 1,
    Api.ADD_PARTITIONS_TO_TXN: 1,
    Api.ADD_OFFSETS_TO_TXN: 1,
    Api.INIT_PRODUCER_ID: 0.5,
}


_BURST_S: Final = 25.0
"""How long faults come one upon the other before the workers are left alone until all partitions move."""


def barrage(
    cluster: Cluster, home: Path, tally: Tally, seconds: float, *, per_second: float = 250, workers: int = 3
) -> None:
    """Connections cut under random transactional requests, each delivered 0.02-3 s later; a kill each 5-9 s."""
    with Scene(cluster, home, tally) as scene:
        scene.fleet.start(workers)
        scene.fleet.await_ready()
        scene.begin(per_second)
        proxy, began = scene.proxy, time.monotonic()
        before, kills, bursts = len(proxy.fired), 0, list[list[float]]()
        while not bursts or time.monotonic() - began < seconds:
            fired_before = len(proxy.fired)
            killed = _late_burst(scene, min(_BURST_S, seconds), workers)
            kills += len(killed)
            bursts.append([*killed, *(each.at for each in proxy.fired[fired_before:])])
            scene.until_quiet(90)
        fired = proxy.fired[before:]
        tally.rounds += 1
        tally.faults += len(fired) + kills
        tally.notes.append(f"{len(fired)} late: {dict(Counter(f.api.name for f in fired))}; {kills} kills")
        scene.note_recoveries(bursts)
        scene.judge(with_replay=True)


def _late_burst(scene: Scene, seconds: float, workers: int) -> list[float]:
    """Late copies of random requests for so long, and kills; when each kill was."""
    rng, proxy, began = scene.rng, scene.proxy, time.monotonic()
    next_kill, kills = began + 5, list[float]()
    while time.monotonic() - began < seconds:
        time.sleep(rng.uniform(0.2, 0.8))
        api = rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        late_s = round(rng.choice((rng.uniform(0.02, 0.4), rng.uniform(0.05, 3))), 3)
        proxy.arm(api, Action.LATE, seconds=late_s, lasts_s=3)
        if time.monotonic() > next_kill:
            kills.append(time.monotonic())
            scene.any_running().kill()
            next_kill = time.monotonic() + rng.uniform(5, 9)
        scene.keep_up(workers)
    proxy.disarm()
    return kills
