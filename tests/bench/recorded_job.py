"""The recorded job: runs with the mix of events, sizes, tools and headers that recordings of services show.

Deterministic by seed; the texts are ours. Four recordings of two services (a message alone, two function calls in two
parts, a code interpreter) have of 100 events 50 pieces of messages, which no step needs, 30 pieces of tool calls, 8
step objects, 8 run objects and 5 message objects; this job has 52, 28, 8, 7 and 5. Pieces are token-sized, 1 to 8
characters. Headers are those that `publish` writes: event id, run id, sequence.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

BEGIN_S: Final = 1_720_000_000
MESSAGE_PIECES: Final = 32
TOOL_PIECES: Final = 26
TOOLS: Final = ("function", "code_interpreter", "mcp")

Headers = list[tuple[str, bytes]]


class Made(NamedTuple):
    """One record. `timestamp` in milliseconds."""

    timestamp: int
    key: bytes
    value: bytes
    headers: Headers


@dataclass(slots=True)
class Expected:
    """How many steps must be published."""

    published: int = 0


def recorded(
    events: int, expected: Expected, *, seed: int = 1, open_runs: int = 200, headers: bool = True
) -> Iterator[Made]:
    """Yield at least `events` records of interleaved runs; the last runs are played to their end."""
    rng = random.Random(seed)
    return interleaved(rng, events, open_runs, lambda number: _run(rng, number, expected, headers))


def interleaved(
    rng: random.Random, events: int, open_runs: int, begin: Callable[[int], Iterator[Made]]
) -> Iterator[Made]:
    """Yield at least `events` records of the streams that `begin` makes by number, drawn at random; all end."""
    live: list[Iterator[Made]] = []
    made = begun = 0
    while live or made < events:
        while len(live) < open_runs and made + len(live) * 40 < events:
            live.append(begin(begun))
            begun += 1
        if not live:
            break
        at = int(rng.random() * len(live))
        record = next(live[at], None)
        if record is None:
            live[at] = live[-1]
            live.pop()
            continue
        yield record._replace(timestamp=BEGIN_S * 1000 + made // 10)
        made += 1


def _run(rng: random.Random, number: int, expected: Expected, headers: bool) -> Iterator[Made]:
    run_id = f"run_{rng.getrandbits(96):024x}"
    key, thread = run_id.encode(), f"thread_{rng.getrandbits(96):024x}"
    ids = PublishedIds(rng) if headers else None

    def record(name: str, data: dict[str, Any]) -> Made:
        return wire_record(key, name, data, ids)

    for status in ("created", "queued", "in_progress"):
        yield record(f"thread.run.{status}", _run_object(run_id, thread, "queued" if status == "created" else status))
    if number % 3:
        yield from _tool_step(rng, record, run_id, thread, TOOLS[number // 3 % len(TOOLS)])
        expected.published += 1
    yield from _message_step(rng, record, run_id, thread)
    expected.published += 1
    yield record("thread.run.completed", _run_object(run_id, thread, "completed"))


class PublishedIds:
    """The event ids and sequence numbers of one stream as `publish` writes them: digests, and numbers for the deltas
    of steps."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._stated, self._deltas = "", 0
        self.sequence = 0

    def next(self, name: str) -> str:
        self.sequence += 1
        if name == "thread.run.step.delta":
            self._deltas += 1
            return f"{self._stated}:{self._deltas}"
        found = f"{self._rng.getrandbits(128):032x}"
        if not name.endswith(".delta"):
            self._stated, self._deltas = found, 0
        return found


def wire_record(key: bytes, name: str, data: dict[str, Any], ids: PublishedIds | None) -> Made:
    """One record as `publish` writes it; without headers where `ids` is None."""
    value = json.dumps({"event": name, "data": data}, ensure_ascii=False, separators=(",", ":")).encode()
    own: Headers = []
    if ids is not None:
        own = [
            ("runstep-event-id", ids.next(name).encode()),
            ("runstep-run-id", key),
            ("runstep-sequence", b"%d" % ids.sequence),
        ]
    return Made(BEGIN_S * 1000, key, value, own)


