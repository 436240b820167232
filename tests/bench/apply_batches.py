"""Applies encoded record batches with whatever core is on the path, and says what that cost (`tests.bench.against`).

It imports nothing of ours but the core's few names that have not changed since its first version, so that trees of
different ages can be compared. Standard input: JSON lines {"name", "before", "timed", "rounds"}, files of batches.
"""

from __future__ import annotations

import gc
import json
import sys
import time
import tracemalloc
from pathlib import Path
from typing import Any, Final

from aiokafka.record._crecords import MemoryRecords

from processor.core.partition import PartitionState
from processor.core.rules import Rules

BATCH: Final = 4_000
RULES: Final = Rules(max_step_bytes=1 << 40, max_open_steps=1 << 40)


def records(path: str) -> list[Any]:
    """The record objects of a file of one batch, as the client's fast path hands them over."""
    return list(MemoryRecords(Path(path).read_bytes()).next_batch()) if path else []


def spent_us(case: dict[str, Any]) -> tuple[float, int]:
    """CPU microseconds a record, the best of the rounds; and the effects that came."""
    before, timed = records(case["before"]), records(case["timed"])
    best, effects = float("inf"), 0
    for _ in range(case["rounds"]):
        state = PartitionState("bench", 0, RULES)
        state.apply(before)
        gc.collect()
        begun = time.process_time()
        effects = sum(len(state.apply(timed[at : at + BATCH])) for at in range(0, len(timed), BATCH))
        best = min(best, (time.process_time() - begun) * 1e6 / len(timed))
    return best, effects


def kept_bytes(case: dict[str, Any]) -> float:
    """Bytes allocated for each open step of the case, after all of its records."""
    timed = records(case["timed"])
    tracemalloc.start()
    state = PartitionState("bench", 0, RULES)
    for at in range(0, len(timed), BATCH):
        state.apply(timed[at : at + BATCH])
        timed[at : at + BATCH] = [None] * len(timed[at : at + BATCH])  # the record objects are not the step's
    gc.collect()
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return kept / int(case["steps"])


def main() -> None:
    for line in sys.stdin:
        case = json.loads(line)
        if "steps" in case:
            print(json.dumps({"name": case["name"], "value": kept_bytes(case), "effects": 0}))  # noqa: T201
        else:
            value, effects = spent_us(case)
            print(json.dumps({"name": case["name"], "value": value, "effects": effects}))  # noqa: T201


if __name__ == "__main__":
    main()
