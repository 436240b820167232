# mypy: allow-subclassing-any
"""Connections that fail the way the library expects, and clients that can be silenced for good."""

from __future__ import annotations

import asyncio
import io
import weakref
from collections.abc import Iterable
from functools import partial
from types import SimpleNamespace
from typing import Any, Final

from aiokafka import conn
from aiokafka.client import AIOKafkaClient, ConnectionGroup
from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.errors import KafkaConnectionError, KafkaError
from aiokafka.protocol.metadata import MetadataRequest

from processor.kafka.frames import FrameProtocol, Response
from processor.kafka.pinned import rebound
from processor.kafka.throttling import OBSERVED

_LAST_WORD_S: Final = 1.0


def _stream(response: bytes | memoryview) -> io.BytesIO | Response:
    return io.BytesIO(response) if isinstance(response, bytes) else Response(response)


class BrokerConnection(AIOKafkaConnection):
    """One socket to one broker."""

    connect = rebound(AIOKafkaConnection.connect, AIOKafkaProtocol=FrameProtocol)
    _handle_frame = rebound(AIOKafkaConnection._handle_frame, io=SimpleNamespace(BytesIO=_stream))

    def send(self, request: Any, expect_response: bool = True) -> Any:
        """As upstream, but a closed transport is a lost connection.

        uvloop raises RuntimeError there, which nothing in the library expects: it would end the task that
        coordinates or sends (aiokafka #1038).
        """
        try:
            answer = super().send(request, expect_response)
            if expect_response:
                _, asked, future = self._requests[-1]
                future.add_done_callback(partial(OBSERVED.note, asked.API_KEY))
            return answer
        except RuntimeError as error:
            if isinstance(error, KafkaError):
                raise
            self.close(reason=CloseReason.CONNECTION_BROKEN, exc=error)
            raise KafkaConnectionError(f"Connection at {self.host}:{self.port} broken: {error}") from error

    def _create_reader_task(self) -> Any:
        myself = weakref.ref(self)  # as upstream: the transport must not keep a connection that nobody closed

        def deliver(response: bytes | memoryview) -> None:
            connection = myself()
            if connection is not None:
                connection._handle_frame(response)

        self._protocol.deliver = deliver
        return super()._create_reader_task()

    @staticmethod
    async def _read(self_ref: weakref.ref[BrokerConnection]) -> None:
        """In place of the loop that reads responses: they are delivered, and only the end is left to wait for."""
        connection = self_ref()
        if connection is not None:
            ended = connection._protocol.ended
            del connection
            await ended

    def close(self, reason: CloseReason | None = None, exc: BaseException | None = None) -> Any:
        """As upstream, but at once: nothing is lost by it, for whatever we want to know the outcome of we have awaited.

        Over TLS there would be parting words, which a broker does not hear while it holds a fetch of ours back, and
        uvloop waits 30 s for its answer.
        """
        writer = self._writer
        closed = super().close(reason=reason, exc=exc)
        if writer is not None:
            writer.transport.abort()
        return closed


connect = rebound(conn.create_conn, AIOKafkaConnection=BrokerConnection)
"""Open one connection: TCP, TLS, versions, SASL. Its arguments are those of `aiokafka.conn.create_conn`."""


class Client(AIOKafkaClient):
    """The connections of one consumer or producer."""

    bootstrap = rebound(AIOKafkaClient.bootstrap, create_conn=connect)
    _open = rebound(AIOKafkaClient._get_conn, create_conn=connect)
    # Brokers may create topics on sight, with one partition: a misspelt name must be missed instead.
    _metadata_update = rebound(
        AIOKafkaClient._metadata_update, MetadataRequest=partial(MetadataRequest, allow_auto_topic_creation=False)
    )
    _retired = False

    async def _get_conn(self, node_id: Any, *, group: Any = ConnectionGroup.DEFAULT, no_hint: bool = False) -> Any:
        return None if self._retired else await self._open(node_id, group=group, no_hint=no_hint)

    def retire(self) -> None:
        """Say nothing more to any broker: cut every connection, open no other.

        An abandoned producer goes on retrying in the background and might commit what its owner has given up.
        """
        self._retired = True
        for connection in list(self._conns.values()):
            if connection._writer is not None:
                connection._writer.transport.abort()
            connection.close()

    async def speaks(self, api_key: int, version: int) -> bool:
        """Whether the broker knows this version of a request."""
        connection = await self._get_conn(self.get_random_node())
        if connection is None:
            raise KafkaConnectionError("no broker is reachable")
        low, high = connection._versions.get(api_key, (0, -1))
        return bool(low <= version <= high)


async def silence(client: Client, tasks: Iterable[asyncio.Task[Any] | None]) -> None:
    """End a consumer or producer that did not end by itself, in about a second, whatever state it is in."""
    client.retire()
    pending = {task for task in tasks if task is not None and not task.done()}
    deadline = asyncio.get_running_loop().time() + _LAST_WORD_S
    while pending and asyncio.get_running_loop().time() < deadline:
        # More than once: on cancellation the sender first waits for its requests, each of which retries for ever.
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=0.05)
    try:
        async with asyncio.timeout(_LAST_WORD_S):
            await client.close()
    except TimeoutError:
        pass
    except asyncio.CancelledError:
        # That of a connection's reader which was cancelled before; unless it is we who are being cancelled.
        ours = asyncio.current_task()
        if ours is not None and ours.cancelling():
            raise
