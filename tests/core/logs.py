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
