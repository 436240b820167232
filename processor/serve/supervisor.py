"""Supervisor: run one worker incarnation after the other; after an error the next one starts from the log.

`serve` runs one worker in this process, or N in processes of their own with one place to scrape.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections import deque
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection as Pipe
from typing import TYPE_CHECKING, Final, Protocol

from processor.audit.selfaudit.selfaudit import SelfAudit
from processor.config.settings import Settings
from processor.errors import BrokerRefused, BrokerUnavailable, Fenced, RunStepsError, of_system
from processor.kafka.client_config import Connection
from processor.kafka.errors import OffsetLost
from processor.kafka.throttling import OBSERVED
from processor.serve.broker_availability import BrokerAvailability, BrokerGaveUp
from processor.serve.circuit_breaker import Tripped
from processor.serve.descriptors import ENOUGH, brokers_served, descriptor_limit
from processor.serve.free_memory import free_memory
from processor.serve.highest_committed import HighestCommitted
from processor.serve.http import Controlled, Health, OneWorker, Server
from processor.serve.partition_report import Stalled
from processor.serve.pauses import Pauses
from processor.serve.process_exit import EXIT_BUG
from processor.serve.restore import RestoreGivenUp
from processor.serve.stalls import GROUP, Stalls
from processor.serve.stopping import stop_on_signal, unless, wait_or_stop
from processor.serve.topic_watch import LimitLowered, TopicWatch
from processor.serve.topics import check_or_create_topics, topic_problems, topic_warnings
from processor.serve.tracing import build_tracer
from processor.serve.unit_bound import UnitBound
from processor.serve.worker import Worker
from processor.telemetry.happenings import (
    BreakerTripped,
    DescriptorsFew,
    HttpConnectionRefused,
    Listening,
    StateChanged,
    WorkerRestarted,
    WorkerStarted,
    WorkerStopped,
)
from processor.telemetry.kafka_happenings import BrokerThrottles
from processor.telemetry.telemetry import Telemetry

if TYPE_CHECKING:
    from processor.otlp.unit_tracer import UnitTracer

_PROBE_EVERY_S: Final = 5.0
KILL_AFTER_S: Final = 15.0  # on top of the drain budget, before a child is cut off


class _Announce(Protocol):
    def __call__(self, port: int) -> None: ...


@dataclass(slots=True)
class _CurrentWorker:
    """Running worker for the HTTP endpoints, and what outlives a restart: what watches, and the tracer."""

    worker: Worker | None = None
    incarnation: int = 0
    trouble: str = "starting"
    audit: SelfAudit | None = None
    stalls: Stalls | None = None
    watch: TopicWatch | None = None
    availability: BrokerAvailability | None = None
    tracer: UnitTracer | None = None

    def assignment(self) -> tuple[int, int]:
        """Number of the incarnation and of its assignment: changes with every restart and every rebalance."""
        return self.incarnation, self.worker.assignment_epoch if self.worker is not None else -1

    def healthz(self) -> Health:
        if self.worker is not None:
            health = self.worker.healthz()
        else:
            stalled = self.stalls.reasons() if self.stalls is not None else []
            health = Health(not stalled, [*stalled, self.trouble] if stalled else [], {"state": self.trouble})
        # Reasons that leave `ok` as it is: a restart would fold the same and lose the evidence.
        doubts = self.audit.reasons() if self.audit is not None else []
        topics = self.watch.reasons() if self.watch is not None else []
        away = self.availability.reasons() if self.availability is not None else []
        return health._replace(reasons=[*health.reasons, *away, *doubts, *topics])

    def readyz(self) -> Health:
        return self.worker.readyz() if self.worker is not None else Health(False, [self.trouble], {})

    def steps(self, limit: int) -> list[dict[str, object]]:
        return self.worker.steps(limit) if self.worker is not None else []

    def control(self, partition: int, reason: str | None) -> Controlled:
        return self.worker.control(partition, reason) if self.worker is not None else Controlled(503, self.trouble)


async def run_one(
    settings: Settings, *, create_topics: bool, name: str | None, announce: _Announce | None, parent: Pipe | None = None
) -> int:
    """Run one worker process until it is told to stop; returns 0, or raises the error that ends it.

    Args:
        name: label of its metrics among several workers; None: it is the only one.
        announce: is called with the port of the HTTP server.
        parent: pipe to the process that started this one; the worker stops when the other end is closed.
    """
    began = time.monotonic()
    telemetry = Telemetry(level=settings.log.level, format=settings.log.format, worker=name)
    telemetry.hear_libraries()
    current = _CurrentWorker()
    http, source = settings.http, OneWorker(current, telemetry.exposition)
    server = Server(
        source,
        http.host,
        http.port,
        control=http.control,
        refused=lambda r: telemetry.happened(HttpConnectionRefused(*r)),
    )
    if (limit := descriptor_limit()) is not None and limit < ENOUGH:
        telemetry.happened(DescriptorsFew(limit, brokers_served(limit)))
    beside = [
        asyncio.create_task(telemetry.watch(), name="watch"),
        asyncio.create_task(free_memory(current.assignment), name="free memory"),
    ]
    if settings.self_audit.enabled:
        current.audit = SelfAudit(settings, Connection.build(**settings.kafka.connection()), telemetry)
        beside.append(asyncio.create_task(current.audit.run(), name="self-audit"))
    stop = stop_on_signal()
    code = EXIT_BUG
    try:
        if settings.http.enabled or announce is not None:
            port = await server.start()
            telemetry.happened(Listening(f"http://{settings.http.host}:{port}"))
            if announce is not None:
                announce(port)
        if parent is not None:
            _stop_with(parent, stop)
        await _supervise(settings, telemetry, current, stop, create_topics=create_topics)
        code = 0
    except RunStepsError as error:
        code = error.exit_code
        raise
    finally:
        for task in beside:
            task.cancel()
        await asyncio.wait(beside)
        await server.stop()
        if current.tracer is not None:
            current.tracer.close()
        telemetry.happened(StateChanged("stopped"))
        telemetry.happened(WorkerStopped(code, time.monotonic() - began))
        telemetry.close(keep_hearing=True)
    return code


def _stop_with(parent: Pipe, stop: asyncio.Event) -> None:
    """Stop once the parent's end of the pipe is closed: the parent is gone."""
    loop = asyncio.get_running_loop()

    def closed() -> None:
        loop.remove_reader(parent.fileno())  # it would be readable for ever
        stop.set()

    loop.add_reader(parent.fileno(), closed)


