"""The fast path of run steps: decides about the usual events without the general form of event or step.

`FastPath.decide` changes no outcome; its caller (`fold.RunSteps`) does what was decided, with the same functions as
the slow path.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, Final

from processor.core.effects import Status
from processor.core.entry import Entry
from processor.core.learned_bytes import LearnedBytes
from processor.core.lifecycle import Kind
from processor.core.run_steps.compact_step import Ending, OpenedCall, opens_exactly
from processor.core.run_steps.delta_template import DeltaTemplate, is_plain, learn_template
from processor.core.run_steps.run_template import RunTemplates, named_run
from processor.core.run_steps.step import Step
from processor.core.run_steps.usual_events import (
    EventPrefix,
    ExactObject,
    exact,
    exact_object,
    general,
    named_event,
    run_event,
)
from processor.core.transitions import Transitions
from processor.core.wire_types import ExactData, Ignored, RunEnd, StepDelta, StepObject

_CREATED: Final = Kind.CREATED
_DELTA: Final = Kind.DELTA
_ID: Final = b'{"id":"'
_QUOTE: Final = 0x22
_MAX_TEMPLATES: Final = 64
"""How many are learned: one for each place of a text in each of the few ways in which producers write their JSON."""
NAMED: Final = b'{"event":'
"""What a value of the usual envelope begins with."""
_PATIENCE: Final = 32
"""So many calls in other envelopes may begin one after the other before the usual envelope is no more expected."""
_TEMPLATE_ATTEMPTS: Final = 64
"""How often learning one may fail before nothing more is learned."""


class Paths(Enum):
    """How events are folded."""

    FAST = "fast"
    """By the fast path where it decides, else by the slow path."""
    SLOW = "slow"
    """By the slow path alone."""
    BOTH = "both"
    """Every record both ways, in two states that are compared after each: to find bugs; several times slower."""


# --- decisions ----------------------------------------------------------------------------------------------


class Decision:
    """What is to be done about one event; a subclass says what."""

    __slots__ = ()


class AppendText(Decision):
    """Append a text at the place that `Step.text_of` has found. `event` is where its template may be learned from."""

    __slots__ = ("entry", "event", "step", "text")

    def __init__(self, entry: Entry, step: Step, event: ExactData, text: str) -> None:
        self.entry, self.step, self.event, self.text = entry, step, event, text


class OpenCall(Decision):
    """Begin a function call."""

    __slots__ = ("entry", "opened", "step")

    def __init__(self, entry: Entry, step: Step, opened: OpenedCall) -> None:
        self.entry, self.step, self.opened = entry, step, opened


class BeginStep(Decision):
    """Begin a step, in its compact form."""

    __slots__ = ("event",)

    def __init__(self, event: ExactObject) -> None:
        self.event = event


class EndStep(Decision):
    """End a step that did nothing unusual."""

    __slots__ = ("ending", "entry", "status", "step")

    def __init__(self, entry: Entry, step: Step, ending: Ending, status: Status) -> None:
        self.entry, self.step, self.ending, self.status = entry, step, ending, status


class TakeSlowPath(Decision):
    """Have the slow path fold the event, which has been read already."""

    __slots__ = ("event",)

    def __init__(self, event: StepDelta | StepObject | RunEnd | Ignored) -> None:
        self.event = event


# --- deciding -----------------------------------------------------------------------------------------------


class FastPath:
    """Decides about one event at a time."""

    __slots__ = ("_id_end", "_max_step_bytes", "_runs", "_transitions")

    def __init__(self, max_step_bytes: int, transitions: Transitions, runs: RunTemplates) -> None:
        self._runs = runs
        self._max_step_bytes, self._transitions = max_step_bytes, transitions
        self._id_end = len(_ID)
        """Where the id of the last object ended."""

    def decide(self, value: bytes, head: EventPrefix | None, offset: int, event_id: str | None) -> Decision | None:
        """What the event in `value` does, which begins with `head`; None: it is to be decoded."""
        if head is None:
            if not value.startswith(b"{"):  # SSE text, say, which names its event in front, too
                return None
            of_run = self._run_event(value)
            if of_run is not None:
                return TakeSlowPath(of_run)
        elif head.kind is not _DELTA:
            decision = self._of_object(value, head, offset, event_id)
            if decision is not None:
                return decision
            found = named_event(value)
            return TakeSlowPath(found) if type(found) is StepObject else None
        event = exact(value, head)
        whole: StepDelta | StepObject | None = None
        if type(event) is ExactData:
            decision = self.decide_delta(event, offset, event_id)
            if decision is not None:
                return decision
            whole = general(event)
        elif isinstance(event, ExactObject):
            whole = general(event)
        elif type(event) is StepObject:
            whole = event
        return None if whole is None else TakeSlowPath(whole)

    def _run_event(self, value: bytes) -> RunEnd | Ignored | None:
        named = named_run(value) if self._runs.is_used else None
        if named is None:
            return run_event(value)
        name, data = named
        found = self._runs.read(name, data)
        if found is None:
            found = run_event(value)
            if found is not None:
                self._runs.learn(name, data, found)
        return found

    def decide_delta(self, event: ExactData, offset: int, event_id: str | None) -> Decision | None:
        """A delta that adds text to a call, or begins one."""
        entry = self._transitions.steps.get(event.id)
        step = None if entry is None else entry.step
        if entry is None or not isinstance(step, Step) or offset < entry.applied_below:
            return None
        text = step.text_of(event)
        if text is not None:
            fits = step.has_room(len(text), self._max_step_bytes, event_id)
            return AppendText(entry, step, event, text) if fits else None
        opened = step.call_of(event, self._max_step_bytes, event_id)
        return None if opened is None else OpenCall(entry, step, opened)

    def _of_object(self, value: bytes, head: EventPrefix, offset: int, event_id: str | None) -> Decision | None:
        """An object that opens a step, or ends one that did nothing unusual."""
        if len(value) > self._max_step_bytes:
            return None
        transitions, kind, data = self._transitions, head.kind, value[head.data : -1]
        entry = transitions.steps.get(self.id_in(data))
        if entry is None:
            return self._of_created(data, offset) if kind is _CREATED else None
        step = entry.step
        if not isinstance(step, Step) or offset < entry.applied_below or step.has_folded(event_id):
            return None
        status = head.status
        ending = None if status is None else step.ending_of(data, kind, status)
        return None if ending is None or status is None else EndStep(entry, step, ending, status)

    def id_in(self, data: bytes) -> str:
        """The id that a step object says first; "" where it begins otherwise. Its object has yet to be read."""
        if not data.startswith(_ID):
            return ""
        end = self._id_end
        if end < len(data) and data[end] == _QUOTE:  # a look costs less than to search
            found = data[len(_ID) : end]
            if _QUOTE not in found:
                return found.decode("latin-1")
        end = data.find(b'"', len(_ID))
        if end < 0:  # and so no bound of a slice: one that ends before it begins is an error in a compiled program
            return ""
        self._id_end = end
        return data[len(_ID) : end].decode("latin-1")

    def _of_created(self, data: bytes, offset: int) -> Decision | None:
        transitions = self._transitions
        if transitions.is_full():
            return None
        event = exact_object(data, _CREATED)
        if event is None or not opens_exactly(event):
            return None
        step_id = event.step_id
        if step_id in transitions.steps or transitions.retention.is_gone(step_id, offset):
            return None
        return BeginStep(event)


# --- templates ----------------------------------------------------------------------------------------------


class Templates:
    """The delta templates of a partition's producers. `head` is of the one last seen, b"" if there is none."""

    __slots__ = ("_at_head", "_attempts", "_by_head", "_latest", "_learned", "_patience", "head", "id_end", "known")

    def __init__(self, learned: LearnedBytes) -> None:
        self._learned = learned
        self.known: list[DeltaTemplate] = []
        self._by_head: dict[bytes, dict[Any, DeltaTemplate]] = {}
        """By head and key of the place."""
        self._at_head: dict[Any, DeltaTemplate] = {}
        self._latest: DeltaTemplate | None = None
        """The one of this head that was taken last."""
        self._attempts = _TEMPLATE_ATTEMPTS
        self._patience = 0
        """For how many more calls whose deltas come in another envelope the usual one is expected."""
        self.head = b""
        self.id_end = 0
        """Where the id ends behind `head`, if it is as long as the last one was."""

    def expect(self, step: Step, *, is_known_plain: bool = False) -> None:
        """A call has begun: its deltas may match a known template. `is_known_plain`: that its id needs no escape."""
        place, known = step.text_place(), self._latest
        if place is None:
            return
        if known is None or known.place is not place:
            known = self._at_head.get(place.key)
        if known is not None and (is_known_plain or is_plain(step.step_id)):
            step.use_template(known)
            self._latest = known

    def expect_usual(self, step: Step) -> bool:
        """`expect` the usual envelope in spite of a delta in another one; False: it is no more to be expected."""
        if self._patience == 0:
            return False
        self._patience -= 1
        self.expect(step, is_known_plain=True)
        return True

    @property
    def may_learn(self) -> bool:
        """Whether there is room for more of them, and few attempts failed."""
        return self._attempts > 0 and len(self.known) < _MAX_TEMPLATES

    def find(self, step: Step, value: bytes) -> bool:
        """Have a step use the template by which a delta is known that was just added to it; False: there is none."""
        place = step.text_place()
        if place is None:
            return False
        for head, at_head in self._by_head.items():
            if value.startswith(head):
                known = at_head.get(place.key)
                if known is None or not known.fits(value):
                    return False
                self._use(step, known)
                return True
        return False

    def learn(self, step: Step, value: bytes, event: ExactData, read: Callable[[bytes], ExactData]) -> None:
        """Learn the template of the delta that has just been added to the step; `read` gives the delta in a value."""
        place = step.text_place()
        if place is None or not is_plain(event.id):
            return
        known = next((known for known in self.known if known.fits(value)), None)
        if known is not None:
            # Of a name that is there twice the first is where the template has it, and the last counts.
            if known.place.key == place.key:
                self._use(step, known)
            return
        if not self.may_learn:
            return
        found = learn_template(value, event, place, read)
        if found is None or not self._learned.take(found.size()):
            self._attempts -= 1
            return
        for known in self.known:
            if known.head == found.head:
                found.head = known.head  # compared by identity, not equality, for speed
        self.known.append(found)
        self._by_head.setdefault(found.head, {}).setdefault(found.place.key, found)
        self._use(step, found)

    def _use(self, step: Step, template: DeltaTemplate) -> None:
        step.use_template(template)
        self.head, self._latest = template.head, template
        self._at_head = self._by_head[template.head]
        self.id_end = len(template.head) + len(step.step_id)
        if template.head.startswith(NAMED):
            self._patience = _PATIENCE
