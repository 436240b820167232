"""Connections to brokers that hang: what is waited for, how long, and who is asked next. Sockets that fall silent."""

from __future__ import annotations

import asyncio
import re
import struct
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiokafka.client import ConnectionGroup
from aiokafka.errors import KafkaConnectionError, NodeNotReadyError, RequestTimedOutError
from aiokafka.protocol.coordination import FindCoordinatorRequest
from aiokafka.protocol.group import HeartbeatRequest, JoinGroupRequest
from aiokafka.protocol.metadata import MetadataRequest

from processor.errors import BrokerRefused, BrokerUnavailable, RunStepsError
from processor.kafka import admin, client, diagnosis, link
from processor.kafka.admin import Admin
from processor.kafka.client import SILENT, Client
from processor.kafka.client_config import Connection
from processor.kafka.diagnosis import _Closed, _diagnosed, diagnose
from processor.kafka.link import BrokerLink
from processor.kafka.transactions import NotSent

HOST = "127.0.0.1"
_API_VERSIONS, _METADATA, _FIND_COORDINATOR = 18, 3, 10


class Node:
    """As much of a broker as says who is in the cluster; `answers` names the API keys that it still answers."""

    def __init__(self) -> None:
        self.port = 0
        self.cluster: list[Node] = [self]
        self.answers = {_API_VERSIONS, _METADATA, _FIND_COORDINATOR}
        self.asked: list[int] = []
        self._ended = asyncio.Event()

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                (length,) = struct.unpack(">i", await reader.readexactly(4))
                api_key, _, number = struct.unpack_from(">hhi", await reader.readexactly(length))
                self.asked.append(api_key)
                if api_key not in self.answers:
                    await self._ended.wait()
                    return
                body = struct.pack(">i", number) + self._answer(api_key)
                writer.write(struct.pack(">i", len(body)) + body)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def _answer(self, api_key: int) -> bytes:
        if api_key == _API_VERSIONS:
            known = [(3, 0, 0), (10, 0, 0), (11, 0, 5), (12, 0, 0), (18, 0, 0)]
            return struct.pack(">hi", 0, len(known)) + b"".join(struct.pack(">hhh", *row) for row in known)
        if api_key == _METADATA:
            host = struct.pack(">h", len(HOST)) + HOST.encode()
            brokers = [struct.pack(">i", i) + host + struct.pack(">i", n.port) for i, n in enumerate(self.cluster)]
            return struct.pack(">i", len(brokers)) + b"".join(brokers) + struct.pack(">i", 0)
        host = struct.pack(">h", len(HOST)) + HOST.encode()
        return struct.pack(">hi", 0, 0) + host + struct.pack(">i", self.port)


@asynccontextmanager
async def cluster(count: int) -> AsyncIterator[list[Node]]:
    nodes = [Node() for _ in range(count)]
    servers = []
    for node in nodes:
        server = await asyncio.start_server(node.serve, HOST, 0)
        node.port, node.cluster = server.sockets[0].getsockname()[1], nodes
        servers.append(server)
    try:
        yield nodes
    finally:
        for node in nodes:
            node._ended.set()
        for server in servers:
            server.close()
        await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The same proportions, in less time; and nothing remembered from one test to the next."""
    monkeypatch.setattr(client, "_CONNECT_S", 0.3)
    monkeypatch.setattr(client, "_CONNECT_MOST_S", 1.0)
    monkeypatch.setattr(client.BrokerConnection, "_connect_least_s", 0.3)
    monkeypatch.setattr(client, "_STAGGER_S", 0.05)
    monkeypatch.setattr(client, "_ANSWER_S", 0.5)
    monkeypatch.setattr(client, "_ALIVE_AFTER_S", 0.2)
    SILENT.forget()
    yield
    SILENT.forget()


@asynccontextmanager
async def connected(nodes: list[Node], *, request_timeout_ms: int = 20_000) -> AsyncIterator[Client]:
    made = Client(bootstrap_servers=",".join(n.address for n in nodes), request_timeout_ms=request_timeout_ms)
    try:
        await made.bootstrap()
        yield made
    finally:
        await made.close()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connection attempts with seconds, where what is judged is what goes on beside one."""
    monkeypatch.setattr(client, "_CONNECT_S", 3.0)
    monkeypatch.setattr(client.BrokerConnection, "_connect_least_s", 3.0)


