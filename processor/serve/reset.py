"""`run-steps reset`: set the group's offsets, and have the state there rebuilt from the log, in one commit.

Kafka's own tool sets offsets without metadata. This one writes, in the same commit, to which log the offset belongs and
that the state at it has to be rebuilt; the worker that takes the partition over forgets the checkpoints that do not
fit, in its first transaction. So there is no half-done state in between.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from processor.core.offset_metadata import METADATA_VERSION, MODE_ANEW, MODE_REBUILD, LogIdentity, OffsetMetadata
from processor.errors import UsageError
from processor.kafka.admin import Admin
from processor.kafka.consumer import Committed
from processor.kafka.partition_reader import PartitionReader
from processor.serve.positions import Facts, Group, SourcePartition, Where, resolve, survey, whole_now

if TYPE_CHECKING:
    from processor.config.settings import Settings
    from processor.kafka.client_config import Connection


async def reset(
    settings: Settings,
    connection: Connection,
    to: Where,
    *,
    partitions: Sequence[int],
    forget: bool,
    yes: bool,
    echo: Callable[[str], None],
) -> int:
    """Print the plan, a line per partition, and with `yes` carry it out. Returns the exit code.

    Args:
        to: `current` keeps the committed offset.
        partitions: none: all.
        forget: forget the checkpoints that fit, too.

    Raises:
        UsageError: the group has members, there is no such partition, or the offset is not in the log.
        OffsetsUnstable: a dead worker's transaction is still open; the broker ends it within its time-out.
        BrokerRefused, BrokerUnavailable
    """
    topic, group_id, kept_in = settings.source.topic, settings.source.group_id, settings.checkpoint_topic
    async with Admin(connection) as admin:
        topics = await admin.require_topics([topic, kept_in])
        count = topics[topic].partitions
        chosen = sorted(set(partitions)) or list(range(count))
        if chosen[-1] >= count:
            raise UsageError(f"reset: --partition: topic {topic} has {count} (got {chosen[-1]})", hint="from 0 on")
        if isinstance(to, int) and len(chosen) > 1:
            raise UsageError("reset: --to: an offset is one partition's", hint="name it with --partition")
        members = await admin.members(group_id)
        if members:
            raise UsageError(
                f"group {group_id}: has members ({', '.join(members[:3])}{', ...' if len(members) > 3 else ''})",
                hint="stop all workers of the group; one that was killed, or has an instance_id, is a member until its "
                "session times out",
            )
        told = await admin.cluster_topics([topic])
        log = LogIdentity(told.cluster_id, told.ids.get(topic, ""))
        committed = await admin.stable_offsets(group_id, topic, range(count))
        begins, ends = await _bounds(connection, settings, chosen)
        found = await _checkpoints(connection, settings, chosen)
        points = {p: OffsetMetadata.decode(c.metadata) for p, c in committed.items() if c.offset >= 0}
        whole = whole_now(Group(count, points), chosen)
        echo(f"group {group_id}, topic {topic}")
        offsets: dict[int, Committed] = {}
        for partition in chosen:
            place = SourcePartition(topic, kept_in, group_id, partition)
            facts = Facts(log, begins[partition], ends[partition])
            offset = committed[partition].offset if to == "current" else resolve(place, to, facts)
            if offset < 0:
                raise UsageError(f"{place}: has no committed offset to keep", hint="--to earliest, latest or an offset")
            offset = resolve(place, offset, facts)
            mode = MODE_ANEW if forget else MODE_REBUILD
            before = points.get(partition)
            rules = () if before is None else before.rules  # what was folded before the offset was folded by them
            point = OffsetMetadata(offset, -1, "", METADATA_VERSION, *log, -1, whole, mode, rules=rules)
            offsets[partition] = Committed(offset, point.encode())
            echo(_line(partition, committed[partition].offset, offset, found[partition], facts, forget=forget))
        if not yes:
            echo("nothing was changed; --yes does it")
            return 0
        await admin.commit_offsets(group_id, topic, offsets)
        echo(f"{len(offsets)} offsets are set; start the workers")
    return 0


def _line(partition: int, before: int, after: int, found: Mapping[bytes, bytes], facts: Facts, *, forget: bool) -> str:
    """One partition's plan."""
    try:
        fit = 0 if forget else len(survey(found, facts.log, after).fit)
    except ValueError as error:
        if not forget:
            raise UsageError(f"reset: partition {partition}: {error}", hint="--forget-checkpoints") from None
        fit = 0
    was = "none" if before < 0 else str(before)
    again = f", publishing {before - after} offsets again" if before > after else ""
    fold = f", after a silent fold from {facts.begin}" if after > facts.begin else ""
    kept = f"; {fit} of {len(found)} checkpoints are kept" if found else ""
    return f"partition {partition}: committed {was}, goes on at {after}{fold}{again}{kept}"


async def _bounds(
    connection: Connection, settings: Settings, partitions: Sequence[int]
) -> tuple[dict[int, int], dict[int, int]]:
    async with _reader(connection, settings, settings.source.topic) as reader:
        return await reader.begin_offsets(partitions), await reader.end_offsets(partitions)


async def _checkpoints(
    connection: Connection, settings: Settings, partitions: Sequence[int]
) -> dict[int, dict[bytes, bytes]]:
    latest: dict[int, dict[bytes, bytes]] = {p: {} for p in partitions}
    async with _reader(connection, settings, settings.checkpoint_topic) as reader:
        begins, ends = await reader.begin_offsets(partitions), await reader.end_offsets(partitions)
        async for partition, records in reader.read_to(begins, ends, settings.checkpoints.restore_timeout_s):
            for record in records:
                if record.key is not None and record.value is not None:
                    latest[partition][record.key] = record.value
                elif record.key is not None:
                    latest[partition].pop(record.key, None)
    return latest


def _reader(connection: Connection, settings: Settings, topic: str) -> PartitionReader:
    return PartitionReader(connection, topic=topic, client_id=f"{settings.kafka.client_id}.reset")
