"""`run-steps demo`: the whole program on a real Kafka; one worker is killed, the result is compared and audited.

This module runs the sections; `processes` has the workers, `tails` the downstream consumers, `recordings` the expected
result of recorded streams, `proof` the audit at the end, `screen` the output. The simulator gives the expected result
of the simulated runs.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from processor.broker import Broker
from processor.config.loading import load
from processor.config.settings import Settings
from processor.core.headers import INFERRED, REASON, REVISION
from processor.demo import recordings as recorded
from processor.demo.processes import WorkerProcess, environment, stop_all
from processor.demo.proof import audit
from processor.demo.screen import Meter, Screen
from processor.demo.tails import Out, Tail
from processor.errors import BrokerUnavailable, RunStepsError, UsageError
from processor.kafka.admin import Admin
from processor.kafka.client_config import Connection
from processor.kafka.partition_reader import PartitionReader
from processor.kafka.producer import EventProducer
from processor.publish.command import response_sample_files, sample_files
from processor.publish.command import run as publish
from processor.serve.topics import check_or_create_topics
from processor.simulate import Parameters, Produced, Simulation
from processor.simulate.expected import Difference, Expected, compare

EXIT_DIFFERENT: Final = 1

_BROKER_SETTINGS: Final = {
    "log.retention.ms": "-1",
}
_APART_MS: Final = 60_000
"""From the recordings to the first simulated record, and from the last one to now.

