"""A run step, and what each event does to it. Status is decided in `lifecycle`, merging in `merge`."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import UNSET

from processor.core.acyclic import mypyc_attr
from processor.core.checkpoint_format import Inference
from processor.core.effects import Reason, Rejected, Status
from processor.core.growing_text import Text, length_of
from processor.core.lifecycle import Kind
from processor.core.merge import (
    MAX_INDEX,
    NULL_SIZE,
    SHORT,
    Indexed,
    Notes,
    Tree,
    fill,
    finish,
    lacks_half,
    merge_delta,
    pack,
    plain,
    unpack,
)
from processor.core.run_steps.compact_step import KEPT, CompactStep, Ending, OpenedCall
from processor.core.run_steps.delta_template import DeltaTemplate
from processor.core.run_steps.event_ids import EventIds, id_text
from processor.core.run_steps.function_calls import Call
from processor.core.run_steps.object_shape import SharedBeginning
from processor.core.run_steps.object_template import BeginTemplate, CallTemplate, EndTemplate
from processor.core.run_steps.text_place import TextPlace, arguments_at, piece_of
from processor.core.run_steps.usual_events import ExactObject, exact_object, tool_step
from processor.core.step_state import KEPT_OVER_NULL, SCHEMA_KEYS, StepState
from processor.core.wire_types import ExactCall, ExactData, StepDelta, StepObject, canonical

_UNMADE: Final[dict[str, Any]] = {}
"""Stands for a dictionary that was not made yet."""
_BLANK: Final[dict[str, Any]] = dict.fromkeys(SCHEMA_KEYS)
_UNSET: Final = UNSET
_FUNCTION: Final = "function"
_NOTHING: Final = b""
_QUOTE: Final = b'"'
_CALL_INDEX: Final = ExactCall.__struct_fields__.index("index")
_CALL_TYPE: Final = ExactCall.__struct_fields__.index("type")
_CALL_ID: Final = ExactCall.__struct_fields__.index("id")
_CALL_FUNCTION: Final = ExactCall.__struct_fields__.index("function")
_astuple: Final = msgspec.structs.astuple
_encode: Final = msgspec.json.Encoder().encode
WITH_IDS: Final = b"S"
"""In front of a packed step that has event ids. Before there was `EventIds` nothing stood there, and a list of ids."""


@mypyc_attr(acyclic=True)
class Step(StepState):
    """A run step that is remembered as an object.

    `tree` is `step_details` (see `core.merge`), `fields` all else that step objects said.

    While a step does only what nearly all steps do, neither is made: it is held as `compact_form`. Asking for `fields`
    materialises it; asking for `tree` makes that alone where the step has tool calls. The slow path asks, the fast path
    does not.
    """

    __slots__ = ("_fields", "_ids", "_place", "_text", "_tree", "compact_form", "prefix", "template")

    def __init__(self, step_id: str, offset: int, opened_s: int) -> None:
        super().__init__(step_id, offset, opened_s)
        self._fields: dict[str, Any] = _UNMADE
        self._tree: Tree = _UNMADE
        self._ids: EventIds | None = None
        self.compact_form: CompactStep | None = None
        self.template: DeltaTemplate | None = None  # of deltas for the text below
        self.prefix = b""  # what these begin with, as far as their text; empty without a template
        self._text: Text | None = None  # where the last delta's text went, for the fast path
        self._place: TextPlace | None = None  # of that text

    # --- what the partition asks --------------------------------------------------------------------------

    @property
    def fields(self) -> dict[str, Any]:
        if self._fields is _UNMADE:
            self._materialise()
        return self._fields

    @property
    def tree(self) -> Tree:
        """The details as they are merged."""
        if self._tree is _UNMADE:
            form = self.compact_form
            if form is not None and form.calls is not None and not form.has_ended:
                self._tree = form.take_tree()
            else:
                self._materialise()
        return self._tree

    @property
    def run_id(self) -> str | None:
        if self._fields is _UNMADE:
            form = self.compact_form
            return None if form is None else form.run_id
        found = self._fields.get("run_id")
        return found if type(found) is str else None

    def ids(self) -> tuple[Any, Any]:
        form = self.compact_form
        if form is not None and form.has_ended:
            return form.said_ids()
        return self.fields.get("run_id"), self.fields.get("thread_id")

    def peek(self) -> tuple[Any, Any]:
        if self.compact_form is not None:
            return self.compact_form.peek()
        return self.fields.get("thread_id"), self.details_type()

    def details_type(self) -> str | None:
        """The type that `step_details` must keep (M7)."""
        form = self.compact_form
        if form is not None:
            return form.type
        return self.tree.get("type") or self.fields.get("type")

    def expired_at_disagrees(self) -> bool:
        if self.compact_form is not None and self.compact_form.has_ended:
            return False
        return self.fields.get("expired_at") is not None and self.status is not Status.EXPIRED

    def refuses(self, details: Tree | None, stated: Any = None) -> Rejected | None:
        """M7: why details of another type cannot be merged."""
        told = (details.get("type") if details else None) or stated
        known = self.details_type()
        if known is not None and told is not None and known != told:
            return Rejected(Reason.TYPE_CHANGED, "step_details.type differs from what the step began with")
        return None

    def has_folded(self, event_id: str | None) -> bool:
        return event_id is not None and self._ids is not None and self._ids.holds(event_id)

    def note_folded(self, event_id: str) -> None:
        if self._ids is None:
            self._ids = EventIds()
        self._ids.add(event_id)

    def folded_ids(self) -> Any:
        """The ids of folded events, to be compared."""
        return None if self._ids is None else self._ids.state()

    def summary(self) -> tuple[Any, ...]:
        return (*super().summary(), self.folded_ids())

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
        """Take in the object that ends the step: what it says replaces what was folded (M6)."""
        self._note_anomalies(event)
        self.inference = None
        self.status = status
        fields, details = self.fields, None
        for key, value in event.data.items():
            if key == "step_details":
                details = value
            elif value is not None or key not in KEPT_OVER_NULL or key not in fields:
                fields[key] = value
        if details:
            notes = Notes()
            finish(self.tree, details, notes)
            self._anomalies_of(notes)
        self._count_event(size)

    def append(self, delta: StepDelta, grown: int) -> int:
        """Merge a delta that was checked, and that has `grown` characters. Returns the nulls that changed nothing."""
        notes = Notes()
        merge_delta(self.tree, delta.details, notes)
        self._anomalies_of(notes)
        if delta.mended:
            self.add_anomaly("replaced_half")
        self.characters += grown
        self._forget_text()
        self.events += 1
        return notes.nulls

    # --- the fast path: what nearly all events do ----------------------------------------------------------
    # `text_of` and `call_of` decide and change nothing that shows; the others do what was decided.

    def append_text(self, piece: bytes, length: int, limit: int, event_id: bytes | None) -> bool:
        """Take in a delta for the text that was added to last. False, and nothing is changed, if it may not be.

        Args:
            piece: what is appended, as `growing_text.Text` has it; it has `length` characters.
            event_id: as a header has it.
        """
        held = self._text
        room = limit - self.object_bytes - self.characters - length
        if held is None or room < 0:
            return False
        if event_id is not None:
            ids = self._ids
            if ids is not None and ids.is_next(event_id):
                own = len(event_id)
                if own > room:
                    return False
                ids.add_next()
            else:
                text = id_text(event_id)
                own = len(text)
                if own > room:
                    return False
                if ids is None:
                    ids = self._ids = EventIds()
                if not ids.add(text):
                    return False
            self.characters += own
        held.add(piece)
        self.characters += length
        self.events += 1
        return True

    def has_room(self, brought: int, limit: int, event_id: str | None) -> bool:
        """Whether a delta of so many characters keeps to the limit (X1), and its event was not folded before."""
        more = len(event_id) if event_id else 0
        return self.object_bytes + self.characters + brought + more <= limit and not self.has_folded(event_id)

    def text_of(self, data: ExactData) -> str | None:
        """The text of a delta that only adds to one known text, which is found for `append_text`."""
        piece = piece_of(data)
        return piece.text if piece is not None and self.finds_text(piece.place) else None

    def finds_text(self, place: TextPlace) -> bool:
        """Whether deltas may add to the text at a place, which is found for `append_text`."""
        last = self._place
        if self._text is None or last is None or (place is not last and place.key != last.key):
            text = self._find_text(place)
            if text is None:
                return False
            self._remember_text(text, place)
        return True

    def _find_text(self, place: TextPlace) -> Text | None:
        """The text at a place, if deltas may still add to it."""
        if self.oversize:
            return None
        held = None if self.compact_form is None else self.compact_form.calls
        if held is None:
            return place.text_in(self.tree)
        if place.body != _FUNCTION or place.field != "arguments" or not 0 <= place.index < len(held):
            return None
        call = held[place.index]
        return call.text if place.kind is None or (place.kind == call.kind and len(call.kind) <= SHORT) else None

    def call_of(self, data: ExactData, limit: int, event_id: str | None) -> OpenedCall | None:
        """The function call that a delta begins and the step has room for."""
        calls = data.delta.step_details.tool_calls
        if len(calls) != 1:
            return None
        said: tuple[Any, ...] = _astuple(calls[0])
        index: int = said[_CALL_INDEX]
        kind, call_id, function = said[_CALL_TYPE], said[_CALL_ID], said[_CALL_FUNCTION]
        if (
            function is _UNSET
            or said.count(_UNSET) != len(said) - 4  # these alone
            or type(kind) is not str
            or len(kind) > SHORT
            or type(call_id) is not str
            or not 0 <= index < MAX_INDEX
            or self.oversize
            or not self._may_begin(index)
        ):
            return None
        body: tuple[Any, ...] = _astuple(function)
        name, arguments, output = body[0], body[1], body[2]
        if type(name) is not str or type(arguments) is not str:
            return None
        brought = len(call_id) + len(name) + len(arguments)
        if output is None:
            brought += NULL_SIZE
        elif output is not _UNSET:
            return None
        if not self.has_room(brought, limit, event_id):
            return None
        text = Text()
        text.write(arguments)
        if kind == _FUNCTION:
            kind = _FUNCTION  # one for all steps, not one for each
        return OpenedCall(index, Call(_encode(call_id), kind, _encode(name), text, says_output=output is None), brought)

    def call_by(self, template: CallTemplate, cuts: list[bytes], limit: int, event_id: str | None) -> OpenedCall | None:
        """The function call that a delta begins which matches a template, if it is the next one of a compact step."""
        held = None if self.compact_form is None else self.compact_form.calls
        if held is None or template.index != len(held) or self.oversize:
            return None
        call_id, name, piece = cuts[template.call_at], cuts[template.name_at], cuts[template.arguments_at]
        length = length_of(piece, 0, len(piece))
        if length < 0:
            return None
        brought = len(call_id) + len(name) + length + (NULL_SIZE if template.says_output else 0)
        if not self.has_room(brought, limit, event_id):
            return None
        text = Text()
        text.add(piece)
        quoted_id = _NOTHING.join((_QUOTE, call_id, _QUOTE))
        call = Call(quoted_id, template.kind, template.quoted(name), text, says_output=template.says_output)
        return OpenedCall(template.index, call, brought)

    def _may_begin(self, index: int) -> bool:
        """Whether a call may begin at this index. A compact step gets a tree if it is not the next one."""
        held = None if self.compact_form is None else self.compact_form.calls
        if held is not None and index == len(held):
            return True
        indexed = self.tree.get("tool_calls")
        return type(indexed) is Indexed and index not in indexed.entries and self.tree.get("type") == "tool_calls"

    def open_call(self, opened: OpenedCall) -> None:
        """Take in the delta that begins a function call."""
        call = opened.call
        held = None if self.compact_form is None else self.compact_form.calls
        if held is not None:
            held.append(call)
        else:
            self.tree["tool_calls"].entries[opened.index] = call.entry()
        self._remember_text(call.text, arguments_at(opened.index, call.kind))
        self.characters += opened.brought
        self.events += 1

    def begin_exact(self, event: ExactObject, size: int) -> None:
        """Begin with an object that `opens_exactly`."""
        self._begin(CompactStep.of_object(event), size)

    def begin_by(self, template: BeginTemplate, cuts: list[bytes], data: bytes, size: int) -> None:
        """The same with an object, `data`, that matches a template."""
        message = None if template.message_at < 0 else cuts[template.message_at].decode("ascii")
        run_id = None if template.run_at < 0 else cuts[template.run_at].decode("ascii")
        form = CompactStep(data, template.type, message, run_id, template.absent)
        form.begun_by, form.lengths = template, template.shape.lengths
        self._begin(form, size)

    def _begin(self, form: CompactStep, size: int) -> None:
        self._fields = self._tree = _UNMADE  # an observer may have seen them empty
        self.compact_form = form
        self._count_event(size)

    def is_repeated_by(self, data: bytes) -> bool:
        """Whether an object says again, to the letter, what the step began with."""
        return self.compact_form is not None and self.compact_form.opening == data

    def ending_of(self, data: bytes, kind: Kind, status: Status, event: ExactObject | None = None) -> Ending | None:
        """Merge an ending object into a compact step; None if it is not held compact, or disagrees with anything.

        `event`: the object as `exact_object` reads it, where that was done; it may be changed.
        """
        form = self.compact_form
        if form is None:
            return None
        if self._tree is _UNMADE:
            if event is None:
                event = exact_object(data, kind)
            return None if event is None or event.step_id != self.step_id else form.ending_of(event, status)
        stated = tool_step(data, kind)
        return None if stated is None or stated.id != self.step_id else form.tool_ending_of(stated, status, self._tree)

    def ending_by(self, template: EndTemplate, cuts: list[bytes]) -> Ending | None:
        """As `ending_of`, of an ending object that matches a template."""
        form = self.compact_form
        return None if form is None else form.ending_by(template, cuts, None if self._tree is _UNMADE else self._tree)

    def ending_behind(self, template: EndTemplate, shared: SharedBeginning, value: bytes, begin: int) -> Ending | None:
        """The same of an object in `value`, from `begin` on, that begins as the one which began the step.

        None also where it does not begin so.
        """
        form = self.compact_form
        if form is None:
            return None
        return form.ending_behind(template, shared, value, begin, None if self._tree is _UNMADE else self._tree)

    def repeat_exact(self, size: int) -> None:
        """Take in an object by which the step `is_repeated`: it is an event, and changes nothing else."""
        self._count_event(size)

    def end_exact(self, ending: Ending, status: Status, size: int) -> None:
        """Take in an ending object that the compact form has no objection to."""
        form = self.compact_form
        assert form is not None
        form.end(ending)
        self._tree = _UNMADE
        if ending.notes is not None:
            self._anomalies_of(ending.notes)
        self.status = status
        self._count_event(size)

    def compact(self) -> bool:
        form = self.compact_form
        if form is None or not form.has_ended:
            return False
        form.shrink()
        self._forget_text()
        return True

    def materialise(self) -> Step:
        step = Step(self.step_id, self.first_offset, self.opened_s)
        step.status, step.anomalies, step.trace = self.status, self.anomalies, self.trace
        step.last_offset, step.usable_expires_at = self.last_offset, self.usable_expires_at
        step.events, step.revision = self.events, self.revision
        step.object_bytes, step.characters = self.object_bytes, self.characters
        step.irregular, step.oversize = self.irregular, self.oversize
        step._ids = None if self._ids is None else self._ids.copy()
        form = self.compact_form
        assert form is not None
        step._fields, step._tree = form.general()
        return step

    def compacted(self) -> list[Any]:
        form, ids = self.compact_form, self._ids
        assert form is not None
        packed_ids = None if ids is None else ids.pack()
        anomalies = sorted(self.anomalies) if self.anomalies else ()
        flags = self.oversize | self.irregular << 1
        # All in one list: one that is made of others costs twice as much.
        return [
            form.encoded(), form.run_id, form.absent, form.texts, form.leaves, packed_ids, anomalies, self.trace,
            self.first_offset, self.last_offset, self.opened_s, self.usable_expires_at, self.events, self.revision,
            self.object_bytes, self.characters, flags,
        ]  # fmt: skip

    def compacted_bytes(self) -> int:
        form = self.compact_form
        assert form is not None
        return len(form.encoded())

    @staticmethod
    def of_compacted(step_id: str, status: Status, held: list[Any]) -> Step:
        """The compacted step that `compacted` gave."""
        ids, anomalies, trace, first, last, opened_s, *numbers, flags = held[KEPT:]
        step = Step(step_id, first, opened_s)
        step.compact_form = CompactStep.of_kept(held[:KEPT])
        step.status, step.last_offset = status, last
        step._ids = None if ids is None else EventIds.unpack(ids)
        step.anomalies = frozenset(anomalies)
        step.trace = tuple((name, content) for name, content in trace)
        step.usable_expires_at, step.events, step.revision, step.object_bytes, step.characters = numbers
        step.oversize, step.irregular = bool(flags & 1), bool(flags & 2)
        return step

    def _materialise(self) -> None:
        """Make `fields` and `tree`."""
        form, self.compact_form = self.compact_form, None
        fields, tree = ({}, {}) if form is None else form.general()
        self._fields = fields
        if self._tree is _UNMADE:
            self._tree = tree

    def _remember_text(self, text: Text, place: TextPlace) -> None:
        self._text, self._place = text, place
        self.template, self.prefix = None, b""

    def _forget_text(self) -> None:
        self._text = self._place = self.template = None
        self.prefix = b""

    def use_template(self, template: DeltaTemplate) -> None:
        """Expect that deltas for the text that was added to last match a template."""
        self.template, self._place = template, template.place  # the same place, and one object for all steps
        self.prefix = b"".join((template.head, self.step_id.encode(), template.middle))

    def text_place(self) -> TextPlace | None:
        """The place of the text that was added to last."""
        return self._place

    # --- what is published --------------------------------------------------------------------------------

    def snapshot(self, object_type: str = "") -> dict[str, Any]:
        """The step as JSON: all schema keys, every extra key that came, the inference laid over it."""
        out = _BLANK | self.fields
        out["id"] = self.step_id
        if object_type:
            out["object"] = object_type
        elif out["object"] is None or out["object"] == "":
            out["object"] = "thread.run.step"
        out["status"] = self.status.value
        out["step_details"] = plain(self.tree) if self.tree else None
        if out["type"] is None:
            out["type"] = self.tree.get("type")
        if self.inference is not None:
            out[f"{self.status.value}_at"] = self.inference.at_s
            if out["last_error"] is None:
                out["last_error"] = self.inference.last_error
        return out

    def told_anomalies(self) -> frozenset[str]:
        # What ends in the compact form has no half of a character: the slow path alone appends one, to a tree.
        if (self.compact_form is None or not self.compact_form.has_ended) and lacks_half(self.tree):
            return self.anomalies | {"replaced_half"}
        return self.anomalies

    def encoded(self, object_type: str) -> bytes:
        form = self.compact_form
        if form is not None and form.has_ended and not object_type:
            return form.encoded()
        return canonical(self.snapshot(object_type))

    # --- checkpoints --------------------------------------------------------------------------------------

    def pack(self) -> bytes:
        ids, told = self._ids, self.inference
        packed_ids = None if ids is None else ids.pack()
        anomalies = sorted(self.anomalies) if self.anomalies else ()
        inference = None if told is None else [told.how, told.status, told.at_s, told.last_error]
        packed = pack(
            [
                self.step_id, self.status, self.fields, self.tree, packed_ids, anomalies, self.trace,
                self.first_offset, self.last_offset, self.opened_s, self.usable_expires_at, inference,
                self.events, self.revision, self.object_bytes, self.characters, self.oversize, self.irregular,
            ]
        )  # fmt: skip
        return packed if ids is None else WITH_IDS + packed

    @staticmethod
    def unpack(data: bytes) -> Step:
        """The step that `pack` made these bytes of."""
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
        ) = unpack(data.removeprefix(WITH_IDS))
        step.status = Status(status)
        step._ids = None if seen is None else EventIds.unpack(seen)
        step.anomalies = frozenset(anomalies)
        step.trace = tuple((name, content) for name, content in trace)
        step.inference = None if inference is None else msgspec.convert(inference, Inference)
        return step

    def stop_growing(self) -> None:
        super().stop_growing()
        self._forget_text()

    # --- inside -------------------------------------------------------------------------------------------

    def _note_anomalies(self, event: StepObject) -> None:
        if event.disagrees:
            self.add_anomaly("status_disagrees")
        if event.unknown_status:
            self.add_anomaly("unknown_status")
        if event.mended:
            self.add_anomaly("replaced_half")

    def _anomalies_of(self, notes: Notes) -> None:
        if notes.changed_field:
            self.add_anomaly("changed_field")
        if notes.fold_divergence:
            self.add_anomaly("fold_divergence")

    def _count_event(self, size: int) -> None:
        self.object_bytes = max(self.object_bytes, size)
        self.events += 1
        self._forget_text()
