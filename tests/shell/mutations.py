"""The mutation test: does the audit find every single change, and leave the untouched alone?

    python -m tests.shell.mutations --mutations 1000 --seed 1

A log is simulated, folded, and its output put on topics in memory; then one thing is changed, and the audit has to
find it and to name the place. Changed is the published output, the dead letters, or the archive of the source.

Two things are the worker's own choice: when it sets a clock mark, and on which partition it puts a dead letter without
a key. Where a change gives what an honest worker could have published as well (`could_be`), it is no untruth, and the
audit has to stay silent; all else it has to find.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any, Final

import msgspec

from processor.archives import ArchivedRecord, ArchiveError, Gap, GapKind
from processor.archives.jsonl import encode_line
from processor.audit.judge.block_digests import BlockDigests
from processor.audit.judge.partition_audit import PartitionAudit
from processor.audit.judge.verdicts import BlockDigest, ExpectedRecord, Finding, Verdict
from processor.audit.published_index import FileIndex, IndexWriter
from processor.audit.replay.record_sources import DATA, HOLES, Ledger, pieces
from processor.audit.replay.task import ArchiveRange, Task
from processor.audit.replay.task_judge import expected_records
from processor.core import headers as evidence
from processor.core.effects import Effect, LogRecord
from processor.core.partition import PartitionState
from processor.core.rules import Rules
from processor.core.wire_types import canonical
from processor.simulate import Parameters, Simulation

SOURCE: Final = "events"
DEAD: Final = "dead"
OUTCOMES: Final = {status: f"out.{status}" for status in ("completed", "failed", "cancelled", "expired")}
PARTITIONS: Final = 2
OUTPUTS: Final = 3
RULES: Final = Rules(max_step_bytes=4_000, max_record_bytes=6_000)
HARMLESS: Final = frozenset({Verdict.EQUAL})

Place = tuple[str, int]
Topics = dict[Place, list[LogRecord]]


@dataclass
class World:
    """One log, its archive, and what an honest worker published of it."""

    logs: dict[int, list[ArchivedRecord | Gap]]
    ends: dict[int, int]
    topics: Topics


def world(seed: int, runs: int = 14, gateways: float = 0.1) -> World:
    """Simulate, fold as the worker does, and put what comes of it on topics in memory."""
    rng = Random(seed)
    parameters = Parameters(
        runs=runs, seed=seed, partitions=PARTITIONS, deltas=4, text_bytes=8, garbage=0.04, illegal=0.1, hung=0.1,
        interrupted=0.2, midstream=0.1, late_output=0.6, chatter=1, responses=0.4, lost=0.2, dropped=0.3,
        gateways=gateways,
    )  # fmt: skip
    states = {p: PartitionState(SOURCE, p, RULES) for p in range(PARTITIONS)}
    made = World({p: [] for p in states}, dict.fromkeys(states, 0), {})
    for produced in Simulation(parameters):
        p = produced.partition
        state, log, offset = states[p], made.logs[p], made.ends[p]
        if rng.random() < 0.05:
            behind = offset + rng.randrange(1, 3)
            log.append(Gap(SOURCE, p, offset, behind - 1, GapKind.MARKER))
            offset = behind
        headers = tuple(produced.headers)
        key = produced.key if rng.random() < 0.9 else None
        log.append(ArchivedRecord(SOURCE, p, offset, produced.timestamp, key, produced.value, headers))
        made.ends[p] = offset + 1
        record = log[-1]
        assert isinstance(record, ArchivedRecord)
        _publish(made.topics, rng, p, state.apply([record]))
        due = state.next_due_ms()
        if due is not None and due >= state.stream_time and rng.random() < 0.01:
            _publish(made.topics, rng, p, state.advance(due))
    return made


def task_of(made: World, partition: int, archive: str = "", begin: int = 0, end: int | None = None) -> Task:
    behind = made.ends[partition] if end is None else end
    return Task(
        topic=SOURCE,
        partition=partition,
        begin=begin,
        end=behind,
        complete=begin == 0,
        rules=RULES,
        outcome_topics=OUTCOMES,
        dead_letter=DEAD,
        output_partitions=dict.fromkeys((*OUTCOMES.values(), DEAD), OUTPUTS),
        work="",
        log_end=made.ends[partition],
        archives=(ArchiveRange(archive, begin, behind),) if archive else (),
    )


_PLACES: Final = {p: expected_records(task_of(World({}, {p: 0}, {}), p)) for p in range(PARTITIONS)}


def _publish(topics: Topics, rng: Random, partition: int, effects: Sequence[Effect]) -> None:
    for effect in effects:
        placed = _PLACES[partition].whole(effect)
        if placed is None:
            continue
        to = rng.randrange(OUTPUTS) if placed.partition is None else placed.partition
        log = topics.setdefault((placed.topic, to), [])
        offset = (log[-1].offset + 1 if log else 0) + (rng.random() < 0.1)  # a marker now and then
        log.append(LogRecord(offset, placed.timestamp, placed.key, placed.value, tuple(placed.headers)))


# --- the audit, over memory -----------------------------------------------------------------------------------------


@dataclass
class Heard:
    """What one audit said, all partitions together, in the order of the log."""

    findings: list[tuple[int, Finding]] = field(default_factory=list)
    """Of those that are not equal: (partition, finding)."""
    strays: list[tuple[str, int, int]] = field(default_factory=list)
    holes: list[tuple[int, int]] = field(default_factory=list)
    links: dict[int, list[BlockDigest]] = field(default_factory=dict)
    counts: Counter[Verdict] = field(default_factory=Counter)
    error: str = ""

    def is_silent(self) -> bool:
        return not (self.findings or self.strays or self.holes or self.error)


def hear(
    made: World,
    work: Path,
    *,
    begin: int = 0,
    end: int | None = None,
    partitions: Sequence[int] = tuple(range(PARTITIONS)),
) -> Heard:
    """Audit what is on the topics against the log, both in memory."""
    heard = Heard()
    with ExitStack() as exits:
        audits = _audits(made, work, partitions, begin, end, exits)
        for partition, (audit, index) in audits.items():
            log = [r for r in made.logs[partition] if isinstance(r, ArchivedRecord)]
            records = [r for r in log if begin <= r.offset and (end is None or r.offset < end)]
            _listen(heard, partition, made.ends[partition], audit, index, [records] if records else [])
    return heard


def hear_archive(made: World, work: Path, lines: dict[int, bytes]) -> Heard:
    """The same with the source read from an archive of these lines."""
    heard = Heard()
    with ExitStack() as exits:
        audits = _audits(made, work, range(PARTITIONS), 0, None, exits)
        for partition, (audit, index) in audits.items():
            file = work / f"source-{partition}.jsonl"
            file.write_bytes(lines[partition])
            task = task_of(made, partition, str(file))
            try:
                _listen(heard, partition, task.end, audit, index, asyncio.run(_walked(task, heard)))
            except ArchiveError as error:
                heard.error = error.message
                return heard
    return heard


async def _walked(task: Task, heard: Heard) -> list[Any]:
    ledger = Ledger(task.begin, task.end, lambda first, last, kind: _note_hole(heard, task.partition, first, kind))
    return [piece async for piece in pieces(task, ledger)]


def _note_hole(heard: Heard, partition: int, first: int, kind: str) -> None:
    if kind != DATA and kind in HOLES:
        heard.holes.append((partition, first))


def _audits(
    made: World, work: Path, partitions: Sequence[int], begin: int, end: int | None, exits: ExitStack
) -> dict[int, tuple[PartitionAudit, FileIndex]]:
    with IndexWriter(work, SOURCE, PARTITIONS, frozenset(partitions)) as shelves:
        for (topic, partition), log in sorted(made.topics.items()):
            for record in log:
                shelves.put(topic, partition, record, dead_letters=topic == DEAD)
    audits = {}
    for p in partitions:
        index = exits.enter_context(FileIndex(work, p))
        task = task_of(made, p, begin=begin, end=end)
        audit = PartitionAudit(
            partial(_state, p),
            index,
            _PLACES[p].whole,
            begin=task.begin,
            end=task.end,
            complete=task.complete,
            log_end=task.log_end,
            shortened=_PLACES[p].shortened,
            yield_equal=p % 2 == 0,  # as with a report, and as without
        )
        audits[p] = (audit, index)
    return audits


def _state(partition: int, offset: int, stream_time: int) -> PartitionState:
    return PartitionState(SOURCE, partition, RULES, next_offset=offset, live_from=offset, stream_time=stream_time)


def _listen(
    heard: Heard, partition: int, end: int, audit: PartitionAudit, index: FileIndex, walk: Sequence[Any]
) -> None:
    links, told = BlockDigests(0, end), heard.links.setdefault(partition, [])

    def judged() -> Iterator[tuple[Effect | None, Finding]]:
        for piece in walk:
            if isinstance(piece, Gap):
                yield from audit.lost(piece.first, piece.last)
            else:
                told.extend(links.take(piece))
                yield from audit.apply(piece)
        told.extend(links.finish())
        yield from audit.finish()

    for _, finding in judged():
        heard.counts[finding.verdict] += 1
        if finding.verdict not in HARMLESS:
            heard.findings.append((partition, finding))
    heard.counts[Verdict.EQUAL] += audit.equal_not_yielded
    heard.strays += [(stray.topic, stray.partition, stray.offset) for _, stray in index.strays()]


# --- mutations of what was published --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mutation:
    """What was changed: the kind, where, and the names that a finding about it may bear."""

    target: str
    kind: str
    partition: int
    """Of the source; -1 where any will do."""
    names: frozenset[str]
    """First parts of identities: step ids, or offsets of dead letters."""
    places: frozenset[tuple[str, int, int]]
    offset: int = -1
    """Of the source: nothing before it may be blamed."""
    line: int = 0
    """Of the archive, from 1 on."""
    took_mark: bool = False
    """A clock mark went with it. Time moved, so that other steps may be told, too: none from before the mark."""


_EVIDENCE: Final = (
    evidence.SOURCE_TOPIC, evidence.SOURCE_PARTITION, evidence.FIRST_OFFSET, evidence.LAST_OFFSET, evidence.EVENTS,
    evidence.REVISION, evidence.VERSION, evidence.RULES, evidence.DIGEST, evidence.INFERRED, evidence.ANOMALIES,
    evidence.REASON, evidence.DETAIL, evidence.SOURCE_OFFSET, evidence.SOURCE_TIMESTAMP, evidence.ATTEMPT,
)  # fmt: skip


def mutate_output(topics: Topics, rng: Random, kind: str, *, dead: bool) -> Mutation | None:
    """Change one thing on the topics; None if this kind cannot be done at the place that the dice chose."""
    place = rng.choice([p for p, log in sorted(topics.items()) if (p[0] == DEAD) is dead and log])
    if kind == "mark":
        marked = [p for p, log in sorted(topics.items()) if any(evidence.CLOCK_MARK in dict(r.headers) for r in log)]
        if dead or not marked:
            return None
        place = rng.choice(marked)
    log = topics[place]
    at = rng.randrange(len(log))
    if kind == "mark":
        at = rng.choice([i for i, r in enumerate(log) if evidence.CLOCK_MARK in dict(r.headers)])
    record = log[at]
    touched = [record]
    if kind == "drop":
        del log[at]
    elif kind == "duplicate":
        log.insert(rng.randrange(at + 1, len(log) + 1), record)
    elif kind == "swap":
        others = [i for i, r in enumerate(log) if i != at and _source(r) == _source(record)]
        if not others:
            return None
        other = rng.choice(others)
        touched.append(log[other])
        log[at], log[other] = log[other], log[at]
    elif kind == "truncate":
        touched = log[at:]
        del log[at:]
    elif kind == "move":
        elsewhere = rng.choice([p for p in _all_places() if p != place and (p[0] == DEAD) is dead])
        to = topics.setdefault(elsewhere, [])
        del log[at]
        to.insert(rng.randrange(len(to) + 1), record)
        topics[elsewhere] = _renumbered(to)
    elif kind == "insert":
        forged = _forged(record, rng)
        touched = [forged]
        log.insert(rng.randrange(len(log) + 1), forged)
    else:
        changed = CHANGES[kind](record, rng)
        if changed is None or changed == record:
            return None
        log[at] = changed
        touched.append(changed)
    topics[place] = _renumbered(log)
    names = {name for r in touched for name in _names(r)}
    places = {(*p, r.offset) for p, log in topics.items() for r in log if any(_same(r, t) for t in touched)}
    marks = [dict(r.headers)[evidence.CLOCK_MARK] for r in touched if evidence.CLOCK_MARK in dict(r.headers)]
    positions = [int(m.partition(b"@")[2]) for m in marks if m and m.partition(b"@")[2].isdigit()]
    target = "dead letters" if dead else "published"
    offset = min(positions, default=0) - 1
    return Mutation(target, kind, -1, frozenset(names), frozenset(places), offset, took_mark=bool(marks))


def _all_places() -> list[Place]:
    return [(topic, p) for topic in (*OUTCOMES.values(), DEAD) for p in range(OUTPUTS)]


def _renumbered(log: list[LogRecord]) -> list[LogRecord]:
    return [msgspec.structs.replace(r, offset=i) for i, r in enumerate(log)]


def could_be(made: World, topics: Topics) -> bool:
    """Could an honest worker have published just this? Asked of the fold alone, the audit has no say in it.

    The clock is read where the records say that it was read; then each topic must hold what comes of it, in order.
    """
    wanted: dict[tuple[Any, ...], list[tuple[int, int, int | None]]] = {}
    for p, log in made.logs.items():
        effects = _folded(p, log, made.ends[p], topics)
        if effects is None:
            return False
        for number, effect in enumerate(effects):
            placed = _PLACES[p].whole(effect)
            if placed is not None:
                content = (placed.topic, placed.timestamp, placed.key, placed.value, tuple(placed.headers))
                wanted.setdefault(content, []).append((p, number, placed.partition))
    for (topic, partition), out in topics.items():
        reached: dict[int, int] = {}
        for record in out:
            found = wanted.get((topic, record.timestamp, record.key, record.value, record.headers))
            if not found:
                return False
            source, number, belongs = found.pop(0)
            if belongs not in (None, partition) or number < reached.get(source, 0):
                return False
            reached[source] = number
    return not any(wanted.values())


def _placed_of(partition: int, effect: Effect) -> ExpectedRecord | None:
    return _PLACES[partition].whole(effect)


def _folded(
    partition: int,
    log: Sequence[ArchivedRecord | Gap],
    end: int,
    topics: Topics,
    state: PartitionState | None = None,
) -> Sequence[Effect] | None:
    """What comes of a log with the clock marks that these topics name; None if one of them was not due."""
    own = b"%d" % partition
    marks = set()
    for record in (record for out in topics.values() for record in out):
        headers = dict(record.headers)
        if headers.get(evidence.SOURCE_PARTITION) == own and evidence.CLOCK_MARK in headers:
            moment, _, position = (headers[evidence.CLOCK_MARK] or b"").partition(b"@")
            if not (moment.isdigit() and position.isdigit() and int(position) <= end):
                return None
            marks.add((int(position), int(moment)))
    state, due = state or PartitionState(SOURCE, partition, RULES), sorted(marks)
    effects: list[Effect] = []
    try:
        for source in (item for item in log if isinstance(item, ArchivedRecord)):
            while due and due[0][0] <= source.offset:
                state.moved_to(due[0][0])
                effects += state.advance(due.pop(0)[1])
            effects += state.apply([source])
        for at, ms in due:
            state.moved_to(at)
            effects += state.advance(ms)
    except ValueError:
        return None
    return effects


def _same(one: LogRecord, other: LogRecord) -> bool:
    return msgspec.structs.replace(one, offset=0) == msgspec.structs.replace(other, offset=0)


def _source(record: LogRecord) -> bytes | None:
    return dict(record.headers).get(evidence.SOURCE_PARTITION)


def _names(record: LogRecord) -> Iterator[str]:
    headers = dict(record.headers)
    if evidence.REASON in headers:
        yield (headers.get(evidence.SOURCE_OFFSET) or b"").decode("utf-8", "backslashreplace")
    elif record.key is not None:
        yield record.key.decode("utf-8", "backslashreplace")


def _flip(record: LogRecord, rng: Random) -> LogRecord | None:
    part = rng.choice(["key", "value", "timestamp", "header", "header"])
    if part == "timestamp":
        return msgspec.structs.replace(record, timestamp=record.timestamp ^ 1 << rng.randrange(20))
    if part == "header":
        at = rng.randrange(len(record.headers))
        name, content = record.headers[at]
        if not content:
            return None
        flipped = (name, _flipped(content, rng))
        return msgspec.structs.replace(record, headers=(*record.headers[:at], flipped, *record.headers[at + 1 :]))
    content = record.key if part == "key" else record.value
    if not content:
        return None
    return msgspec.structs.replace(record, **{part: _flipped(content, rng)})


def _flipped(content: bytes, rng: Random) -> bytes:
    at = rng.randrange(len(content))
    return content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :]


def _header(record: LogRecord, rng: Random) -> LogRecord | None:
    """Take one away, add one, give one another content, or put two in another order."""
    headers = list(record.headers)
    at = rng.randrange(len(headers))
    how = rng.choice(["remove", "add", "change", "order"])
    if how == "remove":
        del headers[at]
    elif how == "add":
        headers.insert(at, (rng.choice((*_EVIDENCE, "odd")), b"%d" % rng.randrange(9)))
    elif how == "change":
        headers[at] = (headers[at][0], b"%d" % rng.randrange(1000))
    else:
        other = rng.randrange(len(headers))
        headers[at], headers[other] = headers[other], headers[at]
    return msgspec.structs.replace(record, headers=tuple(headers))


def _field(record: LogRecord, rng: Random) -> LogRecord | None:
    """Change one field of the snapshot and make the digest fit: the lie of someone who knows how."""
    try:
        snapshot = msgspec.json.decode(record.value or b"")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if not isinstance(snapshot, dict) or not snapshot:
        return None
    snapshot[rng.choice(sorted(snapshot))] = rng.choice([None, 7, "changed", {"a": 1}])
    value = canonical(snapshot)
    digest = sha256(value).hexdigest().encode()
    headers = tuple((n, digest if n == evidence.DIGEST else c) for n, c in record.headers)
    return msgspec.structs.replace(record, value=value, headers=headers)


def _forged(record: LogRecord, rng: Random) -> LogRecord:
    """A record that nobody published: with good papers, with half of them, or with none."""
    headers = list(record.headers)
    papers = rng.choice(["good", "half", "none"])
    if papers == "none":
        return LogRecord(0, record.timestamp, b"step_forged", b"{}", ())
    if papers == "half":
        kept = {evidence.SOURCE_TOPIC}
        return LogRecord(0, record.timestamp, b"step_forged", record.value, tuple(h for h in headers if h[0] in kept))
    if evidence.REASON in dict(headers):
        forged = [(n, b"0" if n == evidence.SOURCE_OFFSET else c) for n, c in headers if n != evidence.CLOCK_MARK]
        forged = [(n, b"internal_error" if n == evidence.REASON else c) for n, c in forged]
        return msgspec.structs.replace(record, headers=tuple(forged))
    forged = [h for h in headers if h[0] not in (evidence.CLOCK_MARK, evidence.INFERRED)]
    return LogRecord(0, record.timestamp, b"step_forged", record.value, tuple(forged))


def _mark(record: LogRecord, rng: Random) -> LogRecord | None:
    """Say that the clock was read elsewhere, or another time; now and then the record's timestamp with it."""
    mark = dict(record.headers).get(evidence.CLOCK_MARK)
    if mark is None:
        return None
    milliseconds, _, position = mark.partition(b"@")
    later, further = rng.choice([(0, 1), (0, 1), (1, 0), (1, 1)])
    moment = int(milliseconds) + later * rng.choice([-1000, 1, 1000])
    changed = b"%d@%d" % (moment, int(position) + further * rng.randrange(-20, 21))
    headers = tuple((n, changed if n == evidence.CLOCK_MARK else c) for n, c in record.headers)
    return msgspec.structs.replace(record, headers=headers, timestamp=rng.choice([record.timestamp, moment]))


