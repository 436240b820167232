"""The pages over real sockets, of one worker and of several behind one port."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any, NamedTuple, cast

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from processor.errors import ConfigError
from processor.serve.http import Aggregator, Controlled, Health, OneWorker, Server, ServerLog, StatusSource
from processor.telemetry.telemetry import Telemetry

SECRET = "the-users-own-words"
GOOD = Health(True, [], {})


class Worker:
    """What a worker shows of itself, set by the test."""

    def __init__(self) -> None:
        self.health = GOOD
        self.ready = GOOD
        self.open: list[dict[str, object]] = []

    def healthz(self) -> Health:
        return self.health

    def readyz(self) -> Health:
        return self.ready

    def steps(self, limit: int) -> list[dict[str, object]]:
        return self.open[:limit]

    def control(self, partition: int, reason: str | None) -> Controlled:
        return Controlled(404, "owns nothing")


class Broken(Worker):
    def healthz(self) -> Health:
        raise KeyError(SECRET)

    def steps(self, limit: int) -> list[dict[str, object]]:
        raise KeyError(SECRET)


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        assert self.headers["Content-Type"].startswith("application/json")
        return json.loads(self.body)


@asynccontextmanager
async def served(site: StatusSource) -> AsyncIterator[str]:
    server = Server(site, "127.0.0.1", 0)
    port = await server.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await server.stop()


@asynccontextmanager
async def one(worker: Worker, telemetry: Telemetry | None = None) -> AsyncIterator[str]:
    async with served(OneWorker(worker, (telemetry or Telemetry()).exposition)) as url:
        yield url


async def ask(url: str, method: str = "GET", **options: Any) -> Answer:
    async with aiohttp.ClientSession() as session, session.request(method, url, **options) as response:
        return Answer(response.status, response.headers, await response.read())


@contextmanager
def dead() -> Iterator[str]:
    """An address where nothing listens: bound, so that nobody else gets it, and deaf."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}"


