"""Well-formed Responses streams, drawn at random: every kind of item, text cut anywhere, in the spellings of services.

What must be published is known from the plan: the item that is done, as it is. Nothing here folds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

Event = dict[str, Any]
TEXTS = st.text(max_size=12) | st.sampled_from(["", "a" * 300, "😀 é \u0000 \"'\\ \u2028", '{"a": "b\\n"}', "}]}"])
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 66), 1 << 66)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=4)
)
NAMES = st.text(max_size=3)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=2), max_leaves=4
)
SINGLE_TEXTS = {
    "function_call": ("function_call_arguments", "arguments"),
    "mcp_call": ("mcp_call_arguments", "arguments"),
    "custom_tool_call": ("custom_tool_call_input", "input"),
    "code_interpreter_call": ("code_interpreter_call_code", "code"),
}
WITHOUT_TEXT = (
    "web_search_call", "file_search_call", "image_generation_call", "computer_call", "local_shell_call",
    "mcp_list_tools", "mcp_approval_request", "tool_search_call", "compaction", "program", "brand_new",
    "bing_grounding_call_output",
)  # fmt: skip
PROGRESS = {
    "mcp_call": ("in_progress", "completed"), "mcp_list_tools": ("in_progress", "completed"),
    "code_interpreter_call": ("in_progress", "interpreting", "completed"),
    "file_search_call": ("in_progress", "searching", "completed"),
    "web_search_call": ("in_progress", "searching", "completed"),
    "image_generation_call": ("in_progress", "generating", "partial_image", "completed"),
}  # fmt: skip


NOISE: tuple[Event, ...] = (
    {"type": "keepalive"}, {"type": "response.rate_limits.updated", "rate_limits": []},
    {"type": "response.brand.new", "x": [1]},
    {"type": "response.output_item.added", "output_index": 1_000, "item": None},
)  # fmt: skip


@dataclass
class Planned:
    """An item: the events that tell it, and what is done in the end."""

    done: dict[str, Any]
    is_added: bool
    events: list[Event] = field(default_factory=list)


@dataclass
class Stream:
    """`events` in order, numbered; `items` by output index."""

    key: str
    events: list[Event]
    items: dict[int, Planned]


@st.composite
def cut(draw: st.DrawFn, text: str) -> list[str]:
    """The pieces of a text: one, several, some of them empty; none where it is empty."""
    ends = sorted(draw(st.lists(st.integers(0, len(text)), max_size=5)))
    pieces = [text[a:b] for a, b in zip([0, *ends], [*ends, len(text)], strict=True)]
    return pieces if text or draw(st.booleans()) else []


@st.composite
def planned(draw: st.DrawFn, index: int) -> Planned:
    """One item and its events, without numbers."""
    kind = draw(
        st.sampled_from(
            ["message", "message", "reasoning", *SINGLE_TEXTS, "shell_call", "apply_patch_call", *WITHOUT_TEXT]
        )
    )
    item: dict[str, Any] = {
        "id": f"{kind[:3]}_{index}",
        "type": kind,
        **draw(st.dictionaries(st.sampled_from(["phase", "namespace", "x"]), JSON, max_size=2)),
    }
    statuses: list[Event] = [{}, {"status": None}, {"status": "completed"}, {"status": "in_progress"}]
    status = draw(st.sampled_from(statuses))
    at: dict[str, Any] = {"item_id": item["id"], "output_index": index}
    found = Planned(item | status, draw(st.integers(0, 9)) > 0)
    begun = dict(item)
    body: list[Event] = []
    if kind in ("message", "reasoning"):
        body = _parts(draw, found.done, begun, kind, at)
    elif kind in SINGLE_TEXTS:
        name, where = SINGLE_TEXTS[kind]
        found.done[where] = text = draw(TEXTS)
        begun |= draw(st.sampled_from([{}, {where: ""}]))
        body = _text(draw, f"response.{name}", at, text, where)
    elif kind == "shell_call":
        commands = draw(st.lists(TEXTS, min_size=1, max_size=2))
        found.done["action"] = {"commands": commands, "timeout_ms": None}
        begun["action"] = {"commands": []}
        for number, command in enumerate(commands):
            own = {"output_index": index, "command_index": number}
            body.append({"type": "response.shell_call_command.added", **own, "command": ""})
            body += _text(draw, "response.shell_call_command", own, command, "command")
    elif kind == "apply_patch_call":
        diff = draw(TEXTS)
        found.done["operation"] = {"type": "create_file", "path": "p", "diff": diff}
        begun["operation"] = {"type": "create_file", "path": "p", "diff": ""}
        body = _text(draw, "response.apply_patch_call_operation_diff", at, diff, "diff")
    steps = [{"type": f"response.{kind}.{step}", **at, "partial_image_b64": "AAAA"} for step in PROGRESS.get(kind, ())]
    body = [*steps[:1], *body, *steps[1:]]
    added = [{"type": "response.output_item.added", "output_index": index, "item": begun | {"status": "in_progress"}}]
    done = {"type": "response.output_item.done", "output_index": index, "item": found.done}
    found.events = [*(added if found.is_added else []), *body, done]
    return found


def _text(draw: st.DrawFn, name: str, at: Event, text: str, where: str) -> list[Event]:
    """A text: deltas and `done`, deltas alone, `done` alone, or neither."""
    says = draw(st.sampled_from(["both", "both", "both", "deltas", "done", "nothing"]))
    events: list[Event] = []
    if says in ("both", "deltas"):
        paddings: list[Event] = [{}, {"obfuscation": "aZ09"}, {"logprobs": [], "obfuscation": ""}]
        noise = draw(st.sampled_from(paddings))
        events += [{"type": f"{name}.delta", **at, "delta": piece, **noise} for piece in draw(cut(text))]
    if says in ("both", "done"):
        events.append({"type": f"{name}.done", **at, where: text})
    return events


def _parts(draw: st.DrawFn, done: Event, begun: Event, kind: str, at: Event) -> list[Event]:
    events: list[Event] = []
    if kind == "message":
        holders = [("content", "content_part", "content_index", draw(st.sampled_from(["output_text", "refusal"])))]
        done["role"] = begun["role"] = "assistant"
    else:
        holders = [
            ("summary", "reasoning_summary_part", "summary_index", "summary_text"),
            ("content", "content_part", "content_index", "reasoning_text"),
        ]
    for holder, part_name, index_name, part_type in holders:
        parts: list[Any] = []
        begun[holder] = []
        for number in range(draw(st.integers(0, 2))):
            own = at | {index_name: number}
            says_parts = draw(st.booleans())
            where = "refusal" if part_type == "refusal" else "text"
            name = {"summary_text": "reasoning_summary_text"}.get(part_type, part_type)
            text = draw(TEXTS)
            part: dict[str, Any] = {"type": part_type, where: text}
            if part_type == "output_text":
                part["annotations"] = [{"type": "url_citation", "url": f"u{n}"} for n in range(draw(st.integers(0, 2)))]
            if says_parts:
                events.append(
                    {
                        "type": f"response.{part_name}.added",
                        **own,
                        "part": part | {where: "", **({"annotations": []} if "annotations" in part else {})},
                    }
                )
            events += _text(draw, f"response.{name}", own, text, where)
            for place, annotation in enumerate(part.get("annotations", [])):
                events.append(
                    {
                        "type": "response.output_text.annotation.added",
                        **own,
                        "annotation_index": place,
                        "annotation": annotation,
                    }
                )
            if says_parts:
                events.append({"type": f"response.{part_name}.done", **own, "part": part})
            parts.append(part)
        done[holder] = parts
    return events


@st.composite
def streams(draw: st.DrawFn, key: str = "resp_1") -> Stream:
    """A stream of one response, from its beginning to its end."""
    indexes = sorted(draw(st.sets(st.integers(0, 4), max_size=3) | st.just({0, 1})))
    items = {index: draw(planned(index)) for index in indexes}
    response: dict[str, Any] = {
        "id": key,
        "object": "response",
        "model": "m",
        "status": "in_progress",
        "output": draw(st.sampled_from([[], None])),
    }
    events: list[Event] = [
        {"type": f"response.{name}", "response": response}
        for name in draw(
            st.sampled_from(
                [("created",), ("created", "in_progress"), ("queued", "created"), ("created", "queued", "in_progress")]
            )
        )
    ]
    waiting = [list(reversed(items[index].events)) for index in indexes]
    turns = draw(st.lists(st.integers(0, 3), max_size=40)) if draw(st.booleans()) else []
    events += [waiting[turn].pop() for turn in turns if turn < len(waiting) and waiting[turn]]  # calls in parallel
    events += [event for rest in waiting for event in reversed(rest)]
    for _ in range(draw(st.integers(0, 2))):
        noise = draw(st.sampled_from(NOISE))
        events.insert(draw(st.integers(1, len(events))), dict(noise))
    outputs = [items[index].done for index in indexes]
    changed = draw(st.sampled_from(["equal", "equal", "rotated", "encrypted", "none", "null"]))
    if changed == "rotated":
        outputs = [item | {"id": f"other_{item['id']}"} for item in outputs]
    elif changed == "encrypted":
        outputs = [item | {"encrypted_content": "gAAA"} for item in outputs]
    ended = response | {
        "status": "completed",
        "output": {"none": [], "null": None}.get(changed, outputs),
        "usage": {"total_tokens": 3},
    }
    events.append({"type": "response.completed", "response": ended})
    first = draw(st.sampled_from([0, 0, 1, None]))
    if first is not None:
        for number, event in enumerate(events):
            event["sequence_number"] = first + number
    else:
        events = [event for event in events if event["type"] != "keepalive"]  # without a number it is not of the stream
    if draw(st.booleans()):
        events = [dict(sorted(event.items())) for event in events]
    return Stream(key, events, items)
