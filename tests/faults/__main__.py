"""The long forms of the lab: `python -m tests.faults --minutes 30 --seed 7` (`make faults`).

Each scenario gets its share of the minutes, on a cluster of its own; a round is repeatable by its seed as far as
processes, sockets and a broker's threads are. Prints a table and keeps it as JSON; exit 1 if anything was lost,
doubled, wrong or otherwise not as it must be.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from tests.faults import ablations
from tests.faults.lab import Tally
from tests.faults.scenarios import SCENARIOS, Scenario

_ROOT: Final = Path(__file__).parents[2]
_HEADS: Final = (
    "scenario",
    "rounds",
    "faults",
    "records",
    "lost",
    "doubled",
    "wrong",
    "other",
    "p50 s",
    "p99 s",
    "max s",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the scenarios, print the table, return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30, help="for all scenarios together")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="names of scenarios, with commas between")
    parser.add_argument("--work", type=Path, help="where logs and data go; kept (default: a temporary directory)")
    parser.add_argument("--json", type=Path, default=_ROOT / "build" / "faults.json", dest="report")
    parser.add_argument("--without-ablations", action="store_true", dest="is_without_ablations")
    parser.add_argument("--list", action="store_true", dest="is_list", help="show the scenarios and end")
    given = parser.parse_args(arguments)
    if given.is_list:
        for scenario in SCENARIOS.values():
            sys.stdout.write(f"{scenario.name:<18} {scenario.title}\n")
        return 0
    names = [name for name in given.only.split(",") if name] or [s.name for s in SCENARIOS.values() if s.is_usual]
    if unknown := [name for name in names if name not in SCENARIOS]:
        parser.error(f"--only: no such scenario: {', '.join(unknown)} (see --list)")
    chosen = [SCENARIOS[name] for name in names]
    work = given.work or Path(tempfile.mkdtemp(prefix="run-steps-faults-"))
    shares = sum(scenario.share for scenario in chosen)
    tallies: list[Tally] = []
    for scenario in chosen:
        tallies.append(_run(scenario, work, given.seed, given.minutes * 60 * scenario.share / shares))
        _keep(given.report, given, tallies)
    sys.stdout.write("\n" + table(tallies))
    for tally in tallies:
        for problem in tally.problems:
            sys.stdout.write(f"{tally.scenario}: {problem}\n")
    sys.stdout.write(f"logs: {work}; kept: {given.report}\n")
    is_right = all(tally.is_right for tally in tallies)
    if not given.only and not given.is_without_ablations:
        sys.stdout.write("\nEach safeguard taken out in turn: is it missed?\n")
        is_right = ablations.main([]) == 0 and is_right
    return 0 if is_right else 1


def _run(scenario: Scenario, work: Path, seed: int, seconds: float) -> Tally:
    tally = Tally(scenario.name, seed)
    began = time.monotonic()
    try:
        scenario.run(work / scenario.name, tally, seconds)
    except Exception as error:  # the next scenario is to run all the same
        tally.problems.append(f"the scenario broke: {type(error).__name__}: {error}")
        traceback.print_exc()
    took = time.monotonic() - began
    sys.stdout.write(f"{scenario.name} ({took:.0f} s): {json.dumps(asdict(tally))}\n")
    sys.stdout.flush()
    return tally


def _keep(path: Path, given: argparse.Namespace, tallies: Sequence[Tally]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    found = {"seed": given.seed, "minutes": given.minutes, "scenarios": [asdict(tally) for tally in tallies]}
    path.write_text(json.dumps(found, indent=1) + "\n")


def table(tallies: Sequence[Tally]) -> str:
    """The result as text, one line per scenario and one for their sum."""
    rows: list[tuple[object, ...]] = [_row(tally.scenario, [tally]) for tally in tallies]
    if len(tallies) > 1:
        rows.append(_row("all", tallies))
    return "".join(f"{row[0]!s:<18}" + "".join(f"{cell!s:>9}" for cell in row[1:]) + "\n" for row in [_HEADS, *rows])


def _row(name: str, tallies: Sequence[Tally]) -> tuple[object, ...]:
    whole = Tally(name, 0)
    for tally in tallies:
        whole.rounds += tally.rounds
        whole.faults += tally.faults
        whole.records += tally.records
        whole.lost += tally.lost
        whole.doubled += tally.doubled
        whole.wrong += tally.wrong
        whole.problems += tally.problems
        whole.recoveries_s += tally.recoveries_s
    recoveries = [whole.recovery_s(quantile) for quantile in (0.5, 0.99, 1.0)]
    return (
        name, whole.rounds, whole.faults, whole.records, whole.lost, whole.doubled, whole.wrong, len(whole.problems),
        *("-" if seconds is None else f"{seconds:.1f}" for seconds in recoveries),
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
