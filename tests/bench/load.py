"""The standard job: interleaved runs of tool-call steps as the wire has them, and what must come out of them.

Deterministic by seed. About 300 bytes an event: a `created`, an `in_progress`, some twenty deltas and an end to a step;
one step in ten is a message and has no deltas, one in a thousand is followed by a second, illegal end.
The ending object names its calls and leaves their arguments null: only a fold can publish them.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import msgspec
from aiokafka.record._crecords import DefaultRecordBatchBuilder, MemoryRecords

from processor.core.effects import Record
from processor.kafka.records import murmur2

BEGIN_S: Final = 1_720_000_000
DEAD: Final = "dead"

_WORDS: Final = (
    "amount", "celsius", "city", "currency", "2024-06-01", "false", "invoice", "limit", "Łódź", "null", "order",
    "paris", "price", "query", "region", "station", "status", "true", "weather", "42",
)  # fmt: skip
_ENDS: Final = (("completed", 0.94), ("failed", 0.03), ("cancelled", 0.02), ("expired", 0.01))

_encode: Final = msgspec.json.Encoder().encode


class Made(NamedTuple):
    """One record of the job. `timestamp` in milliseconds."""

    partition: int
    timestamp: int
    key: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class Job:
    """How much of what.

    Args:
        events: at least so many; the last run is played to its end.
        open_runs: runs under way at a time, one open step in each.
        deltas: of a tool step on average; half as many to half as many again.
        illegal, message: shares of the steps.
        per_s: events per second of record time.
    """

    events: int
    seed: int = 1
    partitions: int = 8
    open_runs: int = 2_000
    deltas: int = 20
    illegal: float = 0.001
    message: float = 0.1
    per_s: int = 10_000


@dataclass(slots=True)
class Expected:
    """What must be published: counts by status, and one line per step."""

    events: int = 0
    bytes: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    lines: list[str] = field(default_factory=list)

    def ended(self, status: str, step_id: str, arguments: list[str]) -> None:
        self.counts[status] += 1
        self.lines.append(line(status, step_id, arguments))


def line(status: str, step_id: str, arguments: list[str]) -> str:
    return f"{status} {step_id} {json.dumps(arguments)}"


def records(job: Job, expected: Expected) -> Iterator[Made]:
    """Yield the job's records in the order of their production; fills `expected` on the way."""
    rng = random.Random(job.seed)
    pieces = [_piece(rng) for _ in range(512)]
    live: list[tuple[bytes, int, Iterator[bytes]]] = []
    begun = number = 0

    def begin() -> tuple[bytes, int, Iterator[bytes]]:
        nonlocal begun
        key = f"run_{rng.getrandbits(96):024x}".encode()
        values = list(_run(rng, job, key.decode(), pieces, BEGIN_S + begun // job.per_s, expected))
        begun += len(values)
        return key, (murmur2(key) & 0x7FFFFFFF) % job.partitions, iter(values)

    while live or begun < job.events:
        while len(live) < job.open_runs and begun < job.events:
            live.append(begin())
        at = int(rng.random() * len(live))
        key, partition, values = live[at]
        value = next(values, None)
        if value is None:
            live[at] = live[-1]
            live.pop()
            continue
        expected.events += 1
        expected.bytes += len(value)
        yield Made(partition, BEGIN_S * 1000 + number * 1000 // job.per_s, key, value)
        number += 1


def _piece(rng: random.Random) -> tuple[str, str]:
    """A piece of a JSON argument string (with quotes, so that escapes are met), and as it stands inside JSON."""
    text = ", ".join(f'"{rng.choice(_WORDS)}": "{rng.choice(_WORDS)}"' for _ in range(rng.randint(1, 3)))
    return text, json.dumps(text, ensure_ascii=False)[1:-1]


def _run(
    rng: random.Random, job: Job, run_id: str, pieces: list[tuple[str, str]], at_s: int, expected: Expected
) -> Iterator[bytes]:
    thread_id = f"thread_{rng.getrandbits(96):024x}"
    for _ in range(rng.randint(1, 4)):
        yield from _step(rng, job, run_id, thread_id, pieces, at_s, expected)


def _step(
    rng: random.Random,
    job: Job,
    run_id: str,
    thread_id: str,
    pieces: list[tuple[str, str]],
    at_s: int,
    expected: Expected,
) -> Iterator[bytes]:
    step_id = f"step_{rng.getrandbits(96):024x}"
    is_message = rng.random() < job.message
    kind = "message_creation" if is_message else "tool_calls"
    opened: dict[str, Any] = {"type": kind, "tool_calls": []}
    if is_message:
        opened = {"type": kind, "message_creation": {"message_id": "msg_" + step_id[5:]}}
    stated = {
        "id": step_id, "object": "thread.run.step", "created_at": at_s, "assistant_id": "asst_7c1f0a5be2d84f6f9b21c3aa",
        "thread_id": thread_id, "run_id": run_id, "type": kind, "status": "in_progress", "step_details": opened,
        "last_error": None, "expires_at": at_s + 600, "cancelled_at": None, "failed_at": None, "completed_at": None,
        "usage": None,
    }  # fmt: skip
    yield event("created", stated)
    yield event("in_progress", stated)
    count = 0 if is_message else max(1, job.deltas + rng.randint(-job.deltas // 2, job.deltas // 2))
    second = count // 2 if count >= 4 and rng.random() < 0.3 else count  # where a parallel call begins
    calls: list[tuple[str, list[str]]] = []
    for n in range(count):
        index = int(n >= second)
        text, escaped = pieces[int(rng.random() * len(pieces))]
        if index == len(calls):
            calls.append((f"call_{rng.getrandbits(96):024x}", []))
        calls[index][1].append(text)
        yield delta(step_id, index, escaped, calls[index][0] if len(calls[index][1]) == 1 else None)
    status = rng.choices([s for s, _ in _ENDS], [share for _, share in _ENDS])[0]
    functions = [
        {"id": c, "type": "function", "function": {"name": "look_up", "arguments": None, "output": None}}
        for c, _ in calls
    ]
    ending = stated | {
        "step_details": opened if is_message else {"type": kind, "tool_calls": functions},
        "usage": {"prompt_tokens": 300 + count, "completion_tokens": 40 + count, "total_tokens": 340 + 2 * count},
        "last_error": {"code": "server_error", "message": "Something went wrong."} if status == "failed" else None,
    }
    if status != "expired":
        ending[f"{status}_at"] = at_s + 30
    expected.ended(status, step_id, ["".join(texts) for _, texts in calls])
    yield event(status, ending | {"status": status})
    if rng.random() < job.illegal:
        other = rng.choice([s for s, _ in _ENDS if s != status])
        expected.counts[DEAD] += 1
        yield event(other, ending | {"status": other})


def event(name: str, data: Mapping[str, Any]) -> bytes:
    return _encode({"event": f"thread.run.step.{name}", "data": data})


def delta(step_id: str, index: int, escaped: str, call_id: str | None) -> bytes:
    """A function call's delta; with `call_id` the one that begins it."""
    head, name = ("", "") if call_id is None else (f'"id":"{call_id}",', '"name":"look_up",')
    return (
        f'{{"event":"thread.run.step.delta","data":{{"id":"{step_id}","object":"thread.run.step.delta","delta":'
        f'{{"step_details":{{"type":"tool_calls","tool_calls":[{{"index":{index},{head}"type":"function","function":'
        f'{{{name}"arguments":"{escaped}"}}}}]}}}}}}}}'
    ).encode()


def as_fetched(values: Iterable[tuple[int, bytes, bytes]]) -> list[Record]:
    """(timestamp, key, value) as the record objects that the client's fast path hands over: offsets from 0."""
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1 << 30)
    for offset, (timestamp, key, value) in enumerate(values):
        builder.append(offset, timestamp, key, value, [])
    fetched: list[Record] = list(MemoryRecords(bytes(builder.build())).next_batch())
    return fetched
