"""Framing of broker responses: each is received into the buffer from which it is decoded.

Upstream goes through `asyncio.StreamReader`: a fetched byte is copied when it leaves the loop, when it joins what was
read before, and when a response is cut out of that. Here the socket writes into the memory that the response is
decoded from, and large responses use the same memory one after the other: fresh memory costs more than a copy.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from typing import Final

_LENGTH: Final = struct.Struct(">i")
_SMALL_BYTES: Final = 64 << 10
_KEPT_BYTES: Final = 16 << 20
"""Memory for larger responses is given back after each."""
_STEP_BYTES: Final = 1 << 20
"""That memory is made in multiples of this: twice as much as is needed would all be real memory, for it is zeroed."""
_FIRST_MOST_BYTES: Final = 4 << 20
"""The first response says which versions the broker speaks: a few hundred bytes."""
_TLS_ALERT: Final = b"\x15\x03"


class ForeignProtocol(ConnectionError):
    """The listener does not speak Kafka's protocol, or expects TLS."""


class FrameProtocol(asyncio.BufferedProtocol):
    """Receiving protocol of one connection. It has the signature of upstream's protocol, which it replaces.

    `deliver` is given every response, as bytes when it is small; else as a view that is good until it returns. `ended`
    resolves when nothing more will come: with `EOFError` after an end in order, with the error that cut the
    connection, or with what `deliver` raised. Of `reader` no more is used than to say that the end has come.
    """

    def __init__(
        self, closed: asyncio.Future[None], reader: asyncio.StreamReader, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.ended: asyncio.Future[None] = loop.create_future()
        self.deliver: Callable[[bytes | memoryview], None] | None = None
        self._closed, self._reader = closed, reader
        self._is_first = True
        # Several small responses may come at once, and the beginning of a large one with them.
        self._small = memoryview(bytearray(_SMALL_BYTES))
        self._received = 0
        self._kept = memoryview(b"")
        # The large response that is being received: a part of `_kept`; empty when there is none.
        self._large = memoryview(b"")
        self._filled = 0

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._large[self._filled :] if self._large else self._small[self._received :]

    def buffer_updated(self, nbytes: int) -> None:
        if self.ended.done():  # no receiver is left
            return
        try:
            if not self._large:
                self._received += nbytes
                self._cut()
                return
            self._filled += nbytes
            if self._filled == len(self._large):
                large, self._large = self._large, memoryview(b"")
                self._deliver(large)
                if len(self._kept) > _KEPT_BYTES:
                    self._kept = memoryview(b"")
        except Exception as error:
            self._end(error)

    def _cut(self) -> None:
        """Deliver the complete responses, and make room for the rest of an incomplete one."""
        small, received, at = self._small, self._received, 0
        while received - at >= _LENGTH.size and not self.ended.done():
            (length,) = _LENGTH.unpack_from(small, at)
            if length < 0:
                raise ValueError(f"a response of {length} bytes")
            if self._is_first and length > _FIRST_MOST_BYTES:
                # Read as a length, the first bytes of other protocols would ask for hundreds of megabytes.
                is_tls = bytes(small[at : at + 2]) == _TLS_ALERT
                raise ForeignProtocol("it speaks TLS" if is_tls else "it does not speak Kafka's protocol")
            self._is_first = False
            begin, end = at + _LENGTH.size, at + _LENGTH.size + length
            if end > received:
                if end - at > len(small):
                    self._begin_large(length, small[begin:received])
                    at = received
                break
            at = end
            self._deliver(bytes(small[begin:end]))
        small[: received - at] = small[at:received]
        self._received = received - at

    def _begin_large(self, length: int, beginning: memoryview) -> None:
        if length > len(self._kept):
            # The C library gives memory of this size back when it is freed, to fault it in again for the next response,
            # until it has seen a larger piece come and go.
            if not self._kept:
                bytearray(_KEPT_BYTES)
            self._kept = memoryview(b"")  # not both at once
            self._kept = memoryview(bytearray(-(-length // _STEP_BYTES) * _STEP_BYTES))
        self._large, self._filled = self._kept[:length], len(beginning)
        self._large[: self._filled] = beginning

    def _deliver(self, response: bytes | memoryview) -> None:
        if self.deliver is None:
            raise ValueError("the broker spoke before it was asked")
        self.deliver(response)

    def eof_received(self) -> bool:
        self._end(EOFError("the broker closed the connection"))
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc or EOFError("the connection was closed"))
        if not self._closed.done():
            self._closed.set_result(None)
        # Connections end in cycles of references, with tasks and tracebacks: their memory is not to wait for the
        # garbage collector, which counts objects and not their bytes.
        self._small = self._kept = memoryview(b"")

    def _end(self, error: Exception) -> None:
        self._reader.feed_eof()
        self._large, self._received = memoryview(b""), 0
        if not self.ended.done():
            self.ended.set_exception(error)
            self.ended.exception()  # seen: a closed connection has no receiver

    async def _drain_helper(self) -> None:
        """For `StreamWriter.drain`. Requests are few, and each is waited for."""


class Response:
    """A large response as the decoders want it, without a copy of the whole.

    Behaves as a `BytesIO` that is only read from.
    """

    def __init__(self, content: memoryview) -> None:
        self._content, self._at = content, 0

    def read(self, size: int) -> bytes:
        """At most `size` bytes, fewer at the end only."""
        begin, self._at = self._at, self._at + size
        return bytes(self._content[begin : self._at])
