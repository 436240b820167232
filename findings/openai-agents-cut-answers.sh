#!/usr/bin/env bash
# surprise: OpenAI's Agents SDK reports an answer that the token limit or the content filter cut as completed, and as the run's output.
# versions: PyPI openai-agents 0.24.0, openai 3.57.0
# expected: what the chunk says: finish_reason length and content_filter. In the Responses API, whose events the SDK makes of the chunks,
#   such an answer ends with response.incomplete, the status incomplete, and max_output_tokens or content_filter as the reason.
# does: with OpenAIChatCompletionsModel the last event of each stream is response.completed, without status and reason, also where the
#   connection ended before any finish_reason. The run's output is the beginning of the answer, and nothing in its events or in its
#   result tells it from a whole one: "Delete all" may have had an "except" behind it.

. "$(dirname "$0")/lib/finding.sh"
python_packages openai-agents==0.24.0 openai==3.57.0
seen=$(PYTHONPATH=$LIB timeout 60 "$WORK/venv/bin/python" - 2>/dev/null <<'PYTHON'
import asyncio
import json

import event_stream
from agents import Agent, OpenAIChatCompletionsModel, Runner, set_tracing_disabled
from openai import AsyncOpenAI


def answer(reason):
    for delta, end in [({"role": "assistant", "content": "Delete all"}, None), ({}, reason)]:
        if end or delta:
            about = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "any"}
            choice = {"index": 0, "delta": delta, "finish_reason": end}
            yield b"data: %s\n\n" % json.dumps(about | {"choices": [choice]}).encode()
    if reason:
        yield b"data: [DONE]\n\n"


async def main():
    set_tracing_disabled(True)
    client = AsyncOpenAI(api_key="none", base_url=event_stream.serve(lambda model: b"".join(answer(REASONS[model]))))
    for model in REASONS:
        run = Runner.run_streamed(Agent("any", model=OpenAIChatCompletionsModel(model, client)), "which files?")
        async for event in run.stream_events():
            if event.type == "raw_response_event":
                last = event.data
        print(f"{model}: {last.type}, status {last.response.status}, reason {last.response.incomplete_details}")
        print(f"  output of the run: {run.final_output}")


REASONS = {"stop": "stop", "length": "length", "content_filter": "content_filter", "connection lost": None}
asyncio.run(main())
PYTHON
)
verdict "stop: response.completed, status None, reason None
  output of the run: Delete all
length: response.completed, status None, reason None
  output of the run: Delete all
content_filter: response.completed, status None, reason None
  output of the run: Delete all
connection lost: response.completed, status None, reason None
  output of the run: Delete all" "$seen"
