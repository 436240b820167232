"""Replay on a real broker: it ends, it accounts for every offset, it agrees with the worker, and it finds a liar."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from confluent_kafka import TopicPartition as ConfluentPartition

from processor.audit.explain import Explained, explain
from processor.audit.judge.verdicts import Verdict
from processor.audit.replay import record_sources as sources
from processor.audit.replay.command import replay
from processor.audit.replay.options import Options
from processor.audit.replay.outcome import Replayed
from processor.audit.report.manifest import Outcome
from processor.broker import Broker
from processor.config.settings import Settings
from processor.errors import BrokerUnavailable, UsageError
from processor.kafka.client_config import Connection
from processor.kafka.records import OutRecord, partition_of
from processor.simulate import Parameters, Simulation
from processor.simulate.expected import compare
from tests import kafka_tools as kt
from tests.broker.test_topics_live import set_configs
from tests.faults.worker_fleet import Ends, Fleet, Topics, eventually
from tests.kafka_tools import Names, Sent

WAIT_S = 180.0


@pytest.fixture
def topics(broker: Broker, names: Names) -> Topics:
    return Topics.create(broker.bootstrap, names, partitions=2)


def settings_of(topics: Topics, **steps: Any) -> Settings:
    by_status = {status: topic for topic, status in topics.outcomes.items()}
    return Settings.model_validate(
        {
            "kafka": {"bootstrap_servers": topics.bootstrap},
            "source": {"topic": topics.source, "group_id": topics.group},
            "output": {"dead_letter": topics.dead_letter, **by_status},
            "steps": steps,
        }
    )


def audit(topics: Topics, **options: Any) -> Replayed:
    settings = settings_of(topics)
    return replay(Options(**options), settings, lambda: Connection.build(topics.bootstrap), lambda _: None)


def explained(topics: Topics, step_id: str) -> Explained:
    return explain(step_id, settings_of(topics), lambda: Connection.build(topics.bootstrap))


def one_step(step_id: str, partition: int = 0) -> list[Sent]:
    """Three records whose outcome is one completed step."""
    head = f'"id":"{step_id}","object":"thread.run.step","run_id":"run_{step_id}","thread_id":"thread_1"'
    values = [
        f'{{"event":"thread.run.step.created","data":{{{head},"status":"in_progress"}}}}',
        f'{{"event":"thread.run.step.in_progress","data":{{{head},"status":"in_progress"}}}}',
        f'{{"event":"thread.run.step.completed","data":{{{head},"status":"completed","completed_at":1720000001}}}}',
    ]
    at = 1_720_000_000_000
    return [Sent(value.encode(), key=b"k", timestamp=at, partition=partition) for value in values]


def test_a_topic_written_with_transactions_ends_and_every_offset_is_told(topics: Topics) -> None:
    kt.produce(topics.bootstrap, topics.source, one_step("a"), transactional_id=f"{topics.group}.1")
    kt.produce(topics.bootstrap, topics.source, one_step("b"), transactional_id=f"{topics.group}.2")
    found = audit(topics, end="end", verify=False, partitions=(0,))
    assert found.coverage == {"data": 6, "marker": 2}
    assert found.results[0].end == 8


async def test_an_aborted_tail_and_an_open_transaction_are_told_and_not_waited_for(topics: Topics) -> None:
    kt.produce(topics.bootstrap, topics.source, one_step("a"))
    producer = AIOKafkaProducer(**Connection.build(topics.bootstrap).kwargs(), transactional_id=topics.group)
    await producer.start()
    try:
        await producer.begin_transaction()
        for number in range(3):
            await producer.send_and_wait(topics.source, b"aborted %d" % number, partition=0)
        await producer.abort_transaction()  # answered before the marker is written
        ends, place = Ends(topics.bootstrap), (topics.source, 0)
        await asyncio.to_thread(eventually, "the marker", lambda: not ends.held_back({place}), 30.0)
        found = await _in_thread(lambda: audit(topics, end="end", verify=False, partitions=(0,)))
        assert found.coverage == {"aborted": 3, "data": 3, "marker": 1}
        await producer.begin_transaction()
        await producer.send_and_wait(topics.source, b"open", partition=0)
        found = await _in_thread(lambda: audit(topics, end="end", verify=False, partitions=(0,)))
        assert found.coverage == {"aborted": 3, "data": 3, "marker": 1}, "up to the last stable offset"
        assert any("open transaction holds back" in note for note in found.about.notes)
        await producer.abort_transaction()
    finally:
        await producer.stop()


async def test_an_open_transaction_on_an_output_topic_leaves_the_rest_unproven(
    topics: Topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    """4, not 3: behind a held offset nothing is known, and the note says how to end the transaction."""
    monkeypatch.setattr("processor.audit.replay.index_output._OUTPUT_WAIT_S", 2.0)
    kt.produce(topics.bootstrap, topics.source, one_step("a"))
    producer = AIOKafkaProducer(**Connection.build(topics.bootstrap).kwargs(), transactional_id=topics.group)
    await producer.start()
    try:
        await producer.begin_transaction()
        for partition in (0, 1):
            await producer.send_and_wait(settings_of(topics).outcome_topics["completed"], b"open", partition=partition)
        found = await _in_thread(lambda: audit(topics, end="end", partitions=(0,)))
        assert found.exit_code == 4
        assert found.counts["step"] == {"unverifiable": 1}
        assert any("find-hanging" in note for note in found.about.notes)
        assert any("open transaction holds back" in question for question in found.questions)
        await producer.abort_transaction()
    finally:
        await producer.stop()


async def _in_thread(do: Callable[[], Replayed]) -> Replayed:
    return await asyncio.to_thread(do)


def test_retention_that_takes_records_while_we_read_is_told_and_not_waited_for(
    topics: Topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The records go between the planning of the range and the reading of it."""
    kt.produce(topics.bootstrap, topics.source, [sent for n in range(6) for sent in one_step(f"s{n}")])
    planned = sources.pieces

    async def truncated(task: Any, ledger: Any) -> Any:
        client = kt.admin(topics.bootstrap)
        for future in client.delete_records([ConfluentPartition(topics.source, 0, 7)]).values():
            future.result(kt.DEADLINE_S)
        async for piece in planned(task, ledger):
            yield piece

    monkeypatch.setattr("processor.audit.replay.partition_task.pieces", truncated)
    found = audit(topics, end="end", verify=False, partitions=(0,))
    assert found.coverage == {"data": 11, "missing": 7}
    assert found.verdict is Outcome.UNPROVABLE
    again = audit(topics, end="end", verify=False, partitions=(0,))
    assert again.results[0].begin == 7
    assert any("begins at offset 7" in note for note in again.about.notes)


