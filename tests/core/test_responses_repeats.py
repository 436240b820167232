"""Which event of a response is a repeat, and of which item it is: a case for each condition (docs/decisions/0033).

The records have no ids of events: numbers, indexes and ids of items are all there is.
"""

from __future__ import annotations

from typing import Any

import pytest

from processor.core.effects import DeadLetter, LogRecord, Publish
from processor.core.partition import PartitionState
from processor.core.responses.response import Response
from processor.core.rules import Rules
from processor.core.run_steps.fast_path import Paths
from tests.core.responses_log import item_in, snapshot, text

Event = dict[str, Any]
Told = dict[int, tuple[str, tuple[str, ...]]]
"""By the index of each step: its text, and its anomalies."""
CREATED: Event = {"type": "response.created", "response": {"id": "resp_1"}}
IN_PROGRESS: Event = {"type": "response.in_progress", "response": {"id": "resp_1"}}
ENDED: Event = {"type": "response.completed", "response": {"id": "resp_1", "output": []}}


def item(name: str, *, kind: str = "message", says: str | None = None) -> Event:
    held: Event = {"id": name} if name else {}
    if kind != "message":
        return {"type": kind, "arguments": says or "", **held}
    content = [] if says is None else [{"type": "output_text", "text": says}]
    return {"type": kind, "content": content, **held}


def added(index: int | None, name: str, **more: Any) -> Event:
    return {"type": "response.output_item.added", "output_index": index, "item": item(name, **more)}


def done(index: int | None, name: str, says: str, **more: Any) -> Event:
    return {"type": "response.output_item.done", "output_index": index, "item": item(name, says=says, **more)}


def piece(index: int | None, name: str, says: str, *, of: str = "output_text") -> Event:
    return {"type": f"response.{of}.delta", "output_index": index, "item_id": name, "delta": says}


def whole(index: int | None, name: str, says: str) -> Event:
    return {"type": "response.output_text.done", "output_index": index, "item_id": name, "text": says}


def at(number: int | None, event: Event) -> Event:
    return event | {"sequence_number": number}


def play(*events: Event) -> tuple[PartitionState, list[Any]]:
    """Fold them by both paths; one that says no number has that of its place."""
    state = PartitionState("t", 0, Rules(), paths=Paths.BOTH)
    values = [text({"sequence_number": number} | event) for number, event in enumerate(events)]
    effects = state.apply([LogRecord(n, 1_800_000_000_000, b"resp_1", value, ()) for n, value in enumerate(values)])
    return state, [effect for effect in effects if isinstance(effect, (Publish, DeadLetter))]


def told(*events: Event) -> Told:
    """The steps, each of which is published once; nothing is refused. `orphaned_by_run` is left out."""
    found: Told = {}
    for step in play(*events)[1]:
        assert isinstance(step, Publish), step
        index = int(step.step_id.rpartition(":")[2])
        assert (index in found, step.revision) == (False, 0), "nothing twice"
        held = item_in(snapshot(step))
        says = held["arguments"] if "arguments" in held else "".join(part["text"] for part in held.get("content", []))
        found[index] = (says, tuple(name for name in step.anomalies if name != "orphaned_by_run"))
    return found


# --- repeats ----------------------------------------------------------------------------------------------------------


def test_an_end_with_an_old_number_ends_the_response() -> None:
    events = (CREATED, IN_PROGRESS, added(0, "m"), piece(0, "m", "ab"))
    assert told(*events, at(1, ENDED)) == {0: ("ab", ())}
    error = {"type": "error", "error": {"message": "boom"}}
    assert told(*events, at(1, error)) == {0: ("ab", ())}


def test_an_end_that_comes_again_is_a_repeat() -> None:
    for end in (ENDED, {"type": "error", "error": {"message": "boom"}}):
        state, effects = play(CREATED, added(0, "m"), piece(0, "m", "ab"), end, at(3, end))
        assert len(effects) == 1
        assert state.counts["duplicate"] == 1


