"""Seeded generator of agent runs as services emit them, and of the result that must be published.

The expected result is computed from the plan of each run, by code that shares nothing with the core and folds no
events, so it checks worker and replay independently. What `docs/semantics.md` leaves open is not generated.

    simulation = Simulation(Parameters(runs=100, seed=7))
    for produced in simulation: ...
    simulation.expected                      # complete once the iteration has ended
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapify, heappop, heapreplace
from random import Random
from typing import Final, NamedTuple

from processor.simulate.expected import Expected
from processor.simulate.garbage import garbage
from processor.simulate.parameters import ENVELOPES, Parameters
from processor.simulate.responses.records import ResponseRecords, envelopes_of
from processor.simulate.responses.run import ResponseRun
from processor.simulate.runs import Mixes, Run
from processor.simulate.steps import Event, Kind
from processor.simulate.texts import Mix, Texts
from processor.simulate.tools import text_of
from processor.simulate.wire import MANY, Wrapped, fits, wrap

__all__ = ["Expected", "Parameters", "Produced", "Simulation", "generate", "partition_of"]

_JITTER_MS: Final = 1_500
"""Largest clock difference of producers: a late timestamp is at most this much behind."""
_BUNDLE_GAP_MS: Final = 500
"""Longest time between events that share a record, and between a record and its repeat."""
_START_SPREAD_MS: Final = 2_000
_UNKNOWN_EVENTS: Final = ("vendor.heartbeat", "vendor.output_text.delta", "session.created", "ping")
_STEP_KINDS: Final = frozenset((Kind.CREATED, Kind.PROGRESS, Kind.DELTA, Kind.END))


class Produced(NamedTuple):
    """One record to be written. `partition` is where it belongs (by its key, as Java clients do it)."""

    partition: int
    key: bytes
    value: bytes | None
    headers: list[tuple[str, bytes]]
    timestamp: int
    """Milliseconds."""


class Simulation:
    """Records generated from parameters, and the expected result. Each iteration yields the same records."""

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters
        self.expected = Expected()
        """Expected result of the records yielded so far; silent steps count once the last records were yielded."""

    def __iter__(self) -> Iterator[Produced]:
        expected = self.expected = Expected()
        for produced in _Play(self.parameters, expected).records():
            expected.counts["records"] += 1
            yield produced


def generate(parameters: Parameters) -> Iterator[Produced]:
    """The records alone."""
    return iter(Simulation(parameters))


class _Play:
    """State of one iteration: the open runs, in the order of their next record."""

    def __init__(self, parameters: Parameters, expected: Expected) -> None:
        self._parameters = parameters
        self._expected = expected
        self._rng = Random(parameters.seed)
        self._texts = Texts(self._rng, parameters.text_bytes)
        self._mixes = Mixes(parameters)
        self._envelopes = Mix(ENVELOPES, parameters.envelopes)
        self._started = 0
        self._made = 0
        self._silent: list[Run] = []
        self._left_open: list[tuple[int, ResponseRecords]] = []
        self._response_envelopes = envelopes_of(parameters)
        self._clock = parameters.start_ms

    def records(self) -> Iterator[Produced]:
        """All records in the order of the simulated clock, and last, per partition, one beyond every deadline."""
        live: list[tuple[int, int, Iterator[tuple[int, list[Produced]]], list[Produced]]] = []
        while len(live) < self._parameters.open_runs and (opened := self._open(self._rng.randrange(_START_SPREAD_MS))):
            live.append(opened)
        heapify(live)
        while live:
            self._clock, number, told, batch = live[0]
            self._made += len(batch)
            yield from batch
            if (following := next(told, None)) is not None:
                heapreplace(live, (following[0], number, told, following[1]))
            elif (opened := self._open(0)) is not None:
                heapreplace(live, opened)
            else:
                heappop(live)
        yield from self._closing()

    def _open(self, delay_ms: int) -> tuple[int, int, Iterator[tuple[int, list[Produced]]], list[Produced]] | None:
        """Start the next run, if there is one to start. Every run makes at least one record."""
        d = self._parameters
        if (self._made >= d.records) if d.records else (self._started >= d.runs):
            return None
        self._started += 1
        if d.responses and self._rng.random() < d.responses:
            told = self._tell_response(ResponseRun(d, self._rng, self._texts, self._clock + delay_ms))
        else:
            told = self._tell(Run(d, self._rng, self._texts, self._mixes, self._clock + delay_ms))
        at_ms, batch = next(told)
        return at_ms, self._started, told, batch

    def _tell(self, run: Run) -> Iterator[tuple[int, list[Produced]]]:
        """Records of one run at the time of their last events, with the faults generated after each."""
        rng, d = self._rng, self._parameters
        partition = partition_of(run.key, d.partitions)
        events = run.events()
        held = next(events, None)
        sequence = 0
        owed: list[tuple[Produced, list[Event]]] = []
        while held is not None:
            envelope = self._envelopes.pick(rng)
            if not fits(envelope, held):
                envelope = "sse" if held.kind is Kind.STREAM_END else "event"
            bundle = [held]
            held = next(events, None)
            if envelope in MANY:
                held = _fill(bundle, held, events, envelope, rng.randint(2, 6))
            at_ms = bundle[-1].at_ms
            with_id = rng.random() < d.with_ids
            wrapped = wrap(rng, envelope, bundle, f"{run.id}/{sequence}", with_id)
            sequence += 1
            timestamp = at_ms
            if d.disorder and not bundle[0].alone and rng.random() < d.disorder:
                timestamp -= rng.randrange(_JITTER_MS)
            produced = Produced(partition, run.key, wrapped.value, wrapped.headers, timestamp)
            batch = [produced]
            self._expect(bundle, produced)
            if d.duplicates and rng.random() < d.duplicates and _repeatable(bundle, wrapped):
                if wrapped.identified and rng.random() < 0.5 and not any(e.reason for e in bundle):
                    owed.append((produced, bundle))
                else:
                    batch.append(self._repeat(produced, bundle, wrapped.identified, envelope == "bare"))
            if owed and (rng.random() < 0.5 or held is None or held.at_ms - at_ms > _BUNDLE_GAP_MS):
                batch += [self._repeat(*debt, True, False) for debt in owed]
                owed.clear()
            self._add_noise(batch, run)
            yield at_ms, batch
        if run.silent is not None:
            self._silent.append(run)

    def _tell_response(self, run: ResponseRun) -> Iterator[tuple[int, list[Produced]]]:
        """The records of one response."""
        partition = partition_of(run.key, self._parameters.partitions)
        made = ResponseRecords(run, self._parameters, self._response_envelopes, self._expected, partition)
        for at_ms, batch in made.records():
            produced = [Produced(partition, run.key, one.value, one.headers, one.at_ms) for one in batch]
            self._add_empty_and_unknown(produced, f"{run.id}:0")
            yield at_ms, produced
        self._left_open.append((partition, made))

    # The expected result

    def _expect(self, bundle: list[Event], produced: Produced) -> None:
        expected = self._expected
        for event in bundle:
            for ending in event.endings:
                expected.publish(
                    ending.step.id,
                    ending.revision,
                    ending.snapshot,
                    partition=produced.partition,
                    inferred=ending.inferred,
                    anomalies=ending.step.anomalies,
                )
        self._count(bundle, produced)

    def _count(self, bundle: list[Event], produced: Produced) -> None:
        """Count the events of a record, each time that it comes."""
        for event in bundle:
            if event.kind is Kind.IGNORED or event.kind is Kind.STREAM_END:
                self._expected.counts["ignored"] += 1
            elif event.again:
                self._expected.counts["repeated"] += 1
            elif event.reason:
                self._expected.set_aside(event.reason, produced.value or b"", produced.partition)

    def _repeat(self, produced: Produced, bundle: list[Event], identified: bool, bare: bool) -> Produced:
        """The same record once more: it must have no effect. A repeated bare opening is a refresh: not counted."""
        counts = self._expected.counts
        self._count(bundle, produced)
        for event in bundle:
            if event.kind in _STEP_KINDS:
                if identified:
                    counts["duplicate"] += 1
                elif event.kind is Kind.END or (event.kind is Kind.CREATED and not bare):
                    counts["repeated"] += 1
        return produced

    def _add_noise(self, batch: list[Produced], run: Run) -> None:
        """An unusable record, after a record of a run and with its key."""
        rng, d = self._rng, self._parameters
        first = batch[0]
        if d.garbage and rng.random() < d.garbage:
            reason, value, headers = garbage(rng, run.latest_step_id)
            batch.append(first._replace(value=value, headers=list(headers)))
            self._expected.set_aside(reason, value, first.partition)
        self._add_empty_and_unknown(batch, run.latest_step_id)

    def _add_empty_and_unknown(self, batch: list[Produced], step_id: str) -> None:
        rng, d, first = self._rng, self._parameters, batch[0]
        if d.tombstones and rng.random() < d.tombstones:
            batch.append(first._replace(value=None if rng.random() < 0.7 else b"", headers=[]))
            self._expected.counts["tombstone"] += 1
        if d.unknown and rng.random() < d.unknown:
            name = rng.choice(_UNKNOWN_EVENTS)
            data = f'{{"id":"{step_id}","status":"completed"}}'
            text = f'{{"event":"{name}","data":{data}}}' if rng.random() < 0.7 else f"event: {name}\ndata: {data}\n\n"
            batch.append(first._replace(value=text.encode(), headers=[]))
            self._expected.counts["unknown_event"] += 1

    def _closing(self) -> Iterator[Produced]:
        """Move each partition's stream time beyond every deadline that is left."""
        d, expected = self._parameters, self._expected
        for run in self._silent:
            assert run.silent is not None
            step = run.silent.step
            expected.publish(
                step.id,
                0,
                run.silent.snapshot,
                partition=partition_of(run.key, d.partitions),
                inferred="deadline",
                anomalies=step.anomalies,
            )
        due_s = [run.expires_at for run in self._silent]
        for partition, made in self._left_open:
            for step_id, snapshot, anomalies, at_s in made.left_open():
                expected.publish(step_id, 0, snapshot, partition=partition, inferred="deadline", anomalies=anomalies)
                due_s.append(at_s)
            due_s.append(made.forgotten_s())
        due_ms = max((at_s + d.grace_s for at_s in due_s), default=0) * 1000
        at_ms = max(self._clock, due_ms) + 1000
        data = {"id": "run_clock", "object": "thread.run", "status": "queued", "created_at": at_ms // 1000}
        value = f'{{"event":"thread.run.queued","data":{text_of(data)}}}'.encode()
        for partition in range(d.partitions):
            expected.counts["ignored"] += 1
            yield Produced(partition, _key_of(partition, d.partitions), value, [], at_ms)


def _fill(bundle: list[Event], held: Event | None, events: Iterator[Event], envelope: str, size: int) -> Event | None:
    """Add further events to a record that can hold several; return the first that was not added."""
    refused = bool(bundle[0].reason)
    while (
        held is not None
        and len(bundle) < size
        and not bundle[0].alone
        and not held.alone
        and held.at_ms - bundle[-1].at_ms <= _BUNDLE_GAP_MS
        and fits(envelope, held)
        and not (refused and held.reason)  # with two reasons in a record it is open which one counts
    ):
        refused = refused or bool(held.reason)
        bundle.append(held)
        held = next(events, None)
    return held


def _repeatable(bundle: list[Event], wrapped: Wrapped) -> bool:
    """Whether a repeat can be recognised: by an id, or because the event has no new content."""
    if bundle[0].alone:
        return False
    return wrapped.identified or (len(bundle) == 1 and bundle[0].kind is not Kind.DELTA)


def _key_of(partition: int, partitions: int) -> bytes:
    """A key that belongs to a partition."""
    number = 0
    while partition_of(key := b"clock-%d" % number, partitions) != partition:
        number += 1
    return key


def partition_of(key: bytes, partitions: int) -> int:
    """The partition of a key as the Java client's default partitioner has it."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions


def murmur2(data: bytes) -> int:
    """The 32-bit murmur2 hash with the seed that Kafka uses; unsigned."""
    m, mask = 0x5BD1E995, 0xFFFFFFFF
    length = len(data)
    h = 0x9747B28C ^ length
    whole = length & ~3
    for i in range(0, whole, 4):
        k = int.from_bytes(data[i : i + 4], "little") * m & mask
        h = h * m & mask ^ (k ^ k >> 24) * m & mask
    if length > whole:
        h = (h ^ int.from_bytes(data[whole:], "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return h ^ h >> 15
