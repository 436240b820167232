"""The judge of one partition: compares what was published with what the log implies. Pure.

A published record is matched by (source partition, step id, revision), a dead letter by (source partition, source
offset, reason). Equal means equal in every byte: topic, partition, key, value, timestamp and headers in their order.
What the range cannot decide is `unverifiable`, with the reason, and never silently left out.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from processor.audit.judge.differences import differences
from processor.audit.judge.published_headers import mark_in, number_in, offsets_of, reason_in
from processor.audit.judge.regimes import Accepted, Regimes
from processor.audit.judge.settled import settled_after_ms
from processor.audit.judge.verdicts import (
    NEVER,
    Difference,
    ExpectedRecord,
    Finding,
    FindingKind,
    Published,
    PublishedIndex,
    RecordLocation,
    Verdict,
    location_of,
    read_created,
)
from processor.core.effects import DeadLetter, Effect, Publish, Reason, Record
from processor.core.headers import (
    ANOMALIES,
    CLOCK_MARK,
    EVENT_NUMBER,
    FIRST_OFFSET,
    LAST_OFFSET,
)
from processor.core.partition import PartitionState
from processor.core.rules import Rules

MakeState = Callable[..., PartitionState]
"""From (offset, stream time in milliseconds) to a state there, live from that offset on. A third argument, where one is
given, is the settings in the place of the audited ones."""

ExpectedOf = Callable[[Effect], ExpectedRecord | None]
"""From an effect to its record, or None where that outcome is switched off. The shell knows the topics."""

Forms = Callable[[Effect], Sequence[ExpectedRecord]]
"""From an effect to the shorter forms its record may have; none where it must be whole."""

_STATEFUL: Final = frozenset(
    {
        Reason.BAD_INDEX,
        Reason.ILLEGAL_TRANSITION,
        Reason.TYPE_CHANGED,
        Reason.STEP_TOO_LARGE,
        Reason.TOO_MANY_OPEN_STEPS,
        Reason.SNAPSHOT_TOO_LARGE,
        Reason.INTERNAL_ERROR,
    }
)
"""Rejections that depend on what came before: a range that begins in mid-log cannot decide them."""

_STEP: Final = FindingKind.STEP
_EQUAL: Final = Verdict.EQUAL
_SEAL_OFFSETS: Final = 1 << 15
"""So far apart are the places where what no restart needs is let go: looking for it has its price."""
_AFTER_RUN: Final = "after_run_ended"
_BEFORE: Final = "it may hang on what came before the range"
_HELD: Final = (
    "an open transaction on an output topic holds back what may be this record, or a clock mark that explains it"
)
_MARKS: Final = "clock marks may have gone with the first records of the topic of expired steps"


class _Segment:
    """A segment of the range without holes; where it is not `complete`, something unknown came before it.

    Attributes:
        known_ms: stream time had come at least so far when it began.
        settled_ms: a step that was created later owes nothing to what came before. Known with the first record.
        refused_from: from there on the number of open steps decided something, and that is not known.
    """

    def __init__(self, begin: int, known_ms: int, refused_from: int, *, complete: bool) -> None:
        self.begin, self.complete, self.known_ms, self.refused_from = begin, complete, known_ms, refused_from
        self.settled_ms = NEVER


class PartitionAudit:
    """Folds the source records of one partition and judges what was published of them.

    A range whose beginning is not the log's, or that has a hole, cannot decide all. What disagrees is unverifiable
    unless the step owes nothing to what came before: it says that it was created so late that no event in front of the
    range can have named it, and that whatever had ended there was forgotten; it did not end because its run had ended
    already; and no step had been refused for want of room (X2) when it ended. How late that is: `settled_after_ms`.

    Args:
        make_state: the state at an offset.
        begin, end: the range; effects caused at or behind `end` are not in scope.
        expected_of: the record that an effect becomes.
        shortened: the records that may take its place where a topic does not take the whole one.
        complete: the range begins where the partition's log began: nothing can have come before.
        kept_from: output partitions that retention has shortened -> the first cause that a record there names; of
            that cause some may be gone (a run's end ends several steps), behind it all are there.
        held: output partitions of which an open transaction holds back the rest: nothing is known of that.
        dead_letter, expired: the topics of the dead letters and of the expired steps, for what `kept_from` says of
            them: with their first records went what tells of refusals, and clock marks.
        log_end: where the log ends, known after the published records were read: none can be caused behind it.
        latest_mark_ms: no clock mark can be later, as no clock had come so far: one that is was never set.
        accepted, earlier: which other fold versions and settings may stand in published records; settings that are
            known to have been in force before the audited ones (`regimes`).
        yield_equal: whether steps that are equal at once, as nearly all are, are yielded one by one; else they are
            counted alone, in `equal_not_yielded`.
    """

    def __init__(
        self,
        make_state: MakeState,
        index: PublishedIndex,
        expected_of: ExpectedOf,
        *,
        begin: int,
        end: int,
        complete: bool,
        log_end: int | None = None,
        latest_mark_ms: int = NEVER,
        shortened: Forms | None = None,
        kept_from: Mapping[tuple[str, int], int] | None = None,
        held: Collection[tuple[str, int]] = (),
        dead_letter: str = "",
        expired: str = "",
        accepted: Accepted | None = None,
        earlier: Sequence[Rules] = (),
        yield_equal: bool = True,
    ) -> None:
        marks = [(position, ms) for position, ms in index.marks() if ms <= latest_mark_ms]
        known_ms = -1 if complete else max((ms for position, ms in marks if position <= begin), default=-1)
        self._make_state = make_state
        self.state = make_state(begin, known_ms)
        self._rules = self.state.rules
        regimes = self._regimes = Regimes(index, self._rules, accepted, earlier)
        if begin <= regimes.known_until:
            self.state = make_state(begin, known_ms, regimes.known_rules)
        self._index, self._expected, self._shortened = index, expected_of, shortened
        self._begin, self._end, self._log_end = begin, end, log_end
        self._yield_equal = yield_equal
        self._held = frozenset(held)
        # What is held back is no more there than what retention took, whatever its cause.
        self._kept_from = {**(kept_from or {}), **dict.fromkeys(self._held, NEVER)}
        self._dead_from = self._first_kept(dead_letter)
        self._marks_from = self._first_kept(expired)
        self._segments = [self._segment(begin, complete, known_ms)]
        self._lost: list[tuple[int, int]] = []
        changes = {regimes.known_until + 1, regimes.own_from}
        self._changes = deque(sorted(at for at in changes if begin < at < end))
        """Offsets at which the settings change, or from which on records are of the audited ones."""
        self._marks = deque(mark for mark in marks if begin < mark[0] <= end)
        self._furthest: dict[tuple[str, int], tuple[int, FindingKind, tuple[str, str]]] = {}
        """By output partition: the highest offset found so far, and what stands there."""
        self.implied: Counter[FindingKind] = Counter()
        self.equal_not_yielded = 0
        """Steps that are equal, counted alone."""
        self.out_of_range = self.caused_behind = 0
        self.unbounded_marks = 0
        """Records that a clock mark at the end of the range caused, where the log may go on behind it."""
        self.unmatched = 0
        """Implied, not found, and unverifiable."""
        self.left_unverifiable = 0
        """Published, not implied, and unverifiable."""
        self.foreign: Counter[str] = Counter()
        """Records that may stand and that this fold cannot judge, by what made them."""
        self.records = 0
        self.earliest_ms, self.latest_ms = NEVER, -1
        """Of the records, their smallest and largest timestamp."""
        self._sealed = begin
        self._other_fold = ""
        """Why what is not there may not have been due, while what is there was made by another fold; else ""."""

    def apply(self, records: Sequence[Record]) -> Iterator[tuple[Effect | None, Finding]]:
        """Fold records in offset order; yields each implied effect with its finding, marks in between."""
        while self._changes and records and records[-1].offset >= self._changes[0]:
            cut = next(i for i, record in enumerate(records) if record.offset >= self._changes[0])
            if cut:
                yield from self._apply(records[:cut])
            records = records[cut:]
            yield from self._change()
        yield from self._apply(records)

    def _apply(self, records: Sequence[Record]) -> Iterator[tuple[Effect | None, Finding]]:
        at = 0
        while self._marks and records[-1].offset >= self._marks[0][0]:
            cut = next(i for i in range(at, len(records)) if records[i].offset >= self._marks[0][0])
            yield from self._fold(records[at:cut])
            at = cut
            yield from self._mark()
        yield from self._fold(records[at:])
        if self.state.next_offset - self._sealed >= _SEAL_OFFSETS:
            # As the worker does at each unit: what is kept for a restart alone would grow with the range.
            self._sealed = self.state.next_offset
            self.state.restore_point_at(self._sealed)

    def _change(self) -> Iterator[tuple[Effect | None, Finding]]:
        """The settings change at this offset, or what was caused from here on is of the audited ones."""
        at = self._changes.popleft()
        while self._marks and self._marks[0][0] <= at:
            yield from self._mark()
        known_ms = self.state.stream_time
        if at == self._regimes.known_until + 1:
            self._note_times()
            self.state = self._make_state(at, known_ms)
        self._segments.append(self._segment(at, False, known_ms))

    def lost(self, first: int, last: int) -> Iterator[tuple[Effect | None, Finding]]:
        """These offsets (inclusive) held records that cannot be had: the fold starts anew behind them.

        Yields what the marks in front of them bring about.
        """
        while self._changes and self._changes[0] <= last + 1:
            yield from self._change()
        while self._marks and self._marks[0][0] <= first:
            yield from self._mark()
        self._note_times()
        known_ms = self.state.stream_time
        while self._marks and self._marks[0][0] <= last + 1:
            known_ms = max(known_ms, self._marks.popleft()[1])
        earlier = (self._regimes.known_rules,) if last < self._regimes.known_until else ()
        self.state = self._make_state(last + 1, known_ms, *earlier)
        self._lost.append((first, last))
        self._segments.append(self._segment(last + 1, False, known_ms))

    def _segment(self, begin: int, complete: bool, known_ms: int) -> _Segment:
        refused_from = None if complete else self._index.first_refusal_from(begin)
        return _Segment(begin, known_ms, NEVER if refused_from is None else refused_from, complete=complete)

    def finish(self) -> Iterator[tuple[Effect | None, Finding]]:
        """The marks at the end, then all that was published and never implied."""
        while self._changes:
            yield from self._change()
        while self._marks:  # each at its own position: behind it the range may end with markers
            yield from self._mark()
        self.state.moved_to(self._end)
        self._note_times()
        for published in self._index.left():
            finding = self._judge_left(published)
            if finding is None:
                self.out_of_range += 1
                self.caused_behind += (offsets_of(published)[1] or 0) >= self._end
            else:
                yield None, finding

    def _note_times(self) -> None:
        self.earliest_ms = min(self.earliest_ms, self.state.earliest_ms)
        self.latest_ms = max(self.latest_ms, self.state.latest_ms)

    def _fold(self, records: Sequence[Record]) -> Iterator[tuple[Effect | None, Finding]]:
        if not records:
            return
        self.records += len(records)
        segment = self._segments[-1]
        if segment.settled_ms == NEVER:
            first_ms = max(segment.known_ms, records[0].timestamp, 0)
            segment.settled_ms = first_ms + settled_after_ms(self._rules, retentions=1, readings=2)
        for effect in self.state.apply(records):
            if not isinstance(effect, Publish):
                yield from self._judge(effect)
                continue
            # What nearly every step is: published once and as it must be.
            identity = (effect.step_id, str(effect.revision))
            expected = self._expected(effect)
            at = None if expected is None else self._index.take_equal(_STEP, identity, expected)
            if at is None:
                yield from self._judge(effect)
                continue
            self.implied[_STEP] += 1
            self._other_fold = ""
            why = self._misplaced(_STEP, identity, at)
            if why or self._yield_equal:
                first, cause = _named(effect)
                yield effect, self._equal(_STEP, identity, first, cause, at, why)
            else:
                self.equal_not_yielded += 1

    def _mark(self) -> Iterator[tuple[Effect | None, Finding]]:
        position, milliseconds = self._marks.popleft()
        state = self.state
        state.moved_to(position)
        if not self._segments[-1].complete:
            # Time has moved, whether the step that was due is known here or began before; and what seems to be due
            # earlier was none to the worker, or the mark would be another.
            while (due := state.next_due_ms()) is not None and due < milliseconds:
                for effect in state.advance(due):
                    yield from self._judge(effect)
            if due != milliseconds:
                state.stream_time = max(state.stream_time, milliseconds)
                return
        try:
            effects = state.advance(milliseconds)
        except ValueError:
            return  # not due: the record that carries the mark stays unmatched, so `finish()` reports it as extra
        is_unbounded = position >= self._end and self._log_end != self._end
        for effect in effects:
            for judged in self._judge(effect):
                self.unbounded_marks += is_unbounded and judged[1].verdict is _EQUAL
                yield judged

    def _misplaced(self, kind: FindingKind, identity: tuple[str, str], at: RecordLocation) -> str:
        """Why a record that is equal must not stand there; "" if it may."""
        output = (at[0], at[1])
        furthest = self._furthest.get(output)
        if furthest is not None and at[2] < furthest[0]:
            behind, what, (one, two) = furthest
            return f"{what.value} {one} ({two}) was caused before it and stands behind it, at offset {behind}"
        self._furthest[output] = (at[2], kind, identity)
        return ""

    def _equal(
        self, kind: FindingKind, identity: tuple[str, str], first: int, cause: int, at: RecordLocation, why: str
    ) -> Finding:
        return self._finding(Verdict.OUT_OF_ORDER if why else _EQUAL, kind, identity, first, cause, at, why)

    def _judge(self, effect: Effect) -> Iterator[tuple[Effect | None, Finding]]:
        expected = self._expected(effect)
        if expected is None:
            return
        if isinstance(effect, Publish):
            headers = dict(effect.headers)
            kind, identity = _STEP, (effect.step_id, str(effect.revision))
            last = int(headers[LAST_OFFSET])
            first, cause = _named(effect)
        elif isinstance(effect, DeadLetter):
            kind = FindingKind.DEAD_LETTER
            if effect.reason is Reason.TOO_MANY_OPEN_STEPS:
                self._segments[-1].refused_from = min(self._segments[-1].refused_from, effect.offset)
            identity = (str(effect.offset), reason_in(effect.reason.value.encode(), dict(effect.headers)))
            first = last = cause = effect.offset
        else:
            return
        self.implied[kind] += 1
        candidates = [one for one in self._index.look(kind, identity) if self._regimes.foreign(one)[1]]
        equal = [published for published in candidates if self._is_equal(effect, expected, published)]
        if equal:
            self._other_fold = ""
            best = equal[0]
            self._index.take(best)
            for published in equal[1:]:
                self._index.take(published)
                yield effect, self._finding(Verdict.DUPLICATE, kind, identity, first, cause, location_of(published))
            why = self._misplaced(kind, identity, location_of(best))
            yield effect, self._equal(kind, identity, first, cause, location_of(best), why)
            return
        near = _nearest(candidates, expected, kind, first, last)
        why = self._undecidable(effect, first, cause)
        if near is None:
            why = why or self._other_fold or self._deleted(expected, cause) or self._regimes.unknown_at(cause)
            verdict = Verdict.UNVERIFIABLE if why else Verdict.MISSING
            self.unmatched += bool(why)
            yield effect, self._finding(verdict, kind, identity, first, cause, None, why)
            return
        self._index.take(near)
        self._other_fold = foreign = self._regimes.foreign(near)[0]
        if foreign:
            self.foreign[foreign] += 1
        why = foreign or why or self._began_before(near) or self._regimes.unknown_at(cause)
        verdict = Verdict.UNVERIFIABLE if why else Verdict.DIFFERENT
        fields = tuple(differences(expected, near))
        yield effect, self._finding(verdict, kind, identity, first, cause, location_of(near), why, fields)

    def _is_equal(self, effect: Effect, expected: ExpectedRecord, published: Published) -> bool:
        if not differences(expected, published):
            return True
        forms = [expected, *(self._shortened(effect) if self._shortened is not None else ())]
        if isinstance(effect, DeadLetter) and not any(name == EVENT_NUMBER for name, _ in published.headers):
            forms = [_unnumbered(form) for form in forms]
        return any(not differences(form, published) for form in forms)

    def _judge_left(self, published: Published) -> Finding | None:
        """A published record that the range does not imply; None if it is not in scope."""
        first, cause = offsets_of(published)
        at = location_of(published)
        if first is None or cause is None:
            return self._extra(published, -1, -1, "its offsets cannot be read")
        if self._log_end is not None and cause >= self._log_end:
            return self._extra(published, first, cause, f"the log ends at {self._log_end}")
        if cause < first:
            return self._extra(published, first, cause, "it names a cause before its own first offset")
        if not self._begin <= cause < self._end:
            return None
        why, may_stand = self._regimes.foreign(published)
        if not may_stand:
            return self._extra(published, first, cause, why)
        if why:
            self.foreign[why] += 1
        why = why or self._regimes.unknown_at(cause)
        if not why and any(low <= cause <= high for low, high in self._lost):
            why = "records that it may hang on are missing"
        if not why:
            if published.kind is FindingKind.STEP:
                anomalies = dict(published.headers).get(ANOMALIES) or b""
                why = self._began_before(published) or self._unsure(
                    self._segment_of(cause), first, cause, published.value, _AFTER_RUN.encode() in anomalies.split(b",")
                )
            elif published.identity[1].partition(" ")[0] in _STATEFUL:
                why = self._unsure_of_letter(self._segment_of(cause), cause)
        if why:
            self.left_unverifiable += 1
            kind = published.kind
            return Finding(Verdict.UNVERIFIABLE, kind, self.state.partition, published.identity, first, cause, at, why)
        return self._extra(published, first, cause, "the log does not imply it")

    def _extra(self, published: Published, first: int, cause: int, why: str) -> Finding:
        kind, identity = published.kind, published.identity
        return Finding(Verdict.EXTRA, kind, self.state.partition, identity, first, cause, location_of(published), why)

    def _undecidable(self, effect: Publish | DeadLetter, first: int, cause: int) -> str:
        """Why the range cannot say that this effect must have happened; "" if it can."""
        segment = self._segments[-1]
        if isinstance(effect, DeadLetter):
            return self._unsure_of_letter(segment, cause) if effect.reason in _STATEFUL else ""
        mark = mark_in(dict(effect.headers))
        if mark is not None:
            cause = max(cause, mark[0] - 1)
        return self._unsure(segment, first, cause, effect.value, _AFTER_RUN in effect.anomalies)

    def _unsure(self, segment: _Segment, first: int, cause: int, value: bytes | None, after_run: bool) -> str:
        """Why the range cannot say what came of a step; "" if it can."""
        if first <= self._marks_from:
            return self._no_marks()
        if segment.complete:
            return ""
        if after_run:
            return _BEFORE
        if cause >= segment.refused_from or first <= self._dead_from:
            return "steps were refused for want of room, or may have been, and how many were open is not known"
        try:
            created_at = read_created(value or b"").created_at
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            created_at = None
        if type(created_at) is not int or created_at * 1000 <= segment.settled_ms:
            return "the step may have begun before the range, or so soon behind it that something from there has a say"
        return ""

    def _unsure_of_letter(self, segment: _Segment, cause: int) -> str:
        """The same of a record that was refused for what its step was."""
        return self._no_marks() if cause <= self._marks_from else "" if segment.complete else _BEFORE

    def _no_marks(self) -> str:
        return _HELD if self._marks_from == NEVER and self._held else _MARKS

    def _first_kept(self, topic: str) -> int:
        """The first cause that the topic's shortened partitions name, whichever of them; -1 if none is shortened."""
        return max((cause for (name, _), cause in self._kept_from.items() if name == topic), default=-1)

    def _deleted(self, expected: ExpectedRecord, cause: int) -> str:
        """Whether retention may have taken what is not there."""
        if expected.partition is not None:
            from_cause = self._kept_from.get((expected.topic, expected.partition), -1)
        else:
            from_cause = self._first_kept(expected.topic)
        if cause > from_cause:
            return ""
        is_held = any(
            topic == expected.topic and expected.partition in (None, partition) for topic, partition in self._held
        )
        return _HELD if is_held else "the topic no longer holds its first records"

    def _began_before(self, published: Published) -> str:
        first, cause = offsets_of(published)
        if first is None or cause is None or not self._begin <= cause:
            return ""
        segment = self._segment_of(min(cause, self._end))
        return "the step began before the range" if not segment.complete and first < segment.begin else ""

    def _segment_of(self, offset: int) -> _Segment:
        return next((s for s in reversed(self._segments) if s.begin <= offset), self._segments[0])

    def _finding(
        self,
        verdict: Verdict,
        kind: FindingKind,
        identity: tuple[str, str],
        first: int,
        cause: int,
        at: RecordLocation | None,
        why: str = "",
        fields: tuple[Difference, ...] = (),
    ) -> Finding:
        return Finding(verdict, kind, self.state.partition, identity, first, cause, at, why, fields)


def _unnumbered(expected: ExpectedRecord) -> ExpectedRecord:
    """A dead letter as it was before there was a header for the number of the event; its detail says the same."""
    headers = tuple(header for header in expected.headers if header[0] != EVENT_NUMBER)
    return msgspec.structs.replace(expected, headers=headers)


def _named(effect: Publish) -> tuple[int, int]:
    """(first offset, cause), as `_offsets` reads them."""
    headers = dict(effect.headers)
    mark = headers.get(CLOCK_MARK)
    cause = int(headers[LAST_OFFSET]) if mark is None else int(mark.partition(b"@")[2]) - 1
    return int(headers[FIRST_OFFSET]), cause


def _nearest(
    candidates: list[Published], expected: ExpectedRecord, kind: FindingKind, first: int, last: int
) -> Published | None:
    """The one that was meant to be the implied record: an id may live twice, each time with revisions from 0 on."""
    if kind is FindingKind.DEAD_LETTER:
        # A record is refused once for a reason; of the snapshots that are too large it may have ended several, and a
        # deadline or a run's end may have met a bug in several steps.
        several = any(c.identity[1] in (Reason.SNAPSHOT_TOO_LARGE, Reason.INTERNAL_ERROR) for c in candidates)
        return next((c for c in candidates if not several or c.key == expected.key), None)
    for published in candidates:
        headers = dict(published.headers)
        named = number_in(headers.get(FIRST_OFFSET)), number_in(headers.get(LAST_OFFSET))
        if named[0] == first or named[1] == last:
            return published
    return None
