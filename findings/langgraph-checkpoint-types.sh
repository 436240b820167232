#!/usr/bin/env bash
# surprise: A LangGraph thread that keeps the last two results in a deque keeps all of them once a checkpoint was restored.
# versions: PyPI langgraph 1.2.24, langgraph-checkpoint 4.3.2
# expected: the state goes on as the last step left it: a deque of two holds two, a Counter starts names at 0, a text is the
#   same. The serializer has a case of its own for a deque, and raises for types that it does not know, such as a Fraction.
# does: it stores the items of a deque without its maxlen, a Counter as a dict, half of a character (a delta that was cut inside of
#   one) as a question mark, and says nothing. Steps of one run come out right, as they pass the values on themselves; from the
#   next message of the thread on the window grows without end, and the names that are new to the Counter raise a KeyError.

. "$(dirname "$0")/lib/finding.sh"
python_packages langgraph==1.2.24 langgraph-checkpoint==4.3.2
seen=$(timeout 120 "$WORK/venv/bin/python" - <<'PYTHON'
import collections
from typing import TypedDict

from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph


class State(TypedDict):
    item: int
    window: collections.deque
    counts: collections.Counter
    text: str


def step(state: State) -> dict:
    state["window"].append(state["item"])
    return {"window": state["window"], "item": state["item"] + 1}


def told(state: State) -> str:
    return f"{list(state['window'])} {type(state['counts']).__name__} {state['text']!a}"


begin = {"item": 1, "window": collections.deque(maxlen=2), "counts": collections.Counter(read=1), "text": "\ud83d"}
graph = StateGraph(State)
steps = [START, "first", "second", "third"]
for before, name in zip(steps, steps[1:]):
    graph.add_node(name, step)
    graph.add_edge(before, name)
thread = {"configurable": {"thread_id": "1"}}
print("one run:", told(graph.compile(checkpointer=InMemorySaver()).invoke(begin, thread)))

graph = StateGraph(State)
graph.add_node("only", step)
graph.add_edge(START, "only")
agent = graph.compile(checkpointer=InMemorySaver())
begin["window"] = collections.deque(maxlen=2)
print("message 1:", told(agent.invoke(begin, thread)))
for number in (2, 3, 4):
    print(f"message {number}:", told(agent.invoke({"item": number}, thread)))
PYTHON
)
verdict "one run: [2, 3] Counter '\\ud83d'
message 1: [1] Counter '\\ud83d'
message 2: [1, 2] dict '?'
message 3: [1, 2, 3] dict '?'
message 4: [1, 2, 3, 4] dict '?'" "$seen"
