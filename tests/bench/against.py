"""`make bench BASE=<revision>`: the core of this tree beside that of another one, both compiled, in turn, as ratios.

Each revision is built into a wheel of its own; the same encoded batches go through both, in fresh processes that take
turns.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import islice
from math import isnan, nan
from os import environ
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Final

from aiokafka.record._crecords import DefaultRecordBatchBuilder

from tests.bench import load, recorded_job
from tests.bench.apply_batches import BATCH
from tests.bench.recorded_job import Made, PublishedIds, step_object, token, tool_delta, wire_record
from tests.bench.responses_job import response_record, responses, text_delta
from tests.source_archive import unpack_archive

ROOT: Final = Path(__file__).parents[2]
CHILD: Final = Path(__file__).parent / "apply_batches.py"
THIS: Final = "this tree"
_STEPS: Final = 200
_TAUGHT: Final = 100
_ENDED: Final = (
    ("function", False),
    ("function", True),
    ("mcp", False),
    ("mcp", True),
    ("code_interpreter", False),
    ("code_interpreter", True),
    ("message", False),
)
"""Steps by their tool, and whether the object that ends them names their call."""


def _json(told: Any) -> bytes:
    return json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode()


_Headers = list[tuple[str, bytes]]
_ENVELOPES: Final[Mapping[str, Callable[[str, Any, int], tuple[bytes, _Headers]]]] = {
    "a server-sent event": lambda name, data, _: (b"event: %b\ndata: %b\n\n" % (name.encode(), _json(data)), []),
    "a bare object": lambda _, data, __: (_json(data), []),
    "with a content type": lambda name, data, _: (
        _json({"event": name, "data": data}),
        [("content-type", b"application/json")],
    ),
    "a CloudEvent in binary mode": lambda name, data, number: (
        _json(data),
        [("ce_specversion", b"1.0"), ("ce_type", name.encode()), ("ce_source", b"/runs"), ("ce_id", b"%d" % number)],
    ),
    "a CloudEvent in structured mode": lambda name, data, number: (
        _json({"specversion": "1.0", "type": name, "source": "/runs", "id": str(number), "data": data}),
        [("content-type", b"application/cloudevents+json")],
    ),
}
"""Writes an event from its name, data and number as a record's value and headers."""


@dataclass(frozen=True, slots=True)
class Case:
    """Records to be timed in a state that has applied `before`; with `steps` their memory is measured instead.

    `is_new`: of a dialect that a base may not know; then it is measured with this tree alone.
    """

    name: str
    timed: Sequence[Made]
    before: Sequence[Made] = ()
    steps: int = 0
    is_new: bool = False


def unpack(revision: str, folder: Path, *paths: str) -> None:
    """Write the files of a revision (of these paths only, if any are given) into a folder."""
    packed = subprocess.run(["git", "archive", revision, *paths], cwd=ROOT, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=BytesIO(packed)) as archive:
        unpack_archive(archive, folder)


