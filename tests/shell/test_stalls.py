"""`/healthz` in every kind of stall: a reason after half of `stall_timeout_s`, none once it moves again."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from processor.config.settings import Settings
from processor.core.offset_metadata import METADATA_VERSION, OffsetMetadata
from processor.kafka.client_config import Connection
from processor.kafka.consumer import Committed
from processor.serve import clients
from processor.serve.partition_report import Stalled
from processor.serve.stalls import GROUP, Stalls
from processor.serve.worker import Worker
from processor.telemetry.happenings import PartitionStatus, ProgressStalled
from processor.telemetry.telemetry import Telemetry
from tests.shell.test_worker import DEADLINE_S, Life, Member, World, living, steps

STALL_S = Settings().supervisor.stall_timeout_s
LONG_S = STALL_S / 2 + 1
"""Enough to be a reason, and not yet an end."""


async def turned(life: Life, times: int = 3) -> None:
    """Let the loop turn, with polls that bring nothing."""
    for _ in range(times):
        async with asyncio.timeout(DEADLINE_S):
            await life.member.polling()
        life.member.answer({})
        await asyncio.sleep(0)
    async with asyncio.timeout(DEADLINE_S):
        await life.member.polling()


async def stood_still(life: Life, seconds: float = LONG_S) -> list[str]:
    """Let that time pass in which the loop turns and nothing comes; what /healthz says then."""
    await turned(life)
    life.clock.now += seconds
    await turned(life)
    return life.worker.healthz().reasons


async def test_without_an_assignment(monkeypatch: pytest.MonkeyPatch) -> None:
    async with living(World({0: steps(3)}), monkeypatch) as life:
        assert life.worker.healthz().ok
        assert await stood_still(life) == [f"group: no assignment, no progress for {LONG_S:.0f} s"]
        await life.assign(0)
        await life.finished()


async def test_a_stand_by_is_healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    async with living(World({}), monkeypatch) as life:
        await life.assign()
        assert await stood_still(life) == []


async def test_offsets_that_stay_unstable(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World({0: steps(3), 1: steps(3)}, unstable={1})
    async with living(world, monkeypatch) as life:
        life.worker.assigned([0, 1])
        await life.member.inside_poll(0)
        assert "partition 1: its restore has not begun" in "\n".join(await stood_still(life))
        world.unstable.clear()
        await life.member.inside_poll(0, 1)


async def test_checkpoints_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World({0: steps(3), 1: steps(3)}, unreadable={1})
    async with living(world, monkeypatch) as life:
        life.worker.assigned([0, 1])
        await life.member.inside_poll(0)
        assert "partition 1: its checkpoints are being read" in "\n".join(await stood_still(life))
        world.unreadable.clear()
        await life.member.inside_poll(0, 1)


async def test_a_partition_that_is_not_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quota, or a leader that hangs: no fetch was ever answered. It has a lag all the same, and ends the worker."""
    world = World({0: steps(3)})
    async with living(world, monkeypatch) as life:
        monkeypatch.setattr(life.member, "end_of", lambda _: (None, None))
        await life.assign(0)
        (reason,) = await stood_still(life)
        assert reason.startswith("partition 0: no fetch was answered yet")
        told = [happening for happening in world.told if isinstance(happening, PartitionStatus)][-1]
        assert (told.lag_high_watermark, told.lag_last_stable) == (3, 3)
        life.clock.now += STALL_S
        life.member.answer({})
        await life.ended_by(Stalled)
    assert any(isinstance(happening, ProgressStalled) for happening in world.told)


async def test_records_that_do_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    async with living(World({0: steps(3)}), monkeypatch) as life:
        await life.assign(0)
        (reason,) = await stood_still(life)
        assert reason.startswith("partition 0: at 0 of 3")
        await life.applied()
        await life.interval()
        await turned(life)
        life.clock.now += 1
        await turned(life)
        assert life.worker.healthz().reasons == []
        await life.finished()


async def test_a_commit_that_does_not_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World({0: steps(3)})
    async with living(world, monkeypatch) as life:
        await life.assign(0)
        world.may_commit.clear()
        await life.applied()
        await life.interval()
        reasons = "\n".join(await stood_still(life))
        assert f"commit: 3 records have been under way for {LONG_S:.0f} s" in reasons
        assert "partition 0: at 3, committed 0" in reasons
        world.may_commit.set()
        await turned(life)
        life.clock.now += 1
        await turned(life)
        assert life.worker.healthz().reasons == []
        await life.finished()


