"""The generator: equal parameters give equal bytes, a record is what it claims to be, a difference is found."""

from __future__ import annotations

import ast
import asyncio
import base64
import hashlib
import io
import json
import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from processor.errors import UsageError
from processor.simulate import Parameters, Produced, Simulation, generate, murmur2, partition_of
from processor.simulate.expected import Expected, compare, read_expected, write_expected
from processor.simulate.output import main, read_lines, to_line
from processor.simulate.parameters import DIALECTS, ENVELOPES, TOOLS

SCHEMA_KEYS: dict[str, Any] = {
    "id": str,
    "object": str,
    "created_at": int,
    "assistant_id": str,
    "thread_id": str,
    "run_id": str,
    "type": str,
    "status": str,
    "step_details": dict,
    "last_error": (dict, type(None)),
    "expired_at": (int, type(None)),
    "cancelled_at": (int, type(None)),
    "failed_at": (int, type(None)),
    "completed_at": (int, type(None)),
    "metadata": (dict, type(None)),
}
SHARES = [
    *("with_ids", "disorder", "duplicates", "garbage", "illegal", "late_output", "approvals", "interrupted"),
    *("overruled", "stragglers", "hung", "midstream", "disagree", "tombstones", "unknown"),
]
QUIET: dict[str, Any] = dict.fromkeys(SHARES, 0.0)
ENDS = ("completed", "failed", "cancelled", "expired")


def play(**parameters: Any) -> tuple[list[Produced], Expected]:
    simulation = Simulation(Parameters(**{"runs": 40, "seed": 3, **parameters}))
    return list(simulation), simulation.expected


def quiet(**parameters: Any) -> tuple[list[Produced], Expected]:
    return play(**{**QUIET, **parameters})


def events_of(record: Produced) -> list[tuple[str, Any]]:
    """The (name, data) of a record's events, read with nothing but `json`; raises where a record is not well-formed."""
    assert record.value
    headers = dict(record.headers)
    content_type = headers.get("content-type", b"").decode().lower()
    if "ce_type" in headers:
        assert headers["ce_specversion"] == b"1.0"
        assert headers["ce_source"]
        assert headers["ce_id"]
        data = json.loads(record.value)
        named = headers["ce_type"].decode()
        if "event" in data:
            assert named.endswith(data["event"])
            data = data["data"]
        return [(named[named.index("thread.") :], data)]
    text = record.value.decode("utf-8-sig")
    if text.startswith(("event:", "data:", ":")):
        return [event for frame in frames_of(text) for event in frame]
    if content_type.startswith("application/cloudevents-batch"):
        return [one_cloudevent(e) for e in json.loads(text)]
    whole = json.loads(text)
    if "specversion" in whole:
        return [one_cloudevent(whole)]
    return [plain(whole)]


def one_cloudevent(event: dict[str, Any]) -> tuple[str, Any]:
    assert event["specversion"] == "1.0"
    assert event["id"]
    assert event["source"]
    data = event["data"] if "data" in event else json.loads(base64.b64decode(event["data_base64"], validate=True))
    return event["type"][event["type"].index("thread.") :], data


def plain(whole: dict[str, Any]) -> tuple[str, Any]:
    if "event" in whole:
        return whole["event"], whole["data"]
    kind = whole["object"]
    assert kind in ("thread.run.step", "assistant.run.step", "thread.run.step.delta", "thread.run")
    if kind.endswith("delta"):
        return kind, whole
    return f"{'thread.run' if kind == 'thread.run' else 'thread.run.step'}.{whole['status']}", whole


def frames_of(text: str) -> Iterable[list[tuple[str, Any]]]:
    name = ""
    data: list[str] = []

    def done() -> list[tuple[str, Any]]:
        joined = "\n".join(data)
        if joined == "[DONE]":
            return [("done", None)]
        return [(name, json.loads(joined)) if name else plain(json.loads(joined))]

    for line in re.split("\r\n|\n", text):
        field, _, content = line.partition(":")
        content = content.removeprefix(" ")
        if (not line or field == "event") and data:
            yield done()
            name, data = "", []
        if field == "event":
            name = content
        elif field == "data":
            data.append(content)
    if data:
        yield done()


