"""`run-steps dead-letters redrive`: dead letters back to the source topic, each exactly once.

A transaction holds some records for the source topic and the redrive positions that account for them, as offsets of a
group on the dead-letter topic. A redrive that is killed leaves either both or neither: the next one initialises the
same transactional id, which ends what was open and fences what is still alive, reads the positions and goes on.

Letters are taken up to the end that the topic has at the start, so a record that is rejected again waits for the next
redrive; one that came back often enough is parked.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Final, NamedTuple

from processor.dead_letters.letter import Letter, State, letter_of, source_record
from processor.dead_letters.positions import RedrivePosition, redrive_group, redrive_transactional_id
from processor.dead_letters.reading import NO_PROGRESS_S, DeadLetterLog, reader_of, survey
from processor.dead_letters.redriven_offsets import MOST_METADATA_BYTES
from processor.dead_letters.selection import Selection
from processor.errors import ConfigError, Fenced, UsageError
from processor.kafka.admin import Admin, takes_timestamp
from processor.kafka.consumer import Committed
from processor.kafka.records import OutRecord, batch_bytes
from processor.kafka.writer import NO_MEMBER, TransactionalWriter, Unit

if TYPE_CHECKING:
    from processor.config.settings import Settings
    from processor.kafka.client_config import Connection
    from processor.kafka.partition_reader import PartitionReader

_UNIT_RECORDS: Final = 500
_UNIT_BYTES: Final = 1 << 20
_STOP_S: Final = 5.0

TOO_LARGE: Final = "too_large"
"""With the headers of a redrive it is larger than a record of the source topic may be."""
NO_PARTITION: Final = "no_partition"
"""The source topic has not so many partitions any more."""

TIMESTAMP_REFUSED: Final = "timestamp_refused"
"""The source topic does not take a record of that time any more (or not yet)."""


class Wanted(NamedTuple):
    """Options of a redrive.

    Args:
        max_redrives: a record that was redriven so often is parked.
        most: so many letters at the most; None: all.
        per_second: no more letters in a second; None: as fast as it goes.
        is_first: nothing was redriven before, though the group has no position that says so.
        is_dry: count, and write nothing.
    """

    selection: Selection
    max_redrives: int
    most: int | None = None
    per_second: float | None = None
    is_first: bool = False
    is_dry: bool = False


class Outcome(NamedTuple):
    """Result of a redrive. `left`: selected letters that were not redriven, by reason."""

    redriven: int
    transactions: int
    reasons: Mapping[str, int]
    left: Mapping[str, int]


async def redrive(settings: Settings, connection: Connection, wanted: Wanted, echo: Callable[[str], None]) -> Outcome:
    """Redrive the selected dead letters that wait. Lines for people go to `echo`.

    Raises:
        ConfigError: delivery.mode is at_least_once.
        UsageError: the group has no position and the redrive is not said to be the first, or the redriven offsets are
            too scattered to be recorded; what was redriven before is recorded.
        Fenced, BrokerUnavailable: another redrive runs, or the broker does not answer; the next one goes on from there.
        BrokerRefused, CorruptLog, OffsetsUnstable
    """
    if settings.delivery.mode != "exactly_once":
        raise ConfigError(
            "dead-letters: redrive: needs transactions (got delivery.mode = at_least_once)",
            hint="without them a redrive that is killed would redrive again what it has redriven",
        )
    async with Admin(connection) as admin, reader_of(settings, connection) as reader:
        topics = await admin.topics([settings.source.topic])
        limits = {name: facts.max_batch_bytes for name, facts in topics.items()}
        if wanted.is_dry:
            log = await survey(settings, admin, reader)
            _begin(settings, wanted, log, echo)
            return await _Redrive(settings, wanted, log, None).run(reader)
        writer = _writer(settings, connection, limits)
        try:
            await writer.start()  # first: it fences another redrive, and the positions are read after that
            log = await survey(settings, admin, reader)
            _begin(settings, wanted, log, echo)
            return await _Redrive(settings, wanted, log, writer).run(reader)
        except Fenced as error:
            raise Fenced(error.message, hint="another redrive was started, and goes on where this one was") from error
        finally:
            await writer.stop(_STOP_S)


def _writer(settings: Settings, connection: Connection, limits: Mapping[str, int]) -> TransactionalWriter:
    delivery = settings.delivery
    return TransactionalWriter(
        connection,
        transactional_id=redrive_transactional_id(settings),
        group_id=redrive_group(settings),
        source_topic=settings.output.dead_letter,
        token_now=lambda: NO_MEMBER,
        transaction_timeout_ms=delivery.transaction_timeout_ms,
        commit_timeout_s=delivery.commit_timeout_s,
        compression=None if delivery.compression == "none" else delivery.compression,
        limits=limits,
        is_member=False,
    )


def _begin(settings: Settings, wanted: Wanted, log: DeadLetterLog, echo: Callable[[str], None]) -> None:
    group, topic = redrive_group(settings), settings.output.dead_letter
    if log.positions.is_of_another_topic:
        echo(f"topic {topic}: was created again since the last redrive; nothing of it was redriven")
    if log.positions.is_first and not wanted.is_first:
        if not wanted.is_dry:
            raise UsageError(
                f"group {group}: has no position on topic {topic}; nothing was redriven",
                hint="if nothing was ever redriven from this topic, say --first. If something was, the broker has "
                "deleted the positions (offsets.retention.minutes after the last redrive): exclude with --since, "
                "--reason or --letter what was redriven, then say --first",
            )
        echo(f"group {group}: has no position on topic {topic}; the first redrive has to be told by --first")


class _Redrive:
    """One run over the topic.

    Args:
        writer: None counts only.
    """

    def __init__(
        self, settings: Settings, wanted: Wanted, log: DeadLetterLog, writer: TransactionalWriter | None
    ) -> None:
        self._topic, self._source = settings.output.dead_letter, log.source
        self._group = redrive_group(settings)
        self._wanted, self._log, self._writer = wanted, log, writer
        self._positions = dict(log.positions.by_partition)
        self._read_from = {p: position.offset for p, position in self._positions.items()}
        self._pending: list[OutRecord] = []
        self._pending_bytes = 0
        self._redriven = self._transactions = 0
        self._reasons: Counter[str] = Counter()
        self._left: Counter[str] = Counter()
        rate = wanted.per_second
        self._unit_records = _UNIT_RECORDS if rate is None else max(1, min(_UNIT_RECORDS, int(rate)))
        self._began = time.monotonic()

    async def run(self, reader: PartitionReader) -> Outcome:
        begins = {p: min(offset, self._log.ends[p]) for p, offset in self._read_from.items()}
        async with aclosing(reader.read_to(begins, self._log.ends, NO_PROGRESS_S)) as reading:
            async for partition, records in reading:
                for record in records:
                    since, self._read_from[partition] = self._read_from[partition], record.offset + 1
                    self._take(letter_of(self._topic, partition, record), since)
                    if len(self._pending) >= self._unit_records or self._pending_bytes >= _UNIT_BYTES or self._is_full:
                        await self._commit()
                if self._is_full:
                    break
        await self._commit()
        return Outcome(self._redriven, self._transactions, self._reasons, self._left)

    @property
    def _is_full(self) -> bool:
        return self._wanted.most is not None and self._redriven + len(self._pending) >= self._wanted.most

    def _take(self, letter: Letter, since: int) -> None:
        """Add a letter to the records to write, or count the reason against it."""
        if self._is_full or not self._wanted.selection.takes(letter):
            return
        position = self._positions[letter.partition]
        state = letter.state(
            self._source.name, self._wanted.max_redrives, is_redriven=position.is_redriven(letter.offset)
        )
        if state is State.REDRIVEN:
            return
        reason: str = state.value
        if state is State.WAITING:
            record = source_record(letter)
            size = batch_bytes(record)
            if letter.source_partition >= self._source.partitions:
                reason = NO_PARTITION
            elif size > self._source.max_batch_bytes:
                reason = TOO_LARGE
            elif not takes_timestamp(self._source, record.timestamp, int(time.time() * 1000)):
                reason = TIMESTAMP_REFUSED
            else:
                self._pending.append(record)
                self._pending_bytes += size
                self._reasons[letter.reason] += 1
                position.ranges.add(letter.offset, since)
                return
        self._left[reason] += 1

    async def _commit(self) -> None:
        """Write what is pending and the positions that account for it, in one transaction; then keep to the rate."""
        if not self._pending:
            return
        if self._writer is not None:
            await self._writer.commit(Unit(NO_MEMBER, self._pending, offsets=self._offsets()))
        self._redriven += len(self._pending)
        self._transactions += 1
        self._pending, self._pending_bytes = [], 0
        if self._wanted.per_second is not None and self._writer is not None and not self._is_full:
            due = self._began + self._redriven / self._wanted.per_second
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    def _offsets(self) -> dict[int, Committed]:
        """The positions of all partitions: committed together, they expire together."""
        offsets = {}
        for partition, (before, ranges) in self._positions.items():
            offset = ranges.committed_offset(before)
            ranges.forget_below(offset)
            self._positions[partition] = RedrivePosition(offset, ranges)
            metadata = ranges.encode(offset, self._log.positions.log)
            if len(metadata) > MOST_METADATA_BYTES:
                raise UsageError(
                    f"group {self._group}: topic {self._topic}: partition {partition}: the redriven letters are too "
                    f"scattered to be recorded ({len(ranges.ranges())} ranges); {self._redriven} were redriven before",
                    hint="redrive with a wider selection, or all of an older time first (--until)",
                )
            offsets[partition] = Committed(offset, metadata)
        return offsets
