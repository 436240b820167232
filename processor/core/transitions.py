"""Transitions: what becomes of an entry when its step opens, ends, is refused or forgotten.

The fast and the slow path, deadlines and the ends of runs all use these methods: each side effect is written once.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

from processor.core.checkpoints import checkpoint_of
from processor.core.deadlines import FIRST_S, Deadlines
from processor.core.effects import Effect, Reason, Rejected, Status
from processor.core.ended_groups import Grouping
from processor.core.entry import CLEAN, Cause, Entry
from processor.core.headers import trace_of
from processor.core.learned_bytes import LearnedBytes
from processor.core.observer import Observer
from processor.core.publication import Publication
from processor.core.retention import Retention
from processor.core.rules import Rules
from processor.core.run_index import RunIndex
from processor.core.step_state import StepState, usable_expires_at

SKIP: Final = Entry("", 0)
"""Stands for an entry whose checkpoint already holds what a record says."""
_OPEN: Final = Status.IN_PROGRESS


class Transitions:
    """The entries of one partition, what is known of time there, and the effects of what happens to them."""

    __slots__ = (
        "_log",
        "_max_age_s",
        "_max_open_steps",
        "_observer",
        "counts",
        "deadlines",
        "effects",
        "grace_s",
        "idle",
        "is_refusing",
        "is_silent",
        "learned",
        "next_offset",
        "open_steps",
        "publication",
        "retention",
        "run_index",
        "runs",
        "steps",
        "stream_time",
        "urgent",
    )

    def __init__(
        self,
        rules: Rules,
        publication: Publication,
        log: str,
        next_offset: int,
        stream_time: int,
        observer: Observer | None,
        grouping: Grouping,
    ) -> None:
        self.grace_s, self._max_age_s, self._max_open_steps = rules.grace_s, rules.max_age_s, rules.max_open_steps
        self._log, self._observer = log, observer
        self.publication = publication
        self.retention = Retention(rules, log, grouping)
        self.deadlines = Deadlines()
        self.idle = Deadlines()
        """When open responses without an open step are forgotten: an outcome of the log alone, not of clock marks."""
        self.run_index = RunIndex()
        self.steps, self.runs = self.retention.steps, self.retention.runs
        self.learned = LearnedBytes()
        """What the templates of both dialects may take."""
        self.open_steps = 0
        self.next_offset = next_offset
        """The first record that is not applied yet."""
        self.stream_time = stream_time
        self.is_silent = False
        """Whether records are folded without effects."""
        self.is_refusing = True
        """Whether steps are refused for want of room (X2)."""
        self.counts: Counter[str] = Counter()
        self.effects: list[Effect] = []
        self.urgent: list[Entry] = []  # to be checkpointed once the record at hand is done with

    def take_effects(self) -> list[Effect]:
        """The effects since the last call."""
        effects, self.effects = self.effects, []
        return effects

    # --- lookups --------------------------------------------------------------------------------------------

    def lookup(self, step_id: str, offset: int) -> Entry | None:
        """The entry of a step as of this record; `SKIP` if a checkpoint already holds what the record says."""
        entry = self.steps.get(step_id)
        if entry is not None:
            if offset < entry.applied_below:
                return SKIP
            if entry.status is not _OPEN and self.retention.is_past(entry, offset, self.stream_time):
                self.retention.forget(entry, self.effects)
                self._observe_forgotten(entry)
                entry = None
        if entry is None and self.retention.is_gone(step_id, offset):
            return SKIP
        return entry

    def lookup_run(self, run_id: str, offset: int) -> Entry | None:
        """The entry of an ended run as of this record."""
        entry = self.runs.get(run_id)
        if entry is not None and self.retention.is_past(entry, offset, self.stream_time):
            self.retention.forget(entry, self.effects)
            return None
        return entry

    def purge(self) -> None:
        """Forget what is past by now."""
        for entry in self.retention.purge(self.next_offset - 1, self.stream_time, self.effects):
            self._observe_forgotten(entry)

    def _observe_forgotten(self, entry: Entry) -> None:
        if self._observer is not None and entry.run is None:
            self._observer.forgotten(entry)

    # --- steps that open, take events in, and end -----------------------------------------------------------

    def touch(self, entry: Entry, cause: Cause) -> None:
        """An event names the entry: it is dirty from here on, and remembered for another while."""
        self.touch_at(entry, cause.offset, cause.before_ms)

    def touch_at(self, entry: Entry, offset: int, before_ms: int) -> None:
        """Touch the entry by a record at `offset`, before which stream time was `before_ms`."""
        if entry.dirty_from < 0:
            self.retention.mark_dirty(entry, offset, before_ms)
        entry.touched_ms, entry.touched_offset = self.stream_time, offset
        if entry.status is not _OPEN:
            entry.irregular = True
            self.retention.queue_ended(entry)
            self.retention.leave_group(entry)

    def begin(self, step: StepState, cause: Cause) -> Entry:
        """Remember a new step, which is open from here on."""
        step_id = step.step_id
        entry = self.steps[step_id] = Entry(step_id, cause.offset)
        if self.retention.drop_gone(step_id):
            # There was a step of this id before: late records of it must not be taken for this one's, so this one
            # leaves a `gone` checkpoint as well.
            entry.checkpointed = entry.irregular = True
        entry.opened_s = step.opened_s
        entry.hold(step)
        record = cause.record
        if record is not None:
            step.trace = trace_of(record)
        self.open_steps += 1
        self.touch(entry, cause)
        if self._observer is not None and step.is_step():
            self._observer.opened(entry, step, cause)
        return entry

    def folded(self, step: StepState, cause: Cause, event_id: str | None) -> None:
        """The step has taken in an event: note its offset and its id."""
        self.folded_at(step, cause.offset, event_id)

    def folded_at(self, step: StepState, offset: int, event_id: str | None) -> None:
        """Note the event of a record at `offset`, which the step has taken in, and its id."""
        step.last_offset = offset
        if event_id is not None:
            step.note_folded(event_id)
            step.characters += len(event_id)

    def opened(self, entry: Entry, step: StepState, cause: Cause, event_id: str | None, expires_at: Any) -> None:
        """An open step has taken in an object, its first or another: its deadline and its run may be new."""
        self.folded(step, cause, event_id)
        self.schedule(entry, step, expires_at)
        self.run_index.set(entry, step.run_id)
        self._end_if_run_ended(entry, step, cause)

    def ended(self, entry: Entry, step: StepState, cause: Cause, event_id: str | None) -> None:
        """A step has taken in the object that ends it."""
        self.folded(step, cause, event_id)
        self.finish(entry, step, cause)

    def finish(self, entry: Entry, step: StepState, cause: Cause) -> None:
        """Publish, and keep the ended step for a while as its bytes."""
        self.publish(entry, step, cause)
        before = entry.status
        entry.status = step.status
        if before is _OPEN:
            self.close(entry)
            self.retention.queue_ended(entry)
        entry.inferred = step.inference is not None
        entry.irregular = entry.irregular or step.irregular
        entry.step = None
        entry.run_id = step.run_id
        entry.compact(step)
        if self._observer is not None:
            self._observer.finished(entry, step, before, cause)
        if before is _OPEN:
            self.retention.keep_ended(entry)

    def close(self, entry: Entry) -> None:
        """An entry is open no longer; its status says so already."""
        self.open_steps -= entry.weight
        self.run_index.discard(entry)
        self.set_due(entry, 0, is_idle=False)

    def weigh(self, entry: Entry, weight: int) -> None:
        """Have an open entry count as so many open steps."""
        self.open_steps += weight - entry.weight
        entry.weight = weight

    def set_due(self, entry: Entry, due_s: int, *, is_idle: bool) -> None:
        """Have the entry fall due in this second, as one that is idle or not; 0: not at all."""
        if entry.is_idle is not is_idle:
            (self.idle if entry.is_idle else self.deadlines).set(entry, 0)
            entry.is_idle = is_idle
        (self.idle if is_idle else self.deadlines).set(entry, due_s)

    def forget_open(self, entry: Entry) -> None:
        """Forget an entry that is open."""
        entry.status = Status.EXPIRED
        self.close(entry)
        self.retention.forget(entry, self.effects)
        self._observe_forgotten(entry)

    def publish(self, entry: Entry, step: StepState, cause: Cause) -> None:
        """Publish the next revision of a step."""
        step.revision += 1
        if step.expired_at_disagrees():
            step.add_anomaly("expired_at_disagrees")
        if not self.is_silent:
            self.effects.append(self.publication.of_step(step, cause, entry.fold_version))
        if self._observer is not None:
            self._observer.published(entry, step)

    def schedule(self, entry: Entry, step: StepState, expires_at: Any) -> None:
        """L7, L7a: know when the step is due; `expires_at` as an object may have it."""
        usable = usable_expires_at(expires_at, self.grace_s, self.stream_time)
        if usable is not None:
            step.usable_expires_at = usable
        known = step.usable_expires_at
        if known is None:
            known = step.opened_s + self._max_age_s
        self.deadlines.set(entry, max(FIRST_S, known + self.grace_s))

    def expire(self, entry: Entry, due_s: int, cause: Cause) -> None:
        """L7: end a step that was due at `due_s`."""
        step = entry.materialise()
        self.touch(entry, cause)
        at_s = step.usable_expires_at
        if at_s is None:
            # Under changed settings `due_s` may hold another grace, and less than that of now.
            at_s = max(step.opened_s, due_s - self.grace_s)
        step.infer("deadline", Status.EXPIRED, at_s)
        self.counts["deadline_by_mark" if cause.mark else "deadline_by_record"] += 1
        self.finish(entry, step, cause)

    def _end_if_run_ended(self, entry: Entry, step: StepState, cause: Cause) -> None:
        """L6 for a step that arrives after its run's end, which may lie before `restore_from`: checkpointed at once."""
        run_entry = self.lookup_run(step.run_id, cause.offset) if step.run_id else None
        if run_entry is not None and run_entry.run is not None and cause.offset >= run_entry.touched_offset:
            step.add_anomaly("after_run_ended")
            step.end_with_run(run_entry.run, cause.timestamp)
            self.finish(entry, step, cause)
            self.urgent.append(entry)
        if self._observer is not None:
            self._observer.run_looked_up(entry, step, self.stream_time)

    # --- events that are refused ----------------------------------------------------------------------------

    def is_full(self) -> bool:
        """X2: whether no other step may open."""
        return self.is_refusing and self.open_steps >= self._max_open_steps

    def refuse(self, step_id: str, cause: Cause) -> Rejected:
        """X2. The count of open steps is not to be had again from the log alone: checkpointed at once."""
        entry = self.steps[step_id] = Entry(step_id, cause.offset)
        entry.refuse()
        entry.status = Status.FAILED
        self.retention.drop_gone(step_id)
        self.touch(entry, cause)
        self.urgent.append(entry)
        return Rejected(Reason.TOO_MANY_OPEN_STEPS, f"{self._max_open_steps} steps are open on this partition")

    def refuse_again(self, entry: Entry, cause: Cause) -> Rejected:
        """An event of a refused step."""
        self.touch(entry, cause)
        if entry.inferred:
            return Rejected(Reason.INTERNAL_ERROR, "the step is quarantined: the fold failed on it before")
        return Rejected(Reason.TOO_MANY_OPEN_STEPS, "the step was refused when it began")

    def reject(self, cause: Cause, why: Rejected, number: str = "") -> None:
        """Set a record aside; see `Publication.of_rejected`."""
        if self.is_silent:
            return
        record = cause.record
        assert record is not None
        self.effects.append(self.publication.of_rejected(record, why, number))

    def quarantine(self, entry: Entry, cause: Cause) -> None:
        """Keep of a step that a bug may have left half changed nothing but that it is refused from here on.

        A restart may not meet the bug again, for it publishes nothing: checkpointed at once, as what X2 refuses.
        """
        was_open = entry.status is _OPEN
        if was_open:
            entry.status = Status.FAILED
            self.close(entry)
        entry.refuse()
        entry.run_id = None
        entry.inferred = True
        self.touch(entry, cause)
        self.urgent.append(entry)

    # --- checkpoints ----------------------------------------------------------------------------------------

    def checkpoint(self, entry: Entry, applied_below: int) -> None:
        """Checkpoint an entry that has taken in all records below `applied_below`. What fails leaves it dirty."""
        self.effects.append(checkpoint_of(entry, applied_below, self._log))
        entry.applied_below = applied_below
        entry.dirty_from = CLEAN
        entry.checkpointed = True

    def load(self, entry: Entry, due_s: int, run_id: str | None) -> None:
        """Remember an entry that a checkpoint holds."""
        if entry.run is not None:
            self.runs[entry.key] = entry
            return
        self.steps[entry.key] = entry
        if entry.status is _OPEN:
            self.open_steps += 1
            self.run_index.set(entry, run_id)
            self.deadlines.set(entry, due_s)
