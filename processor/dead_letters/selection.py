"""Selection of dead letters by reason, time and origin."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from typing import NamedTuple

from processor.core.effects import Reason
from processor.dead_letters.letter import Letter
from processor.errors import UsageError


class Selection(NamedTuple):
    """Filter of dead letters; a criterion that is not given excludes none.

    Args:
        reasons: the values of `runstep-reason`.
        since_ms, until_ms: of the source record's timestamp; the second is not included.
        partitions: of the source topic.
        positions: (partition, offset) in the dead-letter topic.
    """

    reasons: frozenset[str] = frozenset()
    since_ms: int | None = None
    until_ms: int | None = None
    partitions: frozenset[int] = frozenset()
    positions: frozenset[tuple[int, int]] = frozenset()

    def takes(self, letter: Letter) -> bool:
        return (
            (not self.reasons or letter.reason in self.reasons)
            and (self.since_ms is None or letter.timestamp >= self.since_ms)
            and (self.until_ms is None or letter.timestamp < self.until_ms)
            and (not self.partitions or letter.source_partition in self.partitions)
            and (not self.positions or (letter.partition, letter.offset) in self.positions)
        )


def parse_selection(
    reasons: Collection[str],
    since: str | None,
    until: str | None,
    partitions: Collection[int],
    letters: Collection[str],
) -> Selection:
    """The selection that the options of a command mean.

    Raises:
        UsageError: a reason that there is not, what is no time, or no `PARTITION:OFFSET`.
    """
    known = {reason.value for reason in Reason}
    for reason in sorted(set(reasons) - known):
        raise UsageError(f"dead-letters: --reason: no such reason (got {reason!r})", hint=", ".join(sorted(known)))
    return Selection(
        frozenset(reasons),
        None if since is None else time_ms(since, "dead-letters: --since"),
        None if until is None else time_ms(until, "dead-letters: --until"),
        frozenset(partitions),
        frozenset(parse_position(text) for text in letters),
    )


def parse_position(text: str) -> tuple[int, int]:
    """Partition and offset of a dead letter, from `PARTITION:OFFSET` as `list` prints it."""
    partition, _, offset = text.partition(":")
    if not (partition.isascii() and partition.isdigit() and offset.isascii() and offset.isdigit()):
        raise UsageError(f"dead-letters: a dead letter is PARTITION:OFFSET (got {text!r})", hint="as `list` prints it")
    if max(len(partition), len(offset)) > 18:
        raise UsageError(f"dead-letters: there is no such offset (got {text[:60]!r})")
    return int(partition), int(offset)


def time_ms(text: str, where: str) -> int:
    """Milliseconds of a time in ISO 8601, from 1970 on. `where` begins the message of a `UsageError`."""
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return max(0, int(moment.timestamp() * 1000))  # no record is older than 1970
    except (ValueError, OverflowError):
        raise UsageError(
            f"{where}: not a time (got {text!r})",
            hint="ISO 8601, UTC if it names no zone: 2026-11-29T04:00",
        ) from None
