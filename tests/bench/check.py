"""`make bench-check`: has anything become dearer since the recorded bench, beside what was measured in the same run?

Only ratios are compared, for a rate alone says as much of the machine as of us. The bounds are generous: this is to
find a fall, not to argue about noise.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

RECORDED: Final = Path(__file__).with_name("recorded.json")
BOUND: Final = 1.4
"""How much worse a ratio may be."""

_BETTER_IF_LARGE: Final = ("events/CPU-s", "events/s", "x")


def worse(
    recorded: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]], bound: float = BOUND
) -> Iterator[str]:
    """One line per ratio that both benches have and that has become worse than the bound allows."""
    before = {row["name"]: row for row in recorded}
    for row in now:
        then = before.get(row["name"])
        if then is None:
            continue
        for name, ratio in row["ratio_to"].items():
            old = then["ratio_to"].get(name)
            if old is None or not old or not ratio:
                continue
            factor = old / ratio if row["unit"] in _BETTER_IF_LARGE else ratio / old
            if factor > bound:
                yield f"{row['name']}: {ratio:.3g} x {name}; recorded: {old:.3g} x"


def main() -> int:
    measured = Path("build", "bench.json")
    if not measured.exists():
        print(f"{measured}: not there; run `make bench` first", file=sys.stderr)  # noqa: T201
        return 2
    now, recorded = json.loads(measured.read_text()), json.loads(RECORDED.read_text())
    compared = {row["name"] for row in recorded if row["ratio_to"]} & {row["name"] for row in now if row["ratio_to"]}
    found = list(worse(recorded, now))
    for line in found:
        print(f"worse: {line}")  # noqa: T201
    print(f"{len(compared)} ratios compared, {len(found)} worse by more than {BOUND:g} x")  # noqa: T201
    return 1 if found or not compared else 0


if __name__ == "__main__":
    sys.exit(main())
