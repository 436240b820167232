"""An assigned partition: its fold state, its committed offset and where the log stands."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from processor.core.partition import PartitionState
from processor.kafka.consumer import Committed
from processor.serve.restore import Restored

_SAMPLES: Final = 8  # of positions, per checkpoint interval


def readable_end(high_watermark: int, last_stable: int | None) -> int:
    """The end of what a read_committed reader sees; brokers that have no last stable offset say none, or -1."""
    return high_watermark if last_stable is None or last_stable < 0 else min(high_watermark, last_stable)


@dataclass(slots=True)
class AssignedPartition:
    """A partition of this worker from its assignment to its revocation.

    `acked`: the offset whose commit was answered. `end`: the log's end in the last answer of the broker.
    `exact_from`: up to there checkpoints may be ahead of the offset, as a kill with at_least_once leaves them; -1: none
    is.
    """

    partition: int
    state: PartitionState
    committed: Committed
    checkpoints: int
    kept: set[bytes]  # the keys that the checkpoint partition holds once every closed unit is committed
    opened_at: float
    restored_from: int
    exact_from: int = -1
    announced: bool = False
    position: int = 0
    acked: int = -1
    end: int = 0
    moved_at: float = 0.0
    last_timestamp_ms: int = -1
    positions: deque[tuple[float, int]] = field(default_factory=deque)

    @classmethod
    def of(cls, restored: Restored, opened_at: float) -> AssignedPartition:
        return cls(
            restored.partition,
            restored.state,
            restored.committed,
            restored.checkpoints,
            restored.kept,
            opened_at,
            restored.state.next_offset,
            restored.exact_from,
            acked=restored.committed.offset,
            end=restored.end,
        )

    def unread(self, high_watermark: int | None, last_stable: int | None) -> int:
        """Number of offsets that can be read and are not applied yet; 0 while no fetch was answered."""
        if high_watermark is None:
            return 0
        return max(0, readable_end(high_watermark, last_stable) - self.position)

    def applied_before(self, now: float, interval_s: float) -> int:
        """Sample the applied offset, and return the one of `interval_s` ago; -1 if that is not known yet."""
        samples = self.positions
        if not samples or now - samples[-1][0] >= interval_s / _SAMPLES:
            samples.append((now, self.state.next_offset))
        before = -1
        while samples and now - samples[0][0] >= interval_s:
            before = samples[0][1]
            if len(samples) > 1 and now - samples[1][0] >= interval_s:
                samples.popleft()
            else:
                break
        return before
