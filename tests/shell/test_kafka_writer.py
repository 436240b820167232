"""What the writers do without a broker to talk to."""

from __future__ import annotations

import asyncio

import pytest

from processor.kafka import writer


async def test_after_an_error_nobody_waits_for_the_other_answers() -> None:
    answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def refused() -> None:
        raise ValueError("refused")

    async def answered() -> None:
        await asyncio.shield(answer)

    with pytest.raises(ValueError, match="refused"):
        await writer._all([refused(), answered()])
    before = asyncio.all_tasks()
    await asyncio.sleep(0)
    assert [task for task in before - {asyncio.current_task()} if not task.done()] == []
