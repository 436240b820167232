#!/usr/bin/env bash
# surprise: openai's run stream adds numbers up and strings together when a delta states a field again with the value it has.
# versions: PyPI openai 3.57.0
# expected: the field keeps its value. The API reference calls thread.run.step.delta "any changed fields on a run step during
#   streaming", and the snapshot that current_run_step_snapshot gives should be the run step as it stands.
# does: all but "index" and "type" is accumulated: strings are appended, numbers summed. A service that repeats a tool call's
#   id, or the search settings, in each delta (legal JSON, and harmless where deltas are laid over) yields an id that
#   no one gave and a score threshold of 1.5 where the highest is 1.

. "$(dirname "$0")/lib/finding.sh"
python_packages openai==3.57.0
seen=$(timeout 60 "$WORK/venv/bin/python" -W ignore - <<'PYTHON'
import http.server
import json
import threading

import openai

STEP = {
    "id": "step_1", "object": "thread.run.step", "created_at": 1, "assistant_id": "asst_1", "thread_id": "thread_1",
    "run_id": "run_1", "type": "tool_calls", "status": "in_progress", "step_details": {"type": "tool_calls", "tool_calls": []},
}
CALL = {
    "index": 0, "id": "call_1", "type": "file_search",
    "file_search": {"ranking_options": {"ranker": "auto", "score_threshold": 0.5}},
}
DELTA = {
    "id": "step_1", "object": "thread.run.step.delta",
    "delta": {"step_details": {"type": "tool_calls", "tool_calls": [CALL]}},
}
EVENTS = [("thread.run.step.created", STEP)] + [("thread.run.step.delta", DELTA)] * 3


class Service(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        for name, data in EVENTS:
            self.wfile.write(f"event: {name}\ndata: {json.dumps(data)}\n\n".encode())

    def log_message(self, *_: object) -> None:
        pass


service = http.server.HTTPServer(("127.0.0.1", 0), Service)
threading.Thread(target=service.serve_forever, daemon=True).start()
client = openai.OpenAI(api_key="none", base_url=f"http://127.0.0.1:{service.server_port}", max_retries=0)
with client.beta.threads.runs.stream(thread_id="thread_1", assistant_id="asst_1") as stream:
    for event in stream:
        if event.event == "thread.run.step.delta":
            call = stream.current_run_step_snapshot.step_details.tool_calls[0]
            options = call.file_search.ranking_options
            print(call.id, options.ranker, options.score_threshold)
PYTHON
)
verdict "call_1 auto 0.5
call_1call_1 autoauto 1.0
call_1call_1call_1 autoautoauto 1.5" "$seen"
