"""Applies encoded record batches with whatever core is on the path, and says what that cost (`tests.bench.against`).

It imports nothing of ours but the core's few names that have not changed since its first version, and what reads the
bytes of a batch where a tree has that, so that trees of different ages can be compared. Standard input: JSON lines
{"name", "before", "timed", "rounds"}, files of batches.
"""

from __future__ import annotations

import gc
import json
import sys
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

from aiokafka.record._crecords import MemoryRecords

from processor.core.partition import PartitionState
from processor.core.rules import Rules

BATCH: Final = 4_000
"""How many records the core is given at once."""
RULES: Final = Rules(max_step_bytes=1 << 40, max_open_steps=1 << 40)


def records(path: str) -> list[Any]:
    """The record objects of a file of batches, as the client's fast path hands them over."""
    return [record for batch in batches(path) for record in batch]


def batches(path: str) -> list[Any]:
    """The batches of a file, each read by the client once."""
    reading, found = MemoryRecords(Path(path).read_bytes() if path else b""), []
    while reading.has_next():
        found.append(reading.next_batch())
    return found


def decoded(path: str) -> tuple[list[Callable[[PartitionState], list[Any]]], int]:
    """For each batch of a file what decodes and folds it, as the worker of a tree does it; and how many records."""
    content, at, count = Path(path).read_bytes(), 0, 0
    found: list[Callable[[PartitionState], list[Any]]] = []
    while at < len(content):
        end = at + 12 + int.from_bytes(content[at + 8 : at + 12], "big")
        count += int.from_bytes(content[at + 57 : at + 61], "big")
        found.append(partial(_apply_bytes, content, at, end))
        at = end
    if not _reads_bytes():
        found = [partial(_apply_objects, batch) for batch in batches(path)]
    return found, count


def _reads_bytes() -> bool:
    """Whether this tree's worker lets the core read the batches: those that can do so only where it is compiled."""
    compiled = not sys.modules[PartitionState.__module__].__file__.endswith(".py")  # type: ignore[union-attr]
    return compiled and hasattr(PartitionState, "apply_batches")


def _apply_objects(batch: Any, state: PartitionState) -> list[Any]:
    return state.apply(list(batch))


def _apply_bytes(content: bytes, begin: int, end: int, state: PartitionState) -> list[Any]:
    from processor.kafka.raw_names import raw_batch_of

    return state.apply_batches([raw_batch_of(content, begin, end, ValueError)])


def spent_us(case: dict[str, Any]) -> tuple[float, int]:
    """CPU microseconds a record, to decode and to fold it, the best of the rounds; and the effects that came."""
    before = records(case["before"])
    best, effects = float("inf"), 0
    for _ in range(case["rounds"]):
        state = PartitionState("bench", 0, RULES)
        state.apply(before)
        timed, count = decoded(case["timed"])
        gc.collect()
        begun = time.process_time()
        effects = sum(len(apply(state)) for apply in timed)
        best = min(best, (time.process_time() - begun) * 1e6 / count)
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
