"""Crash-only: one task owns a worker's life; what is not classified ends it, and the next begins from the log.

`serve` runs one worker in this process, or N in processes of their own with one place to scrape.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
import uuid
from collections import deque
from collections.abc import Awaitable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection as Pipe
from typing import Any, Final, Protocol, TypeVar

from processor.breaker import Tripped
from processor.committed import HighestCommitted
from processor.config import Settings
from processor.core.rules import MAX_DIGITS
from processor.errors import BrokerUnavailable, ConfigError, Fenced, RunStepsError, of_system
from processor.http import Front, Health, OneWorker, Server
from processor.kafka.admin import Admin, NewTopicFacts, TopicFacts, check_topics
from processor.kafka.security import Connection
from processor.kafka.throttling import OBSERVED
from processor.kafka.trouble import OffsetLost
from processor.selfaudit import SelfAudit
from processor.stalls import GROUP, Stalls
from processor.telemetry import (
    BreakerTripped,
    BrokerBack,
    BrokerLost,
    BrokerThrottles,
    ChildEnded,
    Listening,
    StateChanged,
    Telemetry,
    WorkerRestarted,
    WorkerStarted,
    WorkerStopped,
)
from processor.topic_watch import TopicWatch
from processor.unit_bound import UnitBound
from processor.worker import RestoreGivenUp, Stalled, Worker, unless

_Answer = TypeVar("_Answer")

_SOURCE_PARTITIONS: Final = 6
_HEADERS_BYTES: Final = 16 << 10
_TOUCH_EVERY_S: Final = 5.0
_LEAST_S: Final = 1.0  # for one attempt, however little of the time is left
_END_S: Final = 15.0  # on top of the drain budget, before a child is cut off

_EXIT_S: Final = 10.0  # for what is left of tasks once a worker has stopped

EXIT_BUG: Final = 70
_SAID_WHY: Final = frozenset({64, 65, 74, 75, 77, 78})
"""The codes of a worker process that a new one would end with as well.

