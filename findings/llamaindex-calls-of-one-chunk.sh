#!/usr/bin/env bash
# surprise: llama-index-llms-openai drops a tool call if a chunk has two, and mixes up calls whose deltas come in turns.
# versions: PyPI llama-index-llms-openai 0.8.3, llama-index-core 0.14.25, openai 2.54.0 (for comparison, too)
# expected: both calls with their arguments. A chunk's delta.tool_calls is a list, each entry says with its index which call it
#   continues, and the service decides how many entries a chunk has; openai's own accumulator goes by the index.
# does: of each chunk the first entry alone is read, so that a second call which came in the same chunk never existed: the agent
#   loop answers one call of two. And an entry continues the call begun last or begins a new one: in turns, two become four.

. "$(dirname "$0")/lib/finding.sh"
python_packages llama-index-llms-openai==0.8.3 llama-index-core==0.14.25 openai==2.54.0
seen=$(timeout 120 "$WORK/venv/bin/python" -W ignore - <<'PYTHON'
import http.server
import json
import threading

import openai
from llama_index.core.llms import ChatMessage
from llama_index.llms.openai import OpenAI


def begun(index, arguments):
    ids = {"index": index, "id": f"call_{index}", "type": "function"}
    return {**ids, "function": {"name": f"tool_{index}", "arguments": arguments}}


def more(index, arguments):
    return {"index": index, "function": {"arguments": arguments}}


CALLS = {
    "gpt-4o": [[begun(0, '{"a":1}')], [begun(1, '{"b":2}')]],
    "gpt-4o-mini": [[begun(0, '{"a":1}'), begun(1, '{"b":2}')]],
    "gpt-4": [[begun(0, '{"a":')], [begun(1, '{"b":')], [more(0, "1}")], [more(1, "2}")]],
}
NAMES = {"gpt-4o": "a chunk each", "gpt-4o-mini": "one chunk", "gpt-4": "in turns"}


def chunk(model, delta, reason=None):
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return {"id": "chat_1", "object": "chat.completion.chunk", "created": 1, "model": model, "choices": [choice]}


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        model = json.loads(self.rfile.read(int(self.headers["content-length"])))["model"]
        chunks = [chunk(model, {"role": "assistant", "content": None})]
        chunks += [chunk(model, {"tool_calls": calls}) for calls in CALLS[model]] + [chunk(model, {}, "tool_calls")]
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        self.wfile.write("".join(f"data: {json.dumps(each)}\n\n" for each in chunks).encode() + b"data: [DONE]\n\n")

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}"
for model, name in NAMES.items():
    asked = {"model": model, "messages": [{"role": "user", "content": "any"}]}
    with openai.OpenAI(api_key="none", base_url=url, max_retries=0).chat.completions.stream(**asked) as events:
        calls = events.get_final_completion().choices[0].message.tool_calls
    print(f"{name}, openai:", [(call.function.name, call.function.arguments) for call in calls])
    llm = OpenAI(model=model, api_key="none", api_base=url, max_retries=0)
    *_, last = llm.stream_chat([ChatMessage(role="user", content="any")])
    calls = [block for block in last.message.blocks if block.block_type == "tool_call"]
    print(f"{name}, llama-index:", [(call.tool_name, call.tool_kwargs) for call in calls])
PYTHON
)
verdict "a chunk each, openai: [('tool_0', '{\"a\":1}'), ('tool_1', '{\"b\":2}')]
a chunk each, llama-index: [('tool_0', '{\"a\":1}'), ('tool_1', '{\"b\":2}')]
one chunk, openai: [('tool_0', '{\"a\":1}'), ('tool_1', '{\"b\":2}')]
one chunk, llama-index: [('tool_0', '{\"a\":1}')]
in turns, openai: [('tool_0', '{\"a\":1}'), ('tool_1', '{\"b\":2}')]
in turns, llama-index: [('tool_0', '{\"a\":'), ('tool_1', '{\"b\":'), ('', '1}'), ('', '2}')]" "$seen"
