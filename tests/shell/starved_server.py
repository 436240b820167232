"""An HTTP server of a worker in a process of few descriptors, driven by words on standard input.

Prints its port; then answers each word with a line: `fill` opens files until there is no descriptor left, `free` closes
them, `release` lets the held answers go, `told` says what could not be accepted and the CPU time so far in seconds.
Usage: `python -m tests.shell.starved_server LOOP LIMIT`.
"""

from __future__ import annotations

import asyncio
import os
import resource
import sys
import time

from processor.serve.http import Controlled, Health, Listing, OneWorker, Server
from processor.serve.http_connections import Refused

BIG = b"# " + b"x" * (4 << 20) + b"\n"
"""An answer that does not fit the buffers between two sockets of a machine."""


def answer(*numbers: float) -> None:
    os.write(1, f"{' '.join(map(str, numbers))}\n".encode())


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


class Worker:
    def healthz(self) -> Health:
        return Health(True, [], {"descriptors": sum(map(is_open, range(1024)))})

    def readyz(self) -> Health:
        return Health(True, [], {})

    def steps(self, limit: int) -> list[dict[str, object]]:
        return []

    def control(self, partition: int, reason: str | None) -> Controlled:
        return Controlled(404, "")


class Held(OneWorker):
    """`/readyz` and `/steps` are answered when they are let go."""

    def __init__(self) -> None:
        super().__init__(Worker(), lambda: BIG)
        self.release = asyncio.Event()

    async def readyz(self) -> Health:
        await self.release.wait()
        return await super().readyz()

    async def steps(self, limit: int) -> Listing:
        await self.release.wait()
        return await super().steps(limit)


async def main() -> None:
    told: list[Refused] = []
    source, files = Held(), list[int]()
    server = Server(source, "127.0.0.1", 0, refused=told.append)
    answer(await server.start())
    words: asyncio.Queue[str] = asyncio.Queue()
    asyncio.get_running_loop().add_reader(0, lambda: words.put_nowait(sys.stdin.readline().strip()))
    while word := await words.get():
        if word == "fill":
            try:
                while True:
                    files.append(os.dup(0))
            except OSError:
                answer(len(files))
        elif word == "free":
            while files:
                os.close(files.pop())
            answer(0)
        elif word == "release":
            source.release.set()
            answer(0)
        else:
            answer(len(told), time.process_time())
    asyncio.get_running_loop().remove_reader(0)
    source.release.set()
    await server.stop()


if __name__ == "__main__":
    limit = int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    if sys.argv[1] == "uvloop":
        import uvloop

        uvloop.run(main())
    else:
        asyncio.run(main())
