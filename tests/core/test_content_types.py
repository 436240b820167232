"""Content types of records: only that of CloudEvents says how a value is read, the others cost nothing."""

from __future__ import annotations

from typing import Any

import pytest

from processor.core.event_headers import EVENT_ID, SPECIAL, plain_id
from processor.core.partition import PartitionState
from processor.core.run_steps import fold
from tests.core.scripted_log import Play, call, calls, refused, text
from tests.core.test_paths import USUAL, come_to_the_same

_ID = (EVENT_ID, b"e1")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("content-type", b"application/json"),
        ("Content-Type", b"text/event-stream; charset=utf-8"),
        ("content-type", b"application/cloudevent"),
        ("content-type", b""),
        ("content-type", None),
        ("contentType", b"application/cloudevents+json"),
    ],
)
def test_a_content_type_of_no_envelope_leaves_the_event_id_as_it_is(name: str, content: bytes | None) -> None:
    header: Any = (name, content)
    assert plain_id([header, _ID]) == plain_id([_ID, header]) == b"e1"
    assert plain_id([header]) is None


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("content-type", b"application/cloudevents+json"),
        ("CONTENT-TYPE", b"Application/CloudEvents-Batch+json; charset=utf-8"),
        ("ce_type", b"thread.run.step.delta"),
        ("Ce_id", b"1"),
        ("Runstep-Event-Id", b"other"),
    ],
)
def test_headers_of_an_envelope_are_told(name: str, content: bytes) -> None:
    assert plain_id([(name, content), _ID]) is SPECIAL
    assert plain_id([_ID, (name, content)]) is SPECIAL


_JSON = (("content-type", b"application/json"),)


@pytest.mark.skipif(hasattr(PartitionState, "__mypyc_attrs__"), reason="a compiled module calls its own functions")
def test_deltas_with_a_content_type_are_appended_without_decoding_them(monkeypatch: pytest.MonkeyPatch) -> None:
    play = Play()
    play.created(**USUAL)
    play.say("step.delta", calls(call(0, "", id="c", function={"name": "f"})))
    delta = text({"event": "thread.run.step.delta", "data": calls(call(0, "a"))})

    def never(*_: Any) -> Any:
        raise AssertionError("decoded")

    monkeypatch.setattr(fold, "decode", never)
    for _ in range(3):
        play.put(delta, headers=_JSON)
    monkeypatch.undo()
    entry = play.state.steps["s1"].materialise().snapshot()
    assert entry["step_details"]["tool_calls"][0]["function"]["arguments"] == "aaa"
    come_to_the_same(play.log)


@pytest.mark.parametrize("headers", [(), _JSON, (("Content-Type", b""),), (("ce_id", b"1"),)])
@pytest.mark.parametrize("value", [b'{"event":"thread.message.delta","data":{}}', b'{"event":"thread.message.delta",'])
def test_a_message_with_a_content_type_is_read_before_it_is_ignored(value: bytes, headers: Any) -> None:
    """As before there was a way around it: one that is no JSON is a dead letter, unless its headers say nothing."""
    play = Play()
    came = play.put(value, headers=headers)
    if headers and not value.endswith(b"}"):
        assert refused(came) == "not_json"
    else:
        assert not came
        assert play.state.counts["ignored"] == 1
    come_to_the_same(play.log)