def built(revision: str, room: Path, *, compiled: bool) -> None:
    """Build a revision's wheel (`THIS`: the working tree) and unpack it into `room`.

    Raises:
        RuntimeError: it could not be built.
    """
    source = ROOT
    with TemporaryDirectory() as folder:
        if revision != THIS:
            source = Path(folder) / "source"
            unpack(revision, source)
        wheels = Path(folder) / "wheels"
        done = subprocess.run(
            [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", wheels, source],
            env=environ | {"HATCH_BUILD_HOOKS_ENABLE": "1" if compiled else "", "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"{revision}: not built\n{done.stdout}")
        (wheel,) = wheels.glob("*.whl")
        with zipfile.ZipFile(wheel) as files:
            files.extractall(room)


def cases(events: int) -> list[Case]:
    """The jobs, each kind of delta, an ignored event, headers, both dialects on one topic, memory."""
    made = [
        Made(m.timestamp, m.key, m.value, []) for m in load.records(load.Job(events, partitions=1), load.Expected())
    ]
    found = [
        Case("job `calls`, without headers", made),
        Case("job `recorded`", list(recorded_job.recorded(events, recorded_job.Expected()))),
        Case(
            "job `recorded`, without headers",
            list(recorded_job.recorded(events, recorded_job.Expected(), headers=False)),
        ),
        Case("thread.message.delta, which no step needs", _message_deltas(events // 4)),
    ]
    for tool in ("function", "code_interpreter", "mcp", "code_interpreter_logs"):
        before, timed = _tool_deltas(tool, events // 4)
        found.append(Case(f"delta of {tool}", timed, before))
    before, timed = ([made._replace(headers=[]) for made in part] for part in _tool_deltas("function", events // 4))
    found.append(Case("delta of function, without headers", timed, before))
    found += [
        Case(f"delta of function, {envelope}", _in(envelope, timed, len(before)), _in(envelope, before, 0))
        for envelope in _ENVELOPES
    ]
    opened, text_deltas = _text_deltas(events // 4)
    found.append(
        Case("delta of function, without headers, while responses are open", timed, opened + before, is_new=True)
    )
    found.append(Case("delta of a Responses text", text_deltas, opened, is_new=True))
    found.append(Case("delta of a Responses text, while steps are open", text_deltas, before + opened, is_new=True))
    found += _kinds_of_event(events // 10)
    found += _jobs_together(events)
    for deltas in (20, 100, 400):
        steps = max(50, 40_000 // deltas)
        found.append(Case(f"open step of {deltas} deltas", _open_steps(steps, deltas), steps=steps))
    return found


def _message_deltas(count: int) -> list[Made]:
    rng = random.Random(2)
    ids = PublishedIds(rng)
    return [
        wire_record(b"run_1", "thread.message.delta", recorded_job.message_delta("msg_1", token(rng)), ids)
        for _ in range(count)
    ]


def _tool_deltas(tool: str, count: int) -> tuple[list[Made], list[Made]]:
    rng = random.Random(3)
    ids = [PublishedIds(rng) for _ in range(_STEPS)]
    before = []
    for n in range(_STEPS):
        key = f"run_{n}".encode()
        stated = step_object(f"step_{n}", "run_1", "thread_1", "tool_calls", {"type": "tool_calls", "tool_calls": []})
        first = tool_delta(f"step_{n}", tool, "{", f"call_{n}")
        before.append(wire_record(key, "thread.run.step.created", stated, ids[n]))
        before.append(wire_record(key, "thread.run.step.delta", first, ids[n]))
    timed = [
        wire_record(
            f"run_{n % _STEPS}".encode(),
            "thread.run.step.delta",
            tool_delta(f"step_{n % _STEPS}", tool, token(rng), None),
            ids[n % _STEPS],
        )
        for n in range(count)
    ]
    return before, timed


def _in(envelope: str, made: Sequence[Made], begin: int) -> list[Made]:
    """The same events in another envelope, numbered from `begin`."""
    found = []
    for number, one in enumerate(made, begin):
        told = json.loads(one.value)
        value, headers = _ENVELOPES[envelope](told["event"], told["data"], number)
        found.append(one._replace(value=value, headers=headers))
    return found


def _kinds_of_event(steps: int) -> list[Case]:
    """Step objects, and deltas that begin a call, without headers: of each kind one event of as many steps.

    Nothing that the events before them have taught is missing: a hundred steps have been through all of it.
    """
    found = []
    for tool, names_calls in _ENDED:
        lives = [_life(f"{n:024x}", tool, names_calls) for n in range(_TAUGHT + steps)]
        taught = [made for life in lives[:_TAUGHT] for made in life]
        timed = lives[_TAUGHT:]
        if (tool, names_calls) == ("function", False):
            for at, kind in ((0, "created object"), (1, "in_progress object"), (2, "first delta of a call")):
                before = [made for life in timed for made in life[:at]]
                found.append(Case(kind, [life[at] for life in timed], taught + before))
        before = [made for life in timed for made in life[:-1]]
        how = "" if tool == "message" else ", naming its call" if names_calls else ", its call left to the fold"
        found.append(Case(f"ending object of {tool}{how}", [life[-1] for life in timed], taught + before))
    return found


def _life(number: str, tool: str, names_calls: bool) -> list[Made]:
    """All events of one step, its end the last: an object that names its call says all of it again."""
    rng = random.Random(number)
    key, step_id, call_id = f"run_{number}".encode(), f"step_{number}", f"call_{number}"
    kind = "message_creation" if tool == "message" else "tool_calls"
    details: dict[str, Any] = {"type": kind, "tool_calls": []}
    if tool == "message":
        details = {"type": kind, "message_creation": {"message_id": f"msg_{number}"}}
    stated = step_object(step_id, key.decode(), f"thread_{number}", kind, details)
    named = [("thread.run.step.created", stated), ("thread.run.step.in_progress", stated)]
    texts = [] if tool == "message" else ["{", *(token(rng) for _ in range(15)), "}"]
    for n, text in enumerate(texts):
        named.append(("thread.run.step.delta", tool_delta(step_id, tool, text, None if n else call_id)))
    ended = stated | {"status": "completed", "completed_at": recorded_job.BEGIN_S + 5, "usage": recorded_job.USAGE}
    if names_calls:
        (call,) = tool_delta(step_id, tool, "".join(texts), call_id)["delta"]["step_details"]["tool_calls"]
        call.pop("index")
        (call[tool] if tool == "function" else call)["output"] = None
        ended["step_details"] = {"type": kind, "tool_calls": [call]}
    named.append(("thread.run.step.completed", ended))
    return [wire_record(key, name, data, None) for name, data in named]


def _text_deltas(count: int) -> tuple[list[Made], list[Made]]:
    """Pieces of as many messages as `_tool_deltas` has calls, in turn."""
    rng = random.Random(5)
    before, timed, opening = [], [], 5
    for n in range(_STEPS):
        key, at = f"resp_{n:050x}", {"item_id": f"msg_{n:050x}", "output_index": 0, "content_index": 0}
        item = {"id": at["item_id"], "type": "message", "content": []}
        opened: list[dict[str, Any]] = [
            {"type": "response.created", "response": {"id": key, "model": "gpt-5-mini"}},
            {"type": "response.output_item.added", "output_index": 0, "item": item},
            {"type": "response.content_part.added", **at, "part": {"type": "output_text", "text": ""}},
            *(text_delta(rng, "output_text", f"msg_{n:050x}", 0, token(rng)) for _ in range(2)),
        ]
        before += [response_record(key, number, event) for number, event in enumerate(opened)]
    for n in range(count):
        of = n % _STEPS
        event = text_delta(rng, "output_text", f"msg_{of:050x}", 0, token(rng))
        timed.append(response_record(f"resp_{of:050x}", opening + n // _STEPS, event))
    return before, timed


def _jobs_together(events: int) -> list[Case]:
    """The job of Responses alone, and with that of run steps on the same topic: one event of each in turn."""
    ours = list(responses(events // 2, recorded_job.Expected()))
    theirs = list(recorded_job.recorded(events // 2, recorded_job.Expected()))
    count = min(len(ours), len(theirs))
    both = [made for pair in zip(ours[:count], theirs[:count], strict=True) for made in pair]
    return [
        Case("job `responses`", ours, is_new=True),
        Case("jobs `responses` and `recorded` on one topic", both, is_new=True),
    ]


def _open_steps(steps: int, deltas: int) -> list[Made]:
    """Each step's events together, as far as its last delta: the steps stay open."""
    rng = random.Random(4)
    found = []
    for n in range(steps):
        stated = step_object(
            f"step_{n}", f"run_{n}", "thread_1", "tool_calls", {"type": "tool_calls", "tool_calls": []}
        )
        key, ids = f"run_{n}".encode(), PublishedIds(rng)
        found.append(wire_record(key, "thread.run.step.created", stated, ids))
        for d in range(deltas):
            piece = tool_delta(f"step_{n}", "function", token(rng), f"call_{n}" if d == 0 else None)
            found.append(wire_record(key, "thread.run.step.delta", piece, ids))
    return found


def encoded(made: Iterable[Made], path: Path, begin: int = 0) -> str:
    """Write record batches, offsets from `begin` on."""
    left = iter(made)
    with path.open("wb") as file:
        while some := list(islice(left, BATCH)):
            builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1 << 30)
            for offset, record in enumerate(some):
                builder.append(offset, record.timestamp, record.key, record.value, record.headers)
            file.write(begin.to_bytes(8, "big") + bytes(builder.build())[8:])  # not under the checksum
            begin += len(some)
    return str(path)


def measured(room: Path, asked: str) -> dict[str, dict[str, float]]:
    """One process of one build over all cases: name -> value and effects."""
    done = subprocess.run(
        [sys.executable, "-P", CHILD],
        input=asked,
        env=environ | {"PYTHONPATH": str(room)},
        cwd=room,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return {row["name"]: row for row in map(json.loads, done.stdout.splitlines())}


def compared(base: str, *, rounds: int, events: int, compiled: bool) -> list[str]:
    """A table: each case's value with the base and with this tree, and the ratio.

    Raises:
        RuntimeError: a build failed, or the two trees made different numbers of effects.
    """
    with TemporaryDirectory() as folder:
        rooms = {name: Path(folder) / str(n) for n, name in enumerate((base, THIS))}
        for revision, room in rooms.items():
            built(revision, room, compiled=compiled)
        lines, known = [], []
        for number, case in enumerate(cases(events)):
            timed = encoded(case.timed, Path(folder) / f"{number}.timed", len(case.before))
            before = encoded(case.before, Path(folder) / f"{number}.before") if case.before else ""
            asked = {"name": case.name, "before": before, "timed": timed, "rounds": 3}
            lines.append(json.dumps(asked | ({"steps": case.steps} if case.steps else {})))
            if not case.is_new:
                known.append(lines[-1])
        taken: dict[str, list[tuple[float, float]]] = {}
        for _ in range(rounds):
            theirs = measured(rooms[base], "\n".join(known))
            ours = measured(rooms[THIS], "\n".join(lines))
            for name, row in ours.items():
                known_row = theirs.get(name)
                if known_row is not None and row["effects"] != known_row["effects"]:
                    raise RuntimeError(f"{name}: {row['effects']} effects, {base} has {known_row['effects']}")
                taken.setdefault(name, []).append((nan if known_row is None else known_row["value"], row["value"]))
    return _table(base, taken)


def _table(base: str, taken: dict[str, list[tuple[float, float]]]) -> list[str]:
    head = [f"| us an event (memory: bytes a step) | {base} | {THIS} | {base} / this |", "|---|---:|---:|---:|"]
    rows = []
    for name, pairs in taken.items():
        digits = 0 if "open step" in name else 2
        theirs, ours = median(p[0] for p in pairs), median(p[1] for p in pairs)
        if isnan(theirs):
            rows.append(f"| {name} | | {ours:,.{digits}f} | |")
            continue
        rows.append(
            f"| {name} | {theirs:,.{digits}f} | {ours:,.{digits}f} | {median(p[0] / p[1] for p in pairs):.2f} |"
        )
    return [*head, *rows]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.against", description=__doc__)
    parser.add_argument("base", help="revision to compare with")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each build (default 5)")
    parser.add_argument("--events", type=int, default=100_000, help="of each job (default 100000)")
    parser.add_argument("--pure", action="store_true", help="without compiling")
    options = parser.parse_args()
    table = compared(options.base, rounds=options.rounds, events=options.events, compiled=not options.pure)
    print("\n".join(table))  # noqa: T201


if __name__ == "__main__":
    main()
