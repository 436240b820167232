#!/usr/bin/env bash
# surprise: smolagents runs a tool three times where Python runs it once: its interpreter takes return for an exception.
# versions: PyPI smolagents 1.26.0; CPython runs the same programs for comparison
# expected: what the same lines do in Python, or an error, as for yield, match and nonlocal. The CodeAgent asks its model to write Python code,
#   and the model writes what it knows of Python.
# does: return, continue and break are exceptions inside, and the program's own "except Exception" catches them: a loop that tries
#   until the tool succeeds calls it again after each success, and in the end reports none. The place of a += is evaluated twice,
#   and a default at each call. Loops skip their else, and [*a] keeps a as one item. No error says so.

. "$(dirname "$0")/lib/finding.sh"
python_packages smolagents==1.26.0
seen=$(timeout 60 "$WORK/venv/bin/python" - <<'PYTHON' 2>/dev/null
from smolagents.local_python_executor import LocalPythonExecutor

PROGRAMS = {
    "retry": """
def once():
    for attempt in range(3):
        try:
            return refund(7)
        except Exception:
            pass
    return "none"
answer = once()
""",
    "continue": """
answer = []
for order in [1, 2]:
    try:
        if order == 1:
            continue
        answer.append(order)
    except Exception:
        answer.append("failed")
""",
    "place": """
answer = [0]
answer[refund(0)] += 1
""",
    "default": """
def f(order=refund(7)):
    return order
answer = [f(), f()]
""",
    "else": """
answer = "begun"
for order in []:
    pass
else:
    answer = "whole"
""",
    "list": "answer = [*[1, 2], 3]",
}
calls = []


def refund(order):
    calls.append(order)
    return order


for name, program in PROGRAMS.items():
    names = {"refund": refund}
    exec(program, names)
    python = f"answer {names['answer']!r}, calls {calls}"
    calls.clear()
    executor = LocalPythonExecutor([])
    executor.send_tools({"refund": refund})
    answer = executor(program + "\nanswer").output
    print(f"{name}: Python {python}; smolagents answer {answer!r}, calls {calls}")
    calls.clear()
PYTHON
)
verdict "retry: Python answer 7, calls [7]; smolagents answer 'none', calls [7, 7, 7]
continue: Python answer [2], calls []; smolagents answer ['failed', 2], calls []
place: Python answer [1], calls [0]; smolagents answer [1], calls [0, 0]
default: Python answer [7, 7], calls [7]; smolagents answer [7, 7], calls [7, 7]
else: Python answer 'whole', calls []; smolagents answer 'begun', calls []
list: Python answer [1, 2, 3], calls []; smolagents answer [[1, 2], 3], calls []" "$seen"