class Record(NamedTuple):
    """What a reader of an outcome topic holds."""

    topic: str
    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]


def as_published(expected: Expected) -> list[Record]:
    """The output of a worker that makes no mistake."""
    out = []
    for (step_id, revision), o in expected.steps.items():
        headers = [("runstep-revision", b"%d" % revision), ("runstep-source-partition", b"%d" % o.partition)]
        if o.inferred:
            headers.append(("runstep-inferred", o.inferred.encode()))
        if o.anomalies:
            headers.append(("runstep-anomalies", ",".join(o.anomalies).encode()))
        out.append(Record(f"run-steps.{o.status}", step_id.encode(), json.dumps(o.snapshot).encode(), headers))
    return out


def as_dead_letters(records: Iterable[Produced], expected: Expected) -> list[Record]:
    wanted = {letter.sha256: (letter, times) for letter, times in expected.letters.items()}
    out = []
    for record in records:
        found = wanted.get(hashlib.sha256(record.value or b"").hexdigest())
        if found:
            out.append(Record("dead", record.key, record.value or b"", [("runstep-reason", found[0].reason.encode())]))
    return out


# The records


def test_the_same_parameters_give_the_same_bytes() -> None:
    first, second = play(), play()
    assert first[0] == second[0]
    assert first[1].steps == second[1].steps
    assert first[1].letters == second[1].letters
    assert first[1].counts == second[1].counts
    assert play(seed=4)[0] != first[0]


def test_the_order_in_which_a_mix_is_written_does_not_matter() -> None:
    mix = {"function": 2.0, "mcp": 1.0, "novel": 1.0}
    assert play(tools=mix)[0] == play(tools=dict(reversed(mix.items())))[0]


def test_iterating_anew_starts_anew() -> None:
    simulation = Simulation(Parameters(runs=5))
    first = list(simulation)
    counts = Counter(simulation.expected.counts)
    assert list(simulation) == first
    assert simulation.expected.counts == counts


def test_the_bytes_of_a_seed_do_not_depend_on_the_session() -> None:
    """Guards against `hash()` and the order of sets: the digest was computed in another session."""
    script = (
        "import hashlib; from processor.simulate import *; h = hashlib.sha256()\n"
        "for r in generate(Parameters(runs=20, seed=5)): h.update(repr(r).encode())\n"
        "print(h.hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", script],
            check=True,
            capture_output=True,
            text=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parents[2])},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1


@pytest.mark.parametrize("envelope", ENVELOPES)
def test_each_envelope_reads_as_what_it_is(envelope: str) -> None:
    records, expected = quiet(envelopes={envelope: 1}, disorder=1.0, interrupted=0.3, late_output=1.0, with_ids=0.5)
    names = Counter(name for record in records for name, _ in events_of(record))
    # A bare opening has no name of its own: it reads as `in_progress`, like the event that follows it.
    opening = names["thread.run.step.created"] + names["thread.run.step.in_progress"]
    assert opening == 2 * len({step for step, _ in expected.steps})
    assert ("thread.run.step.created" in names) or envelope == "bare"
    assert sum(names[f"thread.run.step.{end}"] for end in ENDS) >= 40
    assert names["thread.run.step.delta"] > 100
    assert names["thread.run.completed"] > 10
    assert names["done"] > 10


@pytest.mark.parametrize("envelope", ["sse_many", "ce_batch"])
def test_some_records_hold_several_events(envelope: str) -> None:
    records, _ = quiet(envelopes={envelope: 1})
    assert max(len(events_of(record)) for record in records) > 2


