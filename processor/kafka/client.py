# mypy: allow-subclassing-any
"""Broker connections that raise the errors aiokafka handles, and a client that can be force-closed.

A broker that hangs keeps its connections open and accepts new ones, so only timeouts find it. A connection attempt has
a timeout of seconds, a request that a broker answers from memory a few more, and a request that may take long (a join,
a commit) is waited for only as long as the broker accepts new connections. An address that did not answer is tried
last, by all clients of the process, until it answers again (`SILENT`).
"""

from __future__ import annotations

import asyncio
import io
import logging
import random
import time
import weakref
from collections import Counter, defaultdict
from collections.abc import Awaitable, Iterable
from functools import partial
from types import SimpleNamespace
from typing import Any, Final, TypeVar

from aiokafka import conn
from aiokafka.abc import AbstractTokenProvider
from aiokafka.client import AIOKafkaClient, ConnectionGroup
from aiokafka.conn import AIOKafkaConnection, CloseReason, collect_hosts
from aiokafka.errors import KafkaConnectionError, KafkaError, NodeNotReadyError, RequestTimedOutError, for_code
from aiokafka.protocol.coordination import FindCoordinatorRequest
from aiokafka.protocol.metadata import MetadataRequest

from processor.kafka.aiokafka_compat import with_globals
from processor.kafka.framing import FrameProtocol, Response
from processor.kafka.throttling import OBSERVED

_LAST_WORD_S: Final = 1.0
_CONNECT_S: Final = 3.0
"""Timeout of one connection attempt: TCP, TLS, ApiVersions and SASL."""
_CONNECT_MOST_S: Final = 10.0
_DIAGNOSE_S: Final = 6.0
_STAGGER_S: Final = 0.5
"""The next bootstrap address is tried when the ones before have not answered for so long (as RFC 8305 does)."""
_ANSWER_S: Final = 5.0
"""Timeout of a request that a broker answers from memory or from its log."""
_ALIVE_AFTER_S: Final = 2.0
"""Timeout of a request that may take long, after which a new connection tests whether the broker is alive."""
_JOIN_MORE_S: Final = 5.0

_PLAINTEXT: Final = "PLAINTEXT"

# By API key: Fetch, ListOffsets, Metadata, OffsetFetch, FindCoordinator, Heartbeat, LeaveGroup, DescribeGroups,
# DescribeConfigs.
_QUICK: Final = frozenset({1, 2, 3, 9, 10, 12, 13, 15, 32})
_JOIN_GROUP: Final = 11
_HEARTBEAT: Final = 12
# SaslHandshake, ApiVersions, SaslAuthenticate: inside a connection attempt, which has its own limit.
_INTRODUCTION: Final = frozenset({17, 18, 36})

_Node = TypeVar("_Node")
_Address = tuple[str, int]

_log: Final = logging.getLogger(__name__)


class Silence:
    """Addresses where a connection attempt or a request timed out, and that have answered nothing since.

    Also the addresses that have ever answered a request, and over which protocol.
    """

    def __init__(self) -> None:
        self._attempts: Counter[_Address] = Counter()
        self._since: dict[_Address, float] = {}
        self._late: Counter[tuple[_Address, int]] = Counter()
        self._served: set[tuple[_Address, str]] = set()
        self._heard_at = 0.0

    def timed_out(self, address: _Address) -> None:
        self._attempts[address] += 1
        self._since[address] = time.monotonic()

    def answered(self, address: _Address) -> None:
        self._heard_at = time.monotonic()
        if address in self._since:
            del self._since[address], self._attempts[address]

    def is_silent(self, address: _Address) -> bool:
        return address in self._since

    def late(self, address: _Address, api_key: int) -> None:
        """Note that a request of this kind timed out there."""
        self._late[address, api_key] += 1

    def in_time(self, address: _Address, api_key: int) -> None:
        self._late.pop((address, api_key), None)

    def served(self, address: _Address, security_protocol: str) -> None:
        """Note that a request was answered there: these settings are right for that address."""
        self._served.add((address, security_protocol))

    def has_served(self, address: _Address, security_protocol: str) -> bool:
        return (address, security_protocol) in self._served

    def last(self, nodes: Iterable[tuple[_Address, _Node]]) -> list[_Node]:
        """Nodes in random order, silent ones last, of these the longest silent one first."""
        shuffled = list(nodes)
        random.shuffle(shuffled)
        return [node for _, node in sorted(shuffled, key=lambda pair: self._since.get(pair[0], 0.0))]

    def connect_s(self, address: _Address) -> float:
        """Timeout of a connection attempt: longer each time, while no other address answers either."""
        since = self._since.get(address)
        if since is None or self._heard_at > since - _CONNECT_S:
            return _CONNECT_S
        return min(_CONNECT_MOST_S, _CONNECT_S * 2.0 ** self._attempts[address])

    def answer_s(self, address: _Address, api_key: int) -> float:
        """Timeout of a response: longer each time, where the broker accepts connections and is slow."""
        return _ANSWER_S * 2.0 ** min(8, self._late[address, api_key])

    def forget(self) -> None:
        """Begin anew, as a new process would (tests)."""
        self.__init__()  # type: ignore[misc]


