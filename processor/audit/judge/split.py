"""Runs and steps on more than one partition of the source, counted, with the first of them."""

from __future__ import annotations

from typing import Final

import msgspec

PLACES: Final = 10
"""Ids that are named of each kind, the first in their order."""


class Split(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of split steps and runs. `first_steps` and `first_runs`: the first ids -> the partitions of each."""

    steps: int = 0
    runs: int = 0
    first_steps: dict[str, list[int]] = {}
    first_runs: dict[str, list[int]] = {}

    def __bool__(self) -> bool:
        return bool(self.steps or self.runs)
