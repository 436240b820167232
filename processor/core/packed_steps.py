"""Packed steps: the bytes of a step become the step again, whatever dialect packed it."""

from __future__ import annotations

from typing import Any

from processor.core.effects import Status
from processor.core.responses.response import PACKED, Response
from processor.core.run_steps.step import Step
from processor.core.step_state import StepState


def unpack_step(body: bytes) -> StepState:
    """The step that `StepState.pack` made these bytes of."""
    return Response.unpack(body) if body.startswith(PACKED) else Step.unpack(body)


def of_compacted(step_id: str, status: Status, held: list[Any]) -> StepState:
    """The compacted step that `StepState.compacted` gave."""
    return Step.of_compacted(step_id, status, held)
