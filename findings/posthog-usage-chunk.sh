#!/usr/bin/env bash
# surprise: A program that streams fails after its last word, and only with PostHog's client: it adds a chunk without choices.
# versions: PyPI posthog 7.91.1, openai 3.57.0 (for comparison, too)
# expected: the chunks that openai's client gives to the same call: PostHog's is a subclass of it that also tells PostHog of each call.
#   By the API reference only a stream whose include_usage is true has a last chunk without choices, and the program does not ask for it.
# does: PostHog's client sets include_usage in each call that streams, also where the program says false, and hands on the chunk with
#   the usage, whose choices are empty. chunk.choices[0], which was right for each chunk, raises an IndexError, and what the program
#   does after its loop, such as storing the answer, is not done.

. "$(dirname "$0")/lib/finding.sh"
python_packages posthog==7.91.1 openai==3.57.0
seen=$(timeout 60 "$WORK/venv/bin/python" - 2>/dev/null <<'PYTHON'
import http.server
import json
import threading

import openai
from posthog import Posthog
from posthog.ai.openai import OpenAI


class Service(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        last = [{"index": 0, "delta": {"content": "."}, "finish_reason": "stop"}]
        chunks = [[{"index": 0, "delta": {"role": "assistant", "content": "Done"}, "finish_reason": None}], last]
        if (asked.get("stream_options") or {}).get("include_usage"):
            chunks.append([])
        for choices in chunks:
            chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "any", "choices": choices}
            if not choices:
                chunk["usage"] = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
            self.wfile.write(b"data: %s\n\n" % json.dumps(chunk).encode())
        self.wfile.write(b"data: [DONE]\n\n")

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Service)
threading.Thread(target=server.serve_forever, daemon=True).start()
service = f"http://127.0.0.1:{server.server_port}"
clients = {
    "openai": openai.OpenAI(api_key="none", base_url=service),
    "PostHog": OpenAI(api_key="none", base_url=service, posthog_client=Posthog("none", host=service, disabled=True)),
}
asked = [{"role": "user", "content": "do it"}]
for name, client in clients.items():
    for options in ({}, {"stream_options": {"include_usage": False}}):
        words = []
        try:
            for chunk in client.chat.completions.create(model="any", messages=asked, stream=True, **options):
                words.append(chunk.choices[0].delta.content)
            words.append("(stored)")
        except IndexError as error:
            words.append(f"({type(error).__name__})")
        print(f"{name}, {'include_usage is false' if options else 'no options'}: {' '.join(words)}")
PYTHON
)
verdict "openai, no options: Done . (stored)
openai, include_usage is false: Done . (stored)
PostHog, no options: Done . (IndexError)
PostHog, include_usage is false: Done . (IndexError)" "$seen"
