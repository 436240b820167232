#!/usr/bin/env bash
# surprise: opentelemetry-instrumentation-openai ends a program's stream with an IndexError if the second answer begins first.
# versions: PyPI opentelemetry-instrumentation-openai 0.62.4, opentelemetry-sdk 1.45.2, openai 3.57.0 (for comparison, too)
# expected: the stream as it is without the instrumentation, which only watches: with n=2 each chunk names its choice by index,
#   and no order is promised. Its wrappers catch and log their own faults, since tracing must not break what it traces.
# does: it keeps the answers in a list, adds one at the end when it sees a new index, and then takes the element at that index. A
#   first chunk with index 1 makes a list of one, and the error goes up through the program's own loop, which loses the rest of
#   both answers. In the other order all is well. (Pull request 4485 says that what catches such faults leaves streams out.) Of a
#   refusal the span has nothing but an empty text.

. "$(dirname "$0")/lib/finding.sh"
python_packages opentelemetry-instrumentation-openai==0.62.4 opentelemetry-sdk==1.45.2 openai==3.57.0
seen=$(PYTHONPATH=$LIB timeout 60 "$WORK/venv/bin/python" -W ignore - <<'PYTHON'
import json

import event_stream
import openai
from opentelemetry.instrumentation.openai import OpenAIInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter


def chunk(index, reason=None, **delta):
    base = {"id": "chat_1", "object": "chat.completion.chunk", "created": 1, "model": "any"}
    return {**base, "choices": [{"index": index, "delta": delta, "finish_reason": reason}]}


def stream(order):
    if order == "refusal":
        chunks = [chunk(0, refusal="I must not."), chunk(0, "stop")]
    else:
        first, second = (0, 1) if order == "first_first" else (1, 0)
        chunks = [chunk(at, content=f"answer {at}") for at in (first, second)] + [chunk(at, "stop") for at in (first, second)]
    return "".join(f"data: {json.dumps(one)}\n\n" for one in chunks).encode()


client = openai.OpenAI(api_key="none", base_url=event_stream.serve(stream), max_retries=0)


def read(order):
    texts = {}
    try:
        for one in client.chat.completions.create(model=order, messages=[], n=2, stream=True):
            for choice in one.choices:
                texts[choice.index] = texts.get(choice.index, "") + (choice.delta.content or choice.delta.refusal or "")
    except IndexError as error:
        return f"{texts}, IndexError: {error}"
    return texts


for order in ("first_first", "second_first"):
    print(f"{order}, without: {read(order)}")
spans = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(spans))
OpenAIInstrumentor().instrument(tracer_provider=provider)
for order in ("first_first", "second_first", "refusal"):
    print(f"{order}, with: {read(order)}")
print("refusal, span:", spans.get_finished_spans()[-1].attributes["gen_ai.output.messages"])
PYTHON
)
verdict "first_first, without: {0: 'answer 0', 1: 'answer 1'}
second_first, without: {1: 'answer 1', 0: 'answer 0'}
first_first, with: {0: 'answer 0', 1: 'answer 1'}
second_first, with: {}, IndexError: list index out of range
refusal, with: {0: 'I must not.'}
refusal, span: [{\"role\": \"assistant\", \"parts\": [{\"content\": \"\", \"type\": \"text\"}], \"finish_reason\": \"stop\"}]" "$seen"