async def test_a_loop_that_does_not_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    async with living(World({0: steps(3)}), monkeypatch) as life:
        await life.assign(0)
        life.clock.now += LONG_S
        assert f"the loop has not turned for {LONG_S:.0f} s" in life.worker.healthz().reasons


def last_progress_s(life: Life) -> float:
    """What the documented alert compares with the time."""
    found = re.search(rb"^runstep_last_progress_timestamp_seconds (\S+)$", life.worker._telemetry.exposition(), re.M)
    assert found is not None
    return float(found[1])


async def test_last_progress_moves_on_a_stand_by(monkeypatch: pytest.MonkeyPatch) -> None:
    async with living(World({}), monkeypatch) as life:
        await life.assign()
        await stood_still(life)
        assert last_progress_s(life) == life.clock.now


async def test_last_progress_moves_during_a_restore(monkeypatch: pytest.MonkeyPatch) -> None:
    point = OffsetMetadata(0, -1, "another", METADATA_VERSION).encode()
    world = World({0: steps(10)}, committed={0: Committed(6, point)})
    async with living(world, monkeypatch) as life:
        await life.assign(0)
        life.clock.now += LONG_S
        await life.applied(2)
        assert world.restored() == []
        assert last_progress_s(life) == life.clock.now


async def test_last_progress_moves_at_the_end_of_the_log_and_not_before(monkeypatch: pytest.MonkeyPatch) -> None:
    async with living(World({0: steps(3)}), monkeypatch) as life:
        await life.assign(0)
        before = last_progress_s(life)
        await stood_still(life)
        assert last_progress_s(life) == before
        await life.applied()
        await life.interval()
        await stood_still(life)
        assert last_progress_s(life) == life.clock.now
        await life.finished()


def test_a_restart_is_no_progress() -> None:
    """A wait counts from when it began, over incarnations; a partition that went to another worker waits no more."""
    clock = SimpleNamespace(now=0.0)
    stalls = Stalls(60, lambda: clock.now)
    stalls.waits(GROUP, "no assignment")
    clock.now = 40
    stalls.assigned([0, 1])
    for partition in (0, 1):
        stalls.waits(partition, "its restore has not begun")
    clock.now = 80
    stalls.waits(0, "its checkpoints are being read")  # by the next incarnation
    clock.now = 101
    assert [reason.partition(",")[0] for reason in stalls.reasons()] == [
        "partition 0: its checkpoints are being read",
        "partition 1: its restore has not begun",
    ]
    stalls.assigned([0])
    stalls.moved(0)
    assert stalls.reasons() == []
    clock.now = 162
    assert stalls.reasons() == ["partition 0: its checkpoints are being read, no progress for 61 s"]
    stalls.works(0)
    assert stalls.reasons() == [], "a long restore that reads on is no stall"
    assert stalls.waited_s(0) == 61
    stalls.done(0)
    assert stalls.waited_s(0) == 0


@pytest.mark.parametrize(("wanted_ms", "found_ms"), [(300_000, 15_000), (12_000, 12_000)])
def test_the_group_waits_for_a_drain_and_no_longer(
    monkeypatch: pytest.MonkeyPatch, wanted_ms: int, found_ms: int
) -> None:
    """A member that does not come back left the group unassigned for the whole of rebalance_timeout_ms."""
    told: list[Mapping[str, Any]] = []

    def consumer(_: object, **options: Any) -> Member:
        told.append(options)
        return Member(World({}), options["listener"])

    monkeypatch.setattr(clients, "Consumer", consumer)
    settings = Settings.model_validate(
        {"source": {"rebalance_timeout_ms": wanted_ms}, "delivery": {"drain_timeout_s": 10.0}}
    )
    telemetry = Telemetry(level="error")
    try:
        Worker(settings, Connection.build("127.0.0.1:1"), telemetry, transactional_id="a", limits={})
    finally:
        telemetry.close()
    assert told[0]["rebalance_timeout_ms"] == found_ms
