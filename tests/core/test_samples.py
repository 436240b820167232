"""The sample recordings say what their README says, by a reading of their own: blank lines, `json.loads`, no fold."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from processor.core.effects import Effect, LogRecord, Publish
from processor.core.partition import PartitionState
from processor.core.rules import Rules
from processor.publish.command import sample_files
from processor.publish.event_keying import EventKeyer
from processor.publish.event_stream import EventStream

RECORDINGS = Path(__file__).parents[3] / "shared" / "fixtures"
FILES = {path.name: path for path in sample_files()}
STORIES: dict[str, list[str]] = defaultdict(list)
for _name in FILES:
    STORIES[_name.split(".")[0]].append(_name)

# As recorded: a step has `expires_at` and `usage`, and lacks `expired_at` and `metadata`.
STEP_KEYS = {"id", "object", "created_at", "run_id", "assistant_id", "thread_id", "type", "status", "expires_at"}
STEP_KEYS |= {"completed_at", "cancelled_at", "failed_at", "last_error", "step_details", "usage"}

Event = tuple[str, dict[str, Any]]


def text_of(name: str) -> str:
    return FILES[name].read_text(encoding="utf-8")


def events(*names: str) -> list[Event]:
    """Name and data of every event but the end marks."""
    found = []
    for name in names:
        for frame in text_of(name).split("\n\n"):
            if frame.startswith("event: "):
                title, data = frame.split("\n")
                if data != "data: [DONE]":
                    found.append((title.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


def story(name: str) -> list[Event]:
    return events(*STORIES[name])


def calls_in_deltas(told: list[Event]) -> dict[tuple[str, int], list[dict[str, Any]]]:
    """(step id, index) -> the pieces of that call, in order."""
    pieces = defaultdict(list)
    for name, data in told:
        if name == "thread.run.step.delta":
            (entry,) = data["delta"]["step_details"]["tool_calls"]
            pieces[data["id"], entry["index"]].append(entry)
    return dict(pieces)


def ends(told: list[Event]) -> dict[str, dict[str, Any]]:
    """Step id -> the object that ended it."""
    kinds = ("completed", "failed", "cancelled", "expired")
    return {data["id"]: data for name, data in told if name in {f"thread.run.step.{kind}" for kind in kinds}}


@pytest.mark.parametrize("name", FILES)
def test_a_sample_says_what_it_is_and_ends_as_responses_do(name: str) -> None:
    text = text_of(name)
    assert text.startswith(": sample: ")
    assert text.endswith("\n\nevent: done\ndata: [DONE]\n\n")
    assert "\r" not in text
    for title, data in events(name):
        assert data["object"] in {title.rsplit(".", 1)[0], title}, title


def test_what_no_public_recording_shows_is_marked() -> None:
    marked = {name for name in FILES if "\n: synthetic: " in f"\n{text_of(name)}".partition("\nevent:")[0]}
    assert marked == {"code_interpreter.sse", "run_cancelled.sse", "run_expired.sse", "run_failed.sse"}
    for name in set(FILES) - marked:
        told = events(name)
        assert {end["status"] for end in ends(told).values()} <= {"completed"}
        assert not [data for title, data in told if title == "thread.run.expired"]
        assert '"outputs":[{"index"' not in text_of(name)


@pytest.mark.parametrize("name", FILES)
def test_step_objects_have_the_fields_that_services_send(name: str) -> None:
    for title, data in events(name):
        if data["object"] == "thread.run.step":
            kind = title.rpartition(".")[2]
            assert set(data) == STEP_KEYS | ({"expired_at"} if kind == "expired" else set())
            assert data["status"] == ("in_progress" if kind == "created" else kind)
            if data["usage"] is not None:
                assert set(data["usage"]) == {
                    "prompt_tokens",
                    "completion_tokens",
                    "total_tokens",
                    "prompt_token_details",
                    "completion_tokens_details",
                }


def test_every_story_is_a_run_of_its_own() -> None:
    runs = {name: {data["id"] for _, data in story(name) if data["object"] == "thread.run"} for name in STORIES}
    assert all(len(ids) == 1 for ids in runs.values())
    assert len(set.union(*runs.values())) == len(STORIES) == 9


def test_nothing_in_the_samples_is_copied_from_the_recordings() -> None:
    if not RECORDINGS.is_dir():
        pytest.skip(f"no recordings at {RECORDINGS}")
    ids = re.compile(r"\b(?:run|step|call|msg|thread|asst|file)[_-][A-Za-z0-9]{16,}")
    ours = set(ids.findall("".join(map(text_of, FILES))))
    theirs = set(ids.findall("".join(path.read_text() for path in RECORDINGS.iterdir() if path.is_file())))
    assert len(ours) > 60
    assert not ours & theirs


@pytest.mark.parametrize("name", [name for name in STORIES if name != "run_cancelled"])
def test_the_pieces_of_every_string_make_the_string_of_the_ended_step(name: str) -> None:
    told = story(name)
    pieces, ended = calls_in_deltas(told), ends(told)
    for (step, index), entries in pieces.items():
        call = ended[step]["step_details"]["tool_calls"][index]
        assert entries[0]["id"] == call["id"]
        assert {entry["type"] for entry in entries} == {call["type"]}
        match call["type"]:
            case "function":
                assert entries[0]["function"]["name"] == call["function"]["name"]
                assert all(set(entry["function"]) == {"arguments"} for entry in entries[1:])
                parts = [entry["function"]["arguments"] for entry in entries]
                whole = call["function"]["arguments"]
            case "code_interpreter":
                parts = [entry["code_interpreter"].get("input", "") for entry in entries]
                whole = call["code_interpreter"]["input"]
            case "mcp":
                parts = [entry.get("arguments", "") for entry in entries]
                whole = call["arguments"]
            case other:
                assert other == "file_search"
                continue
        assert "".join(parts) == whole
        assert len(parts) > 5
    for step, end in ended.items():
        if end["type"] == "tool_calls":
            assert len(end["step_details"]["tool_calls"]) == len({key for key in pieces if key[0] == step})


@pytest.mark.parametrize("name", STORIES)
def test_the_pieces_of_every_message_make_the_message(name: str) -> None:
    told = story(name)
    written: defaultdict[str, str] = defaultdict(str)
    for title, data in told:
        if title == "thread.message.delta":
            written[data["id"]] += data["delta"]["content"][0]["text"]["value"]
    whole = {
        data["id"]: data["content"][0]["text"]["value"] for title, data in told if title == "thread.message.completed"
    }
    assert written == whole


def test_code_outputs_come_in_pieces_too() -> None:
    told = story("code_interpreter")
    (entries,) = calls_in_deltas(told).values()
    pieces = [piece for entry in entries for piece in entry["code_interpreter"].get("outputs", [])]
    (step, *_) = ends(told).values()
    logs, image = step["step_details"]["tool_calls"][0]["code_interpreter"]["outputs"]
    assert "".join(piece["logs"] for piece in pieces if piece["index"] == 0) == logs["logs"]
    assert [piece["image"] for piece in pieces if piece["index"] == 1] == [image["image"]]


def test_the_second_response_begins_with_the_end_of_the_step_whose_outputs_were_submitted() -> None:
    for name in ("function_call", "parallel_tools"):
        first, second = (events(part) for part in STORIES[name])
        assert first[-1][0] == "thread.run.requires_action"
        assert [title for title, _ in second[:3]] == [
            "thread.run.step.completed",
            "thread.run.queued",
            "thread.run.in_progress",
        ]
        required = first[-1][1]["required_action"]["submit_tool_outputs"]["tool_calls"]
        calls = second[0][1]["step_details"]["tool_calls"]
        assert [call["id"] for call in calls] == [call["id"] for call in required]
        assert all(call["function"]["output"] for call in calls)


def test_parallel_calls_have_an_index_each() -> None:
    indexes = [index for _, index in calls_in_deltas(story("parallel_tools"))]
    assert indexes == [0, 1, 2]


def test_the_approved_tool_answers_after_its_step_has_ended() -> None:
    told = story("mcp_approval")
    (step,) = [end for end in ends(told).values() if end["type"] == "tool_calls"]
    position = told.index(("thread.run.step.completed", step))
    assert step["step_details"]["tool_calls"][0]["output"] is None
    late = [data for title, data in told[position + 1 :] if title == "thread.run.step.delta"]
    assert [entry["id"] for entry in late] == [step["id"]]
    answer = json.loads(late[0]["delta"]["step_details"]["tool_calls"][0]["output"])
    assert answer["total"] == len(answer["results"]) == 3
    opened = next(data for title, data in told if data["id"] == step["id"])
    assert step["completed_at"] < opened["expires_at"]
    assert step["expires_at"] - opened["expires_at"] > 30_000


def test_the_readme_lists_every_sample() -> None:
    readme = (FILES["message.sse"].parent / "README.md").read_text(encoding="utf-8")
    rows = [line for line in readme.splitlines() if line.startswith("| `")]
    listed = []
    for row in rows:
        first, *parts = re.findall(r"`([^`]+)`", row.split("|")[1])
        listed += [first, *(first.split(".")[0] + part for part in parts)]
    assert sorted(listed) == sorted(FILES)


def folded(name: str, *, times: int) -> list[Effect]:
    """What the core makes of a story that is published that many times over."""
    log: list[LogRecord] = []
    for _ in range(times):
        keyer = EventKeyer()
        for part in STORIES[name]:
            stream = EventStream(keyer)
            for record in (*stream.feed(FILES[part].read_bytes()), *stream.finish()):
                # Long after the samples were written: their deadlines are past, and must not fire.
                log.append(LogRecord(len(log), 1_900_000_000_000 + len(log), record.key, record.value, record.headers))
    return PartitionState("events", 0, Rules()).apply(log)


COMPLETED = ("completed", None, 0)
OUTCOMES: dict[str, list[tuple[str, str | None, int]]] = {
    "code_interpreter": [COMPLETED, COMPLETED],
    "file_search": [COMPLETED, COMPLETED],
    "function_call": [COMPLETED, COMPLETED],
    "mcp_approval": [COMPLETED, COMPLETED, ("completed", None, 1), COMPLETED],
    "message": [COMPLETED],
    "parallel_tools": [COMPLETED, COMPLETED],
    "run_cancelled": [("cancelled", "run", 0)],
    "run_expired": [("expired", None, 0)],
    "run_failed": [("failed", None, 0)],
}


@pytest.mark.parametrize("name", STORIES)
def test_published_and_folded_a_sample_ends_as_the_readme_says(name: str) -> None:
    effects = folded(name, times=1)
    published = [effect for effect in effects if isinstance(effect, Publish)]
    assert published == effects, "nothing is dead-lettered"
    assert [(effect.status.value, effect.inferred, effect.revision) for effect in published] == OUTCOMES[name]
    assert {effect.anomalies for effect in published} == {()}
    snapshots = {effect.step_id: json.loads(effect.value) for effect in published}
    for step, end in ends(story(name)).items():
        differing = {key for key, value in end.items() if snapshots[step][key] != value}
        late = name == "mcp_approval" and "mcp" in json.dumps(end["step_details"]) and end["type"] == "tool_calls"
        assert differing == ({"step_details"} if late else set())


@pytest.mark.parametrize("name", STORIES)
def test_a_sample_published_twice_is_as_if_published_once(name: str) -> None:
    """The event ids make the second time a repeat, deltas and all."""
    assert folded(name, times=2) == folded(name, times=1)