async def test_a_mute_bootstrap_address_costs_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_CONNECT_S", 60.0)
    async with cluster(3) as nodes:
        nodes[0].answers, nodes[1].answers = set(), set()
        began = time.monotonic()
        async with connected(nodes):
            assert time.monotonic() - began < 30, "addresses are tried a stagger apart, not one after the other"


async def test_what_was_silent_is_tried_last_by_the_next_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_STAGGER_S", 60.0)
    async with cluster(2) as nodes:
        nodes[0].answers = set()
        mute = (HOST, nodes[0].port)
        SILENT.timed_out(mute)
        for _ in range(10):
            async with connected(nodes) as made:
                assert made.get_random_node() == 1
                assert made.nodes() == [1, 0]
        assert nodes[0].asked == []
        async with connected(nodes) as made:
            SILENT.answered(mute)
            assert {made.get_random_node() for _ in range(50)} == {0, 1}


async def test_where_none_answers_the_patience_grows(caplog: pytest.LogCaptureFixture) -> None:
    async with cluster(1) as nodes:
        nodes[0].answers = set()
        for _ in range(4):
            with pytest.raises(KafkaConnectionError):
                async with connected(nodes):
                    pass
    told = [re.findall(r"no answer within ([\d.]+) s", record.getMessage()) for record in caplog.records]
    assert [float(s) for found in told for s in found] == [0.3, 0.6, 1.0, 1.0]


async def test_metadata_come_from_another_node_when_one_hangs() -> None:
    async with cluster(2) as nodes, connected(nodes) as made:
        assert await made.ready(0)
        assert await made.ready(1)
        nodes[0].answers = set()
        nodes[0].asked.clear()
        for _ in range(6):
            assert await made.force_metadata_update()
        assert nodes[0].asked.count(_METADATA) <= 1, "once at the most, then it is asked last"
        assert made.get_random_node() == 1


async def test_an_unanswered_question_ends_soon_and_its_connection_with_it() -> None:
    async with cluster(1) as nodes, connected(nodes) as made:
        nodes[0].answers -= {12}
        began = time.monotonic()
        with pytest.raises(RequestTimedOutError):
            await made.send(0, HeartbeatRequest("g", 1, "m"))
        assert time.monotonic() - began < 10, "of a request time-out of 20 s"
        assert all(not held.connected() for held in made._conns.values())


async def test_heartbeats_come_in_time_though_none_is_answered() -> None:
    """A coordinator answers none while a replica of its log hangs, and counts who has sent one as living."""
    async with cluster(1) as nodes, connected(nodes) as made:
        beat = HeartbeatRequest("g", 1, "m")
        made.session_s = 0.6
        held = await made._get_conn(0)
        assert held._patience_s(beat, is_quick=True) == pytest.approx(0.2)
        SILENT.late((HOST, nodes[0].port), beat.API_KEY)
        assert held._patience_s(beat, is_quick=True) == pytest.approx(0.4)
        for _ in range(3):
            SILENT.late((HOST, nodes[0].port), beat.API_KEY)
        assert held._patience_s(beat, is_quick=True) == pytest.approx(0.4)
        assert held._patience_s(MetadataRequest([]), is_quick=True) == pytest.approx(0.5)
        held.session_s = 30.0
        SILENT.in_time((HOST, nodes[0].port), beat.API_KEY)
        assert held._patience_s(beat, is_quick=True) == pytest.approx(0.5), "a long session changes nothing"


async def test_a_writer_does_not_wait_for_a_silent_leader(monkeypatch: pytest.MonkeyPatch) -> None:
    """It asks who leads now, while one attempt to connect goes on."""
    monkeypatch.setattr(client, "_CONNECT_S", 300.0)
    monkeypatch.setattr(link, "_SILENT_S", 0.01)
    async with cluster(2) as nodes, connected(nodes) as made:
        nodes[0].answers = set()
        SILENT.timed_out((HOST, nodes[0].port))
        writing = BrokerLink(
            Connection.build(nodes[0].address),
            transactional_id="w",
            group_id="g",
            source_topic="in",
            transaction_timeout_ms=1000,
        )
        writing._client = made
        begun: list[int] = []
        connecting = made._get_conn

        async def counted(node_id: int, **how: Any) -> Any:
            begun.append(node_id)
            return await connecting(node_id, **how)

        monkeypatch.setattr(made, "_get_conn", counted)
        async with asyncio.timeout(60):
            for _ in range(3):
                with pytest.raises(NotSent):
                    await writing._connected(0, ConnectionGroup.DEFAULT, 300.0)
            assert (await writing._connected(1, ConnectionGroup.DEFAULT, 300.0)).port == nodes[1].port
        assert begun == [0, 1], "one attempt at a time"
        assert list(writing._attempts) == [(0, ConnectionGroup.DEFAULT)]
        await writing.close()
        assert not writing._attempts


