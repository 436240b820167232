#!/usr/bin/env bash
# surprise: sseclient-py hands out an event that the connection's end cut in its middle.
# versions: PyPI sseclient-py 1.9.0; httpx-sse 0.4.3 (on httpx 0.28.1) for comparison
# expected: the cut event is dropped. WHATWG HTML, "Interpreting an event stream": once the end of the file is reached, pending
#   data must be discarded, and an event without its final empty line is not dispatched.
# does: what was read so far is an event like any other. Here the server wrote the first line of a value of two lines, and both
#   the half and a whole one are good JSON: the reader takes "attempts": 1 for the answer. httpx-sse drops it.

. "$(dirname "$0")/lib/finding.sh"
python_packages sseclient-py==1.9.0 httpx-sse==0.4.3 httpx==0.28.1
seen=$(timeout 60 "$WORK/venv/bin/python" - <<'PYTHON'
import httpx
import httpx_sse
import sseclient

WHOLE = b'event: step\ndata: {"id": 7}\n\n'
CUT = b'event: step\ndata: {"id": 8, "attempts": 1}\n'  # one more data line and the empty line never came


def answer(_request: httpx.Request) -> httpx.Response:
    return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=iter([WHOLE, CUT]))


client = httpx.Client(transport=httpx.MockTransport(answer))
with client.stream("GET", "http://service/") as response:
    for event in sseclient.SSEClient(response.iter_bytes()).events():
        print("sseclient-py", event.event, event.data)
with httpx_sse.connect_sse(client, "GET", "http://service/") as source:
    for event in source.iter_sse():
        print("httpx-sse", event.event, event.data)
PYTHON
)
verdict 'sseclient-py step {"id": 7}
sseclient-py step {"id": 8, "attempts": 1}
httpx-sse step {"id": 7}' "$seen"
