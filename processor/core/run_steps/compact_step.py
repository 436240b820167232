"""The compact form of a run step: what it began with as its JSON, function calls as they grow, its end as it came.

A step of other tools has its details as a tree beside it, and everything else in this form.

It saves memory and time and changes no outcome: whatever it accepts, the general form (`step.Step`) would hold as the
same step. `ending_of` says what the end would be and changes nothing; `end` applies it.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import UNSET

from processor.core.effects import Status
from processor.core.growing_text import Text
from processor.core.merge import (
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
from processor.core.run_steps.usual_events import (
    DETAILS,
    EXPIRED_AT,
    OBJECT,
    RUN_ID,
    TYPE,
    ExactObject,
)
from processor.core.step_state import SCHEMA_KEYS
from processor.core.wire_types import (
    ExactDetails,
    ExactFunction,
    ExactStep,
    ExactTool,
    StatedStep,
    ToolDetails,
    canonical_step,
    read_any,
    read_exact_step,
)

KEPT_OVER_NULL: Final = frozenset({"run_id", "thread_id", "assistant_id", "created_at", "type", "step_details"})
"""What even an ending object cannot erase with a null."""

_UNSET: Final = UNSET
_SCHEMA_NAMES: Final = frozenset(SCHEMA_KEYS)
_astuple: Final = msgspec.structs.astuple
_encode: Final = msgspec.json.Encoder().encode
_EXACT_NAMES: Final = StatedStep.__struct_fields__
_NO_LEAVES: Final[list[Way]] = []
_SCHEMA_FIELDS: Final = [(n, name) for n, name in enumerate(_EXACT_NAMES) if name in _SCHEMA_NAMES]
_SCHEMA_BITS: Final = sum(1 << n for n, _ in _SCHEMA_FIELDS)
_KEPT_BITS: Final = sum(1 << n for n, name in enumerate(_EXACT_NAMES) if name in KEPT_OVER_NULL)


class Call:
    """A function call of a compact step: what its first delta said, and its arguments so far."""

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


class Ending:
    """What an ending object makes of a compact step: the whole snapshot, and how much of it the object said itself.

    `absent`: bits of the fields that no object named. `texts`: bits of the function calls whose arguments deltas may
    still add to. Where there was a tree: its `leaves` (`merge.odd_leaves`), and the `notes` of the merge.
    """

    __slots__ = ("absent", "leaves", "notes", "stated", "texts")

    def __init__(
        self,
        stated: StatedStep[Any],
        absent: int,
        texts: int,
        leaves: list[Way] = _NO_LEAVES,
        notes: Notes | None = None,
    ) -> None:
        self.stated, self.absent, self.texts = stated, absent, texts
        self.leaves, self.notes = leaves, notes


class CompactStep:
    """A step that did only what nearly all steps do. `calls`: function call n stands at index n; None: see its tree.

    Args:
        event: the object it begins with, which `opens_exactly`; None: the step has ended, see `of_kept`.
    """

    __slots__ = (
        "_absent",
        "_leaves",
        "_message",
        "_published",
        "_texts",
        "_type",
        "calls",
        "ending",
        "opening",
        "run_id",
    )

    def __init__(self, event: ExactObject | None) -> None:
        self.ending: StatedStep[Any] | None = None
        self._leaves = _NO_LEAVES
        self._published = b""
        self._texts = 0
        if event is None:
            self.opening, self._message = b"", _UNSET
            self._type = ""
            self.run_id: str | None = None
            self.calls: list[Call] | None = None
            self._absent = 0
            return
        told = event.told
        self.opening = event.data
        self._type = told[TYPE]
        self._message = _UNSET if self._type == "tool_calls" else told[DETAILS].message_creation
        run_id = told[RUN_ID]
        self.run_id = run_id if type(run_id) is str else None
        self.calls = [] if self._type == "tool_calls" else None
        unsaid = 0
        for number, value in enumerate(told):
            if value is _UNSET:
                unsaid |= 1 << number
        self._absent = unsaid

    def peek(self) -> tuple[Any, Any]:
        """The thread id and the type of the details of an open step."""
        opened = read_any(self.opening)
        details = opened.get("step_details")
        told = details.get("type") if isinstance(details, dict) else None
        return opened.get("thread_id"), told or opened.get("type")

    # --- its end --------------------------------------------------------------------------------------------

    def ending_of(self, event: ExactObject, status: Status) -> Ending | None:
        """What an ending object makes of it (M6); None if it disagrees with anything. Changes `event.stated` alone."""
        if not self.opening:
            return None
        told = event.told
        details: ExactDetails = told[DETAILS]
        if not (told[TYPE] == details.type == self._type and told[OBJECT]):
            return None
        texts = self._end_details(details)
        if texts is None:
            return None
        stated = event.stated
        absent = self._complete(stated, told, status)
        return None if absent < 0 else Ending(stated, absent, texts)

    def tool_ending_of(self, stated: StatedStep[Any], status: Status, tree: Tree) -> Ending | None:
        """The same where the details are a tree, which stays as it is. `stated` has `ToolDetails` and is changed."""
        details: ToolDetails = stated.step_details
        if not self.opening or not (stated.type == details.type == self._type and stated.object):
            return None
        notes = Notes()
        if details.tool_calls:
            tree = copied(tree)
            finish(tree, {"type": details.type, "tool_calls": details.tool_calls}, notes)
        leaves = odd_leaves(tree)
        if leaves is None:
            return None
        stated.step_details = publishable(tree)
        absent = self._complete(stated, _astuple(stated), status)
        return None if absent < 0 else Ending(stated, absent, 0, leaves, notes)

    def _complete(self, stated: StatedStep[Any], told: tuple[Any, ...], status: Status) -> int:
        """Fill what an ending object does not say. Returns the bits of the fields that none named; -1 to decline."""
        unsaid, nulls = 0, 0
        for number, value in enumerate(told):
            if value is _UNSET:
                unsaid |= 1 << number
            elif value is None:
                nulls |= 1 << number
        expired_at = told[EXPIRED_AT]
        if unsaid & ~self._absent or nulls & _KEPT_BITS:
            _fill_missing(stated, read_exact_step(self.opening))
            expired_at = stated.expired_at
        if expired_at is not None and expired_at is not _UNSET and status is not Status.EXPIRED:
            return -1
        absent = unsaid & self._absent & _SCHEMA_BITS
        if absent:
            for number, name in _SCHEMA_FIELDS:
                if absent >> number & 1:
                    setattr(stated, name, None)
        return absent

    def _end_details(self, details: ExactDetails) -> int | None:
        """Merge the details; returns the bits of the calls whose text is the fold's own. None: something differs."""
        held, told, message = self.calls, details.tool_calls, details.message_creation
        if held is None:
            return 0 if told is _UNSET and message == self._message else None
        if message is not _UNSET or told is _UNSET:
            return None
        if not told:
            details.tool_calls = [
                ExactTool(
                    ExactFunction(call.text.raw(), call.name, None if call.says_output else _UNSET),
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
            if stated_arguments is None:
                texts |= 1 << number
            elif not call.text.is_said_by(_encode(stated_arguments)):
                return None
            function.arguments = call.text.raw()
            if call.says_output and output is _UNSET:
                function.output = None
        return texts

    def end(self, ending: Ending) -> None:
        """Take the end that `ending_of` found."""
        stated = ending.stated
        self.opening, self.ending, self._message = b"", stated, _UNSET
        self._absent, self._texts, self._leaves = ending.absent, ending.texts, ending.leaves
        self.run_id = stated.run_id if type(stated.run_id) is str else None

    def encoded(self) -> bytes:
        """The canonical bytes of an ended step."""
        ending = self.ending
        if ending is not None and not self._published:
            self._published = canonical_step(ending)
        return self._published

    def shrink(self) -> None:
        """Keep of an ended step what was published of it alone."""
        self.encoded()
        self.ending = self.calls = None

    def kept(self) -> list[Any]:
        """What `shrink` leaves, as plain data for `of_kept`."""
        return [self._published, self.run_id, self._absent, self._texts, self._leaves]

    @staticmethod
    def of_kept(kept: list[Any]) -> CompactStep:
        """The ended step that `kept` gave."""
        form = CompactStep(None)
        form._published, form.run_id, form._absent, form._texts, leaves = kept
        if leaves:
            form._leaves = [tuple(way) for way in leaves]
        return form

    # --- the general form -----------------------------------------------------------------------------------

    def take_tree(self) -> Tree:
        """The details as a tree from here on, in place of `calls`."""
        tree: Tree = {}
        fill(tree, read_any(self.opening)["step_details"])
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
            if self._absent >> number & 1:
                del fields[name]
        tools = tree.get("tool_calls")
        if tools is not None:
            for number, entry in tools.entries.items():
                if self._texts >> number & 1:
                    text = Text()
                    text.write(entry["function"]["arguments"])
                    entry["function"]["arguments"] = text
        restore_leaves(tree, self._leaves)
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


def opens_exactly(event: ExactObject) -> bool:
    """Whether a step that begins so may be held compact: no calls yet, and a type that is the details' own."""
    kind: str = event.told[TYPE]
    message, calls, own_kind = _astuple(event.told[DETAILS])
    if own_kind != kind:
        return False
    if kind == "tool_calls":
        return not calls and calls is not _UNSET and message is _UNSET
    return kind == "message_creation" and calls is _UNSET and message is not _UNSET