def test_one_run_reads_the_same_in_every_envelope_mix() -> None:
    """Mixed envelopes, each record parsed on its own: no step goes without an opening, a delta or an end."""
    records, expected = quiet()
    seen: defaultdict[str, list[str]] = defaultdict(list)
    for record in records:
        for name, data in events_of(record):
            if name.startswith("thread.run.step."):
                seen[data["id"]].append(name.removeprefix("thread.run.step."))
    assert set(seen) == {step for step, _ in expected.steps}
    for names in seen.values():
        assert names[0] == "created" or names[:2] == ["in_progress", "in_progress"]  # bare: it has no name
        assert names[-1] in ENDS


def test_deltas_brought_together_are_the_arguments_expected() -> None:
    """By grouping, not by folding: the texts of one call in the order they came."""
    records, expected = quiet(tools={"function": 1}, disorder=1.0)
    texts: defaultdict[str, defaultdict[int, str]] = defaultdict(lambda: defaultdict(str))
    for record in records:
        for name, data in events_of(record):
            if name == "thread.run.step.delta":
                (entry,) = data["delta"]["step_details"]["tool_calls"]
                texts[data["id"]][entry["index"]] += entry["function"]["arguments"]
    for (step, _), outcome in expected.steps.items():
        calls = outcome.snapshot["step_details"]["tool_calls"]
        assert [c["function"]["arguments"] for c in calls] == [t for _, t in sorted(texts[step].items())]
        assert not any("index" in call for call in calls)
    assert any(max(t) >= len(t) for t in texts.values()), "no index was left out"


def test_keys_go_where_java_clients_put_them() -> None:
    signed = {b"21": -973932308, b"foobar": -790332482, b"a-little-bit-long-string": -985981536}
    assert {key: murmur2(key) for key in signed} == {key: h & 0xFFFFFFFF for key, h in signed.items()}
    records, _ = play(partitions=7)
    assert all(record.partition == partition_of(record.key, 7) for record in records)
    assert {record.partition for record in records} == set(range(7))


def test_time_goes_on_and_ends_beyond_every_deadline() -> None:
    records, expected = play(hung=0.5, disorder=0.0, duplicates=0.0, grace_s=90, partitions=3)
    times = [record.timestamp for record in records]
    assert times == sorted(times)
    last = {record.partition: record.timestamp for record in records}
    silent = [o for o in expected.steps.values() if o.inferred == "deadline"]
    assert silent
    for outcome in silent:
        assert last[outcome.partition] > (outcome.snapshot["expired_at"] + 90) * 1000
        assert outcome.snapshot["expired_at"] == outcome.snapshot["expires_at"]


def test_no_other_step_is_still_open_at_its_deadline() -> None:
    """Whoever ends by itself does so before `expires_at` + grace, even after hours of waiting for a person."""
    records, expected = play(approvals=1.0, hung=0.0, steps=6, deltas=60, runs=15)
    stream: Counter[int] = Counter()
    ended: dict[str, int] = {}
    for record in records:
        stream[record.partition] = max(stream[record.partition], record.timestamp)
        for step_id in {k for k, _ in expected.steps}:
            if record.value and b'"completed_at":1' in record.value and step_id.encode() in record.value:
                ended.setdefault(step_id, stream[record.partition])
    assert len(ended) > 20
    for step_id, at_ms in ended.items():
        expires_at = expected.steps[step_id, 0].snapshot.get("expires_at")
        assert expires_at is None or at_ms < (expires_at + 60) * 1000
    assert max(stream.values()) - records[0].timestamp > 3_600_000


@pytest.mark.parametrize("tool", TOOLS)
def test_every_tool_can_be_had_alone(tool: str) -> None:
    _, expected = quiet(tools={tool: 1}, dialects={"azure": 1}, runs=10)
    wanted = {"novel": "wasm_sandbox"}.get(tool, tool)
    for outcome in expected.steps.values():
        details = outcome.snapshot["step_details"]
        assert details["type"] == (tool if tool in ("message_creation", "activities") else "tool_calls")
        assert all(call["type"] == wanted for call in details.get("tool_calls", []))


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_dialect_can_be_had_alone(dialect: str) -> None:
    _, expected = quiet(dialects={dialect: 1})
    snapshots = [outcome.snapshot for outcome in expected.steps.values()]
    assert all(("vendor" in s) == (dialect == "lookalike") for s in snapshots)
    assert any(s["metadata"] is not None for s in snapshots) == (dialect == "azure")
    assert any(s["object"] == "assistant.run.step" for s in snapshots) == (dialect == "azure")


