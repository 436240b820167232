"""A log written line by line, for tests by example: say an event, see what came of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from processor.core.effects import Checkpoint, DeadLetter, Effect, Headers, LogRecord, Publish
from processor.core.partition import PartitionState
from processor.core.rules import Rules

START_S = 1_000
"""When every play begins, in seconds of stream time."""

RULES = Rules(grace_s=5, max_age_s=100, ended_retention_s=20, ended_retention_records=1_000)


Came = Publish | DeadLetter
"""What comes of a record, to those outside."""


def text(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def step(status: str | None = "in_progress", step_id: str = "s1", **fields: Any) -> dict[str, Any]:
    """A step object with the least it needs, and what is told of it."""
    return {"id": step_id, "object": "thread.run.step", "run_id": "r1", "status": status} | fields


def delta(step_id: str = "s1", **details: Any) -> dict[str, Any]:
    return {"id": step_id, "object": "thread.run.step.delta", "delta": {"step_details": details}}


def call(index: Any = 0, arguments: str | None = None, **fields: Any) -> dict[str, Any]:
    """One entry of a delta's `tool_calls`."""
    entry: dict[str, Any] = {"index": index, "type": "function"} | fields
    if arguments is not None:
        entry["function"] = entry.get("function", {}) | {"arguments": arguments}
    return entry


def calls(*entries: dict[str, Any], step_id: str = "s1") -> dict[str, Any]:
    return delta(step_id, type="tool_calls", tool_calls=list(entries))


def run(status: str, run_id: str = "r1", **fields: Any) -> dict[str, Any]:
    return {"id": run_id, "object": "thread.run", "status": status} | fields


class Play:
    """One partition and its log. `at` is in seconds of record time and stays until told otherwise."""

    def __init__(self, rules: Rules = RULES, at: float = START_S) -> None:
        self.state = PartitionState("source", 3, rules)
        self.at = at
        self.log: list[LogRecord] = []
        self.effects: list[Came] = []

    def put(self, value: bytes | None, *, at: float | None = None, headers: Headers = ()) -> list[Came]:
        """One record of these bytes; returns what came of it, checkpoints left out."""
        self.at = self.at if at is None else at
        record = LogRecord(self.state.next_offset, round(self.at * 1000), b"key", value, tuple(headers))
        self.log.append(record)
        effects = [e for e in self.state.apply([record]) if not isinstance(e, Checkpoint)]
        self.effects += effects
        return effects

    def say(self, name: str, data: Any, *, at: float | None = None, event_id: str | None = None) -> list[Came]:
        """One stream event; of `step.x` and `run.x` the beginning of the name is understood."""
        full = f"thread.run.{name}" if name.startswith("step.") else f"thread.{name}" if "." in name else name
        headers = () if event_id is None else (("runstep-event-id", event_id.encode()),)
        return self.put(text({"event": full, "data": data}), at=at, headers=headers)

    def created(self, **fields: Any) -> list[Came]:
        return self.say("step.created", step(**fields))

    def completed(self, **fields: Any) -> Publish:
        return published(self.say("step.completed", step("completed", **fields)))

    def wait(self, seconds: float) -> list[Came]:
        """Let stream time pass by a record that says nothing."""
        return self.put(None, at=self.at + seconds)


def published(effects: Sequence[Effect]) -> Publish:
    """The one thing that came of it, which must be a snapshot."""
    (effect,) = effects
    assert isinstance(effect, Publish), effect
    return effect


def refused(effects: Sequence[Effect]) -> str:
    """The reason of the one thing that came of it, which must be a dead letter."""
    (effect,) = effects
    assert isinstance(effect, DeadLetter), effect
    return effect.reason.value


def snapshot(effect: Publish) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(effect.value)
    return found


def headers(effect: Publish | DeadLetter) -> dict[str, str | None]:
    """Headers without our prefix."""
    return {n.removeprefix("runstep-"): None if v is None else v.decode() for n, v in effect.headers}
