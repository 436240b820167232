"""Memory of a replay's jobs: what one leaves is freed before the next one begins."""

from __future__ import annotations

import gc
import weakref

from processor.audit.replay.runtime import collecting_seldom


class Part:
    """One that refers to itself, by way of another."""

    def __init__(self) -> None:
        self.other = {"part": self}


def test_what_a_job_leaves_in_cycles_is_freed_when_it_has_ended() -> None:
    threshold = gc.get_threshold()
    with collecting_seldom():
        left = weakref.ref(Part())
        assert left() is not None, "no cycle is collected on the way"
    assert left() is None
    assert gc.get_threshold() == threshold
    assert gc.get_freeze_count() == 0