def test_a_lifecycle_event_that_comes_again_is_no_event_without_a_number() -> None:
    """Else it would pass for the number that is missing."""
    events = [CREATED, IN_PROGRESS, added(0, "m"), piece(0, "m", "ab"), at(1, IN_PROGRESS), at(5, ENDED)]
    assert told(*events) == {0: ("ab", ("sequence_gap",))}


def test_a_text_that_begins_to_count_below_its_item_is_news() -> None:
    events = [CREATED, IN_PROGRESS, added(0, "m"), at(0, piece(0, "m", "a")), at(0, piece(0, "m", "b"))]
    assert told(*events, at(3, done(0, "m", "ab"))) == {0: ("ab", ())}


def test_an_item_that_is_open_has_not_been_done() -> None:
    events = [CREATED, added(0, "m"), piece(0, "m", "a"), piece(0, "m", "b"), at(2, done(0, "m", "ab"))]
    assert told(*events) == {0: ("ab", ())}


def test_an_item_without_an_id_begins_whatever_its_number_where_none_has_its_index() -> None:
    events = [CREATED, IN_PROGRESS, at(0, added(0, "")), at(2, piece(0, "", "ab")), at(3, done(0, "", "ab"))]
    assert told(*events) == {0: ("ab", ())}


def test_an_item_without_an_index_begins_whatever_its_number_where_none_has_its_id() -> None:
    events = [
        CREATED,
        IN_PROGRESS,
        at(0, added(None, "m")),
        at(2, piece(None, "m", "ab")),
        at(3, done(None, "m", "ab")),
    ]
    assert told(*events) == {0: ("ab", ())}


def test_an_item_that_says_neither_index_nor_id_is_done_once() -> None:
    events = [CREATED, added(None, ""), piece(None, "", "ab"), done(None, "", "ab"), IN_PROGRESS]
    assert told(*events, at(3, done(None, "", "ab"))) == {0: ("ab", ())}


def test_an_item_that_says_neither_index_nor_id_is_done_once_where_it_comes_again_at_once() -> None:
    events = [CREATED, added(None, ""), piece(None, "", "ab"), done(None, "", "ab")]
    assert told(*events, at(3, done(None, "", "ab"))) == {0: ("ab", ())}


def test_one_number_on_texts_of_two_types_says_nothing_where_they_say_neither_index_nor_id() -> None:
    arguments = {"type": "response.function_call_arguments.done", "arguments": "{}"}
    events = [CREATED, added(0, "m"), added(1, "f", kind=CALL), whole(None, "", "a"), at(3, arguments), at(4, ENDED)]
    assert told(*events) == {0: ("a", ()), 1: ("{}", ())}


def test_of_an_item_that_was_done_nothing_is_kept_of_what_led_to_its_end() -> None:
    """It would be in every checkpoint of its response, which may stay open for long."""
    state, _ = play(CREATED, added(0, "a"), piece(0, "a", "x"), whole(0, "a", "x"), done(0, "a", "x"))
    (response,) = [entry.peek() for entry in state.steps.values()]
    assert isinstance(response, Response)
    kept = response.items[0]
    assert (kept.texts, kept.parts, kept.wholes) == ({}, {}, set())


def test_a_repeat_that_nothing_places_any_more_is_one() -> None:
    """The id rotates, and a second message is open by now."""
    for first in (piece(None, "x", "ab"), whole(None, "x", "ab")):
        events = [CREATED, added(0, "m"), first, at(None, added(1, "n")), at(3, piece(1, "n", "c")), at(2, first)]
        state, effects = play(*events)
        assert (effects, state.counts["duplicate"]) == ([], 1)


