"""Input of the checks: settings, connection, and the description of the cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from processor.kafka.admin import TopicFacts
from processor.kafka.inspection import ClusterView, Inspector

if TYPE_CHECKING:
    from processor.config.settings import Settings
    from processor.kafka.client_config import Connection


@dataclass(slots=True)
class Subject:
    """The cluster that is examined.

    `facts`: the settings of the topics that could be read. `broker_settings`: None if they may not be read.
    `longest_stop_s`: how long all workers may be down at the longest, as the operator plans it.
    """

    settings: Settings
    connection: Connection
    inspector: Inspector
    cluster: ClusterView
    facts: dict[str, TopicFacts]
    broker_settings: dict[str, str] | None
    longest_stop_s: float

    @property
    def written(self) -> list[str]:
        """The topics that a worker writes to."""
        return sorted({*outcomes_of(self.settings), self.settings.output.dead_letter, self.settings.checkpoint_topic})

    @property
    def bootstrap(self) -> str:
        return self.connection.bootstrap_servers

    def leaders(self, topic: str) -> dict[int, int]:
        """Partition -> node, of the partitions that have a leader."""
        view = self.cluster.topics.get(topic)
        return {p.partition: p.leader for p in view.partitions if p.leader >= 0} if view is not None else {}


def outcomes_of(settings: Settings) -> set[str]:
    return {topic for topic in settings.outcome_topics.values() if topic}


def topics_of(settings: Settings) -> list[str]:
    """Every topic of a processor."""
    return sorted(
        {settings.source.topic, settings.output.dead_letter, settings.checkpoint_topic, *outcomes_of(settings)}
    )
