"""One broker of three hangs (SIGSTOP): its sockets stay open and take connections, and nothing answers.

Kafka moves what it led in `broker.session.timeout.ms` and a moment; the workers are to move again while it still hangs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from tests.faults.cluster import Cluster, Node
from tests.faults.lab import Scene, Tally

SESSION_S: Final = 6.0
WITHIN_S: Final = SESSION_S + 10.0
"""Live again, whichever role the hung broker has."""
_PER_SECOND: Final = 150.0
_WORKERS: Final = 2


def _source(cluster: Cluster, scene: Scene) -> Node:
    return cluster.leader(scene.topics.source, 0)


def _outcome(cluster: Cluster, scene: Scene) -> Node:
    return cluster.leader(next(iter(scene.topics.outcomes)), 0)


def _group(cluster: Cluster, scene: Scene) -> Node:
    return cluster.group_coordinator(scene.topics.group)


def _transaction(cluster: Cluster, scene: Scene) -> Node:
    told = scene.fleet.running[0].log("worker_started")[-1]
    return cluster.transaction_coordinator(told["transactional_id"])


def _controller(cluster: Cluster, _: Scene) -> Node:
    return cluster.controller()


ROLES: Final[Mapping[str, Callable[[Cluster, Scene], Node]]] = {
    "source": _source,
    "group": _group,
    "transaction": _transaction,
    "outcome": _outcome,
    "controller": _controller,
}


def hung(cluster: Cluster, home: Path, tally: Tally, roles: tuple[str, ...], hold_s: float = 30.0) -> None:
    """Stop the broker that has each role in turn until every partition moves, `hold_s` at most; then let it go on."""
    with Scene(cluster, home, tally, session_s=SESSION_S, is_patient=True) as scene:
        scene.fleet.start(_WORKERS)
        scene.fleet.await_ready()
        scene.begin(_PER_SECOND)
        since = time.monotonic()
        scene.until("it moves at all", lambda: scene.offsets.moved_since(since), 30)
        for role in roles:
            node = ROLES[role](cluster, scene)
            stopped = time.monotonic()
            node.pause()
            try:
                time.sleep(3)  # what was on its way when it stopped may still be committed
                scene.until_moving(stopped, hold_s)
                tally.notes.append(f"{role}: node {node.id} hung, moving again after {tally.recoveries_s[-1]} s")
            finally:
                node.resume()
            tally.faults += 1
            cluster.await_in_sync()
        tally.rounds += 1
        scene.judge(with_replay=False)
