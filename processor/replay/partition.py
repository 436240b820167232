"""One task: read a partition's range, fold it, compare, spill. Uses nothing but the task."""

from __future__ import annotations

import gc
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from processor.archives import Gap, GapKind, Recorder
from processor.core import evidence
from processor.core.audit import PartitionAudit
from processor.core.effects import DeadLetter, Effect, Publish, Record, Status, Transition
from processor.core.links import Links
from processor.core.verdicts import Finding, Kind, Verdict
from processor.core.watch import Belongs, WatchedState
from processor.outputs import Outputs, Places
from processor.replay import Only, PartitionResult, Task, waited_for
from processor.replay.shelving import Telling
from processor.replay.sources import DATA, Ledger, archived, pieces
from processor.report.tables import Tables
from processor.shelf import EmptyShelf, FiledShelf

_MINUTE_MS: Final = 60_000
_CELLS: Final = 1 << 14
"""Of the timeline that are held before they are written; a minute may then have several rows."""


class Ids(msgspec.Struct, frozen=True):
    """What narrowing looks at in a snapshot."""

    run_id: str | None = None
    thread_id: str | None = None


_ids: Final = msgspec.json.Decoder(Ids, strict=False).decode


def places_of(task: Task) -> Places:
    return Places(Outputs(task.outcome_topics, task.dead_letter, ""), task.partition, task.output_partitions)


def watching(task: Task, told: Callable[[Transition], None]) -> Callable[[int, int], WatchedState]:
    """From (offset, stream time) to the task's state there, live at once, whose transitions are told."""

    def state(offset: int, stream_time: int) -> WatchedState:
        return WatchedState(
            task.topic,
            task.partition,
            task.rules,
            next_offset=offset,
            live_from=offset,
            stream_time=stream_time,
            told=told,
            belongs=_belonging(task.only) if task.only else None,
        )

    return state


def _belonging(only: Only) -> Belongs:
    """Whether a step is one of those that are reported; None while a run or thread that would tell is not known."""

    def belongs(step_id: str, fields: Mapping[str, Any]) -> bool | None:
        run_id, thread_id = fields.get("run_id"), fields.get("thread_id")
        if step_id in only.steps or run_id in only.runs or thread_id in only.threads:
            return True
        return None if (only.runs and not run_id) or (only.threads and not thread_id) else False

    return belongs


