"""Bad input through the real worker: each record has its stated answer, and the partition goes on."""

from __future__ import annotations

import asyncio
import json
import struct
import time
from contextlib import aclosing
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c

from processor.archives import ArchivedRecord, read
from processor.audit.report.manifest import Outcome
from processor.broker import Broker
from processor.core.effects import LogRecord, Reason, Record
from processor.core.header_names import name_bytes, name_text
from processor.core.headers import dead_letter_headers
from processor.kafka.client_config import Connection
from processor.kafka.output_records import OMITTED_BYTES, OMITTED_DIGEST, OMITTED_HEADERS
from processor.kafka.partition_reader import PartitionReader
from processor.kafka.records import OutRecord, batch_bytes
from tests.faults.service import Service, Stage, created, delta, ended, event
from tests.kafka_tools import Got, Names, Sent, produce, produce_raw

MIB = 1 << 20
SOURCE_BYTES = 8 * MIB
MOST_RSS_BYTES = 700 * MIB
"""A record of 24 MiB passes in and out, several copies of it at once; nothing of it may stay or add up."""

BRACKETS = b"[" * (24 * MIB)
"""Larger unpacked than any topic takes; packed it is nothing."""


@pytest.fixture
def stage(broker: Broker, names: Names, tmp_path: Path) -> Stage:
    return Stage(broker.bootstrap, names, tmp_path, partitions=1, source={"max.message.bytes": str(SOURCE_BYTES)})


def until_passed(stage: Stage, service: Service, count: int) -> None:
    """Wait until that many records are committed, and prove that the partition goes on."""
    stage.say(created("step_last"), ended("step_last"))
    service.until("all committed", lambda: stage.committed().get(0, 0) >= count + 2, deadline_s=300)
    service.until("the last published", lambda: any(g.key == b"step_last" for g in stage.published("completed")))


def letters_by_offset(stage: Stage) -> dict[int, Got]:
    found = {int(got.header("runstep-source-offset") or b"-1"): got for got in stage.letters()}
    for letter in found.values():
        assert letter.header("runstep-source-topic") == stage.source.encode()
        assert letter.header("runstep-source-partition") == b"0"
        assert letter.header("runstep-detail")
        assert letter.header("runstep-attempt") == b"1"
    return found


REFUSED: dict[str, tuple[bytes, str]] = {
    "undecodable": (b"\xff\xfe\x00{}", "not_json"),
    "not JSON": (b"hello", "not_json"),
    "NaN": (b'{"event":"thread.run.step.created","data":{"id":"s","x":NaN}}', "not_json"),
    "wrong type of data": (event("thread.run.step.created", "text"), "malformed"),  # type: ignore[arg-type]
    "wrong type of id": (event("thread.run.step.created", {"id": 5}), "malformed"),
    "no known form": (b'{"hello":"world"}', "malformed"),
    "deep": (b"[" * (3 * MIB), "too_deep"),
    "deep and whole": (b"[" * MIB + b"]" * MIB, "too_deep"),
    "900 kB of nothing": (b"x" * 900_000, "not_json"),
    "bad index": (
        event("thread.run.step.delta", {"id": "s1", "delta": {"step_details": {"tool_calls": [{"index": -1}]}}}),
        "bad_index",
    ),
}


