"""`run-steps publish`: files or stdin to the source topic."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from importlib import resources
from pathlib import Path
from typing import Final

from processor.errors import BrokerRefused, BrokerUnavailable, UsageError
from processor.kafka.client_config import Connection
from processor.kafka.errors import RecordTooLarge
from processor.kafka.producer import Compression, EventProducer
from processor.publish.event_fields import described
from processor.publish.event_keying import EventKeyer
from processor.publish.event_stream import EventStream
from processor.publish.outgoing import Outgoing
from processor.publish.publisher import EchoSink, Sink
from processor.publish.sse import Format


async def run(
    files: Sequence[Path],
    *,
    topic: str,
    connection: Connection | None = None,
    format: Format | str = Format.AUTO,
    response_id: str | None = None,
    compression: Compression = "none",
    dry_run: bool = False,
    idempotent: bool = True,
    timeout_s: float = 30.0,
    timestamp_ms: int | None = None,
    echo: Callable[[str], None],
    warn: Callable[[str], None] | None = None,
) -> int:
    """Publish files, or the standard input, one after the other; live, as the bytes come in.

    Args:
        files: read in this order; `-` or none at all is the standard input. Give the responses of a run in theirs.
        connection: where the broker is; not needed for a dry run.
        response_id: the response of input that names none, as a resumed Responses stream may be.
        compression: of the record batches.
        timestamp_ms: of every record, in ms since 1970; None: the time when it is sent.
        echo: takes the dry run's records and the closing line. `warn` takes what is wrong (default: `echo`).

    Returns:
        The exit code. 0: every event was acknowledged by the broker. 65: some of the input is not an event or there
        was none; the rest was published.

    Raises:
        UsageError: a file cannot be read.
        BrokerUnavailable, BrokerRefused: something was not acknowledged. Publish the same input again: the worker
            ignores what had arrived, for as long as it remembers the steps (`[steps] ended_retention_s` after their
            end).
    """
    warn = echo if warn is None else warn
    for path in files:
        if str(path) != "-" and not path.exists():
            raise UsageError(f"publish: {path}: no such file")
        if path.is_dir():
            raise UsageError(f"publish: {path}: is a folder", hint="name the files in it")
    publication = _Publication(topic, Format(format), response_id, warn)
    async with AsyncExitStack() as stack:
        producer: EventProducer | None = None
        if dry_run:
            sink: Sink = EchoSink(echo)
        elif connection is None:
            raise UsageError("publish: no broker given")
        else:
            producer = EventProducer(connection, timeout_s=timeout_s, idempotent=idempotent, compression=compression)
            await stack.enter_async_context(producer)
            sink = producer if timestamp_ms is None else _Dated(producer, timestamp_ms)
        try:
            for path in files or [Path("-")]:
                await publication.play(path, sink)
            if producer is not None:
                await producer.flush()
        except (BrokerUnavailable, BrokerRefused, UsageError):
            if producer is not None:
                warn(
                    f"publish: {producer.acknowledged} events were acknowledged, others not; publish the same input"
                    " again soon: its event ids are the same, so what arrived is recognised as a repeat"
                )
            raise
    (warn if dry_run else echo)(f"{'would publish' if dry_run else 'published'} {publication.summary()}")
    return 0 if publication.is_complete else 65


class _Dated:
    """A sink whose records all have one timestamp."""

    def __init__(self, producer: EventProducer, timestamp_ms: int) -> None:
        self._producer, self._timestamp_ms = producer, timestamp_ms

    async def send(self, topic: str, value: bytes, *, key: bytes, headers: Sequence[tuple[str, bytes]] = ()) -> None:
        await self._producer.send(topic, value, key=key, headers=headers, timestamp_ms=self._timestamp_ms)


class _Publication:
    """The inputs of one call: one keyer for all of them, and what was sent and refused."""

    def __init__(self, topic: str, format: Format, response_id: str | None, warn: Callable[[str], None]) -> None:
        self._topic, self._format, self._response_id, self._warn = topic, format, response_id, warn
        self._keyer = EventKeyer()
        self._keys: set[bytes] = set()
        self._sent = self._refused = 0
        self._empty = False

    @property
    def is_complete(self) -> bool:
        """Whether every input had events, and none was refused."""
        return not self._refused and not self._empty

    def summary(self) -> str:
        """The closing line."""
        return f"{self._sent} events of {len(self._keys)} runs to {self._topic}; {self._refused} refused"

    async def play(self, path: Path, sink: Sink) -> None:
        """Send the events of one input; report its faults."""
        name = "stdin" if str(path) == "-" else str(path)
        stream = EventStream(self._keyer, self._format, response_id=self._response_id)
        complaints = _Complaints(name, self._warn)
        async for records in _records(path, stream):
            for record in records:
                try:
                    await sink.send(self._topic, record.value, key=record.key, headers=record.headers)
                except RecordTooLarge as exc:  # this one is lost, the rest is not
                    complaints.say(f"{described(record.key, record.value)}: not published: {exc.message}")
                else:
                    self._sent += 1
                    self._keys.add(record.key)
            self._say_what_was_found(name, stream, complaints)
        self._refused += complaints.end()
        if not stream.events:
            self._warn(f"publish: {name}: no event in it")
            self._empty = True
        elif stream.format is Format.SSE and stream.has_runs and not stream.done:
            self._warn(f"publish: {name}: ends without [DONE]; the connection may have been cut")

    def _say_what_was_found(self, name: str, stream: EventStream, complaints: _Complaints) -> None:
        for refusal in self._keyer.refusals:
            complaints.say(f"event {refusal.event}: {refusal.reason}")
        for problem in stream.problems:
            complaints.say(problem)
        for note in self._keyer.notes:
            self._warn(f"publish: {name}: {note}")
        self._keyer.refusals.clear()
        stream.problems.clear()
        self._keyer.notes.clear()


class _Complaints:
    """Faults of one input: all are counted, a bounded number is reported."""

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
        """Number of faults."""
        if self._count > self.LIMIT:
            self._warn(f"publish: {self._name}: and {self._count - self.LIMIT} more like these")
        return self._count


async def _records(path: Path, stream: EventStream) -> AsyncIterator[list[Outgoing]]:
    async for chunk in _chunks(path):
        yield stream.feed(chunk)
    yield stream.finish()


async def _chunks(path: Path) -> AsyncIterator[bytes]:
    """The bytes of a file; of the standard input, a pipe or a device as they come."""
    try:
        if str(path) == "-":
            if sys.stdin is None:
                raise UsageError("publish: the standard input is closed", hint="name a file, or pipe the stream in")
            while chunk := await _read_live(sys.stdin.fileno()):
                yield chunk
            return
        with path.open("rb", buffering=0) as source:
            is_live = not stat.S_ISREG(
                os.fstat(source.fileno()).st_mode
            )  # such as /dev/stdin, or a shell's <(curl ...)
            while chunk := await _read_live(source.fileno()) if is_live else source.read(65_536):
                yield chunk
                await asyncio.sleep(0)  # an interrupt is heeded here
    except OSError as exc:
        raise UsageError(f"publish: {path}: cannot be read: {exc.strerror}") from exc


async def _read_live(descriptor: int) -> bytes:
    """Read the available bytes, as soon as there are any; empty at the end."""
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
    """The streams of run steps that come with the package, in the order in which they are to be published."""
    return sorted(_samples().glob("*.sse"))


def response_sample_files() -> list[Path]:
    """The Responses streams that come with the package, and a retrieved response, in the same order."""
    return sorted(path for path in (_samples() / "responses").iterdir() if path.suffix in (".sse", ".json"))


def _samples() -> Path:
    return Path(str(resources.files("processor") / "samples"))
