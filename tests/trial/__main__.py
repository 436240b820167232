"""The trial of the audit: forgeries that must leave a trace, honest worlds that must not be accused.

    python -m tests.trial --forgeries 5000 --worlds 1000 --seed 1

Told is by kind how many were tried, what the verdict was, and how many forgeries of which an honest worker could have
published just the same were left alone. Ends with 1 where a forgery was proven without a trace, or a world was accused.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final

from tests.shell.mutations import World, could_be, world
from tests.trial.adversary import KINDS, forged
from tests.trial.audited import Told, audited
from tests.trial.honest_worlds import WORLDS

WRONG: Final = ("unseen", "accused")


@dataclass(frozen=True)
class Tried:
    """One forgery. `how`: different, unprovable, apart (proven, and a number beside the verdict changed), honest (a
    worker could have published just this), unseen, accused (honest, and called wrong)."""

    kind: str
    how: str
    number: int


@dataclass(frozen=True)
class Judged:
    """One honest world. `accused`: what was called wrong."""

    kind: str
    seed: int
    outcome: str
    is_right: bool
    accused: str


def clock_of(made: World) -> int:
    """A clock that is 60 s ahead of all that was published: no honest mark is later."""
    return max((r.timestamp for log in made.topics.values() for r in log), default=0) + 60_000


def tried(number: int, seed: int, work: Path, per_world: int = 25) -> Iterator[Tried]:
    rng = Random(seed)
    kinds = sorted(KINDS)
    made, honest, clock = world(0), Told(), 0
    for at in range(number):
        if at % per_world == 0:
            made = world(rng.randrange(1 << 30))
            clock = clock_of(made)
            honest = audited(made, work, {"latest_mark_ms": clock})
            assert honest.outcome == "proven", honest.disagreeing[:2]
        changed = None
        while changed is None:
            kind = rng.choice(kinds)
            changed = forged(made, rng, kind)
        told = audited(changed, work, {"latest_mark_ms": clock})
        yield Tried(kind, _how(made, changed, told, honest, clock), at)


def _how(made: World, changed: World, told: Told, honest: Told, clock_ms: int) -> str:
    if told.outcome != "proven":
        # Where an honest worker could have published it, it must not be called wrong. No clock had come further.
        is_honest = told.outcome == "different" and _is_honest(made, changed, clock_ms)
        return "accused" if is_honest else told.outcome
    if told.apart != honest.apart:
        return "apart"
    return "honest" if _is_honest(made, changed, clock_ms) else "unseen"


def _is_honest(made: World, changed: World, clock_ms: int) -> bool:
    latest = max((r.timestamp for log in changed.topics.values() for r in log), default=0)
    return latest <= clock_ms and could_be(made, changed.topics)


def judged(number: int, seed: int, work: Path) -> Iterator[Judged]:
    rng = Random(seed)
    kinds = sorted(WORLDS)
    for at in range(number):
        kind, own = kinds[at % len(kinds)], rng.randrange(1 << 30)
        hard = WORLDS[kind](own)
        told = audited(hard.made, work, hard.options)
        accused = "; ".join(
            f"{p}: {f.verdict.value} {f.identity} {f.why} {[d.path for d in f.differences]}"
            for p, f in told.disagreeing[:3]
        )
        accused = accused or ("stray" if told.strays else "")
        yield Judged(kind, own, told.outcome, told.outcome in hard.right, accused)


def table(forgeries: list[Tried], worlds: list[Judged]) -> str:
    ways = ("different", "unprovable", "apart", "honest", "accused", "unseen")
    lines = [f"{'forgery':<18} {'tried':>6} " + " ".join(f"{way:>10}" for way in ways)]
    for kind in (*sorted(KINDS), "all"):
        own = Counter(one.how for one in forgeries if kind in ("all", one.kind))
        lines.append(f"{kind:<18} {own.total():>6} " + " ".join(f"{own[way]:>10}" for way in ways))
    outcomes = ("proven", "unprovable", "different")
    lines += ["", f"{'honest world':<18} {'tried':>6} " + " ".join(f"{one:>10}" for one in outcomes)]
    for kind in (*sorted(WORLDS), "all"):
        told = Counter(one.outcome for one in worlds if kind in ("all", one.kind))
        lines.append(f"{kind:<18} {told.total():>6} " + " ".join(f"{told[one]:>10}" for one in outcomes))
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.trial", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--forgeries", type=int, default=5_000)
    parser.add_argument("--worlds", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        worlds, forgeries = [], []
        for world_judged in judged(asked.worlds, asked.seed, Path(folder)):
            worlds.append(world_judged)
            if not world_judged.is_right:
                sys.stderr.write(f"{world_judged}\n")
        for forgery in tried(asked.forgeries, asked.seed, Path(folder)):
            forgeries.append(forgery)
            if forgery.how in WRONG:
                sys.stderr.write(f"{forgery}\n")
    unseen = [one for one in forgeries if one.how in WRONG]
    wrong = [one for one in worlds if not one.is_right]
    lines = [table(forgeries, worlds)]
    lines += [f"  {one}" for one in (*unseen[:10], *wrong[:10])]
    lines.append(f"forgeries without a trace: {len(unseen)}; honest worlds told wrongly: {len(wrong)}")
    sys.stdout.write("\n".join(lines) + "\n")
    return 1 if unseen or wrong else 0


if __name__ == "__main__":
    sys.exit(main())
