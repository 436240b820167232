"""The envelopes E1-E5: the same event through every one of them is the same event."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.core.effects import DeadLetter, Headers, LogRecord, Publish, Reason, Rejected, Status
from processor.core.events import decode
from processor.core.lifecycle import Kind
from processor.core.partition import PartitionState
from processor.core.rules import Rules
from processor.core.run_steps.fast_path import Paths
from processor.core.run_steps.usual_events import ExactObject, exact, general, prefix_of, run_event
from processor.core.sse import is_sse
from processor.core.wire_types import (
    Decoded,
    ExactData,
    Ignored,
    RunEnd,
    StepDelta,
    StepObject,
    StreamError,
    canonical,
    canonical_step,
)
from tests.core.scripted_log import Play, call, calls, delta, refused, run, snapshot, step, text
from tests.core.strategies import details, lives
from tests.examples import examples

STEP = step("completed", step_details={"type": "tool_calls", "tool_calls": []})
EVENTS: dict[str, Any] = {
    "thread.run.step.created": step(),
    "thread.run.step.in_progress": step(),
    "thread.run.step.delta": calls(call(0, "a")),
    "thread.run.step.completed": STEP,
    "thread.run.completed": run("completed", completed_at=5),
}
CLOUD = {"specversion": "1.0", "source": "/here", "id": "e1"}
BINARY = [("ce_specversion", b"1.0"), ("ce_source", b"/here"), ("ce_id", b"e1")]


def decoded(value: bytes | None, headers: Headers = ()) -> Decoded:
    found = decode(value, headers)
    assert isinstance(found, Decoded), found
    return found


def rejected(value: bytes, headers: Headers = ()) -> str:
    found = decode(value, headers)
    assert isinstance(found, Rejected), found
    assert 0 < len(found.detail) <= 200
    return found.reason.value


def envelopes(name: str, data: Any) -> dict[str, tuple[bytes, Headers]]:
    """One event in every form, by what the form is called; the bare one only where its name says no more."""
    body = text(data)
    cloud = CLOUD | {"type": f"com.example.{name}"}
    typed = [*BINARY, ("ce_type", f"com.example.{name}".encode())]
    stream = text({"event": name, "data": data})
    indented = json.dumps(data, indent=1).replace("\n", "\r\ndata: ")
    forms: dict[str, tuple[bytes, Headers]] = {
        "E1": (stream, []),
        "E1 with white space and a stranger": (
            json.dumps({"seq": 7, "data": data, "event": name}, indent=2).encode(),
            [],
        ),
        "E1 with escapes": (json.dumps({"event": name, "data": data}).replace("event", "\\u0065vent", 1).encode(), []),
        "E3": (text(cloud | {"data": data}), [("Content-Type", b"Application/CloudEvents+json; charset=utf-8")]),
        "E3 without a header": (text(cloud | {"data": data}), []),
        "E3 in base64": (text(cloud | {"data_base64": base64.b64encode(body).decode()}), []),
        "E3 around E1": (text(cloud | {"data": {"event": name, "data": data}}), []),
        "E3 batch": (text([cloud | {"data": data}]), [("content-type", b"application/cloudevents-batch+json")]),
        "E4": (body, typed),
        "E4 in other letters": (body, [(key.upper(), value) for key, value in typed]),
        "E4 around E1": (stream, typed),
        "E5": (f"event: {name}\ndata: ".encode() + body + b"\n\n", []),
        "E5 without the last line end": (f"event:{name}\ndata:".encode() + body, []),
        "E5 around E1": (b"data: " + stream + b"\n\n", []),
        "E5 with comments and fields": (f": hi\r\nid: 5\r\nretry: 1\r\nevent: {name}\r\ndata: ".encode() + body, []),
        "E5 in several lines": (f"event: {name}\r\ndata: {indented}\r\n\r\n".encode(), []),
    }
    if _bare_says_it(name, data):
        forms["E2"] = (body, [])
        forms["E5 around E2"] = (b"data: " + body, [])
    marked = {
        f"{form} after a byte order mark": (b"\xef\xbb\xbf" + value, headers)
        for form, (value, headers) in forms.items()
    }
    return forms | marked


def _bare_says_it(name: str, data: Any) -> bool:
    """A bare object's name comes from its contents, and one in progress cannot say that it is new."""
    kind = data.get("object")
    if name == "thread.run.step.delta":
        return bool(kind == name)
    statuses = {f"{kind}.{data.get('status')}"} - {"thread.run.step.in_progress"}
    return name in statuses


