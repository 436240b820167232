#!/usr/bin/env bash
# surprise: Opik records no tool call of a Gemini stream that ends with a chunk of its own, or ends the program's stream with a TypeError.
# versions: PyPI opik 2.2.122, google-genai 3.6.1
# expected: in the record, the call and the text of the chunks; and the same stream for the program, whatever Opik makes of it. Gemini may
#   send the reason to stop behind the last call, in a chunk with an empty text or with content that has no parts.
# does: track_genai records the last chunk, with the text of all chunks in its first part. A call that came before is in no record; one
#   that came last has the text in its own part. Where the last chunk has no parts this fails, in the program's loop, after the
#   last word: what the program does with the whole answer is not done, and the record of the call has no output.

. "$(dirname "$0")/lib/finding.sh"
python_packages opik==2.2.122 google-genai==3.6.1
seen=$(timeout 120 "$WORK/venv/bin/python" - <<'PYTHON' 2>/dev/null
import gzip
import http.server
import json
import os
import sys
import threading

CALL = {"functionCall": {"name": "refund", "args": {"order": 7}}}
STREAMS = {  # the parts of each chunk
    "text": [[{"text": "Pay"}], [{"text": " now."}]],
    "call-last": [[{"text": "Paying."}], [CALL]],
    "call-and-empty-text": [[CALL], [{"text": ""}]],
    "text-and-no-parts": [[{"text": "Pay now."}], None],
}
recorded = {}


class Service(http.server.BaseHTTPRequestHandler):  # of Gemini and of Opik
    def do_GET(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(200)
        if ":streamGenerateContent" in self.path:
            self.send_header("content-type", "text/event-stream")
            self.end_headers()
            chunks = STREAMS[self.path.split("/models/")[1].split(":")[0]]
            for place, parts in enumerate(chunks, 1):
                candidate = {"index": 0, "content": {"role": "model", **({"parts": parts} if parts else {})}}
                if place == len(chunks):
                    candidate["finishReason"] = "STOP"
                self.wfile.write(b"data: %s\r\n\r\n" % json.dumps({"candidates": [candidate]}).encode())
        else:
            if "/spans" in self.path:
                text = gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body
                for span in json.loads(text).get("spans", []):
                    recorded[span.get("model")] = span.get("output")
            self.send_header("content-type", "application/json")
            self.end_headers()
            self.wfile.write(b"{}")

    do_POST = do_PUT = do_PATCH = do_GET

    def log_message(self, *_):
        pass


def show(parts):
    shown = []
    for part in parts or []:
        texts = [f'"{part["text"]}"'] if part.get("text") is not None else []
        calls = ["{name}({args[order]})".format(**part["function_call"])] if part.get("function_call") else []
        shown.append(" in one part with ".join(texts + calls))
    return ", ".join(shown)


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Service)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}"
os.environ.update(OPIK_URL_OVERRIDE=url, OPIK_SENTRY_ENABLE="false", OPIK_TRACK_DISABLE="false")

import opik  # noqa: E402
from google import genai  # noqa: E402
from opik.integrations.genai import track_genai  # noqa: E402

client = genai.Client(api_key="none", http_options={"base_url": url})
traced = track_genai(genai.Client(api_key="none", http_options={"base_url": url}))
read = {}
for model in STREAMS:
    for name, one in {"without Opik": client, "with Opik": traced}.items():
        parts = []
        try:
            for chunk in one.models.generate_content_stream(model=model, contents="any"):
                parts += [part.model_dump() for part in chunk.candidates[0].content.parts or []]
            read[name] = show(parts)
        except TypeError as error:
            read[name] = f"{show(parts)}, then a {type(error).__name__}"
    opik.flush_tracker()
    output = recorded.get(model)
    print(f"{model}: {read['without Opik']}")
    print(f"  with Opik: {read['with Opik']}")
    print(f"  recorded: {show(output['candidates'][0]['content']['parts']) if output else 'nothing'}")
sys.stdout.flush()
os._exit(0)
PYTHON
)
verdict 'text: "Pay", " now."
  with Opik: "Pay", " now."
  recorded: "Pay now."
call-last: "Paying.", refund(7)
  with Opik: "Paying.", refund(7)
  recorded: "Paying." in one part with refund(7)
call-and-empty-text: refund(7), ""
  with Opik: refund(7), ""
  recorded: ""
text-and-no-parts: "Pay now."
  with Opik: "Pay now.", then a TypeError
  recorded: nothing' "$seen"
