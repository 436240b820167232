"""Features and settings of the brokers, against what the settings of a worker need."""

from __future__ import annotations

from collections.abc import Iterator

from processor.doctor.findings import Finding, Light
from processor.doctor.subject import Subject

AREA = "cluster"
_OFFSETS_RETENTION_MIN = "offsets.retention.minutes"
_KAFKA_4 = 2
"""transaction.version from which a late request of an ended transaction is refused."""


async def check_cluster(subject: Subject) -> list[Finding]:
    """Transactions, and the limits of the brokers for sessions, transactions and committed offsets."""
    features = await subject.inspector.features()
    told = ", ".join(f"{name} {level}" for name, level in sorted(features.items())) or "no features told"
    brokers = len(subject.cluster.brokers)
    findings = [
        Finding(AREA, Light.GREEN, f"cluster {subject.cluster.cluster_id}", f"{brokers} brokers; {told}"),
    ]
    delivery = subject.settings.delivery
    if delivery.mode == "exactly_once" and features.get("transaction.version", 0) < _KAFKA_4:
        findings.append(
            Finding(
                AREA,
                Light.YELLOW,
                "transaction.version",
                f"is {features.get('transaction.version', 0)}: late requests of ended transactions may be taken",
                "Kafka 4.0 or newer: kafka-features.sh upgrade --feature transaction.version=2 (docs/reliability.md)",
            )
        )
    if subject.broker_settings is None:
        findings.append(
            Finding(
                AREA,
                Light.YELLOW,
                "broker settings",
                "may not be read: offsets.retention.minutes and the limits of sessions are not checked",
                "grant DESCRIBE_CONFIGS on the cluster for this check, or ask those who run it",
            )
        )
        return findings
    limits = list(_limits(subject, subject.broker_settings))
    return findings + (
        limits or [Finding(AREA, Light.GREEN, "broker settings", "suit sessions, transactions, offsets")]
    )


def _limits(subject: Subject, brokers: dict[str, str]) -> Iterator[Finding]:
    source, delivery = subject.settings.source, subject.settings.delivery
    for name, mine, key, is_floor in (
        ("group.min.session.timeout.ms", source.session_timeout_ms, "source.session_timeout_ms", True),
        ("group.max.session.timeout.ms", source.session_timeout_ms, "source.session_timeout_ms", False),
        ("transaction.max.timeout.ms", delivery.transaction_timeout_ms, "delivery.transaction_timeout_ms", False),
    ):
        limit = _number(brokers, name)
        if limit is not None and (mine < limit if is_floor else mine > limit):
            yield Finding(AREA, Light.RED, name, f"is {limit}, and {key} is {mine}", f"set {key} to {limit}")
    retention_min = _number(brokers, _OFFSETS_RETENTION_MIN)
    if retention_min is not None and retention_min * 60 < subject.longest_stop_s:
        yield Finding(
            AREA,
            Light.RED,
            _OFFSETS_RETENTION_MIN,
            f"is {retention_min}: after {retention_min / 60:.0f} h without a worker the group's offsets are deleted",
            f"set it to more than {subject.longest_stop_s / 60:.0f}, the longest stop",
        )
    largest = _number(brokers, "offset.metadata.max.bytes")
    if largest is not None and largest < 4096:
        yield Finding(
            AREA, Light.YELLOW, "offset.metadata.max.bytes", f"is {largest}", "set it to 4096, Kafka's own default"
        )


def _number(settings: dict[str, str], name: str) -> int | None:
    text = settings.get(name, "")
    return int(text) if text.lstrip("-").isdigit() else None
