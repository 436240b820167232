"""Topics: faults that a worker refuses at start, and settings that will lose records later."""

from __future__ import annotations

from collections.abc import Iterator

from processor.doctor.findings import Finding, Light
from processor.doctor.subject import Subject, topics_of
from processor.kafka.admin import TopicFacts
from processor.serve.topics import topic_problems, topic_warnings

AREA = "topics"
_FOR_EVER = -1


async def check_topics(subject: Subject) -> list[Finding]:
    """The checks of a worker's start, each topic's replicas, and retention against what has to be read again."""
    findings = [*_start_checks(subject), *_start_warnings(subject), *_replicas(subject), *_retention(subject)]
    for name in topics_of(subject.settings):
        if name in subject.facts and not any(finding.subject == f"topic {name}" for finding in findings):
            facts = subject.facts[name]
            told = (
                f"{facts.partitions} partitions, {facts.replicas} replicas, cleanup {','.join(sorted(facts.cleanup))}"
            )
            findings.append(Finding(AREA, Light.GREEN, f"topic {name}", told))
    return findings


def _start_checks(subject: Subject) -> Iterator[Finding]:
    """Faults for which `serve` ends with 78, with its messages."""
    for problem in topic_problems(subject.settings, subject.facts):
        name, _, rest = problem.removeprefix("topic ").partition(": ")
        what, _, remedy = rest.partition("; ")
        view = subject.cluster.topics.get(name)
        if name not in subject.facts and view is not None and (view.exists or view.is_forbidden):
            yield Finding(
                AREA,
                Light.YELLOW,
                f"topic {name}",
                "may not be looked at: its settings are not checked",
                "grant DESCRIBE_CONFIGS on it (see permissions)",
            )
        else:
            yield Finding(AREA, Light.RED, f"topic {name}", what, remedy)


def _start_warnings(subject: Subject) -> Iterator[Finding]:
    """Faults that `serve` only warns of."""
    for warning in topic_warnings(subject.settings, subject.facts):
        name, _, rest = warning.partition(": ")
        what, _, remedy = rest.partition("; ")
        yield Finding(AREA, Light.YELLOW, name, what, remedy)


def _replicas(subject: Subject) -> Iterator[Finding]:
    brokers = len(subject.cluster.brokers)
    for name, facts in sorted(subject.facts.items()):
        subject_name = f"topic {name}"
        partitions = subject.cluster.topics[name].partitions
        dark = [str(p.partition) for p in partitions if p.leader < 0]
        in_sync = int(facts.configs.get("min.insync.replicas", "1"))
        if dark:
            yield Finding(
                AREA,
                Light.RED,
                subject_name,
                f"partitions without a leader: {', '.join(dark[:10])}",
                "bring their brokers back: kafka-topics.sh --describe --unavailable-partitions",
            )
        behind = [str(p.partition) for p in partitions if p.leader >= 0 and p.in_sync < min(in_sync, p.replicas)]
        if behind:
            yield Finding(
                AREA,
                Light.RED,
                subject_name,
                f"fewer replicas in sync than min.insync.replicas ({in_sync}): partitions {', '.join(behind[:10])}",
                "bring the other replicas back: kafka-topics.sh --describe --under-min-isr-partitions",
            )
        if brokers >= 3 and (facts.replicas < 2 or in_sync < 2):
            yield Finding(
                AREA,
                Light.YELLOW,
                subject_name,
                f"{facts.replicas} replicas, min.insync.replicas {in_sync}: a lost broker can take written records",
                "three replicas and min.insync.replicas=2",
            )


def _retention(subject: Subject) -> Iterator[Finding]:
    settings = subject.settings
    steps = settings.steps
    source = subject.facts.get(settings.source.topic)
    if source is not None and "delete" in source.cleanup:
        name = f"topic {source.name}"
        kept_ms = _retention_ms(source)
        span_s = steps.max_age_s + steps.grace_s + steps.ended_retention_s
        if kept_ms != _FOR_EVER and kept_ms < subject.longest_stop_s * 1000:
            yield Finding(
                AREA,
                Light.RED,
                name,
                f"retention.ms is {kept_ms} ({kept_ms / 3.6e6:.1f} h), shorter than the longest stop "
                f"({subject.longest_stop_s / 3600:.1f} h): what is deleted before it was applied is lost",
                f"set retention.ms above {subject.longest_stop_s * 1000:.0f}",
            )
        elif kept_ms != _FOR_EVER and kept_ms < span_s * 1000:
            yield Finding(
                AREA,
                Light.YELLOW,
                name,
                f"retention.ms is {kept_ms}, shorter than a step may be open (steps.max_age_s {steps.max_age_s}, the "
                "grace): a rebuild or an audit does not find its begin",
                f"set retention.ms above {span_s * 1000}, or lower steps.max_age_s",
            )
        if int(source.configs.get("retention.bytes", "-1")) >= 0:
            yield Finding(
                AREA,
                Light.YELLOW,
                name,
                f"retention.bytes is {source.configs['retention.bytes']}: it may delete earlier than retention.ms",
                "set retention.bytes=-1, or size it for the longest stop at the highest rate",
            )
    yield from _dead_letters(subject)


def _dead_letters(subject: Subject) -> Iterator[Finding]:
    letters = subject.facts.get(subject.settings.output.dead_letter)
    offsets_min = (subject.broker_settings or {}).get("offsets.retention.minutes", "")
    if letters is None or not offsets_min.isdigit():
        return
    kept_ms, offsets_ms = _retention_ms(letters), int(offsets_min) * 60_000
    if kept_ms == _FOR_EVER or kept_ms > offsets_ms:
        yield Finding(
            AREA,
            Light.YELLOW,
            f"topic {letters.name}",
            f"is kept longer (retention.ms {kept_ms}) than the offsets of a group without members "
            f"(offsets.retention.minutes {offsets_min}): a late redrive does not know what was redriven",
            f"set retention.ms to {offsets_ms} at most, or raise offsets.retention.minutes",
        )


def _retention_ms(facts: TopicFacts) -> int:
    return int(facts.configs.get("retention.ms", str(_FOR_EVER)))
