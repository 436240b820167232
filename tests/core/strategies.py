"""Logs of any kind for the property tests: few ids, so that all collides; times that jump, stand still, fall back."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from processor.core.effects import LogRecord
from processor.core.rules import Rules

RULES = Rules(
    grace_s=5, max_age_s=100, ended_retention_s=20, ended_retention_records=15, max_step_bytes=2_000, max_open_steps=4
)
STEPS = ("s1", "s2", "s3", "s4", "s5", "s6")
RUNS = ("r1", "r2", None)
TYPES = ("tool_calls", "tool_calls", "tool_calls", "message_creation")


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


def event(name: str, data: object) -> bytes:
    return _json({"event": name, "data": data})


texts = st.sampled_from(["", "a", "bc", "é", "{", "\r\n", "x" * 300])
indexes = st.sampled_from([0, 0, 0, 1, 1, 2, 7, -1, 1024, "0", None, True])


@st.composite
def calls(draw: st.DrawFn, *, indexed: bool) -> list[dict[str, Any]]:
    out = []
    for _ in range(draw(st.integers(0, 2))):
        call: dict[str, Any] = {
            "type": draw(st.sampled_from(["function", "function", "code_interpreter", "mcp", "odd"]))
        }
        if indexed:
            call["index"] = draw(indexes)
        if draw(st.booleans()):
            call["id"] = draw(st.sampled_from(["c1", "c2", None]))
        if call["type"] == "function":
            call["function"] = draw(
                st.fixed_dictionaries(
                    {},
                    optional={
                        "name": st.sampled_from(["f", "g", None]),
                        "arguments": st.one_of(texts, st.none()),
                        "output": st.one_of(texts, st.none()),
                    },
                )
            )
        elif call["type"] == "code_interpreter":
            outputs = st.lists(
                st.fixed_dictionaries({"type": st.just("logs"), "logs": texts}, optional={"index": indexes}), max_size=2
            )
            call["code_interpreter"] = draw(st.fixed_dictionaries({}, optional={"input": texts, "outputs": outputs}))
        else:
            call |= draw(
                st.fixed_dictionaries({}, optional={"arguments": texts, "output": texts, "n": st.integers(0, 3)})
            )
        out.append(call)
    return out


@st.composite
def details(draw: st.DrawFn, *, indexed: bool) -> dict[str, Any] | None:
    kind = draw(st.sampled_from((*TYPES, None)))
    if kind is None:
        return None
    if kind == "message_creation":
        return {"type": kind, "message_creation": {"message_id": draw(st.sampled_from(["m1", "m2"]))}}
    return {"type": kind, "tool_calls": draw(calls(indexed=indexed))}


@st.composite
def step_object(draw: st.DrawFn) -> bytes:
    name = draw(
        st.sampled_from(
            ["created", "created", "in_progress", "completed", "completed", "failed", "cancelled", "expired"]
        )
    )
    status = draw(st.sampled_from([name, name, name, name, "completed", "odd"]))
    data: dict[str, Any] = {
        "id": draw(st.sampled_from(STEPS)),
        "object": "thread.run.step",
        "run_id": draw(st.sampled_from(RUNS)),
        "status": "in_progress" if status == "created" else status,
        "type": draw(st.sampled_from((*TYPES, None))),
        "step_details": draw(details(indexed=False)),
    }
    if draw(st.booleans()):
        data["expires_at"] = draw(st.sampled_from([None, 1_010, 1_030, 1_060, "x"]))
    if draw(st.booleans()):
        data["usage"] = {"total_tokens": draw(st.integers(0, 3))}
    if draw(st.integers(0, 4)) == 0:
        return _json(data)
    return event(f"thread.run.step.{name}", data)


@st.composite
def delta(draw: st.DrawFn) -> bytes:
    data = {"id": draw(st.sampled_from(STEPS)), "object": "thread.run.step.delta"}
    return event("thread.run.step.delta", data | {"delta": {"step_details": draw(details(indexed=True))}})


@st.composite
def plain_delta(draw: st.DrawFn) -> bytes:
    call = {"index": draw(st.sampled_from([0, 0, 1])), "type": "function", "function": {"arguments": draw(texts)}}
    data = {"id": draw(st.sampled_from(STEPS)), "object": "thread.run.step.delta"}
    return event(
        "thread.run.step.delta", data | {"delta": {"step_details": {"type": "tool_calls", "tool_calls": [call]}}}
    )


run_event = st.builds(
    lambda run, status: event(
        f"thread.run.{status}", {"id": run, "object": "thread.run", "status": status, "failed_at": 7}
    ),
    st.sampled_from(["r1", "r2"]),
    st.sampled_from(["completed", "failed", "cancelled", "expired", "incomplete", "queued"]),
)
garbage = st.sampled_from(
    [b"{", b"[[[", b"\xff", b"{}", b'{"event":"odd","data":{}}', b"", b": hi\n\n", b"data: [DONE]"]
)
frames = st.lists(st.one_of(step_object(), delta()), min_size=2, max_size=3).map(
    lambda values: b"\n\n".join(b"data: " + value for value in values)
)


@st.composite
def logs(draw: st.DrawFn, max_size: int = 60) -> list[LogRecord]:
    """Records with offsets that skip now and then, as transaction markers and compaction make them."""
    values = draw(
        st.lists(
            st.one_of(step_object(), step_object(), plain_delta(), plain_delta(), delta(), run_event, garbage, frames),
            max_size=max_size,
        )
    )
    now, offset, records = 1_000_000, draw(st.integers(0, 3)), []
    for value in values:
        now += draw(st.sampled_from([0, 0, 100, 1_000, 5_000, 30_000, -20_000]))
        ids = draw(st.sampled_from([None, None, None, b"e1", b"e2", b"e3"]))
        headers = (("runstep-event-id", ids),) if ids else ()
        records.append(LogRecord(offset, now, b"k", value, headers))
        offset += draw(st.sampled_from([1, 1, 1, 1, 3]))
    return records


# --- what nearly all steps do, as the wire has it, and what is nearly that ------------------------------------------

IDS = ("s1", "s2", "s3", 's"4', "s\u00e9", "s\\")
PIECES = st.sampled_from(["", "a", '{"a": ', '"b\\"', "\u00e9", "\n", "}}]}}}}", '"', "x" * 400])


def _spelled(value: object, style: int) -> bytes:
    separators = ((",", ":"), (", ", ": "), (",", ": "))[style]
    return json.dumps(value, separators=separators, ensure_ascii=style == 2).encode()


def _called(arguments: str, index: int, order: int, **more: Any) -> dict[str, Any]:
    function = {"arguments": arguments} | {k: v for k, v in more.items() if k in ("name", "output")}
    call = {"index": index, "type": "function", "function": function} | {k: v for k, v in more.items() if k == "id"}
    return call if order else {k: call[k] for k in sorted(call, reverse=True)}


ODD_FIELDS: dict[str, tuple[Any, ...]] = {
    "metadata": ({}, {"a": "b"}, {"a": {"b": 1}}),
    "vendor": (1,),
    "expired_at": (None, 7),
    "object": ("assistant.run.step", "", 0, {}),
    "created_at": (1.0, 1 << 70, None, "x"),
    "run_id": (3,),
    "type": ("message_creation", "odd"),
}
ODDITIES = (
    *ODD_FIELDS, "no beginning", "another beginning", "other refresh", "sparse", "astray", "says again", "renamed",
    "same id", "other kind", "other tools", "names less", "names null", "other type", "other details", "no end",
    "late delta", "late end", "late beginning", "other end",
)  # fmt: skip
"""What may be unusual in a step's life."""


