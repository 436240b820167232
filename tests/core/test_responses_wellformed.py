"""Well-formed streams of any kind: each step is the item that was done, and nothing is called odd that is not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openai import Omit
from openai._models import construct_type_unchecked
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import ResponseStreamEvent

from processor.core.effects import DeadLetter, LogRecord, Publish
from processor.core.partition import PartitionState
from processor.core.rules import Rules
from processor.core.run_steps.fast_path import Paths
from tests.core.responses_log import item_in, play, published, record_of, renumbered, snapshot
from tests.core.wellformed_responses import Stream, streams
from tests.examples import examples

STREAM_EVENT: Any = ResponseStreamEvent
RULES = Rules()
MANY = settings(max_examples=examples(150), deadline=None, suppress_health_check=list(HealthCheck))


def records_of(
    stream: Stream, separators: tuple[str, str] = (",", ":"), *, ascii_only: bool = False
) -> list[LogRecord]:
    out: list[LogRecord] = []
    for at, event in enumerate(stream.events):
        told = record_of(event, stream.key, at, at)
        value = json.dumps(event, separators=separators, ensure_ascii=ascii_only).encode()
        out.append(LogRecord(at, told.timestamp, told.key, value, told.headers))
    return out


def expected(stream: Stream) -> dict[str, Any]:
    return {f"{stream.key}:{index}": item.done for index, item in stream.items.items()}


@MANY
@given(streams(), st.sampled_from([(",", ":"), (", ", ": ")]), st.booleans())
def test_each_step_is_the_item_that_was_done(stream: Stream, separators: tuple[str, str], ascii_only: bool) -> None:
    effects, state = play(records_of(stream, separators, ascii_only=ascii_only), RULES)
    assert [effect for effect in effects if isinstance(effect, DeadLetter)] == []
    steps = published(effects)
    assert {name: item_in(snapshot(effect)) for name, effect in steps.items()} == expected(stream)
    for index, item in stream.items.items():
        effect = steps[f"{stream.key}:{index}"]
        assert effect.anomalies == (() if item.is_added else ("joined_midstream",))
        assert (effect.status.value, effect.revision) == ("completed", 0)
    assert state.open_steps == 0
    assert not state.counts["sequence_gap"] + state.counts["duplicate"] + state.counts["late"]


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
@MANY
@given(streams())
def test_the_sdk_accumulates_the_same(stream: Stream) -> None:
    """Of those that it reads: it wants every item begun, its parts opened, and ids that stay."""
    state = ResponseStreamState(input_tools=Omit(), text_format=Omit())
    try:
        for event in stream.events:
            if event["type"].startswith("response."):
                state.handle_event(construct_type_unchecked(value=event, type_=STREAM_EVENT))
    except (RuntimeError, AssertionError, IndexError, TypeError, AttributeError):
        return
    theirs = {f"{stream.key}:{index}": item.to_dict() for index, item in state._completed_output.items()}
    steps = published(play(records_of(stream), RULES)[0])
    assert {name: item_in(snapshot(effect)) for name, effect in steps.items()} == theirs


@MANY
@given(streams("resp_1"), streams("resp_2"), st.data())
def test_both_paths_and_any_order_of_two_responses_give_the_same(
    one: Stream, other: Stream, data: st.DataObject
) -> None:
    rest, mixed = [records_of(one), records_of(other)], list[LogRecord]()
    while any(rest):
        held = rest[data.draw(st.integers(0, 1))] or rest[0] or rest[1]
        for _ in range(min(len(held), data.draw(st.integers(1, 9)))):
            mixed.append(held.pop(0))
    effects = PartitionState("t", 3, RULES, paths=Paths.BOTH).apply(renumbered(mixed))
    found = {e.step_id: item_in(snapshot(e)) for e in effects if isinstance(e, Publish)}
    assert found == expected(one) | expected(other)


@MANY
@given(streams(), st.data())
def test_a_cut_stream_that_goes_on_or_is_retrieved_loses_no_item(stream: Stream, data: st.DataObject) -> None:
    records, ended = records_of(stream), dict(stream.events[-1])
    at = data.draw(st.integers(1, len(records)))
    again = records[:at] + records[data.draw(st.integers(0, at)) :]
    whole = {name: effect.value for name, effect in published(play(records, RULES)[0]).items()}
    steps = published(play(renumbered(again), RULES)[0])
    assert {name: effect.value for name, effect in steps.items()} == whole
    ended.pop("sequence_number", None)
    outputs = ended["response"]["output"]
    if not outputs or list(stream.items) != list(range(len(outputs))):
        return  # a position that is no index: what was never seen cannot be placed
    retrieved = record_of(ended, stream.key, at, at)
    steps = published(play([*records[:at], retrieved], RULES)[0])
    assert {name.rpartition(":")[2] for name in steps} == {str(index) for index in stream.items}
    for index, item in stream.items.items():
        effect = steps[f"{stream.key}:{index}"]
        assert "fold_divergence" not in effect.anomalies
        assert item_in(snapshot(effect)) in (item.done, outputs[index])