Time on a partition only goes forward, and no record is dated in the future: simulated runs live through a day in
seconds, so all of it is dated yesterday.
"""
RESPONSES_SHARE: Final = 0.4
_PATIENCE_S: Final = 90.0
_WORKER_STOP_S: Final = 10.0
_POLL_S: Final = 0.05
_BREATH_RECORDS: Final = 500
_SLOW_STEPS: Final = 100
_SLOW_S: Final = 0.02
_SHOWN_DIFFERENCES: Final = 10
_SECTIONS: Final = 6


def run(recordings: Path | None, keep: bool, runs: int, seed: int) -> int:
    """Play it all. Returns 0 if what came out is what had to and the audit proves it, else 1.

    Args:
        recordings: a directory of SSE files to play instead of the samples that come with the package.
        keep: leave broker and workers up at the end, until Ctrl-C.

    Raises:
        UsageError: the directory holds no SSE file.
        PartsUnavailable, PartsRefused: the embedded broker cannot be had.
        RunStepsError: a worker or the broker ended, or nothing moved for a long time.
        KeyboardInterrupt: SIGINT or SIGTERM; broker and workers are gone by then.
    """
    files = sample_files() + response_sample_files() if recordings is None else sorted(recordings.glob("*.sse"))
    if not files:
        raise UsageError(f"demo: --recordings: no .sse file in {recordings}", hint="one HTTP response per file")
    # What the client would print beside our own errors says the same in its own words.
    logging.getLogger("aiokafka").addHandler(logging.NullHandler())
    with _interruptible(), ExitStack() as stage:
        home = Path(stage.enter_context(tempfile.TemporaryDirectory(prefix="run-steps-demo-")))
        return _Demo(Screen(sections=_SECTIONS), home, files, keep, runs, seed).play()


class _Demo:
    """State of one demo: the parts that have to be stopped, and the results so far."""

    def __init__(self, screen: Screen, home: Path, files: Sequence[Path], keep: bool, runs: int, seed: int) -> None:
        self._screen, self._home, self._files, self._keep = screen, home, files, keep
        self._runs, self._seed = runs, seed
        self._workers: list[WorkerProcess] = []
        self._tails: list[Tail] = []
        self._env: dict[str, str] = {}
        self._began = time.monotonic()
        self._begin_ms = 0
        """Timestamp of the recordings; the simulated runs follow."""

    # --- the six sections -------------------------------------------------------------------------------------

    def play(self) -> int:
        self._screen.section(
            "A real Apache Kafka", "Not a mock: transactions and consumer groups are what is to be shown."
        )
        counting = _Counting(self._parameters(partitions=1, start_ms=time.time_ns() // 1_000_000))
        began = time.monotonic()
        broker = Broker.start(settings=_BROKER_SETTINGS, progress=self._screen.say)
        try:
            self._screen.good(f"it serves on {broker.bootstrap}, after {time.monotonic() - began:.1f} s")
            self._env = environment(broker.bootstrap)
            settings = load(None, self._env)
            code = asyncio.run(self._play(settings, counting))
            code = audit(self._screen, settings) or code
            self._screen.say(f"{time.monotonic() - self._began:.0f} s in all")
            if self._keep:
                asyncio.run(self._stay(broker, settings))
            return code
        except KeyboardInterrupt:
            self._screen.say("interrupted: ending the workers and the broker")
            raise
        finally:
            with _uninterrupted():
                stop_all(self._workers, _WORKER_STOP_S)
                broker.stop()

    async def _play(self, settings: Settings, counting: _Counting) -> int:
        asyncio.get_running_loop().set_exception_handler(_heard)
        connection = Connection.build(**settings.kafka.connection())
        await check_or_create_topics(settings, connection, create=True)
        topics = {topic: status for status, topic in settings.outcome_topics.items()} | {
            settings.output.dead_letter: ""
        }
        changed = asyncio.Event()
        self._tails = [Tail(connection, topic, status, seen=changed.set) for topic, status in topics.items()]
        read_all = asyncio.Event()
        source = _Source(connection, settings)
        try:
            async with asyncio.TaskGroup() as group, source:
                self._screen.say(f"{settings.source.topic} has {source.partitions} partitions; {', '.join(topics)}")
                for tail in self._tails:
                    group.create_task(tail.follow(read_all), name=f"tail of {tail.topic}")
                await self._begin_working(source.partitions)
                total, span_ms = await counting.result(source.partitions)
                self._begin_ms = time.time_ns() // 1_000_000 - span_ms - 2 * _APART_MS
                different = await self._play_recordings(source, settings, connection)
                border = await source.ends()
                expected = await self._play_simulation(source, settings, connection, total)
                read_all.set()
        except BaseExceptionGroup as errors:
            raise _first(errors) from None
        return self._judge(expected, border, different)

    async def _begin_working(self, partitions: int) -> None:
        self._screen.section(
            "Two workers", "Processes of one consumer group. Outputs and offsets are committed together, or not at all."
        )
        for name in "AB":
            self._start_worker(name)
        await self._until_shared(partitions)
        for worker in self._workers:
            owned = ", ".join(map(str, sorted(await worker.owns() or ())))
            self._screen.good(f"worker {worker.name} (pid {worker.pid}) is live on partitions {owned}")

    async def _play_recordings(self, source: _Source, settings: Settings, connection: Connection) -> list[Difference]:
        self._screen.section(
            "Recorded runs",
            "Run steps and Responses, as `curl -N ... | run-steps publish` sends them. A delta does not name its run:"
            " publish remembers.",
        )
        began = time.monotonic()
        await publish(
            self._files,
            topic=settings.source.topic,
            connection=connection,
            timestamp_ms=self._begin_ms,
            echo=self._screen.say,
            warn=self._screen.say,
        )
        await self._until_done(source, await source.ends())
        told = recorded.read(self._files)
        ended = [step for step in told.values() if step.status is not None]
        # Committed is not yet read: the tails look every so often.
        different: list[Difference] = []

        async def all_there() -> bool:
            different[:] = recorded.compare(told, self._published())
            return not different

        await self._until(all_there, timeout_s=5.0)
        self._screen.table(("recording", "its steps came out as"), _stories(told, self._published()), numbers_from=2)
        if different:
            self._screen.bad(f"{len(different)} differences from what the files say")
        else:
            self._screen.good(
                f"{len(ended)} steps ended as their files say, {time.monotonic() - began:.1f} s after the first byte"
            )
        return different

    async def _play_simulation(
        self, source: _Source, settings: Settings, connection: Connection, total: int
    ) -> Expected:
        self._screen.section(
            f"{self._runs:,} simulated runs, and a kill",
            "Run steps and Responses, every kind of step, envelope and fault. Half way, one worker gets kill -9.",
        )
        began_with = sum((await source.ends()).values())
        start_ms = self._begin_ms + _APART_MS
        simulation = Simulation(self._parameters(partitions=source.partitions, start_ms=start_ms))
        began = time.monotonic()
        with self._screen.progress(total) as meter:
            async with EventProducer(connection) as producer, asyncio.TaskGroup() as group:
                showing = group.create_task(self._show(meter, source, producer, began_with), name="show")
                killed = asyncio.Event()
                replaced = group.create_task(self._kill_one(producer, source, total, killed), name="kill")
                await _send(simulation, producer, settings.source.topic, total, killed)
                await producer.flush()
                await replaced
                await self._until_done(source, await source.ends())
                showing.cancel()
        seconds = time.monotonic() - began
        sent = producer.acknowledged
        self._screen.good(
            f"{sent:,} records sent and done with in {seconds:.1f} s, the kill and its consequences included"
        )
        return simulation.expected

    def _judge(self, expected: Expected, border: dict[int, int], different: list[Difference]) -> int:
        self._screen.section(
            "Does it add up?",
            "What must come is the simulator's word, not the worker's; the topics are read as a consumer would.",
        )
        simulated = [out for tail in self._tails for out in tail.records if _is_beyond(border, out)]
        earlier = [out for tail in self._tails for out in tail.records if not _is_beyond(border, out)]
        steps, letters = [out for out in simulated if out.status], [out for out in simulated if not out.status]
        different = different + compare(expected, steps, letters)
        self._screen.table(("", "recorded", "simulated", "must come"), list(_sums(expected, steps, letters, earlier)))
        counts = expected.counts
        self._screen.say(
            f"rightly without effect: {counts['ignored']:,} events that concern no step, "
            f"{counts['duplicate'] + counts['repeated']:,} repeats, {counts['tombstone']:,} empty records, "
            f"{counts['unknown_event']:,} of unknown kind"
        )
        if different:
            for difference in different[:_SHOWN_DIFFERENCES]:
                self._screen.bad(str(difference))
            self._screen.bad(f"NOT equal: {len(different)} differences; seed {self._seed}, {self._runs} runs")
            return EXIT_DIFFERENT
        self._screen.good("equal: nothing lost, nothing twice")
        return 0

    async def _stay(self, broker: Broker, settings: Settings) -> None:
        asyncio.get_running_loop().set_exception_handler(_heard)
        say = self._screen.say
        say(f"kept up: Kafka on {broker.bootstrap}, its data in {broker.data_dir}")
        for worker in self._living():
            say(f"worker {worker.name}: {worker.url}/healthz /readyz /metrics /steps; log {worker.log_path}")
        say("send it a stream of your own:")
        self._screen.command(
            f"curl -N ... | RUN_STEPS_KAFKA__BOOTSTRAP_SERVERS={broker.bootstrap} {_command()} publish"
        )
        say("Ctrl-C ends it all")
        try:
            while broker.is_alive():
                for worker in self._living():
                    worker.check()
                await asyncio.sleep(0.5)
        except asyncio.CancelledError:  # the Ctrl-C it was waiting for
            return
        raise BrokerUnavailable(f"demo: the broker ended by itself; its log ends:\n{broker.log_tail()}")

    # --- the kill ---------------------------------------------------------------------------------------------

    async def _kill_one(self, producer: EventProducer, source: _Source, total: int, killed: asyncio.Event) -> None:
        """Once half is sent and a worker has published of it: SIGKILL. Then see who takes over, and replace it."""
        before = {worker.name: await worker.published() for worker in self._workers}
        news: dict[str, int] = {}

        async def half_way() -> bool:
            news.update({worker.name: await worker.published() - before[worker.name] for worker in self._workers})
            if producer.acknowledged * 2 < total:
                return False
            # Of very few runs there may be nothing to publish yet.
            return any(news.values()) or await source.done() == sum((await source.ends()).values())

        await self._until(half_way, what="half the input to be sent and published from")
        victim, survivor = sorted(self._workers, key=lambda worker: news[worker.name], reverse=True)
        published = await victim.published()
        victim.kill()
        died = time.monotonic()
        killed.set()
        self._screen.say(
            f"worker {victim.name} killed (SIGKILL) at record {producer.acknowledged:,}, "
            f"after it had published {published:,} steps",
            "✗",
            "bold red",
        )

        async def taken_over() -> bool:
            return len(await survivor.owns() or ()) == source.partitions

        self._workers.remove(victim)
        await self._until(taken_over, what="the other worker to take over")
        fenced = ", and the dead one's writer is fenced" if survivor.happened("writer_taken_over") else ""
        self._screen.good(
            f"worker {survivor.name} has all {source.partitions} partitions {time.monotonic() - died:.1f} s later "
            f"(the group misses a silent member after 6 s){fenced}"
        )
        self._start_worker("C")
        await self._until_shared(source.partitions)
        self._screen.good("worker C has joined in its place, and half the partitions have moved to it")

    # --- helpers ----------------------------------------------------------------------------------------------

    def _parameters(self, *, partitions: int, start_ms: int) -> Parameters:
        return Parameters(
            runs=self._runs, seed=self._seed, partitions=partitions, start_ms=start_ms, responses=RESPONSES_SHARE
        )

    def _start_worker(self, name: str) -> None:
        self._workers.append(WorkerProcess(name, self._env, self._home / f"worker-{name}.log"))

    def _living(self) -> list[WorkerProcess]:
        return list(self._workers)

    def _published(self) -> list[Out]:
        return [out for tail in self._tails for out in tail.records if out.status]

    async def _until_shared(self, partitions: int) -> None:
        async def shared() -> bool:
            owned = [await worker.owns() or frozenset() for worker in self._workers]
            return all(owned) and sum(map(len, owned)) == len(frozenset().union(*owned)) == partitions

        await self._until(shared, what="the workers to share the partitions")

    async def _until_done(self, source: _Source, ends: dict[int, int]) -> None:
        """Wait until the group has committed all of these offsets. Raises when it makes no progress."""
        moved_at, before = time.monotonic(), -1
        while (done := await source.done()) < sum(ends.values()):
            if done != before:
                moved_at, before = time.monotonic(), done
            self._check(moved_at, "the rest of the input to be done with")
            await asyncio.sleep(_POLL_S)

    async def _until(
        self, condition: Callable[[], Awaitable[bool]], *, what: str = "", timeout_s: float | None = None
    ) -> None:
        """Wait until a condition holds. With `timeout_s` it need not come true, else that is an error."""
        began = time.monotonic()
        while not await condition():
            if timeout_s is not None and time.monotonic() - began > timeout_s:
                return
            self._check(began, what)
            await asyncio.sleep(_POLL_S)

    def _check(self, since: float, what: str) -> None:
        for worker in self._workers:
            worker.check()
        if time.monotonic() - since > _PATIENCE_S:
            logs = "\n".join(f"worker {worker.name}:\n{worker.tail()}" for worker in self._workers)
            raise RunStepsError(f"demo: waited {_PATIENCE_S:g} s for {what}; the workers' logs end:\n{logs}")

    async def _show(self, meter: Meter, source: _Source, producer: EventProducer, began_with: int) -> None:
        while True:
            letters = sum(len(tail.records) for tail in self._tails if not tail.status)
            done = max(0, await source.done() - began_with)
            meter.show(
                sent=max(done, producer.acknowledged),
                done=done,
                steps=len(self._published()),
                letters=letters,
            )
            await asyncio.sleep(0.25)


class _Source:
    """End of the source topic, and the group's committed offsets."""

    def __init__(self, connection: Connection, settings: Settings) -> None:
        self._topic, self._group = settings.source.topic, settings.source.group_id
        self._reader = PartitionReader(connection, topic=self._topic, client_id="run-steps-demo")
        self._admin = Admin(connection)
        self.partitions = 0

    async def __aenter__(self) -> _Source:
        await self._admin.start()
        await self._reader.start()
        self.partitions = self._reader.partitions_of_topic()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._reader.stop(timeout_s=2.0)
        await self._admin.stop()

    async def ends(self) -> dict[int, int]:
        return await self._reader.end_offsets(range(self.partitions))

    async def done(self) -> int:
        """Records behind the committed offsets."""
        committed = await self._admin.group_offsets(self._group)
        return sum(row.offset for (topic, _), row in committed.items() if topic == self._topic and row.offset > 0)


