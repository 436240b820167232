"""The sampled self-audit: a worker reads the ranges of random published steps again, folds them afresh and compares.

What is judged is the record on the outcome topic, by the judge of the replay. First its own range is folded, from the
first offset that it names to the last. Where that does not give it, something from before the range may have had a
say (an ended run, say): then it is folded again from far enough before, at a stream time that the worker noted, and
only what that fold cannot doubt either (`core.partial`) is a mismatch. All else that disagrees is undecidable.

It must not cost the worker anything but its share of a processor: it reads with consumers of its own, in short
slices, one step at a time, and whatever breaks it is told and left behind. The worker calls it from its loop and never
waits for it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Iterator, Mapping, Sequence
from contextlib import aclosing
from random import Random
from types import coroutine
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from processor.config import Settings
from processor.core import evidence
from processor.core.audit import PartitionAudit, began_at, caused_at, mark_of, read_published
from processor.core.effects import Effect, Publish, Record
from processor.core.partial import PartialState
from processor.core.partition import PartitionState
from processor.core.rules import Rules
from processor.core.verdicts import Finding, Kind, Placed, Published, Verdict
from processor.kafka.consumer import PartitionReader
from processor.kafka.records import OutRecord
from processor.kafka.security import Connection
from processor.kafka.trouble import OffsetLost
from processor.outputs import Outputs, Places
from processor.telemetry import (
    AuditMismatch,
    AuditSkipped,
    AuditStands,
    AuditUndecided,
    SelfAuditTroubled,
    StepVerified,
    Telemetry,
)

_Answer = TypeVar("_Answer")

_QUEUE: Final = 16
"""Steps that wait to be checked."""
_WAYPOINTS: Final = 1_024
_MARKS: Final = 4_096
_WAYPOINTS_PER_RETENTION: Final = 8
_LEAST_SPACING_MS: Final = 1_000
_SLICE_RECORDS: Final = 400
_SLICE_BYTES: Final = 128 << 10
_UNMETERED: Final = 1.3
"""What a check takes in all, as a multiple of its own turns: the client fetches for it in tasks of its own."""
_SAVED_S: Final = 0.01
"""Processor time that may be saved up, and so the longest that a check runs on without a pause."""
_WAIT_S: Final = 20.0
_STOP_S: Final = 1.0
_BACKOFF_S: Final = 1.0
_BACKOFF_MAX_S: Final = 60.0
_SOURCE_FETCH_BYTES: Final = 256 << 10
_OUTCOME_FETCH_BYTES: Final = 16 << 10
_FIELDS_TOLD: Final = 20


# --- what is spent ----------------------------------------------------------------------------------------------------


class Allowance:
    """So much a second, saved up to `most`. More than there is may be taken, and is owed then."""

    def __init__(self, per_s: float, most: float, monotonic: Callable[[], float]) -> None:
        self._per_s, self._most, self._monotonic = per_s, most, monotonic
        self._left, self._at = most, monotonic()

    def left(self) -> float:
        now = self._monotonic()
        self._left = min(self._most, self._left + (now - self._at) * self._per_s)
        self._at = now
        return self._left

    def take(self, amount: float) -> None:
        self._left = self.left() - amount

    def owed_s(self) -> float:
        """How long until nothing is owed."""
        return max(0.0, -self.left() / self._per_s)


@coroutine
def metered(
    work: Coroutine[Any, Any, _Answer], clock: Callable[[], float], spent: Callable[[float], None]
) -> Generator[Any, Any, _Answer]:
    """Await `work`; each of its turns is told to `spent`, in seconds of `clock`, without what others did meanwhile."""
    step: Callable[[Any], Any] = work.send
    value: Any = None
    while True:
        began = clock()
        try:
            waiting = step(value)
        except StopIteration as done:
            answer: _Answer = done.value
            return answer
        finally:
            spent(clock() - began)
        try:
            value = yield waiting
            step = work.send
        except BaseException as error:  # a cancellation, first of all: it is the work's to take
            value, step = error, work.throw


# --- what the worker noted --------------------------------------------------------------------------------------------


class Waypoint(NamedTuple):
    """How a partition stood at an offset: the stream time (milliseconds), and whether nothing was remembered."""

    offset: int
    stream_time: int
    is_blank: bool


class Stretch(NamedTuple):
    """Source offsets [begin, end) to fold, how the partition stood at `begin`, and the clock marks in between.

    Only a `decisive` one can tell a mismatch; any can tell that the step is right.
    """

    begin: int
    stream_time: int
    is_blank: bool
    end: int
    marks: tuple[tuple[int, int], ...]
    decisive: bool


class Trail:
    """What a fold of a part of one partition must be told, noted by its owner as it went.

    Stream times, as the largest timestamp may lie anywhere before; and clock marks, as a step that is not looked at
    may have been due to them. Bounded: where the oldest is dropped, nothing can be decided before it any more.

    Args:
        state: the partition's, as it went live here.
    """

    def __init__(self, partition: int, state: PartitionState, now: float) -> None:
        self.partition = partition
        self.frontier = -1
        self.verified_at = now
        rules = state.rules
        self._retention_ms = rules.ended_retention_s * 1000
        self._spacing_ms = max(_LEAST_SPACING_MS, self._retention_ms // _WAYPOINTS_PER_RETENTION)
        # What checkpoints brought may have been named later than the stream time: the offsets were set back by hand.
        self._not_before_ms = state.named_last_ms()
        self.waypoints: deque[Waypoint] = deque(maxlen=_WAYPOINTS)
        self._marks: deque[tuple[int, int]] = deque()

    def passed(self, state: PartitionState) -> None:
        """The owner stands at `state.next_offset`."""
        now = state.stream_time
        if self.waypoints and now < self.waypoints[-1].stream_time + self._spacing_ms:
            return
        if now >= self._not_before_ms:
            self.waypoints.append(Waypoint(state.next_offset, now, state.is_blank))

    def marked(self, position: int, mark_ms: int) -> None:
        """The owner has set a clock mark there, before the record at that offset."""
        if len(self._marks) == _MARKS:
            lost, _ = self._marks.popleft()
            while self.waypoints and self.waypoints[0].offset < lost:
                self.waypoints.popleft()
        self._marks.append((position, mark_ms))
        if self.waypoints and self.waypoints[-1].offset == position:
            self.waypoints[-1] = self.waypoints[-1]._replace(stream_time=mark_ms)

    def stretches(self, first: int, end: int, own_mark: tuple[int, int] | None) -> Iterator[Stretch]:
        """From where to fold a step that began at `first`: its own range, then, if there is such a place, one that
        begins so early that what its owner remembered there was forgotten before the step, its run included.
        """
        before = [waypoint for waypoint in self.waypoints if waypoint.offset <= first]
        now = before[-1].stream_time if before else -1
        yield self._stretch(Waypoint(first, now, is_blank=False), end, own_mark, decisive=False)
        for waypoint in reversed(before):
            # Twice: a run that was remembered when the step began must itself have begun with nothing unknown.
            if waypoint.is_blank or waypoint.stream_time + 2 * self._retention_ms < now:
                yield self.decisive(waypoint, end, own_mark)
                return

    def decisive(self, waypoint: Waypoint, end: int, own_mark: tuple[int, int] | None) -> Stretch:
        """From a waypoint that lies before the step's first offset."""
        return self._stretch(waypoint, end, own_mark, decisive=True)

    def _stretch(self, begin: Waypoint, end: int, own_mark: tuple[int, int] | None, *, decisive: bool) -> Stretch:
        marks = {*self._marks} if own_mark is None else {*self._marks, own_mark}
        within = tuple(sorted(mark for mark in marks if begin.offset < mark[0] <= end))
        return Stretch(*begin, end, within, decisive)


