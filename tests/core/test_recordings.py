"""Recordings, the services' own and ours: folded, every step is the object that the service itself ended it with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.core.effects import LogRecord, Publish
from processor.core.partition import PartitionState
from processor.core.rules import Rules
from processor.core.step_state import SCHEMA_KEYS
from processor.publish.command import sample_files
from tests.core.scripted_log import text

RECORDED = Path(__file__).parents[3] / "shared" / "fixtures"
SAMPLES = {path.name: path for path in sample_files()}
STREAMS = {
    "message_run": ("message_run.sse",),
    "code_interpreter": ("code_interpreter.sse",),
    "tool_call": ("tool_call.part1.sse", "tool_call.part2.sse"),
    "tool_call, part 1": ("tool_call.part1.sse",),
    "tool_call, part 2": ("tool_call.part2.sse",),
}
STORIES = {
    story: tuple(sorted(name for name in SAMPLES if name.split(".")[0] == story))
    for story in {name.split(".")[0] for name in SAMPLES}
}
ENDS = frozenset(f"thread.run.step.{status}" for status in ("completed", "failed", "cancelled", "expired"))

Told = tuple[str, Any]


def recorded(*names: str) -> bytes:
    """The bytes of recordings that lie beside the project, or a skip."""
    if not RECORDED.is_dir():
        pytest.skip("recordings: ../shared/fixtures is not there")
    return b"".join((RECORDED / name).read_bytes() + b"\n\n" for name in names)


def sampled(*names: str) -> bytes:
    return b"".join(SAMPLES[name].read_bytes() for name in names)


def frames(stream: bytes) -> list[bytes]:
    parts = stream.replace(b"\r\n", b"\n").split(b"\n\n")
    return [part.strip(b"\n") for part in parts if part.strip()]


def told(stream: bytes) -> Iterator[Told]:
    """(event name, data), read with nothing but `json`."""
    for frame in frames(stream):
        lines = dict(line.partition(b": ")[::2] for line in frame.split(b"\n"))
        if b"data" in lines and lines[b"data"] != b"[DONE]":
            yield lines[b"event"].decode(), json.loads(lines[b"data"])


def folded(values: list[bytes]) -> list[Publish]:
    """What is published of a log of these values; nothing may be set aside."""
    log = [LogRecord(n, 1_700_000_000_000 + n, b"run", value) for n, value in enumerate(values)]
    effects = PartitionState("t", 0, Rules()).apply(log)
    published = [effect for effect in effects if isinstance(effect, Publish)]
    assert published == effects, "nothing is set aside"
    return published


def ending_objects(stream: bytes) -> dict[str, Any]:
    return {data["id"]: data for name, data in told(stream) if name in ENDS}


def assert_folds_to_its_own_ends(stream: bytes) -> None:
    ends = ending_objects(stream)
    opened = {data["id"] for name, data in told(stream) if name == "thread.run.step.created"}
    published = folded(frames(stream))
    assert {effect.step_id for effect in published} == ends.keys()
    for effect in published:
        # Where a step began before the recording did, that is all there is to say against it.
        assert effect.anomalies == (() if effect.step_id in opened else ("joined_midstream",))
        assert (effect.inferred, effect.revision) == (None, 0)
        assert json.loads(effect.value) == dict.fromkeys(SCHEMA_KEYS) | ends[effect.step_id]


@pytest.mark.parametrize("name", STREAMS)
def test_a_recording_of_a_service_folds_to_its_own_ending_objects(name: str) -> None:
    assert_folds_to_its_own_ends(recorded(*STREAMS[name]))


def test_every_recording_beside_the_project_is_folded() -> None:
    recorded()
    assert {path.name for path in RECORDED.glob("*.sse")} == {name for parts in STREAMS.values() for name in parts}


def test_without_its_ending_objects_a_recording_folds_to_the_same_details() -> None:
    """The deltas alone say what the ending object repeats; only what no delta carries is missing."""
    stream = recorded(*STREAMS["code_interpreter"])
    ends = ending_objects(stream)
    ended = []
    for name, data in told(stream):
        bare = data | {"step_details": None} if name in ENDS else data
        ended.append(text({"event": name, "data": bare}))
    for effect in folded(ended):
        details = json.loads(effect.value)["step_details"]
        if details["type"] == "tool_calls":
            for got, wanted in zip(
                details["tool_calls"], ends[effect.step_id]["step_details"]["tool_calls"], strict=True
            ):
                assert got["id"] == wanted["id"]
                assert got["code_interpreter"]["input"] == wanted["code_interpreter"]["input"]


def test_a_list_of_finished_steps_is_a_log_of_bare_objects() -> None:
    steps = json.loads(recorded_list())["data"]
    assert len(steps) == 12
    published = folded([text(step) for step in steps])
    assert [json.loads(effect.value) for effect in published] == [dict.fromkeys(SCHEMA_KEYS) | step for step in steps]
    assert {effect.anomalies for effect in published} == {("joined_midstream",)}


def recorded_list() -> bytes:
    recorded()
    return (RECORDED / "run_steps_list.json").read_bytes()


# --- our own samples: as they are, in one record, and cut into records anywhere


@pytest.mark.parametrize("story", sorted(set(STORIES) - {"run_cancelled", "mcp_approval"}))
def test_a_sample_folds_to_its_own_ending_objects(story: str) -> None:
    assert_folds_to_its_own_ends(sampled(*STORIES[story]))


def test_the_sample_of_an_approval_is_amended_by_its_late_output() -> None:
    stream = sampled(*STORIES["mcp_approval"])
    ends = ending_objects(stream)
    late = list(told(stream))
    (amended,) = [effect for effect in folded(frames(stream)) if effect.revision]
    found, stated = json.loads(amended.value), dict.fromkeys(SCHEMA_KEYS) | ends[amended.step_id]
    (output,) = [
        data["delta"]["step_details"]["tool_calls"][0]["output"]
        for name, data in late
        if name == "thread.run.step.delta" and data["delta"]["step_details"]["tool_calls"][0].get("output")
    ]
    stated["step_details"]["tool_calls"][0]["output"] = output
    assert found == stated


def test_the_sample_of_a_cancelled_run_ends_its_step() -> None:
    (effect,) = folded(frames(sampled("run_cancelled.sse")))
    assert (effect.status.value, effect.inferred, effect.anomalies) == ("cancelled", "run", ())


@given(st.sampled_from(sorted(STORIES)), st.data())
def test_it_does_not_matter_how_frames_are_put_into_records(story: str, data: st.DataObject) -> None:
    pieces = frames(sampled(*STORIES[story]))
    cuts = sorted(data.draw(st.sets(st.integers(1, len(pieces) - 1), max_size=8)))
    values = [b"\n\n".join(pieces[a:b]) for a, b in zip([0, *cuts], [*cuts, len(pieces)], strict=True)]
    once, again = folded(pieces), folded(values)
    assert [(e.step_id, e.revision, e.value, e.anomalies) for e in once] == [
        (e.step_id, e.revision, e.value, e.anomalies) for e in again
    ]
