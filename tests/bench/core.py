"""The core alone: decode, fold, and both with all rules on (`PartitionState.apply`).

By kind of event and size, then for the standard job, and whether an event's cost grows with what is remembered.
Records are the client's own objects, taken from an encoded batch, so that reading their attributes is paid for.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any, Final

from processor.core.effects import Record, Status
from processor.core.events import decode
from processor.core.lifecycle import Kind
from processor.core.partition import PartitionState
from processor.core.rules import Rules
from processor.core.run_steps.step import Step
from processor.core.run_steps.usual_events import ExactObject, exact, prefix_of
from processor.core.wire_types import ExactData
from tests.bench.load import BEGIN_S, Expected, Job, as_fetched, event, records
from tests.bench.load import delta as delta_value
from tests.bench.measure import Book, Build, Case, Row, child, microseconds

SIZES: Final = (180, 300, 1_000, 16_000)
KINDS: Final = ("delta", "created", "completed")
BATCH: Final = 4_000
RULES: Final = Rules(max_step_bytes=1 << 40, max_open_steps=1 << 40)

_STEPS: Final = 200  # between which the records of one kind take turns


def _name(size: int) -> str:
    return f"{size} B" if size < 1000 else f"{size // 1000} KB"


# --- one kind of event at one size ---------------------------------------------------------------------------------


def _padded(size: int, make: Callable[[str], bytes]) -> bytes:
    return make("x" * max(0, size - len(make(""))))


def _step_object(name: str, step_id: str, size: int) -> bytes:
    """A step object as small as the wire has it, with metadata to fill it up."""
    status = "in_progress" if name == "created" else name

    def make(text: str) -> bytes:
        data: dict[str, Any] = {"id": step_id, "object": "thread.run.step", "status": status, "type": "tool_calls"}
        data["step_details"] = {"type": "tool_calls", "tool_calls": []}
        return event(name, data | ({"metadata": {"note": text}} if text else {}))

    return _padded(size, make)


def _delta(step_id: str, size: int) -> bytes:
    short = delta_value(step_id, 0, "", None)
    whole = size >= len(short)
    return _padded(
        size,
        lambda text: (
            delta_value(step_id, 0, text, None)
            if whole
            else delta_value(step_id, 0, text, None).replace(b'"object":"thread.run.step.delta",', b"")
        ),
    )


def _records(kind: str, size: int, count: int) -> list[Record]:
    """`count` records that do what their kind does when all goes well."""
    if kind == "delta":
        values = [_delta(f"s{n % _STEPS}", size) for n in range(count)]
    else:
        values = [_step_object(kind, f"s{n}", size) for n in range(count)]
    return as_fetched((BEGIN_S * 1000, b"run_1", value) for value in values)


def _decoded(values: Sequence[bytes]) -> Iterator[ExactData | ExactObject]:
    for value in values:
        found = exact(value, prefix_of(value))
        assert isinstance(found, ExactData | ExactObject), value
        yield found


def _decode_run(taken: Sequence[Record]) -> Callable[[], None]:
    def run() -> None:
        for record in taken:
            value = record.value
            assert value is not None
            if exact(value, prefix_of(value)) is None:
                decode(value)

    return run


def _begun(step_id: str, *, with_call: bool) -> Step:
    state = PartitionState("bench", 0, RULES)
    state.apply(as_fetched([(BEGIN_S * 1000, b"", v) for v in _opening(step_id)[: 1 + with_call]]))
    opened = state.steps[step_id].step
    assert isinstance(opened, Step)
    return opened


def _opening(step_id: str) -> list[bytes]:
    return [_step_object("created", step_id, 300), delta_value(step_id, 0, "", "call_1")]


def _fold_case(kind: str, size: int, taken: list[Record]) -> Case:
    """What is left when decoding and the partition's own rules are taken away: the step, and its canonical bytes."""

    def prepare() -> Callable[[], None]:
        events = list(_decoded(_values(taken)))
        if kind == "delta":
            steps = {f"s{n}": _begun(f"s{n}", with_call=True) for n in range(_STEPS)}
            pairs = [(steps[e.id], e) for e in events if isinstance(e, ExactData)]

            def run_deltas() -> None:
                for step, found in pairs:
                    text = step.text_of(found) or ""
                    step.append_text(text.encode(), len(text), 1 << 40, None)

            return run_deltas
        objects = [(_begun(e.stated.id, with_call=False), e) for e in events if isinstance(e, ExactObject)]
        if kind == "created":

            def run_created() -> None:
                for _, found in objects:
                    Step(found.stated.id, 0, BEGIN_S).begin_exact(found, size)

            return run_created

        def run_completed() -> None:
            for step, found in objects:
                form = step.compact_form
                assert form is not None
                ending = form.ending_of(found, Status.COMPLETED)
                assert ending is not None
                step.end_exact(ending, Status.COMPLETED, size)
                step.encoded("")

        assert all(found.kind is Kind.COMPLETED for _, found in objects)
        return run_completed

    return Case(f"fold {kind} {_name(size)}", len(taken), prepare)


def _apply_all(state: PartitionState, taken: Sequence[Record]) -> None:
    for at in range(0, len(taken), BATCH):
        state.apply(taken[at : at + BATCH])


def _applied_case(name: str, before: Callable[[], list[bytes]], values: Callable[[], list[bytes]], count: int) -> Case:
    """`PartitionState.apply` on `values`, in a state that has applied `before`."""

    def prepare() -> Callable[[], None]:
        first = before()
        taken = as_fetched((BEGIN_S * 1000, b"run_1", value) for value in [*first, *values()])
        state = PartitionState("bench", 0, RULES)
        _apply_all(state, taken[: len(first)])
        rest = taken[len(first) :]
        return lambda: _apply_all(state, rest)

    return Case(name, count, prepare)


