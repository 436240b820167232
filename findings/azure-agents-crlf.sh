#!/usr/bin/env bash
# surprise: azure-ai-agents delivers only the last event of a stream whose lines end with CR LF, and raises nothing.
# versions: PyPI azure-ai-agents 1.2.0b6; httpx-sse 0.4.3 for comparison
# expected: three events whatever the line end. WHATWG HTML, "Parsing an event stream": lines are separated by CR LF, LF or CR.
#   A server's framework or a proxy chooses among them (sse-starlette's default is CR LF).
# does: the event handler splits the bytes at LF LF only. A CR LF stream is one block to it, in which each later event: and
#   data: line replaces the one before: a run of many steps looks like a run of one.

. "$(dirname "$0")/lib/finding.sh"
python_packages azure-ai-agents==1.2.0b6 httpx-sse==0.4.3 httpx==0.28.1
seen=$(timeout 60 "$WORK/venv/bin/python" - <<'PYTHON'
import httpx
import httpx_sse
from azure.ai.agents.models import AgentEventHandler

DELTA = 'event: thread.run.step.delta\ndata: {"id":"step_%d","object":"thread.run.step.delta","delta":{}}\n\n'
for name, line_end in (("LF", "\n"), ("CR LF", "\r\n")):
    stream = [(DELTA % number).replace("\n", line_end).encode() for number in (1, 2, 3)]
    handler = AgentEventHandler()
    handler.initialize(iter(stream), lambda *_: None)
    print(name, "azure-ai-agents", [data.id for _, data, _ in handler])
    answer = httpx.Response(200, headers={"content-type": "text/event-stream"}, content=iter(stream))
    print(name, "httpx-sse", [event.json()["id"] for event in httpx_sse.EventSource(answer).iter_sse()])
PYTHON
)
verdict "LF azure-ai-agents ['step_1', 'step_2', 'step_3']
LF httpx-sse ['step_1', 'step_2', 'step_3']
CR LF azure-ai-agents ['step_3']
CR LF httpx-sse ['step_1', 'step_2', 'step_3']" "$seen"
