"""Publications: the records that a partition's steps and refused events become, with the headers that prove them."""

from __future__ import annotations

import hashlib
from typing import Any, Final, cast

from processor.core.effects import FOLD_VERSION, DeadLetter, LogRecord, Publish, Reason, Record, Rejected
from processor.core.entry import Cause
from processor.core.headers import (
    ANOMALIES,
    CLOCK_MARK,
    INFERRED,
    VERSION_BYTES,
    cloudevents_headers,
    dead_letter_headers,
)
from processor.core.rules import Rules
from processor.core.step_headers import SharedHeaders, StepHeaders
from processor.core.step_state import StepState
from processor.core.wire_types import canonical

_sha256: Final = hashlib.sha256


class Publication:
    """Makes the effects of one partition; keeps none of them."""

    __slots__ = (
        "_cloudevents_source",
        "_max_record_bytes",
        "_object_type",
        "_partition",
        "_rules",
        "_shared",
        "_topic",
    )

    def __init__(self, topic: str, partition: int, rules: Rules) -> None:
        self._object_type, self._max_record_bytes = rules.object_type, rules.max_record_bytes
        self._cloudevents_source = rules.cloudevents_source
        self._topic, self._partition = topic.encode(), str(partition).encode()
        self._rules = rules.digest().encode()
        self._shared = SharedHeaders(self._topic, self._partition, VERSION_BYTES, self._rules)

    def bytes_of(self, step: StepState) -> bytes:
        """The value that the step is published as."""
        return step.encoded(self._object_type)

    def of_step(self, step: StepState, cause: Cause, fold_version: int = FOLD_VERSION) -> Publish | DeadLetter:
        """The snapshot of an ended step; X3: a reference in its place if its topic would not take it.

        Args:
            fold_version: of the rules by which the step was folded; another than ours where a checkpoint brought it.
        """
        value = self.bytes_of(step)
        told = step.told_anomalies()
        anomalies = tuple(sorted(told)) if told else ()
        digest: str = _sha256(value).hexdigest()
        last = max(cause.offset, step.last_offset) if cause.mark is None else step.last_offset
        if len(value) > self._max_record_bytes:
            return self._too_large(step, cause, len(value), digest, last)
        revision = step.revision
        shared = self._shared if fold_version == FOLD_VERSION else self._older(fold_version)
        own = StepHeaders(shared, step.first_offset, last, step.events, revision, digest.encode())
        how, headers = None, cast(Any, own)
        if step.inference is not None or anomalies or step.trace or self._cloudevents_source:
            how, headers = self._further(own.pairs(), step, cause, anomalies, digest)
        return Publish(step.status, step.step_id, value, max(0, cause.timestamp), headers, revision, how, anomalies)

    def _further(
        self,
        first: tuple[tuple[str, bytes], ...],
        step: StepState,
        cause: Cause,
        anomalies: tuple[str, ...],
        digest: str,
    ) -> tuple[str | None, tuple[tuple[str, bytes], ...]]:
        """Complete the headers of a step; returns how its end was inferred, if it was, and all of them."""
        headers, how = list(first), None
        if step.inference is not None:
            how = step.inference.how
            headers.append((INFERRED, how.encode()))
            if cause.mark is not None:
                headers.append((CLOCK_MARK, cause.mark.encode()))
        if anomalies:
            headers.append((ANOMALIES, ",".join(anomalies).encode()))
        headers.extend(step.trace)
        if self._cloudevents_source:
            headers.extend(
                cloudevents_headers(
                    self._cloudevents_source,
                    step.status.value,
                    step.step_id,
                    self._partition.decode(),
                    step.first_offset,
                    step.revision,
                    digest,
                )
            )
        return how, tuple(headers)

    def _older(self, fold_version: int) -> SharedHeaders:
        return SharedHeaders(self._topic, self._partition, b"%d" % fold_version, self._rules)

    def _too_large(self, step: StepState, cause: Cause, size: int, digest: str, last: int) -> DeadLetter:
        reference = canonical(
            {
                "id": step.step_id,
                "run_id": step.fields.get("run_id"),
                "thread_id": step.fields.get("thread_id"),
                "status": step.status.value,
                "revision": step.revision,
                "first_offset": step.first_offset,
                "last_offset": last,
                "digest": digest,
                "size": size,
            }
        )
        source = LogRecord(last, cause.timestamp, step.step_id.encode(), reference)
        detail = f"{size} bytes, the limit is {self._max_record_bytes}"
        return self.of_reference(source, Reason.SNAPSHOT_TOO_LARGE, detail, cause.mark)

    def of_reference(self, source: LogRecord, reason: Reason, detail: str, mark: str | None) -> DeadLetter:
        """A dead letter that refers to a step, `source`, in place of a record."""
        headers = dead_letter_headers(self._topic, self._partition, source, reason, detail)
        if mark is not None:
            headers = (*headers, (CLOCK_MARK, mark.encode()))
        return DeadLetter(reason, detail, source.key, source.value, source.timestamp, headers, source.offset)

    def of_rejected(self, record: Record, why: Rejected, number: str) -> DeadLetter:
        """A record that is set aside; `number` says which of its events is (`2/3`), "" where it has one only."""
        detail = why.detail
        if number:
            which, _, total = number.partition("/")
            detail = f"{detail} (event {which} of {total})"
        headers = dead_letter_headers(self._topic, self._partition, record, why.reason, detail, number)
        return DeadLetter(why.reason, detail, record.key, record.value, record.timestamp, headers, record.offset)
