"""Folds an archive with whatever core is on the path and records what that publishes (`tests.bench.replay_against`).

It imports next to nothing of ours but names that have not changed since its first version, each where it stood then or
stands now. Arguments: the folder of the job. Each tree records for itself: fold versions and digests of settings, which
stand in the headers, are its own, and so is the schema of its Parquet files.
"""

from __future__ import annotations

import sys
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

from processor.archives import ArchivedRecord, Recorder, read
from processor.core.partition import PartitionState

TOPIC = "bench"
PARTITIONS = 8
BATCH = 4_000


def _found(*places: tuple[str, str]) -> Any:
    """The first of these names that is there: module and name."""
    for module, name in places:
        try:
            return getattr(import_module(module), name)
        except (ImportError, AttributeError):
            continue
    raise ImportError(f"none of {places}")


def main() -> None:
    folder = Path(sys.argv[1])
    settings = _found(("processor.config.settings", "Settings"), ("processor.config", "Settings"))
    task_type = _found(("processor.audit.replay.task", "Task"), ("processor.replay", "Task"))
    expected_of = _found(
        ("processor.audit.replay.task_judge", "expected_records"), ("processor.replay.partition", "places_of")
    )
    config = settings.model_validate({"source": {"topic": TOPIC}})
    outcomes, dead = config.outcome_topics, config.output.dead_letter
    published, source = Recorder(folder / "published", files=".jsonl"), Recorder(folder / ".parquet", files=".parquet")
    for partition in range(PARTITIONS):
        task = task_type(
            topic=TOPIC, partition=partition, begin=0, end=0, complete=True, rules=config.rules(),
            outcome_topics=outcomes, dead_letter=dead, output_partitions={}, work="",
        )  # fmt: skip
        expected = expected_of(task)
        state = PartitionState(TOPIC, partition, config.rules())
        forget = getattr(state, "restore_point_at", None) or state.seal  # type: ignore[attr-defined]
        ends = dict.fromkeys((*outcomes.values(), dead), 0)
        records = read(folder.parent / ".jsonl", only=(TOPIC, partition))
        while batch := list(islice(records, BATCH)):
            for record in batch:
                source.write(record)
            for effect in state.apply([record for record in batch if isinstance(record, ArchivedRecord)]):
                placed = expected.whole(effect)
                if placed is not None:
                    published.write(
                        ArchivedRecord(
                            placed.topic, partition, ends[placed.topic], placed.timestamp, placed.key, placed.value,
                            tuple(placed.headers),
                        )
                    )  # fmt: skip
                    ends[placed.topic] += 1
            forget(state.next_offset)
    for recorder in (published, source):
        recorder.close()


if __name__ == "__main__":
    main()
