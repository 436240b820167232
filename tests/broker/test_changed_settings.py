"""A worker that is started with shorter `[steps]` settings: a step that was open is published when it ends."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from processor.audit.report.manifest import Outcome
from processor.broker import Broker
from processor.core.offset_metadata import OffsetMetadata
from tests.faults.service import Stage, Tables, created, ended
from tests.kafka_tools import Names, committed

BEFORE: Tables = {"steps": {"max_age_s": 3_600, "idle_grace_s": 86_400.0}}
NOW: Tables = {"steps": {"max_age_s": 10, "idle_grace_s": 86_400.0}}


def rules_of(stage: Stage) -> tuple[int, ...]:
    point = OffsetMetadata.decode(committed(stage.bootstrap, stage.group, stage.source)[0][1])
    assert point is not None
    return point.rules


@pytest.mark.parametrize("is_reset", [False, True], ids=["a restart", "a rebuild"])
def test_a_step_that_was_open_by_the_settings_of_before(
    broker: Broker, names: Names, tmp_path: Path, *, is_reset: bool
) -> None:
    stage = Stage(broker.bootstrap, names, tmp_path, partitions=1)
    began_ms = round(time.time() * 1000) - 86_400_000

    def say(value: bytes, after_s: int) -> None:
        stage.say(value, timestamp=began_ms + 1000 * after_s)

    with stage.serve(BEFORE) as service:
        service.until_live()
        say(created("hung", expires_at=None), 0)
        say(ended("first"), 600)
        service.until("both are committed", lambda: stage.committed().get(0) == 2)
        assert service.terminate() == 0
    before = rules_of(stage)
    if is_reset:
        config = str(tmp_path / f"{names.prefix}-1.toml")
        command = [sys.executable, "-m", "processor", "reset", "--config", config, "--to", "current", "--yes"]
        subprocess.run(command, check=True, capture_output=True)
        assert rules_of(stage) == before
    with stage.serve(NOW) as service:
        service.until_live()
        service.until("the change is committed", lambda: rules_of(stage) != before)
        assert stage.published("expired") == []
        say(ended("second"), 7_200)
        service.until("all is committed", lambda: stage.committed().get(0) == 3)
        assert service.terminate() == 0
    with stage.serve(NOW) as service:  # nothing comes twice
        service.until_live()
        say(ended("third"), 7_201)
        service.until("all is committed", lambda: stage.committed().get(0) == 4)
        assert service.terminate() == 0
    assert [got.key for got in stage.published("expired")] == [b"hung"]
    assert sorted(got.key or b"" for got in stage.published("completed")) == [b"first", b"second", b"third"]
    assert stage.replayed(NOW) is not Outcome.DIFFERENT
