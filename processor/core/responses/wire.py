"""Responses events as they come: the structures that are decoded, and where the text of each event belongs."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import UNSET, UnsetType, structs

PREFIX: Final = "response."


Text = str | UnsetType | None
Nothing = UnsetType | None


class TextDelta(msgspec.Struct, gc=False):
    """A piece of text in its commonest shape. Other fields, `obfuscation` among them, are skipped unread.

    Those behind `specversion` say nothing here. They stand here because `WireEvent` or an envelope has them: where one
    is more than a text, it is left to these to judge, as an event that is no delta at once is.
    """

    type: str
    sequence_number: int
    output_index: int
    delta: str
    content_index: int = 0
    summary_index: int = 0
    command_index: int = 0
    event: Any = UNSET
    specversion: Any = UNSET
    object: Text = UNSET
    data_base64: Text = UNSET
    id: Text = UNSET
    source: Text = UNSET
    item_id: Text = UNSET
    text: Text = UNSET
    refusal: Text = UNSET
    arguments: Text = UNSET
    input: Text = UNSET
    code: Text = UNSET
    diff: Text = UNSET
    command: Text = UNSET
    annotation_index: Nothing = UNSET
    item: Nothing = UNSET
    part: Nothing = UNSET
    annotation: Nothing = UNSET
    response: Nothing = UNSET
    error: Nothing = UNSET
    output: Nothing = UNSET


class WireEvent(msgspec.Struct, gc=False):
    """The fields of all events that are folded. What images, audio and padding hold is skipped unread.

    An index of a part that is not said is that of the first one, as in `TextDelta`.
    """

    sequence_number: Any = None
    output_index: Any = None
    item_id: Any = None
    content_index: Any = None
    summary_index: Any = None
    command_index: Any = None
    annotation_index: Any = None
    item: Any = UNSET
    part: Any = UNSET
    delta: Any = UNSET
    annotation: Any = UNSET
    response: Any = UNSET
    error: Any = UNSET
    text: Any = UNSET
    refusal: Any = UNSET
    arguments: Any = UNSET
    input: Any = UNSET
    code: Any = UNSET
    diff: Any = UNSET
    command: Any = UNSET
    output: Any = UNSET


class Place(msgspec.Struct, frozen=True, gc=False):
    """Where a text belongs: the type of its item, the list in it (if any), the part's type, the field.

    `index` is the name of the event's field that numbers the entries of the list. `is_guessed`: the event is in no
    SDK's union, and counts only for an item of that type.
    """

    name: str
    item_type: str
    field: str
    holder: str = ""
    index: str = ""
    part_type: str = ""
    is_guessed: bool = False


# fmt: off
PLACES: Final[dict[str, Place]] = {place.name: place for place in (
    Place("output_text", "message", "text", "content", "content_index", "output_text"),
    Place("refusal", "message", "refusal", "content", "content_index", "refusal"),
    Place("reasoning_text", "reasoning", "text", "content", "content_index", "reasoning_text"),
    Place("reasoning_summary_text", "reasoning", "text", "summary", "summary_index", "summary_text"),
    Place("function_call_arguments", "function_call", "arguments"),
    Place("mcp_call_arguments", "mcp_call", "arguments"),
    Place("custom_tool_call_input", "custom_tool_call", "input"),
    Place("code_interpreter_call_code", "code_interpreter_call", "code"),
    Place("apply_patch_call_operation_diff", "apply_patch_call", "diff", "operation"),
    Place("shell_call_command", "shell_call", "command", "commands", "command_index"),
)}
"""By the event's name without `response.` and its last part (`delta`, `done`)."""
# fmt: on

PLACES["reasoning"] = structs.replace(PLACES["reasoning_text"], is_guessed=True)
PLACES["reasoning_summary"] = structs.replace(PLACES["reasoning_summary_text"], is_guessed=True)

STDOUT: Final = Place("stdout", "shell_call_output", "stdout", "output", "command_index")
STDERR: Final = Place("stderr", "shell_call_output", "stderr", "output", "command_index")
OUTPUT_CONTENT: Final = "shell_call_output_content"
ALL_PLACES: Final[dict[str, Place]] = {
    place.name: place for place in (*PLACES.values(), STDOUT, STDERR) if not place.is_guessed
}
DELTAS: Final[dict[str, Place]] = {
    f"{PREFIX}{name}.delta": place for name, place in PLACES.items() if not place.is_guessed
}

PARTS: Final[dict[str, tuple[str, str]]] = {
    "content_part": ("content", "content_index"),
    "reasoning_part": ("content", "content_index"),
    "reasoning_summary_part": ("summary", "summary_index"),
}
"""Events of parts: the list in the item, and the field that numbers its entries."""

LIFECYCLE: Final = frozenset({"queued", "created", "in_progress"})
ENDS: Final = frozenset({"completed", "failed", "incomplete", "cancelled"})
"""`cancelled` is on no stream: a response that was retrieved says it."""

PROGRESS: Final = frozenset(
    f"{item}.{what}"
    for item in (
        "mcp_call",
        "mcp_list_tools",
        "code_interpreter_call",
        "file_search_call",
        "web_search_call",
        "image_generation_call",
    )
    for what in ("in_progress", "searching", "interpreting", "generating", "completed", "failed")
)
SKIPPED: Final = PROGRESS | frozenset(
    {
        "image_generation_call.partial_image",
        "audio.delta",
        "audio.done",
        "audio.transcript.delta",
        "audio.transcript.done",
        "compaction.compacting",
        "rate_limits.updated",
    }
)
"""Known events that hold nothing to fold: progress, images and audio, limits."""

read_delta: Final = msgspec.json.Decoder(TextDelta).decode
read_event: Final = msgspec.json.Decoder(WireEvent).decode
