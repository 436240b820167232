#!/usr/bin/env bash
# surprise: A cut Responses stream has a final response in openai for Node; one that ends incomplete has none in openai for Python.
# versions: PyPI openai 3.57.0; npm openai 6.49.0 (on node 20 or newer)
# expected: the final response of a stream that ends with response.incomplete or response.failed, both of which carry the
#   whole response with its reason; and an error for a stream whose connection ends before any of the ends.
# does: Python's get_final_response() raises for both ends as if nothing had come, so that the text and the reason are gone
#   for whoever asks so. Node's finalResponse() gives them, and gives a cut stream's first part, too, with status in_progress
#   and no error: only who looks at the status learns that it is a part.

. "$(dirname "$0")/lib/finding.sh"
python_packages openai==3.57.0
node_packages openai@6.49.0
cat >"$WORK/node/read.mjs" <<'NODE'
import OpenAI from "openai";

const client = new OpenAI({ apiKey: "none", baseURL: process.argv[2], maxRetries: 0 });
for (const end of ["completed", "incomplete", "failed", "cut"]) {
  try {
    const final = await client.responses.stream({ model: end, input: "" }).finalResponse();
    console.log(`node, ${end}: ${final.status} ${final.output_text}`);
  } catch (error) {
    console.log(`node, ${end}: ${error.constructor.name}: ${error.message}`);
  }
}
NODE
seen=$(PYTHONPATH=$LIB timeout 60 "$WORK/venv/bin/python" - "$WORK/node" <<'PYTHON'
import json
import subprocess
import sys

import event_stream
import openai

RESPONSE = {
    "id": "resp_1", "object": "response", "created_at": 1, "model": "any", "status": "in_progress", "output": [],
    "error": None, "incomplete_details": None, "parallel_tool_calls": True, "tool_choice": "auto", "tools": [],
}
PLACE = {"output_index": 0, "content_index": 0, "item_id": "msg_1"}


def message(status, *texts):
    content = [{"type": "output_text", "text": text, "annotations": []} for text in texts]
    return {"id": "msg_1", "type": "message", "role": "assistant", "status": status, "content": content}


def stream_that_ends(end):
    events = [
        {"type": "response.created", "response": RESPONSE},
        {"type": "response.output_item.added", "output_index": 0, "item": message("in_progress")},
        {"type": "response.content_part.added", **PLACE, "part": message("", "")["content"][0]},
        {"type": "response.output_text.delta", **PLACE, "delta": "Hel", "logprobs": []},
        {"type": "response.output_text.delta", **PLACE, "delta": "lo", "logprobs": []},
    ]
    if end != "cut":
        told = {**RESPONSE, "status": end, "output": [message("incomplete" if end != "completed" else end, "Hello")]}
        told |= {"incomplete_details": {"reason": "max_output_tokens"}} if end == "incomplete" else {}
        told |= {"error": {"code": "server_error", "message": "try again"}} if end == "failed" else {}
        events.append({"type": f"response.{end}", "response": told})
    numbered = ({**event, "sequence_number": number} for number, event in enumerate(events))
    return "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in numbered).encode()


url = event_stream.serve(stream_that_ends)
client = openai.OpenAI(api_key="none", base_url=url, max_retries=0)
for end in ("completed", "incomplete", "failed", "cut"):
    try:
        with client.responses.stream(model=end, input="") as stream:
            final = stream.get_final_response()
        print(f"python, {end}: {final.status} {final.output_text}")
    except RuntimeError as error:
        print(f"python, {end}: {type(error).__name__}: {error}")
sys.stdout.flush()
subprocess.run(["node", "read.mjs", url], cwd=sys.argv[1], check=True)
PYTHON
)
verdict "python, completed: completed Hello
python, incomplete: RuntimeError: Didn't receive a \`response.completed\` event.
python, failed: RuntimeError: Didn't receive a \`response.completed\` event.
python, cut: RuntimeError: Didn't receive a \`response.completed\` event.
node, completed: completed Hello
node, incomplete: incomplete Hello
node, failed: failed Hello
node, cut: in_progress Hello" "$seen"
