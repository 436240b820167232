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

import asyncio
import hashlib
import os
import re
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from enum import StrEnum
from importlib import resources
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Protocol, Self, TypeVar

import msgspec

from processor.core.events import EVENT_ID
from processor.errors import BrokerRefused, BrokerUnavailable, UsageError
from processor.kafka.producer import EventProducer
from processor.kafka.security import Connection
from processor.kafka.trouble import RecordTooLarge

HEADER_EVENT_ID: Final = EVENT_ID
HEADER_RUN_ID: Final = "runstep-run-id"
HEADER_SEQUENCE: Final = "runstep-sequence"

BARE_OBJECTS: Final = frozenset({"thread.run", "thread.run.step", "assistant.run.step", "thread.run.step.delta"})
"""Objects that the worker understands without an event name (envelope E2)."""

MAX_EVENT_BYTES: Final = 64 * 1024 * 1024
MAX_HELD_EVENTS: Final = 4096
MAX_REMEMBERED: Final = 65_536

_UTF8_BOM: Final = b"\xef\xbb\xbf"
_LINE_END: Final = re.compile(rb"\r\n|\n|\r")
_DONE: Final = b"[DONE]"


class Format(StrEnum):
    """How a stream is written. AUTO: JSON lines if the first line begins as JSON does, SSE otherwise."""

    AUTO = "auto"
    SSE = "sse"
    JSONL = "jsonl"


class Outgoing(msgspec.Struct, frozen=True, gc=False):
    """One record for the source topic."""

    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...]


class Refusal(msgspec.Struct, frozen=True, gc=False):
    """An event that cannot be published. `event` counts from 1 in its stream; no payload in `reason`."""

    event: int
    reason: str


class Frame(msgspec.Struct, frozen=True, gc=False):
    """One event as it stood in the stream. `name` is None where the JSON in `data` names itself."""

    name: bytes | None
    data: bytes


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


# --- text to frames -------------------------------------------------------------------------------------------


class LineSplitter:
    """Lines out of chunks, wherever they are cut. A line ends with CR, LF or CRLF; a leading BOM is dropped."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []  # joined only when their line ends: a long line costs no quadratic copying
        self._held_bytes = 0
        self._after_cr = False
        self._start: bytes | None = b""  # the first bytes, until they can be told from a BOM

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines that end in `chunk`, without their ends.

        Raises:
            UsageError: a line goes on for more than `MAX_EVENT_BYTES`.
        """
        if self._start is not None:
            chunk = self._start + chunk
            if len(chunk) < len(_UTF8_BOM) and _UTF8_BOM.startswith(chunk):
                self._start = chunk
                return []
            self._start = None
            chunk = chunk.removeprefix(_UTF8_BOM)
        if self._after_cr and chunk:
            chunk = chunk.removeprefix(b"\n")  # the second half of a CRLF that was cut in two
            self._after_cr = False
        if not chunk:
            return []
        *lines, rest = _LINE_END.split(chunk)
        self._after_cr = chunk.endswith(b"\r")
        if lines and self._pieces:
            lines[0] = b"".join((*self._pieces, lines[0]))
            self._pieces.clear()
            self._held_bytes = 0
        if rest:
            self._pieces.append(rest)
            self._held_bytes += len(rest)
            if self._held_bytes > MAX_EVENT_BYTES:
                raise UsageError(f"publish: a line of more than {MAX_EVENT_BYTES:,} bytes")
        return lines

    def finish(self) -> list[bytes]:
        """The last line, if the input ended without a line end."""
        rest = b"".join((self._start or b"", *self._pieces))
        self._pieces.clear()
        self._start = None
        return [rest] if rest else []


