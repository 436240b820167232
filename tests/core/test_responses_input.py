"""Responses events that are odd, wrong or not of this kind: stated answers, nothing lost, bounded memory."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from processor.core.effects import Checkpoint, DeadLetter, Effect, LogRecord, Publish
from processor.core.merge import MAX_INDEX
from processor.core.partition import PartitionState
from processor.core.responses.response import entry_key
from processor.core.rules import Rules
from tests.core.responses_log import RULES, SAMPLES, STARTED_MS, events_of, item_in, log_of, snapshot, text

KEY = "resp_1"


class Stream:
    """One partition; events of one response, numbered as they are said."""

    def __init__(self, rules: Rules = RULES) -> None:
        self.state = PartitionState("source", 3, rules)
        self.number = 0
        self.at_ms = STARTED_MS

    def put(self, value: bytes | None, key: bytes | None = KEY.encode(), headers: Any = ()) -> list[Effect]:
        record = LogRecord(self.state.next_offset, self.at_ms, key, value, tuple(headers))
        return [effect for effect in self.state.apply([record]) if not isinstance(effect, Checkpoint)]

    def say(self, kind: str, **fields: Any) -> list[Effect]:
        fields.setdefault("sequence_number", self.number)
        self.number += 1
        return self.put(text({"type": kind, **fields}))

    def created(self, **fields: Any) -> list[Effect]:
        return self.say("response.created", response={"id": KEY, "model": "m", **fields})

    def added(self, index: Any = 0, kind: str = "message", **fields: Any) -> list[Effect]:
        item = {"type": kind, "id": f"i{index}", **fields}
        return self.say("response.output_item.added", output_index=index, item=item)

    def delta(self, piece: Any, index: Any = 0, **fields: Any) -> list[Effect]:
        return self.say("response.output_text.delta", output_index=index, content_index=0, delta=piece, **fields)

    def done(self, index: Any = 0, kind: str = "message", **fields: Any) -> list[Effect]:
        item = {"type": kind, "id": f"i{index}", **fields}
        return self.say("response.output_item.done", output_index=index, item=item)

    def pass_s(self, seconds: float) -> list[Effect]:
        self.at_ms += int(seconds * 1000)
        return self.put(None)


def one(effects: list[Effect]) -> Publish:
    (effect,) = effects
    assert isinstance(effect, Publish), effect
    return effect


def reason(effects: list[Effect]) -> str:
    (effect,) = effects
    assert isinstance(effect, DeadLetter), effect
    return effect.reason.value


@pytest.mark.parametrize("index", [1024, -1, 1 << 31, "1024", "-1", "00", "", " 0", "٣", True, 0.5, 1e300, [0], {}])
@pytest.mark.parametrize("field", ["output_index", "content_index"])
def test_an_index_that_is_none_is_refused_and_changes_nothing(field: str, index: Any) -> None:
    stream = Stream()
    stream.created()
    stream.added()
    stream.delta("a")
    where = {"output_index": 0, "content_index": 0} | {field: index}
    assert reason(stream.say("response.output_text.delta", delta="b", **where)) == "bad_index"
    stream.number -= 1  # what could not be read has no number either
    (effect,) = stream.pass_s(200)
    assert isinstance(effect, Publish)
    assert item_in(snapshot(effect))["content"][0]["text"] == "a"


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"type": "response.output_text.delta", "delta": 7}, "malformed"),
        ({"type": "response.output_text.delta"}, "malformed"),
        ({"type": "response.output_item.added", "item": 7}, "malformed"),
        ({"type": "response.output_item.done", "item": [1]}, "malformed"),
        ({"type": "response.completed", "response": 7}, "malformed"),
        ({"type": "response.created", "response": []}, "malformed"),
        ({"type": "response.completed", "response": {"output": [7]}}, "malformed"),
        ({"type": "response.created", "sequence_number": -1, "response": {}}, "malformed"),
        ({"type": "response.created", "sequence_number": "1.0", "response": {}}, "malformed"),
        ({"type": "response.created", "sequence_number": 0.5, "response": {}}, "malformed"),
        ({"type": "response.created", "sequence_number": True, "response": {}}, "malformed"),
        ({"type": "response.created", "sequence_number": 1 << 60, "response": {}}, "malformed"),
        ({"sequence_number": 1, "delta": "without a type"}, "malformed"),
        ({"type": "order.placed", "sequence_number": 1}, "malformed"),
    ],
)
def test_what_cannot_be_read_is_set_aside(fields: dict[str, Any], why: str) -> None:
    stream = Stream()
    value = text({"output_index": 0, "content_index": 0} | fields)
    (effect,) = stream.put(value)
    assert isinstance(effect, DeadLetter)
    assert (effect.reason.value, effect.value, effect.key) == (why, value, KEY.encode())
    assert not stream.state.steps


@pytest.mark.parametrize("fields", [{"item": None}, {}])
def test_an_item_that_is_announced_empty_begins_nothing(fields: dict[str, Any]) -> None:
    """Its index stays unused: the next item has another."""
    stream = Stream()
    stream.created()
    assert stream.say("response.output_item.added", output_index=0, **fields) == []
    stream.added(1)
    effect = one(stream.done(1))
    assert (effect.step_id, effect.anomalies) == (f"{KEY}:1", ())
    item = {"type": "message", "id": "i1"}
    assert stream.say("response.completed", response={"id": KEY, "output": [item]}) == []


@pytest.mark.parametrize("name", ["output_text", "function_call_arguments", "shell_call_output_content"])
def test_a_text_that_is_not_said_changes_nothing(name: str) -> None:
    """A delta of null, and a `done` without its text."""
    stream = Stream()
    stream.created()
    stream.added()
    stream.say(f"response.{name}.done", output_index=0)
    if name != "shell_call_output_content":
        assert stream.say(f"response.{name}.delta", output_index=0, delta=None) == []
    effect = one(stream.done())
    assert effect.anomalies == ()


def test_an_index_of_a_part_that_is_not_said_is_the_first() -> None:
    stream = Stream()
    stream.created()
    stream.added()
    for piece in "abc":  # the first by the slow path, the others by the fast one
        stream.say("response.output_text.delta", output_index=0, delta=piece)
    effect = one(stream.pass_s(200))
    assert item_in(snapshot(effect))["content"] == [{"type": "output_text", "text": "abc"}]


def test_an_item_nested_too_deep_is_set_aside() -> None:
    stream, deep = Stream(), {}  # type: tuple[Stream, Any]
    for _ in range(120):
        deep = {"a": deep}
    assert reason(stream.added(action=deep)) == "too_deep"


def test_neither_key_nor_header_names_the_response() -> None:
    stream = Stream()
    value = text({"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "a"})
    assert reason(stream.put(value, key=None)) == "malformed"
    assert stream.put(value, key=None, headers=(("runstep-run-id", b"resp_9"),)) == []
    assert stream.state.entry_named("resp_9:0") is not None
    created = text({"type": "response.created", "response": {"id": "resp_8"}})
    assert stream.put(b"data: " + created + b"\n\ndata: " + value + b"\n\n", key=None) == []
    assert stream.state.entry_named("resp_8:0") is not None, "what the same record said before"


@pytest.mark.parametrize("where", ["key", "header", "event"])
def test_a_response_s_id_has_1024_characters_at_most(where: str) -> None:
    for length, is_taken in ((257, True), (1024, True), (1025, False)):
        name = "r" * length
        stream = Stream()
        created = {"type": "response.created", "response": {"id": name}}
        value = text(created if where == "event" else {"type": "response.in_progress", "response": {}})
        headers = (("runstep-run-id", name.encode()),) if where == "header" else ()
        effects = stream.put(value, key=name.encode() if where == "key" else None, headers=headers)
        assert reason(effects) == "malformed" if effects else is_taken
        assert (entry_key(name) in stream.state.steps) is is_taken


def test_text_on_an_item_that_never_began_is_kept_and_said() -> None:
    stream = Stream()
    stream.created()
    stream.delta("a", index=3)
    stream.delta("b", index=3)
    effect = one(stream.pass_s(200))
    assert effect.anomalies == ("joined_midstream",)
    assert item_in(snapshot(effect)) == {"type": "message", "content": [{"type": "output_text", "text": "ab"}]}
    assert snapshot(effect)["type"] == "message_creation"


def test_done_without_added_is_published_and_said() -> None:
    stream = Stream()
    stream.created()
    effect = one(stream.done(2, "brand_new", odd=[1]))
    assert effect.anomalies == ("joined_midstream",)
    assert snapshot(effect)["step_details"] == {
        "type": "brand_new",
        "brand_new": {"type": "brand_new", "id": "i2", "odd": [1]},
    }


def test_an_end_that_differs_from_the_text_is_an_anomaly_and_stands() -> None:
    stream = Stream()
    stream.created()
    stream.added(kind="function_call", arguments="")
    stream.say("response.function_call_arguments.delta", output_index=0, delta='{"a":1}')
    effect = one(stream.done(0, "function_call", arguments='{"a":2}'))
    assert effect.anomalies == ("fold_divergence",)
    assert item_in(snapshot(effect))["arguments"] == '{"a":2}'


@pytest.mark.parametrize("envelope", ["bare", "event", "sse", "cloud"])
def test_every_envelope_is_read(envelope: str) -> None:
    events = events_of(SAMPLES / "watering.jsonl")
    stream, found = Stream(), []  # type: tuple[Stream, list[Effect]]
    for event in events:
        name, value, headers = event["type"], text(event), ()  # type: tuple[str, bytes, Any]
        if envelope == "event":
            value = text({"event": name, "data": event})
        elif envelope == "sse":
            value = f"event: {name}\ndata: {json.dumps(event)}\n\n".encode()
        elif envelope == "cloud":
            headers = (("ce_specversion", b"1.0"), ("ce_type", f"com.example.{name}".encode()))
        found += stream.put(value, b"resp_watering", headers)
    expected = PartitionState("source", 3, RULES).apply(log_of(events))
    assert [e.value for e in found if isinstance(e, Publish)] == [e.value for e in expected if isinstance(e, Publish)]


@pytest.mark.parametrize(
    ("status", "item_status", "ends_as", "anomaly"),
    [
        ("completed", None, "completed", "orphaned_by_run"),
        ("completed", "failed", "failed", "orphaned_by_run"),
        ("incomplete", "incomplete", "expired", "orphaned_by_run"),
        ("incomplete", "completed", "completed", "orphaned_by_run"),
        ("failed", "in_progress", "failed", None),
        ("cancelled", None, "cancelled", None),
    ],
)
def test_the_end_of_a_response_closes_what_is_open(
    status: str, item_status: str | None, ends_as: str, anomaly: str | None
) -> None:
    stream = Stream()
    stream.created()
    stream.added()
    stream.delta("tex")
    item = {"type": "message", "id": "i0", "status": item_status, "content": [{"type": "output_text", "text": "text"}]}
    whole = {"id": KEY, "output": [item], "error": {"code": "server_error"} if status == "failed" else None}
    whole["incomplete_details"] = {"reason": "max_output_tokens"} if status == "incomplete" else None
    effect = one(stream.say(f"response.{status}", response=whole))
    step = snapshot(effect)
    assert (step["status"], item_in(step)) == (ends_as, item)
    assert "fold_divergence" in effect.anomalies
    assert (anomaly in effect.anomalies) is (anomaly is not None)
    assert step["last_error"] == ({"code": "server_error"} if status == "failed" else None)
    if item_status == "incomplete":
        assert step["incomplete_details"] == {"reason": "max_output_tokens"}
    assert stream.state.open_steps == 0


def test_incomplete_survives_into_a_step_that_is_done() -> None:
    stream = Stream()
    stream.created()
    stream.added()
    step = snapshot(one(stream.done(status="incomplete")))
    assert (step["status"], step["incomplete_details"], item_in(step)["status"]) == (
        "completed", {"reason": None}, "incomplete",
    )  # fmt: skip


def test_an_error_in_the_stream_ends_what_is_open_with_what_it_says() -> None:
    stream = Stream()
    stream.created()
    stream.added()
    effect = one(stream.say("error", error={"code": "rate_limit", "message": "slow down"}))
    assert (effect.status.value, effect.inferred) == ("failed", "run")
    assert snapshot(effect)["last_error"] == {"code": "rate_limit", "message": "slow down"}
    assert stream.say("response.failed", response={"id": KEY, "output": [], "error": {"code": "x"}}) == []


def test_images_audio_and_padding_are_never_stored() -> None:
    stream = Stream()
    stream.created()
    stream.added(kind="image_generation_call")
    big = "A" * 100_000
    stream.say("response.image_generation_call.partial_image", output_index=0, partial_image_b64=big)
    stream.say("response.audio.delta", delta=big)
    stream.say("response.audio.transcript.delta", delta="spoken")
    stream.say("response.rate_limits.updated", rate_limits=[])
    stream.say("response.brand.new", output_index=0, blob=big)
    stream.delta("t", index=1, obfuscation=big)
    kept = [e for e in stream.state.checkpoint(1 << 40) if isinstance(e, Checkpoint)]
    assert sum(len(e.value or b"") for e in kept) < 2_000
    assert stream.state.counts["ignored"] == 4
    assert stream.state.counts["unknown_event"] == 1
    assert not stream.state.counts["sequence_gap"]


def test_what_a_response_holds_is_bounded() -> None:
    stream = Stream(msgspec.structs.replace(RULES, max_step_bytes=1_000))
    stream.created()
    stream.added()
    assert stream.delta("x" * 600) == []
    assert reason(stream.delta("x" * 600)) == "step_too_large"
    assert reason(stream.delta("x")) == "step_too_large", "it is refused from then on"
    effect = one(stream.done())
    assert effect.anomalies == ("fold_divergence", "step_too_large")


def test_repeats_and_holes_need_no_memory_for_each() -> None:
    stream = Stream()
    stream.created()
    for _ in range(3_000):
        stream.number += 1
        stream.say("response.in_progress", response={})
    entry = stream.state.steps["\0" + KEY]
    assert len(entry.peek().pack()) < 2_000
    assert stream.state.counts["sequence_gap"] == 3_000
    stream.number = 3
    stream.say("response.in_progress", response={})
    assert stream.state.counts["duplicate"] + stream.state.counts["late"] <= 1


def test_a_response_that_is_not_ended_is_forgotten_when_nothing_can_be_open() -> None:
    stream = Stream()
    stream.created()
    stream.added()
    one(stream.done())
    assert stream.state.next_due_ms() is None, "no clock mark is set for it"
    stream.pass_s(104)
    assert stream.state.open_steps == 1
    stream.pass_s(2)
    assert stream.state.open_steps == 0
    assert not stream.state.steps
    assert stream.state.counts["response_unended"] == 1


def test_a_numbered_event_of_another_kind_leaves_no_hole() -> None:
    stream = Stream()
    stream.created()
    assert stream.say("keepalive") == []
    stream.added()
    assert one(stream.done()).anomalies == ()


def test_a_response_is_refused_whole_where_too_many_steps_are_open() -> None:
    stream = Stream(msgspec.structs.replace(RULES, max_open_steps=1))
    assert stream.put(text({"type": "response.created", "response": {}}), b"resp_0") == []
    assert reason(stream.created()) == "too_many_open_steps"
    assert reason(stream.added()) == "too_many_open_steps"


def test_the_mapping_of_a_response_s_own_fields() -> None:
    stream = Stream()
    agent = {"type": "agent_id", "name": "gardener", "version": "3"}
    stream.created(agent=agent, conversation={"id": "conv_1"}, metadata={"bed": "north"})
    stream.added(kind="mcp_list_tools", tools=[])
    step = snapshot(one(stream.done(0, "mcp_list_tools", tools=[])))
    assert (step["id"], step["run_id"], step["thread_id"]) == ("resp_1:0", "resp_1", "conv_1")
    assert (step["assistant_id"], step["metadata"]) == ("gardener:3", {"bed": "north"})
    assert (step["type"], step["object"]) == ("activities", "thread.run.step")
    assert (step["created_at"], step["completed_at"]) == (STARTED_MS // 1000, STARTED_MS // 1000)
    assert step["inferred_times"] == ["completed_at", "created_at"]


def test_texts_and_items_of_more_than_64_kb_are_folded_as_others() -> None:
    stream, piece = Stream(), "\u00e9x" * 40_000
    stream.created()
    stream.added()
    for _ in range(4):  # the first two are decoded, the others matched
        assert stream.delta(piece) == []
    whole: dict[str, Any] = {"content": [{"type": "output_text", "text": piece * 4, "blob": "z" * 100_000}]}
    effect = one(stream.done(**whole))
    assert (effect.anomalies, item_in(snapshot(effect))) == ((), {"type": "message", "id": "i0", **whole})


@pytest.mark.parametrize("own", ["", "same", None])
@pytest.mark.parametrize("begun", [0, 1, 2])
def test_an_id_that_is_empty_or_of_several_items_tells_none_of_them_when_the_response_ends(
    own: str | None, begun: int
) -> None:
    """A gateway that leaves ids empty, and `output_item.done` out: each item is the one at its place."""
    stream = Stream()
    stream.created()
    told = [{"type": "function_call", "id": own, "name": f"f{n}", "arguments": f"a{n}"} for n in range(2)]
    for index in range(begun):
        stream.say("response.output_item.added", output_index=index, item=told[index] | {"arguments": ""})
        stream.say("response.function_call_arguments.delta", output_index=index, delta=f"a{index}")
    effects = stream.say("response.completed", response={"id": KEY, "output": told})
    assert [item_in(snapshot(effect)) for effect in effects if isinstance(effect, Publish)] == told
    assert all(effect.status.value == "completed" for effect in effects if isinstance(effect, Publish))


@pytest.mark.parametrize("lacking", [False, True])
def test_an_output_of_another_type_at_the_place_of_an_item_that_is_done_begins_none(lacking: bool) -> None:
    """Ids and order may both be others at the end."""
    stream = Stream()
    stream.created()
    stream.added()
    stream.done()
    stream.number += lacking
    assert stream.say("response.completed", response={"id": KEY, "output": [{"id": "x", "type": "reasoning"}]}) == []


@pytest.mark.parametrize("expired", [False, True])
@pytest.mark.parametrize("lacking", [False, True])
@pytest.mark.parametrize("kind", ["message", "reasoning", None])
def test_an_item_is_not_closed_with_what_is_of_another_type_at_its_place(
    kind: str | None, lacking: bool, expired: bool
) -> None:
    """The end lacks it, and what stands in its place has an id of its own."""
    stream = Stream()
    stream.created()
    stream.added()
    stream.delta("text")
    output = {"id": "other"} | ({"type": kind} if kind else {})
    stream.number += lacking
    found = {e.step_id: item_in(snapshot(e)) for e in (stream.pass_s(110) if expired else []) if isinstance(e, Publish)}
    effects = stream.say("response.completed", response={"id": KEY, "output": [output]})
    found |= {e.step_id: item_in(snapshot(e)) for e in effects if isinstance(e, Publish)}
    if kind == "reasoning":
        assert found.pop(f"{KEY}:0")["content"] == [{"type": "output_text", "text": "text"}]
        assert found == ({f"{KEY}:1": output} if lacking else {}), "it may be one whose events are missing"
    else:
        assert found == {f"{KEY}:0": output}, "a gateway gives items other ids at the end"


def test_outputs_of_another_type_than_the_items_at_their_places_are_items_of_their_own() -> None:
    """Each gets an index that no other output has, or may have."""
    stream = Stream()
    stream.created()
    stream.added()
    stream.added(1)
    stream.number += 1
    outputs = [{"id": f"x{at}", "type": "reasoning"} for at in range(2)] + [{"id": "x2", "type": "compaction"}]
    effects = stream.say("response.completed", response={"id": KEY, "output": outputs})
    found = {e.step_id: item_in(snapshot(e)) for e in effects if isinstance(e, Publish)}
    assert {found.pop(f"{KEY}:{at}")["type"] for at in range(2)} == {"message"}
    assert found == {f"{KEY}:3": outputs[0], f"{KEY}:4": outputs[1], f"{KEY}:2": outputs[2]}


def test_no_output_gets_an_index_that_no_event_may_have() -> None:
    stream = Stream()
    stream.created()
    stream.added(MAX_INDEX - 1)
    stream.number += 1
    outputs = [{"id": f"x{at}", "type": "reasoning"} for at in range(MAX_INDEX)]
    effects = stream.say("response.completed", response={"id": KEY, "output": outputs})
    assert len(effects) == MAX_INDEX
    assert f"{KEY}:{MAX_INDEX}" not in {e.step_id for e in effects if isinstance(e, Publish)}
