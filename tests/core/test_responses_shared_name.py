"""Two responses under one key or `runstep-run-id`: the second is set aside whole, and nothing of the first is lost."""

from __future__ import annotations

from typing import Any

import pytest

from processor.core.effects import Checkpoint, DeadLetter, Effect, LogRecord, Publish, Reason
from processor.core.partition import PartitionState
from processor.core.responses.response import Response
from processor.core.run_steps.fast_path import Paths
from tests.core.responses_log import RULES, STARTED_MS, item_in, snapshot, text

NAME = b"conv_1"
WHY = "two responses have one key or runstep-run-id, which must be the response's own id"
Event = dict[str, Any]


def response(which: int, **fields: Any) -> Event:
    return {"id": f"resp_{which}", "created_at": 1000 + which, "conversation": {"id": "conv_1"}, **fields}


def stream(which: int, says: str, *, end: bool = True) -> list[Event]:
    """A response with one message, a delta for each character."""
    part: Event = {"type": "output_text", "text": says}
    item: Event = {"type": "message", "id": f"msg_{which}"}
    where: Event = {"output_index": 0, "content_index": 0, "item_id": f"msg_{which}"}
    events: list[Event] = [
        {"type": "response.created", "response": response(which)},
        {"type": "response.in_progress", "response": response(which)},
        {"type": "response.output_item.added", "output_index": 0, "item": item},
        *({"type": "response.output_text.delta", **where, "delta": piece} for piece in says),
        {"type": "response.output_item.done", "output_index": 0, "item": {**item, "content": [part]}},
        {"type": "response.completed", "response": response(which, output=[{**item, "content": [part]}])},
    ]
    numbered = [{**event, "sequence_number": number} for number, event in enumerate(events)]
    return numbered if end else numbered[:-1]


class Log:
    """One partition, by both paths."""

    def __init__(self) -> None:
        self.state = PartitionState("t", 0, RULES, paths=Paths.BOTH)
        self.at_ms = STARTED_MS

    def put(self, *events: Event, headers: Any = (), key: bytes | None = NAME) -> list[Effect]:
        effects: list[Effect] = []
        for event in events:
            record = LogRecord(self.state.next_offset, self.at_ms, key, text(event), tuple(headers))
            effects += self.state.apply([record])
        return [effect for effect in effects if not isinstance(effect, Checkpoint)]


def texts(effects: list[Effect]) -> list[tuple[str, int, str, tuple[str, ...]]]:
    found = []
    for effect in effects:
        assert isinstance(effect, Publish), effect
        says = "".join(part["text"] for part in item_in(snapshot(effect))["content"])
        found.append((effect.step_id, effect.revision, says, effect.anomalies))
    return found


def are_refused(effects: list[Effect], count: int) -> bool:
    assert [type(effect) for effect in effects] == [DeadLetter] * count, effects
    return {(e.reason, e.detail) for e in effects if isinstance(e, DeadLetter)} == {(Reason.ILLEGAL_TRANSITION, WHY)}


@pytest.mark.parametrize(
    "named", [{"key": NAME}, {"key": b"k", "headers": [("runstep-run-id", NAME)]}], ids=["key", "header"]
)
@pytest.mark.parametrize("says", ["short", "longer than the first one"])
def test_the_second_one_is_set_aside_whole(says: str, named: Any) -> None:
    """Dropped as repeats where it is shorter, published as an amendment of the first where it is longer: as it was."""
    log = Log()
    first, second = stream(1, "the first one"), stream(2, says)
    assert texts(log.put(*first, **named)) == [("conv_1:0", 0, "the first one", ())]
    assert are_refused(log.put(*second, **named), len(second))
    assert log.state.counts["duplicate"] == 0
    again = log.put(first[1], first[-1], **named)
    assert again == [], "what says the first one's time is known again"
    assert log.state.counts["duplicate"] == 2


def test_two_at_once_are_not_mixed_and_the_first_one_s_end_brings_its_text() -> None:
    log = Log()
    first, second = stream(1, "the first one"), stream(2, "that")
    assert log.put(*first[:5]) == []
    assert are_refused(log.put(second[0]), 1)
    assert are_refused(log.put(first[5], *second[1:6], *first[6:-1]), len(first) - 1)
    ((step_id, revision, says, anomalies),) = texts(log.put(first[-1]))
    assert (step_id, revision, says) == ("conv_1:0", 0, "the first one")
    assert set(anomalies) == {"orphaned_by_run", "sequence_gap"}


def test_the_next_delta_of_a_shared_name_is_refused_by_the_fast_path_too() -> None:
    log = Log()
    first = stream(1, "the first one")
    log.put(*first[:7])
    assert are_refused(log.put(stream(2, "x")[0], first[7]), 2)