@pytest.mark.parametrize(("name", "form"), [(n, f) for n, data in EVENTS.items() for f in envelopes(n, data)])
def test_every_envelope_carries_every_event(name: str, form: str) -> None:
    (event,) = decoded(*envelopes(name, EVENTS[name])[form]).events
    data = EVENTS[name]
    if name == "thread.run.completed":
        assert event == RunEnd("r1", "completed", 5, None)
    elif name == "thread.run.step.delta":
        assert event == StepDelta("s1", data["delta"]["step_details"])
    else:
        assert event == StepObject(Kind(name.rpartition(".")[2]), "s1", data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
STATUSES = st.sampled_from(["in_progress", "completed", "failed", "cancelled", "expired", "odd", None])
named_events = st.one_of(
    st.tuples(
        st.sampled_from(["created", "in_progress", "completed", "failed", "cancelled", "expired"]).map(
            "thread.run.step.{}".format
        ),
        st.builds(
            lambda status, told, more: more | step(status, step_details=told),
            STATUSES,
            details(indexed=False),
            st.dictionaries(st.text(max_size=5).map("x-{}".format), JSON, max_size=3),
        ),
    ),
    st.tuples(
        st.just("thread.run.step.delta"),
        st.builds(
            lambda told: {"id": "s1", "object": "thread.run.step.delta", "delta": {"step_details": told}},
            details(indexed=True),
        ),
    ),
    st.tuples(
        st.sampled_from(["completed", "failed", "queued", "incomplete"]).map("thread.run.{}".format),
        st.builds(
            lambda status, error: run(status, last_error=error),
            st.sampled_from(["failed", "completed", "queued"]),
            JSON,
        ),
    ),
)


@given(named_events)
def test_the_same_event_through_every_envelope_is_the_same(event: tuple[str, Any]) -> None:
    forms = envelopes(*event)
    found = {form: decoded(value, headers).events for form, (value, headers) in forms.items()}
    expected = found["E1"]
    bare = {form for form in found if "E2" in form}  # these know no event name, so they cannot disagree with it
    assert {form: events for form, events in found.items() if events != expected and form not in bare} == {}
    for form in bare:
        assert found[form] == expected


@given(st.lists(named_events, min_size=1, max_size=4), st.data())
def test_frames_may_be_put_into_a_record_in_any_way(events: list[tuple[str, Any]], data: st.DataObject) -> None:
    """Any line ends, with or without blank lines between, data over several lines, comments anywhere."""
    end = data.draw(st.sampled_from(["\n", "\r\n", "\r"]))
    lines = [": a comment so that it begins as SSE does"]
    for name, body in events:
        lines += data.draw(st.lists(st.sampled_from(["", ": hi", "id: 1", "retry: 5"]), max_size=2))
        wide = json.dumps(body, indent=data.draw(st.sampled_from([None, 1])), ensure_ascii=data.draw(st.booleans()))
        lines.append(f"event: {name}")
        lines += [f"data: {line}" for line in wide.split("\n")]
    lines += data.draw(st.sampled_from([[], [""], ["", ""], ["", "data: [DONE]", ""]]))
    found = decoded(end.join(lines).encode())
    expected = [decoded(text({"event": name, "data": body})).events[0] for name, body in events]
    assert [event for event in found.events if event != Ignored("ignored")] == [
        event for event in expected if event != Ignored("ignored")
    ]


def test_a_batch_and_frames_keep_their_order_and_ids() -> None:
    clouds = [
        CLOUD | {"id": f"e{n}", "type": "thread.run.step.delta", "data": calls(call(0, str(n)))} for n in range(3)
    ]
    batch = decoded(text(clouds), [("content-type", b"application/cloudevents-batch+json")])
    assert batch.ids == ("/here e0", "/here e1", "/here e2")
    frames = b"".join(b"data: " + text({"event": "thread.run.step.delta", "data": c["data"]}) + b"\n\n" for c in clouds)
    several = decoded(frames, [("runstep-event-id", b"x")])
    assert several.ids == ("x#0", "x#1", "x#2")
    assert several.events == batch.events


@pytest.mark.parametrize(
    "prefix", ["", "com.example.", "io.thread.", "com.goldthread.agents.", "net.response.", "a:", "my"]
)
@pytest.mark.parametrize("name", ["thread.run.step.delta", "response.output_text.delta"])
def test_a_prefix_of_a_cloud_events_type_may_have_the_words_of_the_api(prefix: str, name: str) -> None:
    responses: dict[str, Any] = {"sequence_number": 1, "output_index": 0, "content_index": 0, "delta": "a"}
    data = calls() if name.startswith("thread") else responses
    bare = decoded(text({"event": name, "data": data})).events
    for value, headers in (
        (text(data), [*BINARY, ("ce_type", (prefix + name).encode())]),
        (text(CLOUD | {"type": prefix + name, "data": data}), []),
    ):
        assert decoded(value, headers).events == bare


@pytest.mark.parametrize(
    ("value", "headers", "event_id"),
    [
        (text({"event": "thread.run.step.delta", "data": calls()}), [("Runstep-Event-Id", b"a")], "a"),
        (text(calls()), [*BINARY, ("ce_type", b"thread.run.step.delta")], "/here e1"),
        (text(CLOUD | {"type": "thread.run.step.delta", "data": calls()}), [], "/here e1"),
        (text(CLOUD | {"type": "thread.run.step.delta", "data": calls()}), [("runstep-event-id", b"own")], "own"),
        (text(CLOUD | {"type": "thread.run.step.delta", "data": calls(), "id": ""}), [], None),
        (text({"event": "thread.run.step.delta", "data": calls()}), [("runstep-event-id", b"")], None),
        (text({"event": "thread.run.step.delta", "data": calls()}), [("runstep-event-id", None)], None),
    ],
)
def test_event_ids(value: bytes, headers: Headers, event_id: str | None) -> None:
    assert decoded(value, headers).ids == (event_id,)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (None, "tombstone"),
        (b"", "tombstone"),
        (b"data: [DONE]\n\n", "ignored"),
        (b": ping\n\n", "ignored"),
        (text({"event": "thread.created", "data": {}}), "ignored"),
        (text({"event": "thread.message.delta", "data": {}}), "ignored"),
        (text({"event": "done", "data": "[DONE]"}), "ignored"),
        (b"event: done\ndata: [DONE]\n\n", "ignored"),
        (text({"event": "thread.run.requires_action", "data": run("requires_action")}), "ignored"),
        (text({"event": "thread.run.odd", "data": run("odd")}), "unknown_event"),
        (text({"event": "thread.run.step.odd", "data": step()}), "unknown_event"),
        (text({"event": "ping", "data": {}}), "unknown_event"),
    ],
)
def test_what_is_not_about_steps_is_ignored(value: bytes | None, why: str) -> None:
    assert decoded(value).events == (Ignored(why),)


