"""What ended clients hold is freed, and memory that a backlog took goes back to the operating system."""

from __future__ import annotations

import asyncio
import gc
import platform
import subprocess
import sys
from itertools import count

import pytest

from processor.serve.free_memory import free_memory

_FRAGMENTED = """
import asyncio
from pathlib import Path
from random import Random
from processor.serve.free_memory import free_memory

def resident_mb():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4 / 1024

async def main():
    sizes = Random(1)
    held = [bytearray(sizes.randrange(600, 20_000)) for _ in range(10_000)]
    kept = held[::20]  # the last of them lies at the heap's end
    held.clear()
    before = resident_mb()
    trimming = asyncio.create_task(free_memory(lambda: 0, every_s=0.001))
    for _ in range(200):
        await asyncio.sleep(0.005)
        if resident_mb() < before / 2:
            break
    trimming.cancel()
    print(len(kept), before, resident_mb())

asyncio.run(main())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="malloc_trim is glibc's")
def test_what_was_freed_among_what_is_kept_goes_back() -> None:
    ended = subprocess.run([sys.executable, "-c", _FRAGMENTED], capture_output=True, text=True, check=True)
    _, before, after = map(float, ended.stdout.split())
    assert after < before / 2, ended.stdout


class _Client:
    """Refers to itself, as clients do by way of their tasks."""

    alive = 0

    def __init__(self) -> None:
        self.itself = self
        _Client.alive += 1

    def __del__(self) -> None:
        _Client.alive -= 1


@pytest.mark.parametrize(("changes", "left"), [(True, 0), (False, 1)], ids=["rebalanced", "nothing-happened"])
async def test_old_garbage_is_collected_after_a_rebalance_or_restart_alone(changes: bool, left: int) -> None:
    gc.collect()
    client = _Client()
    gc.collect()  # it is old now
    gc.disable()
    numbers, turned = count(), asyncio.Event()

    def assignment() -> int:
        if next(numbers) >= 2:
            turned.set()
        return next(numbers) if changes else 0

    freeing = asyncio.create_task(free_memory(assignment, every_s=0.001))
    try:
        del client
        async with asyncio.timeout(30):
            await turned.wait()
        assert _Client.alive == left
    finally:
        gc.enable()
        freeing.cancel()
        gc.collect()
