"""Run-step events: one record of them is folded here, by the fast path where it decides, else by the slow path."""

from __future__ import annotations

from typing import Final

import msgspec

from processor.core.effects import Headers, Record, Rejected, Status
from processor.core.endings import Endings
from processor.core.entry import Cause, Entry
from processor.core.events import EVENT_ID, RUN_ID, decode, run_named
from processor.core.growing_text import inside, length_of
from processor.core.observer import Observer
from processor.core.quarantine import Quarantine
from processor.core.responses.decode import MAX_RESPONSE_ID
from processor.core.responses.event import ResponseEvent
from processor.core.responses.fold import ResponseFold
from processor.core.responses.response import entry_key
from processor.core.rules import Rules
from processor.core.run_steps.fast_path import (
    AppendText,
    BeginStep,
    Decision,
    EndStep,
    FastPath,
    OpenCall,
    RepeatObject,
    TakeSlowPath,
    Templates,
)
from processor.core.run_steps.slow_path import SlowPath
from processor.core.run_steps.step import Step
from processor.core.run_steps.usual_events import EXPIRES_AT
from processor.core.transitions import Transitions
from processor.core.wire_types import StepDelta, StepObject, read_text

SPECIAL: Final = "\0"
"""In place of an event id: headers that hold an envelope."""
_SEQUENCE: Final = "runstep-sequence"
_COMPLETED: Final = Status.COMPLETED
_read_text: Final = read_text


class RunSteps:
    """Folds records of run-step events into the steps of one partition.

    Args:
        uses_fast_path: else every record is decoded and folded by the slow path.
    """

    __slots__ = (
        "_fast",
        "_max_step_bytes",
        "_slow",
        "_transitions",
        "_uses_fast_path",
        "_with_frames",
        "appended",
        "begun",
        "completed",
        "repeated",
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
        self._fast = FastPath(rules.max_step_bytes, transitions)
        self._slow = SlowPath(rules, transitions, quarantine, endings, responses, observer)
        self._uses_fast_path = uses_fast_path
        self._with_frames = rules.schema_frames
        self.templates = Templates()
        self.appended = self.begun = self.repeated = self.completed = 0
        """How many of the commonest events the fast path has folded since `flush_counts`."""

    def append_match(self, value: bytes, offset: int, before_ms: int, event_id: str | None) -> bool:
        """Append the text of a delta that matches a template, for an open step, its id as long as the last.

        That is what most records are. The value begins with `templates.head`. Only an id of ASCII that stands in JSON
        as it is has a template: no other bytes read as it. False, and nothing is changed, if it is another event.
        """
        templates, transitions = self.templates, self._transitions
        head, id_end = templates.head, templates.id_end
        entry = transitions.steps.get(value[len(head) : id_end].decode("latin-1"))
        if entry is None or offset < entry.applied_below:
            return False
        step = entry.step
        if not isinstance(step, Step):
            return False
        template = step.template
        if template is None or template.head is not head:
            return False
        middle, tail = template.middle, template.tail
        begin, end = id_end + len(middle), len(value) - len(tail)
        if begin > end or value[id_end:begin] != middle or not value.endswith(tail):
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
            transitions.retention.mark_dirty(entry, offset, before_ms)
        self.appended += 1
        return True

    def apply_record(self, cause: Cause, record: Record, event_id: str | None) -> None:
        """Fold all events of a record. `event_id` is what `plain_id` says of its headers."""
        value = record.value
        if value and event_id is not SPECIAL and self._uses_fast_path:
            decision = self._fast.decide(value, cause.offset, event_id)
            if decision is not None:
                self._perform(decision, cause, value, event_id)
                return
        decoded = decode(value, record.headers, self._with_frames)
        if isinstance(decoded, Rejected):
            self._transitions.reject(cause, decoded)
            return
        total = len(decoded.events)
        for number, (found, own_id) in enumerate(zip(decoded.events, decoded.ids, strict=True), 1):
            self._slow.apply_event(cause, found, own_id, f"{number}/{total}" if total > 1 else "")

    def _perform(self, decision: Decision, cause: Cause, value: bytes, event_id: str | None) -> None:
        """Do what the fast path has decided."""
        transitions = self._transitions
        if isinstance(decision, AppendText):
            step = decision.step
            text = decision.text
            step.append_text(inside(text), len(text), self._max_step_bytes, event_id)
            self.templates.learn(step, value, decision.event)
            self._note_delta(decision.entry, step, cause)
        elif isinstance(decision, TakeSlowPath):
            self._slow.apply_event(cause, decision.event, event_id, "")
        elif isinstance(decision, OpenCall):
            step = decision.step
            step.open_call(decision.opened)
            transitions.folded(step, cause, event_id)
            self.templates.expect(step)
            self._note_delta(decision.entry, step, cause)
        elif isinstance(decision, BeginStep):
            event = decision.event
            step = Step(event.step_id, cause.offset, transitions.stream_time // 1000)
            entry = transitions.begin(step, cause)
            step.begin_exact(event, len(value))
            transitions.opened(entry, step, cause, event_id, event.told[EXPIRES_AT])
            self.begun += 1
        elif isinstance(decision, EndStep):
            step = decision.step
            step.end_exact(decision.ending, decision.status, len(value))
            transitions.touch(decision.entry, cause)
            transitions.ended(decision.entry, step, cause, event_id)
            if decision.status is _COMPLETED:
                self.completed += 1
            else:
                transitions.counts[decision.status.value] += 1
        else:
            assert isinstance(decision, RepeatObject)
            transitions.touch(decision.entry, cause)
            decision.step.repeat_exact(len(value))
            transitions.folded(decision.step, cause, event_id)
            self.repeated += 1

    def _note_delta(self, entry: Entry, step: Step, cause: Cause) -> None:
        step.last_offset = cause.offset
        if entry.dirty_from < 0:
            self._transitions.retention.mark_dirty(entry, cause.offset, cause.before_ms)
        self.appended += 1

    def flush_counts(self) -> None:
        """Add what the fast path has counted to the counts of all events."""
        counts = self._transitions.counts
        for name, number in (
            ("delta", self.appended),
            ("created", self.begun),
            ("in_progress", self.repeated),
            ("completed", self.completed),
        ):
            if number:
                counts[name] += number
        self.appended = self.begun = self.repeated = self.completed = 0


def plain_id(headers: Headers) -> str | None:
    """The event id among headers that change nothing else; `SPECIAL` if they hold an envelope."""
    if len(headers) == 3 and headers[1][0] == RUN_ID and headers[2][0] == _SEQUENCE:  # as `publish` writes them
        name, content = headers[0]
        if name == EVENT_ID and content is not None and len(content) > 0 and (found := _as_ascii(content)):
            return found
    return _plain_id(headers)


def _as_ascii(content: bytes) -> str:
    """A text of ASCII; "" of any other."""
    try:
        return content.decode("ascii")
    except UnicodeDecodeError:
        return ""


def _plain_id(headers: Headers) -> str | None:
    found: str | None = None
    for name, content in headers:
        if name == EVENT_ID:
            if not content:
                found = None
            elif content.isascii():
                found = content.decode("latin-1")
            else:
                found = content.decode("utf-8", "backslashreplace")
        elif name in (RUN_ID, _SEQUENCE):  # the others that `publish` writes
            continue
        elif name[:3].lower() == "ce_" or name.lower() in ("content-type", EVENT_ID):
            return SPECIAL
    return found


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
