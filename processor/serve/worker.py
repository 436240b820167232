"""Worker loop: apply records, and commit their effects with their offsets in one transaction, or not at all.

A unit of effects belongs to the generation in which its first record was applied. On revoke the gate closes first and
the unit drains second; a unit of another generation is never committed. A partition is live only once its silent fold
has passed its committed offset; until then nothing is committed for it. Any error ends the worker: the supervisor makes
a new one from the committed offsets.
"""

from __future__ import annotations

import asyncio
import sys
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from processor.audit.selfaudit.selfaudit import SelfAudit
from processor.config.settings import Settings
from processor.core.effects import Effect, Record
from processor.core.rules import Rules
from processor.errors import BrokerUnavailable, Fenced, RunStepsError
from processor.kafka.client_config import Connection
from processor.kafka.consumer import Committed
from processor.kafka.fetched_records import batches
from processor.kafka.output_records import Outputs
from processor.kafka.throttling import OBSERVED
from processor.serve.assigned_partition import AssignedPartition
from processor.serve.circuit_breaker import Breaker
from processor.serve.clients import build_consumer, build_writer, name_the_setting
from processor.serve.highest_committed import HighestCommitted
from processor.serve.http import Controlled, Health
from processor.serve.partition_report import NO_ANSWER, PartitionReport, oldest_open_steps
from processor.serve.pauses import Pauses, control
from processor.serve.restore import Restorer
from processor.serve.source_observer import SourceObserver
from processor.serve.stalls import GROUP, Stalls
from processor.serve.stopping import unless
from processor.serve.unit import ClosedUnit, PendingUnit
from processor.serve.unit_bound import UnitBound
from processor.serve.unit_interval import UnitInterval
from processor.telemetry.happenings import (
    CommitFailed,
    PartitionRestored,
    PartitionsAssigned,
    PartitionsRevoked,
    RestoreProgressed,
    StateChanged,
    TransactionsRedone,
    UnitBoundLowered,
    UnitCommitted,
    UnitDropped,
)
from processor.telemetry.telemetry import Telemetry

if TYPE_CHECKING:
    from processor.otlp.unit_tracer import UnitTracer

_REPORT_EVERY_S: Final = 1.0
_OLDEST_EVERY_S: Final = 15.0
_CHECKPOINTS_AT_ONCE: Final = 5_000

_offset: Final = attrgetter("offset")