def test_records_that_cannot_be_used(stage: Stage) -> None:
    """On the dead-letter topic, bytes, key, headers and time unchanged, with the reason and the place of origin."""
    with stage.serve() as service:
        service.until_live()
        sent = [
            Sent(value, key, [("theirs", b"\x00\xff"), ("empty", None)], 1_700_000_000_000 + number, 0)
            for number, (value, _) in enumerate(REFUSED.values())
            for key in (b"run_1", None)
        ]
        produce(stage.bootstrap, stage.source, sent, message_max_bytes=64 * MIB)
        until_passed(stage, service, len(sent))
        assert service.terminate() == 0
    found = letters_by_offset(stage)
    assert sorted(found) == list(range(len(sent)))
    reasons = [reason for _, reason in REFUSED.values() for _ in range(2)]
    for offset, (record, reason) in enumerate(zip(sent, reasons, strict=True)):
        letter = found[offset]
        assert letter.header("runstep-reason") == reason.encode(), list(REFUSED)[offset // 2]
        assert (letter.value, letter.key, letter.timestamp) == (record.value, record.key, record.timestamp)
        assert letter.headers[:2] == tuple(record.headers)


def test_records_that_are_used_after_all(stage: Stage) -> None:
    """Odd, and by the rules quite usable; or nothing to be used at all, and counted."""
    doubled = created("step_twice").replace(b'"run_id"', b'"x": 1, "x": 9007199254740993, "run_id"')
    huge_trace = [("tracestate", b"v" * 900_000), ("traceparent", b"00-aa-bb-01")]
    with stage.serve() as service:
        service.until_live()
        stage.say(None, b"", None)
        stage.say(doubled, ended("step_twice"))
        stage.say(created("step_big"), ended("step_big", text="y" * 900_000))
        stage.say(created("step_traced"), headers=huge_trace)
        stage.say(ended("step_traced", text="z" * 900_000))
        run = {"id": "run_2", "object": "thread.run", "status": "completed"}
        stage.say(event("thread.run.completed", run), created("step_late", run_id="run_2"), key=b"run_2")
        until_passed(stage, service, 11)
        assert service.metric("runstep_events_without_effect_total", kind="tombstone") == 3
        assert service.terminate() == 0
    assert stage.letters() == []
    published = {(got.key or b"").decode(): got for got in stage.published()}
    assert sorted(published) == ["step_big", "step_last", "step_late", "step_traced", "step_twice"]
    assert snapshot(published["step_twice"])["x"] == 9007199254740993
    assert len(snapshot(published["step_big"])["text"]) == 900_000
    assert published["step_late"].topic == stage.outcomes["expired"]
    assert published["step_late"].header("runstep-anomalies") == b"after_run_ended,orphaned_by_run"
    assert published["step_traced"].header("traceparent") == b"00-aa-bb-01"
    assert published["step_traced"].header("tracestate") is None


def test_a_snapshot_larger_than_its_topic_takes(stage: Stage) -> None:
    """A reference to it is set aside, from which it can be found and known again."""
    with stage.serve() as service:
        service.until_live()
        stage.say(created("step_1"), delta("step_1", "a" * 600_000), delta("step_1", "b" * 600_000), ended("step_1"))
        until_passed(stage, service, 4)
        assert service.terminate() == 0
    (letter,) = stage.letters()
    assert letter.header("runstep-reason") == b"snapshot_too_large"
    reference = json.loads(letter.value or b"")
    assert (reference["id"], reference["status"], reference["revision"]) == ("step_1", "completed", 0)
    assert (reference["first_offset"], reference["last_offset"]) == (0, 3)
    assert reference["size"] > 1_200_000
    assert len(reference["digest"]) == 64
    assert letter.key == b"step_1"


@pytest.mark.parametrize("written", ["zstd", "none"])
def test_records_larger_unpacked_than_any_topic_takes(stage: Stage, written: str) -> None:
    """24 MiB of brackets in a batch of a few kilobytes: set aside without the value, whatever codec is set."""
    with stage.serve({"delivery": {"compression": written}}) as service:
        service.until_live()
        for codec in ("lz4", "zstd"):
            for _ in range(3):
                sent = [Sent(BRACKETS, b"run_1", [("theirs", b"1")], partition=0)]
                produce(stage.bootstrap, stage.source, sent, compression_type=codec, message_max_bytes=64 * MIB)
        until_passed(stage, service, 6)
        peak = service.peak_rss_bytes()
        assert service.terminate() == 0
        assert not service.logged("worker_restarted")
    found = letters_by_offset(stage)
    assert sorted(found) == list(range(6))
    for letter in found.values():
        assert letter.value is None
        assert letter.header("theirs") == b"1"
        assert letter.header("runstep-reason") == b"too_deep"
        assert letter.header(OMITTED_BYTES) == str(len(BRACKETS)).encode()
        assert letter.header(OMITTED_DIGEST) == sha256(BRACKETS).hexdigest().encode()
    assert peak < MOST_RSS_BYTES, f"{peak / MIB:.0f} MiB"


@pytest.mark.parametrize("written", ["zstd", "none"])
def test_dead_letters_around_what_their_topic_takes(broker: Broker, names: Names, tmp_path: Path, written: str) -> None:
    """Many in one unit, larger and smaller ones in both orders: each loses what no batch can hold, and no more."""
    stage = Stage(broker.bootstrap, names, tmp_path, partitions=1)
    limit = stage.dead_letter_max_bytes
    record = LogRecord(0, 1, b"run_1", bytes(limit))
    why = (Reason.NOT_JSON, "invalid start byte")
    headers = dead_letter_headers(stage.source.encode(), b"0", record, *why)
    ours = batch_bytes(OutRecord("", None, record.key, record.value, 1, headers)) - limit
    most = limit - ours
    sizes = [limit, most, most + 1, 3 * limit, 100, most + 1, most, 2 * limit]
    content = b"\xff" + bytes(199_999) + Random(1).randbytes(limit - 200_000) + bytes(2 * limit)
    sent = [Sent(content[:size], b"run_1", timestamp=1, partition=0) for size in sizes]
    sent.append(Sent(b"\xff", b"run_1", [("theirs", content[:limit])], 1, 0))
    for one in sent:  # each in a batch of its own: together they are more than a batch may be
        produce(stage.bootstrap, stage.source, [one], message_max_bytes=64 * MIB, compression_type="zstd")
    with stage.serve({"delivery": {"compression": written}}) as service:
        service.until_live()
        until_passed(stage, service, len(sent))
        assert service.terminate() == 0
        assert not service.logged("worker_restarted")
    found = letters_by_offset(stage)
    assert sorted(found) == list(range(len(sent)))
    assert {got.header("runstep-detail") for got in found.values()} == {why[1].encode()}
    assert [len(found[at].value or b"") for at in range(len(sizes))] == [0, most, 0, 0, 100, 0, most, 0]
    assert found[len(sizes)].value == b"\xff"
    assert found[len(sizes)].header(OMITTED_HEADERS) == b"1"
    assert stage.replayed() is Outcome.PROVEN


def test_header_names_of_any_bytes(stage: Stage) -> None:
    """Between good records in one batch: folded or set aside with the same bytes, proven from topic and archive."""
    name = b"\xffna\xfe"
    headers = [("NAME", b"1"), ("empty", None)]
    values = [created("step_1"), created("step_2"), b"[", ended("step_2"), ended("step_1")]
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, 0, 1 << 20)
    now = int(time.time() * 1000)
    for at, value in enumerate(values):
        builder.append(at, now, b"run_1", value, headers if at in (1, 2, 3) else [])
    batch = bytearray(bytes(builder.build()).replace(b"NAME", name))
    struct.pack_into(">I", batch, 17, calc_crc32c(bytes(batch[21:])))
    assert produce_raw(stage.bootstrap, stage.source, bytes(batch)) == 0
    with stage.serve() as service:
        service.until_live()
        until_passed(stage, service, len(values))
        assert service.terminate() == 0
        assert not service.logged("worker_restarted")
    assert sorted(got.key or b"" for got in stage.published()) == [b"step_1", b"step_2", b"step_last"]
    found = asyncio.run(first_of(stage, stage.dead_letter))
    assert [record.value for record in found] == [b"["]
    assert [(name_bytes(n), content) for n, content in found[0].headers[:2]] == [(name, b"1"), (b"empty", None)]
    assert stage.replayed(record=str(stage.home / "archive")) is Outcome.PROVEN
    assert stage.replayed(archives=(str(stage.home / "archive"),)) is Outcome.PROVEN
    recorded = stage.home / "parquet"
    assert (
        stage.replayed(record=str(recorded), record_files=".parquet", report=str(stage.home / "report"))
        is Outcome.PROVEN
    )
    assert stage.replayed(archives=(str(recorded),), report=str(stage.home / "offline")) is Outcome.PROVEN
    assert [dict(item.headers).get(name_text(name)) for item in read(recorded) if isinstance(item, ArchivedRecord)][
        :5
    ] == [None, b"1", b"1", b"1", None]


async def first_of(stage: Stage, topic: str) -> list[Record]:
    """The first record of partition 0, read by our reader: confluent-kafka does not read such names."""
    reader = PartitionReader(Connection.build(stage.bootstrap), topic=topic, client_id="test")
    async with reader, aclosing(reader.read_to({0: 0}, {0: 1}, 10)) as reading:
        return [record async for _, records in reading for record in records]


def test_a_topic_of_garbage_stops_the_worker(stage: Stage) -> None:
    """A person must look, and nothing of it is committed or set aside."""
    stage.say(*[b"garbage"] * 300)
    with stage.serve({"rejections": {"max_run": 100}}) as service:
        assert service.ended() == 65
        said = service.said()
        (tripped,) = service.logged("breaker_tripped")
    assert f"topic {stage.source}: partition 0: 100 records in a row were rejected, the newest at offsets" in said
    assert "most of them not_json" in said
    assert (tripped["topic"], tripped["partition"], tripped["reason"]) == (stage.source, 0, "not_json")
    assert tripped["last_offset"] == 99
    assert "[rejections]" in said
    assert tripped["run_length"] == 100
    assert stage.committed().get(0, 0) == 0
    assert stage.letters() == []


def snapshot(got: Got) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(got.value or b"")
    return found
