"""`publish`: keys, event ids and unchanged bytes, whatever way the stream is cut and written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai._models import construct_type
from openai.types.beta import AssistantStreamEvent

from processor.core.sse import Frame
from processor.errors import BrokerUnavailable, UsageError
from processor.kafka.producer import EventProducer
from processor.publish import outgoing, publisher
from processor.publish import sse as splitting
from processor.publish.command import run, sample_files
from processor.publish.event_keying import EventKeyer
from processor.publish.event_stream import EventStream
from processor.publish.outgoing import Outgoing
from processor.publish.publisher import RunPublisher
from processor.publish.sse import Format
from tests.examples import examples

RECORDINGS = Path(__file__).parents[3] / "shared" / "fixtures"
STREAMS = [*sample_files(), *sorted(RECORDINGS.glob("*.sse"))]
RUN = {"id": "run_1", "object": "thread.run", "thread_id": "thread_1", "status": "queued"}
STEP = {"id": "step_1", "object": "thread.run.step", "run_id": "run_1", "thread_id": "thread_1"}


def delta(text: str, step: str = "step_1") -> dict[str, Any]:
    entry = {"index": 0, "type": "function", "function": {"arguments": text}}
    details = {"type": "tool_calls", "tool_calls": [entry]}
    return {"id": step, "object": "thread.run.step.delta", "delta": {"step_details": details}}


def sse(*events: tuple[str, Any]) -> bytes:
    return b"".join(
        f"event: {name}\ndata: {data if isinstance(data, str) else json.dumps(data)}\n\n".encode()
        for name, data in events
    )


DONE = ("done", "[DONE]")
PART1 = sse(
    ("thread.run.queued", RUN),
    ("thread.run.step.created", STEP),
    ("thread.run.step.delta", delta("a")),
    ("thread.run.step.delta", delta("a")),
    DONE,
)
PART2 = sse(("thread.run.queued", RUN), ("thread.run.step.delta", delta("a")), DONE)


def records(
    *inputs: bytes, keyer: EventKeyer | None = None, format: Format = Format.AUTO, chunk: int = 1 << 20
) -> list[Outgoing]:
    """All records of some inputs, published one after the other by one process."""
    keyer = keyer or EventKeyer()
    out: list[Outgoing] = []
    for text in inputs:
        stream = EventStream(keyer, format)
        for start in range(0, len(text), chunk):
            out += stream.feed(text[start : start + chunk])
        out += stream.finish()
    return out


def header(record: Outgoing, name: str) -> bytes | None:
    return dict(record.headers).get(name)


def ids(published: Sequence[Outgoing]) -> list[bytes | None]:
    return [header(record, "runstep-event-id") for record in published]


def events_of(text: bytes) -> list[tuple[str, str]]:
    """Name and data of each event but the end mark, by splitting at blank lines: for well-behaved streams only."""
    frames = [frame.split("\n") for frame in text.decode().split("\n\n") if frame.startswith("event: ")]
    pairs = [(name.removeprefix("event: "), data.removeprefix("data: ")) for name, data in frames]
    return [pair for pair in pairs if pair[0] != "done"]


# --- whole streams ---


@pytest.mark.parametrize("path", STREAMS, ids=lambda path: path.name)
def test_every_event_of_a_stream_goes_out_under_its_run_with_its_data_unchanged(path: Path) -> None:
    text = path.read_bytes()
    expected = events_of(text)
    runs = {json.loads(data)["id"] for name, data in expected if name.startswith("thread.run.") and "step" not in name}
    assert len(runs) == 1
    published = records(text)
    assert [record.value for record in published] == [
        f'{{"event":"{name}","data":{data}}}'.encode() for name, data in expected
    ]
    assert {record.key.decode() for record in published} == runs
    assert {header(record, "runstep-run-id") for record in published} == {record.key for record in published}
    assert [header(record, "runstep-sequence") for record in published] == [
        str(position).encode() for position in range(len(expected))
    ]
    assert len(set(ids(published))) == len(expected)


def test_the_recordings_are_there() -> None:
    if not RECORDINGS.is_dir():
        pytest.skip(f"no recordings at {RECORDINGS}")
    assert sum(path.parent == RECORDINGS for path in STREAMS) == 4


@pytest.mark.parametrize("path", STREAMS, ids=lambda path: path.name)
@pytest.mark.parametrize("end", [b"\r\n", b"\r"])
def test_line_ends_do_not_matter(path: Path, end: bytes) -> None:
    text = path.read_bytes()
    assert records(text.replace(b"\n", end)) == records(text)


@pytest.mark.parametrize("path", STREAMS, ids=lambda path: path.name)
def test_blank_lines_between_events_may_be_missing(path: Path) -> None:
    text = path.read_bytes()
    assert records(text.replace(b"\n\n", b"\n")) == records(text)


def test_the_same_events_as_json_lines_are_the_same_records() -> None:
    lines = b"".join(record.value + b"\r\n\r\n" for record in records(PART1))
    published = records(b"\xef\xbb\xbf\n" + lines)
    assert published == records(PART1)


# --- any cut, any spelling ---


@st.composite
def spelled(draw: st.DrawFn) -> tuple[bytes, list[bytes]]:
    """A stream in some legal or tolerated spelling, and the record values that are in it."""
    end = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    text, values = draw(st.sampled_from(["", "\ufeff"])), []
    for number in range(draw(st.integers(1, 6))):
        text += draw(st.sampled_from(["", f": comment{end}", f"retry: 10{end}", f"id: 7{end}", end]))
        token = draw(st.text(max_size=5))
        # The spaces are where a line may be broken: there JSON takes a line feed as well.
        data = json.dumps(STEP if number == 0 else delta(token), ensure_ascii=draw(st.booleans()))
        data = data.replace("\u2028", "").replace("\x85", "")
        pieces = [data] if draw(st.booleans()) else data.split(", ", 1)
        pieces = pieces if len(pieces) == 1 else [pieces[0] + ",", pieces[1]]
        space = draw(st.sampled_from(["", " "]))
        text += f"event:{space}thread.run.step.delta{end}"
        text += "".join(f"data: {piece}{end}" for piece in pieces)
        text += draw(st.sampled_from(["", end, end + end]))
        values.append(('{"event":"thread.run.step.delta","data":' + "\n".join(pieces) + "}").encode())
    return text.encode(), values


@settings(max_examples=examples(150), deadline=None)
@given(spelled(), st.data())
def test_any_spelling_and_any_cut_give_the_same_records(case: tuple[bytes, list[bytes]], data: st.DataObject) -> None:
    text, values = case
    whole = records(text, format=Format.SSE)
    assert [record.value for record in whole] == values
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=12)))
    stream, out = EventStream(), []
    for start, stop in zip([0, *cuts], [*cuts, len(text)], strict=True):
        out += stream.feed(text[start:stop])
    assert out + stream.finish() == whole


@settings(max_examples=examples(25), deadline=None)
@given(spelled())
def test_one_byte_at_a_time_gives_the_same_records(case: tuple[bytes, list[bytes]]) -> None:
    assert [record.value for record in records(case[0], chunk=1)] == case[1]


@settings(max_examples=examples(200), deadline=None)
@given(st.binary(max_size=200), st.sampled_from(list(Format)))
def test_garbage_never_raises(text: bytes, format: Format) -> None:
    keyer = EventKeyer()
    assert records(text, keyer=keyer, format=format, chunk=7) == []


def test_an_event_is_out_as_soon_as_its_frame_ends() -> None:
    stream = EventStream()
    text = PART1[: PART1.index(b"\n\n")]
    assert stream.feed(text) == []
    assert stream.feed(b"\n") == []
    assert len(stream.feed(b"\n")) == 1


def test_a_long_event_in_small_chunks_costs_linear_time() -> None:
    text = sse(("thread.run.step.created", STEP | {"metadata": "x" * 4_000_000}))
    assert len(records(text, chunk=64)) == 1  # quadratic copying would take minutes


def test_a_line_without_end_is_refused_before_it_fills_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splitting, "MAX_EVENT_BYTES", 1000)
    for text in (b"data: " + b"x" * 5000 + b"\n\n", b"data: xxxxxxxxxx\n" * 200 + b"\n"):
        keyer = EventKeyer()
        assert len(records(text + PART1, keyer=keyer, chunk=100)) == 4, "the events after it count"
        assert [refusal.reason for refusal in keyer.refusals] == ["an event of more than 1,000 bytes"]


# --- event ids ---


def test_publishing_again_gives_the_same_ids() -> None:
    assert records(PART1, PART2) == records(PART1, PART2)
    assert records(PART1, chunk=11) == records(PART1)


def test_equal_tokens_have_different_ids() -> None:
    published = records(PART1)
    assert published[2].value == published[3].value
    assert ids(published)[2] != ids(published)[3]


def test_the_responses_of_a_run_do_not_collide_though_they_begin_alike() -> None:
    """Both begin with the same `queued`; only that first event has one id, for it is the same event again."""
    both = ids(records(PART1, PART2))
    assert both[0] == both[4]
    assert len(set(both)) == len(both) - 1


def test_a_response_has_the_same_ids_alone_after_another_and_in_one_file_with_it() -> None:
    apart = ids(records(PART1)) + ids(records(PART2))
    assert ids(records(PART1, PART2)) == apart
    assert ids(records(PART1 + PART2)) == apart


def test_a_stream_that_was_cut_short_and_is_published_whole_later_repeats_its_ids() -> None:
    whole = records(PART1)
    cut = records(PART1[: PART1.rindex(b"event: thread.run.step.delta")])
    assert cut == whole[: len(cut)]
    assert len(cut) == 3


def test_runs_that_interleave_have_ids_as_if_they_were_alone() -> None:
    other = json.loads(json.dumps([RUN, STEP]).replace("_1", "_2"))
    mine: list[Any] = [RUN, STEP, delta("a"), delta("b")]
    theirs: list[Any] = [*other, delta("a", "step_2"), delta("b", "step_2")]
    mixed = [event for pair in zip(mine, theirs, strict=True) for event in pair]

    def lines(events: list[Any]) -> bytes:
        return b"".join(json.dumps(event).encode() + b"\n" for event in events)

    published = records(lines(mixed))
    assert [record.key for record in published] == [b"run_1", b"run_2"] * 4
    assert published[::2] == records(lines(mine))
    assert published[1::2] == records(lines(theirs))


def test_end_marks_among_json_lines_do_not_begin_the_ids_anew() -> None:
    """Lines may mix runs, so a mark does not say whose response has ended."""
    line = json.dumps(delta("a"))
    text = "\n".join([json.dumps(STEP), line, "[DONE]", line, "[DONE]", line])
    assert len(set(ids(records(text.encode())))) == 4


# --- keys ---


def test_what_comes_before_the_run_is_named_is_held_and_goes_first() -> None:
    thread = {"id": "thread_1", "object": "thread", "created_at": 1}
    stream = EventStream()
    assert stream.feed(sse(("thread.created", thread), ("thread.run.step.delta", delta("a")))) == []
    out = stream.feed(sse(("thread.run.step.completed", STEP)))
    assert [json.loads(record.value)["event"] for record in out] == [
        "thread.created",
        "thread.run.step.delta",
        "thread.run.step.completed",
    ]
    assert {record.key for record in out} == {b"run_1"}


def test_a_delta_finds_its_step_in_an_earlier_response() -> None:
    late = sse(("thread.run.step.delta", delta("late")), DONE)
    published = records(PART1, late)
    assert published[-1].key == b"run_1"


def test_a_response_without_any_run_is_keyed_by_its_thread() -> None:
    nameless = {name: value for name, value in STEP.items() if name != "run_id"}
    published = records(sse(("thread.run.step.created", nameless), ("thread.run.step.delta", delta("a")), DONE))
    assert [record.key for record in published] == [b"thread_1", b"thread_1"]
    assert [header(record, "runstep-run-id") for record in published] == [None, None]
    assert len(set(ids(published))) == 2


def test_a_response_with_nothing_to_key_by_is_refused() -> None:
    keyer = EventKeyer()
    assert records(sse(("thread.run.step.delta", delta("a")), DONE), keyer=keyer) == []
    assert [(refusal.event, refusal.reason) for refusal in keyer.refusals] == [
        (
            1,
            "thread.run.step.delta of step_1: nothing to key it by: neither a run nor a thread is named in this stream",
        )
    ]


def test_a_delta_of_an_unknown_step_is_not_guessed_among_several_runs() -> None:
    keyer = EventKeyer()
    lines = [RUN, RUN | {"id": "run_2", "thread_id": "thread_2"}, delta("a", "step_9")]
    text = b"\n".join(json.dumps(line).encode() for line in lines)
    assert [record.key for record in records(text, keyer=keyer)] == [b"run_1", b"run_2"]
    assert "this stream mixes several" in keyer.refusals[0].reason


def test_a_thread_waits_for_its_own_run() -> None:
    thread = {"event": "thread.created", "data": {"id": "thread_2", "object": "thread"}}
    lines = [RUN, thread, RUN, RUN | {"id": "run_2", "thread_id": "thread_2"}]
    published = records(b"\n".join(json.dumps(line).encode() for line in lines))
    assert [record.key for record in published] == [b"run_1", b"run_1", b"run_2", b"run_2"]
    assert b"thread.created" in published[2].value


def test_holding_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outgoing, "MAX_HELD_EVENTS", 3)
    keyer = EventKeyer()
    stream = EventStream(keyer)
    stream.feed(sse(*[("thread.run.step.delta", delta("a"))] * 6))
    assert len(keyer.refusals) == 6


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outgoing, "MAX_REMEMBERED", 2)
    keyer = EventKeyer()
    for number in range(5):
        keyer.take(Frame(None, json.dumps(STEP | {"id": f"step_{number}"}).encode()))
    keyer.take(Frame(None, json.dumps(STEP | {"id": "step_3"}).encode()))  # used again: step_4 is older
    keyer.take(Frame(None, json.dumps(STEP | {"id": "step_5"}).encode()))
    assert list(keyer._memory.run_of) == ["step_3", "step_5"]


# --- what is no event ---


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"event": "x", "data": ', "not a JSON object"),
        (b'{"event": "x"}', "not a JSON object"),
        (b'{"event": "x", "data": [1]}', "not a JSON object"),
        (b"[1]", "not a JSON object"),
        (b'{"event": "x", "data": {"a": NaN}}', "not a JSON object"),
        (b'{"event": "x", "data": {"a": "\xff"}}', "not UTF-8"),
        (b'{"a": ' + b"[" * 100_000 + b"}", "nested deeper than the decoder goes"),
        (b'{"error": {"message": "no such run"}}', "an error of the service, not an event"),
        (b'{"object": "list", "data": []}', "neither an event"),
    ],
    ids=range(9),
)
def test_a_line_that_is_no_event_is_refused_and_the_others_go_on(line: bytes, reason: str) -> None:
    keyer = EventKeyer()
    good = json.dumps(RUN).encode()
    assert len(records(good + b"\n" + line + b"\n" + good, keyer=keyer)) == 2
    assert [refusal.event for refusal in keyer.refusals] == [2]
    assert keyer.refusals[0].reason.startswith(reason)
    assert len(keyer.refusals[0].reason) < 200


def test_end_marks_are_not_published() -> None:
    keyer = EventKeyer()
    text = b'[DONE]\n{"event":"done","data":"[DONE]"}\n' + json.dumps(RUN).encode()
    assert len(records(text, keyer=keyer)) == 1
    assert len(records(b"event: done\ndata: [DONE]\n\ndata: [DONE]\n\n", keyer=keyer)) == 0
    assert not keyer.refusals


def test_bare_objects_go_on_as_they_came() -> None:
    odd = b'  {"object":"thread.run.step", "id":"step_1","run_id" : "run_1", "n": 1e400000000000000000001}'
    odd = odd.replace(b"1e400000000000000000001", b"12345678901234567890123")
    (record,) = records(odd)
    assert record.value == odd
    (unnamed,) = records(b"data:" + odd + b"\n\n")
    assert unnamed.value == odd.removeprefix(b" ")


# --- the class for programs ---


class Collector(EventProducer):
    """An `EventProducer` that keeps what it is given."""

    kept: list[Outgoing]

    async def start(self) -> None:
        self.kept = []

    async def send(
        self, topic: str, value: bytes | None, *, key: bytes, headers: Any = (), timestamp_ms: int | None = None
    ) -> None:
        assert value is not None
        self.kept.append(Outgoing(key, value, tuple(headers)))

    async def flush(self) -> None: ...


@pytest.fixture
def collected(monkeypatch: pytest.MonkeyPatch) -> list[Collector]:
    made: list[Collector] = []

    def make(*args: Any, **options: Any) -> Collector:
        made.append(Collector(*args, **options))
        return made[-1]

    monkeypatch.setattr(publisher, "EventProducer", make)
    return made


@pytest.mark.parametrize("path", STREAMS, ids=lambda path: path.name)
async def test_the_events_of_the_openai_sdk_become_the_json_they_were_read_from(
    path: Path, collected: list[Collector]
) -> None:
    expected = [{"event": name, "data": json.loads(data)} for name, data in events_of(path.read_bytes())]  # noqa: ASYNC240
    async with RunPublisher(bootstrap_servers="nowhere:1", topic="t") as publisher:
        for event in expected:
            await publisher.publish(construct_type(type_=AssistantStreamEvent, value=event))  # as its stream does
    kept = collected[0].kept
    assert [json.loads(record.value) for record in kept] == expected
    assert len({record.key for record in kept}) == 1


async def test_an_event_may_be_a_dict_a_tuple_or_bytes(collected: list[Collector]) -> None:
    class Chunk:
        def as_dict(self) -> dict[str, Any]:
            return delta("c")

    class Model:
        def to_json(self) -> str:
            return json.dumps(delta("d"))

    async with RunPublisher(bootstrap_servers="nowhere:1", topic="t") as publisher:
        await publisher.publish(STEP)
        await publisher.publish({"event": "thread.run.step.delta", "data": delta("a")})
        await publisher.publish(json.dumps({"event": "thread.run.step.delta", "data": delta("b")}).encode())
        await publisher.publish(("thread.run.step.delta", Chunk(), None))
        await publisher.publish(("thread.run.step.delta", Model()))
        await publisher.publish(("done", "[DONE]", None))
        await publisher.publish(b"[DONE]")
    kept = collected[0].kept
    assert [record.key for record in kept] == [b"run_1"] * 5
    texts = [json.loads(record.value).get("data") for record in kept[1:]]
    assert texts == [delta("a"), delta("b"), delta("c"), delta("d")]


async def test_half_a_surrogate_pair_goes_on_as_the_escape_that_it_was(collected: list[Collector]) -> None:
    """SDKs read it with `json.loads`, which keeps it: no UTF-8 can be made of such a text."""
    data = delta("now \ud83d")
    event = {"event": "thread.run.step.delta", "data": data}

    class Chunk:
        def as_dict(self) -> dict[str, Any]:
            return data

    shapes: list[object] = [
        event,
        json.dumps(event, ensure_ascii=False),
        json.dumps(event).encode(),
        construct_type(type_=AssistantStreamEvent, value=event),
        ("thread.run.step.delta", data),
        ("thread.run.step.delta", Chunk()),
        ("thread.run.step.delta", json.dumps(data, ensure_ascii=False)),
    ]
    async with RunPublisher(bootstrap_servers="nowhere:1", topic="t") as publisher:
        await publisher.publish(STEP)
        for shape in shapes:
            await publisher.publish(shape)
    assert [json.loads(record.value)["data"] for record in collected[0].kept[1:]] == [data] * len(shapes)


async def test_an_end_mark_of_one_run_does_not_repeat_the_ids_of_another(collected: list[Collector]) -> None:
    async with RunPublisher(bootstrap_servers="nowhere:1", topic="t") as publisher:
        await publisher.publish(STEP)
        for _ in range(3):
            await publisher.publish(("done", "[DONE]"))
            await publisher.publish(("thread.run.step.delta", delta("a")))
    assert len(set(ids(collected[0].kept))) == 4


async def test_what_cannot_be_published_is_said_at_once_and_the_publisher_goes_on(collected: list[Collector]) -> None:
    async with RunPublisher(bootstrap_servers="nowhere:1", topic="t") as publisher:
        with pytest.raises(UsageError, match="a int is not an event"):
            await publisher.publish(7)
        with pytest.raises(UsageError, match="not a JSON object"):
            await publisher.publish(b"{")
        await publisher.publish(STEP)
    assert len(collected[0].kept) == 1


async def test_leaving_says_what_was_held_and_never_keyed(collected: list[Collector]) -> None:
    with pytest.raises(UsageError, match="nothing to key it by"):
        async with RunPublisher(bootstrap_servers="nowhere:1", topic="t") as publisher:
            await publisher.publish(delta("a"))


async def test_the_error_of_the_body_is_the_one_to_see(collected: list[Collector]) -> None:
    with pytest.raises(ZeroDivisionError):  # noqa: PT012  the context is what is tested
        async with RunPublisher(bootstrap_servers="nowhere:1", topic="t") as publisher:
            await publisher.publish(delta("a"))
            raise ZeroDivisionError


async def test_nobody_there_is_said_in_a_bounded_time_and_leaves_nothing_open() -> None:
    with pytest.raises(BrokerUnavailable, match=r"127\.0\.0\.1:1: nothing listens there"):
        async with RunPublisher(bootstrap_servers="127.0.0.1:1", topic="t", timeout_s=5):
            pass


# --- the command ---


class Terminal:
    def __init__(self) -> None:
        self.out: list[str] = []
        self.err: list[str] = []

    async def run(self, *files: Path, **options: Any) -> int:
        given: dict[str, Any] = {"topic": "events", "dry_run": True} | options
        return await run(files, echo=self.out.append, warn=self.err.append, **given)


async def test_a_dry_run_shows_what_would_be_sent() -> None:
    terminal = Terminal()
    files = [path for path in sample_files() if path.name.startswith("function_call")]
    assert await terminal.run(*files) == 0
    shown = [msgspec.json.decode(line) for line in terminal.out]
    expected = records(*[path.read_bytes() for path in files])
    assert [record["value"] for record in shown] == [json.loads(record.value) for record in expected]
    assert {record["key"] for record in shown} == {expected[0].key.decode()}
    assert [record["headers"]["runstep-event-id"].encode() for record in shown] == ids(expected)
    assert terminal.err == [f"would publish {len(expected)} events of 1 runs to events; 0 refused"]


async def test_input_that_is_partly_unusable_is_published_in_part_and_the_exit_code_says_so(tmp_path: Path) -> None:
    terminal = Terminal()
    path = tmp_path / "events.jsonl"
    path.write_bytes(json.dumps(RUN).encode() + b"\n" + b"{oops\n" * 30)
    assert await terminal.run(path) == 65
    assert len(terminal.out) == 1
    assert terminal.err[0].startswith(f"publish: {path}: event 2: not a JSON object")
    assert terminal.err[10:] == [
        f"publish: {path}: and 20 more like these",
        "would publish 1 events of 1 runs to events; 30 refused",
    ]


@pytest.mark.parametrize("text", [b"", b"\n\n", b"<html>502 Bad Gateway</html>", b": only a comment\n\n"])
async def test_input_without_any_event_is_not_a_success(tmp_path: Path, text: bytes) -> None:
    terminal = Terminal()
    path = tmp_path / "nothing.sse"
    path.write_bytes(text)
    assert await terminal.run(path) == 65
    assert terminal.err[0] == f"publish: {path}: no event in it"


async def test_a_stream_that_lost_its_end_is_named(tmp_path: Path) -> None:
    terminal = Terminal()
    path = tmp_path / "cut.sse"
    path.write_bytes(PART1[: -len(sse(DONE))])
    assert await terminal.run(path) == 0
    assert terminal.err[0] == f"publish: {path}: ends without [DONE]; the connection may have been cut"