class Worker:
    """One incarnation of one group member: from join to the first error, or to an orderly end.

    Args:
        transactional_id: also the consumer's client id, so that the group's member list tells which writers live.
        limits: max.message.bytes of the topics that we write to.
        audit: hears what is published and where partitions are; None: no self-audit.
        stalls: stalls of earlier incarnations and of this one; None: this is the first.
        served_below: partitions from this number on are left alone: the checkpoint topic has none for them (yet).
        kept: the outcome or dead-letter topic that keeps records for the shortest time, and for how long, in ms.
        highest: what earlier workers of this process have seen committed; None: this is the first.
        bound: unit size that earlier incarnations have found; None: this is the first.
        pauses: paused partitions of this process; None: there are none.
        tracer: traces units; None: they are not traced.
        monotonic, now_ms: clocks; the second one only decides when a clock mark may be set (T3).
    """

    def __init__(
        self,
        settings: Settings,
        connection: Connection,
        telemetry: Telemetry,
        *,
        transactional_id: str,
        limits: Mapping[str, int],
        audit: SelfAudit | None = None,
        stalls: Stalls | None = None,
        served_below: Callable[[], int | None] = lambda: None,
        kept: Callable[[], tuple[str, int] | None] = lambda: None,
        bound: UnitBound | None = None,
        highest: HighestCommitted | None = None,
        pauses: Pauses | None = None,
        tracer: UnitTracer | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        source, delivery = settings.source, settings.delivery
        self._settings, self._telemetry, self._audit, self._tracer = settings, telemetry, audit, tracer
        highest = HighestCommitted() if highest is None else highest
        self._rules: Rules = settings.rules()
        self._monotonic, self._now_ms = monotonic, now_ms
        self._stalls = stalls or Stalls(settings.supervisor.stall_timeout_s / 2, monotonic)
        self._outputs = Outputs.of_settings(settings, limits)
        breaker = settings.rejections
        self._breaker = Breaker(source.topic, breaker.max_share, breaker.window_records, breaker.max_run)
        self._consumer = build_consumer(settings, connection, client_id=transactional_id, listener=self)
        self._observer = SourceObserver(
            self._consumer.partitions_of_topic, telemetry, now_ms, kept=kept, with_frames=source.schema_frames
        )
        self._writer = build_writer(
            settings, connection, self._consumer, transactional_id=transactional_id, limits=limits
        )
        self._restorer = Restorer(
            settings,
            connection,
            self._consumer,
            telemetry,
            self._rules,
            own_writer=self._writer.transactional_id or "",
            claim=self._writer.claim,
            highest=highest,
        )
        self._highest = highest
        self._owned: dict[int, AssignedPartition] = {}
        self._pollable: tuple[int, ...] = ()  # the gate: polled partitions, valid in one assignment epoch only
        self._retained: dict[int, AssignedPartition] = {}
        self._assigned: list[int] = []
        self._assigned_in = -1  # the generation that `_assigned` is of
        self._pauses = Pauses() if pauses is None else pauses
        self._served_below = served_below
        self._bound = bound or UnitBound(
            delivery.max_unit_records, delivery.max_unit_bytes, delivery.commit_timeout_s, lambda: OBSERVED.total_ms
        )
        self._report = PartitionReport(settings, telemetry, self._stalls, self._observer, monotonic, now_ms)
        self._unserved: list[int] = []  # assigned to us, and without a partition of the checkpoint topic
        self.assignment_epoch = 0
        self._opening: asyncio.Task[None] | None = None
        self._writer_started = asyncio.Event()
        self._pending = PendingUnit()
        self._commit_task: asyncio.Task[None] | None = None
        self._committing: tuple[float, int] | None = None  # since when, and how many records
        self._draining = asyncio.Lock()
        self._interval = UnitInterval(delivery.commit_interval_ms / 1000, self._unread)
        self._units = 0
        self._reported_at = self._oldest_at = self._turned_at = monotonic()
        self._stopping = self._is_broken = False
        self._stalls.waits(GROUP, "no assignment")

    # --- the loop -----------------------------------------------------------------------------------------

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set, then drain within the budget and leave the group.

        Raises:
            RunStepsError: this incarnation is over; what was not committed comes again from the log.
        """
        try:
            await unless(stop, self._start())
            while not stop.is_set():
                await self._turn()
            self._telemetry.happened(StateChanged("draining"))
            self._stopping = True
            await self._drain()
        finally:
            self._pollable, self._stopping, self._is_broken = (), True, sys.exception() is not None
            if self._audit is not None:
                self._audit.closed()
            await self._end_opening()  # whatever broke it: the consumer has to leave the group in any case
            if self._commit_task is not None:
                self._commit_task.cancel()
                await asyncio.wait({self._commit_task}, timeout=1)
            async with asyncio.TaskGroup() as ends:
                ends.create_task(self._consumer.stop(timeout_s=5))
                ends.create_task(self._writer.stop(timeout_s=5))

    async def _start(self) -> None:
        """Join first: offsets may name this worker's writer, and a writer that is no member would be taken over."""
        await self._consumer.start()
        await self._writer.start()
        self._writer_started.set()

    async def _turn(self) -> None:
        """One turn of the loop: poll, apply, and commit when it is due. It waits in the poll only."""
        epoch, pollable = self.assignment_epoch, self._pollable
        polled = self._pauses.without(pollable)
        polled_at = 0.0 if self._tracer is None else self._monotonic()
        wait_ms = self._interval.wait_ms(self._monotonic(), self._pending)
        batch = await self._consumer.poll(polled, timeout_ms=wait_ms, max_records=self._most_polled())
        now = self._turned_at = self._monotonic()
        # Behind a closed gate nothing is applied, noted or committed: the revocation drains. Records that the consumer
        # has handed out are dropped here and are read again from where the next generation starts.
        is_open = bool(pollable) and epoch == self.assignment_epoch
        if is_open:
            for partition, records in batch.items():
                self._apply(self._owned[partition], records, now)
            for owned in self._owned.values():
                self._note_position(owned, now)
            if self._tracer is not None and batch:
                times = polled_at, now, self._monotonic()
                self._pending.trace = self._tracer.turn(self._pending.trace, *times, batch)
        if self._opening is not None and self._opening.done():
            opening, self._opening = self._opening, None
            opening.result()
        if self._unserved and self._opening is None and not self._stopping:
            self._serve_more()
        if self._commit_task is not None and self._commit_task.done():
            task, self._commit_task = self._commit_task, None
            task.result()
        self._every_second(now, is_open=is_open)
        if is_open and (self._is_full() or self._interval.is_over(now, self._pending)):
            await self._commit_behind()

    def _apply(self, owned: AssignedPartition, records: Sequence[Record], now: float) -> None:
        state = owned.state
        if self._pending.token is None:
            self._pending.token = self._consumer.token()
        was_live = state.is_live
        records = records if was_live else list(records)
        effects = state.apply_batches(batches(records)) if was_live else state.apply(records)
        owned.moved_at, owned.last_timestamp_ms = now, records[-1].timestamp
        if not was_live:
            folded = bisect_left(records, state.live_from, key=_offset)
            self._note_restore(owned, folded)
            if not state.is_live:
                return
            records = records[folded:]
        if self._audit is not None:
            self._audit.passed(state)
        self._telemetry.applied(owned.partition, len(records), state.value_bytes)
        self._telemetry.counted(state.counts)
        state.counts.clear()
        state.value_bytes = 0
        self._pending.applied(owned.partition, len(records))
        if effects:
            self._add_effects(owned.partition, effects)
        self._observer.saw(owned.partition, records)
        self._breaker.saw(owned.partition, records, effects)

    def _add_effects(self, partition: int, effects: list[Effect]) -> None:
        if self._pending.token is None:
            self._pending.token = self._consumer.token()
        self._pending.add(partition, effects)

    def _most_polled(self) -> int:
        """Records of one poll: no more than a unit may hold, also where a restore ends within the poll."""
        return min(self._settings.source.max_poll_records, self._bound.records)

    def _unread(self, partition: int) -> int:
        return self._owned[partition].unread(*self._consumer.end_of(partition))

    def _is_full(self) -> bool:
        return self._bound.is_reached(self._pending.records, self._pending.bytes)

    # --- units --------------------------------------------------------------------------------------------

    async def _commit_behind(self) -> None:
        """Commit what is pending while the next unit is being applied; wait only when that one is full already."""
        if self._commit_task is not None:
            if not self._is_full():
                return
            epoch, task = self.assignment_epoch, self._commit_task
            await task
            if epoch != self.assignment_epoch or self._commit_task is not task:
                return  # a rebalance drained meanwhile
            self._commit_task = None
        closed = self._close_unit()
        if closed is not None:
            self._commit_task = asyncio.create_task(self._commit(closed), name="commit")

    def _close_unit(self) -> ClosedUnit | None:
        """Close the pending unit; the next record begins another."""
        self._interval.begin(self._monotonic())
        self._units += 1
        pending, self._pending = self._pending, PendingUnit()
        metadata = partial(self._restorer.metadata, unit=self._units)
        closed = pending.close(self._owned.values(), self._consumer.token, metadata, self._outputs)
        if closed is not None and self._audit is not None:
            closed.unit.ack_positions = self._audit.choose(closed.unit.records)
        return closed

    async def _commit(self, closed: ClosedUnit) -> None:
        began, redone = self._monotonic(), self._writer.recovered
        self._committing = began, closed.records
        try:
            await self._writer.commit(closed.unit)
        except Fenced as error:
            partitions = tuple(sorted(closed.unit.offsets))
            self._telemetry.happened(CommitFailed("fenced", error, closed.records))
            self._telemetry.happened(UnitDropped("generation", closed.records, partitions))
            raise
        except BrokerUnavailable as error:
            self._telemetry.happened(CommitFailed("unknown_outcome", error, closed.records))
            if self._bound.failed(closed.records, closed.bytes, self._monotonic() - began):
                self._telemetry.happened(UnitBoundLowered(self._bound.records, self._bound.bytes))
            raise
        except RunStepsError as error:
            self._telemetry.happened(CommitFailed("refused", name_the_setting(error, self._settings), closed.records))
            raise
        finally:
            self._committing = None
            if self._tracer is not None:
                ended, moved = self._monotonic(), closed.unit.offsets
                self._tracer.committed(closed.trace, began, ended, closed.records, moved, sys.exception())
        self._highest.saw(closed.unit.offsets)
        if self._writer.recovered > redone:
            self._telemetry.happened(TransactionsRedone(self._writer.recovered - redone))
        seconds = self._monotonic() - began
        if self._bound.committed(closed.records, closed.bytes, seconds):
            self._telemetry.happened(UnitBoundLowered(self._bound.records, self._bound.bytes))
        effects = sum(map(len, closed.effects.values()))
        self._telemetry.happened(UnitCommitted(closed.records, effects, len(closed.unit.offsets), seconds))
        for partition, committed in closed.unit.offsets.items():
            self._stalls.moved(partition)
            if partition in self._owned:
                self._owned[partition].acked = committed.offset
        for partition, acked in closed.effects.items():
            self._telemetry.acked(partition, acked)
        if self._audit is not None:
            self._audit.published(closed.unit.records, closed.unit.ack_positions)

    async def _drain(self) -> None:
        """Commit all that is applied, within the budget.

        Raises:
            BrokerUnavailable: not done in time. Nothing is lost: it comes again from the log.
        """
        budget_s = self._settings.delivery.drain_timeout_s
        try:
            # One at a time: a revocation may meet the end of the loop, and the writer has one transaction.
            async with asyncio.timeout(budget_s), self._draining:
                task, self._commit_task = self._commit_task, None
                if task is not None:
                    await task
                closed = self._close_unit()
                if closed is not None:
                    await self._commit(closed)
        except TimeoutError:
            raise BrokerUnavailable(
                f"delivery: draining took longer than drain_timeout_s = {budget_s:g}",
                hint="what was not committed comes again from the log",
            ) from None

    # --- rebalance ----------------------------------------------------------------------------------------

    async def revoked(self, partitions: list[int]) -> None:
        """Close the gate, drain, and retain the states for the next assignment (see `Consumer`)."""
        self.assignment_epoch += 1
        self._pollable, self._assigned, self._assigned_in, self._unserved = (), [], -1, []
        self._stalls.waits(GROUP, "no assignment")
        if (broken := await self._end_opening()) is not None:
            raise broken
        if not partitions:
            return
        drained = False
        try:
            # What an error broke off is applied in part, and the positions do not say which part.
            if self._consumer.token().generation >= 0 and not self._is_broken:
                await self._drain()
                drained = True
            else:
                self._telemetry.happened(UnitDropped("revoked", self._pending.records, tuple(partitions)))
        finally:
            owned, self._owned, self._pending = self._owned, {}, PendingUnit()
            if self._audit is not None:
                self._audit.closed()
            self._retained = self._retained | {p: o for p, o in owned.items() if o.state.is_live} if drained else {}
            happened = PartitionsRevoked(tuple(partitions), self._consumer.token().generation, 0, drained)
            self._telemetry.happened(happened)
        if not drained and not self._is_broken:
            raise Fenced("group: we were no member any more when our partitions were taken", hint="rejoin from the log")

    def assigned(self, partitions: list[int]) -> None:
        """Note the assignment and open the partitions in a task: no heartbeat is sent until this returns."""
        if self._stopping:
            return
        self.assignment_epoch += 1
        generation = self._consumer.token().generation
        self._consumer.hold(partitions)
        partitions, self._unserved = self._split(partitions)
        self._assigned, self._assigned_in = partitions, generation
        self._pauses.keep_only(partitions)
        self._stalls.assigned(partitions)
        for partition in partitions:
            self._stalls.waits(partition, "its restore has not begun")
        self._retained = {p: owned for p, owned in self._retained.items() if p in partitions}
        self._telemetry.happened(PartitionsAssigned(tuple(partitions), generation, len(partitions)))
        self._telemetry.happened(StateChanged("restoring" if partitions else "live"))
        if partitions:
            self._opening = asyncio.create_task(self._open(self.assignment_epoch, partitions), name="open partitions")

    def _split(self, partitions: list[int]) -> tuple[list[int], list[int]]:
        """Split partitions into those that can be served and those that wait for the checkpoint topic."""
        below = self._served_below()
        if below is None:
            return partitions, []
        return [p for p in partitions if p < below], [p for p in partitions if p >= below]

    def _serve_more(self) -> None:
        """Open waiting partitions once the checkpoint topic has partitions for them and no other opening runs."""
        more, self._unserved = self._split(self._unserved)
        if more:
            self._assigned = sorted([*self._assigned, *more])
            self._stalls.assigned(self._assigned)
            self._telemetry.happened(PartitionsAssigned(tuple(more), self._assigned_in, len(self._assigned)))
            self._opening = asyncio.create_task(self._open(self.assignment_epoch, more), name="open partitions")

    async def _open(self, epoch: int, partitions: list[int]) -> None:
        """Open partitions at their committed offsets: retained states at once, the others from the log.

        They do not wait for each other: one whose offsets are not stable, or whose checkpoints cannot be read, delays
        only itself.
        """
        began = self._monotonic()
        await self._writer_started.wait()  # it ends what its last incarnation left open, and commits the claims
        try:
            async with asyncio.TaskGroup() as restores, aclosing(self._restorer.stable_offsets(partitions)) as settled:
                async for stable in settled:
                    # Taken only now: the next rebalance may have cut us off, and then they are retained still.
                    resumed = {p: o for p, o in self._retained.items() if stable.get(p) == o.committed}
                    self._retained = {p: owned for p, owned in self._retained.items() if p not in stable}
                    self._admit(epoch, [(owned, owned.state.next_offset) for owned in resumed.values()])
                    for owned in resumed.values():
                        self._announce(owned, began, resumed=True)
                    lost = {p: committed for p, committed in stable.items() if p not in resumed}
                    if lost:
                        restores.create_task(self._restore(epoch, lost, began), name="restore partitions")
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def _restore(self, epoch: int, stable: dict[int, Committed], began: float) -> None:
        """Restore partitions and admit each as it is ready."""
        async with aclosing(self._restorer.restore_all(stable, self._stalls)) as restoring:
            async for ready in restoring:
                opened = [AssignedPartition.of(found, began) for found in ready]
                self._admit(epoch, [(owned, owned.state.next_offset) for owned in opened])

    def _admit(self, epoch: int, opened: Iterable[tuple[AssignedPartition, int]]) -> None:
        """Make partitions pollable, unless the next rebalance has begun."""
        if epoch != self.assignment_epoch:
            return
        now = self._monotonic()
        for owned, position in opened:
            self._consumer.seek(owned.partition, position)
            owned.position, owned.moved_at = position, now
            self._owned[owned.partition] = owned
            self._stalls.waits(owned.partition, NO_ANSWER)
            if owned.state.is_live:
                self._announce(owned, owned.opened_at)
        self._pollable = tuple(self._owned)

    async def _end_opening(self) -> BaseException | None:
        """Cancel the opening of partitions, if it still runs; returns its error."""
        opening, self._opening = self._opening, None
        if opening is None:
            return None
        opening.cancel()
        await asyncio.wait({opening})
        return None if opening.cancelled() else opening.exception()

    def _note_restore(self, owned: AssignedPartition, folded: int) -> None:
        state = owned.state
        done = min(state.next_offset, state.live_from) - owned.restored_from
        total = state.live_from - owned.restored_from
        self._telemetry.happened(RestoreProgressed(owned.partition, folded, done, total))
        self._telemetry.progressed()
        self._stalls.works(owned.partition)
        if state.is_live:
            self._announce(owned, owned.opened_at)

    def _announce(self, owned: AssignedPartition, began: float, *, resumed: bool = False) -> None:
        if owned.announced and not resumed:
            return
        owned.announced = True
        if rebuilt := owned.state.rebuilt():
            self._add_effects(owned.partition, rebuilt)
        if self._audit is not None:
            self._audit.passed(owned.state)
        seconds = self._monotonic() - began
        committed = owned.committed.offset if resumed else owned.state.live_from
        self._telemetry.happened(
            PartitionRestored(owned.partition, owned.restored_from, committed, owned.checkpoints, seconds, resumed)
        )
        if len(self._owned) == len(self._assigned) and all(o.state.is_live for o in self._owned.values()):
            self._telemetry.happened(StateChanged("live"))

    # --- time passing -------------------------------------------------------------------------------------

    def _note_position(self, owned: AssignedPartition, now: float) -> None:
        """Note the consumer's position, markers included, right after all records that it returned were applied.

        Never at another time: between a poll's end and the loop's turn the consumer is ahead of the state, and a commit
        of its position would skip the records in between.
        """
        position = self._consumer.position_now(owned.partition)
        if position is None or position <= owned.position:
            return
        owned.position, owned.moved_at = position, now
        if not owned.state.is_live and position >= owned.state.live_from:
            owned.state.moved_to(position)
            self._announce(owned, owned.opened_at)

    def _every_second(self, now: float, *, is_open: bool) -> None:
        """Once a second: report status, set clock marks, write checkpoints, raise if a partition is stuck."""
        if now - self._reported_at < _REPORT_EVERY_S:
            return
        self._reported_at = now
        if not self._assigned and 0 <= self._assigned_in == self._consumer.token().generation:
            self._telemetry.progressed()  # a stand-by owns no partition: it is not behind
        if not is_open:
            return
        count_oldest = now - self._oldest_at >= _OLDEST_EVERY_S
        if count_oldest:
            self._oldest_at = now
        at_end = True
        for owned in self._owned.values():
            end_of = self._consumer.end_of(owned.partition)
            if (reason := self._pauses.reasons.get(owned.partition)) is not None:
                self._report.report_paused(owned, end_of[0], reason, now, count_oldest=count_oldest)
                if owned.state.is_live:
                    self._write_checkpoints(owned, now)
                continue
            lag = self._report.report(owned, *end_of, now, count_oldest=count_oldest)
            at_end = at_end and lag == 0
            if owned.state.is_live and lag is not None:
                if not lag:
                    self._set_clock_marks(owned, now)
                self._write_checkpoints(owned, now)
        if at_end and self._owned:
            self._telemetry.progressed()
        if self._audit is not None:
            self._audit.stand()

    def _set_clock_marks(self, owned: AssignedPartition, now: float) -> None:
        """T3: on an idle partition, fire the deadlines that are due by the wall clock."""
        if now - owned.moved_at < self._settings.steps.idle_grace_s:
            return
        state, marks = owned.state, 0
        while (due := state.next_due_ms()) is not None and due <= self._now_ms() and marks < 100:
            if self._audit is not None:
                self._audit.marked(owned.partition, state.next_offset, due)
            self._add_effects(owned.partition, state.advance(due))
            marks += 1
        if marks:
            self._telemetry.counted(state.counts)
            state.counts.clear()

    def _write_checkpoints(self, owned: AssignedPartition, now: float) -> None:
        """Write checkpoints of entries dirty for the interval. The clock may decide when: no result depends on it."""
        dirty_before = owned.applied_before(now, self._settings.checkpoints.interval_s)
        if dirty_before >= 0:
            effects = owned.state.checkpoint(dirty_before, _CHECKPOINTS_AT_ONCE)
            if effects:
                self._add_effects(owned.partition, effects)

    # --- for the HTTP endpoints ---------------------------------------------------------------------------

    def healthz(self) -> Health:
        """Whether the loop turns, and every owned partition makes progress or is at its end."""
        now, reasons = self._monotonic(), self._stalls.reasons()
        still_s = now - self._turned_at
        if still_s > self._settings.supervisor.stall_timeout_s / 2:
            reasons.append(f"the loop has not turned for {still_s:.0f} s")
        if self._committing is not None:
            since, records = self._committing
            if now - since > self._settings.supervisor.stall_timeout_s / 2:
                reasons.append(f"commit: {records} records have been under way for {now - since:.0f} s")
        is_ok = not reasons
        reasons += [f"partition {p} is paused: {reason}" for p, reason in sorted(self._pauses.reasons.items())]
        return Health(is_ok, reasons, {"partitions": len(self._owned), "loop_turned_s_ago": round(still_s, 1)})

    def readyz(self) -> Health:
        """Whether partitions are assigned and restored."""
        reasons = []
        generation = self._consumer.token().generation
        if generation < 0:
            reasons.append("not a member of the group yet")
        elif generation != self._assigned_in:  # the join was answered, the assignment was not yet
            reasons.append("the group has not said yet which partitions are ours")
        waiting = sorted(set(self._assigned) - {p for p, owned in self._owned.items() if owned.state.is_live})
        if waiting:
            reasons.append(f"partitions {waiting} are being restored")
        return Health(not reasons, reasons, {"assigned": sorted(self._assigned)})

    def control(self, partition: int, reason: str | None) -> Controlled:
        """Pause a partition of ours for a reason; None: resume it."""
        if reason is None and partition in self._owned:
            self._owned[partition].moved_at = self._monotonic()
        return control(self._pauses, self._assigned, self._telemetry, partition, reason)

    def steps(self, limit: int) -> list[dict[str, object]]:
        """The oldest open steps; ids and ages, no contents."""
        return oldest_open_steps(self._owned.values(), limit)