@pytest.mark.parametrize("colon", [b":", b": "])
def test_a_piece_of_a_message_is_known_by_its_first_bytes(colon: bytes) -> None:
    """Its rest is not read; the clock moves, and nothing else happens. Both ways of folding do the same."""
    value = b'{"event"' + colon + b'"thread.message.delta","data":{"torn'
    assert decoded(value).events == (Ignored("ignored"),)
    for paths in (Paths.FAST, Paths.SLOW):
        state = PartitionState("source", 3, Rules(), paths=paths)
        assert state.apply([LogRecord(0, 5_000, b"k", value, (("runstep-event-id", b"e1"),))]) == []
        assert state.counts == {"ignored": 1}
        assert (state.next_offset, state.stream_time, state.value_bytes) == (1, 5_000, len(value))


@pytest.mark.parametrize(
    "headers",
    [
        (("content-type", b"application/cloudevents+json"),),
        (("ce_specversion", b"1.0"), ("ce_type", b"thread.run.completed")),
    ],
)
def test_headers_of_an_envelope_come_before_the_first_bytes(headers: Headers) -> None:
    value = b'{"event":"thread.message.delta","data":{"torn'
    assert isinstance(decode(value, headers), Rejected)
    (effect,) = PartitionState("source", 3, Rules()).apply([LogRecord(0, 5_000, b"k", value, tuple(headers))])
    assert isinstance(effect, DeadLetter)


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (text({"event": "error", "data": {"error": {"code": "overloaded"}}}), {"code": "overloaded"}),
        (
            text({"event": "error", "data": {"code": "server_error", "message": "m"}}),
            {"code": "server_error", "message": "m"},
        ),
        (text({"event": "error", "data": {"error": "m"}}), {"message": "m"}),
        (text({"event": "error", "data": "m"}), {"message": "m"}),
        (text({"event": "error", "data": 7}), None),
        (b"event: error\ndata: not JSON\n\n", None),
    ],
)
def test_an_error_in_the_stream_is_read_for_what_it_says(value: bytes, error: object) -> None:
    assert decoded(value).events == (StreamError(error),)


