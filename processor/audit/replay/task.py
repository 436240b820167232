"""The data of one replay task: a source partition's range, its output, the rules, and the result that comes back."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from processor.archives import CAPTURE, Capture
from processor.audit.judge.verdicts import Finding
from processor.core.rules import Rules


class StepFilter(msgspec.Struct, frozen=True):
    """What is reported (all of it where a tuple is empty); what is folded does not change by it."""

    steps: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    threads: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.steps or self.runs or self.threads)


class Part(msgspec.Struct, frozen=True):
    """A stretch of offsets, [begin, end), that is read from an archive."""

    path: str
    begin: int
    end: int


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """One partition's range, and all that is needed to judge it.

    Attributes:
        begin, end: offsets, [begin, end).
        complete: nothing came before `begin` (the log began there).
        log_end: where the log ended after the published records were read; None: not known.
        rules: the settings under which the worker is said to have run.
        outcome_topics: status on the wire -> topic ("" is switched off).
        output_partitions: topic -> number of partitions.
        work: a folder that every worker sees: shelves, split archives and spills are in it.
        shelves: names of the shelves that hold what was published.
        switch: below it the archives are read, from it on the topic.
        archives: what is read from archives, in offset order.
        shortened: (topic, partition) of the outputs whose first records are gone.
        connection: arguments of `Connection.build`, secrets in clear: never written anywhere. None: archives alone.
        capture: where archives of Event Hubs Capture say which topic and partition they are of.
        record: a folder that the range is archived to on the way, "" for none; `record_files` is their kind.
        verify: whether published records are compared at all.
        evidence: whether tables and links are made. Nobody asks for them without a report, and they are a third of the
            work.
    """

    topic: str
    partition: int
    begin: int
    end: int
    complete: bool
    rules: Rules
    outcome_topics: dict[str, str]
    dead_letter: str
    output_partitions: dict[str, int]
    work: str
    shelves: tuple[str, ...] = ()
    log_end: int | None = None
    switch: int = 0
    archives: tuple[Part, ...] = ()
    capture: Capture = CAPTURE
    shortened: tuple[tuple[str, int], ...] = ()
    connection: dict[str, Any] | None = None
    record: str = ""
    record_files: str = ".jsonl.gz"
    verify: bool = True
    evidence: bool = True
    only: StepFilter = StepFilter()
    no_progress_s: float = 60.0


FIRST: Final = 5
"""So many findings are told without a report."""


class PartitionResult(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a task. Counts are of the whole range; with `only`, `counts` are of what is reported.

    Attributes:
        records: data records folded.
        chain: SHA-256 over the links of all records (`core.links`), in hexadecimal; empty without evidence.
        counts: kind (`step`, `dead_letter`) -> verdict -> number.
        coverage: kind (`data`, `marker`, `aborted`, `compacted`, `missing`, `unknown`) -> number of offsets.
        published: records on the outcome topics and dead letters that name this partition.
        out_of_range: those of them that were caused before or behind the range.
        first_ms, last_ms: smallest and largest timestamp of the records, -1 where none has one.
        files: name of each spill, relative to `work`; none without evidence.
        open_steps: steps that are open where the range ends.
        stream_time: in milliseconds where the range ends, -1 where there are no records.
        trouble: what does not add up, or an archive lacks, in words; empty when all does and nothing is lacking.
        first: the first of what disagrees, at most `FIRST`; where nothing does, of what cannot be verified.
    """

    partition: int
    begin: int
    end: int
    complete: bool
    records: int
    chain: str
    counts: dict[str, dict[str, int]]
    coverage: dict[str, int]
    published: int
    out_of_range: int
    first_ms: int
    last_ms: int
    files: tuple[str, ...]
    open_steps: int
    stream_time: int
    trouble: tuple[str, ...] = ()
    first: tuple[Finding, ...] = ()
