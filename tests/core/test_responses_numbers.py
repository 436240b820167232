"""Sequence numbers: what was refused or missing and comes later counts; what was folded does not count twice."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.core.effects import Checkpoint, DeadLetter, Effect, LogRecord, Publish
from processor.core.observer import Observer
from processor.core.partition import PartitionState
from processor.core.responses.numbers import MAX_RANGES, Order, SequenceNumbers
from processor.core.responses.response import Response
from tests.core.responses_log import RULES, item_in, snapshot, text
from tests.core.test_responses_input import KEY, Stream, one, reason

MESSAGE: dict[str, Any] = {"content": [{"type": "output_text", "text": "abc"}]}


def text_of(effect: Publish) -> str:
    return str(item_in(snapshot(effect))["content"][0]["text"])


def opened(rules: Any = RULES) -> Stream:
    stream = Stream(rules)
    stream.created()
    stream.added()
    return stream


def test_a_refused_event_that_is_put_back_is_no_repeat() -> None:
    """Refused for its size under settings that were then raised; numbers went on meanwhile."""
    stream = opened(msgspec.structs.replace(RULES, max_step_bytes=1_000))
    stream.added(1, "function_call", arguments="")
    item = {"type": "function_call", "id": "i1", "arguments": "x" * 2_000}
    refused = {"output_index": 1, "item": item, "sequence_number": stream.number}
    assert reason(stream.say("response.output_item.done", **refused)) == "step_too_large"
    one(stream.done(0))
    kept = {e.key: e.value for e in stream.state.checkpoint(1 << 40) if isinstance(e, Checkpoint) and e.value}
    roomy = Stream()
    roomy.state = PartitionState("source", 3, RULES, next_offset=stream.state.next_offset, stream_time=stream.at_ms)
    roomy.state.load(kept.items())
    assert item_in(snapshot(one(roomy.say("response.output_item.done", **refused)))) == item
    assert roomy.say("response.output_item.done", **refused) == [], "folded once, it is a repeat"
    assert roomy.state.counts["duplicate"] == 1
    assert not stream.state.counts["sequence_gap"], "it came: nothing is missing"


def test_an_unnumbered_event_that_was_refused_is_no_repeat_either() -> None:
    stream = opened(msgspec.structs.replace(RULES, unknown_events="dead-letter"))
    value = text({"type": "response.brand.new", "output_index": 0})
    headers = (("runstep-event-id", b"e1"),)
    for _ in range(2):
        assert reason(stream.put(value, headers=headers)) == "unknown_event"


@pytest.mark.parametrize("late", ["added", "done", "completed", "text done", "part", "annotation"])
def test_what_was_missing_and_comes_late_counts(late: str) -> None:
    stream = opened()
    where = {"output_index": 0, "content_index": 0}
    told: dict[str, dict[str, Any]] = {
        "added": {"type": "response.output_item.added", "output_index": 1, "item": {"type": "reasoning", "id": "r"}},
        "done": {"type": "response.output_item.done", "output_index": 0, "item": {"type": "message", "id": "i0"}},
        "completed": {"type": "response.completed",
                      "response": {"id": KEY, "output": [{"type": "message", "id": "i0"}]}},
        "text done": {"type": "response.output_text.done", **where, "text": "abc"},
        "part": {"type": "response.content_part.added", **where, "part": {"type": "output_text", "x": 1}},
        "annotation": {"type": "response.output_text.annotation.added", **where, "annotation_index": 0,
                       "annotation": {"type": "first"}},
    }  # fmt: skip
    missing = stream.number
    stream.number += 1
    stream.delta("a")
    second = {"type": "second"}
    stream.say("response.output_text.annotation.added", **where, annotation_index=1, annotation=second)
    effects = stream.put(text(told[late] | {"sequence_number": missing}))
    assert stream.put(text(told[late] | {"sequence_number": missing})) == []
    assert stream.state.counts["duplicate"] == 1
    if late in ("done", "completed"):
        assert "sequence_gap" in one(effects).anomalies
        return
    found = {effect.step_id: effect for effect in stream.pass_s(200) if isinstance(effect, Publish)}
    part = item_in(snapshot(found[f"{KEY}:0"]))["content"][0]
    assert part["text"] == ("abc" if late == "text done" else "a")
    assert part["annotations"] == ([{"type": "first"}] if late == "annotation" else []) + [second]
    assert ("x" in part) is (late == "part")
    assert (f"{KEY}:1" in found) is (late == "added")


def test_a_late_piece_is_appended_where_nothing_stands_behind_it() -> None:
    stream = opened()
    stream.added(1)
    stream.delta("a")
    missing = stream.number
    stream.number += 1
    stream.delta("z", index=1)
    stream.number, after = missing, stream.number
    stream.delta("b")
    stream.number = after
    stream.delta("c")
    effect = one(stream.done(0, **MESSAGE))
    assert (effect.anomalies, text_of(effect)) == (("sequence_gap",), "abc")
    assert not stream.state.counts["late"]


def test_a_late_piece_that_others_stand_behind_stays_missing() -> None:
    stream = opened()
    stream.delta("a")
    missing = stream.number
    stream.number += 1
    stream.delta("c")
    stream.delta("d")  # by the fast path
    stream.number, after = missing, stream.number
    assert stream.delta("b") == []
    stream.number = after
    assert stream.state.counts["late"] == 1
    effect = one(stream.done(0, **MESSAGE))
    assert (effect.anomalies, text_of(effect)) == (("fold_divergence", "sequence_gap"), "abc")


def test_a_late_piece_that_a_piece_of_the_fast_path_stands_behind_stays_missing() -> None:
    stream = opened()
    stream.delta("a")
    missing = stream.number
    stream.number += 1
    stream.say("response.in_progress", response={})
    stream.delta("c")
    stream.number, after = missing, stream.number
    assert stream.delta("b") == []
    stream.number = after
    assert stream.state.counts["late"] == 1
    assert text_of(one(stream.done(0, **MESSAGE))) == "abc"


def test_whether_a_late_piece_may_be_appended_survives_a_restart() -> None:
    stream = opened()
    stream.delta("a")
    stream.number += 1
    stream.delta("c")
    kept = {e.key: e.value for e in stream.state.checkpoint(1 << 40) if isinstance(e, Checkpoint) and e.value}
    restored = Stream()
    restored.state = PartitionState("source", 3, RULES, next_offset=stream.state.next_offset, stream_time=stream.at_ms)
    restored.state.load(kept.items())
    restored.number = stream.number - 2
    assert restored.delta("b") == []
    assert restored.state.counts["late"] == 1


def test_a_checkpoint_of_a_version_that_did_not_say_it_is_read() -> None:
    stream = opened()
    stream.delta("a")
    stream.number += 1
    stream.delta("c")
    response = stream.state.steps["\0" + KEY].materialise()
    assert isinstance(response, Response)
    packed = msgspec.msgpack.decode(response.pack()[1:])
    packed[5] = packed[5][:3]
    packed[11] = [item[:20] for item in packed[11]]
    older = Response.unpack(b"R" + msgspec.msgpack.encode(packed))
    assert older.items[0].packed()[:20] == response.items[0].packed()[:20]
    assert older.items[0].numbered >= response.numbers.next - 2, "whatever is late for it stays so"


WHOLES: dict[str, dict[str, Any]] = {
    "text": {"type": "response.output_text.done", "text": "ab"},
    "part": {"type": "response.content_part.done", "part": {"type": "output_text", "text": "ab"}},
}


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("whole", WHOLES)
def test_a_late_piece_of_a_text_that_is_done_stays_missing(whole: str, begun: bool, restarted: bool) -> None:
    stream = opened()
    if begun:
        stream.delta("a")
    missing = stream.number
    stream.number += 2
    stream.put(text(WHOLES[whole] | {"output_index": 0, "content_index": 0, "sequence_number": stream.number}))
    if restarted:
        stream.state = again(stream)
    for index in (0, 1):  # the other text may still grow
        late = {"type": "response.output_text.delta", "output_index": 0, "content_index": index, "delta": "b"}
        assert stream.put(text(late | {"sequence_number": missing + index})) == []
        assert stream.state.counts["late"] == 1
    content = item_in(snapshot(one(stream.pass_s(200))))["content"]
    assert [part["text"] for part in content] == ["ab", "b"]


@pytest.mark.parametrize("said", ["output_text", "content_part"])
def test_two_texts_that_are_the_same_are_not_pieces_of_one(said: str) -> None:
    """All pieces of the second were lost but an empty one: what is done of it is what came of both."""
    stream = opened()
    for index, piece in enumerate(("ab", "")):
        where = {"output_index": 0, "content_index": index}
        stream.say("response.output_text.delta", **where, delta=piece)
        part = {"type": "output_text", "text": "ab"}
        stream.number += index
        stream.say(f"response.{said}.done", **where, text="ab", part=part)
    effect = one(stream.pass_s(200))
    assert [part["text"] for part in item_in(snapshot(effect))["content"]] == ["ab", "ab"]
    assert "fold_divergence" in effect.anomalies


@pytest.mark.parametrize(("before", "index"), [("refusal", 2), ("output_text", 0)])
def test_pieces_of_one_text_stay_so_where_another_kind_of_text_or_the_first_piece_is_whole(
    before: str, index: int
) -> None:
    """Each piece was given an index of its own, and what is done at the first one's is all of them."""
    stream = opened()
    where, done = {"output_index": 0}, "response.output_text.done"
    stream.say("response.output_text.delta", **where, content_index=0, delta="a")
    stream.say(f"response.{before}.done", **where, content_index=index, text="a", refusal="no")
    stream.say("response.output_text.delta", **where, content_index=1, delta="b")
    stream.say(done, **where, content_index=0, text="ab")
    effect = one(stream.pass_s(200))
    content = item_in(snapshot(effect))["content"]
    assert [part["text"] for part in content if "text" in part] == ["a", "b"]
    assert "fold_divergence" not in effect.anomalies


