"""One step as it stands, and what each event does to it. Status is decided in `lifecycle`, merging in `merge`."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import UNSET

from processor.core.checkpoint_format import Inference
from processor.core.delta_template import DeltaTemplate, learn_template
from processor.core.effects import Reason, Rejected, Status
from processor.core.lifecycle import ORPHANING, RUN_ENDS
from processor.core.merge import (
    MAX_INDEX,
    NULL_SIZE,
    SHORT,
    Indexed,
    Notes,
    Text,
    Tree,
    adopt,
    bad_index,
    characters,
    fill,
    finish,
    merge_delta,
    pack,
    plain,
    unpack,
)
from processor.core.wire_types import (
    ExactData,
    ExactFunction,
    ExactObject,
    ExactStep,
    ExactTool,
    RunEnd,
    StepDelta,
    StepObject,
    canonical,
    canonical_step,
    read_any,
    read_exact_step,
)

# fmt: off
SCHEMA_KEYS: Final = (
    "id", "object", "created_at", "assistant_id", "thread_id", "run_id", "type", "status", "step_details",
    "last_error", "expired_at", "cancelled_at", "failed_at", "completed_at", "metadata",
)
"""Every published snapshot has these; null where nothing is known."""
# fmt: on

_KEPT_OVER_NULL: Final = frozenset({"run_id", "thread_id", "assistant_id", "created_at", "type", "step_details"})
"""What even an ending object cannot erase with a null."""

MAX_EXPIRES_AT: Final = 1 << 40
_NONE: Final[frozenset[str]] = frozenset()
_UNMADE: Final[dict[str, Any]] = {}
"""Stands for a dictionary that was not made yet."""
_BLANK: Final[dict[str, Any]] = dict.fromkeys(SCHEMA_KEYS)
_UNSET: Final = UNSET
_FUNCTION: Final = "function"
_astuple: Final = msgspec.structs.astuple
_EXACT_NAMES: Final = ExactStep.__struct_fields__
_SCHEMA_BITS: Final = sum(1 << n for n, name in enumerate(_EXACT_NAMES) if name in _BLANK)
_KEPT_BITS: Final = sum(1 << n for n, name in enumerate(_EXACT_NAMES) if name in _KEPT_OVER_NULL)


class Call:
    """A function call of a step that is not materialised: what its first delta said, and its arguments so far."""

    __slots__ = ("call_id", "kind", "name", "says_output", "text")

    def __init__(self, call_id: str, kind: str, name: str, text: Text, *, says_output: bool) -> None:
        self.call_id, self.kind, self.name, self.text = call_id, kind, name, text
        self.says_output = says_output

    def entry(self) -> Tree:
        """As the tree has it."""
        function: Tree = {"name": self.name, "arguments": self.text}
        if self.says_output:
            function["output"] = None
        return {"type": self.kind, "id": self.call_id, "function": function}


class Step:
    """A step that is remembered as an object: open, or ended and being amended.

    `tree` is `step_details` (see `core.merge`), `fields` all else that step objects said. Times in seconds of stream
    time.

    While a step does only what nearly all steps do, neither is made. What it began with is kept as its JSON
    (`_opening`), function calls as `Call`s, call n at index n; an end is merged into the structure that it came in
    (`_ending`). Asking for `tree` or `fields` materialises it, and whatever the fast path does not accept asks.
    """

    __slots__ = (
        "_absent",
        "_calls",
        "_ending",
        "_fields",
        "_opening",
        "_published",
        "_run_id",
        "_text",
        "_text_body",
        "_text_index",
        "_text_kind",
        "_texts",
        "_tree",
        "_type",
        "anomalies",
        "characters",
        "events",
        "first_offset",
        "inference",
        "irregular",
        "last_offset",
        "object_bytes",
        "opened_s",
        "oversize",
        "revision",
        "seen",
        "status",
        "step_id",
        "template",
        "trace",
        "usable_expires_at",
    )

    def __init__(self, step_id: str, offset: int, opened_s: int) -> None:
        self.step_id = step_id
        self.status = Status.IN_PROGRESS
        self._fields: dict[str, Any] = _UNMADE
        self._tree: Tree = _UNMADE
        self._opening = b""
        self._run_id: str | None = None
        self._type = ""
        self._calls: list[Call] | None = None  # None: materialised, or not a step of calls
        self._ending: ExactStep | None = None
        self._published = b""
        self._absent = 0  # of `_opening` and `_published`: bits of the fields that no object named
        self._texts = 0  # of `_published`: bits of the calls whose arguments deltas may still add to
        self.template: DeltaTemplate | None = None  # of deltas for the text below
        self._text: Text | None = None  # where the last delta's text went, for the fast path
        self._text_index = 0
        self._text_body = self._text_kind = ""
        self.seen: set[str] | None = None
        self.anomalies: frozenset[str] = _NONE
        self.trace: tuple[tuple[str, bytes], ...] = ()
        self.first_offset = offset
        self.last_offset = offset
        self.opened_s = opened_s
        self.usable_expires_at: int | None = None
        self.inference: Inference | None = None
        self.events = 0
        self.revision = -1
        self.object_bytes = 0
        self.characters = 0
        self.oversize = False
        self.irregular = False

    # --- what the partition asks --------------------------------------------------------------------------

    @property
    def fields(self) -> dict[str, Any]:
        if self._fields is _UNMADE:
            self._materialise()
        return self._fields

    @property
    def tree(self) -> Tree:
        if self._tree is _UNMADE:
            self._materialise()
        return self._tree

    @property
    def run_id(self) -> str | None:
        if self._fields is _UNMADE:
            return self._run_id
        found = self._fields.get("run_id")
        return found if type(found) is str else None

    def ids(self) -> tuple[Any, Any]:
        """The fields `run_id` and `thread_id`. Asked when the step has ended, and does not materialise it."""
        ending = self._ending
        if ending is not None:
            return ending.run_id, ending.thread_id
        return self.fields.get("run_id"), self.fields.get("thread_id")

    def peek(self) -> tuple[Any, Any]:
        """The thread id and the type of the details of an open step, which stays in the form it has."""
        if self._fields is not _UNMADE:
            return self._fields.get("thread_id"), self.details_type()
        opened = read_any(self._opening)
        details = opened.get("step_details")
        told = details.get("type") if isinstance(details, dict) else None
        return opened.get("thread_id"), told or opened.get("type")

    def details_type(self) -> str | None:
        """The type that `step_details` must keep (M7)."""
        return self.tree.get("type") or self.fields.get("type")

    def expired_at_disagrees(self) -> bool:
        return self._ending is None and self.fields.get("expired_at") is not None and self.status is not Status.EXPIRED

    def refuses(self, details: Tree | None, stated: Any = None) -> Rejected | None:
        """M7: why details of another type cannot be merged."""
        told = (details.get("type") if details else None) or stated
        known = self.details_type()
        if known is not None and told is not None and known != told:
            return Rejected(Reason.TYPE_CHANGED, "step_details.type differs from what the step began with")
        return None

    # --- what events do -----------------------------------------------------------------------------------

    def take(self, event: StepObject, size: int) -> None:
        """Take in an object that does not end the step: fields that say something replace, details fill (L2)."""
        self._note_anomalies(event)
        fields, details = self.fields, None
        if not fields:
            fields.update(event.data)
            details = fields.pop("step_details", None)
        else:
            for key, value in event.data.items():
                if key == "step_details":
                    details = value
                elif value is not None or key not in fields:
                    fields[key] = value
        if details:
            fill(self.tree, details)
        self._count_event(size)

    def end(self, event: StepObject, status: Status, size: int) -> None:
        """Let an ending object have the last word (M6)."""
        self._note_anomalies(event)
        self.inference = None
        self.status = status
        fields, details = self.fields, None
        for key, value in event.data.items():
            if key == "step_details":
                details = value
            elif value is not None or key not in _KEPT_OVER_NULL or key not in fields:
                fields[key] = value
        if details:
            notes = Notes()
            finish(self.tree, details, notes)
            self._anomalies_of(notes)
        self._count_event(size)

    def append(self, delta: StepDelta) -> int:
        """Merge a delta whose indexes and type were checked (M1-M5). Returns the nulls that changed nothing."""
        notes = Notes()
        merge_delta(self.tree, delta.details, notes)
        self._anomalies_of(notes)
        self.characters += characters(delta.details)
        self._forget_text()
        self.events += 1
        return notes.nulls

    # --- the fast path: what nearly all events do ----------------------------------------------------------
    # Each returns False, and has changed nothing, where it is not sure to do what the slow path does.

    def append_text(self, text: str, limit: int, event_id: str | None) -> bool:
        """Take in a delta that matches `template`."""
        held = self._text
        brought = len(text) if event_id is None else len(text) + len(event_id)
        if held is None or self.object_bytes + self.characters + brought > limit:
            return False
        if event_id is not None and not self._is_new(event_id):
            return False
        held.write(text)
        self.characters += brought
        self.events += 1
        return True

    def append_exact(self, data: ExactData, limit: int, event_id: str | None = None) -> bool:
        """Take in a delta that only adds text to one known call."""
        calls = data.delta.step_details.tool_calls
        if len(calls) != 1:
            return False
        call = calls[0]
        function, code = call.function, call.code_interpreter
        if code is _UNSET:
            if function is _UNSET or function.name is not _UNSET or function.output is not _UNSET:
                return False
            body, brought = "function", function.arguments
        elif function is _UNSET:
            body, brought = "code_interpreter", code.input
        else:
            return False
        if type(brought) is not str or call.id is not _UNSET:
            return False
        if (self._text is None or call.index != self._text_index or body != self._text_body) and not self._find_text(
            call.index, body
        ):
            return False
        return call.type == self._text_kind and self.append_text(brought, limit, event_id)

    def _find_text(self, index: int, body: str) -> bool:
        """Find the text that deltas of this call add to, remembered until something else changes the tree."""
        held = self._calls
        if held is not None:
            if body != "function" or not 0 <= index < len(held):
                return False
            call = held[index]
            self._remember_text(call.text, index, body, call.kind)
            return True
        calls = self.tree.get("tool_calls")
        if type(calls) is not Indexed or self.tree.get("type") != "tool_calls" or self.oversize:
            return False
        entry = calls.entries.get(index)
        if entry is None:
            return False
        kind, held_body = entry.get("type"), entry.get(body)
        text = held_body.get("arguments" if body == "function" else "input") if type(held_body) is dict else None
        if type(kind) is not str or len(kind) > SHORT or type(text) is not Text:
            return False
        self._remember_text(text, index, body, kind)
        return True

    def open_exact(self, data: ExactData, limit: int, event_id: str | None = None) -> bool:
        """Take in the delta that begins a function call."""
        calls = data.delta.step_details.tool_calls
        if len(calls) != 1:
            return False
        call = calls[0]
        index, kind, call_id, function = call.index, call.type, call.id, call.function
        if (
            function is _UNSET
            or call.code_interpreter is not _UNSET
            or type(kind) is not str
            or len(kind) > SHORT
            or type(call_id) is not str
            or not 0 <= index < MAX_INDEX
            or self.oversize
        ):
            return False
        held = self._calls
        if held is not None and index != len(held):
            self._materialise()
            held = None
        entries: dict[int, Tree] = {}
        if held is None:
            indexed = self.tree.get("tool_calls")
            if type(indexed) is not Indexed or index in indexed.entries or self.tree.get("type") != "tool_calls":
                return False
            entries = indexed.entries
        name, arguments = function.name, function.arguments
        if type(name) is not str or type(arguments) is not str:
            return False
        brought = len(call_id) + len(name) + len(arguments) + (len(event_id) if event_id else 0)
        output: Any = function.output  # a compiler would believe what the checks narrow it to
        if output is None:
            brought += NULL_SIZE
        elif output is not _UNSET:
            return False
        if self.object_bytes + self.characters + brought > limit or (event_id and not self._is_new(event_id)):
            return False
        text = Text()
        text.write(arguments)
        if kind == _FUNCTION:
            kind = _FUNCTION  # one for all steps, not one for each
        opened = Call(call_id, kind, name, text, says_output=output is None)
        if held is not None:
            held.append(opened)
        else:
            entries[index] = opened.entry()
        self._remember_text(text, index, "function", kind)
        self.characters += brought
        self.events += 1
        return True

    def begin_exact(self, event: ExactObject, size: int) -> None:
        """Begin with an object that `opens_exactly`."""
        stated = event.stated
        self._fields = self._tree = _UNMADE  # whoever looked before saw them empty
        self._opening, self._type = event.data, stated.type
        self._run_id = stated.run_id if type(stated.run_id) is str else None
        if stated.type == "tool_calls":
            self._calls = []
        unsaid = 0
        for number, told in enumerate(_astuple(stated)):
            if told is _UNSET:
                unsaid |= 1 << number
        self._absent = unsaid
        self._count_event(size)

    def is_repeated_by(self, data: bytes) -> bool:
        """Whether an object says again, to the letter, what the step began with."""
        return self._opening == data

    def repeat_exact(self, size: int) -> None:
        """Take in an object by which the step `is_repeated`: it is an event, and changes nothing else."""
        self._count_event(size)

    def end_exact(self, event: ExactObject, status: Status, size: int) -> bool:
        """Let an ending object have the last word (M6) that disagrees with nothing the step holds."""
        if not self._opening:
            return False
        stated = event.stated
        if not (stated.type == stated.step_details.type == self._type and stated.object):
            return False
        texts = self._end_details(stated)
        if texts is None:
            return False
        unsaid, nulls = 0, 0
        for number, told in enumerate(_astuple(stated)):
            if told is _UNSET:
                unsaid |= 1 << number
            elif told is None:
                nulls |= 1 << number
        if unsaid & ~self._absent or nulls & _KEPT_BITS:
            _fill_missing(stated, read_exact_step(self._opening))
        if stated.expired_at is not None and stated.expired_at is not _UNSET and status is not Status.EXPIRED:
            return False
        absent = unsaid & self._absent
        for number, name in enumerate(_EXACT_NAMES):
            if absent >> number & 1 and name in _BLANK:
                setattr(stated, name, None)
        self._opening, self._ending = b"", stated
        self._absent, self._texts = absent & _SCHEMA_BITS, texts
        self._run_id = stated.run_id if type(stated.run_id) is str else None
        self.status = status
        self._count_event(size)
        return True

    def _end_details(self, stated: ExactStep) -> int | None:
        """Merge the details; returns the bits of the calls whose text is the fold's own. None: something differs."""
        held, details = self._calls, stated.step_details
        told, message = details.tool_calls, details.message_creation
        if held is None:
            same = told is _UNSET and message == read_exact_step(self._opening).step_details.message_creation
            return 0 if same else None
        if message is not _UNSET or told is _UNSET:
            return None
        if not told:
            details.tool_calls = [
                ExactTool(
                    ExactFunction(call.text.getvalue(), call.name, None if call.says_output else _UNSET),
                    call.call_id,
                    call.kind,
                )
                for call in held
            ]
            return (1 << len(held)) - 1
        if len(told) != len(held):
            return None
        texts = 0
        ids: list[str] = []
        for number, tool in enumerate(told):
            call, function = held[number], tool.function
            if tool.id != call.call_id or tool.type != call.kind or function.name != call.name or tool.id in ids:
                return None
            ids.append(tool.id)
            arguments = call.text.getvalue()
            if function.arguments is None:
                function.arguments = arguments
                texts |= 1 << number
            elif function.arguments != arguments:
                return None
            if call.says_output and function.output is _UNSET:
                function.output = None
        return texts

    def compact(self) -> bool:
        """Keep an ended step as what was published of it, or say False: it has to be packed."""
        if self._ending is None:
            return False
        self.encoded("")
        self._ending = self._calls = None
        self._forget_text()
        return True

    def materialise(self) -> Step:
        """A copy of a compacted step, to be changed."""
        step = Step(self.step_id, self.first_offset, self.opened_s)
        step.status, step.seen, step.anomalies, step.trace = self.status, self.seen, self.anomalies, self.trace
        step.last_offset, step.usable_expires_at = self.last_offset, self.usable_expires_at
        step.events, step.revision = self.events, self.revision
        step.object_bytes, step.characters = self.object_bytes, self.characters
        step.irregular = self.irregular
        step._published, step._absent, step._texts = self._published, self._absent, self._texts
        if step.seen is not None:
            step.seen = set(step.seen)
        step._materialise()
        return step

    def _materialise(self) -> None:
        """Make `fields` and `tree`."""
        if self._ending is not None:
            self.encoded("")
            self._ending = None
        opening, published, calls = self._opening, self._published, self._calls
        self._opening, self._published, self._calls = b"", b"", None
        self._fields, self._tree = {}, {}
        if published:
            self._fields = read_any(published)
            details = adopt(self._fields.pop("step_details"))
            for number, name in enumerate(_EXACT_NAMES):
                if self._absent >> number & 1:
                    del self._fields[name]
            tools = details.get("tool_calls")
            if tools is not None:
                for number, entry in tools.entries.items():
                    if self._texts >> number & 1:
                        text = Text()
                        text.write(entry["function"]["arguments"])
                        entry["function"]["arguments"] = text
            self._tree = details
        elif opening:
            self._fields = read_any(opening)
            fill(self._tree, self._fields.pop("step_details"))
            if calls:
                self._tree["tool_calls"].entries.update({n: call.entry() for n, call in enumerate(calls)})

    def has_folded(self, event_id: str | None) -> bool:
        """Whether an event of this id was folded before; without ids nobody knows."""
        return event_id is not None and self.seen is not None and event_id in self.seen

    def _is_new(self, event_id: str) -> bool:
        """Note the id of an event that is about to be folded, unless it was folded before."""
        if self.seen is None:
            self.seen = {event_id}
        elif event_id in self.seen:
            return False
        else:
            self.seen.add(event_id)
        return True

    def _remember_text(self, text: Text, index: int, body: str, kind: str) -> None:
        self._text, self._text_index, self._text_body, self._text_kind = text, index, body, kind
        self.template = None

    def _forget_text(self) -> None:
        self._text = self.template = None

    def fits_template(self, template: DeltaTemplate) -> bool:
        """Whether deltas of the text that was added to last may match it."""
        return (
            self._text is not None
            and template.index == self._text_index
            and template.body == self._text_body
            and template.kind == self._text_kind
        )

    def learn_template(self, value: bytes, data: ExactData) -> DeltaTemplate | None:
        """The template of the delta that was just added, if it has one."""
        return learn_template(value, data, self._text_index, self._text_body, self._text_kind)

    # --- what else ends it ----------------------------------------------------------------------------------

    def infer(self, how: str, status: Status, at_s: int, last_error: Any = None) -> None:
        self.inference = Inference(how, status, at_s, last_error)
        self.status = status
        self.irregular = True

    def end_with_run(self, run: RunEnd, timestamp: int) -> None:
        """L6: the step ends as its run did."""
        status = RUN_ENDS[run.status]
        if run.status in ORPHANING:
            self.add_anomaly("orphaned_by_run")
        at_s = run.ended_at if run.ended_at is not None else timestamp // 1000
        self.infer("run", status, at_s, run.last_error if status is Status.FAILED else None)

    # --- what is published --------------------------------------------------------------------------------

    def snapshot(self, object_type: str = "") -> dict[str, Any]:
        """The step as JSON: all schema keys, every extra key that came, the inference laid over it."""
        out = _BLANK | self.fields
        out["id"] = self.step_id
        out["object"] = object_type or out["object"] or "thread.run.step"
        out["status"] = self.status.value
        out["step_details"] = plain(self.tree) if self.tree else None
        if out["type"] is None:
            out["type"] = self.tree.get("type")
        if self.inference is not None:
            out[f"{self.status.value}_at"] = self.inference.at_s
            if out["last_error"] is None:
                out["last_error"] = self.inference.last_error
        return out

    def encoded(self, object_type: str) -> bytes:
        """The canonical bytes of the snapshot."""
        if self._ending is not None and not object_type:
            if not self._published:
                self._published = canonical_step(self._ending)
            return self._published
        return canonical(self.snapshot(object_type))

    def size_with(self, object_bytes: int, more: int) -> int:
        """X1: the size the step would have with this event."""
        return max(self.object_bytes, object_bytes) + self.characters + more

    # --- checkpoints --------------------------------------------------------------------------------------

    def pack(self) -> bytes:
        return pack(
            [
                self.step_id,
                self.status,
                self.fields,
                self.tree,
                sorted(self.seen) if self.seen is not None else None,
                sorted(self.anomalies) if self.anomalies else (),
                self.trace,
                self.first_offset,
                self.last_offset,
                self.opened_s,
                self.usable_expires_at,
                self.inference,
                self.events,
                self.revision,
                self.object_bytes,
                self.characters,
                self.oversize,
                self.irregular,
            ]
        )

    @staticmethod
    def unpack(data: bytes) -> Step:
        step = Step("", 0, 0)
        (
            step.step_id,
            status,
            step._fields,
            step._tree,
            seen,
            anomalies,
            trace,
            step.first_offset,
            step.last_offset,
            step.opened_s,
            step.usable_expires_at,
            inference,
            step.events,
            step.revision,
            step.object_bytes,
            step.characters,
            step.oversize,
            step.irregular,
        ) = unpack(data)
        step.status = Status(status)
        step.seen = None if seen is None else set(seen)
        step.anomalies = frozenset(anomalies)
        step.trace = tuple((name, content) for name, content in trace)
        step.inference = None if inference is None else msgspec.convert(inference, Inference)
        return step

    def stop_growing(self) -> None:
        """X1: it has grown over the limit; no more deltas are taken."""
        self.oversize = True
        self._forget_text()
        self.add_anomaly("step_too_large")

    def add_anomaly(self, anomaly: str) -> None:
        """Note what the published step will carry as an anomaly."""
        self.anomalies |= {anomaly}

    # --- inside -------------------------------------------------------------------------------------------

    def _note_anomalies(self, event: StepObject) -> None:
        if event.disagrees:
            self.add_anomaly("status_disagrees")
        if event.unknown_status:
            self.add_anomaly("unknown_status")

    def _anomalies_of(self, notes: Notes) -> None:
        if notes.changed_field:
            self.add_anomaly("changed_field")
        if notes.fold_divergence:
            self.add_anomaly("fold_divergence")

    def _count_event(self, size: int) -> None:
        self.object_bytes = max(self.object_bytes, size)
        self.events += 1
        self._forget_text()