def _tool_step(
    rng: random.Random, record: Callable[[str, dict[str, Any]], Made], run_id: str, thread: str, tool: str
) -> Iterator[Made]:
    step_id = f"step_{rng.getrandbits(96):024x}"
    stated = step_object(step_id, run_id, thread, "tool_calls", {"type": "tool_calls", "tool_calls": []})
    yield record("thread.run.step.created", stated)
    yield record("thread.run.step.in_progress", stated)
    call_id = f"call_{rng.getrandbits(96):024x}"
    for n in range(rng.randint(TOOL_PIECES // 2, TOOL_PIECES * 3 // 2)):
        yield record("thread.run.step.delta", tool_delta(step_id, tool, token(rng), call_id if n == 0 else None))
    yield record(
        "thread.run.step.completed", stated | {"status": "completed", "completed_at": BEGIN_S + 5, "usage": USAGE}
    )


def _message_step(
    rng: random.Random, record: Callable[[str, dict[str, Any]], Made], run_id: str, thread: str
) -> Iterator[Made]:
    step_id, message_id = f"step_{rng.getrandbits(96):024x}", f"msg_{rng.getrandbits(96):024x}"
    details = {"type": "message_creation", "message_creation": {"message_id": message_id}}
    stated = step_object(step_id, run_id, thread, "message_creation", details)
    message = {
        "id": message_id, "object": "thread.message", "created_at": BEGIN_S, "assistant_id": _ASSISTANT,
        "thread_id": thread, "run_id": run_id, "status": "in_progress", "role": "assistant", "content": [],
        "attachments": [], "metadata": {},
    }  # fmt: skip
    yield record("thread.run.step.created", stated)
    yield record("thread.run.step.in_progress", stated)
    yield record("thread.message.created", message)
    yield record("thread.message.in_progress", message)
    texts = [token(rng) for _ in range(rng.randint(MESSAGE_PIECES // 2, MESSAGE_PIECES * 3 // 2))]
    for text in texts:
        yield record("thread.message.delta", message_delta(message_id, text))
    content = [{"type": "text", "text": {"value": "".join(texts), "annotations": []}}]
    yield record("thread.message.completed", message | {"status": "completed", "content": content})
    yield record(
        "thread.run.step.completed", stated | {"status": "completed", "completed_at": BEGIN_S + 5, "usage": USAGE}
    )


# --- the objects ---------------------------------------------------------------------------------------------------

_ASSISTANT: Final = "asst_7c1f0a5be2d84f6f9b21c3aa"
USAGE: Final = {"prompt_tokens": 310, "completion_tokens": 58, "total_tokens": 368}
_LETTERS: Final = "etaoinshrdlucmfwypvbgkqjxz"


def token(rng: random.Random) -> str:
    """A piece as models stream them: a word or a part of one, often with the space before it."""
    word = "".join(_LETTERS[min(25, int(rng.expovariate(0.15)))] for _ in range(rng.randint(1, 7)))
    return f" {word}" if rng.random() < 0.7 else word


def step_object(step_id: str, run_id: str, thread: str, kind: str, details: dict[str, Any]) -> dict[str, Any]:
    """A step in progress, with the keys and in the order of the wire."""
    return {
        "id": step_id, "object": "thread.run.step", "created_at": BEGIN_S, "run_id": run_id,
        "assistant_id": _ASSISTANT, "thread_id": thread, "type": kind, "status": "in_progress", "cancelled_at": None,
        "completed_at": None, "expires_at": BEGIN_S + 600, "failed_at": None, "last_error": None,
        "step_details": details, "usage": None,
    }  # fmt: skip


def tool_delta(step_id: str, tool: str, text: str, call_id: str | None) -> dict[str, Any]:
    """One piece of a tool's input or output; with `call_id` the one that begins the call."""
    call: dict[str, Any] = {"index": 0}
    if call_id is not None:
        call["id"] = call_id
    call["type"] = "code_interpreter" if tool == "code_interpreter_logs" else tool
    if tool == "function":
        call["function"] = ({"name": "look_up"} if call_id else {}) | {"arguments": text}
    elif tool == "mcp":
        call |= ({"name": "search", "server_label": "docs"} if call_id else {}) | {"arguments": text}
    elif tool == "code_interpreter":
        call["code_interpreter"] = {"input": text}
    else:
        call["code_interpreter"] = {"outputs": [{"index": 0, "type": "logs", "logs": text}]}
    details = {"type": "tool_calls", "tool_calls": [call]}
    return {"id": step_id, "object": "thread.run.step.delta", "delta": {"step_details": details}}


def message_delta(message_id: str, text: str) -> dict[str, Any]:
    """One piece of a message's text: the commonest event of a chat, and none of a step."""
    content = [{"index": 0, "type": "text", "text": {"value": text}}]
    return {"id": message_id, "object": "thread.message.delta", "delta": {"content": content}}


def _run_object(run_id: str, thread: str, status: str) -> dict[str, Any]:
    tools = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}]
    return {
        "id": run_id, "object": "thread.run", "created_at": BEGIN_S, "assistant_id": _ASSISTANT, "thread_id": thread,
        "status": status, "started_at": BEGIN_S, "expires_at": BEGIN_S + 600, "cancelled_at": None, "failed_at": None,
        "completed_at": BEGIN_S + 9 if status == "completed" else None, "required_action": None, "last_error": None,
        "model": "gpt-4o-mini", "instructions": "Look things up before you answer. " * 4, "tools": tools,
        "tool_resources": {}, "metadata": {}, "temperature": 1.0, "top_p": 1.0, "max_completion_tokens": None,
        "max_prompt_tokens": None, "truncation_strategy": {"type": "auto", "last_messages": None},
        "incomplete_details": None, "usage": USAGE if status == "completed" else None, "response_format": "auto",
        "tool_choice": "auto", "parallel_tool_calls": True,
    }  # fmt: skip
