"""HTTP endpoints of one worker, and of several as one: /healthz /readyz /metrics /steps, and pauses of partitions.

The only importer of aiohttp. A `StatusSource` answers the four endpoints, a `Server` serves one on a port.
`OneWorker` is the source of this process; `Aggregator` asks the endpoints of several processes and merges their
answers, so that there is one address to scrape. No endpoint shows a step's contents: of an open step, only `STEP_KEYS`
are returned. Pauses are the one thing that a request changes: off unless `http.control` is set, and only for callers on
this machine (docs/decisions/0015).
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import Any, Final, NamedTuple, Protocol
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from processor.errors import ConfigError
from processor.serve.http_connections import IDLE_S, HttpConnections, Refused
from processor.telemetry.meter import EXPOSITION_TYPE, merged

STEP_KEYS: Final = (
    "step_id",
    "run_id",
    "thread_id",
    "status",
    "type",
    "age_s",
    "deadline_in_s",
    "partition",
    "offset",
    "worker",
)
"""Keys of a step on `/steps`. Everything else that a worker returns is left out."""

STEPS_SHOWN: Final = 100
STEPS_MAX: Final = 1_000

_PROBES: Final = frozenset({"/healthz", "/readyz"})  # each may be asked as often at once as all others together
_STOP_S: Final = 2.0  # what an answer under way may take when the server stops
_CHILD_S: Final = 2.0  # what a worker process may take to answer the aggregator
_CHILD_BYTES: Final = 16 << 20  # and how much it may say

CONTROL_HEADER: Final = "Run-Steps-Control"
"""On a request that changes something. Any value."""
_FORWARDED: Final = frozenset({"forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip"})
"""Headers of a request that came through a proxy on this machine: who has sent it is not known."""

_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Server": "run-steps",
    "X-Content-Type-Options": "nosniff",
}

_INDEX: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>run-steps</title>
<style>body{font:16px/1.5 system-ui,sans-serif;margin:3rem auto;max-width:36rem;padding:0 1rem}</style></head>
<body><h1>run-steps</h1><ul>
<li><a href="/healthz">/healthz</a>: does every partition move on?</li>
<li><a href="/readyz">/readyz</a>: assigned and restored?</li>
<li><a href="/metrics">/metrics</a>: for Prometheus</li>
<li><a href="/steps">/steps</a>: the open steps, oldest first; <code>?limit=</code> up to 1000</li>
</ul></body></html>
"""


class Health(NamedTuple):
    """Result of a health check. `reasons` say what is wrong, one sentence each; `detail` is shown as it is.

    Reasons with `ok` are for operators: a restart would not fix them.
    """

    ok: bool
    reasons: list[str]
    detail: dict[str, object]


class Controlled(NamedTuple):
    """Answer to a request to pause or resume a partition: an HTTP status and a sentence."""

    status: int
    told: str


class WorkerStatus(Protocol):
    """Status of a worker, read from memory without waiting."""

    def healthz(self) -> Health: ...
    def readyz(self) -> Health: ...

    def steps(self, limit: int) -> list[dict[str, object]]:
        """The oldest open steps, oldest first, by the names in `STEP_KEYS`."""
        ...

    def control(self, partition: int, reason: str | None) -> Controlled:
        """Pause a partition for a reason; None: resume it."""
        ...


class Listing(NamedTuple):
    """Open steps, and the workers that did not answer (worker -> reason)."""

    steps: list[dict[str, object]]
    unanswered: dict[str, str]


class StatusSource(Protocol):
    """Source of what the endpoints return: one worker, or several."""

    async def healthz(self) -> Health: ...
    async def readyz(self) -> Health: ...
    async def metrics(self) -> bytes: ...
    async def steps(self, limit: int) -> Listing: ...
    async def control(self, partition: int, reason: str | None) -> Controlled: ...

    def connections(self) -> int:
        """Number of connections that one answer opens."""
        ...


