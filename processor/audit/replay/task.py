"""The data of one replay task: a source partition's range, its output, the rules, and the result that comes back."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from processor.archives import CAPTURE, Capture
from processor.audit.judge.range_result import RangeResult
from processor.audit.judge.regimes import Accepted
from processor.audit.judge.verdicts import NEVER, Finding
from processor.core.rules import Rules


class StepFilter(msgspec.Struct, frozen=True):
    """Filter of what is reported (an empty tuple: all). It does not change what is folded."""

    steps: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    threads: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.steps or self.runs or self.threads)


class ArchiveRange(msgspec.Struct, frozen=True):
    """A range of offsets, [begin, end), that is read from an archive."""

    path: str
    begin: int
    end: int


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """One partition's range, and all that is needed to judge it.

    Attributes:
        begin, end: offsets, [begin, end).
        complete: nothing came before `begin` (the log began there).
        log_end: where the log ended after the published records were read; None: not known.
        latest_mark_ms: the clock of the replay and what clocks may differ; a later clock mark was never set.
        ignored_marks: clock marks that are taken for forged.
        rules: the settings under which the worker is said to have run.
        accepted: other fold versions and settings digests that may stand in published records.
        earlier_rules: settings that are known to have been in force before.
        outcome_topics: status on the wire -> topic ("" is switched off).
        output_partitions: topic -> number of partitions.
        work: a folder that every worker sees: indexes, split archives and tables are in it.
        indexes: names of the indexes that hold what was published.
        switch: below it the archives are read, from it on the topic.
        archives: what is read from archives, in offset order.
        shortened: (topic, partition) of the outputs whose first records are gone.
        held: (topic, partition) of the outputs of which an open transaction holds back the rest.
        holes: (topic, partition) of the outputs that lack records behind the first.
        is_captured: some of these archives are of Event Hubs Capture, which does not keep the records' own times.
        is_headless: some of these archives have no headers.
        captured_outputs: (topic, partition) of the outputs that are read from such archives.
        broker_times: (topic, partition, offset) of the outputs from which on timestamps are the broker's.
        connection: arguments of `Connection.build`, secrets in clear: never written anywhere. None: archives alone.
        capture: where archives of Event Hubs Capture say which topic and partition they are of.
        record: a folder that the range is archived to on the way, "" for none; `record_files` is their kind.
        verify: whether published records are compared at all.
        tables: whether tables and block digests are made. They are needed for a report alone and are a third of the
            work.
        notes_ids: whether the ids of steps and runs are noted, to be counted over several partitions.
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
    indexes: tuple[str, ...] = ()
    log_end: int | None = None
    latest_mark_ms: int = NEVER
    ignored_marks: tuple[tuple[int, int], ...] = ()
    accepted: Accepted = Accepted()
    earlier_rules: tuple[Rules, ...] = ()
    switch: int = 0
    archives: tuple[ArchiveRange, ...] = ()
    capture: Capture = CAPTURE
    shortened: tuple[tuple[str, int], ...] = ()
    held: tuple[tuple[str, int], ...] = ()
    holes: tuple[tuple[str, int], ...] = ()
    broker_times: tuple[tuple[str, int, int], ...] = ()
    is_captured: bool = False
    is_headless: bool = False
    captured_outputs: tuple[tuple[str, int], ...] = ()
    connection: dict[str, Any] | None = None
    record: str = ""
    record_files: str = ".jsonl.gz"
    verify: bool = True
    tables: bool = True
    notes_ids: bool = False
    only: StepFilter = StepFilter()
    no_progress_s: float = 60.0


FIRST: Final = 5
"""Findings that are shown without a report."""


class TaskResult(msgspec.Struct, frozen=True):
    """Result of a task.

    Attributes:
        range: counts, coverage and digests of the range.
        first: the first findings that disagree, at most `FIRST`; where none does, of those that cannot be verified.
        ids: paths of the files of ids (`split_ids`), none without `Task.notes_ids`.
    """

    range: RangeResult
    first: tuple[Finding, ...]
    ids: tuple[str, ...] = ()