# --- the judgement ----------------------------------------------------------------------------------------------------


class _OneRecord:
    """A shelf with one published record on it."""

    def __init__(self, published: Published, marks: Sequence[tuple[int, int]]) -> None:
        self._on_it: list[Published] = [published]
        self._marks = list(marks)

    def look(self, kind: Kind, identity: tuple[str, str]) -> list[Published]:
        return [one for one in self._on_it if (one.kind, one.identity) == (kind, identity)]

    def take(self, published: Published) -> None:
        self._on_it.remove(published)

    def take_equal(self, kind: Kind, identity: tuple[str, str], placed: Placed) -> tuple[str, int, int] | None:
        return None  # it is but one

    def left(self) -> Iterator[Published]:
        return iter(tuple(self._on_it))

    def marks(self) -> list[tuple[int, int]]:
        return self._marks

    def crowded_from(self, offset: int) -> int | None:
        return None  # a doubt of the state


class Recheck:
    """One published step against one stretch of the source."""

    def __init__(self, published: Published, stretch: Stretch, topic: str, rules: Rules, outputs: Outputs) -> None:
        self._step_id = published.identity[0]
        self._decisive = stretch.decisive
        anomalies = dict(published.headers).get(evidence.ANOMALIES) or b""
        self._may_be_older = b"joined_midstream" in anomalies.split(b",") and not stretch.is_blank
        # Topics may get more partitions meanwhile: where a record had to go then is not known.
        self._places = Places(outputs, published.source_partition, {})
        self._findings: list[Finding] = []
        self._state = PartialState(
            topic,
            published.source_partition,
            rules,
            begin=stretch.begin,
            stream_time=stretch.stream_time,
            is_blank=stretch.is_blank,
            step_id=self._step_id,
            first_offset=began_at(published) or 0,
        )
        self._audit = PartitionAudit(
            lambda offset, stream_time: self._state,
            _OneRecord(published, stretch.marks),
            self._place,
            begin=stretch.begin,
            end=stretch.end,
            complete=True,  # what is not known is the state's to doubt
        )

    def take(self, records: Sequence[Record]) -> None:
        """The next records of the stretch, in offset order."""
        self._findings += [finding for _, finding in self._audit.apply(records) if finding.at is not None]
        self._state.counts.clear()

    def judged(self) -> Finding:
        """All of the stretch has been taken: what is to be said of the record. Undecided is `UNVERIFIABLE`."""
        self._findings += [finding for _, finding in self._audit.finish() if finding.at is not None]
        (finding,) = self._findings
        if finding.verdict is Verdict.EQUAL:
            doubt = "it joined midstream: it may have begun before" if self._may_be_older else ""
        else:
            doubt = self._state.doubt if self._decisive else "what came before its range may have had a say"
        if doubt and finding.verdict is not Verdict.UNVERIFIABLE:
            finding = msgspec.structs.replace(finding, verdict=Verdict.UNVERIFIABLE, why=doubt)
        return finding

    def _place(self, effect: Effect) -> Placed | None:
        if isinstance(effect, Publish) and effect.step_id == self._step_id:
            return self._places.whole(effect)
        return None