def test_what_a_second_one_says_of_its_progress_is_ignored_and_takes_no_number() -> None:
    log = Log()
    log.put(*stream(1, "one", end=False))
    log.put(stream(2, "x")[0])
    ping = {"type": "keepalive", "sequence_number": 50}
    progress = {"type": "response.web_search_call.searching", "output_index": 0, "item_id": "x", "sequence_number": 51}
    assert log.put(ping, progress) == []
    assert (log.state.counts["ignored"], log.state.counts["sequence_gap"]) == (2, 0)
    assert are_refused(log.put({"type": "error", "error": {"message": "boom"}, "sequence_number": 3}), 1)
    assert are_refused(log.put({"type": "response.brand_new", "sequence_number": 4}), 1)


def unnumbered(events: list[Event]) -> list[Event]:
    return [{name: value for name, value in event.items() if name != "sequence_number"} for event in events]


def test_without_numbers_it_is_known_by_what_came_before_it() -> None:
    for end in (True, False):
        log = Log()
        log.put(*unnumbered(stream(1, "one", end=end)))
        assert are_refused(log.put(*unnumbered(stream(2, "two"))), 8)
    log = Log()
    log.put(unnumbered(stream(1, "one"))[0], {"type": "response.completed", "response": response(1, output=[])})
    assert are_refused(log.put(unnumbered(stream(2, "two"))[0]), 1)


@pytest.mark.parametrize("numbers", [(0, 1), (None, None)])
def test_a_stream_may_begin_with_two_events_whose_time_differs(numbers: tuple[int | None, int | None]) -> None:
    """A gateway dates each event by its clock."""
    log = Log()
    begins = [
        {"type": "response.created", "response": response(1)},
        {"type": "response.queued", "response": response(2)},
    ]
    log.put(*({**event, "sequence_number": number} for event, number in zip(begins, numbers, strict=True)))
    assert len(texts(log.put(*unnumbered(stream(1, "one"))[2:]))) == 1


@pytest.mark.parametrize(
    "others", [{"created_at": 1001}, {"created_at": 1001.9}, {"created_at": None}, {"created_at": "1002"}]
)
def test_what_does_not_say_another_time_is_a_repeat(others: Event) -> None:
    """Ids that rotate decide nothing."""
    log = Log()
    first = stream(1, "one")
    log.put(*first)
    again = {**first[0], "response": response(2, **others)}
    assert log.put(again, *first[1:]) == []


def test_a_fraction_of_a_second_does_not_hide_another_time() -> None:
    log = Log()
    log.put(*stream(1, "one"))
    again = {**stream(2, "two")[0], "response": response(2, created_at=1002.5)}
    assert are_refused(log.put(again), 1)


def test_the_first_one_s_time_is_what_it_said_first() -> None:
    log = Log()
    first = stream(1, "one", end=False)
    first[1]["response"] = response(1, created_at=2000)
    log.put(*first)
    assert log.put(first[0]) == []
    assert are_refused(log.put(stream(2, "two")[0]), 1)


def test_two_that_begin_at_once_are_told_apart() -> None:
    log = Log()
    log.put(stream(1, "one")[0])
    assert are_refused(log.put(stream(2, "two")[0]), 1)


def test_the_first_one_may_say_its_time_late_or_never() -> None:
    first = stream(1, "one")
    log = Log()
    untimed = {**first[0], "response": response(1, created_at=None)}
    log.put(untimed, *first[1:])
    assert are_refused(log.put(stream(2, "x")[0]), 1)
    log = Log()
    log.put(*first[2:])  # its end alone says it
    assert are_refused(log.put(stream(2, "x")[0]), 1)
    log = Log()
    log.put(untimed, *first[2:-1])
    assert log.put(stream(2, "x")[0]) == []


def test_it_is_shared_until_the_first_one_is_forgotten() -> None:
    log = Log()
    log.put(*stream(1, "one"))
    log.at_ms += 15_000
    log.put(stream(2, "two")[0])
    log.at_ms += 15_000
    assert are_refused(log.put(stream(3, "three")[0]), 1)
    log.at_ms += (RULES.ended_retention_s + 1) * 1000
    assert texts(log.put(*stream(4, "four"))) == [("conv_1:0", 0, "four", ())]


def test_a_checkpoint_holds_it() -> None:
    held = Response("conv_1", 0, 0)
    assert (Response.unpack(held.pack()).created_s, Response.unpack(held.pack()).is_shared) == (None, False)
    held.created_s, held.is_shared, held.facts.mended = 7, True, True
    found = Response.unpack(held.pack())
    assert (found.created_s, found.is_shared, found.facts.mended) == (7, True, True)