class _Turns:
    """Lets one long answer be made in each turn of the event loop, so that probes and the worker come in between."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    @asynccontextmanager
    async def next(self) -> AsyncIterator[None]:
        async with self._lock:
            await asyncio.sleep(0)
            yield


class OneWorker:
    """Status source of the worker in this process."""

    def __init__(self, status: WorkerStatus, exposition: Callable[[], bytes]) -> None:
        self._status = status
        self._exposition = exposition
        self._turns = _Turns()

    async def healthz(self) -> Health:
        return self._status.healthz()

    async def readyz(self) -> Health:
        return self._status.readyz()

    async def metrics(self) -> bytes:
        async with self._turns.next():
            return self._exposition()

    async def steps(self, limit: int) -> Listing:
        async with self._turns.next():
            return Listing(self._status.steps(limit)[:limit], {})

    async def control(self, partition: int, reason: str | None) -> Controlled:
        return self._status.control(partition, reason)

    def connections(self) -> int:
        return 0


class _Answer(NamedTuple):
    status: int
    body: bytes


class _Unanswered(NamedTuple):
    """A worker process did not answer, or not with the format of its endpoints."""

    reason: str


class Aggregator:
    """Status source over several worker processes, each with a server on its own port.

    Args:
        children: worker name -> base URL of its server; read again for every answer. A worker
            that ought to be there and has no address yet has an empty URL: it shows as not answering.
        patience_s: how long a worker may take. One whose loop is blocked is found out by it.
    """

    def __init__(self, children: Callable[[], Mapping[str, str]], *, patience_s: float = _CHILD_S) -> None:
        self._children = children
        self._patience_s = patience_s
        self._turns = _Turns()

    def connections(self) -> int:
        return len(self._children())

    async def healthz(self) -> Health:
        return await self._verdict("/healthz")

    async def readyz(self) -> Health:
        return await self._verdict("/readyz")

    async def metrics(self) -> bytes:
        told: dict[str, bytes] = {}
        missing: list[str] = []
        for worker, answer in (await self._ask("/metrics")).items():
            if isinstance(answer, _Answer) and answer.status == 200:
                told[worker] = answer.body
            else:
                missing.append(worker)
        async with self._turns.next():
            return merged(told, missing)

    async def steps(self, limit: int) -> Listing:
        steps: list[dict[str, object]] = []
        unanswered: dict[str, str] = {}
        for worker, answer in (await self._ask(f"/steps?limit={limit}")).items():
            said = _said(answer, "steps")
            if isinstance(said, _Unanswered):
                unanswered[worker] = said.reason
            else:
                steps += [{**step, "worker": worker} for step in said["steps"] if isinstance(step, dict)]
        return Listing(sorted(steps, key=_age, reverse=True)[:limit], unanswered)

    async def control(self, partition: int, reason: str | None) -> Controlled:
        """Ask every worker process: the one that owns the partition says yes."""
        path = f"/partitions/{partition}/{'resume' if reason is None else 'pause'}"
        answers = await self._ask(path, {"reason": reason})
        said = [Controlled(a.status, _told(a.body)) for a in answers.values() if isinstance(a, _Answer)]
        unanswered = [name for name, answer in answers.items() if isinstance(answer, _Unanswered)]
        for one in said:
            if one.status != 404:
                return one
        if unanswered:
            return Controlled(503, f"no answer from worker {', '.join(unanswered)}, and the others do not own it")
        return said[0] if said else Controlled(503, "no worker process is running")

    async def _verdict(self, path: str) -> Health:
        answers = await self._ask(path)
        reasons = [] if answers else ["no worker process is running"]
        ok = bool(answers)
        workers: dict[str, object] = {}
        for worker, answer in answers.items():
            said = _said(answer, "reasons")
            if isinstance(said, _Unanswered):
                said = {"ok": False, "reasons": [said.reason]}
            workers[worker] = said
            is_ok = said.get("ok") is True
            ok = ok and is_ok
            told = said["reasons"] or ([] if is_ok else ["not ok"])
            reasons += [f"worker {worker}: {reason}" for reason in told]
        return Health(ok, reasons, {"workers": workers})

    async def _ask(self, path: str, say: Mapping[str, object] | None = None) -> dict[str, _Answer | _Unanswered]:
        """Ask each worker: GET, or POST of what is to be said."""
        children = dict(self._children())
        # A session per request: there is one about every fifteen seconds, and no state to close.
        async with aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=self._patience_s), auto_decompress=False
        ) as session:
            answers = await asyncio.gather(*(self._ask_one(session, u, path, say) for u in children.values()))
        return dict(zip(children, answers, strict=True))

    async def _ask_one(
        self, session: aiohttp.ClientSession, url: str, path: str, say: Mapping[str, object] | None
    ) -> _Answer | _Unanswered:
        if not url:
            return _Unanswered("has no address yet")
        try:
            method, headers = ("GET", None) if say is None else ("POST", {CONTROL_HEADER: "1"})
            async with session.request(
                method, url.rstrip("/") + path, allow_redirects=False, json=say, headers=headers
            ) as response:
                body = bytearray()
                async for chunk in response.content.iter_any():
                    body += chunk
                    if len(body) > _CHILD_BYTES:
                        return _Unanswered(f"answered more than {_CHILD_BYTES} bytes")
                return _Answer(response.status, bytes(body))
        except TimeoutError:
            return _Unanswered(f"no answer within {self._patience_s:g} s")
        except aiohttp.ClientConnectorError as error:
            if (code := error.os_error.errno) != errno.ECONNREFUSED:
                return _Unanswered(f"cannot be reached (got {errno.errorcode.get(code or 0, str(code))})")
            return _Unanswered("nothing listens at its address: the process is gone")
        except aiohttp.ClientError as error:
            return _Unanswered(f"broke off: {type(error).__name__}")


def _said(answer: _Answer | _Unanswered, wanted: str) -> dict[str, Any] | _Unanswered:
    """The JSON object a worker answered, with the list `wanted` in it; a verdict of 503 is an answer too."""
    if isinstance(answer, _Unanswered):
        return answer
    try:
        said = json.loads(answer.body)
    except ValueError:
        said = None
    if answer.status in (200, 503) and isinstance(said, dict) and isinstance(said.get(wanted), list):
        return said
    return _Unanswered(f"answered something else, with status {answer.status}")


def _told(body: bytes) -> str:
    """The sentence in a JSON answer."""
    try:
        said = json.loads(body)
    except ValueError:
        return ""
    return str(said.get("told") or said.get("error") or "") if isinstance(said, dict) else ""


def _age(step: Mapping[str, object]) -> float:
    age = step.get("age_s")
    return age if isinstance(age, int | float) else 0.0


class ServerLog(logging.LoggerAdapter[logging.Logger]):
    """Log of the HTTP server: a malformed request is the client's error, and written at level debug."""

    def __init__(self) -> None:
        super().__init__(logging.getLogger("aiohttp.server"))

    def exception(self, msg: object, *args: object, exc_info: Any = True, **more: Any) -> None:
        if isinstance(exc_info, HttpProcessingError | web.RequestPayloadError):
            self.debug(msg, *args, exc_info=exc_info, **more)
        else:
            super().exception(msg, *args, exc_info=exc_info, **more)


