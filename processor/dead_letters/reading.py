"""Read the dead-letter topic, and what a redrive has done or would do about each letter."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Final, NamedTuple

from processor.core.offset_metadata import LogIdentity
from processor.dead_letters.letter import Letter, State, letter_of
from processor.dead_letters.positions import RedrivePositions, read_positions
from processor.dead_letters.selection import Selection
from processor.errors import UsageError
from processor.kafka.admin import Admin, TopicFacts
from processor.kafka.partition_reader import PartitionReader

if TYPE_CHECKING:
    from processor.config.settings import Settings
    from processor.kafka.client_config import Connection

NO_PROGRESS_S: Final = 60.0
"""A read that does not move for longer is given up: a broker is down, or a transaction stays open."""
_HOUR_MS: Final = 3_600_000


class DeadLetterLog(NamedTuple):
    """Extent of the dead-letter topic: begin and end of its partitions, and the redriven letters."""

    source: TopicFacts
    begins: Mapping[int, int]
    ends: Mapping[int, int]
    positions: RedrivePositions


def reader_of(settings: Settings, connection: Connection) -> PartitionReader:
    """A reader of the committed records of the dead-letter topic."""
    return PartitionReader(
        connection, topic=settings.output.dead_letter, client_id=f"{settings.kafka.client_id}.dead-letters"
    )


async def survey(settings: Settings, admin: Admin, reader: PartitionReader) -> DeadLetterLog:
    """Look at both topics and at the redrive positions.

    Raises:
        BrokerRefused: a topic is missing, or we may not read it.
        CorruptLog, OffsetsUnstable, BrokerUnavailable
    """
    source, dead_letter = settings.source.topic, settings.output.dead_letter
    topics = await admin.require_topics([source, dead_letter])
    told = await admin.cluster_topics([dead_letter])
    partitions = range(topics[dead_letter].partitions)
    begins = await reader.begin_offsets(partitions)
    ends = await reader.stable_end_offsets(partitions)
    log = LogIdentity(told.cluster_id, told.ids.get(dead_letter, ""))
    return DeadLetterLog(topics[source], begins, ends, await read_positions(admin, settings, log, begins))


async def read_letters(
    settings: Settings, connection: Connection, selection: Selection, max_redrives: int
) -> AsyncGenerator[tuple[Letter, State], None]:
    """Yield each selected letter of the topic as it stands, with its state; partition by partition in order.

    Raises:
        BrokerRefused, BrokerUnavailable, CorruptLog, OffsetLost, ReadStalled
    """
    topic, source = settings.output.dead_letter, settings.source.topic
    async with Admin(connection) as admin, reader_of(settings, connection) as reader:
        log = await survey(settings, admin, reader)
        for partition, begin in log.begins.items():
            ends = {partition: log.ends[partition]}
            async with aclosing(reader.read_to({partition: begin}, ends, NO_PROGRESS_S)) as reading:
                async for _, records in reading:
                    for record in records:
                        letter = letter_of(topic, partition, record)
                        if selection.takes(letter):
                            is_redriven = log.positions.is_redriven(partition, record.offset)
                            yield letter, letter.state(source, max_redrives, is_redriven=is_redriven)


async def read_letter(
    settings: Settings, connection: Connection, position: tuple[int, int], max_redrives: int
) -> tuple[Letter, State]:
    """One letter.

    Raises:
        UsageError: there is none at this position.
        BrokerRefused, BrokerUnavailable, CorruptLog, ReadStalled
    """
    topic, (partition, offset) = settings.output.dead_letter, position
    async with Admin(connection) as admin, reader_of(settings, connection) as reader:
        log = await survey(settings, admin, reader)
        if partition in log.begins and log.begins[partition] <= offset < log.ends[partition]:
            begin, end = {partition: offset}, {partition: offset + 1}
            async with aclosing(reader.read_to(begin, end, NO_PROGRESS_S)) as reading:
                async for _, records in reading:
                    for record in records:
                        letter = letter_of(topic, partition, record)
                        is_redriven = log.positions.is_redriven(partition, offset)
                        return letter, letter.state(settings.source.topic, max_redrives, is_redriven=is_redriven)
    kept = log.begins.get(partition, 0), log.ends.get(partition, 0)
    raise UsageError(
        f"topic {topic}: partition {partition}: no dead letter at offset {offset}",
        hint=f"the log is there from {kept[0]} to {kept[1]}; `run-steps dead-letters list` has the positions",
    )


class Statistics:
    """Counts of dead letters by reason, detail, state, hour and partition."""

    def __init__(self) -> None:
        self.total = 0
        self.value_bytes = 0
        self.states: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.details: Counter[tuple[str, str]] = Counter()
        self.sources: Counter[tuple[str, int]] = Counter()
        self.hours: Counter[int] = Counter()
        """By the source record's timestamp: the hour's begin in milliseconds."""
        self.attempts: Counter[int] = Counter()

    def count(self, letter: Letter, state: State) -> None:
        self.total += 1
        self.value_bytes += len(letter.record.value or b"")
        self.states[state.value] += 1
        self.reasons[letter.reason] += 1
        self.details[letter.reason, letter.detail] += 1
        self.sources[letter.source_topic, letter.source_partition] += 1
        self.hours[letter.timestamp // _HOUR_MS * _HOUR_MS] += 1
        self.attempts[letter.attempt] += 1


async def count_letters(
    settings: Settings, connection: Connection, selection: Selection, max_redrives: int
) -> Statistics:
    """Count the selected letters. Raises what `read_letters` raises."""
    found = Statistics()
    async with aclosing(read_letters(settings, connection, selection, max_redrives)) as reading:
        async for letter, state in reading:
            found.count(letter, state)
    return found
