"""The watch of the topics believes a broker that knows no topic at all only after a while."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from processor.config.settings import Settings
from processor.errors import ConfigError
from processor.kafka.admin import TopicFacts
from processor.serve.supervisor import _naming_the_instance
from processor.serve.topic_watch import LimitLowered, TopicWatch, _Seen

_FACTS = {"cleanup.policy": "delete", "max.message.bytes": "1000000"}


class Watched:
    """A watch whose broker gives one answer after the other, the last one for ever."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *known: bool | None) -> None:
        connection: Any = None
        telemetry: Any = self
        self.watch = TopicWatch(Settings(), connection, telemetry, lambda _: [])
        self._known = list(known)
        self.now = 0.0
        self.configs: dict[str, dict[str, str]] = {}
        monkeypatch.setattr(self.watch, "_ask", self.ask)
        monkeypatch.setattr(asyncio, "sleep", self.sleep)
        monkeypatch.setattr(time, "monotonic", lambda: self.now)

    def happened(self, _: object) -> None:
        """As telemetry."""

    async def sleep(self, seconds: float) -> None:
        self.now += seconds

    async def ask(self) -> _Seen:
        """True: all topics; False: all but one; None: no topic."""
        known = self._known.pop(0) if len(self._known) > 1 else self._known[0]
        names = sorted({self.watch._source, *self.watch._written})
        there = [] if known is None else names if known else names[1:]
        return _Seen({name: TopicFacts(name, 1, 1, _FACTS | self.configs.get(name, {})) for name in there}, {})

    async def begin(self) -> None:
        async def check() -> dict[str, int]:
            return {}

        await self.watch.begin(check)


async def test_a_limit_that_is_lowered_makes_new_writers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Either of the two settings that limit a batch."""
    for key in ("max.message.bytes", "segment.bytes"):
        watched = Watched(monkeypatch, True)
        await watched.begin()
        await watched.watch.look()
        watched.configs["run-steps.completed"] = {key: "500000"}
        with pytest.raises(LimitLowered, match=r"topic run-steps\.completed: .* was lowered") as caught:
            await watched.watch.look()
        assert _naming_the_instance(caught.value, "worker-1") is caught.value, "no other process has its name"
        assert watched.watch.limits["run-steps.completed"] == 500_000


async def test_a_broker_that_knows_no_topic_yet_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kafka 2.8.2 after kill -9: every topic is missing for seconds; that ended the workers with 78."""
    watched = Watched(monkeypatch, True, *[None] * 20, True)
    await watched.begin()
    await watched.watch.look()
    assert 19 <= watched.now <= 21


async def test_topics_that_stay_away_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch, True, None)
    await watched.begin()
    with pytest.raises(ConfigError, match="missing, though it was there"):
        await watched.watch.look()
    assert watched.now >= 60


async def test_one_that_is_missing_beside_others_is_missing_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch, True, False)
    await watched.begin()
    with pytest.raises(ConfigError, match="missing, though it was there"):
        await watched.watch.look()
    assert watched.now <= 2


async def test_the_dead_letter_topic_is_one_of_those_whose_records_are_as_old_as_the_source_s(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watched = Watched(monkeypatch, True)
    watched.configs = {"run-steps.dead-letter": {"retention.ms": "1000"}, "run-steps.failed": {"retention.ms": "2000"}}
    await watched.begin()
    assert watched.watch.shortest_retention() == ("run-steps.dead-letter", 1000)
