"""An audit over logs and topics in memory, by the same judge and set up by the same task as a replay's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from processor.archives import ArchivedRecord, Gap
from processor.audit.judge.verdicts import DISAGREES, Finding, Verdict
from processor.audit.published_index import FileIndex, IndexWriter
from processor.audit.replay.record_sources import HOLES
from processor.audit.replay.task import Task
from processor.audit.replay.task_judge import audit_of, plain_state
from tests.shell.mutations import DEAD, SOURCE, World, task_of


@dataclass
class Told:
    """What one audit says, all partitions together.

    Attributes:
        disagreeing, undecided: findings by partition.
        apart: what the verdict does not speak of, by kind: a reader sees these numbers beside it.
    """

    disagreeing: list[tuple[int, Finding]] = field(default_factory=list)
    undecided: list[tuple[int, Finding]] = field(default_factory=list)
    strays: list[tuple[str, int, int]] = field(default_factory=list)
    apart: Counter[str] = field(default_factory=Counter)
    equal: int = 0

    @property
    def outcome(self) -> str:
        if self.disagreeing or self.strays:
            return "different"
        return "unprovable" if self.undecided else "proven"


def audited(made: World, work: Path, options: dict[str, Any] | None = None, *, sole_source: bool = False) -> Told:
    """Judge what stands on the topics. `options` are fields of each `Task`, or functions of its partition."""
    told = Told()
    partitions = sorted(made.ends)
    with IndexWriter(work, SOURCE, len(partitions), frozenset(partitions), sole_source=sole_source) as writer:
        for (topic, partition), log in sorted(made.topics.items()):
            for record in log:
                writer.put(topic, partition, record, dead_letters=topic == DEAD)
    told.apart["of other sources"] = writer.elsewhere.claims().total()
    told.apart["of other partitions"] = writer.other_partitions.claims().total()
    for p in partitions:
        given = {name: value(p) if callable(value) else value for name, value in (options or {}).items()}
        task = msgspec.structs.replace(task_of(made, p), **given)
        with ExitStack() as exits:
            index = exits.enter_context(FileIndex(work, p))
            _judge(told, made.logs[p], task, index)
    return told


def _judge(told: Told, log: Sequence[ArchivedRecord | Gap], task: Task, index: FileIndex) -> None:
    audit = audit_of(task, index, partial(plain_state, task), yield_equal=task.partition % 2 == 0)
    found: list[Finding] = []
    chunk: list[Any] = []
    for item in log:
        first = item.first if isinstance(item, Gap) else item.offset
        if not task.begin <= first < task.end:
            continue
        if not isinstance(item, Gap):
            chunk.append(item)
        elif item.kind in HOLES:
            found += [finding for _, finding in audit.apply(chunk)] if chunk else []
            chunk = []
            found += [finding for _, finding in audit.lost(item.first, item.last)]
    found += [finding for _, finding in audit.apply(chunk)] if chunk else []
    found += [finding for _, finding in audit.finish()]
    told.disagreeing += [(task.partition, one) for one in found if one.verdict in DISAGREES]
    told.undecided += [(task.partition, one) for one in found if one.verdict is Verdict.UNVERIFIABLE]
    told.equal += sum(one.verdict is Verdict.EQUAL for one in found) + audit.equal_not_yielded
    told.strays += [(one.topic, one.partition, one.offset) for _, one in index.strays()]
    told.apart["behind the range"] += audit.caused_behind
    told.apart["before the range"] += audit.out_of_range - audit.caused_behind
    told.apart["under a mark at the end"] += audit.unbounded_marks
