"""Watch of the topics while a worker runs: recreated, deleted, grown, or with changed settings.

A task beside the worker describes the topics every few seconds. A change that a start would refuse ends the process
with the message of that refusal; any other is logged with old value, new value and consequence, counted, and named on
`/healthz` for as long as it lasts. Before the process ends the topics are described again: a broker that has just come
up may not know them yet.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, NamedTuple

from processor.config.settings import Settings
from processor.errors import ConfigError, CorruptLog, Fenced, RunStepsError
from processor.kafka.admin import Admin, TopicFacts, retention_ms
from processor.kafka.client_config import Connection
from processor.telemetry.kafka_happenings import PartitionsNotServed, TopicChanged, TopicWarned
from processor.telemetry.telemetry import Telemetry

_AGAIN_S: Final = 1.0
_NOTHING_KNOWN_S: Final = 60.0
"""A ZooKeeper-based broker that has just started answers that no topic exists, until its controller has written to it;
seen for some seconds with 2.8.2."""

WATCHED: Final = (
    "cleanup.policy",
    "max.message.bytes",
    "message.timestamp.after.max.ms",
    "message.timestamp.before.max.ms",
    "message.timestamp.difference.max.ms",
    "message.timestamp.type",
    "min.insync.replicas",
    "retention.bytes",
    "retention.ms",
    "segment.bytes",
)
"""The topic settings whose change is logged."""

_FOLLOWS: Final[Mapping[tuple[str, str], str]] = {
    ("source", "cleanup.policy"): "what is deleted before it is applied is lost, and no replay can show it",
    ("source", "retention.ms"): "a stop, or a restore, that reaches further back than this ends with 65",
    ("source", "retention.bytes"): "a stop, or a restore, that reaches further back than this ends with 65",
    ("source", "max.message.bytes"): "larger records can come in; the dead-letter topic must take any of them",
    ("source", "message.timestamp.type"): "deadlines follow the new kind of timestamp from here on",
    ("written", "max.message.bytes"): "in force for what is written from now on",
    ("written", "segment.bytes"): "no batch that is larger is taken from now on",
    ("written", "message.timestamp.after.max.ms"): "records with timestamps beyond it are refused by the broker",
    ("written", "message.timestamp.before.max.ms"): "records with timestamps beyond it are refused by the broker",
    ("written", "message.timestamp.difference.max.ms"): "records with timestamps beyond it are refused by the broker",
    ("written", "min.insync.replicas"): "commits wait until so many replicas are in sync",
    ("written", "retention.ms"): "what is deleted there cannot be audited any more",
    ("written", "retention.bytes"): "what is deleted there cannot be audited any more",
    ("written", "partitions"): "later revisions of a step may stand on another partition than its first",
    ("source", "partitions"): "a run's key may go to another partition now: runs under way at that moment are split",
    ("checkpoints", "partitions"): "as many partitions of the source can be served",
    ("written", "id"): "the topic was made anew: what had been published there is gone",
}


class LimitLowered(Fenced):
    """A topic takes smaller batches than before, and a writer's batches are made for what it knew at its start."""


class _Seen(NamedTuple):
    topics: Mapping[str, TopicFacts]
    ids: Mapping[str, str]