@pytest.mark.parametrize(("late", "expected"), [(True, ["x", "y"]), (False, ["x", "y", "z", "w"])])
def test_an_annotation_that_a_part_has_already_is_not_added(late: bool, expected: list[str]) -> None:
    """It says no index: it would stand behind those that the part has."""
    stream = opened()
    where = {"output_index": 0, "content_index": 0}
    missing = stream.number
    stream.number += 1
    part = {"type": "output_text", "text": "", "annotations": [{"n": "x"}, {"n": "y"}]}
    stream.say("response.content_part.done", **where, part=part)
    number = missing if late else stream.number
    annotation = {"n": "y" if late else "z"}
    stream.say("response.output_text.annotation.added", **where, annotation=annotation, sequence_number=number)
    if not late:
        stream.say("response.output_text.annotation.added", **where, annotation={"n": "w"})
    (content,) = item_in(snapshot(one(stream.pass_s(200))))["content"]
    assert [annotation["n"] for annotation in content["annotations"]] == expected


def test_an_annotation_without_an_index_stands_behind_those_that_the_item_began_with() -> None:
    stream = Stream()
    stream.created()
    part = {"type": "output_text", "text": "", "annotations": [{"n": "x"}]}
    stream.say("response.output_item.added", output_index=0, item={"type": "message", "content": [part]})
    stream.say("response.output_text.annotation.added", output_index=0, content_index=0, annotation={"n": "y"})
    (content,) = item_in(snapshot(one(stream.pass_s(200))))["content"]
    assert [annotation["n"] for annotation in content["annotations"]] == ["x", "y"]


