"""A TCP proxy that reads Kafka's frames and spoils the requests that a rule names.

It stands between the workers and the brokers (`advertised.listeners` name its ports, see `cluster`), knows the API key
and client id of every request, and does per armed rule what networks and middle boxes do: it loses an answer, holds a
request back, cuts a connection before or after the request went upstream, or delivers late: the client's connection is
cut while the broker has not got the request yet; the client says it again elsewhere; and the first copy reaches the
broker after a time, or at the moment that a test names.

One thread, one event loop. `arm` and a rule's methods are for other threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import re
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

HOST: Final = "127.0.0.1"
_STREAM_LIMIT_BYTES: Final = 1 << 20
_LINGER_S: Final = 3.0
"""How long the broker's side of a cut connection stays open, for the request to be worked on and answered."""


class Api(IntEnum):
    """Kafka's API keys, as far as the workers use them."""

    PRODUCE = 0
    FETCH = 1
    LIST_OFFSETS = 2
    METADATA = 3
    OFFSET_COMMIT = 8
    OFFSET_FETCH = 9
    FIND_COORDINATOR = 10
    JOIN_GROUP = 11
    HEARTBEAT = 12
    LEAVE_GROUP = 13
    SYNC_GROUP = 14
    DESCRIBE_GROUPS = 15
    API_VERSIONS = 18
    CREATE_TOPICS = 19
    INIT_PRODUCER_ID = 22
    ADD_PARTITIONS_TO_TXN = 24
    ADD_OFFSETS_TO_TXN = 25
    END_TXN = 26
    TXN_OFFSET_COMMIT = 28
    DESCRIBE_CONFIGS = 32


class Action(Enum):
    """What becomes of a request that a rule names."""

    DROP_ANSWER = "drop_answer"
    """It is done, and its answer is lost; the connection stays."""
    DELAY_ANSWER = "delay_answer"
    """Its answer, and all after it on that connection, come `seconds` later."""
    DELAY_REQUEST = "delay_request"
    """It and all after it on that connection reach the broker `seconds` later."""
    BLACKHOLE = "blackhole"
    """From it on nothing passes on that connection, which stays open."""
    CUT_BEFORE = "cut_before"
    """The connection is cut; the broker never gets the request."""
    CUT_AFTER = "cut_after"
    """The broker gets the request; the connection is cut before the answer."""
    LATE = "late"
    """The connection is cut; the broker gets the request `seconds` later."""
    KEEP = "keep"
    """The connection is cut; the broker gets the request when `Rule.release` is called."""
    HOLD = "hold"
    """It and all after it on that connection wait for `Rule.release`; the connection stays."""
    OUTAGE = "outage"
    """All connections are cut, and for `seconds` new ones are, as if the broker had died."""
    HOLD_ANSWER = "hold_answer"
    """It is done; its answer and all after it on that connection wait for `Rule.release`."""


SPOILING: Final = (
    Action.DROP_ANSWER, Action.DELAY_ANSWER, Action.DELAY_REQUEST, Action.BLACKHOLE, Action.CUT_BEFORE,
    Action.CUT_AFTER, Action.LATE,
)  # fmt: skip
"""What needs no further word from a test."""


@dataclass(frozen=True, slots=True)
class Fired:
    """One request that was spoiled."""

    at: float
    """Monotonic."""
    api: Api
    version: int
    client: str
    action: Action
    seconds: float


@dataclass(eq=False, slots=True)
class Rule:
    """Which request is spoiled, and how. It fires at the `nth` request that matches, `times` times in a row."""

    apis: frozenset[Api]
    action: Action
    client: str = ""
    """A pattern that the client id must contain."""
    nth: int = 1
    seconds: float = 0.0
    times: int = 1
    until: float = math.inf
    """Monotonic; afterwards it does not fire any more."""
    peer_port: int = 0
    """The client's end of the connection on which it fired last."""
    answer: bytes = b""
    """What the broker said to a request that was kept, held, or late, after the correlation id."""
    _loop: asyncio.AbstractEventLoop | None = None
    _caught: threading.Event = field(default_factory=threading.Event)
    _answered: threading.Event = field(default_factory=threading.Event)
    _go: asyncio.Event = field(default_factory=asyncio.Event)

    def has_fired(self) -> bool:
        return self._caught.is_set()

    def await_caught(self, within_s: float) -> bool:
        """Wait until a request was caught; False if none came in time."""
        return self._caught.wait(within_s)

    def await_answered(self, within_s: float) -> bool:
        """Wait until the broker has answered the request; False if it has not in time."""
        return self._answered.wait(within_s)

    def release(self) -> None:
        """Let go what is kept or held; what the rule catches later passes at once."""
        assert self._loop is not None, "arm the rule first"
        self._loop.call_soon_threadsafe(self._go.set)


