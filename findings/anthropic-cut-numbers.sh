#!/usr/bin/env bash
# surprise: anthropic for Python completes a tool call that was cut inside a number: a refund of 1250 cents becomes one of 12.
# versions: PyPI anthropic 2.14.0; npm @anthropic-ai/sdk 1.14.0 (on node 20 or newer)
# expected: of an input that ends with {"order":"A7","cents":12 no cents, as nobody can know whether the number goes on; and
#   an error where the connection ends before message_stop. anthropic for Node does both.
# does: Python's final message holds a tool call with cents 12, which a schema has no reason to refuse. If max_tokens was reached,
#   only the stop_reason tells; if the connection was cut, get_final_message() raises nothing and the stop_reason is None.

. "$(dirname "$0")/lib/finding.sh"
python_packages anthropic==2.14.0
node_packages @anthropic-ai/sdk@1.14.0
cat >"$WORK/node/read.mjs" <<'NODE'
import Anthropic from "@anthropic-ai/sdk";

const client = new Anthropic({ apiKey: "none", baseURL: process.argv[2], maxRetries: 0 });
for (const end of ["whole", "max_tokens", "cut"]) {
  try {
    const asked = { model: end, max_tokens: 9, messages: [{ role: "user", content: "any" }] };
    const final = await client.messages.stream(asked).finalMessage();
    console.log(`node, ${end}: ${final.stop_reason} ${JSON.stringify(final.content[0].input)}`);
  } catch (error) {
    console.log(`node, ${end}: ${error.constructor.name}`);
  }
}
NODE
seen=$(PYTHONPATH=$LIB timeout 60 "$WORK/venv/bin/python" - "$WORK/node" <<'PYTHON'
import json
import subprocess
import sys

import anthropic
import event_stream

MESSAGE = {
    "id": "msg_1", "type": "message", "role": "assistant", "model": "any", "content": [], "stop_reason": None,
    "stop_sequence": None, "usage": {"input_tokens": 1, "output_tokens": 1},
}
TOOL = {"type": "tool_use", "id": "toolu_1", "name": "refund", "input": {}}


def stream_that_ends(end):
    pieces = ['{"order":"A7","cents":12'] + (["50}"] if end == "whole" else [])
    events = [
        {"type": "message_start", "message": MESSAGE},
        {"type": "content_block_start", "index": 0, "content_block": TOOL},
    ]
    for piece in pieces:
        delta = {"type": "input_json_delta", "partial_json": piece}
        events.append({"type": "content_block_delta", "index": 0, "delta": delta})
    if end != "cut":
        reason = {"stop_reason": "tool_use" if end == "whole" else end, "stop_sequence": None}
        events.append({"type": "content_block_stop", "index": 0})
        events.append({"type": "message_delta", "delta": reason, "usage": {"output_tokens": 9}})
        events.append({"type": "message_stop"})
    return "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events).encode()


url = event_stream.serve(stream_that_ends)
client = anthropic.Anthropic(api_key="none", base_url=url, max_retries=0)
for end in ("whole", "max_tokens", "cut"):
    asked = {"model": end, "max_tokens": 9, "messages": [{"role": "user", "content": "any"}]}
    with client.messages.stream(**asked) as stream:
        final = stream.get_final_message()
    print(f"python, {end}: {final.stop_reason} {json.dumps(final.content[0].input, separators=(',', ':'))}")
sys.stdout.flush()
subprocess.run(["node", "read.mjs", url], cwd=sys.argv[1], check=True)
PYTHON
)
verdict 'python, whole: tool_use {"order":"A7","cents":1250}
python, max_tokens: max_tokens {"order":"A7","cents":12}
python, cut: None {"order":"A7","cents":12}
node, whole: tool_use {"order":"A7","cents":1250}
node, max_tokens: max_tokens {"order":"A7"}
node, cut: AnthropicError' "$seen"
