"""JSON Schema of a published step: what a reader may rely on, and what the service usually sends.

Only what the fold guarantees is required. It publishes what the service sent, so a field whose type is the service's
affair is described, not constrained: a record that does not fit a schema would otherwise be lost on its readers.
"""

from __future__ import annotations

from typing import Any, Final

from processor.core.lifecycle import TERMINAL
from processor.core.merge import MAX_INDEX
from processor.core.responses.decode import MAX_RESPONSE_ID

_MAX_STEP_ID: Final = MAX_RESPONSE_ID + len(f":{MAX_INDEX - 1}")
"""A step of a Responses stream is named by its response and its `output_index`; ids of run steps are shorter."""
_ID: Final = "Usually a string; null where no event told it."
_SECONDS: Final = "Usually an integer, seconds since 1970; null otherwise."

# What each key holds, in the order of the API's page on run steps.
_FIELDS: Final = {
    "id": "Id of the step, and the record's key.",
    "object": "As it came; `thread.run.step` where none came, or what `output.object_type` says.",
    "created_at": f"When the step was created. {_SECONDS}",
    "assistant_id": f"Id of the assistant. {_ID}",
    "thread_id": f"Id of the thread. {_ID}",
    "run_id": f"Id of the run. {_ID}",
    "type": "Usually `message_creation` or `tool_calls`; services add others.",
    "status": "How the step ended. The record stands on the topic of this status.",
    "step_details": "The message or the tool calls, with all deltas folded in; an object, or null where none came.",
    "last_error": "Usually null, or an object with `code` and `message`.",
    "expired_at": f"When the step expired. {_SECONDS}",
    "cancelled_at": f"When the step was cancelled. {_SECONDS}",
    "failed_at": f"When the step failed. {_SECONDS}",
    "completed_at": f"When the step was completed. {_SECONDS}",
    "metadata": "Usually an object of strings, or null.",
}


def snapshot_schema() -> dict[str, Any]:
    """JSON Schema 2020-12 of the value of a published record."""
    properties: dict[str, dict[str, Any]] = {name: {"description": text} for name, text in _FIELDS.items()}
    properties["id"] |= {"type": "string", "minLength": 1, "maxLength": _MAX_STEP_ID}
    properties["status"] |= {"enum": sorted(TERMINAL)}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Published step",
        "description": "A finished run step. Keys beside these 15 are kept as the service sent them (`usage`, ...).",
        "type": "object",
        "required": list(_FIELDS),
        "properties": properties,
        "additionalProperties": True,
    }
