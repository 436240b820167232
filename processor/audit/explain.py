"""The command `explain`: the timeline of one step, from the offsets that its published records name.

Outcome topics are keyed by step id, so only one partition of each is searched, unless all are asked for. Then the
source is read between the first and the last offset that the headers name, and folded. If the result is not what was
published, the fold begins again so far before that no earlier run or step can matter, and with the clock marks that
other steps name. What differs then is judged once more beside the records that say which rules were in
force; only then is the record called different.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple, Protocol

import msgspec

from processor.audit.judge.published_headers import began_at, caused_at, mark_of
from processor.audit.judge.regimes import Accepted, Regime, regime_of
from processor.audit.judge.settled import CLOCK_SKEW_S, settled_after_ms
from processor.audit.judge.verdicts import FindingKind, Published, Unreadable, Verdict
from processor.audit.memory_index import MemoryIndex
from processor.audit.output_reading import OutputReading, Unread
from processor.audit.published_index import of_source
from processor.audit.replay.task import Task
from processor.audit.step_timeline import StepIncarnation, StepTimeline
from processor.config.settings import Settings
from processor.core.effects import Status
from processor.core.headers import ANOMALIES
from processor.core.rules import Rules
from processor.errors import UsageError
from processor.kafka.client_config import Connection
from processor.kafka.partition_reader import PartitionReader
from processor.kafka.records import partition_of

_CLIENT_ID: Final = "run-steps.explain"
_WAIT_S: Final = 20.0
_MOST_LETTERS: Final = 10_000
_MOST_REGIMES: Final = 100
_MIDSTREAM: Final = b"joined_midstream"
_MARKED: Final = (
    "It ended under the clock mark at offset {}. The log bears that out; that no other step contradicts the mark, "
    "`replay` can tell."
)
_BY_ITSELF: Final = (
    "From its first offset on the step is as it was published, and with the records in front of it, it is not: it is "
    "not the worker's, or its group was reset to there. Which of them, `replay` can tell."
)
_OVERLAP: Final = (
    "Another life of the step overlaps with it on the same partition of the source: one of them is not the worker's, "
    "or its group was reset in between. Which of them, `replay` can tell."
)
_OWN_PARTITIONS: Final = (
    "Read of the outcome topics: {}, where records with this key belong now. Records with this key on other partitions "
    "(from before partitions were added, or of another program) were not looked for: --all-partitions does."
)


class Explained(msgspec.Struct, frozen=True):
    """Result of `explain` for one step. `strays` have its key and name no place in the source: no honest output."""

    step_id: str
    lives: tuple[StepIncarnation, ...]
    strays: tuple[Unreadable, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def verdict(self) -> Verdict:
        met = {life.verdict for life in self.lives}
        if self.strays or Verdict.DIFFERENT.value in met:
            return Verdict.DIFFERENT
        return Verdict.EQUAL if met == {Verdict.EQUAL.value} else Verdict.UNVERIFIABLE


class Marks(msgspec.Struct, frozen=True):
    """The published records that name a clock mark of one source partition; whether all of them are still there."""

    published: tuple[Published, ...]
    complete: bool


class SettingsNamed:
    """The records of one source partition that say which settings were in force, or that they are not known: of each
    fold version and settings digest the first and the last cause, and the dead letters that a range caused.

    Args:
        begin, end: source offsets, [begin, end).
    """

    def __init__(self, partition: int, begin: int, end: int) -> None:
        self._partition, self._begin, self._end = partition, begin, end
        self._spans: dict[Regime, tuple[Published, Published]] = {}
        self._letters: list[Published] = []

    def take(self, one: Published | Unreadable | None) -> None:
        if not isinstance(one, Published) or one.source_partition != self._partition:
            return
        cause, regime = caused_at(one), regime_of(dict(one.headers))
        if cause is None:
            return
        if one.kind is FindingKind.DEAD_LETTER:
            if self._begin <= cause < self._end and len(self._letters) < _MOST_LETTERS:
                self._letters.append(one)
        elif regime is not None and (regime in self._spans or len(self._spans) < _MOST_REGIMES):
            first, last = self._spans.get(regime, (one, one))
            is_first, is_last = cause < (caused_at(first) or 0), cause > (caused_at(last) or 0)
            self._spans[regime] = one if is_first else first, one if is_last else last

    def records(self) -> tuple[Published, ...]:
        return (*self._letters, *(one for span in self._spans.values() for one in span))


class Logs(Protocol):
    """Access to the published records and the source: on topics, or in another store with the same records."""

    async def published(self, step_id: str) -> list[Published | Unreadable]:
        """Published records under the key of a step, of this source; impossible locations are `Unreadable`."""
        ...

    async def marks(self, partition: int) -> Marks:
        """All clock marks of a partition of the source. Reads a whole outcome topic."""
        ...

    async def settings_named(self, partition: int, begin: int, end: int) -> tuple[Published, ...]:
        """Published records that name settings (`SettingsNamed`), of all outcome topics and the dead letters."""
        ...

    async def bounds(self, partition: int) -> tuple[int, int]:
        """[begin, end) of a partition of the source."""
        ...

    async def timestamp_of(self, partition: int, offset: int) -> int | None:
        """Timestamp of the first record at or behind an offset, in milliseconds; None where there is none."""
        ...

    async def offset_at(self, partition: int, milliseconds: int) -> int | None:
        """The first record as young as that or younger."""
        ...

    def unread(self, partition: int) -> Unread:
        """Parts of the output that could not be read, of those that were asked for by now."""
        ...

    def task(self, partition: int, begin: int, end: int, *, complete: bool) -> Task:
        """Make the task that reads this range of the source and folds it."""
        ...


def explain(
    step_id: str,
    settings: Settings,
    connection: Callable[[], Connection],
    *,
    partition: int | None = None,
    offset: int | None = None,
    all_partitions: bool = False,
    accepted: Accepted | None = None,
    earlier_rules: tuple[Rules, ...] = (),
) -> Explained:
    """Find the published records of a step, fold its range, and return its timeline.

    Args:
        partition, offset: of the source, where the step begins; for a step of which nothing is published yet.
        all_partitions: read all partitions of the outcome topics, not only the ones that the key belongs to.
        accepted, earlier_rules: as a replay has them (`processor.audit.replay.options`).

    Raises:
        UsageError: nothing was published and no place was given.
    """
    others = _OtherSettings(accepted or Accepted(), earlier_rules)
    topics = _Topics(settings, connection, others, all_partitions=all_partitions)
    found = asyncio.run(explain_from(topics, step_id, partition, offset))
    if found.verdict is Verdict.DIFFERENT and topics.notes:
        # What seems to be missing may stand on another partition, from before some were added.
        topics = _Topics(settings, connection, others, all_partitions=True)
        found = asyncio.run(explain_from(topics, step_id, partition, offset))
    return msgspec.structs.replace(found, notes=(*found.notes, *topics.notes))


async def explain_from(logs: Logs, step_id: str, partition: int | None = None, offset: int | None = None) -> Explained:
    """As `explain`."""
    found = await logs.published(step_id)
    strays = tuple(one for one in found if isinstance(one, Unreadable))
    lives: dict[tuple[int, int], list[Published]] = {}
    for one in found:
        if isinstance(one, Published) and (partition is None or one.source_partition == partition):
            first = began_at(one)
            if first is None or caused_at(one) is None:
                why = "its offsets cannot be read"
                strays += (Unreadable(one.topic, one.partition, one.offset, why),)
            else:
                lives.setdefault((one.source_partition, first), []).append(one)
    if lives or strays:
        told = [await _life(logs, step_id, p, first, lives) for p, first in sorted(lives)]
        told = list(_with_overlaps(told, lives))
        return Explained(step_id, tuple(told), strays, notes=_split(sorted({p for p, _ in lives})))
    if partition is None or offset is None:
        raise UsageError(
            f"explain: {step_id}: nothing was published of it",
            hint="if it is open, say where it begins: --partition and --offset (see /steps of its worker)",
        )
    _, end = await logs.bounds(partition)
    return Explained(step_id, (await _told(logs, step_id, partition, (offset, max(offset, end)), [], complete=True),))


def _split(partitions: Sequence[int]) -> tuple[str, ...]:
    """Note on a step with incarnations on several partitions of the source; empty where it has one."""
    if len(partitions) < 2:
        return ()
    where = ", ".join(map(str, partitions))
    return (
        f"Records of this step stand on several partitions of the source ({where}), each with a life and an end of its "
        "own: its run's records were split, by producers that do not partition alike or by partitions that were added "
        "(docs/producers.md).",
    )


def _with_overlaps(
    told: Sequence[StepIncarnation], lives: Mapping[tuple[int, int], list[Published]]
) -> Iterator[StepIncarnation]:
    """The lives in the order of `lives`; none is equal that another one was under way in, on the same partition."""
    spans = {(p, first): max(caused_at(one) or first for one in issued) for (p, first), issued in lives.items()}
    for (partition, first), life in zip(sorted(lives), told, strict=True):
        own = (partition, first)
        others = [(began, end) for (p, began), end in spans.items() if p == partition and began != first]
        if not any(began <= spans[own] and first <= end for began, end in others):
            yield life
        elif life.verdict == Verdict.EQUAL.value:
            yield _open(life, _OVERLAP)
        else:
            yield msgspec.structs.replace(life, notes=(*life.notes, _OVERLAP))


async def _life(
    logs: Logs, step_id: str, partition: int, first: int, lives: Mapping[tuple[int, int], list[Published]]
) -> StepIncarnation:
    """Tell what became of one life of a step. `lives`: the records of all, by partition and first offset."""
    issued = lives[partition, first]
    may_be_older = _may_be_older(issued) or any(p == partition and other < first for p, other in lives)
    log_begin, log_end = await logs.bounds(partition)
    end = min(log_end, max(caused_at(one) or first for one in issued) + 1)
    first = min(first, end)
    life = await _told(logs, step_id, partition, (first, end), issued, complete=True, log_end=log_end)
    if log_begin > first:
        return _open(life, f"The log begins at offset {log_begin}: what was before is gone.")
    # By itself a step of other settings cannot show that they, and no others, were in force where it ended.
    is_of_others = _names_other_settings(logs, partition, issued)
    by_itself = life.verdict == Verdict.EQUAL.value
    if by_itself and not (is_of_others or may_be_older):
        return _marked(life, issued)
    # Earlier records may matter: an ended run, a clock that was ahead, marks that other steps name.
    begin = await _far_enough_before(logs, partition, first, log_begin)
    marks = await logs.marks(partition)
    complete = begin == 0
    span = (begin, end)
    beside = marks.published
    life = await _told(logs, step_id, partition, span, issued, complete=complete, log_end=log_end, beside=beside)
    if life.verdict == Verdict.DIFFERENT.value and not marks.complete:
        return _open(
            life, "A clock mark that came with another step may be gone from its topic, or be held back there."
        )
    if life.verdict == Verdict.DIFFERENT.value or (life.verdict == Verdict.EQUAL.value and is_of_others):
        # Settings may have been changed at rest; what the partition's other records show of that counts here, too.
        beside += await logs.settings_named(partition, *span)
        life = await _told(logs, step_id, partition, span, issued, complete=complete, log_end=log_end, beside=beside)
    if by_itself and may_be_older and life.verdict == Verdict.DIFFERENT.value:
        return _open(life, _BY_ITSELF)
    return _marked(life, issued) if life.verdict == Verdict.EQUAL.value else life


def _may_be_older(issued: list[Published]) -> bool:
    """Whether the first event is none that a step begins with: what was before it may be of the same life."""
    anomalies = (dict(one.headers).get(ANOMALIES) or b"" for one in issued)
    return any(_MIDSTREAM in named.split(b",") for named in anomalies)


def _names_other_settings(logs: Logs, partition: int, issued: list[Published]) -> bool:
    own = logs.task(partition, 0, 0, complete=False).rules.digest()
    return any((regime := regime_of(dict(one.headers))) is not None and regime.rules != own for one in issued)


def _marked(life: StepIncarnation, issued: list[Published]) -> StepIncarnation:
    """A clock mark was due at its position and gives these records; whether other records contradict it is open."""
    mark = next((mark for one in issued if (mark := mark_of(one)) is not None), None)
    return life if mark is None else _open(life, _MARKED.format(mark[0]))


def _open(life: StepIncarnation, note: str) -> StepIncarnation:
    return msgspec.structs.replace(life, notes=(*life.notes, note), verdict=Verdict.UNVERIFIABLE.value)


async def _far_enough_before(logs: Logs, partition: int, first: int, log_begin: int) -> int:
    """An offset from which on no record that is not read can matter to the step."""
    began_ms = await logs.timestamp_of(partition, first)
    if began_ms is None:
        return log_begin
    task = logs.task(partition, first, first, complete=False)
    before_ms = began_ms - max(
        settled_after_ms(rules, retentions=2, readings=2) for rules in (task.rules, *task.earlier_rules)
    )
    found = await logs.offset_at(partition, max(0, before_ms))
    return first if found is None else min(first, found)


async def _told(
    logs: Logs,
    step_id: str,
    partition: int,
    span: tuple[int, int],
    issued: list[Published],
    *,
    complete: bool,
    log_end: int | None = None,
    beside: Sequence[Published] = (),
) -> StepIncarnation:
    """Build the timeline of one incarnation by folding `span`.

    Args:
        beside: records of other incarnations whose clock marks and settings matter here, and dead letters.
    """
    begin, end = span
    latest_mark_ms = round((time.time() + CLOCK_SKEW_S) * 1000)  # no clock had come further
    task = logs.task(partition, begin, end, complete=complete)
    unread = logs.unread(partition)
    task = msgspec.structs.replace(
        task,
        log_end=log_end,
        latest_mark_ms=latest_mark_ms,
        shortened=tuple(unread.kept_from),
        held=unread.held,
        holes=unread.holes,
        broker_times=unread.broker_times,
    )
    index = MemoryIndex((*issued, *beside), kept_from=unread.kept_from)
    return await StepTimeline(step_id, task, index, issued).walk()


class _OtherSettings(NamedTuple):
    """Other settings and fold versions that the auditor names."""

    accepted: Accepted
    earlier_rules: tuple[Rules, ...]


class _Topics:
    """A step is looked up on the topics; satisfies `Logs`."""

    def __init__(
        self,
        settings: Settings,
        connection: Callable[[], Connection],
        others: _OtherSettings,
        *,
        all_partitions: bool,
    ) -> None:
        self._settings, self._connect, self._all_partitions = settings, connection, all_partitions
        self._others = others
        self._output = OutputReading(connection, settings.source.topic, settings.output.dead_letter)
        self._source_partitions = 0
        self.notes: list[str] = []

    def _reader(self, topic: str) -> PartitionReader:
        return PartitionReader(self._connect(), topic=topic, client_id=_CLIENT_ID)

    async def published(self, step_id: str) -> list[Published | Unreadable]:
        """Read the partition of the key on each outcome topic, or all partitions."""
        async with self._reader(self._settings.source.topic) as reader:
            self._source_partitions = reader.partitions_of_topic()
        key = step_id.encode()
        found: list[Published | Unreadable] = []
        places: list[str] = []

        def own(count: int) -> Sequence[int]:
            return range(count) if self._all_partitions else (partition_of(key, count),)

        for topic in sorted({topic for topic in self._settings.outcome_topics.values() if topic}):
            async for p, records in self._output.read(topic, own, self._source_partitions):
                for record in records:
                    if record.key == key:
                        one = of_source(self._settings.source.topic, self._source_partitions, topic, p, record)
                        found += [one] if one is not None else []
            places.append(f"{topic}-{partition_of(key, self._output.counts[topic])}")
        if not self._all_partitions and any(count > 1 for count in self._output.counts.values()):
            self.notes.append(_OWN_PARTITIONS.format(", ".join(places)))
        return found

    async def marks(self, partition: int) -> Marks:
        topic = self._settings.outcome_topics[Status.EXPIRED.value]
        if not topic:
            return Marks((), False)
        found: list[Published] = []
        async for p, records in self._output.read(topic, range, self._source_partitions):
            for record in records:
                one = of_source(self._settings.source.topic, partition + 1, topic, p, record)
                if isinstance(one, Published) and one.source_partition == partition and mark_of(one):
                    found.append(one)
        return Marks(tuple(found), not self._output.lacks(topic))

    async def settings_named(self, partition: int, begin: int, end: int) -> tuple[Published, ...]:
        found, settings = SettingsNamed(partition, begin, end), self._settings
        outcomes = {topic for topic in settings.outcome_topics.values() if topic}
        for topic in sorted({*outcomes, settings.output.dead_letter}):
            is_dead = topic == settings.output.dead_letter
            async for p, records in self._output.read(topic, range, self._source_partitions):
                for record in records:
                    found.take(of_source(settings.source.topic, partition + 1, topic, p, record, dead_letters=is_dead))
        return found.records()

    def unread(self, partition: int) -> Unread:
        return self._output.unread(partition)

    async def bounds(self, partition: int) -> tuple[int, int]:
        topic = self._settings.source.topic
        async with self._reader(topic) as reader:
            if partition >= (count := reader.partitions_of_topic()):  # the library would ask for it until it times out
                raise UsageError(f"explain: --partition: topic {topic} has {count} (got {partition})", hint="from 0 on")
            begins, ends = await reader.begin_offsets([partition]), await reader.stable_end_offsets([partition])
        return begins[partition], ends[partition]

    async def timestamp_of(self, partition: int, offset: int) -> int | None:
        async with self._reader(self._settings.source.topic) as reader:
            async for _, records in reader.read_to({partition: offset}, {partition: offset + 1}, _WAIT_S):
                return records[0].timestamp
        return None

    async def offset_at(self, partition: int, milliseconds: int) -> int | None:
        async with self._reader(self._settings.source.topic) as reader:
            return (await reader.offsets_at([partition], milliseconds))[partition]

    def task(self, partition: int, begin: int, end: int, *, complete: bool) -> Task:
        settings = self._settings
        return Task(
            topic=settings.source.topic,
            partition=partition,
            begin=begin,
            end=end,
            complete=complete,
            rules=settings.rules(),
            outcome_topics=settings.outcome_topics,
            dead_letter=settings.output.dead_letter,
            output_partitions=self._output.counts,
            work="",
            connection=settings.kafka.connection(),
            no_progress_s=_WAIT_S,
            accepted=self._others.accepted,
            earlier_rules=self._others.earlier_rules,
        )
