"""A worker that is started with other settings than the last one had: what was open then is not lost."""

from __future__ import annotations

import json
from typing import Any, cast

import msgspec
import pytest

from processor.config.settings import Settings
from processor.core.effects import LogRecord
from processor.core.offset_metadata import METADATA_VERSION, OffsetMetadata
from processor.kafka.client_config import Connection
from processor.kafka.consumer import Committed
from processor.serve.restore import Restorer
from tests.core.scripted_log import step, text
from tests.shell.test_worker import World, living

DAY_MS = 86_400_000
NOW = Settings().rules()
BEFORE = msgspec.structs.replace(NOW, max_age_s=10 * NOW.max_age_s)


def opened(offset: int, name: str, day: int) -> LogRecord:
    value = text({"event": "thread.run.step.created", "data": step(step_id=name, expires_at=None)})
    return LogRecord(offset, day * DAY_MS, b"key", value)


LOG = [opened(0, "hung", 1), opened(1, "next", 4), opened(2, "late", 5), opened(3, "last", 20)]
"""By the settings of before the first is due on day 11, by those of now on day 2: within the silent fold."""


def rules_of(committed: Committed) -> tuple[int, ...]:
    point = OffsetMetadata.decode(committed.metadata)
    assert point is not None
    return point.rules


@pytest.mark.parametrize("told", [BEFORE.folding(), ()], ids=["told", "by an earlier version"])
async def test_a_step_that_was_open_by_the_settings_of_before_is_published(
    monkeypatch: pytest.MonkeyPatch, told: tuple[int, ...]
) -> None:
    point = msgspec.structs.replace(OffsetMetadata(0, -1, "another", METADATA_VERSION), rules=told)
    world = World({0: LOG}, committed={0: Committed(2, point.encode())})
    async with living(world, monkeypatch) as life:
        await life.assign(0)
        await life.applied()
        await life.finished()
    ids = [json.loads(record.value or b"")["id"] for record in world.published]
    assert sorted(ids) == (["hung", "late", "next"] if told else ["late", "next"]), "where it is not told, it is lost"
    assert rules_of(world.claims[0][0]) == (told or NOW.folding())
    (commit, *_) = world.commits
    assert rules_of(commit[0]) == NOW.folding()
    if told:
        after = OffsetMetadata.decode(commit[0].metadata)
        assert after is not None
        assert after.restore_from >= 2, "what changed over is checkpointed: no silent fold crosses the change"
        assert after.kept >= 2


def test_a_rebuild_reads_from_as_far_before_as_the_settings_of_before_ask() -> None:
    nobody = cast("Any", None)
    restorer = Restorer(
        Settings(), Connection.build("127.0.0.1:1"), nobody, nobody, NOW, own_writer="", claim=nobody, highest=nobody
    )
    assert restorer._silent_rules(Committed(5, "")) == NOW
    point = msgspec.structs.replace(OffsetMetadata(0), rules=BEFORE.folding())
    before = restorer._silent_rules(Committed(5, point.encode()))
    assert before == BEFORE
    assert restorer._horizon_ms([NOW, before]) == (BEFORE.max_age_s + NOW.grace_s + NOW.ended_retention_s) * 1000
