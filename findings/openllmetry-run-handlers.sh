#!/usr/bin/env bash
# surprise: An Assistants program's handler that notes the run step of each text notes none once OpenLLMetry traces the run.
# versions: PyPI opentelemetry-instrumentation-openai 0.62.4, opentelemetry-sdk 1.45.2, openai 3.57.0
# expected: step_1 of run_1, as without the instrumentation: it is to watch the program, and openai documents current_run and
#   current_run_step_snapshot as what a handler can look at. A stream without a handler, which openai also offers, goes on as before.
# does: runs.create_and_stream gets a wrapper for a handler, which hands the calls on to the program's. The state stays with the
#   wrapper: the program's own handler finds None for the run, the step and the message. Without a handler the call ends with a
#   KeyError before any request. Its successor runs.stream is left alone, so that of such a run nothing is recorded.

. "$(dirname "$0")/lib/finding.sh"
python_packages opentelemetry-instrumentation-openai==0.62.4 opentelemetry-sdk==1.45.2 openai==3.57.0
seen=$(timeout 120 "$WORK/venv/bin/python" - <<'PYTHON' 2>/dev/null
import http.server
import json
import threading

import openai
from opentelemetry.instrumentation.openai import OpenAIInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

OF = {"thread_id": "thread_1", "assistant_id": "asst_1", "run_id": "run_1", "created_at": 1, "metadata": {}}
RUN = {**OF, "id": "run_1", "object": "thread.run", "model": "any", "instructions": "", "tools": [], "parallel_tool_calls": True}
DETAILS = {"type": "message_creation", "message_creation": {"message_id": "msg_1"}}
STEP = {**OF, "id": "step_1", "object": "thread.run.step", "type": "message_creation", "step_details": DETAILS}
MESSAGE = {**OF, "id": "msg_1", "object": "thread.message", "role": "assistant", "content": [], "attachments": []}
TEXT = [{"type": "text", "text": {"value": "Paid.", "annotations": []}}]
EVENTS = [
    ("thread.run.in_progress", {**RUN, "status": "in_progress"}),
    ("thread.run.step.created", {**STEP, "status": "in_progress"}),
    ("thread.message.created", {**MESSAGE, "status": "in_progress"}),
    ("thread.message.delta", {"id": "msg_1", "object": "thread.message.delta", "delta": {"content": [{"index": 0, **TEXT[0]}]}}),
    ("thread.message.completed", {**MESSAGE, "status": "completed", "content": TEXT}),
    ("thread.run.step.completed", {**STEP, "status": "completed"}),
    ("thread.run.completed", {**RUN, "status": "completed"}),
]


class Service(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        for name, data in EVENTS:
            self.wfile.write(b"event: %s\ndata: %s\n\n" % (name.encode(), json.dumps(data).encode()))
        self.wfile.write(b"event: done\ndata: [DONE]\n\n")

    def log_message(self, *_):
        pass


class Notes(openai.AssistantEventHandler):
    def on_text_done(self, text):
        self.noted = f"{text.value} of {self.current_run_step_snapshot and self.current_run_step_snapshot.id}"
        self.noted += f" of {self.current_run and self.current_run.id}"


def program(name):
    for method in ("create_and_stream", "stream"):
        notes, asked = Notes(), {"thread_id": "thread_1", "assistant_id": "asst_1"}
        spans.clear()
        with getattr(runs, method)(**asked, event_handler=notes) as stream:
            stream.until_done()
        recorded = f"{len(spans.get_finished_spans())} spans"
        try:
            with getattr(runs, method)(**asked) as stream:
                stream.until_done()
                without = stream.get_final_messages()[0].content[0].text.value
        except KeyError as error:
            without = repr(error)
        print(f"{name}, {method}: {notes.noted}; without a handler: {without}; {recorded}")


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Service)
threading.Thread(target=server.serve_forever, daemon=True).start()
runs = openai.OpenAI(api_key="none", base_url=f"http://127.0.0.1:{server.server_port}").beta.threads.runs
spans, provider = InMemorySpanExporter(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(spans))
program("alone")
OpenAIInstrumentor().instrument(tracer_provider=provider)
program("traced")
PYTHON
)
verdict "alone, create_and_stream: Paid. of step_1 of run_1; without a handler: Paid.; 0 spans
alone, stream: Paid. of step_1 of run_1; without a handler: Paid.; 0 spans
traced, create_and_stream: Paid. of None of None; without a handler: KeyError('event_handler'); 1 spans
traced, stream: Paid. of step_1 of run_1; without a handler: Paid.; 0 spans" "$seen"
