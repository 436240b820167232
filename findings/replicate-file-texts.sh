#!/usr/bin/env bash
# surprise: replicate's stream makes "Do not now." of a "Do not pay now." with U+2028 in it, and fails at a piece of text "https://".
# versions: PyPI replicate 1.0.7, httpx-sse 0.4.3 for comparison (on httpx 0.28.1)
# expected: "See https://example.org" and "Rows:\ndata: 7", as the event stream says and httpx-sse reads. A language model's pieces are text,
#   and use_file_output=False, which stream() takes as run() does, is documented to turn off that file objects are made of URLs.
# does: stream() makes an object for a file of each piece that begins so, whatever use_file_output says, so that the documented
#   loop over str(event) ends with a TypeError. It also takes U+2028, U+0085 and others for line ends, which they are not in an
#   event stream: the rest of the piece behind one is dropped without an error, and "Do not pay now." is "Do not now."

. "$(dirname "$0")/lib/finding.sh"
python_packages replicate==1.0.7 httpx==0.28.1 httpx-sse==0.4.3
seen=$(timeout 120 "$WORK/venv/bin/python" - <<'PYTHON' 2>/dev/null
import http.server
import json
import threading

import httpx
import httpx_sse
import replicate

ANSWERS = {
    "text": ["Paid", " in", " full."],
    "address": ["See ", "https://", "example.org"],
    "name of a field": ["Rows:\n", "data:", " 7"],
    "line separator": ["Do not\u2028pay", " now."],
    "next line": ["Do not\u0085pay", " now."],
}


class Service(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        name = json.loads(self.rfile.read(int(self.headers["content-length"])))["input"]["prompt"]
        body = {"id": "1", "model": "a/b", "version": "1", "status": "starting", "input": {}, "logs": "", "output": None}
        body["urls"] = {"stream": f"{url}/{list(ANSWERS).index(name)}", "get": url, "cancel": url}
        self.answer("application/json", json.dumps(body))

    def do_GET(self):
        pieces = list(ANSWERS.values())[int(self.path[1:])]
        events = [("output", "".join(f"data: {line}\n" for line in piece.split("\n"))) for piece in pieces] + [("done", "data: {}\n")]
        self.answer("text/event-stream", "".join(f"event: {name}\nid: {i}\n{data}\n" for i, (name, data) in enumerate(events)))

    def answer(self, kind, text):
        self.send_response(200)
        self.send_header("content-type", kind)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass


def read_events(name):
    with httpx_sse.connect_sse(httpx.Client(), "GET", f"{url}/{list(ANSWERS).index(name)}") as source:
        return "".join(event.data for event in source.iter_sse() if event.event == "output")


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Service)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}"
client = replicate.Client(api_token="none", base_url=url)
for name in ANSWERS:
    text = ""
    try:
        for event in client.stream("a/b", input={"prompt": name}, use_file_output=False):
            text += str(event)
    except TypeError as error:
        text += f" ... {type(error).__name__}"
    print(f"{name}: httpx-sse {ascii(read_events(name))}, replicate {ascii(text)}")
PYTHON
)
verdict "text: httpx-sse 'Paid in full.', replicate 'Paid in full.'
address: httpx-sse 'See https://example.org', replicate 'See  ... TypeError'
name of a field: httpx-sse 'Rows:\ndata: 7', replicate 'Rows:\n ... TypeError'
line separator: httpx-sse 'Do not\u2028pay now.', replicate 'Do not now.'
next line: httpx-sse 'Do not\x85pay now.', replicate 'Do not now.'" "$seen"
