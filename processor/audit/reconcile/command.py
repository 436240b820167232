"""The command `reconcile`: compare the steps that the service lists with the published ones."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from processor.archives import CAPTURE, Capture
from processor.audit.judge.verdicts import Verdict
from processor.audit.reconcile import response_objects
from processor.audit.reconcile.comparison import StepResult, compare_listed, not_listed, paths_counted
from processor.audit.reconcile.published_steps import PublishedSteps
from processor.audit.reconcile.service_lists import ServiceLists, read_lists
from processor.audit.replay.outcome import EXIT_CODES, program
from processor.audit.report.manifest import Outcome
from processor.config.settings import Settings
from processor.errors import UsageError
from processor.kafka.client_config import Connection

_DISAGREES: Final = frozenset({Verdict.DIFFERENT, Verdict.MISSING, Verdict.EXTRA})


class Reconciled(msgspec.Struct, frozen=True, kw_only=True):
    """Result of a comparison.

    Attributes:
        counts: steps by verdict; `open` had not ended when the list was made, and nothing was published.
        not_in_lists, only_in_lists: by path, in how many steps one side alone says something; no contradiction.
        steps: one entry for each step that was compared.
    """

    verdict: Outcome
    program: str
    topics: list[str]
    counts: dict[str, int]
    runs: int
    records: int
    unreadable: int
    not_in_lists: dict[str, int]
    only_in_lists: dict[str, int]
    notes: list[str]
    steps: list[StepResult]

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.verdict]


def reconcile(
    paths: Sequence[Path],
    settings: Settings,
    connection: Callable[[], Connection],
    *,
    published: Sequence[Path] = (),
    capture: Capture = CAPTURE,
    partial: bool = False,
) -> Reconciled:
    """Read the lists and what was published, and compare.

    Args:
        published: archives of the output topics, read in place of the topics.
        capture: where archives of Event Hubs Capture say which topic and partition they are of.
        partial: the lists do not hold all steps of their runs.

    Raises:
        ListError, UsageError, ArchiveError, BrokerUnavailable, BrokerRefused.
    """
    lists = read_lists(paths)
    if not lists.steps:
        raise UsageError("reconcile: the lists hold no step", hint="a run without steps proves nothing")
    found = PublishedSteps(settings, lists.steps, lists.runs)
    if published:
        found.read_archives(published, capture)
    else:
        asyncio.run(found.read_topics(connection))
    lists.place_responses(found.newest)
    return compared(lists, found, partial=partial)


def compared(lists: ServiceLists, found: PublishedSteps, *, partial: bool = False) -> Reconciled:
    """Compare the lists with the published steps."""
    results, still_open = [], 0
    latest = lists.latest()
    for step_id, listed in sorted(lists.steps.items()):
        result = compare_listed(
            listed,
            list(found.newest.get(step_id, {}).values()),
            reference=found.references.get(step_id, ""),
            doubt=found.doubt,
            conflicting=step_id in lists.conflicting,
        )
        if result is None:
            still_open += 1
        else:
            results.append(result)
    for step_id, by_partition in sorted(found.newest.items()):
        if step_id not in lists.steps:
            newest = max(by_partition.values(), key=lambda one: one.order)
            run_id = str(newest.snapshot.get("run_id"))
            whole = lists.runs.get(run_id, False) and not partial
            results.append(not_listed(newest, whole=whole, latest_s=latest.get(run_id)))
    counts = Counter(result.verdict for result in results)
    if counts[Verdict.MISSING]:
        found.note_missing()
    return Reconciled(
        verdict=_verdict(counts),
        program=program(),
        topics=found.topics,
        counts={**{verdict.value: n for verdict, n in sorted(counts.items())}, "open": still_open},
        runs=len(lists.runs),
        records=found.read,
        unreadable=found.unreadable,
        not_in_lists=paths_counted(results, "not_in_list"),
        only_in_lists=paths_counted(results, "only_in_list"),
        notes=_notes(lists, found, still_open),
        steps=results,
    )


def _verdict(counts: Counter[Verdict]) -> Outcome:
    if any(counts[verdict] for verdict in _DISAGREES):
        return Outcome.DIFFERENT
    return Outcome.PROVEN if counts[Verdict.EQUAL] and not counts[Verdict.UNVERIFIABLE] else Outcome.UNPROVABLE


def _notes(lists: ServiceLists, found: PublishedSteps, still_open: int) -> list[str]:
    notes = list(found.notes)
    if still_open:
        notes.append(
            f"{still_open:,} listed steps had not ended when their list was made, and nothing was published of them."
        )
    unfinished = sorted(run_id for run_id, whole in lists.runs.items() if not whole and run_id not in lists.responses)
    if unfinished:
        notes.append(
            f"Of {len(unfinished):,} runs the last page is not there (has_more is true), {unfinished[0][:80]} for one: "
            "published steps that are not in their lists are not judged."
        )
    cut = sorted(own for own, response in lists.responses.items() if not response_objects.is_whole(response))
    if cut:
        notes.append(
            f"{len(cut):,} responses have not completed, {cut[0][:80]} for one: their output may lack items, so "
            "published steps that are not in it are not judged."
        )
    if found.unreadable:
        notes.append(f"{found.unreadable:,} records on the outcome topics name no step of the source, or are not JSON.")
    return notes
