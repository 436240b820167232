"""One task: read a partition's range, fold it, compare, spill. Uses nothing but the task."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from processor.archives import Gap, GapKind, Recorder
from processor.audit.expected_records import Places
from processor.audit.judge.observed_state import ObservedState
from processor.audit.judge.partition_audit import PartitionAudit
from processor.audit.judge.verdicts import DISAGREES, Finding, Kind, Verdict
from processor.audit.published_index import EmptyShelf, FiledShelf
from processor.audit.replay.index_output import Telling
from processor.audit.replay.record_sources import DATA, Ledger, archived, pieces
from processor.audit.replay.runtime import collecting_seldom, waited_for
from processor.audit.replay.step_filter import belonging, is_wanted
from processor.audit.replay.task import FIRST, PartitionResult, Task
from processor.core.effects import Effect, Record, Status, Transition
from processor.core.partition import PartitionState
from processor.kafka.output_records import Outputs

if TYPE_CHECKING:
    from processor.audit.replay.task_tables import Evidence


def places_of(task: Task) -> Places:
    return Places(Outputs(task.outcome_topics, task.dead_letter, ""), task.partition, task.output_partitions)


def watching(task: Task, told: Callable[[Transition], None]) -> Callable[[int, int], ObservedState]:
    """From (offset, stream time) to the task's state there, live at once, whose transitions are told."""

    def state(offset: int, stream_time: int) -> ObservedState:
        return ObservedState(
            task.topic,
            task.partition,
            task.rules,
            next_offset=offset,
            live_from=offset,
            stream_time=stream_time,
            told=told,
            belongs=belonging(task.only) if task.only else None,
        )

    return state


def unwatched(task: Task) -> Callable[[int, int], PartitionState]:
    """The same, of a state that tells nobody."""

    def state(offset: int, stream_time: int) -> PartitionState:
        return PartitionState(
            task.topic, task.partition, task.rules, next_offset=offset, live_from=offset, stream_time=stream_time
        )

    return state


class _Run:
    """The state of one task under way."""

    def __init__(self, task: Task, exits: ExitStack) -> None:
        self._task = task
        work = Path(task.work)
        self._shelf = (
            exits.enter_context(FiledShelf(work, task.partition, task.shelves)) if task.verify else EmptyShelf()
        )
        filed = self._shelf if isinstance(self._shelf, FiledShelf) else None
        self._handed_out = filed.last if filed is not None else {}
        self._evidence: Evidence | None = None
        if task.evidence:
            from processor.audit.replay.task_tables import Evidence  # what writes tables takes long to load

            self._evidence = Evidence(task, filed)
            exits.callback(self._evidence.abandon)
        places = places_of(task)
        kept_from = (
            self._shelf.kept_from(dict.fromkeys(task.shortened, 0)) if isinstance(self._shelf, FiledShelf) else {}
        )
        self._audit = PartitionAudit(
            watching(task, self._evidence.tables.changed) if self._evidence is not None else unwatched(task),
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
            tell_equal=task.evidence or bool(task.only),
        )
        self._recorder: Recorder | None = None
        if task.record:
            self._recorder = exits.enter_context(Recorder(Path(task.record), files=task.record_files))
        self._recorded = (
            self._recorder.next_offset(task.topic, task.partition) or 0 if self._recorder is not None else 0
        )
        self._gaps: deque[Gap] = deque()
        self._ledger = Ledger(task.begin, task.end, self._covered)
        self._counts: Counter[tuple[Kind, Verdict]] = Counter()
        self._findings: Counter[Verdict] = Counter()
        self._disagreeing: list[Finding] = []
        self._undecided: list[Finding] = []
        self._tell = Telling(work / f"progress-{task.partition:05d}")

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
        if self._audit.untold:
            self._counts[Kind.STEP, Verdict.EQUAL] += self._audit.untold
            self._findings[Verdict.EQUAL] += self._audit.untold
        self._judge_strays()
        self._tell(self._task.end, last=True)

    def _judge_strays(self) -> None:
        """What stands on the output topics and names no place of the source: no output of any honest worker."""
        if not isinstance(self._shelf, FiledShelf) or self._task.only:
            return
        for kind, stray in self._shelf.strays():
            at = (stray.topic, stray.partition, stray.offset)
            finding = Finding(Verdict.EXTRA, kind, -1, ("", ""), -1, -1, at, stray.why)
            self._found(finding)

    def _take(self, records: list[Record]) -> None:
        if self._evidence is not None:
            self._evidence.read(records)
        for effect, finding in self._audit.apply(records):
            self._judged(effect, finding)
        if self._recorder is not None:
            self._record(records)
        state = self._audit.state
        state.counts.clear()
        if isinstance(state, ObservedState):
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

    # --- what is found ----------------------------------------------------------------------------------------

    def _covered(self, first: int, last: int, kind: str) -> None:
        if self._evidence is not None:
            self._evidence.tables.coverage(first, last, str(kind))
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
        if self._task.only and not is_wanted(self._task.only, finding, value):
            return
        self._found(finding)
        self._derived(effect, finding)

    def _found(self, finding: Finding) -> None:
        self._counts[finding.kind, finding.verdict] += 1
        if self._evidence is not None:
            self._evidence.tables.finding(finding)
        if finding.verdict is not Verdict.EQUAL:
            first = self._disagreeing if finding.verdict in DISAGREES else self._undecided
            if len(first) < FIRST:
                first.append(finding)

    def _derived(self, effect: Effect | None, finding: Finding) -> None:
        if self._evidence is None or effect is None or finding.verdict is Verdict.DUPLICATE:
            return
        state = self._audit.state
        assert isinstance(state, ObservedState)
        self._evidence.derived(effect, finding, state)

    def result(self) -> PartitionResult:
        task, audit = self._task, self._audit
        chain, files = "", tuple[str, ...]()
        if self._evidence is not None:
            assert isinstance(audit.state, ObservedState)
            chain, files = self._evidence.finish(audit.state)
        published = self._shelf.count if isinstance(self._shelf, FiledShelf) else 0
        return PartitionResult(
            partition=task.partition,
            begin=task.begin,
            end=task.end,
            complete=task.complete,
            records=audit.records,
            chain=chain,
            counts={
                kind.value: {v.value: n for (k, v), n in sorted(self._counts.items()) if k is kind} for kind in Kind
            },
            coverage=dict(sorted(self._ledger.offsets.items())),
            published=published,
            out_of_range=audit.out_of_range,
            first_ms=audit.earliest_ms if audit.latest_ms >= 0 else -1,
            last_ms=audit.latest_ms,
            files=files,
            open_steps=audit.state.open_steps,
            stream_time=audit.state.stream_time,
            trouble=tuple(self._accounts(published)),
            first=tuple(self._disagreeing or self._undecided),
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


def run(task: Task) -> PartitionResult:
    """See `processor.audit.replay.run_task`."""
    with collecting_seldom(), ExitStack() as exits:
        under_way = _Run(task, exits)
        waited_for(under_way.walk())
        return under_way.result()