def _before(kind: str, count: int) -> list[bytes]:
    """What the state must have seen so that `count` events of this kind do what they do when all goes well."""
    if kind == "delta":
        return [value for n in range(_STEPS) for value in _opening(f"s{n}")]
    return [_step_object("created", f"s{n}", 300) for n in range(count)] if kind == "completed" else []


def _values(taken: Sequence[Record]) -> list[bytes]:
    return [record.value or b"" for record in taken]


def kinds(book: Book, count: int) -> None:
    """Decode, fold and both, for each kind of event at each size."""
    for kind in KINDS:
        for size in SIZES:
            number = count if size < 16_000 else max(200, count // 10)
            taken = _records(kind, size, number)
            what = f"{kind} {_name(size)}"
            cases = [
                Case(f"decode {what}", number, partial(_decode_run, taken)),
                _fold_case(kind, size, taken),
                _applied_case(f"decode + fold {what}", partial(_before, kind, number), partial(_values, taken), number),
            ]
            for case in cases:
                book.add(f"core: {case.name}", [1e6 / microseconds(case)], "events/CPU-s")


# --- the standard job ----------------------------------------------------------------------------------------------


def standard(book: Book, count: int) -> None:
    """The mix that the worker's bench has on its topic, on one partition."""
    expected = Expected()
    taken = as_fetched((m.timestamp, m.key, m.value) for m in records(Job(count, partitions=1), expected))
    published = sum(expected.counts.values())

    def prepare() -> Callable[[], None]:
        state = PartitionState("bench", 0, Rules())

        def run() -> None:
            effects = 0
            for at in range(0, len(taken), BATCH):
                effects += len(state.apply(taken[at : at + BATCH]))
            assert effects == published, "the core has published something else than the job asks for"

        return run

    cases = [
        Case("decode", len(taken), lambda: _decode_run(taken)),
        Case("decode + fold", len(taken), prepare),
    ]
    for case in cases:
        name = f"core: {case.name}, standard job ({expected.bytes // expected.events} B)"
        book.add(name, [1e6 / microseconds(case)], "events/CPU-s")


# --- growth --------------------------------------------------------------------------------------------------------


def growth(book: Book, count: int, open_steps: int) -> None:
    """Per delta: 1 KB against 1 MB of text in its step, 1,000 against `open_steps` open steps."""
    piece = "x" * 50

    def short_steps() -> list[bytes]:
        per_step = 1_000 // len(piece)
        return [delta_value(f"s{n // per_step}", 0, piece, None) for n in range(count)]

    def opened(number: int) -> list[bytes]:
        return [value for n in range(number) for value in _opening(f"s{n}")]

    def long_step() -> list[bytes]:
        return [*_opening("s0"), *[delta_value("s0", 0, "x" * 10_000, None)] * 100]

    def anywhere(number: int) -> list[bytes]:
        rng = random.Random(1)
        return [delta_value(f"s{rng.randrange(number)}", 0, piece, None) for _ in range(count)]

    many = f"{open_steps // 1000} k"
    pairs = (
        (
            _applied_case("on a step of 1 KB of text", lambda: opened(count // 20 + 1), short_steps, count),
            _applied_case(
                "on a step of 1 MB of text", long_step, lambda: [delta_value("s0", 0, piece, None)] * count, count
            ),
        ),
        (
            _applied_case("among 1 k open steps", lambda: opened(1_000), lambda: anywhere(1_000), count),
            _applied_case(f"among {many} open steps", lambda: opened(open_steps), lambda: anywhere(open_steps), count),
        ),
    )
    for few, more in pairs:
        base = (f"core: delta {few.name}", [microseconds(few)])
        book.add(*base, "us")
        book.add(f"core: delta {more.name}", [microseconds(more)], "us", against=base)


# --- in turn -------------------------------------------------------------------------------------------------------


def in_turn(book: Book, rounds: int, builds: Sequence[Build], *, quick: bool) -> None:
    """All of the above by each build, every time in a fresh process. Later builds are told by their ratio to the first.

    Raises:
        RuntimeError: a process failed.
    """
    rows: dict[str, Row] = {}
    taken: dict[str, list[float]] = {}
    for _ in range(rounds):
        for build in builds:
            for row in _measured(build, quick):
                name = row.name + build.suffix
                rows[name] = replace(row, ratio_to={row.name: 1.0}) if build is not builds[0] else row
                taken.setdefault(name, []).append(row.value)
    for name, row in rows.items():
        base = next(iter(row.ratio_to), None)
        book.add(name, taken[name], row.unit, against=None if base is None else (base, taken[base]))


def _measured(build: Build, quick: bool) -> list[Row]:
    process = child("tests.bench.core", *(["--quick"] if quick else []), build=build)
    said, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{process.args!r}: ended with {process.returncode}; see build/bench/core.log")
    return [Row(**row) for row in json.loads(said.splitlines()[-1])]


def _main() -> None:
    quick = "--quick" in sys.argv
    book = Book({})
    kinds(book, 5_000 if quick else 50_000)
    standard(book, 50_000 if quick else 300_000)
    growth(book, 20_000 if quick else 200_000, 100_000)
    print(json.dumps([asdict(row) for row in book.rows]))  # noqa: T201


if __name__ == "__main__":
    _main()