74 is one: a disk is as full for the next, and a person must make room. 71 is none: the memory that a process had is
free once it has ended, and the next goes on from the log; how often is limited as for any other end.
"""


def serve(settings: Settings, *, create_topics: bool, workers: int) -> int:
    """Run until SIGTERM or SIGINT, or until a life cannot go on. Returns the exit code.

    Raises:
        RunStepsError: the settings, the topics or the broker make serving impossible.
    """
    if not __debug__:
        raise ConfigError("python: run with -O, which takes the safety checks out", hint="start it without -O")
    Connection.build(**settings.kafka.connection())  # files and combinations, before the first connection
    if workers == 1:
        return _run(_one(settings, create_topics=create_topics, name=None, announce=None))
    return _run(_several(settings, create_topics=create_topics, workers=workers))


def _run(main: Coroutine[Any, Any, int]) -> int:
    # Collecting among the objects of start-up is work for nothing; what lives long is frozen once more when live.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    timers: list[threading.Timer] = []

    async def until_done() -> int:
        code, last = EXIT_BUG, ""
        try:
            code = await main
            return code
        except RunStepsError as error:
            code, last = error.exit_code, f"run-steps: {error}\n"
            raise
        finally:
            # What is left of tasks is cancelled now and waited for. One of a library that never ends must not keep a
            # process that has said its last word.
            timers.append(threading.Timer(_EXIT_S, _end_by_force, (code, last)))
            timers[-1].daemon = True
            timers[-1].start()

    try:
        if sys.platform == "win32":
            return asyncio.run(until_done())
        import uvloop

        return uvloop.run(until_done())
    finally:
        for timer in timers:
            timer.cancel()


def _end_by_force(code: int, last: str) -> None:
    os.write(2, f"{last}run-steps: ended by force: something did not end within {_EXIT_S:g} s\n".encode())
    os._exit(code)


# --- topics --------------------------------------------------------------------------------------------------------


def checkpoint_record_bytes(settings: Settings) -> int:
    """The largest checkpoint that can be: an object and deltas at their limit, four bytes to the character, a frame."""
    return 5 * settings.steps.max_step_bytes + (256 << 10)


async def check_or_create_topics(settings: Settings, connection: Connection, *, create: bool) -> dict[str, int]:
    """See that all topics are as they must be. Returns the max.message.bytes of each that we write to.

    Raises:
        ConfigError: all that is wrong with them, a line each.
        BrokerRefused, BrokerUnavailable
    """
    source, dead_letter, checkpoints = settings.source.topic, settings.output.dead_letter, settings.checkpoint_topic
    outcomes = sorted({topic for topic in settings.outcome_topics.values() if topic})
    async with Admin(connection) as admin:
        found = await admin.topics([source, dead_letter, checkpoints, *outcomes])
        if create:
            partitions = found[source].partitions if source in found else _SOURCE_PARTITIONS
            largest = found[source].max_message_bytes if source in found else 1 << 20
            wanted = [
                NewTopicFacts(source, partitions),
                *(NewTopicFacts(topic, partitions, _size(settings.output.max_record_bytes)) for topic in outcomes),
                NewTopicFacts(dead_letter, partitions, _size(max(largest, settings.output.max_record_bytes))),
                NewTopicFacts(
                    checkpoints,
                    partitions,
                    {"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.1"}
                    | _size(checkpoint_record_bytes(settings)),
                ),
            ]
            missing = [topic for topic in wanted if topic.name not in found]
            if missing:
                await admin.create(missing)
                found = await admin.topics([source, dead_letter, checkpoints, *outcomes])
    problems = topic_problems(settings, found)
    if problems:
        raise ConfigError("\n".join(problems), hint="--create-topics makes what is missing; it changes no topic")
    return {name: found[name].max_message_bytes for name in (dead_letter, checkpoints, *outcomes)}


def topic_problems(settings: Settings, found: Mapping[str, TopicFacts]) -> list[str]:
    """What a worker would refuse about the topics as they are, one line each with its remedy."""
    source, dead_letter, checkpoints = settings.source.topic, settings.output.dead_letter, settings.checkpoint_topic
    outcomes = sorted({topic for topic in settings.outcome_topics.values() if topic})
    problems = check_topics(
        found,
        source=source,
        outputs=[dead_letter, *outcomes],
        checkpoints=checkpoints,
        max_record_bytes=settings.output.max_record_bytes + _HEADERS_BYTES,
    )
    if source in found and dead_letter in found:
        needed = found[source].max_message_bytes + _HEADERS_BYTES
        if found[dead_letter].max_message_bytes < needed:
            problems.append(
                f"topic {dead_letter}: max.message.bytes is too small to take any record of {source} "
                f"(got {found[dead_letter].max_message_bytes}); set at least {needed}"
            )
    if checkpoints in found and found[checkpoints].max_message_bytes < checkpoint_record_bytes(settings):
        problems.append(
            f"topic {checkpoints}: max.message.bytes is too small for a step of steps.max_step_bytes "
            f"(got {found[checkpoints].max_message_bytes}); set at least {checkpoint_record_bytes(settings)}"
        )
    return problems


def _size(record_bytes: int) -> dict[str, str]:
    return {"max.message.bytes": str(record_bytes + _HEADERS_BYTES + 4096)}


# --- one worker ----------------------------------------------------------------------------------------------------


class _Announce(Protocol):
    def __call__(self, port: int) -> None: ...


@dataclass(slots=True)
class _Lives:
    """The worker of the moment, for the pages, and what its self-audit found in all lives."""

    worker: Worker | None = None
    trouble: str = "starting"
    audit: SelfAudit | None = None
    stalls: Stalls | None = None
    watch: TopicWatch | None = None

    def healthz(self) -> Health:
        if self.worker is not None:
            health = self.worker.healthz()
        else:
            stalled = self.stalls.reasons() if self.stalls is not None else []
            health = Health(not stalled, [*stalled, self.trouble] if stalled else [], {"state": self.trouble})
        # A reason, and ok all the same: a restart would fold as this one did, and take the evidence along.
        doubts = self.audit.reasons() if self.audit is not None else []
        topics = self.watch.reasons() if self.watch is not None else []
        return health._replace(reasons=[*health.reasons, *doubts, *topics])

    def readyz(self) -> Health:
        return self.worker.readyz() if self.worker is not None else Health(False, [self.trouble], {})

    def steps(self, limit: int) -> list[dict[str, object]]:
        return self.worker.steps(limit) if self.worker is not None else []


async def _one(
    settings: Settings, *, create_topics: bool, name: str | None, announce: _Announce | None, parent: Pipe | None = None
) -> int:
    began = time.monotonic()
    telemetry = Telemetry(level=settings.log.level, format=settings.log.format, worker=name)
    telemetry.hear_libraries()
    lives = _Lives()
    server = Server(OneWorker(lives, telemetry.exposition), settings.http.host, settings.http.port)
    beside = [asyncio.create_task(telemetry.watch(), name="watch")]
    if settings.self_audit.enabled:
        lives.audit = SelfAudit(settings, Connection.build(**settings.kafka.connection()), telemetry)
        beside.append(asyncio.create_task(lives.audit.run(), name="self-audit"))
    stop = _stop_on_signal()
    code = EXIT_BUG
    try:
        if settings.http.enabled or announce is not None:
            port = await server.start()
            telemetry.happened(Listening(f"http://{settings.http.host}:{port}"))
            if announce is not None:
                announce(port)
        if parent is not None:
            _stop_with(parent, stop)
        await _supervise(settings, telemetry, lives, stop, create_topics=create_topics)
        code = 0
    except RunStepsError as error:
        code = error.exit_code
        raise
    finally:
        for task in beside:
            task.cancel()
        await asyncio.wait(beside)
        await server.stop()
        telemetry.happened(StateChanged("stopped"))
        telemetry.happened(WorkerStopped(code, time.monotonic() - began))
        telemetry.close(keep_hearing=True)
    return code


def _stop_with(parent: Pipe, stop: asyncio.Event) -> None:
    """Once the parent's end of the pipe is closed we are orphans."""
    loop = asyncio.get_running_loop()

    def closed() -> None:
        loop.remove_reader(parent.fileno())  # it would be readable for ever
        stop.set()

    loop.add_reader(parent.fileno(), closed)