def transactional_id(settings: Settings) -> str:
    """Transactional id: stable for a static member, otherwise new with each process, so that two never share one."""
    own = settings.source.instance_id or uuid.uuid4().hex[:12]
    return f"{settings.transactional_id_prefix}.{own}"


class _Incarnations:
    """Starts one worker incarnation after the other, with what outlives an incarnation."""

    def __init__(
        self,
        settings: Settings,
        connection: Connection,
        telemetry: Telemetry,
        current: _CurrentWorker,
        *,
        name: str,
        create_topics: bool,
    ) -> None:
        self._settings, self._connection, self._telemetry, self._current = settings, connection, telemetry, current
        self._name = name
        self.availability = current.availability = BrokerAvailability(settings, telemetry)
        self._stalls = current.stalls = Stalls(settings.supervisor.stall_timeout_s / 2)
        delivery = settings.delivery
        self._bound = UnitBound(
            delivery.max_unit_records, delivery.max_unit_bytes, delivery.commit_timeout_s, lambda: OBSERVED.total_ms
        )
        self._watch = current.watch = TopicWatch(
            settings, connection, telemetry, partial(topic_problems, settings), partial(topic_warnings, settings)
        )
        self._check = partial(check_or_create_topics, settings, connection, create=create_topics)
        self._highest, self._pauses = HighestCommitted(), Pauses()

    async def run(self, stop: asyncio.Event) -> None:
        """Check the topics, then run one worker until `stop` is set or it fails."""
        began = time.monotonic()
        self._telemetry.happened(StateChanged("starting"))
        self._stalls.waits(GROUP, "no assignment")
        limits = await unless(stop, self.availability.bounded(self._watch.begin(self._check)))
        if limits is None:
            return
        self.availability.answered(began)
        worker = Worker(
            self._settings,
            self._connection,
            self._telemetry,
            transactional_id=self._name,
            limits=limits,
            audit=self._current.audit,
            stalls=self._stalls,
            served_below=self._watch.served_below,
            kept=self._watch.shortest_retention,
            bound=self._bound,
            highest=self._highest,
            pauses=self._pauses,
            tracer=self._current.tracer,
        )
        self._current.worker, self._current.trouble = worker, ""
        self._current.incarnation += 1
        await _until_stopped(worker, self._watch, self.availability, self._telemetry, stop)


