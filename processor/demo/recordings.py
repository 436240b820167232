"""Expected result of recorded streams, read from the last event of each step, without the core."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from processor.core.headers import INFERRED, REVISION
from processor.demo.tails import Out
from processor.publish.event_keying import EventKeyer
from processor.publish.event_stream import EventStream
from processor.simulate.expected import Difference
from processor.simulate.responses.steps import ResponseStep, status_of

_ENDS: Final = ("completed", "failed", "cancelled", "expired")
_RUN_ENDS: Final = {
    "completed": "expired",
    "incomplete": "expired",
    "failed": "failed",
    "cancelled": "cancelled",
    "expired": "expired",
}
"""A run's end -> that of a step of which nothing more was said."""


@dataclass(slots=True)
class Told:
    """Content of one step in the files. `status` None: it is still open when they end."""

    step_id: str
    story: str
    status: str | None = None
    implied: bool = False
    last_word: dict[str, Any] = field(default_factory=dict)
    spoken_of_later: bool = False


def story_of(path: Path) -> str:
    """The name that the parts of one recording share: `x.part1.sse` and `x.part2.sse` are `x`."""
    name = path.stem.partition(".part")[0]
    return f"responses/{name}" if path.parent.name == "responses" else name


def read(files: Sequence[Path]) -> dict[str, Told]:
    """Step id -> expected result, in the order of the files."""
    steps: dict[str, Told] = {}
    run_of: dict[str, str] = {}
    keyer = EventKeyer()
    for path in files:
        stream = EventStream(keyer)
        for record in (*stream.feed(path.read_bytes()), *stream.finish()):
            said = json.loads(record.value)
            if "type" in said and "object" not in said:
                _read_response_event(steps, record.key.decode(), said, story_of(path))
                continue
            name, data = (said["event"], said["data"]) if "event" in said else ("", said)
            kind, run_id = str(data.get("object")), record.key.decode()
            status = data.get("status") or name.rpartition(".")[2]
            if kind == "thread.run" and status in _RUN_ENDS:
                for step_id, owner in run_of.items():
                    told = steps[step_id]
                    if owner == run_id and told.status is None:
                        told.status, told.implied = _RUN_ENDS[status], True
            elif kind in ("thread.run.step", "assistant.run.step", "thread.run.step.delta"):
                told = steps.setdefault(data["id"], Told(data["id"], story_of(path)))
                run_of.setdefault(told.step_id, run_id)
                if kind.endswith(".delta"):
                    told.spoken_of_later = told.status is not None
                elif status in _ENDS and (told.status in (None, status) or told.implied):
                    told.status, told.implied, told.last_word = status, False, data
        keyer.refusals.clear()
    return steps


def _read_response_event(steps: dict[str, Told], key: str, said: dict[str, Any], story: str) -> None:
    """Take in what an event of the Responses API says of the steps of its response."""
    kind = said["type"].removeprefix("response.")
    if kind == "output_item.added":
        steps.setdefault(step_id := f"{key}:{said['output_index']}", Told(step_id, story))
    elif kind == "output_item.done":
        _end_item(steps, key, said["output_index"], said["item"], story)
    elif kind == "error" or kind in _RUN_ENDS:
        output = said.get("response", {}).get("output", [])
        for index, item in enumerate(output):
            if (known := steps.get(f"{key}:{index}")) is None or known.status is None:
                _end_item(steps, key, index, item, story)
        for step_id, step in steps.items():
            if step_id.startswith(f"{key}:") and step.status is None:
                step.status, step.implied = ("failed" if kind == "error" else _RUN_ENDS[kind]), True


def _end_item(steps: dict[str, Told], key: str, index: int, item: dict[str, Any], story: str) -> None:
    step = ResponseStep({"model": None, "metadata": None}, key, index)
    told = steps.setdefault(step.id, Told(step.id, story))
    told.status = status_of(item)
    snapshot = step.snapshot(item, told.status, 0)
    told.last_word = {name: snapshot[name] for name in ("id", "run_id", "type", "status", "step_details", "last_error")}


def compare(told: dict[str, Told], published: Iterable[Out]) -> list[Difference]:
    """Differences between the published steps and the recordings; empty if there are none.

    Each step must have come out as revisions 0, 1, ... once each, the last of them on the topic of its last status,
    holding all that the step's last object says.
    """
    came: dict[str, list[Out]] = {}
    for out in published:
        came.setdefault((out.key or b"").decode("utf-8", "replace"), []).append(out)
    found = [Difference("extra", step_id, "not in the recordings at all") for step_id in came.keys() - told.keys()]
    for step_id, step in told.items():
        outs = sorted(came.get(step_id, []), key=_revision)
        name = f"{step.story}: {step_id}"
        if step.status is None or not outs:
            if step.status is not None:
                found.append(Difference("missing", name, f"never published as {step.status}"))
            elif outs:
                found.append(Difference("extra", name, "published, though the recording leaves it open"))
            continue
        revisions = [_revision(out) for out in outs]
        if revisions != list(range(len(outs))):
            kind = "twice" if len(set(revisions)) < len(revisions) else "missing"
            found.append(Difference(kind, name, f"revisions {revisions} are there"))
        last = outs[-1]
        if last.status != step.status:
            found.append(Difference("status", name, f"{step.status} is expected (got {last.status})"))
        if bool(last.header(INFERRED)) != step.implied:
            got = last.header(INFERRED) or "none"
            found.append(Difference("inferred", name, f"{'one' if step.implied else 'none'} is expected (got {got})"))
        snapshot = json.loads(last.value or b"{}")
        for field_name, value in step.last_word.items():
            is_late = field_name == "step_details" and step.spoken_of_later
            if not is_late and not _holds(snapshot.get(field_name), value):
                found.append(Difference("content", name, f"{field_name} is not what the step's last object says"))
    return found


def _revision(out: Out) -> int:
    return int(out.header(REVISION) or 0)


def _holds(snapshot: Any, said: Any) -> bool:
    """Whether the snapshot has everything that was said: it may have more, from what was said before."""
    if said is None or said in ({}, [], ""):
        return True
    if isinstance(said, dict):
        return isinstance(snapshot, dict) and all(_holds(snapshot.get(key), value) for key, value in said.items())
    if isinstance(said, list):
        return isinstance(snapshot, list) and len(snapshot) >= len(said) and all(map(_holds, snapshot, said))
    return bool(snapshot == said)
