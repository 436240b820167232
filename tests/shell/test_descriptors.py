"""Few file descriptors: a probe is answered whatever others hold, and a start that cannot work is refused."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

import pytest

from processor.config.settings import Settings
from processor.errors import ConfigError
from processor.serve.command import serve
from processor.serve.descriptors import brokers_served, require_descriptors
from processor.serve.http_connections import HttpConnections

LIMIT: Final = 64
PROBE_S: Final = 20.0  # far more than an answer takes, and a busy machine


class Starved:
    """A server in a process of few descriptors (`tests.shell.starved_server`), and connections to it."""

    def __init__(self, process: subprocess.Popen[str], stack: ExitStack) -> None:
        self._process, self._stack = process, stack
        assert process.stdout is not None
        self.port = int(process.stdout.readline())

    def say(self, word: str) -> list[float]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()
        return [float(number) for number in self._process.stdout.readline().split()]

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Block in which the process stands still, so that connections come together."""
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def hold(self, said: bytes) -> socket.socket:
        """A connection that says something and stays."""
        held = self._stack.enter_context(socket.create_connection(("127.0.0.1", self.port), timeout=10))
        held.sendall(said)
        return held

    def probe(self) -> dict[str, object]:
        """The answer to /healthz."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=PROBE_S) as connection:
            connection.sendall(get("/healthz", "Connection: close\r\n"))
            said = b""
            while piece := connection.recv(65_536):
                said += piece
        head, _, body = said.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), said
        answer: dict[str, object] = json.loads(body)
        return answer


def get(path: str, headers: str = "") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode()


@pytest.fixture(params=["uvloop", "asyncio"])
def starved(request: pytest.FixtureRequest) -> Iterator[Starved]:
    with start(str(request.param)) as server:
        yield server


@contextmanager
def start(loop: str) -> Iterator[Starved]:
    command = [sys.executable, "-m", "tests.shell.starved_server", loop, str(LIMIT)]
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process,
        ExitStack() as stack,
    ):
        try:
            yield Starved(process, stack)
        finally:
            process.kill()


HELD: Final = {
    "nothing": b"",
    "half a request": b"GET /metrics HTTP/1.1\r\nHost:",
    "metrics, not read": get("/metrics"),
    "steps, not answered yet": get("/steps"),
    "ready, not answered yet": get("/readyz"),
    "half a body": b"POST /partitions/1/pause HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{",
}


@pytest.mark.parametrize("said", list(HELD.values()), ids=list(HELD))
def test_health_answers_while_others_hold_more_connections_than_there_are_descriptors(
    starved: Starved, said: bytes
) -> None:
    for _ in range(LIMIT + 10):
        starved.hold(said)
    for _ in range(3):
        answer = starved.probe()
        assert int(str(answer["descriptors"])) <= LIMIT // 2, "connections to brokers have no room"
    assert starved.say("told")[0] == 0


def test_health_answers_while_all_descriptors_are_used_by_something_else(starved: Starved) -> None:
    assert starved.say("fill")[0] > LIMIT / 4
    for path in ("/", "/steps", "/metrics") * 8:
        starved.hold(get(path))
        assert starved.probe()["ok"] is True
    assert starved.say("told")[0] == 1  # once in a minute


def test_without_any_descriptor_the_server_waits_and_goes_on_when_there_is_one(starved: Starved) -> None:
    starved.say("fill")
    for path in ("/readyz", "/steps") * 4:
        starved.hold(get(path))
    waits = starved.hold(get("/healthz"))
    _, before_s = starved.say("told")
    time.sleep(1.0)  # in which a loop that tries again at once uses all that the machine gives it
    told, after_s = starved.say("told")
    assert told == 1
    assert after_s - before_s < 0.1
    starved.say("release")
    waits.settimeout(PROBE_S)
    assert waits.recv(65_536).startswith(b"HTTP/1.1 200 ")


def test_probes_that_come_together_are_answered_one_after_the_other_where_there_is_room_for_one(
    starved: Starved,
) -> None:
    starved.say("fill")
    for path in (*["/readyz"] * 4, *["/steps"] * 3):
        starved.hold(get(path))
    with starved.stopped():
        probes = [starved.hold(get("/healthz", "Connection: close\r\n")) for _ in range(6)]
    for probe in probes:
        assert probe.recv(65_536).startswith(b"HTTP/1.1 200 ")


def test_descriptors_of_closed_connections_are_held_back_again(starved: Starved) -> None:
    for _ in range(2):
        held = [starved.hold(get("/")) for _ in range(12)]
        for connection in held:
            assert connection.recv(65_536)
            connection.close()
        starved.probe()
        starved.say("fill")
        assert starved.probe()["ok"] is True
        starved.say("free")


@pytest.mark.parametrize(
    ("limit", "each", "at_once"),
    [(64, 0, 4), (1024, 0, 32), (None, 8, 32), (1024, 4, 32), (1024, 16, 8), (64, 4, 2), (32, 0, 2)],
)
def test_requests_under_way_leave_room_for_their_own_connections_to_workers(
    monkeypatch: pytest.MonkeyPatch, limit: int | None, each: int, at_once: int
) -> None:
    """A quarter of the connections each for /healthz, /readyz and all others; an eighth of the descriptors onwards."""
    monkeypatch.setattr("processor.serve.http_connections.descriptor_limit", lambda: limit)
    assert HttpConnections.at_once(each) == at_once


@pytest.mark.parametrize(("limit", "workers"), [(47, 1), (47, 2), (79, 8)])
def test_a_limit_that_is_too_low_is_refused_with_its_name_and_value(limit: int, workers: int) -> None:
    with pytest.raises(ConfigError, match=rf"RLIMIT_NOFILE: {limit} file descriptors") as refused:
        require_descriptors(limit, workers)
    assert "ulimit -n 1024" in refused.value.hint
    require_descriptors(limit + 1, workers)
    require_descriptors(None, workers)


def test_serve_refuses_before_anything_is_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("processor.serve.command.descriptor_limit", lambda: 32)
    monkeypatch.setattr("processor.serve.command.run_one", lambda *_, **__: None)
    monkeypatch.setattr("processor.serve.command.run_to_exit", lambda _: 0)
    with pytest.raises(ConfigError, match="RLIMIT_NOFILE: 32 "):
        serve(Settings(), create_topics=False, workers=1)


def test_how_many_brokers_a_limit_is_enough_for() -> None:
    assert (brokers_served(48), brokers_served(64), brokers_served(256)) == (1, 5, 53)
