"""Connections of the HTTP server: accepted one at a time, few enough for the descriptors that the process may have.

A probe of `/healthz` comes on a connection of its own, and must get one whatever other clients hold:

- At most a quarter of the descriptors (`RLIMIT_NOFILE`, read for each connection) become connections, and at most
  `CONNECTIONS`. A further one takes the place of the one that has been without a request for longest.
- A quarter of them at most have `/healthz` under way, a quarter `/readyz`, and a quarter any other request: there is
  always one to be closed.
- `RESERVED` descriptors are held back from the start, and given to connections when the process has no other.
- A client that does not send a whole request, does not read an answer, or asks nothing more is cut off after a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple, cast

from processor.serve.descriptors import descriptor_limit

CONNECTIONS: Final = 128
RESERVED: Final = 8

IDLE_S: Final = 30.0  # a connection that asks nothing, or does not read its answer, is cut after this
FIRST_S: Final = 5.0  # and one that has not said its first request within this
ANSWER_S: Final = 15.0  # and one whose answer is not made within this
_PAUSE_S: Final = 0.1  # before the next try, where a connection could not be accepted
_GRACE_S: Final = 0.1  # what a new connection has to say its request before it makes room for the next
_TOLD_EVERY_S: Final = 60.0
_BACKLOG: Final = 128

_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Refused(NamedTuple):
    """A connection that could not be accepted: the error, the connections that are open, and the descriptor limit."""

    error: OSError
    open: int
    limit: int | None


class _Connection(asyncio.Protocol):
    """One connection on its way to aiohttp's handler, closed when it is idle or slow for too long."""

    def __init__(self, connections: HttpConnections, inner: asyncio.Protocol) -> None:
        self._connections, self._inner = connections, inner
        self._timer: asyncio.TimerHandle | None = None
        self.transport: asyncio.Transport | None = None
        self.since = 0.0
        self.is_busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class
        self.idle(FIRST_S)
        self._connections.opened(self)
        self._inner.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.closed(self)
        self.transport = None
        if self._timer is not None:
            self._timer.cancel()
        self._inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def idle(self, patience_s: float) -> None:
        """Begin to wait for a whole request. Bytes that come one by one do not make it longer."""
        self._begin(patience_s, is_busy=False)

    def busy(self) -> None:
        """A request is there, and is being answered."""
        self._begin(ANSWER_S, is_busy=True)

    def cut(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def _begin(self, patience_s: float, *, is_busy: bool) -> None:
        self.is_busy, self.since = is_busy, time.monotonic()
        if self._timer is not None:
            self._timer.cancel()
        if self.transport is not None:  # an answer may be made after the connection has gone
            self._timer = asyncio.get_running_loop().call_later(patience_s, self.cut)


class HttpConnections:
    """Listening sockets of the HTTP server and the connections accepted from them.

    `listen` and `stop` may be called once. `refused` is called at most once in a minute.
    """

    def __init__(self, make: Callable[[], asyncio.Protocol], refused: Callable[[Refused], None]) -> None:
        self._make, self._refused = make, refused
        self._open: dict[object, _Connection] = {}
        self._listening: list[socket.socket] = []
        self._accepting: list[asyncio.Task[None]] = []
        self._connecting: set[asyncio.Task[object]] = set()
        self._reserved: list[int] = []
        self._told_at = -_TOLD_EVERY_S

    async def listen(self, host: str, port: int) -> int:
        """Listen on all addresses of a host, on one port. Returns the port.

        Raises:
            OSError, OverflowError, UnicodeError: it cannot.
        """
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, address in dict.fromkeys((family, address) for family, _, _, _, address in found):
            listening = socket.create_server((address[0], port, *address[2:]), family=family, backlog=_BACKLOG)
            self._listening.append(listening)
            listening.setblocking(False)
            port = int(listening.getsockname()[1])
        self._reserve()
        self._accepting = [loop.create_task(self._accept(each), name="http accept") for each in self._listening]
        return port

    async def stop(self) -> None:
        """Accept no more. Connections that are open stay so."""
        for task in self._accepting:
            task.cancel()
        if ending := {*self._accepting, *self._connecting}:
            await asyncio.wait(ending)
        for listening in self._listening:
            listening.close()
        self._listening.clear()
        while self._reserved:
            os.close(self._reserved.pop())

    @staticmethod
    def at_once(each: int) -> int:
        """Maximum number of requests of a kind at once. `each`: connections that an answer opens."""
        limit = descriptor_limit()
        most = _bound() // 4
        return most if limit is None or each == 0 else max(2, min(most, limit // 8 // each))

    @contextmanager
    def answering(self, transport: object) -> Iterator[None]:
        """Context in which the connection has a request under way."""
        connection = self._open.get(transport)
        if connection is None:
            yield
            return
        connection.busy()
        try:
            yield
        finally:
            connection.idle(IDLE_S)

    def opened(self, connection: _Connection) -> None:
        self._open[connection.transport] = connection
        while len(self._open) > _bound() and self._close_one(connection.since):
            pass
        while self._reserved and len(self._open) + len(self._reserved) > RESERVED:
            os.close(self._reserved.pop())

    def closed(self, connection: _Connection) -> None:
        self._open.pop(connection.transport, None)  # one that was closed for another is not there
        # The descriptor is still open here.
        asyncio.get_running_loop().call_soon(self._reserve)

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, _ = await loop.sock_accept(listening)
            except OSError as error:
                self._tell(error)
                if error.errno not in _EXHAUSTED or not self._free_one():
                    await asyncio.sleep(_PAUSE_S)
                await asyncio.sleep(0)  # what was cut is closed in this turn
                continue
            connecting = loop.create_task(self._connect(accepted), name="http connection")
            self._connecting.add(connecting)
            connecting.add_done_callback(self._connecting.discard)
            # This takes turns of the loop: what others have said is read before the next connection is accepted.
            await asyncio.shield(connecting)

    async def _connect(self, accepted: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(lambda: _Connection(self, self._make()), accepted)
        except OSError:  # it has gone again
            accepted.close()

    def _free_one(self) -> bool:
        """Free a descriptor for the connection that waits to be accepted; False: there is none to free."""
        if self._reserved:
            os.close(self._reserved.pop())
            return True
        return self._close_one(time.monotonic() - _GRACE_S)

    def _close_one(self, before: float) -> bool:
        """Close the connection that has been without a request for longest, since a moment before this one."""
        idle = [other for other in self._open.values() if not other.is_busy and other.since < before]
        if not idle:
            return False
        victim = min(idle, key=lambda other: other.since)
        del self._open[victim.transport]
        victim.cut()
        return True

    def _reserve(self) -> None:
        """Hold descriptors back, so that with the open connections there are `RESERVED` or more."""
        wanted = RESERVED - len(self._open) if self._listening else 0
        with contextlib.suppress(OSError):
            while len(self._reserved) < wanted:
                self._reserved.append(os.dup(self._listening[0].fileno()))

    def _tell(self, error: OSError) -> None:
        now = time.monotonic()
        if now - self._told_at >= _TOLD_EVERY_S:
            self._told_at = now
            self._refused(Refused(error, len(self._open), descriptor_limit()))


def _bound() -> int:
    """Maximum number of open connections."""
    limit = descriptor_limit()
    return CONNECTIONS if limit is None else min(CONNECTIONS, max(RESERVED, limit // 4))
