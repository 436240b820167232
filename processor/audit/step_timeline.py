"""Timeline of one step: folds a range of the source and notes every event that changes the step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, TypeGuard

import msgspec

from processor.archives import Gap
from processor.audit.judge.published_headers import began_at
from processor.audit.judge.verdicts import Difference, Finding, FindingKind, Published, PublishedIndex, Verdict
from processor.audit.replay.record_sources import Ledger, pieces
from processor.audit.replay.task import Task
from processor.audit.replay.task_judge import audit_of, observed_state
from processor.core.effects import Effect, Record, Transition
from processor.core.events import decode, run_named
from processor.core.partition import PartitionState
from processor.core.responses.decode import MAX_RESPONSE_ID
from processor.core.responses.event import NOT_SAID, OF_ITEMS, PIECES, TOLD, ResponseEvent
from processor.core.responses.response import Response, entry_key
from processor.core.rules import Rules
from processor.core.wire_types import RunEnd, StepDelta, StepObject, canonical

StepEvent = StepObject | StepDelta | RunEnd | ResponseEvent

_SHORT: Final = 60
_ENOUGH: Final = 10_000
"""Events shown of one life; all are read."""
_ENOUGH_OBJECTS: Final = 1_000
"""Behind those, so many more that are no deltas: ends and the like."""
_COMPARED: Final = 1 << 30
"""Characters of snapshots that are compared to say what events changed: each comparison reads the whole step twice."""
_NOT_SHOWN: Final = "{} more events of the step, at offsets {} to {}, were read and folded, and are not shown."
_NOT_COMPARED: Final = (
    "From offset {} on, deltas are shown by what they say: the step is too large to be compared at each of them."
)


class Change(msgspec.Struct, frozen=True):
    """Change of one field of the snapshot: its path, and the change in words."""

    path: str
    what: str


class Happened(msgspec.Struct, frozen=True):
    """A record with an event of the step. `timestamp` is the record's, in milliseconds."""

    offset: int
    timestamp: int
    event: str
    before: str | None = None
    after: str | None = None
    refused: str | None = None
    changes: tuple[Change, ...] = ()


class Issued(msgspec.Struct, frozen=True):
    """A revision: its location and its verdict. Without a location it should be there and is not."""

    revision: int
    status: str
    place: tuple[str, int, int] | None
    timestamp: int | None
    verdict: str
    why: str = ""
    differences: tuple[Difference, ...] = ()