def _stop_on_signal() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


def transactional_id(settings: Settings) -> str:
    """Stable for a static member; otherwise new with each process, so that two never share one."""
    own = settings.source.instance_id or uuid.uuid4().hex[:12]
    return f"{settings.transactional_id_prefix}.{own}"


async def _supervise(
    settings: Settings, telemetry: Telemetry, lives: _Lives, stop: asyncio.Event, *, create_topics: bool
) -> None:
    """Live after live until `stop`.

    Raises:
        RunStepsError: a restart will not help, the broker stayed away for `unavailable_after_s`, or too many
            restarts.
    """
    supervisor = settings.supervisor
    connection = Connection.build(**settings.kafka.connection())
    name = transactional_id(settings)
    telemetry.happened(WorkerStarted(settings.source.topic, settings.source.group_id, settings.delivery.mode, name))
    contact = _Contact(settings, telemetry)
    stalls = lives.stalls = Stalls(settings.supervisor.stall_timeout_s / 2)
    delivery = settings.delivery
    bound = UnitBound(
        delivery.max_unit_records, delivery.max_unit_bytes, delivery.commit_timeout_s, lambda: OBSERVED.total_ms
    )
    watch = lives.watch = TopicWatch(settings, connection, telemetry, partial(topic_problems, settings))
    check = partial(check_or_create_topics, settings, connection, create=create_topics)
    highest = HighestCommitted()
    restarts: deque[float] = deque()
    attempt = 0
    while not stop.is_set():
        began = time.monotonic()
        try:
            telemetry.happened(StateChanged("starting"))
            stalls.waits(GROUP, "no assignment")
            limits = await unless(stop, contact.bounded(watch.begin(check)))
            if limits is None:
                return
            contact.answered(began)
            worker = Worker(
                settings,
                connection,
                telemetry,
                transactional_id=name,
                limits=limits,
                audit=lives.audit,
                stalls=stalls,
                served_below=watch.served_below,
                bound=bound,
                highest=highest,
            )
            lives.worker, lives.trouble = worker, ""
            await _until_stopped(worker, watch, contact, telemetry, stop)
            return
        except RunStepsError as caught:
            error, now = _naming_the_instance(caught, settings.source.instance_id), time.monotonic()
            lives.worker, lives.trouble = None, f"restarting after: {error.message}"
            if isinstance(error, Tripped):
                telemetry.happened(BreakerTripped(error.rejected, error.of_records, error.run_length))
            if not isinstance(error, BrokerUnavailable | Fenced) or isinstance(error, _NO_FURTHER_LIFE):
                raise
            if isinstance(error, BrokerUnavailable) and not stop.is_set():
                contact.failed(error)
            if now - began > supervisor.restart_window_s / max(1, supervisor.max_restarts):
                attempt = 0
            failure: Exception = error
            counts = isinstance(error, Fenced)
        except Exception as error:
            if (denied := of_system(error)) is not None:
                raise denied from error
            lives.worker, lives.trouble = None, f"restarting after {type(error).__name__}"
            failure, counts, now = error, True, time.monotonic()
        if stop.is_set():
            raise failure  # the last drain did not succeed: whoever stopped us should know
        if counts:
            restarts.append(now)
            while restarts and now - restarts[0] > supervisor.restart_window_s:
                restarts.popleft()
            if len(restarts) > supervisor.max_restarts:
                raise _too_many(len(restarts), supervisor.restart_window_s, failure)
        backoff_s = min(supervisor.backoff_max_s, supervisor.backoff_initial_s * 2**attempt, contact.left_s())
        attempt += 1
        telemetry.happened(
            WorkerRestarted(failure, attempt, backoff_s, "stalled" if isinstance(failure, Stalled) else "")
        )
        telemetry.happened(StateChanged("restarting"))
        await _wait(stop, backoff_s)


