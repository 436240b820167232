"""Tool calls: planned as a whole, then cut into deltas and the object that ends the step."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any, Final, NamedTuple

from processor.simulate.texts import Piece, Texts, new_id

text_of = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

STREAMED: Final = frozenset(("function", "openapi", "azure_function", "connected_agent", "mcp"))
"""Tools whose arguments come in pieces."""


class Call(NamedTuple):
    """One tool call.

    `parts`: its deltas in order, each the inside of a JSON object without its index. `streamed`: what the deltas
    alone amount to. `final`: what is published once the step has ended. `sent`: its entry in the ending object.
    """

    tool: str
    parts: list[str]
    streamed: dict[str, Any]
    final: dict[str, Any]
    sent: dict[str, Any]
    texts: list[Piece]


def plan_call(rng: Random, texts: Texts, tool: str, deltas: int) -> Call:
    """Plan one call of a tool, brought by about `deltas` deltas where the tool streams text."""
    return _PLANS.get(tool, _named)(rng, texts, tool, deltas)


def ways_to_name(rng: Random, whole: dict[str, Any], field: str) -> dict[str, Any]:
    """Form of a streamed text in an ending object: whole, null, or absent. All three mean the same."""
    way = rng.random()
    if way < 0.5:
        return whole
    if way < 0.8:
        return whole | {field: None}
    return {k: v for k, v in whole.items() if k != field}


def _named(rng: Random, texts: Texts, tool: str, deltas: int) -> Call:
    """`function` and similar tools: a body with name, arguments and output."""
    call_id = new_id(rng, "call_")
    body = "function" if tool == "openapi" else tool
    pieces = texts.pieces(deltas)
    fixed = {"name": rng.choice(("lookup_order", "get_weather", "send_mail"))}
    if tool == "connected_agent":
        fixed |= {"run_id": new_id(rng, "run_"), "thread_id": new_id(rng, "thread_")}
    head = {"id": call_id, "type": tool}
    arguments = "".join([p.text for p in pieces])
    streamed = {**fixed, "arguments": arguments, "output": None}
    final = streamed | {"output": texts.piece().text if rng.random() < 0.5 else None}
    opening = head | {body: {**fixed, "arguments": "", "output": None}}
    around = f'"type":"{tool}","{body}":{{"arguments":"'
    return Call(
        tool,
        [text_of(opening)[1:-1], *[f'{around}{p.escaped}"}}' for p in pieces]],
        head | {body: streamed},
        head | {body: final},
        head | {body: ways_to_name(rng, final, "arguments")},
        pieces,
    )


def _mcp(rng: Random, texts: Texts, tool: str, deltas: int) -> Call:
    """MCP: flat, without a body of its own. The output is null when it may come late."""
    head = {"id": new_id(rng, "call_"), "type": tool}
    fixed = {"name": rng.choice(("search_docs", "fetch_page")), "server_label": "docs"}
    pieces = texts.pieces(deltas)
    streamed = {**head, **fixed, "arguments": "".join([p.text for p in pieces])}
    final = streamed | {"output": None}
    return Call(
        tool,
        [
            text_of({**head, **fixed, "arguments": ""})[1:-1],
            *[f'"type":"mcp","arguments":"{p.escaped}"' for p in pieces],
        ],
        streamed,
        final,
        ways_to_name(rng, final, "arguments"),
        pieces,
    )


def _code(rng: Random, texts: Texts, tool: str, deltas: int) -> Call:
    """Code interpreter: input in pieces; outputs in pieces, in the ending object only, or not at all."""
    head = {"id": new_id(rng, "call_"), "type": tool}
    pieces = texts.pieces(deltas)
    source = "".join([p.text for p in pieces])
    parts = [
        text_of({**head, tool: {"input": "", "outputs": []}})[1:-1],
        *[f'"type":"{tool}","{tool}":{{"input":"{p.escaped}"}}' for p in pieces],
    ]
    logs = texts.pieces(1 + deltas // 4)
    outputs: list[dict[str, Any]] = [
        {"type": "logs", "logs": "".join([p.text for p in logs])},
        {"type": "image", "image": {"file_id": new_id(rng, "file-")}},
    ]
    sent_outputs: list[dict[str, Any]]
    streamed_outputs: list[dict[str, Any]]
    way = rng.random()
    if way < 0.4:
        sent_outputs, streamed_outputs, final_outputs = outputs, [], outputs
    elif way < 0.7:
        sent_outputs, streamed_outputs, final_outputs = [], [], []
    else:
        parts += [
            f'"type":"{tool}","{tool}":{{"outputs":[{{"index":0,"type":"logs","logs":"{p.escaped}"}}]}}' for p in logs
        ]
        parts.append(f'"type":"{tool}","{tool}":{{"outputs":[{text_of({"index": 1, **outputs[1]})}]}}')
        sent_outputs, streamed_outputs, final_outputs = (outputs if way < 0.85 else []), outputs, outputs
    sent = {"input": source, "outputs": sent_outputs}
    return Call(
        tool,
        parts,
        head | {tool: {"input": source, "outputs": streamed_outputs}},
        head | {tool: {"input": source, "outputs": final_outputs}},
        head | {tool: ways_to_name(rng, sent, "input")},
        pieces,
    )


def _whole(rng: Random, tool: str, first: dict[str, Any], final: dict[str, Any], sent: dict[str, Any]) -> Call:
    """A tool whose body comes in one delta."""
    head = {"id": new_id(rng, "call_"), "type": tool}
    return Call(
        tool, [text_of(head | {tool: first})[1:-1]], head | {tool: first}, head | {tool: final}, head | {tool: sent}, []
    )


def _file_search(rng: Random, texts: Texts, tool: str, deltas: int) -> Call:
    """File search: an empty body first, the results in the ending object."""
    results = [
        {"file_id": new_id(rng, "file-"), "file_name": "handbook.pdf", "score": score}
        for score in (1.0, 0.1 + 0.2, 1e-7, 12345678901234567890.0)[: rng.randint(0, 4)]
    ]
    found = {"ranking_options": {"ranker": "default_2024_08_21", "score_threshold": 0.0}, "results": results}
    return _whole(rng, tool, {}, found, found)


def _retrieval(rng: Random, texts: Texts, tool: str, deltas: int) -> Call:
    """Retrieval: an empty body."""
    return _whole(rng, tool, {}, {}, {})


def _bing(rng: Random, texts: Texts, tool: str, deltas: int) -> Call:
    """Bing grounding: each field set once; an ending object may leave it to the delta."""
    body = {"requesturl": f"https://search.example/?q={rng.getrandbits(32)}", "response_metadata": texts.piece().text}
    return _whole(rng, tool, body, body, body if rng.random() < 0.5 else {})


def _azure_search(rng: Random, texts: Texts, tool: str, deltas: int) -> Call:
    """Azure AI search: the input in the first delta, the output in the second, each whole."""
    head = {"id": new_id(rng, "call_"), "type": tool}
    question, answer = texts.piece().text, texts.piece().text
    body = {"input": question, "output": answer}
    return Call(
        tool,
        [
            text_of(head | {tool: {"input": question}})[1:-1],
            text_of({"type": tool, tool: {"output": answer}})[1:-1],
            # The same value once more is nothing new, and never concatenated.
            text_of({"id": head["id"], "type": tool, tool: {"output": answer}})[1:-1],
        ],
        head | {tool: body},
        head | {tool: body},
        head | {tool: body if rng.random() < 0.5 else {}},
        [],
    )


def _novel(rng: Random, texts: Texts, tool: str, deltas: int) -> Call:
    """An unknown tool type: numbers replace, objects merge, text and lists without an index stay as they are."""
    kind = "wasm_sandbox"
    head = {"id": new_id(rng, "call_"), "type": kind}
    rounds = max(1, min(deltas, 5))
    phase = texts.piece().text
    fuels = [rng.getrandbits(rng.choice((8, 53, 63, 80))) for _ in range(rounds)]
    ratios = [rng.choice((0.5, 1.0, 1e16, 1e-5, 2.5e300, -0.0)) for _ in range(rounds)]
    rows = [
        {
            "phase": phase,
            "fuel": fuels[i],
            "warm": i % 2 == 0,
            "ratio": ratios[i],
            "trace": [0, "load", None, {"nested": [0]}],
            "state": {f"slot{i}": {"value": i}},
        }
        for i in range(rounds)
    ]
    body = rows[-1] | {"state": {f"slot{i}": {"value": i} for i in range(rounds)}}
    return Call(
        tool,
        [
            text_of(head | {kind: rows[0]})[1:-1],
            *[text_of({"type": kind, kind: row})[1:-1] for row in rows[1:]],
        ],
        head | {kind: body},
        head | {kind: body},
        head | {kind: body if rng.random() < 0.5 else {}},
        [],
    )


_PLANS: Final[dict[str, Callable[[Random, Texts, str, int], Call]]] = {
    "mcp": _mcp,
    "code_interpreter": _code,
    "file_search": _file_search,
    "retrieval": _retrieval,
    "bing_grounding": _bing,
    "azure_ai_search": _azure_search,
    "novel": _novel,
}
