"""`run-steps replay`: options, progress and the summary that it prints."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from processor.cli import replay_options as option
from processor.cli.options import ConfigOption, connection_of, end_with, load_settings, require_text
from processor.cli.report_check import check_report, require_signing_options, sign_report, signing_key_of
from processor.cli.terminal import plain
from processor.errors import UsageError
from processor.printable import print_json, print_line, warn
from processor.printable_console import Console

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from processor.audit.replay.options import Options
    from processor.audit.replay.outcome import Progress, Replayed
    from processor.audit.replay.task import StepFilter
    from processor.config.settings import Settings


def replay(
    config: ConfigOption = None,
    start: option.Start = "beginning",
    end: option.End = "",
    archive: option.Archive = None,
    and_topic: option.AndTopic = False,
    published: option.Published = None,
    capture_pattern: option.CapturePattern = "",
    capture_topic: option.CaptureTopic = "",
    capture_partition: option.CapturePartition = None,
    partition: option.Partition = None,
    steps: option.Steps = None,
    runs: option.Runs = None,
    threads: option.Threads = None,
    record: option.Record = None,
    record_as: option.RecordAs = "jsonl.gz",
    workers: option.Workers = 1,
    dask: option.Dask = "",
    work: option.Work = None,
    report: option.Report = None,
    created: option.Created = None,
    sole_source: option.SoleSource = False,
    accept_fold: option.AcceptFold = None,
    accept_rules: option.AcceptRules = None,
    earlier_config: option.EarlierConfig = None,
    no_verify: option.NoVerify = False,
    against: option.Against = None,
    check: option.Check = None,
    sign: option.Sign = None,
    signer: option.Signer = "",
    trust: option.Trust = None,
    as_json: option.AsJson = False,
) -> None:
    """Prove what was published from the log, or show where it is wrong.

    Reads only, joins no group. Exit code 0: proven; 3: a difference was found; 4: not provable.
    """
    _require_extra()
    require_signing_options(sign=sign, signer=signer, report=report, trust=trust, check=check)
    for name, ids in (("--steps", steps), ("--runs", runs), ("--threads", threads)):
        require_text(f"replay: {name}", ids or ())
    for name, folder in (("--report", report), ("--check", check), ("--against", against)):
        require_text(f"replay: {name}", [str(folder or "")], "what reads the tables takes no other name of a folder")
    capture = option.capture_of(capture_pattern, capture_topic, capture_partition)
    if check is not None:
        if not os.path.exists(check):  # a name that is too long is none, too
            raise UsageError(
                f"replay: --check: {check}: there is no such folder", hint="name the folder that `replay` has written"
            )
        option.warn_of_hidden_files(archive or [])
        check_report(check, archive or [], capture, trust or [])
        return
    key = signing_key_of(sign)
    _begin_processes(workers, dask)
    from processor.audit.replay.options import Options

    settings = load_settings(config)
    options = Options(
        start=start,
        end=end,
        archives=tuple(map(str, archive or ())),
        and_topic=and_topic,
        published=tuple(map(str, published or ())),
        capture=capture,
        partitions=tuple(partition or ()),
        only=_filter(steps, runs, threads),
        record=str(record or ""),
        record_files=f".{record_as.removeprefix('.')}",
        workers=workers,
        dask=dask,
        report=str(report or ""),
        created=created,
        work=str(work or ""),
        verify=not no_verify,
        against=str(against or ""),
        sole_source=sole_source,
        accepted=option.accepted_of(accept_fold, accept_rules),
        earlier_rules=option.rules_of(earlier_config),
    )
    option.warn_of_hidden_files([*(archive or ()), *(published or ())])
    replayed = _run(options, settings)
    if key is not None and report is not None:
        sign_report(report, replayed.root, key, signer)
    if as_json:
        print_json(msgspec.to_builtins(replayed))
    else:
        _print_summary(replayed, archive=options.record)
    end_with(replayed.exit_code)


def _require_extra() -> None:
    from processor.audit.replay.extra import require

    require("replay")


def _begin_processes(workers: int, dask: str) -> None:
    if workers > 1 and not dask:
        from processor.audit.replay import process_pool

        process_pool.begin()


def _run(options: Options, settings: Settings) -> Replayed:
    from processor.audit.replay.command import replay as run

    with _progress() as show:
        return run(options, settings, lambda: connection_of(settings), show)


def _filter(steps: list[str] | None, runs: list[str] | None, threads: list[str] | None) -> StepFilter:
    from processor.audit.replay.task import StepFilter

    return StepFilter(tuple(steps or ()), tuple(runs or ()), tuple(threads or ()))


@contextmanager
def _progress() -> Iterator[Callable[[Progress], None]]:
    """On a terminal a bar with rate and time left; else a line now and then. Both on standard error."""
    import time

    if sys.stderr.isatty():
        from rich import progress as bars

        columns = (
            bars.TextColumn("{task.description}"),
            bars.BarColumn(),
            bars.MofNCompleteColumn(),
            bars.TextColumn("{task.fields[rate]}"),
            bars.TimeRemainingColumn(),
        )
        with bars.Progress(*columns, console=Console(stderr=True), transient=True) as shown:
            bar = shown.add_task("", rate="")

            def show(at: Progress) -> None:
                task = shown.tasks[0]
                if task.description != at.what:
                    shown.reset(bar, description=plain(at.what), total=at.total or None)
                speed = shown.tasks[0].speed
                shown.update(bar, completed=at.done, total=at.total or None, rate=f"{speed:,.0f}/s" if speed else "")

            yield show
        return
    began = told = time.monotonic()
    stage = ""

    def say(at: Progress) -> None:
        nonlocal began, told, stage
        now = time.monotonic()
        if at.what != stage:
            stage, began, told = at.what, now, now
        if now - told < _LINE_EVERY_S:
            return
        told = now
        rate = at.done / (now - began)
        left = f", {max(0, at.total - at.done) / rate:,.0f} s left" if at.total and rate else ""
        warn(f"{at.what}: {at.done:,}" + (f" of {at.total:,}" if at.total else "") + f", {rate:,.0f}/s{left}")

    yield say


_LINE_EVERY_S = 5.0


def _print_summary(replayed: Replayed, *, archive: str = "") -> None:
    """Print the verdict first, then counts, ranges and findings. `archive`: the one that was recorded, if any."""
    from processor.audit.report.manifest import Outcome

    # What is not judged limits a proof; of another verdict it is no reason.
    is_proof = replayed.verdict is Outcome.PROVEN
    besides = (", but for" if is_proof else "; besides,") + " what is not judged:"
    print_line(replayed.verdict.value + (besides if replayed.not_judged else ""))
    for line in replayed.not_judged:
        print_line(f"  not judged: {line}")
    for kind, verdicts in replayed.counts.items():
        told = ", ".join(f"{n:,} {verdict}" for verdict, n in sorted(verdicts.items()) if n)
        print_line(f"  {kind.replace('_', ' ')}s: {told or 'none'}")
    print_line(
        "  offsets: " + (", ".join(f"{n:,} {kind}" for kind, n in sorted(replayed.coverage.items()) if n) or "none")
    )
    if redriven := sum(result.redriven for result in replayed.results):
        print_line(f"  redriven: {redriven:,} of the records were put back by a redrive of dead letters, as they say")
    for result in replayed.results:
        whole = "" if result.complete else ", not from the log's beginning"
        is_open = f"{result.open_steps:,} step{'' if result.open_steps == 1 else 's'} open"
        print_line(f"  partition {result.partition}: [{result.begin}, {result.end}){whole}, {is_open}")
    for line in _first_findings(replayed):
        print_line(f"  {line}")
    if replayed.outputs.get("unreadable"):
        print_line(f"  records that belong to no source: {replayed.outputs['unreadable']:,}")
    if replayed.against is not None:
        other = replayed.against
        compared = f"{other.blocks_compared:,} blocks of the source compared, {other.blocks:,} differ"
        print_line(f"  against {other.report}: {compared}")
        for block in other.first_blocks:
            held = f"{block.records_here} records, {block.records_there} there"
            print_line(f"    partition {block.partition}, offsets {block.first} to {block.last}: {held}")
        print_line(f"  against {other.report}: {other.same:,} steps the same, {other.differing:,} not")
        for one in other.examples:
            what = ", ".join(one.columns) or one.what
            print_line(
                f"    {one.step_id} revision {one.revision}, partition {one.partition}, offset {one.offset}: {what}"
            )
    for line in (*replayed.about.reading, *replayed.about.notes, *replayed.questions):
        print_line(f"  {line}")
    if archive:
        print_line(f"  archive: {archive}")
    if replayed.report:
        print_line(f"  report: {replayed.report} (root {replayed.root})")
    if replayed.not_judged:
        of_range = ": of the range alone" if is_proof else ""
        print_line(f"{replayed.verdict.value}{of_range}. Not judged: {' '.join(replayed.not_judged)}")


def _first_findings(replayed: Replayed) -> Iterator[str]:
    """The first findings that differ, else the first unverifiable ones, with place and fields. The report has all."""
    from processor.audit.judge.verdicts import DISAGREES
    from processor.audit.replay.task import FIRST

    for finding in sorted(replayed.first, key=lambda one: one.verdict not in DISAGREES)[:FIRST]:
        one, two = finding.identity
        what = {"step": f"step {one} revision {two}", "dead_letter": f"dead letter of offset {one} ({two})"}
        place = f", partition {finding.partition}, offsets {finding.first_offset} to {finding.cause_offset}"
        at = "" if finding.at is None else f", on {finding.at[0]}-{finding.at[1]} at {finding.at[2]}"
        fields = ", ".join(difference.path for difference in finding.differences)
        why = "; ".join(filter(None, (fields, finding.why)))
        whole = what[finding.kind.value] + place if one else "a record that names no place of the source"
        told = f"{finding.verdict.value}: {whole}{at}" + (f": {why}" if why else "")
        yield told
