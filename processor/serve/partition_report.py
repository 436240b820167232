"""Status of each assigned partition: lag and open steps for the metrics, stalls, and the list of open steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from heapq import nsmallest
from typing import Final

from processor.config.settings import Settings
from processor.errors import BrokerUnavailable
from processor.serve.assigned_partition import AssignedPartition, readable_end
from processor.serve.source_observer import SourceObserver
from processor.serve.stalls import Stalls
from processor.telemetry.happenings import PartitionPaused, PartitionStatus, ProgressStalled
from processor.telemetry.telemetry import Telemetry

NO_ANSWER: Final = "no fetch was answered yet"


class Stalled(BrokerUnavailable):
    """A partition did not move for `stall_timeout_s` though there is something to read."""


class PartitionReport:
    """Reports lag and status of one partition after the other, once a second.

    Args:
        monotonic, now_ms: clocks; the second one is the wall clock.
    """

    def __init__(
        self,
        settings: Settings,
        telemetry: Telemetry,
        stalls: Stalls,
        observer: SourceObserver,
        monotonic: Callable[[], float],
        now_ms: Callable[[], int],
    ) -> None:
        self._telemetry, self._stalls, self._observer = telemetry, stalls, observer
        self._stall_timeout_s = settings.supervisor.stall_timeout_s
        self._monotonic, self._now_ms = monotonic, now_ms

    def report(
        self,
        owned: AssignedPartition,
        high_watermark: int | None,
        last_stable: int | None,
        now: float,
        *,
        count_oldest: bool,
    ) -> int | None:
        """Report the status and note or end a stall.

        Returns:
            The lag behind the high watermark; None if that is not known.

        Raises:
            Stalled: there is something to read and the partition has not moved for `stall_timeout_s`.
        """
        position = owned.position
        if high_watermark is None:  # no fetch was answered: only the end that the restore has seen is known
            behind = max(0, owned.end - position)
            self._report_status(owned, behind, behind, count_oldest=count_oldest)
            self._require_progress(owned, now, NO_ANSWER)
            return None
        owned.end = high_watermark
        readable = readable_end(high_watermark, last_stable)
        lag = max(0, high_watermark - position)
        self._report_status(owned, lag, max(0, readable - position), count_oldest=count_oldest)
        if position < readable:
            self._stalls.waits(owned.partition, f"at {position} of {readable}")
            self._require_progress(owned, now, f"the log goes to {readable}")
        elif owned.state.is_live and owned.acked >= position:
            self._stalls.done(owned.partition)
        else:
            self._stalls.waits(owned.partition, f"at {position}, committed {owned.acked}")
        return lag

    def report_paused(
        self, owned: AssignedPartition, high_watermark: int | None, reason: str, now: float, *, count_oldest: bool
    ) -> None:
        """Report a paused partition. It is no stall, now or when it is resumed; its end is where it was last seen."""
        owned.end = max(owned.end, high_watermark or 0)
        lag = max(0, owned.end - owned.position)
        self._report_status(owned, lag, lag, count_oldest=count_oldest)
        self._telemetry.happened(PartitionPaused(owned.partition, reason))
        owned.moved_at = now
        self._stalls.done(owned.partition)

    def _require_progress(self, owned: AssignedPartition, now: float, detail: str) -> None:
        stalled_s = now - owned.moved_at
        if stalled_s > self._stall_timeout_s:
            self._telemetry.happened(ProgressStalled(owned.partition, owned.position, stalled_s))
            raise Stalled(
                f"source: partition {owned.partition}: no progress at {owned.position} for {stalled_s:.0f} s: {detail}",
                hint="check the brokers; a restart tries again",
            )

    def _report_status(self, owned: AssignedPartition, lag: int, lag_last_stable: int, *, count_oldest: bool) -> None:
        state = owned.state
        self._observer.report(owned.partition, state.stream_time, self._monotonic())
        lag_s = 0.0
        if lag and owned.last_timestamp_ms > 0:
            lag_s = max(0.0, (self._now_ms() - owned.last_timestamp_ms) / 1000)
        oldest_s = None
        if count_oldest:
            oldest = state.oldest_open_ms()
            oldest_s = max(0.0, (state.stream_time - oldest) / 1000) if oldest is not None else 0.0
        self._telemetry.happened(
            PartitionStatus(
                owned.partition,
                lag_high_watermark=lag,
                lag_last_stable=lag_last_stable,
                lag_s=lag_s,
                committed=owned.committed.offset,
                open_steps=state.open_steps,
                oldest_open_s=oldest_s,
                ended_remembered=len(state.steps) - state.open_steps,
            )
        )


def oldest_open_steps(assigned: Iterable[AssignedPartition], limit: int) -> list[dict[str, object]]:
    """The oldest open steps; ids and ages, no contents."""
    oldest = nsmallest(
        limit,
        (
            (entry.opened_s - owned.state.stream_time / 1000, entry.key, owned.partition, entry)
            for owned in assigned
            for entry in owned.state.open_entries()
        ),
    )
    found: list[dict[str, object]] = []
    for seconds, _, partition, entry in oldest:
        step = entry.peek()
        thread_id, details_type = step.peek()
        found.append(
            {
                "step_id": entry.key,
                "run_id": entry.run_id,
                "thread_id": thread_id,
                "status": entry.status.value,
                "type": details_type,
                "age_s": round(-seconds, 1),
                "deadline_in_s": round(entry.due_s - entry.opened_s + seconds, 1),
                "partition": partition,
                "offset": step.first_offset,
            }
        )
    return found