def _naming_the_instance(error: RunStepsError, instance_id: str) -> RunStepsError:
    """A static member that has lost its place is told its id: two processes that share one take it from each other.

    The broker does not say who it was: the one that is replaced hears the same as one whose session has timed out.
    """
    if not instance_id or not isinstance(error, Fenced):
        return error
    named = Fenced(
        f"{error.message} (source.instance_id = {instance_id}: does another process use it?)",
        hint="give every process an instance_id of its own, or none; if this one is alone, it was too late for the "
        "group, and goes on from the log",
    )
    named.__cause__ = error
    return named


class _Gone(BrokerUnavailable):
    """The broker was not usable for `unavailable_after_s`: no further life."""


_NO_FURTHER_LIFE: Final = (OffsetLost, RestoreGivenUp, _Gone)


class _Contact:
    """Since when the broker is of no use, whoever noticed and in however many lives: `unavailable_after_s` runs once.

    That it answers does not make it usable: a partition or a coordinator without a leader lets lives begin, and
    fail. So the time runs on until a life has outlived the trouble, or has lasted longer than a commit that fails.
    """

    def __init__(self, settings: Settings, telemetry: Telemetry) -> None:
        self._bootstrap = settings.kafka.bootstrap_servers
        self._limit_s = settings.kafka.unavailable_after_s
        self._sound_s = 2 * settings.delivery.commit_timeout_s
        self._telemetry = telemetry
        self._good_at = time.monotonic()
        self._since: float | None = None
        self._silent = False

    def left_s(self) -> float:
        since = self._good_at if self._since is None else self._since
        return max(0.0, since + self._limit_s - time.monotonic())

    def answered(self, life_began: float) -> None:
        """The broker has answered a question in the life that began then."""
        now = time.monotonic()
        if self._silent and self._since is not None:
            self._telemetry.happened(BrokerBack(self._bootstrap, now - self._since))
        self._silent = False
        if self._since is None or self._since >= life_began or now - life_began >= self._sound_s:
            self._since, self._good_at = None, now

    def failed(self, error: BrokerUnavailable) -> None:
        """Raises `BrokerUnavailable`, saying since when, once the time is over."""
        now = time.monotonic()
        self._silent = True
        if self._since is None:
            self._since = self._good_at
        silent_s = now - self._since
        self._telemetry.happened(BrokerLost(self._bootstrap, silent_s, error))
        if silent_s >= self._limit_s:
            since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(time.time() - silent_s))
            raise _Gone(
                f"kafka: {self._bootstrap}: not usable since {since} ({silent_s:.0f} s); last: {error.message}",
                hint=f"{error.hint}; the limit is [kafka] unavailable_after_s = {self._limit_s:g}; nothing is lost, "
                "a restart goes on from the log",
            ) from error

    async def bounded(self, asking: Awaitable[_Answer]) -> _Answer:
        """Ask for no longer than is left. Raises `BrokerUnavailable`."""
        left_s = max(_LEAST_S, self.left_s())
        try:
            async with asyncio.timeout(left_s):
                return await asking
        except TimeoutError:
            raise BrokerUnavailable(
                f"broker {self._bootstrap}: no answer within {left_s:.0f} s",
                hint="check the brokers, and what lies between",
            ) from None