class _Restarts:
    """Counts restarts, and gives the time to wait before the next one."""

    def __init__(self, settings: Settings) -> None:
        self._limits = settings.supervisor
        self._counted: deque[float] = deque()
        self.attempt = 0

    def ran(self, seconds: float) -> None:
        """After an incarnation that ran longer than the limit implies on average, the waits begin anew."""
        if seconds > self._limits.restart_window_s / max(1, self._limits.max_restarts):
            self.attempt = 0

    def count(self, now: float, failure: Exception) -> None:
        """Count a restart against the limit.

        Raises:
            RunStepsError: more than `max_restarts` within `restart_window_s`.
        """
        self._counted.append(now)
        while self._counted and now - self._counted[0] > self._limits.restart_window_s:
            self._counted.popleft()
        if len(self._counted) > self._limits.max_restarts:
            raise _too_many(len(self._counted), self._limits.restart_window_s, failure)

    def backoff_s(self, most_s: float) -> float:
        """Time to wait before the next incarnation."""
        backoff_s: float = min(self._limits.backoff_max_s, self._limits.backoff_initial_s * 2**self.attempt, most_s)
        self.attempt += 1
        return backoff_s


async def _supervise(
    settings: Settings, telemetry: Telemetry, current: _CurrentWorker, stop: asyncio.Event, *, create_topics: bool
) -> None:
    """Run incarnation after incarnation until `stop`.

    Raises:
        RunStepsError: a restart will not help, the broker stayed away for `unavailable_after_s`, or too many
            restarts.
    """
    connection = Connection.build(**settings.kafka.connection())
    name = transactional_id(settings)
    current.tracer = build_tracer(settings, name)
    telemetry.happened(WorkerStarted(settings.source.topic, settings.source.group_id, settings.delivery.mode, name))
    incarnations = _Incarnations(settings, connection, telemetry, current, name=name, create_topics=create_topics)
    availability, restarts = incarnations.availability, _Restarts(settings)
    while not stop.is_set():
        began = time.monotonic()
        try:
            await incarnations.run(stop)
            return
        except RunStepsError as caught:
            error, now = _naming_the_instance(caught, settings.source.instance_id), time.monotonic()
            current.worker, current.trouble = None, f"restarting after: {error.message}"
            if isinstance(error, Tripped):
                numbers = error.rejected, error.of_records, error.run_length
                telemetry.happened(BreakerTripped(*numbers, error.topic, error.partition, *error.offsets, error.reason))
            if not isinstance(error, BrokerUnavailable | Fenced) or isinstance(error, _NOT_RESTARTED):
                raise
            if isinstance(error, BrokerUnavailable) and not stop.is_set():
                availability.failed(error)
            restarts.ran(now - began)
            failure: Exception = error
            counts = isinstance(error, Fenced)
        except Exception as error:
            if (denied := of_system(error)) is not None:
                raise denied from error
            current.worker, current.trouble = None, f"restarting after {type(error).__name__}"
            failure, counts, now = error, True, time.monotonic()
        if stop.is_set():
            raise failure  # the last drain did not succeed: the exit code must say so
        if counts:
            restarts.count(now, failure)
        backoff_s = restarts.backoff_s(availability.left_s())
        reason = "stalled" if isinstance(failure, Stalled) else ""
        telemetry.happened(WorkerRestarted(failure, restarts.attempt, backoff_s, reason))
        telemetry.happened(StateChanged("restarting"))
        await wait_or_stop(stop, backoff_s)


