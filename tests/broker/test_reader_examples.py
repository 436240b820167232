"""The example readers of docs/contracts: last revisions of committed records, and wrong digests found."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary_event

from processor.audit.report.manifest import Outcome
from processor.broker import Broker, parts
from tests.faults.service import Stage, Tables, created, delta, ended
from tests.kafka_tools import Names, Sent, create_topics, produce

EXAMPLES: Final = Path(__file__).parents[2] / "docs" / "contracts"


def command(language: str) -> list[str]:
    if language == "python":
        return [sys.executable, str(EXAMPLES / "latest_steps.py")]
    java = shutil.which("java")
    if java is None or shutil.which("javac") is None:
        pytest.skip("a JDK is not installed")
    jars = parts.obtain_jars(parts.kafka_cache(), source=parts.repository())
    return [java, "-cp", os.pathsep.join(map(str, jars)), str(EXAMPLES / "LatestSteps.java")]


def step(step_id: str, revision: int, value: bytes, digest: str = "") -> Sent:
    stated = digest or hashlib.sha256(value).hexdigest()
    headers = (("runstep-revision", str(revision).encode()), ("runstep-digest", stated.encode()))
    return Sent(value=value, key=step_id.encode(), headers=headers)


@pytest.mark.parametrize("language", ["python", "java"])
def test_a_reader_keeps_the_last_revision_and_finds_a_wrong_digest(broker: Broker, names: Names, language: str) -> None:
    completed, expired = names.topic("completed"), names.topic("expired")
    create_topics(broker.bootstrap, completed, expired, partitions=2)
    one, two, three = (b'{"id":"%d"}' % number for number in (1, 2, 3))
    transaction = names.topic("writer")
    produce(broker.bootstrap, expired, [step("a", 0, one), step("b", 0, two)], transactional_id=transaction)
    produce(
        broker.bootstrap,
        completed,
        [step("a", 2, three), step("a", 1, two), step("c", 0, one)],
        transactional_id=transaction,
    )
    called = [*command(language), broker.bootstrap, completed, expired]
    done = subprocess.run(called, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"a\t2\t{completed}", f"b\t0\t{expired}", f"c\t0\t{completed}"]

    produce(broker.bootstrap, completed, [step("d", 0, one, digest="0" * 64)])
    done = subprocess.run(called, capture_output=True, text=True, timeout=180)
    assert done.returncode == 1, done.stderr
    assert "wrong digest" in done.stderr
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == ["a", "b", "c"]


@pytest.mark.parametrize("source", ["", "//kafka.example.com/run-step-events"], ids=["plain", "cloudevents"])
def test_readers_of_what_a_worker_publishes(broker: Broker, names: Names, tmp_path: Path, source: str) -> None:
    """A step, and one that is published again as another revision; the CloudEvents SDK reads both where it is to."""
    changes: Tables = {"output": {"cloudevents_source": source}}
    stage = Stage(broker.bootstrap, names, tmp_path)
    with stage.serve(changes) as service:
        service.until_live()
        stage.say(created("step_1"), delta("step_1", "one"), ended("step_1"))
        stage.say(created("step_2"), ended("step_2"), ended("step_2", usage={"total_tokens": 3}))
        service.until("three records", lambda: len(stage.published()) == 3)
        assert service.terminate() == 0
    completed, failed = stage.outcomes["completed"], stage.outcomes["failed"]
    for language in ("python", "java"):
        called = [*command(language), broker.bootstrap, completed, failed]
        done = subprocess.run(called, capture_output=True, text=True, timeout=180)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines() == [f"step_1\t0\t{completed}", f"step_2\t1\t{completed}"]
    for got in stage.published():
        assert got.key is not None
        assert got.value is not None
        named = {name: content for name, content in got.headers if content is not None}
        assert ("ce_id" in named) == bool(source)
        if source:
            event = from_binary_event(KafkaMessage(named, got.key, got.value))
            assert event.get_type() == f"thread.run.step.{json.loads(got.value)['status']}"
            assert (event.get_source(), event.get_subject()) == (source, got.key.decode())
            assert event.get_data() == json.loads(got.value)
    assert stage.replayed(changes) is Outcome.PROVEN
    if source:
        assert stage.replayed() is Outcome.UNPROVABLE, "without the switch the settings are others"
