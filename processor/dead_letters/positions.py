"""Redrive positions: which dead letters were redriven, as the redrive group has committed it."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from processor.core.offset_metadata import LogIdentity
from processor.dead_letters.redriven_offsets import RedrivenOffsets
from processor.errors import CorruptLog
from processor.kafka.admin import Admin
from processor.kafka.consumer import Committed
from processor.kafka.errors import OffsetsUnstable

if TYPE_CHECKING:
    from processor.config.settings import Settings

_ASK_AGAIN_S: Final = 0.1
_STABLE_S: Final = 30.0
"""A transaction that a dead redrive left open is ended by the next one's start; its markers take a moment."""


class RedrivePosition(NamedTuple):
    """Position in one dead-letter partition: all letters below `offset` and in `ranges` were redriven or are gone."""

    offset: int
    ranges: RedrivenOffsets

    def is_redriven(self, offset: int) -> bool:
        return offset < self.offset or offset in self.ranges


class RedrivePositions(NamedTuple):
    """The positions of all partitions of the dead-letter topic, and the log that they are of.

    `is_first`: the group has none, so either nothing was redriven yet or the broker has deleted what was committed.
    `is_of_another_topic`: those that are committed are of an earlier topic of the same name; none of this one was
    redriven.
    """

    log: LogIdentity
    by_partition: dict[int, RedrivePosition]
    is_first: bool
    is_of_another_topic: bool

    def is_redriven(self, partition: int, offset: int) -> bool:
        position = self.by_partition.get(partition)
        return position is not None and position.is_redriven(offset)


def redrive_group(settings: Settings) -> str:
    """The group whose offsets on the dead-letter topic are the redrive positions. It has no members."""
    return f"{settings.source.group_id}.dead-letters"


def redrive_transactional_id(settings: Settings) -> str:
    """One for all redrives of a processor: a second one fences the first."""
    return f"{settings.transactional_id_prefix}.dead-letters.redrive"


async def read_positions(
    admin: Admin, settings: Settings, log: LogIdentity, begins: Mapping[int, int]
) -> RedrivePositions:
    """Read the redrive positions; for a partition without one it is the begin of its log.

    Raises:
        CorruptLog: what is committed is not that of a redrive.
        OffsetsUnstable: a transaction of another redrive stays open.
        BrokerRefused, BrokerUnavailable
    """
    group, topic = redrive_group(settings), settings.output.dead_letter
    committed = await _stable(admin, group, topic, begins.keys())
    found: dict[int, RedrivePosition] = {}
    another = False
    for partition, begin in begins.items():
        offset, metadata = committed.get(partition, Committed(-1, ""))
        ranges = RedrivenOffsets()
        if offset >= 0:
            where = f"group {group}: topic {topic}: partition {partition}"
            of, ranges = RedrivenOffsets.decode(where, offset, metadata)
            differs = of.differs(log)
            if differs == "cluster":
                raise CorruptLog(
                    f"{where}: the committed offset is of another cluster",
                    hint="a mirror copied it, and offsets there are not those here: delete the group, then "
                    "redrive with --first and --since, from where nothing was redriven there",
                )
            if differs:
                another, offset, ranges = True, -1, RedrivenOffsets()
        found[partition] = RedrivePosition(max(offset, begin), ranges)
        ranges.forget_below(found[partition].offset)
    is_first = all(place.offset < 0 for place in committed.values())
    return RedrivePositions(log, found, is_first, another)


async def _stable(admin: Admin, group: str, topic: str, partitions: Collection[int]) -> Mapping[int, Committed]:
    try:
        async with asyncio.timeout(_STABLE_S):
            while True:
                try:
                    return await admin.stable_offsets(group, topic, partitions)
                except OffsetsUnstable as error:
                    unstable = error
                await asyncio.sleep(_ASK_AGAIN_S)
    except TimeoutError:
        raise unstable from None
