"""Right output is never accused: whatever part of a log is replayed, what it cannot decide is unverifiable.

A log of any kind is folded by a worker that saw all of it, clock marks included; then parts of it, with holes or
without, are audited against all that was published. What the audit takes for granted is what CLOCK_SKEW_S says: no
record is stamped, and no step said to be created, further off the common clock; and an id is one step's alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import msgspec

from processor.audit.expected_records import ExpectedRecords
from processor.audit.judge.partition_audit import PartitionAudit
from processor.audit.judge.settled import CLOCK_SKEW_S
from processor.audit.judge.verdicts import DISAGREES, Finding
from processor.audit.published_index import FileIndex, IndexWriter
from processor.audit.replay.task_judge import expected_records
from processor.core.effects import Effect, LogRecord
from processor.core.partition import PartitionState
from processor.core.rules import Rules
from tests.core.scripted_log import text
from tests.shell import mutations

SOURCE = mutations.SOURCE
BASE_S = 10_000
SEEDS = (*range(150), 241, 462)
"""The last two are logs in which steps are refused for want of room, by the worker and by the audit's own fold."""
BORN_EVERY_S = 15
"""A step is known from its number on; who names it earlier has a clock that nobody has."""

CROWDED = Rules(
    grace_s=2, max_age_s=60, ended_retention_s=20, ended_retention_records=12, max_step_bytes=900, max_open_steps=3
)  # fmt: skip
LOOSE = msgspec.structs.replace(CROWDED, max_open_steps=1_000, ended_retention_records=1_000)
SHORT = msgspec.structs.replace(LOOSE, max_record_bytes=700)


class Made(NamedTuple):
    """A log and what was published of it."""

    rules: Rules
    log: list[LogRecord]
    topics: dict[tuple[str, int], list[LogRecord]]
    end: int


# --- logs -------------------------------------------------------------------------------------------------------------


class Manner(NamedTuple):
    """How the events of a log are: steps to a run, how often each kind comes, deadlines and pauses in seconds."""

    per_run: int
    weights: tuple[int, ...]
    expire_in: tuple[int, ...]
    pauses: tuple[int, ...]


def manner(rng: Random) -> Manner:
    return Manner(
        rng.choice([2, 2, 10, 40]),
        rng.choice([(4, 2, 4, 3, 1, 2, 1), (4, 1, 1, 1, 0, 3, 0), (6, 1, 2, 1, 0, 0, 1)]),
        rng.choice([(-5, 10, 30, 200, 5_000), (30,), (5_000,)]),
        rng.choice([(0, 0, 1, 5, 15, 40), (5, 15), (0, 10, 20)]),
    )


def event(rng: Random, now_s: int, how: Manner) -> dict[str, Any]:
    """One event at a moment: of a step that exists by then, mostly a recent one."""
    latest = (now_s - BASE_S) // BORN_EVERY_S
    number = max(0, latest - rng.choice([0, 0, 1, 1, 2, 3, 5, 9]))
    step_id, run_id = f"s{number}", f"r{number // how.per_run}"
    (kind,) = rng.choices(["created", "in_progress", "delta", "completed", "failed", "run", "bad"], weights=how.weights)
    if kind == "run":
        status = rng.choice(["completed", "failed", "cancelled"])
        return {"event": f"thread.run.{status}", "data": {"id": run_id, "object": "thread.run", "status": status}}
    if kind in ("delta", "bad"):
        call = {
            "index": -1 if kind == "bad" else rng.randrange(2),
            "type": "function",
            "function": {"arguments": rng.choice(["a", "bc", "x" * 150, "y" * 500])},
        }
        details = {"type": "tool_calls", "tool_calls": [call]}
        return {"event": "thread.run.step.delta", "data": {"id": step_id, "delta": {"step_details": details}}}
    data: dict[str, Any] = {
        "id": step_id,
        "object": "thread.run.step",
        "run_id": rng.choice([run_id, run_id, None]),
        "status": "in_progress" if kind == "created" else kind,
        "usage": rng.choice([None, {"n": 1}, {"n": 2}]),
    }
    if rng.random() < 0.8:
        data["created_at"] = rng.choice([BASE_S + number * BORN_EVERY_S] * 8 + [None, "x"])
    if rng.random() < 0.5:
        data["expires_at"] = now_s + rng.choice(how.expire_in)
    if rng.random() < 0.3:
        data["type"] = rng.choice(["tool_calls", "message_creation"])
    return {"event": f"thread.run.step.{kind}", "data": data}


