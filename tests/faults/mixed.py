"""One group of workers that are not alike: `delivery.mode` differs, or the version, or both; killed at any moment.

Nothing is lost or wrong. A worker with `at_least_once` may publish a thing again: here it often dies where it does, and
what comes twice is equal, but for the header that names the fold version.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from tests.earlier_version import command_of_earlier_version
from tests.faults.cluster import Cluster
from tests.faults.lab import Scene, Tally
from tests.faults.worker_fleet import START_S

EARLIER: Final = "12c9b154a692a159f6637e911a774d4b5abb7174"
"""A commit of fold version 7."""
EXACTLY_ONCE, AT_LEAST_ONCE = "exactly_once", "at_least_once"
_ROOT: Final = Path(__file__).parents[2]
_DIES: Final = 9
_DYING: Final = f"""
import os
import random
import sys
from pathlib import Path

armed = Path(__file__).with_name("armed")
if "serve" in sys.orig_argv:
    from processor.kafka.writer import IdempotentWriter

    begin = IdempotentWriter.__init__

    def begun(self, *args, claim, **more):
        async def claimed(offsets):
            if random.random() < 0.02 and armed.exists():
                os._exit({_DIES})
            return await claim(offsets)

        begin(self, *args, claim=claimed, **more)

    IdempotentWriter.__init__ = begun
"""
"""Ends the process, as kill -9 does, between what it publishes and its offsets."""


class _Kind(NamedTuple):
    mode: str
    program: Sequence[str] = (sys.executable,)


def modes(cluster: Cluster, home: Path, tally: Tally, seconds: float) -> None:
    """Workers with and without transactions."""
    _together(cluster, home, tally, seconds, [_Kind(EXACTLY_ONCE), _Kind(AT_LEAST_ONCE), _Kind(AT_LEAST_ONCE)])


def versions(cluster: Cluster, home: Path, tally: Tally, seconds: float) -> None:
    """Workers of this version and of an earlier one, each in both modes."""
    try:
        home.mkdir(parents=True)
        earlier = command_of_earlier_version(home / "earlier", EARLIER)
    except (pytest.skip.Exception, pytest.fail.Exception) as error:
        tally.problems.append(str(error))
        return
    programs = ((sys.executable,), earlier)
    kinds = [_Kind(mode, program) for mode in (EXACTLY_ONCE, AT_LEAST_ONCE) for program in programs]
    _together(cluster, home / "fleet", tally, seconds, kinds)


def _together(cluster: Cluster, home: Path, tally: Tally, seconds: float, kinds: Sequence[_Kind]) -> None:
    own = home / "dying"
    own.mkdir(parents=True)
    (own / "sitecustomize.py").write_text(_DYING)
    settings = {"source.max_poll_records": "100", "checkpoints.interval_s": "0.5"}
    with Scene(cluster, home, tally, settings=settings, may_end_with=frozenset({_DIES})) as scene:
        places: dict[str, _Kind] = {}

        def start(kind: _Kind) -> None:
            told = {"RUN_STEPS_DELIVERY__MODE": kind.mode}
            if kind.mode == AT_LEAST_ONCE:
                told["PYTHONPATH"] = os.pathsep.join(map(str, [own] if "-P" in kind.program else [own, _ROOT]))
            (process,) = scene.fleet.start(environment=told, program=kind.program)
            places[process.label] = kind

        def replace_the_dead() -> None:
            """Start one of the same kind for each that has ended."""
            for process in [process for process in scene.fleet.all if process.exit_code is not None]:
                if kind := places.pop(process.label, None):
                    tally.faults += 1
                    start(kind)

        def all_are_there() -> bool:
            replace_the_dead()
            return all(process.is_ready() for process in scene.fleet.running)

        for kind in kinds:
            start(kind)
        scene.fleet.await_ready()
        scene.begin(300)
        (own / "armed").touch()
        began = time.monotonic()
        for turn in itertools.count():
            if turn >= len(kinds) and time.monotonic() - began > seconds:
                break
            scene.until("all are there", all_are_there, START_S)
            at, victim = time.monotonic(), scene.any_running()
            if turn % 4 == 3:  # for longer than its session
                victim.freeze()
                time.sleep(scene.session_s + 2)
                victim.thaw()
                tally.faults += 1
            else:
                victim.kill()
            replace_the_dead()
            scene.until_moving(at)
        (own / "armed").unlink()
        replace_the_dead()
        tally.rounds += 1
        scene.judge(may_repeat=True)