class StepIncarnation(msgspec.Struct, frozen=True):
    """One incarnation of a step: an id that is forgotten and comes again has two.

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


class StepTimeline:
    """Folds a range and builds the timeline of one step.

    Args:
        issued: the records of the index that belong to this incarnation.
    """

    def __init__(self, step_id: str, task: Task, index: PublishedIndex, issued: list[Published]) -> None:
        self._step_id, self._task, self._issued = step_id, task, issued
        self._places = {(p.topic, p.partition, p.offset): p for p in issued}
        self._first = next((began_at(p) for p in issued), task.begin)
        self._transitions: list[Transition] = []
        self._events: list[Happened] = []
        self._findings: list[Finding] = []
        self._implied: dict[str, str] = {}
        self._run_id: str | None = None
        self._last: dict[str, Any] = {}
        self._is_stale = False
        """The step has changed since `_last` was taken."""
        self._unshown: list[int] = [0, -1, -1]
        """Number of events of the step that are not shown, their first and their last offset."""
        self._more_objects = 0
        """Events that are no deltas and are shown behind the first `_ENOUGH`."""
        self._compared = 0
        """Characters of the snapshots that were taken to be compared."""
        self._not_compared_from: int | None = None
        self._audit = audit_of(task, index, self._state_at, yield_equal=True)

    def _state_at(self, offset: int, stream_time: int, rules: Rules | None = None) -> PartitionState:
        state, _ = observed_state(self._task, offset, stream_time, self._note_transition, rules)
        return state

    def _note_transition(self, transition: Transition) -> None:
        if transition.step_id == self._step_id:
            self._transitions.append(transition)

    async def walk(self) -> StepIncarnation:
        """Fold the range; returns the life of the step in it."""
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
        if self._is_stale:
            self._last = self._snapshot() or self._last
        if self._not_compared_from is not None:
            holes.append(_NOT_COMPARED.format(self._not_compared_from))
        return self._life(holes)

    def _take(self, record: Record) -> None:
        events = list(self._events_of(record))
        is_shown = self._is_shown(events)
        if is_shown and self._is_stale and not all(_is_delta(event) or isinstance(event, RunEnd) for event in events):
            # What the deltas in between brought is not this event's. Time and a run's end leave the details alone.
            self._refresh()
        before = self._before() if events else self._last
        self._note_findings(self._audit.apply([record]), record)
        events = self._placed_here(events, record.offset)
        is_shown = self._is_shown(events)
        if events or self._transitions:
            names = ", ".join(dict.fromkeys(map(_name, events))) or "(time passes)"
            self._tell(record.offset, record.timestamp, names, before, events, is_shown=is_shown)

    def _is_shown(self, events: list[StepEvent]) -> bool:
        """The first events, and more of those that are no deltas: what ends a step comes after many of them."""
        if len(self._events) < _ENOUGH:
            return bool(events)
        return self._more_objects < _ENOUGH_OBJECTS and not all(map(_is_delta, events))

    def _refresh(self) -> None:
        if self._compared < 2 * _COMPARED:
            self._last, self._is_stale = self._snapshot() or self._last, False

    def _tell(
        self,
        offset: int,
        timestamp: int,
        name: str,
        before: dict[str, Any],
        events: list[StepEvent],
        *,
        is_shown: bool,
    ) -> None:
        """Note an event of the step, or count it as one that is not shown."""
        first, last = (self._transitions[0], self._transitions[-1]) if self._transitions else (None, None)
        refused = next((t.refused for t in self._transitions if t.refused), None)
        moved = first is not None and last is not None and first.before != last.after
        self._transitions.clear()
        if not (is_shown or moved):
            number, begin, _ = self._unshown
            self._unshown = [number + 1, begin if number else offset, offset]
            self._is_stale = True
            return
        if moved and first is not None and first.before is None:
            before = {}  # an earlier life ended before this record, and is no part of this one
        changes = self._changes_by(offset, before, [] if refused else events, moved=moved)
        if offset >= (self._first or 0):
            self._more_objects += is_shown and len(self._events) >= _ENOUGH
            happened = Happened(
                offset,
                timestamp,
                name,
                first.before if moved and first else None,
                last.after if moved and last else None,
                refused,
                changes,
            )
            self._events.append(happened)

    def _changes_by(
        self, offset: int, before: dict[str, Any], events: list[StepEvent], *, moved: bool
    ) -> tuple[Change, ...]:
        """Differences of the step since the last event, within a budget: a snapshot is as large as the step."""
        deltas = [event for event in events if _is_delta(event)]
        limit = _COMPARED if not moved and (deltas or not events) else 2 * _COMPARED
        if self._compared >= limit:
            self._is_stale = True
            if self._not_compared_from is None:
                self._not_compared_from = offset
            return tuple(change for delta in deltas for change in _said(delta))
        after = self._snapshot() or before
        if self._is_stale and before:
            before = {**before, "step_details": after.get("step_details")}
        self._last, self._is_stale = after, False
        return tuple(_changes("", before, after))

    def _events_of(self, record: Record) -> Iterator[StepEvent]:
        """The events of a record that name the step, or the end of its run; of a response those of all its items."""
        decoded = decode(record.value, record.headers, self._task.rules.schema_frames)
        for event in getattr(decoded, "events", ()):
            if isinstance(event, StepObject | StepDelta):
                if event.step_id == self._step_id:
                    yield event
            elif isinstance(event, ResponseEvent):
                named = run_named(record.key, record.headers, MAX_RESPONSE_ID)
                if self._step_id.rpartition(":")[0] == named and event.what in TOLD:
                    yield event
            elif isinstance(event, RunEnd) and self._run_id is not None and event.run_id == self._run_id:
                yield event

    def _placed_here(self, events: list[StepEvent], offset: int) -> list[StepEvent]:
        """Those of a record's events that are of the step, which has folded them.

        An event of a response need not say the index of its item (`processor.core.responses.placing`). Which item it
        was folded into is seen afterwards; where that is none, what the event says stands.
        """
        response_id, _, own = self._step_id.rpartition(":")
        ours = [e for e in events if not _is_of_item(e) or e.index == NOT_SAID or str(e.index) == own]
        if not any(map(_is_of_item, events)):
            return ours
        entry = self._audit.state.steps.get(entry_key(response_id))
        response = None if entry is None or entry.refused else entry.materialise()
        if not isinstance(response, Response):
            return ours
        folded = [index for index, item in response.items.items() if item.last_offset == offset]
        if own in map(str, folded):
            return ours if any(map(_is_of_item, ours)) else events
        return [e for e in ours if not _is_of_item(e)] if folded else ours

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
            self._tell(at.offset, at.timestamp, "(clock mark)", self._last, [], is_shown=True)

    def _is_of_this_life(self, finding: Finding) -> bool:
        if finding.at is not None:
            return finding.at in self._places
        return not self._issued or finding.first_offset == self._first

    def _before(self) -> dict[str, Any]:
        """The snapshot as the last event left it: only events of the step change it, and all of them are told."""
        entry = self._audit.state.entry_named(self._step_id)
        return self._last if entry is not None and not entry.refused else {}

    def _snapshot(self) -> dict[str, Any]:
        entry = self._audit.state.entry_named(self._step_id)
        if entry is None or entry.refused:
            return {}
        step = entry.materialise()
        self._run_id = step.run_id
        self._compared += step.size_with(0, 0)
        return step.snapshot(self._task.rules.object_type)

    def _life(self, notes: list[str]) -> StepIncarnation:
        """The life of the step from what was noted, with its verdict."""
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


def _is_of_item(event: StepEvent) -> TypeGuard[ResponseEvent]:
    return isinstance(event, ResponseEvent) and event.what in OF_ITEMS


def _is_delta(event: StepEvent) -> bool:
    return isinstance(event, StepDelta) or (isinstance(event, ResponseEvent) and event.what == PIECES)


def _said(delta: StepEvent) -> Iterator[Change]:
    """Changes that a delta names, for a step that is not compared before and after it."""
    if isinstance(delta, StepDelta):
        yield from _changes("step_details", {}, delta.details)
    elif isinstance(delta, ResponseEvent):
        for place, at, text in delta.texts:
            path = f"{place.holder}[{at}].{place.field}" if place.holder else place.field
            yield Change(path, f"+{len(text)} characters: {_short(text)}")


def _name(event: StepEvent) -> str:
    if isinstance(event, StepDelta):
        return "step delta"
    if isinstance(event, ResponseEvent):
        return f"item {event.what}" if event.what in OF_ITEMS else f"response {event.status or event.what}"
    return f"step {event.kind.value}" if isinstance(event, StepObject) else f"run {event.status}"


def _changes(path: str, before: Any, after: Any) -> Iterator[Change]:
    """Differences of two snapshots. Of a text that only grew, the added part."""
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