def test_one_number_on_two_kinds_of_events_says_nothing() -> None:
    part = {"type": "response.content_part.added", "output_index": 0, "part": {"type": "output_text", "text": ""}}
    events = [CREATED, added(0, "m"), part, at(2, piece(0, "m", "ab")), at(3, ENDED)]
    assert told(*events) == {0: ("ab", ())}
    events = [CREATED, added(0, "m"), piece(0, "m", "ab"), at(2, whole(0, "m", "abc")), at(3, ENDED)]
    assert told(*events) == {0: ("abc", ("fold_divergence",))}


def test_one_number_on_events_of_two_items_says_nothing() -> None:
    for say in (piece, whole):
        events = [CREATED, added(0, "m"), added(1, "n"), say(0, "m", "a"), at(3, say(1, "n", "b")), at(4, ENDED)]
        assert told(*events) == {0: ("a", ()), 1: ("b", ())}


def test_one_number_on_two_lifecycle_events_says_nothing_where_a_stream_begins_with_one() -> None:
    more = IN_PROGRESS | {"response": {"id": "resp_1", "model": "m"}}
    (step,) = play(CREATED, at(0, more), at(1, added(0, "m")), at(2, done(0, "m", "")))[1]
    assert snapshot(step)["assistant_id"] == "m"


def test_another_item_that_begins_with_a_number_of_the_first_is_news() -> None:
    events = [CREATED, added(0, "m"), piece(0, "m", "a"), done(0, "m", "a"), at(2, added(0, "n"))]
    assert told(*events, at(4, piece(0, "n", "b")), at(5, done(0, "n", "b"))) == {0: ("a", ()), 1: ("b", ())}


def test_the_beginning_of_an_item_that_a_text_began_is_a_repeat_when_it_comes_again() -> None:
    first = at(None, piece(0, "m", "a"))
    events = [CREATED, first, at(1, IN_PROGRESS), at(2, added(0, "m")), at(3, piece(0, "m", "b")), at(2, added(0, "m"))]
    assert play(*events)[0].counts["duplicate"] == 1


# --- placing ----------------------------------------------------------------------------------------------------------


def test_a_lifecycle_event_is_of_no_item() -> None:
    """It is told from a repeat by its number, wherever items stand."""
    events = [CREATED, added(0, "m"), added(0, "n"), done(0, "n", ""), IN_PROGRESS, at(4, IN_PROGRESS)]
    assert told(*events, at(6, done(0, "m", ""))) == {1: ("", ()), 0: ("", ("sequence_gap",))}


def test_an_index_that_an_item_has_says_more_than_an_id() -> None:
    events = [CREATED, added(0, "m"), added(1, "n"), piece(0, "n", "a"), piece(1, "m", "b"), ENDED]
    assert told(*events) == {0: ("a", ()), 1: ("b", ())}


def test_an_index_that_no_item_has_begins_one() -> None:
    """Where the event has no id, that of an item that has ended, of an item of another type, or of several."""
    midstream = ("joined_midstream",)
    assert told(CREATED, piece(0, "", "a"), piece(1, "", "b"), ENDED) == {0: ("a", midstream), 1: ("b", midstream)}
    assert told(CREATED, added(0, "x"), added(1, "x"), piece(1, "x", "b"), ENDED) == {0: ("", ()), 1: ("b", ())}
    assert told(CREATED, done(0, "x", "a"), piece(1, "x", "b"), ENDED)[1] == ("b", midstream)
    assert told(CREATED, added(0, "m"), piece(1, "x", "b"), ENDED) == {0: ("", ()), 1: ("b", midstream)}
    arguments = piece(1, "x", "{}", of="function_call_arguments")
    assert told(CREATED, added(0, "x"), arguments, ENDED) == {0: ("", ()), 1: ("{}", midstream)}
    events = [CREATED, added(0, "x"), added(1, "x"), piece(2, "x", "b"), ENDED]
    assert told(*events) == {0: ("", ()), 1: ("", ()), 2: ("b", midstream)}