def _naming_the_instance(error: RunStepsError, instance_id: str) -> RunStepsError:
    """Add `source.instance_id` to the error of a fenced static member: two processes may share one by mistake.

    The broker does not say which case it is: a replaced member gets the same error as one whose session timed out.
    """
    if not instance_id or not isinstance(error, Fenced) or isinstance(error, LimitLowered):
        return error
    named = Fenced(
        f"{error.message} (source.instance_id = {instance_id}: does another process use it?)",
        hint="give every process an instance_id of its own, or none; if this one is alone, it was too late for the "
        "group, and goes on from the log",
    )
    named.__cause__ = error
    return named


_NOT_RESTARTED: Final = (OffsetLost, RestoreGivenUp, BrokerGaveUp)


def _too_many(restarts: int, window_s: float, failure: BaseException) -> RunStepsError:
    what = failure.message if isinstance(failure, RunStepsError) else type(failure).__name__
    told = f"supervisor: {restarts} restarts within {window_s:g} s; last: {what}"
    kind = type(failure) if isinstance(failure, Fenced) else RunStepsError
    raised = kind(told, hint="the log has each of them; nothing is lost, a restart goes on from the log")
    raised.__cause__ = failure
    return raised


async def _until_stopped(
    worker: Worker, watch: TopicWatch, availability: BrokerAvailability, telemetry: Telemetry, stop: asyncio.Event
) -> None:
    """Run one incarnation, and beside it probe the broker and check the topics: an idle client would notice neither.

    An error of the topic check takes precedence over the error it caused in the incarnation: one that ends the process
    has them checked at once.
    """
    incarnation = asyncio.create_task(worker.run(stop), name="worker")
    probe = asyncio.create_task(_probe_broker(watch, availability, telemetry), name="watch the topics")
    try:
        await asyncio.wait({incarnation, probe}, return_when=asyncio.FIRST_COMPLETED)
        if probe.done() and not incarnation.done():
            incarnation.cancel()
            await asyncio.wait({incarnation}, timeout=KILL_AFTER_S)
            probe.result()
        await incarnation
    except (BrokerUnavailable, Fenced):
        raise
    except RunStepsError:
        if probe.done():
            probe.result()
        await _end(probe)
        with contextlib.suppress(BrokerUnavailable, BrokerRefused):
            await availability.bounded(watch.look())
        raise
    finally:
        await _end(probe)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})


async def _probe_broker(watch: TopicWatch, availability: BrokerAvailability, telemetry: Telemetry) -> None:
    """Check the topics every few seconds.

    Raises:
        BrokerUnavailable: the broker has not answered for `unavailable_after_s`.
        ConfigError, CorruptLog, BrokerRefused: the topics are not as a worker needs them any more.
    """
    began = time.monotonic()
    while True:
        await asyncio.sleep(min(_PROBE_EVERY_S, availability.left_s()))
        for request, (answers, seconds) in OBSERVED.take().items():
            telemetry.happened(BrokerThrottles(request, answers, seconds))
        try:
            await availability.bounded(watch.look())
        except BrokerUnavailable as error:
            availability.failed(error)
        else:
            availability.answered(began)
