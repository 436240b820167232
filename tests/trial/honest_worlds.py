"""Honest worlds that are hard to judge: what a worker publishes, and what topics, archives and people do to it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from random import Random
from typing import Any, Final

import msgspec

from processor.archives import ArchivedRecord, Gap, GapKind
from processor.audit.expected_records import ExpectedRecords
from processor.audit.judge.regimes import Accepted
from processor.audit.replay.task import ArchiveRange
from processor.core import headers as evidence
from processor.core.deadlines import NEVER
from processor.core.effects import FOLD_VERSION, Checkpoint, Effect, LogRecord
from processor.core.partition import PartitionState
from processor.core.rules import Rules
from processor.kafka.output_records import Outputs
from processor.simulate import Parameters, Simulation
from tests.capture_files import captured, read_back
from tests.shell.mutations import DEAD, OUTCOMES, OUTPUTS, PARTITIONS, RULES, SOURCE, World

EARLIER: Final = msgspec.structs.replace(RULES, grace_s=5, max_age_s=600, max_step_bytes=3_000)
OTHERS: Final = (
    EARLIER,
    msgspec.structs.replace(RULES, max_step_bytes=700),
    msgspec.structs.replace(RULES, max_step_bytes=20_000, max_record_bytes=20_000),
    msgspec.structs.replace(RULES, max_record_bytes=500),
    msgspec.structs.replace(RULES, max_open_steps=2),
    msgspec.structs.replace(RULES, unknown_events="dead-letter"),
)
"""Settings before or after the audited ones; some of them show in dead letters alone."""
RETENTIONS: Final = (
    *(msgspec.structs.replace(RULES, ended_retention_s=seconds) for seconds in (0, 1, 600, 31_536_000)),
    *(msgspec.structs.replace(RULES, ended_retention_records=records) for records in (0, 1, 20, 10**12)),
    msgspec.structs.replace(RULES, ended_retention_s=0, ended_retention_records=0),
    msgspec.structs.replace(RULES, max_age_s=600),
)
"""Settings that show in no record: how long ended steps and runs are remembered, at the bounds, and open ones wait."""


@dataclass
class Hard:
    """A world, what an auditor knows of it, and which verdicts are right."""

    made: World
    options: dict[str, Any] = field(default_factory=dict)
    right: tuple[str, ...] = ("proven",)


class Worker:
    """Folds the partitions of a simulated log and publishes, as a worker that is stopped and started again."""

    def __init__(self, seed: int, *, rules: Rules = RULES, outputs: int = OUTPUTS) -> None:
        self.rng = Random(seed)
        self.rules, self.outputs = rules, outputs
        self.made = World({p: [] for p in range(PARTITIONS)}, dict.fromkeys(range(PARTITIONS), 0), {})
        self.states = {p: PartitionState(SOURCE, p, rules) for p in range(PARTITIONS)}
        parameters = Parameters(
            runs=14, seed=seed, partitions=PARTITIONS, deltas=4, text_bytes=8, garbage=0.04, illegal=0.1, hung=0.15,
            interrupted=0.2, midstream=0.1, late_output=0.6, chatter=1, responses=0.4, lost=0.2, dropped=0.3,
            gateways=0.3,
        )  # fmt: skip
        self.records = list(Simulation(parameters))
        self.marks, self.gaps, self.repeats = 0.02, 0.06, 0.0
        self._set: dict[int, list[tuple[int, int]]] = {p: [] for p in range(PARTITIONS)}
        """The clock marks."""
        self._checkpoints: dict[int, dict[bytes, bytes]] = {p: {} for p in range(PARTITIONS)}

    def work(self, share: float = 1.0) -> None:
        """Take so much of the records that are left."""
        count = round(len(self.records) * share)
        taken, self.records = self.records[:count], self.records[count:]
        for produced in taken:
            self._take(produced)

    def _take(self, produced: Any) -> None:
        p, rng = produced.partition, self.rng
        if rng.random() < self.gaps:
            kind = rng.choice([GapKind.MARKER, GapKind.ABORTED])
            behind = self.made.ends[p] + rng.randrange(1, 4)
            self.made.logs[p].append(Gap(SOURCE, p, self.made.ends[p], behind - 1, kind))
            self.made.ends[p] = behind
        headers = tuple(produced.headers)
        if self.repeats and rng.random() < self.repeats:
            headers += (("note", b"%d" % rng.randrange(3)), ("note", b"%d" % rng.randrange(3)))
        record = ArchivedRecord(SOURCE, p, self.made.ends[p], produced.timestamp, produced.key, produced.value, headers)
        self.made.logs[p].append(record)
        self.made.ends[p] += 1
        self._publish(p, self.states[p].apply([record]))
        due = self.states[p].next_due_ms()
        if due is not None and due >= self.states[p].stream_time and rng.random() < self.marks:
            self._set[p].append((self.states[p].next_offset, due))
            self._publish(p, self.states[p].advance(due))

    def restart(self, rules: Rules, *, from_checkpoints: bool = False, is_told: bool = True) -> None:
        """Stopped at rest, started with other settings; restored from checkpoints, or from the first record on.

        Args:
            is_told: the metadata says by which settings the records were folded until then. Earlier versions did not.
        """
        self.rules = rules
        for p, old in self.states.items():
            end, begin, stream_time = self.made.ends[p], 0, -1
            if from_checkpoints:
                self._publish(p, old.checkpoint(NEVER))
                begin, stream_time, needless = old.restore_point_at(end)
                self._publish(p, list(needless))
            log = [r for r in self.made.logs[p] if isinstance(r, ArchivedRecord) and r.offset >= begin]
            state = PartitionState(
                SOURCE, p, rules, next_offset=begin, live_from=end, stream_time=stream_time,
                silent_rules=rules.with_folding(old.rules.folding()) if is_told else None,
            )  # fmt: skip
            if from_checkpoints:
                state.load(self._checkpoints[p].items())
            else:
                state.rebuild((), self._set[p], refusing=True)
            state.apply(log)
            state.moved_to(end)
            self._publish(p, state.rebuilt())
            self.states[p] = state

    def begin_anew(self) -> dict[int, int]:
        """The group was reset to where the log ends now, and its checkpoints are gone; returns these offsets."""
        for p, end in self.made.ends.items():
            self.states[p] = PartitionState(SOURCE, p, self.rules, next_offset=end, live_from=end)
        return dict(self.made.ends)

    def _publish(self, partition: int, effects: list[Effect]) -> None:
        counts = dict.fromkeys((*OUTCOMES.values(), DEAD), self.outputs)
        places = ExpectedRecords(Outputs(OUTCOMES, DEAD, ""), partition, counts)
        for effect in effects:
            if isinstance(effect, Checkpoint):
                if effect.value is None:
                    self._checkpoints[partition].pop(effect.key, None)
                else:
                    self._checkpoints[partition][effect.key] = effect.value
                continue
            placed = places.whole(effect)
            if placed is not None:
                to = self.rng.randrange(self.outputs) if placed.partition is None else placed.partition
                log = self.made.topics.setdefault((placed.topic, to), [])
                offset = (log[-1].offset + 1 if log else 0) + (self.rng.random() < 0.1)
                log.append(LogRecord(offset, placed.timestamp, placed.key, placed.value, tuple(placed.headers)))


def plain(seed: int) -> Hard:
    """Markers, aborted transactions, garbage, clock marks."""
    worker = Worker(seed)
    worker.work()
    return Hard(worker.made)


def old_recording(seed: int) -> Hard:
    """Clock marks far ahead of the records."""
    worker = Worker(seed)
    worker.marks = Random(seed).choice([0.05, 0.1, 0.3])
    worker.work()
    return Hard(worker.made)


def range_in_mid_log(seed: int) -> Hard:
    worker = Worker(seed)
    worker.work()
    rng, ends = Random(seed), worker.made.ends
    begins = {p: rng.randrange(end) for p, end in ends.items()}
    behind = {p: rng.randrange(begins[p], end + 1) for p, end in ends.items()}
    options = {"begin": begins.get, "complete": lambda p: begins[p] == 0, "end": behind.get}
    return Hard(worker.made, options, ("proven", "unprovable"))


def compacted_outputs(seed: int) -> Hard:
    """Of each key in a partition the last record alone is left; of some topics, all of them, or those so far."""
    hard = Random(seed).choice([plain, old_recording])(seed)
    rng, holes = Random(seed), []
    for place, log in hard.made.topics.items():
        if rng.random() < 0.6:
            cut = rng.randrange(len(log) + 1)
            last = {r.key: r.offset for r in log}
            kept = [r for n, r in enumerate(log) if n >= cut or last[r.key] == r.offset]
            if len(kept) < len(log):
                holes.append(place)
            hard.made.topics[place] = kept
    return Hard(hard.made, {"holes": tuple(holes)}, ("proven", "unprovable"))


def compacted_source(seed: int) -> Hard:
    worker = Worker(seed)
    worker.work()
    rng = Random(seed)
    for log in worker.made.logs.values():
        for at, item in enumerate(log):
            if isinstance(item, ArchivedRecord) and rng.random() < 0.1:
                log[at] = Gap(SOURCE, item.partition, item.offset, item.offset, GapKind.COMPACTED)
    return Hard(worker.made, {}, ("proven", "unprovable"))


def shortened_outputs(seed: int) -> Hard:
    """Retention has taken the first records of some output partitions, whatever the source still holds."""
    hard = Random(seed).choice([plain, old_recording])(seed)
    rng, shortened = Random(seed), []
    for place, log in hard.made.topics.items():
        if rng.random() < 0.5:
            cut = rng.randrange(1, len(log) + 1)
            hard.made.topics[place] = log[cut:]
            shortened.append(place)
    return Hard(hard.made, {"shortened": tuple(shortened)}, ("proven", "unprovable"))


def shortened_source(seed: int) -> Hard:
    hard = shortened_outputs(seed) if Random(seed).random() < 0.5 else old_recording(seed)
    rng = Random(seed)
    begins = {p: rng.randrange(end) for p, end in hard.made.ends.items()}
    return Hard(
        hard.made,
        {**hard.options, "begin": begins.get, "complete": lambda p: begins[p] == 0},
        ("proven", "unprovable"),
    )


def broker_times(seed: int) -> Hard:
    """LogAppendTime was switched on, on some output partitions, while the worker ran."""
    hard = plain(seed)
    rng, since = Random(seed), []
    for place, log in hard.made.topics.items():
        if rng.random() < 0.5:
            cut = rng.randrange(len(log))
            since.append((*place, log[cut].offset))
            times = [r if n < cut else msgspec.structs.replace(r, timestamp=10**13 + n) for n, r in enumerate(log)]
            hard.made.topics[place] = times
    return Hard(hard.made, {"broker_times": tuple(since)}, ("proven", "unprovable"))


def capture(seed: int) -> Hard:
    """The source as Event Hubs Capture keeps it: no gaps in its numbers, perhaps whole seconds; from any of them on."""
    rng = Random(seed)
    worker = Worker(seed)
    worker.gaps = 0.0
    worker.work()
    made, has_milliseconds = worker.made, rng.random() < 0.5
    for p, log in made.logs.items():
        records = [item for item in log if isinstance(item, ArchivedRecord)]
        events = [captured(record, with_milliseconds=has_milliseconds) for record in records]
        made.logs[p] = list(read_back(SOURCE, p, events, rng.choice(["null", "deflate", "snappy"])))
    options: dict[str, Any] = {"archives": (ArchiveRange("capture", 0, 0),)}
    if rng.random() < 0.3:
        begins = {p: rng.randrange(end) for p, end in made.ends.items()}
        options |= {"begin": begins.get, "complete": lambda p: begins[p] == 0}
    return Hard(made, options, ("proven", "unprovable"))


def capture_of_arrivals(seed: int) -> Hard:
    """The source, or the output, or both, as Event Hubs Capture keeps them: with the time at which each record arrived,
    and one header of each name."""
    rng = Random(seed)
    rules = rng.choice([RULES, RULES, *OTHERS[3:5], RETENTIONS[1], RETENTIONS[5]])
    worker = Worker(seed, rules=rules)
    worker.gaps, worker.repeats = 0.0, 0.4
    worker.marks = rng.choice([0.0, 0.02, 0.1])
    worker.work()
    made, options = worker.made, dict[str, Any](rules=rules)
    if rng.random() < 0.2:
        off = rng.choice(["completed", "failed", "cancelled"])
        options["outcome_topics"] = OUTCOMES | {off: ""}
        made.topics = {place: log for place, log in made.topics.items() if place[0] != OUTCOMES[off]}
    if is_of_source := rng.random() < 0.8:
        for p, log in made.logs.items():
            made.logs[p] = list(read_back(SOURCE, p, _arrived(log, rng), "null"))
        options |= {"archives": (ArchiveRange("capture", 0, 0),), "is_captured": True}
        if rng.random() < 0.3:
            begins = {p: rng.randrange(end) for p, end in made.ends.items()}
            options |= {"begin": begins.get, "complete": lambda p: begins[p] == 0}
    if not is_of_source or rng.random() < 0.5:
        for (topic, p), out in made.topics.items():
            records = [ArchivedRecord(topic, p, r.offset, r.timestamp, r.key, r.value, r.headers) for r in out]
            back = read_back(topic, p, _arrived(records, rng), "null")
            made.topics[topic, p] = [
                LogRecord(r.offset, r.timestamp, r.key, r.value, r.headers)
                for r in back
                if isinstance(r, ArchivedRecord)
            ]
        options["captured_outputs"] = tuple(made.topics)
    return Hard(made, options, ("proven", "unprovable"))


def _arrived(log: Sequence[ArchivedRecord | Gap], rng: Random) -> list[dict[str, Any]]:
    """The events of a capture: on time, late now and then, or all of them years later, one behind the other."""
    late_ms, share = rng.choice([(0, 0.0), (900, 0.9), (30_000, 0.3), (3_600_000, 0.05), (700_000, 0.5)])
    is_recording, with_milliseconds = rng.random() < 0.2, rng.random() < 0.5
    now_ms, events = 0, list[dict[str, Any]]()
    for record in log:
        if not isinstance(record, ArchivedRecord):
            continue
        due_ms = record.timestamp + (rng.randrange(late_ms) if late_ms and rng.random() < share else 0)
        now_ms = now_ms + rng.randrange(50) if is_recording and now_ms else max(now_ms, due_ms)
        if is_recording and not events:
            now_ms = 1_790_000_000_000
        headers = list(record.headers)
        rng.shuffle(headers)
        arrived = msgspec.structs.replace(record, timestamp=now_ms, headers=tuple(headers))
        events.append(captured(arrived, with_milliseconds=with_milliseconds))
    return events


def settings_changed(seed: int) -> Hard:
    """At rest, to the audited ones or away from them; the auditor knows the others, or not."""
    rng = Random(seed)
    other = rng.choice(OTHERS)
    order = (other, RULES) if rng.random() < 0.7 else (RULES, other)
    worker = Worker(seed, rules=order[0])
    # Near the first or the last record, few steps or none say which settings were in force there.
    share = rng.choice([rng.random(), rng.random() / 10, 1 - rng.random() / 10])
    worker.work(share)
    worker.restart(order[1], from_checkpoints=rng.random() < 0.5, is_told=rng.random() < 0.7)
    worker.work()
    options: dict[str, Any] = rng.choice([{}, {"accepted": Accepted(rules=(other.digest(),))}])
    if order[1] == RULES and rng.random() < 0.4:
        options = {"earlier_rules": (other,)}
    return Hard(worker.made, options, ("proven", "unprovable"))


def retention_changed(seed: int) -> Hard:
    """The same of retention, which no record shows: near the first or the last record, and with what producers send
    again, long after it had ended."""
    rng = Random(seed)
    order = rng.choice(RETENTIONS), RULES
    if rng.random() < 0.5:
        order = order[1], order[0]
    worker = Worker(seed, rules=order[0])
    whole = worker.records
    worker.work(rng.choice([rng.random(), rng.random() / 30, 1 - rng.random() / 30]))
    is_told = rng.random() < 0.7
    # Folded anew by settings that it is not told of, a step may expire in silence: it is lost, and missing.
    is_kept = (not is_told and order[0].max_age_s != order[1].max_age_s) or rng.random() < 0.7
    worker.restart(order[1], from_checkpoints=is_kept, is_told=is_told)
    done = len(whole) - len(worker.records)
    now = max(whole[max(0, done - 1)].timestamp, worker.records[0].timestamp if worker.records else 0)
    again = whole[rng.randrange(done + 1) : done] if rng.random() < 0.7 else []
    late = now + rng.choice([0, 500, 90_000])
    worker.records = [one._replace(timestamp=late) for one in again[:60]] + worker.records[rng.choice([0, 0, 10**6]) :]
    worker.work()
    audited = rng.choice(order)
    options: dict[str, Any] = {"rules": audited}
    if audited is order[1] and rng.random() < 0.3:
        options["earlier_rules"] = (order[0],)
    return Hard(worker.made, options, ("proven", "unprovable"))


def upgraded(seed: int) -> Hard:
    """The first records were made by the fold version before this one; during the upgrade both take turns."""
    hard = plain(seed)
    rng, cut = Random(seed), Random(seed).randrange(max(hard.made.ends.values()))
    turns = rng.randrange(30)
    for log in hard.made.topics.values():
        for at, r in enumerate(log):
            headers = dict(r.headers)
            cause = int(headers.get(evidence.LAST_OFFSET) or headers.get(evidence.SOURCE_OFFSET) or b"0")
            if cause < cut or (cause < cut + turns and cause % 7 < 3):
                old = b"%d" % (FOLD_VERSION - 1)
                changed = tuple((n, old if n == evidence.VERSION else c) for n, c in r.headers)
                log[at] = msgspec.structs.replace(r, headers=changed)
    return Hard(hard.made, {}, ("proven", "unprovable"))


def partitions_added(seed: int) -> Hard:
    rng = Random(seed)
    worker = Worker(seed, outputs=rng.randrange(1, 6))
    worker.work(rng.random())
    worker.outputs += rng.randrange(1, 6)
    worker.work()
    counts = dict.fromkeys((*OUTCOMES.values(), DEAD), worker.outputs)
    return Hard(worker.made, {"output_partitions": counts}, ("proven", "unprovable"))


def shared_outputs(seed: int) -> Hard:
    """Other sources are published to the same topics; and another processor's transaction holds one of them back."""
    hard = plain(seed)
    rng, held = Random(seed), []
    for place, log in sorted(hard.made.topics.items()):
        other: list[LogRecord] = []
        for r in log:
            other.append(r)
            if rng.random() < 0.3:
                changed = tuple((n, b"other-events" if n == evidence.SOURCE_TOPIC else c) for n, c in r.headers)
                other.append(msgspec.structs.replace(r, headers=changed))
        if rng.random() < 0.15:
            held.append(place)
            other = other[: rng.randrange(len(other))]
        hard.made.topics[place] = [msgspec.structs.replace(r, offset=n) for n, r in enumerate(other)]
    return Hard(hard.made, {"held": tuple(held)}, ("proven", "unprovable"))