class SseFrames:
    """Lines of a server-sent event stream to frames.

    More forgiving than the standard in two ways, for what is out there: an `event:` line after data begins a new frame
    even without a blank line between, and the last frame counts even if nothing ends it. `id:` and `retry:` say
    nothing we use.

    Source: WHATWG HTML, "Interpreting an event stream".
    """

    def __init__(self) -> None:
        self._name: bytes | None = None
        self._data: list[bytes] = []
        self._data_bytes = 0

    def take(self, line: bytes) -> Frame | None:
        """The frame that `line` ends, if it ends one."""
        if not line:
            return self.finish()
        name, _, content = line.partition(b":")
        content = content.removeprefix(b" ")
        if name == b"data":
            self._data.append(content)
            self._data_bytes += len(content)
            if self._data_bytes > MAX_EVENT_BYTES:
                raise UsageError(f"publish: an event of more than {MAX_EVENT_BYTES:,} bytes")
        elif name == b"event":
            ended = self.finish() if self._data else None
            self._name = content
            return ended
        return None

    def finish(self) -> Frame | None:
        """The frame begun, at a blank line or at the end of the input; None if it holds no data."""
        frame = Frame(self._name or None, b"\n".join(self._data)) if self._data else None
        self._name = None
        self._data.clear()
        self._data_bytes = 0
        return frame


# --- frames to records ----------------------------------------------------------------------------------------


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


def _ends_response(frame: Frame) -> bool:
    return frame.data.strip() == _DONE or frame.name == b"done"


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
        else:
            frame = Frame(None, line) if line.strip() else None
        return [] if frame is None else self._frame(frame)

    def _frame(self, frame: Frame) -> list[Outgoing]:
        self.done = _ends_response(frame)
        if self.done:
            return self.keyer.end_response() if self._format is Format.SSE else []
        self.events += 1
        return self.keyer.take(frame)


# --- the shell ------------------------------------------------------------------------------------------------


class Sink(Protocol):
    """Where records go."""

    async def send(
        self, topic: str, value: bytes, *, key: bytes, headers: Sequence[tuple[str, bytes]] = ()
    ) -> None: ...


class _Echo:
    """The sink of a dry run: one JSON object per record."""

    def __init__(self, echo: Callable[[str], None]) -> None:
        self._echo = echo

    async def send(self, topic: str, value: bytes, *, key: bytes, headers: Sequence[tuple[str, bytes]] = ()) -> None:
        record = {
            "topic": topic,
            "key": key.decode(),
            "headers": {name: content.decode() for name, content in headers},
            "value": msgspec.Raw(value),
        }
        self._echo(msgspec.json.encode(record).decode())


class RunPublisher:
    """For programs that hold the events of a service's SDK and want them on the source topic too.

    Six lines, with the `openai` package:

        async with RunPublisher(bootstrap_servers="127.0.0.1:9092", topic="run-step-events") as publisher:
            stream = await client.beta.threads.runs.create(
                thread_id=thread.id, assistant_id=assistant.id, stream=True
            )
            async for event in stream:
                await publisher.publish(event)

    One publisher serves any number of runs at once, for as long as the program lives. `publish` queues the event
    and returns; `flush`, and leaving the context, wait for the acknowledgements. After an error of the broker the
    publisher is finished: open another and publish the run's stream again from its start. The ids are the same
    then, so the worker ignores what had arrived (for as long as it remembers the steps).

    Args:
        bootstrap_servers: `host:port`, several separated by commas; for a plain connection.
        topic: the source topic.
        connection: instead of `bootstrap_servers`, a connection with TLS or SASL.
        timeout_s: the longest wait without progress.
        idempotent: False for brokers without idempotent producers.
    """

    def __init__(
        self,
        *,
        topic: str,
        bootstrap_servers: str | Sequence[str] | None = None,
        connection: Connection | None = None,
        timeout_s: float = 30.0,
        idempotent: bool = True,
    ) -> None:
        if (bootstrap_servers is None) == (connection is None):
            raise UsageError("RunPublisher: give either bootstrap_servers or connection")
        if connection is None:
            servers = bootstrap_servers if isinstance(bootstrap_servers, str) else ",".join(bootstrap_servers or ())
            connection = Connection(servers)
        self._producer = EventProducer(connection, timeout_s=timeout_s, idempotent=idempotent)
        self._topic = topic
        self._keyer = RunKeyer()

    async def publish(self, event: object) -> None:
        """Queue one event.

        Args:
            event: an SDK's event (`.event` and `.data`), a tuple `(name, data, ...)` as some SDKs yield, a dict
                `{"event": ..., "data": ...}` or bare object, or the bytes of either. An end mark is ignored.

        Raises:
            UsageError: it is none of these, or there is nothing to key it by; the publisher goes on.
            RecordTooLarge: it is larger than a record may be; the publisher goes on.
            BrokerUnavailable, BrokerRefused: this or an earlier event was not acknowledged.
        """
        frame = _frame_of(event)
        if not _ends_response(frame):
            await self._send(self._keyer.take(frame))

    async def flush(self) -> None:
        """Wait until everything queued is acknowledged."""
        await self._producer.flush()

    async def __aenter__(self) -> Self:
        await self._producer.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if exc is None:
                await self._send(self._keyer.end_response())
        except BaseException as own:
            await self._producer.__aexit__(type(own), own, own.__traceback__)
            raise
        await self._producer.__aexit__(kind, exc, trace)

    async def _send(self, records: Iterable[Outgoing]) -> None:
        for record in records:
            await self._producer.send(self._topic, record.value, key=record.key, headers=record.headers)
        if self._keyer.refusals:
            first = self._keyer.refusals[0]
            self._keyer.refusals.clear()
            raise UsageError(f"publish: event {first.event}: {first.reason}")


