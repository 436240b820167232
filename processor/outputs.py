"""From effects to the records that carry them: which topic, which partition, which key."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from processor.core.effects import Checkpoint, DeadLetter, Effect, Publish, Status
from processor.core.verdicts import Placed
from processor.kafka.records import OutRecord, partition_of
from processor.kafka.trouble import RecordTooLarge

if TYPE_CHECKING:
    from processor.config import Settings  # takes long to load, and a replay's tasks know no settings

OMITTED_BYTES: Final = "runstep-omitted-bytes"
OMITTED_DIGEST: Final = "runstep-omitted-digest"

_LARGE: Final = 64 << 10
"""Dead letters with smaller values are never written without them."""


class Outputs:
    """The topics of one processor.

    Args:
        outcomes: status on the wire -> topic; an empty topic is switched off.
    """

    def __init__(self, outcomes: Mapping[str, str], dead_letter: str, checkpoints: str) -> None:
        self._topics = {Status(status): topic for status, topic in outcomes.items()}
        self._dead_letter = dead_letter
        self.checkpoints = checkpoints

    @classmethod
    def of_settings(cls, settings: Settings) -> Outputs:
        return cls(settings.outcome_topics, settings.output.dead_letter, settings.checkpoint_topic)

    def of(self, partition: int, effects: Iterable[Effect]) -> Iterator[OutRecord]:
        """The records of one source partition's effects, in their order."""
        for effect in effects:
            record = self.record(partition, effect)
            if record is not None:
                yield record

    def record(self, partition: int, effect: Effect) -> OutRecord | None:
        """The record of one effect; None where an outcome has no topic: it is switched off."""
        if isinstance(effect, Publish):
            topic = self._topics[effect.status]
            if not topic:
                return None
            return OutRecord(topic, None, effect.step_id.encode(), effect.value, effect.timestamp, effect.headers)
        if isinstance(effect, DeadLetter):
            timestamp = max(0, effect.timestamp)
            return OutRecord(self._dead_letter, None, effect.key, effect.value, timestamp, effect.headers)
        return OutRecord(self.checkpoints, partition, effect.key, effect.value, 0, ())

    def without_values_over(self, records: list[OutRecord], error: RecordTooLarge) -> list[OutRecord]:
        """The records again, the dead letters that no batch can hold without their values.

        Such a record came in a compressed batch and is larger unpacked than any batch may be. Its digest and size
        stand in its headers, its origin names where it still is.

        Raises:
            RecordTooLarge: it is not a dead letter that is too large.
        """
        if error.topic != self._dead_letter:
            raise error
        return [omitting(r) if r.topic == error.topic and _size(r) >= error.size - _SLACK else r for r in records]


class Places:
    """Where the record of an effect must stand and how, for those who judge what was published.

    Args:
        partition: of the source.
        counts: output topic -> number of partitions; of a topic that is not in it any partition will do.
    """

    def __init__(self, outputs: Outputs, partition: int, counts: Mapping[str, int]) -> None:
        self._outputs, self._partition, self._counts = outputs, partition, counts

    def whole(self, effect: Effect) -> Placed | None:
        record = None if isinstance(effect, Checkpoint) else self._outputs.record(self._partition, effect)
        return None if record is None else self._placed(record)

    def shortened(self, effect: Effect) -> Placed | None:
        """A dead letter that no batch can hold is written without its value."""
        if not isinstance(effect, DeadLetter) or len(effect.value or b"") < _LARGE:
            return None
        record = self._outputs.record(self._partition, effect)
        assert record is not None, "dead letters are never switched off"
        return self._placed(omitting(record))

    def _placed(self, record: OutRecord) -> Placed:
        count = self._counts.get(record.topic, 0)
        partition = partition_of(record.key, count) if record.key is not None and count else None
        return Placed(record.topic, partition, record.key, record.value, record.timestamp, record.headers)


def omitting(record: OutRecord) -> OutRecord:
    """A dead letter without its value."""
    value = record.value or b""
    headers = (
        *record.headers,
        (OMITTED_BYTES, b"%d" % len(value)),
        (OMITTED_DIGEST, sha256(value).hexdigest().encode()),
    )
    return record._replace(value=None, headers=headers)


_SLACK: Final = 64 << 10


def _size(record: OutRecord) -> int:
    return len(record.value or b"") + len(record.key or b"")
