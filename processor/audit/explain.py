"""The command `explain`: one step's life, from the offsets that its published records name.

Outcome topics are keyed by step id, so only one partition of each is searched. Then the source is read between the
first and the last offset that the headers name, and folded. Where that does not give what was published, it is folded
again from far enough before that no ended run or step from before can have had a say, and with the clock marks that
came with other steps; only then is it called different.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Final, Protocol

import msgspec

from processor.archives import Gap
from processor.audit.judge.published_headers import caused_at, mark_of
from processor.audit.judge.settled import settled_after_ms
from processor.audit.judge.verdicts import (
    Difference,
    Finding,
    FindingKind,
    Published,
    PublishedIndex,
    Unreadable,
    Verdict,
)
from processor.audit.memory_index import MemoryIndex
from processor.audit.published_index import of_source
from processor.audit.replay.record_sources import Ledger, pieces
from processor.audit.replay.task import Task
from processor.audit.replay.task_judge import audit_of, observed_state
from processor.config.settings import Settings
from processor.core.effects import Effect, Record, Status, Transition
from processor.core.events import decode
from processor.core.headers import FIRST_OFFSET
from processor.core.partition import PartitionState
from processor.core.wire_types import RunEnd, StepDelta, StepObject, canonical
from processor.errors import UsageError
from processor.kafka.client_config import Connection
from processor.kafka.partition_reader import PartitionReader
from processor.kafka.records import partition_of

_CLIENT_ID: Final = "run-steps.explain"
_WAIT_S: Final = 20.0
_SHORT: Final = 60
_MARKED: Final = (
    "It ended under the clock mark at offset {}. The log bears that out; that no other step contradicts the mark, "
    "`replay` can tell."
)
_ENOUGH: Final = 10_000
"""Events shown of one life; all are read."""
_NOT_SHOWN: Final = "{} more events of the step, at offsets {} to {}, were read and folded, and are not shown."


class Change(msgspec.Struct, frozen=True):
    """One field of the snapshot: its path, and in words what became of it."""

    path: str
    what: str


class Happened(msgspec.Struct, frozen=True):
    """A record that had to do with the step. `timestamp` is the record's, in milliseconds."""

    offset: int
    timestamp: int
    event: str
    before: str | None = None
    after: str | None = None
    refused: str | None = None
    changes: tuple[Change, ...] = ()


class Issued(msgspec.Struct, frozen=True):
    """A revision: where it stands, and what the log says of it. Without a place it should be there and is not."""

    revision: int
    status: str
    place: tuple[str, int, int] | None
    timestamp: int | None
    verdict: str
    why: str = ""
    differences: tuple[Difference, ...] = ()


class StepIncarnation(msgspec.Struct, frozen=True):
    """One life of a step: an id that is forgotten and comes again lives twice.

    `read` is [begin, end) of the offsets that were read for the verdict.
    """

    step_id: str
    run_id: str | None
    thread_id: str | None
    status: str
    topic: str
    partition: int
    first_offset: int
    last_offset: int
    read: tuple[int, int]
    events: tuple[Happened, ...]
    issued: tuple[Issued, ...]
    verdict: str
    notes: tuple[str, ...] = ()


class Explained(msgspec.Struct, frozen=True):
    """`strays` stand under the step's key and name no place of the source that there is: no honest output."""

    step_id: str
    lives: tuple[StepIncarnation, ...]
    strays: tuple[Unreadable, ...] = ()

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


class Logs(Protocol):
    """Where a step is looked up: the topics, or whatever holds the same."""

    async def published(self, step_id: str) -> list[Published | Unreadable]:
        """What stands under the key of a step, of this source; places of it that there are not are `Unreadable`."""
        ...

    async def marks(self, partition: int) -> Marks:
        """All clock marks of a partition of the source. Reads a whole outcome topic."""
        ...

    async def bounds(self, partition: int) -> tuple[int, int]:
        """[begin, end) of a partition of the source."""
        ...

    async def timestamp_of(self, partition: int, offset: int) -> int | None:
        """Of the first record at or behind an offset, in milliseconds; None where there is none."""
        ...

    async def offset_at(self, partition: int, milliseconds: int) -> int | None:
        """The first record as young as that or younger."""
        ...

    def task(self, partition: int, begin: int, end: int, *, complete: bool) -> Task:
        """How the source is read."""
        ...


def explain(
    step_id: str,
    settings: Settings,
    connection: Callable[[], Connection],
    *,
    partition: int | None = None,
    offset: int | None = None,
) -> Explained:
    """Find and retell.

    Args:
        partition, offset: of the source, where the step begins; for a step of which nothing is published yet.

    Raises:
        UsageError: nothing was published and no place was given.
    """
    return asyncio.run(explain_from(_Topics(settings, connection), step_id, partition, offset))