class _Counting:
    """Counts the records of the simulation to come, and measures its time, in a thread, while Java is starting.

    Args:
        parameters: for one partition. More of them only mean more closing records, one for each.
    """

    def __init__(self, parameters: Parameters) -> None:
        self._total = self._span_ms = 0
        self._thread = threading.Thread(target=self._count, args=(parameters,), name="count", daemon=True)
        self._thread.start()

    def _count(self, parameters: Parameters) -> None:
        last_ms = parameters.start_ms
        for record in Simulation(parameters):
            self._total += 1
            last_ms = max(last_ms, record.timestamp)
        self._span_ms = last_ms - parameters.start_ms

    async def result(self, partitions: int) -> tuple[int, int]:
        """The number of records, and the time in ms from the start to the latest."""
        await asyncio.to_thread(self._thread.join)
        return self._total - 1 + partitions, self._span_ms


async def _send(simulation: Simulation, producer: EventProducer, topic: str, total: int, killed: asyncio.Event) -> None:
    """As fast as it is taken; slowly from half way to three quarters, so that the kill falls into the flow."""
    half, hold = total // 2, total * 3 // 4
    slow = max(1, (hold - half) // _SLOW_STEPS)
    for number, record in enumerate(simulation):
        if number > half and not killed.is_set():
            if number >= hold:
                await killed.wait()
            elif number % slow == 0:
                await asyncio.sleep(_SLOW_S)
        elif number % _BREATH_RECORDS == 0:
            await asyncio.sleep(0)
        await _send_one(producer, topic, record)


async def _send_one(producer: EventProducer, topic: str, record: Produced) -> None:
    await producer.send(topic, record.value, key=record.key, headers=record.headers, timestamp_ms=record.timestamp)


def _stories(told: dict[str, recorded.Told], published: Sequence[Out]) -> list[list[str]]:
    """A row per recording: the statuses of its steps in the order of its steps, what is special in brackets."""
    came: dict[str, list[Out]] = {}
    for out in published:
        came.setdefault((out.key or b"").decode(), []).append(out)
    rows: dict[str, list[str]] = {}
    for step_id, step in told.items():
        outs = came.get(step_id, [])
        said = outs[-1].status if outs else "still open"
        if outs and (how := outs[-1].header(INFERRED)):
            said += f" (implied by its {how})"
        if len(outs) > 1:
            said += " (and amended by late output)"
        rows.setdefault(step.story, []).append(said)
    return [[story, ", ".join(statuses)] for story, statuses in rows.items()]


def _sums(
    expected: Expected, steps: Sequence[Out], letters: Sequence[Out], earlier: Sequence[Out]
) -> Iterator[list[str]]:
    """The rows of the last table: results of the recordings, of the simulation, and the latter's expected result."""
    wanted = Counter(expected.counts)
    for status in ("completed", "failed", "cancelled", "expired"):
        yield _row(
            status,
            [o for o in earlier if o.status == status],
            [o for o in steps if o.status == status],
            wanted[f"published.{status}"],
        )
    is_amended: Callable[[Out], bool] = lambda out: out.header(REVISION) != "0"  # noqa: E731
    is_implied: Callable[[Out], bool] = lambda out: bool(out.header(INFERRED))  # noqa: E731
    past = [out for out in earlier if out.status]
    yield _row("  of these: amendments", filter(is_amended, past), filter(is_amended, steps), wanted["amended"])
    implied = wanted["inferred.run"] + wanted["inferred.deadline"]
    yield _row("  of these: implied ends", filter(is_implied, past), filter(is_implied, steps), implied)
    lost = [out for out in earlier if not out.status]
    yield _row("dead letters", lost, letters, expected.letters.total())
    reasons = {reason.reason for reason in expected.letters} | {out.header(REASON) for out in (*letters, *lost)}
    for reason in sorted(reasons):
        yield _row(
            f"  {reason}",
            [out for out in lost if out.header(REASON) == reason],
            [out for out in letters if out.header(REASON) == reason],
            wanted[f"dead_letter.{reason}"],
        )


def _row(name: str, earlier: Iterable[Out], came: Iterable[Out], wanted: int) -> list[str]:
    count = len(list(came))
    return [name, f"{len(list(earlier)):,}", f"{count:,}", f"{wanted:,}" + ("" if count == wanted else "  !")]


def _is_beyond(border: dict[int, int], out: Out) -> bool:
    """Whether it came from a source record behind the recordings."""
    partition, offset = out.source
    return offset >= border.get(partition, 0)


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error to report: one of ours if there is one."""
    ours = errors.subgroup(RunStepsError)
    found: BaseException = ours if ours is not None else errors
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found


def _heard(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Hide warnings about a connection that a Ctrl-C interrupted during its first request."""
    if not str(context.get("message", "")).startswith("Unclosed"):
        loop.default_exception_handler(context)


def _command() -> str:
    beside = Path(sys.executable).with_name("run-steps")
    return str(beside) if beside.exists() else "run-steps"


# --- signals -----------------------------------------------------------------------------------------------------


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM and a closed terminal end the demo as Ctrl-C does, also where a shell has set Ctrl-C to be ignored."""
    numbers = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
    before = {number: signal.getsignal(number) for number in numbers}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in numbers[1:]:
        signal.signal(number, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Cleaning up takes seconds and is bounded; an impatient second Ctrl-C must not leave processes behind."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
