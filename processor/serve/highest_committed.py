"""The highest committed offsets that this process has seen: a committed offset never goes back."""

from __future__ import annotations

from collections.abc import Mapping

from processor.errors import CorruptLog
from processor.kafka.consumer import Committed


class HighestCommitted:
    """The highest committed offset of each source partition, over all workers that this process has had.

    An answer that is lower, or that knows of no offset, is a fault of the group's offsets and not a position to start
    from: all between the two would be published twice.
    """

    def __init__(self) -> None:
        self._offsets: dict[int, int] = {}

    def saw(self, offsets: Mapping[int, Committed]) -> None:
        """Remember offsets that are committed."""
        for partition, (offset, _) in offsets.items():
            if offset > self._offsets.get(partition, -1):
                self._offsets[partition] = offset

    def require(self, offsets: Mapping[int, Committed], topic: str, group_id: str) -> None:
        """Check offsets that the group answers, and remember them.

        Raises:
            CorruptLog: one is lower than before, or gone.
        """
        for partition, (offset, _) in sorted(offsets.items()):
            highest = self._offsets.get(partition, -1)
            if offset < highest:
                got = f"at {offset}" if offset >= 0 else "gone"
                raise CorruptLog(
                    f"group {group_id}: topic {topic}: partition {partition}: the committed offset went back "
                    f"(got {got}, was {highest})",
                    hint="what lies between is published already: stop all workers of the group, then "
                    f"`run-steps reset --partition {partition} --to {highest}`",
                )
        self.saw(offsets)
