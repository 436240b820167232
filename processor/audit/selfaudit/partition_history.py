"""History of a partition as its worker noted it: offsets with stream time, and clock marks."""

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
    """Stream time (milliseconds) at an offset, and whether the state remembered nothing there."""

    offset: int
    stream_time: int
    is_blank: bool


class KnownRange(NamedTuple):
    """Source offsets [begin, end) to fold, the sample at `begin`, and the clock marks in between.

    Only a `decisive` range can show a mismatch; any can show that the step is right.
    """

    begin: int
    stream_time: int
    is_blank: bool
    end: int
    marks: tuple[tuple[int, int], ...]
    decisive: bool


class PartitionHistory:
    """Facts for a fold that begins in mid-log, noted by the partition's owner.

    Stream times, because the largest timestamp may lie anywhere before; and clock marks, because one may have been due
    to another step. Bounded: before the oldest that is kept, nothing can be decided.

    Args:
        state: the partition's, as it went live here.
    """

    def __init__(self, partition: int, state: PartitionState, now: float) -> None:
        self.partition = partition
        self.verified_offset = -1
        self.verified_at = now
        rules = state.rules
        self._settled_after_ms = settled_after_ms(rules, retentions=2, readings=0)
        self._spacing_ms = max(_LEAST_SPACING_MS, rules.ended_retention_s * 1000 // _SAMPLES_PER_RETENTION)
        # What checkpoints brought may have been named later than the stream time: the offsets were set back by hand.
        self._not_before_ms = state.named_last_ms()
        self.samples: deque[StreamTimeSample] = deque(maxlen=_SAMPLES)
        self._marks: deque[tuple[int, int]] = deque()

    def passed(self, state: PartitionState) -> None:
        """Note the stream time at `state.next_offset`."""
        now = state.stream_time
        if self.samples and now < self.samples[-1].stream_time + self._spacing_ms:
            return
        if now >= self._not_before_ms:
            self.samples.append(StreamTimeSample(state.next_offset, now, state.is_blank))

    def marked(self, position: int, mark_ms: int) -> None:
        """Note a clock mark before the record at that offset."""
        if len(self._marks) == _MARKS:
            lost, _ = self._marks.popleft()
            while self.samples and self.samples[0].offset < lost:
                self.samples.popleft()
        self._marks.append((position, mark_ms))
        if self.samples and self.samples[-1].offset == position:
            self.samples[-1] = self.samples[-1]._replace(stream_time=mark_ms)

    def ranges(self, first: int, end: int, own_mark: tuple[int, int] | None) -> Iterator[KnownRange]:
        """Ranges to fold for a step that began at `first`: its own range, then, if there is such a sample, one that
        begins so early that what its owner remembered there was forgotten before the step, its run included.
        """
        before = [sample for sample in self.samples if sample.offset <= first]
        now = before[-1].stream_time if before else -1
        yield self._range(StreamTimeSample(first, now, is_blank=False), end, own_mark, decisive=False)
        for sample in reversed(before):
            if sample.is_blank or sample.stream_time + self._settled_after_ms < now:
                yield self.decisive(sample, end, own_mark)
                return

    def decisive(self, sample: StreamTimeSample, end: int, own_mark: tuple[int, int] | None) -> KnownRange:
        """The range from a sample before the step's first offset."""
        return self._range(sample, end, own_mark, decisive=True)

    def _range(
        self, begin: StreamTimeSample, end: int, own_mark: tuple[int, int] | None, *, decisive: bool
    ) -> KnownRange:
        marks = {*self._marks} if own_mark is None else {*self._marks, own_mark}
        within = tuple(sorted(mark for mark in marks if begin.offset < mark[0] <= end))
        return KnownRange(*begin, end, within, decisive)
