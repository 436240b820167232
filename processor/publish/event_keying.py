"""Keying of events: the dialect is chosen per event, so that run steps and Responses may stand in one input.

Three faults are usual in producers: deltas carry no run id, so they get another key and partition than their step;
equal tokens cannot be told from a repeated delivery; and the last events are lost because nothing was flushed. So here
every event of a run has the run's key, every event has an id that is the same when the stream is published again, and
the exit code says whether all was acknowledged.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from processor.core.sse import Frame
from processor.publish.event_fields import (
    ResponseEvent,
    Retrieved,
    RunEvent,
    ServiceError,
    read,
)
from processor.publish.outgoing import Outgoing, Refusal
from processor.publish.response_keying import KnownResponses, ResponseKeyer
from processor.publish.run_keying import RunKeyer


@dataclass(slots=True)
class Memory:
    """Ids learnt from all streams: the run of each step, the response of each item."""

    run_of: dict[str, str] = field(default_factory=dict)
    responses: KnownResponses = field(default_factory=KnownResponses)


class EventKeyer:
    """Converts events of any stream to records with key and headers. Pure: no clock, no network.

    One object serves all streams of a process, so that a delta in the second HTTP response of a run finds the step that
    the first one opened. Memory is bounded: the ids longest unused are forgotten first.

    `refusals`: events that cannot be published. `notes`: warnings. The caller reads both and clears them.
    """

    def __init__(self, memory: Memory | None = None) -> None:
        self.refusals: list[Refusal] = []
        self.notes: list[str] = []
        self.run_events = 0
        """Number of events of run steps."""
        self._memory = memory or Memory()
        self.run_steps = RunKeyer(self.refusals, self.notes, self._memory.run_of)
        self.responses = ResponseKeyer(self.refusals, self.notes, self._memory.responses)
        self._events = 0

    def beside(self) -> EventKeyer:
        """A keyer for another stream at the same time, which knows what this one has learnt."""
        return EventKeyer(self._memory)

    def take(self, frame: Frame, *, sequential: bool = False) -> list[Outgoing]:
        """One event in; the records that can be sent now, in order."""
        self._events += 1
        number = self._events
        event = read(frame)
        if event is None:
            return []
        if isinstance(event, ServiceError):
            event = self._error(event)
        if isinstance(event, str):
            self.refusals.append(Refusal(number, event))
            return []
        if isinstance(event, Retrieved):
            return self.responses.take_retrieved(event)
        if isinstance(event, ResponseEvent):
            return self.responses.take(number, event, sequential=sequential)
        self.run_events += 1
        return self.run_steps.take(number, event)

    def refuse(self, reason: str) -> None:
        """Count something as an event that cannot be published."""
        self._events += 1
        self.refusals.append(Refusal(self._events, reason))

    def end_stream(self) -> list[Outgoing]:
        """End the HTTP response, or the input: send what is still held, with the key known by then."""
        return self.run_steps.end_response() + self.responses.end_stream()

    def _error(self, error: ServiceError) -> ResponseEvent | RunEvent | str:
        """An error is of the stream that it stands in; where none has begun, it is the answer in its place."""
        if self.responses.is_speaking:
            return ResponseEvent(error.value, "error", None, None, None)
        return error.as_run_event or error.reason
