#!/usr/bin/env bash
# surprise: litellm makes the refusal "I can" of one that streams as "I can" and "not do that.", and reports it as complete.
# versions: PyPI litellm 1.110.2, openai 3.57.0 (for comparison, too)
# expected: the refusal that openai's own helper puts together: "I cannot do that.". A delta states one piece of it, as it does of
#   content, and stream_chunk_builder is there to make of a stream what a call without stream gives.
# does: of the deltas of a refusal it passes the first on, which has the role beside it, and empties the others, as they have nothing
#   that it knows. The chunks that the program gets and the message that stream_chunk_builder makes of them have the first
#   piece alone, with finish_reason stop: what was refused reads as a yes.

. "$(dirname "$0")/lib/finding.sh"
python_packages litellm==1.110.2 openai==3.57.0
seen=$(PYTHONPATH=$LIB LITELLM_LOCAL_MODEL_COST_MAP=True timeout 120 "$WORK/venv/bin/python" - <<'PYTHON' 2>/dev/null
import json

import event_stream
import litellm
import openai

litellm.suppress_debug_info = True


def stream(field):
    deltas = [{"role": "assistant", field: "I can"}, {field: "not do"}, {field: " that."}]
    chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "any"}
    chunks = [{**chunk, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    chunks.append({**chunk, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    return b"".join(b"data: %s\n\n" % json.dumps(one).encode() for one in chunks) + b"data: [DONE]\n\n"


url = event_stream.serve(stream)
asked = [{"role": "user", "content": "any"}]
for field in ("content", "refusal"):
    with openai.OpenAI(api_key="none", base_url=url).chat.completions.stream(model=field, messages=asked) as events:
        print(f"openai, {field}:", getattr(events.get_final_completion().choices[0].message, field))
    chunks = list(litellm.completion(model="openai/" + field, api_base=url, api_key="none", messages=asked, stream=True))
    pieces = [getattr(one.choices[0].delta, field, None) for one in chunks if one.choices]
    print(f"litellm, {field}:", [piece for piece in pieces if piece])
    choice = litellm.stream_chunk_builder(chunks).choices[0]
    print(f"  put together: {getattr(choice.message, field)} ({choice.finish_reason})")
PYTHON
)
verdict "openai, content: I cannot do that.
litellm, content: ['I can', 'not do', ' that.']
  put together: I cannot do that. (stop)
openai, refusal: I cannot do that.
litellm, refusal: ['I can']
  put together: I can (stop)" "$seen"
