"""Read partitions of the output topics for `explain`, and note what of them is gone, held back, or the broker's."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection
from typing import Final

import msgspec

from processor.audit.judge.published_headers import caused_at
from processor.audit.judge.verdicts import NEVER, Published
from processor.audit.published_index import of_source
from processor.core.effects import Record
from processor.kafka.client_config import Connection
from processor.kafka.fetch import Hidden
from processor.kafka.partition_reader import PartitionReader

_CLIENT_ID: Final = "run-steps.explain"
_WAIT_S: Final = 20.0

OutputPartition = tuple[str, int]


class Unread(msgspec.Struct, frozen=True):
    """Parts of the output that cannot be read, for the judge; the names are those of a `Task`.

    Attributes:
        kept_from: (topic, partition) whose first records are gone -> the first cause that a record there names.
    """

    kept_from: dict[OutputPartition, int] = {}
    held: tuple[OutputPartition, ...] = ()
    holes: tuple[OutputPartition, ...] = ()
    broker_times: tuple[tuple[str, int, int], ...] = ()


class OutputReading:
    """Reads output topics from where they begin to where they are stable.

    Args:
        source: the topic whose records caused what is read.
    """

    def __init__(self, connect: Callable[[], Connection], source: str, dead_letter: str) -> None:
        self._connect, self._source, self._dead_letter = connect, source, dead_letter
        self._firsts: dict[OutputPartition, dict[int, int]] = {}
        """Of partitions whose first records are gone: source partition -> the first cause that is named."""
        self._held: set[OutputPartition] = set()
        self._holes: set[OutputPartition] = set()
        self._broker_times: dict[OutputPartition, int] = {}
        self.counts: dict[str, int] = {}
        """Partitions of the topics that were read."""

    async def read(
        self, topic: str, choose: Callable[[int], Collection[int]], source_partitions: int
    ) -> AsyncIterator[tuple[int, list[Record]]]:
        """The records of a topic, by partition.

        Args:
            choose: from the number of its partitions to those that are read.
        """
        async with PartitionReader(self._connect(), topic=topic, client_id=_CLIENT_ID) as reader:
            count = self.counts[topic] = reader.partitions_of_topic()
            own = list(choose(count))
            high = await reader.end_offsets(own)
            begins, ends = await reader.begin_offsets(own), await reader.stable_end_offsets(own)
            self._held.update((topic, p) for p in own if ends[p] < high[p])
            for p in own:
                if begins[p] > 0:
                    self._firsts.setdefault((topic, p), {})
            lacking = Counter({p: max(0, ends[p] - begins[p]) for p in own})

            def explained(partition: int, hidden: list[Hidden]) -> None:
                spans = ((max(span.first, begins[partition]), min(span.last, ends[partition] - 1)) for span in hidden)
                lacking[partition] -= sum(max(0, last - first + 1) for first, last in spans)

            reader.observe(explained)
            async for p, records in reader.read_to(begins, ends, _WAIT_S):
                lacking[p] -= len(records)
                if begins[p] > 0:
                    self._note_first(topic, p, records, source_partitions)
                yield p, records
            self._holes.update((topic, p) for p, n in lacking.items() if n > 0)
            for p, offset in reader.broker_times().items():
                self._broker_times.setdefault((topic, p), offset)

    def _note_first(self, topic: str, partition: int, records: list[Record], source_partitions: int) -> None:
        firsts = self._firsts[topic, partition]
        is_dead = topic == self._dead_letter
        for record in records:
            if len(firsts) >= source_partitions:
                return
            one = of_source(self._source, source_partitions, topic, partition, record, dead_letters=is_dead)
            if isinstance(one, Published) and (cause := caused_at(one)) is not None:
                firsts.setdefault(one.source_partition, cause)

    def lacks(self, topic: str) -> bool:
        """Whether a record that was published to the topic may not have been read."""
        places = (*self._firsts, *self._held, *self._holes)
        return any(name == topic for name, _ in places)

    def unread(self, source_partition: int) -> Unread:
        """The unread parts that are known by now, for the judge of a partition of the source."""
        return Unread(
            {place: firsts.get(source_partition, NEVER) for place, firsts in self._firsts.items()},
            tuple(sorted(self._held)),
            tuple(sorted(self._holes)),
            tuple((*place, offset) for place, offset in sorted(self._broker_times.items())),
        )
