"""Run one task: read a partition's range, fold it, compare, write the tables. It uses nothing but the task's data."""

from __future__ import annotations

from collections import Counter, deque
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from processor.archives import Gap, GapKind, Recorder
from processor.audit.judge.partition_audit import MakeState
from processor.audit.judge.published_headers import redriven_in
from processor.audit.judge.range_result import RangeResult
from processor.audit.judge.record_order import RecordOrder
from processor.audit.judge.step_ids import StepIds
from processor.audit.judge.verdicts import DISAGREES, NEVER, Finding, FindingKind, PublishedIndex, Verdict
from processor.audit.memory_index import MemoryIndex
from processor.audit.published_index import FileIndex
from processor.audit.replay.progress_file import ProgressFile
from processor.audit.replay.record_sources import DATA, Ledger, Records, archived, pieces
from processor.audit.replay.regime_history import RegimeHistory
from processor.audit.replay.runtime import collecting_seldom, waited_for
from processor.audit.replay.split_ids import IdWriter
from processor.audit.replay.step_filter import is_wanted
from processor.audit.replay.task import FIRST, Task, TaskResult
from processor.audit.replay.task_judge import audit_of, plain_state
from processor.core.effects import Effect, Publish

if TYPE_CHECKING:
    from processor.audit.replay.task_tables import TaskTables


_AS_IMPLIED: Final = (Verdict.EQUAL, Verdict.OUT_OF_ORDER)


