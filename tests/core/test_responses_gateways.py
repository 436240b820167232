"""Streams of gateways that number or place their events wrongly: no step lost, none twice, nothing called odd."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from processor.core.effects import DeadLetter, LogRecord, Publish
from processor.core.merge import MAX_INDEX, pack, unpack
from processor.core.partition import PartitionState
from processor.core.responses.event import PART, PIECES, ResponseEvent
from processor.core.responses.repeats import may_be_repeat
from processor.core.responses.response import Response, entry_key
from processor.core.rules import Rules
from processor.core.run_steps.fast_path import Paths
from processor.publish.event_keying import EventKeyer
from processor.publish.event_stream import EventStream
from processor.publish.outgoing import Outgoing
from tests.core.gateways import Event, faulty
from tests.core.responses_log import item_in, snapshot
from tests.core.test_restart import Topics, uninterrupted
from tests.core.wellformed_responses import Stream
from tests.examples import examples

RULES = Rules()
NOW_MS = 1_800_000_000_000
MANY = settings(max_examples=examples(80), deadline=None, suppress_health_check=list(HealthCheck))


def sent(*inputs: Sequence[Event], keyer: EventKeyer | None = None) -> list[Outgoing]:
    """What `publish` sends of some streams, one after the other in one process."""
    keyer, out = keyer or EventKeyer(), list[Outgoing]()
    for events in inputs:
        stream = EventStream(keyer)
        text = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)
        out += [*stream.feed(text), *stream.finish()]
    assert keyer.refusals == []
    return out


def log_of(records: Sequence[Outgoing]) -> list[LogRecord]:
    return [LogRecord(at, NOW_MS, one.key, one.value, one.headers) for at, one in enumerate(records)]


def folded(log: Sequence[LogRecord], paths: Paths = Paths.FAST) -> list[Publish]:
    effects = PartitionState("t", 0, RULES, paths=paths).apply(log)
    assert [effect for effect in effects if isinstance(effect, DeadLetter)] == []
    return [effect for effect in effects if isinstance(effect, Publish)]


def told(steps: Sequence[Publish]) -> dict[tuple[str, int], bytes]:
    found = {(step.step_id, step.revision): step.value for step in steps}
    assert len(found) == len(steps), "nothing twice"
    return found


def in_order(stream: Stream) -> list[Any]:
    """The items as they are done, in the order in which they began."""
    return [stream.items[event["output_index"]].done for event in stream.events if is_added(event)]


def is_added(event: Event) -> bool:
    return event["type"] == "response.output_item.added" and event["item"] is not None


def by_begin(steps: Sequence[Publish], indexes: Sequence[int]) -> list[Any]:
    found = {int(step.step_id.rpartition(":")[2]): item_in(snapshot(step)) for step in steps}
    assert sorted(found) == sorted(indexes)
    return [found[index] for index in indexes]


@MANY
@given(faulty())
def test_each_step_is_the_item_that_was_done(case: tuple[Stream, list[Event]]) -> None:
    stream, events = case
    steps = folded(log_of(sent(events)), Paths.BOTH)
    said = [event["output_index"] for event in stream.events if is_added(event)]
    kept = [event.get("output_index") for event in events if is_added(event)]
    indexes = said if [int(index) for index in kept if index is not None] == said else list(range(len(said)))
    assert by_begin(steps, indexes) == in_order(stream)
    assert {(step.anomalies, step.status.value, step.revision) for step in steps} <= {((), "completed", 0)}


@MANY
@given(faulty(), st.data())
def test_a_stream_that_is_sent_again_adds_nothing(case: tuple[Stream, list[Event]], data: st.DataObject) -> None:
    _, events = case
    expected = told(folded(log_of(sent(events))))
    # A part that does not name its response has a key of its own.
    cut = events[: data.draw(st.integers(0, len(events)))] if "response" in events[0] else events
    apart, together = sent(cut) + sent(events), sent(cut, events)
    for records in (apart, together):
        assert told(folded(log_of(records))) == expected


@MANY
@given(faulty(), st.data())
def test_a_restart_anywhere_gives_the_same(case: tuple[Stream, list[Event]], data: st.DataObject) -> None:
    log = log_of(sent(case[1], case[1]) + sent(case[1]))
    topics = Topics(0)
    for at in sorted(data.draw(st.lists(st.integers(0, len(log)), max_size=4))):
        state = topics.restore(RULES)
        effects = state.apply(log[sum(record.offset < state.next_offset for record in log) : at])
        if data.draw(st.booleans()) and state.is_live:
            effects += state.checkpoint(1 << 60)
        if state.is_live:
            topics.commit(state, effects)
    state = topics.restore(RULES)
    topics.commit(state, state.apply(log[state.next_offset :]))
    assert topics.outcomes == uninterrupted(log, {}, RULES)[0]


@MANY
@given(faulty("resp_1"), faulty("resp_2"), st.data())
def test_two_responses_in_turns_give_the_same(
    one: tuple[Stream, list[Event]], other: tuple[Stream, list[Event]], data: st.DataObject
) -> None:
    rest, mixed = [sent(one[1]), sent(other[1])], list[Outgoing]()
    expected = told(folded(log_of(rest[0]))) | told(folded(log_of(rest[1])))
    while any(rest):
        held = rest[data.draw(st.integers(0, 1))] or rest[0] or rest[1]
        mixed.append(held.pop(0))
    assert told(folded(log_of(mixed))) == expected


# --- faults one by one ------------------------------------------------------------------------------------------------

MESSAGE: dict[str, Any] = {"type": "message", "id": "m", "content": [{"type": "output_text", "text": "ababc"}]}
CALL: dict[str, Any] = {"type": "function_call", "id": "f", "name": "n", "call_id": "c", "arguments": "{}"}


def plain() -> list[Event]:
    """A message and a call, as they should come."""
    text = {"item_id": "m", "output_index": 0, "content_index": 0}
    call = {"item_id": "f", "output_index": 1}
    response = {"id": "resp_1", "model": "m", "created_at": 1, "output": []}
    events: list[Event] = [
        {"type": "response.created", "response": response},
        {"type": "response.in_progress", "response": response},
        {"type": "response.output_item.added", "output_index": 0, "item": MESSAGE | {"content": []}},
        {"type": "response.content_part.added", **text, "part": {"type": "output_text", "text": ""}},
        *({"type": "response.output_text.delta", **text, "delta": piece} for piece in ("ab", "ab", "c")),
        {"type": "response.output_text.done", **text, "text": "ababc"},
        {"type": "response.content_part.done", **text, "part": MESSAGE["content"][0]},
        {"type": "response.output_item.done", "output_index": 0, "item": MESSAGE},
        {"type": "response.output_item.added", "output_index": 1, "item": CALL | {"arguments": ""}},
        *({"type": "response.function_call_arguments.delta", **call, "delta": piece} for piece in "{}"),
        {"type": "response.function_call_arguments.done", **call, "arguments": "{}"},
        {"type": "response.output_item.done", "output_index": 1, "item": CALL},
        {"type": "response.completed", "response": response | {"output": [MESSAGE, CALL]}},
    ]
    return [event | {"sequence_number": number} for number, event in enumerate(events)]


def changed(*which: int, **fields: Any) -> list[Event]:
    """The events, some of them with other fields; one that is None is left out."""
    events = plain()
    for at in which:
        events[at] = {name: value for name, value in (events[at] | fields).items() if value != "left out"}
    return events


def without(*which: int) -> list[Event]:
    kept = [event for at, event in enumerate(plain()) if at not in which]
    return [event | {"sequence_number": number} for number, event in enumerate(kept)]


TEXTS = (3, 4, 5, 6, 7, 8)
FAULTS: dict[str, list[Event]] = {
    "done: item null, its fold stands": changed(9, item=None, item_id="m"),
    "done: no item": changed(9, item="left out"),
    "done: an empty item": changed(9, item={}),
    "text done: null": changed(7, text=None),
    "part: null": changed(3, 8, part=None),
    "part: left out": changed(3, 8, part="left out"),
    "lifecycle: response null": changed(1, response=None),
    "lifecycle: no response": changed(1, response="left out"),
    "completed: no output": changed(15, response={"id": "resp_1", "output": []}),
    "completed: nothing": changed(15, response={"id": "resp_1"}),
    "completed: without a number": changed(15, sequence_number="left out"),
    "completed: an old number": changed(15, sequence_number=1),
    "response.done in its place": changed(15, type="response.done", response={"id": "resp_1", "status": "completed"}),
    "a last event of no known status": [*plain(), {"type": "response.done", "response": {"status": "odd"}}],
    "content parts by another name": changed(3, 8, type="response.reasoning_part.added"),
    "ids empty": changed(*range(2, 10), item_id=""),
    "ids null": changed(*range(2, 10), item_id=None),
    "another id in done": changed(9, item=MESSAGE | {"id": "other"}),
    "created twice": [plain()[0], *plain()],
    "no created": changed(0, type="response.in_progress"),
    "usage null, times with fractions": changed(0, 1, 15, response={
        "id": "resp_1", "created_at": 1.5, "completed_at": 2.5, "usage": None, "output": [MESSAGE, CALL]}),
    "a ping": [*plain()[:5], {"type": "ping"}, {"type": "response.ping"}, *plain()[5:]],
    "a guessed event that is of another item": [
        *plain()[:5], {"type": "response.reasoning.delta", "output_index": 0, "delta": "hm"}, *plain()[5:]],
    "a guessed event of another shape": [
        *plain()[:5], {"type": "response.reasoning_summary.delta", "output_index": 0, "delta": {}}, *plain()[5:]],
    "an index for each piece of a text": [
        event | {"content_index": max(0, at - 4)} if at in (4, 5, 6, 7) else event for at, event in enumerate(plain())],
    "an index for each piece, none for what is done": [
        event | {"content_index": at - 4} if at in (4, 5, 6) else event for at, event in enumerate(without(7, 8))],
    "no index in texts": changed(*TEXTS, output_index=None),
    "no index in texts, and ids that rotate": [
        event | {"output_index": None, "item_id": f"x{at}"} if at in TEXTS else event
        for at, event in enumerate(plain())],
    "counted on before it was done": changed(7, 8, 9, output_index=1),
    "no number on texts": changed(*TEXTS, sequence_number="left out"),
    "no number on the calls": changed(10, 11, 12, 13, 14, sequence_number="left out"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_a_gateway_changes_no_step_and_is_no_anomaly(fault: str) -> None:
    events = FAULTS[fault]
    steps = folded(log_of(sent(events)), Paths.BOTH)
    done = MESSAGE | ({"id": "other"} if fault == "another id in done" else {})
    assert by_begin(steps, [0, 1]) == [done, CALL]
    assert {(step.anomalies, step.status.value, step.revision) for step in steps} == {((), "completed", 0)}


def test_guessed_events_of_reasoning_are_folded() -> None:
    item = {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "so"}],
            "content": [{"type": "reasoning_text", "text": "hm, so"}]}  # fmt: skip
    where = {"item_id": "r", "output_index": 0}
    events: list[Event] = [
        {"type": "response.created", "response": {"id": "resp_1"}},
        {"type": "response.output_item.added", "output_index": 0, "item": {"type": "reasoning", "id": "r"}},
        {"type": "response.reasoning_part.added", **where, "content_index": 0, "part": {"type": "reasoning_text"}},
        *({"type": "response.reasoning.delta", **where, "delta": piece} for piece in ("hm, ", "so")),
        {"type": "response.reasoning.done", **where, "text": "hm, so"},
        {"type": "response.reasoning_summary.delta", **where, "delta": "so"},
        {"type": "response.reasoning_summary.done", **where, "text": "so"},
    ]
    log = [*log_of(sent(events)), LogRecord(99, NOW_MS + 100_000_000, None, None, ())]
    (step,) = folded(log, Paths.BOTH)
    assert (item_in(snapshot(step)), step.anomalies) == (item, ())


@pytest.mark.parametrize("kind", ["error", "response.error"])
@pytest.mark.parametrize("number", [None, 1, 7])
def test_an_error_ends_what_is_open_whatever_its_number(kind: str, number: int | None) -> None:
    error = {"type": kind, "error": {"message": "boom"}} | ({} if number is None else {"sequence_number": number})
    (step,) = folded(log_of(sent([*plain()[:7], error])), Paths.BOTH)
    assert step.status.value == "failed"
    assert snapshot(step)["last_error"] == {"message": "boom"}


def test_a_text_that_nothing_places_is_refused() -> None:
    """Two calls are open, and it says neither index nor id."""
    events = plain()[:2]
    for index in (0, 1):
        added = {"type": "response.output_item.added", "output_index": index, "item": CALL | {"id": f"f{index}"}}
        events.append(added | {"sequence_number": 2 + index})
    events.append({"type": "response.function_call_arguments.delta", "delta": "{", "sequence_number": 4})
    effects = PartitionState("t", 0, RULES, paths=Paths.BOTH).apply(log_of(sent(events)))
    (letter,) = [effect for effect in effects if isinstance(effect, DeadLetter)]
    assert letter.reason.value == "bad_index"
    assert letter.detail == "output_index: not said, and nothing else names the item"


def test_what_says_no_index_is_of_the_only_open_item_of_its_kind() -> None:
    events = plain()[:3]
    events.append({"type": "response.output_item.added", "output_index": 1, "item": CALL | {"arguments": ""}})
    events.append({"type": "response.function_call_arguments.delta", "delta": "{}"})
    events.append({"type": "response.output_text.delta", "delta": "ababc"})
    events.append({"type": "response.output_text.done", "text": "ababc"})
    events.append({"type": "response.output_item.done", "item": CALL | {"id": None}})
    events.append({"type": "response.output_item.done", "item": MESSAGE | {"id": None}})
    events.append({"type": "response.output_text.done", "text": "behind the end"})
    steps = folded(log_of(sent(events)), Paths.BOTH)
    assert by_begin(steps, [1, 0]) == [CALL | {"id": None}, MESSAGE | {"id": None}]
    assert {(step.anomalies, step.revision) for step in steps} == {((), 0)}


def test_deltas_alone_begin_an_item() -> None:
    """As from gateways that send texts and the end only."""
    events: list[Event] = [plain()[0], *({"type": "response.output_text.delta", "delta": piece} for piece in "abc")]
    events.append({"type": "response.completed", "response": {"id": "resp_1", "output": []}})
    (step,) = folded(log_of(sent(events)), Paths.BOTH)
    assert step.step_id == "resp_1:0"
    assert item_in(snapshot(step))["content"] == [{"type": "output_text", "text": "abc"}]


@pytest.mark.parametrize("numbered", [True, False])
def test_items_of_one_index_are_told_apart(numbered: bool) -> None:
    """Also where their events take turns, and where an item has the index at which one of them was put."""
    items = [CALL | {"id": f"f{n}", "arguments": str(n) * 3} for n in range(4)]
    saying = [0, 0, 1, 0]
    events: list[Event] = [{"type": "response.created", "response": {"id": "resp_1"}}]
    for index, item in zip(saying, items, strict=True):
        events.append({"type": "response.output_item.added", "output_index": index, "item": item | {"arguments": ""}})
    for _ in range(3):
        for n, (index, item) in enumerate(zip(saying, items, strict=True)):
            where = {"output_index": index, "item_id": item["id"]}
            events.append({"type": "response.function_call_arguments.delta", **where, "delta": str(n)})
    for index, item in reversed(list(zip(saying, items, strict=True))):
        events.append({"type": "response.output_item.done", "output_index": index, "item": item})
    events.append({"type": "response.completed", "response": {"id": "resp_1", "output": items}})
    if numbered:
        events = [event | {"sequence_number": number} for number, event in enumerate(events)]
    steps = folded(log_of(sent(events)), Paths.BOTH)
    assert by_begin(steps, [0, 1, 2, 3]) == items
    assert {(step.anomalies, step.revision) for step in steps} == {((), 0)}
    assert told(folded(log_of(sent(events) + sent(events)))) == told(steps)


def test_an_item_without_an_id_that_begins_behind_the_end_of_another_is_a_new_one() -> None:
    first, second = MESSAGE | {"id": None}, CALL | {"id": None}
    events: list[Event] = [{"type": "response.created", "response": {"id": "resp_1"}}]
    for item in (first, second):
        events.append({"type": "response.output_item.added", "output_index": 0, "item": {"type": item["type"]}})
        events.append({"type": "response.output_item.done", "output_index": 0, "item": item})
    events = [event | {"sequence_number": number} for number, event in enumerate(events)]
    steps = folded(log_of(sent(events) + sent(events)), Paths.BOTH)
    assert by_begin(steps, [0, 1]) == [first, second]


def test_a_number_that_came_before_is_a_repeat_where_its_event_may_have_had_it() -> None:
    """Whatever ids the second reading has: an item that rotates is the same."""
    events = plain()
    again = [json.loads(json.dumps(event).replace('"m"', '"m2"').replace('"f"', '"f2"')) for event in events]
    for at in range(len(events) + 1):
        log = log_of(sent(events[:at]) + sent(again[:at]) + sent(events[at:]))
        log = [LogRecord(n, one.timestamp, one.key, one.value, ()) for n, one in enumerate(log)]  # no ids of events
        steps = folded(log, Paths.BOTH)
        assert by_begin(steps, [0, 1]) == [MESSAGE, CALL]
        assert {(step.anomalies, step.revision) for step in steps} == {((), 0)}


def test_as_many_numbers_may_be_missing_as_events_have_none() -> None:
    """One more is a gap."""
    events = plain()
    del events[5]["sequence_number"]
    assert {step.anomalies for step in folded(log_of(sent(events)))} == {()}
    del events[6]
    for gap in (events, plain()[:6] + plain()[7:]):
        assert [step.anomalies for step in folded(log_of(sent(gap)))] == [("fold_divergence", "sequence_gap"), ()]


def test_where_the_numbers_say_nothing_a_text_that_the_end_completes_is_no_difference() -> None:
    events = [event | {"sequence_number": 0} for event in plain() if event["type"] != "response.output_item.done"]
    del events[6:9]  # the rest of the text
    steps = folded(log_of(sent(events)), Paths.BOTH)
    assert by_begin(steps, [0, 1]) == [MESSAGE, CALL]
    assert {step.anomalies for step in steps} == {("orphaned_by_run",)}


def test_no_more_items_are_told_apart_than_an_index_may_be() -> None:
    state = PartitionState("t", 0, RULES)
    events: list[Event] = [{"type": "response.created", "response": {"id": "resp_1"}}]
    for n in range(MAX_INDEX + 2):
        item = {"type": "program", "id": f"i{n}"}
        events.append({"type": "response.output_item.done", "item": item})
    effects = state.apply(log_of(sent(events)))
    assert [effect.reason.value for effect in effects if isinstance(effect, DeadLetter)] == ["bad_index"] * 2
    assert sum(isinstance(effect, Publish) for effect in effects) == MAX_INDEX


def test_a_checkpoint_of_an_older_version_is_read() -> None:
    """What it does not say makes no event another one: a number that came before is a repeat."""
    events = plain()
    state = PartitionState("t", 0, RULES)
    state.apply(log_of(sent(events[:6])))
    response = state.steps[entry_key("resp_1")].peek()
    assert isinstance(response, Response)
    body = unpack(response.pack()[1:])
    body[6], body[11] = body[6][:4], [packed[:21] for packed in body[11]]
    found = Response.unpack(b"R" + pack(body))
    assert (found.last, found.items[0].begun, found.items[0].said) == ((-1, "", -1), -1, 0)
    assert found.numbers.next == 6
    again = ResponseEvent(PART, 3, index=0, holder="content", value={})
    assert may_be_repeat(found, again, 3, is_index_said=True)
    assert may_be_repeat(found, ResponseEvent(PIECES, 5, index=0), 5, is_index_said=True)
