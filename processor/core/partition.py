"""What the owner of one partition remembers: records in, effects out. A pure function of the log and the rules.

Restoring (docs/decisions/0001): every remembered entry knows `dirty_from`, the offset of its first record that no
checkpoint covers. The smallest of them is where a new owner starts to read; it folds up to the committed offset
without effects and stands where we stood. What that reading could not bring back is checkpointed at once: steps
refused for want of room, steps ended by a run whose end came earlier, all that a clock mark ended. A forgotten step
whose tail alone would look like a living one leaves a `gone` checkpoint until `restore_from` has passed its last
record.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from hashlib import sha256
from heapq import heappop, heappush
from itertools import count
from typing import Any, Final

import msgspec

from processor.core.checkpoint_format import CheckpointEntry
from processor.core.delta_template import DeltaTemplate, is_plain
from processor.core.effects import (
    Checkpoint,
    DeadLetter,
    Effect,
    Headers,
    LogRecord,
    Publish,
    Reason,
    Record,
    Rejected,
    Status,
)
from processor.core.events import EVENT_ID, EventPrefix, decode, exact, general, prefix_of, run_named
from processor.core.headers import (
    ANOMALIES,
    CLOCK_MARK,
    DIGEST,
    EVENTS,
    FIRST_OFFSET,
    INFERRED,
    LAST_OFFSET,
    REVISION,
    RULES,
    SOURCE_PARTITION,
    SOURCE_TOPIC,
    VERSION,
    VERSION_BYTES,
    dead_letter_headers,
    trace_of,
)
from processor.core.lifecycle import TERMINAL, Kind, Move, move
from processor.core.merge import characters, pack, unpack
from processor.core.rules import Rules
from processor.core.step import Step, check_delta, opens_exactly, usable_expires_at
from processor.core.wire_types import (
    Event,
    ExactData,
    ExactObject,
    Ignored,
    RunEnd,
    StepDelta,
    StepObject,
    StreamError,
    canonical,
    read_text,
)

CHECKPOINT_VERSION: Final = 1
_CLEAN: Final = -1
_NEVER: Final = 1 << 62
_MAX_OUTDATED: Final = 1_000
"""How many outdated items a heap may hold beyond its own number before it is cleaned."""
_OPEN = Status.IN_PROGRESS
_CREATED: Final = Kind.CREATED
_IN_PROGRESS: Final = Kind.IN_PROGRESS
_USUAL: Final = ("delta", "created", "in_progress", *(status.value for status in TERMINAL))
_ENDS: Final = {Kind(status.value): (status, status.value) for status in TERMINAL}
_MAX_TEMPLATES: Final = 16
"""How many are learned: producers have few."""
_TEMPLATE_ATTEMPTS: Final = 64
"""How often learning one may fail before nothing more is learned."""


class Entry:
    """One remembered step or ended run.

    An open step has `step` while it is at work. An ended one is kept as `ended`, compacted, or as `body`, its packed
    `Step`; packed is also an open one that has been checkpointed and not touched since: it may wait for hours. A
    refused one (X2) has none of them, nor has one in quarantine, which is `refused` and `inferred`.
    `touched_*` is when an event last named it, in stream time and offset.
    """

    __slots__ = (
        "applied_below",
        "body",
        "checkpointed",
        "dirty_from",
        "dirty_time",
        "due_s",
        "ended",
        "inferred",
        "irregular",
        "key",
        "opened_s",
        "refused",
        "run",
        "run_id",
        "status",
        "step",
        "touched_ms",
        "touched_offset",
    )

    def __init__(self, key: str, offset: int) -> None:
        self.key = key
        self.step: Step | None = None
        self.body = b""
        self.ended: Step | None = None
        self.run: RunEnd | None = None
        self.run_id: str | None = None
        self.status: Status = _OPEN
        self.inferred = False
        self.refused = False
        self.irregular = False
        self.due_s = 0
        self.opened_s = 0
        self.touched_ms = 0
        self.touched_offset = offset
        self.dirty_from = _CLEAN
        self.dirty_time = 0
        self.applied_below = 0
        self.checkpointed = False

    def materialise(self) -> Step:
        """The step, to be changed. Whoever changes an ended one packs it again."""
        step = self.step
        if step is None:
            if self.ended is not None:
                return self.ended.materialise()
            step = Step.unpack(self.body)
            if self.status is _OPEN:
                self.step, self.body = step, b""
        return step

    def peek(self) -> Step:
        """An open step to be looked at: neither it nor the entry changes its form."""
        return self.step if self.step is not None else Step.unpack(self.body)

    def compact(self, step: Step) -> None:
        """Keep an ended step, as small as may be."""
        if step.compact():
            self.ended = step
        else:
            self.body, self.ended = step.pack(), None


_read_text: Final = read_text
_encode_checkpoint: Final = msgspec.msgpack.Encoder().encode
_decode_checkpoint: Final = msgspec.msgpack.Decoder(CheckpointEntry).decode


def read_checkpoint(key: bytes, value: bytes) -> CheckpointEntry:
    """One checkpoint.

    Raises:
        ValueError: it is not one of ours or comes from a newer version.
    """
    try:
        saved = _decode_checkpoint(value)
        key[1:].decode()
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ValueError(f"checkpoint {key[:80]!r}: {error}") from None
    if saved.version != CHECKPOINT_VERSION:
        raise ValueError(f"checkpoint {key[:80]!r}: version {saved.version}, this program writes {CHECKPOINT_VERSION}")
    return saved


class Cause:
    """What makes an effect happen: a record at `offset`, or a clock mark (`mark` is set and there is no record).

    `before_ms` is the stream time before it.
    """

    __slots__ = ("before_ms", "mark", "offset", "record", "timestamp")

    def __init__(
        self, offset: int, timestamp: int, before_ms: int, record: Record | None = None, mark: str | None = None
    ) -> None:
        self.offset = offset
        self.timestamp = timestamp
        self.before_ms = before_ms
        self.record = record
        self.mark = mark


class PartitionState:
    """All that is known of one partition below `next_offset`.

    Args:
        topic, partition: the source, for the evidence.
        rules: what decides outcomes.
        next_offset: the first record not yet applied (`restore_from` after a restart).
        live_from: the group's committed offset; records below it are applied without effects.
        stream_time: the stream time at `next_offset`, in milliseconds; -1 when nothing was seen.
        log: `LogIdentity.encode()` of the source, for the checkpoints.
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
    ) -> None:
        self.topic, self.partition, self.rules = topic, partition, rules
        self._log = log
        self.next_offset = next_offset
        self.live_from = live_from
        self.stream_time = stream_time
        self.counts: Counter[str] = Counter()
        self.value_bytes = 0
        """As `counts`, for whoever watches to take and clear: the bytes of all values since then."""
        self.earliest_ms, self.latest_ms = _NEVER, -1
        """The smallest and the largest timestamp that a record had; those below 0 say nothing."""
        self._usual: dict[str, int] = dict.fromkeys(_USUAL, 0)  # the same, of what nearly all events do
        self.open_steps = 0
        self.steps: dict[str, Entry] = {}
        self.runs: dict[str, Entry] = {}
        self._by_run: dict[str, str | set[str]] = {}  # open steps; a run has seldom more than one at a time
        self._due: dict[int, set[str]] = {}
        self._due_seconds: list[int] = []
        self._next_due_ms = _NEVER
        self._ended: deque[tuple[int, int, Entry]] = deque()
        self._loaded: deque[tuple[int, int, Entry]] = deque()  # ended entries from checkpoints: an order of their own
        self._dirty_open: list[tuple[int, int, Entry]] = []
        self._dirty_ended: list[tuple[int, int, Entry]] = []
        self._gone: dict[bytes, int] = {}
        self._gone_order: list[tuple[int, bytes]] = []
        self._sequence = count()
        self._urgent: list[Entry] = []  # to be checkpointed once the record at hand is done with
        self._silent = next_offset < live_from
        self._refusing = False  # whether steps are refused (X2) in the silent fold, too
        self._marks: deque[tuple[int, int]] = deque()  # (position, ms) of the clock marks to repeat in the silent fold
        self._rebuilt: dict[bytes, bytes | None] | None = None
        self._effects: list[Effect] = []
        self._topic_bytes, self._partition_bytes = topic.encode(), str(partition).encode()
        self._source_headers: Final = (
            (SOURCE_TOPIC, self._topic_bytes),
            (SOURCE_PARTITION, self._partition_bytes),
        )
        self._rules_headers: Final = (
            (VERSION, VERSION_BYTES),
            (RULES, rules.digest().encode()),
        )
        self._templates: list[DeltaTemplate] = []
        self._template_attempts = _TEMPLATE_ATTEMPTS
        self._head = b""  # of the template last seen
        self._id_bytes = 0  # of the id in it

    # --- records in, effects out --------------------------------------------------------------------------

    def apply(self, records: Sequence[Record]) -> list[Effect]:
        """Take records in offset order; return what the shell must now do, in order.

        Records below `live_from` change the state and have no effects. How the log is cut into calls makes no
        difference.
        """
        if self._silent:
            silent = [record for record in records if record.offset < self.live_from]
            self._walk_marked(silent) if self._marks else self._walk(silent)
            self._purge()
            self._end_silent()
            self.counts.clear()
            self.value_bytes = 0
            if len(silent) == len(records):
                return []
            self._go_live()
            records = records[len(silent) :]
        self._walk(records)
        self._purge()
        effects, self._effects = self._effects, []
        return effects

    def _walk_marked(self, records: Sequence[Record]) -> None:
        """`_walk`, with the clock marks repeated where they were set."""
        begin = 0
        for at, record in enumerate(records):
            if not self._marks or record.offset < self._marks[0][0]:
                continue
            self._walk(records[begin:at])
            begin = at
            self._repeat_marks(record.offset)
        self._walk(records[begin:])

    def _repeat_marks(self, position: int) -> None:
        """Set the clock marks that were set up to `position`, which is not yet applied."""
        while self._marks and self._marks[0][0] <= position:
            at, mark_ms = self._marks.popleft()
            self.next_offset = max(self.next_offset, at)
            if mark_ms >= self.stream_time:
                self._mark_all(mark_ms)

    def _end_silent(self) -> None:
        """Drop the effects of a silent fold; after a rebuild, keep the checkpoints that have to be written."""
        if self._rebuilt is not None:
            for effect in self._effects:
                if isinstance(effect, Checkpoint):
                    self._rebuilt[effect.key] = effect.value
        self._effects = []

    def _go_live(self) -> None:
        if self._marks:
            self._repeat_marks(self.live_from)
            self._purge()
            self._end_silent()
        self._silent = False

    def _walk(self, records: Sequence[Record]) -> None:
        steps, limit, head = self.steps, self.rules.max_step_bytes, self._head
        id_end = len(head) + self._id_bytes
        now, next_offset, appended, size = self.stream_time, self.next_offset, 0, 0
        earliest, latest = self.earliest_ms, self.latest_ms
        for record in records:
            offset = record.offset
            if offset < next_offset:
                continue
            before, timestamp = now, record.timestamp
            if timestamp > latest:
                latest = timestamp
            if 0 <= timestamp < earliest:
                earliest = timestamp
            if timestamp > now:
                now = self.stream_time = timestamp
                if now >= self._next_due_ms:
                    self._fire(Cause(offset, timestamp, before))
            next_offset = self.next_offset = offset + 1
            value, headers = record.value, record.headers
            event_id = _plain_id(headers) if headers else None
            if value:
                size += len(value)
            if value and head and value.startswith(head) and event_id is not _SPECIAL:
                # What most records are: a delta that matches a template, for an open step, its id as long as
                # those. Only an id of ASCII that stands in JSON as it is has a template: no other bytes read as it.
                entry = steps.get(value[len(head) : id_end].decode("latin-1"))
                step = None if entry is None else entry.step
                if entry is not None and step is not None and offset >= entry.applied_below:
                    template = step.template
                    if template is not None and template.head is head:
                        text = _text_of(value[id_end:], template)
                        try:
                            is_added = text is not None and step.append_text(text, limit, event_id)
                        except MemoryError:
                            raise
                        except Exception as error:
                            self._break_event(
                                Cause(offset, timestamp, before, record), entry.key, len(self._effects), error, ""
                            )
                            self._checkpoint_urgent(offset + 1)
                            continue
                        if is_added:
                            step.last_offset = offset
                            if entry.dirty_from < 0:
                                self._mark_dirty(entry, offset, before)
                            appended += 1
                            continue
            self._guard(Cause(offset, timestamp, before, record), event_id)
            head = self._head
            id_end = len(head) + self._id_bytes
        self.value_bytes += size
        self.earliest_ms, self.latest_ms = earliest, latest
        self._usual["delta"] += appended
        for name, number in self._usual.items():
            if number:
                self.counts[name] += number
                self._usual[name] = 0

    def _expect_template(self, step: Step) -> None:
        """A call has begun: its deltas may match a known template."""
        for known in self._templates:
            if known.head is self._head and step.fits_template(known) and is_plain(step.step_id):
                step.template = known
                return

    def _learn_template(self, step: Step, value: bytes, event: ExactData) -> None:
        """Learn the template of the delta that has just been added to the step."""
        if not is_plain(event.id):
            return
        found = next((known for known in self._templates if known.fits(value)), None)
        if found is None:
            if not self._template_attempts or len(self._templates) >= _MAX_TEMPLATES:
                return
            found = step.learn_template(value, event)
            if found is None:
                self._template_attempts -= 1
                return
            for known in self._templates:
                if known.head == found.head:
                    found.head = known.head  # told apart by what they are, not by what they say
            self._templates.append(found)
        step.template, self._head = found, found.head
        self._id_bytes = len(event.id.encode())

    def _guard(self, cause: Cause, event_id: str | None) -> None:
        """The quarantine: a bug of ours in one record must not stop the partition."""
        record = cause.record
        assert record is not None
        held = len(self._effects)
        try:
            self._take(cause, record, event_id)
        except MemoryError:  # no bug, and no fault of the record's: another process may have room for it
            raise
        except Exception as error:  # of what reads events, or of the fast path: which has one event only
            self._break_event(cause, _step_named(record), held, error, "")
        if self._urgent:
            self._checkpoint_urgent(cause.offset + 1)

    def _break_event(self, cause: Cause, step_id: str | None, held: int, error: Exception, number: str) -> None:
        """A bug in the fold of one event: set its record aside, quarantine its step.

        Args:
            number: see `_apply_event`.
            held: how many effects there were before the event; those of it are dropped, but for checkpoints.
        """
        self._drop_effects(held)
        entry = None if step_id is None else self.steps.get(step_id)
        if entry is not None:
            self._quarantine(entry, cause)
        self._reject(cause, Rejected(Reason.INTERNAL_ERROR, _bug(error)), number)

    def _break_step(self, entry: Entry, cause: Cause, held: int, error: Exception) -> None:
        """A bug in what a deadline, a run's end or a checkpoint does to one step: set a reference to it aside."""
        self._drop_effects(held)
        run_id = entry.run_id
        self._quarantine(entry, cause)
        if self._silent:
            return
        reference = canonical({"id": entry.key, "run_id": run_id})
        source = LogRecord(cause.offset, cause.timestamp, entry.key.encode(), reference)
        self._set_aside(source, Reason.INTERNAL_ERROR, _bug(error), cause.mark)

    def _drop_effects(self, held: int) -> None:
        self._effects[held:] = [effect for effect in self._effects[held:] if isinstance(effect, Checkpoint)]

    def _quarantine(self, entry: Entry, cause: Cause) -> None:
        """Keep of a step that a bug may have left half changed nothing but that it is refused from here on.

        A restart may not meet the bug again, for it publishes nothing: checkpointed at once, as what X2 refuses.
        """
        if entry.status is _OPEN:
            self.open_steps -= 1
            self._unindex_run(entry)
            self._set_due(entry, 0)
            entry.status = Status.FAILED
            if entry.dirty_from >= 0:
                self._queue_dirty(entry)
        entry.step = entry.ended = None
        entry.body, entry.run_id = b"", None
        entry.refused = entry.inferred = entry.irregular = True
        self._touch(entry, cause)
        self._urgent.append(entry)

    def _checkpoint_urgent(self, applied_below: int) -> None:
        urgent, self._urgent = self._urgent, []
        for entry in urgent:
            self._checkpoint_or_break(entry, applied_below)

    def _checkpoint_or_break(self, entry: Entry, applied_below: int) -> None:
        """Checkpoint, where the log decides that it is time to: a step that cannot be is quarantined."""
        for _ in range(2):
            held = len(self._effects)
            try:
                self._checkpoint(entry, applied_below)
                return
            except MemoryError:
                raise
            except Exception as error:
                if entry.run is not None or entry.refused:
                    return  # it stays dirty: a restart has it from the log
                offset = self.next_offset - 1
                self._break_step(entry, Cause(offset, self.stream_time, self.stream_time), held, error)
                self._urgent.remove(entry)

    def _take(self, cause: Cause, record: Record, event_id: str | None) -> None:
        value = record.value
        if value and event_id is not _SPECIAL:
            head = prefix_of(value)
            if head is not None and self._apply_repeat(cause, value, head, event_id):
                return
            event = exact(value, head)
            if isinstance(event, ExactData):
                if self._apply_delta_fast(cause, value, event, event_id):
                    return
            elif isinstance(event, ExactObject) and self._apply_object_fast(cause, event, len(value), event_id):
                return
            whole = event if event is None or isinstance(event, StepObject) else general(event)
            if whole is not None:
                self._apply_event(cause, whole, event_id, "")
                return
        decoded = decode(value, record.headers)
        if isinstance(decoded, Rejected):
            self._reject(cause, decoded)
            return
        total = len(decoded.events)
        for number, (found, own_id) in enumerate(zip(decoded.events, decoded.ids, strict=True), 1):
            self._apply_event(cause, found, own_id, f"{number}/{total}" if total > 1 else "")

    # --- the fast path: events that do what nearly all do ---------------------------------------------------
    # Each returns False, and nothing has changed, where the slow path must see the event.

    def _apply_delta_fast(self, cause: Cause, value: bytes, event: ExactData, event_id: str | None) -> bool:
        """A delta that adds text to a call, or begins one."""
        entry = self.steps.get(event.id)
        step = None if entry is None else entry.step
        if entry is None or step is None or cause.offset < entry.applied_below:
            return False
        limit = self.rules.max_step_bytes
        if step.append_exact(event, limit, event_id):
            self._learn_template(step, value, event)
        elif step.open_exact(event, limit, event_id):
            self._expect_template(step)
        else:
            return False
        step.last_offset = cause.offset
        if entry.dirty_from < 0:
            self._mark_dirty(entry, cause.offset, cause.before_ms)
        self._usual["delta"] += 1
        return True

    def _apply_repeat(self, cause: Cause, value: bytes, head: EventPrefix, event_id: str | None) -> bool:
        """An `in_progress` that says to the letter what the open step began with: deadline and run are known."""
        if head.kind is not _IN_PROGRESS:
            return False
        data = value[head.data : -1]
        if not data.startswith(_ID):
            return False
        step_id = data[len(_ID) : data.find(b'"', len(_ID))].decode("utf-8", "backslashreplace")
        entry, size = self.steps.get(step_id), len(value)
        step = None if entry is None else entry.step
        if entry is None or step is None or cause.offset < entry.applied_below or not step.is_repeated_by(data):
            return False
        if step.size_with(size, 0) > self.rules.max_step_bytes or step.has_folded(event_id):
            return False
        self._touch(entry, cause)
        step.repeat_exact(size)
        self._folded(step, cause, event_id)
        self._usual["in_progress"] += 1
        return True

    def _apply_object_fast(self, cause: Cause, event: ExactObject, size: int, event_id: str | None) -> bool:
        """An object that opens a step, or ends one that did nothing unusual."""
        kind, step_id = event.kind, event.stated.id
        if size > self.rules.max_step_bytes:
            return False
        entry = self.steps.get(step_id)
        if entry is None:
            if kind is not _CREATED or self._full() or not opens_exactly(event.stated):
                return False
            if self._gone and cause.offset <= self._gone.get(_step_key(step_id), -1):
                return False
            entry, step = self._begin(step_id, cause)
            step.begin_exact(event, size)
            self._folded(step, cause, event_id)
            self._schedule(entry, step, event.stated.expires_at)
            self._index_run(entry, step.run_id)
            self._end_if_run_ended(entry, step, cause)
            self._usual["created"] += 1
            return True
        begun, ends = entry.step, _ENDS.get(kind)
        if begun is None or ends is None or cause.offset < entry.applied_below:
            return False
        status, name = ends
        if begun.has_folded(event_id) or not begun.end_exact(event, status, size):
            return False
        self._touch(entry, cause)
        self._folded(begun, cause, event_id)
        self._finish(entry, begun, cause)
        self._usual[name] += 1
        return True

    # --- the slow path ------------------------------------------------------------------------------------

    def _apply_event(self, cause: Cause, event: Event, event_id: str | None, number: str) -> None:
        """Args: `number` says which event of its record it is (`2/3`), "" where the record has one only."""
        held = len(self._effects)
        try:
            self._fold_event(cause, event, event_id, number)
        except MemoryError:
            raise
        except Exception as error:
            step_id = event.step_id if isinstance(event, StepDelta | StepObject) else None
            self._break_event(cause, step_id, held, error, number)

    def _fold_event(self, cause: Cause, event: Event, event_id: str | None, number: str) -> None:
        if isinstance(event, StepDelta):
            self.counts["delta"] += 1
            refused = self._delta(cause, event, event_id)
        elif isinstance(event, StepObject):
            self.counts[event.kind.value] += 1
            refused = self._object(cause, event, event_id)
        elif isinstance(event, RunEnd):
            self.counts["run_end"] += 1
            self._run_end(cause, event)
            return
        elif isinstance(event, StreamError):
            self._stream_error(cause, event)
            return
        elif isinstance(event, Rejected):
            refused = event
        else:
            assert isinstance(event, Ignored)
            if event.why == "unknown_event" and self.rules.unknown_events == "dead-letter":
                self._reject(cause, Rejected(Reason.UNKNOWN_EVENT, "an event of this name is not known"))
            else:
                self.counts[event.why] += 1
            return
        if refused is not None:
            self._reject(cause, refused, number)

    # --- steps --------------------------------------------------------------------------------------------

    def _object(self, cause: Cause, event: StepObject, event_id: str | None) -> Rejected | None:
        record = cause.record
        assert record is not None
        assert record.value is not None
        entry = self._lookup(event.step_id, cause.offset)
        if entry is _SKIP:
            return None
        if entry is not None and entry.refused:
            return self._refuse_again(entry, cause)
        chosen = move(entry.status if entry else None, event.kind, inferred=entry is not None and entry.inferred)
        if entry is None:
            assert chosen is not None
            return self._first_object(cause, event, event_id, chosen)
        self._touch(entry, cause)
        step = entry.materialise()
        if step.has_folded(event_id):
            self.counts["duplicate"] += 1
            self._pass_over(entry, step, event.data)
            return None
        if chosen is None:
            entry.irregular = True
            return Rejected(Reason.ILLEGAL_TRANSITION, f"{event.kind.value} after {entry.status.value}")
        if chosen is Move.REPEAT or (chosen is Move.FILL and step.object_bytes):
            self.counts["repeated"] += 1
            self._pass_over(entry, step, event.data)
            return None
        size = len(record.value)
        refused = step.refuses(event.data.get("step_details"), event.data.get("type"))
        # An ending object says again what the deltas brought: it is measured alone (X1).
        grown = step.size_with(size, 0) if chosen in (Move.FILL, Move.REFRESH) else size
        if refused is None and grown > self.rules.max_step_bytes:
            step.stop_growing()
            refused = Rejected(Reason.STEP_TOO_LARGE, f"the step would grow over {self.rules.max_step_bytes} bytes")
        if refused is not None:
            step.irregular = entry.irregular = True
            self._compact(entry, step)
            return refused
        if chosen in (Move.FILL, Move.REFRESH):
            step.take(event, size)
            self._folded(step, cause, event_id)
            self._schedule(entry, step, event.data.get("expires_at"))
            self._index_run(entry, step.run_id)
            self._end_if_run_ended(entry, step, cause)
        elif chosen is Move.RESTATE:
            before = self._bytes_of(step)
            step.end(event, Status(event.kind.value), size)
            if self._bytes_of(step) == before:
                self.counts["repeated"] += 1
                return None
            self._folded(step, cause, event_id)
            self._publish(entry, step, cause)
            self._compact(entry, step)
        else:
            step.end(event, Status(event.kind.value), size)
            self._folded(step, cause, event_id)
            self._finish(entry, step, cause)
        return None

    def _pass_over(self, entry: Entry, step: Step, data: dict[str, Any]) -> None:
        """Ignore a repeated object. A restore may read it first: of another type, it would refuse the step's end."""
        if step.refuses(data.get("step_details"), data.get("type")) is not None:
            step.irregular = entry.irregular = True

    def _first_object(self, cause: Cause, event: StepObject, event_id: str | None, chosen: Move) -> Rejected | None:
        record = cause.record
        assert record is not None
        assert record.value is not None
        size = len(record.value)
        if size > self.rules.max_step_bytes:
            return Rejected(Reason.STEP_TOO_LARGE, f"the step would grow over {self.rules.max_step_bytes} bytes")
        if chosen is Move.JOIN_END:
            entry, step = self._begin(event.step_id, cause)
            step.add_anomaly("joined_midstream")
            step.end(event, Status(event.kind.value), size)
            self._folded(step, cause, event_id)
            self._finish(entry, step, cause)
            return None
        if self._full():
            return self._refuse(event.step_id, cause)
        entry, step = self._begin(event.step_id, cause)
        if chosen is Move.JOIN:
            step.add_anomaly("joined_midstream")
        step.take(event, size)
        self._folded(step, cause, event_id)
        self._schedule(entry, step, event.data.get("expires_at"))
        self._index_run(entry, step.run_id)
        self._end_if_run_ended(entry, step, cause)
        return None

    def _delta(self, cause: Cause, delta: StepDelta, event_id: str | None) -> Rejected | None:
        refused = check_delta(delta)
        brought = characters(delta.details) + (len(event_id) if event_id else 0)
        entry = self._lookup(delta.step_id, cause.offset)
        if entry is _SKIP:
            return None
        if entry is not None and entry.refused:
            return self._refuse_again(entry, cause)
        if entry is None:
            if refused is None and brought > self.rules.max_step_bytes:
                refused = Rejected(Reason.STEP_TOO_LARGE, f"the step would grow over {self.rules.max_step_bytes} bytes")
            if refused is not None:
                return refused
            if self._full():
                return self._refuse(delta.step_id, cause)
            entry, step = self._begin(delta.step_id, cause)
            step.add_anomaly("joined_midstream")
            self.counts["null_ignored"] += step.append(delta)
            self._folded(step, cause, event_id)
            self._schedule(entry, step, None)
            return None
        self._touch(entry, cause)
        step = entry.materialise()
        if step.has_folded(event_id):
            self.counts["duplicate"] += 1
            if refused is not None or step.refuses(delta.details) is not None:
                step.irregular = entry.irregular = True  # as in `_pass_over`
            return None
        if refused is None:
            refused = step.refuses(delta.details)
        if refused is None and (step.oversize or step.size_with(0, brought) > self.rules.max_step_bytes):
            step.stop_growing()
            refused = Rejected(Reason.STEP_TOO_LARGE, f"the step would grow over {self.rules.max_step_bytes} bytes")
        if refused is not None:
            step.irregular = entry.irregular = True
            self._compact(entry, step)
            return refused
        if entry.status is _OPEN:
            self.counts["null_ignored"] += step.append(delta)
            self._folded(step, cause, event_id)
            return None
        before = self._bytes_of(step)
        self.counts["null_ignored"] += step.append(delta)
        self._folded(step, cause, event_id)
        if self._bytes_of(step) != before:
            self._publish(entry, step, cause)
        self._compact(entry, step)
        return None

    def _run_end(self, cause: Cause, run: RunEnd) -> None:
        """L6, and remember the run for what arrives late."""
        if run.disagrees:
            self.counts["run_status_disagrees"] += 1
        entry = self._lookup_run(run.run_id, cause.offset)
        if entry is None:
            entry = self.runs[run.run_id] = Entry(run.run_id, cause.offset)
            entry.status = Status.COMPLETED
            entry.run = run
        if cause.offset >= entry.applied_below:
            self._touch(entry, cause)
        for step_id in self._open_in(run.run_id):
            step_entry = self.steps[step_id]
            if cause.offset < step_entry.applied_below:
                continue
            held = len(self._effects)
            try:
                self._touch(step_entry, cause)
                step = step_entry.materialise()
                step.end_with_run(run, cause.timestamp)
                self._finish(step_entry, step, cause)
            except MemoryError:
                raise
            except Exception as error:  # the run's other steps end all the same
                self._break_step(step_entry, cause, held, error)

    def _stream_error(self, cause: Cause, event: StreamError) -> None:
        """The stream broke: L6 for the run that the record's header or key names, as if it had failed."""
        record = cause.record
        assert record is not None
        run_id = run_named(record.key, record.headers)
        if run_id is None:
            self.counts["ignored"] += 1
            return
        self.counts["run_end"] += 1
        self._run_end(cause, RunEnd(run_id, "failed", None, event.error))

    def _end_if_run_ended(self, entry: Entry, step: Step, cause: Cause) -> None:
        """L6 for a step that arrives after its run's end, which may lie before `restore_from`: checkpointed at once."""
        run_entry = self._lookup_run(step.run_id, cause.offset) if step.run_id else None
        if run_entry is None or run_entry.run is None or cause.offset < run_entry.touched_offset:
            return
        step.add_anomaly("after_run_ended")
        step.end_with_run(run_entry.run, cause.timestamp)
        self._finish(entry, step, cause)
        self._urgent.append(entry)

    # --- time ---------------------------------------------------------------------------------------------

    def next_due_ms(self) -> int | None:
        """The earliest deadline of an open step, in milliseconds of stream time."""
        while self._due_seconds and self._due_seconds[0] not in self._due:
            heappop(self._due_seconds)
        self._next_due_ms = self._due_seconds[0] * 1000 if self._due_seconds else _NEVER
        return self._next_due_ms if self._due_seconds else None

    def advance(self, mark_ms: int) -> list[Effect]:
        """Apply a clock mark (T3): move stream time to `mark_ms`, which must be the next deadline.

        All that is remembered is checkpointed in the same effects: the log cannot give the mark back.

        Raises:
            ValueError: no step is due at `mark_ms`.
        """
        if self._silent or self.next_due_ms() != mark_ms or mark_ms < self.stream_time:
            raise ValueError(f"partition {self.partition}: no step is due at {mark_ms}")
        self._mark_all(mark_ms)
        effects, self._effects = self._effects, []
        return effects

    def _mark_all(self, mark_ms: int) -> None:
        self._mark(mark_ms)
        for entry in (*self.steps.values(), *self.runs.values()):
            if entry.dirty_from >= 0:
                self._checkpoint_or_break(entry, self.next_offset)

    def _mark(self, mark_ms: int) -> None:
        before, self.stream_time = self.stream_time, mark_ms
        self._fire(Cause(self.next_offset - 1, mark_ms, before, None, f"{mark_ms}@{self.next_offset}"))
        self._purge()

    def _fire(self, cause: Cause) -> None:
        """L7: end what is due, in order of (due time, step id)."""
        while (due := self.next_due_ms()) is not None and due <= self.stream_time:
            for step_id in sorted(self._due.pop(heappop(self._due_seconds))):
                entry = self.steps[step_id]
                entry.due_s, due_s = 0, entry.due_s
                held = len(self._effects)
                try:
                    self._expire(entry, due_s, cause)
                except MemoryError:
                    raise
                except Exception as error:
                    self._break_step(entry, cause, held, error)
        if self._urgent:  # the record at hand is not applied yet
            self._checkpoint_urgent(cause.offset if cause.mark is None else cause.offset + 1)

    def _expire(self, entry: Entry, due_s: int, cause: Cause) -> None:
        step = entry.materialise()
        self._touch(entry, cause)
        step.infer("deadline", Status.EXPIRED, due_s - self.rules.grace_s)
        self.counts["deadline_by_mark" if cause.mark else "deadline_by_record"] += 1
        self._finish(entry, step, cause)

    def _schedule(self, entry: Entry, step: Step, said: Any) -> None:
        """L7, L7a: know when the step is due; `said`: its `expires_at`, as an object may have it."""
        usable = usable_expires_at(said, self.rules.grace_s, self.stream_time)
        if usable is not None:
            step.usable_expires_at = usable
        expires_at = step.usable_expires_at
        if expires_at is None:
            expires_at = step.opened_s + self.rules.max_age_s
        self._set_due(entry, expires_at + self.rules.grace_s)

    def _set_due(self, entry: Entry, due_s: int) -> None:
        if entry.due_s == due_s:
            return
        if entry.due_s:
            ids = self._due[entry.due_s]
            ids.discard(entry.key)
            if not ids:
                del self._due[entry.due_s]
                # Mostly of steps that have ended long before.
                if len(self._due_seconds) > 2 * len(self._due) + _MAX_OUTDATED:
                    self._due_seconds = sorted(self._due)
        entry.due_s = due_s
        if due_s:
            if due_s not in self._due:
                self._due[due_s] = set()
                heappush(self._due_seconds, due_s)
            self._due[due_s].add(entry.key)
            if due_s * 1000 < self._next_due_ms:
                self._next_due_ms = due_s * 1000

    # --- remembering and forgetting -----------------------------------------------------------------------

    def _begin(self, step_id: str, cause: Cause) -> tuple[Entry, Step]:
        entry = self.steps[step_id] = Entry(step_id, cause.offset)
        if self._gone and self._gone.pop(_step_key(step_id), None) is not None:
            # An earlier life under this id: its tail must not be taken for ours, so ours leaves a `gone` as well.
            entry.checkpointed = entry.irregular = True
        entry.opened_s = self.stream_time // 1000
        entry.step = step = Step(step_id, cause.offset, entry.opened_s)
        record = cause.record
        if record is not None and record.headers:
            step.trace = trace_of(record)
        self.open_steps += 1
        self._touch(entry, cause)
        return entry, step

    def _folded(self, step: Step, cause: Cause, event_id: str | None) -> None:
        step.last_offset = cause.offset
        if event_id is not None:
            if step.seen is None:
                step.seen = set()
            step.seen.add(event_id)
            step.characters += len(event_id)

    def _index_run(self, entry: Entry, run_id: str | None) -> None:
        if entry.run_id == run_id:
            return
        self._unindex_run(entry)
        entry.run_id = run_id
        if run_id is None:
            return
        held = self._by_run.get(run_id)
        if held is None:
            self._by_run[run_id] = entry.key
        elif isinstance(held, set):
            held.add(entry.key)
        else:
            self._by_run[run_id] = {held, entry.key}

    def _unindex_run(self, entry: Entry) -> None:
        run_id = entry.run_id
        if run_id is None:
            return
        held = self._by_run.get(run_id)
        if isinstance(held, set):
            held.discard(entry.key)
            if len(held) == 1:
                self._by_run[run_id] = held.pop()
        elif held == entry.key:
            del self._by_run[run_id]

    def _open_in(self, run_id: str) -> list[str]:
        """The run's open steps, sorted."""
        held = self._by_run.get(run_id)
        return [] if held is None else sorted(held) if isinstance(held, set) else [held]

    def _finish(self, entry: Entry, step: Step, cause: Cause) -> None:
        """Publish, and keep the ended step for a while as its bytes."""
        self._publish(entry, step, cause)
        was_open = entry.status is _OPEN
        entry.status = step.status
        if was_open:
            self.open_steps -= 1
            self._unindex_run(entry)
            self._set_due(entry, 0)
            if entry.dirty_from >= 0:
                self._queue_dirty(entry)
            self._ended.append((entry.touched_ms, entry.touched_offset, entry))
        entry.inferred = step.inference is not None
        entry.irregular = entry.irregular or step.irregular
        entry.step = None
        entry.run_id = step.run_id
        entry.compact(step)

    def _compact(self, entry: Entry, step: Step) -> None:
        """Write an ended step back after a look at it."""
        if entry.step is None:
            entry.compact(step)

    def _lookup(self, step_id: str, offset: int) -> Entry | None:
        """The entry of a step as of this record; `_SKIP` if a checkpoint already holds what the record says."""
        entry = self.steps.get(step_id)
        if entry is not None:
            if offset < entry.applied_below:
                return _SKIP
            if entry.status is not _OPEN and self._is_past(entry, offset):
                self._forget_step(entry)
                entry = None
        if entry is None and self._gone and offset <= self._gone.get(_step_key(step_id), -1):
            return _SKIP
        return entry

    def _lookup_run(self, run_id: str, offset: int) -> Entry | None:
        entry = self.runs.get(run_id)
        if entry is not None and self._is_past(entry, offset):
            self._forget_run(entry)
            return None
        return entry

    def _touch(self, entry: Entry, cause: Cause) -> None:
        """An event names the entry: it is dirty from here on, and remembered for another while."""
        if entry.dirty_from < 0:
            self._mark_dirty(entry, cause.offset, cause.before_ms)
        entry.touched_ms, entry.touched_offset = self.stream_time, cause.offset
        if entry.status is not _OPEN:
            entry.irregular = True
            self._ended.append((entry.touched_ms, entry.touched_offset, entry))

    def _mark_dirty(self, entry: Entry, offset: int, before_ms: int) -> None:
        entry.dirty_from, entry.dirty_time = offset, before_ms
        self._queue_dirty(entry)

    def _queue_dirty(self, entry: Entry) -> None:
        is_open = entry.status is _OPEN
        heap = self._dirty_open if is_open else self._dirty_ended
        if len(heap) > 2 * (len(self.steps) + len(self.runs)) + _MAX_OUTDATED:
            heap[:] = sorted(item for item in heap if _is_current(item, is_open))
        heappush(heap, (entry.dirty_from, next(self._sequence), entry))

    def _is_past(self, entry: Entry, offset: int) -> bool:
        """L10: both bounds inclusive."""
        return (
            self.stream_time > entry.touched_ms + self.rules.ended_retention_s * 1000
            or offset > entry.touched_offset + self.rules.ended_retention_records
        )

    def _purge(self) -> None:
        """Forget what is past. When that happens is no outcome: whoever looks an entry up asks `_is_past` himself."""
        self._purge_from(self._ended)
        if self._loaded:
            self._purge_from(self._loaded)

    def _purge_from(self, ended: deque[tuple[int, int, Entry]]) -> None:
        offset = self.next_offset - 1
        while ended:
            touched_ms, touched_offset, entry = ended[0]
            if touched_ms == entry.touched_ms and touched_offset == entry.touched_offset:
                if not self._is_past(entry, offset):
                    return
                if entry.run is not None:
                    if self.runs.get(entry.key) is entry:
                        self._forget_run(entry)
                elif self.steps.get(entry.key) is entry:
                    self._forget_step(entry)
            ended.popleft()

    def _forget_step(self, entry: Entry) -> None:
        del self.steps[entry.key]
        entry.dirty_from = _CLEAN
        entry.body, entry.ended = b"", None
        key = _step_key(entry.key)
        if entry.irregular:
            last = entry.touched_offset
            self._gone[key] = last
            heappush(self._gone_order, (last, key))
            saved = CheckpointEntry(CHECKPOINT_VERSION, "gone", touched_offset=last, log=self._log)
            self._effects.append(Checkpoint(key, _encode_checkpoint(saved)))
        elif entry.checkpointed:
            self._effects.append(Checkpoint(key, None))

    def _forget_run(self, entry: Entry) -> None:
        del self.runs[entry.key]
        entry.dirty_from = _CLEAN
        if entry.checkpointed:
            self._effects.append(Checkpoint(_run_key(entry.key), None))

    # --- limits -------------------------------------------------------------------------------------------

    def _full(self) -> bool:
        # While restoring nothing is refused anew: whom the first owner refused, the checkpoints name.
        return (self._refusing or not self._silent) and self.open_steps >= self.rules.max_open_steps

    def _refuse(self, step_id: str, cause: Cause) -> Rejected:
        """X2. The count of open steps is not to be had again from the log alone: checkpointed at once."""
        entry = self.steps[step_id] = Entry(step_id, cause.offset)
        entry.refused = entry.irregular = True
        entry.status = Status.FAILED
        self._gone.pop(_step_key(step_id), None)
        self._touch(entry, cause)
        self._urgent.append(entry)
        return Rejected(Reason.TOO_MANY_OPEN_STEPS, f"{self.rules.max_open_steps} steps are open on this partition")

    def _refuse_again(self, entry: Entry, cause: Cause) -> Rejected:
        self._touch(entry, cause)
        if entry.inferred:
            return Rejected(Reason.INTERNAL_ERROR, "the step is quarantined: the fold failed on it before")
        return Rejected(Reason.TOO_MANY_OPEN_STEPS, "the step was refused when it began")

    # --- effects ------------------------------------------------------------------------------------------

    def _reject(self, cause: Cause, why: Rejected, number: str = "") -> None:
        if self._silent:
            return
        record = cause.record
        assert record is not None
        detail = why.detail
        if number:
            which, _, total = number.partition("/")
            detail = f"{detail} (event {which} of {total})"
        headers = dead_letter_headers(self._topic_bytes, self._partition_bytes, record, why.reason, detail, number)
        self._effects.append(
            DeadLetter(why.reason, detail, record.key, record.value, record.timestamp, headers, record.offset)
        )

    def _bytes_of(self, step: Step) -> bytes:
        return step.encoded(self.rules.object_type)

    def _publish(self, entry: Entry, step: Step, cause: Cause) -> None:
        step.revision += 1
        if step.expired_at_disagrees():
            step.add_anomaly("expired_at_disagrees")
        if self._silent:
            return
        value = self._bytes_of(step)
        anomalies = tuple(sorted(step.anomalies)) if step.anomalies else ()
        digest = sha256(value).hexdigest()
        last = max(cause.offset, step.last_offset) if cause.mark is None else step.last_offset
        if len(value) > self.rules.max_record_bytes:
            self._refer(step, cause, len(value), digest, last)
            return
        headers: list[tuple[str, bytes]] = [
            *self._source_headers,
            (FIRST_OFFSET, b"%d" % step.first_offset),
            (LAST_OFFSET, b"%d" % last),
            (EVENTS, b"%d" % step.events),
            (REVISION, b"%d" % step.revision),
            *self._rules_headers,
            (DIGEST, digest.encode()),
        ]
        how = None
        if step.inference is not None:
            how = step.inference.how
            headers.append((INFERRED, how.encode()))
            if cause.mark is not None:
                headers.append((CLOCK_MARK, cause.mark.encode()))
        if anomalies:
            headers.append((ANOMALIES, ",".join(anomalies).encode()))
        headers.extend(step.trace)
        self._effects.append(
            Publish(
                step.status, step.step_id, value, max(0, cause.timestamp), tuple(headers), step.revision, how, anomalies
            )
        )

    def _refer(self, step: Step, cause: Cause, size: int, digest: str, last: int) -> None:
        """X3: set aside a reference to a snapshot that its topic would not take."""
        reference = canonical(
            {
                "id": step.step_id,
                "run_id": step.fields.get("run_id"),
                "thread_id": step.fields.get("thread_id"),
                "status": step.status.value,
                "revision": step.revision,
                "first_offset": step.first_offset,
                "last_offset": last,
                "digest": digest,
                "size": size,
            }
        )
        source = LogRecord(last, cause.timestamp, step.step_id.encode(), reference)
        detail = f"{size} bytes, the limit is {self.rules.max_record_bytes}"
        self._set_aside(source, Reason.SNAPSHOT_TOO_LARGE, detail, cause.mark)

    def _set_aside(self, source: LogRecord, reason: Reason, detail: str, mark: str | None) -> None:
        """A dead letter that refers to a step, `source`, in place of a record."""
        headers = dead_letter_headers(self._topic_bytes, self._partition_bytes, source, reason, detail)
        if mark is not None:
            headers = (*headers, (CLOCK_MARK, mark.encode()))
        self._effects.append(
            DeadLetter(reason, detail, source.key, source.value, source.timestamp, headers, source.offset)
        )

    # --- restart ------------------------------------------------------------------------------------------

    def restore_point(self) -> tuple[int, int]:
        """(`restore_from`, the stream time there): where a new owner must start to read."""
        best: Entry | None = None
        for heap, is_open in ((self._dirty_open, True), (self._dirty_ended, False)):
            while heap and not _is_current(heap[0], is_open):
                heappop(heap)
            if heap and (best is None or heap[0][0] < best.dirty_from):
                best = heap[0][2]
        return (self.next_offset, self.stream_time) if best is None else (best.dirty_from, best.dirty_time)

    def restore_point_at(self, position: int) -> tuple[int, int, list[Checkpoint]]:
        """Close a unit at `position` (past transaction markers).

        Returns:
            `restore_from`, the stream time there, and the forgetting of checkpoints that this makes needless.
        """
        self.moved_to(position)
        restore_from, stream_time = self.restore_point()
        needless: list[Checkpoint] = []
        while self._gone_order and self._gone_order[0][0] < restore_from:
            last, key = heappop(self._gone_order)
            if self._gone.get(key) == last:
                del self._gone[key]
                needless.append(Checkpoint(key, None))
        return restore_from, stream_time, needless

    def moved_to(self, position: int) -> None:
        """The consumer stands at `position`: what lies between holds no records for us (markers, aborted batches)."""
        self.next_offset = max(self.next_offset, position)
        if self._silent and self.next_offset >= self.live_from:
            self._purge()
            self._end_silent()
            self._go_live()

    @property
    def is_live(self) -> bool:
        return not self._silent

    def checkpoint(self, dirty_before: int, limit: int = _NEVER) -> list[Effect]:
        """Checkpoint the open steps that have been dirty since before that offset, at most `limit` of them."""
        heap, failed = self._dirty_open, list[Entry]()
        while heap and heap[0][0] < dirty_before and len(self._effects) < limit:
            offset, _, entry = heappop(heap)
            if entry.dirty_from == offset and entry.status is _OPEN:
                try:
                    self._checkpoint(entry, self.next_offset)
                except MemoryError:
                    raise
                except Exception:
                    # A bug. No quarantine: when this is called is a matter of clocks, and no outcome may be. The step
                    # stays dirty, so a restart has it from the log, and each later call tries again.
                    failed.append(entry)
        for entry in failed:
            self._queue_dirty(entry)
        effects, self._effects = self._effects, []
        return effects

    def _checkpoint(self, entry: Entry, applied_below: int) -> None:
        is_run = entry.run is not None
        if entry.run is not None:
            body = pack([entry.run.run_id, entry.run.status, entry.run.ended_at, entry.run.last_error])
        else:
            step = entry.step
            if step is not None:
                entry.body, entry.step = step.pack(), None
            body = entry.body if entry.ended is None else entry.materialise().pack()
        saved = CheckpointEntry(
            CHECKPOINT_VERSION,
            "run" if is_run else "step",
            applied_below,
            entry.touched_ms,
            entry.touched_offset,
            entry.due_s,
            entry.status.value,
            entry.inferred,
            entry.refused,
            entry.irregular,
            entry.run_id,
            body,
            entry.opened_s,
            self._log,
        )
        key = _run_key(entry.key) if is_run else _step_key(entry.key)
        self._effects.append(Checkpoint(key, _encode_checkpoint(saved)))
        # Last: what fails above leaves the entry dirty.
        entry.applied_below = applied_below
        entry.dirty_from = _CLEAN
        entry.checkpointed = True

    def load(self, checkpoints: Iterable[tuple[bytes, bytes]]) -> None:
        """Take the latest value of each checkpoint key, before the first record is applied.

        Raises:
            ValueError: a checkpoint is not one of ours or comes from a newer version.
        """
        loaded: list[Entry] = []
        for key, value in checkpoints:
            saved = read_checkpoint(key, value)
            name = key[1:].decode()
            if saved.kind == "gone":
                self._gone[key] = saved.touched_offset
                heappush(self._gone_order, (saved.touched_offset, key))
                continue
            loaded.append(self._load_entry(name, saved))
        for entry in sorted(
            (e for e in loaded if e.status is not _OPEN), key=lambda e: (e.touched_ms, e.touched_offset)
        ):
            self._loaded.append((entry.touched_ms, entry.touched_offset, entry))

    def rebuild(self, unfit: Iterable[bytes], marks: Iterable[tuple[int, int]], *, refusing: bool) -> None:
        """Have the silent fold give a state that no metadata led to (before the first record is applied).

        Args:
            unfit: keys of the checkpoint partition whose checkpoints were not loaded: they are to be forgotten.
            marks: (position, ms) of the clock marks that this partition's published records carry.
            refusing: refuse steps as the first owner did (X2), for no checkpoint says whom it refused.
        """
        self._rebuilt = dict.fromkeys(unfit, None)
        self._marks = deque(sorted(mark for mark in marks if self.next_offset < mark[0] <= self.live_from))
        self._refusing = refusing

    def rebuilt(self) -> list[Effect]:
        """What a rebuild has to tell the checkpoint topic, once; to be asked when the state is live."""
        told, self._rebuilt, self._refusing = self._rebuilt or {}, None, False
        return [Checkpoint(key, value) for key, value in told.items()]

    def _load_entry(self, name: str, saved: CheckpointEntry) -> Entry:
        entry = Entry(name, saved.touched_offset)
        entry.applied_below = saved.applied_below
        entry.touched_ms = saved.touched_ms
        entry.status = Status(saved.status)
        entry.inferred, entry.refused, entry.irregular = saved.inferred, saved.refused, saved.irregular
        entry.checkpointed = True
        if saved.kind == "run":
            run_id, status, ended_at, last_error = unpack(saved.body)
            entry.run = RunEnd(run_id, status, ended_at, last_error)
            self.runs[name] = entry
            return entry
        self.steps[name] = entry
        entry.run_id, entry.opened_s, entry.body = saved.run_id, saved.opened_s, saved.body
        if entry.status is _OPEN:
            self.open_steps += 1
            entry.run_id = None
            self._index_run(entry, saved.run_id)
            self._set_due(entry, saved.due_s)
        return entry

    # --- for those who watch ------------------------------------------------------------------------------

    @property
    def is_blank(self) -> bool:
        """Nothing is remembered: what came before `next_offset` has no say in what follows, but for the time."""
        return not (self.steps or self.runs or self._gone)

    def named_last_ms(self) -> int:
        """The largest stream time at which an event named what is remembered; -1 where nothing is."""
        return max((e.touched_ms for entries in (self.steps, self.runs) for e in entries.values()), default=-1)

    def oldest_open_ms(self) -> int | None:
        """The stream time, in milliseconds, at which the oldest open step was first seen; None if none is open."""
        oldest_s = min((e.opened_s for e in self.steps.values() if e.status is _OPEN), default=None)
        return None if oldest_s is None else oldest_s * 1000


