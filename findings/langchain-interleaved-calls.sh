#!/usr/bin/env bash
# surprise: langchain-openai makes calls without arguments of two tool calls whose deltas come in turns on a Responses stream.
# versions: PyPI langchain-openai 1.7.4, langchain-core 1.8.3, openai 3.57.0 (for comparison, too)
# expected: two calls with their arguments, whatever the order: each delta names its item by item_id and output_index, and the
#   response repeats both calls whole, in the items that are done and in its end.
# does: it begins a new block whenever the output_index differs from that of the event before, so that each delta is a block of
#   its own. The calls are left with {} as their arguments, and stand under tool_calls as good ones; the beginnings of their
#   arguments become two more calls, without a name, and the rest is invalid. One after the other, the same deltas come out right.

. "$(dirname "$0")/lib/finding.sh"
python_packages langchain-openai==1.7.4 langchain-core==1.8.3 openai==3.57.0
seen=$(PYTHONPATH=$LIB timeout 120 "$WORK/venv/bin/python" - <<'PYTHON'
import json

import event_stream
import langchain_openai
import openai

RESPONSE = {
    "id": "resp_1", "object": "response", "created_at": 1, "model": "any", "status": "in_progress", "output": [],
    "error": None, "incomplete_details": None, "parallel_tool_calls": True, "tool_choice": "auto", "tools": [],
}
PIECES = (('{"city":', '"Oslo"}'), ('{"order":', "7}"))


def call(place, arguments, status):
    ids = {"id": f"fc_{place}", "call_id": f"call_{place}", "name": f"tool_{place}"}
    return {"type": "function_call", **ids, "arguments": arguments, "status": status}


def delta(place, piece):
    where = {"output_index": place, "item_id": f"fc_{place}"}
    return {"type": "response.function_call_arguments.delta", **where, "delta": PIECES[place][piece]}


def stream(order):
    done = [call(place, "".join(PIECES[place]), "completed") for place in (0, 1)]
    deltas = [(0, 0), (1, 0), (0, 1), (1, 1)] if order == "in_turns" else [(0, 0), (0, 1), (1, 0), (1, 1)]
    added = [{"type": "response.output_item.added", "output_index": at, "item": call(at, "", "in_progress")} for at in (0, 1)]
    events = [{"type": "response.created", "response": RESPONSE}]
    if order == "in_turns":
        events += added + [delta(*where) for where in deltas]
    else:
        events += added[:1] + [delta(*where) for where in deltas[:2]] + added[1:] + [delta(*where) for where in deltas[2:]]
    events += [{"type": "response.output_item.done", "output_index": at, "item": done[at]} for at in (0, 1)]
    events.append({"type": "response.completed", "response": {**RESPONSE, "status": "completed", "output": done}})
    numbered = ({**event, "sequence_number": number} for number, event in enumerate(events))
    return "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in numbered).encode()


to = {"api_key": "none", "base_url": event_stream.serve(stream), "max_retries": 0}
for order in ("one_by_one", "in_turns"):
    with openai.OpenAI(**to).responses.stream(model=order, input="") as events:
        print(f"{order}, openai:", [(item.name, item.arguments) for item in events.get_final_response().output])
    model = langchain_openai.ChatOpenAI(model=order, use_responses_api=True, **to)
    first, *others = model.stream("any")
    message = sum(others, first)
    print(f"{order}, langchain:", [(called["name"], called["args"]) for called in message.tool_calls])
    print(f"{order}, langchain, invalid:", [called["args"] for called in message.invalid_tool_calls])
PYTHON
)
verdict "one_by_one, openai: [('tool_0', '{\"city\":\"Oslo\"}'), ('tool_1', '{\"order\":7}')]
one_by_one, langchain: [('tool_0', {'city': 'Oslo'}), ('tool_1', {'order': 7})]
one_by_one, langchain, invalid: []
in_turns, openai: [('tool_0', '{\"city\":\"Oslo\"}'), ('tool_1', '{\"order\":7}')]
in_turns, langchain: [('tool_0', {}), ('tool_1', {}), ('', {}), ('', {})]
in_turns, langchain, invalid: ['\"Oslo\"}', '7}']" "$seen"
