"""`Telemetry`: counts what a worker does and writes its log."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Mapping
from typing import TextIO

from processor.core.effects import Checkpoint, DeadLetter, Effect, Publish, Reason, Status
from processor.core.responses.event import OF_RESPONSES
from processor.telemetry.happenings import Happening, LoopTurned, RecordsRejected, build_labels
from processor.telemetry.log import LibraryLogHandler, Repeats, make_log
from processor.telemetry.meter import Meter
from processor.telemetry.metrics import (
    AMENDMENTS,
    ANOMALIES,
    APPLIED_BYTES,
    BUILD_INFO,
    CHECKPOINTS,
    DEADLINES_BY,
    DEADLINES_FIRED,
    EVENT_KIND,
    EVENTS,
    EVENTS_WITHOUT_EFFECT,
    INFERRED_NO,
    LAST_PROGRESS,
    LOG_LINES_DROPPED,
    RECORDS_APPLIED,
    RESPONSES,
    RESPONSES_UNENDED,
    RUN_STEPS,
    SEQUENCE_GAPS,
    STEPS_PUBLISHED,
    WORKER_UP,
)


class Telemetry:
    """The metrics and the log of one process.

    Args:
        level, format, stream: of the log; `auto` is console on a terminal and JSON lines elsewhere.
        worker: this process's name among several; stands on every log line.
        monotonic: seconds for the limit on repeats. now: seconds since 1970 for the last progress.
        heard: is given every happening before it is emitted (tests; a second outlet).

    Raises:
        ConfigError: `level` or `format` is unknown.
    """

    def __init__(
        self,
        *,
        level: str = "info",
        format: str = "auto",
        stream: TextIO | None = None,
        worker: str | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        heard: Callable[[Happening], None] | None = None,
    ) -> None:
        self.meter = Meter()
        self._now = now
        self._heard = heard
        self._repeats = Repeats(monotonic, self._held_back)
        bound = {} if worker is None else {"worker": worker}
        self.log = make_log(stream or sys.stderr, level, format, self._repeats, self._unwritable).bind(**bound)
        self._handler: LibraryLogHandler | None = None
        self.meter.set(WORKER_UP, 1)
        self.meter.set(BUILD_INFO, 1, **build_labels())
        self.progressed()  # a process that has just started has not been without progress for long

    def happened(self, happening: Happening) -> None:
        """Count and log a happening."""
        if self._heard is not None:
            self._heard(happening)
        happening.emit(self.meter, self.log)

    # Bulk counters: once per batch or unit, so that a record costs nothing here.

    def applied(self, partition: int, records: int, bytes: int) -> None:
        """A batch of one partition was applied live."""
        self.meter.count(RECORDS_APPLIED, records, partition=partition)
        self.meter.count(APPLIED_BYTES, bytes, partition=partition)
        self.progressed()

    def progressed(self) -> None:
        """Note progress: records were applied or restored, or all owned partitions (perhaps none) are at their end."""
        self.meter.set(LAST_PROGRESS, self._now())

    def counted(self, counts: Mapping[str, int]) -> None:
        """Add the core's counts of a batch: events by kind, deadlines fired, events without effect."""
        for kind, n in counts.items():
            own = kind.removeprefix(OF_RESPONSES)
            if own in EVENT_KIND.values:
                self.meter.count(EVENTS, n, kind=own, dialect=RUN_STEPS if own is kind else RESPONSES)
            elif kind == "sequence_gap":
                self.meter.count(SEQUENCE_GAPS, n)
            elif kind == "response_unended":
                self.meter.count(RESPONSES_UNENDED, n)
            elif kind in DEADLINES_BY:
                self.meter.count(DEADLINES_FIRED, n, by=DEADLINES_BY[kind])
            else:
                self.meter.count(EVENTS_WITHOUT_EFFECT, n, kind=kind)

    def acked(self, partition: int, effects: Iterable[Effect]) -> None:
        """Count the effects of one partition, once they are committed: dropped ones were never published."""
        published: Tally[tuple[Status, str]] = Tally()
        anomalies: Tally[str] = Tally()
        rejected: dict[Reason, tuple[int, DeadLetter]] = {}
        amendments = checkpoints = 0
        for effect in effects:
            if isinstance(effect, Publish):
                if effect.anomalies:
                    anomalies.update(effect.anomalies)
                if effect.revision:
                    amendments += 1
                else:
                    published[effect.status, effect.inferred or INFERRED_NO] += 1
            elif isinstance(effect, DeadLetter):
                n, first = rejected.get(effect.reason, (0, effect))
                rejected[effect.reason] = n + 1, first
            elif isinstance(effect, Checkpoint):
                checkpoints += 1
        for (status, inferred), n in published.items():
            self.meter.count(STEPS_PUBLISHED, n, status=status, inferred=inferred)
        for kind, n in anomalies.items():
            self.meter.count(ANOMALIES, n, kind=kind)
        if amendments:
            self.meter.count(AMENDMENTS, amendments)
        if checkpoints:
            self.meter.count(CHECKPOINTS, checkpoints)
        for reason, (n, first) in rejected.items():
            self.happened(RecordsRejected(reason, n, partition, first.offset, first.detail))

    def exposition(self) -> bytes:
        """The body of `/metrics`."""
        return self.meter.exposition()

    async def watch(self, every_s: float = 1.0) -> None:
        """Until cancelled: sample the delay of the event loop, and log how many lines were held back."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + every_s
            await asyncio.sleep(every_s)
            self.happened(LoopTurned(max(0.0, loop.time() - due)))
            self.tell_held_back()

    def tell_held_back(self) -> None:
        """Log the number of lines held back, for each kind whose time is over."""
        for method, kind, n in self._repeats.over():
            getattr(self.log, method)("log_lines_held_back", of=kind, held_back=n, _never_held=True)

    def hear_libraries(self) -> None:
        """Write the libraries' warnings and errors into this log, until `close`: stdlib logging, and `warnings`."""
        if self._handler is None:
            self._handler = LibraryLogHandler(self.log)
            logging.getLogger().addHandler(self._handler)
            logging.captureWarnings(True)

    def close(self, *, keep_hearing: bool = False) -> None:
        """Log what is still held back, and detach from the libraries' logging.

        With `keep_hearing`, for a process that is about to end, the libraries stay attached: an event loop reports
        tasks whose result was never retrieved when they are collected, after everything else.
        """
        if self._handler is not None and not keep_hearing:
            logging.getLogger().removeHandler(self._handler)
            logging.captureWarnings(False)
            self._handler = None
        self._repeats.end()
        self.tell_held_back()

    def _held_back(self) -> None:
        self.meter.count(LOG_LINES_DROPPED, reason="repeated")

    def _unwritable(self) -> None:
        self.meter.count(LOG_LINES_DROPPED, reason="unwritable")
