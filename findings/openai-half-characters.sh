#!/usr/bin/env bash
# surprise: openai reads text deltas that were cut inside a character, cannot write them again, and joins them to no text.
# versions: PyPI openai 3.57.0 (pydantic 2.14.3)
# expected: an event that was read can be written (event.to_json()), and deltas "go \ud83d" and "\ude80" come to "go 🚀". JSON's
#   grammar allows an escaped half of a surrogate pair (RFC 8259, sections 7 and 8.2), JSON.stringify and json.dumps write it
#   where a text is cut by UTF-16 length, and JavaScript's string concatenation makes the character whole again.
# does: event.delta holds the half as a lone surrogate. to_json() and model_dump_json() raise PydanticSerializationError for
#   each of the two events, and the text that all deltas come to equals no "go 🚀" and cannot be encoded as UTF-8: whoever
#   logs, stores or forwards the stream fails in his own code, at a character that no one sees.

. "$(dirname "$0")/lib/finding.sh"
python_packages openai==3.57.0 pydantic==2.14.3
seen=$(timeout 60 "$WORK/venv/bin/python" -W ignore - <<'PYTHON'
import http.server
import json
import threading

import openai

DELTA = {
    "type": "response.output_text.delta", "item_id": "msg_1", "output_index": 0, "content_index": 0, "logprobs": [],
}


class Service(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        for number, piece in enumerate(("go ", "\ud83d", "\ude80")):
            event = json.dumps(DELTA | {"sequence_number": number, "delta": piece})
            self.wfile.write(f"event: response.output_text.delta\ndata: {event}\n\n".encode())

    def log_message(self, *_: object) -> None:
        pass


server = http.server.HTTPServer(("127.0.0.1", 0), Service)
threading.Thread(target=server.serve_forever, daemon=True).start()
client = openai.OpenAI(api_key="none", base_url=f"http://127.0.0.1:{server.server_port}/v1")
text = ""
for event in client.responses.create(model="any", input="go", stream=True):
    text += event.delta
    try:
        event.to_json()
        print(ascii(event.delta), "written")
    except Exception as error:
        print(ascii(event.delta), type(error).__name__)
print(ascii(text), text == "go \N{ROCKET}")
try:
    text.encode()
except UnicodeEncodeError as error:
    print(error.reason)
PYTHON
)
verdict "'go ' written
'\\ud83d' PydanticSerializationError
'\\ude80' PydanticSerializationError
'go \\ud83d\\ude80' False
surrogates not allowed" "$seen"
