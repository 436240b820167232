"""The objects of a step, and the deltas that begin its calls, folded by templates (`object_template`).

Each method decides and does in one: False says that nothing is changed, and that the value has to be read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from processor.core.effects import Status
from processor.core.entry import Cause, Entry
from processor.core.lifecycle import Kind
from processor.core.named_events import MAX_ID
from processor.core.run_steps.compact_step import Ending
from processor.core.run_steps.event_ids import id_text
from processor.core.run_steps.fast_path import FastPath, Templates
from processor.core.run_steps.object_template import (
    BeginTemplate,
    CallTemplate,
    EndTemplate,
    has_template,
    learn_begin,
    learn_call,
    learn_end,
)
from processor.core.run_steps.step import Step
from processor.core.run_steps.usual_events import PREFIXES, EventPrefix, ExactObject
from processor.core.transitions import Transitions

if TYPE_CHECKING:
    from mypy_extensions import i64  # for the compiler alone

_CREATED: Final = Kind.CREATED
_IN_PROGRESS: Final = Kind.IN_PROGRESS
_DELTA: Final = Kind.DELTA
_COMPLETED: Final = Status.COMPLETED
REPEATS: Final = b'{"event":"thread.run.step.in_progress","data":'
"""What an object begins with that mostly says what `created` said."""
_MAX_TEMPLATES: Final = 16
"""How many of each sort are learned: producers write their JSON in few ways."""
_ATTEMPTS: Final = 64
"""How often learning one may fail before nothing more is learned."""


class ObjectPath:
    """Folds what matches a template into the steps of one partition. `begun` and others count since they were read."""

    __slots__ = (
        "_attempts",
        "_begins",
        "_calls",
        "_ends",
        "_expires_at",
        "_fast",
        "_learned",
        "_max_step_bytes",
        "_templates",
        "_told",
        "_transitions",
        "begun",
        "completed",
        "opened",
        "repeated",
    )

    def __init__(self, max_step_bytes: int, transitions: Transitions, fast: FastPath, templates: Templates) -> None:
        self._max_step_bytes, self._transitions = max_step_bytes, transitions
        self._fast, self._templates, self._learned = fast, templates, transitions.learned
        self._begins: list[BeginTemplate] = []
        self._calls: list[CallTemplate] = []
        self._ends: list[list[EndTemplate]] = [[] for _ in range(PREFIXES)]
        self._attempts = _ATTEMPTS
        self._told, self._expires_at = b"", 0
        """The last number that said when a step expires, and its value: mostly that of the next, too."""
        self.begun = self.opened = self.repeated = self.completed = 0

    def apply(self, value: bytes, head: EventPrefix, cause: Cause, event_id: str | None) -> bool:
        """Fold a value that begins with `head`."""
        kind = head.kind
        if kind is _DELTA:
            return self._open_call(value, cause, event_id)
        if len(value) > self._max_step_bytes:
            return False
        if kind is _IN_PROGRESS:
            return self.repeat(value, head.data, cause.offset, cause.before_ms, event_id)
        if kind is _CREATED:
            return self._begin(value, head, cause, event_id)
        return self._end(value, head, cause, event_id)

    def _begin(self, value: bytes, head: EventPrefix, cause: Cause, event_id: str | None) -> bool:
        transitions = self._transitions
        for template in self._begins:
            cuts = template.shape.cut(value)
            if cuts is None:
                continue
            step_id = cuts[template.id_at].decode("ascii")
            if (
                not 0 < len(step_id) <= MAX_ID
                or step_id in transitions.steps
                or transitions.is_full()
                or transitions.retention.is_gone(step_id, cause.offset)
            ):
                return False
            step = Step(step_id, cause.offset, transitions.stream_time // 1000)
            entry = transitions.begin(step, cause)
            step.begin_by(template, cuts, value[head.data : -1], len(value))
            expires_at = template.expires_at
            if template.number_at >= 0:
                told = cuts[template.number_at]
                if told != self._told:
                    self._told, self._expires_at = told, int(told)
                expires_at = self._expires_at
            transitions.opened(entry, step, cause, event_id, expires_at)
            self.begun += 1
            return True
        return False

    def repeat_spelled(self, value: bytes, offset: int, before_ms: int, event_id: bytes | None) -> bool:
        """`repeat` for a value that begins with `REPEATS`."""
        return self.repeat(value, len(REPEATS), offset, before_ms, None if event_id is None else id_text(event_id))

    def repeat(self, value: bytes, data_at: int, offset: int, before_ms: int, event_id: str | None) -> bool:
        """Count an `in_progress` that says to the letter what the step began with: deadline and run are known.

        Its data begins at `data_at`.
        """
        size = len(value)
        data = value[data_at:-1] if size > data_at else b""
        entry = self._transitions.steps.get(self._fast.id_in(data))
        step = None if entry is None else entry.step
        if entry is None or not isinstance(step, Step) or not step.is_repeated_by(data) or not value.endswith(b"}"):
            return False
        if (
            offset < entry.applied_below
            or step.has_folded(event_id)
            or size > self._max_step_bytes
            or step.size_with(size, 0) > self._max_step_bytes
        ):
            return False
        transitions = self._transitions
        transitions.touch_at(entry, offset, before_ms)
        step.repeat_exact(size)
        transitions.folded_at(step, offset, event_id)
        self.repeated += 1
        return True

    def _open_call(self, value: bytes, cause: Cause, event_id: str | None) -> bool:
        transitions = self._transitions
        for template in self._calls:
            cuts = template.shape.cut(value)
            if cuts is None:
                continue
            entry = transitions.steps.get(cuts[template.id_at].decode("ascii"))
            step = None if entry is None else entry.step
            if entry is None or not isinstance(step, Step) or cause.offset < entry.applied_below:
                return False
            opened = step.call_by(template, cuts, self._max_step_bytes, event_id)
            if opened is None:
                return False
            step.open_call(opened)
            transitions.folded(step, cause, event_id)
            self._templates.expect(step, is_known_plain=True)
            if entry.dirty_from < 0:
                transitions.retention.mark_dirty(entry, cause.offset, cause.before_ms)
            self.opened += 1
            return True
        return False

    def _end(self, value: bytes, head: EventPrefix, cause: Cause, event_id: str | None) -> bool:
        transitions, status = self._transitions, head.status
        assert status is not None
        for template in self._ends[head.number]:
            entry: Entry | None = None
            ending: Ending | None = None
            shared = template.shared
            if shared is not None:
                begin: i64 = head.data
                # Whatever stands there: what is found for it was begun by an object that says the same id so.
                entry = transitions.steps.get(value[begin + shared.id_at : begin + shared.id_end].decode("latin-1"))
                step = None if entry is None else entry.step
                if entry is not None and isinstance(step, Step) and _is_new(entry, step, cause.offset, event_id):
                    ending = step.ending_behind(template, shared, value, begin)
            if ending is None:
                cuts = template.shape.cut(value)
                if cuts is None:
                    continue
                entry = transitions.steps.get(cuts[template.id_at].decode("ascii"))
                _share(template, entry)
                step = None if entry is None else entry.step
                if entry is not None and isinstance(step, Step) and _is_new(entry, step, cause.offset, event_id):
                    ending = step.ending_by(template, cuts)
            if entry is None or not isinstance(step, Step) or ending is None:
                return False
            step.end_exact(ending, status, len(value))
            transitions.touch(entry, cause)
            transitions.ended(entry, step, cause, event_id)
            if status is _COMPLETED:
                self.completed += 1
            else:
                transitions.counts[status.value] += 1
            return True
        return False

    # --- learning -------------------------------------------------------------------------------------------

    def learn_begin(self, value: bytes, head: EventPrefix, event: ExactObject) -> None:
        """Learn from an object that has just begun a step."""
        if self._may_learn(len(self._begins)):
            found = learn_begin(value, head.data, event)
            if found is None or not self._learned.take(found.shape.size()):
                self._attempts -= 1
            else:
                self._begins.append(found)

    def learn_call(self, value: bytes) -> None:
        """Learn from a delta that has just begun a call."""
        if self._may_learn(len(self._calls)):
            found = learn_call(value)
            if found is None or not self._learned.take(found.shape.size()):
                self._attempts -= 1
            else:
                self._calls.append(found)

    def learn_end(self, value: bytes, head: EventPrefix) -> None:
        """Learn from an object that has just ended a step."""
        ends = self._ends[head.number]
        if self._may_learn(len(ends)) and has_template(value[head.data : -1]):
            found = learn_end(value, head.data)
            if found is None or not self._learned.take(found.shape.size()):
                self._attempts -= 1
            else:
                found.learned = found.outlines.learned = self._learned
                ends.append(found)

    def _may_learn(self, known: int) -> bool:
        return known < _MAX_TEMPLATES and self._attempts > 0


def _is_new(entry: Entry, step: Step, offset: int, event_id: str | None) -> bool:
    """Whether neither a checkpoint nor the step has an event."""
    return offset >= entry.applied_below and not step.has_folded(event_id)


def _share(template: EndTemplate, entry: Entry | None) -> None:
    """Have a template know how the next such step begins, if as this one."""
    step = None if entry is None else entry.step
    form = step.compact_form if isinstance(step, Step) else None
    if form is not None and form.begun_by is not None:
        template.share(form.begun_by, form.lengths)