async def explain_from(logs: Logs, step_id: str, partition: int | None = None, offset: int | None = None) -> Explained:
    """As `explain`."""
    found = await logs.published(step_id)
    strays = tuple(one for one in found if isinstance(one, Unreadable))
    lives: dict[tuple[int, int], list[Published]] = {}
    for one in found:
        if isinstance(one, Published) and (partition is None or one.source_partition == partition):
            first = _number(one, FIRST_OFFSET)
            if first is None or caused_at(one) is None:
                why = "its offsets cannot be read"
                strays += (Unreadable(one.topic, one.partition, one.offset, why),)
            else:
                lives.setdefault((one.source_partition, first), []).append(one)
    if lives or strays:
        told = [await _life(logs, step_id, p, first, lives[p, first]) for p, first in sorted(lives)]
        return Explained(step_id, tuple(told), strays)
    if partition is None or offset is None:
        raise UsageError(
            f"explain: {step_id}: nothing was published of it",
            hint="if it is open, say where it begins: --partition and --offset (see /steps of its worker)",
        )
    _, end = await logs.bounds(partition)
    return Explained(step_id, (await _told(logs, step_id, partition, (offset, max(offset, end)), [], complete=True),))


async def _life(logs: Logs, step_id: str, partition: int, first: int, issued: list[Published]) -> StepIncarnation:
    log_begin, log_end = await logs.bounds(partition)
    end = min(log_end, max(caused_at(one) or first for one in issued) + 1)
    first = min(first, end)
    life = await _told(logs, step_id, partition, (first, end), issued, complete=True, log_end=log_end)
    if log_begin > first:
        return _open(life, f"The log begins at offset {log_begin}: what was before is gone.")
    if life.verdict == Verdict.EQUAL.value:
        return _marked(life, issued)
    # What came before may have had a say: an ended run, a clock that was ahead, marks that came with other steps.
    begin = await _far_enough_before(logs, partition, first, log_begin)
    marks = await logs.marks(partition)
    complete = begin == 0
    span = (begin, end)
    beside = marks.published
    life = await _told(logs, step_id, partition, span, issued, complete=complete, log_end=log_end, beside=beside)
    if life.verdict == Verdict.DIFFERENT.value and not marks.complete:
        return _open(life, "A clock mark that came with another step may be gone from its topic.")
    return _marked(life, issued) if life.verdict == Verdict.EQUAL.value else life


def _marked(life: StepIncarnation, issued: list[Published]) -> StepIncarnation:
    """A clock mark was due where it is said to be, and gives these records; whether others contradict it is open."""
    mark = next((mark for one in issued if (mark := mark_of(one)) is not None), None)
    return life if mark is None else _open(life, _MARKED.format(mark[0]))


def _open(life: StepIncarnation, note: str) -> StepIncarnation:
    return msgspec.structs.replace(life, notes=(*life.notes, note), verdict=Verdict.UNVERIFIABLE.value)


async def _far_enough_before(logs: Logs, partition: int, first: int, log_begin: int) -> int:
    """An offset from which on nothing that is not read can have a say in the step."""
    began_ms = await logs.timestamp_of(partition, first)
    if began_ms is None:
        return log_begin
    rules = logs.task(partition, first, first, complete=False).rules
    before_ms = began_ms - settled_after_ms(rules, retentions=2, readings=2)
    found = await logs.offset_at(partition, max(0, before_ms))
    return max(log_begin, min(first, first if found is None else found))


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
    """Args: `beside` are published records that are no part of this life and have a say in it by their clock marks."""
    begin, end = span
    task = msgspec.structs.replace(logs.task(partition, begin, end, complete=complete), log_end=log_end)
    places = {(one.topic, one.partition, one.offset) for one in issued}
    others = {place: one for one in beside if (place := (one.topic, one.partition, one.offset)) not in places}
    told = [mark for one in others.values() if (mark := mark_of(one)) is not None]
    earlier_ms = max((ms for position, ms in told if position <= begin), default=-1)
    index = MemoryIndex((*issued, *others.values()))
    return await StepTimeline(step_id, task, index, issued, earlier_ms).walk()


