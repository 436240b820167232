"""`run-steps publish`: a service's event stream onto the source topic, as the worker wants it.

Three things go wrong when everybody writes this part alone: deltas carry no run id, so they get a key of their own
and land on another partition than their step; equal tokens cannot be told from a repeated delivery; and the last
events are lost because nothing was flushed. So here every event of a run has the run's key, every event has an id
that a second publication of the same stream gives again, and the exit code says whether all was acknowledged.

Pure up to `EventStream`: bytes in any chunks go in, `Outgoing` records come out. Below it, the shell.

Event ids are a chain: the id of an event is a digest of everything its response said of its run, up to and including
the event. Publishing a recording again therefore gives the same ids. Two equal tokens differ, because what was
said before them differs. And the several HTTP responses of one run (a new one comes after tool outputs are
submitted) cannot collide, because they say different things; two responses that agree byte for byte from the
start are taken for what they then are, a repeat.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import msgspec

from processor.core.events import EVENT_ID, RUN_ID
from processor.core.sse import Frame, SseFrames
from processor.errors import UsageError
from processor.publish.sse import DONE, MAX_EVENT_BYTES, Format, LineSplitter, Refusal

HEADER_EVENT_ID: Final = EVENT_ID
HEADER_RUN_ID: Final = RUN_ID
HEADER_SEQUENCE: Final = "runstep-sequence"

BARE_OBJECTS: Final = frozenset({"thread.run", "thread.run.step", "assistant.run.step", "thread.run.step.delta"})
"""Objects that the worker understands without an event name (envelope E2)."""
MAX_HELD_EVENTS: Final = 4096
MAX_REMEMBERED: Final = 65_536


class Outgoing(msgspec.Struct, frozen=True, gc=False):
    """One record for the source topic."""

    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...]


class _Known(msgspec.Struct, frozen=True, gc=False):
    """What can be learnt from one event by itself, and its record value. `run` None: it does not say."""

    value: bytes
    id: str | None
    run: str | None
    thread: str | None
    kind: str


class _Fields(msgspec.Struct, gc=False):
    """The few fields that decide the key. Typed loosely: a wrong type elsewhere is the worker's to judge."""

    event: Any = None
    data: msgspec.Raw = msgspec.Raw(b"")
    object: Any = None
    id: Any = None
    run_id: Any = None
    thread_id: Any = None


_fields: Final = msgspec.json.Decoder(_Fields)
_T = TypeVar("_T")
_ENDS: Final = frozenset({"completed", "failed", "cancelled", "expired"})


@dataclass(slots=True)
class _Response:
    """What one HTTP response has said so far."""

    run: str | None = None
    thread: str | None = None
    mixed: bool = False  # it names more than one run, so "the run of this response" means nothing
    waiting: bool = True  # events that nothing can key are held until a run is named
    held: list[tuple[int, _Known]] = field(default_factory=list)
    chains: dict[str, tuple[bytes, int]] = field(default_factory=dict)  # key -> last digest, next sequence


class RunKeyer:
    """Gives every event the key of its run, from what the stream said before.

    A run object is its run; a step or message object carries `run_id` and its own id, which is remembered; a delta has
    only that id. What has neither (`thread.created`, `error`, a delta whose step is not known) belongs to the one
    run of its response, and is held until that is named. Where a response names no run at all, the thread id is the
    key; where it does not name a thread either, the event is refused.

    One object serves all responses of a process, so that a delta in the second response of a run finds the step that
    the first one opened. Memory is bounded: the ids longest unused are forgotten first.
    """

    def __init__(self) -> None:
        self.refusals: list[Refusal] = []
        self._events = 0
        self._run_of: dict[str, str] = {}  # step and message id -> run id
        self._response = _Response()

    def take(self, frame: Frame) -> list[Outgoing]:
        """One event in; the records that can be sent now, in order."""
        self._events += 1
        event = _read(frame)
        if event is None:
            return []
        if isinstance(event, str):
            self.refusals.append(Refusal(self._events, event))
            return []
        response = self._response
        if response.thread is None:
            response.thread = event.thread
        run = self._run(event)
        if run is not None:
            released = self._release(run, event.thread) if response.held else []
            return [*released, self._outgoing(event, run, run)]
        # A thread begins before its first run, also where the stream is already full of other runs.
        if response.waiting and (not response.mixed or event.kind == "thread"):
            response.held.append((self._events, event))
            return self._stop_waiting() if len(response.held) > MAX_HELD_EVENTS else []
        return self._without_run(self._events, event)

    def end_response(self) -> list[Outgoing]:
        """The response is over: what is still held goes out under its thread, or is refused."""
        out = self._stop_waiting()
        self._response = _Response()
        return out

    def _run(self, event: _Known) -> str | None:
        response = self._response
        run = event.run
        if run is not None:
            if response.run is None:
                response.run = run
            elif response.run != run:
                response.mixed = True
            if event.kind != "thread.run" and event.id is not None:
                _remember(self._run_of, event.id, run)
            return run
        if event.id is not None and (known := self._run_of.get(event.id)) is not None:
            return known
        if response.mixed or (event.thread is not None and event.thread != response.thread):
            return None
        return response.run

    def _release(self, run: str, thread: str | None) -> list[Outgoing]:
        """What was held for want of a run, now that one is named (on that thread, where both say theirs)."""
        held, self._response.held = self._response.held, []
        out: list[Outgoing] = []
        for number, event in held:
            if thread is None or event.thread is None or event.thread == thread:
                if event.id is not None and event.kind != "thread":
                    _remember(self._run_of, event.id, run)
                out.append(self._outgoing(event, run, run))
            else:
                self._response.held.append((number, event))
        return out

    def _stop_waiting(self) -> list[Outgoing]:
        self._response.waiting = False
        held, self._response.held = self._response.held, []
        return [record for number, event in held for record in self._without_run(number, event)]

    def _without_run(self, number: int, event: _Known) -> list[Outgoing]:
        response = self._response
        thread = event.thread or (None if response.mixed else response.thread)
        if thread is not None:
            return [self._outgoing(event, thread, None)]
        what = f"{event.kind} of {event.id}" if event.id else event.kind
        why = (
            "no earlier event says its run, and this stream mixes several"
            if response.mixed
            else "nothing to key it by: neither a run nor a thread is named in this stream"
        )
        self.refusals.append(Refusal(number, f"{what:.120}: {why}"))
        return []

    def _outgoing(self, event: _Known, key: str, run: str | None) -> Outgoing:
        chains = self._response.chains
        digest, sequence = chains.get(key, (key.encode(), 0))
        digest = hashlib.blake2b(digest + event.value, digest_size=16).digest()
        _remember(chains, key, (digest, sequence + 1))
        headers = [(HEADER_EVENT_ID, digest.hex().encode()), (HEADER_SEQUENCE, b"%d" % sequence)]
        if run is not None:
            headers.insert(1, (HEADER_RUN_ID, run.encode()))
        return Outgoing(key.encode(), event.value, tuple(headers))