def _too_many(restarts: int, window_s: float, failure: BaseException) -> RunStepsError:
    what = failure.message if isinstance(failure, RunStepsError) else type(failure).__name__
    told = f"supervisor: {restarts} restarts within {window_s:g} s; last: {what}"
    kind = type(failure) if isinstance(failure, Fenced) else RunStepsError
    raised = kind(told, hint="the log has each of them; nothing is lost, a restart goes on from the log")
    raised.__cause__ = failure
    return raised


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        pass


async def _until_stopped(
    worker: Worker, watch: TopicWatch, contact: _Contact, telemetry: Telemetry, stop: asyncio.Event
) -> None:
    """One life, and beside it a look at the topics, and whether the broker is there: an idle client would not notice.

    What the look finds wrong with the topics goes before what it has broken in the life.
    """
    life = asyncio.create_task(worker.run(stop), name="worker")
    touch = asyncio.create_task(_touch(watch, contact, telemetry), name="watch the topics")
    try:
        await asyncio.wait({life, touch}, return_when=asyncio.FIRST_COMPLETED)
        if touch.done() and not life.done():
            life.cancel()
            await asyncio.wait({life}, timeout=_END_S)
            touch.result()
        await life
    finally:
        touch.cancel()
        await asyncio.wait({touch})


async def _touch(watch: TopicWatch, contact: _Contact, telemetry: Telemetry) -> None:
    """Look at the topics every few seconds.

    Raises:
        BrokerUnavailable: the broker has not answered for `unavailable_after_s`.
        ConfigError, CorruptLog, BrokerRefused: the topics are not as a worker needs them any more.
    """
    began = time.monotonic()
    while True:
        await asyncio.sleep(min(_TOUCH_EVERY_S, contact.left_s()))
        for request, (answers, seconds) in OBSERVED.take().items():
            telemetry.happened(BrokerThrottles(request, answers, seconds))
        try:
            await contact.bounded(watch.look())
        except BrokerUnavailable as error:
            contact.failed(error)
        else:
            contact.answered(began)


# --- several workers -----------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Child:
    name: str
    process: multiprocessing.process.BaseProcess
    pipe: Pipe
    url: str = ""


def _child_main(settings: Settings, name: str, pipe: Pipe) -> None:
    def announce(port: int) -> None:
        pipe.send(port)

    sys.set_int_max_str_digits(MAX_DIGITS)
    try:
        code = _run(_one(settings, create_topics=False, name=name, announce=announce, parent=pipe))
    except RunStepsError as error:
        print(f"run-steps: worker {name}: {error}", file=sys.stderr)  # noqa: T201
        code = error.exit_code
    sys.stderr.flush()
    os._exit(code)


