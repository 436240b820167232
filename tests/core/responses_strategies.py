"""Logs of Responses streams for the property tests, run steps among them: numbers that skip and repeat, odd indexes."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from processor.core.effects import LogRecord
from tests.core.strategies import delta, run_event, step_object

KEYS = ("resp_1", "resp_2", "resp_3")
PIECES = st.sampled_from(["", "a", "bc", "é", '"', "\\", "\n", "x" * 300])
INDEXES = st.sampled_from([0, 0, 0, 0, 1, 1, 2, 3, 1023, 1024, -1, 1 << 31, "0", None, True])
TEXTS = (
    ("output_text", "content_index", "text"),
    ("refusal", "content_index", "refusal"),
    ("reasoning_text", "content_index", "text"),
    ("reasoning_summary_text", "summary_index", "text"),
    ("function_call_arguments", "", "arguments"),
    ("mcp_call_arguments", "", "arguments"),
    ("custom_tool_call_input", "", "input"),
    ("code_interpreter_call_code", "", "code"),
    ("apply_patch_call_operation_diff", "", "diff"),
    ("shell_call_command", "command_index", "command"),
)
ITEMS = ("message", "reasoning", "function_call", "mcp_call", "shell_call", "apply_patch_call", "brand_new", "type")


@st.composite
def item(draw: st.DrawFn) -> Any:
    """An output item, now and then none."""
    if draw(st.integers(0, 30)) == 0:
        return draw(st.sampled_from([None, [], "x", {}]))
    found: dict[str, Any] = {"type": draw(st.sampled_from(ITEMS)), "id": draw(st.sampled_from(["i1", "i2", None]))}
    if draw(st.booleans()):
        found["status"] = draw(st.sampled_from(["in_progress", "completed", "incomplete", "failed", None]))
    if draw(st.booleans()):
        found["content"] = [{"type": "output_text", "text": draw(PIECES)}]
    if draw(st.booleans()):
        found["arguments"] = draw(PIECES)
    if draw(st.integers(0, 5)) == 0:
        found["error"] = draw(st.sampled_from(["broke", {"code": 1 << 70}, None]))
    return found


@st.composite
def response(draw: st.DrawFn, key: str) -> Any:
    """A whole response, as lifecycle events carry it."""
    if draw(st.integers(0, 30)) == 0:
        return draw(st.sampled_from([None, [], {"output": 7}, {"output": [7]}]))
    found: dict[str, Any] = {"id": key, "model": draw(st.sampled_from(["m", None])), "metadata": {"k": "v"}}
    found["created_at"] = draw(st.sampled_from([7, 7, 7, 7, 7, 8, None]))
    found["conversation"] = draw(st.sampled_from([None, {"id": "conv_1"}, "conv_2"]))
    found["output"] = draw(st.lists(item().filter(lambda i: type(i) is dict), max_size=3))
    if draw(st.booleans()):
        found["incomplete_details"] = {"reason": "max_output_tokens"}
        found["error"] = {"code": "server_error", "message": "broke"}
        found["completed_at"] = draw(st.sampled_from([1_001, None, "x"]))
    return found


@st.composite
def response_event(draw: st.DrawFn, key: str) -> dict[str, Any]:
    """One event, without its number."""
    where: dict[str, Any] = {"output_index": draw(INDEXES), "item_id": draw(st.sampled_from(["i1", "i2"]))}
    kind = draw(st.integers(0, 19))
    if kind < 8:
        name, index, field = draw(st.sampled_from(TEXTS))
        at = {index: draw(INDEXES)} if index else {}
        if draw(st.integers(0, 3)):
            return {"type": f"response.{name}.delta", **where, **at, "delta": draw(PIECES), "obfuscation": "zz"}
        return {"type": f"response.{name}.done", **where, **at, field: draw(PIECES)}
    if kind < 11:
        return {"type": "response.output_item.added", "output_index": where["output_index"], "item": draw(item())}
    if kind < 13:
        return {"type": "response.output_item.done", "output_index": where["output_index"], "item": draw(item())}
    if kind < 15:
        last = draw(st.sampled_from(["created", "queued", "in_progress"]))
        return {"type": f"response.{last}", "response": draw(response(key))}
    if kind < 16:
        last = draw(st.sampled_from(["completed", "failed", "incomplete", "cancelled"]))
        return {"type": f"response.{last}", "response": draw(response(key))}
    if kind < 17:
        stem, index = draw(
            st.sampled_from([("content_part", "content_index"), ("reasoning_summary_part", "summary_index")])
        )
        part = draw(st.sampled_from([{"type": "output_text", "text": ""}, {"type": "refusal", "refusal": "no"}, None]))
        last = draw(st.sampled_from(["added", "done"]))
        return {"type": f"response.{stem}.{last}", **where, index: draw(INDEXES), "part": part}
    if kind < 18:
        held = draw(st.sampled_from([{"stdout": "o"}, {"stderr": "e"}, {"stdout": "o", "stderr": "e"}, "x"]))
        return {"type": "response.shell_call_output_content.delta", **where, "command_index": 0, "delta": held}
    return draw(
        st.sampled_from(
            [
                {"type": "response.image_generation_call.partial_image", **where, "partial_image_b64": "A" * 50},
                {"type": "response.brand.new", **where},
                {"type": "error", "error": {"code": "server_error"}},
                {"type": "response.output_text.annotation.added", **where, "content_index": 0, "annotation_index": 0,
                 "annotation": {"type": "url_citation"}},
            ]
        )
    )  # fmt: skip


@st.composite
def response_logs(draw: st.DrawFn) -> list[LogRecord]:
    """Responses, interleaved, their numbers in order but for some; run steps between them."""
    numbered = draw(st.sampled_from([True, True, False]))
    numbers = dict.fromkeys(KEYS, draw(st.sampled_from([0, 0, 1])))
    now, offset, records = 1_000_000, draw(st.integers(0, 3)), []
    for _ in range(draw(st.integers(0, 40))):
        now += draw(st.sampled_from([0, 0, 0, 100, 1_000, 5_000, 30_000, -20_000]))
        if draw(st.integers(0, 9)) == 0:
            value = draw(st.one_of(step_object(), delta(), run_event))
            records.append(LogRecord(offset, now, draw(st.sampled_from([b"k", b"resp_1"])), value, ()))
        else:
            records.append(_numbered(draw, numbers if numbered else {}, offset, now))
        offset += draw(st.sampled_from([1, 1, 1, 1, 3]))
    return records


def _numbered(draw: st.DrawFn, numbers: dict[str, int], offset: int, now: int) -> LogRecord:
    key = draw(st.sampled_from(KEYS))
    event = draw(response_event(key))
    event_id = f"{key}/{draw(st.integers(0, 30))}"
    if numbers:
        numbers[key] += draw(st.sampled_from([0, 0, 0, 0, 0, 0, 1, 3, -1, -2]))
        event["sequence_number"] = numbers[key]
        event_id = f"{key}:{numbers[key]}"
        numbers[key] += 1
    headers = (("runstep-event-id", event_id.encode()), ("runstep-run-id", key.encode()))
    style = draw(st.integers(0, 3))
    value = json.dumps(event, separators=(",", ":") if style else (", ", ": "), ensure_ascii=style > 1).encode()
    if style == 3:
        value = json.dumps({"event": event["type"], "data": event}).encode()
    return LogRecord(offset, now, key.encode(), value, headers if draw(st.integers(0, 4)) else ())


# --- what nearly all responses do, as the wire has it, and what is nearly that --------------------------------------

SHAPES = (
    ("type", "sequence_number", "item_id", "output_index", "content_index", "delta", "logprobs", "obfuscation"),
    ("type", "content_index", "delta", "item_id", "logprobs", "obfuscation", "output_index", "sequence_number"),
    ("sequence_number", "type", "content_index", "delta", "item_id", "output_index", "logprobs"),
    ("content_index", "delta", "item_id", "logprobs", "output_index", "sequence_number", "type"),
    ("type", "item_id", "output_index", "content_index", "delta", "sequence_number"),
    ("type", "sequence_number", "item_id", "output_index", "obfuscation", "content_index", "delta"),
    ("delta", "sequence_number", "type", "output_index"),
)
"""Keys of a delta in the orders of different services."""
SPELLINGS = ((",", ":"), (", ", ": "), (",", ": "))
ODD_DELTAS: tuple[dict[str, Any], ...] = (
    {"content_index": 1}, {"content_index": None}, {"content_index": 1.0}, {"output_index": 1}, {"output_index": 0.0},
    {"sequence_number": 3.0}, {"sequence_number": -1}, {"sequence_number": "1"}, {"obfuscation": 'a"b'},
    {"obfuscation": "a b"}, {"obfuscation": ""}, {"obfuscation": 7}, {"obfuscation": "é"}, {"logprobs": [{"t": "a"}]},
    {"item_id": 'i"1'}, {"item_id": None}, {"item_id": "rotated"}, {"event": "x"}, {"specversion": "1.0"},
    {"data": {}}, {"delta": None}, {"delta": 7}, {"delta": ["a"]}, {"type": "response.refusal.delta"},
    {"delta": "\ud83d"}, {"summary_index": 3}, {"response": {}},
)  # fmt: skip
"""What may be different in one delta."""
ODD_BYTES = ((b'"delta"', b'"delta":"z","delta"'), (b"}", b'}"'), (b"}", b""), (b'":"', b'":"\xff'), (b'":"', b'":"\\'))
ODD_HEADERS: tuple[tuple[tuple[str, bytes], ...], ...] = (
    (("content-type", b"application/json"),), (("ce_type", b"x"),), (("runstep-run-id", b"resp_2"),),
    (("traceparent", b"00-1"),), (("custom", b"x"),), (("Runstep-Run-Id", b"resp_3"),),
)  # fmt: skip


@st.composite
def usual_streams(draw: st.DrawFn) -> list[LogRecord]:
    """Responses that stream texts, one event of the one and then of the other; one event in ten is odd in something."""
    streams = [(key, draw(_usual_stream(key))) for key in KEYS[: draw(st.integers(1, 3))]]
    now, offset, records = 1_000_000, 0, []
    while streams:
        at = draw(st.integers(0, len(streams) - 1))
        key, values = streams[at]
        for _ in range(draw(st.integers(1, 12))):
            if values:
                value, headers = values.pop(0)
                now += draw(st.sampled_from([0, 0, 0, 0, 0, 0, 1_000, 12_000]))
                records.append(LogRecord(offset, now, key.encode(), value, headers))
                offset += 1
        if not values:
            del streams[at]
    return records


@st.composite
def _usual_stream(draw: st.DrawFn, key: str) -> list[tuple[bytes, tuple[tuple[str, bytes], ...]]]:
    shape, separators = draw(st.sampled_from(SHAPES)), draw(st.sampled_from(SPELLINGS))
    number, events = draw(st.sampled_from([0, 0, 1])), list[dict[str, Any]]()
    events.append({"type": "response.created", "response": {"id": key, "model": "m"}})
    for index in range(draw(st.integers(1, 3))):
        name, at, field = draw(st.sampled_from(TEXTS))
        where = {"output_index": index, "item_id": f"i{index}", at or "content_index": 0}
        events.append({"type": "response.output_item.added", "output_index": index, "item": {"type": "message"}})
        pieces = draw(st.lists(PIECES | st.sampled_from(['\\"', "😀", '","obfuscation":"', "}]"]), max_size=8))
        for piece in pieces:
            told = where | {"type": f"response.{name}.delta", "delta": piece, "logprobs": [], "obfuscation": "aZ09"}
            events.append({name: told[name] for name in shape if name in told} | {k: told[k] for k in (at,) if k})
        if draw(st.booleans()):
            events.append(where | {"type": f"response.{name}.done", field: "".join(pieces)})
        if draw(st.booleans()):
            item = {"type": "message", "content": [{"type": "output_text", "text": "".join(pieces)}]}
            events.append({"type": "response.output_item.done", "output_index": index, "item": item})
    if draw(st.booleans()):
        events.append({"type": "response.completed", "response": {"id": key, "output": []}})
    found = list[tuple[bytes, tuple[tuple[str, bytes], ...]]]()
    for event in events:
        number += draw(st.sampled_from([0] * 20 + [1, -1]))
        event["sequence_number"] = number
        odd = draw(st.integers(0, 29))
        if odd == 0:
            event |= draw(st.sampled_from(ODD_DELTAS))
        value = json.dumps(event, separators=separators, ensure_ascii=draw(st.sampled_from([False, False, True])))
        text = value.encode("utf-8", "surrogatepass")
        if odd == 1:
            text = text.replace(*draw(st.sampled_from(ODD_BYTES)))
        headers: tuple[tuple[str, bytes], ...] = (
            ("runstep-event-id", f"{key}:{number}".encode()),
            ("runstep-run-id", key.encode()),
            ("runstep-sequence", b"%d" % number),
        )
        if odd == 2:
            headers += draw(st.sampled_from(ODD_HEADERS))
        elif odd == 3:
            headers = tuple(draw(st.permutations([*headers[:2], *draw(st.sampled_from(ODD_HEADERS))])))
        # The client hands headers over as a list.
        found.append((text, headers if odd == 4 else list(headers)))  # type: ignore[arg-type]
        number += 1
    return found
