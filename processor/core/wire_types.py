"""Structures of the JSON that services send, with their decoders. `core.events` makes events of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Generic, Literal, TypeVar

import msgspec
from msgspec import UNSET, Raw, UnsetType

from processor.core.effects import Rejected
from processor.core.exact_events import ExactEvent
from processor.core.lifecycle import Kind
from processor.core.responses.event import ResponseEvent

# --- events ------------------------------------------------------------------------------------------------------


class StepObject(msgspec.Struct, frozen=True, gc=False):
    """A whole step as the service states it. `data` holds every field that came."""

    kind: Kind
    step_id: str
    data: dict[str, Any]
    disagrees: bool = False
    unknown_status: bool = False
    mended: bool = False
    """A half of a surrogate pair was replaced in it."""


class StepDelta(msgspec.Struct, frozen=True, gc=False):
    """A piece of a step's details. Checked: indexes are valid, `details.tool_calls` is a list of objects."""

    step_id: str
    details: dict[str, Any]
    mended: bool = False


class RunEnd(msgspec.Struct, frozen=True, gc=False):
    """A run has ended; `status` is one of `RUN_ENDS`."""

    run_id: str
    status: str
    ended_at: int | None
    last_error: Any
    disagrees: bool = False


class StreamError(msgspec.Struct, frozen=True, gc=False):
    """The stream broke (`error`). It names no run: the record's header or key does. `error` is what it says."""

    error: Any


class Ignored(msgspec.Struct, frozen=True, gc=False):
    """Not about steps. `why`: `ignored`, `tombstone` or `unknown_event`."""

    why: str


# --- exact shapes: what nearly every record is -------------------------------------------------------------------


