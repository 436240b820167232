"""Ids of the steps that the events of a record name, whatever became of the record. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from processor.core.effects import Headers
from processor.core.events import decode, run_named
from processor.core.responses.decode import MAX_RESPONSE_ID
from processor.core.responses.event import NOT_SAID, OF_ITEMS, ResponseEvent
from processor.core.wire_types import StepDelta, StepObject


def steps_in(key: bytes | None, value: bytes | None, headers: Headers) -> Iterator[str]:
    """The steps that the events of a record name; of a response, which is refused as a whole, the response, too."""
    for event in getattr(decode(value, headers), "events", ()):
        if isinstance(event, StepDelta | StepObject):
            yield event.step_id
        elif isinstance(event, ResponseEvent) and (response_id := run_named(key, headers, MAX_RESPONSE_ID)):
            yield response_id
            if event.what in OF_ITEMS and event.index != NOT_SAID:
                yield f"{response_id}:{event.index}"