@pytest.mark.parametrize("kind", ["mcp", "openapi"])
def test_a_delta_of_another_type_that_holds_tool_calls_is_one(kind: str) -> None:
    """The SDKs' models allow these types for a delta's details."""
    play = Play()
    play.created(type="tool_calls", step_details={"type": "tool_calls", "tool_calls": []})
    play.say("step.delta", delta(type=kind, tool_calls=[call(0, "a", id="c")]))
    done = play.completed()
    assert snapshot(done)["step_details"]["type"] == "tool_calls"
    assert snapshot(done)["step_details"]["tool_calls"][0]["function"]["arguments"] == "a"
    assert done.anomalies == ()
    play.created(step_id="s2", type="tool_calls")
    assert refused(play.say("step.delta", delta("s2", type=kind))) == "type_changed", "it holds no calls"


@pytest.mark.parametrize(("policy", "effects"), [("ignore", 0), ("dead-letter", 1)])
def test_unknown_events_are_ignored_or_set_aside(policy: str, effects: int) -> None:
    play = Play(Rules(unknown_events=policy))
    assert len(play.say("ping", {})) == effects
    assert play.state.counts["unknown_event"] == 1 - effects


@pytest.mark.parametrize(
    "kind", ["com.example.thread.run.step.completed", "vendor/thread.run.step.completed", "thread.run.step.completed"]
)
def test_the_type_of_a_cloud_event_counts_from_its_first_thread(kind: str) -> None:
    (event,) = decoded(text(CLOUD | {"type": kind, "data": STEP})).events
    assert isinstance(event, StepObject)
    assert event.kind is Kind.COMPLETED


@pytest.mark.parametrize("end", ["\n\n", ""], ids=["ended", "cut"])
@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b"event: thread.run.step.delta\ndata: {", Reason.NOT_JSON),
        (b'event: thread.run.step.delta\ndata: {"id":"step_1","delta":{"x":"\xc3', Reason.NOT_JSON),
        (b'data: {"error":{"message":"overloaded"}}', Reason.MALFORMED),
    ],
    ids=["torn", "torn-in-a-character", "error-without-a-name"],
)
def test_a_bad_frame_is_named_and_the_others_stand(bad: bytes, reason: Reason, end: str) -> None:
    """One record that holds a whole response whose last frame was cut: the finished steps before it are published."""
    play = Play()
    created = b"data: " + text({"event": "thread.run.step.created", "data": step()}) + b"\n\n"
    ended = b"data: " + text({"event": "thread.run.step.completed", "data": step(status="completed")}) + b"\n\n"
    effects = play.put(created + ended + bad + end.encode())
    letter = next(effect for effect in effects if isinstance(effect, DeadLetter))
    assert letter.reason is reason
    assert ("runstep-event-number", b"3/3") in letter.headers
    assert [effect.status for effect in effects if isinstance(effect, Publish)] == [Status.COMPLETED]
    assert play.state.open_steps == 0


