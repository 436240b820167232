"""Verdicts: what the log implies held against what was published. Pure; the shell brings records and takes findings.

A published record is matched by (source partition, step id, revision), a dead letter by (source partition, source
offset, reason). Equal means equal in every byte: topic, partition, key, value, timestamp and headers in their order.
What the range cannot decide is `unverifiable`, with the reason, and never silently left out.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from processor.audit.judge.verdicts import (
    Difference,
    Finding,
    Kind,
    Placed,
    Published,
    Shelf,
    Unreadable,
    Verdict,
    read_created,
)
from processor.core.effects import FOLD_VERSION, DeadLetter, Effect, Headers, Publish, Reason, Record
from processor.core.header_names import shown
from processor.core.headers import (
    ANOMALIES,
    CLOCK_MARK,
    DETAIL,
    EVENT_NUMBER,
    FIRST_OFFSET,
    LAST_OFFSET,
    REASON,
    REVISION,
    RULES,
    SOURCE_OFFSET,
    SOURCE_PARTITION,
    VERSION,
)
from processor.core.partition import PartitionState

_EVENT_NUMBER: Final = re.compile(rb"([1-9][0-9]{0,9})/([1-9][0-9]{0,9})", re.ASCII)

Named = tuple[Kind, int, str, str]
"""What a published record names: its kind, the source partition, and its identity there."""


def named_by(record: Record, headers: Mapping[str, bytes | None], *, dead_letters: bool) -> Named | str:
    """Read whose record this is; in words, why that cannot be told.

    Args:
        headers: those of the record by name, the last of each.
    """
    source = _number(headers.get(SOURCE_PARTITION))
    if source is None:
        return f"no {SOURCE_PARTITION}"
    if dead_letters:
        offset, reason = _number(headers.get(SOURCE_OFFSET)), headers.get(REASON)
        if offset is None or reason is None:
            return f"no {SOURCE_OFFSET} or {REASON}"
        return Kind.DEAD_LETTER, source, str(offset), _which(reason, headers)
    revision, key = _number(headers.get(REVISION)), record.key
    if key is None or revision is None:
        return f"no key or no {REVISION}"
    return _STEP, source, key.decode("utf-8", "backslashreplace"), str(revision)


def published_as(named: Named, topic: str, partition: int, record: Record) -> Published:
    """The record, with what it names."""
    kind, source, one, two = named
    return Published(
        kind,
        source,
        (one, two),
        topic,
        partition,
        record.offset,
        record.timestamp,
        record.key,
        record.value,
        tuple(record.headers),
    )


def read_published(topic: str, partition: int, record: Record, *, dead_letters: bool) -> Published | Unreadable:
    """Read the evidence of a record on one of our output topics."""
    named = named_by(record, dict(record.headers), dead_letters=dead_letters)
    if isinstance(named, str):
        return Unreadable(topic, partition, record.offset, named)
    return published_as(named, topic, partition, record)


def _which(reason: bytes, headers: Mapping[str, bytes | None]) -> str:
    """Reason, and for a record of several events the number of the one that was refused.

    Dead letters from before there was a header for it have the number at the end of their detail.
    """
    text = reason.decode("utf-8", "backslashreplace")
    number = _EVENT_NUMBER.fullmatch(headers.get(EVENT_NUMBER) or b"")
    if number is not None:
        return f"{text} (event {number[1].decode()} of {number[2].decode()})"
    told = (headers.get(DETAIL) or b"").decode("utf-8", "backslashreplace")
    at = told.rfind(" (event ")
    return text if at < 0 else text + told[at:]


def mark_of(published: Published) -> tuple[int, int] | None:
    """(position, milliseconds) of the clock mark that a record names, if it names one."""
    return mark_in(dict(published.headers))


def mark_in(headers: Mapping[str, bytes | None]) -> tuple[int, int] | None:
    """The same, from the headers by name."""
    text = headers.get(CLOCK_MARK)
    if text is None:
        return None
    milliseconds, _, position = text.partition(b"@")
    found = (_number(position), _number(milliseconds))
    return None if found[0] is None or found[1] is None else (found[0], found[1])


def _number(text: bytes | None) -> int | None:
    if text is None:
        return None
    small = _SMALL.get(text)
    return small if small is not None else int(text) if text.isdigit() and len(text) < 19 else None


_SMALL: Final = {b"%d" % number: number for number in range(1_000)}
"""Revisions and partitions: reading a number takes longer than finding it."""


Place = Callable[[Effect], Placed | None]
"""From an effect to its record, or None where that outcome is switched off. The shell knows the topics."""

Forms = Callable[[Effect], Sequence[Placed]]
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

CLOCK_SKEW_S: Final = 60
"""How far clocks may differ, those of producers and that of the service, where a range begins in mid-log."""

_STEP: Final = Kind.STEP
_EQUAL: Final = Verdict.EQUAL
_NEVER: Final = 1 << 62
_SEAL_OFFSETS: Final = 1 << 15
"""So far apart are the places where what no restart needs is let go: looking for it has its price."""
_AFTER_RUN: Final = "after_run_ended"
_BEFORE: Final = "it may hang on what came before the range"
_MARKS: Final = "clock marks may have gone with the first records of the topic of expired steps"


class _Segment:
    """A stretch without holes; where it is not `complete`, something came before it that is not known.

    Attributes:
        known_ms: stream time had come at least so far when it began.
        settled_ms: a step that was created later owes nothing to what came before. Known with the first record.
        crowded: from there on the number of open steps decided something, and that is not known.
    """

    def __init__(self, begin: int, known_ms: int, crowded: int, *, complete: bool) -> None:
        self.begin, self.complete, self.known_ms, self.crowded = begin, complete, known_ms, crowded
        self.settled_ms = _NEVER


class PartitionAudit:
    """Folds the source records of one partition and judges what was published of them.

    A range whose beginning is not the log's, or that has a hole, cannot decide all. What disagrees is unverifiable
    unless the step owes nothing to what came before: it says that it was created so late that no event in front of the
    range can have named it, and that whatever had ended there was forgotten; it did not end because its run had ended
    already; and no step had been refused for want of room (X2) when it ended. Late is `ended_retention_s` behind the
    range's first record, and twice `CLOCK_SKEW_S`: for the clock of that record, and for the clock of the step.

    Args:
        make_state: the state at an offset, live from there, at a stream time in milliseconds.
        begin, end: the range; effects caused at or behind `end` are not in scope.
        place: the record that an effect becomes.
        shortened: the records that may take its place where a topic does not take the whole one.
        complete: the range begins where the partition's log began: nothing can have come before.
        kept_from: output partitions that retention has shortened -> the first cause that a record there names; of
            that cause some may be gone (a run's end ends several steps), behind it all are there.
        dead_letter, expired: the topics of the dead letters and of the expired steps, for what `kept_from` says of
            them: with their first records went what tells of refusals, and clock marks.
        log_end: where the log ends, known after the published records were read: none can be caused behind it.
        tell_equal: whether those that nearly all are, equal at once, are told one by one; else they are counted alone.
    """

    def __init__(
        self,
        make_state: Callable[[int, int], PartitionState],
        shelf: Shelf,
        place: Place,
        *,
        begin: int,
        end: int,
        complete: bool,
        log_end: int | None = None,
        shortened: Forms | None = None,
        kept_from: Mapping[tuple[str, int], int] | None = None,
        dead_letter: str = "",
        expired: str = "",
        tell_equal: bool = True,
    ) -> None:
        marks = shelf.marks()
        known_ms = -1 if complete else max((ms for position, ms in marks if position <= begin), default=-1)
        self._make_state = make_state
        self.state = make_state(begin, known_ms)
        self._rules = self.state.rules
        self._shelf, self._place, self._shortened = shelf, place, shortened
        self._rules_bytes = self._rules.digest().encode()
        self._begin, self._end, self._log_end = begin, end, log_end
        self._tell_equal = tell_equal
        self._kept_from = dict(kept_from or {})
        self._dead_from = self._first_kept(dead_letter)
        self._marks_from = self._first_kept(expired)
        self._segments = [self._segment(begin, complete, known_ms)]
        self._lost: list[tuple[int, int]] = []
        self._marks = deque(mark for mark in marks if begin < mark[0] <= end)
        self._furthest: dict[tuple[str, int], tuple[int, Kind, tuple[str, str]]] = {}
        """By output partition: the highest offset found so far, and what stands there."""
        self.implied: Counter[Kind] = Counter()
        self.untold = 0
        """Steps that are equal, counted alone."""
        self.out_of_range = 0
        self.unmatched = 0
        """Implied, not found, and unverifiable."""
        self.left_unverifiable = 0
        """Published, not implied, and unverifiable."""
        self.records = 0
        self.earliest_ms, self.latest_ms = _NEVER, -1
        """Of the records, their smallest and largest timestamp."""
        self._sealed = begin

    def apply(self, records: Sequence[Record]) -> Iterator[tuple[Effect | None, Finding]]:
        """Fold records in offset order; yields each implied effect with its finding, marks in between."""
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

    def lost(self, first: int, last: int) -> Iterator[tuple[Effect | None, Finding]]:
        """These offsets (inclusive) held records that cannot be had: the fold starts anew behind them.

        Yields what the marks in front of them bring about.
        """
        while self._marks and self._marks[0][0] <= first:
            yield from self._mark()
        self._note_times()
        known_ms = self.state.stream_time
        while self._marks and self._marks[0][0] <= last + 1:
            known_ms = max(known_ms, self._marks.popleft()[1])
        self.state = self._make_state(last + 1, known_ms)
        self._lost.append((first, last))
        self._segments.append(self._segment(last + 1, False, known_ms))

    def _segment(self, begin: int, complete: bool, known_ms: int) -> _Segment:
        crowded = None if complete else self._shelf.first_refusal_from(begin)
        return _Segment(begin, known_ms, _NEVER if crowded is None else crowded, complete=complete)

    def finish(self) -> Iterator[tuple[Effect | None, Finding]]:
        """The marks at the end, then all that was published and never implied."""
        while self._marks:  # each at its own position: behind it the range may end with markers
            yield from self._mark()
        self.state.moved_to(self._end)
        self._note_times()
        for published in self._shelf.left():
            finding = self._judge_left(published)
            if finding is None:
                self.out_of_range += 1
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
        if segment.settled_ms == _NEVER:
            late_s = self._rules.ended_retention_s + 2 * CLOCK_SKEW_S
            segment.settled_ms = max(segment.known_ms, records[0].timestamp, 0) + late_s * 1000
        for effect in self.state.apply(records):
            if not isinstance(effect, Publish):
                yield from self._judge(effect)
                continue
            # What nearly every step is: published once and as it must be.
            identity = (effect.step_id, str(effect.revision))
            placed = self._place(effect)
            at = None if placed is None else self._shelf.take_equal(_STEP, identity, placed)
            if at is None:
                yield from self._judge(effect)
                continue
            self.implied[_STEP] += 1
            why = self._misplaced(_STEP, identity, at)
            if why or self._tell_equal:
                first, cause = _named(effect)
                yield effect, self._equal(_STEP, identity, first, cause, at, why)
            else:
                self.untold += 1

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
            return  # not due: what names it stays on the shelf and is found there
        for effect in effects:
            yield from self._judge(effect)

    def _misplaced(self, kind: Kind, identity: tuple[str, str], at: tuple[str, int, int]) -> str:
        """Why a record that is equal must not stand there; "" if it may."""
        place = (at[0], at[1])
        furthest = self._furthest.get(place)
        if furthest is not None and at[2] < furthest[0]:
            behind, what, (one, two) = furthest
            return f"{what.value} {one} ({two}) was caused before it and stands behind it, at offset {behind}"
        self._furthest[place] = (at[2], kind, identity)
        return ""

    def _equal(
        self, kind: Kind, identity: tuple[str, str], first: int, cause: int, at: tuple[str, int, int], why: str
    ) -> Finding:
        return self._finding(Verdict.OUT_OF_ORDER if why else _EQUAL, kind, identity, first, cause, at, why)

    def _judge(self, effect: Effect) -> Iterator[tuple[Effect | None, Finding]]:
        placed = self._place(effect)
        if placed is None:
            return
        if isinstance(effect, Publish):
            headers = dict(effect.headers)
            kind, identity = _STEP, (effect.step_id, str(effect.revision))
            last = int(headers[LAST_OFFSET])
            first, cause = _named(effect)
        elif isinstance(effect, DeadLetter):
            kind = Kind.DEAD_LETTER
            if effect.reason is Reason.TOO_MANY_OPEN_STEPS:
                self._segments[-1].crowded = min(self._segments[-1].crowded, effect.offset)
            identity = (str(effect.offset), _which(effect.reason.value.encode(), dict(effect.headers)))
            first = last = cause = effect.offset
        else:
            return
        self.implied[kind] += 1
        candidates = self._shelf.look(kind, identity)
        equal = [published for published in candidates if self._is_equal(effect, placed, published)]
        if equal:
            best = equal[0]
            self._shelf.take(best)
            for published in equal[1:]:
                self._shelf.take(published)
                yield effect, self._finding(Verdict.DUPLICATE, kind, identity, first, cause, _at(published))
            why = self._misplaced(kind, identity, _at(best))
            yield effect, self._equal(kind, identity, first, cause, _at(best), why)
            return
        near = _nearest(candidates, placed, kind, first, last)
        why = self._undecidable(effect, first, cause)
        if near is None:
            why = why or self._deleted(placed, cause)
            verdict = Verdict.UNVERIFIABLE if why else Verdict.MISSING
            self.unmatched += bool(why)
            yield effect, self._finding(verdict, kind, identity, first, cause, None, why)
            return
        self._shelf.take(near)
        why = self._foreign(near) or why or self._began_before(near)
        verdict = Verdict.UNVERIFIABLE if why else Verdict.DIFFERENT
        told = tuple(differences(placed, near))
        yield effect, self._finding(verdict, kind, identity, first, cause, _at(near), why, told)

    def _is_equal(self, effect: Effect, placed: Placed, published: Published) -> bool:
        if not differences(placed, published):
            return True
        forms = [placed, *(self._shortened(effect) if self._shortened is not None else ())]
        if isinstance(effect, DeadLetter) and not any(name == EVENT_NUMBER for name, _ in published.headers):
            forms = [_unnumbered(form) for form in forms]
        return any(not differences(form, published) for form in forms)

    def _judge_left(self, published: Published) -> Finding | None:
        """A published record that the range does not imply; None if it is not in scope."""
        first, cause = _offsets(published)
        at = _at(published)
        if first is None or cause is None:
            return self._extra(published, -1, -1, "its offsets cannot be read")
        if self._log_end is not None and cause >= self._log_end:
            return self._extra(published, first, cause, f"the log ends at {self._log_end}")
        if not self._begin <= cause < self._end:
            return None
        why = self._foreign(published)
        if not why and any(low <= cause <= high for low, high in self._lost):
            why = "records that it may hang on are missing"
        if not why:
            if published.kind is Kind.STEP:
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
        return Finding(Verdict.EXTRA, kind, self.state.partition, identity, first, cause, _at(published), why)

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
            return _MARKS
        if segment.complete:
            return ""
        if after_run:
            return _BEFORE
        if cause >= segment.crowded or first <= self._dead_from:
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
        return _MARKS if cause <= self._marks_from else "" if segment.complete else _BEFORE

    def _first_kept(self, topic: str) -> int:
        """The first cause that the topic's shortened partitions name, whichever of them; -1 if none is shortened."""
        return max((cause for (name, _), cause in self._kept_from.items() if name == topic), default=-1)

    def _deleted(self, placed: Placed, cause: int) -> str:
        """Whether retention may have taken what is not there."""
        if placed.partition is not None:
            from_cause = self._kept_from.get((placed.topic, placed.partition), -1)
        else:
            from_cause = self._first_kept(placed.topic)
        return "" if cause > from_cause else "the topic no longer holds its first records"

    def _began_before(self, published: Published) -> str:
        first, cause = _offsets(published)
        if first is None or cause is None or not self._begin <= cause:
            return ""
        segment = self._segment_of(min(cause, self._end))
        return "the step began before the range" if not segment.complete and first < segment.begin else ""

    def _segment_of(self, offset: int) -> _Segment:
        return next((s for s in reversed(self._segments) if s.begin <= offset), self._segments[0])

    def _foreign(self, published: Published) -> str:
        """Why a record made by another fold cannot be judged by this one; "" if it was made by this one."""
        headers = dict(published.headers)
        version = headers.get(VERSION)
        if version is not None and version.isdigit() and len(version) < 20 and int(version) != FOLD_VERSION:
            return f"fold version {int(version)}, this program has {FOLD_VERSION}"
        rules = headers.get(RULES)
        if published.kind is Kind.STEP and rules is not None and rules != self._rules_bytes:
            return "made under other [steps] settings"
        return ""

    def _finding(
        self,
        verdict: Verdict,
        kind: Kind,
        identity: tuple[str, str],
        first: int,
        cause: int,
        at: tuple[str, int, int] | None,
        why: str = "",
        told: tuple[Difference, ...] = (),
    ) -> Finding:
        return Finding(verdict, kind, self.state.partition, identity, first, cause, at, why, told)


def _unnumbered(placed: Placed) -> Placed:
    """A dead letter as it was before there was a header for the number of the event; its detail says the same."""
    headers = tuple(header for header in placed.headers if header[0] != EVENT_NUMBER)
    return msgspec.structs.replace(placed, headers=headers)


def _named(effect: Publish) -> tuple[int, int]:
    """(first offset, cause), as `_offsets` reads them."""
    headers = dict(effect.headers)
    mark = headers.get(CLOCK_MARK)
    cause = int(headers[LAST_OFFSET]) if mark is None else int(mark.partition(b"@")[2]) - 1
    return int(headers[FIRST_OFFSET]), cause


def _at(published: Published) -> tuple[str, int, int]:
    return published.topic, published.partition, published.offset


def _offsets(published: Published) -> tuple[int | None, int | None]:
    """(first, cause) that a published record names. A clock mark stands behind the record that it follows."""
    mark = mark_of(published)
    if published.kind is Kind.DEAD_LETTER:
        first: int | None = int(published.identity[0])
        last = first
    else:
        headers = dict(published.headers)
        first, last = _number(headers.get(FIRST_OFFSET)), _number(headers.get(LAST_OFFSET))
    return first, last if mark is None else mark[0] - 1


def began_at(published: Published) -> int | None:
    """The source offset at which a published step began, as its headers say."""
    return _offsets(published)[0]


def caused_at(published: Published) -> int | None:
    """The source offset of the record that caused it (of a clock mark: the offset before it), as its headers say."""
    return _offsets(published)[1]


def _nearest(candidates: list[Published], placed: Placed, kind: Kind, first: int, last: int) -> Published | None:
    """The one that was meant to be the implied record: an id may live twice, each time with revisions from 0 on."""
    if kind is Kind.DEAD_LETTER:
        # A record is refused once for a reason; of the snapshots that are too large it may have ended several, and a
        # deadline or a run's end may have met a bug in several steps.
        several = any(c.identity[1] in (Reason.SNAPSHOT_TOO_LARGE, Reason.INTERNAL_ERROR) for c in candidates)
        return next((c for c in candidates if not several or c.key == placed.key), None)
    for published in candidates:
        headers = dict(published.headers)
        named = _number(headers.get(FIRST_OFFSET)), _number(headers.get(LAST_OFFSET))
        if named[0] == first or named[1] == last:
            return published
    return None


def differences(expected: Placed, got: Published) -> list[Difference]:
    """Field by field; empty where every byte agrees."""
    if (
        expected.value == got.value
        and expected.key == got.key
        and expected.timestamp == got.timestamp
        and expected.topic == got.topic
        and expected.partition in (None, got.partition)
        and tuple(expected.headers) == got.headers
    ):
        return []
    found: list[Difference] = []
    for name in ("topic", "partition", "key", "timestamp"):
        left, right = getattr(expected, name), getattr(got, name)
        if left != right and not (name == "partition" and left is None):
            found.append(Difference(name, _short(left), _short(right)))
    found += _header_differences(expected.headers, got.headers)
    if expected.value != got.value:
        found += _value_differences(expected.value, got.value)
    return found


def _header_differences(expected: Headers, got: Headers) -> Iterator[Difference]:
    left, right = dict(expected), dict(got)
    for name in sorted(left.keys() | right.keys()):
        if name not in left or name not in right or left[name] != right[name]:
            yield Difference(
                f"header {shown(name)}", _short(left.get(name, "absent")), _short(right.get(name, "absent"))
            )
    if left == right and tuple(expected) != tuple(got):
        yield Difference("headers", "in this order", "in another order, or repeated")


def _value_differences(expected: bytes | None, got: bytes | None) -> list[Difference]:
    try:
        left, right = msgspec.json.decode(expected or b""), msgspec.json.decode(got or b"")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return [Difference("value", _short(expected), _short(got))]
    found = list(_json_differences("value", left, right))
    return found or [Difference("value", "canonical bytes", "the same JSON in other bytes")]


def _json_differences(path: str, left: Any, right: Any) -> Iterator[Difference]:
    if isinstance(left, dict) and isinstance(right, dict):
        for key in sorted(left.keys() | right.keys()):
            if key not in left or key not in right:
                yield Difference(f"{path}.{key}", _short(left.get(key, "absent")), _short(right.get(key, "absent")))
            else:
                yield from _json_differences(f"{path}.{key}", left[key], right[key])
    elif isinstance(left, list) and isinstance(right, list) and len(left) == len(right):
        for at, (one, other) in enumerate(zip(left, right, strict=True)):
            yield from _json_differences(f"{path}[{at}]", one, other)
    elif left != right or type(left) is not type(right):
        yield Difference(path, _short(left), _short(right))


def _short(value: object, limit: int = 120) -> str:
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text)} characters)"