CHANGES: Final = {"flip": _flip, "header": _header, "field": _field, "mark": _mark}
KINDS: Final = ("flip", "drop", "duplicate", "swap", "insert", "truncate", "header", "field")
"""Of the archive; on the outputs these, and what only they have."""
OUTPUT_KINDS: Final = (*KINDS, "move", "mark")


# --- mutations of the archive ---------------------------------------------------------------------------------------


def archive_lines(made: World) -> dict[int, list[bytes]]:
    return {p: [encode_line(item) for item in log] for p, log in made.logs.items()}


def mutate_archive(
    made: World, lines: dict[int, list[bytes]], rng: Random, kind: str
) -> tuple[Mutation, dict[int, bytes]] | None:
    partition = rng.choice(sorted(lines))
    log, own = made.logs[partition], list(lines[partition])
    at = rng.choice([i for i, item in enumerate(log) if isinstance(item, ArchivedRecord)])
    item = log[at]
    assert isinstance(item, ArchivedRecord)
    offset, line, tail = item.offset, at + 1, b""
    if kind == "flip":
        own[at] = _flipped(own[at], rng)
    elif kind == "drop":
        del own[at]
    elif kind == "duplicate":
        own.insert(at + 1, own[at])
    elif kind == "swap":
        others = [i for i in range(len(own)) if i != at]
        other = rng.choice(others)
        own[at], own[other] = own[other], own[at]
        line = min(at, other) + 1
        found = log[min(at, other)]
        offset = found.first if isinstance(found, Gap) else found.offset
    elif kind == "insert":
        own.insert(at, encode_line(msgspec.structs.replace(item, value=b'{"event":"thread.created","data":{}}')))
    elif kind == "truncate":
        tail = own[at][: rng.randrange(len(own[at]) - 2)]
        del own[at:]
    else:
        changed = _archive_change(item, rng, kind)
        if changed is None or changed == item:
            return None
        own[at] = encode_line(changed)
    data = {p: b"".join(own if p == partition else kept) for p, kept in lines.items()}
    data[partition] += tail
    if data[partition] == b"".join(lines[partition]):
        return None
    return Mutation("archive", kind, partition, frozenset(), frozenset(), offset, line), data


