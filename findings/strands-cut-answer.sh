#!/usr/bin/env bash
# surprise: Strands Agents ends a cut stream as an answer with end_turn and no text, though it handed the text's pieces out.
# versions: PyPI strands-agents 1.62.0, openai 3.57.0
# expected: an error, or at least what was received and a reason to stop that tells it apart: a stream of chat completions that is whole
#   ends with a chunk that has a finish_reason, and this one had none.
# does: the model's stream closes the block of text only when a finish_reason comes, and reason to stop is end_turn until another is
#   stated. So the message that goes into the agent's history has no content: the caller reads an empty answer that ended
#   well, after the callback was given its text, and the next turn is asked on the ground of nothing.

. "$(dirname "$0")/lib/finding.sh"
python_packages strands-agents==1.62.0 openai==3.57.0
seen=$(PYTHONPATH=$LIB timeout 60 "$WORK/venv/bin/python" - <<'PYTHON' 2>/dev/null
import json

import event_stream
from strands import Agent
from strands.models.openai import OpenAIModel


def stream(name):
    deltas = [({"role": "assistant", "content": "Refund"}, None), ({"content": " order 7."}, None), ({}, "stop")]
    chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "any"}
    chunks = [{**chunk, "choices": [{"index": 0, "delta": delta, "finish_reason": end}]} for delta, end in deltas]
    lines = [b"data: %s\n\n" % json.dumps(one).encode() for one in chunks] + [b"data: [DONE]\n\n"]
    return b"".join(lines if name == "whole" else lines[:2])


url = event_stream.serve(stream)
for name in ("whole", "cut"):
    pieces = []
    agent = Agent(
        model=OpenAIModel(client_args={"api_key": "none", "base_url": url}, model_id=name),
        callback_handler=lambda **told: pieces.append(told["data"]) if "data" in told else None,
    )
    result = agent("any")
    print(f"{name}: pieces {pieces}, result {str(result).strip()!r}, {result.stop_reason}, history {agent.messages[-1]['content']}")
PYTHON
)
verdict "whole: pieces ['Refund', ' order 7.'], result 'Refund order 7.', end_turn, history [{'text': 'Refund order 7.'}]
cut: pieces ['Refund', ' order 7.'], result '', end_turn, history []" "$seen"
