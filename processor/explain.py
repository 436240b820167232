"""The command `explain`: one step's life, from the offsets that its published records name.

Outcome topics are keyed by step id, so only one partition of each is searched. Then the source is read between the
first and the last offset that the headers name, and folded. Where that does not give what was published, it is folded
again from far enough before that no ended run or step from before can have had a say; only then is it called
different.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import msgspec

from processor.archives import Gap
from processor.config import Settings
from processor.core import evidence
from processor.core.audit import (
    CLOCK_SKEW_S,
    Difference,
    Finding,
    Kind,
    PartitionAudit,
    Published,
    Verdict,
    caused_at,
    read_published,
)
from processor.core.effects import Effect, Record, Transition
from processor.core.events import decode
from processor.core.shapes import RunEnd, StepDelta, StepObject, canonical
from processor.errors import UsageError
from processor.kafka.consumer import PartitionReader
from processor.kafka.records import partition_of
from processor.kafka.security import Connection
from processor.replay import Task
from processor.replay.partition import places_of, watching
from processor.replay.sources import Ledger, pieces
from processor.shelf import FiledShelf, Shelves

_CLIENT_ID: Final = "run-steps.explain"
_WAIT_S: Final = 20.0
_SHORT: Final = 60
_ENOUGH: Final = 10_000
"""Events kept of one life."""


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


class Life(msgspec.Struct, frozen=True):
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
    step_id: str
    lives: tuple[Life, ...]

    @property
    def verdict(self) -> Verdict:
        met = {life.verdict for life in self.lives}
        if met <= {Verdict.EQUAL.value} and met:
            return Verdict.EQUAL
        return Verdict.DIFFERENT if Verdict.DIFFERENT.value in met else Verdict.UNVERIFIABLE


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
    return asyncio.run(_Search(step_id, settings, connection).run(partition, offset))


class _Search:
    def __init__(self, step_id: str, settings: Settings, connection: Callable[[], Connection]) -> None:
        self._step_id, self._settings, self._connect = step_id, settings, connection
        self._counts: dict[str, int] = {}

    async def run(self, partition: int | None, offset: int | None) -> Explained:
        found = await self._published()
        lives: dict[tuple[int, int], list[Published]] = {}
        for published in found:
            first = _number(published, evidence.FIRST_OFFSET)
            if first is not None and (partition is None or published.source_partition == partition):
                lives.setdefault((published.source_partition, first), []).append(published)
        if not lives:
            if partition is None or offset is None:
                raise UsageError(
                    f"explain: {self._step_id}: nothing was published of it",
                    hint="if it is open, say where it begins: --partition and --offset (see /steps of its worker)",
                )
            return Explained(self._step_id, (await self._open_life(partition, offset),))
        told = [await self._life(p, first, issued) for (p, first), issued in sorted(lives.items(), key=lambda i: i[0])]
        return Explained(self._step_id, tuple(told))

    async def _published(self) -> list[Published]:
        """What the outcome topics hold of the step, from the one partition of each that its key belongs to."""
        found = []
        for topic in sorted({topic for topic in self._settings.outcome_topics.values() if topic}):
            async with PartitionReader(self._connect(), topic=topic, client_id=_CLIENT_ID) as reader:
                self._counts[topic] = reader.partitions_of_topic()
                own = partition_of(self._step_id.encode(), self._counts[topic])
                begins, ends = await reader.begin_offsets([own]), await reader.stable_end_offsets([own])
                async for p, records in reader.read_to(begins, ends, _WAIT_S):
                    for record in records:
                        if record.key == self._step_id.encode() and self._is_ours(record):
                            published = read_published(topic, p, record, dead_letters=False)
                            if isinstance(published, Published):
                                found.append(published)
        return found

    def _is_ours(self, record: Record) -> bool:
        return dict(record.headers).get(evidence.SOURCE_TOPIC) == self._settings.source.topic.encode()

    async def _life(self, partition: int, first: int, issued: list[Published]) -> Life:
        last = max(caused_at(published) or first for published in issued)
        async with PartitionReader(self._connect(), topic=self._settings.source.topic, client_id=_CLIENT_ID) as reader:
            (log_begin,) = (await reader.begin_offsets([partition])).values()
            life = await self._told(partition, first, last + 1, issued, complete=True)
            if log_begin > first:
                note = f"The log begins at offset {log_begin}: what was before is gone."
                return msgspec.structs.replace(life, notes=(note,), verdict=Verdict.UNVERIFIABLE.value)
            if life.verdict == Verdict.EQUAL.value or first == 0:
                return life
            begin = await self._far_enough_before(reader, partition, first, log_begin)
        return await self._told(partition, begin, last + 1, issued, complete=begin == 0)

    async def _far_enough_before(self, reader: PartitionReader, partition: int, first: int, log_begin: int) -> int:
        """An offset from which on nothing that is not read can have a say in the step."""
        rules = self._settings.rules()
        async for _, records in reader.read_to({partition: first}, {partition: first + 1}, _WAIT_S):
            moment = records[0].timestamp - 2 * (rules.ended_retention_s + CLOCK_SKEW_S) * 1000
            found = (await reader.offsets_at([partition], max(0, moment)))[partition]
            return max(log_begin, min(first, first if found is None else found))
        return log_begin

    async def _open_life(self, partition: int, offset: int) -> Life:
        async with PartitionReader(self._connect(), topic=self._settings.source.topic, client_id=_CLIENT_ID) as reader:
            ends = await reader.stable_end_offsets([partition])
        return await self._told(partition, offset, max(offset, ends[partition]), [], complete=True)

    async def _told(self, partition: int, begin: int, end: int, issued: list[Published], *, complete: bool) -> Life:
        settings = self._settings
        task = Task(
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
        with TemporaryDirectory(prefix="run-steps-explain-") as folder:
            with Shelves(Path(folder), task.topic, partition + 1, frozenset({partition})) as shelves:
                for published in issued:
                    shelves.add(published)
            with FiledShelf(Path(folder), partition) as shelf:
                return await _Telling(self._step_id, task, shelf, issued).walk()


class _Telling:
    """Folds a range and notes what has to do with one step."""

    def __init__(self, step_id: str, task: Task, shelf: FiledShelf, issued: list[Published]) -> None:
        self._step_id, self._task, self._issued = step_id, task, issued
        self._transitions: list[Transition] = []
        self._events: list[Happened] = []
        self._findings: list[Finding] = []
        self._implied: dict[str, str] = {}
        self._run_id: str | None = None
        self._notes: list[str] = []
        self._last: dict[str, Any] = {}
        places = places_of(task)
        self._audit = PartitionAudit(
            watching(task, self._changed),
            shelf,
            places.whole,
            begin=task.begin,
            end=task.end,
            complete=task.complete,
            shortened=places.shortened,
        )

    def _changed(self, transition: Transition) -> None:
        if transition.step_id == self._step_id:
            self._transitions.append(transition)

    async def walk(self) -> Life:
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
        return self._life(holes)

    def _take(self, record: Record) -> None:
        names = list(self._names(record))
        before = self._snapshot() if names else self._last
        self._note_findings(self._audit.apply([record]), record)
        if not names and not self._transitions:
            return
        self._tell(record.offset, record.timestamp, ", ".join(dict.fromkeys(names)) or "(time passes)", before)

    def _tell(self, offset: int, timestamp: int, event: str, before: dict[str, Any]) -> None:
        after = self._snapshot() or before
        first, last = (self._transitions[0], self._transitions[-1]) if self._transitions else (None, None)
        refused = next((t.refused for t in self._transitions if t.refused), None)
        moved = first is not None and last is not None and first.before != last.after
        self._transitions.clear()
        if len(self._events) < _ENOUGH:
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
            if finding.kind is Kind.STEP and finding.identity[0] == self._step_id:
                self._findings.append(finding)
                status = getattr(effect, "status", None)
                if status is not None:
                    self._implied[finding.identity[1]] = status.value
        if record is None and self._transitions:
            at = self._transitions[0]
            self._tell(at.offset, at.timestamp, "(clock mark)", self._last)

    def _snapshot(self) -> dict[str, Any]:
        entry = self._audit.state.steps.get(self._step_id)
        if entry is None or entry.refused:
            return {}
        step = entry.recall()
        self._run_id = step.run_id
        found: dict[str, Any] = msgspec.json.decode(canonical(step.snapshot(self._task.rules.object_type)))
        return found

    def _life(self, notes: list[str]) -> Life:
        places = {(p.topic, p.partition, p.offset): p for p in self._issued}
        issued = []
        for finding in self._findings:
            published = places.get(finding.at) if finding.at is not None else None
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
        if not self._events:
            notes.append("No record of this range names the step.")
        elif not met:
            notes.append("The step is open: nothing had to be published yet.")
        return Life(
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
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= _SHORT else f"{text[:_SHORT]}... ({len(text)} characters)"


def _number(published: Published, name: str) -> int | None:
    text = dict(published.headers).get(name)
    return int(text) if text is not None and text.isdigit() and len(text) < 19 else None
