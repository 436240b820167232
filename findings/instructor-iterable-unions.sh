#!/usr/bin/env bash
# surprise: instructor makes a note of a streamed refund and drops its amount, if the class Note comes first in the union and has defaults.
# versions: PyPI instructor 1.17.0, openai 3.3.0, pydantic 2.14.4
# expected: the class that pydantic picks for the same items and the same union: the one whose fields the item has.
# does: create_iterable tries the classes of a union from left to right and takes the first that raises nothing. pydantic ignores fields that a
#   class does not know, so that a class with few required fields fits items of another one: what the model said of the
#   amount is gone, and the item has the wrong type. With the classes the other way round it is right.

. "$(dirname "$0")/lib/finding.sh"
python_packages instructor==1.17.0 openai==3.3.0 pydantic==2.14.4
seen=$(PYTHONPATH=$LIB timeout 90 "$WORK/venv/bin/python" - <<'PYTHON' 2>/dev/null
import json
from typing import List, Union

import event_stream
import instructor
import openai
from pydantic import BaseModel, TypeAdapter

ITEMS = [{"order": "7", "cents": 1250}, {"order": "8", "text": "late"}]


class Note(BaseModel):
    order: str
    text: str = ""


class Refund(BaseModel):
    order: str
    cents: int


def stream(_):
    function = {"name": "Items", "arguments": json.dumps({"tasks": ITEMS})}
    call = {"index": 0, "id": "1", "type": "function", "function": function}
    chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "any"}
    deltas = [({"role": "assistant", "tool_calls": [call]}, None), ({}, "tool_calls")]
    chunks = [{**chunk, "choices": [{"index": 0, "delta": delta, "finish_reason": end}]} for delta, end in deltas]
    return b"".join(b"data: %s\n\n" % json.dumps(one).encode() for one in chunks) + b"data: [DONE]\n\n"


client = instructor.from_openai(openai.OpenAI(api_key="none", base_url=event_stream.serve(stream)))
message = {"role": "user", "content": "any"}
for union in (Union[Note, Refund], Union[Refund, Note]):
    print("pydantic:", *map(repr, TypeAdapter(List[union]).validate_python(ITEMS)))
    print("instructor:", *map(repr, client.chat.completions.create_iterable(model="any", messages=[message], response_model=union)))
PYTHON
)
verdict "pydantic: Refund(order='7', cents=1250) Note(order='8', text='late')
instructor: Note(order='7', text='') Note(order='8', text='late')
pydantic: Refund(order='7', cents=1250) Note(order='8', text='late')
instructor: Refund(order='7', cents=1250) Note(order='8', text='late')" "$seen"