class Server:
    """HTTP server of one status source.

    `start` returns the port it bound (0 asks for any that is free) and raises `ConfigError` where it cannot;
    `stop` lets answers under way finish, briefly. Either may be called once.

    Args:
        control: take requests to pause and resume partitions.
        refused: called when a connection cannot be accepted, at most once in a minute.
    """

    def __init__(
        self,
        source: StatusSource,
        host: str,
        port: int,
        *,
        control: bool = False,
        refused: Callable[[Refused], None] = lambda _: None,
    ) -> None:
        self._source, self._has_control, self._refused = source, control, refused
        self._host = host
        self._port = port
        self._asked: Counter[str] = Counter()  # requests under way: those of each probe, and all others
        self._runner: web.AppRunner | None = None
        self._connections: HttpConnections | None = None

    async def start(self) -> int:
        app = web.Application(middlewares=[self._guard], client_max_size=1024)
        app.on_response_prepare.append(_stamp)
        app.router.add_get("/", _index)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/steps", self._steps)
        app.router.add_post(r"/partitions/{partition:[0-9]{1,9}}/{what:pause|resume}", self._control)
        self._runner = web.AppRunner(
            app,
            access_log=None,
            logger=ServerLog(),
            handle_signals=False,
            keepalive_timeout=IDLE_S,
            max_line_size=2048,
            max_field_size=8192,
            max_headers=64,
            shutdown_timeout=_STOP_S,
        )
        await self._runner.setup()
        assert self._runner.server is not None
        self._connections = HttpConnections(self._runner.server, self._refused)
        try:
            return await self._connections.listen(self._host, self._port)
        except (OSError, OverflowError, UnicodeError) as error:
            await self.stop()
            raise self._cannot_listen(error) from error

    async def stop(self) -> None:
        runner, self._runner = self._runner, None
        if self._connections is not None:
            await self._connections.stop()
        if runner is not None:
            await runner.cleanup()

    def _cannot_listen(self, error: Exception) -> ConfigError:
        code, got = None, type(error).__name__
        if isinstance(error, OSError) and (code := error.errno) is not None:
            # Names are looked up with numbers of their own, which mean nothing without their text.
            got = errno.errorcode.get(code) or error.strerror or str(code)
        where = f"{self._host}:{self._port}"
        if code == errno.EADDRINUSE:
            return ConfigError(
                f"http.port: {where}: another process listens there (got {got})",
                hint="set another port under [http], 0 for any that is free, or end that process",
            )
        if code in (errno.EACCES, errno.EPERM) or isinstance(error, OverflowError):
            return ConfigError(
                f"http.port: {where}: this user may not listen there (got {got})",
                hint="set a port from 1024 to 65535 under [http], or 0 for any that is free",
            )
        return ConfigError(
            f"http.host: {where}: not an address of this machine (got {got})",
            hint='set host = "127.0.0.1" under [http], or "0.0.0.0" inside a container',
        )

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Every answer that is none of the status', as JSON."""
        kind = request.path if request.path in _PROBES else ""
        assert self._connections is not None
        if self._asked[kind] >= self._connections.at_once(self._source.connections()):
            return _json(503, {"error": "too many requests at once"}, {"Retry-After": "1"})
        self._asked[kind] += 1
        try:
            with self._connections.answering(request.transport):
                return await handler(request)
        except web.HTTPNotFound:
            return _json(404, {"error": "no such page", "status": ["/healthz", "/readyz", "/metrics", "/steps"]})
        except web.HTTPMethodNotAllowed as error:
            allow = ", ".join(sorted(error.allowed_methods))
            return _json(405, {"error": f"only {allow}"}, {"Allow": allow})
        except web.HTTPException as error:
            return _json(error.status, {"error": error.reason.lower()})
        except Exception as error:
            # Its message may hold anything; its class is enough to find it.
            return _json(500, {"error": "internal error", "class": type(error).__name__})
        finally:
            self._asked[kind] -= 1

    async def _healthz(self, _: web.Request) -> web.Response:
        return await _verdict(self._source.healthz)

    async def _readyz(self, _: web.Request) -> web.Response:
        return await _verdict(self._source.readyz)

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=await self._source.metrics(), headers={"Content-Type": EXPOSITION_TYPE})

    async def _steps(self, request: web.Request) -> web.Response:
        asked = request.query.get("limit", str(STEPS_SHOWN))
        limit = int(asked) if asked.isascii() and asked.isdecimal() and len(asked) <= 4 else 0
        if not 1 <= limit <= STEPS_MAX:
            return _json(400, {"error": f"limit: a whole number from 1 to {STEPS_MAX}"})
        listing = await self._source.steps(limit)
        said: dict[str, object] = {
            "limit": limit,
            "steps": [{key: step[key] for key in STEP_KEYS if key in step} for step in listing.steps],
        }
        if listing.unanswered:
            said["unanswered"] = listing.unanswered
        return _json(200, said)

    async def _control(self, request: web.Request) -> web.Response:
        if (refusal := self._refusal(request)) is not None:
            return _json(403, {"error": refusal})
        partition, reason = int(request.match_info["partition"]), None
        if request.match_info["what"] == "pause":
            try:
                said = await request.json()
                reason = said["reason"]
            except (ValueError, LookupError, TypeError, RecursionError, web.RequestPayloadError):
                reason = None
            if not isinstance(reason, str):
                return _json(400, {"error": 'the body is JSON: {"reason": "..."}'})
        answer = await self._source.control(partition, reason)
        return _json(answer.status, {"told" if answer.status == 200 else "error": answer.told})

    def _refusal(self, request: web.Request) -> str | None:
        """Why the caller may not change anything; None where it may.

        A page in a browser on this machine cannot send the header without being asked first, which is not answered.
        """
        if not self._has_control:
            return "control is off: set [http] control = true"
        peer = request.transport.get_extra_info("peername") if request.transport is not None else None
        address = ip_address(str(peer[0])) if peer else None
        address = getattr(address, "ipv4_mapped", None) or address
        if address is None or not address.is_loopback or _FORWARDED & {name.lower() for name in request.headers}:
            return "only from this machine itself: kubectl port-forward, or a shell there"
        if CONTROL_HEADER not in request.headers:
            return f"the header {CONTROL_HEADER} is missing"
        # A page whose name was made to mean this machine (DNS rebinding) can send any header.
        if not _names_this_machine(request.headers.get("Host", "localhost")):
            return "only by a name of this machine itself: name it 127.0.0.1 or localhost"
        return None


def _names_this_machine(host: str) -> bool:
    """Whether the header `Host` is localhost or a loopback address, of whatever port."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ip_address(name).is_loopback
    except ValueError:
        return False


async def _verdict(ask: Callable[[], Awaitable[Health]]) -> web.Response:
    try:
        health = await ask()
    except Exception as error:  # a check that breaks is no proof of health
        health = Health(False, [f"the check itself broke: {type(error).__name__}"], {})
    body = {**health.detail, "ok": health.ok, "reasons": health.reasons}
    return _json(200 if health.ok else 503, body)


async def _index(_: web.Request) -> web.Response:
    return web.Response(text=_INDEX, content_type="text/html")


async def _stamp(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_HEADERS)


def _json(status: int, body: Mapping[str, object], headers: Mapping[str, str] | None = None) -> web.Response:
    # What is no plain value is shown by its type: a repr might hold a step's contents.
    text = json.dumps(body, default=lambda value: f"<{type(value).__name__}>", allow_nan=False, indent=2) + "\n"
    return web.Response(status=status, text=text, content_type="application/json", headers=headers)