@pytest.mark.parametrize("status", ["incomplete", "failed", "cancelled"])
def test_pieces_behind_an_end_that_carried_their_item_add_nothing(status: str) -> None:
    """A retrieved response, and then the rest of the stream that was cut. An ended response is held packed."""
    stream = opened()
    stream.delta("a")
    item = {"type": "message", "id": "i0", "status": "incomplete", "content": [{"type": "output_text", "text": "ab"}]}
    ended = {"type": f"response.{status}", "response": {"id": KEY, "output": [item]}}
    assert text_of(one(stream.put(text(ended)))) == "ab"
    assert stream.delta("b") == []
    part = {"type": "output_text", "text": ""}
    assert stream.say("response.content_part.added", output_index=0, content_index=1, part=part) == []
    assert stream.state.counts["repeated"] == 2
    effect = one(stream.done(0, **MESSAGE))
    assert (effect.revision, effect.status.value, text_of(effect)) == (1, "completed", "abc"), "a real end overrules"


def again(stream: Stream) -> PartitionState:
    """The state of a worker that takes over from here, with all of it in checkpoints."""
    effects = [*stream.state.checkpoint(1 << 40), *stream.state.restore_point_at(stream.state.next_offset)[2]]
    kept = {e.key: e.value for e in effects if isinstance(e, Checkpoint) and e.value}
    restored = PartitionState("source", 3, RULES, next_offset=stream.state.next_offset, stream_time=stream.at_ms)
    restored.load(kept.items())
    return restored


@given(st.lists(st.tuples(st.integers(0, 40), st.booleans()), max_size=80))
def test_a_number_is_taken_once_and_as_often_as_it_is_refused(said: list[tuple[int, bool]]) -> None:
    """Against a set of those that were folded."""
    numbers, folded = SequenceNumbers(), set[int]()
    for number, refused in said:
        order = numbers.take(number, is_first=False)
        assert (order is Order.OLD) is (number in folded)
        if order is not Order.OLD:
            if refused:
                numbers.give_back(number)
            else:
                folded.add(number)
        assert numbers.missing == sorted(numbers.missing)
        assert all(last < first for (_, last), (first, _) in zip(numbers.missing, numbers.missing[1:], strict=False))