class _TaskRunner:
    """One task under way: reads its range, has it judged, counts the findings, writes tables and archive."""

    def __init__(self, task: Task, exits: ExitStack, order: RecordOrder | None = None) -> None:
        self._task = task
        work = Path(task.work)
        self._index: PublishedIndex = MemoryIndex()
        if task.verify:
            self._index = exits.enter_context(FileIndex(work, task.partition, task.indexes))
        self._tables: TaskTables | None = None
        self._ids = IdWriter(work / "ids", task.partition) if task.notes_ids else None
        self._step_ids = StepIds()
        self._history = RegimeHistory()
        state_at: MakeState = partial(plain_state, task, observer=None if self._ids is None else self._step_ids)
        if task.tables:
            from processor.audit.replay.task_tables import TaskTables  # what writes tables takes long to load

            self._tables = TaskTables(task, self._index, self._history)
            exits.callback(self._tables.abandon)
            state_at = self._tables.state_at
        self._is_filtered = bool(task.only)
        self._redriven = 0
        # A filter looks at each step; a replay that does not compare has tables of what the log implies alone.
        equal_steps = self._tables if task.verify and not task.only else None
        self._audit = audit_of(
            task,
            self._index,
            state_at,
            yield_equal=task.tables or bool(task.only),
            equal_steps=equal_steps,
            order=order,
        )
        self._recorder: Recorder | None = None
        if task.record:
            self._recorder = exits.enter_context(Recorder(Path(task.record), files=task.record_files))
        self._recorded = (
            self._recorder.next_offset(task.topic, task.partition) or 0 if self._recorder is not None else 0
        )
        self._gaps: deque[Gap] = deque()
        self._ledger = Ledger(task.begin, task.end, self._covered)
        self._counts: Counter[tuple[FindingKind, Verdict]] = Counter()
        self._findings: Counter[Verdict] = Counter()
        self._disagreeing: list[Finding] = []
        self._first_wrong = NEVER
        """The cause of the first finding that disagrees."""
        self._undecided: list[Finding] = []
        self._progress = ProgressFile(work / f"progress-{task.partition:05d}")

    async def walk(self) -> None:
        async for piece in pieces(self._task, self._ledger):
            if isinstance(piece, Gap):
                for effect, finding in self._audit.lost(piece.first, piece.last):
                    self._judged(effect, finding)
                continue
            self._take(piece)
        self._record_gaps(self._task.end)
        for effect, finding in self._audit.finish():
            self._judged(effect, finding)
        if self._audit.equal_not_yielded:
            self._counts[FindingKind.STEP, Verdict.EQUAL] += self._audit.equal_not_yielded
            self._findings[Verdict.EQUAL] += self._audit.equal_not_yielded
        self._note_ids()
        self._note_open_ids()
        self._judge_strays()
        self._progress.write(self._task.end, last=True)

    def _judge_strays(self) -> None:
        """Report records on the output topics that name no location of the source: no honest worker wrote them."""
        if self._task.only:
            return
        for kind, stray in self._index.strays():
            at = (stray.topic, stray.partition, stray.offset)
            finding = Finding(Verdict.EXTRA, kind, -1, ("", ""), -1, -1, at, stray.why)
            self._found(finding)

    def _take(self, records: Records) -> None:
        if self._tables is not None:
            self._tables.read(records)
        for effect, finding in self._audit.apply(records):
            self._judged(effect, finding)
        self._redriven += redriven_in(records)
        if self._recorder is not None:
            self._record(records)
        self._note_ids()
        self._audit.state.counts.clear()
        if self._tables is not None:
            self._tables.applied()
        self._progress.write(records[-1].offset + 1)

    def _note_ids(self) -> None:
        """Note the ids of the steps that were published since the last call."""
        if self._ids is None:
            return
        found = self._step_ids.found if self._tables is None else self._tables.published_ids()
        for step_id, run_id in found:
            self._ids.note(step_id, run_id)
        self._step_ids.found.clear()

    def _note_open_ids(self) -> None:
        if self._ids is not None:
            for entry in self._audit.state.open_entries():
                self._ids.note(entry.key, entry.materialise().fields.get("run_id"))

    def _record(self, records: Records) -> None:
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

    # --- what is found ----------------------------------------------------------------------------------------

    def _covered(self, first: int, last: int, kind: str) -> None:
        if self._tables is not None:
            self._tables.tables.coverage(first, last, str(kind))
        if self._recorder is not None and kind != DATA:
            self._gaps.append(Gap(self._task.topic, self._task.partition, first, last, GapKind(kind)))

    def _judged(self, effect: Effect | None, finding: Finding) -> None:
        if not self._task.verify:
            self._derived(effect, finding)
            return
        self._findings[finding.verdict] += 1
        if finding.verdict is not Verdict.EQUAL and finding.verdict in DISAGREES:
            self._first_wrong = min(self._first_wrong, finding.cause_offset)
        if self._is_filtered and not self._is_wanted(effect, finding):
            return
        self._found(finding)
        self._derived(effect, finding)
        if self._tables is not None and finding.kind is FindingKind.STEP and finding.at is not None:
            self._note_regime(effect, finding)

    def _is_wanted(self, effect: Effect | None, finding: Finding) -> bool:
        value = effect.value if effect is not None else None
        if effect is None and finding.at is not None:
            value = self._index.last[finding.at].value
        return is_wanted(self._task.only, finding, value)

    def _note_regime(self, effect: Effect | None, finding: Finding) -> None:
        if finding.verdict in _AS_IMPLIED and isinstance(effect, Publish):
            self._history.note(effect.headers, finding.cause_offset)  # equal in every byte
        elif finding.at is not None and (published := self._index.last.get(finding.at)) is not None:
            self._history.note(published.headers, finding.cause_offset)

    def _found(self, finding: Finding) -> None:
        self._counts[finding.kind, finding.verdict] += 1
        if self._tables is not None:
            self._tables.tables.finding(finding)
        if finding.verdict is not Verdict.EQUAL:
            first = self._disagreeing if finding.verdict in DISAGREES else self._undecided
            if len(first) < FIRST:
                first.append(finding)

    def _derived(self, effect: Effect | None, finding: Finding) -> None:
        if self._tables is not None and effect is not None and finding.verdict is not Verdict.DUPLICATE:
            self._tables.derived(effect, finding)

    def close(self) -> None:
        """Sum up, before the index is closed."""
        chain, files = self._tables.finish() if self._tables is not None else ("", ())
        ids = self._ids.close() if self._ids is not None else ()
        self._result = TaskResult(self._range(chain, files), tuple(self._disagreeing or self._undecided), ids)
        self._marks = self._index.marks()

    def result(self) -> TaskResult:
        return self._result

    @property
    def disagreeing(self) -> int:
        """Findings that disagree, whether they are reported or not."""
        return sum(self._findings[verdict] for verdict in DISAGREES)

    @property
    def is_out_of_order(self) -> bool:
        """Whether some equal record is, whether it is reported or not."""
        return bool(self._findings[Verdict.OUT_OF_ORDER])

    def suspected_marks(self) -> list[tuple[int, int]]:
        """The clock marks in front of the first finding that disagrees, the nearest first."""
        if not self.disagreeing:
            return []
        before = [mark for mark in self._marks if self._task.begin < mark[0] <= self._first_wrong + 1]
        return before[: -_MARKS_TRIED - 1 : -1]

    def _range(self, chain: str, files: tuple[str, ...]) -> RangeResult:
        task, audit, published = self._task, self._audit, self._index.count
        return RangeResult(
            partition=task.partition,
            begin=task.begin,
            end=task.end,
            complete=task.complete,
            records=audit.records,
            chain=chain,
            counts={
                kind.value: {v.value: n for (k, v), n in sorted(self._counts.items()) if k is kind}
                for kind in FindingKind
            },
            coverage=dict(sorted(self._ledger.offsets.items())),
            published=published,
            out_of_range=audit.out_of_range,
            first_ms=audit.earliest_ms if audit.latest_ms >= 0 else -1,
            last_ms=audit.latest_ms,
            files=files,
            open_steps=audit.state.open_steps,
            stream_time=audit.state.stream_time,
            caused_behind=audit.caused_behind,
            foreign=dict(sorted(audit.foreign.items())),
            redriven=self._redriven,
            in_force=self._history.in_force(),
            unbounded_marks=audit.unbounded_marks,
            trouble=tuple(self._accounts(published)),
        )

    def _accounts(self, published: int) -> list[str]:
        """Check that the counts add up; returns what does not, in words."""
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


