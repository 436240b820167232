#!/usr/bin/env bash
# surprise: any-llm makes one tool call of two that Azure streams: the name "paynotify", with both calls' arguments.
# versions: PyPI any-llm-sdk 1.40.2 with its extra azure, azure-ai-inference 1.0.0b9, aiohttp 3.14.5, openai 3.57.0 (adds up, too)
# expected: two calls, whatever the provider is. any-llm gives the chunks of OpenAI's interface, where the pieces of a call are told
#   from those of another by its index, and its provider for OpenAI passes the same chunks on as they came.
# does: its provider for Azure numbers the calls of each chunk anew, from 0, though the service states the index. Since a chunk has
#   a piece of one call as a rule, all have the index 0, and what adds the pieces up, here openai's own class, joins them.

. "$(dirname "$0")/lib/finding.sh"
python_packages "any-llm-sdk[azure]==1.40.2" azure-ai-inference==1.0.0b9 aiohttp==3.14.5 openai==3.57.0
seen=$(PYTHONPATH=$LIB timeout 60 "$WORK/venv/bin/python" - 2>/dev/null <<'PYTHON'
import json

import event_stream
from any_llm import completion
from openai.lib.streaming.chat import ChatCompletionStreamState

CALLS = [("pay", '{"cents": 1250}'), ("notify", '{"who": "audit"}')]


def chunk(delta, end=None):
    about = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "any"}
    return b"data: %s\n\n" % json.dumps(about | {"choices": [{"index": 0, "delta": delta, "finish_reason": end}]}).encode()


def answer(_):
    for index, (name, arguments) in enumerate(CALLS):
        start = {"index": index, "id": f"call_{index}", "type": "function", "function": {"name": name, "arguments": ""}}
        yield chunk({"role": "assistant", "content": "", "tool_calls": [start]})
        yield chunk({"tool_calls": [{"index": index, "type": "function", "function": {"arguments": arguments}}]})
    yield chunk({}, "tool_calls") + b"data: [DONE]\n\n"


service = event_stream.serve(lambda model: b"".join(answer(model)))
for provider in ("azure", "openai"):
    asked = [{"role": "user", "content": "pay, and tell them"}]
    indexes, whole = [], ChatCompletionStreamState()
    for part in completion(model="any", provider=provider, messages=asked, stream=True, api_base=service, api_key="none"):
        indexes += [piece.index for choice in part.choices for piece in choice.delta.tool_calls or []]
        whole.handle_chunk(part)
    print(f"{provider}: indexes {indexes}")
    for call in whole.get_final_completion().choices[0].message.tool_calls:
        print(f"  {call.function.name}({call.function.arguments.replace(chr(34), chr(39))})")
PYTHON
)
verdict "azure: indexes [0, 0, 0, 0]
  paynotify({'cents': 1250}{'who': 'audit'})
openai: indexes [0, 0, 1, 1]
  pay({'cents': 1250})
  notify({'who': 'audit'})" "$seen"
