"""Circuit breaker: stops the worker when most input is unusable, as with a wrong topic or a broken producer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from processor.core.effects import DeadLetter, Effect, Reason, Record
from processor.errors import TooManyRejections

_NOT_THE_INPUT: Final = frozenset({Reason.SNAPSHOT_TOO_LARGE})


class Tripped(TooManyRejections):
    """Too many records were rejected: a share of a window, or a run of them. `offsets`: of the newest ones.

    `reason`: the most frequent one of the batch that was the last.
    """

    def __init__(
        self,
        message: str,
        *,
        hint: str,
        rejected: int,
        of_records: int,
        run_length: int,
        topic: str = "",
        partition: int = -1,
        offsets: tuple[int, int] = (-1, -1),
        reason: str = "",
    ) -> None:
        super().__init__(message, hint=hint)
        self.rejected, self.of_records, self.run_length = rejected, of_records, run_length
        self.topic, self.partition, self.offsets, self.reason = topic, partition, offsets, reason


class Breaker:
    """Counts rejections over a window of records and in a row; per worker, over all its partitions.

    Args:
        topic: the source, for messages.
        max_share: of `window_records`; 0 switches this off, as `window_records` = 0 does.
        max_run: rejections in a row on one partition; 0 switches this off.
    """

    def __init__(self, topic: str, max_share: float, window_records: int, max_run: int) -> None:
        self._topic = topic
        self._max_share, self._window, self._max_run = max_share, window_records, max_run
        self._records = self._rejected = 0
        self._runs: dict[int, int] = {}

    def saw(self, partition: int, records: Sequence[Record], effects: Sequence[Effect]) -> None:
        """Count the rejections of a batch.

        Raises:
            TooManyRejections: nothing of this batch was committed; a restart begins at the same place.
        """
        letters = [e for e in effects if isinstance(e, DeadLetter) and e.reason not in _NOT_THE_INPUT]
        refused = {letter.offset for letter in letters}
        if not refused:
            self._runs.pop(partition, None)
        else:
            self._count_run(partition, records, letters, refused)
        self._records += len(records)
        self._rejected += len(refused)
        if self._max_share and self._window and self._records >= self._window:
            share, rejected, seen = self._rejected / self._records, self._rejected, self._records
            self._records = self._rejected = 0
            if share > self._max_share:
                raise self._trip(partition, letters, f"{rejected} of {seen} records were rejected", rejected, seen, 0)

    def _count_run(
        self, partition: int, records: Sequence[Record], letters: Sequence[DeadLetter], refused: set[int]
    ) -> None:
        run = self._runs.get(partition, 0)
        if (not self._max_run or run + len(refused) < self._max_run) and records[-1].offset not in refused:
            self._runs[partition] = 0  # whatever the order of the others; records are dear to look at once more
            return
        for record in records:
            run = run + 1 if record.offset in refused else 0
            if self._max_run and run >= self._max_run:
                upto = [letter for letter in letters if record.offset - run < letter.offset <= record.offset]
                raise self._trip(partition, upto, f"{run} records in a row were rejected", run, run, run)
        self._runs[partition] = run

    def _trip(
        self,
        partition: int,
        letters: Sequence[DeadLetter],
        what: str,
        rejected: int,
        of_records: int,
        run_length: int,
    ) -> Tripped:
        """Describe the rejections that tripped the breaker.

        Args:
            letters: those of the last batch; a batch without any may complete a window, too.
        """
        where = f"topic {self._topic}: partition {partition}"
        first, last, reason, newest = -1, -1, "", ""
        if letters:
            first, last = letters[0].offset, letters[-1].offset
            reason = Counter(letter.reason.value for letter in letters).most_common(1)[0][0]
            detail = next(letter.detail for letter in letters if letter.reason == reason)
            newest = f", the newest at offsets {first} to {last}, most of them {reason} ({detail})"
        return Tripped(
            f"{where}: {what}{newest}; the last of them are not committed",
            hint=f"look at a record there (kafka-console-consumer.sh --topic {self._topic} --partition {partition} "
            f"--offset {max(0, last)} --max-messages 1): a wrong topic, or a producer that changed; what was committed "
            "before is in the dead letters (`run-steps dead-letters stats`); [rejections] sets the limits",
            rejected=rejected,
            of_records=of_records,
            run_length=run_length,
            topic=self._topic,
            partition=partition,
            offsets=(first, last),
            reason=reason,
        )
