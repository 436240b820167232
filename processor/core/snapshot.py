"""One step as it stands, and what each event does to it. Status is decided in `lifecycle`, merging in `merge`."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from processor.core.effects import Reason, Rejected, Status
from processor.core.events import MAX_ID
from processor.core.lifecycle import ORPHANING, RUN_ENDS
from processor.core.merge import (
    MAX_INDEX,
    NULL_SIZE,
    SHORT,
    Indexed,
    Notes,
    Text,
    Tree,
    bad_index,
    characters,
    fill,
    finish,
    merge_delta,
    pack,
    plain,
    unpack,
)
from processor.core.saved import Inference
from processor.core.shapes import ExactData, RunEnd, StepDelta, StepObject

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
_BLANK: Final[dict[str, Any]] = dict.fromkeys(SCHEMA_KEYS)


class Step:
    """A step that is remembered as an object: open, or ended and being amended.

    `tree` is `step_details` (see `core.merge`), `fields` all else that step objects said. Times in seconds of stream
    time.
    """

    __slots__ = (
        "_text",
        "_text_body",
        "_text_index",
        "_text_kind",
        "anomalies",
        "characters",
        "events",
        "fields",
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
        "trace",
        "tree",
        "usable_expires_at",
    )

    def __init__(self, step_id: str, offset: int, opened_s: int) -> None:
        self.step_id = step_id
        self.status = Status.IN_PROGRESS
        self.fields: dict[str, Any] = {}
        self.tree: Tree = {}
        self._text: Text | None = None  # where the last delta's text went, for the short way in
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
    def run_id(self) -> str | None:
        found = self.fields.get("run_id")
        return found if type(found) is str else None

    def details_type(self) -> str | None:
        """The type that `step_details` must keep (M7)."""
        return self.tree.get("type") or self.fields.get("type")

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
        self._note(event)
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
        self._settle(size)

    def end(self, event: StepObject, status: Status, size: int) -> None:
        """Let an ending object have the last word (M6)."""
        self._note(event)
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
        self._settle(size)

    def append(self, delta: StepDelta) -> int:
        """Merge a delta whose indexes and type were checked (M1-M5). Returns the nulls that changed nothing."""
        notes = Notes()
        merge_delta(self.tree, delta.details, notes)
        self._anomalies_of(notes)
        self.characters += characters(delta.details)
        self._text = None
        self.events += 1
        return notes.nulls

    def append_exact(self, data: ExactData, limit: int) -> bool:
        """The short way for a delta that only adds text to one known call; False says: go the general way.

        Whatever it accepts, `append` would do the same with.
        """
        calls = data.delta.step_details.tool_calls
        if len(calls) != 1:
            return False
        call = calls[0]
        function, code = call.function, call.code_interpreter
        if type(code) is msgspec.UnsetType:
            if (
                type(function) is msgspec.UnsetType
                or type(function.name) is not msgspec.UnsetType
                or type(function.output) is not msgspec.UnsetType
            ):
                return False
            body, brought = "function", function.arguments
        elif type(function) is msgspec.UnsetType:
            body, brought = "code_interpreter", code.input
        else:
            return False
        if type(brought) is not str or type(call.id) is not msgspec.UnsetType:
            return False
        held = self._text
        if held is None or call.index != self._text_index or body != self._text_body:
            held = self._find_text(call.index, body)
            if held is None:
                return False
        if call.type != self._text_kind or self.object_bytes + self.characters + len(brought) > limit:
            return False
        held.write(brought)
        self.characters += len(brought)
        self.events += 1
        return True

    def _find_text(self, index: int, body: str) -> Text | None:
        """The text that deltas of this call add to, remembered until something else changes the tree."""
        calls = self.tree.get("tool_calls")
        if type(calls) is not Indexed or self.tree.get("type") != "tool_calls" or self.oversize:
            return None
        entry = calls.entries.get(index)
        if entry is None:
            return None
        kind, held = entry.get("type"), entry.get(body)
        text = held.get("arguments" if body == "function" else "input") if type(held) is dict else None
        if type(kind) is not str or len(kind) > SHORT or type(text) is not Text:
            return None
        self._text, self._text_index, self._text_body, self._text_kind = text, index, body, kind
        return text

    def open_exact(self, data: ExactData, limit: int) -> bool:
        """The short way for the delta that begins a call; False says: go the general way. As `append_exact`."""
        calls = data.delta.step_details.tool_calls
        if len(calls) != 1:
            return False
        call = calls[0]
        index, kind, call_id, function = call.index, call.type, call.id, call.function
        held = self.tree.get("tool_calls")
        if (
            type(function) is msgspec.UnsetType
            or type(call.code_interpreter) is not msgspec.UnsetType
            or type(kind) is not str
            or len(kind) > SHORT
            or type(call_id) is not str
            or type(held) is not Indexed
            or index in held.entries
            or not 0 <= index < MAX_INDEX
            or self.tree.get("type") != "tool_calls"
            or self.oversize
        ):
            return False
        name, arguments = function.name, function.arguments
        if type(name) is not str or type(arguments) is not str:
            return False
        brought = len(call_id) + len(name) + len(arguments)
        body: Tree = {"name": name, "arguments": None}
        if function.output is None:
            body["output"] = None
            brought += NULL_SIZE
        elif type(function.output) is not msgspec.UnsetType:
            return False
        if self.object_bytes + self.characters + brought > limit:
            return False
        body["arguments"] = text = Text()
        text.write(arguments)
        held.entries[index] = {"type": kind, "id": call_id, "function": body}
        self._text, self._text_index, self._text_body, self._text_kind = text, index, "function", kind
        self.characters += brought
        self.events += 1
        return True

    def infer(self, how: str, status: Status, at_s: int, last_error: Any = None) -> None:
        self.inference = Inference(how, status, at_s, last_error)
        self.status = status
        self.irregular = True

    def end_with_run(self, run: RunEnd, timestamp: int) -> None:
        """L6: the step ends as its run did."""
        status = RUN_ENDS[run.status]
        if run.status in ORPHANING:
            self.mark("orphaned_by_run")
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
            step.fields,
            step.tree,
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
        self._text = None
        self.mark("step_too_large")

    def mark(self, anomaly: str) -> None:
        """Note what the published step will carry as an anomaly."""
        self.anomalies |= {anomaly}

    # --- inside -------------------------------------------------------------------------------------------

    def _note(self, event: StepObject) -> None:
        if event.disagrees:
            self.mark("status_disagrees")
        if event.unknown_status:
            self.mark("unknown_status")

    def _anomalies_of(self, notes: Notes) -> None:
        if notes.changed_field:
            self.mark("changed_field")
        if notes.fold_divergence:
            self.mark("fold_divergence")

    def _settle(self, size: int) -> None:
        self.object_bytes = max(self.object_bytes, size)
        self.events += 1
        self._text = None


def general(data: ExactData) -> StepDelta | None:
    """An exact delta in the general form; None where the general way has something to say about its id."""
    if not 0 < len(data.id) <= MAX_ID:
        return None
    return StepDelta(data.id, msgspec.to_builtins(data.delta.step_details))


def check_delta(delta: StepDelta) -> Rejected | None:
    """M1 before anything is touched."""
    why = bad_index(delta.details)
    return None if why is None else Rejected(Reason.BAD_INDEX, why)


def usable_expires_at(value: Any, grace_s: int, now_ms: int) -> int | None:
    """L7a: an integer from 1 to 2^40 whose deadline had not passed when it came."""
    if type(value) is int and 0 < value <= MAX_EXPIRES_AT and (value + grace_s) * 1000 > now_ms:
        return value
    return None