def _archive_change(item: ArchivedRecord, rng: Random, kind: str) -> ArchivedRecord | None:
    if kind == "header":
        headers = list(item.headers)
        if headers and rng.random() < 0.5:
            del headers[rng.randrange(len(headers))]
        else:
            headers.append(("runstep-event-id", b"%d" % rng.randrange(1000)))
        return msgspec.structs.replace(item, headers=tuple(headers))
    try:
        event = msgspec.json.decode(item.value or b"")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    data = event.get("data", event) if isinstance(event, dict) else None
    if not isinstance(data, dict) or not data:
        return None
    data[rng.choice(sorted(data))] = rng.choice([None, 7, "changed"])
    return msgspec.structs.replace(item, value=msgspec.json.encode(event))


# --- mutation test ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tried:
    mutation: Mutation
    found: bool
    named: bool
    how: str
    """finding, stray, hole, error or link."""


def judge_output(mutation: Mutation, heard: Heard) -> Tried:
    """Found, and the first that is told names what was changed."""
    first: dict[int, Finding] = {}
    for partition, finding in heard.findings:
        best = first.get(partition)
        if best is None or finding.cause_offset < best.cause_offset:
            first[partition] = finding
    strays = [stray for stray in heard.strays if stray in mutation.places]
    named = [f for f in first.values() if _is_named(mutation, f)]
    how = "finding" if heard.findings else "stray"
    found = bool(heard.findings or heard.strays)
    if mutation.took_mark:
        told = any(_is_named(mutation, f) for _, f in heard.findings) or bool(strays)
        return Tried(mutation, found, told or all(f.cause_offset >= mutation.offset for f in first.values()), how)
    return Tried(mutation, found, bool(strays or len(named) == len(first) > 0), how)


