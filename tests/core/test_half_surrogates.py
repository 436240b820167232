r"""Half a surrogate pair (`"\ud83d"`), as a tool's output has it that was cut by length: the event counts."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import pytest

from processor.core.effects import DeadLetter, LogRecord, Publish, Rejected
from processor.core.events import decode
from processor.core.partition import PartitionState
from processor.core.rules import Rules
from processor.core.wire_types import Decoded, StepDelta, StepObject

HALF = "\ud83d"
STEP = {"id": "step_1", "object": "thread.run.step", "run_id": "run_1", "type": "tool_calls", "status": "in_progress"}


def call(output: str) -> dict[str, Any]:
    return {"type": "tool_calls", "tool_calls": [{"id": "call_1", "type": "function", "function": {"output": output}}]}


def said(name: str, data: object) -> bytes:
    return json.dumps({"event": f"thread.run.step.{name}", "data": data}).encode()


def folded(*values: bytes) -> list[Publish | DeadLetter]:
    log = [LogRecord(offset, 1_000, b"run_1", value, ()) for offset, value in enumerate(values)]
    return [e for e in PartitionState("t", 0, Rules()).apply(log) if isinstance(e, (Publish, DeadLetter))]


@pytest.mark.parametrize("spelling", ["\\ud83d", "\\uD83D", "\\ude80", "\\ud83d\\ud83d", "x\\ud83dx"])
def test_a_step_whose_end_holds_a_half_is_completed(spelling: str) -> None:
    ended = said("completed", STEP | {"status": "completed", "step_details": call("all good ?")})
    (step,) = folded(said("created", STEP), ended.replace(b"?", spelling.encode()))
    assert isinstance(step, Publish)
    assert step.status.value == "completed"
    assert step.anomalies == ("replaced_half",)
    output = json.loads(step.value)["step_details"]["tool_calls"][0]["function"]["output"]
    assert output == "all good " + json.loads(f'"{spelling}"').encode("utf-16-le", "surrogatepass").decode(
        "utf-16-le", "replace"
    )


def test_a_half_may_stand_in_any_string() -> None:
    found = decode(said("created", STEP | {"id": f"step_{HALF}", f"key{HALF}": {"deep": [HALF]}}))
    assert isinstance(found, Decoded)
    (event,) = found.events
    assert isinstance(event, StepObject)
    assert event.mended
    assert event.step_id == "step_\ufffd"
    assert event.data["key\ufffd"] == {"deep": ["\ufffd"]}


def test_a_delta_and_bare_objects_too() -> None:
    entry = {"index": 0, "type": "function", "function": {"arguments": f"now {HALF}"}}
    delta = {
        "id": "step_1",
        "object": "thread.run.step.delta",
        "delta": {"step_details": call("") | {"tool_calls": [entry]}},
    }
    for value in (said("delta", delta), json.dumps(delta).encode()):
        found = decode(value)
        assert isinstance(found, Decoded)
        (event,) = found.events
        assert isinstance(event, StepDelta)
        assert not event.mended  # the next delta may bring the other half: tests/core/test_split_characters.py
        assert event.details["tool_calls"][0]["function"]["arguments"] == f"now {HALF}"


def test_a_step_that_a_delta_with_a_half_is_merged_into_says_so() -> None:
    entry = {"index": 0, "type": "function", "function": {"arguments": f"now {HALF}"}}
    details = {"step_details": {"type": "tool_calls", "tool_calls": [entry]}}
    delta = {"id": "step_1", "object": "thread.run.step.delta", "delta": details}
    cancelled = {"id": "run_1", "object": "thread.run", "status": "cancelled"}
    (step,) = folded(said("created", STEP), said("delta", delta), json.dumps(cancelled).encode())
    assert isinstance(step, Publish)
    assert step.anomalies == ("replaced_half",)
    assert json.loads(step.value)["step_details"]["tool_calls"][0]["function"]["arguments"] == "now \ufffd"


@pytest.mark.parametrize("spelling", [b"/", b"\\/"])
def test_the_data_of_a_cloud_event_in_base64_too(spelling: bytes) -> None:
    data = json.dumps(STEP | {"x": f"now {HALF}???", "y": "\ufffd>>>"}).encode()
    event = {"specversion": "1.0", "type": "com.example.thread.run.step.created", "id": "1", "source": "/"}
    value = json.dumps(event | {"data_base64": b64encode(data).decode()}).encode().replace(b"/", spelling)
    found = decode(value)
    assert isinstance(found, Decoded)
    (read,) = found.events
    assert isinstance(read, StepObject)
    assert (read.mended, read.data["x"]) == (True, "now \ufffd???")
    entry = {"index": 0, "type": "function", "function": {"arguments": f"now {HALF}"}}
    delta = {"id": "step_1", "delta": {"step_details": call("") | {"tool_calls": [entry]}}}
    event |= {"type": "thread.run.step.delta", "data_base64": b64encode(json.dumps(delta).encode()).decode()}
    found = decode(json.dumps([event, event]).encode(), (("content-type", b"application/cloudevents-batch+json"),))
    assert isinstance(found, Decoded)
    for read in found.events:
        assert isinstance(read, StepDelta)
        assert read.details["tool_calls"][0]["function"]["arguments"] == f"now {HALF}"
    for broken in (b"{", b"\xff", json.dumps(7).encode()):
        event["data_base64"] = b64encode(broken).decode()
        assert isinstance(decode(json.dumps(event).encode()), Rejected)


def test_only_the_event_that_holds_it_is_marked() -> None:
    frames = [(f"step_{number}", HALF if number == 1 else "🚆") for number in range(3)]
    text = "".join(
        f"event: thread.run.step.created\ndata: {json.dumps(STEP | {'id': own, 'x': text})}\n\n" for own, text in frames
    )
    found = decode(text.encode())
    assert isinstance(found, Decoded)
    assert [event.mended for event in found.events if isinstance(event, StepObject)] == [False, True, False]
    assert [event.data["x"] for event in found.events if isinstance(event, StepObject)] == ["🚆", "\ufffd", "🚆"]


def test_a_pair_is_no_half_and_other_faults_stay() -> None:
    whole = decode(said("created", STEP | {"x": "🚆"}))
    assert isinstance(whole, Decoded)
    assert isinstance(whole.events[0], StepObject)
    assert not whole.events[0].mended
    for value in (said("created", STEP | {"x": HALF})[:-1], b'"\\ud83d"', said("created", STEP | {"x": HALF, "id": 7})):
        assert isinstance(decode(value), Rejected)