def test_retention_that_overtakes_a_replay_is_told_and_the_rest_is_read(
    topics: Topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records go while the replay is inside the partition, behind what it has fetched and before what it will."""
    ignored = [Sent(b'{"event":"done","data":"%s"}' % (b"x" * 2_000), partition=0) for _ in range(12_000)]
    kt.produce(topics.bootstrap, topics.source, [*one_step("early"), *ignored, *one_step("late")])
    end, kept_from = len(ignored) + 6, len(ignored) - 10
    read_on = sources.pieces
    read: list[Any] = []

    async def overtaken(task: Any, ledger: Any) -> Any:
        async for piece in read_on(task, ledger):
            if not read:
                client = kt.admin(topics.bootstrap)
                for future in client.delete_records([ConfluentPartition(topics.source, 0, kept_from)]).values():
                    future.result(kt.DEADLINE_S)
            read.append(piece)
            yield piece

    monkeypatch.setattr("processor.audit.replay.partition_task.pieces", overtaken)
    found = audit(topics, end="end", verify=False, partitions=(0,))
    assert found.coverage.keys() == {"data", "missing"}
    assert sum(found.coverage.values()) == end
    assert 0 < found.coverage["missing"] < kept_from
    assert len(read) > 2, "some was read before and some behind"
    assert found.exit_code == 4
    assert any("missing" in question for question in found.questions)


def test_bounds_by_offset_time_and_group(topics: Topics) -> None:
    sent = [Sent(b"{}", key=b"k", timestamp=1_720_000_000_000 + 1000 * n, partition=0) for n in range(10)]
    kt.produce(topics.bootstrap, topics.source, sent)

    def span(**options: str) -> tuple[int, int]:
        found = audit(topics, verify=False, partitions=(0,), **options).results[0]
        return found.begin, found.end

    assert span(start="3", end="7") == (3, 7)
    assert span(start="1720000002000ms", end="2024-07-03T09:46:45Z") == (2, 5)
    assert span(end="2024-07-03T09:46:45") == (0, 5), "a time without a zone is UTC"
    assert span() == (0, 10), "a group that has committed nothing: to the end"
    assert span(start="99", end="end") == (99, 99)


# --- with the worker --------------------------------------------------------------------------------------------


def play(topics: Topics, **parameters: Any) -> tuple[Simulation, int]:
    """Put a simulation on the source topic; returns it and the number of records."""
    simulation = Simulation(Parameters(partitions=topics.partitions, **parameters))
    sent = [
        Sent(r.value or b"", key=r.key, headers=r.headers, timestamp=r.timestamp, partition=r.partition)
        for r in simulation
    ]
    kt.produce(topics.bootstrap, topics.source, sent)
    return simulation, len(sent)


def committed(topics: Topics) -> int:
    return sum(offset for offset, _ in kt.committed(topics.bootstrap, topics.group, topics.source).values())


def _is_done(topics: Topics, records: float) -> bool:
    return committed(topics) > records


def published(topics: Topics) -> list[kt.Got]:
    return [record for topic in topics.outcomes for record in kt.read_topic(topics.bootstrap, topic)]


def test_it_agrees_with_a_worker_that_was_killed_twice_clock_marks_included(topics: Topics, tmp_path: Path) -> None:
    """Proven, all of it equal, in this process and in two others, byte for byte; and the simulator agrees."""
    with Fleet(topics, tmp_path, **{"steps.idle_grace_s": "0.5", "http.enabled": "false"}) as fleet:
        simulation, total = play(topics, runs=60, seed=3, deltas=6, hung=0.2)
        for part in (0.3, 0.6):
            (worker,) = fleet.start()
            eventually("some of it is done", partial(_is_done, topics, total * part), WAIT_S)
            worker.kill()
        (worker,) = fleet.start()
        eventually("all of it is done", lambda: committed(topics) >= total, WAIT_S)
        # Behind all deadlines nothing is open; these are, until the clock marks them.
        kt.produce(topics.bootstrap, topics.source, [sent for n in range(2) for sent in one_step(f"idle{n}", n)[:1]])
        expired = next(topic for topic, status in topics.outcomes.items() if status == "expired")

        def marked() -> list[kt.Got]:
            found = kt.read_topic(topics.bootstrap, expired)
            return [record for record in found if record.header("runstep-clock-mark")]

        eventually("the clock has marked both", lambda: len(marked()) == 2, WAIT_S, every_s=0.3)
        worker.terminate()
        assert worker.ended(WAIT_S) == 0
    one = audit(topics, report=str(tmp_path / "one"))
    assert one.verdict is Outcome.PROVEN, (one.counts, one.questions)
    out, dead = published(topics), kt.read_topic(topics.bootstrap, topics.dead_letter)
    assert one.counts == {"step": {"equal": len(out)}, "dead_letter": {"equal": len(dead)}}
    assert one.coverage["data"] == total + 2
    told = [record for record in out if not (record.key or b"").startswith(b"idle")]
    assert compare(simulation.expected, told, dead, topics.outcomes) == []
    two = audit(topics, report=str(tmp_path / "two"), workers=2)
    assert one.root == two.root
    assert _bytes(tmp_path / "one") == _bytes(tmp_path / "two")
    recorded = audit(topics, record=str(tmp_path / "archive"))
    assert recorded.verdict is Outcome.PROVEN
    offline = audit(topics, archives=(str(tmp_path / "archive"),), report=str(tmp_path / "offline"))
    assert offline.verdict is Outcome.PROVEN
    assert [r.chain for r in offline.results] == [r.chain for r in one.results]
    half = _half(tmp_path / "archive", tmp_path / "half")
    mixed = audit(topics, archives=(half,), and_topic=True, report=str(tmp_path / "mixed"))
    assert mixed.verdict is Outcome.PROVEN, (mixed.counts, mixed.questions, mixed.about.notes)
    assert [r.chain for r in mixed.results] == [r.chain for r in one.results]
    assert any("the topic from there on" in note for note in mixed.about.reading)


def _bytes(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def _half(archive: Path, to: Path) -> str:
    """The first half of each partition of an archive, as an archive of its own."""
    from processor.archives import ArchivedRecord, Recorder, read, survey

    extents = survey(archive)
    with Recorder(to, files=".jsonl") as recorder:
        for item in read(archive):
            behind = item.offset if isinstance(item, ArchivedRecord) else item.last
            if behind < extents[item.topic, item.partition].end // 2:
                recorder.write(item)
    return str(to)


_BROKEN = '''
"""A worker whose merge has one rule wrong (M3): that a value was changed, it does not say."""
import sys
from processor.core import merge

def set_always(tree, key, old, value, notes):
    tree[key] = value

merge._set_once = set_always
from processor.cli.main import main
sys.argv = ["run-steps", "serve"]
main()
'''


def renamed(step_id: str) -> list[Sent]:
    """A step whose tool call is named twice, by two deltas."""
    created, _, completed = one_step(step_id)
    deltas = []
    for name in ("first", "second"):
        call = f'{{"index":0,"type":"mcp","id":"c","name":"{name}"}}'
        data = f'{{"id":"{step_id}","delta":{{"step_details":{{"type":"tool_calls","tool_calls":[{call}]}}}}}}'
        value = f'{{"event":"thread.run.step.delta","data":{data}}}'.encode()
        deltas.append(Sent(value, key=b"k", timestamp=created.timestamp, partition=0))
    return [created, *deltas, completed]


@pytest.fixture
def liar(topics: Topics, tmp_path: Path) -> Iterator[Callable[[], None]]:
    """Runs a worker with a broken rule until the group has committed that much."""
    import subprocess

    script = tmp_path / "broken.py"
    script.write_text(_BROKEN)
    started: list[subprocess.Popen[bytes]] = []

    def run() -> None:
        named = {f"RUN_STEPS_{key.upper().replace('.', '__')}": value for key, value in topics.settings().items()}
        env = {**os.environ, **named, "RUN_STEPS_HTTP__ENABLED": "false", "PYTHONPATH": str(Path(__file__).parents[2])}
        with (tmp_path / "broken.log").open("wb") as log:
            started.append(subprocess.Popen([sys.executable, str(script)], env=env, stdout=log, stderr=log))

    yield run
    for process in started:
        process.kill()
        process.wait(10)


def test_a_worker_with_a_broken_rule_is_found_out(topics: Topics, liar: Callable[[], None]) -> None:
    sent = [*one_step("s1"), *renamed("s2")]
    kt.produce(topics.bootstrap, topics.source, sent)
    liar()
    eventually("it has processed all", lambda: committed(topics) >= len(sent), WAIT_S, every_s=0.2)
    found = audit(topics)
    assert found.verdict is Outcome.DIFFERENT
    assert found.exit_code == 3
    assert found.counts["step"] == {"different": 1, "equal": 1}


def _together(first: str) -> str:
    """A step whose record stands on the same partition of an outcome topic as that of the first one."""
    names = (f"s{number}".encode() for number in range(99))
    return next(n for n in names if partition_of(n, 3) == partition_of(first.encode(), 3)).decode()


def test_log_append_time_that_is_switched_on_under_a_worker_is_told_from_there_on(
    broker: Broker, topics: Topics, tmp_path: Path
) -> None:
    completed = settings_of(topics).outcome_topics["completed"]
    with Fleet(topics, tmp_path, **{"http.enabled": "false"}) as fleet:
        kt.produce(topics.bootstrap, topics.source, one_step("a"))
        (worker,) = fleet.start()
        eventually("the first is done", lambda: committed(topics) >= 3, WAIT_S, every_s=0.2)
        assert audit(topics).verdict is Outcome.PROVEN
        set_configs(broker, completed, message_timestamp_type="LogAppendTime")
        kt.produce(topics.bootstrap, topics.source, one_step(_together("a")))
        eventually("the second is done", lambda: committed(topics) >= 6, WAIT_S, every_s=0.2)
        worker.kill()
    found = audit(topics)
    assert found.exit_code == 4
    assert found.counts["step"] == {"equal": 1, "unverifiable": 1}
    (finding,) = found.first
    assert finding.identity[0] == _together("a")
    assert "LogAppendTime" in finding.why
    assert [difference.path for difference in finding.differences] == ["timestamp"]
    (issued,) = explained(topics, _together("a")).lives[0].issued
    assert (issued.verdict, issued.why) == ("unverifiable", finding.why)


def test_what_compaction_took_from_an_outcome_topic_is_counted_as_a_hole(
    broker: Broker, topics: Topics, tmp_path: Path
) -> None:
    """Markers between the records are none: before the compaction all is proven."""
    completed = settings_of(topics).outcome_topics["completed"]
    quick = {"segment_ms": "1", "min_cleanable_dirty_ratio": "0.001", "max_compaction_lag_ms": "1"}
    late = b'{"event":"thread.run.step.completed","data":{"id":"a","status":"completed","usage":{"total_tokens":7}}}'
    with Fleet(topics, tmp_path, **{"http.enabled": "false"}) as fleet:
        kt.produce(topics.bootstrap, topics.source, one_step("a"))
        (worker,) = fleet.start()
        eventually("the first is done", lambda: committed(topics) >= 3, WAIT_S, every_s=0.2)
        amended = Sent(late, key=b"k", timestamp=1_720_000_000_000, partition=0)
        kt.produce(topics.bootstrap, topics.source, [amended])
        eventually("it is published again", lambda: len(published(topics)) == 2, WAIT_S, every_s=0.2)
        assert audit(topics).verdict is Outcome.PROVEN
        set_configs(broker, completed, cleanup_policy="compact", **quick)
        kt.produce(topics.bootstrap, topics.source, one_step(_together("a")))
        eventually("the last is done", lambda: committed(topics) >= 7, WAIT_S, every_s=0.2)
        worker.terminate()
        assert worker.ended(WAIT_S) == 0
    eventually("compaction has taken the first", lambda: len(published(topics)) == 2, WAIT_S, every_s=0.5)
    found = audit(topics)
    assert found.exit_code == 4, (found.counts, found.first)
    assert found.counts["step"] == {"equal": 2, "unverifiable": 1}
    (finding,) = found.first
    assert finding.identity == ("a", "0")
    assert "compaction" in finding.why
    told = explained(topics, "a")
    assert [(one.revision, one.verdict) for one in told.lives[0].issued] == [(0, "unverifiable"), (1, "equal")]
    assert told.verdict is Verdict.UNVERIFIABLE


def test_what_was_changed_or_added_on_the_outputs_is_found(topics: Topics, tmp_path: Path) -> None:
    with Fleet(topics, tmp_path, **{"http.enabled": "false"}) as fleet:
        kt.produce(topics.bootstrap, topics.source, one_step("s1"))
        (worker,) = fleet.start()
        eventually("it is done", lambda: committed(topics) >= 3, WAIT_S)
        worker.terminate()
        assert worker.ended(WAIT_S) == 0
    assert audit(topics).verdict is Outcome.PROVEN
    (record,) = published(topics)
    again = Sent(record.value, key=record.key, headers=record.headers, timestamp=record.timestamp)
    forged = Sent(b"{}", key=b"s9", headers=record.headers, timestamp=record.timestamp)
    foreign = Sent(b"{}", key=b"s9", headers=[("runstep-source-topic", b"another")])
    stray = Sent(b"{}", key=b"s9")
    kt.produce(topics.bootstrap, record.topic, [again, forged, foreign, stray])
    found = audit(topics)
    assert found.verdict is Outcome.DIFFERENT
    assert found.counts["step"] == {"duplicate": 1, "equal": 1, "extra": 2}
    assert found.outputs["of another source"] == 1
    assert found.outputs["unreadable"] == 1
    narrowed = audit(topics, only=_only("nobody"))
    assert narrowed.counts["step"] == {}


def _only(step_id: str) -> Any:
    from processor.audit.replay.task import StepFilter

    return StepFilter(steps=(step_id,))


def test_a_broker_that_is_not_there_is_told_in_time(names: Names) -> None:
    nowhere = Settings.model_validate({"kafka": {"bootstrap_servers": "127.0.0.1:1", "request_timeout_ms": 1000}})
    with pytest.raises(BrokerUnavailable):
        replay(Options(), nowhere, lambda: Connection.build(**nowhere.kafka.connection()), lambda _: None)


def test_no_producer_is_loaded_by_a_replay() -> None:
    """Read-only by construction: the modules that write are not even imported."""
    import subprocess

    code = (
        "import sys, processor.audit.replay.command, processor.audit.replay.partition_task\n"
        "import processor.audit.published_index, processor.kafka.admin, processor.kafka.partition_reader\n"
        "sys.exit(any(name in sys.modules for name in ('processor.kafka.writer', 'processor.kafka.producer')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert OutRecord.__module__ == "processor.kafka.records"


# --- explain ----------------------------------------------------------------------------------------------------------


def test_a_step_is_explained_from_the_offsets_that_its_headers_name(topics: Topics, tmp_path: Path) -> None:
    with Fleet(topics, tmp_path, **{"http.enabled": "false"}) as fleet:
        early = [sent for number in range(3) for sent in one_step(f"early{number}")]
        kt.produce(topics.bootstrap, topics.source, [*early, *renamed("s1"), *one_step("open")[:2]])
        (worker,) = fleet.start()
        eventually("it is done", lambda: committed(topics) >= 15, WAIT_S)
        worker.terminate()
        assert worker.ended(WAIT_S) == 0
    settings = settings_of(topics)

    def told(step_id: str, **hints: Any) -> Any:
        return explain(step_id, settings, lambda: Connection.build(topics.bootstrap), **hints)

    found = told("s1")
    assert found.verdict is Verdict.EQUAL
    (life,) = found.lives
    assert life.read == (9, 13), "no other offsets are read"
    assert [event.offset for event in life.events] == [9, 10, 11, 12]
    assert (life.events[0].before, life.events[0].after) == (None, "in_progress")
    assert (life.events[3].before, life.events[3].after) == ("in_progress", "completed")
    named = {c.path: c.what for c in life.events[1].changes}
    assert named["step_details.tool_calls[0].name"] == '"first"'
    assert [(c.path, c.what) for c in life.events[2].changes] == [
        ("step_details.tool_calls[0].name", '"first" -> "second"')
    ]
    (issued,) = life.issued
    assert (issued.revision, issued.status, issued.verdict) == (0, "completed", "equal")
    with pytest.raises(UsageError, match="nothing was published"):
        told("open")
    (life,) = told("open", partition=0, offset=13).lives
    assert life.status == "in_progress"
    assert "open" in life.notes[0]


def test_a_changed_record_of_a_step_is_explained_as_different(topics: Topics, tmp_path: Path) -> None:
    with Fleet(topics, tmp_path, **{"http.enabled": "false"}) as fleet:
        kt.produce(topics.bootstrap, topics.source, [*one_step("s0"), *one_step("s1")])
        (worker,) = fleet.start()
        eventually("it is done", lambda: committed(topics) >= 6, WAIT_S)
        worker.terminate()
        assert worker.ended(WAIT_S) == 0
    record = next(r for r in published(topics) if r.key == b"s1")
    headers = [(n, b"7" if n == "runstep-events" else c) for n, c in record.headers]
    kt.produce(
        topics.bootstrap, record.topic, [Sent(record.value, key=b"s1", headers=headers, timestamp=record.timestamp)]
    )
    settings = settings_of(topics)
    found = explain("s1", settings, lambda: Connection.build(topics.bootstrap))
    assert found.verdict is Verdict.DIFFERENT
    assert sorted(one.verdict for one in found.lives[0].issued) == ["equal", "extra"]


def test_a_record_on_a_partition_that_the_key_does_not_belong_to_is_found_on_request(
    topics: Topics, tmp_path: Path
) -> None:
    with Fleet(topics, tmp_path, **{"http.enabled": "false"}) as fleet:
        kt.produce(topics.bootstrap, topics.source, one_step("s1"))
        (worker,) = fleet.start()
        eventually("it is done", lambda: committed(topics) >= 3, WAIT_S)
        worker.terminate()
        assert worker.ended(WAIT_S) == 0
    record = next(r for r in published(topics) if r.key == b"s1")
    other = (record.partition + 1) % 3
    copy = Sent(record.value, key=b"s1", headers=record.headers, timestamp=record.timestamp, partition=other)
    kt.produce(topics.bootstrap, record.topic, [copy])
    settings = settings_of(topics)
    found = explain("s1", settings, lambda: Connection.build(topics.bootstrap))
    assert found.verdict is Verdict.EQUAL
    assert "--all-partitions" in found.notes[0]
    found = explain("s1", settings, lambda: Connection.build(topics.bootstrap), all_partitions=True)
    assert found.verdict is Verdict.DIFFERENT
    assert {one.place[1] for one in found.lives[0].issued if one.place} == {record.partition, other}
    assert found.notes == ()
