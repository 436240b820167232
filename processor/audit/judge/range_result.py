"""Result of the judge for one range of one partition: returned by a task, summed by a replay, kept in a report."""

from __future__ import annotations

import msgspec


class InForce(msgspec.Struct, frozen=True):
    """A fold version and a digest of rules that published steps name, and what they made of a range.

    `records` steps were caused at offsets `first_cause` to `last_cause` of the source.
    """

    fold_version: int
    rules: str
    records: int
    first_cause: int
    last_cause: int


class RangeResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result for the offsets [begin, end) of one partition. A manifest has it in this order of fields.

    Counts are of the whole range; where only some steps are reported, `counts` are of what is reported.

    Attributes:
        complete: nothing came before `begin` (the log began there).
        records: data records folded.
        chain: SHA-256 over the block digests of all records (`block_digests`), in hexadecimal; empty without tables.
        counts: kind (`step`, `dead_letter`) -> verdict -> number.
        coverage: kind (`data`, `marker`, `aborted`, `compacted`, `missing`, `unknown`) -> number of offsets.
        published: records on the outcome topics and dead letters that name this partition.
        out_of_range: those of them that were caused before or behind the range.
        caused_behind: those of them that were caused behind it.
        unbounded_marks: records of the range that a clock mark at its end caused, where nothing says how the log went
            on: an archive ends there.
        first_ms, last_ms: smallest and largest timestamp of the records, -1 where none has one.
        files: name of each file of the tables, relative to the task's `work`; none without tables.
        open_steps: steps that are open where the range ends.
        stream_time: in milliseconds where the range ends, -1 where there are no records.
        foreign: records that may stand and were made by another fold version, or under settings that are not known: by
            that, in words.
        redriven: records that a redrive of dead letters has put back, as their headers say (`runstep-redriven`).
        in_force: fold versions and settings that the published steps of the range name; none without tables.
        trouble: what does not add up, or an archive lacks, in words; empty when all does and nothing is lacking.
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
    caused_behind: int = 0
    unbounded_marks: int = 0
    foreign: dict[str, int] = {}
    redriven: int = 0
    in_force: tuple[InForce, ...] = ()
    trouble: tuple[str, ...] = ()