@st.composite
def life(draw: st.DrawFn, step_id: str, oddity: str = "") -> list[bytes]:
    """One step's events, with one or two things that are not as usual: that one, and what comes up."""
    odd = draw(st.sets(st.sampled_from(ODDITIES), max_size=1)) | {oddity or draw(st.sampled_from(ODDITIES))}
    style, order = draw(st.sampled_from([0, 0, 0, 1, 2])), draw(st.sampled_from([1, 1, 1, 0]))
    is_message = draw(st.sampled_from([False, False, False, True]))
    kind = "message_creation" if is_message else "tool_calls"
    opened: dict[str, Any] = {"type": kind} | ({"message_creation": {"message_id": "m1"}} if is_message else {})
    if not is_message:
        opened["tool_calls"] = []
    stated: dict[str, Any] = {
        "id": step_id, "object": "thread.run.step", "created_at": 990, "run_id": draw(st.sampled_from(RUNS)),
        "assistant_id": "a", "thread_id": "t", "type": kind, "status": "in_progress", "cancelled_at": None,
        "completed_at": None, "expires_at": draw(st.sampled_from([None, 1_010, 1_030])), "failed_at": None,
        "last_error": None, "step_details": opened, "usage": None,
    }  # fmt: skip
    for name in sorted(odd & ODD_FIELDS.keys()):
        stated[name] = draw(st.sampled_from(ODD_FIELDS[name]))

    def say(name: str, data: Any) -> bytes:
        return _spelled({"event": f"thread.run.step.{name}", "data": data}, style)

    def delta_of(call: dict[str, Any]) -> bytes:
        data: dict[str, Any] = {"id": step_id, "object": "thread.run.step.delta"}
        details = {"step_details": {"type": "tool_calls", "tool_calls": [call]}}
        return say("delta", data | {"delta": details} if order else {"delta": details} | data)

    if "other details" in odd and draw(st.booleans()):
        opened = stated["step_details"] = opened | {"type": "odd"}
    first = stated
    if "another beginning" in odd:
        tool = {"id": "c0", "type": "function", "function": {"name": "f", "arguments": "b", "output": None}}
        message = {"type": kind, "message_creation": {"message_id": "m0"}}
        first = stated | {"step_details": message if is_message else opened | {"tool_calls": [tool]}}
    values = [] if "no beginning" in odd else [say("created", first)]
    if draw(st.booleans()):
        values.append(say("in_progress", stated | ({"usage": {"x": 1}} if "other refresh" in odd else {})))
    texts: list[str] = []
    for index in range(0 if is_message else draw(st.integers(0, 2))):
        texts.append(draw(PIECES))
        logical = index + ("sparse" in odd)
        more = {"output": None} if draw(st.booleans()) else {}
        own_id = "c0" if "same id" in odd else f"c{index}"
        values.append(delta_of(_called(texts[index], logical, order, id=own_id, name="f", **more)))
        for _ in range(draw(st.integers(0, 4))):
            piece = draw(PIECES)
            texts[index] += piece
            again: dict[str, Any] = {}
            if "says again" in odd:
                again = draw(st.sampled_from([{}, {"id": "c0"}, {"id": f"c{index}"}, {"name": "f"}, {"output": None}]))
            at = draw(st.integers(0, 2)) if "astray" in odd else logical
            values.append(delta_of(_called(piece, at, order, **again)))
    tools: list[dict[str, Any]] = []
    for index, whole in enumerate(texts):
        arguments = draw(st.sampled_from([None, None, whole, whole, "other", ""]))
        function: dict[str, Any] = {"name": "g" if "renamed" in odd else "f", "arguments": arguments}
        function |= draw(st.sampled_from([{}, {"output": None}, {"output": "o"}, {"output": ""}]))
        own, of_kind = "c0" if "same id" in odd else f"c{index}", "f" if "other kind" in odd else "function"
        tools.append({"id": own, "type": of_kind, "function": function})
    if "other tools" in odd:
        tools = draw(st.permutations(tools))[: draw(st.integers(0, 2))]
    status = draw(st.sampled_from(["completed", "completed", "failed", "cancelled", "expired"]))
    last = opened if is_message else opened | {"tool_calls": tools}
    ending = stated | {"status": status, "step_details": last}
    ending |= draw(st.sampled_from([{}, {"usage": {"n": 1, "d": {"b": 2, "a": 1}}}, {"usage": {"d": {"c": {"e": 1}}}}]))
    if "other details" in odd:
        ending["step_details"] = last | {"type": draw(st.sampled_from(["tool_calls", "message_creation", "odd"]))}
    if "other type" in odd:
        ending["type"] = draw(st.sampled_from(["tool_calls", "message_creation", "odd"]))
    names = st.sampled_from(("usage", "expires_at", "metadata", "created_at", "run_id", "assistant_id", "type"))
    if "names less" in odd:
        ending.pop(draw(names), None)
    if "names null" in odd:
        ending[draw(names)] = None
    if "no end" not in odd:
        values.append(say(status, ending))
    if "late delta" in odd:
        values.append(delta_of(_called("late", draw(st.integers(0, 1)), order)))
    if "late beginning" in odd:
        values.append(say("created", stated))
    if "late end" in odd:
        values.append(say(status, ending | draw(st.sampled_from([{}, {"usage": {"n": 2}}, {"metadata": None}]))))
    if "other end" in odd:
        values.append(say("expired", ending | {"status": "expired"}))
    return values


@st.composite
def lives(draw: st.DrawFn, oddity: str = "") -> list[LogRecord]:
    """Some steps' lives, one event of the one and then of the other, in the usual spellings."""
    rest = [draw(life(step_id, oddity)) for step_id in draw(st.lists(st.sampled_from(IDS), min_size=1, max_size=4))]
    rest.append(draw(st.lists(run_event, max_size=2)))
    with_ids = draw(st.sampled_from([False, False, True]))
    now, offset, records = 1_000_000, 0, []
    while rest:
        at = draw(st.integers(0, len(rest) - 1))
        if not rest[at]:
            del rest[at]
            continue
        value = rest[at].pop(0)
        now += draw(st.sampled_from([0, 0, 0, 0, 1_000, 12_000]))
        number = offset if draw(st.integers(0, 9)) else max(0, offset - 2)
        headers = (("runstep-event-id", b"e%d" % number),) if with_ids else ()
        records.append(LogRecord(offset, now, b"k", value, headers))
        offset += 1
    return records