def _fill_missing(stated: ExactStep, first: ExactStep) -> None:
    """Fill what an ending object does not say, or cannot erase, with what the step began with."""
    before = _astuple(first)
    for number, told in enumerate(_astuple(stated)):
        name = _EXACT_NAMES[number]
        if told is _UNSET or (told is None and name in _KEPT_OVER_NULL):
            earlier = before[number]
            if earlier is not _UNSET:
                setattr(stated, name, earlier)


def opens_exactly(stated: ExactStep) -> bool:
    """Whether a step that begins so may take the fast path: no calls yet, and a type that is the details' own."""
    details = stated.step_details
    if details.type != stated.type:
        return False
    if stated.type == "tool_calls":
        return details.tool_calls == [] and details.message_creation is _UNSET
    return stated.type == "message_creation" and details.tool_calls is _UNSET and details.message_creation is not _UNSET


def check_delta(delta: StepDelta) -> Rejected | None:
    """M1 before anything is touched."""
    why = bad_index(delta.details)
    return None if why is None else Rejected(Reason.BAD_INDEX, why)


def usable_expires_at(value: Any, grace_s: int, now_ms: int) -> int | None:
    """L7a: an integer from 1 to 2^40 whose deadline had not passed when it came."""
    if type(value) is int and 0 < value <= MAX_EXPIRES_AT and (value + grace_s) * 1000 > now_ms:
        return value
    return None
