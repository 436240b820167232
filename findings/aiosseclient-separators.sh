#!/usr/bin/env bash
# surprise: aiosseclient hands out the beginning of an event's data if U+2028 or U+0085 is in it, and drops the rest.
# versions: PyPI aiosseclient 0.1.8; httpx-sse 0.4.3 (on httpx 0.28.1) for comparison
# expected: the data whole. Lines of an event stream end with LF, CR LF or CR, says the HTML standard; JSON may hold these
#   characters as they are, and JavaScript's JSON.stringify writes them so.
# does: it splits lines with Python's str.splitlines, for which they are ends, too. What follows one is no field and is left out,
#   with a warning in the log, and what comes before it is no JSON. Lines that do end with CR give no event at all.

. "$(dirname "$0")/lib/finding.sh"
python_packages aiosseclient==0.1.8 httpx-sse==0.4.3 httpx==0.28.1
seen=$(timeout 60 "$WORK/venv/bin/python" - <<'PYTHON'
import asyncio
import http.server
import logging
import threading

import aiosseclient
import httpx
import httpx_sse

logging.disable()
STREAMS = {
    "U+2028": 'data: {"delta":"one\u2028two"}\n\ndata: {"delta":"three"}\n\n',
    "U+0085": 'data: {"delta":"one\u0085two"}\n\ndata: {"delta":"three"}\n\n',
    "CR": 'data: {"delta":"one"}\r\rdata: {"delta":"three"}\r\r',
}


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        self.wfile.write(STREAMS[self.path.strip("/")].encode())

    def log_message(self, *_):
        pass


async def with_aiosseclient(url):
    return [event.data async for event in aiosseclient.aiosseclient(url)]


def with_httpx_sse(url):
    with httpx.Client() as client, httpx_sse.connect_sse(client, "GET", url) as source:
        return [event.data for event in source.iter_sse()]


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
for name in STREAMS:
    url = f"http://127.0.0.1:{server.server_port}/{name}"
    print(f"{name}, httpx-sse:", ascii(with_httpx_sse(url)))
    print(f"{name}, aiosseclient:", ascii(asyncio.run(with_aiosseclient(url))))
PYTHON
)
verdict "U+2028, httpx-sse: ['{\"delta\":\"one\\u2028two\"}', '{\"delta\":\"three\"}']
U+2028, aiosseclient: ['{\"delta\":\"one', '{\"delta\":\"three\"}']
U+0085, httpx-sse: ['{\"delta\":\"one\\x85two\"}', '{\"delta\":\"three\"}']
U+0085, aiosseclient: ['{\"delta\":\"one', '{\"delta\":\"three\"}']
CR, httpx-sse: ['{\"delta\":\"one\"}', '{\"delta\":\"three\"}']
CR, aiosseclient: []" "$seen"