_MARKS_TRIED: Final = 3


def run(task: Task) -> TaskResult:
    """See `processor.audit.replay.run_task`.

    One forged clock mark makes honest records look wrong. Where records disagree, the marks in front of the first of
    them are left out in turn: what accuses the fewest records stands. So does one record that was moved: where records
    are out of order, the range is read again for the fewest that were.
    """
    with collecting_seldom():
        return _judged(task)


def _judged(task: Task) -> TaskResult:
    best = _walked(task)
    fewest = msgspec.structs.replace(task, tables=False, notes_ids=False, record="")
    chosen = task
    for mark in best.suspected_marks() if task.verify else ():
        ignored = (*chosen.ignored_marks, mark)
        tried = _walked(msgspec.structs.replace(fewest, ignored_marks=ignored))
        if 0 < tried.disagreeing < best.disagreeing:
            best, chosen = tried, msgspec.structs.replace(task, ignored_marks=ignored, record="")
    if best.is_out_of_order:
        noted = RecordOrder(is_noted=True)
        _walked(msgspec.structs.replace(fewest, ignored_marks=chosen.ignored_marks), noted)
        return _walked(msgspec.structs.replace(chosen, record=""), RecordOrder(noted.moved())).result()
    return best.result() if chosen is task else _walked(chosen).result()


def _walked(task: Task, order: RecordOrder | None = None) -> _TaskRunner:
    with ExitStack() as exits:
        runner = _TaskRunner(task, exits, order)
        waited_for(runner.walk())
        runner.close()
        return runner