SILENT: Final = Silence()
"""Silent addresses of this process: of all its clients and all worker incarnations."""


def _stream(response: bytes | memoryview) -> io.BytesIO | Response:
    return io.BytesIO(response) if isinstance(response, bytes) else Response(response)


class BrokerConnection(AIOKafkaConnection):
    """One socket to one broker."""

    _link = with_globals(AIOKafkaConnection.connect, AIOKafkaProtocol=FrameProtocol)
    _handle_frame = with_globals(AIOKafkaConnection._handle_frame, io=SimpleNamespace(BytesIO=_stream))

    _connect_least_s = _CONNECT_S

    session_s: float | None = None
    """The session's time-out of the group member whose connection this is."""

    def __init__(self, host: str, port: int, **options: Any) -> None:
        super().__init__(host, port, **options)
        self._address = (host, port)
        self._options = {name: value for name, value in options.items() if name != "on_close"}
        self._request_timeout: float = options.get("request_timeout_ms", 40_000) / 1000
        self._muted_until = 0.0
        self._slow = 0
        self._looking: asyncio.Task[None] | None = None

    async def connect(self) -> Any:
        """As upstream, in seconds.

        Raises:
            TimeoutError: the address is remembered as silent.
        """
        provider = self._options.get("sasl_oauth_token_provider")
        if provider is not None:
            # A token provider may be slow: that says nothing about the broker.
            async with asyncio.timeout(self._request_timeout):
                self._sasl_oauth_token_provider = _Given(await provider.token(), provider.extensions())
        patience_s = min(self._request_timeout, max(self._connect_least_s, SILENT.connect_s(self._address)))
        try:
            async with asyncio.timeout(patience_s):
                linked = await self._link()
        except TimeoutError:
            SILENT.timed_out(self._address)
            raise TimeoutError(f"no answer within {patience_s:g} s") from None
        SILENT.answered(self._address)
        return linked

    def send(self, request: Any, expect_response: bool = True) -> Any:
        """As upstream, with a limit that fits the request, and a closed transport is a lost connection.

        uvloop raises RuntimeError there, which nothing in the library expects: it would end the task that
        coordinates or sends (aiokafka #1038).
        """
        limit_s, is_quick = self._request_timeout, self._is_quick(request.API_KEY)
        self._request_timeout = self._patience_s(request, is_quick=is_quick)
        try:
            waiting = super().send(request, expect_response)
            if expect_response:
                _, asked, future = self._requests[-1]
                future.add_done_callback(partial(OBSERVED.note, asked.API_KEY))
        except RuntimeError as error:
            if isinstance(error, KafkaError):
                raise
            self.close(reason=CloseReason.CONNECTION_BROKEN, exc=error)
            raise KafkaConnectionError(f"Connection at {self.host}:{self.port} broken: {error}") from error
        finally:
            self._request_timeout = limit_s
        if not expect_response or request.API_KEY in _INTRODUCTION:
            return waiting
        return self._answer(request.API_KEY, waiting, is_quick=is_quick)

    def muted_s(self) -> float:
        """Seconds for which the broker will still not read this connection, because it throttles us (KIP-219)."""
        return max(0.0, self._muted_until - time.monotonic())

    def _is_quick(self, api_key: int) -> bool:
        # Answers come in the order of the requests: behind one that may take long every other may.
        return api_key in _QUICK and not self._slow

    def _patience_s(self, request: Any, *, is_quick: bool) -> float:
        limit_s = self._request_timeout
        if is_quick:
            # After a throttled answer the broker does not even read for so long (KIP-219).
            return min(limit_s, self._answer_s(request.API_KEY) + self.muted_s())
        if request.API_KEY == _JOIN_GROUP:  # upstream gives up before the group does
            return float(max(limit_s, request._rebalance_timeout / 1000 + _JOIN_MORE_S))
        return limit_s

    def _answer_s(self, api_key: int) -> float:
        answer_s = SILENT.answer_s(self._address, api_key)
        if api_key == _HEARTBEAT and self.session_s is not None:
            # A coordinator notes that we live when a heartbeat comes, and answers when its log has got through to all
            # replicas: while one of those hangs, the next heartbeat has to come in time all the same.
            thirds = 1 if answer_s <= _ANSWER_S else 2
            answer_s = min(answer_s, self.session_s * thirds / 3)
        return answer_s

    async def _answer(self, api_key: int, waiting: Awaitable[Any], *, is_quick: bool) -> Any:
        asking = None
        if not is_quick:
            self._slow += 1
            asking = self._loop.call_later(_ALIVE_AFTER_S, self._look)
        try:
            response = await waiting
        except TimeoutError:
            SILENT.late(self._address, api_key)
            SILENT.timed_out(self._address)
            self.close(reason=CloseReason.CONNECTION_TIMEOUT)
            raise
        finally:
            if asking is not None:
                self._slow -= 1
                asking.cancel()
        SILENT.in_time(self._address, api_key)
        SILENT.answered(self._address)
        SILENT.served(self._address, self._options.get("security_protocol", _PLAINTEXT))
        if throttle_ms := getattr(response, "throttle_time_ms", 0):
            self._muted_until = time.monotonic() + throttle_ms / 1000
        return response

    def _look(self) -> None:
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._while_it_lives(), name=f"look at {self.host}:{self.port}")

    async def _while_it_lives(self) -> None:
        """Open a test connection from time to time while an answer is outstanding; close this one when that fails."""
        while self._slow and self.connected():
            try:
                other = await connect(self.host, self.port, **self._options)
            except TimeoutError:
                self.close(reason=CloseReason.CONNECTION_TIMEOUT, exc=TimeoutError("the broker does not answer"))
                return
            except (OSError, KafkaError):
                pass  # refused or reset: the network tells this connection as well
            else:
                other.close()
            await asyncio.sleep(_ALIVE_AFTER_S)

    def _create_reader_task(self) -> Any:
        myself = weakref.ref(self)  # as upstream: the transport must not keep an unclosed connection

        def deliver(response: bytes | memoryview) -> None:
            connection = myself()
            if connection is not None:
                connection._handle_frame(response)

        self._protocol.deliver = deliver
        return super()._create_reader_task()

    @staticmethod
    async def _read(self_ref: weakref.ref[BrokerConnection]) -> None:
        """Wait for the end of the connection. Replaces upstream's read loop: the protocol delivers the responses."""
        connection = self_ref()
        if connection is not None:
            ended = connection._protocol.ended
            del connection
            await ended

    def close(self, reason: CloseReason | None = None, exc: BaseException | None = None) -> Any:
        """As upstream, but at once: every request whose outcome matters has been awaited before.

        Over TLS a close_notify would be sent, which a broker does not read while it holds back a fetch of ours, and
        uvloop waits 30 s for its answer.
        """
        writer = self._writer
        if self._looking is not None and self._looking is not asyncio.current_task():
            self._looking.cancel()
        closed = super().close(reason=reason, exc=exc)
        if writer is not None:
            writer.transport.abort()
        return closed


