"""From the bytes of a Responses stream to the published steps: what `publish` makes of it, the core folds."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.core.effects import DeadLetter, LogRecord, Publish
from processor.core.partition import PartitionState
from processor.core.rules import Rules
from processor.publish.command import response_sample_files
from processor.publish.event_keying import EventKeyer
from processor.publish.event_stream import EventStream
from processor.publish.outgoing import Outgoing
from processor.simulate.responses.steps import ResponseStep
from tests.examples import examples

RECORDINGS = sorted((Path(__file__).parents[3] / "shared" / "fixtures" / "responses").glob("*.sse"))
SAMPLES = [path for path in response_sample_files() if path.suffix == ".sse"]
WHOLE = [*RECORDINGS, *(path for path in SAMPLES if ".part" not in path.name)]
NAMELESS = "parallel-tool-call-wrapper.1"
NOW_MS = 1_800_000_000_000


def published(*inputs: bytes, keyer: EventKeyer | None = None) -> list[Outgoing]:
    """What `publish` sends of some inputs, in one call."""
    keyer, out = keyer or EventKeyer(), list[Outgoing]()
    for text in inputs:
        stream = EventStream(keyer)
        out += [*stream.feed(text), *stream.finish()]
    return out


def folded(records: Iterable[Outgoing], *, then_s: int = 0) -> list[Publish]:
    """The steps that the core publishes of them; nothing may be set aside.

    `then_s`: a last record so much later, which makes deadlines due.
    """
    log = [LogRecord(at, NOW_MS, record.key, record.value, record.headers) for at, record in enumerate(records)]
    if then_s:
        log.append(LogRecord(len(log), NOW_MS + then_s * 1000, b"", None, ()))
    state = PartitionState("t", 0, Rules())
    effects = state.apply(log)
    assert [effect for effect in effects if isinstance(effect, DeadLetter)] == []
    return [effect for effect in effects if isinstance(effect, Publish)]


def texts_of(steps: Sequence[Publish]) -> dict[tuple[str, int], bytes]:
    """Step and revision -> the published bytes."""
    found = {(step.step_id, step.revision): step.value for step in steps}
    assert len(found) == len(steps), "nothing twice"
    return found


def anomalies(step: Publish) -> str:
    return (dict(step.headers).get("runstep-anomalies") or b"").decode()


def events_of(text: bytes) -> list[dict[str, Any]]:
    lines = text.decode().replace("\r\n", "\n").split("\n")
    return [json.loads(line[6:]) for line in lines if line.startswith("data: {")]


def expected_of(text: bytes, key: str) -> dict[str, dict[str, Any]]:
    """Step id -> snapshot, from the items of `output_item.done` by the generator's mapping, which folds nothing."""
    events = events_of(text)
    response: dict[str, Any] = {"model": None, "metadata": None}
    steps: dict[str, dict[str, Any]] = {}
    for event in events:
        response |= event.get("response") or {}
        if event["type"] == "response.output_item.done":
            step = ResponseStep(response, key, event["output_index"])
            step.began_s = NOW_MS // 1000
            item = event["item"]
            status = "failed" if item.get("status") == "failed" or item.get("error") else "completed"
            steps[step.id] = step.snapshot(item, status, NOW_MS // 1000)
    return steps


@pytest.mark.parametrize("path", WHOLE, ids=lambda path: path.stem)
def test_each_published_step_equals_the_item_that_was_done(path: Path) -> None:
    text = path.read_bytes()
    records = published(text)
    steps = [step for step in folded(records) if dict(step.headers).get("runstep-inferred") is None]
    expected = expected_of(text, records[0].key.decode())
    assert {step.step_id: json.loads(step.value) for step in steps} == expected
    # One recording was abridged: its deltas are not all of the text that it says is done.
    true_ones = {"fold_divergence"} if path.stem == "openai-shell-container.1" else set()
    assert {anomalies(step) for step in steps} <= {"", *true_ones}
    assert {step.revision for step in steps} <= {0}


@settings(max_examples=examples(60), deadline=None)
@given(st.data())
def test_a_cut_at_any_byte_and_the_whole_again_give_equal_bytes(data: st.DataObject) -> None:
    text = data.draw(st.sampled_from(WHOLE)).read_bytes()
    cut = data.draw(st.integers(0, len(text)))
    expected = texts_of(folded(published(text)))
    apart = published(text[:cut]) + published(text)
    together, one_pipe = published(text[:cut], text), published(text[:cut] + text)
    for records in (apart, together, one_pipe):
        assert texts_of(folded(records)) == expected


@settings(max_examples=examples(60), deadline=None)
@given(st.data())
def test_a_cut_at_any_byte_and_the_rest_resumed_give_equal_bytes(data: st.DataObject) -> None:
    numbered = [path for path in WHOLE if b'"sequence_number":0' in path.read_bytes().replace(b": ", b":")]
    text = data.draw(st.sampled_from(numbered)).read_bytes()
    cut = data.draw(st.integers(0, len(text)))
    frames = text.decode().split("\n\n")
    whole = text[:cut].count(b"\n\n")
    rest = "\n\n".join(frames[max(0, whole - data.draw(st.integers(0, 3))) :]).encode()
    assert texts_of(folded(published(text[:cut], rest))) == texts_of(folded(published(text)))
    key = published(text)[0].key.decode()
    stream = EventStream(response_id=key)
    resumed = [*stream.feed(rest), *stream.finish()]
    assert texts_of(folded(published(text[:cut]) + resumed)) == texts_of(folded(published(text)))


@settings(max_examples=examples(40), deadline=None)
@given(st.data())
def test_responses_interleaved_give_equal_bytes(data: st.DataObject) -> None:
    paths = data.draw(st.lists(st.sampled_from(WHOLE), min_size=2, max_size=3, unique=True))
    apart = [published(path.read_bytes()) for path in paths]
    expected: dict[tuple[str, int], bytes] = {}
    for records in apart:
        expected |= texts_of(folded(records))
    waiting = [list(reversed(records)) for records in apart]
    turns = data.draw(st.lists(st.integers(0, len(apart) - 1), max_size=200))
    mixed = [waiting[turn].pop() for turn in turns if waiting[turn]]
    mixed += [record for records in waiting for record in reversed(records)]
    assert texts_of(folded(mixed)) == expected


@settings(max_examples=examples(40), deadline=None)
@given(st.data())
def test_a_dropped_stream_and_the_retrieved_response_lose_no_call(data: st.DataObject) -> None:
    """Also where the deadline has passed in between: the real end wins."""
    others = (NAMELESS, "failed", "incomplete", "github-copilot-id-rotation.1")
    ended = [path for path in WHOLE if path.stem not in others]
    text = data.draw(st.sampled_from(ended)).read_bytes()
    cut = data.draw(st.integers(len(text) // 10, len(text) - 2))
    last = events_of(text)[-1]["response"]
    retrieved = json.dumps(last, indent=data.draw(st.sampled_from([None, 2]))).encode()
    first = published(text[:cut])
    if not first:
        return
    steps = folded([*first, *published(retrieved)])
    final = {step.step_id: json.loads(step.value) for step in steps}
    told = {event["output_index"] for event in events_of(text) if event["type"] == "response.output_item.done"}
    assert {step_id.rpartition(":")[2] for step_id in final} == {str(index) for index in told}
    expected = expected_of(text, first[0].key.decode())
    for step_id, snapshot in final.items():
        assert snapshot["status"] == expected[step_id]["status"]
    for step in steps:
        assert "sequence_gap" not in anomalies(step), "an object has no number, and says nothing of any"


def test_the_samples_in_parts_are_whole() -> None:
    folder = SAMPLES[0].parent
    parts = [(folder / f"resumed.part{number}.sse").read_bytes() for number in (1, 2)]
    resumed = folded(published(*parts))
    assert [(step.status.value, anomalies(step)) for step in resumed] == [("completed", "")] * 2
    dropped = [(folder / f"dropped.{part}").read_bytes() for part in ("part1.sse", "part2.json")]
    (call,) = folded(published(*dropped))
    assert call.status.value == "completed"
    assert "orphaned_by_run" in anomalies(call)
    (item,) = json.loads(call.value)["step_details"]["tool_calls"]
    assert item["arguments"] == '{"order": 4711, "amount": "120.50"}'
    (lost,) = folded(published(dropped[0]), then_s=90_000)
    assert (lost.status.value, dict(lost.headers)["runstep-inferred"]) == ("expired", b"deadline")
