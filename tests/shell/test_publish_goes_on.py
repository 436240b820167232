"""`RunPublisher`: an event that cannot be published takes no other with it."""

from __future__ import annotations

from typing import Any

import pytest

from processor.errors import UsageError
from processor.kafka.errors import RecordTooLarge
from processor.publish.publisher import RunPublisher
from tests.shell.test_publish import STEP, Collector, collected, delta

__all__ = ["collected"]


@pytest.fixture
def limited(collected: list[Collector], monkeypatch: pytest.MonkeyPatch) -> list[Collector]:
    """The topic takes no record that says `LARGE`."""
    send = Collector.send

    async def send_small(self: Collector, topic: str, value: bytes | None, **told: Any) -> None:
        if b"LARGE" in (value or b""):
            raise RecordTooLarge(topic, 2, 1)
        await send(self, topic, value, **told)

    monkeypatch.setattr(Collector, "send", send_small)
    return collected


async def test_a_record_that_is_too_large_takes_none_with_it(limited: list[Collector]) -> None:
    """Those that waited with it for the name of their run, and those behind it in their stream."""
    waiting: list[Any] = [("thread.run.step.delta", delta(text)) for text in ("a", "LARGE", "b")]
    async with RunPublisher(bootstrap_servers="nowhere:1", topic="t") as publisher:
        for event in waiting:
            await publisher.publish(event)
        with pytest.raises(RecordTooLarge):
            await publisher.publish(STEP)
        with pytest.raises(RecordTooLarge):
            await publisher.publish_stream([STEP, *waiting])
    assert len(limited[0].kept) == 6
    assert not any(b"LARGE" in record.value for record in limited[0].kept)


@pytest.mark.parametrize("odd", [7, None, ("thread.run.step.delta", 7), ("x",)])
async def test_what_is_no_event_ends_no_stream(odd: Any, collected: list[Collector]) -> None:
    events = [STEP, odd, ("thread.run.step.delta", delta("a")), b"{", ("thread.run.step.delta", delta("b"))]
    async with RunPublisher(bootstrap_servers="nowhere:1", topic="t") as publisher:
        with pytest.raises(UsageError, match=r"^publish: event 2: (a|the data of an event is a) .* \(and 1 more\)$"):
            await publisher.publish_stream(events)
    assert len(collected[0].kept) == 3