class _Topics:
    """A step is looked up on the topics; satisfies `Logs`."""

    def __init__(self, settings: Settings, connection: Callable[[], Connection]) -> None:
        self._settings, self._connect = settings, connection
        self._counts: dict[str, int] = {}

    def _reader(self, topic: str) -> PartitionReader:
        return PartitionReader(self._connect(), topic=topic, client_id=_CLIENT_ID)

    async def published(self, step_id: str) -> list[Published | Unreadable]:
        """From the one partition of each outcome topic that the key belongs to."""
        async with self._reader(self._settings.source.topic) as reader:
            partitions = reader.partitions_of_topic()
        key = step_id.encode()
        found: list[Published | Unreadable] = []
        for topic in sorted({topic for topic in self._settings.outcome_topics.values() if topic}):
            async with self._reader(topic) as reader:
                self._counts[topic] = reader.partitions_of_topic()
                own = partition_of(key, self._counts[topic])
                begins, ends = await reader.begin_offsets([own]), await reader.stable_end_offsets([own])
                async for p, records in reader.read_to(begins, ends, _WAIT_S):
                    for record in records:
                        if record.key == key:
                            one = of_source(self._settings.source.topic, partitions, topic, p, record)
                            found += [one] if one is not None else []
        return found

    async def marks(self, partition: int) -> Marks:
        topic = self._settings.outcome_topics[Status.EXPIRED.value]
        if not topic:
            return Marks((), False)
        found: list[Published] = []
        async with self._reader(topic) as reader:
            partitions = list(range(reader.partitions_of_topic()))
            begins, ends = await reader.begin_offsets(partitions), await reader.stable_end_offsets(partitions)
            async for p, records in reader.read_to(begins, ends, _WAIT_S):
                for record in records:
                    one = of_source(self._settings.source.topic, partition + 1, topic, p, record)
                    if isinstance(one, Published) and one.source_partition == partition and mark_of(one):
                        found.append(one)
        return Marks(tuple(found), not any(begins.values()))

    async def bounds(self, partition: int) -> tuple[int, int]:
        async with self._reader(self._settings.source.topic) as reader:
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
            output_partitions=self._counts,
            work="",
            connection=settings.kafka.connection(),
            no_progress_s=_WAIT_S,
        )