def _child_settings(settings: Settings, number: int) -> Settings:
    """The same settings; its pages on a port of its own, and a static member per process."""
    source = settings.source
    if source.instance_id:
        source = source.model_copy(update={"instance_id": f"{source.instance_id}-{number}"})
    http = settings.http.model_copy(update={"host": "127.0.0.1", "port": 0})
    return settings.model_copy(update={"http": http, "source": source})


async def _several(settings: Settings, *, create_topics: bool, workers: int) -> int:
    """N processes, each a member of the group; this one serves their pages as one and watches them."""
    began = time.monotonic()
    telemetry = Telemetry(level=settings.log.level, format=settings.log.format, worker="front")
    telemetry.hear_libraries()
    stop = _stop_on_signal()
    if not await _topics_once_there(settings, telemetry, stop, create=create_topics):
        return 0
    children = [_spawn(settings, number) for number in range(workers)]
    server = Server(Front(lambda: {c.name: c.url for c in children}), settings.http.host, settings.http.port)
    code = 0
    try:
        if settings.http.enabled:
            port = await server.start()
            telemetry.happened(Listening(f"http://{settings.http.host}:{port}"))
        code = await _watch_children(settings, telemetry, children, stop)
    finally:
        for child in children:
            if child.process.is_alive():
                child.process.terminate()
        patience_s = settings.delivery.drain_timeout_s + _END_S
        await asyncio.to_thread(_join, children, patience_s)
        await server.stop()
        telemetry.happened(WorkerStopped(code, time.monotonic() - began))
        telemetry.close(keep_hearing=True)
    return code or _worst_exit([child.process.exitcode for child in children])


async def _topics_once_there(settings: Settings, telemetry: Telemetry, stop: asyncio.Event, *, create: bool) -> bool:
    """Wait for the broker as a single worker does. Returns False if `stop` was set before it was there."""
    connection = Connection.build(**settings.kafka.connection())
    contact = _Contact(settings, telemetry)
    while not stop.is_set():
        try:
            checking = check_or_create_topics(settings, connection, create=create)
            return await unless(stop, contact.bounded(checking)) is not None
        except BrokerUnavailable as error:
            contact.failed(error)
            await _wait(stop, min(settings.supervisor.backoff_initial_s, contact.left_s()))
    return False


def _spawn(settings: Settings, number: int) -> _Child:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(
        target=_child_main, args=(_child_settings(settings, number), str(number), theirs), name=f"worker-{number}"
    )
    process.start()
    theirs.close()
    return _Child(str(number), process, ours)


def _worst_exit(codes: Iterable[int | None]) -> int:
    """Exit status for several processes: the first that is not 0; one that a signal ended counts as a bug (70)."""
    first = next((code for code in codes if code), 0)
    return first if first >= 0 else EXIT_BUG


async def _watch_children(settings: Settings, telemetry: Telemetry, children: list[_Child], stop: asyncio.Event) -> int:
    """Note each child's address, and start one again that a signal or a bug ended; else end with its code."""
    supervisor = settings.supervisor
    restarts: deque[float] = deque()
    while not stop.is_set():
        for at, child in enumerate(children):
            if not child.url and child.pipe.poll():
                with contextlib.suppress(EOFError):  # it has ended, which the next line sees
                    child.url = f"http://127.0.0.1:{child.pipe.recv()}"
            if child.process.is_alive():
                continue
            code = child.process.exitcode or 0
            now = time.monotonic()
            while restarts and now - restarts[0] > supervisor.restart_window_s:
                restarts.popleft()
            again = code not in _SAID_WHY and len(restarts) < supervisor.max_restarts
            telemetry.happened(ChildEnded(child.name, code, again))
            if not again:
                return code if code > 0 else EXIT_BUG
            restarts.append(now)
            children[at] = _spawn(settings, at)
        await _wait(stop, 0.1)
    return 0


def _join(children: list[_Child], patience_s: float) -> None:
    deadline = time.monotonic() + patience_s
    for child in children:
        child.process.join(max(0.0, deadline - time.monotonic()))
        if child.process.is_alive():
            child.process.kill()
            child.process.join()
