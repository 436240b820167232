"""SSE text: the same frames whatever ends its lines, and as a reader of the standard finds them."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from processor.core.sse import SseFrames, frames_of

_PARTS = st.sampled_from(
    [b"event:", b"data:", b"event: ", b"data: ", b"data:  ", b"id: 1", b":", b"data", b"event", b"datax:", b"a", b" "]
    + 2 * [b"\n", b"\r", b"\r\n", b"\n\n"]
)


def told(text: bytes) -> list[tuple[bytes | None, bytes]]:
    """Cut at each colon, as the standard says; an event's name behind its data, or between two lots, as `sse` says."""
    found: list[tuple[bytes | None, bytes]] = []
    name: bytes | None = None
    late: bytes | None = None
    data: list[bytes] = []

    def end() -> None:
        nonlocal name, late, data
        if any(data):
            found.append((name or late or None, b"\n".join(data)))
        name, late, data = None, None, []

    for line in re.split(rb"\r\n|\n|\r", text):
        field, _, content = line.partition(b":")
        content = content.removeprefix(b" ")
        if not line:
            end()
        elif field == b"data":
            if late is not None:
                following = late
                late = None
                end()
                name = following
            data.append(content)
        elif field == b"event" and data and name is None and late is None:
            late = content
        elif field == b"event":
            if data:
                end()
            name = content
    end()
    return found


@given(st.lists(_PARTS, max_size=14).map(b"".join))
@example(b"event:a\rdata: 1\r\n\r\ndata:2\nevent\n")
def test_frames_are_those_of_the_standard(text: bytes) -> None:
    assert [(frame.name, frame.data) for frame in frames_of(text)] == told(text)


@given(st.lists(_PARTS, max_size=14).map(b"".join))
def test_what_is_held_is_the_data_of_the_frame_that_has_begun(text: bytes) -> None:
    frames, held = SseFrames(), 0
    for line in text.split(b"\n"):
        ended = frames.take(line)
        name, _, content = line.partition(b":")
        own = len(content.removeprefix(b" ")) if name == b"data" else 0
        if not line or frames.held_bytes < held:
            held = 0
        held = own if ended is not None else held + own
        assert frames.held_bytes == held


@pytest.mark.parametrize(
    "text",
    [
        *(b"event: a\ndata: b", b"event: a\ndata: b\n", b"event: a\ndata: b\n\n", b"event: a\ndata: b\n\n\n"),
        *(b"event: a\ndata: b\ndata: c\n\n", b"event: a\ndata: b\nevent: c\ndata: d\n\n", b"event: a\ndata: \n\n"),
        *(b"event: \ndata: b\n\n", b"event: a\nid: 1\ndata: b\n\n", b"event: a\n", b"event: a", b"event: a\ndata: "),
        *(b"event: a\r\ndata: b\r\n\r\n", b"event: a\ndata:b\n\n", b"event: a\nretry: 5\n\ndata: b\n\n"),
    ],
)
def test_a_text_of_one_frame_is_read_as_all_others_are(text: bytes) -> None:
    assert [(frame.name, frame.data) for frame in frames_of(text)] == told(text)