def test_behind_the_end_of_a_response_no_item_begins_anew() -> None:
    """A second reading may have other ids."""
    again = (at(None, added(0, "other")), at(None, piece(0, "other", "a")))
    assert told(CREATED, added(0, "m"), piece(0, "m", "a"), done(0, "m", "a"), ENDED, *again) == {0: ("a", ())}


def test_an_id_is_not_another_where_one_of_the_two_is_missing() -> None:
    """Nor is the same one; and an item that is open has not ended."""
    events = [CREATED, added(0, "m"), at(None, added(0, "m")), at(2, added(0, "")), piece(0, "m", "a"), ENDED]
    assert told(*(events[:3] + [at(n, event) for n, event in enumerate(events[3:], 2)])) == {0: ("a", ())}
    assert told(CREATED, piece(0, "", "a"), added(0, "m"), ENDED) == {0: ("a", ("joined_midstream",))}
    last = done(0, "m", "a")
    assert told(CREATED, added(0, "m"), last, at(None, last), at(3, ENDED)) == {0: ("a", ())}


def test_ids_that_rotate_are_no_other_items() -> None:
    events = [CREATED, added(0, "m"), done(0, "x", "a"), at(None, added(0, "y")), ENDED]
    assert told(*events) == {0: ("a", ())}
    assert told(CREATED, added(0, "m"), done(0, "m", "a"), piece(0, "x", "b"), ENDED) == {0: ("a", ())}


@pytest.mark.parametrize("first", [added(0, "m"), piece(0, "", "a")])
@pytest.mark.parametrize("then", [added(0, "m"), whole(0, "", "a"), piece(0, "x", "")])
def test_ids_do_not_rotate_where_one_is_missing_or_is_that_of_a_text(first: Event, then: Event) -> None:
    events = [CREATED, first, then, added(0, "m"), added(0, "n"), piece(0, "n", "b"), ENDED]
    assert {index: says for index, (says, _) in told(*events).items()}[1] == "b"


def test_an_item_of_another_id_that_is_done_behind_one_that_was_done_is_another() -> None:
    midstream = ("joined_midstream",)
    assert told(CREATED, done(0, "m", "a"), done(0, "n", "b")) == {0: ("a", midstream), 1: ("b", midstream)}


def test_what_is_done_again_without_an_id_is_an_amendment() -> None:
    effects = play(CREATED, done(0, "m", "a"), done(0, "", "b"))[1]
    assert [(step.step_id, step.revision) for step in effects] == [("resp_1:0", 0), ("resp_1:0", 1)]


def test_the_beginning_of_an_item_that_has_ended_is_no_news_where_its_number_is_none() -> None:
    gap = ("joined_midstream", "sequence_gap")
    assert told(CREATED, at(2, done(0, "", "a")), at(1, added(0, "")), ENDED) == {0: ("a", gap)}
    assert told(CREATED, added(0, "m"), done(0, "m", "a"), at(None, added(0, "")), ENDED) == {0: ("a", ())}


# --- events that do not say their index -------------------------------------------------------------------------------

CALL = "function_call"
ARGUMENTS = "function_call_arguments"


def test_an_item_without_an_index_is_known_by_the_number_that_it_began_with() -> None:
    """It may have lost its id when it was done. Another id is another item."""
    events = [CREATED, added(None, "m"), done(None, "", "a"), at(1, added(None, "m")), at(3, ENDED)]
    assert told(*events) == {0: ("a", ())}
    events = [CREATED, added(None, "m"), at(1, added(None, "n")), at(2, piece(None, "n", "b")), at(3, ENDED)]
    assert told(*events) == {0: ("", ()), 1: ("b", ())}


