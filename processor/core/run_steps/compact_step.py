"""The compact form of a run step: what it began with as its JSON, function calls as they grow, its end as it came.

A step of other tools has its details as a tree beside it, and everything else in this form.

It saves memory and time and changes no outcome: whatever it accepts, the general form (`step.Step`) would hold as the
same step. `ending_of` says what the end would be and changes nothing; `end` applies it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import UNSET

from processor.core.acyclic import mypyc_attr
from processor.core.effects import Status
from processor.core.growing_text import Text
from processor.core.merge import (
    Indexed,
    Notes,
    Tree,
    Way,
    adopt,
    copied,
    fill,
    finish,
    odd_leaves,
    publishable,
    restore_leaves,
)
from processor.core.named_events import MAX_DEPTH
from processor.core.run_steps.function_calls import Call, CallsFrame, details_of, outputs_of
from processor.core.run_steps.object_shape import SharedBeginning
from processor.core.run_steps.object_template import BeginTemplate, EndTemplate
from processor.core.run_steps.tool_calls import pieces_of as pieces_in
from processor.core.run_steps.usual_events import (
    DETAILS,
    EXPIRED_AT,
    OBJECT,
    RUN_ID,
    TYPE,
    ExactObject,
)
from processor.core.step_state import KEPT_OVER_NULL, SCHEMA_KEYS
from processor.core.wire_types import (
    ExactDetails,
    ExactFunction,
    ExactMessage,
    ExactStep,
    ExactTool,
    StatedStep,
    ToolDetails,
    canonical,
    canonical_step,
    read_any,
    read_exact_details,
    read_exact_step,
    read_tool_details,
)

if TYPE_CHECKING:
    from mypy_extensions import i64  # for the compiler alone

_UNSET: Final = UNSET
_SCHEMA_NAMES: Final = frozenset(SCHEMA_KEYS)
_astuple: Final = msgspec.structs.astuple
_encode: Final = msgspec.json.Encoder().encode
_EXACT_NAMES: Final = StatedStep.__struct_fields__
_NO_LEAVES: Final[list[Way]] = []
_NO_IDS: Final = (None, None)
_MAX_BRACKETS: Final = MAX_DEPTH - 2
"""Of brackets in the details alone, which stand two levels deep."""
_NOTHING: Final = b""
_SCHEMA_FIELDS: Final = [(n, name) for n, name in enumerate(_EXACT_NAMES) if name in _SCHEMA_NAMES]
_SCHEMA_BITS: Final = sum(1 << n for n, _ in _SCHEMA_FIELDS)
KEPT: Final = 5
_KEPT_BITS: Final = sum(1 << n for n, name in enumerate(_EXACT_NAMES) if name in KEPT_OVER_NULL)


@mypyc_attr(acyclic=True)
class OpenedCall:
    """A function call that a delta begins. `brought`: the characters of the delta (X1)."""

    __slots__ = ("brought", "call", "index")

    def __init__(self, index: int, call: Call, brought: int) -> None:
        self.index, self.call, self.brought = index, call, brought


@mypyc_attr(acyclic=True)
class Ending:
    """End of a compact step by an object: the whole snapshot, and how much of it the object said itself.

    `stated` is the snapshot as a structure, or `published` its canonical bytes; the other is None, or empty. `ids` are
    its fields `run_id` and `thread_id`. `absent`: bits of the fields that no object named. `texts`: bits of the
    function calls whose arguments deltas may still add to. Where there was a tree: its `leaves` (`merge.odd_leaves`),
    and the `notes` of the merge.
    """

    __slots__ = ("absent", "ids", "leaves", "notes", "published", "stated", "texts")

    def __init__(
        self,
        stated: StatedStep[Any] | None,
        published: bytes,
        ids: tuple[Any, Any],
        absent: int,
        texts: int,
        leaves: list[Way] = _NO_LEAVES,
        notes: Notes | None = None,
    ) -> None:
        self.stated, self.published, self.ids = stated, published, ids
        self.absent, self.texts = absent, texts
        self.leaves, self.notes = leaves, notes


@mypyc_attr(acyclic=True)
class CompactStep:
    """A step that did only what nearly all steps do. `calls`: function call n stands at index n; None: see its tree.

    Args:
        opening: the object it begins with, as JSON.
        kind: the type of the step and of its details.
        message: the id of the message that the details name; None where they hold calls.
        absent: bits of the fields that the object does not name.
    """

    __slots__ = (
        "_ended",
        "_message",
        "_published",
        "absent",
        "begun_by",
        "calls",
        "has_ended",
        "ids",
        "leaves",
        "lengths",
        "opening",
        "run_id",
        "texts",
        "type",
    )

    def __init__(self, opening: bytes, kind: str, message: str | None, run_id: str | None, absent: int) -> None:
        self.opening, self.type, self._message, self.run_id, self.absent = opening, kind, message, run_id, absent
        self.calls: list[Call] | None = [] if message is None else None
        self.has_ended = False
        self.begun_by: BeginTemplate | None = None
        """What the opening matched, with holes of these lengths (`object_template.Shape`)."""
        self.lengths: i64 = -1
        self.ids: tuple[Any, Any] = _NO_IDS
        """What `said_ids` gives; the second as ASCII where it was cut and not asked for yet."""
        self._ended: StatedStep[Any] | None = None
        self.leaves = _NO_LEAVES
        self._published = b""
        self.texts = 0

    @staticmethod
    def of_object(event: ExactObject) -> CompactStep:
        """The step that begins with an object which `opens_exactly`."""
        told = event.told
        kind: str = told[TYPE]
        run_id = told[RUN_ID]
        unsaid = 0
        for number, value in enumerate(told):
            if value is _UNSET:
                unsaid |= 1 << number
        message = None if kind == "tool_calls" else told[DETAILS].message_creation.message_id
        return CompactStep(event.data, kind, message, run_id if type(run_id) is str else None, unsaid)

    def peek(self) -> tuple[Any, Any]:
        """The thread id and the type of the details of an open step."""
        opened = read_any(self.opening)
        details = opened.get("step_details")
        told = details.get("type") if isinstance(details, dict) else None
        return opened.get("thread_id"), told or opened.get("type")

    # --- its end --------------------------------------------------------------------------------------------

    def ending_of(self, event: ExactObject, status: Status) -> Ending | None:
        """Merge an ending object (M6); None if it disagrees with anything. Changes `event.stated` alone."""
        if not self.opening:
            return None
        told = event.told
        stated = event.stated
        details: ExactDetails | None = told[DETAILS]
        if details is None:
            details = stated.step_details = self._details_left()
        if not (details.type == self.type and (told[TYPE] is None or told[TYPE] == self.type) and told[OBJECT]):
            return None
        texts = self._end_details(details)
        if texts is None:
            return None
        absent = self._complete(stated, told, status)
        return None if absent < 0 else Ending(stated, b"", (stated.run_id, stated.thread_id), absent, texts)

    def tool_ending_of(self, stated: StatedStep[Any], status: Status, tree: Tree) -> Ending | None:
        """End a step whose details are a tree, which stays as it is. `stated` has `ToolDetails` and is changed."""
        details: ToolDetails | None = stated.step_details
        if not self.opening or not ((stated.type is None or stated.type == self.type) and stated.object):
            return None
        notes = Notes()
        if details is not None:
            if details.type != self.type:
                return None
            tree = _finished(tree, details, notes)
        leaves = odd_leaves(tree)
        if leaves is None:
            return None
        stated.step_details = publishable(tree)
        absent = self._complete(stated, _astuple(stated), status)
        ids = (stated.run_id, stated.thread_id)
        return None if absent < 0 else Ending(stated, b"", ids, absent, 0, leaves, notes)

    def ending_by(self, template: EndTemplate, cuts: list[bytes], tree: Tree | None) -> Ending | None:
        """End the step by an object that matches a template. `tree`: the details, where the step has them so."""
        if not self._may_end_by(template):
            return None
        ids, held = template.ids(cuts), self.calls
        if tree is not None:
            return self._tool_ending_by(template, cuts, ids, tree)
        if template.message_at >= 0:
            if held is not None or cuts[template.message_at].decode("ascii") != self._message:
                return None
            return Ending(None, template.published(cuts, _NOTHING), ids, template.absent, 0)
        if template.left:
            if held is None:
                return None
            left = template.published(cuts, details_of(held, 0))
            return Ending(None, left, ids, template.absent, (1 << len(held)) - 1)
        span = template.details_in(cuts)
        named = None if held is None else template.named.get(len(held))
        if held is not None and named is not None and named.may_name(held) and named.said(held) == span:
            said = template.published(cuts, details_of(held, named.outputs))
            return Ending(None, said, ids, template.absent, named.texts)
        try:
            details = read_exact_details(span)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return None
        texts = self._end_details(details) if details.type == self.type else None
        if texts is None:
            return None
        if held is not None and named is None:
            template.learn_named(span)
        return Ending(None, template.published(cuts, canonical_step(details)), ids, template.absent, texts)

    def _may_end_by(self, template: EndTemplate) -> bool:
        return len(self.opening) > 0 and template.type == self.type and not template.unsaid & ~self.absent

    def ending_behind(
        self, template: EndTemplate, shared: SharedBeginning, value: bytes, begin: i64, tree: Tree | None
    ) -> Ending | None:
        """`ending_by` of a value whose data, from `begin` on, begins as the object that began the step.

        None also where it does not begin so: then it has to be cut from its beginning on.
        """
        if self.lengths != shared.lengths or self.begun_by is not shared.begin or not self._may_end_by(template):
            return None
        opening, shape, held = self.opening, template.shape, self.calls
        if held is not None and shared.says_run:  # so `run_id` is what the object says
            ending = self._calls_ending_behind(template, shared, value, begin, held)
            if ending is not None or template.left:
                return ending
        cuts = shape.cut_behind(value, begin, opening, shared, shape.frame, _NOTHING)
        return None if cuts is None else self.ending_by(template, cuts, tree)

    def _calls_ending_behind(
        self, template: EndTemplate, shared: SharedBeginning, value: bytes, begin: i64, held: list[Call]
    ) -> Ending | None:
        """End a step of function calls that are left to the fold, or named in a way that is known.

        What differs is put straight into what is published, and named calls are compared where they stand.
        """
        frame: CallsFrame | None = None
        said = _NOTHING
        texts = 0
        if template.left:
            frame = template.frame_of(held, outputs_of(held))
            texts = (1 << len(held)) - 1
        else:
            named = template.named.get(len(held))
            if named is not None and named.may_name(held):
                frame = template.frame_of(held, outputs_of(held) | named.outputs)
                said, texts = named.said(held), named.texts
        if frame is None:
            return None
        pieces = template.shape.cut_behind(value, begin, self.opening, shared, frame, said)
        if pieces is None:
            return None
        frame.put_calls(pieces, held)
        hole = template.thread_hole
        thread = template.thread_id if hole < 0 else pieces[frame.spots[hole]]
        return Ending(None, _NOTHING.join(pieces), (self.run_id, thread), template.absent, texts)

    def _tool_ending_by(
        self, template: EndTemplate, cuts: list[bytes], ids: tuple[Any, Any], tree: Tree
    ) -> Ending | None:
        texts: list[Any] = []
        outline = template.outlines.of(tree, texts)
        if template.left:
            if outline is not None and outline.left is not None:
                left = template.published(cuts, outline.left.filled(pieces_in(texts)))
                return Ending(None, left, ids, template.absent, 0, outline.leaves)
            return _ending_with(template, cuts, ids, tree, Notes())
        span = template.details_in(cuts)
        if outline is not None:
            pieces = pieces_in(texts)
            named = outline.named(span, pieces)
            if named is not None:
                said = template.published(cuts, named.published.filled(pieces))
                return Ending(None, said, ids, template.absent, 0, named.leaves)
        if span.count(b"{") + span.count(b"[") > _MAX_BRACKETS:
            return None
        try:
            details = read_tool_details(span)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        if details.type != self.type:
            return None
        notes = Notes()
        ending = _ending_with(template, cuts, ids, _finished(tree, details, notes), notes)
        if ending is not None and outline is not None:
            outline.learn(span, tree)
        return ending

    def _complete(self, stated: StatedStep[Any], told: tuple[Any, ...], status: Status) -> int:
        """Fill what an ending object does not say. Returns the bits of the fields that none named; -1 to decline."""
        unsaid, nulls = 0, 0
        for number, value in enumerate(told):
            if value is _UNSET:
                unsaid |= 1 << number
            elif value is None:
                nulls |= 1 << number
        expired_at = told[EXPIRED_AT]
        if unsaid & ~self.absent or nulls & _KEPT_BITS:
            _fill_missing(stated, read_exact_step(self.opening))
            expired_at = stated.expired_at
        if expired_at is not None and expired_at is not _UNSET and status is not Status.EXPIRED:
            return -1
        absent = unsaid & self.absent & _SCHEMA_BITS
        if absent:
            for number, name in _SCHEMA_FIELDS:
                if absent >> number & 1:
                    setattr(stated, name, None)
        return absent

    def _details_left(self) -> ExactDetails:
        """The details of an ending object that leaves all to the fold."""
        if self.calls is None:
            return ExactDetails(type=self.type, message_creation=ExactMessage(self._message or ""))
        return ExactDetails(type=self.type, tool_calls=[])

    def _end_details(self, details: ExactDetails) -> int | None:
        """Merge the details; returns the bits of the calls whose text is the fold's own. None: something differs."""
        held, told, message = self.calls, details.tool_calls, details.message_creation
        if held is None:
            return 0 if told is _UNSET and message is not _UNSET and message.message_id == self._message else None
        if message is not _UNSET or told is _UNSET:
            return None
        if not told:
            details.tool_calls = [
                ExactTool(
                    ExactFunction(
                        arguments=call.text.raw(), name=call.name, output=None if call.says_output else _UNSET
                    ),
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
            call, said = held[number], _astuple(tool)
            function, tool_id = said[0], said[1]
            body: tuple[Any, ...] = _astuple(function)
            stated_arguments, output = body[0], body[2]
            if tool_id != call.call_id or said[2] != call.kind or body[1] != call.name or tool_id in ids:
                return None
            ids.append(tool_id)
            if stated_arguments is None or stated_arguments is _UNSET:
                texts |= 1 << number
            elif not call.text.is_said_by(_encode(stated_arguments)):
                return None
            function.arguments = call.text.raw()
            if call.says_output and output is _UNSET:
                function.output = None
        return texts

    def end(self, ending: Ending) -> None:
        """Take the end that `ending_of` found."""
        self.opening, self._ended, self._published, self._message = b"", ending.stated, ending.published, None
        self.absent, self.texts, self.leaves = ending.absent, ending.texts, ending.leaves
        self.has_ended, self.ids = True, ending.ids
        run_id = ending.ids[0]
        self.run_id = run_id if type(run_id) is str else None

    def said_ids(self) -> tuple[Any, Any]:
        """The fields `run_id` and `thread_id` of an ended step."""
        run, thread = self.ids
        return run, thread.decode("ascii") if type(thread) is bytes else thread

    def encoded(self) -> bytes:
        """The canonical bytes of an ended step."""
        ending = self._ended
        if ending is not None and not self._published:
            self._published = canonical_step(ending)
        return self._published

    def shrink(self) -> None:
        """Keep of an ended step what was published of it alone."""
        self.encoded()
        self._ended = self.calls = None

    @staticmethod
    def of_kept(kept: list[Any]) -> CompactStep:
        """The ended step of which these were kept: `encoded`, `run_id`, `absent`, `texts` and `leaves`."""
        form = CompactStep(b"", "", None, None, 0)
        form.calls = None
        form._published, form.run_id, form.absent, form.texts, leaves = kept
        if leaves:
            form.leaves = [tuple(way) for way in leaves]
        return form

    # --- the general form -----------------------------------------------------------------------------------

    def take_tree(self) -> Tree:
        """The details as a tree from here on, in place of `calls`."""
        tree: Tree = {"type": self.type, "tool_calls": Indexed()}
        self._put_calls(tree)
        self.calls = None
        return tree

    def _put_calls(self, tree: Tree) -> None:
        if self.calls:
            tree["tool_calls"].entries.update({n: call.entry() for n, call in enumerate(self.calls)})

    def general(self) -> tuple[dict[str, Any], Tree]:
        """The same as fields and tree. What deltas grow in the tree are the texts of the calls themselves."""
        published = self.encoded()
        tree: Tree = {}
        if not published:
            fields: dict[str, Any] = read_any(self.opening)
            fill(tree, fields.pop("step_details"))
            self._put_calls(tree)
            return fields, tree
        fields = read_any(published)
        tree = adopt(fields.pop("step_details"))
        for number, name in enumerate(_EXACT_NAMES):
            if self.absent >> number & 1:
                del fields[name]
        tools = tree.get("tool_calls")
        if tools is not None:
            for number, entry in tools.entries.items():
                if self.texts >> number & 1:
                    text = Text()
                    text.write(entry["function"]["arguments"])
                    entry["function"]["arguments"] = text
        restore_leaves(tree, self.leaves)
        return fields, tree


def _fill_missing(stated: StatedStep[Any], first: ExactStep) -> None:
    """Fill what an ending object does not say, or cannot erase, with what the step began with."""
    before = _astuple(first)
    for number, told in enumerate(_astuple(stated)):
        name = _EXACT_NAMES[number]
        if told is _UNSET or (told is None and name in KEPT_OVER_NULL):
            earlier = before[number]
            if earlier is not _UNSET:
                setattr(stated, name, earlier)


def _ending_with(
    template: EndTemplate, cuts: list[bytes], ids: tuple[Any, Any], tree: Tree, notes: Notes
) -> Ending | None:
    """Merge an ending object that matches a template into a step with this tree."""
    leaves = odd_leaves(tree)
    if leaves is None:
        return None
    published = template.published(cuts, canonical(publishable(tree)))
    return Ending(None, published, ids, template.absent, 0, leaves, notes)


def _finished(tree: Tree, details: ToolDetails, notes: Notes) -> Tree:
    """The tree with what an ending object says of its calls; the one that was given stays as it is."""
    if not details.tool_calls:
        return tree
    tree = copied(tree)
    finish(tree, {"type": details.type, "tool_calls": details.tool_calls}, notes)
    return tree


def opens_exactly(event: ExactObject) -> bool:
    """Whether a step that begins so may be held compact: no calls yet, and a type that is the details' own."""
    kind = event.told[TYPE]
    details = event.told[DETAILS]
    if details is None:
        return False
    message, calls, own_kind = _astuple(details)
    if own_kind != kind:
        return False
    if kind == "tool_calls":
        return not calls and calls is not _UNSET and message is _UNSET
    return kind == "message_creation" and calls is _UNSET and message is not _UNSET