class DeltaFunction(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """The body of a function call, and of those that are like one."""

    name: str | UnsetType | None = UNSET
    arguments: str | UnsetType | None = UNSET
    output: str | UnsetType | None = UNSET


class DeltaOutput(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """One output of a code interpreter. `index` is not yet checked."""

    index: int
    type: str | UnsetType = UNSET
    logs: str | UnsetType = UNSET


class DeltaCode(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    input: str | UnsetType | None = UNSET
    outputs: list[DeltaOutput] | UnsetType = UNSET


class DeltaQuestion(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    input: str | UnsetType = UNSET


class ExactCall(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """One entry of a tool call delta in one of its commonest shapes. `index` is not yet checked.

    Behind the first five fields stand those that hold the text of a delta, or lead to it.
    """

    index: int
    type: str | UnsetType = UNSET
    id: str | UnsetType | None = UNSET
    name: str | UnsetType = UNSET
    server_label: str | UnsetType = UNSET
    function: DeltaFunction | UnsetType = UNSET
    arguments: str | UnsetType = UNSET
    code_interpreter: DeltaCode | UnsetType = UNSET
    azure_function: DeltaFunction | UnsetType = UNSET
    connected_agent: DeltaFunction | UnsetType = UNSET
    fabric_dataagent: DeltaQuestion | UnsetType = UNSET


class _ExactDetails(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    type: Literal["tool_calls"]
    tool_calls: list[ExactCall]


class _ExactBody(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    step_details: _ExactDetails


class ExactData(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    id: str
    delta: _ExactBody
    object: str = ""


Event = StepObject | StepDelta | ExactEvent | RunEnd | StreamError | ResponseEvent | Ignored | Rejected


class Decoded(msgspec.Struct, frozen=True, gc=False):
    """The events of one record, in order, with their ids where the producer gave any."""

    events: tuple[Event, ...]
    ids: tuple[str | None, ...]


class ExactDelta(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    event: Literal["thread.run.step.delta"]
    data: ExactData


class NamedObject(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    event: str
    data: dict[str, Any]


exact_data: Final = msgspec.json.Decoder(ExactData).decode
exact_delta: Final = msgspec.json.Decoder(ExactDelta).decode
named_object: Final = msgspec.json.Decoder(NamedObject).decode


# Names in ascending order: a structure is written as it stands, and canonical bytes have their keys sorted.


class ExactFunction(msgspec.Struct, forbid_unknown_fields=True, gc=False, kw_only=True):
    arguments: str | UnsetType | None = UNSET
    name: str
    output: str | UnsetType | None = UNSET


class ExactTool(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    function: ExactFunction
    id: str
    type: str


class ExactMessage(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    message_id: str


class ExactDetails(msgspec.Struct, forbid_unknown_fields=True, gc=False, kw_only=True):
    message_creation: ExactMessage | UnsetType = UNSET
    tool_calls: list[ExactTool] | UnsetType = UNSET
    type: str


Scalar = str | int | float | bool | None
Said = Scalar | UnsetType


class ToolDetails(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """Details with calls of any tools, as a tree would take them in."""

    tool_calls: list[dict[str, Any]]
    type: str


Details = TypeVar("Details")


class StatedStep(msgspec.Struct, Generic[Details], forbid_unknown_fields=True, gc=False, kw_only=True):
    """A step object in one of its commonest shapes: no keys but these, and nothing but the details nested deeper.

    An ending object may have null for its type and its details, which says nothing.
    """

    assistant_id: Said = UNSET
    cancelled_at: Said = UNSET
    completed_at: Said = UNSET
    created_at: Said = UNSET
    expired_at: Said = UNSET
    expires_at: Said = UNSET
    failed_at: Said = UNSET
    id: str
    last_error: dict[str, Scalar] | UnsetType | None = UNSET
    metadata: dict[str, Scalar] | UnsetType | None = UNSET
    object: str
    run_id: str | UnsetType | None = UNSET
    status: str
    step_details: Details
    thread_id: Said = UNSET
    type: str | None
    usage: dict[str, Scalar | dict[str, Scalar]] | UnsetType | None = UNSET


ExactStep = StatedStep[ExactDetails | None]
"""With function calls or a message."""
ToolStep = StatedStep[ToolDetails | None]
"""With calls of any tools."""


read_exact_step: Final = msgspec.json.Decoder(ExactStep).decode
read_tool_step: Final = msgspec.json.Decoder(ToolStep).decode
read_split_step: Final = msgspec.json.Decoder(StatedStep[Raw]).decode
"""Its details are left as JSON."""
read_exact_details: Final = msgspec.json.Decoder(ExactDetails).decode
read_tool_details: Final = msgspec.json.Decoder(ToolDetails).decode
read_text: Final = msgspec.json.Decoder(str).decode


# --- any shape ---------------------------------------------------------------------------------------------------


class Envelope(msgspec.Struct, gc=False):
    """The outermost object of any form, its data not yet read."""

    event: Any = UNSET
    data: Raw | UnsetType = UNSET
    object: Any = UNSET
    specversion: Any = UNSET
    type: Any = UNSET
    data_base64: Any = UNSET
    id: Any = UNSET
    source: Any = UNSET


class RunHead(msgspec.Struct, gc=False):
    """Fields of a run that the fold needs; the others are skipped unread."""

    id: Any = None
    status: Any = None
    completed_at: Any = None
    incomplete_at: Any = None
    failed_at: Any = None
    cancelled_at: Any = None
    expired_at: Any = None
    last_error: Any = None


class NamedRun(msgspec.Struct, gc=False):
    """An event about a run. Its other fields are skipped unread, too, but for those that an `Envelope` has."""

    event: str
    data: RunHead
    object: Any = UNSET
    specversion: Any = UNSET
    type: Any = UNSET
    data_base64: Any = UNSET
    id: Any = UNSET
    source: Any = UNSET


Span = Any
"""JSON text: bytes, or `Raw`, which its stubs call bytes though it is none (a compiler would believe them)."""


read_envelope: Final = msgspec.json.Decoder(Envelope).decode
read_envelopes: Final[Callable[[Span], list[Span]]] = msgspec.json.Decoder(list[Raw]).decode
read_run_head: Final = msgspec.json.Decoder(RunHead).decode
read_named_run: Final = msgspec.json.Decoder(NamedRun).decode
read_any: Final = msgspec.json.Decoder().decode
skip: Final = msgspec.json.Decoder(Raw).decode


# --- out ---------------------------------------------------------------------------------------------------------

canonical: Final = msgspec.json.Encoder(order="sorted").encode
"""Canonical bytes of a JSON value (docs/semantics.md, Snapshot)."""

canonical_step: Final = msgspec.json.Encoder(order="deterministic").encode
"""The same of an `ExactStep`: its own names stand sorted as they are, only what is inside is yet to be."""
