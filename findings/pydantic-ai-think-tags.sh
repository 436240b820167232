#!/usr/bin/env bash
# surprise: Pydantic AI gives the answer "Write <think> before it." as "Write " if the tag comes as a piece of its own.
# versions: PyPI pydantic-ai-slim 2.68.0 with its extra openai, openai 3.57.0
# expected: one answer for one text. Where a service cuts it has no meaning, the first three streams have the same text, and no
#   reasoning: the text explains a tag.
# does: a piece of text that is "<think>" alone, wherever it stands, begins the reasoning of the model, for each model whose profile does not
#   name other tags; what follows, up to a piece "</think>" or to the end, is not in the output that the program is given. Models have
#   one token for the tag, so that it comes alone. If the answer begins with it there is no text, and the agent asks anew.

. "$(dirname "$0")/lib/finding.sh"
python_packages 'pydantic-ai-slim[openai]==2.68.0' openai==3.57.0
seen=$(PYTHONPATH=$LIB timeout 90 "$WORK/venv/bin/python" - <<'PYTHON' 2>/dev/null
import asyncio
import json

import event_stream
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

PIECES = {
    "one piece": ["Write <think> before it."],
    "cut inside of the tag": ["Write <thi", "nk> before it."],
    "cut around the tag": ["Write ", "<think>", " before it."],
    "around two": ["Write ", "<think>", " and ", "</think>", " around it."],
}


def stream(name):
    deltas = [({"role": "assistant", "content": piece}, None) for piece in PIECES[name]] + [({}, "stop")]
    chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "any"}
    chunks = [{**chunk, "choices": [{"index": 0, "delta": delta, "finish_reason": end}]} for delta, end in deltas]
    return b"".join(b"data: %s\n\n" % json.dumps(one).encode() for one in chunks) + b"data: [DONE]\n\n"


async def main():
    provider = OpenAIProvider(base_url=event_stream.serve(stream), api_key="none")
    for name in PIECES:
        async with Agent(OpenAIChatModel(name, provider=provider)).run_stream("any") as run:
            print(f"{name}: {await run.get_output()!r}")


asyncio.run(main())
PYTHON
)
verdict "one piece: 'Write <think> before it.'
cut inside of the tag: 'Write <think> before it.'
cut around the tag: 'Write '
around two: 'Write  around it.'" "$seen"
