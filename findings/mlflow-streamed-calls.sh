#!/usr/bin/env bash
# surprise: MLflow records a streamed tool call as an empty answer that ended well, and two answers as one text.
# versions: PyPI mlflow-skinny 3.17.2 (pandas 3.1.1, SQLAlchemy 2.1.9, alembic 1.20.1), openai 3.57.0 (for comparison, too)
# expected: in the trace, what openai's own accumulator makes of the same chunks: the call, the refusal, each answer by itself and the
#   reason to stop.
# does: mlflow.openai.autolog joins the content of each chunk's first choice and takes the last chunk's reason to stop, or "stop". With
#   stream_options={"include_usage": true} the last chunk has no choice, so that a cut answer, too, is recorded as whole. An audit
#   of the traces finds no tool calls at all.

. "$(dirname "$0")/lib/finding.sh"
python_packages mlflow-skinny==3.17.2 pandas==3.1.1 sqlalchemy==2.1.9 alembic==1.20.1 openai==3.57.0
seen=$(cd "$WORK" && PYTHONPATH=$LIB timeout 120 "$WORK/venv/bin/python" - <<'PYTHON' 2>/dev/null
import json
import os

import event_stream
import mlflow
import openai
from openai.lib.streaming.chat import ChatCompletionStreamState

CALL = {"index": 0, "id": "1", "type": "function", "function": {"name": "refund", "arguments": '{"cents": 1250}'}}
DELTAS = {  # the index of the answer, the delta, the reason to stop
    "call": [(0, {"content": None, "tool_calls": [CALL]}, None), (0, {}, "tool_calls")],
    "refusal": [(0, {"refusal": "I can"}, None), (0, {"refusal": "not do that."}, "stop")],
    "cut": [(0, {"content": "Refund order"}, None), (0, {}, "length")],
    "two answers": [(0, {"content": "Yes."}, None), (1, {"content": "No."}, None), (0, {}, "stop"), (1, {}, "stop")],
}


def stream(name):
    chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "any"}
    chunks = [{**chunk, "choices": [{"index": index, "delta": delta, "finish_reason": end}]} for index, delta, end in DELTAS[name]]
    chunks.append({**chunk, "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}})
    return b"".join(b"data: %s\n\n" % json.dumps(one).encode() for one in chunks) + b"data: [DONE]\n\n"


def told(choices):
    answers = []
    for one in choices:
        calls = [call["function"]["arguments"] for call in one["message"].get("tool_calls") or []]
        parts = [part for part in (one["message"]["content"], one["message"].get("refusal"), *calls) if part]
        answers.append(f"{' '.join(parts) or 'nothing'} ({one['finish_reason']})")
    return ", ".join(answers)


mlflow.set_tracking_uri(f"sqlite:///{os.getcwd()}/traces.db")
mlflow.openai.autolog()
client = openai.OpenAI(api_key="none", base_url=event_stream.serve(stream))
for name in DELTAS:
    state = ChatCompletionStreamState()
    for chunk in client.chat.completions.create(model=name, messages=[], stream=True):
        state.handle_chunk(chunk)
    print(f"{name}, openai: {told(state.current_completion_snapshot.to_dict()['choices'])}")
    mlflow.flush_trace_async_logging()
    trace = mlflow.get_trace(mlflow.get_last_active_trace_id())
    print(f"{name}, MLflow: {told(trace.data.spans[0].outputs['choices'])}")
PYTHON
)
verdict 'call, openai: {"cents": 1250} (tool_calls)
call, MLflow: nothing (stop)
refusal, openai: I cannot do that. (stop)
refusal, MLflow: nothing (stop)
cut, openai: Refund order (length)
cut, MLflow: Refund order (stop)
two answers, openai: Yes. (stop), No. (stop)
two answers, MLflow: Yes.No. (stop)' "$seen"
