"""`publish` of Responses streams: key and event ids, however the stream is cut, resumed, re-sent, mixed or written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai import omit
from openai._models import construct_type
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import Response, ResponseStreamEvent

from processor.core.effects import DeadLetter, LogRecord, Publish
from processor.core.partition import PartitionState
from processor.core.rules import Rules
from processor.errors import UsageError
from processor.publish.command import response_sample_files
from processor.publish.event_keying import EventKeyer
from processor.publish.event_stream import EventStream
from processor.publish.outgoing import Outgoing
from processor.publish.publisher import RunPublisher
from tests.examples import examples
from tests.shell.test_publish import DONE, PART1, Collector, Terminal, collected, header, ids, sse

__all__ = ["collected"]

RECORDINGS = sorted((Path(__file__).parents[3] / "shared" / "fixtures" / "responses").glob("*.sse"))
SAMPLES = [path for path in response_sample_files() if path.suffix == ".sse"]
UNNUMBERED = {"openai-custom-tool.1", "openai_responses_stream.00", "openai_responses_stream.01"}
NOT_OF_HELPER = {
    "parallel-tool-call-wrapper.1",  # it wants `response.created` first
    "background_mode_streaming_starting_after_vcr.01",
    "github-copilot-id-rotation.1",  # and one id
}
NAMELESS = "parallel-tool-call-wrapper.1"


def records(*inputs: bytes, keyer: EventKeyer | None = None, chunk: int = 1 << 20) -> list[Outgoing]:
    """All records of some inputs, published one after the other by one process."""
    keyer = keyer or EventKeyer()
    out: list[Outgoing] = []
    for text in inputs:
        stream = EventStream(keyer)
        for start in range(0, len(text), chunk):
            out += stream.feed(text[start : start + chunk])
        out += stream.finish()
    return out


def data_of(text: bytes) -> list[str]:
    """The data of each event but the end mark, by splitting at blank lines: for well-behaved streams only."""
    frames = text.decode().replace("\r\n", "\n").split("\n\n")
    found = [line[6:] for frame in frames for line in frame.split("\n") if line.startswith("data: ")]
    return [data for data in found if data != "[DONE]"]


def event(kind: str, number: int | None = None, **fields: Any) -> dict[str, Any]:
    numbered = {} if number is None else {"sequence_number": number}
    return {"type": f"response.{kind}", **fields, **numbered}


def whole(
    name: str = "resp_1", item: str = "msg_1", numbered: bool = True, created_at: int = 7
) -> list[dict[str, Any]]:
    """A response with one message of two equal tokens."""
    response = {"id": name, "object": "response", "created_at": created_at, "model": "m", "status": "in_progress"}
    message = {"id": item, "type": "message", "status": "completed"}
    told = [
        event("created", response=response),
        event("output_item.added", output_index=0, item=message),
        event("output_text.delta", output_index=0, item_id=item, content_index=0, delta="a"),
        event("output_text.delta", output_index=0, item_id=item, content_index=0, delta="a"),
        event("output_item.done", output_index=0, item=message),
        event("completed", response=response | {"status": "completed", "output": [message]}),
    ]
    return [one | {"sequence_number": number} if numbered else one for number, one in enumerate(told)]


def stream_of(events: Sequence[dict[str, Any]]) -> bytes:
    return sse(*[(one["type"], one) for one in events])


def lines_of(events: Sequence[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(one).encode() + b"\n" for one in events)


def as_set(published: Sequence[Outgoing]) -> dict[bytes | None, Outgoing]:
    """By event id: what is left of it where repeats are dropped."""
    return {header(record, "runstep-event-id"): record for record in published}


# --- whole streams ---


def test_the_recordings_are_there() -> None:
    if not RECORDINGS:
        pytest.skip("no recordings")
    assert len(RECORDINGS) == 25


@pytest.mark.parametrize("path", [*RECORDINGS, *SAMPLES], ids=lambda path: path.stem)
def test_every_event_goes_out_under_its_response_with_its_bytes_unchanged(path: Path) -> None:
    text, keyer = path.read_bytes(), EventKeyer()
    expected = data_of(text)
    names = [json.loads(data)["response"]["id"] for data in expected if '"response":{' in data.replace(" ", "")[:9999]]
    published = records(text, keyer=keyer)
    assert [record.value.decode() for record in published] == expected
    key = names[0].encode() if path.stem != NAMELESS else published[0].key
    assert {record.key for record in published} == {key}
    assert {header(record, "runstep-run-id") for record in published} == {key}
    numbers = [json.loads(data).get("sequence_number") for data in expected]
    for record, number, place in zip(published, numbers, range(len(numbers)), strict=True):
        identity = header(record, "runstep-event-id") or b""
        assert identity == key + b":%d" % number if number is not None else len(identity) == 32
        assert header(record, "runstep-sequence") == b"%d" % (place if number is None else number)
    assert len(set(ids(published))) == len(expected)
    assert not keyer.refusals
    assert len(keyer.notes) == (path.stem == NAMELESS or path.stem.endswith(".part1"))


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_line_ends_blank_lines_and_one_byte_at_a_time_change_nothing(path: Path) -> None:
    text = path.read_bytes()
    expected = records(text)
    assert records(text.replace(b"\n", b"\r")) == expected
    assert records(text.replace(b"\n", b"\r\n"), chunk=4097) == expected
    assert records(text.replace(b"\n\n", b"\n")) == expected
    if len(text) < 10_000:
        assert records(text, chunk=1) == expected


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_json_lines_arrays_and_pretty_printed_json_are_the_same_events(path: Path) -> None:
    events = [json.loads(data) for data in data_of(path.read_bytes())]
    expected = [(record.key, ids([record])) for record in records(lines_of(events))]
    assert len(expected) == len(events)
    if path.stem in UNNUMBERED or path.stem == NAMELESS:
        return  # their ids are of their bytes
    for text in (json.dumps(events), json.dumps(events, indent=1), "\n".join(json.dumps(e, indent=2) for e in events)):
        assert [(record.key, ids([record])) for record in records(text.encode())] == expected
    separate = "[\n" + ",\n".join(json.dumps(e) for e in events) + "\n]\n"
    assert [(record.key, ids([record])) for record in records(separate.encode())] == expected


# --- cut, resumed, sent again ---


@settings(max_examples=examples(60), deadline=None)
@given(st.data())
def test_a_stream_cut_at_any_byte_and_sent_again_whole_is_the_same_records(data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(RECORDINGS or SAMPLES))
    text = path.read_bytes()
    cut = data.draw(st.integers(0, len(text)))
    expected = as_set(records(text))
    one_pipe, two_inputs = records(text[:cut] + text), records(text[:cut], text)
    assert as_set(two_inputs) == expected
    assert len(two_inputs) == len(expected), "within one publish nothing goes out twice"
    missing = expected.keys() - as_set(one_pipe).keys()
    assert not missing


@settings(max_examples=examples(60), deadline=None)
@given(st.data())
def test_a_stream_cut_at_any_byte_and_resumed_is_the_same_records(data: st.DataObject) -> None:
    choice = [path for path in RECORDINGS if path.stem not in UNNUMBERED and path.stem != NAMELESS] or SAMPLES
    text = data.draw(st.sampled_from(choice)).read_bytes()
    frames = text.decode().split("\n\n")
    cut = data.draw(st.integers(0, len(text)))
    after = max(0, text[:cut].count(b"\n\n") - data.draw(st.integers(0, 3)))
    rest = "\n\n".join(frames[after:]).encode()
    expected = as_set(records(text))
    # The resumed stream may begin with a delta that names nothing: its item or the number that follows tells.
    resumed = records(text[:cut], rest)
    assert as_set(resumed) == expected
    assert len(resumed) == len(expected)


def test_the_recorded_resumption_adds_nothing() -> None:
    both = [path for path in RECORDINGS if "starting_after" in path.name]
    if not both:
        pytest.skip("no recordings")
    keyer = EventKeyer()
    first, again = (path.read_bytes() for path in both)
    published = records(first, again, keyer=keyer)
    assert published == records(first)
    assert keyer.notes == [f"{published[0].key.decode()}: 16 events came again and were left out"]
    assert as_set(records(again)).keys() < as_set(records(first)).keys()


def test_a_stream_that_begins_anew_in_one_pipe_is_noted() -> None:
    keyer = EventKeyer()
    events = whole()
    published = records(stream_of(events[:3]) + stream_of(events), keyer=keyer)
    assert published == records(stream_of(events))
    assert keyer.notes == [
        "event 4: the stream of resp_1 begins anew after number 2; it had been cut",
        "resp_1: 3 events came again and were left out",
    ]


def test_run_steps_that_begin_anew_in_one_pipe_are_noted_and_keep_their_ids() -> None:
    keyer = EventKeyer()
    published = records(PART1[: PART1.rindex(b"event: thread.run.step.delta")] + PART1, keyer=keyer)
    assert as_set(published) == as_set(records(PART1))
    assert keyer.notes == [
        "event 4: the stream of run run_1 begins anew after 3 events; what it repeats has the same event ids, so the"
        " worker ignores it"
    ]


def test_an_open_end_and_missing_numbers_are_noted() -> None:
    keyer = EventKeyer()
    events = whole()
    records(stream_of([events[0], events[2], events[4]]), keyer=keyer)
    assert keyer.notes == [
        "resp_1: numbers 1, 3 are missing; read them again with starting_after, or publish the retrieved response",
        "resp_1: the stream ends before its response; go on with starting_after=4, or publish the response as"
        " `retrieve` answers it",
    ]


def test_numbers_that_are_none_are_left_to_the_worker() -> None:
    for number in (-1, 1.5, "03", True, None, 2**70):
        first, second = whole()[:2]
        published = records(lines_of([first, second | {"sequence_number": number}]))
        assert [record.key for record in published] == [b"resp_1"] * 2
        assert not (ids(published)[1] or b"").startswith(b"resp_1:")


@pytest.mark.parametrize("kind", ["ping", "keepalive", "keep-alive", "keep_alive", "heartbeat"])
def test_a_keep_alive_is_left_out_but_for_its_number(kind: str) -> None:
    events = whole()
    plain = records(stream_of(events))
    signs = [
        f"event: {kind}\ndata: {{}}",
        f'event: {kind}\ndata: {{"type":"{kind}","cost":"0"}}',
        f'data: {{"type":"{kind}"}}',
        f'data: {{"event":"{kind}","data":{{}}}}',
    ]
    between = "".join(f"{sign}\n\n" for sign in signs).encode()
    keyer = EventKeyer()
    assert records(between.join([b"", *(sse((one["type"], one)) for one in events), b""]), keyer=keyer) == plain
    assert (keyer.refusals, keyer.notes) == ([], [])
    numbered = {"type": kind, "sequence_number": 1}
    for form in (numbered, {"event": kind, "data": numbered}):
        published = records(lines_of([events[0], form]))
        assert ids(published) == [b"resp_1:0", b"resp_1:1"]


@pytest.mark.parametrize("length", [1024, 1025, 20_000])
def test_an_id_that_is_longer_than_the_worker_takes_gets_a_key_of_its_own(length: int) -> None:
    """Nothing of it is refused, sent again and retrieved it is the same; as `publish` says."""
    name = "resp_" + "x" * (length - 5)
    events, keyer = whole(name), EventKeyer()
    published = records(stream_of(events), keyer=keyer)
    keys = {record.key for record in published}
    (key,) = keys
    if length <= 1024:
        assert (key, keyer.notes) == (name.encode(), [])
    else:
        assert key.startswith(b"resp_long_")
        assert len(key) == 42
        assert keyer.notes == [
            f"{name[:80]}...: the id has {length} characters, the worker takes 1024; the key of this response is "
            + key.decode()
        ]
    assert [record.key for record in records(lines_of(events))] == [key] * len(events)
    retrieved = records(json.dumps(events[-1]["response"]).encode())
    assert [(record.key, header(record, "runstep-event-id")) for record in retrieved] == [(key, key + b":retrieved")]
    log = [LogRecord(n, 1_000, r.key, r.value, r.headers) for n, r in enumerate(published + retrieved)]
    (step,) = PartitionState("source", 0, Rules()).apply(log)
    assert isinstance(step, Publish)
    assert step.step_id == f"{key.decode()}:0"


# --- several responses, mixed input ---


@settings(max_examples=examples(100), deadline=None)
@given(st.lists(st.booleans(), min_size=12, max_size=12))
def test_two_responses_interleaved_in_json_lines_are_told_apart_or_refused(turns: list[bool]) -> None:
    queues = [whole("resp_1", "msg_1"), whole("resp_2", "msg_2")]
    alone = [as_set(records(lines_of(queue))) for queue in queues]
    mixed = [queues[turn].pop(0) for turn in [*turns, *[True] * 6, *[False] * 6] if queues[turn]]
    keyer = EventKeyer()
    published = records(lines_of(mixed), keyer=keyer)
    assert as_set(published).items() <= (alone[0] | alone[1]).items(), "nothing is guessed"
    assert len(published) + len(keyer.refusals) == 12
    for refusal in keyer.refusals:
        assert "which of the open responses it belongs to is not said" in refusal.reason


def test_two_responses_interleaved_after_their_items_are_known() -> None:
    first, second = whole("resp_1", "msg_1"), whole("resp_2", "msg_2")
    mixed = [*first[:3], *second[:2], first[3], second[2], second[3], first[4], second[4], second[5], first[5]]
    keyer = EventKeyer()
    published = records(lines_of(mixed), keyer=keyer)
    assert not keyer.refusals
    assert as_set(published) == as_set(records(lines_of(first))) | as_set(records(lines_of(second)))


def test_one_response_after_the_other_in_one_input_though_the_first_was_cut() -> None:
    first, second = whole("resp_1", "msg_1"), whole("resp_2", "msg_2", created_at=8)
    keyer = EventKeyer()
    published = records(stream_of(first[:3]) + stream_of(second), keyer=keyer)
    assert published == records(stream_of(first[:3])) + records(stream_of(second))
    assert len(keyer.notes) == 1


def test_run_steps_and_responses_in_one_input() -> None:
    events = whole()
    text = stream_of(events[:2]) + PART1[: -len(sse(DONE))] + stream_of(events[2:]) + sse(DONE)
    keyer = EventKeyer()
    published = records(text, keyer=keyer)
    assert [r for r in published if r.key == b"resp_1"] == records(stream_of(events))
    assert [r for r in published if r.key == b"run_1"] == records(PART1)
    assert not keyer.refusals


def test_ids_that_rotate_keep_the_first_one_as_key() -> None:
    events = whole()
    for number, one in enumerate(events):
        if "response" in one:
            one["response"] = one["response"] | {"id": f"resp_1.{number}"}
        if "item_id" in one:
            one["item_id"] = f"msg.{number}"
    published = records(stream_of(events))
    assert {record.key for record in published} == {b"resp_1.0"}
    again = records(stream_of(events[:3]), stream_of(events))
    assert again == published


def test_a_new_response_is_no_rotated_id() -> None:
    first = whole("resp_1")
    late = whole("resp_2", created_at=8)[-1] | {"sequence_number": 40}
    published = records(lines_of([*first[:3], late]))
    assert [record.key for record in published] == [b"resp_1"] * 3 + [b"resp_2"]


def test_a_response_id_that_is_used_twice_is_noted() -> None:
    keyer = EventKeyer()
    published = records(stream_of(whole()), stream_of(whole(created_at=9)), keyer=keyer)
    assert len(published) == 12
    assert "resp_1 was created at another time" in keyer.notes[0]
    assert "the worker sets it aside" in keyer.notes[0]
    log = [LogRecord(at, 0, one.key, one.value, tuple(one.headers)) for at, one in enumerate(published)]
    effects = PartitionState("t", 0, Rules()).apply(log)
    assert [effect.offset for effect in effects if isinstance(effect, DeadLetter)] == list(range(6, 12))


def test_events_without_numbers_have_ids_of_what_was_said_before() -> None:
    events = whole(numbered=False)
    published = records(stream_of(events))
    assert len(set(ids(published))) == 6
    assert records(stream_of(events)) == published
    assert records(stream_of(events[:3]), stream_of(events)) == published
    numbered = whole()
    error = {"type": "error", "error": {"code": "x"}}
    one, two = (
        records(stream_of([*numbered[:3], error])),
        records(stream_of(numbered[:3]), stream_of([numbered[2], error])),
    )
    assert ids(one) == ids(two)


def test_what_a_stream_without_a_name_says_waits_for_its_end_or_for_a_name() -> None:
    events = whole()
    stream = EventStream()
    assert stream.feed(stream_of(events[1:4])) == []
    assert [record.key for record in stream.feed(stream_of(events[5:]))] == [b"resp_1"] * 4
    keyer = EventKeyer()
    published = records(stream_of(events[1:4]), keyer=keyer)
    assert published[0].key.startswith(b"resp_unnamed_")
    assert "name it with --response" in keyer.notes[0]
    given = EventStream(response_id="resp_1")
    assert given.feed(stream_of(events[1:4])) == records(stream_of(events))[1:4]


# --- a retrieved response ---


RETRIEVED = whole()[-1]["response"]


@pytest.mark.parametrize("status", ["completed", "failed", "incomplete", "cancelled"])
@pytest.mark.parametrize("indent", [None, 2])
def test_a_retrieved_response_is_the_end_of_its_run(status: str, indent: int | None) -> None:
    text = json.dumps(RETRIEVED | {"status": status}, indent=indent).encode()
    (record,) = records(text)
    assert record.key == b"resp_1"
    assert record.value == b'{"type":"response.' + status.encode() + b'","response":' + text + b"}"
    assert dict(record.headers) == {
        "runstep-event-id": b"resp_1:retrieved",
        "runstep-run-id": b"resp_1",
        "runstep-origin": b"retrieved",
    }


def test_a_response_that_is_not_over_completes_nothing() -> None:
    keyer = EventKeyer()
    assert records(json.dumps(RETRIEVED | {"status": "in_progress"}).encode(), keyer=keyer) == []
    assert keyer.refusals[0].reason == "response resp_1 is still in_progress: retrieve it again when it has ended"


# --- what the `openai` package yields ---


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
async def test_the_events_of_the_sdk_become_the_json_they_were_read_from(
    path: Path, collected: list[Collector]
) -> None:
    expected = [json.loads(data) for data in data_of(path.read_bytes())]  # noqa: ASYNC240
    events = [construct_type(type_=ResponseStreamEvent, value=one) for one in expected]  # as its stream does
    async with RunPublisher(bootstrap_servers="nowhere:1", topic="t") as publisher:
        await publisher.publish_stream(events)
    kept = collected[0].kept
    assert [json.loads(record.value) for record in kept] == expected
    assert len({record.key for record in kept}) == 1


async def test_streams_at_the_same_time_do_not_mix(collected: list[Collector]) -> None:
    """Both say the same numbers, and even the same item ids."""
    first, second = whole("resp_1", "msg"), whole("resp_2", "msg")
    keys: list[list[bytes]] = []

    async def interleaved() -> Any:
        for number, one in enumerate(first):
            yield one
            await publisher.publish_stream(second[number : number + 1], response_id="resp_2")

    async with RunPublisher(bootstrap_servers="nowhere:1", topic="t") as publisher:
        await publisher.publish_stream(interleaved())
    kept = collected[0].kept
    keys = [[record.key for record in kept if record.key == key] for key in (b"resp_1", b"resp_2")]
    assert [len(found) for found in keys] == [6, 6]


async def test_a_stream_that_breaks_has_said_what_it_said(collected: list[Collector]) -> None:
    async def broken() -> Any:
        for one in whole()[1:3]:
            yield one
        raise ConnectionError

    async with RunPublisher(bootstrap_servers="nowhere:1", topic="t") as publisher:
        with pytest.raises(ConnectionError):
            await publisher.publish_stream(broken())
    assert len(collected[0].kept) == 2


async def test_a_whole_response_of_the_sdk_is_published_as_retrieved(collected: list[Collector]) -> None:
    async with RunPublisher(bootstrap_servers="nowhere:1", topic="t") as publisher:
        await publisher.publish(construct_type(type_=Response, value=RETRIEVED))
        with pytest.raises(UsageError, match="still queued"):
            await publisher.publish(construct_type(type_=Response, value=RETRIEVED | {"status": "queued"}))
    (record,) = collected[0].kept
    assert json.loads(record.value) == {"type": "response.completed", "response": RETRIEVED}


@pytest.mark.filterwarnings("ignore::UserWarning")  # of the package itself, about items it has no class for
@pytest.mark.parametrize("path", [p for p in RECORDINGS if p.stem not in NOT_OF_HELPER], ids=lambda path: path.stem)
async def test_what_the_stream_helper_of_the_sdk_adds_is_left_out(path: Path, collected: list[Collector]) -> None:
    """It puts all text so far into each delta, and parsed forms of texts into what is done."""
    expected = [json.loads(data) for data in data_of(path.read_bytes())]  # noqa: ASYNC240
    state: Any = ResponseStreamState(input_tools=omit, text_format=omit)
    async with RunPublisher(bootstrap_servers="nowhere:1", topic="t") as publisher:
        for one in expected:
            for told in state.handle_event(construct_type(type_=ResponseStreamEvent, value=one)):
                await publisher.publish(told)
    got = [json.loads(record.value) for record in collected[0].kept]
    assert [_stated(one) for one in got] == [_stated(one) for one in expected]


def _stated(said: dict[str, Any]) -> dict[str, Any]:
    """Without padding, and without the nulls that the helper writes for what was not said."""
    return {key: value for key, value in said.items() if key != "obfuscation" and value is not None}


# --- the command ---


async def test_the_command_says_what_is_missing_and_does_not_ask_for_an_end_mark(tmp_path: Path) -> None:
    terminal = Terminal()
    whole_one, cut = tmp_path / "whole.sse", tmp_path / "cut.sse"
    whole_one.write_bytes(stream_of(whole()))
    cut.write_bytes(stream_of(whole("resp_2")[:4]))
    assert await terminal.run(whole_one, cut) == 0
    assert terminal.err == [
        f"publish: {cut}: resp_2: the stream ends before its response; go on with starting_after=3, or publish the"
        " response as `retrieve` answers it",
        "would publish 10 events of 2 runs to events; 0 refused",
    ]
    again = Terminal()
    assert await again.run(cut, response_id="resp_2") == 0


async def test_an_answer_that_is_no_stream_is_said_once(tmp_path: Path) -> None:
    terminal = Terminal()
    path = tmp_path / "error.json"
    path.write_text(json.dumps({"error": {"message": "secret", "type": "invalid_request_error"}}, indent=4))
    assert await terminal.run(path) == 65
    assert terminal.err == [
        f"publish: {path}: event 1: an error of the service, not an event (type invalid_request_error)",
        "would publish 0 events of 0 runs to events; 1 refused",
    ]