def test_an_item_without_an_index_that_begins_again_is_known_by_its_id() -> None:
    assert told(CREATED, added(None, "m"), at(None, added(None, "m")), at(2, ENDED)) == {0: ("", ())}
    events = [CREATED, added(None, ""), added(None, "", kind=CALL), piece(None, "", "{}", of=ARGUMENTS), ENDED]
    assert told(*events) == {0: ("", ()), 1: ("{}", ())}
    assert told(CREATED, added(None, ""), added(None, ""), ENDED) == {0: ("", ()), 1: ("", ())}


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("names", [("", "f", ""), ("x", "x", "x")])
def test_a_text_without_an_index_is_of_the_item_of_its_type_where_its_id_does_not_tell(
    names: tuple[str, str, str], turned: bool
) -> None:
    begun = [added(0, names[0]), added(1, names[1], kind=CALL)]
    if turned:
        begun = [added(0, names[1], kind=CALL), added(1, names[0])]
    events = [CREATED, *begun, piece(None, names[2], "{}", of=ARGUMENTS), ENDED]
    assert told(*events)[0 if turned else 1] == ("{}", ())


def test_a_text_without_an_index_is_of_the_item_of_its_id() -> None:
    """Also of one that has ended: it adds nothing to that which is open."""
    events = [CREATED, added(0, "m"), added(1, "n"), piece(None, "m", "a"), ENDED]
    assert told(*events) == {0: ("a", ()), 1: ("", ())}
    events = [CREATED, added(0, "m"), done(0, "m", "a"), added(1, "n"), piece(None, "m", "a"), ENDED]
    assert told(*events) == {0: ("a", ()), 1: ("", ())}
    events = [CREATED, added(0, ""), done(1, "", "b"), piece(None, "", "a"), ENDED]
    assert told(*events) == {0: ("a", ()), 1: ("b", ("joined_midstream",))}


@pytest.mark.parametrize("index", [None, 0])
@pytest.mark.parametrize("last", ["delta", "done"])
def test_the_output_of_a_shell_call_is_of_the_item_of_its_id_where_its_index_does_not_tell(
    index: int | None, last: str
) -> None:
    """Services do not name the item in these events; gateways that leave the index out do."""
    output = [{"stdout": "ab"}] if last == "done" else {"stdout": "ab"}
    says: Event = {"type": f"response.shell_call_output_content.{last}", "output_index": index, "command_index": 0}
    says |= {"item_id": "m", "output" if last == "done" else "delta": output}
    begun = [added(index, name) | {"item": {"type": "shell_call_output", "id": name}} for name in "mn"]
    steps = play(CREATED, *begun, says, ENDED)[1]
    assert [item_in(snapshot(step)).get("output") for step in steps] == [[{"stdout": "ab"}], None]


def test_where_no_item_is_open_what_has_an_id_or_is_done_is_another() -> None:
    midstream = ("joined_midstream",)
    begun = (CREATED, added(0, "m"), done(0, "m", "a"))
    assert told(*begun, piece(None, "n", "b"), ENDED) == {0: ("a", ()), 1: ("b", midstream)}
    assert told(*begun, done(None, "", "b")) == {0: ("a", ()), 1: ("b", midstream)}
    assert told(*begun, piece(None, "", "b"), ENDED) == {0: ("a", ())}


def test_an_event_without_an_index_fits_an_item_where_either_says_no_type() -> None:
    bare = {"type": "response.output_item.added", "output_index": 0, "item": {"id": "m"}}
    assert told(CREATED, bare, piece(None, "", "a"), done(None, "x", "a")) == {0: ("a", ())}
    assert told(CREATED, bare, done(None, "x", "a")) == {0: ("a", ())}
    untyped: Event = {"type": "response.output_item.done", "output_index": None, "item": {"content": []}}
    assert told(CREATED, added(0, "m"), untyped) == {0: ("", ("changed_field",))}
    nothing = {"type": "response.output_item.done", "output_index": None}
    assert told(CREATED, added(0, "m"), piece(0, "m", "a"), nothing) == {0: ("a", ())}


# --- items of one index -----------------------------------------------------------------------------------------------


