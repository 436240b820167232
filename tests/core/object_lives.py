"""Lives of steps by one producer, for tests of object templates: one layout again and again, and what is nearly it."""

from __future__ import annotations

import json
import re
from typing import Any, Final

from hypothesis import strategies as st

from processor.core.effects import LogRecord

SIZES: Final = st.sampled_from([1, 9, 310, 4_000, 123_456_789_012_345])
_PIECES: Final = st.sampled_from(["", "a", '{"a": ', '"', "\u00e9", "\\n", "]},", '"usage":{"n":', "}}]}"])
_TEXTS: Final = re.compile(rb'"(?:id|run_id|thread_id|assistant_id|message_id|name)": ?"([^"]*)"')
_NUMBERS: Final = re.compile(rb": ?([0-9]+)(?=[,}])")
_ODD_TEXTS: Final = (
    b"", b'"', b"\\", b"\\u0041", b"\\n", b"\n", b"\x1f", b"\x7f", b"\x80", "\u00e9".encode(), b"a b", b"{[",
    b'x","type":"', b'x","id":"y', b"x" * 256, b"x" * 257,
)  # fmt: skip
_ODD_NUMBERS: Final = (
    b"0", b"01", b"-1", b"1.0", b"1e3", b"999999999999999", b"1000000000000000", b"18446744073709551616", b'"1"',
    b"null", b"true", b"", b" 7", b"7 ", b'7,"status":"failed"', b"{}", b"[]",
)  # fmt: skip


def _spelled(name: str, data: Any, spaced: bool) -> bytes:
    separators = (", ", ": ") if spaced else (",", ":")
    event = {"event": f"thread.run.step.{name}", "data": data}
    return json.dumps(event, separators=separators, ensure_ascii=False).encode()


@st.composite
def spoilt(draw: st.DrawFn, value: bytes) -> bytes:
    """A value with one place in it that is not as usual."""
    how = draw(st.sampled_from(["text", "text", "number", "number", "cut", "byte", "twice", "null"]))
    if how in ("text", "number"):
        pattern, odd = (_TEXTS, _ODD_TEXTS) if how == "text" else (_NUMBERS, _ODD_NUMBERS)
        found = list(pattern.finditer(value))
        if not found:
            return value
        begin, end = draw(st.sampled_from(found)).span(1)
        return value[:begin] + draw(st.sampled_from(odd)) + value[end:]
    at = draw(st.integers(0, len(value) - 1))
    if how == "cut":
        return value[:at]
    if how == "byte":
        return (
            value[:at]
            + draw(st.sampled_from([b'"', b"}", b",", b"\\", b"0", b" ", b"\xff", b"{", b"e"]))
            + value[at + 1 :]
        )
    if how == "twice":
        name, held = (
            draw(st.sampled_from([b'"id":"s1"', b'"status":"failed"', b'"run_id":"r9"', b'"usage":3', b'"more":1'])),
            b"",
        )
        return value[:-2] + b"," + name + held + value[-2:]
    return draw(st.sampled_from([value.replace(b"null", b"7"), re.sub(rb":[0-9]+", b":null", value, count=1)]))


