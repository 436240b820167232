"""`RunPublisher`: publish the events of a program's own SDK stream."""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol, Self

import msgspec

from processor.core.sse import Frame
from processor.errors import UsageError
from processor.kafka.client_config import Connection
from processor.kafka.errors import RecordTooLarge
from processor.kafka.producer import Compression, EventProducer
from processor.printable import printable_json
from processor.publish.event_fields import ends_stream
from processor.publish.event_keying import EventKeyer
from processor.publish.outgoing import Outgoing, Refusal


class Sink(Protocol):
    """Sink of records."""

    async def send(
        self, topic: str, value: bytes, *, key: bytes, headers: Sequence[tuple[str, bytes]] = ()
    ) -> None: ...


class EchoSink:
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
        self._echo(printable_json(msgspec.json.encode(record).decode()))


class RunPublisher:
    """Publisher for programs that have the events of a service's SDK: it sends them to the source topic.

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
        compression: of the record batches: none, gzip, snappy, lz4 or zstd.

    A Responses stream is published whole, because its deltas do not say whose they are:

        stream = await client.responses.create(model=..., input=..., stream=True)
        await publisher.publish_stream(stream)
    """

    def __init__(
        self,
        *,
        topic: str,
        bootstrap_servers: str | Sequence[str] | None = None,
        connection: Connection | None = None,
        timeout_s: float = 30.0,
        idempotent: bool = True,
        compression: Compression = "none",
    ) -> None:
        if (bootstrap_servers is None) == (connection is None):
            raise UsageError("RunPublisher: give either bootstrap_servers or connection")
        if connection is None:
            servers = bootstrap_servers if isinstance(bootstrap_servers, str) else ",".join(bootstrap_servers or ())
            connection = Connection(servers)
        self._producer = EventProducer(connection, timeout_s=timeout_s, idempotent=idempotent, compression=compression)
        self._topic = topic
        self._keyer = EventKeyer()

    async def publish(self, event: object) -> None:
        """Queue one event.

        Args:
            event: an SDK's event (`.event` and `.data`, or a model of the Responses API), a tuple `(name, data, ...)`
                as some SDKs yield, a dict `{"event": ..., "data": ...}` or bare object, or the bytes of either. An end
                mark is ignored. A whole `Response`, as `retrieve` returns it, ends what a dropped stream left open.

        Raises:
            UsageError: it is none of these, or there is nothing to key it by; the publisher goes on.
            RecordTooLarge: it is larger than a record may be; the publisher goes on.
            BrokerUnavailable, BrokerRefused: this or an earlier event was not acknowledged.
        """
        frame = _frame_of(event)
        if not ends_stream(frame):
            await self._send(self._keyer.take(frame))
            self._raise_refusal()

    async def publish_stream(self, events: AsyncIterable[object] | Iterable[object], *, response_id: str = "") -> None:
        """Queue all events of one stream, as they come. Other streams may be published at the same time.

        Args:
            events: what an SDK's stream yields, in any of the forms that `publish` takes.
            response_id: the response, where the stream does not name it (one that `starting_after` resumed).

        Raises:
            UsageError, RecordTooLarge: some of them cannot be published; the others were, and the publisher goes on.
            BrokerUnavailable, BrokerRefused: as `publish`.
        """
        keyer = self._keyer.beside()
        if response_id:
            keyer.responses.use(response_id)
        refused: list[Refusal] = []
        too_large: list[RecordTooLarge] = []

        async def send(records: list[Outgoing]) -> None:
            try:
                await self._send(records)
            except RecordTooLarge as error:  # this one is lost, the rest of the stream is not
                too_large.append(error)
            refused.extend(keyer.refusals)
            keyer.refusals.clear()

        try:
            async for event in _each(events):
                try:
                    frame = _frame_of(event)
                except UsageError as error:
                    keyer.refuse(error.message.removeprefix("publish: "))
                    continue
                if not ends_stream(frame):
                    await send(keyer.take(frame, sequential=True))
        finally:  # a stream that breaks has said what it has said
            await send(keyer.end_stream())
        if too_large:
            raise too_large[0]
        if refused:
            first, more = refused[0], f" (and {len(refused) - 1} more)" if refused[1:] else ""
            raise UsageError(f"publish: event {first.event}: {first.reason}{more}")

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
                await self._send(self._keyer.end_stream())
                self._raise_refusal()
        except BaseException as own:
            await self._producer.__aexit__(type(own), own, own.__traceback__)
            raise
        await self._producer.__aexit__(kind, exc, trace)

    async def _send(self, records: Iterable[Outgoing]) -> None:
        """Queue records. One that is too large is told when the others are queued: it must take none with it."""
        too_large: RecordTooLarge | None = None
        for record in records:
            try:
                await self._producer.send(self._topic, record.value, key=record.key, headers=record.headers)
            except RecordTooLarge as error:
                too_large = too_large or error
        if too_large is not None:
            raise too_large

    def _raise_refusal(self) -> None:
        if self._keyer.refusals:
            first = self._keyer.refusals[0]
            self._keyer.refusals.clear()
            raise UsageError(f"publish: event {first.event}: {first.reason}")