def response_event(rng: Random, now_s: int, numbers: dict[str, int]) -> tuple[bytes, bytes]:
    """The key and the value of one event of a response, mostly a recent one: few items, numbers nearly in order."""
    latest = (now_s - BASE_S) // BORN_EVERY_S
    key = f"resp_{max(0, latest - rng.choice([0, 0, 1, 1, 2, 3, 5, 9, 20])) // 3}"
    kind = rng.choice(["created", *["output_item.added"] * 3, *["output_item.done"] * 3, *["delta"] * 4, "completed"])
    where = {"output_index": rng.randrange(2), "content_index": 0, "item_id": rng.choice(["", "i1", "i2"])}
    item = {"type": "message", "id": where["item_id"], "content": [{"type": "output_text", "text": rng.choice("ab")}]}
    event: dict[str, Any] = {"type": f"response.{kind}"}
    if kind in ("created", "completed"):
        # Now and then another response has the key.
        event["response"] = {"id": key, "output": [item] * rng.randrange(4), "created_at": rng.choice([7, 7, 7, 8])}
    elif kind == "delta":
        event |= where | {"type": "response.output_text.delta", "delta": rng.choice("ab")}
    else:
        event |= {"output_index": where["output_index"], "item": item}
    numbers[key] = number = max(0, numbers.get(key, -1) + rng.choice([1, 1, 1, 1, 2, 0, -2]))
    if rng.random() < 0.9:
        event["sequence_number"] = number
    return key.encode(), text(event)


def value(rng: Random, now_s: int, manner: Manner) -> bytes | None:
    one = text(event(rng, now_s, manner))
    (how,) = rng.choices(["one", "frames", "garbage", "nothing"], weights=[8, 1, 1, 1])
    if how == "frames":
        return b"data: " + one + b"\n\ndata: " + text(event(rng, now_s, manner)) + b"\n\n"
    return {"one": one, "garbage": b"{", "nothing": None}[how]


def world(rng: Random, responses: float = 0.0) -> Made:
    """Make a log, and what was published of it; `responses` is the share of the log that is of the Responses API."""
    rules = rng.choice([CROWDED, LOOSE, LOOSE, SHORT])
    state = PartitionState(SOURCE, 0, rules)
    places = places_under(rules)
    log: list[LogRecord] = []
    topics: dict[tuple[str, int], list[LogRecord]] = {}

    def publish(effects: list[Effect]) -> None:
        for effect in effects:
            placed = places.whole(effect)
            if placed is not None:
                out = topics.setdefault((placed.topic, placed.partition or 0), [])
                out.append(LogRecord(len(out), placed.timestamp, placed.key, placed.value, tuple(placed.headers)))

    now_s, offset, how, numbers = BASE_S, 0, manner(rng), dict[str, int]()
    for _ in range(rng.randrange(20, 120)):
        now_s += rng.choice(how.pauses)
        offset += rng.choice([1, 1, 1, 1, 3])
        timestamp = (now_s - rng.choice([0, 0, 0, 20, CLOCK_SKEW_S - 1])) * 1000
        headers = rng.choice([(), (), (("runstep-event-id", b"e1"),)])
        if responses and rng.random() < responses:
            record = LogRecord(offset, timestamp, *response_event(rng, now_s, numbers), headers)
        else:
            record = LogRecord(offset, timestamp, b"k", value(rng, now_s, how), headers)
        log.append(record)
        publish(state.apply([record]))
        due = state.next_due_ms()
        may_mark = due is not None and state.stream_time <= due <= now_s * 1000
        if may_mark and rng.random() < 0.5:
            assert due is not None
            publish(state.advance(due))
    return Made(rules, log, topics, offset + 1)


def part(rng: Random, end: int) -> tuple[int, int, tuple[int, int] | None]:
    """A range, and perhaps a hole in it."""
    begin = rng.choice([0, rng.randrange(end), rng.randrange(end)])
    behind = rng.choice([end, end, rng.randint(begin, end)])
    if behind - begin < 3 or rng.random() < 0.6:
        return begin, behind, None
    first = rng.randrange(begin, behind)
    return begin, behind, (first, rng.randrange(first, behind))


def places_under(rules: Rules) -> ExpectedRecords:
    return expected_records(msgspec.structs.replace(mutations.task_of(mutations.World({}, {0: 0}, {}), 0), rules=rules))


# --- what an audit says -----------------------------------------------------------------------------------------------


