"""Tasks of a replay, and what its report says of it, from the surveys of source and output."""

from __future__ import annotations

import time
from pathlib import Path

from processor.audit.judge.settled import CLOCK_SKEW_S
from processor.audit.judge.split import Split
from processor.audit.replay.index_output import summed
from processor.audit.replay.options import Options
from processor.audit.replay.outcome import program
from processor.audit.replay.output_survey import OutputSurvey
from processor.audit.replay.source_survey import SourceSurvey
from processor.audit.replay.task import Task
from processor.audit.report.manifest import About
from processor.config.settings import Settings
from processor.core.effects import FOLD_VERSION


def make_tasks(
    options: Options, settings: Settings, source: SourceSurvey, output: OutputSurvey, work: Path
) -> list[Task]:
    """One task per partition of the source."""
    latest_mark_ms = round((time.time() + CLOCK_SKEW_S) * 1000)
    return [
        Task(
            topic=source.topic,
            partition=partition,
            begin=span.begin,
            end=span.end,
            complete=span.complete,
            rules=settings.rules(),
            outcome_topics=settings.outcome_topics,
            dead_letter=settings.output.dead_letter,
            output_partitions=output.partitions,
            work=str(work.resolve()),
            indexes=tuple(one.name for one in output.index_results),
            log_end=source.log_ends.get(partition),
            latest_mark_ms=latest_mark_ms,
            accepted=options.accepted,
            earlier_rules=options.earlier_rules,
            switch=span.switch,
            archives=span.parts,
            capture=options.capture,
            shortened=tuple(sorted(output.shortened)),
            held=tuple(sorted({(topic, p) for one in output.index_results for topic, p, _ in one.held})),
            holes=tuple(sorted(output.holes)),
            broker_times=tuple(sorted(place for one in output.index_results for place in one.broker_times)),
            is_captured=span.is_captured,
            is_headless=span.is_headless,
            captured_outputs=tuple(sorted(output.captured)),
            connection=settings.kafka.connection() if source.reads_topic else None,
            record=str(Path(options.record).resolve()) if options.record else "",
            record_files=options.record_files,
            verify=options.verify,
            tables=bool(options.report or options.against),
            notes_ids=len(source.spans) > 1,
            only=options.only,
            no_progress_s=options.no_progress_s,
        )
        for partition, span in sorted(source.spans.items())
    ]


def about_replay(
    options: Options, settings: Settings, source: SourceSurvey, output: OutputSurvey, split: Split
) -> About:
    """Describe the replay itself, for its report. `split`: runs and steps that stand on several partitions."""
    only = options.only
    named = {"steps": only.steps, "runs": only.runs, "threads": only.threads}
    return About(
        program=program(),
        fold_version=FOLD_VERSION,
        topic=source.topic,
        source=source.words(),
        rules=settings.rules(),
        outcome_topics=settings.outcome_topics,
        dead_letter=settings.output.dead_letter,
        output_partitions=dict(sorted(output.partitions.items())),
        narrowed={name: sorted(ids) for name, ids in named.items() if ids},
        notes=[*source.notes, *output.notes],
        reading=source.reading,
        verified=options.verify,
        sole_source=options.sole_source,
        not_judged=summed(output.index_results)[1],
        held=sorted(held for one in output.index_results for held in one.held),
        split=split,
    )
