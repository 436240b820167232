"""Examination of a live cluster: run every check, whether or not others fail."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from processor.doctor import cluster, group, permissions, reachability, samples, topics
from processor.doctor.findings import Finding, Light
from processor.doctor.subject import Subject, topics_of
from processor.errors import BrokerRefused, RunStepsError
from processor.kafka.admin import TopicFacts
from processor.kafka.inspection import Inspector

if TYPE_CHECKING:
    from processor.config.settings import Settings
    from processor.kafka.client_config import Connection

Check = Callable[[Subject], Awaitable[list[Finding]]]

_CHECKS: Final[tuple[tuple[str, Check], ...]] = (
    (cluster.AREA, cluster.check_cluster),
    (permissions.AREA, permissions.check_permissions),
    (topics.AREA, topics.check_topics),
    (group.AREA, group.check_group),
    (group.TRANSACTIONS, group.check_transactions),
    (samples.KEYING, samples.check_source),
    (samples.WORKERS, samples.check_workers),
)


async def examine(settings: Settings, connection: Connection, *, longest_stop_s: float) -> list[Finding]:
    """All findings, in the order of the checks. Nothing is changed, no group is joined, no topic created.

    Args:
        longest_stop_s: how long all workers may be down at the longest, as the operator plans it.
    """
    findings = await reachability.check_addresses(
        connection, reachability.bootstrap_addresses(connection), "bootstrap server"
    )
    if all(finding.light is Light.RED for finding in findings):
        return findings
    try:
        async with Inspector(connection) as inspector:
            view = await inspector.cluster(topics_of(settings))
            findings += await reachability.check_advertised(connection, view.brokers)
            subject = Subject(
                settings,
                connection,
                inspector,
                view,
                await _facts(inspector, [name for name, topic in view.topics.items() if topic.exists]),
                await inspector.broker_settings(view.brokers[0].node) if view.brokers else None,
                longest_stop_s,
            )
            for area, check in _CHECKS:
                findings += await _guarded(area, check, subject)
    except RunStepsError as error:
        findings.append(Finding(cluster.AREA, Light.RED, "cluster", error.message, error.hint))
    return findings


async def _guarded(area: str, check: Check, subject: Subject) -> list[Finding]:
    try:
        return await check(subject)
    except BrokerRefused as error:
        return [Finding(area, Light.YELLOW, area, f"not checked: {error.message}", error.hint)]
    except RunStepsError as error:
        return [Finding(area, Light.RED, area, error.message, error.hint)]


async def _facts(inspector: Inspector, names: list[str]) -> dict[str, TopicFacts]:
    """The settings of those topics that may be read; the check of the permissions names the others."""
    found: dict[str, TopicFacts] = {}
    for name in names:
        try:
            found |= await inspector.topics([name])
        except BrokerRefused:
            continue
    return found
