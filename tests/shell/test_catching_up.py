"""Units of a worker that is behind: few and long, and what interrupts them loses and doubles nothing."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.errors import Fenced
from tests.examples import examples
from tests.shell.test_worker import Life, World, ended, living, steps

TURN_S = 0.03
INTERVAL_S = 0.1


async def turned(life: Life, limit: int, count: int = 1) -> None:
    """Turns of the loop, each with at most `limit` records of a partition."""
    for _ in range(count):
        life.clock.now += TURN_S
        await life.applied(limit)


async def begun(life: Life, *partitions: int) -> None:
    """Own these partitions, with an empty unit that begins now."""
    await life.assign(*partitions)
    life.member.answer({})
    await life.member.inside_poll(*partitions)


async def test_a_backlog_is_committed_in_few_units_and_then_each_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World({0: steps(1_000), 1: steps(1_000, "t")})
    async with living(world, monkeypatch) as life:
        await begun(life, 0, 1)
        intervals = 0.0
        while life.member._positions[0] < 1_000:
            await turned(life, 10)
            intervals += TURN_S / INTERVAL_S
        assert intervals >= 30
        assert len(world.commits) <= 8
        await life.interval()
        for number in range(10):  # it keeps up: an end is committed once the interval is over
            before = len(world.commits)
            world.log[0].append(ended(1_000 + number))
            await turned(life, 10, count=5)
            assert len(world.commits) > before
            assert world.committed[0].offset == 1_001 + number
        await life.finished()
        life.assert_equal()


async def test_a_partition_that_keeps_up_is_committed_each_interval_beside_one_that_is_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World({0: steps(1_000), 1: []})
    async with living(world, monkeypatch) as life:
        await begun(life, 0, 1)
        for number in range(10):
            world.log[1].append(ended(number, f"t{number}"))
            await turned(life, 10, count=5)
            assert world.committed[1].offset == number + 1
        await life.finished()
        life.assert_equal()


async def in_a_long_unit(life: Life) -> None:
    """Let a unit stay pending for longer than the commit interval."""
    await begun(life, 0)
    before = list(life.world.commits)
    await turned(life, 5, count=8)
    assert life.world.commits == before


async def test_a_rebalance_commits_a_long_unit_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World({0: steps(1_000)})
    async with living(world, monkeypatch) as life:
        await in_a_long_unit(life)
        await life.worker.revoked([0])
        assert world.committed[0].offset == 40
        world.generation += 1
        await life.assign(0)
        await life.finished()
        life.assert_equal()


async def test_a_stop_commits_a_long_unit_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World({0: steps(1_000)})
    async with living(world, monkeypatch) as life:
        await in_a_long_unit(life)
        life.stop.set()
        life.member.answer({})
        async with asyncio.timeout(60):
            await life.running
        assert world.committed[0].offset == 40
    async with living(world, monkeypatch) as life:
        await life.assign(0)
        await life.finished()
        life.assert_equal()


async def test_a_full_unit_is_committed_before_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World({0: steps(1_000)})
    async with living(world, monkeypatch) as life:
        life.worker._bound.records = 20
        await begun(life, 0)
        await turned(life, 10, count=3)
        assert world.committed[0].offset == 20
        life.worker._bound.records = 50_000
        await life.finished()
        life.assert_equal()


async def test_an_eviction_in_a_long_unit_drops_it(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World({0: steps(1_000)})
    async with living(world, monkeypatch) as life:
        await in_a_long_unit(life)
        world.generation = -1
        with pytest.raises(Fenced):
            await life.worker.revoked([0])
        assert world.published == []
    world.generation = 2
    async with living(world, monkeypatch) as life:
        await life.assign(0)
        await life.finished()
        life.assert_equal()


@settings(max_examples=examples(15))
@given(ends=st.lists(st.tuples(st.integers(1, 60), st.sampled_from(["kill", "stop", "rebalance"])), max_size=6))
def test_whatever_interrupts_long_units_nothing_is_lost_or_doubled(ends: list[tuple[int, str]]) -> None:
    async def run(monkeypatch: pytest.MonkeyPatch) -> None:
        world = World({0: steps(1_500), 1: steps(700, "t")})
        for turns, how in [*ends, (0, "")]:
            async with living(world, monkeypatch) as life:
                await begun(life, 0, 1)
                await turned(life, 5, count=turns)
                if how == "rebalance":
                    await life.rebalanced(1)
                    await turned(life, 5, count=turns)
                    await life.rebalanced(0, 1)
                elif how == "stop":
                    life.stop.set()
                    life.member.answer({})
                    async with asyncio.timeout(60):
                        await life.running
                elif not how:
                    await life.applied(2_000)
                    await life.finished()
            world.generation += 1
        life.assert_equal()

    with pytest.MonkeyPatch.context() as monkeypatch:
        asyncio.run(run(monkeypatch))
