"""Reconcile with response objects: the output of a retrieved response against the steps that its stream became."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from processor.audit.judge.verdicts import Verdict
from processor.audit.reconcile.command import Reconciled
from processor.audit.reconcile.service_lists import ListError, read_lists
from processor.audit.report.manifest import Outcome
from processor.core.effects import LogRecord
from processor.publish.command import response_sample_files
from tests.core.responses_log import FIXTURES, events_of, key_of, record_of
from tests.shell.test_reconcile import T0_S, Published, reconciled

ROTATED = "github-copilot-id-rotation.1"
STREAMS = [path for path in response_sample_files() if path.suffix == ".sse" and ".part" not in path.name]
STREAMS += sorted(FIXTURES.glob("*.sse")) if FIXTURES.is_dir() else []
Events = Sequence[dict[str, Any]]


def names_its_output(path: Path) -> bool:
    """Whether the stream ends with its response, under the id that it had all along."""
    last = events_of(path)[-1].get("response")
    return bool(last and last.get("output")) and path.stem != ROTATED


class Responses(Published):
    """An archive of what streams were published as."""

    def put(self, events: Events) -> None:
        key = key_of(events)
        for at, event in enumerate(events):
            told = record_of(event, key, self._state.next_offset, at, T0_S * 1000)
            for effect in self._state.apply(
                [LogRecord(told.offset, told.timestamp, told.key, told.value, told.headers)]
            ):
                self._put(effect)

    def wait(self) -> None:
        """Until every deadline has passed."""
        self.event(None, T0_S + 100_000)


def response_of(events: Events) -> dict[str, Any]:
    """The response as it is retrieved afterwards."""
    return copy.deepcopy(next(event["response"] for event in reversed(events) if "response" in event))


@pytest.fixture
def published(tmp_path: Path) -> Responses:
    return Responses(tmp_path)


@pytest.fixture
def events() -> Events:
    """A reasoning, two calls and a message."""
    key, items = "resp_1", [
        {"id": "r1", "type": "reasoning", "summary": [], "encrypted_content": "gAAA1"},
        {"id": "f1", "type": "function_call", "name": "f", "arguments": "{}", "status": "in_progress"},
        {"id": "f2", "type": "function_call", "name": "g", "arguments": "{}", "status": "completed"},
        {"id": "m1", "type": "message", "content": [{"type": "output_text", "text": "a"}], "status": "completed"},
    ]  # fmt: skip
    response = {"id": key, "object": "response", "model": "m", "status": "in_progress", "metadata": {"a": "b"}}
    told: list[dict[str, Any]] = [{"type": "response.created", "response": response}]
    for index, item in enumerate(items):
        told.append({"type": "response.output_item.added", "output_index": index, "item": item})
        told.append({"type": "response.output_item.done", "output_index": index, "item": item})
    ended = response | {"status": "completed", "completed_at": T0_S + 9, "output": copy.deepcopy(items)}
    told.append({"type": "response.completed", "response": ended})
    return [event | {"sequence_number": number} for number, event in enumerate(told)]


@pytest.mark.parametrize("path", [p for p in STREAMS if names_its_output(p)], ids=lambda path: path.stem)
def test_a_response_agrees_with_what_its_stream_is_published_as(path: Path, tmp_path: Path) -> None:
    events, published = events_of(path), Responses(tmp_path)
    last = events[-1]["response"]
    published.put(events)
    found = reconciled(tmp_path, published, last)
    if last["status"] == "completed":
        assert found.verdict is Outcome.PROVEN, [(one.step_id, one.why, one.differences) for one in found.steps]
    else:  # what it was about when it failed, its output leaves out
        assert found.verdict is not Outcome.DIFFERENT
        assert "have not completed" in " ".join(found.notes)
    assert found.counts["equal"] == len(last["output"])


def _told(change: Callable[[dict[str, Any]], None], events: Events, published: Responses, folder: Path) -> Reconciled:
    response = response_of(events)
    change(response)
    published.put(events)
    return reconciled(folder, published, response)


@pytest.mark.parametrize(
    "change",
    [
        lambda response: response["output"][0].update(encrypted_content="gAAA2"),
        lambda response: response["output"][1].update(status="completed"),
        lambda response: response["output"][1].pop("status"),
        lambda response: [item.update(id=f"other_{item['id']}") for item in response["output"]] and None,
        lambda response: response["output"].reverse(),
        lambda response: response.update(completed_at=T0_S + 4_000),
    ],
)
def test_what_is_no_fault_accuses_nobody(
    change: Callable[[dict[str, Any]], None], events: Events, published: Responses, tmp_path: Path
) -> None:
    found = _told(change, events, published, tmp_path)
    ids = [d for one in found.steps for d in one.differences if d.path.endswith(".id") or d.path.endswith("_id")]
    others = [d for one in found.steps for d in one.differences if d not in ids]
    assert others == []
    if not ids:
        assert (found.verdict, found.counts) == (Outcome.PROVEN, {"equal": 4, "open": 0})


@pytest.mark.parametrize(
    ("change", "verdict", "step", "path"),
    [
        (lambda r: r["output"][1].update(arguments='{"a":1}'), Verdict.DIFFERENT, 1, "arguments"),
        (lambda r: r["output"][3]["content"][0].update(text="b"), Verdict.DIFFERENT, 3, "text"),
        (lambda r: r["output"][2].update(error="broke"), Verdict.DIFFERENT, 2, "status"),
        (lambda r: r.update(metadata={"a": "c"}), Verdict.DIFFERENT, 0, "metadata"),
        (lambda r: r["output"].pop(2), Verdict.EXTRA, 2, None),
        (
            lambda r: (r["output"].pop(2), r.pop("completed_at")),
            Verdict.EXTRA,
            2,
            None,
        ),  # its end says that it is whole
        (lambda r: r["output"].append({"id": "x", "type": "message"}), Verdict.MISSING, 4, None),
        (lambda r: r["output"].insert(1, {"id": "x", "type": "web_search_call"}), Verdict.MISSING, 1, None),
    ],
)
def test_what_differs_is_named(
    change: Any, verdict: Verdict, step: int, path: str | None, events: Events, published: Responses, tmp_path: Path
) -> None:
    found = _told(change, events, published, tmp_path)
    assert found.verdict is Outcome.DIFFERENT
    accused = [one for one in found.steps if one.verdict is verdict]
    assert any(one.step_id.startswith(f"resp_1:{step}") for one in accused)
    if path is not None:
        assert any(path in difference.path for one in accused for difference in one.differences)
    else:
        assert len(accused) == 1
        assert sum(one.verdict is Verdict.EQUAL for one in found.steps) >= 3


def test_a_call_that_never_came_is_found(events: Events, published: Responses, tmp_path: Path) -> None:
    """The stream was dropped, and nobody published the retrieved response."""
    published.put(events[:4])
    published.wait()
    found = reconciled(tmp_path, published, response_of(events))
    verdicts = {one.step_id: one.verdict for one in found.steps}
    assert verdicts == {
        "resp_1:0": Verdict.EQUAL, "resp_1:1": Verdict.DIFFERENT, "resp_1:2": Verdict.MISSING,
        "resp_1:3": Verdict.MISSING,
    }  # fmt: skip
    (one,) = (one for one in found.steps if one.verdict is Verdict.DIFFERENT)
    assert (one.listed, one.published) == ("completed", "expired")
    assert "deadline" in one.why


@pytest.mark.parametrize("done", [True, False])
@pytest.mark.parametrize("status", ["incomplete", "failed"])
def test_what_a_response_left_open_may_have_ended_either_way(
    done: bool, status: str, events: Events, published: Responses, tmp_path: Path
) -> None:
    """Whether its item was done, the response object does not say."""
    ended = {
        **events[-1]["response"], "status": status, "error": {"code": "x"} if status == "failed" else None,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
    }  # fmt: skip
    ended.pop("completed_at")
    ended["output"] = [*ended["output"][:3], {**ended["output"][3], "status": "incomplete"}]
    kept = [*events[: None if done else -2]][: -1 if done else None]
    last = {"type": f"response.{status}", "response": ended, "sequence_number": len(kept)}
    told = [*kept, last]
    if done:
        told[-2] = {**told[-2], "item": ended["output"][3]}
    published.put(told)
    found = reconciled(tmp_path, published, ended)
    assert found.verdict is Outcome.PROVEN, [(one.step_id, one.why, one.differences) for one in found.steps]


def test_a_response_that_has_not_ended_accuses_nobody_of_more(
    events: Events, published: Responses, tmp_path: Path
) -> None:
    early = response_of(events) | {"status": "in_progress", "output": response_of(events)["output"][:3]}
    published.put(events)
    found = reconciled(tmp_path, published, early)
    assert {one.step_id: one.verdict.value for one in found.steps} == {
        "resp_1:0": "unverifiable", "resp_1:1": "unverifiable", "resp_1:2": "equal", "resp_1:3": "unverifiable",
    }  # fmt: skip


def test_of_two_answers_the_one_that_has_ended_counts(events: Events, published: Responses, tmp_path: Path) -> None:
    ended = response_of(events)
    early = ended | {"status": "in_progress", "output": ended["output"][:1]}
    published.put(events)
    found = reconciled(tmp_path, published, [early, ended, early])
    assert found.counts == {"equal": 4, "open": 0}
    other = {**ended, "output": [{**item, "name": "z"} for item in ended["output"]]}
    found = reconciled(tmp_path, published, [ended, other])
    assert found.counts == {"unverifiable": 4, "open": 0}


def _renamed(events: Events, ids: Sequence[str]) -> Events:
    """The same with other ids of its items, everywhere."""
    told = copy.deepcopy(list(events))
    items = [event["item"] for event in told if "item" in event]
    for number, item in enumerate(items):
        item["id"] = ids[number // 2]  # it is added, and done
    for item, item_id in zip(told[-1]["response"]["output"], ids, strict=True):
        item["id"] = item_id
    return told


@pytest.mark.parametrize(
    "ids", [["", "", "", ""], ["x", "x", "x", "x"], ["r1", "x", "x", "m1"], ["x", "f1", "f2", "x"], ["x", "x", "", ""]]
)
@pytest.mark.parametrize("order", [[0, 1, 2, 3], [0, 2, 3], [1, 2, 3], [3, 1, 2, 0]])
def test_an_id_that_several_items_have_accuses_nobody(
    ids: list[str], order: list[int], events: Events, published: Responses, tmp_path: Path
) -> None:
    """Gateways leave ids empty, or give one to all items."""
    told = _renamed(events, ids)
    places = {index: place for place, index in enumerate(order)}
    for event in told:
        if "output_index" in event:
            event["output_index"] = places.get(event["output_index"], -1)
    told = [event for event in told if event.get("output_index") != -1]
    output = told[-1]["response"]["output"]
    told[-1]["response"]["output"] = [output[index] for index in order]
    published.put([event | {"sequence_number": number} for number, event in enumerate(told)])
    found = reconciled(tmp_path, published, told[-1]["response"])
    assert found.counts == {"equal": len(order), "open": 0}


def test_an_id_that_several_items_have_is_of_those_in_their_order_where_positions_say_nothing(
    events: Events, published: Responses, tmp_path: Path
) -> None:
    told = _renamed(events, ["r1", "x", "x", "m1"])
    for event in told:
        if "output_index" in event:
            event["output_index"] += 10
    published.put(told)
    found = reconciled(tmp_path, published, told[-1]["response"])
    assert found.counts == {"equal": 4, "open": 0}


def test_what_two_answers_tell_differently_is_not_judged_wherever_it_was_published(
    events: Events, published: Responses, tmp_path: Path
) -> None:
    """The items were published under other indexes than their places in the output."""
    told = copy.deepcopy(list(events))
    for event in told:
        if "output_index" in event:
            event["output_index"] += 10
    published.put(told)
    ended = response_of(told)
    other = {**ended, "output": [{**item, "name": "z"} for item in ended["output"][:2]]}
    found = reconciled(tmp_path, published, [ended, other])
    assert found.counts == {"unverifiable": 4, "open": 0}


@pytest.mark.parametrize("response", [{"object": "response"}, {"object": "response", "id": "r"},
                                      {"object": "response", "id": "r", "output": [1]}])  # fmt: skip
def test_what_is_no_whole_response_is_refused(response: Any, tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(json.dumps(response))
    with pytest.raises(ListError, match="response without"):
        read_lists([tmp_path / "r.json"])