class _Run:
    """The state of one task under way."""

    def __init__(self, task: Task, exits: ExitStack) -> None:
        self._task = task
        work = Path(task.work)
        self._tables = Tables(work / "tables", task.partition, task.begin)
        exits.callback(self._tables_abandoned)
        self._closed = False
        self._shelf = (
            exits.enter_context(FiledShelf(work, task.partition, task.shelves)) if task.verify else EmptyShelf()
        )
        self._handed_out = self._shelf.last if isinstance(self._shelf, FiledShelf) else {}
        places = places_of(task)
        kept_from = (
            self._shelf.kept_from(dict.fromkeys(task.shortened, 0)) if isinstance(self._shelf, FiledShelf) else {}
        )
        self._audit = PartitionAudit(
            watching(task, self._tables.changed),
            self._shelf,
            places.whole,
            begin=task.begin,
            end=task.end,
            complete=task.complete,
            log_end=task.log_end,
            shortened=places.shortened,
            kept_from=kept_from,
            dead_letter=task.dead_letter,
            expired=task.outcome_topics.get(Status.EXPIRED.value, ""),
        )
        self._recorder: Recorder | None = None
        if task.record:
            self._recorder = exits.enter_context(Recorder(Path(task.record), files=task.record_files))
        self._recorded = (
            self._recorder.next_offset(task.topic, task.partition) or 0 if self._recorder is not None else 0
        )
        self._gaps: deque[Gap] = deque()
        self._ledger = Ledger(task.begin, task.end, self._covered)
        self._links = Links(task.begin, task.end)
        self._counts: Counter[tuple[Kind, Verdict]] = Counter()
        self._findings: Counter[Verdict] = Counter()
        self._minutes: dict[tuple[int, str], list[int]] = {}
        self._first_ms = self._last_ms = -1
        self._tell = Telling(work / f"progress-{task.partition:05d}")

    async def walk(self) -> None:
        async for piece in pieces(self._task, self._ledger):
            if isinstance(piece, Gap):
                for effect, finding in self._audit.lost(piece.first, piece.last):
                    self._judged(effect, finding)
                continue
            self._take(piece)
        self._record_gaps(self._task.end)
        for link in self._links.finish():
            self._tables.link(link)
        for effect, finding in self._audit.finish():
            self._judged(effect, finding)
        self._judge_strays()
        self._tell(self._task.end, last=True)

    def _judge_strays(self) -> None:
        """What stands on the output topics and names no place of the source: no output of any honest worker."""
        if not isinstance(self._shelf, FiledShelf) or self._task.only:
            return
        for kind, stray in self._shelf.strays():
            at = (stray.topic, stray.partition, stray.offset)
            finding = Finding(Verdict.EXTRA, kind, -1, ("", ""), -1, -1, at, stray.why)
            self._counts[kind, finding.verdict] += 1
            self._tables.finding(finding)

    def _take(self, records: list[Record]) -> None:
        for link in self._links.take(records):
            self._tables.link(link)
        low, high = self._links.times
        self._first_ms = low if self._first_ms < 0 else min(low, self._first_ms)
        self._last_ms = max(high, self._last_ms)
        for effect, finding in self._audit.apply(records):
            self._judged(effect, finding)
        if self._recorder is not None:
            self._record(records)
        state = self._audit.state
        assert isinstance(state, WatchedState)
        state.counts.clear()
        state.published.clear()
        self._tell(records[-1].offset + 1)

    def _record(self, records: list[Record]) -> None:
        for record in records:
            if record.offset >= self._recorded:
                self._record_gaps(record.offset)
                assert self._recorder is not None
                self._recorder.write(archived(record, self._task.topic, self._task.partition))

    def _record_gaps(self, below: int) -> None:
        while self._gaps and self._gaps[0].first < below:
            gap = self._gaps.popleft()
            if self._recorder is not None and gap.last >= self._recorded:
                self._recorder.write(msgspec.structs.replace(gap, first=max(gap.first, self._recorded)))

    # --- what the tables get ----------------------------------------------------------------------------------

    def _covered(self, first: int, last: int, kind: str) -> None:
        self._tables.coverage(first, last, str(kind))
        if self._recorder is not None and kind != DATA:
            self._gaps.append(Gap(self._task.topic, self._task.partition, first, last, GapKind(kind)))

    def _judged(self, effect: Effect | None, finding: Finding) -> None:
        if not self._task.verify:
            self._derived(effect, finding)
            return
        self._findings[finding.verdict] += 1
        value = effect.value if effect is not None else None
        if effect is None and finding.at is not None and self._handed_out:
            value = self._handed_out[finding.at].value
        if self._task.only and not _is_wanted(self._task.only, finding, value):
            return
        self._counts[finding.kind, finding.verdict] += 1
        self._tables.finding(finding)
        self._derived(effect, finding)

    def _derived(self, effect: Effect | None, finding: Finding) -> None:
        if effect is None or finding.verdict is Verdict.DUPLICATE:
            return
        status = ""
        if isinstance(effect, Publish):
            self._step(effect, finding)
            status = effect.status
        if len(self._minutes) >= _CELLS:
            self._write_minutes()
        minute = effect_ms(effect) // _MINUTE_MS * _MINUTE_MS
        cell = self._minutes.get((minute, status))
        if cell is None:
            cell = self._minutes[minute, status] = [0, 0]
        cell[0 if status else 1] += 1

    def _write_minutes(self) -> None:
        for (minute, status), (count, rejected) in sorted(self._minutes.items()):
            self._tables.timeline(minute, status, count, rejected)
        self._minutes.clear()

    def _step(self, effect: Publish, finding: Finding) -> None:
        headers = dict(effect.headers)
        state = self._audit.state
        assert isinstance(state, WatchedState)
        opened_ms, run_id, thread_id = state.published.get((effect.step_id, effect.revision), (None, "", ""))
        if not (run_id and thread_id and type(run_id) is type(thread_id) is str):  # told as the snapshot has them
            ids = _ids(effect.value)
            run_id, thread_id = ids.run_id, ids.thread_id
        self._tables.step(
            step_id=effect.step_id,
            run_id=run_id,
            thread_id=thread_id,
            first_offset=int(headers[evidence.FIRST_OFFSET]),
            last_offset=int(headers[evidence.LAST_OFFSET]),
            events=int(headers[evidence.EVENTS]),
            revision=effect.revision,
            status=effect.status,
            inferred=effect.inferred,
            anomalies=effect.anomalies,
            opened_ms=opened_ms,
            ended_ms=effect.timestamp,
            published=finding.at,
            published_ms=self._published_ms(effect, finding),
            verdict=finding.verdict if self._task.verify else None,
            digest=(headers[evidence.DIGEST] or b"").decode(),
        )

    def _published_ms(self, effect: Publish, finding: Finding) -> int | None:
        if finding.verdict is Verdict.EQUAL or finding.verdict is Verdict.OUT_OF_ORDER:
            return effect.timestamp  # equal in every byte
        published = None if finding.at is None else self._handed_out.get(finding.at)
        return published.timestamp if published is not None else None

    def _open_steps(self) -> int:
        state = self._audit.state
        assert isinstance(state, WatchedState)
        number = 0
        still_open = [entry for entry in state.steps.values() if entry.status is Status.IN_PROGRESS]
        for entry in sorted(still_open, key=lambda e: (e.recall().first_offset, e.key)):
            step = entry.recall()
            number += 1
            state.decide(step)
            run_id, thread_id = step.fields.get("run_id"), step.fields.get("thread_id")
            only = self._task.only
            if only and not (entry.key in only.steps or run_id in only.runs or thread_id in only.threads):
                continue
            self._tables.step(
                step_id=entry.key,
                run_id=run_id if isinstance(run_id, str) else None,
                thread_id=thread_id if isinstance(thread_id, str) else None,
                first_offset=step.first_offset,
                last_offset=step.last_offset,
                events=step.events,
                revision=None,
                status=Status.IN_PROGRESS.value,
                anomalies=tuple(sorted(step.anomalies)),
                opened_ms=state.opened_ms.get(entry.key),
            )
        return number

    def result(self) -> PartitionResult:
        task, audit = self._task, self._audit
        open_steps = self._open_steps()
        self._write_minutes()
        files = self._tables.close()
        self._closed = True
        published = self._shelf.count if isinstance(self._shelf, FiledShelf) else 0
        return PartitionResult(
            partition=task.partition,
            begin=task.begin,
            end=task.end,
            complete=task.complete,
            records=audit.records,
            chain=self._links.chain,
            counts={
                kind.value: {v.value: n for (k, v), n in sorted(self._counts.items()) if k is kind} for kind in Kind
            },
            coverage=dict(sorted(self._ledger.offsets.items())),
            published=published,
            out_of_range=audit.out_of_range,
            first_ms=self._first_ms,
            last_ms=self._last_ms,
            files=tuple(f"tables/{name}" for name in sorted(files)),
            open_steps=open_steps,
            stream_time=audit.state.stream_time,
            trouble=tuple(self._accounts(published)),
        )

    def _accounts(self, published: int) -> list[str]:
        """Do the counts add up? What does not, in words."""
        task, audit, offsets, found = self._task, self._audit, self._ledger.offsets, self._findings
        wrong = []

        def must(what: str, left: int, right: int) -> None:
            if left != right:
                wrong.append(f"partition {task.partition}: {what}: {left} is not {right}")

        must("offsets of the range and offsets covered", max(0, task.end - task.begin), sum(offsets.values()))
        must("offsets with data and records folded", offsets["data"], audit.records)
        if task.verify:
            unmatched = found[Verdict.MISSING] + audit.unmatched
            implied = found.total() - found[Verdict.EXTRA] - found[Verdict.DUPLICATE] - audit.left_unverifiable
            must("effects implied and effects judged", audit.implied.total(), implied)
            must(
                "records published, and those judged or out of range",
                published,
                found.total() - unmatched + audit.out_of_range,
            )
        return wrong

    def _tables_abandoned(self) -> None:
        if not self._closed:
            self._tables.abandon()


def _is_wanted(only: Only, finding: Finding, value: bytes | None) -> bool:
    if finding.kind is Kind.STEP and finding.identity[0] in only.steps:
        return True
    if not (only.runs or only.threads) or finding.kind is not Kind.STEP or value is None:
        return False
    try:
        ids = _ids(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):  # anybody may have written it
        return False
    return ids.run_id in only.runs or ids.thread_id in only.threads


def effect_ms(effect: Effect) -> int:
    assert isinstance(effect, Publish | DeadLetter)
    return max(0, effect.timestamp)


@contextmanager
def _collecting_seldom() -> Iterator[None]:
    """As in the worker: what the fold remembers is no garbage, and looking it through each time is dear.

    Nothing is collected first, as there: a task is one of many, and what the libraries hold is looked through for each.
    """
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def run(task: Task) -> PartitionResult:
    """See `processor.replay.run_task`."""
    with _collecting_seldom(), ExitStack() as exits:
        under_way = _Run(task, exits)
        waited_for(under_way.walk())
        return under_way.result()
