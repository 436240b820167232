"""Judge one published record against a fold of its range."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from processor.audit.expected_records import ExpectedRecords
from processor.audit.judge.partition_audit import PartitionAudit
from processor.audit.judge.prefix_unknown_state import UnknownPrefix, prefix_unknown_state
from processor.audit.judge.published_headers import began_at
from processor.audit.judge.verdicts import ExpectedRecord, Finding, Published, Verdict
from processor.audit.memory_index import MemoryIndex
from processor.audit.selfaudit.partition_history import KnownRange
from processor.core.effects import Effect, Publish, Record
from processor.core.headers import ANOMALIES
from processor.core.rules import Rules
from processor.kafka.output_records import Outputs

_SLICE_RECORDS: Final = 400
_SLICE_BYTES: Final = 128 << 10


class Recheck:
    """One published step against one range of the source."""

    def __init__(
        self,
        published: Published,
        known_range: KnownRange,
        topic: str,
        rules: Rules,
        outputs: Outputs,
        *,
        has_broker_time: bool = False,
    ) -> None:
        self._step_id = published.identity[0]
        self._decisive = known_range.decisive
        anomalies = dict(published.headers).get(ANOMALIES) or b""
        self._may_be_older = b"joined_midstream" in anomalies.split(b",") and not known_range.is_blank
        # Topics may get more partitions meanwhile: where a record had to go then is not known.
        places = ExpectedRecords(outputs, published.source_partition, {})
        self._findings: list[Finding] = []
        self._prefix = UnknownPrefix(
            rules,
            stream_time=known_range.stream_time,
            is_blank=known_range.is_blank,
            step_id=self._step_id,
            first_offset=began_at(published) or 0,
        )
        state = self._state = prefix_unknown_state(
            topic,
            published.source_partition,
            rules,
            begin=known_range.begin,
            stream_time=known_range.stream_time,
            prefix=self._prefix,
        )
        step_id = self._step_id
        # Neither function refers to `self`: a fold in a cycle of references stays until the garbage collector, which
        # counts objects and not their bytes, comes to it.
        self._audit = PartitionAudit(
            lambda offset, stream_time: state,
            MemoryIndex([published], known_range.marks),
            lambda effect: _place(effect, step_id, places),
            begin=known_range.begin,
            end=known_range.end,
            complete=True,  # the state says what is uncertain
            broker_times={(published.topic, published.partition): published.offset} if has_broker_time else None,
        )

    def take(self, records: Sequence[Record]) -> None:
        """The next records of the range, in offset order."""
        self._findings += [finding for _, finding in self._audit.apply(records) if finding.at is not None]
        self._state.counts.clear()

    def judged(self) -> Finding:
        """The verdict on the record, after the whole range was folded. Undecided is `UNVERIFIABLE`."""
        self._findings += [finding for _, finding in self._audit.finish() if finding.at is not None]
        (finding,) = self._findings
        if finding.verdict is Verdict.EQUAL:
            uncertainty = "it joined midstream: it may have begun before" if self._may_be_older else ""
        else:
            uncertainty = self._prefix.uncertainty if self._decisive else "records before its range may matter"
        if uncertainty and finding.verdict is not Verdict.UNVERIFIABLE:
            finding = msgspec.structs.replace(finding, verdict=Verdict.UNVERIFIABLE, why=uncertainty)
        return finding


def _place(effect: Effect, step_id: str, places: ExpectedRecords) -> ExpectedRecord | None:
    """The record that the effect had to become, if it publishes the step."""
    if isinstance(effect, Publish) and effect.step_id == step_id:
        return places.whole(effect)
    return None


def slices(records: Sequence[Record]) -> Iterator[Sequence[Record]]:
    """Cut the records into parts that are folded without a pause."""
    begin = size = 0
    for at, record in enumerate(records):
        size += len(record.value or b"")
        if at - begin + 1 >= _SLICE_RECORDS or size >= _SLICE_BYTES:
            yield records[begin : at + 1]
            begin, size = at + 1, 0
    if begin < len(records):
        yield records[begin:]
