"""Parser of one input of `run-steps publish`: from chunks of bytes to records for the source topic. Pure."""

from __future__ import annotations

import re
from typing import Final

from processor.core.sse import Frame, SseFrames
from processor.publish import sse
from processor.publish.event_fields import ends_stream
from processor.publish.event_keying import EventKeyer
from processor.publish.json_values import JsonValues
from processor.publish.outgoing import Outgoing, Refusal
from processor.publish.sse import DONE, TOO_LONG, Format, LineSplitter
from processor.publish.text_encoding import TextDecoder

_STATUS_LINE: Final = re.compile(rb"HTTP/[\d.]+ (\d{3})")
_LOWEST_HTTP_ERROR: Final = 400


class EventStream:
    """One input, fed in chunks of any size, to records for the source topic.

    A stream ends at `[DONE]` in SSE text; JSON lines are one stream as a whole, for they may interleave runs.
    `done` says whether the last stream was seen to its end, `has_runs` whether one of run steps is in it, which alone
    must end so.
    """

    def __init__(
        self, keyer: EventKeyer | None = None, format: Format = Format.AUTO, *, response_id: str | None = None
    ) -> None:
        self.keyer = EventKeyer() if keyer is None else keyer
        self.done = False
        self.events = 0
        self._format = format
        self._response_id = response_id
        self._text = TextDecoder()
        self._lines = LineSplitter()
        self._frames = SseFrames()
        self._values = JsonValues()
        self._in_http_head = False
        self._skips = False  # the rest of an event that is too long
        self._run_events_before = self.keyer.run_events
        if response_id is not None:
            self.keyer.responses.use(response_id)

    @property
    def format(self) -> Format:
        """Format of the stream; AUTO until its first line is known."""
        return self._format

    @property
    def has_runs(self) -> bool:
        """Whether there are events of run steps in it."""
        return self.keyer.run_events > self._run_events_before

    @property
    def problems(self) -> list[str]:
        """Faults in the encoding of the input."""
        return self._text.problems

    def feed(self, chunk: bytes) -> list[Outgoing]:
        """The records that `chunk` completes."""
        return [record for text in self._text.feed(chunk) for record in self._fed(text)]

    def finish(self) -> list[Outgoing]:
        """The input is over: the last records."""
        out = [record for text in self._text.finish() for record in self._fed(text)]
        out += [record for line in self._lines.finish() for record in self._line(line)]
        last = self._frames.finish()
        frames = [] if last is None else [last]
        frames += [Frame(None, value) for value in self._values.drop()]
        for frame in frames:
            out += self._frame(frame, is_last=True)
        return out + self.keyer.end_stream()

    def _fed(self, text: bytes) -> list[Outgoing]:
        return [record for line in self._lines.feed(text) for record in self._line(line)]

    def _line(self, line: bytes) -> list[Outgoing]:
        if line is TOO_LONG:
            return self._refuse_long()
        if self._format is Format.AUTO and not self._found_format(line):
            return []
        if self._format is Format.SSE:
            self._skips = self._skips and bool(line) and not line.startswith(b"event:")
            frame = None if self._skips else self._frames.take(line)
            if self._frames.held_bytes > sse.MAX_EVENT_BYTES:
                return self._refuse_long()
            return [] if frame is None else self._frame(frame)
        values = self._values.take(line)
        if self._values.held_bytes > sse.MAX_EVENT_BYTES:
            return self._refuse_long()
        return [record for value in values for record in self._frame(Frame(None, value))]

    def _found_format(self, line: bytes) -> bool:
        """Whether the line belongs to the stream; HTTP headers before it (`curl -i`) are skipped."""
        start = line.strip(b"\x1e \t")
        if (status := _STATUS_LINE.match(start)) is not None:
            self._in_http_head = True
            if int(status[1]) >= _LOWEST_HTTP_ERROR:
                self.keyer.refuse(f"the service answered with HTTP status {int(status[1])}")
            return False
        if not start or self._in_http_head:
            self._in_http_head = self._in_http_head and bool(start)
            return False
        self._format = Format.JSONL if start.startswith((b"{", b"[")) else Format.SSE
        return True

    def _refuse_long(self) -> list[Outgoing]:
        self._frames.finish()
        self._values.drop()
        self._skips = True
        self.events += 1
        self.keyer.refuse(f"an event of more than {sse.MAX_EVENT_BYTES:,} bytes")
        return []

    def _frame(self, frame: Frame, *, is_last: bool = False) -> list[Outgoing]:
        self.done = ends_stream(frame)
        if self.done:
            return self._end() if self._format is Format.SSE else []
        if is_last and DONE.startswith(frame.data):
            return []  # an end mark that was cut
        is_sse = self._format is Format.SSE
        self.events += 1
        refused = len(self.keyer.refusals)
        out = self.keyer.take(frame, sequential=is_sse)
        if len(self.keyer.refusals) > refused:
            if is_sse and b"\n" in frame.data:
                out += self._each_line(frame, refused)
            elif is_last:
                last = self.keyer.refusals[-1]
                self.keyer.refusals[-1] = Refusal(last.event, f"the input ends inside it ({last.reason})")
        return out

    def _each_line(self, frame: Frame, refused: int) -> list[Outgoing]:
        """Events in a broken frame: a cut line before one, or `data:` lines without blank lines between."""
        lines = frame.data.split(b"\n")
        whole = [line for line in lines if line[:1] == b"{" and line[-1:] == b"}"]
        if not whole:
            return []
        if len(whole) == len(lines):
            del self.keyer.refusals[refused:]
        out: list[Outgoing] = []
        for line in whole:
            self.events += 1
            out += self.keyer.take(Frame(None, line), sequential=True)
        return out

    def _end(self) -> list[Outgoing]:
        out = self.keyer.end_stream()
        if self._response_id is not None:
            self.keyer.responses.use(self._response_id)
        return out
