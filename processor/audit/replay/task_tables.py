"""Tables and block digests that a task writes for a report. Without a report they are not made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from processor.audit.judge.block_digests import BlockDigests
from processor.audit.judge.equal_steps import EqualSteps
from processor.audit.judge.published_headers import DIGEST_AT, EVENTS_AT, LAST_OFFSET_AT, offsets_in, own_header
from processor.audit.judge.verdicts import Finding, PublishedIndex, RecordLocation, Verdict
from processor.audit.replay.regime_history import RegimeHistory
from processor.audit.replay.step_filter import is_named, read_ids
from processor.audit.replay.task import Task
from processor.audit.replay.task_judge import observed_state
from processor.audit.report.rows import FindingRows, StepRows
from processor.audit.report.tables import Tables
from processor.core.effects import DeadLetter, Effect, Publish, Record, Status
from processor.core.headers import DIGEST, EVENTS, LAST_OFFSET
from processor.core.partition import PartitionState
from processor.core.record_columns import RecordColumns
from processor.core.rules import Rules

_EQUAL: Final = Verdict.EQUAL
_MINUTE_MS: Final = 60_000
_CELLS: Final = 1 << 14
"""Rows of the timeline that are held before they are written; a minute may then have several rows."""


class TaskTables(EqualSteps):
    """The tables of one task under way, and the block digests of what it reads.

    Args:
        index: the published records that findings name.
        history: notes the settings that equal steps name.
    """

    def __init__(self, task: Task, index: PublishedIndex, history: RegimeHistory) -> None:
        self._task, self._index, self._history = task, index, history
        self._partition: int = task.partition
        self.tables = Tables(Path(task.work) / "tables", task.partition, task.begin)
        self._step_rows: StepRows = self.tables.steps
        self._finding_rows: FindingRows = self.tables.findings
        self._digests = BlockDigests(task.begin, task.end)
        self._minutes: dict[tuple[int, str], list[int]] = {}
        self._closed = False

    def read(self, records: Sequence[Record] | RecordColumns) -> None:
        """Digest what was read."""
        for block in self._digests.take(records):
            self.tables.block(block)

    def state_at(self, offset: int, stream_time: int, rules: Rules | None = None) -> PartitionState:
        """The state that is judged from there on; its transitions go into the tables."""
        self._state, self._observer = observed_state(
            self._task, offset, stream_time, self.tables.transitions.add, rules
        )
        return self._state

    def published_ids(self) -> list[tuple[str, Any]]:
        """Step id and run id of what was published by the records that were applied last."""
        return [(step_id, run_id) for (step_id, _), (_, run_id, _) in self._observer.revisions.items()]

    def applied(self) -> None:
        """All findings of the records that were applied have been handed over."""
        self._observer.revisions.clear()

    def take(self, effect: Publish, first: int, cause: int, at: RecordLocation) -> None:
        """Write a step that is equal, and its finding."""
        self._finding_rows.add_equal_step(self._partition, effect.step_id, str(effect.revision), first, cause, at)
        self._step(effect, first, at, effect.timestamp, _EQUAL)
        self._count(effect.timestamp, effect.status)
        self._history.note_own(effect.headers, cause)

    def derived(self, effect: Effect, finding: Finding) -> None:
        """Write what the log implies, with its finding."""
        status = ""
        if isinstance(effect, Publish):
            verdict = finding.verdict if self._task.verify else None
            self._step(effect, offsets_in(effect)[0], finding.at, self._published_ms(effect, finding), verdict)
            status = effect.status
        self._count(effect_ms(effect), status)

    def _count(self, timestamp: int, status: str) -> None:
        if len(self._minutes) >= _CELLS:
            self._write_minutes()
        minute = timestamp // _MINUTE_MS * _MINUTE_MS
        cell = self._minutes.get((minute, status))
        if cell is None:
            cell = self._minutes[minute, status] = [0, 0]
        cell[0 if status else 1] += 1

    def finish(self) -> tuple[str, tuple[str, ...]]:
        """Write what is left; returns the digest of the range, and the names of the files."""
        for block in self._digests.finish():
            self.tables.block(block)
        self._open_steps()
        self._write_minutes()
        files = self.tables.close()
        self._closed = True
        return self._digests.range_digest, tuple(f"tables/{name}" for name in sorted(files))

    def abandon(self) -> None:
        """Remove half-written files, unless all are complete."""
        if not self._closed:
            self.tables.abandon()

    def _write_minutes(self) -> None:
        for (minute, status), (count, rejected) in sorted(self._minutes.items()):
            self.tables.timeline(minute, status, count, rejected)
        self._minutes.clear()

    def _step(
        self,
        effect: Publish,
        first: int,
        at: RecordLocation | None,
        published_ms: int | None,
        verdict: Verdict | None,
    ) -> None:
        headers = effect.headers
        opened_ms, run_id, thread_id = self._observer.revisions.get((effect.step_id, effect.revision), (None, "", ""))
        if not (run_id and thread_id and type(run_id) is type(thread_id) is str):  # as the snapshot has them
            ids = read_ids(effect.value)
            run_id, thread_id = ids.run_id, ids.thread_id
        self._step_rows.add(
            effect.step_id,
            run_id,
            thread_id,
            first,
            int(own_header(headers, LAST_OFFSET_AT, LAST_OFFSET)),
            int(own_header(headers, EVENTS_AT, EVENTS)),
            effect.revision,
            effect.status,
            effect.inferred,
            ",".join(effect.anomalies),
            opened_ms,
            effect.timestamp,
            at,
            published_ms,
            verdict,
            own_header(headers, DIGEST_AT, DIGEST).decode(),
        )

    def _published_ms(self, effect: Publish, finding: Finding) -> int | None:
        if finding.verdict is Verdict.EQUAL or finding.verdict is Verdict.OUT_OF_ORDER:
            return effect.timestamp  # equal in every byte
        published = None if finding.at is None else self._index.last.get(finding.at)
        return published.timestamp if published is not None else None

    def _open_steps(self) -> None:
        state = self._state
        still_open = list(state.open_entries())
        for entry in sorted(still_open, key=lambda e: (e.materialise().first_offset, e.key)):
            step = entry.materialise()
            self._observer.decide(step)
            run_id, thread_id = step.fields.get("run_id"), step.fields.get("thread_id")
            only = self._task.only
            if only and not is_named(only, entry.key, run_id, thread_id):
                continue
            self.tables.step(
                step_id=entry.key,
                run_id=run_id if isinstance(run_id, str) else None,
                thread_id=thread_id if isinstance(thread_id, str) else None,
                first_offset=step.first_offset,
                last_offset=step.last_offset,
                events=step.events,
                revision=None,
                status=Status.IN_PROGRESS.value,
                anomalies=tuple(sorted(step.told_anomalies())),
                opened_ms=self._observer.opened_ms.get(entry.key),
            )


def effect_ms(effect: Effect) -> int:
    assert isinstance(effect, Publish | DeadLetter)
    return max(0, effect.timestamp)
