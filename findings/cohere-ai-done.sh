#!/usr/bin/env bash
# surprise: cohere-ai ends a stream at the first text that has "[DONE]" in it, without an error: the rest of the answer is lost.
# versions: npm cohere-ai 8.1.0 (on node 20 or newer); PyPI cohere 7.3.1 for comparison
# expected: all of the text, and the event message-end with the reason to stop, as cohere for Python gives them. "[DONE]" is the end of a
#   stream where it is all of an event's data; within a JSON string it is text, such as a to-do list or an explanation of streams has.
# does: the reader of the stream looks for "[DONE]" anywhere in a line, and returns. The program's loop ends as it does behind a whole
#   answer; the missing message-end is the one trace. The reader is one that Fern generates, for other services' clients, too.

. "$(dirname "$0")/lib/finding.sh"
python_packages cohere==7.3.1
node_packages cohere-ai@8.1.0
cat >"$WORK/node/read.mjs" <<'NODE'
import { CohereClientV2 } from "cohere-ai";

const client = new CohereClientV2({ token: "none", environment: process.argv[2] });
for (const model of ["finished", "[DONE]"]) {
  let text = "";
  let last;
  for await (const event of await client.chatStream({ model, messages: [{ role: "user", content: "any" }] })) {
    if (event.type === "content-delta") text += event.delta.message.content.text;
    last = event.type;
  }
  console.log(`cohere-ai: ${JSON.stringify(text)}, last event: ${last}`);
}
NODE
seen=$(PYTHONPATH=$LIB timeout 120 "$WORK/venv/bin/python" - "$WORK/node" <<'PYTHON'
import json
import subprocess
import sys

import cohere
import event_stream


def stream(word):
    events = [{"type": "message-start", "id": "1", "delta": {"message": {"role": "assistant"}}}]
    for text in ("Build: ", word, ". Deploy: failed."):
        events.append({"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": text}}}})
    events.append({"type": "message-end", "delta": {"finish_reason": "COMPLETE"}})
    return b"".join(b"event: %s\ndata: %s\n\n" % (one["type"].encode(), json.dumps(one).encode()) for one in events) + b"data: [DONE]\n\n"


url = event_stream.serve(stream)
client = cohere.ClientV2(api_key="none", base_url=url)
for model in ("finished", "[DONE]"):
    events = list(client.chat_stream(model=model, messages=[{"role": "user", "content": "any"}]))
    text = "".join(event.delta.message.content.text for event in events if event.type == "content-delta")
    print(f"cohere: {json.dumps(text)}, last event: {events[-1].type}")
sys.stdout.flush()
subprocess.run(["node", "read.mjs", url], cwd=sys.argv[1], check=True)
PYTHON
)
verdict 'cohere: "Build: finished. Deploy: failed.", last event: message-end
cohere: "Build: [DONE]. Deploy: failed.", last event: message-end
cohere-ai: "Build: finished. Deploy: failed.", last event: message-end
cohere-ai: "Build: ", last event: content-delta' "$seen"