def test_a_bad_event_of_a_batch_is_named_and_the_others_stand() -> None:
    play = Play()
    batch = [
        {"specversion": "1.0", "type": "thread.run.step.created", "source": "s", "id": "1", "data": step()},
        {"specversion": "1.0", "source": "s", "id": "2", "data": step()},
    ]
    effects = play.put(text(batch), headers=(("content-type", b"application/cloudevents-batch+json"),))
    (letter,) = (effect for effect in effects if isinstance(effect, DeadLetter))
    assert ("runstep-event-number", b"2/2") in letter.headers
    assert play.state.open_steps == 1


def test_where_no_event_can_be_read_the_record_is_refused_once() -> None:
    (letter,) = Play().put(b"data: {\n\ndata: [\n\n")
    assert isinstance(letter, DeadLetter)
    assert not [name for name, _ in letter.headers if name == "runstep-event-number"]


@pytest.mark.parametrize("begin", [
        "id: 1\r\n", "retry: 3000\r\n\r\n", "\r\n\r\n", ": open\n\nid:\n", "x: 1\n", "x\r", "\n" * 5000, " \t\n",
        "\ufeff\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n", ": " + "x" * 5000 + "\n",
    ],
)  # fmt: skip
def test_sse_may_begin_with_any_field(begin: str) -> None:
    """Servers put `id:` or `retry:` first, or an empty line; `publish` reads all of these, and so does the fold."""
    value = begin.encode() + b"event: thread.run.step.created\r\ndata: " + text(step()) + b"\r\n\r\n"
    found = decode(value)
    assert isinstance(found, Decoded)
    assert [type(event) for event in found.events] == [StepObject]


def test_the_name_may_stand_behind_the_data() -> None:
    """WHATWG HTML: an event has its name whatever the order of its fields. Only a line names an `error`."""
    error, whole = b'{"message":"out of memory"}', text(step())
    for value in (
        b"data: %b\nevent: error\n\n",
        b"data: %b\r\nid: 1\r\nevent: error",
        b"id: 1\rdata: %b\revent: error\r",
    ):
        assert decoded(value % error).events == (StreamError({"message": "out of memory"}),)
    without_blank_lines = b"data: %b\nevent: thread.run.step.completed\ndata: %b\n" % (whole, whole)
    first, second = decoded(without_blank_lines).events
    assert isinstance(first, StepObject)
    assert isinstance(second, StepObject)
    assert (first.kind, second.disagrees) == (Kind.STATED, True), "the name is of the data that follows it"


@pytest.mark.parametrize(
    "value", [b"hello", b"x: 1\ny: 2\n", b"<html>\n</html>", b"event", b'{"a":"\ndata: {}"}', b'"\ndata: {}"']
)
def test_what_has_no_line_of_an_event_is_no_stream(value: bytes) -> None:
    assert is_sse(value) == (value == b"event")


def test_a_frame_that_the_lifecycle_refuses_is_named_and_the_others_stand() -> None:
    play = Play()
    names = ("created", "completed", "failed")
    statuses = ("in_progress", "completed", "failed")
    frames = (
        b"data: " + text({"event": f"thread.run.step.{name}", "data": step(status)}) + b"\n\n"
        for name, status in zip(names, statuses, strict=True)
    )
    completed, refusal = play.put(b"".join(frames))
    assert completed.status.value == "completed"  # type: ignore[union-attr]
    assert refusal.detail.endswith("(event 3 of 3)")  # type: ignore[union-attr]
    assert dict(refusal.headers)["runstep-event-number"] == b"3/3"
    (again,) = play.put(b"{", headers=refusal.headers)
    assert "runstep-event-number" not in dict(again.headers), "of an earlier attempt"


