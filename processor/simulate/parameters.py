"""Parameters of the generator: what is emitted, how much, and with which faults. Only their check is code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from processor.errors import UsageError

TOOLS: Final = (
    "message_creation",
    "activities",
    "function",
    "code_interpreter",
    "file_search",
    "retrieval",
    "mcp",
    "openapi",
    "azure_function",
    "connected_agent",
    "bing_grounding",
    "azure_ai_search",
    "novel",
)
"""Types of a step. `novel` is an unknown tool type."""

DIALECTS: Final = ("openai", "azure", "lookalike")
"""The recorded services, and one that only resembles them (fields missing, vendor keys added)."""

RESPONSE_ITEMS: Final = (
    "message",
    "reasoning",
    "function_call",
    "custom_tool_call",
    "mcp_call",
    "mcp_list_tools",
    "mcp_approval_request",
    "code_interpreter_call",
    "file_search_call",
    "web_search_call",
    "image_generation_call",
    "computer_call",
    "local_shell_call",
    "shell_call",
    "shell_call_output",
    "apply_patch_call",
    "tool_search_call",
    "tool_search_output",
    "program",
    "compaction",
    "azure_ai_search_call",
    "azure_ai_search_call_output",
    "memory_search_call",
    "novel_call",
)
"""Types of an output item of a response. `novel_call` is of no service."""

GATEWAY_FAULTS: Final = (
    "number_same",  # all events have the same sequence_number
    "number_default",  # events of some kinds have 0
    "number_anew",  # counts anew with each item
    "number_missing",  # events of some kinds have none
    "number_old_at_end",  # the last event has the number of another one, or any below
    "number_float",  # 3.0
    "number_text",  # "3"
    "index_missing",  # no event says an output_index
    "index_missing_in_texts",
    "index_null",
    "index_same",  # all items have the same output_index
    "index_float",
    "index_text",
    "item_null",  # the event that ends an item does not say it: null, {} or left out
    "id_changes",  # the event that ends an item gives it another id
    "done_renamed",  # response.done in the place of response.completed and the others
    "error_renamed",  # response.error or error in the place of response.failed
)
"""What gateways do to the events of a response. A response has one fault of its numbers and one of its indexes at most;
ids change only where indexes tell the items apart."""

ENVELOPES: Final = (
    "event",  # E1
    "bare",  # E2
    "ce_structured",  # E3, the data as JSON
    "ce_base64",  # E3, the data in base64
    "ce_batch",  # E3, several events in one record
    "ce_binary",  # E4
    "sse",  # E5, one frame
    "sse_many",  # E5, several frames
)
"""The form of a record. An event that a form cannot carry travels as `event`, the end of a stream as `sse`."""

DEFAULT_START_MS: Final = 1_720_000_000_000


def _tools() -> dict[str, float]:
    return dict.fromkeys(TOOLS, 1.0) | {"message_creation": 3.0, "function": 6.0, "mcp": 3.0, "code_interpreter": 3.0}


def _dialects() -> dict[str, float]:
    return {"openai": 0.5, "azure": 0.4, "lookalike": 0.1}


def _response_items() -> dict[str, float]:
    return dict.fromkeys(RESPONSE_ITEMS, 1.0) | {"message": 6.0, "reasoning": 3.0, "function_call": 6.0}


def _gateway_faults() -> dict[str, float]:
    return dict.fromkeys(GATEWAY_FAULTS, 1.0)


def _envelopes() -> dict[str, float]:
    return dict.fromkeys(ENVELOPES, 1.0) | {"event": 10.0, "sse": 3.0}


class Parameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Parameters of the generator. Shares are between 0 and 1; mixes are weights by name (a missing name: 0)."""

    runs: int = 1000
    """Runs to start."""
    records: int = 0
    """When more than 0: no further run starts once this many records were made (it overrides `runs`)."""
    seed: int = 1
    partitions: int = 4
    open_runs: int = 50
    """Runs whose records are interleaved at any moment."""
    steps: int = 3
    """Mean number of steps of a run."""
    deltas: int = 20
    """Mean number of text pieces of a step's tool calls."""
    text_bytes: int = 12
    """Mean size of a piece, in characters (most of them one byte)."""
    chatter: int = 3
    """`thread.message.delta` events of a message step; they are ignored by the worker."""
    tools: Mapping[str, float] = msgspec.field(default_factory=_tools)
    dialects: Mapping[str, float] = msgspec.field(default_factory=_dialects)
    envelopes: Mapping[str, float] = msgspec.field(default_factory=_envelopes)
    responses: float = 0.0
    """Share of runs that are responses (the Responses API) and no runs of run steps."""
    response_items: Mapping[str, float] = msgspec.field(default_factory=_response_items)
    rotated: float = 0.1
    """Share of responses whose ids change from event to event."""
    unnumbered: float = 0.05
    """Share of responses whose events have no `sequence_number`."""
    lost: float = 0.03
    """Share of numbered responses of which one event never comes."""
    resumed: float = 0.2
    """Repeated reads of a numbered response from an earlier number (a mean, in about twenty records)."""
    dropped: float = 0.05
    """Share of responses whose stream breaks off; of half of them the response is retrieved later."""
    gateways: float = 0.1
    """Share of responses that come through a gateway which numbers, places or names their events wrongly."""
    gateway_faults: Mapping[str, float] = msgspec.field(default_factory=_gateway_faults)
    max_age_s: int = 86_400
    """The worker's `max_age_s`: the deadline of what a dropped stream leaves open."""
    with_ids: float = 0.5
    """Share of records that carry an event id in a header (CloudEvents always have one)."""
    disorder: float = 0.1
    """Share of parallel tool calls whose deltas are mixed and whose indexes have gaps; share of late timestamps."""
    duplicates: float = 0.02
    """Share of records that are repeated byte for byte, where a repeat can be told from news."""
    garbage: float = 0.01
    """Chance after each record of one that cannot be used, and after each delta of one that must be refused."""
    illegal: float = 0.01
    """Share of ended steps that are followed by a status which may not follow."""
    late_output: float = 0.3
    """Share of ended MCP steps whose output comes in one large delta after the end."""
    approvals: float = 0.02
    """Share of runs in which a tool call waits for a person, for hours."""
    interrupted: float = 0.05
    """Share of runs that end while steps of theirs are open."""
    overruled: float = 0.3
    """Share of the steps so ended whose real end comes afterwards."""
    stragglers: float = 0.2
    """Share of the interrupted runs of which another step is created after the end."""
    hung: float = 0.01
    """Share of runs that fall silent with a step open, which then passes its deadline."""
    midstream: float = 0.02
    """Share of runs whose first events are missing."""
    disagree: float = 0.01
    """Share of ends whose event name says something else than the status."""
    tombstones: float = 0.01
    """Chance after each record of one without a value."""
    unknown: float = 0.01
    """Chance after each record of an unknown event."""
    grace_s: int = 60
    """The worker's `grace_s`: the last record of a partition lies beyond every deadline plus this."""
    start_ms: int = DEFAULT_START_MS
    """The simulated clock at the first record."""

    def __post_init__(self) -> None:
        wrong = [
            *(
                f"{n}: at least {low} is needed (got {getattr(self, n)})"
                for n, low in _LOWEST
                if getattr(self, n) < low
            ),
            *(
                f"{n}: a share lies between 0 and 1 (got {getattr(self, n)})"
                for n in _SHARES
                if not 0 <= getattr(self, n) <= 1
            ),
        ]
        for name, known in (
            ("tools", TOOLS),
            ("dialects", DIALECTS),
            ("envelopes", ENVELOPES),
            ("response_items", RESPONSE_ITEMS),
            ("gateway_faults", GATEWAY_FAULTS),
        ):
            mix = getattr(self, name)
            wrong += [f"{name}: {key!r} is not one of {', '.join(known)}" for key in sorted(mix) if key not in known]
            if not any(w > 0 for w in mix.values()) or any(w < 0 for w in mix.values()):
                wrong.append(f"{name}: weights must not be negative, and one must be above 0")
        if wrong:
            raise UsageError(f"simulate: {'; '.join(wrong)}", hint="`run-steps simulate --list-params` lists them")


_LOWEST: Final = (
    ("runs", 0),
    ("records", 0),
    ("partitions", 1),
    ("open_runs", 1),
    ("steps", 1),
    ("deltas", 0),
    ("text_bytes", 1),
    ("chatter", 0),
    ("grace_s", 0),
    ("max_age_s", 1),
    ("start_ms", 1),
)
_SHARES: Final = (
    "with_ids",
    "disorder",
    "duplicates",
    "garbage",
    "illegal",
    "late_output",
    "approvals",
    "interrupted",
    "overruled",
    "stragglers",
    "hung",
    "midstream",
    "disagree",
    "tombstones",
    "unknown",
    "responses",
    "rotated",
    "unnumbered",
    "lost",
    "resumed",
    "dropped",
    "gateways",
)
