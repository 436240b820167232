"""The lab's own tools do what they say: each action of the proxy on a real broker, and nodes by their role."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator

import pytest

from tests import kafka_tools as kt
from tests.faults.conftest import Behind
from tests.faults.proxy import HOST, Action, Api, Proxy
from tests.kafka_tools import Names, Sent


class Asker:
    """A client of one request: ApiVersions."""

    def __init__(self, behind: Behind, client: str = "asker") -> None:
        self._client = client.encode()
        self._socket = socket.create_connection((HOST, behind.cluster.nodes[0].advertised_port), timeout=60)
        self._correlation = 0

    def ask(self) -> None:
        self._correlation += 1
        head = struct.pack(">hhih", Api.API_VERSIONS, 0, self._correlation, len(self._client)) + self._client
        self._socket.sendall(struct.pack(">i", len(head)) + head)

    def answer(self, within_s: float = 60.0) -> int | None:
        """The correlation id of the next answer; None: the connection was cut. Raises TimeoutError."""
        self._socket.settimeout(within_s)
        try:
            head = self._read(8)
        except (ConnectionResetError, EOFError):
            return None
        length, correlation = struct.unpack(">ii", head)
        self._read(length - 4)
        return int(correlation)

    def close(self) -> None:
        self._socket.close()

    def _read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            if not (more := self._socket.recv(count - len(data))):
                raise EOFError
            data += more
        return data


@pytest.fixture
def asker(behind: Behind) -> Iterator[Asker]:
    found = Asker(behind)
    yield found
    found.close()
    behind.proxy.disarm()


@pytest.fixture
def proxy(behind: Behind) -> Proxy:
    return behind.proxy


def test_what_no_rule_names_passes(asker: Asker, proxy: Proxy) -> None:
    proxy.arm(Api.API_VERSIONS, Action.CUT_BEFORE, client="^another$")
    proxy.arm(Api.PRODUCE, Action.CUT_BEFORE)
    asker.ask()
    assert asker.answer() == 1


def test_the_nth_request_loses_its_answer(asker: Asker, proxy: Proxy) -> None:
    rule = proxy.arm(Api.API_VERSIONS, Action.DROP_ANSWER, client="^asker$", nth=2)
    for _ in range(3):
        asker.ask()
    assert (asker.answer(), asker.answer()) == (1, 3)
    assert rule.await_answered(60)
    fired = proxy.fired[-1]
    assert (fired.api, fired.client, fired.action) == (Api.API_VERSIONS, "asker", Action.DROP_ANSWER)


@pytest.mark.parametrize(("action", "is_done"), [(Action.CUT_BEFORE, False), (Action.CUT_AFTER, True)])
def test_a_connection_that_is_cut(asker: Asker, proxy: Proxy, action: Action, is_done: bool) -> None:
    rule = proxy.arm(Api.API_VERSIONS, action, client="^asker$")
    asker.ask()
    assert asker.answer() is None
    assert rule.await_answered(60 if is_done else 0.3) == is_done


def test_delivered_late_after_a_time(asker: Asker, proxy: Proxy) -> None:
    rule = proxy.arm(Api.API_VERSIONS, Action.LATE, client="^asker$", seconds=3)
    began = time.monotonic()
    asker.ask()
    assert asker.answer() is None
    assert not rule.await_answered(0.2)
    assert rule.await_answered(60)
    assert time.monotonic() - began >= 3


def test_delivered_late_at_a_named_moment(asker: Asker, proxy: Proxy) -> None:
    rule = proxy.arm(Api.API_VERSIONS, Action.KEEP, client="^asker$")
    asker.ask()
    assert asker.answer() is None
    assert rule.await_caught(60)
    assert not rule.await_answered(0.3)
    rule.release()
    assert rule.await_answered(60)
    assert rule.answer[:2] == b"\0\0"


@pytest.mark.parametrize(("action", "is_done"), [(Action.HOLD, False), (Action.HOLD_ANSWER, True)])
def test_held_until_released(asker: Asker, proxy: Proxy, action: Action, is_done: bool) -> None:
    rule = proxy.arm(Api.API_VERSIONS, action, client="^asker$")
    asker.ask()
    with pytest.raises(TimeoutError):
        asker.answer(0.3)
    assert rule.await_answered(60 if is_done else 0.3) == is_done
    rule.release()
    assert asker.answer() == 1


@pytest.mark.parametrize("action", [Action.DELAY_REQUEST, Action.DELAY_ANSWER])
def test_delayed(asker: Asker, proxy: Proxy, action: Action) -> None:
    proxy.arm(Api.API_VERSIONS, action, client="^asker$", seconds=0.3)
    began = time.monotonic()
    asker.ask()
    assert asker.answer() == 1
    assert time.monotonic() - began >= 0.3


def test_a_black_hole_says_nothing_more(asker: Asker, proxy: Proxy) -> None:
    proxy.arm(Api.API_VERSIONS, Action.BLACKHOLE, client="^asker$")
    for _ in range(2):
        asker.ask()
        with pytest.raises(TimeoutError):
            asker.answer(0.2)


def test_a_rule_that_is_too_old(asker: Asker, proxy: Proxy) -> None:
    proxy.arm(Api.API_VERSIONS, Action.CUT_BEFORE, lasts_s=0.0)
    asker.ask()
    assert asker.answer() == 1


def test_clients_come_through_and_witnesses_past_the_proxy(behind: Behind, names: Names) -> None:
    cluster, proxy = behind
    topic = names.topic("in")
    kt.create_topics(cluster.bootstrap, topic)
    before = proxy.seen.total()
    kt.produce(cluster.bootstrap, topic, [Sent(b"1")])
    assert proxy.seen.total() == before
    kt.produce(cluster.client_bootstrap, topic, [Sent(b"2")])
    assert proxy.seen[Api.PRODUCE] > 0
    assert [got.value for got in kt.read_topic(cluster.bootstrap, topic)] == [b"1", b"2"]


def test_nodes_are_known_by_their_role(behind: Behind, names: Names) -> None:
    cluster = behind.cluster
    topic = names.topic("in")
    kt.create_topics(cluster.bootstrap, topic)
    kt.produce(cluster.bootstrap, topic, [Sent(b"1")], transactional_id=names.topic("writer"))
    assert cluster.leader(topic, 0).id == 1
    assert cluster.transaction_coordinator(names.topic("writer")).id == 1
    assert cluster.controller().id == 1