@pytest.mark.usefixtures("patient")
async def test_a_join_is_waited_for_as_long_as_the_broker_lives() -> None:
    """And no longer: a coordinator that hangs is left for the one that the group has moved to."""
    async with cluster(1) as nodes, connected(nodes) as made:
        joining = asyncio.create_task(made.send(0, JoinGroupRequest("g", 6000, 30_000, "", None, "consumer", [])))
        await asyncio.sleep(1.2)
        assert not joining.done(), "it answers ApiVersions on another connection"
        nodes[0].answers = set()
        began = time.monotonic()
        with pytest.raises(KafkaConnectionError):
            await joining
        assert time.monotonic() - began < 20, "of a rebalance of 30 s"


@pytest.mark.usefixtures("patient")
async def test_a_quick_question_behind_a_slow_one_is_not_cut_short() -> None:
    """The broker answers in order: to close the connection would lose the answer to a commit."""
    async with cluster(1) as nodes, connected(nodes) as made:
        held = await made._get_conn(0)
        slow = asyncio.create_task(held.send(JoinGroupRequest("g", 6000, 30_000, "", None, "consumer", [])))
        await asyncio.sleep(0.05)
        quick = asyncio.create_task(held.send(MetadataRequest([])))
        await asyncio.sleep(0.8)
        assert not quick.done()
        for task in (slow, quick):
            task.cancel()
        await asyncio.wait({slow, quick})


@pytest.mark.usefixtures("patient")
async def test_a_node_that_hangs_holds_up_no_connection_to_another() -> None:
    async with cluster(2) as nodes, connected(nodes) as made:
        nodes[0].answers = set()
        hanging = asyncio.create_task(made.ready(0))
        await asyncio.sleep(0.05)
        assert await made.ready(1)
        assert not hanging.done()
        assert not await hanging


async def test_the_coordinator_is_looked_up_elsewhere() -> None:
    async with cluster(2) as nodes, connected(nodes) as made:
        nodes[0].answers = set()
        SILENT.timed_out((HOST, nodes[0].port))
        assert await made.coordinator_lookup(0, "g") == 0
        assert FindCoordinatorRequest.API_KEY in nodes[1].asked


async def test_the_coordinator_is_looked_up_elsewhere_while_one_lets_us_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one that hangs nobody may know yet: a session can be over before its time is."""
    monkeypatch.setattr(client, "_ANSWER_S", 120.0)
    async with cluster(2) as nodes, connected(nodes, request_timeout_ms=120_000) as made:
        monkeypatch.setattr(made, "nodes", lambda: [0, 1])
        nodes[0].answers -= {_FIND_COORDINATOR}
        began = time.monotonic()
        assert await made.coordinator_lookup(0, "g") == 0
        assert time.monotonic() - began < 60
        assert FindCoordinatorRequest.API_KEY in nodes[0].asked
        assert len(made._asking) == 1
    assert not made._asking


async def test_the_last_failure_of_a_look_up_is_raised() -> None:
    async with cluster(2) as nodes, connected(nodes) as made:
        for node in nodes:
            node.answers -= {_FIND_COORDINATOR}
        with pytest.raises(RequestTimedOutError):
            await made.coordinator_lookup(0, "g")


async def test_without_a_known_broker_the_look_up_fails_as_the_library_expects() -> None:
    made = Client(bootstrap_servers=f"{HOST}:1")
    with pytest.raises(NodeNotReadyError):
        await made.coordinator_lookup(0, "g")


async def test_a_retired_client_keeps_no_connection_that_was_being_opened() -> None:
    async with cluster(1) as nodes, connected(nodes) as made:
        opening = asyncio.create_task(made._get_conn(0))
        await asyncio.sleep(0)
        made.abort()
        assert await opening is None
        assert not made._conns


async def test_all_mute_is_told_with_the_address_and_in_seconds() -> None:
    async with cluster(1) as nodes:
        nodes[0].answers = set()
        with pytest.raises(BrokerUnavailable, match=rf"{HOST}:{nodes[0].port}: no answer within"):
            async with Admin(Connection.build(nodes[0].address)):
                pass


async def test_a_mute_broker_that_has_served_is_told_without_another_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker says so seconds earlier: the settings are right, and the address has just let an attempt time out."""
    attempts: list[tuple[str, int]] = []

    async def attempt(host: str, port: int, **_: object) -> None:
        attempts.append((host, port))
        raise TimeoutError("no answer within 6 s")

    monkeypatch.setattr(client, "connect_patiently", attempt)
    address = (HOST, 1)
    SILENT.served(address, "PLAINTEXT")
    SILENT.timed_out(address)
    reason = await reason_of(address)
    assert attempts == []
    assert isinstance(reason, BrokerUnavailable)
    assert f"{HOST}:1: no answer" in reason.message
    assert "answered before" in reason.hint
    SILENT.answered(address)
    await reason_of(address)
    assert attempts == [address], "silent no more: why it could not be used is worth an attempt"
    SILENT.forget()
    SILENT.timed_out(address)
    assert "kafka.security_protocol" in (await reason_of(address)).hint
    assert attempts == [address, address], "one that has never answered may speak another protocol"