connect = with_globals(conn.create_conn, AIOKafkaConnection=BrokerConnection)
"""Open one connection: TCP, TLS, versions, SASL. Its arguments are those of `aiokafka.conn.create_conn`."""


class _PatientConnection(BrokerConnection):
    _connect_least_s = _DIAGNOSE_S


connect_patiently = with_globals(conn.create_conn, AIOKafkaConnection=_PatientConnection)
"""As `connect`, with a longer timeout: a diagnosis needs an answer even if it is slow."""


class _Given(AbstractTokenProvider):
    """Provider of a token that was fetched before."""

    def __init__(self, token: str, extensions: dict[str, str]) -> None:
        self._token, self._extensions = token, extensions

    async def token(self) -> str:
        return self._token

    def extensions(self) -> dict[str, str]:
        return self._extensions


class Client(AIOKafkaClient):
    """The connections of one consumer or producer. Silent brokers are asked last."""

    session_s: float | None = None
    """The session's time-out, where this is a group member's."""

    _retired = False

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.topic_errors: dict[str, int] = {}
        """Error codes by topic in the last metadata, which the library only logs."""
        self._sync_task: asyncio.Task[None] | None = None
        self._link = {_LINK.get(name, name): value for name, value in options.items() if name not in _NOT_OF_A_LINK}
        self._meeting: set[asyncio.Task[tuple[BrokerConnection, Any]]] = set()
        self._asking: set[asyncio.Task[Any]] = set()
        self._opening: defaultdict[tuple[Any, Any], asyncio.Lock] = defaultdict(asyncio.Lock)

    async def bootstrap(self) -> None:
        """Learn the cluster from the first address that answers; the next is tried while one lets us wait.

        Raises:
            KafkaConnectionError: none answered.
        """
        hosts = collect_hosts(self._bootstrap_servers)
        waiting = SILENT.last(((host, port), (host, port)) for host, port, _ in hosts)
        asked: set[asyncio.Task[tuple[BrokerConnection, Any]]] = set()
        met: tuple[BrokerConnection, Any] | None = None
        try:
            while met is None and (waiting or asked):
                if waiting:
                    asked.add(asyncio.create_task(self._meet(*waiting.pop(0)), name="bootstrap"))
                done, asked = await asyncio.wait(
                    asked, timeout=_STAGGER_S if waiting else None, return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    if met is None and task.exception() is None:
                        met = task.result()
                    else:
                        _part(task)
        finally:
            # They end by themselves, in seconds. Cancelling one while it connects makes uvloop log an AssertionError.
            for task in asked:
                self._meeting.add(task)
                task.add_done_callback(_part)
                task.add_done_callback(self._meeting.discard)
        if met is None:
            raise KafkaConnectionError(f"Unable to bootstrap from {hosts}")
        connection, metadata = met
        self.cluster.update_metadata(metadata)
        if self.cluster.brokers():
            connection.close()
        else:  # a cluster without topics may name no broker yet
            self._conns["bootstrap", ConnectionGroup.DEFAULT] = connection
        if self._sync_task is None:
            self._sync_task = asyncio.create_task(self._md_synchronizer(), name="metadata")

    async def close(self) -> None:
        await super().close()
        if left := [*self._meeting, *self._asking]:
            for task in left:
                task.cancel()
            await asyncio.wait(left)

    async def _meet(self, host: str, port: int) -> tuple[BrokerConnection, Any]:
        try:
            connection: BrokerConnection = await connect(host, port, **self._link)
            try:
                return connection, await connection.send(MetadataRequest([]))
            except BaseException:
                connection.close()
                raise
        except (OSError, KafkaError, TimeoutError) as error:
            _log.warning("cannot bootstrap from %s:%s: %r", host, port, error)
            raise

    def get_random_node(self) -> Any:
        """A broker to ask what any of them knows: a silent one only if there is no other. None: none is known."""
        return next(iter(self.nodes()), None)

    async def coordinator_lookup(self, coordinator_type: Any, coordinator_key: str) -> Any:
        """As upstream, of the first broker that answers: the next is asked while one lets us wait.

        A member whose coordinator is away has until the end of its session, and may ask one that hangs as well.
        """
        request = FindCoordinatorRequest(coordinator_key, coordinator_type)
        waiting, asked = self.nodes(), set[asyncio.Task[Any]]()
        failure: BaseException = NodeNotReadyError("no broker is known")  # upstream asserts it
        while waiting or asked:
            if waiting:
                task = asyncio.create_task(self.send(waiting.pop(0), request), name="find a coordinator")
                task.add_done_callback(self._asking.discard)
                task.add_done_callback(_seen)
                self._asking.add(task)  # a late one ends by itself, in seconds, and marks the address as silent
                asked.add(task)
            done, asked = await asyncio.wait(
                asked, timeout=_STAGGER_S if waiting else None, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                if (error := task.exception()) is not None:
                    failure = error
                    continue
                if task.result().error_code:
                    raise for_code(task.result().error_code)()
                return task.result().coordinator_id
        raise failure

    def is_silent(self, node_id: Any) -> bool:
        """Whether a broker has let an attempt or a question time out, and has answered none since."""
        broker = self.cluster.broker_metadata(node_id)
        return broker is not None and SILENT.is_silent((broker.host, broker.port))

    def nodes(self) -> list[Any]:
        """The brokers' ids in the order in which to ask them what any of them knows."""
        return SILENT.last(((broker.host, broker.port), broker.nodeId) for broker in self.cluster.brokers())

    async def _metadata_update(self, cluster_metadata: Any, topics: Any) -> bool:
        """As upstream, silent brokers last, no topic is created by it, and all topics are asked for only by None.

        Brokers may create topics on sight, with one partition: a misspelt name must be missed instead. Upstream takes
        an empty set for all topics, too: a client that has not written yet would learn the whole cluster, find its own
        topics there, never name them, and go on asking for the whole cluster at each refresh for as long as it lives.
        """
        request = MetadataRequest(None if topics is None else list(topics), allow_auto_topic_creation=False)
        bootstrap = ("bootstrap", ConnectionGroup.DEFAULT)
        nodes = self.nodes() + (["bootstrap"] if bootstrap in self._conns else [])
        for node_id in nodes:
            connection = await self._get_conn(node_id)
            if connection is None:
                continue
            try:
                metadata = await connection.send(request)
            except (KafkaError, TimeoutError) as error:
                _log.warning("no metadata from node %s: %r", node_id, error)
                continue
            if not metadata.brokers:
                return False
            cluster_metadata.update_metadata(metadata)
            self.topic_errors = {topic: code for code, topic, *_ in metadata.topics if code}
            if bootstrap in self._conns and self.cluster.brokers():
                self._conns.pop(bootstrap).close()
            return True
        _log.error("no metadata from any of the nodes %s", nodes)
        cluster_metadata.failed_update(None)
        return False

    async def _get_conn(self, node_id: Any, *, group: Any = ConnectionGroup.DEFAULT, no_hint: bool = False) -> Any:
        """As upstream, but a node that does not answer holds up no connection to another."""
        key = (node_id, group)
        async with self._opening[key]:
            held = self._conns.get(key)
            if self._retired or (held is not None and held.connected()):
                return None if self._retired else held
            self._conns.pop(key, None)
            broker = self.cluster.broker_metadata(node_id)
            try:
                if broker is None:
                    raise NodeNotReadyError(f"node {node_id} is not in the metadata")
                opened = await connect(broker.host, broker.port, on_close=self._on_connection_closed, **self._link)
            except (OSError, TimeoutError, KafkaError) as error:
                _log.warning("cannot connect to node %s: %r", node_id, error)
                self.force_metadata_update()  # it may not be there any more
                return None
            if self._retired:
                opened.close()
                return None
            opened.session_s = self.session_s
            self._conns[key] = opened
            return opened

    async def send(self, node_id: Any, request: Any, *, group: Any = ConnectionGroup.DEFAULT) -> Any:
        """As upstream; the connection that lets us wait too long closes itself.

        Raises:
            NodeNotReadyError, RequestTimedOutError, KafkaConnectionError
        """
        connection = await self._get_conn(node_id, group=group)
        if connection is None:
            raise NodeNotReadyError(f"Attempt to send a request to node which is not ready (node id {node_id}).")
        # Every request has an answer but this one.
        expect_response = getattr(request, "required_acks", None) != 0
        try:
            return await connection.send(request, expect_response=expect_response)
        except TimeoutError as error:
            raise RequestTimedOutError from error

    def abort(self) -> None:
        """Close every connection to every broker at once, and open no other.

        An abandoned producer goes on retrying in the background and might commit what its owner has given up.
        """
        self._retired = True
        for connection in list(self._conns.values()):
            if connection._writer is not None:
                connection._writer.transport.abort()
            connection.close()

    async def known_requests(self) -> frozenset[int]:
        """The API keys of all requests that the broker knows."""
        for node_id in self.nodes():
            connection = await self._get_conn(node_id)
            if connection is not None:
                return frozenset(connection._versions)
        raise KafkaConnectionError("no broker is reachable")

    async def speaks(self, api_key: int, version: int) -> bool:
        """Whether the broker knows this version of a request."""
        for node_id in self.nodes():
            connection = await self._get_conn(node_id)
            if connection is not None:
                low, high = connection._versions.get(api_key, (0, -1))
                return bool(low <= version <= high)
        raise KafkaConnectionError("no broker is reachable")


def _seen(task: asyncio.Task[Any]) -> None:
    """Retrieve the result of an abandoned task, so that asyncio does not report its error."""
    if not task.cancelled():
        task.exception()


def _part(task: asyncio.Task[tuple[BrokerConnection, Any]]) -> None:
    """Close what a bootstrap did not need any more."""
    if not task.cancelled() and task.exception() is None:
        task.result()[0].close()


_LINK: Final = {"connections_max_idle_ms": "max_idle_ms"}
_NOT_OF_A_LINK: Final = frozenset(
    {"loop", "bootstrap_servers", "metadata_max_age_ms", "retry_backoff_ms", "api_version"}
)


async def force_close(client: Client, tasks: Iterable[asyncio.Task[Any] | None]) -> None:
    """Force-close a consumer or producer within about a second, in whatever state it is."""
    client.abort()
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