@pytest.mark.parametrize("wrong", [{"garbage": 1.5}, {"partitions": 0}, {"tools": {"hammer": 1}}, {"tools": {}}])
def test_a_wrong_parameter_is_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        Parameters(**wrong)


def test_a_number_of_records_can_be_asked_for() -> None:
    records = list(generate(Parameters(records=5_000, open_runs=10)))
    assert 5_000 <= len(records) < 10_000


# The expectation


@pytest.mark.parametrize("share", [0.0, 1.0])
@pytest.mark.parametrize("parameter", SHARES)
def test_every_parameter_at_its_ends(parameter: str, share: float) -> None:
    """The snapshots have the shape of the contract, and the counts add up."""
    records, expected = play(runs=12, **{parameter: share})
    counts = expected.counts
    assert counts["records"] == len(records)
    assert sum(expected.letters.values()) == sum(n for k, n in counts.items() if k.startswith("dead_letter."))
    assert len(expected.steps) == sum(n for k, n in counts.items() if k.startswith("published."))
    assert counts["amended"] == sum(revision > 0 for _, revision in expected.steps)
    assert counts["tombstone"] == sum(not record.value for record in records)
    digests = Counter((hashlib.sha256(r.value).hexdigest(), r.partition) for r in records if r.value)
    for letter, times in expected.letters.items():
        assert digests[letter.sha256, letter.partition] == times
    for (step_id, revision), outcome in expected.steps.items():
        snapshot = outcome.snapshot
        assert snapshot["id"] == step_id
        assert snapshot["status"] == outcome.status
        assert outcome.status in ENDS
        assert revision == 0 or (step_id, revision - 1) in expected.steps
        for key, types in SCHEMA_KEYS.items():
            assert isinstance(snapshot[key], types), key
        assert snapshot["object"] in ("thread.run.step", "assistant.run.step")


PARAMETERS_AND_SIGNS = {
    "duplicates": ("duplicate", "repeated"),
    "garbage": ("dead_letter.not_json", "dead_letter.malformed", "dead_letter.bad_index", "dead_letter.type_changed"),
    "illegal": ("dead_letter.illegal_transition",),
    "interrupted": ("inferred.run",),
    "hung": ("inferred.deadline",),
    "tombstones": ("tombstone",),
    "unknown": ("unknown_event",),
}


@pytest.mark.parametrize("parameter", PARAMETERS_AND_SIGNS)
def test_a_parameter_brings_what_it_says_and_nothing_else(parameter: str) -> None:
    without = quiet()[1].counts
    with_it = quiet(**{parameter: 1.0})[1].counts
    for others, signs in PARAMETERS_AND_SIGNS.items():
        for sign in signs:
            assert not without[sign]
            assert bool(with_it[sign]) == (others == parameter), sign


def test_anomalies_come_from_their_parameters() -> None:
    def anomalies(**parameters: Any) -> set[str]:
        return {a for o in quiet(runs=80, **parameters)[1].steps.values() for a in o.anomalies}

    openai = {"dialects": {"openai": 1}}
    assert anomalies(**openai) == set()
    assert anomalies(**openai, midstream=1.0) == {"joined_midstream", "fold_divergence"}
    assert anomalies(**openai, interrupted=1.0) == {"orphaned_by_run"}
    assert anomalies(**openai, interrupted=1.0, stragglers=1.0) == {"orphaned_by_run", "after_run_ended"}
    assert anomalies(**openai, disagree=1.0) == {"status_disagrees"}
    assert anomalies(dialects={"lookalike": 1}) == {"expired_at_disagrees"}