def _text_of(rest: bytes, template: DeltaTemplate) -> str | None:
    """The text of a delta that matches the template, of which `rest` is what follows the id; None if it is not."""
    middle, tail = template.middle, template.tail
    if not (rest.startswith(middle) and rest.endswith(tail)):
        return None
    try:
        return _read_text(rest[len(middle) - 1 : len(rest) - len(tail) + 1])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


_ID: Final = b'{"id":"'
_SKIP: Final = Entry("", 0)
_SPECIAL: Final = "\0"


def _bug(error: Exception) -> str:
    return f"{type(error).__name__} in the fold; please report it"


def _step_named(record: Record) -> str | None:
    """The step that the one event of a record names, as far as its record can be read."""
    try:
        decoded = decode(record.value, record.headers)
    except MemoryError:
        raise
    except Exception:
        return None
    if isinstance(decoded, Rejected):
        return None
    return next((e.step_id for e in decoded.events if isinstance(e, StepDelta | StepObject)), None)


def _is_current(item: tuple[int, int, Entry], is_open: bool) -> bool:
    """Whether an item of a heap of dirty entries still says how its entry stands."""
    offset, _, entry = item
    return entry.dirty_from == offset and (entry.status is _OPEN) is is_open


def _plain_id(headers: Headers) -> str | None:
    """The event id among headers that change nothing else; `_SPECIAL` if they hold an envelope."""
    found: str | None = None
    for name, content in headers:
        if name == EVENT_ID:
            found = content.decode("utf-8", "backslashreplace") if content else None
        elif name[:3].lower() == "ce_" or name.lower() in ("content-type", EVENT_ID):
            return _SPECIAL
    return found


def _step_key(step_id: str) -> bytes:
    return b"s" + step_id.encode()


def _run_key(run_id: str) -> bytes:
    return b"r" + run_id.encode()