def test_beside_items_of_one_index_another_index_stands() -> None:
    events = [CREATED, added(0, "m"), added(0, "n"), piece(5, "z", "c"), piece(1, "y", "d"), ENDED]
    midstream = ("joined_midstream",)
    assert told(*events) == {0: ("", ()), 1: ("", ()), 5: ("c", midstream), 6: ("d", midstream)}


def test_a_text_without_an_id_is_of_the_last_open_item_of_its_index() -> None:
    two = (CREATED, added(0, "m"), added(0, "n"))
    assert told(*two, piece(0, "", "b"), ENDED) == {0: ("", ()), 1: ("b", ())}
    assert told(*two, at(0, piece(0, "", "b")), at(3, ENDED)) == {0: ("", ()), 1: ("b", ())}
    assert told(*two, done(0, "n", ""), piece(0, "", "a"), ENDED) == {1: ("", ()), 0: ("a", ())}
    ended = (*two, done(0, "n", ""), done(0, "m", ""))
    assert told(*ended, piece(0, "", "c")) == {1: ("", ()), 0: ("", ())}
    events = [CREATED, done(0, "", "a"), added(0, "n"), piece(0, "", "b"), ENDED]
    assert told(*events) == {0: ("a", ("joined_midstream",)), 1: ("b", ())}


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("names", [("", ""), ("m", "n")])
def test_an_event_without_an_id_is_of_the_open_item_of_its_index_that_has_its_type(
    names: tuple[str, str], turned: bool
) -> None:
    begun = [added(0, names[0]), added(0, names[1], kind=CALL)]
    pieces = [piece(0, "", "a"), piece(0, "", "{}", of=ARGUMENTS)]
    if turned:
        begun.reverse()
    expected = {int(turned): ("a", ()), int(not turned): ("{}", ())}
    assert told(CREATED, *begun, *pieces, ENDED) == expected
    again = [at(3, pieces[0]), at(4, pieces[1])]
    assert told(CREATED, *begun, *pieces, *again, at(5, ENDED)) == expected
    ends = [done(0, "", "a"), done(0, "", "{}", kind=CALL)]
    assert told(CREATED, *begun, *pieces, *ends) == expected


def test_the_beginning_of_an_item_of_another_type_is_no_repeat_of_the_open_one_unless_it_comes_again() -> None:
    begun = (CREATED, added(0, ""), added(0, "", kind=CALL))
    assert play(*begun, at(2, begun[2]), at(1, begun[1]))[0].counts["duplicate"] == 2
    assert told(*begun, at(2, begun[2]), at(1, begun[1]), at(3, ENDED)) == {0: ("", ()), 1: ("", ())}


def test_an_item_of_another_type_that_is_done_is_not_the_open_one_unless_it_has_its_id() -> None:
    begun = (CREATED, added(0, ""), piece(0, "", "a"))
    events = (*begun, done(0, "", "{}", kind=CALL), ENDED)
    assert told(*events) == {1: ("{}", ("joined_midstream",)), 0: ("a", ())}
    assert told(CREATED, added(0, "m"), done(0, "m", "{}", kind=CALL), ENDED) == {0: ("{}", ("changed_field",))}


def test_a_text_that_comes_again_is_of_the_item_that_its_index_was_of() -> None:
    first = piece(0, "", "a")
    events = [CREATED, added(0, "m"), first, done(0, "m", "a"), added(0, "n"), piece(0, "", "b"), at(2, first)]
    assert told(*events, at(6, ENDED)) == {0: ("a", ()), 1: ("b", ())}


# --- numbers ----------------------------------------------------------------------------------------------------------


