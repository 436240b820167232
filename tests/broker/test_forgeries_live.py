"""Records and offsets that someone with write access puts beside a worker's own: a replay tells each of them.

The archives' counterpart is `tests/shell/test_audit_forgeries.py`.
"""

from __future__ import annotations

import json
import signal
import time
import uuid
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from processor.audit.replay.command import replay
from processor.audit.replay.options import Options
from processor.audit.replay.outcome import Replayed
from processor.audit.report.manifest import Outcome
from processor.broker import Broker
from processor.config.loading import load
from processor.core.checkpoints import encode_checkpoint, read_checkpoint
from processor.core.headers import (
    CLOCK_MARK,
    DIGEST,
    EVENTS,
    FIRST_OFFSET,
    INFERRED,
    LAST_OFFSET,
    REVISION,
    SOURCE_OFFSET,
)
from processor.kafka.client_config import Connection
from tests.faults.service import Stage, Tables, created, delta, ended, toml
from tests.faults.test_positions import REFUSED
from tests.kafka_tools import Got, Names, Sent, produce

CHANGES: Final[Tables] = {"checkpoints": {"interval_s": 0.2}}
STEPS: Final = ("s0", "s1", "s2")
RECORDS: Final = 3 * len(STEPS) + 2
KEY: Final = b"sopen"
"""Of the checkpoint of the step that is open."""


@pytest.fixture
def stage(broker: Broker, names: Names, tmp_path: Path) -> Stage:
    """A worker has run and stopped: three steps are published, a letter set aside, a step is open and checkpointed."""
    found = Stage(broker.bootstrap, names, tmp_path, partitions=1)
    with found.serve(CHANGES) as service:
        service.until_live()
        for step in STEPS:
            found.say(created(step), delta(step, "abc"), ended(step))
        found.say(b"garbage", created("open"))
        service.until("all committed", lambda: found.committed().get(0) == RECORDS)
        service.until("checkpointed", lambda: found.kept().get(KEY))
        assert service.terminate() == 0
    assert counted(found) == {"step": {"equal": 3}, "dead_letter": {"equal": 1}}
    return found


def replayed(stage: Stage) -> Replayed:
    config = stage.home / "replay.toml"
    config.write_text(toml(stage.tables(CHANGES)))
    settings = load(config, {})
    connection = settings.kafka.connection()
    return replay(Options(end="end"), settings, lambda: Connection.build(**connection), lambda _: None)


def counted(stage: Stage) -> dict[str, dict[str, int]]:
    return replayed(stage).counts


def put(
    stage: Stage,
    got: Got,
    topic: str = "",
    headers: Mapping[str, bytes] | None = None,
    *,
    is_bare: bool = False,
    **changes: Any,
) -> None:
    """Produce a record of the worker's anew, changed; `is_bare`: without headers."""
    kept = {name: value or b"" for name, value in got.headers} | dict(headers or {})
    told: dict[str, Any] = {
        "value": got.value,
        "key": got.key,
        "timestamp": got.timestamp,
        "headers": () if is_bare else tuple(kept.items()),
    }
    produce(stage.bootstrap, topic or got.topic, [Sent(partition=got.partition, **(told | changes))])


def digest(value: bytes) -> dict[str, bytes]:
    return {DIGEST: sha256(value).hexdigest().encode()}