async def _each(events: AsyncIterable[object] | Iterable[object]) -> AsyncIterator[object]:
    if isinstance(events, AsyncIterable):
        async for event in events:
            yield event
    else:
        for event in events:
            yield event


def _frame_of(event: object) -> Frame:
    """An event in any of the shapes programs hold it in."""
    if isinstance(event, str):
        event = _utf8(event)
    if isinstance(event, (bytes, bytearray, memoryview)):
        return Frame(None, bytes(event))
    if isinstance(event, Mapping):
        return Frame(None, _json(dict(event)))
    if isinstance(event, tuple) and len(event) >= 2:
        name, data = event[0], event[1]
    elif isinstance(getattr(event, "type", None), str) or getattr(event, "object", None) == "response":
        return Frame(None, _json_of(event))  # a model of the Responses API: its type is its name
    else:
        name, data = getattr(event, "event", None), getattr(event, "data", None)
    name = getattr(name, "value", name)  # an enum's member stands for its text
    if not isinstance(name, str) or data is None:
        raise UsageError(
            f"publish: a {type(event).__name__} is not an event",
            hint="hand over what the SDK's stream yields, a dict with event and data, or bytes",
        )
    return Frame(_utf8(name), _json_of(data))


def _json_of(data: object) -> bytes:
    """An SDK's object as the JSON it was read from, as far as the SDK still knows it."""
    if isinstance(data, str):
        return _utf8(data)
    if isinstance(data, bytes):
        return data
    if hasattr(data, "model_dump_json"):
        # Only what the service sent: a field it left out must not come back as null, which erases at a step's end.
        # No warnings: tools the SDK does not know yet keep all their fields, they only lack a class.
        model: Any = data
        kept = {"exclude_unset": True, "by_alias": True, "warnings": False, "exclude": _added_by_helper(data)}
        try:
            return _encoded(model.model_dump_json(**kept))
        except ValueError:  # half a surrogate pair, which pydantic does not write
            return _ascii(model.model_dump(**kept))
    if hasattr(data, "as_dict"):
        return _json(data.as_dict())
    if hasattr(data, "to_json"):
        return _encoded(data.to_json())
    if isinstance(data, Mapping):
        return _json(dict(data))
    raise UsageError(f"publish: the data of an event is a {type(data).__name__}, which has no JSON form")


def _added_by_helper(data: object) -> dict[str, Any] | None:
    """Fields that the stream helper of the `openai` package adds to the service's events, such as all text so far."""
    if not any("Parsed" in kind.__name__ or kind.__module__.startswith("openai.lib.") for kind in type(data).__mro__):
        return None
    parsed = {"output": {"__all__": {"content": {"__all__": {"parsed"}}, "parsed_arguments": True}}}
    return {"snapshot": True, "parsed": True, "response": parsed, **parsed}


def _json(value: object) -> bytes:
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:  # half a surrogate pair: as an escape it can be written
        return _ascii(value)


def _ascii(value: object) -> bytes:
    return json.dumps(msgspec.to_builtins(value), separators=(",", ":")).encode()


def _encoded(text: str | bytes) -> bytes:
    return _utf8(text) if isinstance(text, str) else text


def _utf8(text: str) -> bytes:
    """JSON text as bytes. Half a surrogate pair, which UTF-8 cannot hold, is written as JSON's escape of it."""
    return text.encode("utf-8", "backslashreplace")
