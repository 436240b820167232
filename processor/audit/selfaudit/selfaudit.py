"""The sampled self-audit: a worker reads the ranges of random published steps again, folds them afresh and compares.

The judge of the replay judges the record on the outcome topic. First its own range is folded, from the first offset
that it names to the last. If the result differs, earlier records may matter (an ended run, for example): then the fold
begins again far enough before, at a stream time that the worker noted, and only a difference without any uncertainty
(`UnknownPrefix`) is a mismatch. Every other difference is undecidable.

It costs the worker no more than its share of a processor: it reads with its own consumers, in short slices, one step at
a time, and its errors are counted and logged. The worker calls it from its loop and never waits for it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing
from random import Random
from typing import Any, Final, NamedTuple, TypeVar

from processor.audit.judge.published_headers import began_at, caused_at, mark_of, read_published
from processor.audit.judge.verdicts import NEVER, Finding, Published, Verdict
from processor.audit.selfaudit.budget import SAVED_S, UNMETERED, TokenBucket, run_metered
from processor.audit.selfaudit.partition_history import KnownRange, PartitionHistory
from processor.audit.selfaudit.recheck import Recheck, slices
from processor.config.settings import Settings
from processor.core.effects import Record
from processor.core.headers import SOURCE_PARTITION
from processor.core.partition import PartitionState
from processor.kafka.client_config import Connection
from processor.kafka.errors import OffsetLost
from processor.kafka.output_records import Outputs
from processor.kafka.partition_reader import PartitionReader
from processor.kafka.records import OutRecord
from processor.telemetry.self_audit_happenings import (
    AuditMismatch,
    AuditSkipped,
    AuditStatus,
    AuditUndecided,
    SelfAuditTroubled,
    StepVerified,
)
from processor.telemetry.telemetry import Telemetry

_Answer = TypeVar("_Answer")

_QUEUE: Final = 16
"""Maximum steps that wait to be checked."""
_WAIT_S: Final = 20.0
_STOP_S: Final = 1.0
_BACKOFF_S: Final = 1.0
_BACKOFF_MAX_S: Final = 60.0
_SOURCE_FETCH_BYTES: Final = 256 << 10
_OUTCOME_FETCH_BYTES: Final = 16 << 10
_FIELDS_TOLD: Final = 20


class _Sample(NamedTuple):
    """A published step to be checked: the location of its record, and the history of its source partition."""

    topic: str
    partition: int
    offset: int
    key: bytes
    history: PartitionHistory


class _Skipped(Exception):
    """A check that cannot be made; the reason is a value of the metric's label."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class SelfAudit:
    """The self-audit of one process, over all incarnations of its worker.

    Args:
        settings: of the worker; `[self_audit]` is what it keeps to.
        monotonic: seconds, for rates and ages.
        processor_time: seconds of processor time of the calling thread.
        sleep: waits so many seconds.
    """

    def __init__(
        self,
        settings: Settings,
        connection: Connection,
        telemetry: Telemetry,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        processor_time: Callable[[], float] = time.thread_time,
        sleep: Callable[[float], Coroutine[Any, Any, None]] = asyncio.sleep,
        random: Random | None = None,
    ) -> None:
        own = settings.self_audit
        self._settings, self._connection, self._telemetry = settings, connection, telemetry
        self._monotonic, self._processor_time, self._sleep = monotonic, processor_time, sleep
        self._random = random or Random()
        self._rules, self._outputs = settings.rules(), Outputs.of_settings(settings)
        per_s = own.steps_per_minute / 60
        self._steps = TokenBucket(per_s, max(2.0, per_s), monotonic)
        self._cpu = TokenBucket(own.cpu_share, SAVED_S, monotonic)
        self._histories: dict[int, PartitionHistory] = {}
        self._queue: deque[_Sample] = deque()
        self._news = asyncio.Event()
        self._readers: dict[str, PartitionReader] = {}
        self._mismatches = 0
        self._last_mismatch = ""

    # Called by the worker, from its loop

    def passed(self, state: PartitionState) -> None:
        """Note the position and the stream time of a live partition."""
        history = self._histories.get(state.partition)
        if history is None:
            history = self._histories[state.partition] = PartitionHistory(state.partition, state, self._monotonic())
        history.passed(state)

    def marked(self, partition: int, position: int, mark_ms: int) -> None:
        """Note a clock mark."""
        history = self._histories.get(partition)
        if history is not None:
            history.marked(position, mark_ms)

    def closed(self) -> None:
        """Give up all checks: the worker has no partition any more."""
        self._histories.clear()
        if self._queue:
            self._telemetry.happened(AuditSkipped("revoked", len(self._queue)))
            self._queue.clear()

    def choose(self, records: Sequence[OutRecord]) -> dict[int, tuple[int, int] | None]:
        """Choose records of a unit to check, by index: published steps, each with the same probability.

        The places are to be filled in for `published`.
        """
        due = int(self._steps.left())
        if due < 1:
            return {}
        dead_letter = self._settings.output.dead_letter
        steps = [number for number, record in enumerate(records) if record.topic != dead_letter]
        chosen = self._random.sample(steps, min(due, len(steps)))
        self._steps.take(len(chosen))
        return dict.fromkeys(chosen)

    def published(self, records: Sequence[OutRecord], places: Mapping[int, tuple[int, int] | None]) -> None:
        """Queue the chosen records of a committed unit, with their positions."""
        for number, place in places.items():
            topic, _, key, *_, headers = records[number]
            history = self._histories.get(int(dict(headers)[SOURCE_PARTITION] or b"-1"))
            assert key is not None, "outcome topics are keyed by step id"
            if history is None:
                self._telemetry.happened(AuditSkipped("revoked"))
            elif place is None:
                self._telemetry.happened(AuditSkipped("unplaced"))
            elif len(self._queue) >= _QUEUE:
                self._telemetry.happened(AuditSkipped("queue_full"))
            else:
                self._queue.append(_Sample(topic, *place, key, history))
                self._news.set()

    def stand(self) -> None:
        """Report the time since a step of each partition was last verified."""
        now = self._monotonic()
        for history in self._histories.values():
            self._telemetry.happened(AuditStatus(history.partition, now - history.verified_at))

    def reasons(self) -> list[str]:
        """Reasons for /healthz after a mismatch: they stay as long as the process."""
        if not self._mismatches:
            return []
        return [
            f"self-audit: published steps that are not what the log implies: {self._mismatches}; {self._last_mismatch}"
        ]

    # The background task

    async def run(self) -> None:
        """Check the chosen steps, one after the other, until cancelled. Errors are reported, not raised."""
        backoff_s = _BACKOFF_S
        try:
            while True:
                while not self._queue:
                    self._news.clear()
                    await self._news.wait()
                sample = self._queue.popleft()
                try:
                    await run_metered(self._check(sample), self._processor_time, self._spent)
                    backoff_s = _BACKOFF_S
                except _Skipped as skipped:
                    self._telemetry.happened(AuditSkipped(skipped.reason))
                except Exception as error:  # whatever it is: the worker goes on
                    self._telemetry.happened(SelfAuditTroubled(error, backoff_s))
                    await self._drop_readers()
                    await self._sleep(backoff_s)
                    backoff_s = min(2 * backoff_s, _BACKOFF_MAX_S)
                await self._sleep(self._cpu.owed_s())
        finally:
            await self._drop_readers()

    def _spent(self, seconds: float) -> None:
        self._cpu.take(seconds * UNMETERED)

    async def _check(self, sample: _Sample) -> None:
        published, has_broker_time = await self._record(sample)
        first, cause = began_at(published), caused_at(published)
        if first is None or cause is None or cause < first:
            raise _Skipped("unreadable")
        undecided: Finding | None = None
        for known_range in sample.history.ranges(first, cause + 1, mark_of(published)):
            try:
                finding = await self._judged(sample, published, known_range, has_broker_time=has_broker_time)
            except _Skipped:
                if undecided is None or not self._is_ours(sample):
                    raise
                break
            if finding.verdict is Verdict.EQUAL:
                self._verified(sample.history, cause + 1)
                return
            if finding.verdict is not Verdict.UNVERIFIABLE:
                self._mismatched(finding, published, first, cause)
                return
            undecided = finding
        assert undecided is not None, "there is always the step's own range"
        self._telemetry.happened(AuditUndecided(*_told(undecided, published, first, cause)))

    async def _record(self, sample: _Sample) -> tuple[Published, bool]:
        """Read the record on the outcome topic; and whether its timestamp is the broker's (LogAppendTime)."""
        reader = await self._reader(sample.topic, _OUTCOME_FETCH_BYTES)
        begin, end = {sample.partition: sample.offset}, {sample.partition: sample.offset + 1}
        found: list[Record] = []
        try:
            async for _, records in reader.read_to(begin, end, _WAIT_S):
                found += records
        except OffsetLost:
            raise _Skipped("retention") from None
        if found:
            published = read_published(sample.topic, sample.partition, found[0], dead_letters=False)
            if isinstance(published, Published) and published.key == sample.key:
                return published, sample.offset >= reader.broker_times().get(sample.partition, NEVER)
        raise _Skipped("retention")  # compacted, or the topic was made anew

    async def _judged(
        self, sample: _Sample, published: Published, known_range: KnownRange, *, has_broker_time: bool
    ) -> Finding:
        """Fold a range, in slices.

        Raises:
            _Skipped: it is too long, or gone, or the partition is not ours any more.
        """
        if known_range.end - known_range.begin > self._settings.self_audit.max_range_records:
            raise _Skipped("range_too_long")
        topic, partition = self._settings.source.topic, sample.history.partition
        recheck = Recheck(published, known_range, topic, self._rules, self._outputs, has_broker_time=has_broker_time)
        reader = await self._reader(topic, _SOURCE_FETCH_BYTES)
        reading = reader.read_to({partition: known_range.begin}, {partition: known_range.end}, _WAIT_S)
        try:
            async with aclosing(reading) as pieces:
                async for _, records in pieces:
                    for part in slices(records):
                        recheck.take(part)
                        await self._sleep(self._cpu.owed_s())
                        if not self._is_ours(sample):
                            raise _Skipped("revoked")
        except OffsetLost:
            raise _Skipped("retention") from None
        return recheck.judged()

    def _is_ours(self, sample: _Sample) -> bool:
        return self._histories.get(sample.history.partition) is sample.history

    def _verified(self, history: PartitionHistory, verified_offset: int) -> None:
        history.verified_offset = max(history.verified_offset, verified_offset)
        history.verified_at = self._monotonic()
        self._telemetry.happened(StepVerified(history.partition, history.verified_offset))

    def _mismatched(self, finding: Finding, published: Published, first: int, last: int) -> None:
        self._mismatches += 1
        self._last_mismatch = f"the last one of partition {finding.partition}, offsets {first} to {last}"
        self._telemetry.happened(AuditMismatch(*_told(finding, published, first, last)))

    async def _reader(self, topic: str, fetch_bytes: int) -> PartitionReader:
        if topic not in self._readers:
            reader = PartitionReader(
                self._connection,
                topic=topic,
                client_id=f"{self._settings.kafka.client_id}.self-audit",
                fetch_max_bytes=fetch_bytes,
                partition_fetch_bytes=fetch_bytes,
            )
            await reader.start()
            self._readers[topic] = reader
        return self._readers[topic]

    async def _drop_readers(self) -> None:
        readers, self._readers = self._readers, {}
        await asyncio.gather(*(reader.stop(_STOP_S) for reader in readers.values()))


def _told(
    finding: Finding, published: Published, first: int, last: int
) -> tuple[str, str, str, str, int, int, int, tuple[str, int, int], tuple[str, ...]]:
    """Log fields of a finding: names and paths, no contents."""
    step_id, revision = published.identity
    at = (published.topic, published.partition, published.offset)
    paths = tuple(difference.path for difference in finding.differences[:_FIELDS_TOLD])
    return step_id, revision, finding.verdict.value, finding.why, published.source_partition, first, last, at, paths
