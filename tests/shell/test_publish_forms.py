"""`publish` of input as people have it: compressed, in UTF-16, with an HTTP head, cut, or no stream at all."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.core.surrogates import without_halves
from processor.publish.event_keying import EventKeyer
from processor.publish.event_stream import EventStream
from processor.publish.json_values import JsonValues
from processor.publish.response_numbers import SequenceNumbers
from tests.examples import examples
from tests.shell.test_publish import DONE, PART1, RUN, STEP, Terminal, ids, sse
from tests.shell.test_publish_responses import lines_of, records, stream_of, whole

RESPONSE = stream_of(whole())
EXPECTED = records(RESPONSE)


def reasons(text: bytes, published: int = 0) -> list[str]:
    """Why what of the input is refused, while `published` records of it go out."""
    keyer = EventKeyer()
    assert len(records(text, keyer=keyer)) == published
    return [refusal.reason for refusal in keyer.refusals]


# --- encodings ---


@pytest.mark.parametrize("text", [RESPONSE, PART1], ids=["response", "run"])
@pytest.mark.parametrize(
    "encode",
    [
        lambda text: b"\xef\xbb\xbf" + text,
        gzip.compress,
        lambda text: gzip.compress(text[:50]) + gzip.compress(text[50:]),
        lambda text: gzip.compress(gzip.compress(text)),
        lambda text: gzip.compress(("\ufeff" + text.decode()).encode("utf-16-le")),
        lambda text: text.decode().encode("utf-16"),
        lambda text: ("\ufeff" + text.decode()).encode("utf-16-be"),
        lambda text: text.decode().encode("utf-16-le"),
        lambda text: text.decode().encode("utf-16-be"),
        lambda text: text.decode().encode("utf-32"),
        lambda text: ("\ufeff" + text.decode()).encode("utf-32-be"),
    ],
    ids=["bom", "gzip", "members", "twice", "gzip16", "utf16", "utf16be", "bare16le", "bare16be", "utf32", "utf32be"],
)
@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
def test_an_encoding_that_the_first_bytes_tell_is_read(text: bytes, encode: Any, chunk: int) -> None:
    assert records(encode(text), chunk=chunk) == records(text)


def test_a_gzip_body_that_ends_early_is_read_as_far_as_it_goes() -> None:
    stream = EventStream()
    body = gzip.compress(stream_of(whole(item="x" * 9000)))
    out = stream.feed(body[: len(body) - 20]) + stream.finish()
    assert out == records(stream_of(whole(item="x" * 9000)))[: len(out)]
    assert stream.problems == ["its gzip data ends early; what was there is read"]
    stream = EventStream()
    damaged = stream.feed(body[:60] + b"\xff" * 60 + body[60:]) + stream.finish()
    assert len(damaged) < 6
    assert stream.problems == ["its gzip data is damaged; what stood before that is read"]


async def test_other_compression_is_named(tmp_path: Path) -> None:
    terminal = Terminal()
    path = tmp_path / "events.zst"
    path.write_bytes(b"\x28\xb5\x2f\xfd" + bytes(100))
    assert await terminal.run(path) == 65
    assert terminal.err[0] == f"publish: {path}: compressed with zstd; decompress it first (zstd -dc)"


# --- SSE as servers write it ---


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    "before",
    ["id: 1", "retry: 3000", ": comment", "", "id", "data:", "data: ", "event: ping\ndata: \n", ":\n\n:\n"],
)
def test_what_stands_before_an_event_does_not_matter(before: str, end: str) -> None:
    frames = RESPONSE.decode().split("\n\n")[:-1]
    blank = "\n" if before.startswith(("data", "event")) else ""
    text = "".join(f"{before}\n{blank}{frame}\n\n" for frame in frames).replace("\n", end)
    assert records(text.encode()) == EXPECTED


def test_the_event_line_may_be_missing_or_come_last() -> None:
    frames = [frame.split("\n") for frame in RESPONSE.decode().split("\n\n")[:-1]]
    assert records("".join(f"{data}\n\n" for _, data in frames).encode()) == EXPECTED
    assert records("".join(f"{data}\nid: 1\n\n" for _, data in frames).encode()) == EXPECTED
    assert records("".join(f"{data}\n" for _, data in frames).encode()) == EXPECTED, "no blank lines either"


def test_data_of_several_lines_is_one_event() -> None:
    events = whole()
    text = "".join(
        "".join(f"data: {line}\n" for line in json.dumps(one, indent=1).split("\n")) + "\n" for one in events
    )
    published = records(text.encode())
    assert ids(published) == ids(EXPECTED)
    assert [json.loads(record.value) for record in published] == events


def test_events_named_by_their_line_alone_keep_the_name() -> None:
    nameless = [{key: value for key, value in one.items() if key != "type"} for one in whole()]
    text = sse(*[(one["type"], bare) for one, bare in zip(whole(), nameless, strict=True)])
    published = records(text)
    assert ids(published) == ids(EXPECTED)
    assert json.loads(published[2].value) == {"event": "response.output_text.delta", "data": nameless[2]}


def test_frames_that_a_program_has_dumped() -> None:
    as_text = [{"event": one["type"], "data": json.dumps(one)} for one in whole()]
    as_objects = [{"event": one["type"], "data": one} for one in whole()]
    assert ids(records(lines_of(as_text))) == ids(EXPECTED)
    assert ids(records(lines_of(as_objects))) == ids(EXPECTED)


def test_a_numbered_event_of_any_type_is_of_its_response() -> None:
    """Else a keep-alive that has a number would look like a loss."""
    events = whole()
    published = records(stream_of([events[0], {"type": "keepalive", "sequence_number": 1}, events[2]]))
    assert [record.key for record in published] == [b"resp_1"] * 3


def test_a_last_frame_that_is_cut_is_refused_alone() -> None:
    text = RESPONSE[: RESPONSE.rindex(b"output")]
    assert reasons(text, 5) == [
        "the input ends inside it (not a JSON object (Input data was truncated))",
    ]
    assert reasons(PART1[:-4], 4) == []  # data: [DON
    assert reasons(PART1 + b"data: ", 4) == []


def test_an_event_after_a_cut_one_in_the_same_frame_counts() -> None:
    cut = RESPONSE[: RESPONSE.index(b'"delta": "a"')]
    assert reasons(cut + b"\n" + RESPONSE, 6)[0].startswith("not a JSON object")
    assert reasons(cut + RESPONSE, 6)[0].startswith("not a JSON object")


# --- what is no stream ---


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"error": {"message": "secret", "type": "invalid_request_error", "code": "invalid_api_key"}}, "type"),
        ({"error": {"message": "secret", "type": "server_error", "code": None}}, "type server_error"),
        ({"error": "secret words"}, ""),
        ({"type": "error", "error": {"type": "overloaded_error", "message": "secret"}}, "type overloaded_error"),
        ({"detail": "secret"}, ""),
        ({"detail": [{"loc": ["body"], "msg": "secret"}]}, ""),
        ({"object": "error", "message": "secret", "type": "NotFoundError", "code": 404}, "code 404"),
        ({"statusCode": 401, "message": "secret"}, "status 401"),
    ],
    ids=range(8),
)
def test_the_body_of_an_http_error_is_told_as_that_once_and_without_its_text(
    body: dict[str, Any], said: str, indent: int | None
) -> None:
    (reason,) = reasons(json.dumps(body, indent=indent).encode())
    assert reason.startswith("an error of the service, not an event")
    assert said in reason
    assert "secret" not in reason


def test_an_error_in_a_stream() -> None:
    events = whole()
    unnamed = stream_of(events[:2]) + b'data: {"error": {"message": "secret", "code": "x"}}\n\n'
    assert reasons(unnamed, 2) == ["an error of the service, not an event (code x)"]
    typed = {"type": "error", "error": {"code": "x"}}
    published = records(stream_of([*events[:2], typed]))
    assert [record.key for record in published] == [b"resp_1"] * 3
    assert json.loads(published[2].value) == typed
    nameless = sse(("response.created", events[0]), ("error", {"code": "x"}))
    assert json.loads(records(nameless)[1].value) == {"event": "error", "data": {"code": "x"}}
    of_run = records(sse(("thread.run.queued", RUN), ("error", {"code": "x", "message": "m"})))
    assert [record.key for record in of_run] == [b"run_1"] * 2


@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
def test_an_http_head_is_read_over_and_an_error_status_is_said(end: bytes) -> None:
    head = end.join([b"HTTP/1.1 200 OK", b"content-type: text/event-stream", b"retry: 3", b"", b""])
    assert records(head + RESPONSE) == EXPECTED
    assert records(b"HTTP/1.1 100 Continue" + end + end + head + RESPONSE) == EXPECTED
    head = end.join([b"HTTP/2 401 ", b"content-type: application/json", b"", b""])
    assert reasons(head + b'{"error": {"code": "invalid_api_key"}}') == [
        "the service answered with HTTP status 401",
        "an error of the service, not an event (code invalid_api_key)",
    ]


def test_other_things_are_named() -> None:
    assert reasons(b'{"object": "chat.completion.chunk", "id": "x"}')[0].endswith(
        "(it calls itself chat.completion.chunk)"
    )
    assert reasons(b'data: {"type": "message_start"}\n\n')[0].endswith("(it calls itself message_start)")
    assert reasons(b"data: <html>secret</html>\n\n")[0].startswith("a page of HTML or XML")
    assert "secret" not in reasons(b'{"object": "secret words of a person"}')[0]


# --- JSON over several lines ---


VALUES = st.recursive(
    st.integers() | st.text(max_size=5), lambda v: st.dictionaries(st.text(), v) | st.lists(v), max_leaves=4
)


@settings(max_examples=examples(60), deadline=None)
@given(st.lists(VALUES, max_size=3))
def test_json_objects_in_any_layout_are_found(found_in: list[Any]) -> None:
    objects = [{"v": value} for value in found_in]
    for indent in (None, 0, 3):
        splitter = JsonValues()
        text = "\n".join(json.dumps(value, indent=indent) for value in objects)
        found = [value for line in text.encode().split(b"\n") for value in splitter.take(line)] + splitter.drop()
        if indent != 0 or not any(b"\n{" in json.dumps(value, indent=0).encode() for value in objects):
            assert [json.loads(value) for value in found] == objects


@settings(max_examples=examples(200), deadline=None)
@given(st.lists(st.integers(0, 40), max_size=60))
def test_numbers_are_seen_once_and_gaps_are_known(numbers: list[int]) -> None:
    seen: set[int] = set()
    known = SequenceNumbers()
    for number in numbers:
        assert known.add(number) == (number not in seen)
        seen.add(number)
        assert known.highest == max(seen)
    missing = set(range(min(seen, default=0), max(seen, default=0))) - seen
    told = known.missing(shown=100)
    found = set()
    for part in filter(None, told.split(", ")):
        first, _, last = part.partition(" to ")
        found |= set(range(int(first), int(last or first) + 1))
    assert found == missing


# --- halves of surrogate pairs ---


@settings(max_examples=examples(300), deadline=None)
@given(st.lists(st.integers(0xD7FE, 0xE001) | st.sampled_from([0x5C, 0x22, 0x61, 0x1F680]), max_size=8), st.booleans())
def test_a_half_becomes_the_replacement_character_and_a_pair_stays(points: list[int], upper: bool) -> None:
    text = json.dumps({"v": "".join(map(chr, points))})
    text = text.replace("\\ud", "\\uD") if upper else text
    mended = without_halves(text.encode())
    assert len(mended) == len(text)
    # As any reader has it: pairs by UTF-16, what is left alone replaced.
    units = json.loads(text)["v"].encode("utf-16-le", "surrogatepass")
    assert msgspec.json.decode(mended)["v"] == units.decode("utf-16-le", "replace")


@pytest.mark.parametrize("half", ["\\ud83d", "now \\uD83D!", "\\ud83d\\ud83d\\ude80", "\\\\ud83d \\ude80"])
def test_an_event_with_half_a_pair_goes_out_as_it_came(half: str) -> None:
    """The worker replaces it: an event that `publish` refused would be lost for good."""
    step = json.dumps(STEP | {"status": "completed", "step_details": {"output": "?"}}).replace("?", half)
    published = records(sse(("thread.run.queued", RUN), ("thread.run.step.completed", step), DONE))
    assert published[1].value.endswith(step.encode() + b"}")
    events = whole()
    events[2]["delta"] = events[4]["item"]["text"] = "?"
    text = stream_of(events).decode().replace("?", half).encode()
    out = records(text)
    assert [record.value for record in out] == [line[6:] for line in text.split(b"\n") if line.startswith(b"data: ")]
    assert ids(out) == ids(EXPECTED)
    (first, _) = records(stream_of(whole("resp_?")[:2]).decode().replace("?", half).encode())
    assert first.key.decode().startswith("resp_")
