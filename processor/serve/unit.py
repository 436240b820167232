"""The unit that the worker fills, and the same unit once it is closed and on its way to the broker."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from processor.core.effects import Checkpoint, Effect
from processor.kafka.consumer import Committed, GroupToken
from processor.kafka.output_records import Outputs
from processor.kafka.writer import Unit
from processor.serve.assigned_partition import AssignedPartition

if TYPE_CHECKING:
    from processor.otlp.unit_tracer import UnitTrace


@dataclass(slots=True)
class ClosedUnit:
    """A unit to be committed, and what is counted once it is committed."""

    unit: Unit
    effects: dict[int, list[Effect]]
    records: int
    bytes: int
    trace: UnitTrace | None = None


@dataclass(slots=True)
class PendingUnit:
    """Effects of the records that were applied since the last unit was closed.

    `token`: the generation in which the first of them was applied. `trace`: None where it is not traced.
    `records_of`: how many records of each partition.
    """

    token: GroupToken | None = None
    effects: dict[int, list[Effect]] = field(default_factory=dict)
    records: int = 0
    bytes: int = 0
    trace: UnitTrace | None = None
    records_of: dict[int, int] = field(default_factory=dict)

    def applied(self, partition: int, records: int) -> None:
        self.records += records
        self.records_of[partition] = self.records_of.get(partition, 0) + records

    def add(self, partition: int, effects: list[Effect]) -> None:
        self.effects.setdefault(partition, []).extend(effects)
        for effect in effects:
            self.bytes += len(effect.value or b"")

    def close(
        self,
        assigned: Iterable[AssignedPartition],
        token_now: Callable[[], GroupToken],
        metadata: Callable[[int, int, int, bool], str],
        outputs: Outputs,
    ) -> ClosedUnit | None:
        """Collect offsets, restore points and outputs of every live partition that moved; None if none did.

        Args:
            metadata: offset metadata from restore point, stream time, number of keys on the checkpoint partition, and
                whether none of them can be ahead of the offset.
        """
        offsets: dict[int, Committed] = {}
        for owned in assigned:
            position = owned.position
            if not owned.state.is_live or position < owned.committed.offset:
                continue
            effects = self.effects.get(owned.partition, [])
            if position == owned.committed.offset and not effects:
                continue
            restore_from, stream_time, needless = owned.state.restore_point_at(position)
            if needless:
                effects = self.effects.setdefault(owned.partition, effects)
                effects.extend(needless)
            for effect in effects:
                if isinstance(effect, Checkpoint):
                    (owned.kept.discard if effect.value is None else owned.kept.add)(effect.key)
            is_exact = position >= owned.exact_from
            committed = Committed(position, metadata(restore_from, stream_time, len(owned.kept), is_exact))
            assert committed.offset >= owned.committed.offset, "a committed offset never goes back"
            offsets[owned.partition] = owned.committed = committed
        if not offsets:
            return None
        token = self.token or token_now()
        unit = Unit(token, offsets=offsets)
        for partition, effects in self.effects.items():
            for out in outputs.of(partition, effects):
                (unit.checkpoints if out.topic == outputs.checkpoints else unit.records).append(out)
        return ClosedUnit(unit, self.effects, self.records, self.bytes, self.trace)
