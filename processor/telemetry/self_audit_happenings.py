"""Happenings of the self-audit: one class per event, with its log line and its metrics."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from processor.telemetry.log import Log, described
from processor.telemetry.meter import Meter
from processor.telemetry.metrics import (
    AUDIT_MISMATCHES,
    AUDIT_SKIPPED,
    AUDIT_VERIFIED,
    AUDIT_VERIFIED_AGE,
    AUDIT_VERIFIED_OFFSET,
)


@dataclass(frozen=True, slots=True)
class StepVerified:
    """The self-audit found a published step right. `verified_offset`: after its newest verified source record."""

    partition: int
    verified_offset: int

    def emit(self, meter: Meter, log: Log) -> None:
        meter.count(AUDIT_VERIFIED)
        meter.set(AUDIT_VERIFIED_OFFSET, self.verified_offset, partition=self.partition)
        log.debug("step_verified", partition=self.partition, verified_offset=self.verified_offset)


@dataclass(frozen=True, slots=True)
class _Judged:
    """Log fields of a published step that was not verified.

    Offsets are of the source, the last one inclusive; `at` is where the published record stands. `fields` are paths.
    """

    step_id: str
    revision: str
    verdict: str
    why: str
    partition: int
    first_offset: int
    last_offset: int
    at: tuple[str, int, int]
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AuditMismatch(_Judged):
    """A published step is not what the log implies: a bug, or another program wrote it."""

    def emit(self, meter: Meter, log: Log) -> None:
        meter.count(AUDIT_MISMATCHES)
        log.error("audit_mismatch", **asdict(self), _never_held=True)


@dataclass(frozen=True, slots=True)
class AuditUndecided(_Judged):
    """A published step that cannot be judged: it depends on earlier records that are not known."""

    def emit(self, meter: Meter, log: Log) -> None:
        meter.count(AUDIT_SKIPPED, reason="undecidable")
        log.info("audit_undecided", **asdict(self))


@dataclass(frozen=True, slots=True)
class AuditSkipped:
    """A published step was to be checked and was not; `reason` is a value of that metric's label."""

    reason: str
    steps: int = 1

    def emit(self, meter: Meter, log: Log) -> None:
        meter.count(AUDIT_SKIPPED, self.steps, reason=self.reason)


@dataclass(frozen=True, slots=True)
class AuditStatus:
    """Time since a step of an owned partition was last verified, about once a second."""

    partition: int
    age_s: float

    def emit(self, meter: Meter, log: Log) -> None:
        meter.set(AUDIT_VERIFIED_AGE, self.age_s, partition=self.partition)


@dataclass(frozen=True, slots=True)
class SelfAuditTroubled:
    """A check of the self-audit failed; the next one waits. The worker goes on."""

    error: BaseException
    backoff_s: float

    def emit(self, meter: Meter, log: Log) -> None:
        meter.count(AUDIT_SKIPPED, reason="unreadable")
        log.warning("self_audit_troubled", backoff_s=round(self.backoff_s, 3), **described(self.error))