def test_numbers_that_are_given_back_need_no_memory_for_each() -> None:
    numbers = SequenceNumbers()
    for number in range(3_000):
        numbers.take(number, is_first=False)
        if number % 2:
            numbers.give_back(number)
    assert len(numbers.missing) <= MAX_RANGES


@pytest.mark.parametrize("watched", [True, False])
def test_another_type_in_a_second_end_is_said_whoever_watches(watched: bool) -> None:
    """A watcher has the contents of ended items kept: they may have no say in what is published."""
    stream = Stream()
    stream.state = PartitionState("source", 3, RULES, observer=Observer() if watched else None)
    stream.created()
    stream.added()
    assert one(stream.done()).anomalies == ()
    assert one(stream.done(0, "reasoning")).anomalies == ("changed_field",)


# --- texts that only the response's end completes --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("way", "whole", "anomalies"),
    [
        ("in the stream", "abc", {"orphaned_by_run", "fold_divergence"}),
        ("in the stream", "ab", {"orphaned_by_run"}),
        ("retrieved", "abc", {"orphaned_by_run"}),
        ("retrieved", "axc", {"orphaned_by_run", "fold_divergence"}),
        ("after a gap", "abc", {"orphaned_by_run", "sequence_gap"}),
        ("after a gap", "xyz", {"orphaned_by_run", "sequence_gap", "fold_divergence"}),
        ("after the deadline", "abc", set()),
        ("after the deadline", "b", {"fold_divergence"}),
    ],
)
def test_a_text_that_may_be_cut_is_no_difference(way: str, whole: str, anomalies: set[str]) -> None:
    stream = opened()
    stream.delta("ab")
    if way == "after the deadline":
        one(stream.pass_s(110))
    item = {"type": "message", "id": "i0", "content": [{"type": "output_text", "text": whole}]}
    ended: dict[str, Any] = {"type": "response.completed", "response": {"id": KEY, "output": [item]}}
    if way in ("in the stream", "after a gap"):
        ended["sequence_number"] = stream.number + (way == "after a gap")
    effect = one(stream.put(text(ended)))
    assert set(effect.anomalies) == anomalies
    assert text_of(effect) == whole


# --- halves of surrogate pairs ---------------------------------------------------------------------------------------


def halved(value: dict[str, Any]) -> bytes:
    return json.dumps(value).replace("HALF", "\\ud83d").encode()


HALVES: dict[str, list[dict[str, Any]]] = {
    "delta": [{"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "HALF"}],
    "text done": [{"type": "response.output_text.done", "output_index": 0, "content_index": 0, "text": "HALF"}],
    "part": [{"type": "response.content_part.added", "output_index": 0, "content_index": 0, "part": {"x": "HALF"}}],
    "item": [{"type": "response.output_item.done", "output_index": 0, "item": {"type": "message", "x": "HALF"}}],
    "metadata": [{"type": "response.in_progress", "response": {"id": KEY, "metadata": {"a": "HALF"}}}],
    "end": [{"type": "response.completed", "response": {"id": KEY, "output": [{"type": "message", "x": "HALF"}]}}],
    "failed": [{"type": "response.failed", "response": {"id": KEY, "error": {"message": "HALF"}}}],
    "error": [{"type": "error", "error": {"message": "HALF"}}],
    "elsewhere": [{"type": "response.in_progress", "response": {"id": KEY, "instructions": "HALF"}}],
    "other item": [
        {"type": "response.output_item.done", "output_index": 0, "item": {"type": "message", "x": 1}},
        {"type": "response.completed", "response": {"id": KEY, "output": [{"type": "message", "x": "HALF"}]}},
    ],
}


@pytest.mark.parametrize("where", HALVES)
def test_half_a_surrogate_pair_is_said_by_the_step_that_has_it(where: str) -> None:
    stream = opened()
    effects: list[Effect] = []
    for event in HALVES[where]:
        effects += stream.put(halved(event | {"sequence_number": stream.number}))
        stream.number += 1
    kept = {e.key: e.value for e in stream.state.checkpoint(1 << 40) if isinstance(e, Checkpoint) and e.value}
    if not effects:  # and after a restart
        restored = PartitionState("source", 3, RULES, next_offset=stream.state.next_offset, stream_time=stream.at_ms)
        restored.load(kept.items())
        late = LogRecord(restored.next_offset, stream.at_ms + 200_000, b"x", None, ())
        effects = [e for e in restored.apply([late]) if not isinstance(e, Checkpoint)]
    assert not any(isinstance(effect, DeadLetter) for effect in effects)
    effect = one(effects)
    says = where not in ("elsewhere", "other item")
    assert ("replaced_half" in effect.anomalies) is says
    assert ("\ufffd".encode() in effect.value) is says
