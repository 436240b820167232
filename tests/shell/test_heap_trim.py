"""Memory that a backlog took and freed goes back to the operating system."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

_FRAGMENTED = """
import asyncio
from pathlib import Path
from random import Random
from processor.serve.heap_trim import trim_heap

def resident_mb():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4 / 1024

async def main():
    sizes = Random(1)
    held = [bytearray(sizes.randrange(600, 20_000)) for _ in range(10_000)]
    kept = held[::20]  # the last of them lies at the heap's end
    held.clear()
    before = resident_mb()
    trimming = asyncio.create_task(trim_heap(every_s=0.001))
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