def test_late_output_amends_the_published_step() -> None:
    _, expected = quiet(tools={"mcp": 1}, dialects={"azure": 1}, late_output=1.0)
    amended = [key for key in expected.steps if key[1] == 1]
    assert amended
    for step_id, _ in amended:
        before, after = (expected.steps[step_id, r].snapshot["step_details"]["tool_calls"] for r in (0, 1))
        new = [b["output"] for a, b in zip(before, after, strict=True) if a != b]
        assert len(new) == 1
        assert len(new[0]) > 1000


def test_deltas_without_an_id_are_never_repeated() -> None:
    """Equal tokens are legitimate: without an id nobody could tell."""
    records, _ = quiet(duplicates=1.0, envelopes={"event": 1, "sse": 1}, with_ids=0.0)
    before = None
    for record in records:
        if b"thread.run.step.delta" in (record.value or b""):
            assert record is not before
        before = record


def test_garbage_names_every_reason_it_can_have() -> None:
    _, expected = quiet(garbage=1.0, runs=60)
    assert {letter.reason for letter in expected.letters} == {
        "not_json",
        "malformed",
        "too_deep",
        "bad_index",
        "type_changed",
    }


def test_the_witness_shares_no_code_with_the_core() -> None:
    for path in (Path(__file__).parents[2] / "processor" / "simulate").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not any(name.startswith("processor.core") for name in names), path.name


# The comparison


@pytest.fixture(scope="module")
def result() -> tuple[Expected, list[Record], list[Record]]:
    records, expected = play(interrupted=0.3, hung=0.1, overruled=0.5, disagree=0.2)
    return expected, as_published(expected), as_dead_letters(records, expected)


Result = tuple[Expected, list[Record], list[Record]]


def test_what_must_come_is_no_difference(result: Result) -> None:
    expected, published, letters = result
    assert compare(expected, published, letters) == []
    assert compare(expected, reversed(published), reversed(letters)) == []


def kinds(result: Result, change: dict[int, Record]) -> list[str]:
    expected, published, letters = result
    changed = [change.get(i, record) for i, record in enumerate(published)]
    return sorted(d.kind for d in compare(expected, changed, letters))


def rewritten(record: Record, **fields: Any) -> Record:
    return record._replace(value=json.dumps(json.loads(record.value) | fields).encode())


def with_header(record: Record, name: str, value: bytes) -> Record:
    return record._replace(headers=[(n, v) for n, v in record.headers if n != name] + [(name, value)])


def test_each_kind_of_difference_is_found(result: Result) -> None:
    expected, published, letters = result
    first = published[0]
    assert kinds(result, {0: first._replace(topic="run-steps.nowhere")}) == ["status"]
    assert kinds(result, {0: first._replace(key=b"other")}) == ["key"]
    assert kinds(result, {0: first._replace(value=b"{")}) == ["missing", "unreadable"]
    assert kinds(result, {0: rewritten(first, id="step_other")}) == ["extra", "missing"]
    assert kinds(result, {0: rewritten(first, created_at=1)}) == ["content"]
    assert kinds(result, {0: rewritten(first, surplus=None)}) == ["content"]
    assert kinds(result, {0: with_header(first, "runstep-revision", b"9")}) == ["extra", "missing"]
    assert kinds(result, {0: with_header(first, "runstep-inferred", b"guess")}) == ["inferred"]
    assert kinds(result, {0: with_header(first, "runstep-anomalies", b"changed_field")}) == ["anomalies"]
    assert kinds(result, {0: with_header(first, "runstep-source-partition", b"99")}) == ["partition"]
    assert [d.kind for d in compare(expected, published[1:], letters)] == ["missing"]
    assert [d.kind for d in compare(expected, [*published, first], letters)] == ["twice"]


def test_numbers_and_booleans_of_equal_value_are_not_the_same_json(result: Result) -> None:
    first = result[1][0]
    created_at = json.loads(first.value)["created_at"]
    assert kinds(result, {0: rewritten(first, created_at=float(created_at))}) == ["content"]


def test_a_missing_key_is_found(result: Result) -> None:
    snapshot = json.loads(result[1][0].value)
    del snapshot["metadata"]
    differences = compare(
        result[0], [result[1][0]._replace(value=json.dumps(snapshot).encode()), *result[1][1:]], result[2]
    )
    assert "$.metadata is missing" in differences[0].detail


