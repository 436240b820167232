"""Path check: the fast and the slow path compared after each record (`Paths.BOTH`)."""

from __future__ import annotations

from typing import Any

from processor.core.effects import Checkpoint, Effect
from processor.core.entry import Entry


class PathsDifferError(AssertionError):
    """The fast path has come to another state, or to other effects, than the slow path."""


def compare_effects(fast: list[Effect], slow: list[Effect], offset: int) -> None:
    """Compare what came of a record. Of checkpoints the keys alone: a tree may have its names in another order.

    Raises:
        PathsDifferError: with the offset, no payload.
    """
    if list(map(_outcome, fast)) != list(map(_outcome, slow)):
        raise PathsDifferError(
            f"offset {offset}: {len(fast)} effects by the fast path differ from {len(slow)} by the slow"
        )


def compare_entries(fast: Entry | None, slow: Entry | None, offset: int) -> None:
    """Compare an entry, as far as its form lets it be compared unchanged.

    Raises:
        PathsDifferError: with the offset, no payload.
    """
    if _summary(fast) != _summary(slow):
        raise PathsDifferError(f"offset {offset}: an entry by the fast path differs from that by the slow path")


def _outcome(effect: Effect) -> Any:
    return effect.key if isinstance(effect, Checkpoint) else effect


def _summary(entry: Entry | None) -> tuple[Any, ...]:
    if entry is None:
        return ()
    step = entry.step
    return (
        entry.key, entry.status, entry.inferred, entry.refused, entry.run, entry.run_id, entry.due_s, entry.opened_s,
        entry.applied_below, entry.dirty_from, entry.dirty_time, entry.checkpointed,
        None if step is None else (*step.summary(), step.run_id, step.peek()),
    )  # fmt: skip
