"""The structures that a checkpoint is made of."""

from __future__ import annotations

from typing import Any

import msgspec

from processor.core.effects import Status


class CheckpointEntry(msgspec.Struct, array_like=True, gc=False):
    """A checkpoint's value. `kind`: `step`, `run` or `gone` (then only `touched_offset` counts)."""

    version: int
    kind: str
    applied_below: int = 0
    touched_ms: int = 0
    touched_offset: int = 0
    due_s: int = 0
    status: str = ""
    inferred: bool = False
    refused: bool = False
    irregular: bool = False
    run_id: str | None = None
    body: bytes = b""
    opened_s: int = 0
    log: str = ""
    """`LogIdentity.encode()` of the log that the entry was folded from; "" from before there was one."""
    fold_version: int = 1
    """Of the rules that the entry was folded by; 1 from before it was written."""


class Inference(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """An end that no event of the step stated (L6, L7). Laid over the snapshot, so that a real end can overrule it."""

    how: str
    status: Status
    at_s: int
    last_error: Any = None
