"""Rows of the audit tables, held as columns until a row group of them is written.

A report has a row of steps and one of findings for each step, and some of transitions: a tuple for each, taken apart
when it is written, costs as much as the columns that come of it. Without pyarrow, so that it can be compiled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from processor.audit.judge.verdicts import Difference, Finding, FindingKind, RecordLocation, Verdict
from processor.core.effects import Transition

Column = list[Any]
Full = Callable[[], None]
"""Called when there are as many rows as a row group has."""


class StepRows:
    """Columns of the table of steps."""

    def __init__(self, partition: int, most: int, full: Full) -> None:
        self._partition, self._most, self._full = partition, most, full
        self._step_ids: Column = []
        self._run_ids: Column = []
        self._thread_ids: Column = []
        self._firsts: Column = []
        self._lasts: Column = []
        self._events: Column = []
        self._revisions: Column = []
        self._statuses: Column = []
        self._inferred: Column = []
        self._anomalies: Column = []
        self._opened: Column = []
        self._ended: Column = []
        self._topics: Column = []
        self._partitions: Column = []
        self._offsets: Column = []
        self._published: Column = []
        self._verdicts: Column = []
        self._digests: Column = []

    def add(
        self,
        step_id: str,
        run_id: str | None,
        thread_id: str | None,
        first_offset: int,
        last_offset: int,
        events: int,
        revision: int | None,
        status: str,
        inferred: str | None,
        anomalies: str,
        opened_ms: int | None,
        ended_ms: int | None,
        published: RecordLocation | None,
        published_ms: int | None,
        verdict: str | None,
        digest: str | None,
    ) -> None:
        self._step_ids.append(step_id)
        self._run_ids.append(run_id)
        self._thread_ids.append(thread_id)
        self._firsts.append(first_offset)
        self._lasts.append(last_offset)
        self._events.append(events)
        self._revisions.append(revision)
        self._statuses.append(status)
        self._inferred.append(inferred)
        self._anomalies.append(anomalies)
        self._opened.append(opened_ms)
        self._ended.append(ended_ms)
        if published is None:
            self._topics.append(None)
            self._partitions.append(None)
            self._offsets.append(None)
        else:
            self._topics.append(published[0])
            self._partitions.append(published[1])
            self._offsets.append(published[2])
        self._published.append(published_ms)
        self._verdicts.append(verdict)
        self._digests.append(digest)
        if len(self._step_ids) >= self._most:
            self._full()

    def taken(self) -> list[Column]:
        """All columns, in the table's order; none of their rows is held any more."""
        columns = [
            self._step_ids,
            self._run_ids,
            self._thread_ids,
            [self._partition] * len(self._step_ids),
            self._firsts,
            self._lasts,
            self._events,
            self._revisions,
            self._statuses,
            self._inferred,
            self._anomalies,
            self._opened,
            self._ended,
            self._topics,
            self._partitions,
            self._offsets,
            self._published,
            self._verdicts,
            self._digests,
        ]
        copied = [list(column) for column in columns]
        for column in columns:
            column.clear()
        return copied


class FindingRows:
    """Columns of the table of findings."""

    def __init__(self, most: int, full: Full) -> None:
        self._most, self._full = most, full
        self._verdicts: Column = []
        self._kinds: Column = []
        self._partitions: Column = []
        self._ones: Column = []
        self._twos: Column = []
        self._firsts: Column = []
        self._causes: Column = []
        self._topics: Column = []
        self._topic_partitions: Column = []
        self._topic_offsets: Column = []
        self._reasons: Column = []
        self._differences: Column = []

    def add(self, finding: Finding) -> None:
        """Append the row of a finding of any kind."""
        self._verdicts.append(finding.verdict)  # a `str`: asking for `value` costs more than all the rest here
        self._kinds.append(finding.kind)
        self._add(
            finding.partition,
            finding.identity[0],
            finding.identity[1],
            finding.first_offset,
            finding.cause_offset,
            finding.at,
            finding.why,
            [_row_of(difference) for difference in finding.differences] if finding.differences else _NO_ROWS,
        )

    def add_equal_step(
        self, partition: int, step_id: str, revision: str, first: int, cause: int, at: RecordLocation
    ) -> None:
        """The finding of a step that is equal."""
        self._verdicts.append(_EQUAL)
        self._kinds.append(_STEP)
        self._add(partition, step_id, revision, first, cause, at, "", _NO_ROWS)

    def _add(
        self,
        partition: int,
        one: str,
        two: str,
        first: int,
        cause: int,
        at: RecordLocation | None,
        why: str,
        differences: list[dict[str, str]],
    ) -> None:
        self._partitions.append(partition)
        self._ones.append(one)
        self._twos.append(two)
        self._firsts.append(first)
        self._causes.append(cause)
        if at is None:
            self._topics.append(None)
            self._topic_partitions.append(None)
            self._topic_offsets.append(None)
        else:
            self._topics.append(at[0])
            self._topic_partitions.append(at[1])
            self._topic_offsets.append(at[2])
        self._reasons.append(why)
        self._differences.append(differences)
        if len(self._verdicts) >= self._most:
            self._full()

    def taken(self) -> list[Column]:
        """All columns, in the table's order; none of their rows is held any more."""
        columns = [
            self._verdicts,
            self._kinds,
            self._partitions,
            self._ones,
            self._twos,
            self._firsts,
            self._causes,
            self._topics,
            self._topic_partitions,
            self._topic_offsets,
            self._reasons,
            self._differences,
        ]
        copied = [list(column) for column in columns]
        for column in columns:
            column.clear()
        return copied


_EQUAL = Verdict.EQUAL
_STEP = FindingKind.STEP
_NO_ROWS: list[dict[str, str]] = []


def _row_of(difference: Difference) -> dict[str, str]:
    return {"path": difference.path, "expected": difference.expected, "got": difference.got}


class TransitionRows:
    """Transitions, held as the fold reports them: they are columns when they are written."""

    def __init__(self, partition: int, most: int, full: Full) -> None:
        self._partition, self._most, self._full = partition, most, full
        self._held: list[Transition] = []

    def add(self, transition: Transition) -> None:
        self._held.append(transition)
        if len(self._held) >= self._most:
            self._full()

    def taken(self) -> list[Column]:
        """All columns, in the table's order; none of their rows is held any more."""
        held = self._held
        self._held = []
        return [
            [one.step_id for one in held],
            [self._partition] * len(held),
            [one.offset for one in held],
            [one.timestamp for one in held],
            [one.before for one in held],
            [one.after for one in held],
            [one.kind for one in held],
            [one.refused for one in held],
        ]


class PlainRows:
    """Rows of the small tables."""

    def __init__(self, most: int, full: Full) -> None:
        self._most, self._full = most, full
        self._held: list[Sequence[Any]] = []

    def add(self, *row: Any) -> None:
        self._held.append(row)
        if len(self._held) >= self._most:
            self._full()

    def taken(self) -> list[Column]:
        """All columns, in the table's order; none of their rows is held any more."""
        columns = [list(column) for column in zip(*self._held, strict=True)]
        self._held.clear()
        return columns
