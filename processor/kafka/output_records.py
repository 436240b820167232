"""Conversion of effects into output records: topic, partition, key, headers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from processor.core.effects import DeadLetter, Effect, Publish, Status
from processor.core.headers import REASON
from processor.kafka.records import DEFAULT_MAX_MESSAGE_BYTES, OutRecord, batch_bytes

if TYPE_CHECKING:
    from processor.config.settings import Settings

OMITTED_BYTES: Final = "runstep-omitted-bytes"
OMITTED_DIGEST: Final = "runstep-omitted-digest"
OMITTED_HEADERS: Final = "runstep-omitted-headers"
OMITTED_KEY: Final = "runstep-omitted-key-bytes"
_NO_LIMITS: Final[Mapping[str, int]] = MappingProxyType({})

SMALLEST_LIMIT_BYTES: Final = 16 << 10
"""The start-up check refuses a dead-letter topic whose max.message.bytes is not above this: smaller ones are whole."""


class Outputs:
    """Conversion of effects into records for the topics of one processor.

    Args:
        outcomes: status on the wire -> topic; an empty topic is switched off.
        max_dead_letter_bytes: max.message.bytes of the dead-letter topic.
    """

    def __init__(
        self,
        outcomes: Mapping[str, str],
        dead_letter: str,
        checkpoints: str,
        max_dead_letter_bytes: int = DEFAULT_MAX_MESSAGE_BYTES,
    ) -> None:
        self._topics = {Status(status): topic for status, topic in outcomes.items()}
        self._dead_letter = dead_letter
        self._max_dead_letter_bytes = max_dead_letter_bytes
        self.checkpoints = checkpoints

    @classmethod
    def of_settings(cls, settings: Settings, limits: Mapping[str, int] = _NO_LIMITS) -> Outputs:
        """The outputs of these settings. `limits`: topic -> its max.message.bytes."""
        dead_letter = settings.output.dead_letter
        return cls(
            settings.outcome_topics,
            dead_letter,
            settings.checkpoint_topic,
            limits.get(dead_letter, DEFAULT_MAX_MESSAGE_BYTES),
        )

    def of(self, partition: int, effects: Iterable[Effect]) -> Iterator[OutRecord]:
        """The records to be written for one source partition's effects, in their order: each fits its topic."""
        for effect in effects:
            record = self.record(partition, effect)
            if record is not None:
                yield fitting(record, self._max_dead_letter_bytes) if isinstance(effect, DeadLetter) else record

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


def fitting(record: OutRecord, limit: int) -> OutRecord:
    """Record of a dead letter: whole if a batch of `limit` bytes holds it, else without its largest parts.

    A record that came in a compressed batch may be larger unpacked than any batch may be. Sizes are those before
    compression: what fits does so whatever codec is set, here or by the topic's compression.type.
    """
    if batch_bytes(record) <= limit:
        return record
    for form in omitting(record):
        record = form
        if batch_bytes(form) <= limit:
            break
    return record


def omitting(record: OutRecord) -> Iterator[OutRecord]:
    """The shorter forms of a dead letter: without the largest of value, own headers and key, without the next, too.

    Its origin names the offset of the whole record. Headers name what was left out, and the digest of a left-out value.
    """
    number = next((at for at, (name, _) in enumerate(record.headers) if name == REASON), 0)
    own, headers = record.headers[:number], tuple(record.headers[number:])
    value, key = record.value or b"", record.key or b""
    parts = [
        (len(value), "value"),
        (sum(len(name) + len(content or b"") for name, content in own), "headers"),
        (len(key), "key"),
    ]
    for size, part in sorted(parts, key=_largest_first):
        if not size:
            continue
        if part == "value":
            headers = (
                *headers,
                (OMITTED_BYTES, b"%d" % len(value)),
                (OMITTED_DIGEST, sha256(value).hexdigest().encode()),
            )
            record = record._replace(value=None)
        elif part == "headers":
            own, headers = (), (*headers, (OMITTED_HEADERS, b"%d" % number))
        else:
            headers = (*headers, (OMITTED_KEY, b"%d" % len(key)))
            record = record._replace(key=None)
        record = record._replace(headers=(*own, *headers))
        yield record


def _largest_first(part: tuple[int, str]) -> int:
    return -part[0]
