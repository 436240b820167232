"""The contracts for readers against those of the last release (`tests/contracts/released`): nothing they may rely on
has gone or become wider (docs/contracts/README.md, "What may change").
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from processor.contracts.asyncapi import asyncapi
from processor.contracts.snapshot import snapshot_schema
from processor.core.headers import REASON

RELEASED: Final = Path(__file__).parents[1] / "contracts" / "released"
MAY_GROW: Final = frozenset({REASON})
"""Headers whose list of values may become longer: a reader must take values that it does not know."""

Document = dict[str, Any]


def released(name: str) -> Document:
    loaded: Document = json.loads((RELEASED / name).read_text("utf-8"))
    return loaded


def breaks_of_object(where: str, old: Document, new: Document) -> Iterator[str]:
    """What a reader of an object of the old schema may trip over in one of the new: one line each."""
    for name in old.get("required", ()):
        if name not in new.get("required", ()):
            yield f"{where}: {name} is no longer always there"
    for name, was in old.get("properties", {}).items():
        now = new.get("properties", {}).get(name)
        if now is None:
            yield f"{where}: {name} is gone"
        else:
            yield from _breaks_of_value(f"{where}: {name}", was, now, may_grow=name in MAY_GROW)


def _breaks_of_value(where: str, old: Document, new: Document, *, may_grow: bool) -> Iterator[str]:
    for keyword in ("type", "pattern"):
        if keyword in old and new.get(keyword) != old[keyword]:
            yield f"{where}: {keyword} was {old[keyword]}, is {new.get(keyword)}"
    if "enum" in old:
        was, now = set(old["enum"]), set(new.get("enum", ()))
        if gone := was - now:
            yield f"{where}: no longer {', '.join(sorted(gone))}"
        if (more := now - was) and not may_grow:
            yield f"{where}: also {', '.join(sorted(more))}"
    for keyword, is_wider in (("maxLength", int.__gt__), ("minLength", int.__lt__)):
        if keyword in old and (keyword not in new or is_wider(new[keyword], old[keyword])):
            yield f"{where}: {keyword} was {old[keyword]}, is {new.get(keyword)}"


def breaks_of_topics(old: Document, new: Document) -> Iterator[str]:
    """The same of two AsyncAPI documents: channels, operations, headers, payloads; and what producers must send."""
    for part, fields in (("channels", ("address", "messages")), ("operations", ("action", "channel"))):
        for name, was in old[part].items():
            now = new[part].get(name, {})
            for field in fields:
                if now.get(field) != was[field]:
                    yield f"{part}: {name}: {field} was {was[field]}, is {now.get(field)}"
    messages = new["components"]["messages"]
    for name, was in old["components"]["messages"].items():
        now = messages.get(name)
        if now is None:
            yield f"messages: {name} is gone"
            continue
        if now["contentType"] != was["contentType"]:
            yield f"messages: {name}: contentType was {was['contentType']}, is {now['contentType']}"
        yield from breaks_of_object(f"messages: {name}: headers", was["headers"], now["headers"])
        yield from breaks_of_object(f"messages: {name}: payload", was["payload"], now["payload"])
    asked = set(messages["event"]["headers"].get("required", ()))
    for name in sorted(asked - set(old["components"]["messages"]["event"]["headers"].get("required", ()))):
        yield f"messages: event: {name} must now be sent"


def test_published_steps_keep_the_contract_of_the_last_release() -> None:
    assert list(breaks_of_object("step", released("published-step.schema.json"), snapshot_schema())) == []


def test_topics_and_headers_keep_the_contract_of_the_last_release() -> None:
    assert list(breaks_of_topics(released("asyncapi.json"), asyncapi())) == []


def headers_of(document: Document, message: str) -> Document:
    found: Document = document["components"]["messages"][message]["headers"]
    return found


BREAKS: Final[dict[str, tuple[Callable[[Document], object], str]]] = {
    "a topic is renamed": (
        lambda d: d["channels"]["completed"].update(address="other"),
        "channels: completed: address was run-steps.completed, is other",
    ),
    "an operation is gone": (lambda d: d["operations"].pop("sendExpired"), "operations: sendExpired"),
    "a message is gone": (lambda d: d["components"]["messages"].pop("deadLetter"), "messages: deadLetter is gone"),
    "a header is gone": (
        lambda d: headers_of(d, "step")["properties"].pop("runstep-digest"),
        "messages: step: headers: runstep-digest is gone",
    ),
    "a header is optional": (
        lambda d: headers_of(d, "step")["required"].remove("runstep-revision"),
        "messages: step: headers: runstep-revision is no longer always there",
    ),
    "a pattern is wider": (
        lambda d: headers_of(d, "step")["properties"]["runstep-revision"].update(pattern="^-?[0-9]+$"),
        "runstep-revision: pattern was ^[0-9]+$, is ^-?[0-9]+$",
    ),
    "a value is new": (
        lambda d: headers_of(d, "step")["properties"]["runstep-inferred"]["enum"].append("clock"),
        "runstep-inferred: also clock",
    ),
    "a reason is gone": (
        lambda d: headers_of(d, "deadLetter")["properties"][REASON]["enum"].remove("not_json"),
        f"{REASON}: no longer not_json",
    ),
    "a status is new": (
        lambda d: d["components"]["messages"]["step"]["payload"]["properties"]["status"]["enum"].append("paused"),
        "status: also paused",
    ),
    "a key is gone": (
        lambda d: d["components"]["messages"]["step"]["payload"]["properties"].pop("metadata"),
        "payload: metadata is gone",
    ),
    "an id is longer": (
        lambda d: d["components"]["messages"]["step"]["payload"]["properties"]["id"].update(maxLength=1030),
        "id: maxLength was 1029, is 1030",
    ),
    "a producer must send more": (
        lambda d: headers_of(d, "event").update(required=["runstep-event-id"]),
        "event: runstep-event-id must now be sent",
    ),
}


@pytest.mark.parametrize("change", BREAKS)
def test_a_change_that_a_reader_trips_over_is_found(change: str) -> None:
    """Each kind of change by hand, so that the comparison itself is shown to see it."""
    spoil, said = BREAKS[change]
    spoilt = copy.deepcopy(asyncapi())
    spoil(spoilt)
    found = list(breaks_of_topics(asyncapi(), spoilt))
    assert found
    assert all(said in line or line.startswith(said) for line in found), found


def test_what_may_be_added_is_no_break() -> None:
    """A header, a key, a reason, a topic."""
    grown = copy.deepcopy(asyncapi())
    headers_of(grown, "step")["properties"]["runstep-new"] = {"type": "string"}
    headers_of(grown, "deadLetter")["properties"][REASON]["enum"].append("new_reason")
    grown["components"]["messages"]["step"]["payload"]["properties"]["usage"] = {}
    grown["channels"]["paused"] = {"address": "run-steps.paused", "messages": {}}
    assert list(breaks_of_topics(asyncapi(), grown)) == []
