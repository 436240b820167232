"""The job as every Python peer does it: its settings, its marks, and the fold. The standard library only.

A step's state is None before its first event, a snapshot while it is open, and its final status afterwards: that word
is what detects an illegal status later.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Sequence
from typing import Any, Final, NoReturn

BOOTSTRAP: Final = os.environ["BENCH_BOOTSTRAP"]
SOURCE: Final = os.environ["BENCH_SOURCE"]
GROUP: Final = os.environ["BENCH_GROUP"]
PARTITIONS: Final = int(os.environ["BENCH_PARTITIONS"])
DIRECTORY: Final = os.environ["BENCH_DIRECTORY"]
EXACTLY_ONCE: Final = os.environ["BENCH_EXACTLY_ONCE"] == "1"
STORE: Final = os.environ.get("BENCH_STORE", "")
COMMIT_MS: Final = int(os.environ.get("BENCH_COMMIT_MS", "0"))
"""0: the library's own interval."""
SESSION_MS: Final = int(os.environ.get("BENCH_SESSION_MS", "0"))
"""How long the group waits for a member that was killed; 0: the library's own time."""

IS_MIXED: Final = os.environ.get("BENCH_JOB") == "recorded"
"""Whether events that are of no step stand on the topic, too."""

TERMINAL: Final = ("completed", "failed", "cancelled", "expired")
TOPICS: Final = {kind: f"{GROUP}.{kind}" for kind in (*TERMINAL, "dead")}
PREFIX: Final = "thread.run.step."
"""With it begin the names of the events that are of a step."""
_TEXTS: Final = frozenset(("arguments", "input", "logs", "output"))
"""The fields that deltas append to."""

Snapshot = dict[str, Any]
State = Snapshot | str | None
Folded = tuple[State, str | None, Snapshot | None]
"""The new state; and, if something is to be published, on which of `TOPICS`, and what."""

_has_begun = False


def begin() -> None:
    """Say, once, that the first record has come."""
    global _has_begun
    if not _has_begun:
        _has_begun = True
        _say("begin")


def end() -> NoReturn:
    """For a peer that commits nothing to the group: say that all is done, and wait to be ended."""
    _say("end")
    while True:
        signal.pause()


def _say(at: str) -> None:
    os.write(1, f"{json.dumps({'at': at})}\n".encode())  # not print: Faust turns that into its log


def is_of_step(event: Snapshot) -> bool:
    """For a peer that drops the other events of a mixed topic before its fold."""
    begin()
    return event["event"].startswith(PREFIX)  # type: ignore[no-any-return]


def fold(state: State, event: str, data: Snapshot) -> Folded:
    """One event of a step onto that step; the state given may be changed and returned."""
    name = event.removeprefix(PREFIX)
    if isinstance(state, str):
        return (state, None, None) if name == "delta" or state == data["status"] else _illegal(state, event, data)
    if name == "delta":
        if state is None:
            state = {"id": data["id"], "step_details": {"type": "tool_calls", "tool_calls": []}}
        _merge(state["step_details"]["tool_calls"], data["delta"]["step_details"].get("tool_calls") or (), last=False)
        return state, None, None
    if state is None:
        state = data
    else:
        details, stated = state["step_details"], data["step_details"]
        if stated.get("tool_calls"):
            _merge(details["tool_calls"], stated["tool_calls"], last=name in TERMINAL)
        state.update(data)
        state["step_details"] = details
    status = data["status"]
    return (status, status, state) if status in TERMINAL else (state, None, None)


def _illegal(state: str, event: str, data: Snapshot) -> Folded:
    to = data["status"]
    letter = {"reason": "illegal_transition", "id": data["id"], "from": state, "to": to, "event": event, "data": data}
    return state, "dead", letter


def _merge(stored: list[Any], entries: Sequence[Any], *, last: bool) -> None:
    """Tool calls, and the outputs of one: a delta's by their index, the ending object's by their position."""
    for position, entry in enumerate(entries):
        index = position if last else entry["index"]
        while len(stored) <= index:
            stored.append({})
        call, function = stored[index], entry.get("function")
        if function is None:
            _put(call, entry, last)
            continue
        for key in ("id", "type"):  # a function's call by hand: most are one, and this is quicker than `_put`
            if entry.get(key) is not None:
                call[key] = entry[key]
        own = call.get("function") or call.setdefault("function", {"arguments": ""})
        for key, value in function.items():
            if key == "arguments":
                if value is not None:
                    own[key] = value if last else own[key] + value
            elif value is not None or key not in own:
                own[key] = value


def _put(stored: Snapshot, given: Snapshot, last: bool) -> None:
    """Deltas append to texts; the ending object may replace them. A null leaves alone what is there."""
    for key, value in given.items():
        if value is None:
            stored.setdefault(key)
        elif isinstance(value, dict):
            _put(stored.setdefault(key, {}), value, last)
        elif isinstance(value, list):
            _merge(stored.setdefault(key, []), value, last=last)
        elif key in _TEXTS and not last:
            stored[key] = (stored.get(key) or "") + value
        elif key != "index":
            stored[key] = value
