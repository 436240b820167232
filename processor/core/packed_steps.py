"""Packed steps: the bytes of a step become the step again, whatever dialect packed it."""

from __future__ import annotations

from processor.core.responses.response import PACKED, Response
from processor.core.run_steps.step import Step
from processor.core.step_state import StepState


def unpack_step(body: bytes) -> StepState:
    """The step that `StepState.pack` made these bytes of."""
    return Response.unpack(body) if body.startswith(PACKED) else Step.unpack(body)
