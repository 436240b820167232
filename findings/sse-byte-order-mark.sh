#!/usr/bin/env bash
# surprise: openai for Python reads "Do not pay." as "not pay." if the stream begins with a byte order mark.
# versions: PyPI openai 3.57.0, httpx-sse 0.4.3 (on httpx 0.28.1); npm openai 6.49.0 for comparison (on node 20 or newer)
# expected: the same events with and without: by the HTML standard an event stream may begin with a byte order mark, which its readers
#   leave out. Servers that write text through a writer whose UTF-8 has one send it, as .NET's Encoding.UTF8 does.
# does: both readers for Python take it for a part of the first field's name, so that the line is an unknown field and left out. That is the
#   first event's data, or its name, and then its data comes under another one. No error or warning says so. openai for Node
#   leaves the mark out. (For openai reported as pull request 3819.)

. "$(dirname "$0")/lib/finding.sh"
python_packages openai==3.57.0 httpx-sse==0.4.3 httpx==0.28.1
node_packages openai@6.49.0
cat >"$WORK/node/read.mjs" <<'NODE'
import OpenAI from "openai";

const client = new OpenAI({ apiKey: "none", baseURL: process.argv[2], maxRetries: 0 });
for (const model of ["plain", "mark"]) {
  let text = "";
  for await (const chunk of await client.chat.completions.create({ model, messages: [], stream: true })) {
    text += chunk.choices[0].delta.content ?? "";
  }
  console.log(`${model}, openai for Node: ${text}`);
}
NODE
seen=$(PYTHONPATH=$LIB timeout 60 "$WORK/venv/bin/python" - "$WORK/node" <<'PYTHON'
import json
import subprocess
import sys

import event_stream
import httpx
import httpx_sse
import openai

chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "any"}


def stream(model):
    deltas = [({"content": "Do "}, None), ({"content": "not pay."}, None), ({}, "stop")]
    chunks = [{**chunk, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]} for delta, reason in deltas]
    text = "".join(f"data: {json.dumps(one)}\n\n" for one in chunks) + "data: [DONE]\n\n"
    return text.encode("utf-8-sig" if model == "mark" else "utf-8")


url = event_stream.serve(stream)
client = openai.OpenAI(api_key="none", base_url=url, max_retries=0)
for model in ("plain", "mark"):
    chunks = client.chat.completions.create(model=model, messages=[], stream=True)
    print(f"{model}, openai for Python:", "".join(one.choices[0].delta.content or "" for one in chunks))
print(subprocess.run(["node", "read.mjs", url], cwd=sys.argv[1], check=True, capture_output=True, text=True).stdout, end="")
for encoding in ("utf-8", "utf-8-sig"):
    content = "event: refused\ndata: 7\n\nevent: paid\ndata: 8\n\n".encode(encoding)
    answer = httpx.Response(200, headers={"content-type": "text/event-stream"}, content=content)
    print(f"{encoding}, httpx-sse:", [(event.event, event.data) for event in httpx_sse.EventSource(answer).iter_sse()])
PYTHON
)
verdict "plain, openai for Python: Do not pay.
mark, openai for Python: not pay.
plain, openai for Node: Do not pay.
mark, openai for Node: Do not pay.
utf-8, httpx-sse: [('refused', '7'), ('paid', '8')]
utf-8-sig, httpx-sse: [('message', '7'), ('paid', '8')]" "$seen"