def _frame_of(event: object) -> Frame:
    """An event in any of the shapes programs hold it in."""
    if isinstance(event, str):
        event = event.encode()
    if isinstance(event, (bytes, bytearray, memoryview)):
        return Frame(None, bytes(event))
    if isinstance(event, Mapping):
        return Frame(None, msgspec.json.encode(dict(event)))
    if isinstance(event, tuple) and len(event) >= 2:
        name, data = event[0], event[1]
    else:
        name, data = getattr(event, "event", None), getattr(event, "data", None)
    name = getattr(name, "value", name)  # an enum's member stands for its text
    if not isinstance(name, str) or data is None:
        raise UsageError(
            f"publish: a {type(event).__name__} is not an event",
            hint="hand over what the SDK's stream yields, a dict with event and data, or bytes",
        )
    return Frame(name.encode(), _json_of(data))


def _json_of(data: object) -> bytes:
    """An SDK's object as the JSON it was read from, as far as the SDK still knows it."""
    if isinstance(data, str):
        return data.encode()
    if isinstance(data, bytes):
        return data
    if hasattr(data, "model_dump_json"):
        # Only what the service sent: a field it left out must not come back as null, which erases at a step's end.
        # No warnings: tools the SDK does not know yet keep all their fields, they only lack a class.
        return _encoded(data.model_dump_json(exclude_unset=True, by_alias=True, warnings=False))
    if hasattr(data, "as_dict"):
        return msgspec.json.encode(data.as_dict())
    if hasattr(data, "to_json"):
        return _encoded(data.to_json())
    if isinstance(data, Mapping):
        return msgspec.json.encode(dict(data))
    raise UsageError(f"publish: the data of an event is a {type(data).__name__}, which has no JSON form")


