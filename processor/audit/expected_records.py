"""The record that a fold's effect should have been published as."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from processor.audit.judge.verdicts import ExpectedRecord
from processor.core.effects import Checkpoint, DeadLetter, Effect
from processor.kafka.output_records import SMALLEST_LIMIT_BYTES, Outputs, omitting
from processor.kafka.records import OutRecord, batch_bytes, partition_of


class ExpectedRecords:
    """Expected topic, partition and content of the record of an effect, for the judges.

    Args:
        partition: of the source.
        counts: output topic -> number of partitions; of a topic that is not in it any partition will do.
    """

    def __init__(self, outputs: Outputs, partition: int, counts: Mapping[str, int]) -> None:
        self._outputs, self._partition, self._counts = outputs, partition, counts

    def whole(self, effect: Effect) -> ExpectedRecord | None:
        record = None if isinstance(effect, Checkpoint) else self._outputs.record(self._partition, effect)
        return None if record is None else self._placed(record)

    def shortened(self, effect: Effect) -> Sequence[ExpectedRecord]:
        """Shorter forms of a dead letter that its topic does not take whole."""
        if not isinstance(effect, DeadLetter):
            return ()
        record = self._outputs.record(self._partition, effect)
        assert record is not None, "dead letters are never switched off"
        if batch_bytes(record) <= SMALLEST_LIMIT_BYTES:
            return ()
        return [self._placed(form) for form in omitting(record)]

    def placements(self, topic: str, key: bytes) -> Sequence[int]:
        """The partition of a key for 1, 2, ... partitions, up to the number that the topic has."""
        return [partition_of(key, count) for count in range(1, self._counts.get(topic, 0) + 1)]

    def _placed(self, record: OutRecord) -> ExpectedRecord:
        count = self._counts.get(record.topic, 0)
        partition = partition_of(record.key, count) if record.key is not None and count else None
        return ExpectedRecord(record.topic, partition, record.key, record.value, record.timestamp, record.headers)
