#!/usr/bin/env bash
# surprise: Langfuse records a streamed refusal as no output, and two answers as one text, mixed up; LangSmith drops the refusal, too.
# versions: PyPI langfuse 5.0.4, langsmith 0.15.1, openai 3.57.0 (for comparison, too), opentelemetry-sdk 1.45.1
# expected: what the model said, as openai's own helper puts it together: a trace is what an audit of the run reads. A delta states pieces of
#   a refusal in a field of its own, and with n=2 each chunk names its choice by index.
# does: both go through the chunks by themselves. Langfuse strings the content of all choices together as it comes, and neither looks
#   at refusals: the record is that of a call that gave nothing, with the tokens of one that did. LangSmith keeps answers apart.

. "$(dirname "$0")/lib/finding.sh"
python_packages langfuse==5.0.4 langsmith==0.15.1 openai==3.57.0 opentelemetry-sdk==1.45.1
seen=$(PYTHONPATH=$LIB timeout 60 "$WORK/venv/bin/python" - <<'PYTHON' 2>/dev/null
import json
import os
import sys

import event_stream
import langfuse
import langsmith
import openai
from langfuse.openai import OpenAI as Observed
from langsmith.wrappers import wrap_openai
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

STREAMS = {
    "refusal": [(0, {"refusal": "I cannot"}), (0, {"refusal": " do that."})],
    "two": [(0, {"content": "Pay"}), (1, {"content": "Do not"}), (0, {"content": " now."}), (1, {"content": " pay."})],
}


def stream(name):
    chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "any"}
    chunks = [{**chunk, "choices": [{"index": i, "delta": delta, "finish_reason": None}]} for i, delta in STREAMS[name]]
    for index in sorted({index for index, _ in STREAMS[name]}):
        chunks.append({**chunk, "choices": [{"index": index, "delta": {}, "finish_reason": "stop"}]})
    return b"".join(b"data: %s\n\n" % json.dumps(one).encode() for one in chunks) + b"data: [DONE]\n\n"


class Recorder(langsmith.Client):
    def create_run(self, *_, **__):
        pass

    def update_run(self, *_, outputs=None, **__):
        for choice in outputs["choices"]:
            print("langsmith:", {name: value for name, value in choice["message"].items() if value and name != "role"})


url = event_stream.serve(stream)
spans = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(spans))
langfuse.Langfuse(public_key="none", secret_key="none", host=url, tracer_provider=provider)
os.environ["LANGSMITH_TRACING"] = "true"
recorder = Recorder(api_url=url, api_key="none", auto_batch_tracing=False)
traced = wrap_openai(openai.OpenAI(api_key="none", base_url=url), tracing_extra={"client": recorder})
for name in STREAMS:
    print(f"{name}:")
    asked = dict(model=name, n=2 if name == "two" else 1, messages=[{"role": "user", "content": "any"}])
    with openai.OpenAI(api_key="none", base_url=url).chat.completions.stream(**asked) as events:
        for choice in events.get_final_completion().choices:
            print("openai:", choice.message.refusal or choice.message.content)
    spans.clear()
    list(Observed(api_key="none", base_url=url).chat.completions.create(**asked, stream=True))
    for span in spans.get_finished_spans():
        print("langfuse:", span.attributes.get("langfuse.observation.output"))
    list(traced.chat.completions.create(**asked, stream=True))
sys.stdout.flush()
os._exit(0)
PYTHON
)
verdict "refusal:
openai: I cannot do that.
langfuse: None
langsmith: {}
two:
openai: Pay now.
openai: Do not pay.
langfuse: PayDo not now. pay.
langsmith: {'content': 'Pay now.'}
langsmith: {'content': 'Do not pay.'}" "$seen"
