"""The audit of Responses: archives of every kind, the tables of the report, and what is changed in a log of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import pyarrow.parquet as pq
import pytest

from processor.archives import ArchivedRecord, Recorder, read
from processor.audit.published_index import IndexWriter
from processor.audit.replay.run_task import run_task
from processor.audit.replay.task import ArchiveRange, StepFilter, Task
from processor.audit.replay.task_judge import expected_records
from processor.audit.report.folder import check, check_records, write
from processor.audit.report.manifest import Manifest, Outcome
from processor.core.effects import LogRecord, Publish
from processor.core.headers import LAST_OFFSET, REASON
from processor.core.partition import PartitionState
from processor.publish.command import response_sample_files
from processor.publish.event_keying import EventKeyer
from processor.publish.event_stream import EventStream
from processor.simulate import Parameters, Simulation
from tests.shell import mutations
from tests.shell.mutations import DEAD, RULES
from tests.shell.reports import PROGRAM, about
from tests.trial.audited import audited
from tests.trial.honest_worlds import Worker

KINDS: Final = (".jsonl", ".jsonl.gz", ".parquet")


@dataclass
class Log:
    """A partition of Responses alone: simulated with all that may go wrong, and the samples; what came of it."""

    items: list[ArchivedRecord]
    steps: list[Publish]
    topics: mutations.Topics


@pytest.fixture(scope="module")
def log() -> Log:
    simulation = Simulation(
        Parameters(
            runs=40, seed=3, deltas=4, responses=1.0, lost=0.2, dropped=0.3, rotated=0.2, unnumbered=0.2, resumed=0.2,
            duplicates=0.1, garbage=0.02, interrupted=0.2, hung=0.1,
        )
    )  # fmt: skip
    made = [(p.timestamp, p.key, p.value, tuple(p.headers)) for p in simulation]
    end_ms = made[-1][0]
    for path in response_sample_files():
        stream = EventStream(EventKeyer())
        made += [(end_ms, r.key, r.value, r.headers) for r in (*stream.feed(path.read_bytes()), *stream.finish())]
    items = [
        ArchivedRecord(mutations.SOURCE, 0, offset, at, key, value, headers)
        for offset, (at, key, value, headers) in enumerate(made)
    ]
    state = PartitionState(mutations.SOURCE, 0, mutations.RULES)
    places, topics, steps = expected_records(_task("", "", len(items))), mutations.Topics(), list[Publish]()
    for effect in state.apply(items):
        if isinstance(effect, Publish):
            steps.append(effect)
        placed = places.whole(effect)
        if placed is not None:
            out = topics.setdefault((placed.topic, placed.partition or 0), [])
            headers = tuple(placed.headers)
            out.append(LogRecord(len(out), placed.timestamp, placed.key, placed.value, headers))
    assert {topic for topic, _ in topics} == {*mutations.OUTCOMES.values(), mutations.DEAD}
    return Log(items, steps, topics)


def _task(work: str, archive: str, end: int, **more: Any) -> Task:
    made = mutations.World({}, {0: end}, {})
    task = mutations.task_of(made, 0)
    archives = (ArchiveRange(archive, 0, end),) if archive else ()
    return msgspec.structs.replace(task, work=work, archives=archives, switch=end, **more)


def replayed(log: Log, folder: Path, kind: str = ".jsonl", **more: Any) -> Manifest:
    """Archive the source, replay the archive against what was published, write the report."""
    work = folder / "work"
    work.mkdir(parents=True)
    with Recorder(folder / "archive", files=kind) as recorder:
        for item in log.items:
            recorder.write(item)
    with IndexWriter(work, mutations.SOURCE, mutations.PARTITIONS, frozenset({0})) as index:
        for (topic, partition), records in log.topics.items():
            for record in records:
                index.put(topic, partition, record, dead_letters=topic == mutations.DEAD)
    result = run_task(_task(str(work), str(folder / "archive"), len(log.items), indexes=("",), **more))
    told = about(
        topic=mutations.SOURCE, rules=mutations.RULES, outcome_topics=mutations.OUTCOMES, dead_letter=mutations.DEAD
    )
    return write(folder / "report", work, [result.range], told)


def rows(folder: Path, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(folder / "report" / "tables" / name).to_pylist()
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_an_archive_of_responses_is_replayed_and_proven(log: Log, tmp_path: Path, kind: str) -> None:
    manifest = replayed(log, tmp_path, kind)
    assert manifest.verdict is Outcome.PROVEN
    assert check(tmp_path / "report", program=PROGRAM).problems == []
    assert list(read(tmp_path / "archive")) == log.items
    assert list(check_records(tmp_path / "report", manifest, read(tmp_path / "archive"))) == []
    table = {(row["step_id"], row["revision"]): row for row in rows(tmp_path, "steps") if row["revision"] is not None}
    assert table.keys() == {(step.step_id, step.revision) for step in log.steps}
    for step in log.steps:
        row, snapshot = table[step.step_id, step.revision], json.loads(step.value)
        assert row["run_id"] == snapshot["run_id"] == step.step_id.rpartition(":")[0]
        assert (row["thread_id"], row["status"]) == (snapshot["thread_id"], snapshot["status"])
        assert row["anomalies"] == ",".join(step.anomalies)
        assert row["verdict"] == "equal"
    ended = [row for row in rows(tmp_path, "transitions") if row["to"] in mutations.OUTCOMES]
    assert {row["step_id"] for row in ended} == {step.step_id for step in log.steps}


def test_a_filter_takes_one_response_or_one_of_its_items(log: Log, tmp_path: Path) -> None:
    run_id = next(s.step_id for s in log.steps if s.step_id.endswith(":1")).rpartition(":")[0]
    replayed(log, tmp_path / "run", only=StepFilter(runs=(run_id,)))
    wanted = {step.step_id for step in log.steps if step.step_id.startswith(f"{run_id}:")}
    assert {row["step_id"] for row in rows(tmp_path / "run", "steps")} == wanted
    replayed(log, tmp_path / "step", only=StepFilter(steps=(f"{run_id}:1",)))
    assert {row["step_id"] for row in rows(tmp_path / "step", "steps")} == {f"{run_id}:1"}


_NAMED = b'"type":"message"'


def _without_delta(items: list[ArchivedRecord], step: Publish) -> None:
    run_id, _, index = step.step_id.rpartition(":")
    at = next(
        n
        for n, item in enumerate(items)
        if item.key == run_id.encode() and b".delta" in (item.value or b"") and f'"output_index":{index}'.encode()
        in (item.value or b"").replace(b" ", b"")
    )  # fmt: skip
    items[at] = msgspec.structs.replace(items[at], value=b'{"type":"response.rate_limits.updated"}', headers=())


def _with_another_item(items: list[ArchivedRecord], step: Publish) -> None:
    at = int(dict(step.headers)[LAST_OFFSET])
    changed = (items[at].value or b"").replace(_NAMED, b'"type":"massage"')
    items[at] = msgspec.structs.replace(items[at], value=changed)


@pytest.mark.parametrize("change", [_without_delta, _with_another_item])
def test_what_is_changed_in_a_response_is_found_and_its_step_named(
    log: Log, tmp_path: Path, change: Callable[[list[ArchivedRecord], Publish], None]
) -> None:
    usual = (s for s in log.steps if b'"message_creation"' in s.value and not s.anomalies and not s.inferred)
    step = next(s for s in usual if _NAMED in (log.items[int(dict(s.headers)[LAST_OFFSET])].value or b""))
    items = list(log.items)
    change(items, step)
    assert items != log.items
    manifest = replayed(Log(items, log.steps, log.topics), tmp_path)
    assert manifest.verdict is Outcome.DIFFERENT
    named = {row["identity_1"] for row in rows(tmp_path, "findings") if row["verdict"] not in ("equal", "duplicate")}
    assert step.step_id in named
    assert {name.rpartition(":")[0] for name in named if ":" in name} == {step.step_id.rpartition(":")[0]}


@pytest.mark.parametrize("seed", [4, 11, 29])
def test_a_response_that_other_settings_refused_is_refused_on_under_those_of_now(tmp_path: Path, seed: int) -> None:
    """X2 refuses it as a whole, for as long as it is remembered: its records behind the change were called extra; and a
    clock mark was called wrong where a run step that was refused, and is open in the fold, would be due before it."""
    worker = Worker(seed, rules=msgspec.structs.replace(RULES, max_open_steps=2))
    worker.work(0.1)
    worker.restart(RULES, from_checkpoints=True)
    worker.work()
    refused = (
        dict(r.headers).get(REASON) for (topic, _), log in worker.made.topics.items() for r in log if topic == DEAD
    )
    assert list(refused).count(b"too_many_open_steps") > 2
    assert audited(worker.made, tmp_path, {}).outcome == "unprovable"
