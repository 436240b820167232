"""Forgeries by one who knows the code and can write, or rewrite, what stands on the output topics."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from hashlib import sha256
from random import Random
from typing import Final

import msgspec

from processor.archives import ArchivedRecord
from processor.core import headers as evidence
from processor.core.effects import FOLD_VERSION, LogRecord
from processor.core.partition import PartitionState
from processor.core.wire_types import canonical
from tests.shell.mutations import DEAD, OUTCOMES, OUTPUTS, RULES, SOURCE, Place, Topics, World, _folded, _placed_of

Forge = Callable[[World, Topics, Random], bool]
"""Changes the topics; whether that could be done."""

NAMES: Final = (
    evidence.SOURCE_TOPIC, evidence.SOURCE_PARTITION, evidence.FIRST_OFFSET, evidence.LAST_OFFSET, evidence.EVENTS,
    evidence.REVISION, evidence.VERSION, evidence.RULES, evidence.DIGEST, evidence.INFERRED, evidence.ANOMALIES,
    evidence.REASON, evidence.DETAIL, evidence.SOURCE_OFFSET, evidence.SOURCE_TIMESTAMP, evidence.ATTEMPT,
    evidence.CLOCK_MARK, evidence.EVENT_NUMBER, "traceparent", "tracestate",
)  # fmt: skip
_CONTENTS: Final = (
    b"", None, b"0", b"1", b"-1", b"7", b"99999999999999999999", b"\xff", b"events", b"EVENTS", b"other", b"e vents",
    b"0123456789abcdef", b"completed", b"deadline", b"%d" % (FOLD_VERSION - 1), b"%d" % (FOLD_VERSION + 1), b"5@0",
)  # fmt: skip


def _pick(topics: Topics, rng: Random, *, steps: bool = False) -> tuple[Place, int, LogRecord]:
    place = rng.choice([p for p, log in sorted(topics.items()) if log and not (steps and p[0] == DEAD)])
    at = rng.randrange(len(topics[place]))
    return place, at, topics[place][at]


def _put(topics: Topics, place: Place, record: LogRecord, at: int | None = None) -> None:
    log = topics.setdefault(place, [])
    log.insert(len(log) if at is None else at, record)


def _with(record: LogRecord, name: str, content: bytes | None) -> LogRecord:
    if not any(n == name for n, _ in record.headers):
        return msgspec.structs.replace(record, headers=(*record.headers, (name, content)))
    headers = tuple((n, content if n == name else c) for n, c in record.headers)
    return msgspec.structs.replace(record, headers=headers)


def _lying(record: LogRecord, rng: Random) -> LogRecord:
    """The record with another snapshot, and the digest of it."""
    try:
        snapshot = msgspec.json.decode(record.value or b"")
        snapshot[rng.choice(sorted(snapshot))] = rng.choice([7, "changed", {"a": 1}])
    except (msgspec.MsgspecError, TypeError, IndexError, UnicodeDecodeError, RecursionError):
        return msgspec.structs.replace(record, value=b'{"forged":1}')
    value = canonical(snapshot)
    return _with(msgspec.structs.replace(record, value=value), evidence.DIGEST, sha256(value).hexdigest().encode())


def header(made: World, topics: Topics, rng: Random) -> bool:
    """Any header: another content, taken away, doubled in front or behind; in place, or on a copy."""
    place, at, record = _pick(topics, rng)
    name, content = rng.choice(NAMES), rng.choice(_CONTENTS)
    how = rng.choice(["set", "set", "remove", "first", "last"])
    if how == "set":
        changed = _with(record, name, content)
    elif how == "remove":
        changed = msgspec.structs.replace(record, headers=tuple(h for h in record.headers if h[0] != name))
    elif how == "first":
        changed = msgspec.structs.replace(record, headers=((name, content), *record.headers))
    else:
        changed = msgspec.structs.replace(record, headers=(*record.headers, (name, content)))
    if changed == record:
        return False
    if rng.random() < 0.5:
        topics[place][at] = changed
    else:
        _put(topics, place, changed)
    return True


def claim(made: World, topics: Topics, rng: Random) -> bool:
    """A lie that claims to be of another source, partition, fold or settings; beside the honest record or instead."""
    place, at, record = _pick(topics, rng, steps=True)
    name, content = rng.choice(
        [
            (evidence.SOURCE_TOPIC, rng.choice([b"other", b"", None, b"EVENTS", b"..", b"x" * 300])),
            (evidence.SOURCE_PARTITION, rng.choice([b"0", b"1", b"77", b"2147483648"])),
            (evidence.RULES, rng.choice([b"0123456789abcdef", b"", b"ffffffffffffffff"])),
            (evidence.VERSION, rng.choice([b"%d" % (FOLD_VERSION - 1), b"%d" % (FOLD_VERSION + 1), b"0", b"99"])),
        ]
    )
    forged = _with(_lying(record, rng), name, content)
    if rng.random() < 0.5:
        topics[place][at] = forged
    else:
        _put(topics, place, forged, rng.choice([None, at, at + 1]))
    return True


def mark(made: World, topics: Topics, rng: Random) -> bool:
    """A clock mark at any position and time, on a forged copy of any record or on the record itself."""
    place, at, record = _pick(topics, rng)
    partition = int(dict(record.headers).get(evidence.SOURCE_PARTITION) or b"0")
    end = made.ends[partition]
    headers = dict(record.headers)
    first = int(headers.get(evidence.FIRST_OFFSET) or headers.get(evidence.SOURCE_OFFSET) or b"0")
    position = rng.choice([0, 1, first, first + 1, rng.randrange(end + 1), end, end + 1, end + 1000])
    milliseconds = rng.choice([0, record.timestamp, record.timestamp + rng.randrange(10**7), 10**15])
    changed = _with(record, evidence.CLOCK_MARK, b"%d@%d" % (milliseconds, position))
    changed = msgspec.structs.replace(changed, timestamp=rng.choice([record.timestamp, milliseconds]))
    if rng.random() < 0.3:
        topics[place][at] = changed
    else:
        _put(topics, place, changed)
    return True


def expiry(made: World, topics: Topics, rng: Random) -> bool:
    """The expiry of an open step, exactly as the worker would publish it, at a place where no clock mark was set."""
    partition = rng.choice(sorted(made.ends))
    log = [item for item in made.logs[partition] if isinstance(item, ArchivedRecord)]
    cut = rng.randrange(1, len(log) + 1)
    state = PartitionState(SOURCE, partition, RULES)
    try:
        _folded(partition, log[:cut], log[cut - 1].offset + 1, topics, state)
        due = state.next_due_ms()
        if due is None:
            return False
        effects = state.advance(due)
    except ValueError:
        return False
    for effect in effects:
        placed = _placed_of(partition, effect)
        if placed is not None:
            to = (placed.topic, rng.randrange(OUTPUTS) if placed.partition is None else placed.partition)
            _put(topics, to, LogRecord(0, placed.timestamp, placed.key, placed.value, tuple(placed.headers)))
    return bool(effects)


def offsets(made: World, topics: Topics, rng: Random) -> bool:
    """A record that names other offsets: before the log, behind it, of another step's, first behind last."""
    place, _, record = _pick(topics, rng)
    end = max(made.ends.values())
    for name in rng.sample([evidence.FIRST_OFFSET, evidence.LAST_OFFSET, evidence.SOURCE_OFFSET], k=rng.randint(1, 3)):
        if name in dict(record.headers):
            record = _with(record, name, b"%d" % rng.choice([0, end - 1, end, end + 5, rng.randrange(end), 10**12]))
    _put(topics, place, rng.choice([record, _lying(record, rng)]))
    return True