def _seldom(usual: Any, *odd: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from([usual] * 4 * len(odd) + list(odd))


@st.composite
def _layout(draw: st.DrawFn) -> dict[str, Any]:
    """What is the same in all steps of the producer: names and their order."""
    more = draw(_seldom({}, *({"metadata": held} for held in ({}, {"n": 3}, {"a": "b"}, None)), {"failed_at": 1.5}))
    names = [
        "id", "object", "created_at", "run_id", "assistant_id", "thread_id", "type", "status", "completed_at",
        "expires_at", "last_error", "step_details", "usage", *more,
    ]  # fmt: skip
    left_out = draw(_seldom("", "assistant_id", "thread_id", "run_id", "completed_at", "expires_at", "usage"))
    named = [name for name in names if name != left_out]
    return {
        "names": draw(st.permutations(named)) if draw(st.sampled_from([False, False, True])) else named,
        "more": more,
        "spaced": draw(_seldom(False, True)),
        "tool": draw(st.sampled_from(["function", "function", "mcp", "code_interpreter", "message"])),
        "output": draw(st.sampled_from([{}, {"output": None}])),
        "ends": draw(st.sampled_from(["left", "left", "left", "null", "said", "said", "other", "fewer", "type"])),
        "status": draw(_seldom("completed", "failed", "expired")),
        "usage": draw(st.booleans()),
        "end_lacks": draw(_seldom([], ["usage"], ["metadata"], ["created_at"])),
        "end_nulls": draw(_seldom([], ["run_id"], ["expires_at"], ["created_at"])),
        "begin_lacks": draw(_seldom([], ["usage"], ["completed_at"])),
        "expired_at": draw(_seldom(None, 7)),
    }


def _call(tool: str, arguments: Any, **more: Any) -> dict[str, Any]:
    if tool == "function":
        return {"type": tool, "function": {"name": "look_up", "arguments": arguments} | more}
    if tool == "mcp":
        return {"type": tool, "name": "find", "server_label": "docs", "arguments": arguments} | more
    return {"type": tool, tool: {"input": arguments}}


@st.composite
def _life(draw: st.DrawFn, n: int, how: dict[str, Any]) -> list[bytes]:
    step_id, run_id = f"step_{draw(st.sampled_from(['', '0', '00']))}{n}", draw(st.sampled_from(["run_1", "run_2"]))
    tool, spaced = how["tool"], how["spaced"]
    kind = "message_creation" if tool == "message" else "tool_calls"
    details: dict[str, Any] = {"type": kind, "tool_calls": []}
    if tool == "message":
        details = {"type": kind, "message_creation": {"message_id": f"msg_{n}"}}
    whole = {
        "id": step_id, "object": "thread.run.step", "created_at": draw(st.sampled_from([990, 1_000])), "run_id": run_id,
        "assistant_id": "asst_1", "thread_id": f"thread_{run_id}", "type": kind, "status": "in_progress",
        "completed_at": None, "expires_at": draw(st.sampled_from([1_010, 1_600])), "last_error": None,
        "step_details": details, "usage": None,
    } | how["more"]  # fmt: skip
    stated = {name: whole[name] for name in how["names"]}
    begun = {name: held for name, held in stated.items() if name not in how["begin_lacks"]}
    values = [_spelled("created", begun, spaced)]
    if draw(st.booleans()):
        values.append(_spelled("in_progress", begun, spaced))
    whole_text = ""
    if tool != "message":
        for number, piece in enumerate(draw(st.lists(_PIECES, min_size=1, max_size=3))):
            whole_text += piece
            first = _call(tool, piece, **(how["output"] if tool == "function" else {}))
            told = (
                {"index": 0, "id": f"call_{n}"} | first
                if not number
                else {"index": 0, "type": tool} | _later(tool, piece)
            )
            data = {
                "id": step_id,
                "object": "thread.run.step.delta",
                "delta": {"step_details": {"type": kind, "tool_calls": [told]}},
            }
            values.append(_spelled("delta", data, spaced))
    ended = stated | {"status": how["status"]}
    if "completed_at" in ended and how["status"] == "completed":
        ended["completed_at"] = 1_005
    if how["expired_at"]:
        ended["expired_at"] = 7
    if how["usage"] and "usage" in ended:
        ended["usage"] = {"prompt_tokens": draw(SIZES), "total_tokens": draw(SIZES), "details": {"cached": draw(SIZES)}}
    if tool != "message" and how["ends"] not in ("left", "type"):
        arguments = {"null": None, "said": whole_text, "other": "other", "fewer": None}[how["ends"]]
        call = {"id": f"call_{n}"} | _call(tool, arguments, **how["output"])
        ended["step_details"] = details | {"tool_calls": [call, call] if how["ends"] == "fewer" else [call]}
    if how["ends"] == "type":
        ended["step_details"] = details | {"type": "tool_calls" if tool == "message" else "message_creation"}
    ended |= {name: None for name in how["end_nulls"] if name in ended}
    values.append(
        _spelled(how["status"], {name: held for name, held in ended.items() if name not in how["end_lacks"]}, spaced)
    )
    return values


def _later(tool: str, piece: str) -> dict[str, Any]:
    call = _call(tool, piece)
    return (
        {"function": {"arguments": piece}}
        if tool == "function"
        else {k: v for k, v in call.items() if k in ("arguments", tool)}
    )


@st.composite
def lives_of_a_producer(draw: st.DrawFn) -> list[LogRecord]:
    """Steps one after the other, the last ones by known templates; some of their events spoilt, repeated or late."""
    how = draw(_layout())
    values: list[bytes] = []
    for n in range(draw(st.integers(2, 5))):
        life = draw(_life(n, how))
        if n and draw(st.booleans()):
            at = draw(st.integers(0, len(life) - 1))
            odd = draw(st.sampled_from(["spoil", "spoil", "spoil", "again", "again", "lose", "swap"]))
            if odd == "spoil":
                life[at] = draw(spoilt(life[at]))
            elif odd == "again":
                life.insert(draw(st.integers(at, len(life))), life[at])
            elif odd == "lose":
                del life[at]
            else:
                life[at], life[0] = life[0], life[at]
        values += life
    run_ends = {"event": "thread.run.failed", "data": {"id": "run_1", "object": "thread.run", "status": "failed"}}
    if draw(st.booleans()) and draw(st.booleans()):
        values.insert(draw(st.integers(0, len(values))), json.dumps(run_ends, separators=(",", ":")).encode())
    with_ids, now, records = draw(st.sampled_from([False, False, True])), 1_000_000, []
    for offset, value in enumerate(values):
        now += draw(st.sampled_from([0] * 12 + [1_000, 12_000]))
        number = offset if draw(st.integers(0, 9)) else max(0, offset - 2)
        headers = (("runstep-event-id", b"e%d" % number),) if with_ids else ()
        records.append(LogRecord(offset, now, b"k", value, headers))
    return records
