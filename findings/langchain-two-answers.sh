#!/usr/bin/env bash
# surprise: ChatOpenAI(n=2).stream() of langchain-openai gives one message that strings two answers together.
# versions: PyPI langchain-openai 1.7.4, langchain-core 1.8.3, openai 3.57.0 (for comparison, too)
# expected: two answers, as from openai's own helper, or an error, as ChatOpenAI raises one for n=2 with streaming=True. Each
#   chunk of a chat completion names the choice that it continues by its index, and those of several choices come in turns.
# does: stream() takes n=2 and reads of each chunk the delta alone, so that the deltas of both answers are appended to each other
#   as they come, and the finish_reason and the model's name, too. No field of the message tells that it is two.

. "$(dirname "$0")/lib/finding.sh"
python_packages langchain-openai==1.7.4 langchain-core==1.8.3 openai==3.57.0
seen=$(PYTHONPATH=$LIB timeout 60 "$WORK/venv/bin/python" - <<'PYTHON'
import json

import event_stream
import openai
from langchain_openai import ChatOpenAI


def two_answers(_):
    deltas = [
        (0, {"role": "assistant", "content": "Pay"}, None), (1, {"role": "assistant", "content": "Do not"}, None),
        (0, {"content": " now."}, None), (1, {"content": " pay."}, None), (0, {}, "stop"), (1, {}, "stop"),
    ]
    chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "any"}
    chunks = [{**chunk, "choices": [{"index": i, "delta": delta, "finish_reason": end}]} for i, delta, end in deltas]
    return b"".join(b"data: %s\n\n" % json.dumps(one).encode() for one in chunks) + b"data: [DONE]\n\n"


url = event_stream.serve(two_answers)
asked = [{"role": "user", "content": "any"}]
with openai.OpenAI(api_key="none", base_url=url).chat.completions.stream(model="any", n=2, messages=asked) as stream:
    stream.until_done()
    for choice in stream.get_final_completion().choices:
        print(f"openai: {choice.message.content} {choice.finish_reason}")
whole = None
for message in ChatOpenAI(model="any", api_key="none", base_url=url, n=2).stream("any"):
    whole = message if whole is None else whole + message
print(f"langchain: {whole.content} {whole.response_metadata['finish_reason']} {whole.response_metadata['model_name']}")
try:
    ChatOpenAI(model="any", api_key="none", base_url=url, n=2, streaming=True)
except ValueError as error:
    print("langchain, streaming=True:", next(line for line in str(error).splitlines() if "n must be" in line).strip()[:40])
PYTHON
)
verdict 'openai: Pay now. stop
openai: Do not pay. stop
langchain: PayDo not now. pay. stopstop anyany
langchain, streaming=True: Value error, n must be 1 when streaming.' "$seen"