def test_an_id_that_is_made_of_a_number_that_says_nothing_says_nothing() -> None:
    """Any other one tells a repeat."""
    for ids, says in ((("resp_1:0", "resp_1:0"), "aa"), (("x", "y"), "aa"), (("x", "x"), "a")):
        state = PartitionState("t", 0, Rules(), paths=Paths.BOTH)
        zero = [at(0, piece(0, "m", "a"))] * 2
        events = [at(0, CREATED), at(1, added(0, "m")), *zero, at(2, ENDED)]
        named = ["resp_1:0", "resp_1:1", *ids, "resp_1:2"]
        log = [
            LogRecord(n, 1_800_000_000_000, b"resp_1", text(event), (("runstep-event-id", name.encode()),))
            for n, (event, name) in enumerate(zip(events, named, strict=True))
        ]
        (step,) = [effect for effect in state.apply(log) if isinstance(effect, Publish)]
        assert item_in(snapshot(step))["content"][0]["text"] == says


def test_a_text_whose_number_says_nothing_does_not_let_a_late_one_in() -> None:
    events = [CREATED, added(0, "m"), piece(0, "m", "a"), at(4, piece(0, "m", "c")), at(0, piece(0, "m", "d"))]
    events += [at(3, piece(0, "m", "b")), at(5, ENDED)]
    assert told(*events) == {0: ("acd", ("sequence_gap",))}


def test_a_beginning_that_came_late_is_a_repeat_when_it_comes_again() -> None:
    late = at(1, added(0, "m"))
    assert play(CREATED, at(2, piece(0, "m", "a")), late, late)[0].counts["duplicate"] == 1


def test_a_number_is_that_of_the_last_event_also_where_a_late_one_came() -> None:
    events = [CREATED, added(0, "m"), at(3, whole(0, "m", "a")), at(2, IN_PROGRESS), at(3, piece(0, "m", "b"))]
    assert told(*events, at(4, ENDED)) == {0: ("ab", ("sequence_gap",))}


def test_an_item_that_begins_without_a_number_takes_texts_that_count_from_zero() -> None:
    events = [CREATED, IN_PROGRESS, at(None, added(0, "m")), at(0, piece(0, "m", "a")), at(0, piece(0, "m", "b"))]
    assert told(*events, at(2, ENDED)) == {0: ("ab", ())}


def test_events_without_a_number_stand_for_those_that_are_missing_since_the_last() -> None:
    events = [at(None, added(0, "m")), at(None, piece(0, "m", "a")), at(None, piece(0, "m", "b"))]
    assert told(*events, ENDED) == {0: ("ab", ())}
    events = [CREATED, at(None, added(0, "m")), at(1, piece(0, "m", "a")), at(3, piece(0, "m", "b")), at(4, ENDED)]
    assert told(*events) == {0: ("ab", ("sequence_gap",))}
    events = [CREATED, added(0, "m"), at(3, done(0, "m", "")), at(4, added(1, "n")), at(None, piece(1, "n", "a"))]
    events += [at(2, IN_PROGRESS), at(6, piece(1, "n", "b")), at(7, done(1, "n", "ab"))]
    assert told(*events) == {0: ("", ("sequence_gap",)), 1: ("ab", ())}


def test_any_late_event_but_a_text_is_folded_behind_the_texts_that_came() -> None:
    events = [CREATED, added(0, "m"), piece(0, "m", "a"), at(4, piece(0, "m", "b")), at(3, done(0, "m", "ab"))]
    assert told(*events) == {0: ("ab", ("sequence_gap",))}


def test_where_one_event_has_no_number_a_text_that_the_end_completes_is_no_difference() -> None:
    end = {"type": "response.completed", "response": {"id": "resp_1", "output": [item("m", says="abc")]}}
    begun = (CREATED, added(0, "m"), piece(0, "m", "a"))
    assert told(*begun, end) == {0: ("abc", ("fold_divergence",))}
    assert told(*begun, at(None, piece(0, "m", "b")), at(3, end)) == {0: ("abc", ())}


def test_an_item_that_a_text_begins_has_the_id_that_the_text_says() -> None:
    (step,) = play(CREATED, piece(0, "m", "a"), ENDED)[1]
    assert item_in(snapshot(step))["id"] == "m"
