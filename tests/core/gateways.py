"""Faults that gateways have: what each does to the events of a well-formed stream."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from hypothesis import strategies as st

from tests.core.wellformed_responses import Stream, streams

Event = dict[str, Any]
NUMBERS = ("right", "same", "deltas", "kinds", "anew", "some", "float", "digits", "end")
INDEXES = ("right", "none", "none in texts", "same", "float", "digits", "null")


def _kinds(draw: st.DrawFn, events: list[Event]) -> set[str]:
    """Some kinds of events: of those that change items, and the end."""
    of_items = {event["type"] for event in events if "item" in event or "delta" in event or "part" in event}
    return draw(st.sets(st.sampled_from(sorted(of_items | {events[-1]["type"]})), min_size=1))


def misnumber(draw: st.DrawFn, events: list[Event], fault: str) -> None:
    """Number the events as a gateway does that has this fault."""
    for number, event in enumerate(events):
        event["sequence_number"] = number
    kinds = _kinds(draw, events)
    same, anew = draw(st.sampled_from([0, 1, 7])), -1
    for event in events:
        number = event["sequence_number"]
        if fault == "same":
            event["sequence_number"] = same
        elif (fault == "deltas" and event["type"].endswith(".delta")) or (fault == "kinds" and event["type"] in kinds):
            event["sequence_number"] = 0
        elif fault == "anew":
            anew = 0 if event["type"] == "response.output_item.added" else anew + 1
            event["sequence_number"] = anew
        elif fault == "some" and event["type"] in kinds:
            del event["sequence_number"]
        elif fault == "float":
            event["sequence_number"] = float(number)
        elif fault == "digits":
            event["sequence_number"] = str(number)
        elif fault == "end" and event is events[-1]:
            event["sequence_number"] = draw(st.integers(0, number))


def misplace(events: list[Event], fault: str) -> None:
    """Give the events the `output_index` that they have from a gateway with this fault."""
    names = {event["output_index"]: event["item"]["id"] for event in events if event.get("item")}
    for event in events:
        index = event.get("output_index")
        if index is None:
            continue
        if "item" not in event:
            event.setdefault("item_id", names.get(index))
        if fault == "none" or (fault == "none in texts" and "item" not in event):
            del event["output_index"]
        elif fault in ("same", "float", "digits", "null"):
            event["output_index"] = {"same": 0, "float": float(index), "digits": str(index), "null": None}[fault]


@st.composite
def faulty(draw: st.DrawFn, key: str = "resp_1") -> tuple[Stream, list[Event]]:
    """A well-formed stream, and its events as a gateway sends them."""
    stream = draw(streams(key).filter(lambda found: all(item.is_added for item in found.items.values())))
    numbers, indexes = draw(st.sampled_from(NUMBERS)), draw(st.sampled_from(INDEXES))
    events = [event for event in deepcopy(stream.events) if event.get("item", 1) is not None]
    left_out: set[str] = set()
    if draw(st.booleans()):
        left_out |= {"response.content_part.added", "response.reasoning_summary_part.added"}
    # Where numbers come again, the first event has to be none of an item: nothing tells its number from theirs.
    if numbers not in ("same", "deltas", "kinds", "anew") and draw(st.booleans()):
        left_out |= {"response.created", "response.queued", "keepalive"}
    events = [event for event in events if event["type"] not in left_out]
    misnumber(draw, events, numbers)
    misplace(events, indexes)
    for name in draw(st.sets(st.sampled_from(["content_index", "annotation_index"]))):
        if all(event.get("content_index", 0) == 0 for event in events):
            for event in events:
                event.pop(name, None)
    if draw(st.booleans()):
        events[-1]["type"] = "response.done"
    return stream, events