# --- the fast path


@given(
    st.builds(
        lambda entries: calls(*entries),
        st.lists(
            st.builds(
                lambda index, kind, body, more: {"index": index, "type": kind} | body | more,
                st.sampled_from([0, 1, -1, 1024, 1 << 70]),
                st.sampled_from(["function", "code_interpreter", "mcp"]),
                st.sampled_from(
                    [
                        {},
                        {"function": {"arguments": "a"}},
                        {"function": {"name": None, "output": ""}},
                        {"function": {"x": 1}},
                        {"code_interpreter": {"input": "a"}},
                        {"function": None},
                        {"arguments": "a"},
                        {"arguments": None},
                        {"azure_function": {"arguments": "a"}},
                        {"connected_agent": {"arguments": "a", "name": "f"}},
                        {"fabric_dataagent": {"input": "a"}},
                        {"fabric_dataagent": {"input": None}},
                        {"code_interpreter": {"outputs": [{"index": 0, "type": "logs", "logs": "a"}]}},
                        {"code_interpreter": {"input": "a", "outputs": [{"index": 1.0}, {"index": -1, "logs": "b"}]}},
                        {"code_interpreter": {"outputs": [{"type": "logs"}]}},
                        {"code_interpreter": {"outputs": [{"index": 0, "logs": None}]}},
                        {"code_interpreter": {"outputs": None}},
                    ]
                ),
                st.sampled_from([{}, {"id": "c"}, {"id": None}, {"x": 1}]),
            ),
            max_size=3,
        ),
    )
)
def test_whatever_the_exact_shapes_accept_the_slow_path_reads_the_same(data: Any) -> None:
    value = text({"event": "thread.run.step.delta", "data": data})
    found = exact(value, prefix_of(value))
    (event,) = decoded(value).events
    if found is not None:
        assert isinstance(found, ExactData)
        assert event == StepDelta(found.id, msgspec.to_builtins(found.delta.step_details))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
STATED: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        "id": st.sampled_from(["s1", "", "x" * 257, 1, None]),
        "status": st.sampled_from([None, "in_progress", "completed", "failed", "cancelling", 3]),
        "run_id": st.sampled_from([None, "r1", []]),
        "type": st.sampled_from([None, "tool_calls", {}]),
        "step_details": st.sampled_from(
            [
                None,
                {},
                [],
                {"type": "tool_calls", "tool_calls": []},
                {"tool_calls": [1]},
                {"type": 1},
                {"tool_calls": {}},
            ]
        ),
        "expires_at": JSON,
        "metadata": JSON,
        "é": JSON,
    },
)


@given(
    st.sampled_from(["created", "in_progress", "completed", "expired", "queued", "de", ""]),
    STATED | JSON,
    st.sampled_from([{}, {}, {}, {"id": "e1"}, {"data": {"id": "s2"}}]),
    st.booleans(),
)
def test_whatever_is_taken_as_an_exact_object_the_slow_path_reads_the_same(
    tail: str, data: Any, more: dict[str, Any], escaped: bool
) -> None:
    value = json.dumps({"event": f"thread.run.step.{tail}", "data": data} | more, ensure_ascii=escaped).encode()
    found = exact(value, prefix_of(value))
    if found is not None:
        assert decode(value) == Decoded((whole(found),), (None,))


RUN: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        "id": st.sampled_from(["r1", "", "x" * 257, 1, None]),
        "status": st.sampled_from(["completed", "failed", "incomplete", "in_progress", "queued", "odd", None, 3]),
        "completed_at": st.sampled_from([7, "x", None]),
        "failed_at": st.sampled_from([7, 1.5]),
        "last_error": JSON,
        "tools": JSON,
    },
)


