"""State of one partition: records in, effects out, as a pure function of the log and the rules.

Restoring (docs/decisions/0001): every remembered entry has `dirty_from`, the offset of its first record that no
checkpoint covers. A new owner starts to read at the smallest of them, folds up to the committed offset without effects
and has the same state. What that reading cannot bring back is checkpointed at once: steps refused because too many were
open, steps ended by a run whose end came earlier, all that a clock mark ended.

This module has the order of the log, the silent fold and restarts. What an event does is in `run_steps`, what becomes
of an entry in `transitions`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from processor.core.checkpoints import entry_of, read_checkpoint
from processor.core.deadlines import NEVER
from processor.core.effects import Checkpoint, Effect, Record, Status
from processor.core.ended_groups import PLAIN, Grouping
from processor.core.endings import Endings
from processor.core.entry import Cause, Entry
from processor.core.event_headers import SPECIAL, is_enveloped, plain_id
from processor.core.events import MESSAGE_PREFIXES
from processor.core.observer import Observer
from processor.core.path_check import compare_effects, compare_entries
from processor.core.publication import Publication
from processor.core.quarantine import Quarantine
from processor.core.rebuild import Rebuild
from processor.core.responses.event import OF_RESPONSES
from processor.core.responses.fast_path import response_named
from processor.core.responses.fold import ResponseFold, entry_of_item
from processor.core.responses.response import ENTRY, Response, entry_key
from processor.core.rules import Rules
from processor.core.run_steps.fast_path import Paths
from processor.core.run_steps.fold import RunSteps, step_named
from processor.core.run_steps.object_path import REPEATS
from processor.core.shown_record import ShownRecord
from processor.core.transitions import Transitions

_OPEN: Final = Status.IN_PROGRESS
_SLOW: Final = Paths.SLOW
_BOTH: Final = Paths.BOTH


class PartitionState:
    """All that is known of one partition below `next_offset`.

    Args:
        topic, partition: the source, for the evidence.
        rules: what decides outcomes.
        silent_rules: what decides them below `live_from`, where the first owner had other settings: under those of now
            a step could end there that was never published. At `live_from` the state changes over to `rules`.
        next_offset: the first record not yet applied (`restore_from` after a restart).
        live_from: the group's committed offset; records below it are applied without effects.
        stream_time: the stream time at `next_offset`, in milliseconds; -1 when nothing was seen.
        log: `LogIdentity.encode()` of the source, for the checkpoints.
        observer: is called when the status of a step changes.
        accepts_any_mark: have `advance` accept clock marks at which no step known here is due, and write no
            checkpoints: for a fold that begins mid-log and is not continued.
        paths: by which way events are folded.
        grouping: how ended steps are kept.
    """

    def __init__(
        self,
        topic: str,
        partition: int,
        rules: Rules,
        *,
        next_offset: int = 0,
        live_from: int = 0,
        stream_time: int = -1,
        log: str = "",
        observer: Observer | None = None,
        accepts_any_mark: bool = False,
        paths: Paths = Paths.FAST,
        silent_rules: Rules | None = None,
        grouping: Grouping = PLAIN,
    ) -> None:
        self.topic, self.partition = topic, partition
        self.live_from, self._live_rules = live_from, rules
        self.value_bytes = 0
        """As `counts`, to be read and cleared by its reader: the bytes of all values since then."""
        self.earliest_ms, self.latest_ms = NEVER, -1
        """The smallest and the largest timestamp that a record had; those below 0 say nothing."""
        self._accepts_any_mark, self._grouping = accepts_any_mark, grouping
        self._log, self._observer, self._uses_fast_path = log, observer, paths is not _SLOW
        self._rebuild = Rebuild()
        is_silent = next_offset < live_from
        self._begin(silent_rules if is_silent and silent_rules is not None else rules, next_offset, stream_time)
        self._set_silent(is_silent)
        self._slow: PartitionState | None = None
        if paths is _BOTH:
            self._slow = PartitionState(
                topic, partition, rules, next_offset=next_offset, live_from=live_from, stream_time=stream_time, log=log,
                accepts_any_mark=accepts_any_mark, paths=Paths.SLOW, silent_rules=silent_rules,
                grouping=grouping,
            )  # fmt: skip

    def _begin(self, rules: Rules, next_offset: int, stream_time: int) -> None:
        """Remember nothing, and decide by these rules from now on."""
        self.rules, observer = rules, self._observer
        publication = Publication(self.topic, self.partition, rules)
        transitions = Transitions(rules, publication, self._log, next_offset, stream_time, observer, self._grouping)
        self._transitions = transitions
        self._quarantine = Quarantine(transitions)
        self._responses = ResponseFold(rules, transitions, self._quarantine, observer)
        self._endings = Endings(transitions, self._quarantine, self._responses, observer)
        self._run_steps = RunSteps(
            rules,
            transitions,
            self._quarantine,
            self._endings,
            self._responses,
            observer,
            uses_fast_path=self._uses_fast_path,
        )
        self._at_work = self._responses.fast.at_work if self._uses_fast_path else {}
        self.steps, self.runs = transitions.steps, transitions.runs
        self.counts: Counter[str] = transitions.counts
        """How often what happened, to be read and cleared by its reader."""

    @property
    def next_offset(self) -> int:
        """The first record that is not applied yet."""
        return self._transitions.next_offset

    @property
    def stream_time(self) -> int:
        """In milliseconds; -1 when nothing was seen."""
        return self._transitions.stream_time

    @property
    def open_steps(self) -> int:
        return self._transitions.open_steps

    @property
    def is_live(self) -> bool:
        """Whether effects count; before, the state is folded up to `live_from`."""
        return not self._transitions.is_silent

    # --- records in, effects out --------------------------------------------------------------------------

    def apply(self, records: Sequence[Record]) -> list[Effect]:
        """Take records in offset order; return what the caller must now do, in order.

        Records below `live_from` change the state and have no effects. How the log is cut into calls makes no
        difference.

        Raises:
            PathsDifferError: with `Paths.BOTH` alone.
        """
        if self._slow is None:
            return self._apply(records)
        return self._apply_both(records)

    def apply_batches(self, batches: Iterable[Iterable[Record]]) -> list[Effect]:
        """As `apply`, for a state that is live; the records come in pieces, each of them a `ShownRecord` or a list."""
        assert self.is_live
        if self._slow is not None:
            return [
                effect
                for records in batches
                for record in records
                for effect in self._apply_both([record.record() if isinstance(record, ShownRecord) else record])
            ]
        for records in batches:
            self._walk(records)
        self._transitions.purge()
        return self._transitions.take_effects()

    def _apply_both(self, records: Sequence[Record]) -> list[Effect]:
        assert self._slow is not None
        effects: list[Effect] = []
        for record in records:
            found = self._apply([record])
            self._compare(found, self._slow.apply([record]), record)
            effects += found
        return effects

    def _apply(self, records: Sequence[Record]) -> list[Effect]:
        transitions = self._transitions
        if transitions.is_silent:
            silent = [record for record in records if record.offset < self.live_from]
            self._walk_marked(silent)
            transitions.purge()
            self._end_silent()
            self.counts.clear()
            self.value_bytes = 0
            if len(silent) == len(records):
                return []
            self._go_live()
            transitions = self._transitions
            records = records[len(silent) :]
        self._walk(records)
        transitions.purge()
        return transitions.take_effects()

    def _walk(self, records: Iterable[Record]) -> None:
        transitions, run_steps = self._transitions, self._run_steps
        templates, at_work, responses = run_steps.templates, self._at_work, self._responses.fast
        now, next_offset, size = transitions.stream_time, transitions.next_offset, 0
        earliest, latest = self.earliest_ms, self.latest_ms
        ignored = 0
        message, spaced_message = MESSAGE_PREFIXES
        may_repeat, objects = self._uses_fast_path, run_steps.objects
        for record in records:
            raw = record if isinstance(record, ShownRecord) else None
            if raw is not None:
                offset, timestamp, value = raw.offset, raw.timestamp, raw.value
            else:
                offset, timestamp, value = record.offset, record.timestamp, record.value
            if offset < next_offset:
                continue
            before = now
            if timestamp > latest:
                latest = timestamp
            if 0 <= timestamp < earliest:
                earliest = timestamp
            if timestamp > now:
                now = transitions.stream_time = timestamp
                if now >= transitions.deadlines.next_ms or now >= transitions.idle.next_ms:
                    self._endings.fire(Cause(offset, timestamp, before))
            next_offset = transitions.next_offset = offset + 1
            event_id: bytes | None = None
            try:
                if value is not None and len(value) > 0:
                    size += len(value)
                    head = templates.head
                    is_delta = len(head) > 0 and value.startswith(head)  # of a run step: no Responses text reads so
                    if at_work and not is_delta:
                        named = response_named(record)
                        if named is not None and responses.append(named, value, offset, before):
                            continue
                    # One by one: compiled, a tuple of them is asked for by way of the method's name.
                    is_message = not is_delta and (value.startswith(message) or value.startswith(spaced_message))  # noqa: PIE810
                    if is_message and raw is not None and raw.is_plain:  # its id is not asked for
                        ignored += 1
                        continue
                    event_id = raw.event_id() if raw is not None else plain_id(record.headers)
                    if is_delta and event_id is not SPECIAL and run_steps.append_match(value, offset, before, event_id):
                        continue
                    is_repeat = may_repeat and event_id is not SPECIAL and value.startswith(REPEATS)
                    if is_repeat and objects.repeat_spelled(value, offset, before, event_id):
                        continue
                    if is_message and event_id is not SPECIAL and not is_enveloped(record.headers):
                        ignored += 1
                        continue
            except MemoryError:
                raise
            except Exception as error:
                cause = Cause(offset, timestamp, before, record if raw is None else raw.record())
                self._quarantine.break_event(
                    cause, step_named(record, self.rules.schema_frames), len(transitions.effects), error, ""
                )
                self._quarantine.checkpoint_urgent(offset + 1)
                continue
            self._guard(Cause(offset, timestamp, before, record), record, value, event_id)
        if ignored:
            self.counts["ignored"] += ignored
        self.value_bytes += size
        self.earliest_ms, self.latest_ms = earliest, latest
        run_steps.flush_counts()
        if responses.appended:
            self.counts[OF_RESPONSES + "delta"] += responses.appended
            responses.appended = 0

    def _guard(self, cause: Cause, record: Record, value: bytes | None, event_id: bytes | None) -> None:
        """Fold a record; a bug of ours in one record must not stop the partition."""
        held = len(self._transitions.effects)
        try:
            self._run_steps.apply_record(cause, record, value, event_id)
        except MemoryError:  # neither a bug nor the record's fault: another process may have the memory
            raise
        except Exception as error:  # of what reads events, or of the fast path: which has one event only
            self._quarantine.break_event(cause, step_named(record, self.rules.schema_frames), held, error, "")
        if self._transitions.urgent:
            self._quarantine.checkpoint_urgent(cause.offset + 1)

    # --- the silent fold ------------------------------------------------------------------------------------

    def _walk_marked(self, records: Sequence[Record]) -> None:
        """`_walk`, with the clock marks repeated where they were set."""
        begin = 0
        for at, record in enumerate(records):
            position = self._rebuild.next_mark()
            if position is None:
                break
            if record.offset < position:
                continue
            self._walk(records[begin:at])
            begin = at
            self._repeat_marks(record.offset)
        self._walk(records[begin:])

    def _repeat_marks(self, position: int) -> None:
        """Set the clock marks that were set up to `position`, which is not yet applied."""
        transitions = self._transitions
        while (taken := self._rebuild.take_mark(position)) is not None:
            at, mark_ms = taken
            transitions.next_offset = max(transitions.next_offset, at)
            if mark_ms >= transitions.stream_time:
                self._mark_all(mark_ms)

    def _end_silent(self) -> None:
        """Drop the effects of a silent fold; after a rebuild, keep the checkpoints that have to be written."""
        self._rebuild.keep(self._transitions.take_effects())

    def _go_live(self) -> None:
        if self._rebuild.next_mark() is not None:
            self._repeat_marks(self.live_from)
            self._transitions.purge()
            self._end_silent()
        if self.rules != self._live_rules:
            self._change_over()
        self._set_silent(False)

    def _change_over(self) -> None:
        """Decide by the settings of now from here on, as an owner does that has all from checkpoints.

        What changes is checkpointed (`rebuilt`): no later owner's silent fold begins in front of the change.
        """
        transitions, position = self._transitions, self.next_offset
        for entry in (*self.steps.values(), *self.runs.values()):
            if entry.dirty_from >= 0:
                self._quarantine.checkpoint(entry, position)
        written = transitions.take_effects()
        self._rebuild.add(written)
        found = transitions.retention.held_checkpoints()
        self._begin(self._live_rules, position, transitions.stream_time)
        self._load(found)

    def _set_silent(self, is_silent: bool) -> None:
        # While restoring nothing is refused anew: the checkpoints name what the first owner refused.
        self._transitions.is_silent = is_silent
        self._transitions.is_refusing = self._rebuild.is_refusing or not is_silent

    # --- time ---------------------------------------------------------------------------------------------

    def next_due_ms(self) -> int | None:
        """The earliest deadline of an open step, in milliseconds of stream time, and not before the stream time itself.

        It may have passed where an object came under shorter settings than those before (docs/decisions/0030).
        """
        due = self._transitions.deadlines.earliest_ms()
        return None if due is None else max(due, self._transitions.stream_time)

    def pass_time(self, time_ms: int) -> None:
        """Move stream time forward by a clock mark of an owner to whom a step was due that is not known here."""
        self._transitions.stream_time = max(self._transitions.stream_time, time_ms)
        if self._slow is not None:
            self._slow.pass_time(time_ms)

    def advance(self, mark_ms: int) -> list[Effect]:
        """Apply a clock mark (T3): move stream time to `mark_ms`, which must be the next deadline.

        All that is remembered is checkpointed in the same effects: the log cannot give the mark back.

        Raises:
            ValueError: no step is due at `mark_ms`; with `accepts_any_mark`: time would go back.
        """
        if self._accepts_any_mark:
            if mark_ms < self.stream_time:
                raise ValueError(f"partition {self.partition}: {mark_ms} lies before the stream time")
            self._mark(mark_ms)
        else:
            if not self.is_live or self.next_due_ms() != mark_ms or mark_ms < self.stream_time:
                raise ValueError(f"partition {self.partition}: no step is due at {mark_ms}")
            self._mark_all(mark_ms)
        effects = self._transitions.take_effects()
        if self._slow is not None:
            self._compare(effects, self._slow.advance(mark_ms))
        return effects

    def _mark_all(self, mark_ms: int) -> None:
        self._mark(mark_ms)
        for entry in (*self.steps.values(), *self.runs.values()):
            if entry.dirty_from >= 0:
                self._quarantine.checkpoint(entry, self.next_offset)

    def _mark(self, mark_ms: int) -> None:
        transitions = self._transitions
        before, transitions.stream_time = transitions.stream_time, mark_ms
        at = transitions.next_offset
        self._endings.fire(Cause(at - 1, mark_ms, before, None, f"{mark_ms}@{at}"))
        transitions.purge()

    # --- restart ------------------------------------------------------------------------------------------

    def restore_point(self) -> tuple[int, int]:
        """(`restore_from`, the stream time there): where a new owner must start to read."""
        return self._transitions.retention.restore_point(self.next_offset, self.stream_time)

    def restore_point_at(self, position: int) -> tuple[int, int, list[Checkpoint]]:
        """Close a unit at `position` (past transaction markers).

        Returns:
            `restore_from`, the stream time there, and the forgetting of checkpoints that this makes needless.
        """
        self.moved_to(position)
        if self._slow is not None:
            self._slow.restore_point_at(position)
        restore_from, stream_time = self.restore_point()
        return restore_from, stream_time, self._transitions.retention.needless(restore_from)

    def moved_to(self, position: int) -> None:
        """The consumer stands at `position`: what lies between holds no records for us (markers, aborted batches)."""
        transitions = self._transitions
        transitions.next_offset = max(transitions.next_offset, position)
        if transitions.is_silent and transitions.next_offset >= self.live_from:
            transitions.purge()
            self._end_silent()
            self._go_live()
        if self._slow is not None:
            self._slow.moved_to(position)

    def checkpoint(self, dirty_before: int, limit: int = NEVER) -> list[Effect]:
        """Checkpoint the open steps that have been dirty since before that offset, at most `limit` of them."""
        transitions, failed = self._transitions, list[Entry]()
        while len(transitions.effects) < limit:
            entry = transitions.retention.take_dirty_open(dirty_before)
            if entry is None:
                break
            try:
                transitions.checkpoint(entry, self.next_offset)
            except MemoryError:
                raise
            except Exception:
                # A bug. No quarantine: when this is called is a matter of clocks, and no outcome may be. The step
                # stays dirty, so a restart has it from the log, and each later call tries again.
                failed.append(entry)
        for entry in failed:
            transitions.retention.queue_dirty(entry)
        effects = transitions.take_effects()
        if self._slow is not None:
            self._compare(effects, self._slow.checkpoint(dirty_before, limit))
        return effects

    def load(self, checkpoints: Iterable[tuple[bytes, bytes]]) -> None:
        """Take the latest value of each checkpoint key, before the first record is applied.

        Raises:
            ValueError: a checkpoint is not one of ours or comes from a newer version.
        """
        if self._slow is not None:
            checkpoints = list(checkpoints)
            self._slow.load(checkpoints)
        self._load(checkpoints)

    def _load(self, checkpoints: Iterable[tuple[bytes, bytes]]) -> None:
        transitions, loaded = self._transitions, list[Entry]()
        for key, value in checkpoints:
            found = read_checkpoint(key, value)
            if found.kind == "gone":
                transitions.retention.load_gone(key, found.touched_offset)
                continue
            entry = entry_of(key[1:].decode(), found)
            is_response = entry.key.startswith(ENTRY) and entry.status is _OPEN
            transitions.load(entry, 0 if is_response else found.due_s, found.run_id)
            if is_response:
                self._responses.load(entry, found.due_s)
            loaded.append(entry)
        transitions.retention.load_ended(loaded)

    def rebuild(self, unfit: Iterable[bytes], marks: Iterable[tuple[int, int]], *, refusing: bool) -> None:
        """Have the silent fold give a state that no metadata led to (before the first record is applied).

        Args:
            unfit: keys of the checkpoint partition whose checkpoints were not loaded: they are to be forgotten.
            marks: (position, ms) of the clock marks that this partition's published records carry.
            refusing: refuse steps as the first owner did (X2), for no checkpoint says which it refused.
        """
        unfit, marks = list(unfit), list(marks)
        if self._slow is not None:
            self._slow.rebuild(unfit, marks, refusing=refusing)
        within = [mark for mark in marks if self.next_offset < mark[0] <= self.live_from]
        self._rebuild.begin(unfit, within, refusing=refusing)
        self._set_silent(self._transitions.is_silent)

    def rebuilt(self) -> list[Effect]:
        """The checkpoints that a rebuild has to write, once; to be called when the state is live."""
        if self._slow is not None:
            self._slow.rebuilt()
        effects = self._rebuild.end()
        self._set_silent(self._transitions.is_silent)
        return effects

    # --- for readers --------------------------------------------------------------------------------------

    def open_entries(self) -> Iterator[Entry]:
        """The open steps; those of responses as entries that are made for the caller."""
        for entry in self.steps.values():
            if entry.status is not _OPEN:
                continue
            step = entry.peek() if entry.key.startswith(ENTRY) else None
            if isinstance(step, Response):
                for item in step.open_items():
                    yield entry_of_item(item, entry.due_s)
            else:
                yield entry

    def entry_named(self, step_id: str) -> Entry | None:
        """The entry of a step; that of a response's item is made for the caller."""
        entry = self.steps.get(step_id)
        response_id, _, index = step_id.rpartition(":")
        if entry is not None or not (index.isascii() and index.isdigit()) or len(index) > 4:
            return entry
        held = self.steps.get(entry_key(response_id))
        step = None if held is None or held.refused else held.materialise()
        item = step.items.get(int(index)) if isinstance(step, Response) else None
        return None if item is None else entry_of_item(item, 0)

    @property
    def is_blank(self) -> bool:
        """Whether nothing is remembered: of what came before `next_offset` only stream time affects what follows."""
        return self._transitions.retention.is_blank()

    @property
    def gone_steps(self) -> int:
        """Number of gone markers: checkpoints of forgotten steps."""
        return self._transitions.retention.gone_steps

    @property
    def templates(self) -> int:
        """Number of delta templates that are known."""
        return len(self._run_steps.templates.known)

    def deadlines(self) -> dict[int, set[str]]:
        """The open steps by the second of stream time in which they are due."""
        return self._transitions.deadlines.by_second

    def open_by_run(self) -> dict[str, list[str]]:
        """The open steps of each run, sorted."""
        index = self._transitions.run_index
        return {run_id: index.open_in(run_id) for run_id in index.by_run}

    def named_last_ms(self) -> int:
        """The largest stream time at which an event named what is remembered; -1 where nothing is."""
        return self._transitions.retention.named_last_ms()

    def oldest_open_ms(self) -> int | None:
        """The stream time, in milliseconds, at which the oldest open step was first seen; None if none is open."""
        return self._transitions.retention.oldest_open_ms()

    # --- both paths ---------------------------------------------------------------------------------------

    def _compare(self, found: list[Effect], expected: list[Effect], record: Record | None = None) -> None:
        """Compare effects of the fast path with those of the slow one, and the step that a record names."""
        offset, slow = self.next_offset - 1, self._slow
        assert slow is not None
        compare_effects(found, expected, offset)
        step_id = None if record is None else step_named(record, self.rules.schema_frames)
        if step_id is not None:
            compare_entries(self.steps.get(step_id), slow.steps.get(step_id), offset)