class TopicWatch:
    """State of the topics, over all worker incarnations of this process.

    Args:
        judge: what start would refuse about topics as they are, one line each.
        advise: what start warns of, one line each.
    """

    def __init__(
        self,
        settings: Settings,
        connection: Connection,
        telemetry: Telemetry,
        judge: Callable[[Mapping[str, TopicFacts]], list[str]],
        advise: Callable[[Mapping[str, TopicFacts]], list[str]] = lambda _: [],
    ) -> None:
        outcomes = {topic for topic in settings.outcome_topics.values() if topic}
        self._source, self._checkpoints = settings.source.topic, settings.checkpoint_topic
        self._written = {*outcomes, settings.output.dead_letter, self._checkpoints}
        self._connection, self._telemetry, self._judge, self._advise = connection, telemetry, judge, advise
        self._results = {*outcomes, settings.output.dead_letter}
        self._seen: _Seen | None = None
        self._complaints: dict[tuple[str, str], str] = {}
        self.limits: dict[str, int] = {}
        """Largest batch of the topics that we write to, as it is now: writers hold this very mapping."""

    async def begin(self, check: Callable[[], Awaitable[dict[str, int]]]) -> dict[str, int]:
        """Check the topics before an incarnation: the first time with `check`, which may create them, later by a look.

        Later incarnations create nothing: a topic that has been there and is missing was deleted, with what it held.

        Raises:
            ConfigError, CorruptLog, BrokerRefused, BrokerUnavailable
        """
        if self._seen is None:
            limits = await check()
            seen = await self._ask()
            if seen.topics.keys() >= {self._source, *self._written}:
                self._seen = seen
                self._note_growth(seen)
                for line in self._advise(seen.topics):
                    self._telemetry.happened(TopicWarned(line))
            self.limits.update(limits)
        else:
            with contextlib.suppress(LimitLowered):  # the next incarnation starts with the current value
                await self.look()
        return self.limits

    async def look(self) -> None:
        """Compare the topics with their last state, and report changes.

        Raises:
            ConfigError: as they are now a worker would not start.
            CorruptLog: the source or the checkpoint topic is not the one that this worker began with.
            LimitLowered: a topic takes less than before.
            BrokerRefused, BrokerUnavailable
        """
        seen = await self._ask()
        before = self._seen
        if before is None:
            return
        began = time.monotonic()
        while (trouble := self._trouble(before, seen)) is not None:
            waited_s = time.monotonic() - began
            if waited_s >= (_AGAIN_S if seen.topics else _NOTHING_KNOWN_S):
                raise trouble
            await asyncio.sleep(_AGAIN_S)
            seen = await self._ask()
        for name in sorted(seen.topics):
            self._compare(name, before, seen)
        self._note_growth(seen)
        self._seen = seen
        limits = {name: seen.topics[name].max_batch_bytes for name in self._written}
        lowered = sorted(name for name in limits if limits[name] < self.limits.get(name, 0))
        self.limits.update(limits)
        if lowered:
            raise LimitLowered(
                f"topic {', '.join(lowered)}: max.message.bytes or segment.bytes was lowered",
                hint="a restart makes smaller batches",
            )

    def served_below(self) -> int | None:
        """Partitions of the source from this number on are not served: the checkpoint topic has none for them."""
        if self._seen is None:
            return None
        return self._seen.topics[self._checkpoints].partitions

    def shortest_retention(self) -> tuple[str, int] | None:
        """The topic of results that keeps records for the shortest time, and for how long (ms); None: all for ever."""
        if self._seen is None:
            return None
        kept = [(name, retention_ms(self._seen.topics[name])) for name in sorted(self._results)]
        finite = [(name, ms) for name, ms in kept if ms is not None]
        return min(finite, key=lambda found: found[1]) if finite else None

    def reasons(self) -> list[str]:
        """Conditions that an operator must fix, one sentence each; a restart would not fix them."""
        return list(self._complaints.values())

    async def _ask(self) -> _Seen:
        async with Admin(self._connection) as admin:
            topics = await admin.topics([self._source, *self._written])
            ids = (await admin.cluster_topics(topics)).ids if topics else {}
        return _Seen(topics, ids)

    def _trouble(self, before: _Seen, seen: _Seen) -> RunStepsError | None:
        missing = sorted(before.topics.keys() - seen.topics.keys())
        if missing:
            lines = [f"topic {name}: missing, though it was there: deleted while the worker ran" for name in missing]
            return ConfigError(
                "\n".join(lines),
                hint="one made anew under that name is another topic: docs/operations.md, 'Topics while a worker runs'",
            )
        for name in (self._source, self._checkpoints):
            old, new = before.ids.get(name, ""), seen.ids.get(name, "")
            if old and new and old != new:
                return CorruptLog(
                    f"topic {name}: made anew while the worker ran (its id was {old}, got {new})",
                    hint="offsets, open steps and checkpoints are of the old topic; to begin with the new one: "
                    "docs/operations.md, 'Topics while a worker runs'",
                )
        problems = self._judge(self._as_served(seen.topics))
        if problems:
            hint = "nothing is lost: correct it, and start again"
            if "compact" in seen.topics[self._source].cleanup:
                hint = (
                    "what the broker removes of the source until it is corrected is gone, applied or not: correct it, "
                    "see with `run-steps replay --to end` whether offsets are compacted away, and start again"
                )
            return ConfigError("\n".join(problems), hint=f"changed while the worker ran; {hint}")
        return None

    def _as_served(self, topics: Mapping[str, TopicFacts]) -> Mapping[str, TopicFacts]:
        """The topics, the source with no more partitions than are served."""
        source, kept = topics[self._source], topics[self._checkpoints]
        if source.partitions <= kept.partitions:
            return topics
        return {**topics, self._source: source._replace(partitions=kept.partitions)}

    def _compare(self, name: str, before: _Seen, seen: _Seen) -> None:
        old, new = before.topics[name], seen.topics[name]
        role = "source" if name == self._source else "checkpoints" if name == self._checkpoints else "written"
        changes = [(key, old.configs.get(key, ""), new.configs.get(key, "")) for key in WATCHED]
        changes.append(("partitions", str(old.partitions), str(new.partitions)))
        changes.append(("id", before.ids.get(name, ""), seen.ids.get(name, "")))
        for setting, was, now in changes:
            if was == now or not (was and now):
                continue
            follows = _FOLLOWS.get((role, setting)) or _FOLLOWS.get(("written", setting), "")
            self._telemetry.happened(TopicChanged(name, role, setting, was, now, follows))
            if setting in ("partitions", "id") and role != "checkpoints":
                self._complaints[name, setting] = f"topic {name}: {setting} changed from {was} to {now}: {follows}"

    def _note_growth(self, seen: _Seen) -> None:
        source, kept = seen.topics[self._source], seen.topics[self._checkpoints]
        waiting = range(kept.partitions, source.partitions)
        key = (self._source, "unserved")
        if not waiting:
            if self._complaints.pop(key, None):
                self._telemetry.happened(PartitionsNotServed((), ""))
            return
        remedy = f"kafka-topics.sh --alter --topic {self._checkpoints} --partitions {source.partitions}"
        self._complaints[key] = (
            f"topic {self._source}: partitions {list(waiting)} are not served, for topic {self._checkpoints} has "
            f"{kept.partitions}: {remedy}"
        )
        self._telemetry.happened(PartitionsNotServed(tuple(waiting), remedy))