# --- the task ---------------------------------------------------------------------------------------------------------


class _Sample(NamedTuple):
    """A published step to be checked: where its record stands, and the trail of the partition that it came from."""

    topic: str
    partition: int
    offset: int
    key: bytes
    trail: Trail


class _Skipped(Exception):
    """A check that cannot be made, for a reason that the metric knows."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class SelfAudit:
    """The self-audit of one process, over all lives of its worker.

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
        self._steps = Allowance(per_s, max(2.0, per_s), monotonic)
        self._cpu = Allowance(own.cpu_share, _SAVED_S, monotonic)
        self._trails: dict[int, Trail] = {}
        self._queue: deque[_Sample] = deque()
        self._news = asyncio.Event()
        self._readers: dict[str, PartitionReader] = {}
        self._mismatches = 0
        self._last_mismatch = ""

    # What the worker tells, from its loop

    def passed(self, state: PartitionState) -> None:
        """A live partition of ours stands where its state says."""
        trail = self._trails.get(state.partition)
        if trail is None:
            trail = self._trails[state.partition] = Trail(state.partition, state, self._monotonic())
        trail.passed(state)

    def marked(self, partition: int, position: int, mark_ms: int) -> None:
        """A clock mark was set."""
        trail = self._trails.get(partition)
        if trail is not None:
            trail.marked(position, mark_ms)

    def closed(self) -> None:
        """No partition is ours any more: what waits or is under way is given up."""
        self._trails.clear()
        if self._queue:
            self._telemetry.happened(AuditSkipped("revoked", len(self._queue)))
            self._queue.clear()

    def choose(self, records: Sequence[OutRecord]) -> dict[int, tuple[int, int] | None]:
        """By their numbers, the records of a unit that shall be checked: published steps, each as likely as the other.

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
        """The unit is committed; what was chosen of it stands at these places."""
        for number, place in places.items():
            topic, _, key, *_, headers = records[number]
            trail = self._trails.get(int(dict(headers)[evidence.SOURCE_PARTITION] or b"-1"))
            assert key is not None, "outcome topics are keyed by step id"
            if trail is None:
                self._telemetry.happened(AuditSkipped("revoked"))
            elif place is None:
                self._telemetry.happened(AuditSkipped("unplaced"))
            elif len(self._queue) >= _QUEUE:
                self._telemetry.happened(AuditSkipped("queue_full"))
            else:
                self._queue.append(_Sample(topic, *place, key, trail))
                self._news.set()

    def stand(self) -> None:
        """Tell how old the frontiers are."""
        now = self._monotonic()
        for trail in self._trails.values():
            self._telemetry.happened(AuditStands(trail.partition, now - trail.verified_at))

    def reasons(self) -> list[str]:
        """What the health page has to say, once there was a mismatch: it stays as long as the process."""
        if not self._mismatches:
            return []
        return [
            f"self-audit: published steps that are not what the log implies: {self._mismatches}; {self._last_mismatch}"
        ]

    # The task

    async def run(self) -> None:
        """Check what is chosen, one step after the other, until cancelled. Errors are told, not raised."""
        backoff_s = _BACKOFF_S
        try:
            while True:
                while not self._queue:
                    self._news.clear()
                    await self._news.wait()
                sample = self._queue.popleft()
                try:
                    await metered(self._check(sample), self._processor_time, self._spent)
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
        self._cpu.take(seconds * _UNMETERED)

    async def _check(self, sample: _Sample) -> None:
        published = await self._record(sample)
        first, cause = began_at(published), caused_at(published)
        if first is None or cause is None or cause < first:
            raise _Skipped("unreadable")
        undecided: Finding | None = None
        for stretch in sample.trail.stretches(first, cause + 1, mark_of(published)):
            try:
                finding = await self._judged(sample, published, stretch)
            except _Skipped:
                if undecided is None or not self._is_ours(sample):
                    raise
                break
            if finding.verdict is Verdict.EQUAL:
                self._verified(sample.trail, cause + 1)
                return
            if finding.verdict is not Verdict.UNVERIFIABLE:
                self._mismatched(finding, published, first, cause)
                return
            undecided = finding
        assert undecided is not None, "there is always the step's own range"
        self._telemetry.happened(AuditUndecided(*_told(undecided, published, first, cause)))

    async def _record(self, sample: _Sample) -> Published:
        """What stands on the outcome topic."""
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
                return published
        raise _Skipped("retention")  # compacted, or the topic was made anew

    async def _judged(self, sample: _Sample, published: Published, stretch: Stretch) -> Finding:
        """Fold a stretch, in slices.

        Raises:
            _Skipped: it is too long, or gone, or the partition is not ours any more.
        """
        if stretch.end - stretch.begin > self._settings.self_audit.max_range_records:
            raise _Skipped("range_too_long")
        topic, partition = self._settings.source.topic, sample.trail.partition
        recheck = Recheck(published, stretch, topic, self._rules, self._outputs)
        reader = await self._reader(topic, _SOURCE_FETCH_BYTES)
        reading = reader.read_to({partition: stretch.begin}, {partition: stretch.end}, _WAIT_S)
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
        return self._trails.get(sample.trail.partition) is sample.trail

    def _verified(self, trail: Trail, frontier: int) -> None:
        trail.frontier = max(trail.frontier, frontier)
        trail.verified_at = self._monotonic()
        self._telemetry.happened(StepVerified(trail.partition, trail.frontier))

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


def slices(records: Sequence[Record]) -> Iterator[Sequence[Record]]:
    """The records in parts that are folded without a pause."""
    begin = size = 0
    for at, record in enumerate(records):
        size += len(record.value or b"")
        if at - begin + 1 >= _SLICE_RECORDS or size >= _SLICE_BYTES:
            yield records[begin : at + 1]
            begin, size = at + 1, 0
    if begin < len(records):
        yield records[begin:]


def _told(
    finding: Finding, published: Published, first: int, last: int
) -> tuple[str, str, str, str, int, int, int, tuple[str, int, int], tuple[str, ...]]:
    """What a log line says of it: names and paths, no contents."""
    step_id, revision = published.identity
    at = (published.topic, published.partition, published.offset)
    paths = tuple(difference.path for difference in finding.differences[:_FIELDS_TOLD])
    return step_id, revision, finding.verdict.value, finding.why, published.source_partition, first, last, at, paths