def _is_named(mutation: Mutation, finding: Finding) -> bool:
    if finding.verdict is Verdict.OUT_OF_ORDER and any(f" {name} (" in finding.why for name in mutation.names):
        return True
    return finding.identity[0] in mutation.names or finding.at in mutation.places


def judge_archive(mutation: Mutation, heard: Heard, links: dict[int, list[BlockDigest]]) -> Tried:
    """Found, nothing before the changed offset is blamed, and the first block that differs is the one that holds it."""
    if heard.error:
        lines = [f"source-{mutation.partition}.jsonl line {n}:" for n in (mutation.line, mutation.line + 1)]
        return Tried(mutation, True, any(line in heard.error for line in lines), "error")
    differ = {p: {*own} ^ {*heard.links[p]} for p, own in links.items()}
    first = min(differ[mutation.partition], key=lambda link: link.first, default=None)
    named = first is not None and first.first <= mutation.offset <= first.last
    named = named and not any(found for p, found in differ.items() if p != mutation.partition)
    if heard.holes:
        return Tried(mutation, True, named and heard.holes[0] == (mutation.partition, mutation.offset), "hole")
    if heard.findings:
        own = [f for p, f in heard.findings if p == mutation.partition]
        named = named and len(own) == len(heard.findings) and all(f.cause_offset >= mutation.offset for f in own)
        return Tried(mutation, True, named, "finding")
    return Tried(mutation, first is not None, named, "link")


