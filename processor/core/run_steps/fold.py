"""Run-step events: one record of them is folded here, by the fast path where it decides, else by the slow path."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from processor.core.effects import Record, Rejected
from processor.core.endings import Endings
from processor.core.entry import Cause, Entry
from processor.core.event_headers import SPECIAL
from processor.core.events import decode, run_named
from processor.core.exact_events import ExactEvent
from processor.core.growing_text import inside, length_of
from processor.core.lifecycle import Kind
from processor.core.observer import Observer
from processor.core.quarantine import Quarantine
from processor.core.responses.decode import MAX_RESPONSE_ID
from processor.core.responses.event import ResponseEvent
from processor.core.responses.fold import ResponseFold
from processor.core.responses.response import entry_key
from processor.core.rules import Rules
from processor.core.run_steps.delta_template import read_named
from processor.core.run_steps.event_ids import id_text
from processor.core.run_steps.exact_fold import ExactFold, general
from processor.core.run_steps.exact_reader import DataReader, TextDelta
from processor.core.run_steps.fast_path import (
    NAMED,
    AppendText,
    BeginStep,
    Decision,
    EndStep,
    FastPath,
    OpenCall,
    TakeSlowPath,
    Templates,
)
from processor.core.run_steps.lone_delta import is_alone, read_alone
from processor.core.run_steps.object_path import ObjectPath
from processor.core.run_steps.slow_path import SlowPath
from processor.core.run_steps.step import Step
from processor.core.run_steps.usual_events import EventPrefix, prefix_of
from processor.core.transitions import Transitions
from processor.core.wire_types import Decoded, StepDelta, StepObject, exact_data, read_text

if TYPE_CHECKING:
    from mypy_extensions import i64  # for the compiler alone

_DELTA: Final = Kind.DELTA
_read_text: Final = read_text
_RECENT: Final = 2_048
"""How many entries are found again without their names: a power of two."""


class RunSteps:
    """Folds records of run-step events into the steps of one partition.

    Args:
        uses_fast_path: else every record is decoded and folded by the slow path.
    """

    __slots__ = (
        "_exact",
        "_fast",
        "_max_step_bytes",
        "_reader",
        "_recent",
        "_slow",
        "_transitions",
        "_uses_fast_path",
        "_with_frames",
        "appended",
        "objects",
        "templates",
    )

    def __init__(
        self,
        rules: Rules,
        transitions: Transitions,
        quarantine: Quarantine,
        endings: Endings,
        responses: ResponseFold,
        observer: Observer | None,
        *,
        uses_fast_path: bool,
    ) -> None:
        self._max_step_bytes = rules.max_step_bytes
        self._transitions = transitions
        self._reader = DataReader(transitions.learned)
        self._fast = FastPath(rules.max_step_bytes, transitions, self._reader.runs)
        self._slow = SlowPath(rules, transitions, quarantine, endings, responses, observer)
        self._uses_fast_path = uses_fast_path
        self._with_frames = rules.schema_frames
        self._recent: list[Entry | None] = [None] * _RECENT
        self.templates = Templates(transitions.learned)
        self.objects = ObjectPath(rules.max_step_bytes, transitions, self._fast, self.templates)
        self._exact = ExactFold(rules.max_step_bytes, transitions, quarantine, self._fast, self.objects)
        self.appended = 0
        """How many deltas the fast path has folded since `flush_counts`."""

    def append_match(self, value: bytes, offset: int, before_ms: int, event_id: bytes | None) -> bool:
        """Append the text of a delta that matches a template, for an open step.

        That is what most records are; it costs least where ids are as long as the last. The value begins with
        `templates.head`. False, and nothing is changed, if it is another event.
        """
        id_end: i64 = self.templates.id_end
        size: i64 = len(value)
        if size <= id_end:
            return False
        # The step may be one that had a delta before. Whichever is tried: its prefix says whether it is the one.
        last: i64 = value[id_end - 1]
        one: i64 = value[id_end - 2]
        other: i64 = value[id_end - 3]
        slot: i64 = (last * 31 + one) * 31 + other & _RECENT - 1
        entry = self._recent[slot]
        step = None if entry is None else entry.step
        if entry is None or not isinstance(step, Step) or not step.prefix or not value.startswith(step.prefix):
            begin_of_id: i64 = len(self.templates.head)
            id_end = value.find(b'"', begin_of_id)
            if id_end < 0:
                return False
            self.templates.id_end = id_end
            entry = self._transitions.steps.get(value[begin_of_id:id_end].decode("latin-1"))
            step = None if entry is None else entry.step
            if entry is None or not isinstance(step, Step) or not value.startswith(step.prefix):
                return False
            self._recent[slot] = entry
        template = step.template
        if template is None or offset < entry.applied_below:
            return False
        begin: i64 = len(step.prefix)
        end: i64 = size - len(template.tail)
        if begin > end or not value.endswith(template.tail):
            return False
        length = length_of(value, begin, end)
        if length >= 0:
            piece = value[begin:end]
        else:
            try:
                text = _read_text(value[begin - 1 : end + 1])
            except (msgspec.MsgspecError, UnicodeDecodeError):
                return False
            piece, length = inside(text), len(text)
        if not step.append_text(piece, length, self._max_step_bytes, event_id):
            return False
        step.last_offset = offset
        if entry.dirty_from < 0:
            self._transitions.retention.mark_dirty(entry, offset, before_ms)
        self.appended += 1
        return True

    def apply_record(self, cause: Cause, record: Record, value: bytes | None, plain_id: bytes | None) -> None:
        """Fold all events of a record. `plain_id`: what `event_headers.plain_id` says of its headers."""
        if value and plain_id is not SPECIAL and self._uses_fast_path:
            event_id = None if plain_id is None else id_text(plain_id)
            head = prefix_of(value)
            if head is not None:
                found: TextDelta | None = None
                if head.kind is _DELTA and self._reader.known:
                    found = self._reader.text_delta(value[head.data : -1])
                    if found is not None and self._exact.append(cause, found, plain_id):
                        self._learn(found, value)
                        return
                if found is None and self.objects.apply(value, head, cause, event_id):
                    return
            decision = self._fast.decide(value, head, cause.offset, event_id)
            if decision is not None:
                self._perform(decision, cause, value, head, event_id)
                return
        # A delta that begins with its name was found to have no exact shape.
        asks_exact = self._uses_fast_path and (not value or plain_id is SPECIAL or not value.startswith(NAMED))
        decoded = decode(value, record.headers, self._with_frames, self._reader if asks_exact else None)
        if type(decoded) is Rejected:
            self._transitions.reject(cause, decoded)
            return
        assert type(decoded) is Decoded
        events, ids = decoded.events, decoded.ids
        total = len(events)
        for at in range(total):
            event, own_id = events[at], ids[at]
            if isinstance(event, ExactEvent):
                if self._exact.apply(cause, event, own_id, at + 1, total):
                    if isinstance(event, TextDelta):
                        self._learn_alone(event, value if total == 1 and plain_id is not SPECIAL else None)
                    continue
                event = general(event)
            self._slow.apply_event(cause, event, own_id, f"{at + 1}/{total}" if total > 1 else "")

    def _learn(self, found: TextDelta, value: bytes) -> None:
        """Have the step of a delta expect others like this value, of the usual envelope."""
        step = self._unexpecting(found)
        if step is not None and not self.templates.find(step, value) and self.templates.may_learn:
            self.templates.learn(step, value, exact_data(found.data), read_named)

    def _learn_alone(self, found: TextDelta, value: bytes | None) -> None:
        """The same for a delta that came in another envelope; `value` is None where others or headers came with it."""
        step = self._unexpecting(found)
        if step is None:
            return
        if value is None:
            self.templates.expect(step, is_known_plain=True)
            return
        if self.templates.expect_usual(step) or self.templates.find(step, value):
            return
        if self.templates.may_learn and is_alone(value):
            self.templates.learn(step, value, exact_data(found.data), read_alone)

    def _unexpecting(self, found: TextDelta) -> Step | None:
        """The step of a delta, if it has no template for the next one."""
        entry = self._transitions.steps.get(found.step_id)
        step = None if entry is None else entry.step
        return step if isinstance(step, Step) and step.template is None else None

    def _perform(
        self, decision: Decision, cause: Cause, value: bytes, head: EventPrefix | None, event_id: str | None
    ) -> None:
        """Do what the fast path has decided."""
        transitions = self._transitions
        if isinstance(decision, AppendText):
            step = decision.step
            text = decision.text
            own_id = None if event_id is None else event_id.encode()
            step.append_text(inside(text), len(text), self._max_step_bytes, own_id)
            self.templates.learn(step, value, decision.event, read_named)
            self._note_delta(decision.entry, step, cause)
        elif isinstance(decision, TakeSlowPath):
            self._slow.apply_event(cause, decision.event, event_id, "")
        elif isinstance(decision, OpenCall):
            step = decision.step
            step.open_call(decision.opened)
            transitions.folded(step, cause, event_id)
            self.templates.expect(step)
            self._note_delta(decision.entry, step, cause)
            self.objects.learn_call(value)
        elif isinstance(decision, BeginStep):
            self._exact.begin(decision.event, cause, event_id, len(value))
            if head is not None:
                self.objects.learn_begin(value, head, decision.event)
        else:
            assert isinstance(decision, EndStep)
            self._exact.end(
                decision.entry, decision.step, decision.ending, decision.status, cause, event_id, len(value)
            )
            if head is not None:
                self.objects.learn_end(value, head)

    def _note_delta(self, entry: Entry, step: Step, cause: Cause) -> None:
        step.last_offset = cause.offset
        if entry.dirty_from < 0:
            self._transitions.retention.mark_dirty(entry, cause.offset, cause.before_ms)
        self.appended += 1

    def flush_counts(self) -> None:
        """Add what the fast path has counted to the counts of all events."""
        counts, objects = self._transitions.counts, self.objects
        for name, number in (
            ("delta", self.appended + self._exact.appended + objects.opened),
            ("created", objects.begun),
            ("in_progress", objects.repeated),
            ("completed", objects.completed),
        ):
            if number:
                counts[name] += number
        self.appended = self._exact.appended = objects.opened = objects.begun = objects.repeated = objects.completed = 0


def step_named(record: Record, with_frames: bool) -> str | None:
    """The step that the first event of a record names, as far as the record can be read."""
    try:
        decoded = decode(record.value, record.headers, with_frames)
    except MemoryError:
        raise
    except Exception:
        return None
    if isinstance(decoded, Rejected):
        return None
    for event in decoded.events:
        if isinstance(event, StepDelta | StepObject):
            return event.step_id
        if isinstance(event, ResponseEvent):
            response_id = run_named(record.key, record.headers, MAX_RESPONSE_ID)
            return None if response_id is None else entry_key(response_id)
    return None
