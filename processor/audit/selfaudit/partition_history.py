"""What a worker noted of a partition: offsets with stream time, clock marks, and which are known."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final, NamedTuple

from processor.audit.judge.settled import settled_after_ms
from processor.core.partition import PartitionState

_SAMPLES: Final = 1_024
_MARKS: Final = 4_096
_SAMPLES_PER_RETENTION: Final = 8
_LEAST_SPACING_MS: Final = 1_000


class StreamTimeSample(NamedTuple):
    """How a partition stood at an offset: the stream time (milliseconds), and whether nothing was remembered."""

    offset: int
    stream_time: int
    is_blank: bool


class KnownRange(NamedTuple):
    """Source offsets [begin, end) to fold, how the partition stood at `begin`, and the clock marks in between.

    Only a `decisive` one can tell a mismatch; any can tell that the step is right.
    """

    begin: int
    stream_time: int
    is_blank: bool
    end: int
    marks: tuple[tuple[int, int], ...]
    decisive: bool


class PartitionHistory:
    """What a fold of a part of one partition must be told, noted by its owner as it went.

    Stream times, as the largest timestamp may lie anywhere before; and clock marks, as a step that is not looked at
    may have been due to them. Bounded: where the oldest is dropped, nothing can be decided before it any more.

    Args:
        state: the partition's, as it went live here.
    """

    def __init__(self, partition: int, state: PartitionState, now: float) -> None:
        self.partition = partition
        self.frontier = -1
        self.verified_at = now
        rules = state.rules
        self._settled_after_ms = settled_after_ms(rules, retentions=2, readings=0)
        self._spacing_ms = max(_LEAST_SPACING_MS, rules.ended_retention_s * 1000 // _SAMPLES_PER_RETENTION)
        # What checkpoints brought may have been named later than the stream time: the offsets were set back by hand.
        self._not_before_ms = state.named_last_ms()
        self.waypoints: deque[StreamTimeSample] = deque(maxlen=_SAMPLES)
        self._marks: deque[tuple[int, int]] = deque()

    def passed(self, state: PartitionState) -> None:
        """The owner stands at `state.next_offset`."""
        now = state.stream_time
        if self.waypoints and now < self.waypoints[-1].stream_time + self._spacing_ms:
            return
        if now >= self._not_before_ms:
            self.waypoints.append(StreamTimeSample(state.next_offset, now, state.is_blank))

    def marked(self, position: int, mark_ms: int) -> None:
        """The owner has set a clock mark there, before the record at that offset."""
        if len(self._marks) == _MARKS:
            lost, _ = self._marks.popleft()
            while self.waypoints and self.waypoints[0].offset < lost:
                self.waypoints.popleft()
        self._marks.append((position, mark_ms))
        if self.waypoints and self.waypoints[-1].offset == position:
            self.waypoints[-1] = self.waypoints[-1]._replace(stream_time=mark_ms)

    def ranges(self, first: int, end: int, own_mark: tuple[int, int] | None) -> Iterator[KnownRange]:
        """From where to fold a step that began at `first`: its own range, then, if there is such a place, one that
        begins so early that what its owner remembered there was forgotten before the step, its run included.
        """
        before = [waypoint for waypoint in self.waypoints if waypoint.offset <= first]
        now = before[-1].stream_time if before else -1
        yield self._range(StreamTimeSample(first, now, is_blank=False), end, own_mark, decisive=False)
        for waypoint in reversed(before):
            if waypoint.is_blank or waypoint.stream_time + self._settled_after_ms < now:
                yield self.decisive(waypoint, end, own_mark)
                return

    def decisive(self, waypoint: StreamTimeSample, end: int, own_mark: tuple[int, int] | None) -> KnownRange:
        """From a waypoint that lies before the step's first offset."""
        return self._range(waypoint, end, own_mark, decisive=True)

    def _range(
        self, begin: StreamTimeSample, end: int, own_mark: tuple[int, int] | None, *, decisive: bool
    ) -> KnownRange:
        marks = {*self._marks} if own_mark is None else {*self._marks, own_mark}
        within = tuple(sorted(mark for mark in marks if begin.offset < mark[0] <= end))
        return KnownRange(*begin, end, within, decisive)