def step(made: World, topics: Topics, rng: Random) -> bool:
    """A step that never was, a further revision, or a lie in the place of what was published."""
    place, at, record = _pick(topics, rng, steps=True)
    how = rng.choice(["new", "revision", "lie", "status"])
    if how == "new":
        _put(topics, place, msgspec.structs.replace(record, key=b"step_forged"))
    elif how == "revision":
        _put(topics, place, _with(_lying(record, rng), evidence.REVISION, b"%d" % rng.choice([1, 2, 9])))
    elif how == "lie":
        topics[place][at] = _lying(record, rng)
    else:
        _put(topics, (rng.choice(sorted(OUTCOMES.values())), place[1]), topics[place].pop(at))
    return True


def order(made: World, topics: Topics, rng: Random) -> bool:
    """Records dropped, doubled, swapped or moved."""
    place, at, record = _pick(topics, rng)
    how = rng.choice(["drop", "double", "swap", "move"])
    if how in ("drop", "move"):
        del topics[place][at]
    if how == "double":
        _put(topics, place, record, rng.randrange(len(topics[place]) + 1))
    elif how == "move":
        other = rng.choice([(topic, p) for topic in (*OUTCOMES.values(), DEAD) for p in range(OUTPUTS)])
        _put(topics, other, record, rng.randrange(len(topics.get(other, [])) + 1))
    elif how == "swap":
        other_at = rng.randrange(len(topics[place]))
        log = topics[place]
        log[at], log[other_at] = log[other_at], log[at]
    return True


def mixture(made: World, topics: Topics, rng: Random) -> bool:
    """Of two honest outputs of one log, with clock marks at other places: some records of each, or all of both."""
    partition = rng.choice(sorted(made.ends))
    log = [item for item in made.logs[partition] if isinstance(item, ArchivedRecord)]
    state, own = PartitionState(SOURCE, partition, RULES), []
    for record in log:
        own += state.apply([record])
        due = state.next_due_ms()
        if due is not None and due >= state.stream_time and rng.random() < 0.03:
            own += state.advance(due)
    there = {(place[0], r.timestamp, r.key, r.value, r.headers) for place, records in topics.items() for r in records}
    changed = False
    for effect in own:
        placed = _placed_of(partition, effect)
        if placed is None or rng.random() < 0.3:
            continue
        content = (placed.topic, placed.timestamp, placed.key, placed.value, tuple(placed.headers))
        if content not in there:
            to = (placed.topic, rng.randrange(OUTPUTS) if placed.partition is None else placed.partition)
            _put(topics, to, LogRecord(0, *content[1:]))
            changed = True
    return changed


KINDS: Final[dict[str, Forge]] = {
    one.__name__: one for one in (header, claim, mark, expiry, offsets, step, order, mixture)
}


def forged(made: World, rng: Random, kind: str) -> World | None:
    """The world with one forgery (now and then with a second one); None if it cannot be done there."""
    topics = deepcopy(made.topics)
    if not KINDS[kind](made, topics, rng):
        return None
    if rng.random() < 0.1:
        KINDS[rng.choice(sorted(KINDS))](made, topics, rng)
    topics = {place: [msgspec.structs.replace(r, offset=n) for n, r in enumerate(log)] for place, log in topics.items()}
    return World(made.logs, made.ends, topics)
