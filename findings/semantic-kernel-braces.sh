#!/usr/bin/env bash
# surprise: Semantic Kernel takes "{}" out of a streamed tool call: the template "order-{}" becomes "order-".
# versions: PyPI semantic-kernel 1.45.0, openai 3.57.0 (for comparison, too)
# expected: the pieces of the arguments, one behind the other, as openai's own accumulator gives them. Where a service cuts them has no meaning, and
#   each of the three streams has the same arguments.
# does: a piece that is "{}" alone counts as empty when function calls are added up, wherever it stands: inside of a text it is lost, so
#   that the tool runs with another text and the record of the call says so, too; as the value of a field it leaves arguments
#   that are no JSON.

. "$(dirname "$0")/lib/finding.sh"
python_packages semantic-kernel==1.45.0 openai==3.57.0
seen=$(PYTHONPATH=$LIB timeout 90 "$WORK/venv/bin/python" - <<'PYTHON'
import asyncio
import functools
import json

import event_stream
import openai
from openai.lib.streaming.chat import ChatCompletionStreamState
from semantic_kernel.connectors.ai.open_ai import OpenAIChatCompletion, OpenAIChatPromptExecutionSettings
from semantic_kernel.contents import ChatHistory

PIECES = {
    "cut before": ['{"name": "order-', '{}"', "}"],
    "cut around": ['{"name": "order-', "{}", '"}'],
    "a field": ['{"name": "order-1", "filter": ', "{}", "}"],
}


def stream(name):
    calls = [{"index": 0, "id": "1", "type": "function", "function": {"name": "refund", "arguments": ""}}]
    calls += [{"index": 0, "function": {"arguments": piece}} for piece in PIECES[name]]
    deltas = [({"role": "assistant", "tool_calls": [call]}, None) for call in calls] + [({}, "tool_calls")]
    chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "any"}
    chunks = [{**chunk, "choices": [{"index": 0, "delta": delta, "finish_reason": end}]} for delta, end in deltas]
    return b"".join(b"data: %s\n\n" % json.dumps(one).encode() for one in chunks) + b"data: [DONE]\n\n"


async def main():
    client = openai.AsyncOpenAI(api_key="none", base_url=event_stream.serve(stream))
    history = ChatHistory()
    history.add_user_message("any")
    for name in PIECES:
        state = ChatCompletionStreamState()
        async for chunk in await client.chat.completions.create(model=name, messages=[], stream=True):
            state.handle_chunk(chunk)
        print(f"{name}, openai: {state.get_final_completion().choices[0].message.tool_calls[0].function.arguments}")
        kernel = OpenAIChatCompletion(ai_model_id=name, async_client=client)
        settings = OpenAIChatPromptExecutionSettings()
        parts = [one[0] async for one in kernel.get_streaming_chat_message_contents(history, settings)]
        whole = functools.reduce(lambda first, second: first + second, parts)
        print(f"{name}, semantic-kernel: {whole.items[0].arguments}")


asyncio.run(main())
PYTHON
)
verdict 'cut before, openai: {"name": "order-{}"}
cut before, semantic-kernel: {"name": "order-{}"}
cut around, openai: {"name": "order-{}"}
cut around, semantic-kernel: {"name": "order-"}
a field, openai: {"name": "order-1", "filter": {}}
a field, semantic-kernel: {"name": "order-1", "filter": }' "$seen"
