"""Distance behind an offset after which earlier records of the partition cannot matter to a step any more."""

from __future__ import annotations

from typing import Final

from processor.core.rules import Rules

CLOCK_SKEW_S: Final = 60
"""Largest difference of clocks, of producers and of the service, where a range begins in mid-log."""


def settled_after_ms(rules: Rules, *, retentions: int, readings: int) -> int:
    """Distance in milliseconds behind an offset from which on a step owes nothing to what came before the offset.

    Derivation. T is the stream time at the offset, R is `ended_retention_s`, S is `CLOCK_SKEW_S`. At the offset the
    worker remembers ended steps, refused steps and ended runs (and open steps: a step that is named in front of its
    own beginning is a doubt of the judge's, at any distance).

    1. All of them were last named at T or before, and L10 has forgotten them once the stream time is above T + R,
       unless a record behind the offset names them again. `retentions=1`.
    2. A run that ends again behind the offset keeps what was heard first, from before the offset, for another R. From
       T + 2R on, every run that is remembered was named at least twice in the range or not before it.
       `retentions=2`: for a judge that decides steps of ended runs, too. `PartitionAudit` does not (it leaves what
       ended because its run had ended undecided), so 1 is enough for it.
    3. T and the step's beginning are stream times. Where a timestamp or `created_at` is read in the place of one of
       them, it may be S off: `readings` is how many are. The self-audit has noted stream times (0); a judge of a
       range has the timestamp of its first record, and the step's `created_at` (2).

    An output item's `created_at` is the time of its first record, and its response may be older and have been named
    before: for an item, a judge has to know besides that its response began in the range (`PartitionAudit`), or where
    (`UnknownPrefix`).

    So the distance is `retentions` * R + `readings` * S; a step that begins later than that is settled.

    It is not one number for all. `explain` looks for the offset at which to begin, and hands the range to
    `PartitionAudit`, which asks for R + 2S between the range's first record and `created_at`. Beginning at that very
    distance, it would never come to a verdict: a step is created before its first record. It begins another R before
    (2R + 2S), which is how much later than its creation a step may be heard of first. With 2R + 2S for the judge, it
    would leave undecided what it can decide, and `explain` would be at the edge again.
    """
    return (retentions * rules.ended_retention_s + readings * CLOCK_SKEW_S) * 1000
