"""The judge of one partition: compares what was published with what the log implies. Pure.

A published record is matched by (source partition, step id, revision), a dead letter by (source partition, source
offset, reason). Equal means equal in every byte: topic, partition, key, value, timestamp and headers in their order.
What the range cannot decide is `unverifiable`, with the reason, and never silently left out.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final

from processor.audit.judge.arrival_times import ArrivalTimes
from processor.audit.judge.differences import differences, nearest
from processor.audit.judge.equal_steps import EqualSteps
from processor.audit.judge.output_gaps import OutputGaps
from processor.audit.judge.partition_growth import PartitionGrowth, Placements
from processor.audit.judge.published_headers import mark_of, offsets_in, offsets_of, reason_in
from processor.audit.judge.record_order import RecordOrder
from processor.audit.judge.regimes import Accepted, Regimes
from processor.audit.judge.segments import Segment, Segments
from processor.audit.judge.settled import settled_after_ms
from processor.audit.judge.unnamed_settings import UnnamedSettings
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
)
from processor.core.effects import DeadLetter, Effect, Publish, Record
from processor.core.headers import LAST_OFFSET, RULES, SOURCE_TIMESTAMP
from processor.core.partition import PartitionState
from processor.core.record_columns import RecordColumns
from processor.core.rules import Rules

MakeState = Callable[..., PartitionState]
"""Function from (offset, stream time in milliseconds) to a state there, live from that offset on. A third argument
replaces the audited settings."""

ExpectedOf = Callable[[Effect], ExpectedRecord | None]
"""Function from an effect to its record, or None where that outcome is switched off. The caller knows the topics."""

Forms = Callable[[Effect], Sequence[ExpectedRecord]]
"""Function from an effect to the shorter forms that its record may have; none where it must be whole."""

_STEP: Final = FindingKind.STEP
_EQUAL: Final = Verdict.EQUAL
_SEAL_OFFSETS: Final = 1 << 15
"""Distance in offsets between evictions of what no restart needs; each eviction has a cost."""
_SINGLY: Final = 10_000
"""Records of a range that are folded singly at most."""
_BROKER_TIME: Final = "its timestamp is the broker's (message.timestamp.type=LogAppendTime): its own is gone"
_WHOLE_SECONDS: Final = "the source's record times are whole seconds, as in a Capture without milliseconds"
_FORGED_MARK: Final = "its clock mark was never set: with it, records that other workers published would be wrong"
_GROWN: Final = "it stands where its key belongs with fewer partitions: they may have been added since"


class PartitionAudit:
    """Folds the source records of one partition and judges what was published of them.

    A range whose beginning is not the log's, or that has a hole, cannot decide all. What disagrees is unverifiable
    unless the step owes nothing to what came before: it says that it was created so late that no event in front of the
    range can have named it, and that whatever had ended there was forgotten; it did not end because its run had ended
    already; and no step had been refused for want of room (X2) when it ended. How late that is: `settled_after_ms`.
    An output item does not say when its response was created, which may have been long before: besides, it must have
    been published as of the same first offset, its response's.

    Args:
        make_state: the state at an offset.
        begin, end: the range; effects caused at or behind `end` are not in scope.
        expected_of: the record that an effect becomes.
        shortened: the records that may take its place where a topic does not take the whole one.
        complete: the range begins where the partition's log began: nothing can have come before.
        kept_from, held, holes: what is gone or held back of the output (`OutputGaps`).
        broker_times: output partitions -> from which offset on their timestamps are the broker's.
        is_archived: the records come from an archive, which may have cut their times to whole seconds.
        arrival_times: what archives of Event Hubs Capture leave open, where some are read.
        placements: where a key stood when its topic had fewer partitions.
        dead_letter, expired: the topics of the dead letters and of the expired steps: with records of them went what
            tells of refusals, and clock marks.
        log_end: where the log ends, known after the published records were read: none can be caused behind it.
        latest_mark_ms: no clock mark can be later, as no clock had come so far: one that is was never set.
        accepted, earlier: which other fold versions and settings may stand in published records; settings that are
            known to have been in force before the audited ones (`regimes`).
        ignored_marks: clock marks that are taken for forged: records that name one are extra.
        yield_equal: whether steps that are equal at once, as nearly all are, are yielded one by one; else they are
            counted alone, in `equal_not_yielded`.
        equal_steps: gets these steps in place of findings; they are counted, too.
        order: says which equal records are out of order.
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
        ignored_marks: Collection[tuple[int, int]] = (),
        shortened: Forms | None = None,
        kept_from: Mapping[tuple[str, int], int] | None = None,
        held: Collection[tuple[str, int]] = (),
        holes: Collection[tuple[str, int]] = (),
        broker_times: Mapping[tuple[str, int], int] | None = None,
        is_archived: bool = False,
        arrival_times: ArrivalTimes | None = None,
        placements: Placements | None = None,
        dead_letter: str = "",
        expired: str = "",
        accepted: Accepted | None = None,
        earlier: Sequence[Rules] = (),
        yield_equal: bool = True,
        equal_steps: EqualSteps | None = None,
        order: RecordOrder | None = None,
    ) -> None:
        self._ignored_marks = frozenset(ignored_marks)
        marks = [mark for mark in index.marks() if mark[1] <= latest_mark_ms and mark not in self._ignored_marks]
        known_ms = -1 if complete else max((ms for position, ms in marks if position <= begin), default=-1)
        self._make_state = make_state
        self.state = make_state(begin, known_ms)
        self._rules = self.state.rules
        regimes = self._regimes = Regimes(index, self._rules, accepted, earlier)
        self._unnamed = UnnamedSettings(index, regimes.own, others=regimes.others_may_stand, begin=begin)
        if begin <= regimes.known_until:
            self.state = make_state(begin, known_ms, regimes.known_rules)
        self._index, self._expected, self._shortened = index, expected_of, shortened
        self._begin, self._end, self._log_end, self._broker_times = begin, end, log_end, broker_times or {}
        self._yield_equal, self._equal_steps = yield_equal, equal_steps
        self._gaps = OutputGaps(kept_from or {}, held, holes, dead_letter, expired, marks, begin)
        self._placements, self._arrival = placements, arrival_times or ArrivalTimes(index)
        self._growth: dict[str, PartitionGrowth] = {}
        self._whole_seconds = is_archived
        """Whether all record times that were looked at, two of each piece, are."""
        self._segments = Segments(index, self._gaps, Segment(begin, known_ms, complete=complete), end)
        changes = {regimes.known_until + 1, regimes.own_from, self._gaps.known_from}
        self._changes = deque(sorted(at for at in changes if begin < at <= end))
        """Offsets from which on less is unknown than before."""
        self._marks = deque(mark for mark in marks if begin < mark[0] <= end)
        self._order = order or RecordOrder()
        self.implied: Counter[FindingKind] = Counter()
        self.equal_not_yielded = 0
        """Steps that are equal, counted alone."""
        self.out_of_range = self.caused_behind = 0
        self.unbounded_marks = 0
        """Records that a clock mark at the end of the range caused, where the log may continue after it."""
        self.unmatched = 0
        """Implied, not found, and unverifiable."""
        self.left_unverifiable = 0
        """Published, not implied, and unverifiable."""
        self.foreign: Counter[str] = Counter()
        """Records that may stand and that this fold cannot judge, by what made them."""
        self.records = 0
        self.earliest_ms, self.latest_ms = NEVER, -1
        """Smallest and largest timestamp of the records."""
        self._sealed = begin
        self._other_fold = ""
        """Reason why missing records may not have been due, while what is there was made by another fold; else ""."""

    def apply(self, records: Sequence[Record] | RecordColumns) -> Iterator[tuple[Effect | None, Finding]]:
        """Fold records in offset order; yields each implied effect with its finding, applying marks in between."""
        if isinstance(records, RecordColumns):
            last = records[-1].offset
            is_cut = (self._changes and last >= self._changes[0]) or (self._marks and last >= self._marks[0][0])
            if not is_cut and not self._unnamed.waits_for_name:
                yield from self._fold(records)
                self._forget_needless()
                return
            records = records.records()
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
        self._forget_needless()

    def _forget_needless(self) -> None:
        if self.state.next_offset - self._sealed >= _SEAL_OFFSETS:
            # As the worker does at each unit: what is kept for a restart alone would grow with the range.
            self._sealed = self.state.next_offset
            self.state.restore_point_at(self._sealed)

    def _change(self) -> Iterator[tuple[Effect | None, Finding]]:
        """The settings change at this offset, or what was caused from here on is of the audited ones, or the time is
        known again: what began before it may owe something to what is not known."""
        at = self._changes.popleft()
        while self._marks and self._marks[0][0] <= at:
            yield from self._mark()
        known_ms = self.state.stream_time
        if at == self._regimes.known_until + 1:
            self._note_times()
            self.state = self._make_state(at, known_ms)
        if at == self._gaps.known_from:
            self._gaps.time_is_known(at - 1)
        self._segments.add(at, known_ms)

    def lost(self, first: int, last: int) -> Iterator[tuple[Effect | None, Finding]]:
        """These offsets (inclusive) held records that cannot be read: the fold starts anew after them.

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
        self._segments.add_behind_lost(first, last, known_ms)

    def finish(self) -> Iterator[tuple[Effect | None, Finding]]:
        """Apply the marks at the end, then report all records that were published and never implied."""
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

    def _fold(self, records: Sequence[Record] | RecordColumns) -> Iterator[tuple[Effect | None, Finding]]:
        """Fold records and judge each effect. An effect that is equal at once is not looked up a second time."""
        if len(records) == 0:
            return
        self.records += len(records)
        if self._whole_seconds:
            self._whole_seconds = records[0].timestamp % 1000 == 0 == records[-1].timestamp % 1000
        segment = self._segments.last
        if segment.settled_ms == NEVER:
            first_ms = max(segment.known_ms, records[0].timestamp, 0)
            segment.settled_ms = first_ms + settled_after_ms(self._rules, retentions=1, readings=2)
        effects: Iterable[Effect]
        if isinstance(records, RecordColumns):
            effects = self.state.apply_batches([records])
        else:
            effects = self._effects_of(records) if self._unnamed.waits_for_name else self.state.apply(records)
        for effect in effects:
            if not isinstance(effect, Publish):
                found = self._equal_letter(effect) if isinstance(effect, DeadLetter) else None
                if found is not None:
                    yield effect, found
                    continue
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
            if self._unnamed.waits_for_name:
                self._unnamed.is_named(effect.step_id, self.state)
            if self._gaps.is_time_open:
                self._note_deadline(effect)
            why = self._order.misplaced(_STEP, identity, at)
            if why or (self._yield_equal and self._equal_steps is None):
                first, cause = offsets_in(effect)
                yield effect, self._equal(_STEP, identity, first, cause, at, why)
                continue
            self.equal_not_yielded += 1
            if self._equal_steps is not None:
                first, cause = offsets_in(effect)
                self._equal_steps.take(effect, first, cause, at)

    def _equal_letter(self, effect: DeadLetter) -> Finding | None:
        """The finding of a dead letter that was published once and as it must be, as nearly all are; else None."""
        expected, headers = self._expected(effect), dict(effect.headers)
        if expected is None or RULES in headers:  # a reference to a step names its settings
            return None
        kind, offset = FindingKind.DEAD_LETTER, effect.offset
        identity = (str(offset), reason_in(effect.reason.value.encode(), headers))
        at = self._index.take_equal(kind, identity, expected)
        if at is None:
            return None
        self._segments.note_refusal(effect)
        self.implied[kind] += 1
        self._other_fold = ""
        self._unnamed.agrees(effect)
        return self._equal(kind, identity, offset, offset, at, self._order.misplaced(kind, identity, at))

    def _effects_of(self, records: Sequence[Record]) -> Iterator[Effect]:
        """Fold the records. The first ones singly, until a step says which settings are in force: what is remembered
        at that very record is noted."""
        at = 0
        while self._unnamed.waits_for_name and self.records - len(records) + at < _SINGLY and at < len(records):
            yield from self.state.apply(records[at : at + 1])
            at += 1
        if at < len(records):
            yield from self.state.apply(records[at:] if at else records)

    def _mark(self) -> Iterator[tuple[Effect | None, Finding]]:
        """Apply the next clock mark and judge what ends by it."""
        position, milliseconds = self._marks.popleft()
        state = self.state
        state.moved_to(position)
        is_due = state.next_due_ms() == milliseconds
        is_unknown = not self._segments.last.complete or self._gaps.marks_are_lost or self._arrival.of_source
        if is_unknown or (not is_due and self._unnamed.may_have_set((position, milliseconds), state)):
            # Time has moved, whether the step that was due is known here or began before; and what seems to be due
            # earlier was none to the worker, or the mark would be another.
            while (due := state.next_due_ms()) is not None and due < milliseconds:
                for effect in state.advance(due):
                    yield from self._judge(effect)
            if due != milliseconds:
                state.pass_time(milliseconds)
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

    def _equal(
        self, kind: FindingKind, identity: tuple[str, str], first: int, cause: int, at: RecordLocation, why: str
    ) -> Finding:
        return self._finding(Verdict.OUT_OF_ORDER if why else _EQUAL, kind, identity, first, cause, at, why)

    def _judge(self, effect: Effect) -> Iterator[tuple[Effect | None, Finding]]:
        """Compare the expected record of an effect with the published ones of its identity; yields the findings."""
        expected = self._expected(effect)
        if expected is None:
            return
        if isinstance(effect, Publish):
            headers = dict(effect.headers)
            kind, identity = _STEP, (effect.step_id, str(effect.revision))
            last = int(headers[LAST_OFFSET])
            first, cause = offsets_in(effect)
        elif isinstance(effect, DeadLetter):
            kind = FindingKind.DEAD_LETTER
            self._segments.note_refusal(effect)
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
            if isinstance(effect, Publish) and self._unnamed.waits_for_name:
                self._unnamed.is_named(effect.step_id, self.state)
            if isinstance(effect, DeadLetter):
                self._unnamed.agrees(effect)
            elif self._gaps.is_time_open:
                self._note_deadline(effect)
            why = self._order.misplaced(kind, identity, location_of(best))
            yield effect, self._equal(kind, identity, first, cause, location_of(best), why)
            return
        near = nearest(candidates, expected, kind, first, last)
        why = self._segments.undecidable(effect, first, cause, None if near is None else offsets_of(near)[0])
        if near is None:
            why = self._gaps.lacks(expected, cause) or why or self._other_fold or self._regimes.unknown_at(cause)
            why = why or self._unnamed_at(effect, first, cause) or self._arrival.of_missing(effect, first, cause)
            verdict = Verdict.UNVERIFIABLE if why else Verdict.MISSING
            self.unmatched += bool(why)
            yield effect, self._finding(verdict, kind, identity, first, cause, None, why)
            return
        self._index.take(near)
        self._other_fold = foreign = self._regimes.foreign(near)[0]
        if foreign:
            self.foreign[foreign] += 1
        why = foreign or why or self._segments.began_before(near) or self._regimes.unknown_at(cause)
        fields = tuple(differences(expected, near))
        if not why:
            excuse = self._excuse(expected, near, fields)
            if excuse is None:
                yield effect, self._equal(kind, identity, first, cause, location_of(near), "")
                return
            paths = {field.path for field in fields}
            why = excuse or self._unnamed.between(effect, first, cause, candidates, paths)
            why = why or self._arrival.between(effect, self._forms(effect, expected), near, fields)
        verdict = Verdict.UNVERIFIABLE if why else Verdict.DIFFERENT
        yield effect, self._finding(verdict, kind, identity, first, cause, location_of(near), why, fields)

    def _note_deadline(self, effect: Publish) -> None:
        first, cause = offsets_in(effect)
        if effect.inferred == "deadline" and not self._gaps.lacks_marks_before(first):
            self._gaps.time_is_known(cause)
            self._segments.add(cause + 1, self.state.stream_time)

    def _unnamed_at(self, effect: Publish | DeadLetter, first: int, cause: int) -> str:
        """Why settings that nothing names may have had another effect; "" if they cannot."""
        if isinstance(effect, DeadLetter):
            return self._unnamed.disagrees(effect)
        return self._unnamed.of_missing(effect, first, cause)

    def _excuse(self, expected: ExpectedRecord, near: Published, fields: Sequence[Difference]) -> str | None:
        """The reason why a difference is not the worker's; "" if it is; None if it is no difference at all."""
        paths = {field.path for field in fields}
        if paths == {"timestamp"}:
            broker_time = self._broker_times.get((near.topic, near.partition))
            if broker_time is not None and near.offset >= broker_time:
                return _BROKER_TIME
        if paths <= {"timestamp", f"header {SOURCE_TIMESTAMP}"}:
            same_second = near.timestamp // 1000 == expected.timestamp // 1000
            return _WHOLE_SECONDS if self._whole_seconds and same_second else ""
        if paths == {"partition"} and self._placements is not None:
            growth = self._growth.get(near.topic)
            if growth is None:
                own = (one for one in self._index.all() if one.topic == near.topic)
                growth = self._growth[near.topic] = PartitionGrowth(own, self._placements)
            fits = growth.fits(location_of(near))
            return None if fits else _GROWN if fits is None else ""
        return ""

    def _is_equal(self, effect: Effect, expected: ExpectedRecord, published: Published) -> bool:
        if not differences(expected, published):
            return True
        return any(not differences(form, published) for form in self._forms(effect, expected))

    def _forms(self, effect: Effect, expected: ExpectedRecord) -> Sequence[ExpectedRecord]:
        return [expected, *(self._shortened(effect) if self._shortened is not None else ())]

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
        why = why or self._segments.undecidable_left(published, first, cause)
        if not why and published.kind is FindingKind.STEP:
            why = self._unnamed.of_step(published.identity[0], first, cause)
        elif not why:
            letter = (published.identity[1], published.key, published.value, published.headers)
            why = self._unnamed.of_dead_letter(cause, *letter)
        if mark_of(published) not in self._ignored_marks:
            why = why or self._arrival.of_left(published, first)
        if why:
            self.left_unverifiable += 1
            kind = published.kind
            return Finding(Verdict.UNVERIFIABLE, kind, self.state.partition, published.identity, first, cause, at, why)
        if mark_of(published) in self._ignored_marks:
            return self._extra(published, first, cause, _FORGED_MARK)
        return self._extra(published, first, cause, "the log does not imply it")

    def _extra(self, published: Published, first: int, cause: int, why: str) -> Finding:
        kind, identity = published.kind, published.identity
        return Finding(Verdict.EXTRA, kind, self.state.partition, identity, first, cause, location_of(published), why)

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
