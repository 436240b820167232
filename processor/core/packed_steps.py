"""Packed steps: the bytes of a step become the step again, whatever dialect packed it."""

from __future__ import annotations

from processor.core.effects import Status
from processor.core.responses.response import PACKED, Response
from processor.core.run_steps.step import COMPACTED, Step
from processor.core.step_state import StepState


def unpack_step(body: bytes) -> StepState:
    """The step that `StepState.pack` made these bytes of."""
    return Response.unpack(body) if body.startswith(PACKED) else Step.unpack(body)


def is_compacted(body: bytes) -> bool:
    """Whether the bytes are of `StepState.pack_compacted`, and not of `StepState.pack`."""
    return body.startswith(COMPACTED)


def unpack_compacted(step_id: str, status: Status, body: bytes) -> StepState:
    """The compacted step that `StepState.pack_compacted` made these bytes of."""
    return Step.unpack_compacted(step_id, status, body)