@given(
    st.sampled_from(
        ["completed", "failed", "incomplete", "queued", "in_progress", "odd", "step.odd", "step.created", ""]
    ),
    RUN | JSON,
    st.sampled_from(
        [{}, {}, {}, {"id": "e1"}, {"specversion": "1.0", "type": "t"}, {"event": 3}, {"data": {"id": "r2"}}]
    ),
    st.booleans(),
    st.sampled_from([b"", b"", b"", b"\xff", b"\\ud83d", b"["]),
)
def test_whatever_is_taken_as_an_event_of_a_run_the_slow_path_reads_the_same(
    tail: str, data: Any, more: dict[str, Any], escaped: bool, broken: bytes
) -> None:
    told = {"event": f"thread.run.{tail}", "data": data} | more
    for separators in ((",", ":"), (", ", ": ")):
        value = json.dumps(told, ensure_ascii=escaped, separators=separators).encode().replace(b"r1", b"r1" + broken)
        found = run_event(value)
        if found is not None:
            assert decode(value) == Decoded((found,), (None,))


def test_a_common_event_of_a_run_is_taken() -> None:
    """Else the property above would show nothing."""
    ended = text({"event": "thread.run.failed", "data": run("failed", failed_at=7, last_error={"code": "x"})})
    assert run_event(ended) == RunEnd("r1", "failed", 7, {"code": "x"})
    assert run_event(text({"event": "thread.run.queued", "data": run("queued")})) == Ignored("ignored")
    assert run_event(text({"event": "thread.created", "data": {}})) is None


@pytest.mark.parametrize("deep", [98, 99, 100, 101])
@pytest.mark.parametrize("broken", [b"", b"\xff", b"\xed\xa0\x80"])
def test_nothing_deep_or_broken_passes_as_exact(deep: int, broken: bytes) -> None:
    nested = b"[" * deep + b'"' + broken + b'"' + b"]" * deep
    value = b'{"event":"thread.run.step.created","data":{"id":"s1","x":' + nested + b"}}"
    found, told = exact(value, prefix_of(value)), decode(value)
    assert found is None or told == Decoded((whole(found),), (None,))


def test_a_common_object_is_taken_as_exact() -> None:
    """Else the properties above would show nothing."""
    value = text({"event": "thread.run.step.created", "data": step()})
    assert isinstance(exact(value, prefix_of(value)), StepObject)
    stated = step(type="tool_calls", step_details={"type": "tool_calls", "tool_calls": []})
    value = text({"event": "thread.run.step.created", "data": stated})
    assert isinstance(exact(value, prefix_of(value)), ExactObject)
    for name, status in (("created", "completed"), ("completed", "in_progress"), ("completed", "failed")):
        disagreeing = text({"event": f"thread.run.step.{name}", "data": stated | {"status": status}})
        assert not isinstance(exact(disagreeing, prefix_of(disagreeing)), ExactObject)


@settings(max_examples=examples(400))
@given(lives())
def test_whatever_of_a_usual_life_is_exact_the_slow_path_reads_the_same(records: list[LogRecord]) -> None:
    for record in records:
        assert record.value is not None
        found = exact(record.value, prefix_of(record.value))
        if found is not None:
            assert decode(record.value) == Decoded((whole(found),), (None,))
            if isinstance(found, ExactObject):
                assert canonical_step(found.stated) == canonical(whole(found).data)


def whole(found: ExactData | ExactObject | StepObject) -> Any:
    return found if isinstance(found, StepObject) else general(found)


@pytest.mark.parametrize("name", ["ce_id", "CE_ID", "Ce_Id", "cE_id"])
def test_the_fast_path_leaves_cloud_events_to_the_slow_path(name: str) -> None:
    """However the header is spelled: its id must be seen."""
    value = text({"event": "thread.run.step.delta", "data": calls(call(0, "a"))})
    play = Play()
    for _ in range(2):
        play.put(value, headers=[(name, b"e1")])
    assert play.state.counts["duplicate"] == 1