def reset_forward(seed: int) -> Hard:
    """The group was reset, and what came before is not audited with it: the range begins there."""
    worker = Worker(seed)
    worker.work(Random(seed).random())
    begins = worker.begin_anew()
    for log in worker.made.topics.values():
        log.clear()
    worker.work()
    return Hard(worker.made, {"begin": begins.get, "complete": False}, ("proven", "unprovable"))


def another_program(seed: int) -> Hard:
    """A worker that shares no code with ours: a fold of a page, for logs of steps that begin and end.

    It has a version of its own, and then differs in what it publishes; or ours, and publishes the same.
    """
    rng = Random(seed)
    is_own = rng.random() < 0.5
    version = b"%d" % FOLD_VERSION if is_own else b"99"
    made = World({0: []}, {0: 0}, {})
    opened: dict[str, tuple[int, dict[str, Any]]] = {}
    keys = (
        "assistant_id", "cancelled_at", "completed_at", "created_at", "expired_at", "failed_at", "id", "last_error",
        "metadata", "object", "run_id", "status", "step_details", "thread_id", "type", "usage",
    )  # fmt: skip
    for offset in range(rng.randrange(2, 40)):
        now = 1_720_000_000_000 + offset * 700
        if opened and rng.random() < 0.5:
            name = rng.choice(sorted(opened))
            first, fields = opened.pop(name)
            status = rng.choice(["completed", "failed", "cancelled"])
            said = fields | {"status": status, "usage": {"total_tokens": rng.randrange(100)}}
            snapshot = json.dumps(
                {k: said.get(k) for k in keys} | ({} if is_own else {"note": "another"}),
                sort_keys=True, separators=(",", ":"),
            ).encode()  # fmt: skip
            headers = (
                ("runstep-source-topic", SOURCE.encode()), ("runstep-source-partition", b"0"),
                ("runstep-first-offset", b"%d" % first), ("runstep-last-offset", b"%d" % offset),
                ("runstep-events", b"2"), ("runstep-revision", b"0"), ("runstep-fold-version", version),
                ("runstep-rules", RULES.digest().encode()), ("runstep-digest", sha256(snapshot).hexdigest().encode()),
            )  # fmt: skip
            place = (OUTCOMES[status], _murmur2(name.encode()) % OUTPUTS)
            log = made.topics.setdefault(place, [])
            log.append(LogRecord(len(log), now, name.encode(), snapshot, headers))
        else:
            name = f"step_{offset}"
            said = {"id": name, "object": "thread.run.step", "run_id": "run_1", "status": "in_progress"}
            opened[name] = offset, said
        kind = "created" if said["status"] == "in_progress" else said["status"]
        value = json.dumps({"event": f"thread.run.step.{kind}", "data": said}).encode()
        made.logs[0].append(ArchivedRecord(SOURCE, 0, offset, now, b"run_1", value, ()))
        made.ends[0] = offset + 1
    options: dict[str, Any] = {"accepted": Accepted(folds=(99,))} if rng.random() < 0.5 else {}
    return Hard(made, options, ("proven",) if is_own else ("proven", "unprovable"))


def _murmur2(data: bytes) -> int:
    """Kafka's hash of a key, written down once more."""
    m, h = 0x5BD1E995, 0x9747B28C ^ len(data)
    whole = len(data) // 4 * 4
    for at in range(0, whole, 4):
        k = int.from_bytes(data[at : at + 4], "little") * m & 0xFFFFFFFF
        h = (h * m & 0xFFFFFFFF) ^ ((k ^ k >> 24) * m & 0xFFFFFFFF)
    if rest := data[whole:]:
        h = (h ^ int.from_bytes(rest, "little")) * m & 0xFFFFFFFF
    h = (h ^ h >> 13) * m & 0xFFFFFFFF
    return (h ^ h >> 15) & 0x7FFFFFFF


WORLDS: Final[dict[str, Callable[[int], Hard]]] = {
    one.__name__: one
    for one in (
        plain, old_recording, range_in_mid_log, capture, capture_of_arrivals, compacted_outputs, compacted_source,
        shortened_outputs,
        shortened_source, broker_times, settings_changed,
        retention_changed, upgraded, partitions_added, shared_outputs, reset_forward,
        another_program,
    )
}  # fmt: skip
