"""Output items of a response: the item at its begin, its events, and the whole item at its end."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, Final, NamedTuple

from processor.simulate.texts import Texts, new_id


class Said(NamedTuple):
    """An event about an item, between its begin and its end."""

    kind: str
    """The event's type without `response.`."""
    fields: dict[str, Any]
    is_piece: bool = False
    """A piece of a text of which there are several: without it the text is another."""
    names_item: bool = True


class Plan(NamedTuple):
    """Plan of an item: its begin, its events and its end."""

    opening: dict[str, Any]
    said: list[Said]
    streamed: dict[str, Any] | None
    """The item as known before its end; None where only its end has it."""
    done: dict[str, Any]


Fields = dict[str, Any]


def _streaming(name: str, field: str, texts: list[str], **where: int) -> list[Said]:
    """A text in pieces, and then whole."""
    several = len(texts) > 1
    pieces = [Said(f"{name}.delta", {**where, "delta": text}, several) for text in texts]
    return [*pieces, Said(f"{name}.done", {**where, field: "".join(texts)})]


def _message(rng: Random, texts: Texts, deltas: int) -> Plan:
    """A message: one part or two, of text or a refusal, with annotations."""
    opening = {
        "id": new_id(rng, "msg_"),
        "type": "message",
        "role": "assistant",
        "status": "in_progress",
        "content": [],
    }
    said: list[Said] = []
    content: list[Fields] = []
    for index in range(rng.choice((1, 1, 1, 2))):
        pieces = [piece.text for piece in texts.pieces(max(1, deltas))]
        if rng.random() < 0.1:
            part: Fields = {"type": "refusal", "refusal": "".join(pieces)}
            empty = part | {"refusal": ""}
            told = _streaming("refusal", "refusal", pieces, content_index=index)
        else:
            notes = [
                {"type": "url_citation", "url": f"https://example.org/{number}", "title": texts.piece().text}
                for number in range(rng.choice((0, 0, 1, 2)))
            ]
            part = {"type": "output_text", "annotations": notes, "text": "".join(pieces), "logprobs": []}
            empty = part | {"text": "", "annotations": []}
            told = _streaming("output_text", "text", pieces, content_index=index)
            told[-1:-1] = [
                Said(
                    "output_text.annotation.added",
                    {"content_index": index, "annotation_index": number, "annotation": note},
                )
                for number, note in enumerate(notes)
            ]
        said += [
            Said("content_part.added", {"content_index": index, "part": empty}),
            *told,
            Said("content_part.done", {"content_index": index, "part": part}),
        ]
        content.append(part)
    return Plan(opening, said, opening | {"content": content}, opening | {"status": "completed", "content": content})