@asynccontextmanager
async def closing(greeting: bytes = b"") -> AsyncIterator[tuple[str, int]]:
    """A port that closes each connection at the first bytes, after a greeting."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(greeting)
        writer.close()

    async with await asyncio.start_server(serve, HOST, 0) as server:
        yield HOST, server.sockets[0].getsockname()[1]


async def reason_of(address: tuple[str, int]) -> RunStepsError:
    return await diagnose(Connection.build(f"{address[0]}:{address[1]}", request_timeout_ms=2000))


async def test_a_port_that_has_never_answered_and_closes_is_of_another_protocol(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(diagnosis, "_ASK_AGAIN_S", 0.01)
    async with closing() as address:
        reason = await reason_of(address)
    assert isinstance(reason, BrokerRefused)
    assert "security_protocol" in reason.hint


async def test_a_port_that_has_answered_and_closes_is_an_outage() -> None:
    async with closing() as address:
        SILENT.served(address, "SSL")
        SILENT.served(address, "PLAINTEXT")
        reason = await reason_of(address)
        SILENT.forget()
        SILENT.served(address, "SSL")
        assert isinstance(await reason_of(address), BrokerRefused), "over this protocol it never has"
    assert isinstance(reason, BrokerUnavailable)


async def test_a_port_that_closes_for_a_moment_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "_ASK_AGAIN_S", 0.01)
    async with cluster(1) as nodes:
        told = [BrokerRefused("away"), BrokerRefused("away")]
        asked = _diagnosed

        async def away(connection: Connection) -> RunStepsError:
            return _Closed(told.pop().message) if told else await asked(connection)

        monkeypatch.setattr(diagnosis, "_diagnosed", away)
        reason = await reason_of((HOST, nodes[0].port))
    assert isinstance(reason, BrokerUnavailable)
    assert "answers only now" in reason.message


async def test_who_has_answered_a_question_is_remembered() -> None:
    async with cluster(1) as nodes, connected(nodes):
        assert SILENT.has_served((HOST, nodes[0].port), "PLAINTEXT")
        assert not SILENT.has_served((HOST, nodes[0].port), "SSL")


async def test_a_port_that_speaks_tls_is_called_that() -> None:
    async with closing(b"\x15\x03\x03\x00\x02\x02P") as address:
        reason = await reason_of(address)
    assert isinstance(reason, BrokerRefused)
    assert "speaks TLS" in reason.message
    assert "security_protocol" in reason.hint


async def test_without_a_controller_topics_are_created_later(monkeypatch: pytest.MonkeyPatch) -> None:
    async def none(*_: object) -> bool:
        return False

    made = admin._AdminClient(bootstrap_servers=f"{HOST}:1")
    monkeypatch.setattr(made._client, "force_metadata_update", none)
    with pytest.raises(NodeNotReadyError):
        await made.create_topics([])
