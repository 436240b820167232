"""Partitions that an operator has paused in this process, each with a reason, over all incarnations of its worker."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Final

from processor.serve.http import Controlled
from processor.telemetry.happenings import PartitionPaused, PartitionResumed
from processor.telemetry.telemetry import Telemetry

_REASON: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9 .,:#/_@-]{0,99}")
REASON_FORM: Final = "1 to 100 of letters, digits, spaces and .,:#/_@-, the first a letter or a digit"
"""What a reason may be: it is a label value of a metric."""


class Pauses:
    """A paused partition stays assigned: it is not read, and what was applied of it is committed.

    A pause ends with `resume`, with the process, or when the partition goes to another worker process.
    """

    def __init__(self) -> None:
        self._reasons: dict[int, str] = {}

    @property
    def reasons(self) -> Mapping[int, str]:
        """Paused partition -> reason."""
        return MappingProxyType(self._reasons)

    def pause(self, partition: int, reason: str) -> None:
        """Pause it, or give its pause another reason. ValueError: the reason is not of `REASON_FORM`."""
        if not _REASON.fullmatch(reason):
            raise ValueError(f"reason: {REASON_FORM}")
        self._reasons[partition] = reason

    def resume(self, partition: int) -> bool:
        """Returns whether it was paused."""
        return self._reasons.pop(partition, None) is not None

    def keep_only(self, partitions: Iterable[int]) -> None:
        """Forget the pauses of partitions that are not ours any more."""
        kept = set(partitions)
        self._reasons = {p: reason for p, reason in self._reasons.items() if p in kept}

    def without(self, partitions: tuple[int, ...]) -> tuple[int, ...]:
        """The partitions that are not paused."""
        if not self._reasons:
            return partitions
        return tuple(p for p in partitions if p not in self._reasons)


def control(
    pauses: Pauses, assigned: Collection[int], telemetry: Telemetry, partition: int, reason: str | None
) -> Controlled:
    """Pause one of the assigned partitions for a reason, or resume it (None), and tell of it."""
    if partition not in assigned:
        return Controlled(404, f"partition {partition} is not assigned to this worker")
    before = pauses.reasons.get(partition)
    if reason is None:
        if before is None:
            return Controlled(409, f"partition {partition} is not paused")
        pauses.resume(partition)
        telemetry.happened(PartitionResumed(partition, before))
        return Controlled(200, f"partition {partition} is resumed; it was paused: {before}")
    try:
        pauses.pause(partition, reason)
    except ValueError as error:
        return Controlled(400, str(error))
    if before is not None and before != reason:
        telemetry.happened(PartitionResumed(partition, before))
    telemetry.happened(PartitionPaused(partition, reason, is_new=before != reason))
    return Controlled(200, f"partition {partition} is paused: {reason}")