def _reasoning(rng: Random, texts: Texts, deltas: int) -> Plan:
    """Reasoning: a summary, the text itself, or only what is encrypted."""
    opening = {"id": new_id(rng, "rs_"), "type": "reasoning", "summary": [], "encrypted_content": "gAAAA=="}
    pieces = [piece.text for piece in texts.pieces(max(1, deltas // 2))]
    way = rng.random()
    if way < 0.4:
        return Plan(opening, [], opening, opening | {"encrypted_content": "gBBBB=="})
    if way < 0.7:
        part = {"type": "summary_text", "text": "".join(pieces)}
        said = [
            Said("reasoning_summary_part.added", {"summary_index": 0, "part": part | {"text": ""}}),
            *_streaming("reasoning_summary_text", "text", pieces, summary_index=0),
            Said("reasoning_summary_part.done", {"summary_index": 0, "part": part}),
        ]
        return Plan(opening, said, opening | {"summary": [part]}, opening | {"summary": [part]})
    part = {"type": "reasoning_text", "text": "".join(pieces)}
    opening = opening | {"content": [], "status": "in_progress"}
    done = opening | {"content": [part], "status": "completed"}
    return Plan(opening, _streaming("reasoning_text", "text", pieces, content_index=0), None, done)


def _call(kind: str, prefix: str, event: str, field: str, **more: Any) -> Callable[[Random, Texts, int], Plan]:
    """A call whose text comes in pieces."""

    def plan(rng: Random, texts: Texts, deltas: int) -> Plan:
        pieces = [piece.text for piece in texts.pieces(max(1, deltas))]
        opening = {"id": new_id(rng, prefix), "type": kind, "status": "in_progress", **more, field: ""}
        streamed = opening | {field: "".join(pieces)}
        return Plan(opening, _streaming(event, field, pieces), streamed, streamed | {"status": "completed"})

    return plan


def _function(rng: Random, texts: Texts, deltas: int) -> Plan:
    """A function call. Some services leave its status as it was."""
    call = {"call_id": new_id(rng, "call_"), "name": rng.choice(("get_weather", "book_train"))}
    plan = _call("function_call", "fc_", "function_call_arguments", "arguments", **call)(rng, texts, deltas)
    return plan._replace(done=plan.done | {"status": "in_progress"}) if rng.random() < 0.2 else plan


def _mcp(rng: Random, texts: Texts, deltas: int) -> Plan:
    """An MCP call, which may fail; its output comes with its end."""
    more = {"name": "search_docs", "server_label": "docs", "output": None, "error": None}
    plan = _call("mcp_call", "mcp_", "mcp_call_arguments", "arguments", **more)(rng, texts, deltas)
    if rng.random() < 0.25:
        error: Any = rng.choice(("it went wrong", {"type": "mcp_protocol_error", "code": 32600, "message": "refused"}))
        end, done = "failed", plan.done | {"status": rng.choice(("failed", "completed")), "error": error}
    else:
        end, done = "completed", plan.done | {"output": texts.long(400)}
    return Plan(
        plan.opening, [Said("mcp_call.in_progress", {}), *plan.said, Said(f"mcp_call.{end}", {})], plan.streamed, done
    )


def _code(rng: Random, texts: Texts, deltas: int) -> Plan:
    """Code interpreter: the code in pieces, its outputs with its end."""
    more = {"container_id": new_id(rng, "cntr_"), "outputs": []}
    plan = _call("code_interpreter_call", "ci_", "code_interpreter_call_code", "code", **more)(rng, texts, deltas)
    said = [
        Said("code_interpreter_call.in_progress", {}),
        *plan.said,
        Said("code_interpreter_call.interpreting", {}),
        Said("code_interpreter_call.completed", {}),
    ]
    outputs = [{"type": "logs", "logs": texts.long(200)}, {"type": "image", "url": "https://example.org/i.png"}]
    return Plan(plan.opening, said, plan.streamed, plan.done | {"outputs": outputs[: rng.randint(0, 2)]})


def _shell(rng: Random, texts: Texts, deltas: int) -> Plan:
    """A shell call: events of its commands do not name the item."""
    action: Fields = {"commands": [], "max_output_length": None, "timeout_ms": None}
    opening = {"id": new_id(rng, "sh_"), "type": "shell_call", "status": "in_progress", "action": action}
    commands, said = [], list[Said]()
    for index in range(rng.choice((1, 2))):
        pieces = [piece.text for piece in texts.pieces(max(1, deltas // 2))]
        commands.append("".join(pieces))
        said.append(Said("shell_call_command.added", {"command_index": index, "command": ""}))
        said += _streaming("shell_call_command", "command", pieces, command_index=index)
    done = opening | {"status": "completed", "action": action | {"commands": commands}}
    return Plan(opening, [one._replace(names_item=False) for one in said], None, done)


def _shell_output(rng: Random, texts: Texts, deltas: int) -> Plan:
    """The output of a shell call: pieces are objects."""
    opening = {"id": new_id(rng, "sho_"), "type": "shell_call_output", "status": "in_progress", "output": []}
    pieces = [piece.text for piece in texts.pieces(max(1, deltas // 2))]
    output = {"stdout": "".join(pieces), "stderr": "", "outcome": {"type": "exit", "exit_code": 0}}
    said = [
        Said("shell_call_output_content.delta", {"command_index": 0, "delta": {"stdout": piece}}, len(pieces) > 1)
        for piece in pieces
    ]
    said.append(Said("shell_call_output_content.done", {"command_index": 0, "output": [output]}))
    return Plan(opening, said, None, opening | {"status": "completed", "output": [output]})


def _patch(rng: Random, texts: Texts, deltas: int) -> Plan:
    """A patch: its diff lies in the operation."""
    pieces = [piece.text for piece in texts.pieces(max(1, deltas))]
    operation = {"type": "create_file", "path": "a.md", "diff": ""}
    opening = {"id": new_id(rng, "apc_"), "type": "apply_patch_call", "status": "in_progress", "operation": operation}
    streamed = opening | {"operation": operation | {"diff": "".join(pieces)}}
    said = _streaming("apply_patch_call_operation_diff", "diff", pieces)
    return Plan(opening, said, streamed, streamed | {"status": "completed"})


def _image(rng: Random, texts: Texts, deltas: int) -> Plan:
    """An image: partial ones on the way, which are not to be kept."""
    opening = {"id": new_id(rng, "ig_"), "type": "image_generation_call", "status": "in_progress"}
    said = [Said(f"image_generation_call.{state}", {}) for state in ("in_progress", "generating")]
    partial = {"partial_image_index": 0, "partial_image_b64": "UklGRuIW" * 200}
    said += [Said("image_generation_call.partial_image", partial), Said("image_generation_call.completed", {})]
    done = opening | {"status": "completed", "result": "iVBORw0K" * 20, "revised_prompt": texts.piece().text}
    return Plan(opening, said, opening, done)


def _whole(
    kind: str, prefix: str, progress: tuple[str, ...] = (), **at_end: Any
) -> Callable[[Random, Texts, int], Plan]:
    """An item whose contents come with its end."""

    def plan(rng: Random, texts: Texts, deltas: int) -> Plan:
        opening = {"id": new_id(rng, prefix), "type": kind, "status": "in_progress"}
        found = {key: texts.piece().text if value is str else value for key, value in at_end.items()}
        said = [Said(f"{kind}.{state}", {}) for state in progress]
        return Plan(opening, said, opening, opening | {"status": "completed", **found})

    return plan


_SEARCHING: Final = ("in_progress", "searching", "completed")
PLANS: Final[dict[str, Callable[[Random, Texts, int], Plan]]] = {
    "message": _message,
    "reasoning": _reasoning,
    "function_call": _function,
    "custom_tool_call": _call("custom_tool_call", "ct_", "custom_tool_call_input", "input", name="write_sql"),
    "mcp_call": _mcp,
    "mcp_list_tools": _whole(
        "mcp_list_tools", "mcpl_", ("in_progress", "completed"), server_label="docs", tools=[{"name": "search_docs"}]
    ),
    "mcp_approval_request": _whole("mcp_approval_request", "mcpr_", arguments=str, name="search_docs"),
    "code_interpreter_call": _code,
    "file_search_call": _whole("file_search_call", "fs_", _SEARCHING, queries=["a", "b"], results=[{"score": 1e-7}]),
    "web_search_call": _whole("web_search_call", "ws_", _SEARCHING, action={"type": "search", "query": "weather"}),
    "image_generation_call": _image,
    "computer_call": _whole("computer_call", "cu_", action={"type": "click", "x": 1, "y": 2}),
    "local_shell_call": _whole("local_shell_call", "ls_", action={"type": "exec", "command": ["ls"], "env": {}}),
    "shell_call": _shell,
    "shell_call_output": _shell_output,
    "apply_patch_call": _patch,
    "tool_search_call": _whole("tool_search_call", "tsc_", arguments={"paths": ["x"]}, execution="server"),
    "tool_search_output": _whole("tool_search_output", "tso_", tools=[{"type": "function", "name": "x"}]),
    "program": _whole("program", "cm_", code=str, fingerprint="gAAAA"),
    "compaction": _whole("compaction", "cmp_", encrypted_content="gAAAA"),
    "azure_ai_search_call": _whole("azure_ai_search_call", "as_", arguments=str),
    "azure_ai_search_call_output": _whole("azure_ai_search_call_output", "aso_", output=str),
    "memory_search_call": _whole("memory_search_call", "ms_", results=[]),
    "novel_call": _whole("novel_call", "nv_", weights=[0.1, 1e16, 1.0], sequence=(1 << 63) + 5, note=str),
}
"""By the item's type. `novel_call` is of no service."""
