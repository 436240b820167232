#!/usr/bin/env bash
# surprise: MCP's client for Python hands out the progress of a tool in another order than it was sent, and loses what is not yet handled.
# versions: PyPI mcp 2.3.0
# expected: the steps in the order in which the tool told them, as in the same process, where each callback is awaited before the next; a
#   program that stores a run's progress awaits the store in its callback, and the protocol wants progress that only increases.
# does: over stdio each notification gets a task of its own, so that a callback which waits is overtaken by those behind it, and
#   by the tool's result. Tasks that still wait when the client is left are cancelled: their steps are stored nowhere, and no
#   error says so.

. "$(dirname "$0")/lib/finding.sh"
python_packages mcp==2.3.0
cat >"$WORK/server.py" <<'PYTHON'
from mcp.server.mcpserver import Context, MCPServer

server = MCPServer("server")


@server.tool()
async def work(ctx: Context) -> str:
    for step in (1, 2, 3):
        await ctx.report_progress(step, 3)
    return "done"


if __name__ == "__main__":
    server.run("stdio")
PYTHON
seen=$(cd "$WORK" && PYTHONPATH=$WORK timeout 60 "$WORK/venv/bin/python" - <<'PYTHON' 2>/dev/null
import asyncio
import sys

from mcp.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from server import server


async def stored_by(connection, wait):
    stored = []
    last_came = asyncio.Event()

    async def store(step, total, message):
        if step == 1:
            await wait(last_came)
        stored.append(f"step {step:.0f}")
        if step == 3:
            last_came.set()

    async with Client(connection) as client:
        await client.call_tool("work", {}, progress_callback=store)
        stored.append("result")
    return ", ".join(stored)


async def briefly(last_came):
    await asyncio.sleep(0.01)


async def until_the_last(last_came):
    await last_came.wait()


async def until_left(last_came):
    await asyncio.sleep(30)


async def main():
    program = StdioServerParameters(command=sys.executable, args=["server.py"])
    print("same process:", await stored_by(server, briefly))
    print("stdio:", await stored_by(stdio_client(program), until_the_last))
    print("stdio, left while step 1 waits:", await stored_by(stdio_client(program), until_left))


asyncio.run(main())
PYTHON
)
verdict "same process: step 1, step 2, step 3, result
stdio: step 2, step 3, step 1, result
stdio, left while step 1 waits: step 2, step 3, result" "$seen"
