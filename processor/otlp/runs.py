"""The spans of runs, made of the spans of their steps. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from processor.otlp import conventions as names
from processor.otlp.spans import (
    MAX_INTEGER,
    RUN_ID,
    Attributes,
    ExportedStep,
    Span,
    SpanOptions,
    run_span_id,
    trace_id_of,
)

STEPS: Final = "run_steps.run.steps"

Place = tuple[str, int]
"""Topic and partition."""


class _Run(msgspec.Struct):
    """A run as known by its steps. `steps`: step id -> (revision, input tokens, output tokens, type of its error).

    `last_ns`: of the newest of them.
    """

    start_ns: int
    end_ns: int
    last_ns: int = 0
    agent_id: str = ""
    conversation_id: str = ""
    steps: dict[str, tuple[int, int, int, str]] = msgspec.field(default_factory=dict)
    first: dict[Place, int] = msgspec.field(default_factory=dict)


class Runs:
    """The runs of one export: about a kilobyte of memory each.

    Attributes:
        newest_ns: the latest end of a step that was taken, none later than its record.
    """

    def __init__(self) -> None:
        self._runs: dict[str, _Run] = {}
        self.newest_ns = 0

    def __len__(self) -> int:
        return len(self._runs)

    def take(self, step: ExportedStep, place: Place, offset: int) -> None:
        """Take a step that was published at this offset of that partition."""
        run = self._runs.setdefault(step.run_id, _Run(step.start_ns, step.end_ns))
        run.start_ns, run.end_ns = min(run.start_ns, step.start_ns), max(run.end_ns, step.end_ns)
        run.agent_id = step.agent_id or run.agent_id
        run.conversation_id = step.conversation_id or run.conversation_id
        known = run.steps.get(step.step_id)
        if known is None or known[0] <= step.revision:
            run.steps[step.step_id] = (step.revision, step.input_tokens, step.output_tokens, step.error_type)
        run.first[place] = min(run.first.get(place, offset), offset)
        run.last_ns = max(run.last_ns, step.last_ns)
        self.newest_ns = max(self.newest_ns, step.last_ns)

    def spans(self, options: SpanOptions) -> Iterator[Span]:
        """An `invoke_agent` span of each run, as wide as its steps."""
        for run_id, run in self._runs.items():
            attributes: Attributes = {
                names.OPERATION: names.INVOKE_AGENT,
                names.PROVIDER: options.provider,
                RUN_ID: run_id,
                STEPS: len(run.steps),
            }
            for attribute, text in (
                (names.AGENT_ID, run.agent_id),
                (names.CONVERSATION_ID, run.conversation_id),
            ):
                if text:
                    attributes[attribute] = text
            for attribute, which in ((names.INPUT_TOKENS, 1), (names.OUTPUT_TOKENS, 2)):
                if tokens := sum(int(step[which]) for step in run.steps.values()):
                    attributes[attribute] = min(tokens, MAX_INTEGER)
            error_type = next((step[3] for step in run.steps.values() if step[3]), "")
            if error_type:
                attributes[names.ERROR_TYPE] = error_type
            yield Span(
                trace_id_of(run_id),
                run_span_id(run_id),
                b"",
                names.INVOKE_AGENT,
                run.start_ns,
                run.end_ns,
                attributes,
                error_type,
            )

    def unsettled(self, idle_s: float, now_ns: int) -> dict[Place, int]:
        """The first offset, by partition, of a run whose newest step is younger than that: more of it may come."""
        since = max(self.newest_ns, now_ns) - int(idle_s * 1e9)
        found: dict[Place, int] = {}
        for run in self._runs.values():
            if run.last_ns > since:  # an end that is said to be in the future would keep the position there for good
                for place, offset in run.first.items():
                    found[place] = min(found.get(place, offset), offset)
        return found
