#!/usr/bin/env bash
# surprise: A program that streams from Gemini sees other answers once Weave traces it: "Pay now. now." for "Pay now.", two calls for one.
# versions: PyPI weave 0.54.0, google-genai 3.6.1
# expected: the same chunks with and without weave.init, which is to watch the program. What Weave makes of them is for its trace.
# does: Weave's accumulator takes the first chunk itself for what it adds up, and writes the text and calls of all later ones into it.
#   Whoever keeps the chunks until the end, as list(stream) or a log of them does, finds the first one with all that follows. A
#   chat of google-genai does keep them: the next request tells the model what it said with parts of it doubled.

. "$(dirname "$0")/lib/finding.sh"
python_packages weave==0.54.0 google-genai==3.6.1
seen=$(cd "$WORK" && timeout 120 "$WORK/venv/bin/python" - <<'PYTHON' 2>/dev/null
import http.server
import json
import os
import sys
import threading

from google import genai

STREAMS = {
    "text": [[{"text": "Pay"}], [{"text": " now"}], [{"text": "."}]],
    "call": [[{"text": "Paying."}], [{"functionCall": {"name": "refund", "args": {"order": 7}}}]],
}
SERVICE = {"data": {"viewer": {"username": "any", "defaultEntity": {"name": "any"}}}, "digest": "any", "trace_id": "any", "id": "any"}
asked = []


class Service(http.server.BaseHTTPRequestHandler):  # of Gemini and of Weave
    def do_GET(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(200)
        if ":streamGenerateContent" in self.path:
            asked.append([show(content["parts"]) for content in json.loads(body)["contents"] if content["role"] == "model"])
            self.send_header("content-type", "text/event-stream")
            self.end_headers()
            for parts in STREAMS[self.path.split("/models/")[1].split(":")[0]]:
                usage = {"promptTokenCount": 1, "candidatesTokenCount": 1, "totalTokenCount": 2}
                chunk = {"candidates": [{"index": 0, "content": {"role": "model", "parts": parts}}], "usageMetadata": usage}
                if parts is parts_at_the_end(self.path):
                    chunk["candidates"][0]["finishReason"] = "STOP"
                self.wfile.write(b"data: %s\r\n\r\n" % json.dumps(chunk).encode())
        else:
            self.send_header("content-type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps({**SERVICE, "min_required_weave_python_version": "0.0.1"}).encode())

    do_POST = do_GET

    def log_message(self, *_):
        pass


def parts_at_the_end(path):
    return STREAMS[path.split("/models/")[1].split(":")[0]][-1]


def show(parts):
    return " and ".join(part.get("text") or "{name}({args[order]})".format(**part["functionCall"]) for part in parts)


def program(name):
    service = genai.Client(api_key="none", http_options={"base_url": url})
    for model in STREAMS:
        chunks = list(service.models.generate_content_stream(model=model, contents="any"))
        parts = [part.model_dump(exclude_none=True, by_alias=True) for chunk in chunks for part in chunk.candidates[0].content.parts]
        print(f"{name}, chunks of a {model}:", " | ".join(show([part]) for part in parts))
        chat = service.chats.create(model=model)
        list(chat.send_message_stream("any"))
        list(chat.send_message_stream("any"))
        print(f"{name}, what the model is told it said:", " | ".join(asked[-1]))


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Service)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}"
os.environ.update(WF_TRACE_SERVER_URL=url, WANDB_BASE_URL=url, WANDB_API_KEY="0" * 40)
program("without Weave")
from weave.trace.weave_init import init_weave  # noqa: E402

init_weave("any/any", ensure_project_exists=False)
program("with Weave")
sys.stdout.flush()
os._exit(0)
PYTHON
)
verdict 'without Weave, chunks of a text: Pay |  now | .
without Weave, what the model is told it said: Pay |  now | .
without Weave, chunks of a call: Paying. | refund(7)
without Weave, what the model is told it said: Paying. | refund(7)
with Weave, chunks of a text: Pay now. |  now | .
with Weave, what the model is told it said: Pay now. |  now | .
with Weave, chunks of a call: Paying. | refund(7) | refund(7)
with Weave, what the model is told it said: Paying. and refund(7) | refund(7)' "$seen"
