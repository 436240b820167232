#!/usr/bin/env bash
# surprise: opentelemetry-instrumentation-anthropic may record "Do not pay." as "not pay.", counts tokens twice, and can lack the span.
# versions: PyPI opentelemetry-instrumentation-anthropic 0.62.4, opentelemetry-sdk 1.45.2, anthropic 2.14.0 (for comparison, too)
# expected: in the span's gen_ai.output.messages and usage what anthropic's own helper gives the program: a block's text begins with that of
#   content_block_start, and a server's tool call is a block like others. By Anthropic's description of streams the usage in
#   message_delta is cumulative, a total that takes the place of the one before.
# does: it takes the text from deltas alone, adds the output tokens of message_start to those of message_delta, and leaves out blocks of
#   kinds that it does not know, here a search with its query. Its span ends where the program reads the stream's events to the end:
#   get_final_text(), or leaving the loop, gives none, so that the tokens that were paid are in no sum. (Pull request 4377 is about
#   the tokens.)

. "$(dirname "$0")/lib/finding.sh"
python_packages opentelemetry-instrumentation-anthropic==0.62.4 opentelemetry-sdk==1.45.2 anthropic==2.14.0
seen=$(PYTHONPATH=$LIB timeout 60 "$WORK/venv/bin/python" -W ignore - <<'PYTHON'
import gc
import json

import anthropic
import event_stream
from opentelemetry.instrumentation.anthropic import AnthropicInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

TEXT = ({"type": "text", "text": ""}, [{"type": "text_delta", "text": "Do not pay."}])
BLOCKS = {
    "text in a delta": [TEXT],
    "text in the start": [({"type": "text", "text": "Do "}, [{"type": "text_delta", "text": "not pay."}])],
    "a server's search": [
        (
            {"type": "server_tool_use", "id": "search_1", "name": "web_search", "input": {}},
            [{"type": "input_json_delta", "partial_json": '{"query": "order A7"}'}],
        ),
        TEXT,
    ],
}


def stream(model):
    message = {"id": "message_1", "type": "message", "role": "assistant", "content": [], "model": model, "stop_reason": None}
    events = [{"type": "message_start", "message": {**message, "stop_sequence": None, "usage": {"input_tokens": 10, "output_tokens": 4}}}]
    for index, (start, deltas) in enumerate(BLOCKS[model]):
        events.append({"type": "content_block_start", "index": index, "content_block": start})
        events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        events.append({"type": "content_block_stop", "index": index})
    end = {"stop_reason": "end_turn", "stop_sequence": None}
    events += [{"type": "message_delta", "delta": end, "usage": {"output_tokens": 7}}, {"type": "message_stop"}]
    return "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events).encode()


client = anthropic.Anthropic(api_key="none", base_url=event_stream.serve(stream), max_retries=0)
spans = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(spans))
AnthropicInstrumentor().instrument(tracer_provider=provider)


def asked(model):
    return {"model": model, "max_tokens": 9, "messages": [{"role": "user", "content": "any"}]}


def recorded():
    gc.collect()
    ours = [span.attributes for span in spans.get_finished_spans() if "anthropic" in span.instrumentation_scope.name]
    spans.clear()
    for attributes in ours:
        for message in json.loads(attributes["gen_ai.output.messages"]):
            yield [(part["type"], part.get("content")) for part in message["parts"]], attributes["gen_ai.usage.output_tokens"]


for model in BLOCKS:
    with client.messages.stream(**asked(model)) as events:
        final = events.get_final_message()
    print(f"{model}, anthropic:", [(block.type, getattr(block, "text", None)) for block in final.content], final.usage.output_tokens)
    print(f"{model}, span:", *next(recorded()))
with client.messages.stream(**asked("text in a delta")) as events:
    print("get_final_text, anthropic:", events.get_final_text())
print("get_final_text, spans:", list(recorded()))
for event in client.messages.create(**asked("text in a delta"), stream=True):
    break
del event
print("left after one event, spans:", list(recorded()))
PYTHON
)
verdict "text in a delta, anthropic: [('text', 'Do not pay.')] 7
text in a delta, span: [('text', 'Do not pay.')] 11
text in the start, anthropic: [('text', 'Do not pay.')] 7
text in the start, span: [('text', 'not pay.')] 11
a server's search, anthropic: [('server_tool_use', None), ('text', 'Do not pay.')] 7
a server's search, span: [('text', 'Do not pay.')] 11
get_final_text, anthropic: Do not pay.
get_final_text, spans: []
left after one event, spans: []" "$seen"