def run_mutations(
    mutations: int, seed: int, work: Path, per_world: int = 25, honest: Counter[str] | None = None
) -> Iterator[Tried]:
    """Mutate and judge. Every `per_world` mutations there is another log.

    Args:
        honest: counts, by kind, the changes that were no untruth; they come on top of `mutations`.
    """
    honest = Counter() if honest is None else honest
    rng = Random(seed)
    done = 0
    while done < mutations:
        made = world(rng.randrange(1 << 30))
        untouched = hear(made, work)
        assert untouched.is_silent(), untouched.findings[:3]
        lines = archive_lines(made)
        whole = hear_archive(made, work, {p: b"".join(own) for p, own in lines.items()})
        assert whole.is_silent(), (whole.error, whole.holes, whole.findings[:3])
        assert whole.links == untouched.links
        for _ in range(min(per_world, mutations - done)):
            yield _one(made, lines, untouched.links, rng, work, honest)
            done += 1


def _one(
    made: World,
    lines: dict[int, list[bytes]],
    links: dict[int, list[BlockDigest]],
    rng: Random,
    work: Path,
    honest: Counter[str],
) -> Tried:
    while True:
        target = rng.choice(["published", "published", "dead", "archive"])
        kind = rng.choice(KINDS if target == "archive" else OUTPUT_KINDS)
        if target == "archive":
            changed = mutate_archive(made, lines, rng, kind)
            if changed is not None:
                mutation, data = changed
                return judge_archive(mutation, hear_archive(made, work, data), links)
            continue
        topics = deepcopy(made.topics)
        done = mutate_output(topics, rng, kind, dead=target == "dead")
        if done is None:
            continue
        heard = hear(World(made.logs, made.ends, topics), work)
        if not could_be(made, topics):
            return judge_output(done, heard)
        honest[f"{done.target} {kind}"] += 1
        if not heard.is_silent():
            return Tried(done, True, False, "accused without a reason")


