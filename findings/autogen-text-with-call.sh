#!/usr/bin/env bash
# surprise: AutoGen drops what a chunk says of a tool call beside text: no call is left, or a refund of 12 cents for one of 1250.
# versions: PyPI autogen-ext 0.7.5 with its extra openai, openai 3.57.0 (for comparison, too)
# expected: the call and the text, as from openai's own helper: a delta's content and tool_calls are two fields, and nothing in the
#   protocol forbids both in one. Services of other makers, for which the client has base_url, cut their streams as they like.
# does: of a chunk that has text its OpenAI client looks at nothing else. The call is gone while finish_reason says function_calls, or
#   the piece of its arguments that stood there is, and what is left can be another valid document. With text apart all is right.

. "$(dirname "$0")/lib/finding.sh"
python_packages "autogen-ext[openai]==0.7.5" openai==3.57.0
seen=$(PYTHONPATH=$LIB timeout 60 "$WORK/venv/bin/python" - <<'PYTHON' 2>/dev/null
import asyncio
import json

import event_stream
import openai
from autogen_core.models import UserMessage
from autogen_ext.models.openai import OpenAIChatCompletionClient


def call(arguments, **begins):
    return [{"index": 0, **begins, "function": {"arguments": arguments, **({"name": "refund"} if begins else {})}}]


begins = {"id": "call_0", "type": "function"}
STREAMS = {
    "apart": [{"role": "assistant", "content": "One moment."}, {"tool_calls": call('{"order": 7, "cents": 1250}', **begins)}],
    "together": [{"role": "assistant", "content": "One moment.", "tool_calls": call('{"order": 7, "cents": 1250}', **begins)}],
    "in pieces": [
        {"role": "assistant", "content": "One", "tool_calls": None}, {"tool_calls": call('{"order": 7, "cents": 12', **begins)},
        {"content": " moment.", "tool_calls": call("50")}, {"tool_calls": call("}")},
    ],
}


def stream(name):
    chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "any"}
    chunks = [{**chunk, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in STREAMS[name]]
    chunks.append({**chunk, "choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]})
    return b"".join(b"data: %s\n\n" % json.dumps(one).encode() for one in chunks) + b"data: [DONE]\n\n"


async def main():
    about = dict(vision=False, function_calling=True, json_output=True, family="unknown", structured_output=False)
    url = event_stream.serve(stream)
    for name in STREAMS:
        asked = [{"role": "user", "content": "any"}]
        with openai.OpenAI(api_key="none", base_url=url).chat.completions.stream(model=name, messages=asked) as events:
            message = events.get_final_completion().choices[0].message
        print(f"openai, {name}: {message.content}", *(one.function.arguments for one in message.tool_calls))
        client = OpenAIChatCompletionClient(model=name, api_key="none", base_url=url, model_info=about)
        async for last in client.create_stream([UserMessage(content="any", source="any")]):
            pass
        told = last.content if isinstance(last.content, str) else [one.arguments for one in last.content]
        print(f"autogen, {name}: {told} ({last.finish_reason})")


asyncio.run(main())
PYTHON
)
verdict "openai, apart: One moment. {\"order\": 7, \"cents\": 1250}
autogen, apart: ['{\"order\": 7, \"cents\": 1250}'] (function_calls)
openai, together: One moment. {\"order\": 7, \"cents\": 1250}
autogen, together: One moment. (function_calls)
openai, in pieces: One moment. {\"order\": 7, \"cents\": 1250}
autogen, in pieces: ['{\"order\": 7, \"cents\": 12}'] (function_calls)" "$seen"