def an_expiry_that_was_not_due(stage: Stage, step: Got) -> None:
    now_ms = int(time.time() * 1000)
    told = json.loads(step.value or b"") | {"id": "open", "status": "expired", "expired_at": now_ms // 1000}
    value = json.dumps(told | {"step_details": None}, sort_keys=True, separators=(",", ":")).encode()
    begun = {FIRST_OFFSET: b"%d" % (RECORDS - 1), LAST_OFFSET: b"%d" % (RECORDS - 1), EVENTS: b"1"}
    ended_by = {INFERRED: b"deadline", CLOCK_MARK: b"%d@%d" % (now_ms, RECORDS)}
    expired = stage.outcomes["expired"]
    put(stage, step, expired, {**digest(value), **begun, **ended_by}, value=value, key=b"open", timestamp=now_ms)


def test_each_forged_record_is_told(stage: Stage) -> None:
    """One after the other: each adds its own finding, and accuses no record of the worker's.

    A forged checkpoint is believed: what came of it is told.
    """
    step, letter = stage.published("completed")[0], stage.letters()[0]
    value = (step.value or b"").replace(b'"abc"', b'"xyz"')
    other = (step.value or b"").replace(b'"id":"%b"' % (step.key or b""), b'"id":"sx"')
    forgeries: list[tuple[str, str, Callable[[], None]]] = [
        ("step", "duplicate", lambda: put(stage, step)),
        ("dead_letter", "duplicate", lambda: put(stage, letter)),
        ("step", "extra", lambda: put(stage, step, headers=digest(other), value=other, key=b"sx")),
        ("step", "extra", lambda: put(stage, step, headers={**digest(value), REVISION: b"1"}, value=value)),
        ("step", "extra", lambda: put(stage, step, value=None)),
        ("step", "extra", lambda: put(stage, step, value=None, is_bare=True)),
        ("dead_letter", "extra", lambda: put(stage, letter, headers={SOURCE_OFFSET: b"3"}, value=b"{}")),
        ("dead_letter", "extra", lambda: put(stage, letter, value=None, is_bare=True)),
        ("step", "extra", lambda: an_expiry_that_was_not_due(stage, step)),
    ]
    expected = {"step": {"equal": 3}, "dead_letter": {"equal": 1}}
    for kind, verdict, forge in forgeries:
        forge()
        expected[kind][verdict] = expected[kind].get(verdict, 0) + 1
        found = replayed(stage)
        assert (found.verdict, found.counts) == (Outcome.DIFFERENT, expected)
    entry = read_checkpoint(KEY, stage.kept()[KEY] or b"")
    entry.body = entry.body.replace(b"thread_1", b"thread_X")
    produce(stage.bootstrap, stage.checkpoints, [Sent(encode_checkpoint(entry), KEY, partition=0)])
    before = len(stage.published())
    with stage.serve(CHANGES) as service:  # it cannot know
        service.until_live()
        stage.say(ended("open", thread_id=None))
        service.until("published", lambda: len(stage.published()) > before)
        assert service.terminate() == 0
    expected["step"]["different"] = 1
    found = replayed(stage)
    assert (found.verdict, found.counts) == (Outcome.DIFFERENT, expected)


def test_offsets_of_a_stranger_are_overwritten_or_noticed(stage: Stage) -> None:
    """A broker takes a producer's offsets for a group that has members, if it names none of them."""
    with stage.serve(CHANGES) as service:
        service.until_live()
        for forged in (3, RECORDS):
            commit_in_a_transaction(stage, forged)
            assert stage.resume_points() == {}
            stage.say(created(f"after_{forged}"), ended(f"after_{forged}"))
            service.until("committed by the worker", stage.resume_points)
        assert counted(stage) == {"step": {"equal": 5}, "dead_letter": {"equal": 1}}
        commit_in_a_transaction(stage, 3)
        service.send(signal.SIGKILL)
        service.ended()
    with stage.serve(CHANGES) as service:
        assert service.ended() == REFUSED, service.tail()
        assert "beyond the committed offset 3" in service.said()
    stage.say(created("left out"), ended("left out"))
    commit_in_a_transaction(stage, RECORDS + 6)
    with stage.serve(CHANGES) as service:
        service.until_live()
        assert service.logged("restore_rebuilds", reason="metadata_missing")
        stage.say(ended("open"))
        service.until("published", lambda: any(got.key == b"open" for got in stage.published()))
        assert service.terminate() == 0
    found = replayed(stage)
    assert found.counts == {"step": {"equal": 6, "missing": 1}, "dead_letter": {"equal": 1}}
    assert found.first[0].identity == ("left out", "0")


def commit_in_a_transaction(stage: Stage, offset: int) -> None:
    """As a producer does that knows the group's name, and is no member."""
    client = {"bootstrap.servers": stage.bootstrap, "log_level": 2}
    producer = Producer({**client, "transactional.id": uuid.uuid4().hex})
    producer.init_transactions(60)
    consumer = Consumer({**client, "group.id": stage.group})
    producer.begin_transaction()
    wanted = [TopicPartition(stage.source, 0, offset)]
    producer.send_offsets_to_transaction(wanted, consumer.consumer_group_metadata(), 60)
    producer.commit_transaction(60)
    consumer.close()