def table(tried: Sequence[Tried]) -> str:
    """Rows of target and kind: how many, found, named, and by what."""
    rows: dict[tuple[str, str], list[Tried]] = {}
    for one in tried:
        rows.setdefault((one.mutation.target, one.mutation.kind), []).append(one)
    out = [f"{'target':<13} {'mutation':<10} {'tried':>6} {'found':>6} {'named':>6}  by"]
    for (target, kind), own in sorted(rows.items()):
        by = Counter(one.how for one in own if one.found)
        told = ", ".join(f"{how} {n}" for how, n in sorted(by.items()))
        found, named = sum(one.found for one in own), sum(one.named for one in own)
        out.append(f"{target:<13} {kind:<10} {len(own):>6} {found:>6} {named:>6}  {told}")
    found, named = sum(one.found for one in tried), sum(one.named for one in tried)
    out.append(f"{'all':<24} {len(tried):>6} {found:>6} {named:>6}")
    return "\n".join(out)


def untouched_ranges(number: int, seed: int, work: Path) -> Iterator[tuple[tuple[int, int, int], Heard]]:
    """Ranges of all shapes over honest output; yields (partition, begin, end) and what was said."""
    rng = Random(seed)
    made = world(rng.randrange(1 << 30))
    for at in range(number):
        if at % 20 == 19:
            made = world(rng.randrange(1 << 30))
        partition = rng.randrange(PARTITIONS)
        whole = made.ends[partition]
        begin = rng.choice([0, 0, rng.randrange(whole)])
        end = rng.choice([whole, begin, rng.randrange(begin, whole + 1), rng.randrange(begin, whole + 1)])
        yield (partition, begin, end), hear(made, work, begin=begin, end=end, partitions=[partition])


def main() -> int:
    parser = argparse.ArgumentParser(description="The mutation test of the audit.")
    parser.add_argument("--mutations", type=int, default=1000)
    parser.add_argument("--untouched", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        accused = [
            (
                where,
                [(p, f.verdict.value, f.identity) for p, f in heard.findings if f.verdict is not Verdict.UNVERIFIABLE],
            )
            for where, heard in untouched_ranges(asked.untouched, asked.seed, work)
        ]
        accused = [(where, found) for where, found in accused if found]
        honest: Counter[str] = Counter()
        tried = list(run_mutations(asked.mutations, asked.seed, work, honest=honest))
    told = ", ".join(f"{kind} {n}" for kind, n in sorted(honest.items())) or "none"
    lines = [
        table(tried),
        f"no untruth, and not accused: {told}",
        f"untouched ranges: {asked.untouched}, wrongly accused: {len(accused)}",
    ]
    lines += [f"  {where}: {found[:3]}" for where, found in accused[:5]]
    missed = [one for one in tried if not (one.found and one.named)]
    lines += [f"  missed or misnamed: {one}" for one in missed[:10]]
    sys.stdout.write("\n".join(lines) + "\n")
    return 1 if missed or accused else 0


if __name__ == "__main__":
    sys.exit(main())
