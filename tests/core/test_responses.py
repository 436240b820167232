"""Responses streams: each published step is the item that is done, however the stream is cut, sent again or mixed.

The oracles here share no code with the fold: what is done is read from the recording, and text is joined by hand.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openai import Omit
from openai._models import construct_type_unchecked
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import ResponseStreamEvent

from processor.core.effects import DeadLetter, Effect, LogRecord, Publish
from processor.core.partition import PartitionState
from processor.core.rules import Rules
from processor.simulate import Parameters, Simulation
from processor.simulate.expected import compare
from tests.core.responses_log import (
    STARTED_MS,
    events_of,
    item_in,
    key_of,
    log_of,
    play,
    published,
    record_of,
    recordings,
    renumbered,
    snapshot,
    streams,
)
from tests.core.test_simulation import Written, records_of
from tests.examples import examples

STREAM_EVENT: Any = ResponseStreamEvent
Events = list[dict[str, Any]]
STREAMS = streams()
SLOW = settings(max_examples=examples(40), deadline=None, suppress_health_check=list(HealthCheck))


def done_in(events: Events) -> dict[int, Any]:
    return {event["output_index"]: event["item"] for event in events if event["type"] == "response.output_item.done"}


def joined(events: Events) -> dict[tuple[int, str, int], str]:
    """Text by item, event and index, joined from the deltas."""
    found: dict[tuple[int, str, int], str] = defaultdict(str)
    for event in events:
        stem, _, last = event["type"].rpartition(".")
        if last == "delta" and isinstance(event["delta"], str):
            at = next((event[n] for n in ("content_index", "summary_index", "command_index") if n in event), 0)
            found[event["output_index"], stem, at] += event["delta"]
    return found


def contradicts(events: Events) -> set[int]:
    """Items whose deltas do not come to the text that is said to be done."""
    pieces, found = joined(events), set()
    for event in events:
        stem, _, last = event["type"].rpartition(".")
        at = next((event[n] for n in ("content_index", "summary_index", "command_index") if n in event), 0)
        key = event.get("output_index", -1), stem, at
        whole = event.get(next((n for n in ("text", "refusal", "arguments", "input", "code") if n in event), ""))
        if last == "done" and key in pieces and isinstance(whole, str) and pieces[key] != whole:
            found.add(event["output_index"])
    return found


def values(effects: Any) -> dict[str, bytes]:
    return {name: effect.value for name, effect in published(effects).items()}


@pytest.mark.parametrize("path", recordings())
def test_a_published_step_is_the_item_that_is_done(path: Path) -> None:
    events = events_of(path)
    effects, state = play(log_of(events))
    steps = published(effects)
    assert sorted(steps) == sorted(f"{key_of(events)}:{index}" for index in done_in(events))
    for index, item in done_in(events).items():
        effect = steps[f"{key_of(events)}:{index}"]
        assert item_in(snapshot(effect)) == item
        assert effect.anomalies == (("fold_divergence",) if index in contradicts(events) else ())
        assert effect.revision == 0
    assert state.open_steps == (0 if key_of(events) != "resp_unnamed" else 1), "a response that is not ended counts"
    for count in ("sequence_gap", "unknown_event", "duplicate", "late"):
        assert not state.counts[count]


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
@pytest.mark.parametrize("path", recordings())
def test_the_sdk_accumulates_the_same(path: Path) -> None:
    """openai's own stream helper: what it holds of each item when the stream is over."""
    events = events_of(path)
    state = ResponseStreamState(input_tools=Omit(), text_format=Omit())
    if events[0]["type"] != "response.created":
        return  # the SDK reads no stream that does not begin with it
    if len({event["response"]["id"] for event in events if "response" in event}) > 1:
        return  # the SDK refuses a stream whose ids rotate
    for event in events:
        if event["type"].startswith("response."):
            state.handle_event(construct_type_unchecked(value=event, type_=STREAM_EVENT))
    theirs = {f"{key_of(events)}:{index}": item.to_dict() for index, item in state._completed_output.items()}
    steps = published(play(log_of(events))[0])
    ours = {name: item_in(snapshot(effect)) for name, effect in steps.items()}
    assert ours == theirs


