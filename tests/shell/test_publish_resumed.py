"""Streams that were resumed and name their response only at their end: whose events they are is told by numbers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from processor.publish.event_keying import EventKeyer
from processor.publish.outgoing import Outgoing
from tests.shell.test_publish_responses import event, records, stream_of, whole

FIRST = whole("resp_1", "msg_1")
Events = list[dict[str, Any]]


def tail(item: str, begin: int, by: int) -> Events:
    """The rest of a stream of `resp_2` from this event on, its numbers moved."""
    events = whole("resp_2", item, created_at=8)[begin:]
    return [one | {"sequence_number": one["sequence_number"] + by} for one in events]


def keys_of(published: list[Outgoing], last: int) -> list[str]:
    return [(record.key or b"").decode() for record in published[-last:]]


@pytest.mark.parametrize("by", [1, 10])
def test_an_item_of_the_same_id_is_not_that_of_a_response_whose_numbers_do_not_fit(by: int) -> None:
    """Another event has the number; or it is behind the end."""
    published = records(stream_of(FIRST), stream_of(tail("msg_1", 3, by)))
    assert keys_of(published, 3) == ["resp_2"] * 3


def test_where_an_open_response_is_next_an_item_of_one_that_has_ended_waits_for_the_name() -> None:
    second = whole("resp_2", "msg_1", created_at=8)
    published = records(stream_of(FIRST), stream_of(second[:1]), stream_of(second[1:]))
    assert keys_of(published, 6) == ["resp_2"] * 6


def test_the_first_event_that_waits_has_to_fit_as_well() -> None:
    """The second would fit the response that was cut."""
    rest = tail("msg_1", 3, -1)
    published = records(
        stream_of(FIRST[:3]), stream_of([event("web_search_call.searching", 2, item_id="msg_1"), *rest[1:]])
    )
    assert keys_of(published, 3) == ["resp_2"] * 3


def test_the_rest_of_a_stream_is_of_the_response_that_was_retrieved_meanwhile() -> None:
    """It has ended, and not by a number: there may be higher ones."""
    retrieved = json.dumps(FIRST[-1]["response"]).encode()
    published = records(stream_of(FIRST[:3]), retrieved, stream_of(FIRST[3:5]))
    assert keys_of(published, 2) == ["resp_1"] * 2


def test_numbers_that_say_nothing_do_not_tell_items_apart() -> None:
    events = [one | {"sequence_number": 0} for one in FIRST]
    published = records(stream_of(events[:4]), stream_of(events[4:5]))
    assert keys_of(published, 1) == ["resp_1"]


def test_a_response_that_is_read_again_is_known_by_its_items() -> None:
    published = records(stream_of(FIRST), stream_of(FIRST[2:5]))
    assert len(published) == 6, "all of it came before"


@pytest.mark.parametrize("item", ["msg_1", "msg_2"])
def test_behind_an_end_in_the_same_input_another_stream_may_go_on(item: str) -> None:
    """Its numbers are those of other events, then the next one, then a higher one."""
    keyer = EventKeyer()
    published = records(stream_of([*FIRST, *tail(item, 2, 2)]), keyer=keyer)
    assert keys_of(published, 4) == ["resp_2"] * 4
    assert not keyer.refusals


def test_behind_an_end_in_the_same_input_the_next_number_is_of_the_same_response() -> None:
    late = event("output_item.done", 6, output_index=1, item={"id": "msg_9", "type": "message"})
    assert keys_of(records(stream_of([*FIRST, late])), 1) == ["resp_1"]