class Proxy:
    """The proxy: `listen` for each broker, `arm` rules, read `fired` and `seen`. Leaving the block ends it."""

    def __init__(self, log_path: Path | None = None) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._lock = threading.Lock()
        self._rules: list[Rule] = []
        self._servers: list[asyncio.Server] = []
        self._links: set[asyncio.Task[None]] = set()
        self._log_path = log_path
        if log_path is not None:
            log_path.parent.mkdir(parents=True, exist_ok=True)
        self._away_until = 0.0
        self.delay_s = 0.0
        """How long each request and each answer is under way: half of what is added to a round trip."""
        self.fired: list[Fired] = []
        self.seen: Counter[Api] = Counter()
        """Requests that came, by API."""
        self.answered: Counter[Api] = Counter()
        """Answers that came from the broker, by API of the request."""
        self._thread.start()

    def listen(self, upstream_port: int) -> int:
        """Open a port that leads to a broker's."""

        async def opened() -> int:
            async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                task = asyncio.current_task()
                assert task is not None
                if time.monotonic() < self._away_until:
                    writer.transport.abort()
                    return
                self._links.add(task)
                task.add_done_callback(self._links.discard)
                await _Link(self, reader, writer).run(upstream_port)

            server = await asyncio.start_server(accept, HOST, 0, limit=_STREAM_LIMIT_BYTES)
            self._servers.append(server)
            port: int = server.sockets[0].getsockname()[1]
            return port

        return asyncio.run_coroutine_threadsafe(opened(), self._loop).result(10)

    def arm(
        self,
        apis: Api | Iterable[Api],
        action: Action,
        *,
        client: str = "",
        nth: int = 1,
        seconds: float = 0.0,
        times: int = 1,
        lasts_s: float = math.inf,
    ) -> Rule:
        """Arm a rule; see `Rule`."""
        named = frozenset({apis} if isinstance(apis, Api) else apis)
        rule = Rule(named, action, client, nth, seconds, times, time.monotonic() + lasts_s, _loop=self._loop)
        with self._lock:
            self._rules.append(rule)
        return rule

    def disarm(self) -> None:
        """Forget all rules, and let go what they hold."""
        with self._lock:
            rules, self._rules = self._rules, []
        for rule in rules:
            rule.release()

    def close(self) -> None:
        """Cut everything and end the thread."""

        async def ended() -> None:
            for server in self._servers:
                server.close()
            links = list(self._links)
            for link in links:
                link.cancel()
            await asyncio.gather(*links, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(ended(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _match(self, api: Api, version: int, client: str, peer_port: int) -> Rule | None:
        """The rule that this request fires, if one does."""
        now = time.monotonic()
        with self._lock:
            self._rules = [rule for rule in self._rules if rule.until > now]
            for rule in self._rules:
                if api not in rule.apis or not re.search(rule.client, client):
                    continue
                rule.nth -= 1
                if rule.nth > 0:
                    continue
                rule.times -= 1
                if rule.times <= 0:
                    self._rules.remove(rule)
                rule.peer_port = peer_port
                self._note(Fired(now, api, version, client, rule.action, rule.seconds))
                return rule
        return None

    def _go_away(self, seconds: float, last: asyncio.Task[Any] | None) -> None:
        """Cut every connection but the one of `last`, which ends by itself."""
        self._away_until = time.monotonic() + seconds
        for link in self._links:
            if link is not last:
                link.cancel()

    def _note(self, fired: Fired) -> None:
        self.fired.append(fired)
        if self._log_path is not None:
            row = {
                "at": time.time(), "api": fired.api.name, "version": fired.version, "client": fired.client,
                "action": fired.action.value, "seconds": fired.seconds,
            }  # fmt: skip
            with self._log_path.open("a") as log:
                log.write(json.dumps(row) + "\n")


class _Link:
    """One connection of a client, and the one to the broker that belongs to it."""

    def __init__(self, proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._proxy, self._reader, self._writer = proxy, reader, writer
        self._peer_port: int = writer.get_extra_info("peername")[1]
        self._asked: dict[int, tuple[Api | None, Rule | None]] = {}
        """By correlation id: what was asked, and the rule that its answer is subject to."""
        self._is_deaf = False  # nothing goes to the client any more

    async def run(self, upstream_port: int) -> None:
        try:
            reader, upstream = await asyncio.open_connection(HOST, upstream_port, limit=_STREAM_LIMIT_BYTES)
        except OSError:
            self._writer.transport.abort()
            return
        except asyncio.CancelledError:
            self._writer.transport.abort()
            raise
        answers = asyncio.create_task(self._answers(reader))
        try:
            await self._requests(upstream)
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client or the broker has gone
        except asyncio.CancelledError:
            pass  # the proxy ends
        finally:
            answers.cancel()
            upstream.transport.abort()
            self._writer.transport.abort()

    async def _requests(self, upstream: asyncio.StreamWriter) -> None:
        while True:
            frame = await _frame(self._reader)
            if self._proxy.delay_s:
                await asyncio.sleep(self._proxy.delay_s)
            key, version, correlation, length = struct.unpack_from(">hhih", frame, 4)
            client = frame[14 : 14 + length].decode(errors="replace") if length > 0 else ""
            api = Api(key) if key in Api._value2member_map_ else None
            rule = None
            if api is not None:
                self._proxy.seen[api] += 1
                rule = self._proxy._match(api, version, client, self._peer_port)
            self._asked[correlation] = (api, rule)
            if rule is None:
                await _send(upstream, frame)
            elif not await self._spoil(rule, upstream, frame):
                return

    async def _spoil(self, rule: Rule, upstream: asyncio.StreamWriter, frame: bytes) -> bool:
        """Do what the rule says; False if the connection is over."""
        action = rule.action
        if action is Action.CUT_BEFORE:
            rule._caught.set()
            return False
        if action is Action.OUTAGE:
            self._proxy._go_away(rule.seconds, asyncio.current_task())
            rule._caught.set()
            return False
        if action is Action.BLACKHOLE:
            self._is_deaf = True
            rule._caught.set()
            while await self._reader.read(_STREAM_LIMIT_BYTES):
                pass
            return False
        if action in (Action.LATE, Action.KEEP, Action.CUT_AFTER):
            self._is_deaf = True
            self._writer.transport.abort()
            if action is Action.CUT_AFTER:
                await _send(upstream, frame)
                rule._caught.set()
            else:
                rule._caught.set()
                if action is Action.KEEP:
                    await rule._go.wait()
                else:
                    await asyncio.sleep(rule.seconds)
                await _send(upstream, frame)
            await asyncio.sleep(_LINGER_S)
            return False
        rule._caught.set()
        if action is Action.HOLD:
            await rule._go.wait()
        elif action is Action.DELAY_REQUEST:
            await asyncio.sleep(rule.seconds)
        await _send(upstream, frame)
        return True

    async def _answers(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                frame = await _frame(reader)
                if self._proxy.delay_s:
                    await asyncio.sleep(self._proxy.delay_s)
                (correlation,) = struct.unpack_from(">i", frame, 4)
                api, rule = self._asked.pop(correlation, (None, None))
                if api is not None:
                    self._proxy.answered[api] += 1
                if rule is not None:
                    rule.answer = frame[8:]
                    rule._answered.set()
                    if rule.action is Action.DROP_ANSWER:
                        continue
                    if rule.action is Action.DELAY_ANSWER:
                        await asyncio.sleep(rule.seconds)
                    elif rule.action is Action.HOLD_ANSWER:
                        await rule._go.wait()
                if not self._is_deaf:
                    await _send(self._writer, frame)
        if not self._is_deaf:
            self._writer.transport.abort()  # the broker has gone: the client is to know at once


async def _frame(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readexactly(4)
    (length,) = struct.unpack(">i", head)
    return head + await reader.readexactly(length)


async def _send(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    await writer.drain()


def error_code(rule: Rule, at: int) -> Any:
    """The error code in the answer that the rule saw, if the broker has given one; `at`: bytes into the answer."""
    return struct.unpack_from(">h", rule.answer, at)[0] if len(rule.answer) >= at + 2 else None