def shelved(made: Made, work: Path) -> None:
    with IndexWriter(work, SOURCE, 1, frozenset({0})) as shelves:
        for (topic, partition), out in sorted(made.topics.items()):
            for record in out:
                shelves.put(topic, partition, record, dead_letters=topic == mutations.DEAD)


def shortened(rng: Random, made: Made) -> tuple[Made, dict[tuple[str, int], int]]:
    """The same after retention has taken the first records of some topics of the output; with what is first there."""
    cuts = {place: rng.randint(1, len(out)) for place, out in sorted(made.topics.items()) if out and rng.random() < 0.5}
    return made._replace(topics={place: out[cuts.get(place, 0) :] for place, out in made.topics.items()}), cuts


def audited(
    made: Made,
    work: Path,
    begin: int,
    end: int,
    lost: tuple[int, int] | None = None,
    batch: int = 7,
    cuts: Mapping[tuple[str, int], int] | None = None,
) -> list[Finding]:
    """What is said of [begin, end) without the offsets `lost` (inclusive), given what is shelved in `work`."""

    def state(offset: int, now: int) -> PartitionState:
        return PartitionState(SOURCE, 0, made.rules, next_offset=offset, live_from=offset, stream_time=now)

    places = places_under(made.rules)
    found: list[Finding] = []
    with FileIndex(work, 0) as index:
        audit = PartitionAudit(
            state, index, places.whole, begin=begin, end=end, complete=begin == 0, log_end=made.end,
            shortened=places.shortened, kept_from=index.kept_from(cuts or {}), dead_letter=mutations.DEAD,
            expired=mutations.OUTCOMES["expired"],
        )  # fmt: skip
        records = [r for r in made.log if begin <= r.offset < end]
        before = [r for r in records if lost is None or r.offset < lost[0]]
        behind = [r for r in records if lost is not None and r.offset > lost[1]]
        for piece in (before, behind):
            for at in range(0, len(piece), batch):
                found += [finding for _, finding in audit.apply(piece[at : at + batch])]
            if piece is before and lost is not None:
                found += [finding for _, finding in audit.lost(*lost)]
        found += [finding for _, finding in audit.finish()]
    return found


def accusations(seeds: Iterable[int], folder: Path, responses: float = 0.0) -> Iterator[tuple[Any, list[Finding]]]:
    for seed in seeds:
        rng = Random(seed)
        made = world(rng, responses)
        shelved(made, folder)
        for _ in range(6):
            where = part(rng, made.end)
            found = audited(made, folder, *where)
            yield (seed, *where), [finding for finding in found if finding.verdict in DISAGREES]


def test_no_part_of_a_log_accuses_right_output(tmp_path: Path) -> None:
    for where, accused in accusations(SEEDS, tmp_path):
        assert not accused, (where, accused[:2])


def test_no_part_of_a_log_of_responses_accuses_right_output(tmp_path: Path) -> None:
    """Responses live on over the cut, are named again behind their end, and are forgotten and begun anew."""
    for where, accused in accusations(SEEDS, tmp_path, responses=0.9):
        assert not accused, (where, accused[:2])


def test_what_retention_took_of_the_output_accuses_nothing_that_is_left(tmp_path: Path) -> None:
    """With the first expired steps went their clock marks, with the first dead letters what tells of refusals."""
    for seed in SEEDS:
        rng = Random(seed)
        made, cuts = shortened(rng, world(rng))
        shelved(made, tmp_path)
        for _ in range(3):
            where = part(rng, made.end)
            found = audited(made, tmp_path, *where, cuts=cuts)
            assert not (accused := [finding for finding in found if finding.verdict in DISAGREES]), (
                seed,
                where,
                accused[:2],
            )


def test_a_part_from_mid_log_still_tells_wrong_output_from_right(tmp_path: Path) -> None:
    """What a step needs to be judged there: that it was created behind the lead-in."""
    told = Counter[str]()
    for seed in range(60):
        rng = Random(seed)
        made = world(rng)
        place = rng.choice(sorted(place for place in made.topics if place[0] != mutations.DEAD))
        at = rng.randrange(len(made.topics[place]))
        taken = made.topics[place].pop(at)
        shelved(made, tmp_path)
        for finding in audited(made, tmp_path, rng.randrange(1, made.end // 4), made.end):
            assert finding.verdict not in DISAGREES or finding.identity[0] == (taken.key or b"").decode()
            told[finding.verdict.value] += 1
    assert told["missing"] > 10, told