class StepTimeline:
    """Folds a range and notes what has to do with one step."""

    def __init__(
        self, step_id: str, task: Task, index: PublishedIndex, issued: list[Published], earlier_ms: int
    ) -> None:
        """Args: `earlier_ms` is the latest clock mark from before the range, -1 where there is none."""
        self._step_id, self._task, self._issued = step_id, task, issued
        self._places = {(p.topic, p.partition, p.offset): p for p in issued}
        self._first = next((_number(p, FIRST_OFFSET) for p in issued), task.begin)
        self._transitions: list[Transition] = []
        self._events: list[Happened] = []
        self._findings: list[Finding] = []
        self._implied: dict[str, str] = {}
        self._run_id: str | None = None
        self._last: dict[str, Any] = {}
        self._unshown: list[int] = [0, -1, -1]
        """How many events of the step are not shown, the first offset of them, the last."""
        self._audit = audit_of(task, index, partial(self._state_at, earlier_ms), yield_equal=True)

    def _state_at(self, earlier_ms: int, offset: int, stream_time: int) -> PartitionState:
        return observed_state(self._task, offset, max(stream_time, earlier_ms), self._note_transition)

    def _note_transition(self, transition: Transition) -> None:
        if transition.step_id == self._step_id:
            self._transitions.append(transition)

    async def walk(self) -> StepIncarnation:
        holes: list[str] = []
        ledger = Ledger(self._task.begin, self._task.end, lambda first, last, kind: None)
        async for piece in pieces(self._task, ledger):
            if isinstance(piece, Gap):
                self._note_findings(self._audit.lost(piece.first, piece.last), None)
                holes.append(f"Offsets {piece.first} to {piece.last} are {piece.kind.value}.")
                continue
            for record in piece:
                self._take(record)
        self._note_findings(self._audit.finish(), None)
        if self._unshown[0]:
            self._last = self._snapshot() or self._last
        return self._life(holes)

    def _take(self, record: Record) -> None:
        names = list(self._names(record))
        before = self._before() if names else self._last
        self._note_findings(self._audit.apply([record]), record)
        if not names and not self._transitions:
            return
        self._tell(record.offset, record.timestamp, ", ".join(dict.fromkeys(names)) or "(time passes)", before)

    def _tell(self, offset: int, timestamp: int, event: str, before: dict[str, Any]) -> None:
        is_shown = len(self._events) < _ENOUGH
        first, last = (self._transitions[0], self._transitions[-1]) if self._transitions else (None, None)
        refused = next((t.refused for t in self._transitions if t.refused), None)
        moved = first is not None and last is not None and first.before != last.after
        self._transitions.clear()
        # A snapshot is as large as the step: one for each event that is shown, and where a status is reached.
        after = (self._snapshot() if is_shown or moved else {}) or before
        if is_shown and offset >= (self._first or 0):
            self._events.append(
                Happened(
                    offset,
                    timestamp,
                    event,
                    first.before if moved and first else None,
                    last.after if moved and last else None,
                    refused,
                    tuple(_changes("", before, after)),
                )
            )
        elif not is_shown:
            number, begin, _ = self._unshown
            self._unshown = [number + 1, begin if number else offset, offset]
        self._last = after

    def _names(self, record: Record) -> Iterator[str]:
        """The events of a record that name the step, or the end of its run."""
        decoded = decode(record.value, record.headers)
        for event in getattr(decoded, "events", ()):
            if isinstance(event, StepObject) and event.step_id == self._step_id:
                yield f"step {event.kind.value}"
            elif isinstance(event, StepDelta) and event.step_id == self._step_id:
                yield "step delta"
            elif isinstance(event, RunEnd) and self._run_id is not None and event.run_id == self._run_id:
                yield f"run {event.status}"

    def _note_findings(self, judged: Iterator[tuple[Effect | None, Finding]], record: Record | None) -> None:
        for effect, finding in judged:
            if (
                finding.kind is FindingKind.STEP
                and finding.identity[0] == self._step_id
                and self._is_of_this_life(finding)
            ):
                self._findings.append(finding)
                status = getattr(effect, "status", None)
                if status is not None:
                    self._implied[finding.identity[1]] = status.value
        if record is None and self._transitions:
            at = self._transitions[0]
            self._tell(at.offset, at.timestamp, "(clock mark)", self._last)

    def _is_of_this_life(self, finding: Finding) -> bool:
        if finding.at is not None:
            return finding.at in self._places
        return not self._issued or finding.first_offset == self._first

    def _before(self) -> dict[str, Any]:
        """The snapshot as the last event left it: only events of the step change it, and all of them are told."""
        entry = self._audit.state.steps.get(self._step_id)
        return self._last if entry is not None and not entry.refused else {}

    def _snapshot(self) -> dict[str, Any]:
        entry = self._audit.state.steps.get(self._step_id)
        if entry is None or entry.refused:
            return {}
        step = entry.materialise()
        self._run_id = step.run_id
        return step.snapshot(self._task.rules.object_type)

    def _life(self, notes: list[str]) -> StepIncarnation:
        issued = []
        for finding in self._findings:
            published = self._places.get(finding.at) if finding.at is not None else None
            status = self._implied.get(finding.identity[1], "")
            issued.append(
                Issued(
                    int(finding.identity[1]),
                    status or (finding.at[0] if finding.at else ""),
                    finding.at,
                    published.timestamp if published else None,
                    finding.verdict.value,
                    finding.why,
                    finding.differences,
                )
            )
        met = {finding.verdict for finding in self._findings}
        verdict = Verdict.EQUAL
        if met - {Verdict.EQUAL, Verdict.UNVERIFIABLE}:
            verdict = Verdict.DIFFERENT
        elif Verdict.UNVERIFIABLE in met or not met:
            verdict = Verdict.UNVERIFIABLE
        firsts = [event.offset for event in self._events]
        number, begin, end = self._unshown
        if number:
            notes.append(_NOT_SHOWN.format(f"{number:,}", begin, end))
            firsts.append(end)
        if not self._events:
            notes.append("No record of this range names the step.")
        elif not met:
            notes.append("The step is open: nothing had to be published yet.")
        return StepIncarnation(
            self._step_id,
            self._last.get("run_id"),
            self._last.get("thread_id"),
            str(self._last.get("status", "")),
            self._task.topic,
            self._task.partition,
            min(firsts, default=self._task.begin),
            max(firsts, default=self._task.begin),
            (self._task.begin, self._task.end),
            tuple(self._events),
            tuple(sorted(issued, key=lambda i: (i.revision, i.place or ("", 0, 0)))),
            verdict.value,
            tuple(notes),
        )


def _changes(path: str, before: Any, after: Any) -> Iterator[Change]:
    """What of a snapshot is another now. Text that only grew is told by its growth."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted(after.keys() | before.keys()):
            yield from _changes(f"{path}.{key}" if path else key, before.get(key), after.get(key))
    elif isinstance(before, list) and isinstance(after, list):
        for at in range(max(len(before), len(after))):
            one = before[at] if at < len(before) else None
            other = after[at] if at < len(after) else None
            yield from _changes(f"{path}[{at}]", one, other)
    elif isinstance(after, dict) and before is None:
        yield from _changes(path, {}, after)
    elif isinstance(after, list) and before is None:
        yield from _changes(path, [], after)
    elif before != after or type(before) is not type(after):
        if isinstance(before, str) and isinstance(after, str) and before and after.startswith(before):
            grown = after[len(before) :]
            yield Change(path, f"+{len(grown)} characters: {_short(grown)}")
        elif before is None:
            yield Change(path, _short(after))
        else:
            yield Change(path, f"{_short(before)} -> {_short(after)}")


def _short(value: Any) -> str:
    text = canonical(value).decode()
    return text if len(text) <= _SHORT else f"{text[:_SHORT]}... ({len(text)} characters)"


def _number(published: Published, name: str) -> int | None:
    text = dict(published.headers).get(name)
    return int(text) if text is not None and text.isdigit() and len(text) < 19 else None