def described(record: Outgoing) -> str:
    """A record that could not be sent, by its event, object and run, and what its absence leads to."""
    fields = _fields.decode(record.value)
    inner = _fields.decode(fields.data) if bytes(fields.data).startswith(b"{") else fields
    name, own = _text(fields.event) or _text(fields.object) or "event", _text(inner.id)
    what = f"{name:.80}{f' of {own:.80}' if own else ''}, run {record.key.decode():.80}"
    if name.startswith("thread.run.step.") and name.rpartition(".")[2] in _ENDS:
        return f"{what}: without its end the worker publishes the step as expired"
    return what


def _remember(known: dict[str, _T], key: str, value: _T) -> None:
    known.pop(key, None)  # so that the order of the dict is the order of use
    known[key] = value
    if len(known) > MAX_REMEMBERED:
        del known[next(iter(known))]


def _read(frame: Frame) -> _Known | str | None:
    """The event in a frame, or why it is none; None for an end mark written as an event."""
    try:
        str(frame.data, "utf-8")  # the decoder below does not look into strings it skips
        outer = _fields.decode(frame.data)
        if frame.name is not None:
            # Bytes around bytes, not decode and encode: numbers, escapes and spacing stay as the service sent them.
            name = msgspec.json.encode(str(frame.name, "utf-8"))
            return _known(outer, b'{"event":' + name + b',"data":' + frame.data + b"}")
        if isinstance(outer.event, str):
            if outer.event == "done":
                return None
            return _known(_fields.decode(outer.data), frame.data)
    except UnicodeDecodeError:
        return "not UTF-8"
    except RecursionError:
        return "nested deeper than the decoder goes"
    except msgspec.DecodeError as exc:
        return f"not a JSON object ({exc!s:.120})"
    if outer.object in BARE_OBJECTS:
        return _known(outer, frame.data)
    return 'neither an event ({"event": ..., "data": {...}}) nor a run, a step or a step\'s delta'


def _known(fields: _Fields, value: bytes) -> _Known:
    kind = _text(fields.object) or "event"
    own = _text(fields.id)
    run = own if kind == "thread.run" else _text(fields.run_id)
    thread = own if kind == "thread" else _text(fields.thread_id)
    return _Known(value, own, run, thread, kind)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def ends_response(frame: Frame) -> bool:
    return frame.data.strip() == DONE or frame.name == b"done"


class EventStream:
    """One input, fed in chunks of any size, to records for the source topic.

    A response ends at `[DONE]` in SSE text; JSON lines are one response as a whole, for they may interleave runs.
    `done` says whether the last response was seen to its end.
    """

    def __init__(self, keyer: RunKeyer | None = None, format: Format = Format.AUTO) -> None:
        self.keyer = RunKeyer() if keyer is None else keyer
        self.done = False
        self.events = 0
        self._format = format
        self._lines = LineSplitter()
        self._frames = SseFrames()

    @property
    def format(self) -> Format:
        """How the stream is written; AUTO until its first line is known."""
        return self._format

    def feed(self, chunk: bytes) -> list[Outgoing]:
        """The records that `chunk` completes.

        Raises:
            UsageError: an event is longer than `MAX_EVENT_BYTES`.
        """
        return [record for line in self._lines.feed(chunk) for record in self._line(line)]

    def finish(self) -> list[Outgoing]:
        """The input is over: the last records."""
        out = [record for line in self._lines.finish() for record in self._line(line)]
        last = self._frames.finish()
        if last is not None:
            out += self._frame(last)
        return out + self.keyer.end_response()

    def _line(self, line: bytes) -> list[Outgoing]:
        if self._format is Format.AUTO:
            start = line.strip()
            if not start:
                return []
            self._format = Format.JSONL if start.startswith((b"{", b"[")) else Format.SSE
        if self._format is Format.SSE:
            frame = self._frames.take(line)
            if self._frames.held_bytes > MAX_EVENT_BYTES:
                raise UsageError(f"publish: an event of more than {MAX_EVENT_BYTES:,} bytes")
        else:
            frame = Frame(None, line) if line.strip() else None
        return [] if frame is None else self._frame(frame)

    def _frame(self, frame: Frame) -> list[Outgoing]:
        self.done = ends_response(frame)
        if self.done:
            return self.keyer.end_response() if self._format is Format.SSE else []
        self.events += 1
        return self.keyer.take(frame)
