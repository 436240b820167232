"""Responses cut out of what a socket brings, in whatever pieces it comes. No broker."""

from __future__ import annotations

import asyncio
import gc
import struct
import tracemalloc
from collections.abc import Iterable, Sequence

import pytest
from aiokafka.conn import AIOKafkaConnection
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.kafka import framing as frames
from processor.kafka.client import BrokerConnection, connect
from processor.kafka.framing import ForeignProtocol, FrameProtocol, Response
from tests.examples import examples

SMALL = 64 << 10


class Wire:
    """A protocol, and what it delivered."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.closed: asyncio.Future[None] = loop.create_future()
        self.reader = asyncio.StreamReader(loop=loop)
        self.protocol = FrameProtocol(self.closed, self.reader, loop=loop)
        self.protocol.deliver = lambda response: self.delivered.append(bytes(response))
        self.delivered: list[bytes] = []

    def bring(self, data: bytes, pieces: Iterable[int] = ()) -> None:
        """As a transport does: never more at once than there is room for."""
        rest = memoryview(data)
        sizes = iter(pieces)
        while rest:
            room = self.protocol.get_buffer(-1)
            assert room, "a transport takes no room for the end of the connection"
            count = min(len(room), len(rest), next(sizes, len(rest)))
            room[:count] = rest[:count]
            self.protocol.buffer_updated(count)
            rest = rest[count:]


def framed(*responses: bytes) -> bytes:
    return b"".join(struct.pack(">i", len(response)) + response for response in responses)


def contents(length: int) -> bytes:
    return (struct.pack(">I", length) * (length // 4 + 1))[:length]


LENGTHS = st.lists(
    st.one_of(st.integers(0, 300), st.integers(SMALL - 9, SMALL + 9), st.sampled_from([3 * SMALL, 300_000])),
    max_size=8,
)
PIECES = st.lists(st.one_of(st.integers(1, 9), st.integers(1, 2 * SMALL)), max_size=40)


@given(lengths=LENGTHS, pieces=PIECES)
@settings(max_examples=examples(300), deadline=None)
def test_however_it_is_cut_the_same_responses_come(lengths: Sequence[int], pieces: Sequence[int]) -> None:
    async def run() -> None:
        wire = Wire()
        expected = [contents(length) for length in lengths]
        wire.bring(framed(*expected), pieces)
        assert wire.delivered == expected
        assert not wire.protocol.ended.done()

    asyncio.run(run())


async def test_large_responses_use_the_same_memory_and_a_very_large_one_gives_it_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(frames, "_KEPT_BYTES", 4 * SMALL)
    monkeypatch.setattr(frames, "_STEP_BYTES", SMALL)
    wire = Wire()
    places: list[int] = []
    views: list[object] = []

    def deliver(response: bytes | memoryview) -> None:
        assert isinstance(response, memoryview)
        views.append(response.obj)
        places.append(len(response))

    wire.protocol.deliver = deliver
    wire.bring(framed(contents(3 * SMALL), contents(2 * SMALL), contents(9 * SMALL), contents(2 * SMALL)))
    assert places == [3 * SMALL, 2 * SMALL, 9 * SMALL, 2 * SMALL]
    assert views[0] is views[1]
    assert len({id(view) for view in views}) == 3


async def test_the_memory_of_a_large_response_is_hardly_more_than_it() -> None:
    """A fetch of 4 MiB is a little more than that with what stands around it; twice as much would be real memory."""
    wire = Wire()
    wire.bring(framed(b"the first is small"))
    held: list[int] = []

    def deliver(response: bytes | memoryview) -> None:
        assert isinstance(response, memoryview)
        held.append(memoryview(response.obj).nbytes)

    wire.protocol.deliver = deliver
    wire.bring(framed(bytes((4 << 20) + 500)))
    assert held == [5 << 20]


async def test_an_ended_connection_holds_no_memory() -> None:
    """Whoever still refers to it: up to 16 MiB each waited for the garbage collector."""
    wire = Wire()
    wire.bring(framed(contents(3 * SMALL), contents(20))[:-1])

    def held() -> int:
        return sum(view.nbytes for view in gc.get_referents(wire.protocol) if isinstance(view, memoryview))

    assert held() >= 4 * SMALL
    wire.protocol.connection_lost(None)
    assert held() == 0


@pytest.mark.parametrize("part", [b"", b"\0\0", framed(b"whole"), framed(contents(3 * SMALL))[: 2 * SMALL]])
async def test_the_brokers_end_is_told_whatever_was_under_way(part: bytes) -> None:
    wire = Wire()
    wire.bring(part)
    assert wire.protocol.eof_received() is False
    wire.protocol.connection_lost(None)
    with pytest.raises(EOFError):
        await wire.protocol.ended
    assert wire.reader.at_eof()
    assert wire.closed.done()


async def test_what_cut_the_connection_is_told() -> None:
    wire = Wire()
    wire.protocol.connection_lost(ConnectionResetError("reset"))
    with pytest.raises(ConnectionResetError):
        await wire.protocol.ended
    assert wire.reader.at_eof()


@pytest.mark.parametrize("data", [framed(b"one", b"two"), framed(contents(2 * SMALL), b"two")])
async def test_after_a_response_that_cannot_be_handled_nothing_more_is_delivered(data: bytes) -> None:
    wire = Wire()
    seen = []

    def fail(response: bytes | memoryview) -> None:
        seen.append(len(response))
        raise ValueError("no such field")

    wire.protocol.deliver = fail
    wire.bring(data)
    wire.bring(framed(contents(3 * SMALL)))
    assert len(seen) == 1
    with pytest.raises(ValueError, match="no such field"):
        await wire.protocol.ended


async def test_a_length_below_zero_ends_it() -> None:
    wire = Wire()
    wire.bring(struct.pack(">i", -1) + b"more")
    with pytest.raises(ValueError, match="-1 bytes"):
        await wire.protocol.ended


async def test_a_broker_that_speaks_first_is_none() -> None:
    wire = Wire()
    wire.protocol.deliver = None
    wire.bring(framed(b"welcome"))
    with pytest.raises(ValueError, match="before it was asked"):
        await wire.protocol.ended


def test_a_response_is_read_as_from_a_file() -> None:
    response = Response(memoryview(b"abcdef"))
    assert [response.read(2), response.read(0), response.read(3), response.read(9), response.read(1)] == [
        b"ab",
        b"",
        b"cde",
        b"f",
        b"",
    ]


async def test_a_connection_uses_it_and_is_closed_by_the_brokers_end() -> None:
    """ApiVersions is answered, one byte at a time; then the broker hangs up."""
    answer = framed(struct.pack(">ihi", 1, 0, 1) + struct.pack(">hhh", 18, 0, 4))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        (length,) = struct.unpack(">i", await reader.readexactly(4))
        await reader.readexactly(length)
        for at in range(len(answer)):
            writer.write(answer[at : at + 1])
            await writer.drain()
            await asyncio.sleep(0)
        await done.wait()
        writer.close()

    done = asyncio.Event()
    lost: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        connection = await connect("127.0.0.1", port, on_close=lambda _, reason: lost.set_result(reason))
        assert isinstance(connection, BrokerConnection)
        assert connection._versions == {18: (0, 4)}
        assert connection.connected()
        done.set()
        async with asyncio.timeout(60):
            await lost
        assert not connection.connected()
    assert AIOKafkaConnection.connect.__globals__["AIOKafkaProtocol"] is not FrameProtocol


@pytest.mark.parametrize(
    ("data", "says"),
    [(b"\x15\x03\x03\x00\x02\x02P", "speaks TLS"), (b"HTTP/1.1 400 Bad Request\r\n\r\n", "not speak Kafka")],
)
async def test_another_protocol_is_told_by_its_first_bytes_and_gets_no_memory(data: bytes, says: str) -> None:
    wire = Wire()
    tracemalloc.start()
    try:
        wire.bring(data)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert wire.protocol.ended.done()
    with pytest.raises(ForeignProtocol, match=says):
        await wire.protocol.ended
    assert peak_bytes < 1 << 20


async def test_only_the_first_response_is_known_to_be_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "_FIRST_MOST_BYTES", SMALL)
    wire = Wire()
    expected = [contents(100), contents(3 * SMALL)]
    wire.bring(framed(*expected))
    assert wire.delivered == expected