def test_inferred_and_anomalies_must_be_said(result: Result) -> None:
    i = next(i for i, r in enumerate(result[1]) if "runstep-inferred" in dict(r.headers))
    record = result[1][i]
    bare = record._replace(headers=[h for h in record.headers if h[0] != "runstep-inferred"])
    assert kinds(result, {i: bare}) == ["inferred"]
    i = next(i for i, r in enumerate(result[1]) if "runstep-anomalies" in dict(r.headers))
    record = result[1][i]
    bare = record._replace(headers=[h for h in record.headers if h[0] != "runstep-anomalies"])
    assert kinds(result, {i: bare}) == ["anomalies"]


def test_dead_letters_are_compared_as_a_multiset(result: Result) -> None:
    expected, published, letters = result
    assert letters
    assert [d.kind for d in compare(expected, published, letters[1:])] == ["dead_letter_missing"]
    assert [d.kind for d in compare(expected, published, [*letters, letters[0]])] == ["dead_letter_extra"]
    blamed = letters[0]._replace(headers=[("runstep-reason", b"internal_error")])
    assert sorted(d.kind for d in compare(expected, published, [blamed, *letters[1:]])) == [
        "dead_letter_extra",
        "dead_letter_missing",
    ]


def test_topics_of_other_names_can_be_told(result: Result) -> None:
    expected, published, letters = result
    statuses = {f"out-{end}": end for end in ENDS}
    renamed = [r._replace(topic=r.topic.replace("run-steps.", "out-")) for r in published]
    assert compare(expected, renamed, letters, statuses) == []


def test_the_expectation_survives_its_file(result: Result, tmp_path: Path) -> None:
    expected, published, letters = result
    write_expected(expected, tmp_path / "expected.jsonl")
    again = read_expected(tmp_path / "expected.jsonl")
    assert again.steps == expected.steps
    assert again.letters == expected.letters
    assert again.counts == expected.counts
    assert compare(again, published, letters) == []


# The way out


def test_a_record_survives_its_line() -> None:
    records, _ = play(garbage=1.0, tombstones=0.5, runs=5)
    lines = [to_line(record) for record in records]
    assert not any("\n" in line for line in lines)
    assert list(read_lines(lines)) == records


async def test_a_sink_gets_every_record_in_order() -> None:
    parameters, got = Parameters(runs=5), []

    async def send(record: Produced) -> None:
        got.append(record)

    expected = await main(parameters, send=send)
    assert got == list(generate(parameters))
    assert expected.counts["records"] == len(got)


async def test_a_file_gets_every_record_and_another_the_expectation(tmp_path: Path) -> None:
    parameters = Parameters(runs=5)
    expected = await main(parameters, out=tmp_path / "records.jsonl", expected=tmp_path / "expected.jsonl")
    text = (tmp_path / "records.jsonl").read_bytes().decode()
    assert list(read_lines(io.StringIO(text, newline="\n"))) == list(generate(parameters))
    assert read_expected(tmp_path / "expected.jsonl").steps == expected.steps


async def test_a_rate_is_held_by_the_clock() -> None:
    now, sent_at = 0.0, []

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    async def send(record: Produced) -> None:
        sent_at.append(now)

    await main(Parameters(runs=20), send=send, rate=100, clock=lambda: now, sleep=sleep)
    for number, at in enumerate(sent_at):
        assert number / 100 - 0.021 <= at <= number / 100 + 1e-6


async def test_exactly_one_way_out_is_needed() -> None:
    with pytest.raises(UsageError):
        await main(Parameters(runs=1))


async def test_records_to_a_file_can_be_stopped(tmp_path: Path) -> None:
    """Nothing in it waits: Ctrl-C was heeded when all was written."""
    task = asyncio.create_task(main(Parameters(runs=3000), out=tmp_path / "records.jsonl"))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (tmp_path / "records.jsonl").stat().st_size < 5_000_000