def _encoded(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text


async def run(
    files: Sequence[Path],
    *,
    topic: str,
    connection: Connection | None = None,
    format: Format | str = Format.AUTO,
    dry_run: bool = False,
    idempotent: bool = True,
    timeout_s: float = 30.0,
    echo: Callable[[str], None],
    warn: Callable[[str], None] | None = None,
) -> int:
    """Publish files, or the standard input, one after the other; live, as the bytes come in.

    Args:
        files: read in this order; `-` or none at all is the standard input. Give the responses of a run in theirs.
        connection: where the broker is; not needed for a dry run.
        echo: takes the dry run's records and the closing line. `warn` takes what is wrong (default: `echo`).

    Returns:
        The exit code. 0: every event was acknowledged by the broker. 65: some of the input is not an event or there
        was none; the rest was published.

    Raises:
        UsageError: a file cannot be read, or an event is too large.
        BrokerUnavailable, BrokerRefused: something was not acknowledged. Publish the same input again: the worker
            ignores what had arrived, for as long as it remembers the steps (`[steps] ended_retention_s` after their
            end).
    """
    warn = echo if warn is None else warn
    for path in files:
        if str(path) != "-" and not path.is_file():
            raise UsageError(f"publish: {path}: no such file")
    keyer = RunKeyer()
    keys: set[bytes] = set()
    sent = refused = 0
    complete = True
    async with AsyncExitStack() as stack:
        producer: EventProducer | None = None
        if dry_run:
            sink: Sink = _Echo(echo)
        elif connection is None:
            raise UsageError("publish: no broker given")
        else:
            producer = EventProducer(connection, timeout_s=timeout_s, idempotent=idempotent)
            sink = await stack.enter_async_context(producer)
        try:
            for path in files or [Path("-")]:
                name = "stdin" if str(path) == "-" else str(path)
                stream = EventStream(keyer, Format(format))
                complaints = _Complaints(name, warn)
                async for records in _records(path, stream):
                    for record in records:
                        try:
                            await sink.send(topic, record.value, key=record.key, headers=record.headers)
                        except RecordTooLarge as exc:  # this one is lost, the rest is not
                            complaints.say(exc.message)
                        else:
                            sent += 1
                            keys.add(record.key)
                    for refusal in keyer.refusals:
                        complaints.say(f"event {refusal.event}: {refusal.reason}")
                    keyer.refusals.clear()
                refused += complaints.end()
                if not stream.events:
                    warn(f"publish: {name}: no event in it")
                    complete = False
                elif stream.format is Format.SSE and not stream.done:
                    warn(f"publish: {name}: ends without [DONE]; the connection may have been cut")
            if producer is not None:
                await producer.flush()
        except (BrokerUnavailable, BrokerRefused):
            if producer is not None:
                warn(
                    f"publish: {producer.acknowledged} events were acknowledged, others not; publish the same input"
                    " again soon: its event ids are the same, so what arrived is recognised as a repeat"
                )
            raise
    verb = "would publish" if dry_run else "published"
    (warn if dry_run else echo)(f"{verb} {sent} events of {len(keys)} runs to {topic}; {refused} refused")
    return 0 if complete and not refused else 65


class _Complaints:
    """What is wrong with one input, said a bounded number of times and counted all the same."""

    LIMIT: Final = 10

    def __init__(self, name: str, warn: Callable[[str], None]) -> None:
        self._name = name
        self._warn = warn
        self._count = 0

    def say(self, what: str) -> None:
        self._count += 1
        if self._count <= self.LIMIT:
            self._warn(f"publish: {self._name}: {what}")

    def end(self) -> int:
        """How many there were."""
        if self._count > self.LIMIT:
            self._warn(f"publish: {self._name}: and {self._count - self.LIMIT} more like these")
        return self._count


async def _records(path: Path, stream: EventStream) -> AsyncIterator[list[Outgoing]]:
    async for chunk in _chunks(path):
        yield stream.feed(chunk)
    yield stream.finish()


async def _chunks(path: Path) -> AsyncIterator[bytes]:
    """The bytes of a file, or of the standard input as they come."""
    if str(path) == "-":
        while chunk := await _read_live(sys.stdin.fileno()):
            yield chunk
        return
    with path.open("rb") as source:
        while chunk := source.read(65_536):
            yield chunk


async def _read_live(descriptor: int) -> bytes:
    """What is there, as soon as anything is; empty at the end."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    try:
        # Not a thread's blocking read: it would keep an interrupted process from ending until the pipe says something.
        loop.add_reader(descriptor, ready.set)
    except (OSError, NotImplementedError):  # a regular file is always readable and cannot be watched
        return await asyncio.to_thread(os.read, descriptor, 65_536)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(descriptor)
    return os.read(descriptor, 65_536)


def sample_files() -> list[Path]:
    """The recordings that come with the package, in the order in which they are to be published."""
    folder = resources.files("processor") / "samples"
    return sorted(Path(str(entry)) for entry in folder.iterdir() if entry.name.endswith(".sse"))