@SLOW
@given(st.sampled_from(STREAMS), st.data())
def test_a_cut_stream_that_goes_on_gives_the_same_bytes(events: Events, data: st.DataObject) -> None:
    """Cut anywhere, resumed right behind the cut, before it, or sent again whole; more than once."""
    records, key = log_of(events), key_of(events)
    whole = values(play(records)[0])
    told: list[LogRecord] = []
    at = 0
    while at < len(records):
        cut = data.draw(st.integers(min(at + 1 + len(records) // 4, len(records)), len(records)))
        told += records[data.draw(st.sampled_from([at, max(0, at - 3), 0])) : cut]
        at = cut
    effects, _ = play(renumbered(told))
    assert values(effects) == whole, key
    assert [e.revision for e in effects if isinstance(e, Publish)] == [0] * len(whole)


@SLOW
@given(st.tuples(st.sampled_from(STREAMS), st.sampled_from(STREAMS)), st.data())
def test_interleaved_responses_are_told_apart(events: tuple[Events, Events], data: st.DataObject) -> None:
    one, other = events
    if key_of(one) == key_of(other):
        return
    mixed: list[LogRecord] = []
    rest = [log_of(one), log_of(other)]
    expected = {**values(play(rest[0])[0]), **values(play(rest[1])[0])}
    while any(rest):
        held = rest[data.draw(st.integers(0, 1))] or rest[0] or rest[1]
        for _ in range(min(len(held), data.draw(st.integers(1, 9)))):
            mixed += [held.pop(0)]
    assert values(play(renumbered(mixed))[0]) == expected


@SLOW
@given(st.sampled_from(STREAMS), st.data())
def test_a_number_that_is_left_out_is_always_said(events: Events, data: st.DataObject) -> None:
    if events[0].get("sequence_number") is None:
        return
    lost = data.draw(st.integers(0, len(events) - 2))
    if lost == 0 and events[1]["type"] == "response.queued":
        return  # as a stream begins that is resumed behind its first event
    effects, state = play(log_of(events[:lost] + events[lost + 1 :]))
    steps = published(effects)
    assert state.counts["sequence_gap"] == 1
    index = events[lost].get("output_index")
    done = done_in(events)
    marked = {int(name.rpartition(":")[2]) for name, effect in steps.items() if "sequence_gap" in effect.anomalies}
    assert index is None or index in marked, "the step that it belonged to says so"
    after = any(event["type"] == "response.output_item.added" for event in events[lost + 1 :])
    assert marked or not (after and done), "a step says so, wherever one follows"
    for name, effect in steps.items():
        at = int(name.rpartition(":")[2])
        if events[lost]["type"] != "response.output_item.done" or at != index:
            assert item_in(snapshot(effect)) == done[at]
    assert len(steps) == len(done), "no step is lost with one event of it"


@SLOW
@given(st.sampled_from(STREAMS), st.data())
def test_a_dropped_stream_expires_with_what_it_said(events: Events, data: st.DataObject) -> None:
    cut = data.draw(st.integers(1, len(events)))
    records = log_of(events[:cut])
    key = key_of(events[:cut])
    records.append(LogRecord(len(records), STARTED_MS + 1_000_000, b"other", None, ()))
    steps = published(play(records)[0])
    done, begun = done_in(events[:cut]), {e["output_index"] for e in events[:cut] if "output_index" in e}
    if events[cut - 1]["type"].startswith("response.") and "response" in events[cut - 1] and cut == len(events):
        return
    assert {int(name.rpartition(":")[2]) for name in steps} == begun
    for index in begun - done.keys():
        effect = steps[f"{key}:{index}"]
        assert (effect.status.value, effect.inferred) == ("expired", "deadline")
        said = [text for (at, _, _), text in joined(events[:cut]).items() if at == index]
        held = _strings(item_in(snapshot(effect)))
        assert index in contradicts(events[:cut]) or all(text in held for text in said)


def _strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for inner in value.values() for text in _strings(inner)]
    if isinstance(value, list):
        return [text for inner in value for text in _strings(inner)]
    return [value] if isinstance(value, str) else []


@SLOW
@given(st.sampled_from(STREAMS), st.data())
def test_a_response_that_is_retrieved_completes_a_dropped_stream(events: Events, data: st.DataObject) -> None:
    """No tool call is lost because a connection was; what the stream had ended stays as it is."""
    last = events[-1]
    if last["type"] != "response.completed":
        return
    key, items = key_of(events), last["response"]["output"]
    cut = data.draw(st.integers(1, len(events) - 1))
    records = log_of(events[:cut])
    first = next((e["response"]["id"] for e in events[:cut] if "response" in e), key)
    object_of = {"type": "response.completed", "response": last["response"]}
    records = [record_of(e, first, n, n) for n, e in enumerate(events[:cut])]
    records.append(record_of(object_of, first, cut, cut))
    effects, _ = play(records)
    steps = published(effects)
    done = done_in(events[:cut])
    assert len(steps) == len(items)
    for name, effect in steps.items():
        index = int(name.rpartition(":")[2])
        assert item_in(snapshot(effect)) == done.get(index, items[index])
        assert effect.status.value == "completed"
    again, _ = play([*records, *renumbered([*records, records[-1]])[cut + 1 :]])
    assert values(again) == {name: effect.value for name, effect in steps.items()}


@pytest.mark.parametrize("odd", ["", "rotated", "unnumbered", "lost", "resumed", "dropped"])
def test_the_simulator_expects_the_same(odd: str) -> None:
    """Its expected result shares no line with the fold; run steps lie between the responses."""
    more: dict[str, Any] = {odd: 0.5} if odd else {}
    simulation = Simulation(Parameters(runs=40, seed=7, responses=0.7, **more))
    rules = Rules(grace_s=simulation.parameters.grace_s)
    effects: list[Effect] = []
    for partition, log in records_of(simulation).items():
        effects += PartitionState("t", partition, rules).apply(log)
    written = [Written(e.step_id.encode(), e.value, e.headers, e.status) for e in effects if isinstance(e, Publish)]
    letters = [effect for effect in effects if isinstance(effect, DeadLetter)]
    assert [str(difference) for difference in compare(simulation.expected, written, letters)] == []