@contextmanager
def mute() -> Iterator[str]:
    """An address that accepts connections and never answers, as a worker with a blocked loop does."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        yield f"http://127.0.0.1:{held.getsockname()[1]}"


# --- One worker


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_a_verdict_is_200_or_503_with_reasons_and_detail(path: str) -> None:
    worker = Worker()
    async with one(worker) as url:
        good = await ask(url + path)
        assert (good.status, good.json) == (200, {"ok": True, "reasons": []})
        worker.health = worker.ready = Health(False, ["partition 3 has not moved for 61 s"], {"partitions": {"3": 17}})
        bad = await ask(url + path)
    assert bad.status == 503
    assert bad.json == {
        "ok": False,
        "reasons": ["partition 3 has not moved for 61 s"],
        "partitions": {"3": 17},
    }


async def test_detail_cannot_overrule_the_verdict() -> None:
    worker = Worker()
    worker.health = Health(False, ["stuck"], {"ok": True, "reasons": []})
    async with one(worker) as url:
        assert (await ask(url + "/healthz")).json == {"ok": False, "reasons": ["stuck"]}


async def test_a_check_that_breaks_is_unhealthy_and_says_no_more_than_its_class() -> None:
    async with one(Broken()) as url:
        health, steps = await ask(url + "/healthz"), await ask(url + "/steps")
    assert (health.status, health.json["reasons"]) == (503, ["the check itself broke: KeyError"])
    assert (steps.status, steps.json["class"]) == (500, "KeyError")
    assert SECRET not in str((health, steps))


async def test_metrics_are_served_as_prometheus_reads_them() -> None:
    telemetry = Telemetry()
    telemetry.applied(0, 12, 100)
    async with one(Worker(), telemetry) as url:
        answer = await ask(url + "/metrics")
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = {f.name: f for f in text_string_to_metric_families(answer.body.decode())}
    assert families["runstep_records_applied"].samples[0].value == 12


async def test_steps_show_ids_status_and_age_and_no_contents() -> None:
    worker = Worker()
    worker.open = [
        {"step_id": "step_1", "status": "in_progress", "age_s": 9.5, "step_details": SECRET},
        {"step_id": "step_2", "status": "in_progress", "age_s": 1},
    ]
    async with one(worker) as url:
        answer = await ask(url + "/steps")
        first = await ask(url + "/steps?limit=1")
    assert answer.json == {
        "limit": 100,
        "steps": [
            {"step_id": "step_1", "status": "in_progress", "age_s": 9.5},
            {"step_id": "step_2", "status": "in_progress", "age_s": 1},
        ],
    }
    assert [step["step_id"] for step in first.json["steps"]] == ["step_1"]


@pytest.mark.parametrize("limit", ["0", "1001", "-1", "x", "", "1e3", "٣", "9" * 400])
async def test_a_limit_out_of_bounds_is_refused(limit: str) -> None:
    async with one(Worker()) as url:
        answer = await ask(url + "/steps", params={"limit": limit})
    assert (answer.status, answer.json) == (400, {"error": "limit: a whole number from 1 to 1000"})


async def test_the_index_links_the_pages() -> None:
    async with one(Worker()) as url:
        answer = await ask(url + "/")
    assert answer.headers["Content-Type"].startswith("text/html")
    for page in (b"/healthz", b"/readyz", b"/metrics", b"/steps"):
        assert b'href="' + page in answer.body


@pytest.mark.parametrize("path", ["/", "/healthz", "/metrics", "/steps", "/nowhere"])
async def test_every_answer_carries_the_security_headers(path: str) -> None:
    async with one(Worker()) as url:
        headers = (await ask(url + path)).headers
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert headers["Server"] == "run-steps"


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz", "/metrics", "/steps"])
async def test_head_answers_like_get_without_a_body(path: str) -> None:
    async with one(Worker()) as url:
        answer = await ask(url + path, "HEAD")
    assert (answer.status, answer.body) == (200, b"")
    assert int(answer.headers["Content-Length"]) > 0


async def test_what_is_not_there_and_what_is_not_allowed_is_said_as_json() -> None:
    async with one(Worker()) as url:
        missing, refused = await ask(url + "/favicon.ico"), await ask(url + "/steps", "POST", data=b"x" * 4_000)
    assert (missing.status, missing.json["error"]) == (404, "no such page")
    assert (refused.status, refused.headers["Allow"]) == (405, "GET, HEAD")
    assert refused.json == {"error": "only GET, HEAD"}


async def test_a_request_line_beyond_the_limit_is_refused() -> None:
    async with one(Worker()) as url:
        assert (await ask(url + "/" + "a" * 4_000)).status == 400


async def test_too_many_requests_at_once_are_refused_and_the_rest_still_answered() -> None:
    full, release = asyncio.Event(), asyncio.Event()
    waiting = 0

    class Slow(OneWorker):
        async def healthz(self) -> Health:
            nonlocal waiting
            waiting += 1
            if waiting == 32:
                full.set()
            await release.wait()
            return GOOD

    async with served(Slow(Worker(), Telemetry().exposition)) as url:
        held = [asyncio.create_task(ask(url + "/healthz")) for _ in range(32)]
        async with asyncio.timeout(60):
            await full.wait()
            refused, other = await ask(url + "/healthz"), await ask(url + "/readyz")
            release.set()
            answers = await asyncio.gather(*held)
            after = await ask(url + "/healthz")
    assert other.status == 200
    assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
    assert {answer.status for answer in answers} == {200}
    assert after.status == 200


async def test_health_answers_while_all_other_slots_are_taken() -> None:
    full, release = asyncio.Event(), asyncio.Event()
    waiting = 0

    class Slow(OneWorker):
        async def metrics(self) -> bytes:
            nonlocal waiting
            waiting += 1
            if waiting == 32:
                full.set()
            await release.wait()
            return b""

    async with served(Slow(Worker(), Telemetry().exposition)) as url, asyncio.timeout(60):
        held = [asyncio.create_task(ask(url + "/metrics")) for _ in range(32)]
        await full.wait()
        assert (await ask(url + "/metrics")).status == 503
        assert (await ask(url + "/healthz")).status == 200
        release.set()
        await asyncio.gather(*held)


async def test_one_long_answer_is_made_in_a_turn_of_the_loop() -> None:
    """Many that poll /metrics at once must not hold up a probe, or the worker itself, by the sum of their answers."""
    turn, loop = 0, asyncio.get_running_loop()
    made_in: list[int] = []

    def count() -> None:
        nonlocal turn
        turn += 1
        if len(made_in) < 40:
            loop.call_soon(count)

    def exposition() -> bytes:
        made_in.append(turn)
        return b""

    count()
    worker = OneWorker(Worker(), exposition)
    await asyncio.gather(*(worker.metrics() for _ in range(40)))
    assert len(set(made_in)) == 40


@pytest.mark.parametrize("said", [b"", b"GET /steps HTTP/1.1\r\n"], ids=["idle", "slow"])
async def test_health_answers_among_hundreds_of_connections_that_ask_nothing(said: bytes) -> None:
    async with one(Worker()) as url, AsyncExitStack() as stack:
        host, port = url.removeprefix("http://").split(":")
        closed = 0
        readers = []
        for _ in range(300):
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(said)
            stack.callback(writer.close)
            readers.append(reader)
        async with asyncio.timeout(60):
            assert (await ask(url + "/healthz")).status == 200
            for reader in readers[:150]:  # those that are idle for longest have made room
                with contextlib.suppress(ConnectionError):
                    assert await reader.read() == b""
                closed += 1
        assert closed == 150


def test_pages_are_answered_on_the_loop_that_workers_run_on() -> None:
    uvloop = pytest.importorskip("uvloop")

    async def asked() -> int:
        async with one(Worker()) as url:
            return (await ask(url + "/healthz")).status

    assert uvloop.run(asyncio.wait_for(asked(), 60)) == 200


async def test_a_request_that_comes_byte_by_byte_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("processor.serve.http_connections.FIRST_S", 0.3)
    async with one(Worker()) as url, asyncio.timeout(60):
        host, port = url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        ended = asyncio.create_task(reader.read())
        for byte in b"GET /healthz HTTP/1.1\r\nHost: " + b"x" * 200:
            writer.write(bytes([byte]))
            await asyncio.sleep(0.01)
            if ended.done():
                break
        assert ended.done()
        ended.exception()
        writer.close()


async def test_an_answer_that_is_not_made_in_time_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("processor.serve.http_connections.ANSWER_S", 0.3)
    release = asyncio.Event()

    class Slow(OneWorker):
        async def metrics(self) -> bytes:
            await release.wait()
            return b""

    async with served(Slow(Worker(), Telemetry().exposition)) as url, asyncio.timeout(60):
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await ask(url + "/metrics")
        release.set()


async def test_all_addresses_of_a_host_are_listened_to_on_one_port(monkeypatch: pytest.MonkeyPatch) -> None:
    async def both(*_: object, **__: object) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in ("127.0.0.1", "127.0.0.2")]

    with monkeypatch.context() as resolved:
        resolved.setattr(asyncio.get_running_loop(), "getaddrinfo", both)
        server = Server(OneWorker(Worker(), Telemetry().exposition), "both.test", 0)
        port = await server.start()
    try:
        for address in ("127.0.0.1", "127.0.0.2"):
            assert (await ask(f"http://{address}:{port}/healthz")).status == 200
    finally:
        await server.stop()


# --- Where it listens


async def test_a_taken_port_is_named_with_the_remedy() -> None:
    async with one(Worker()) as url:
        port = int(url.rsplit(":", 1)[1])
        with pytest.raises(ConfigError) as refused:
            await Server(OneWorker(Worker(), Telemetry().exposition), "127.0.0.1", port).start()
    assert str(refused.value).startswith(f"http.port: 127.0.0.1:{port}: another process listens there")
    assert "0 for any that is free" in refused.value.hint


async def test_an_address_that_is_not_ours_is_named() -> None:
    server = Server(OneWorker(Worker(), Telemetry().exposition), "192.0.2.1", 0)  # TEST-NET-1, nobody's
    with pytest.raises(ConfigError, match=r"http\.host: 192\.0\.2\.1:0"):
        await server.start()


async def test_a_name_that_is_none_is_told_in_words() -> None:
    """It said "(got -2)"."""
    server = Server(OneWorker(Worker(), Telemetry().exposition), "a name.invalid", 0)
    with pytest.raises(ConfigError, match=r"not an address of this machine \(got [A-Za-z]"):
        await server.start()


async def test_a_stopped_server_leaves_its_port_and_may_be_stopped_again() -> None:
    server = Server(OneWorker(Worker(), Telemetry().exposition), "127.0.0.1", 0)
    port = await server.start()
    await server.stop()
    await server.stop()
    again = Server(OneWorker(Worker(), Telemetry().exposition), "127.0.0.1", port)
    assert await again.start() == port
    await again.stop()


async def test_nothing_is_logged_of_a_request(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    async with one(Worker()) as url:
        await ask(url + "/healthz")
        await ask(url + "/nowhere")
    assert [record for record in caplog.records if record.name.startswith("aiohttp")] == []


BAD_CHUNK = (
    b"POST /partitions/3/pause HTTP/1.1\r\nHost: localhost\r\nRun-Steps-Control: 1\r\n"
    b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n"
)


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GARBAGE\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: " + b"b" * 9_000 + b"\r\n\r\n",
        BAD_CHUNK,
    ],
    ids=["no request", "TLS", "another version", "a long header", "a body of no chunks"],
)
async def test_a_malformed_request_is_no_error_of_the_worker(
    request_bytes: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """A port scanner, or a scrape by https, must not put lines of level error into the log."""
    caplog.set_level("DEBUG")
    server = Server(OneWorker(Worker(), Telemetry().exposition), "127.0.0.1", 0, control=True)
    port = await server.start()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request_bytes)
        assert (await asyncio.wait_for(reader.read(), 60)).split(b" ")[1] == b"400"
        writer.close()
        await writer.wait_closed()
    finally:
        await server.stop()
    told = [record for record in caplog.records if record.name.startswith("aiohttp")]
    assert [record.getMessage() for record in told if record.levelname != "DEBUG"] == []


def test_any_other_error_of_a_request_is_logged_as_one(caplog: pytest.LogCaptureFixture) -> None:
    ServerLog().exception("Unhandled exception", exc_info=KeyError(SECRET))
    assert [record.levelname for record in caplog.records] == ["ERROR"]


# --- Several workers behind one port


class Family(NamedTuple):
    """Two workers behind a front, and who else the test puts there."""

    url: str
    workers: tuple[Worker, Worker]
    children: dict[str, str]


@pytest.fixture
async def family() -> AsyncIterator[Family]:
    workers = (Worker(), Worker())
    async with AsyncExitStack() as stack:
        children = {}
        for name, worker in enumerate(workers):
            telemetry = Telemetry(worker=str(name))
            telemetry.applied(name, 10 + name, 100)
            children[str(name)] = await stack.enter_async_context(one(worker, telemetry))
        url = await stack.enter_async_context(served(Aggregator(lambda: children, patience_s=60)))
        yield Family(url, workers, children)


async def test_the_front_is_healthy_when_all_are_and_shows_each(family: Family) -> None:
    for path in ("/healthz", "/readyz"):
        answer = await ask(family.url + path)
        assert answer.status == 200
        assert answer.json == {
            "ok": True,
            "reasons": [],
            "workers": {"0": {"ok": True, "reasons": []}, "1": {"ok": True, "reasons": []}},
        }


async def test_one_unhealthy_worker_makes_the_front_unhealthy_with_its_reason(family: Family) -> None:
    family.workers[1].health = Health(False, ["partition 3 is stuck"], {"since": 61})
    answer = await ask(family.url + "/healthz")
    assert (answer.status, answer.json["reasons"]) == (503, ["worker 1: partition 3 is stuck"])
    assert answer.json["workers"]["1"] == {"ok": False, "reasons": ["partition 3 is stuck"], "since": 61}
    assert (await ask(family.url + "/readyz")).status == 200


async def test_a_reason_of_a_healthy_worker_is_passed_on_and_the_front_is_healthy(family: Family) -> None:
    family.workers[1].health = Health(True, ["self-audit: look"], {})
    answer = await ask(family.url + "/healthz")
    assert (answer.status, answer.json["ok"], answer.json["reasons"]) == (200, True, ["worker 1: self-audit: look"])


@pytest.mark.parametrize(
    ("gone", "reason"),
    [
        (dead, "nothing listens at its address: the process is gone"),
        (mute, "no answer within 3 s"),
    ],
)
async def test_a_dead_or_blocked_worker_is_unhealthy_with_the_reason(
    family: Family, gone: Callable[[], Any], reason: str
) -> None:
    with gone() as url:
        family.children["2"] = url
        # The others answer sooner, also where the machine stands still for a moment.
        async with asyncio.timeout(60), served(Aggregator(lambda: family.children, patience_s=3)) as front:
            health = await ask(front + "/healthz")
            steps = await ask(front + "/steps")
            metrics = await ask(front + "/metrics")
    assert (health.status, health.json["reasons"]) == (503, [f"worker 2: {reason}"])
    assert health.json["workers"]["0"]["ok"] is True
    assert (steps.status, steps.json["unanswered"]) == (200, {"2": reason})
    (up,) = (f for f in text_string_to_metric_families(metrics.body.decode()) if f.name == "runstep_worker_up")
    assert {sample.labels["worker"]: sample.value for sample in up.samples} == {"0": 1, "1": 1, "2": 0}


async def test_want_of_descriptors_is_not_told_as_a_worker_that_is_gone(
    family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    family.children["2"] = "http://127.0.0.1:1"
    real = aiohttp.ClientSession.request

    def request(session: aiohttp.ClientSession, method: str, url: str, **options: Any) -> Any:
        if url.startswith("http://127.0.0.1:1/"):
            raise aiohttp.ClientConnectorError(cast(Any, None), OSError(errno.EMFILE, "Too many open files"))
        return real(session, method, url, **options)

    monkeypatch.setattr(aiohttp.ClientSession, "request", request)
    answers = await Aggregator(lambda: family.children).healthz()
    assert answers.reasons == ["worker 2: cannot be reached (got EMFILE)"]


async def test_a_worker_without_an_address_yet_and_a_stranger_are_unhealthy(family: Family) -> None:
    async with served(Stranger()) as url:
        family.children.update({"2": "", "3": url})
        answer = await ask(family.url + "/healthz")
    assert answer.json["reasons"] == [
        "worker 2: has no address yet",
        "worker 3: answered something else, with status 500",
    ]


class Stranger(Aggregator):
    """A site whose checks answer no verdict at all."""

    def __init__(self) -> None:
        super().__init__(dict)

    async def healthz(self) -> Health:
        return Health(True, [], {"nan": float("nan")})  # no JSON can say it


async def test_a_front_with_nobody_behind_it_is_unhealthy() -> None:
    async with served(Aggregator(dict)) as url:
        health, metrics = await ask(url + "/healthz"), await ask(url + "/metrics")
    assert (health.status, health.json["reasons"]) == (503, ["no worker process is running"])
    assert (metrics.status, metrics.body) == (200, b"")


async def test_the_front_s_metrics_are_all_workers_with_their_names(family: Family) -> None:
    answer = await ask(family.url + "/metrics")
    applied = {
        sample.labels["worker"]: sample.value
        for f in text_string_to_metric_families(answer.body.decode())
        for sample in f.samples
        if sample.name == "runstep_records_applied_total"
    }
    assert applied == {"0": 10, "1": 11}


async def test_the_front_lists_the_oldest_steps_of_all_workers(family: Family) -> None:
    family.workers[0].open = [{"step_id": "a", "age_s": 9, "text": SECRET}, {"step_id": "b", "age_s": 1}]
    family.workers[1].open = [{"step_id": "c", "age_s": 5}]
    answer = await ask(family.url + "/steps?limit=2")
    assert answer.json == {
        "limit": 2,
        "steps": [{"step_id": "a", "age_s": 9, "worker": "0"}, {"step_id": "c", "age_s": 5, "worker": "1"}],
    }


async def test_a_worker_that_comes_back_is_healthy_at_the_next_question(family: Family) -> None:
    with dead() as url:
        alive, family.children["1"] = family.children["1"], url
        assert (await ask(family.url + "/healthz")).status == 503
        family.children["1"] = alive
        assert (await ask(family.url + "/healthz")).status == 200
