#!/usr/bin/env bash
# surprise: Braintrust records one of a chunk's two tool calls, gives a call the arguments of another, and makes one answer of two.
# versions: PyPI braintrust 0.48.1, openai 3.57.0 (for comparison, too), pytest 9.2.0 (which Braintrust's test helpers import)
# expected: the calls and answers that the program got, as openai's own helper puts them together: each delta of a call names it by index,
#   each chunk its choice, and what is recorded is what evaluations and audits of the run read.
# does: wrap_openai goes through the chunks by itself. It looks at the first call of a delta and at no index: a call beside it is
#   not in the record, pieces that come in turns go to the call that began last, one of whose arguments are no JSON then while
#   the other has none, and the text of all choices is strung together. The program itself gets everything right, so that the
#   record tells of a model that called a tool badly.

. "$(dirname "$0")/lib/finding.sh"
python_packages braintrust==0.48.1 openai==3.57.0 pytest==9.2.0
seen=$(PYTHONPATH=$LIB timeout 60 "$WORK/venv/bin/python" - <<'PYTHON' 2>/dev/null
import json

import event_stream
import openai
from braintrust import wrap_openai
from braintrust.logger import _internal_with_memory_background_logger as in_memory
from braintrust.test_helpers import init_test_logger


def call(index, arguments, name=None):
    begins = {"id": f"call_{index}", "type": "function"} if name else {}
    return {"tool_calls": [{"index": index, **begins, "function": {"arguments": arguments, **({"name": name} if name else {})}}]}


both = {"tool_calls": [call(0, '{"order": 7}', "refund")["tool_calls"][0], call(1, '{"ticket": 8}', "close")["tool_calls"][0]]}
STREAMS = {
    "one after the other": [(0, call(0, '{"order": 7}', "refund")), (0, call(1, '{"ticket": 8}', "close"))],
    "in one chunk": [(0, both)],
    "in turns": [
        (0, call(0, "", "refund")), (0, call(1, "", "close")), (0, call(0, '{"order": 7}')), (0, call(1, '{"ticket": 8}')),
    ],
    "two answers": [(0, {"content": "Pay"}), (1, {"content": "Do not"}), (0, {"content": " now."}), (1, {"content": " pay."})],
}


def stream(name):
    chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "any"}
    chunks = [{**chunk, "choices": [{"index": i, "delta": delta, "finish_reason": None}]} for i, delta in STREAMS[name]]
    for index in sorted({index for index, _ in STREAMS[name]}):
        chunks.append({**chunk, "choices": [{"index": index, "delta": {}, "finish_reason": "stop"}]})
    return b"".join(b"data: %s\n\n" % json.dumps(one).encode() for one in chunks) + b"data: [DONE]\n\n"


def show(choices):
    for choice in choices:
        message = choice["message"]
        yield message["content"] or [(one["function"]["name"], one["function"]["arguments"]) for one in message["tool_calls"]]


url = event_stream.serve(stream)
with in_memory() as records:
    init_test_logger("any")
    recorded = wrap_openai(openai.OpenAI(api_key="none", base_url=url))
    for name in STREAMS:
        asked = dict(model=name, n=2 if name == "two answers" else 1, messages=[{"role": "user", "content": "any"}])
        with openai.OpenAI(api_key="none", base_url=url).chat.completions.stream(**asked) as events:
            print(f"openai, {name}:", *show(events.get_final_completion().model_dump()["choices"]))
        list(recorded.chat.completions.create(**asked, stream=True))
        print(f"braintrust, {name}:", *show(records.pop()[0]["output"]))
PYTHON
)
verdict "openai, one after the other: [('refund', '{\"order\": 7}'), ('close', '{\"ticket\": 8}')]
braintrust, one after the other: [('refund', '{\"order\": 7}'), ('close', '{\"ticket\": 8}')]
openai, in one chunk: [('refund', '{\"order\": 7}'), ('close', '{\"ticket\": 8}')]
braintrust, in one chunk: [('refund', '{\"order\": 7}')]
openai, in turns: [('refund', '{\"order\": 7}'), ('close', '{\"ticket\": 8}')]
braintrust, in turns: [('refund', ''), ('close', '{\"order\": 7}{\"ticket\": 8}')]
openai, two answers: Pay now. Do not pay.
braintrust, two answers: PayDo not now. pay." "$seen"
