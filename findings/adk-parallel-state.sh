#!/usr/bin/env bash
# surprise: An entry that a tool of Google's ADK took out of the session's state is back if two tool calls came in one turn.
# versions: PyPI google-adk 2.13.0
# expected: the state that the last tool left, in either case: the second call is given what the first has left (the tool's
#   own look at the state says so), takes its entry out, and no other tool runs after it.
# does: the state changes of the calls of one turn are merged into one event, dictionaries key by key, so that what a later call
#   took out comes back from the value of an earlier one. The tools saw it gone, and the session that is stored, like each turn after
#   it, has it: a refund that was settled is open again.

. "$(dirname "$0")/lib/finding.sh"
python_packages google-adk==2.13.0
seen=$(timeout 90 "$WORK/venv/bin/python" - <<'PYTHON' 2>/dev/null
import asyncio

from google.adk.agents import LlmAgent
from google.adk.models import BaseLlm, LlmResponse
from google.adk.runners import Runner
from google.adk.sessions import InMemorySessionService
from google.adk.tools import ToolContext
from google.genai import types

left = []


def settle(order: str, tool_context: ToolContext) -> str:
    """Settles an order."""
    tool_context.state["open"] = {key: cents for key, cents in tool_context.state["open"].items() if key != order}
    left.append(tool_context.state["open"])
    return "settled"


class Turns(BaseLlm):
    turns: list

    async def generate_content_async(self, llm_request, stream=False):
        parts = [types.Part(function_call=types.FunctionCall(id=key, name="settle", args={"order": key})) for key in self.turns.pop(0)]
        yield LlmResponse(content=types.Content(role="model", parts=parts or [types.Part(text="done")]))


async def main():
    for turns in ([["a"], ["b"], []], [["a", "b"], []]):
        left.clear()
        print("calls of each turn:", turns)
        sessions = InMemorySessionService()
        who = {"app_name": "app", "user_id": "user"}
        session = await sessions.create_session(**who, state={"open": {"a": 100, "b": 200, "c": 300}})
        agent = LlmAgent(name="agent", model=Turns(model="any", turns=turns), tools=[settle])
        runner = Runner(app_name="app", agent=agent, session_service=sessions)
        message = types.Content(role="user", parts=[types.Part(text="any")])
        async for _ in runner.run_async(user_id="user", session_id=session.id, new_message=message):
            pass
        stored = await sessions.get_session(**who, session_id=session.id)
        print("left by the tools:", *left)
        print("stored:", stored.state["open"])


asyncio.run(main())
PYTHON
)
verdict "calls of each turn: [['a'], ['b'], []]
left by the tools: {'b': 200, 'c': 300} {'c': 300}
stored: {'c': 300}
calls of each turn: [['a', 'b'], []]
left by the tools: {'b': 200, 'c': 300} {'c': 300}
stored: {'b': 200, 'c': 300}" "$seen"
