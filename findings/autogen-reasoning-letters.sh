#!/usr/bin/env bash
# surprise: AutoGen takes letters off the ends of streamed reasoning: "the path is /out/think" becomes "e path is /ou".
# versions: PyPI autogen-ext 0.7.5 with its extra openai, openai 3.57.0
# expected: the text that the model reasoned, in the thought of the result as in the pieces that the stream hands out between
#   <think> and </think>, which the client puts around it.
# does: to take the two marks off again it strips each letter that is in them, t, h, i, n, k and /, from both ends, for as long
#   as there is one: words lose letters, and a thought that has no others is empty. The thought is what agents keep and
#   traces show, while the pieces are right. (reasoning_content is the field of DeepSeek, vLLM and others that serve this interface.)

. "$(dirname "$0")/lib/finding.sh"
python_packages "autogen-ext[openai]==0.7.5" openai==3.57.0
seen=$(PYTHONPATH=$LIB timeout 60 "$WORK/venv/bin/python" - <<'PYTHON' 2>/dev/null
import asyncio
import json

import event_stream
from autogen_core.models import UserMessage
from autogen_ext.models.openai import OpenAIChatCompletionClient


def reasoned(text):
    deltas = [{"role": "assistant", "reasoning_content": piece} for piece in (text[:3], text[3:])] + [{"content": "Done."}]
    chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "any"}
    chunks = [{**chunk, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    chunks.append({**chunk, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    return b"".join(b"data: %s\n\n" % json.dumps(one).encode() for one in chunks) + b"data: [DONE]\n\n"


async def main():
    about = dict(vision=False, function_calling=True, json_output=True, family="unknown", structured_output=False)
    url = event_stream.serve(reasoned)
    for text in ("think of the limit", "Refund 12 or 13? Is it thin", "the path is /out/think", "No marks here."):
        client = OpenAIChatCompletionClient(model=text, api_key="none", base_url=url, model_info=about)
        pieces = [piece async for piece in client.create_stream([UserMessage(content="any", source="any")])]
        print("".join(pieces[:-1]), "|", repr(pieces[-1].thought), "|", pieces[-1].content)


asyncio.run(main())
PYTHON
)
verdict "<think>think of the limit</think>Done. | ' of the lim' | Done.
<think>Refund 12 or 13? Is it thin</think>Done. | 'Refund 12 or 13? Is it ' | Done.
<think>the path is /out/think</think>Done. | 'e path is /ou' | Done.
<think>No marks here.</think>Done. | 'No marks here.' | Done." "$seen"
