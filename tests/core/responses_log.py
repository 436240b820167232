"""Responses streams as records, keyed and numbered as `run-steps publish` writes them; what came of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from processor.core.effects import Checkpoint, DeadLetter, Effect, LogRecord, Publish
from processor.core.partition import PartitionState
from processor.core.rules import Rules

FIXTURES = Path(__file__).parents[3] / "shared" / "fixtures" / "responses"
SAMPLES = Path(__file__).parent / "responses_samples"
RULES = Rules(grace_s=5, max_age_s=100, ended_retention_s=20, ended_retention_records=1_000_000)
STARTED_MS = 1_000_000


def recordings() -> list[Any]:
    """The recorded streams; where their folder is absent, one that is skipped by name."""
    if not FIXTURES.is_dir():
        return [pytest.param(None, marks=pytest.mark.skip(reason="no recordings: ../shared/fixtures/responses"))]
    return [pytest.param(path, id=path.stem) for path in sorted(FIXTURES.glob("*.sse"))]


def events_of(path: Path) -> list[dict[str, Any]]:
    """The events of a recorded stream."""
    lines = path.read_text().splitlines()
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in lines if line]
    data = [line.removeprefix("data:").strip() for line in lines if line.startswith("data:")]
    return [json.loads(text) for text in data if text != "[DONE]"]


def key_of(events: Sequence[dict[str, Any]]) -> str:
    """The first response id that the stream names."""
    return next((e["response"]["id"] for e in events if isinstance(e.get("response"), dict)), "resp_unnamed")


def text(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def record_of(event: dict[str, Any], key: str, offset: int, position: int, at_ms: int = STARTED_MS) -> LogRecord:
    """The record of one event, with the headers of `publish`."""
    number = event.get("sequence_number")
    event_id = f"{key}:{number}" if number is not None else f"{key}/{position:032x}"
    headers = (
        ("runstep-event-id", event_id.encode()),
        ("runstep-run-id", key.encode()),
        ("runstep-sequence", str(position if number is None else number).encode()),
    )
    return LogRecord(offset, at_ms, key.encode(), text(event), headers)


def log_of(*streams: Sequence[dict[str, Any]], at_ms: int = STARTED_MS) -> list[LogRecord]:
    """One stream after the other."""
    records: list[LogRecord] = []
    for events in streams:
        key = key_of(events)
        begin = len(records)
        records += [record_of(e, key, begin + n, n, at_ms) for n, e in enumerate(events)]
    return records


def renumbered(records: Iterable[LogRecord]) -> list[LogRecord]:
    """The same records at offsets from 0 on."""
    return [LogRecord(n, r.timestamp, r.key, r.value, r.headers) for n, r in enumerate(records)]


def play(records: Sequence[LogRecord], rules: Rules = RULES) -> tuple[list[Effect], PartitionState]:
    """What comes of a log, checkpoints left out."""
    state = PartitionState("source", 3, rules)
    effects: list[Effect] = [effect for effect in state.apply(records) if not isinstance(effect, Checkpoint)]
    return effects, state


def published(effects: Iterable[Effect]) -> dict[str, Publish]:
    """The last revision of each step; nothing else may have come."""
    found: dict[str, Publish] = {}
    for effect in effects:
        assert isinstance(effect, Publish), letter(effect)
        found[effect.step_id] = effect
    return found


def letter(effect: Effect) -> str:
    return f"{effect.reason}: {effect.detail}" if isinstance(effect, DeadLetter) else type(effect).__name__


def snapshot(effect: Publish) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(effect.value)
    return found


def item_in(step: dict[str, Any]) -> Any:
    """The output item that a published step holds, by the mapping that docs/responses.md states."""
    details = step["step_details"]
    kind = details["type"]
    held = details[kind]
    if kind in ("tool_calls", "activities"):
        (held,) = held
    elif kind == "message_creation":
        held = dict(held)
        assert held.pop("message_id") == held.get("id")
    return held


def streams() -> list[list[dict[str, Any]]]:
    """The events of the project's own samples and, where they are, of the shorter recordings."""
    paths = sorted(SAMPLES.glob("*.jsonl")) + (sorted(FIXTURES.glob("*.sse")) if FIXTURES.is_dir() else [])
    return [events for events in map(events_of, paths) if len(events) < 130]
