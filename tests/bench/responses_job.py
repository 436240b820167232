"""The Responses job: responses with the mix of events, items, sizes and headers that recordings of services show.

Deterministic by seed; the texts are ours. 25 recordings of six services have of 100 events 64 pieces of a message, 10
of code, 10 of reasoning, arguments, patches and commands, 4 items that begin, 4 that are done, 5 of the response itself
and 3 of parts; this job has about the same. Pieces are token-sized; every delta is padded as one service does.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any, Final

from tests.bench.recorded_job import BEGIN_S, Expected, Headers, Made, interleaved, token

_PIECES: Final = 30
_LETTERS: Final = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
_CALLS: Final = (
    ("code_interpreter_call", "code_interpreter_call_code", "code"),
    ("function_call", "function_call_arguments", "arguments"),
    ("reasoning", "reasoning_text", "text"),
    ("mcp_call", "mcp_call_arguments", "arguments"),
)


def responses(events: int, expected: Expected, *, seed: int = 1, open_runs: int = 200) -> Iterator[Made]:
    """Yield at least `events` records of interleaved responses; the last ones are played to their end."""
    rng = random.Random(seed)
    return interleaved(rng, events, open_runs, lambda number: _response(rng, number, expected))


def response_record(key: str, number: int, event: dict[str, Any]) -> Made:
    """One record as `publish` writes it."""
    told = {"type": event.pop("type"), "sequence_number": number} | event
    value = json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode()
    headers: Headers = [
        ("runstep-event-id", f"{key}:{number}".encode()),
        ("runstep-run-id", key.encode()),
        ("runstep-sequence", b"%d" % number),
    ]
    return Made(BEGIN_S * 1000, key.encode(), value, headers)


def text_delta(rng: random.Random, name: str, item_id: str, index: int, piece: str) -> dict[str, Any]:
    """One piece of a text, with the keys and in the order of the wire."""
    event: dict[str, Any] = {"type": f"response.{name}.delta", "item_id": item_id, "output_index": index}
    if name in ("output_text", "reasoning_text"):
        event["content_index"] = 0
    event["delta"] = piece
    if name == "output_text":
        event["logprobs"] = []
    padding = "".join(rng.choices(_LETTERS, k=max(1, 16 - len(piece))))
    return event | {"obfuscation": padding}


def _response(rng: random.Random, number: int, expected: Expected) -> Iterator[Made]:
    key = f"resp_{rng.getrandbits(200):050x}"
    whole = _object(key)
    items: list[dict[str, Any]] = []
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": whole},
        {"type": "response.in_progress", "response": whole},
    ]
    if number % 3:
        events += _call(rng, items, *_CALLS[number // 3 % len(_CALLS)])
    events += _message(rng, items)
    expected.published += len(items)
    ended = whole | {"status": "completed", "completed_at": BEGIN_S + 9, "output": items, "usage": _USAGE}
    events.append({"type": "response.completed", "response": ended})
    for place, event in enumerate(events):
        yield response_record(key, place, event)


def _call(
    rng: random.Random, items: list[dict[str, Any]], kind: str, name: str, field: str
) -> Iterator[dict[str, Any]]:
    index, item_id = len(items), f"{kind[:2]}_{rng.getrandbits(200):050x}"
    item: dict[str, Any] = {"id": item_id, "type": kind, "status": "in_progress"}
    pieces = [token(rng) for _ in range(rng.randint(_PIECES // 2, _PIECES * 3 // 2))]
    begun, done = item | {field: ""}, item | {"status": "completed", field: "".join(pieces)}
    if kind == "reasoning":
        begun = item | {"summary": [], "content": []}
        done = item | {"summary": [], "content": [{"type": "reasoning_text", "text": "".join(pieces)}]}
    yield {"type": "response.output_item.added", "output_index": index, "item": begun}
    for piece in pieces:
        yield text_delta(rng, name, item_id, index, piece)
    yield {
        "type": f"response.{name}.done", "item_id": item_id, "output_index": index, field: "".join(pieces),
        "content_index": 0,
    }  # fmt: skip
    yield {"type": "response.output_item.done", "output_index": index, "item": done}
    items.append(done)


def _message(rng: random.Random, items: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    index, item_id = len(items), f"msg_{rng.getrandbits(200):050x}"
    item: dict[str, Any] = {
        "id": item_id,
        "type": "message",
        "status": "in_progress",
        "content": [],
        "role": "assistant",
    }
    at = {"item_id": item_id, "output_index": index, "content_index": 0}
    part: dict[str, Any] = {"type": "output_text", "annotations": [], "logprobs": [], "text": ""}
    pieces = [token(rng) for _ in range(rng.randint(_PIECES, _PIECES * 2))]
    whole = part | {"text": "".join(pieces)}
    yield {"type": "response.output_item.added", "output_index": index, "item": item}
    yield {"type": "response.content_part.added", **at, "part": part}
    for piece in pieces:
        yield text_delta(rng, "output_text", item_id, index, piece)
    yield {"type": "response.output_text.done", **at, "text": "".join(pieces), "logprobs": []}
    yield {"type": "response.content_part.done", **at, "part": whole}
    done = item | {"status": "completed", "content": [whole]}
    yield {"type": "response.output_item.done", "output_index": index, "item": done}
    items.append(done)


_USAGE: Final = {
    "input_tokens": 310, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 58,
    "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 368,
}  # fmt: skip


def _object(key: str) -> dict[str, Any]:
    tools = [
        {"type": "function", "name": "look_up", "parameters": {"type": "object", "properties": {}}, "strict": True}
    ]
    return {
        "id": key, "object": "response", "created_at": BEGIN_S, "status": "in_progress", "background": False,
        "error": None, "incomplete_details": None, "instructions": "Look things up before you answer. " * 4,
        "max_output_tokens": None, "model": "gpt-5-mini", "output": [], "parallel_tool_calls": True,
        "previous_response_id": None, "reasoning": {"effort": "medium", "summary": None}, "service_tier": "auto",
        "store": True, "temperature": 1.0, "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "tool_choice": "auto", "tools": tools, "top_logprobs": 0, "top_p": 1.0, "truncation": "disabled",
        "usage": None, "user": None, "metadata": {},
    }  # fmt: skip
